//! Releases of the example stacks in `tests/stacks`, packed when a test needs them.
//!
//! ```text
//! stacks/docker-example/cluster-class/…  ──> docker-example-1-30-v1/docker-example-1-30-cluster-class-v1.tgz
//!                       cluster-addon/…  ──>                        docker-example-1-30-cluster-addon-v1.tgz
//!                       csctl.yaml       ──>                        metadata.yaml, hashes.json
//!                       other files      ──>                        as they are
//! ```
//!
//! The same release is packed into the same bytes each time. A test that wants a broken release says so file by file:
//! what is set with [`StackRelease::with_file`] wins over what would be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_operator::release::{KubernetesMinor, ReleaseName, Version, metadata, yaml};
use flate2::{Compression, GzBuilder};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Time of every file in an archive: 2024-01-01.
const MTIME: u64 = 1_704_067_200;

/// Content by path.
type Files = BTreeMap<String, Vec<u8>>;

/// A release in the making.
#[derive(Debug, Clone)]
pub struct StackRelease {
    name: ReleaseName,
    provider: String,
    kubernetes: String,
    addon_version: Option<Version>,
    class: Files,
    addon: Files,
    files: Files,
    overrides: BTreeMap<String, Option<Vec<u8>>>,
}

impl StackRelease {
    /// Version `v1` of the example stack in `tests/stacks/<example>`.
    ///
    /// # Panics
    ///
    /// There is no such example, or its `csctl.yaml` is wrong.
    #[must_use]
    pub fn example(example: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("stacks")
            .join(example);
        Self::load(&folder).expect("example stacks lie in the repository and are complete")
    }

    fn load(folder: &Path) -> Result<Self> {
        let mut files = read_folder(folder)?;
        let config = files
            .remove("csctl.yaml")
            .with_context(|| format!("no csctl.yaml in {}", folder.display()))?;
        let Csctl { config } = yaml::parse("csctl.yaml", &String::from_utf8(config)?)?.value;
        let stem = format!("{}-{}", config.provider.kind, config.cluster_stack_name);
        let minor = KubernetesMinor::of_version(&config.kubernetes_version)?;
        Ok(Self {
            name: ReleaseName::new(&stem, minor, Version::plain(1))?,
            provider: config.provider.kind,
            kubernetes: config.kubernetes_version,
            addon_version: Some(Version::plain(1)),
            class: take_folder(&mut files, "cluster-class/"),
            addon: take_folder(&mut files, "cluster-addon/"),
            files,
            overrides: BTreeMap::new(),
        })
    }

    /// Gives another name, version and Kubernetes minor; the addons get the same version.
    ///
    /// # Panics
    ///
    /// These are no name: a mistake in the test.
    #[must_use]
    pub fn named(mut self, stem: &str, kubernetes: &str, version: &str) -> Self {
        let minor: KubernetesMinor = kubernetes
            .parse()
            .expect("tests name real Kubernetes versions");
        let version = Version::parse(version).expect("tests name real versions");
        if minor != self.name.kubernetes() {
            self.kubernetes = format!("v{minor}.0");
        }
        self.addon_version = self.addon_version.map(|_| version.clone());
        self.name = ReleaseName::new(stem, minor, version).expect("tests name real stacks");
        self
    }

    /// Gives another version and keeps the rest of the name.
    #[must_use]
    pub fn version(self, version: &str) -> Self {
        let (stem, kubernetes) = (
            self.name.stem().to_owned(),
            self.name.kubernetes().to_string(),
        );
        self.named(&stem, &kubernetes, version)
    }

    /// Sets the Kubernetes version in the metadata, as it is written.
    #[must_use]
    pub fn kubernetes(mut self, version: &str) -> Self {
        version.clone_into(&mut self.kubernetes);
        self
    }

