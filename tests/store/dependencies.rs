//! Charts that a release does not carry, from a repository, through the store, into Helm.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Result, ensure};
use axum::{Router, extract::State, http::Uri};
use core_operator::store::{AddonCharts, StoreError};
use flate2::{Compression, write::GzEncoder};
use proto::Recovery;
use sha2::{Digest, Sha256};
use tests::stacks::StackRelease;

use crate::{Folder, helm, open, render};

/// A chart with one object, for the release to depend on.
fn agent() -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, content) in [
        (
            "agent/Chart.yaml",
            "apiVersion: v2\nname: agent\nversion: 1.4.2\n",
        ),
        (
            "agent/templates/settings.yaml",
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-the-repository}\n",
        ),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, content.as_bytes())?;
    }
    Ok(tar.into_inner()?.finish()?)
}

/// A repository with one chart in two versions, and how often it was asked.
#[derive(Clone)]
struct Repository {
    archive: Arc<Vec<u8>>,
    requests: Arc<AtomicUsize>,
    url: String,
}

impl Repository {
    async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let repository = Self {
            archive: Arc::new(agent()?),
            requests: Arc::default(),
            url: format!("http://{}", listener.local_addr()?),
        };
        let router = Router::new()
            .fallback(answer)
            .with_state(repository.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(repository)
    }

    fn digest(&self) -> String {
        hex::encode(Sha256::digest(&*self.archive))
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn answer(State(repository): State<Repository>, uri: Uri) -> Vec<u8> {
    repository.requests.fetch_add(1, Ordering::SeqCst);
    if uri.path() != "/index.yaml" {
        return repository.archive.to_vec();
    }
    let entry = |version: &str| {
        format!(
            "  - {{name: agent, version: {version}, digest: {}, urls: [agent-{version}.tgz]}}\n",
            repository.digest()
        )
    };
    format!(
        "apiVersion: v1\nentries:\n  agent:\n{}{}",
        entry("2.0.0"),
        entry("1.4.2")
    )
    .into_bytes()
}

/// Version 1 of the example, whose stage `cni` depends on a chart in the repository.
fn release(repository: &Repository, folder: &Path) -> Result<Folder> {
    let chart = format!(
        "apiVersion: v2\nname: cni\nversion: 0.0.0\ndependencies:\n- name: agent\n  version: ^1.2\n  repository: {}\n",
        repository.url
    );
    let release = StackRelease::example("docker-example").with_addon_file("cni/Chart.yaml", &chart);
    Ok(Folder(release.write_to(folder)?))
}

// pitfall 37
#[tokio::test]
async fn a_chart_is_rendered_with_what_was_fetched_when_the_release_came() -> Result<()> {
    let (helm, repository) = (helm().await?, Repository::start().await?);
    let (folder, cache) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let release = release(&repository, folder.path())?;
    let store = open(cache.path(), &helm, false).await?;
    let added = store.add(&release, &release.name(), &[]).await?;
    let [pinned] = &added.dependencies[..] else {
        panic!("{:?}", added.dependencies)
    };
    assert_eq!(
        (
            pinned.chart.as_str(),
            pinned.name.as_str(),
            pinned.version.as_str()
        ),
        ("cni", "agent", "1.4.2")
    );
    assert_eq!(pinned.digest, format!("sha256:{}", repository.digest()));

    // from then on nobody is asked any more
    let requests = repository.requests();
    let store = open(cache.path(), &helm, true).await?;
    let found = store
        .find(&added.digest, &release.name(), &added.dependencies)
        .await?;
    assert_eq!(found.as_ref(), Some(&added));
    let AddonCharts::Stages(charts) = &added.addon else {
        panic!("{:?}", added.addon)
    };
    let rendered = render(&helm, &charts["cni"], "v1.30.4").await?;
    ensure!(
        rendered
            .all()
            .any(|object| object.name() == "from-the-repository"),
        "{rendered:?}"
    );
    assert_eq!(repository.requests(), requests);
    Ok(())
}

#[tokio::test]
async fn offline_a_release_that_lacks_a_chart_says_so() -> Result<()> {
    let (helm, repository) = (helm().await?, Repository::start().await?);
    let (folder, cache) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let release = release(&repository, folder.path())?;
    let store = open(cache.path(), &helm, true).await?;
    let error = store.add(&release, &release.name(), &[]).await.unwrap_err();
    assert_eq!(error.recovery(), Recovery::Terminal);
    assert!(error.digest().is_some());
    let StoreError::FetchDependencies { source, .. } = error else {
        panic!("{error}")
    };
    assert!(
        source.to_string().contains("refused offline: vendor it"),
        "{source}"
    );
    assert_eq!(repository.requests(), 0);
    Ok(())
}

#[tokio::test]
async fn a_chart_that_helm_cannot_read_is_the_releases_fault() -> Result<()> {
    let helm = helm().await?;
    let (folder, cache) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let release = StackRelease::example("docker-example")
        .with_addon_file(
            "cni/Chart.yaml",
            "name: cni\nversion: 1.0.0\nkeywords: [1\n",
        )
        .write_to(folder.path())?;
    let release = Folder(release);
    let store = open(cache.path(), &helm, true).await?;
    let error = store.add(&release, &release.name(), &[]).await.unwrap_err();
    assert!(matches!(error, StoreError::InspectChart { .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::Terminal);
    assert_eq!(
        error.to_string(),
        "failed to read the chart of \"cni\" in \"docker-example-1-30-cluster-addon-v1.tgz\" with Helm"
    );
    Ok(())
}
