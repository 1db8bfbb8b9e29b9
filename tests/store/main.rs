//! The release store with real charts, Helm's own renderer, and processes that are killed.

mod dependencies;
mod killed;
mod releases;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;
use async_trait::async_trait;
use core_operator::{
    helm::{ChartRequest, Helm, Rendered, RendererConfig},
    release::ReleaseName,
    store::{
        BringError, BringFiles, Dependencies, DependencyOptions, Store, StoreLimits, StoredChart,
    },
};
use proto::Recovery;
use serde_json::json;
use tests::tools::{self, Tool};

/// A release in a folder, copied into the store.
struct Folder(PathBuf);

#[async_trait]
impl BringFiles for Folder {
    async fn bring(&self, into: &Path) -> Result<(), BringError> {
        copy(&self.0, into).map_err(|error| BringError::new(Recovery::Unknown, error))
    }
}

fn copy(from: &Path, into: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        // Read and written: copies of read-only files would be read-only.
        fs::write(into.join(entry.file_name()), fs::read(entry.path())?)?;
    }
    Ok(())
}

impl Folder {
    fn name(&self) -> ReleaseName {
        let tag = self.0.file_name().unwrap_or_default().to_string_lossy();
        ReleaseName::parse(&tag).expect("folders of releases are named like their tags")
    }
}

/// Helm with our renderer.
async fn helm() -> Result<Helm> {
    let tools = tools::ensure_async(&[Tool::HelmRenderer]).await?;
    Ok(Helm::new(RendererConfig {
        program: tools.path(Tool::HelmRenderer)?.to_owned(),
        processes: 2,
        time_limit: Duration::from_mins(1),
        memory_limit_bytes: 1 << 30,
    }))
}

/// The store as a process has it that was just started.
async fn open(cache: &Path, helm: &Helm, offline: bool) -> Result<Store> {
    tests::install_crypto();
    let options = DependencyOptions {
        offline,
        ..DependencyOptions::default()
    };
    let dependencies = Dependencies::new(helm.clone(), &options)?;
    Ok(Store::open(cache, helm.clone(), dependencies, StoreLimits::default()).await?)
}

/// The chart as it would be rendered for a cluster.
async fn render(
    helm: &Helm,
    chart: &StoredChart,
    kubernetes: &str,
) -> Result<std::sync::Arc<Rendered>> {
    let request = ChartRequest {
        chart: chart.path.clone(),
        chart_digest: chart.digest.clone(),
        dependencies: chart.dependencies.clone(),
        release_name: "test".to_owned(),
        namespace: "kube-system".to_owned(),
        kube_version: Some(kubernetes.to_owned()),
        values: json!({}),
        include_crds: true,
        ..ChartRequest::default()
    };
    Ok(helm.chart(&request).await?)
}