    /// Gives the addons a version that is not the release's.
    ///
    /// # Panics
    ///
    /// This is no version: a mistake in the test.
    #[must_use]
    pub fn addon_version(mut self, version: &str) -> Self {
        self.addon_version = Some(Version::parse(version).expect("tests name real versions"));
        self
    }

    /// Leaves out the addons.
    #[must_use]
    pub fn without_addon(mut self) -> Self {
        self.addon_version = None;
        self
    }

    /// Adds or replaces a template of the class chart.
    #[must_use]
    pub fn with_class_template(mut self, file: &str, text: &str) -> Self {
        self.class.insert(format!("templates/{file}"), text.into());
        self
    }

    /// Leaves out a template of the class chart.
    ///
    /// # Panics
    ///
    /// There is no such template: a mistake in the test.
    #[must_use]
    pub fn without_class_template(mut self, file: &str) -> Self {
        let template = self.class.remove(&format!("templates/{file}"));
        assert!(
            template.is_some(),
            "the class chart has no template \"{file}\""
        );
        self
    }

    /// Replaces the values of the class chart.
    #[must_use]
    pub fn with_class_values(mut self, text: &str) -> Self {
        self.class.insert("values.yaml".to_owned(), text.into());
        self
    }

    /// Adds or replaces a file of the addons, such as `cni/values.yaml`.
    #[must_use]
    pub fn with_addon_file(mut self, path: &str, text: &str) -> Self {
        self.addon.insert(path.to_owned(), text.into());
        self
    }

    /// Adds or replaces a file of the release folder; it wins over one that would be written.
    #[must_use]
    pub fn with_file(mut self, file: &str, content: impl AsRef<[u8]>) -> Self {
        self.overrides
            .insert(file.to_owned(), Some(content.as_ref().to_vec()));
        self
    }

    /// Leaves out a file of the release folder.
    #[must_use]
    pub fn without_file(mut self, file: &str) -> Self {
        self.overrides.insert(file.to_owned(), None);
        self
    }

    /// The name of the release.
    #[must_use]
    pub const fn name(&self) -> &ReleaseName {
        &self.name
    }

    /// `spec.provider` of a ClusterStack that wants this release.
    #[must_use]
    pub fn provider(&self) -> &str {
        // A test that names the stack after another provider must name a provider without dashes.
        if self.stack_of(&self.provider).is_some() {
            return &self.provider;
        }
        self.name
            .stem()
            .split_once('-')
            .map_or_else(|| self.name.stem(), |(provider, _)| provider)
    }

    /// `spec.name` of a ClusterStack that wants this release.
    #[must_use]
    pub fn stack(&self) -> &str {
        self.stack_of(self.provider()).unwrap_or_default()
    }

    fn stack_of(&self, provider: &str) -> Option<&str> {
        self.name.stem().strip_prefix(provider)?.strip_prefix('-')
    }

