//! The release store: releases on the disk by digest of their content, complete and checked or not there at all.
//!
//! ```text
//!  source ──bring──► tmp/<random>/files ──► digest, limits ──► release content ──► archives ──► on the disk
//!                                                                                                  │ rename
//!  find(digest) ◄── compared with its digest once in each process ◄── releases/<digest>/ ◄─────────┘
//!       └──► what its charts depend on: Helm says what, charts/sha256-<digest>.tgz
//! ```
//!
//! What is found is whole: a process that is killed leaves nothing that could be taken for a release, and what the disk
//! has changed is removed and has to be fetched again. Entries never change, so that several processes may share the
//! folder, and whoever empties it only causes work. A release whose charts depend on charts that it does not carry is
//! found only with them; which ones were chosen is the caller's to record.
//!
//! Nothing here knows where releases come from.

mod archive;
mod charts;
pub mod dependencies;
mod entry;
mod error;
mod files;
mod folders;
mod workers;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

pub use archive::{ArchiveInvalid, ArchiveLimits};
pub use dependencies::{Dependencies, DependencyError, DependencyOptions, PinnedDependency};
pub use error::{BringError, StoreError};
pub use folders::Collected;

use crate::{
    helm::Helm,
    release::{ReleaseContent, ReleaseName},
};
use charts::{ChartSource, Charts, Online};
use entry::{Entry, EntryAddon};
use folders::{Folders, Temporary};
use workers::Workers;

/// Threads for the disk: more of them wait for it together, and one journal serves them all.
const THREADS: usize = 16;

/// How often a release is put in the place of a damaged one that other processes put there.
const ATTEMPTS: usize = 3;

/// Brings all files of one release, from wherever it is.
#[async_trait]
pub trait BringFiles: Send + Sync {
    /// Writes all files of the release into an empty folder, flat.
    ///
    /// The store looks at every byte itself, and throws the folder away if this fails or is dropped half-way.
    async fn bring(&self, into: &Path) -> Result<(), BringError>;
}

/// How large releases may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreLimits {
    /// Files of a release; real ones have five to ten.
    pub files: usize,
    /// Bytes of all of them; real ones have up to 300 KB.
    pub bytes: u64,
    /// What an archive may hold.
    pub archive: ArchiveLimits,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            files: 256,
            bytes: 256 << 20,
            archive: ArchiveLimits::default(),
        }
    }
}

/// A release in the store, complete and checked.
///
/// Its files stay as long as it is found, added or touched again within the time after which [`Store::collect`] removes
/// what is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRelease {
    /// `sha256:` and the digest of its files in hexadecimal: of one line `<SHA-256> <size> <name>` for each, by name.
    pub digest: String,
    /// What its files say.
    pub content: ReleaseContent,
    /// The chart with the ClusterClass.
    pub class: StoredChart,
    /// The charts of the addons.
    pub addon: AddonCharts,
    /// What its charts depend on and do not carry, as it was chosen: class first, then addons by name. To be recorded.
    pub dependencies: Vec<PinnedDependency>,
}

/// The charts of a release's addons.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AddonCharts {
    /// The release has no addons.
    None,
    /// One chart.
    Single(StoredChart),
    /// One chart for each stage, by the name that `clusteraddon.yaml` calls it.
    Stages(BTreeMap<String, StoredChart>),
}

/// A chart in the store, with what Helm needs to render it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredChart {
    /// The archive, or the folder of a stage's chart.
    pub path: PathBuf,
    /// Digest of the archive, or of the files in the folder: equal charts of stages have equal ones in all releases.
    pub digest: String,
    /// Archives of charts on which it depends and that it does not carry.
    pub dependencies: Vec<PathBuf>,
}

/// The release store. Cheap to clone: clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    folders: Arc<Folders>,
    limits: StoreLimits,
    workers: Workers,
    charts: Charts,
    /// The releases that this process has compared with their digests, by digest and name.
    verified: Mutex<HashMap<(String, String), Arc<Entry>>>,
}

