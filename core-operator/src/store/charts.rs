//! The charts on which charts of a release depend: asked for once, fetched once, checked once.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{
    ArchiveLimits, Dependencies, DependencyError, PinnedDependency, StoreError, StoredChart,
    archive::check_chart, entry::EntryChart, folders::Folders, workers::Workers,
};
use crate::helm::{ChartInfo, Helm, RenderError};

/// Whoever knows charts and where they come from: Helm and the repositories, or a test.
#[async_trait]
pub(super) trait ChartSource: Send + Sync {
    async fn inspect(&self, chart: &Path) -> Result<ChartInfo, RenderError>;

    async fn resolve(
        &self,
        info: &ChartInfo,
        recorded: &[PinnedDependency],
    ) -> Result<Vec<PinnedDependency>, DependencyError>;

    async fn fetch(
        &self,
        pinned: &PinnedDependency,
        into: &Path,
    ) -> Result<PathBuf, DependencyError>;
}

/// Helm and the repositories.
pub(super) struct Online {
    pub helm: Helm,
    pub dependencies: Dependencies,
}

#[async_trait]
impl ChartSource for Online {
    async fn inspect(&self, chart: &Path) -> Result<ChartInfo, RenderError> {
        self.helm.inspect(chart).await
    }

    async fn resolve(
        &self,
        info: &ChartInfo,
        recorded: &[PinnedDependency],
    ) -> Result<Vec<PinnedDependency>, DependencyError> {
        self.dependencies.resolve(info, recorded).await
    }

    async fn fetch(
        &self,
        pinned: &PinnedDependency,
        into: &Path,
    ) -> Result<PathBuf, DependencyError> {
        self.dependencies.fetch(pinned, into).await
    }
}

type Inspected = HashMap<String, Arc<OnceCell<Arc<ChartInfo>>>>;

/// By digest and repository, where an archive is that this process has checked. Nobody waits for another repository.
type Fetched = HashMap<(String, String), Arc<tokio::sync::Mutex<Option<PathBuf>>>>;

/// What this process knows about charts.
pub(super) struct Charts {
    source: Box<dyn ChartSource>,
    folders: Arc<Folders>,
    workers: Workers,
    limits: ArchiveLimits,
    inspected: Mutex<Inspected>,
    fetched: Mutex<Fetched>,
}

impl Charts {
    pub(super) fn new(
        source: Box<dyn ChartSource>,
        folders: Arc<Folders>,
        workers: Workers,
        limits: ArchiveLimits,
    ) -> Self {
        Self {
            source,
            folders,
            workers,
            limits,
            inspected: Mutex::default(),
            fetched: Mutex::default(),
        }
    }

    /// A chart with the archives of all that it depends on; what was chosen is added to `chosen`.
    pub(super) async fn complete(
        &self,
        release: &str,
        chart: &EntryChart,
        recorded: &[PinnedDependency],
        chosen: &mut Vec<PinnedDependency>,
    ) -> Result<StoredChart, StoreError> {
        let mut dependencies = Vec::new();
        if chart.declares_dependencies {
            let info = self
                .inspect(chart)
                .await
                .map_err(|source| StoreError::InspectChart {
                    digest: release.to_owned(),
                    chart: chart.label.clone(),
                    source: Box::new(source),
                })?;
            let failed = |source| StoreError::FetchDependencies {
                digest: release.to_owned(),
                chart: chart.label.clone(),
                source: Box::new(source),
            };
            let resolved = self.source.resolve(&info, recorded).await.map_err(failed)?;
            for pinned in resolved {
                dependencies.push(self.fetch(release, chart, &pinned).await?);
                if !chosen.contains(&pinned) {
                    chosen.push(pinned);
                }
            }
        }
        Ok(StoredChart {
            path: chart.path.clone(),
            digest: chart.digest.clone(),
            dependencies,
        })
    }

    /// What Helm says of a chart; releases with equal charts ask once.
    async fn inspect(&self, chart: &EntryChart) -> Result<Arc<ChartInfo>, RenderError> {
        let cell = Arc::clone(
            lock(&self.inspected)
                .entry(chart.digest.clone())
                .or_default(),
        );
        let inspect = async || self.source.inspect(&chart.path).await.map(Arc::new);
        cell.get_or_try_init(inspect).await.cloned()
    }

    /// The archive of a dependency. It is fetched by one at a time, and compared with its digest once in each process.
    async fn fetch(
        &self,
        release: &str,
        chart: &EntryChart,
        pinned: &PinnedDependency,
    ) -> Result<PathBuf, StoreError> {
        let key = (pinned.digest.clone(), pinned.repository.clone());
        let slot = Arc::clone(lock(&self.fetched).entry(key).or_default());
        let mut checked = slot.lock().await;
        if let Some(path) = checked.clone() {
            let (folders, path) = (Arc::clone(&self.folders), path);
            let there = move || {
                folders.name([path.as_path()]);
                path.exists().then_some(path)
            };
            if let Some(path) = self.workers.run(there).await? {
                return Ok(path);
            }
        }
        let charts = self.folders.charts();
        let prepare = {
            let charts = charts.clone();
            move || fs::create_dir_all(charts)
        };
        let prepared = self.workers.run(prepare).await?;
        prepared.map_err(|source| StoreError::Prepare {
            path: charts.clone(),
            source,
        })?;
        let fetched = self.source.fetch(pinned, &charts).await;
        let path = fetched.map_err(|source| StoreError::FetchDependencies {
            digest: release.to_owned(),
            chart: chart.label.clone(),
            source: Box::new(source),
        })?;
        let finish = {
            let (folders, path, limits) =
                (Arc::clone(&self.folders), path.clone(), self.limits.clone());
            move || {
                folders.name([path.as_path()]);
                check_chart(&path, &limits)?;
                Ok(File::open(&charts).and_then(|folder| folder.sync_all()))
            }
        };
        let finished = self.workers.run(finish).await?;
        let on_disk = finished.map_err(|source| StoreError::CheckDependency {
            digest: release.to_owned(),
            chart: chart.label.clone(),
            source: Box::new(source),
        })?;
        on_disk.map_err(|source| StoreError::Prepare {
            path: self.folders.charts(),
            source,
        })?;
        *checked = Some(path.clone());
        Ok(path)
    }

    /// Forgets all charts but these, and archives that are gone.
    pub(super) fn retain(&self, digests: &HashSet<String>) {
        lock(&self.inspected).retain(|digest, _| digests.contains(digest));
        lock(&self.fetched).retain(|_, slot| match slot.try_lock() {
            Ok(path) => path.as_ref().is_some_and(|path| path.exists()),
            Err(_) => true, // being fetched
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