    /// Writes the release to `<folder>/<tag>`, in place of one that is there, and returns that path.
    ///
    /// The release appears complete: an operator that looks at the folder meanwhile never sees a part of it.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn write_to(&self, folder: &Path) -> Result<PathBuf> {
        self.write(folder, self.addon_archive()?)
    }

    /// Writes `count` releases with the same content and stacks of their own: `<stem>0000`, `<stem>0001`, …
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub fn write_copies_to(&self, folder: &Path, count: usize) -> Result<Vec<(Self, PathBuf)>> {
        // The archive of staged addons names no stack, so it is packed once.
        let staged = if self.is_staged() {
            self.addon_archive()?
        } else {
            None
        };
        let mut written = Vec::with_capacity(count);
        for number in 0..count {
            let mut copy = self.clone();
            let stem = format!("{}{number:04}", self.name.stem());
            copy.name =
                ReleaseName::new(&stem, self.name.kubernetes(), self.name.version().clone())?;
            let addon = if staged.is_some() {
                staged.clone()
            } else {
                copy.addon_archive()?
            };
            let path = copy.write(folder, addon)?;
            written.push((copy, path));
        }
        Ok(written)
    }

    fn write(&self, folder: &Path, addon: Option<Vec<u8>>) -> Result<PathBuf> {
        let mut files = self.files.clone();
        files.insert(metadata::FILE.to_owned(), self.metadata().into_bytes());
        files.insert("hashes.json".to_owned(), self.hashes()?);
        files.insert(self.name.class_chart_file(), self.class_archive()?);
        if let (Some(version), Some(addon)) = (&self.addon_version, addon) {
            files.insert(self.name.addon_chart_file(version), addon);
        } else {
            files.remove("clusteraddon.yaml");
            files.remove("cluster-addon-values.yaml");
        }
        for (file, content) in &self.overrides {
            match content {
                Some(content) => files.insert(file.clone(), content.clone()),
                None => files.remove(file),
            };
        }
        let path = folder.join(self.name.tag());
        // A name that is no release, beside the release: a rename within one file system.
        let unfinished = folder.join(format!(".{}.unfinished", self.name.tag()));
        fs::create_dir_all(&unfinished)?;
        for (file, content) in files {
            fs::write(unfinished.join(file), content)?;
        }
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::rename(&unfinished, &path)?;
        Ok(path)
    }

    fn is_staged(&self) -> bool {
        self.files.contains_key("clusteraddon.yaml")
    }

    fn metadata(&self) -> String {
        let version = self.name.version().dotted();
        let addon = self.addon_version.as_ref().map(Version::dotted);
        let addon = addon
            .map(|addon| format!("        clusterAddon: {addon}\n"))
            .unwrap_or_default();
        format!(
            "apiVersion: {}\nversions:\n    clusterStack: {version}\n    kubernetes: {}\n    components:\n{addon}        nodeImage: {version}\n",
            metadata::API_VERSION,
            self.kubernetes,
        )
    }

    fn hashes(&self) -> Result<Vec<u8>> {
        let hash = |files: &Files| {
            let mut sha = Sha256::new();
            for (path, content) in files {
                sha.update(path);
                sha.update(content);
            }
            hex::encode(sha.finalize())
        };
        let mut hashes = BTreeMap::from([("clusterStack", hash(&self.class))]);
        if self.addon_version.is_some() {
            hashes.insert("clusterAddonDir", hash(&self.addon));
        }
        Ok(serde_json::to_vec_pretty(&hashes)?)
    }

    fn class_archive(&self) -> Result<Vec<u8>> {
        let chart = format!("{}-cluster-class", self.name.helm_release_name());
        pack(&chart_files(
            &self.class,
            "",
            &chart,
            Some(&chart),
            self.name.version(),
        )?)
    }

    fn addon_archive(&self) -> Result<Option<Vec<u8>>> {
        let Some(version) = &self.addon_version else {
            return Ok(None);
        };
        let files = if self.is_staged() {
            let folders: BTreeSet<_> = self
                .addon
                .keys()
                .filter_map(|path| path.split_once('/'))
                .map(|(folder, _)| folder)
                .collect();
            let mut files = Files::new();
            for folder in folders {
                files.extend(chart_files(
                    &self.addon,
                    &format!("{folder}/"),
                    folder,
                    None,
                    version,
                )?);
            }
            files
        } else {
            let chart = format!("{}-cluster-addon", self.name.helm_release_name());
            chart_files(&self.addon, "", &chart, Some(&chart), version)?
        };
        pack(&files).map(Some)
    }
}

#[derive(Deserialize)]
struct Csctl {
    config: CsctlConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CsctlConfig {
    cluster_stack_name: String,
    kubernetes_version: String,
    provider: CsctlProvider,
}

#[derive(Deserialize)]
struct CsctlProvider {
    #[serde(rename = "type")]
    kind: String,
}

fn read_folder(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry?;
        if entry.file_type().is_file() {
            let path = entry
                .path()
                .strip_prefix(folder)?
                .to_str()
                .context("a path that is no text")?;
            files.insert(path.to_owned(), fs::read(entry.path())?);
        }
    }
    Ok(files)
}

