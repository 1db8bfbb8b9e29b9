use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::SystemTime,
};

use flate2::{Compression, write::GzEncoder};
use proto::Recovery;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::helm::{ChartInfo, RenderError};

const DAY: Duration = Duration::from_hours(24);

/// An archive with the files in their order.
fn pack(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A release that brings itself.
#[derive(Debug, Default)]
struct Release {
    version: u32,
    files: BTreeMap<String, Vec<u8>>,
    /// In place of files, after the first of them.
    fails: Option<Recovery>,
    brought: AtomicUsize,
}

impl Release {
    fn new(version: u32) -> Self {
        let metadata = format!(
            "apiVersion: metadata.clusterstack.x-k8s.io/v1alpha1\nversions:\n  clusterStack: v{version}\n  kubernetes: v1.30.4\n  components: {{}}\n"
        );
        let chart = format!("name: class\nversion: {version}\n");
        let release = Self {
            version,
            ..Self::default()
        };
        release.with("metadata.yaml", metadata).with(
            &format!("docker-scs-1-30-cluster-class-v{version}.tgz"),
            pack(&[("class/Chart.yaml", &chart), ("class/values.yaml", "a: 1")]),
        )
    }

    fn with(mut self, file: &str, content: impl AsRef<[u8]>) -> Self {
        self.files.insert(file.to_owned(), content.as_ref().into());
        self
    }

    fn without(mut self, file: &str) -> Self {
        self.files.remove(file).unwrap();
        self
    }

    fn with_addon(mut self, files: &[(&str, &str)]) -> Self {
        let metadata = self.files.get_mut("metadata.yaml").unwrap();
        let text = String::from_utf8_lossy(metadata)
            .replace("components: {}", "components: {clusterAddon: v1}");
        *metadata = text.into_bytes();
        self.with("docker-scs-1-30-cluster-addon-v1.tgz", pack(files))
    }

    /// Two stages; one of the charts depends on another.
    fn with_stages(self, dependencies: &str) -> Self {
        self.with(
            "clusteraddon.yaml",
            "addonStages: {AfterControlPlaneInitialized: [{name: cni, action: apply}, {name: metrics, action: apply}]}",
        )
        .with_addon(&[
            (".helmignore", "x"),
            ("metrics/Chart.yaml", "name: metrics\nversion: 1"),
            (
                "cni/Chart.yaml",
                &format!("name: cni\nversion: 1\ndependencies: {dependencies}"),
            ),
            ("cni/overwrite.yaml", "values: |\n  a: 1"),
            ("other/Chart.yaml", "name: other\nversion: 1"),
        ])
    }

    fn failing(recovery: Recovery) -> Self {
        Self {
            fails: Some(recovery),
            ..Self::new(1)
        }
    }

    fn name(&self) -> ReleaseName {
        ReleaseName::parse(&format!("docker-scs-1-30-v{}", self.version)).unwrap()
    }

    fn brought(&self) -> usize {
        self.brought.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl BringFiles for Release {
    async fn bring(&self, into: &Path) -> Result<(), BringError> {
        assert_eq!(fs::read_dir(into).unwrap().count(), 0);
        self.brought.fetch_add(1, Ordering::SeqCst);
        for (file, content) in &self.files {
            fs::write(into.join(file), content).unwrap();
            if let Some(recovery) = self.fails {
                return Err(BringError::new(recovery, "the line was cut"));
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

/// In place of Helm and the repositories: every chart that is asked for lacks "cilium".
#[derive(Default)]
struct Repository {
    inspected: AtomicUsize,
    fetched: AtomicUsize,
    down: AtomicBool,
    archive: Vec<u8>,
    recorded: Mutex<Vec<PinnedDependency>>,
}

impl Repository {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            archive: pack(&[("cilium/Chart.yaml", "name: cilium\nversion: 1.16.0")]),
            ..Self::default()
        })
    }

    fn pinned(&self) -> PinnedDependency {
        PinnedDependency {
            chart: "cni".to_owned(),
            name: "cilium".to_owned(),
            version: "1.16.0".to_owned(),
            repository: "https://helm.cilium.io/".to_owned(),
            digest: format!("sha256:{}", hex::encode(Sha256::digest(&self.archive))),
        }
    }

    fn counts(&self) -> (usize, usize) {
        (
            self.inspected.load(Ordering::SeqCst),
            self.fetched.load(Ordering::SeqCst),
        )
    }
}

#[async_trait]
impl ChartSource for Arc<Repository> {
    async fn inspect(&self, chart: &Path) -> Result<ChartInfo, RenderError> {
        assert!(chart.exists());
        self.inspected.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Ok(ChartInfo {
            name: chart.file_name().unwrap().to_string_lossy().into_owned(),
            version: "1".to_owned(),
            chart_type: String::new(),
            annotations: BTreeMap::new(),
            dependencies: Vec::new(),
            lock: None,
            vendored: Vec::new(),
            missing: vec!["cilium".to_owned()],
            random: Vec::new(),
        })
    }

    async fn resolve(
        &self,
        info: &ChartInfo,
        recorded: &[PinnedDependency],
    ) -> Result<Vec<PinnedDependency>, DependencyError> {
        assert_eq!(info.missing, ["cilium"]);
        *self.recorded.lock().unwrap() = recorded.to_vec();
        Ok(vec![self.pinned()])
    }

    async fn fetch(
        &self,
        pinned: &PinnedDependency,
        into: &Path,
    ) -> Result<PathBuf, DependencyError> {
        if self.down.load(Ordering::SeqCst) {
            return Err(DependencyError::Refused {
                url: pinned.repository.clone(),
                status: 503,
                retry_after: None,
            });
        }
        self.fetched.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let path = into.join(format!("{}.tgz", pinned.digest.replace(':', "-")));
        fs::write(&path, &self.archive).unwrap();
        Ok(path)
    }
}

/// A cache folder with the store of one process after the other.
struct Cache {
    folder: TempDir,
    repository: Arc<Repository>,
}

impl Cache {
    fn new() -> Self {
        Self {
            folder: TempDir::new().unwrap(),
            repository: Repository::new(),
        }
    }

    /// The store as a new process has it.
    async fn open(&self) -> Store {
        self.open_with(StoreLimits::default()).await
    }

    async fn open_with(&self, limits: StoreLimits) -> Store {
        let source = Box::new(Arc::clone(&self.repository));
        Store::with_charts(self.folder.path(), source, limits)
            .await
            .unwrap()
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    fn entry(&self, release: &StoredRelease) -> PathBuf {
        let hex = release.digest.strip_prefix("sha256:").unwrap();
        self.path("releases").join(hex)
    }

    /// Nothing in the making, and as many releases.
    fn assert_holds(&self, releases: usize) {
        assert_eq!(self.names("tmp"), Vec::<String>::new());
        assert_eq!(self.names("releases").len(), releases);
    }
}

async fn add(store: &Store, release: &Release) -> Arc<StoredRelease> {
    store.add(release, &release.name(), &[]).await.unwrap()
}

async fn refused(store: &Store, release: &Release) -> StoreError {
    store.add(release, &release.name(), &[]).await.unwrap_err()
}

async fn find(store: &Store, digest: &str) -> Option<Arc<StoredRelease>> {
    let name = Release::new(1).name();
    store.find(digest, &name, &[]).await.unwrap()
}

fn set_age(path: &Path, age: Duration) {
    let times = fs::FileTimes::new().set_modified(SystemTime::now() - age);
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

fn in_hours(hours: u64) -> Timestamp {
    Timestamp::now() + Duration::from_hours(hours)
}

#[tokio::test]
async fn an_added_release_is_found_with_the_charts_of_its_stages() {
    let cache = Cache::new();
    let release = Release::new(1).with_stages("[]");
    let added = add(&cache.open().await, &release).await;
    cache.assert_holds(1);
    let entry = cache.entry(&added);
    for (file, content) in &release.files {
        assert_eq!(&fs::read(entry.join("files").join(file)).unwrap(), content);
    }
    let lines: Vec<_> = release
        .files
        .iter()
        .map(|(file, content)| {
            let digest = hex::encode(Sha256::digest(content));
            format!("{digest} {} {file}\n", content.len())
        })
        .collect();
    let digest = hex::encode(Sha256::digest(lines.concat()));
    assert_eq!(added.digest, format!("sha256:{digest}"));

    let archive = &release.files["docker-scs-1-30-cluster-class-v1.tgz"];
    assert_eq!(
        added.class,
        StoredChart {
            path: added.content.class_chart.clone(),
            digest: format!("sha256:{}", hex::encode(Sha256::digest(archive))),
            dependencies: Vec::new(),
        }
    );
    assert_eq!(&fs::read(&added.class.path).unwrap(), archive);
    let addon = added.content.addon.as_ref().unwrap();
    assert!(addon.chart.starts_with(&entry) && addon.chart.exists());
    let AddonCharts::Stages(charts) = &added.addon else {
        panic!("{:?}", added.addon)
    };
    assert_eq!(charts.keys().collect::<Vec<_>>(), ["cni", "metrics"]);
    assert_ne!(charts["cni"].digest, charts["metrics"].digest);
    assert_eq!(
        fs::read_to_string(charts["cni"].path.join("overwrite.yaml")).unwrap(),
        "values: |\n  a: 1"
    );
    assert!(charts["metrics"].path.join("Chart.yaml").exists());
    assert_eq!(fs::read_dir(entry.join("addons")).unwrap().count(), 2);
    assert_eq!(added.dependencies, []);

    let store = cache.open().await;
    for _ in 0..2 {
        assert_eq!(find(&store, &added.digest).await.as_ref(), Some(&added));
    }
    assert_eq!(release.brought(), 1);
    assert_eq!(cache.repository.counts(), (0, 0));
}

#[tokio::test]
async fn addons_are_one_chart_or_none() {
    let cache = Cache::new();
    let store = cache.open().await;
    let none = add(&store, &Release::new(1)).await;
    assert_eq!(none.addon, AddonCharts::None);
    let release = Release::new(1)
        .with_addon(&[("addon/Chart.yaml", "name: addon\nversion: 1")])
        .with("cluster-addon-values.yaml", "values: a");
    let single = add(&store, &release).await;
    let archive = &release.files["docker-scs-1-30-cluster-addon-v1.tgz"];
    assert_eq!(
        single.addon,
        AddonCharts::Single(StoredChart {
            path: single.content.addon.as_ref().unwrap().chart.clone(),
            digest: format!("sha256:{}", hex::encode(Sha256::digest(archive))),
            dependencies: Vec::new(),
        })
    );
    assert!(!cache.entry(&single).join("addons").exists());
    cache.assert_holds(2);
    let store = cache.open().await;
    assert_eq!(find(&store, &single.digest).await, Some(single));
    assert_eq!(find(&store, &none.digest).await, Some(none));
}

#[tokio::test]
async fn equal_content_is_kept_once_however_many_add_it() {
    let cache = Cache::new();
    let stores = [cache.open().await, cache.open().await];
    let release = Release::new(1).with_stages("[]");
    let adds = (0..20).map(|number| add(&stores[number % 2], &release));
    let added = futures::future::join_all(adds).await;
    assert!(added.iter().all(|one| one == &added[0]));
    cache.assert_holds(1);
    // charts of stages that are equal in other releases have equal digests
    let other = Release::new(2).with_stages("[]");
    let other = add(&stores[0], &other).await;
    assert_eq!(other.digest.len(), added[0].digest.len());
    let (AddonCharts::Stages(one), AddonCharts::Stages(two)) = (&other.addon, &added[0].addon)
    else {
        panic!("stages")
    };
    assert_eq!(one["cni"].digest, two["cni"].digest);
    assert_ne!(one["cni"].path, two["cni"].path);
}

// pitfalls 13, 57
#[tokio::test]
async fn what_a_killed_process_leaves_behind_is_no_release() {
    let cache = Cache::new();
    let release = Release::new(1).with_stages("[]");
    let added = add(&cache.open().await, &release).await;
    let (entry, kept) = (cache.entry(&added), cache.path("kept"));
    fs::rename(&entry, &kept).unwrap();

    // stopped while it brought files, unpacked, or was about to rename
    for (number, stop) in [
        "",
        "files",
        "files/metadata.yaml",
        "addons/cni/Chart.yaml",
        "all",
    ]
    .into_iter()
    .enumerate()
    {
        let left = cache.path("tmp").join(format!("left{number}"));
        match stop {
            "all" => fs::rename(&kept, &left).unwrap(),
            stop if stop.contains('.') => {
                let path = left.join(stop);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::copy(kept.join(stop), path).unwrap();
            }
            stop => fs::create_dir_all(left.join(stop)).unwrap(),
        }
    }
    let store = cache.open().await;
    cache.assert_holds(0);
    assert_eq!(find(&store, &added.digest).await, None);
    assert_eq!(add(&store, &release).await, added);
    cache.assert_holds(1);
}

// pitfall 13
#[tokio::test]
async fn what_the_disk_has_changed_is_removed_and_fetched_again() {
    let cache = Cache::new();
    let release = Release::new(1).with_stages("[]");
    let added = add(&cache.open().await, &release).await;
    let entry = cache.entry(&added);
    let class = "files/docker-scs-1-30-cluster-class-v1.tgz";
    let flip = |file: &str, byte: usize| {
        let path = entry.join(file);
        let mut content = fs::read(&path).unwrap();
        content[byte] ^= 1;
        fs::write(path, content).unwrap();
    };
    let damages: &[(&str, &dyn Fn())] = &[
        ("a bit of the class", &|| flip(class, 20)),
        ("a bit of the metadata", &|| flip("files/metadata.yaml", 0)),
        ("a bit of a stage", &|| flip("addons/cni/Chart.yaml", 6)),
        ("a file is cut", &|| {
            fs::write(entry.join(class), "").unwrap();
        }),
        ("a file is gone", &|| {
            fs::remove_file(entry.join(class)).unwrap();
        }),
        ("a file of a stage is gone", &|| {
            fs::remove_file(entry.join("addons/cni/overwrite.yaml")).unwrap();
        }),
        ("stages are gone", &|| {
            fs::remove_dir_all(entry.join("addons")).unwrap();
        }),
        ("files are gone", &|| {
            fs::remove_dir_all(entry.join("files")).unwrap();
        }),
        ("a file more", &|| {
            fs::write(entry.join("files/more"), "").unwrap();
        }),
        ("a file more in a stage", &|| {
            fs::write(entry.join("addons/cni/more"), "").unwrap();
        }),
        ("a folder in place of a file", &|| {
            fs::create_dir(entry.join("files/more")).unwrap();
        }),
        ("a link in a stage", &|| {
            symlink("/etc", entry.join("addons/cni/templates")).unwrap();
        }),
        ("a file in place of the release", &|| {
            fs::remove_dir_all(&entry).unwrap();
            fs::write(&entry, "").unwrap();
        }),
        ("nothing in the release", &|| {
            fs::remove_dir_all(&entry).unwrap();
            fs::create_dir(&entry).unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        let store = cache.open().await;
        assert_eq!(find(&store, &added.digest).await, None, "{what}");
        cache.assert_holds(0);
        let brought = release.brought();
        assert_eq!(add(&store, &release).await, added, "{what}");
        assert_eq!(release.brought(), brought + 1);
        assert_eq!(find(&store, &added.digest).await.as_ref(), Some(&added));
        // one that is damaged when equal content is added gives way, too
        damage();
        assert_eq!(
            add(&cache.open().await, &release).await,
            added,
            "{what}, in place"
        );
        assert!(added.class.path.exists());
    }
    cache.assert_holds(1);
}

#[tokio::test]
async fn one_process_looks_at_all_bytes_once_and_then_for_the_charts() {
    let cache = Cache::new();
    let release = Release::new(1).with_stages("[]");
    let added = add(&cache.open().await, &release).await;
    let store = cache.open().await;
    find(&store, &added.digest).await.unwrap();
    fs::write(cache.entry(&added).join("files/hashes.json"), "{}").unwrap();
    find(&store, &added.digest).await.unwrap();
    let AddonCharts::Stages(charts) = &added.addon else {
        panic!("stages")
    };
    fs::remove_file(charts["cni"].path.join("Chart.yaml")).unwrap();
    assert_eq!(find(&store, &added.digest).await, None);
    cache.assert_holds(0);
}

#[tokio::test]
async fn the_cache_may_be_emptied_at_any_time() {
    let cache = Cache::new();
    let store = cache.open().await;
    let release = Release::new(1).with_stages("[{name: cilium}]");
    let added = add(&store, &release).await;
    for folder in ["releases", "charts", "tmp", "."] {
        for entry in cache.names(folder) {
            fs::remove_dir_all(cache.path(folder).join(&entry))
                .or_else(|_| fs::remove_file(cache.path(folder).join(&entry)))
                .unwrap();
        }
        let found = find(&store, &added.digest).await;
        assert_eq!(found.is_some(), matches!(folder, "charts" | "tmp"));
        assert_eq!(add(&store, &release).await, added);
        let AddonCharts::Stages(charts) = &added.addon else {
            panic!("stages")
        };
        assert!(charts["cni"].dependencies[0].exists(), "{folder}");
        assert!(added.class.path.exists());
    }
}

#[tokio::test]
async fn a_source_that_fails_leaves_nothing_and_its_class() {
    let cache = Cache::new();
    let store = cache.open().await;
    for recovery in [Recovery::Unknown, Recovery::FAST, Recovery::Slow] {
        let error = refused(&store, &Release::failing(recovery)).await;
        assert_eq!(error.recovery(), recovery);
        assert_eq!(error.digest(), None);
        assert_eq!(
            error.to_string(),
            "failed to fetch the files of \"docker-scs-1-30-v1\""
        );
        let source = std::error::Error::source(&error).unwrap();
        assert_eq!(source.to_string(), "the line was cut");
        cache.assert_holds(0);
    }
    // nobody waits any more
    let release = Release::new(1);
    let name = release.name();
    let mut add = Box::pin(store.add(&release, &name, &[]));
    while release.brought() == 0 {
        assert!(futures::poll!(&mut add).is_pending());
        tokio::task::yield_now().await;
    }
    assert_eq!(cache.names("tmp").len(), 1);
    drop(add);
    cache.assert_holds(0);
}

#[tokio::test]
async fn releases_in_the_making_are_not_swept_away() {
    let cache = Cache::new();
    let store = cache.open().await;
    let release = Release::new(1);
    let name = release.name();
    let mut add = Box::pin(store.add(&release, &name, &[]));
    while release.brought() == 0 {
        assert!(futures::poll!(&mut add).is_pending());
        tokio::task::yield_now().await;
    }
    // another replica starts and cleans up, and this one, too
    let other = cache.open().await;
    other.collect(in_hours(48), DAY).await.unwrap();
    store.collect(in_hours(48), DAY).await.unwrap();
    assert_eq!(cache.names("tmp").len(), 1);
    let added = add.await.unwrap();
    assert_eq!(find(&other, &added.digest).await, Some(added));
}

// pitfalls 58, 59
#[tokio::test]
async fn invalid_releases_are_refused_and_leave_nothing() {
    let cache = Cache::new();
    let store = cache
        .open_with(StoreLimits {
            files: 6,
            bytes: 100_000,
            ..StoreLimits::default()
        })
        .await;
    let class = "docker-scs-1-30-cluster-class-v1.tgz";
    let chart = pack(&[("class/Chart.yaml", "name: class")]);
    let many = (0..7).fold(Release::new(1), |release, number| {
        release.with(&format!("topology-{number}.yaml"), "")
    });
    for (release, message) in [
        (
            Release::new(1).without("metadata.yaml"),
            "the release lacks \"metadata.yaml\"",
        ),
        (
            Release::new(1)
                .without(class)
                .with("docker-scs-1-30-cluster-class-v10.tgz", &chart),
            "the release lacks \"docker-scs-1-30-cluster-class-v1.tgz\", there is only \"docker-scs-1-30-cluster-class-v10.tgz\"",
        ),
        (
            Release {
                version: 2,
                ..Release::new(1)
            },
            "expected \"v2\" as in the name of the release",
        ),
        (
            Release::new(1).with(class, "<html>Not found</html>"),
            "\"docker-scs-1-30-cluster-class-v1.tgz\" is no archive: expected a tar compressed with gzip, found a page in HTML",
        ),
        (
            Release::new(1).with(class, pack(&[("class/values.yaml", "")])),
            "\"docker-scs-1-30-cluster-class-v1.tgz\" lacks \"class/Chart.yaml\"",
        ),
        (
            Release::new(1).with(class, &chart[..chart.len() - 10]),
            "is damaged",
        ),
        (
            Release::new(1)
                .with_stages("[]")
                .with_addon(&[("cni/Chart.yaml", "name: cni")]),
            "\"docker-scs-1-30-cluster-addon-v1.tgz\" lacks \"metrics/Chart.yaml\", there is only \"cni\"",
        ),
        (many, "expected at most 6 files, found more"),
        (
            Release::new(1).with("large", vec![0; 100_000]),
            "expected at most 100000 bytes, found more",
        ),
        (
            Release::new(1).with("a\nb", ""),
            "expected names in UTF-8 without control characters, found \"a\u{fffd}b\"",
        ),
    ] {
        let error = refused(&store, &release).await;
        assert!(error.to_string().contains(message), "{error}");
        assert_eq!(error.recovery(), Recovery::Terminal, "{error}");
        assert_eq!(error.digest(), None);
        cache.assert_holds(0);
    }
}

/// A release with something beside its files.
struct With<F>(Release, F);

#[async_trait]
impl<F: Fn(&Path) -> std::io::Result<()> + Send + Sync> BringFiles for With<F> {
    async fn bring(&self, into: &Path) -> Result<(), BringError> {
        self.0.bring(into).await?;
        (self.1)(into).map_err(|error| BringError::new(Recovery::Unknown, error))
    }
}

#[tokio::test]
async fn only_files_are_taken() {
    let cache = Cache::new();
    let store = cache.open().await;
    let folder = With(Release::new(1), |into: &Path| {
        fs::create_dir(into.join("folder"))
    });
    let link = With(Release::new(1), |into: &Path| {
        symlink("/etc/hostname", into.join("link"))
    });
    let name = Release::new(1).name();
    for (error, found) in [
        (store.add(&folder, &name, &[]).await.unwrap_err(), "folder"),
        (store.add(&link, &name, &[]).await.unwrap_err(), "link"),
    ] {
        assert_eq!(
            error.to_string(),
            format!(
                "the files of \"docker-scs-1-30-v1\" are wrong: expected only files, found \"{found}\", which is something else"
            )
        );
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
    cache.assert_holds(0);
}

#[tokio::test]
async fn a_disk_that_refuses_says_nothing_about_the_release() {
    let cache = Cache::new();
    let store = cache.open().await;
    let release = Release::new(1);
    for (folder, message) in [
        (
            "releases",
            "failed to read the files of \"docker-scs-1-30-v1\" in the release store",
        ),
        ("tmp", "failed to prepare the release store in"),
    ] {
        fs::remove_dir(cache.path(folder)).unwrap();
        fs::write(cache.path(folder), "").unwrap();
        let error = refused(&store, &release).await;
        assert!(error.to_string().starts_with(message), "{error}");
        assert_eq!(error.recovery(), Recovery::Unknown);
        fs::remove_file(cache.path(folder)).unwrap();
        add(&store, &release).await;
        fs::remove_dir_all(cache.path("releases")).unwrap();
    }
    let source = Box::new(Repository::new());
    let file = cache.path("file");
    fs::write(&file, "").unwrap();
    let error = Store::with_charts(&file, source, StoreLimits::default())
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Prepare { .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::Unknown);
}

#[tokio::test]
async fn content_under_another_name_is_no_release_of_that_name() {
    let cache = Cache::new();
    let store = cache.open().await;
    let added = add(&store, &Release::new(1)).await;
    let other = Release::new(2).name();
    let error = store.find(&added.digest, &other, &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::CheckRelease(_)), "{error}");
    assert_eq!(error.recovery(), Recovery::Terminal);
    assert!(find(&store, &added.digest).await.is_some());
    for digest in [
        "",
        "sha256:",
        "sha256:../../etc",
        &added.digest[7..],
        &added.digest.to_uppercase(),
    ] {
        assert_eq!(find(&store, digest).await, None);
    }
}

// pitfall 37
#[tokio::test]
async fn equal_charts_are_inspected_and_their_dependencies_fetched_once() {
    let cache = Cache::new();
    let store = cache.open().await;
    let releases: Vec<_> = (1..=20)
        .map(|version| Release::new(version).with_stages("[{name: cilium, version: ^1}]"))
        .collect();
    let adds = releases.iter().map(|release| add(&store, release));
    let added = futures::future::join_all(adds).await;
    cache.assert_holds(20);
    assert_eq!(cache.repository.counts(), (1, 1));
    let pinned = cache.repository.pinned();
    let archive = cache
        .path("charts")
        .join(format!("{}.tgz", pinned.digest.replace(':', "-")));
    for release in &added {
        assert_eq!(release.dependencies, std::slice::from_ref(&pinned));
        let AddonCharts::Stages(charts) = &release.addon else {
            panic!("stages")
        };
        assert_eq!(charts["cni"].dependencies, std::slice::from_ref(&archive));
        assert_eq!(charts["metrics"].dependencies, Vec::<PathBuf>::new());
        assert_eq!(release.class.dependencies, Vec::<PathBuf>::new());
    }
    // what is recorded reaches whoever chooses
    let recorded = vec![PinnedDependency {
        version: "1.15.0".to_owned(),
        ..pinned
    }];
    let found = store
        .find(&added[0].digest, &releases[0].name(), &recorded)
        .await
        .unwrap();
    assert_eq!(found.as_ref(), Some(&added[0]));
    assert_eq!(*cache.repository.recorded.lock().unwrap(), recorded);
    assert_eq!(cache.repository.counts(), (1, 1));
    // the archive is fetched again if it is gone
    fs::remove_file(&archive).unwrap();
    find(&store, &added[0].digest).await.unwrap();
    assert!(archive.exists());
    assert_eq!(cache.repository.counts(), (1, 2));
}

#[tokio::test]
async fn dependencies_of_all_charts_are_listed_once_in_one_order() {
    let cache = Cache::new();
    let chart = "name: a\nversion: 1\ndependencies: [{name: cilium}]";
    let release = Release::new(1).with_stages("[{name: cilium}]").with(
        "docker-scs-1-30-cluster-class-v1.tgz",
        pack(&[("class/Chart.yaml", chart)]),
    );
    let added = add(&cache.open().await, &release).await;
    assert_eq!(added.dependencies, [cache.repository.pinned()]);
    assert_eq!(added.class.dependencies.len(), 1);
    assert_eq!(cache.repository.counts(), (2, 1));
}

#[tokio::test]
async fn a_release_that_lacks_a_dependency_is_kept_but_not_found() {
    let cache = Cache::new();
    let store = cache.open().await;
    let release = Release::new(1).with_stages("[{name: cilium}]");
    cache.repository.down.store(true, Ordering::SeqCst);
    let error = refused(&store, &release).await;
    assert_eq!(
        error.to_string(),
        "failed to fetch what \"cni\" in \"docker-scs-1-30-cluster-addon-v1.tgz\" depends on"
    );
    assert_eq!(error.recovery(), Recovery::Unknown);
    let digest = error.digest().unwrap();
    let again = store.find(digest, &release.name(), &[]).await.unwrap_err();
    assert_eq!(again.digest(), Some(digest));
    cache.repository.down.store(false, Ordering::SeqCst);
    assert_eq!(
        find(&store, digest).await.unwrap().dependencies,
        [cache.repository.pinned()]
    );
    assert_eq!(release.brought(), 1);
}

#[tokio::test]
async fn a_dependency_that_is_no_chart_is_refused() {
    let mut cache = Cache::new();
    cache.repository = Arc::new(Repository {
        archive: pack(&[("cilium/values.yaml", "")]),
        ..Repository::default()
    });
    let release = Release::new(1).with_stages("[{name: cilium}]");
    let store = cache.open().await;
    for _ in 0..2 {
        let error = refused(&store, &release).await;
        assert!(
            matches!(error, StoreError::CheckDependency { .. }),
            "{error}"
        );
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
}

#[tokio::test]
async fn what_nobody_needs_is_collected() {
    let cache = Cache::new();
    let store = cache.open().await;
    let (old, touched, found, again) = (
        Release::new(2),
        Release::new(3).with_stages("[{name: cilium}]"),
        Release::new(1),
        Release::new(4),
    );
    let mut digests = Vec::new();
    for release in [&old, &touched, &found, &again] {
        digests.push(add(&store, release).await.digest.clone());
    }
    let archive = cache.repository.pinned().digest.replace(':', "-");
    let archive = cache.path("charts").join(format!("{archive}.tgz"));
    fs::write(cache.path("charts/.tmpAbCdEf"), "part").unwrap();
    fs::write(cache.path("charts/README"), "not ours").unwrap();
    fs::create_dir(cache.path("releases/foreign")).unwrap();

    let kept = store.collect(in_hours(23), DAY).await.unwrap();
    assert_eq!(kept, Collected::default());
    for path in [archive.clone(), cache.path("charts/.tmpAbCdEf")]
        .into_iter()
        .chain(
            digests
                .iter()
                .map(|digest| cache.path("releases").join(&digest[7..])),
        )
    {
        set_age(&path, 2 * DAY);
    }
    // a process that has named none of them for a while
    let store = cache.open().await;
    store
        .touch(&digests[1], &[cache.repository.pinned()])
        .await
        .unwrap();
    find(&store, &digests[2]).await.unwrap();
    add(&store, &again).await;
    store.touch("sha256:nothing", &[]).await.unwrap();
    let collected = store.collect(Timestamp::now(), DAY).await.unwrap();
    assert_eq!(
        collected,
        Collected {
            releases: 1,
            charts: 0
        }
    );
    assert!(!cache.path("charts/.tmpAbCdEf").exists() && archive.exists());
    let mut names = cache.names("releases");
    names.retain(|name| name != "foreign");
    names.sort();
    let mut expected: Vec<_> = digests[1..]
        .iter()
        .map(|digest| digest[7..].to_owned())
        .collect();
    expected.sort();
    assert_eq!(names, expected);

    let rest = store.collect(in_hours(25), DAY).await.unwrap();
    assert_eq!(
        rest,
        Collected {
            releases: 3,
            charts: 1
        }
    );
    assert_eq!(cache.names("releases"), ["foreign"]);
    assert_eq!(cache.names("charts"), ["README"]);
    assert_eq!(cache.names("tmp"), Vec::<String>::new());
    assert_eq!(find(&store, &digests[2]).await, None);
    assert_eq!(add(&store, &found).await.digest, digests[2]);
}