impl Store {
    /// Makes the folders and removes what killed processes have left behind.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub async fn open(
        cache_dir: &Path,
        helm: Helm,
        dependencies: Dependencies,
        limits: StoreLimits,
    ) -> Result<Self, StoreError> {
        Self::with_charts(cache_dir, Box::new(Online { helm, dependencies }), limits).await
    }

    async fn with_charts(
        cache_dir: &Path,
        source: Box<dyn ChartSource>,
        limits: StoreLimits,
    ) -> Result<Self, StoreError> {
        let folders = Arc::new(Folders::new(cache_dir));
        let workers = Workers::new(THREADS);
        let prepare = {
            let folders = Arc::clone(&folders);
            move || folders.create().and_then(|()| folders.sweep())
        };
        let prepared = workers.run(prepare).await?;
        prepared.map_err(|source| StoreError::Prepare {
            path: cache_dir.to_owned(),
            source,
        })?;
        let charts = Charts::new(
            source,
            Arc::clone(&folders),
            workers.clone(),
            limits.archive.clone(),
        );
        let inner = Inner {
            folders,
            limits,
            workers,
            charts,
            verified: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The release with this digest, if it is there; a damaged one is removed, and is not.
    ///
    /// `recorded` is what was chosen before for the charts that it depends on. They are fetched if they are not there.
    ///
    /// # Errors
    ///
    /// The content is no release of this name, the disk fails, or something cannot be had on which a chart depends.
    pub async fn find(
        &self,
        digest: &str,
        name: &ReleaseName,
        recorded: &[PinnedDependency],
    ) -> Result<Option<Arc<StoredRelease>>, StoreError> {
        let Some(hex) = hex_of(digest) else {
            return Ok(None);
        };
        let (inner, hex, owned) = (Arc::clone(&self.inner), hex.to_owned(), name.clone());
        let known = move || inner.known(&hex, &owned);
        match self.inner.workers.run(known).await?? {
            Some(entry) => self.inner.complete(&entry, recorded).await.map(Some),
            None => Ok(None),
        }
    }

    /// Fetches a release and puts it into the store, unless equal content is there already.
    ///
    /// # Errors
    ///
    /// The source fails, what it brings is no valid release of this name, the disk refuses, or something cannot be had
    /// on which a chart depends; [`StoreError::digest`] then says where the rest is kept.
    pub async fn add(
        &self,
        files: &dyn BringFiles,
        name: &ReleaseName,
        recorded: &[PinnedDependency],
    ) -> Result<Arc<StoredRelease>, StoreError> {
        let inner = Arc::clone(&self.inner);
        let temporary = self.inner.workers.run(move || inner.temporary()).await??;
        let brought = files.bring(&folders::files(temporary.path())).await;
        brought.map_err(|source| StoreError::Bring {
            release: name.tag(),
            source,
        })?;
        let (inner, owned) = (Arc::clone(&self.inner), name.clone());
        let admit = move || inner.admit(temporary, &owned);
        let entry = self.inner.workers.run(admit).await??;
        self.inner.complete(&entry, recorded).await
    }

    /// Says that a release and what it depends on are still needed, without looking at them.
    ///
    /// # Errors
    ///
    /// The process ends.
    pub async fn touch(
        &self,
        digest: &str,
        dependencies: &[PinnedDependency],
    ) -> Result<(), StoreError> {
        let folders = Arc::clone(&self.inner.folders);
        let release = hex_of(digest).map(|hex| folders.release(hex));
        let charts = dependencies.iter().filter_map(|pinned| {
            let hex = hex_of(&pinned.digest)?;
            Some(folders.chart(hex))
        });
        let paths: Vec<_> = release.into_iter().chain(charts).collect();
        let name = move || folders.name(paths.iter().map(PathBuf::as_path));
        self.inner.workers.run(name).await
    }

    /// Removes the releases and charts that nobody has found, added or touched for the time `unused`, and what killed
    /// processes have left behind. `unused` shall be much longer than the ten minutes to which use is known.
    ///
    /// # Errors
    ///
    /// The disk refuses.
    pub async fn collect(&self, now: Timestamp, unused: Duration) -> Result<Collected, StoreError> {
        let inner = Arc::clone(&self.inner);
        let collect = move || {
            let collected = inner.folders.collect(now, unused);
            inner.forget();
            inner.folders.sweep()?;
            collected
        };
        let collected = self.inner.workers.run(collect).await?;
        collected.map_err(|source| StoreError::Collect {
            path: self.inner.folders.releases(),
            source,
        })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Store")
            .field("folders", &self.inner.folders)
            .finish_non_exhaustive()
    }
}

/// What blocks, unless it says otherwise.
impl Inner {
    fn temporary(&self) -> Result<Temporary, StoreError> {
        let made = self.folders.temporary();
        made.map_err(|source| StoreError::Prepare {
            path: self.folders.temporary_folder(),
            source,
        })
    }

    /// A release that is there and whole.
    fn known(&self, hex: &str, name: &ReleaseName) -> Result<Option<Arc<Entry>>, StoreError> {
        let place = self.folders.release(hex);
        // First of all: from now on it is not collected.
        self.folders.name([place.as_path()]);
        let key = (hex.to_owned(), name.tag());
        if let Some(entry) = self.lock().get(&key)
            && entry.is_there()
        {
            return Ok(Some(Arc::clone(entry)));
        }
        let failed = |source| StoreError::Read {
            release: name.tag(),
            source,
        };
        if let Some(identity) = self.folders.identity(hex).map_err(failed)? {
            if let Some(entry) = Entry::verify(&place, hex, name, &self.limits)? {
                let entry = Arc::new(entry);
                self.lock().insert(key, Arc::clone(&entry));
                return Ok(Some(entry));
            }
            tracing::warn!(release = %name, digest = hex, "removing a damaged release from the store");
            self.folders.discard(hex, identity).map_err(failed)?;
        }
        self.lock().retain(|(known, _), _| known != hex);
        Ok(None)
    }

    /// Checks what was brought, and puts it in its place.
    fn admit(
        &self,
        mut temporary: Temporary,
        name: &ReleaseName,
    ) -> Result<Arc<Entry>, StoreError> {
        let files = entry::list_files(&folders::files(temporary.path()), name, &self.limits)?;
        let hex = files.digest();
        if let Some(entry) = self.known(&hex, name)? {
            return Ok(entry);
        }
        let place = self.folders.release(&hex);
        let entry = Entry::make(temporary.path(), &place, &files, name, &self.limits)?;
        for _ in 0..ATTEMPTS {
            let kept = self.folders.keep(&mut temporary, &hex);
            let is_new = kept.map_err(|source| StoreError::Keep {
                release: name.tag(),
                source,
            })?;
            if is_new {
                let entry = Arc::new(entry);
                self.lock().insert((hex, name.tag()), Arc::clone(&entry));
                return Ok(entry);
            }
            // Somebody else was faster.
            if let Some(entry) = self.known(&hex, name)? {
                return Ok(entry);
            }
        }
        Err(StoreError::Keep {
            release: name.tag(),
            source: std::io::Error::other("others put damaged content in its place"),
        })
    }

    /// A release with all that its charts depend on. Does not block.
    async fn complete(
        &self,
        entry: &Entry,
        recorded: &[PinnedDependency],
    ) -> Result<Arc<StoredRelease>, StoreError> {
        let digest = format!("sha256:{}", entry.hex);
        let mut chosen = Vec::new();
        let class = &entry.class;
        let class = self
            .charts
            .complete(&digest, class, recorded, &mut chosen)
            .await?;
        let addon = match &entry.addon {
            EntryAddon::None => AddonCharts::None,
            EntryAddon::Single(chart) => AddonCharts::Single(
                self.charts
                    .complete(&digest, chart, recorded, &mut chosen)
                    .await?,
            ),
            EntryAddon::Stages(charts) => {
                let mut stages = BTreeMap::new();
                for (stage, chart) in charts {
                    let chart = self
                        .charts
                        .complete(&digest, chart, recorded, &mut chosen)
                        .await?;
                    stages.insert(stage.clone(), chart);
                }
                AddonCharts::Stages(stages)
            }
        };
        Ok(Arc::new(StoredRelease {
            digest,
            content: entry.content.clone(),
            class,
            addon,
            dependencies: chosen,
        }))
    }

    /// Forgets what is no longer there.
    fn forget(&self) {
        let mut verified = self.lock();
        verified.retain(|_, entry| entry.is_there());
        let digests: HashSet<_> = verified
            .values()
            .flat_map(|entry| entry.charts())
            .map(|chart| chart.digest.clone())
            .collect();
        drop(verified);
        self.charts.retain(&digests);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Entry>>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The hexadecimal part of a digest that is one: it becomes part of a path.
fn hex_of(digest: &str) -> Option<&str> {
    let hex = digest.strip_prefix("sha256:")?;
    let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (hex.len() == 64 && hex.bytes().all(digits)).then_some(hex)
}

#[cfg(test)]
mod tests;