fn take_folder(files: &mut Files, prefix: &str) -> Files {
    let (inside, outside) = std::mem::take(files)
        .into_iter()
        .partition(|(path, _)| path.starts_with(prefix));
    *files = outside;
    let inside: Files = inside;
    inside
        .into_iter()
        .filter_map(|(path, content)| Some((path.strip_prefix(prefix)?.to_owned(), content)))
        .collect()
}

/// The files of one chart below `prefix`, moved to `folder`, with name and version of the chart set.
fn chart_files(
    files: &Files,
    prefix: &str,
    folder: &str,
    name: Option<&str>,
    version: &Version,
) -> Result<Files> {
    let mut chart = Files::new();
    for (path, content) in files {
        let Some(path) = path.strip_prefix(prefix) else {
            continue;
        };
        let content = if path == "Chart.yaml" {
            describe(content, name, version)?
        } else {
            content.clone()
        };
        chart.insert(format!("{folder}/{path}"), content);
    }
    ensure!(
        chart.contains_key(&format!("{folder}/Chart.yaml")),
        "no Chart.yaml in {folder}"
    );
    Ok(chart)
}

/// Sets name and version in a `Chart.yaml`; both stand at the beginning of a line there.
fn describe(chart: &[u8], name: Option<&str>, version: &Version) -> Result<Vec<u8>> {
    let describe = |line: &str| match (line.split(':').next(), name) {
        (Some("name"), Some(name)) => format!("name: {name}\n"),
        (Some("version"), _) => format!("version: {}\n", version.dotted()),
        _ => format!("{line}\n"),
    };
    let lines: Vec<_> = std::str::from_utf8(chart)?.lines().map(describe).collect();
    Ok(lines.concat().into_bytes())
}

/// A tar in gzip with nothing in it that changes from run to run.
fn pack(files: &Files) -> Result<Vec<u8>> {
    // Speed: tests write hundreds of releases, nobody keeps them.
    let gzip = GzBuilder::new()
        .mtime(0)
        .write(Vec::new(), Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(MTIME);
        tar.append_data(&mut header, path, content.as_slice())?;
    }
    let mut gzip = tar.into_inner()?;
    gzip.flush()?;
    Ok(gzip.finish()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::{Duration, Instant};

    use core_operator::release::{Hook, ReleaseContent};
    use tempfile::TempDir;

    use super::*;

    fn unpack(archive: &Path) -> BTreeMap<String, String> {
        let gzip = flate2::read::GzDecoder::new(fs::File::open(archive).unwrap());
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(gzip).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), text);
        }
        files
    }

    #[test]
    fn examples_are_releases() {
        let dir = TempDir::new().unwrap();
        for (example, kubernetes, staged) in [
            ("docker-example", "v1.30.4", true),
            ("docker-single", "v1.30.4", false),
            ("fake-example", "v1.34.1", true),
        ] {
            let release = StackRelease::example(example);
            let folder = release.write_to(dir.path()).unwrap();
            assert_eq!(folder, dir.path().join(release.name().tag()));
            assert_eq!(
                format!("{}-{}", release.provider(), release.stack()),
                example
            );
            let content = ReleaseContent::open(&folder, release.name()).unwrap();
            assert_eq!(content.warnings, Vec::<String>::new());
            assert_eq!(content.kubernetes_version, kubernetes);
            assert!(content.hashes.unwrap().contains_key("clusterAddonDir"));
            let addon = content.addon.unwrap();
            assert_eq!(
                (addon.stages.is_some(), addon.values.is_some()),
                (staged, !staged)
            );
            let charts = unpack(&addon.chart);
            let Some(stages) = addon.stages else { continue };
            assert!(!stages.at(Hook::AfterControlPlaneInitialized).is_empty());
            for chart in stages.charts() {
                assert!(
                    charts.contains_key(&format!("{chart}/Chart.yaml")),
                    "{chart}"
                );
            }
        }
    }

    #[test]
    fn names_and_versions_reach_the_charts() {
        let dir = TempDir::new().unwrap();
        let release = StackRelease::example("docker-single")
            .named("docker-my-own", "1.31", "v0-beta-3")
            .addon_version("v2");
        let folder = release.write_to(dir.path()).unwrap();
        assert!(folder.ends_with("docker-my-own-1-31-v0-beta-3"));
        assert_eq!((release.provider(), release.stack()), ("docker", "my-own"));
        let content = ReleaseContent::open(&folder, release.name()).unwrap();
        assert_eq!(content.kubernetes_version, "v1.31.0");
        for (archive, chart, version) in [
            (
                &content.class_chart,
                "docker-my-own-1-31-cluster-class",
                "v0-beta.3",
            ),
            (
                &content.addon.unwrap().chart,
                "docker-my-own-1-31-cluster-addon",
                "v2",
            ),
        ] {
            let description = &unpack(archive)[&format!("{chart}/Chart.yaml")];
            assert!(
                description.contains(&format!("\nname: {chart}\n")),
                "{description}"
            );
            assert!(
                description.contains(&format!("\nversion: {version}\n")),
                "{description}"
            );
        }
    }

    #[test]
    fn tests_can_change_everything() {
        let dir = TempDir::new().unwrap();
        let release = StackRelease::example("docker-example")
            .version("v2")
            .kubernetes("1.30.9")
            .without_addon()
            .with_class_template("extra.yaml", "kind: ConfigMap")
            .without_class_template("kubeadm-config-template.yaml")
            .with_file("node-images.yaml", "images: []")
            .without_file("hashes.json");
        let folder = release.write_to(dir.path()).unwrap();
        let content = ReleaseContent::open(&folder, release.name()).unwrap();
        assert_eq!(
            (
                content.addon,
                content.hashes,
                content.kubernetes_version.as_str()
            ),
            (None, None, "1.30.9")
        );
        assert_eq!(content.node_images.as_deref(), Some("images: []"));
        let class = unpack(&content.class_chart);
        let template = |file: &str| format!("docker-example-1-30-cluster-class/templates/{file}");
        assert_eq!(class[&template("extra.yaml")], "kind: ConfigMap");
        assert!(!class.contains_key(&template("kubeadm-config-template.yaml")));
        release
            .with_file("metadata.yaml", "")
            .write_to(dir.path())
            .unwrap();
        assert_eq!(
            fs::read(folder.join("metadata.yaml")).unwrap(),
            b"",
            "a release is replaced"
        );
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "nothing unfinished is left"
        );
    }

    #[test]
    fn packing_gives_the_same_bytes_each_time() {
        let (one, two) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let release = StackRelease::example("docker-example");
        let (one, two) = (
            release.write_to(one.path()).unwrap(),
            release.write_to(two.path()).unwrap(),
        );
        assert_eq!(read_folder(&one).unwrap(), read_folder(&two).unwrap());
    }

    #[test]
    fn a_hundred_copies_are_written_fast() {
        let dir = TempDir::new().unwrap();
        let start = Instant::now();
        let copies = StackRelease::example("docker-example")
            .write_copies_to(dir.path(), 100)
            .unwrap();
        let took = start.elapsed();
        for (release, folder) in &copies {
            ReleaseContent::open(folder, release.name()).unwrap();
        }
        assert_eq!(copies[99].0.name().tag(), "docker-example0099-1-30-v1");
        // 0.12 s in a debug build on two cores; thirty times as much is a mistake, not a busy machine.
        assert!(took < Duration::from_secs(4), "{took:?}");
        println!("100 releases took {took:?}");
    }
}
