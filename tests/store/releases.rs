//! All releases at hand enter the store, and all of their charts can be rendered from there.

use std::{fs, path::Path, sync::Arc, time::Instant};

use anyhow::{Context, Result, ensure};
use core_operator::{
    helm::Helm,
    store::{AddonCharts, StoredChart, StoredRelease},
};
use tests::stacks::StackRelease;

use crate::{Folder, helm, open, render};

/// Releases that the folder with real ones has at least.
const REAL_RELEASES: usize = 10;

fn charts(release: &StoredRelease) -> Vec<&StoredChart> {
    let mut charts = vec![&release.class];
    match &release.addon {
        AddonCharts::None => {}
        AddonCharts::Single(chart) => charts.push(chart),
        AddonCharts::Stages(stages) => charts.extend(stages.values()),
    }
    charts
}

/// Adds a release, finds it again in another process, and renders what is in it.
async fn check(folder: &Folder, helm: &Helm) -> Result<Arc<StoredRelease>> {
    let cache = tempfile::tempdir()?;
    let name = folder.name();
    let added = open(cache.path(), helm, true)
        .await?
        .add(folder, &name, &[])
        .await?;
    let store = open(cache.path(), helm, true).await?;
    let found = store.find(&added.digest, &name, &[]).await?;
    ensure!(found.as_ref() == Some(&added), "found as something else");
    ensure!(added.dependencies.is_empty(), "it carries its charts");
    for chart in charts(&added) {
        let rendered = render(helm, chart, &added.content.kubernetes_version)
            .await
            .with_context(|| chart.path.display().to_string())?;
        ensure!(
            rendered.all().next().is_some(),
            "no object in {}",
            chart.path.display()
        );
    }
    Ok(added)
}

#[tokio::test]
async fn example_stacks_can_be_rendered_from_the_store() -> Result<()> {
    let helm = helm().await?;
    let folder = tempfile::tempdir()?;
    for (example, stages) in [
        ("docker-example", vec!["cni", "metrics"]),
        ("docker-single", vec![]),
        ("fake-example", vec!["agent", "network"]),
    ] {
        let path = StackRelease::example(example).write_to(folder.path())?;
        let release = check(&Folder(path), &helm).await.context(example)?;
        match &release.addon {
            AddonCharts::Stages(charts) => {
                assert_eq!(charts.keys().collect::<Vec<_>>(), stages, "{example}");
            }
            AddonCharts::Single(_) => assert!(stages.is_empty(), "{example}"),
            AddonCharts::None => panic!("{example} has addons"),
        }
    }
    let path = StackRelease::example("docker-single")
        .without_addon()
        .write_to(folder.path())?;
    let release = check(&Folder(path), &helm).await?;
    assert_eq!(release.addon, AddonCharts::None);
    Ok(())
}

#[tokio::test]
async fn real_releases_can_be_rendered_from_the_store() -> Result<()> {
    let Some(fixtures) = std::env::var_os("CLUSTER_STACK_FIXTURES") else {
        println!(
            "CLUSTER_STACK_FIXTURES is not set: {REAL_RELEASES} real releases did not enter the store"
        );
        return Ok(());
    };
    let helm = helm().await?;
    let mut count = 0;
    for entry in fs::read_dir(Path::new(&fixtures)).context("CLUSTER_STACK_FIXTURES")? {
        let path = entry?.path();
        if !path.join("metadata.yaml").exists() {
            continue;
        }
        check(&Folder(path.clone()), &helm)
            .await
            .with_context(|| path.display().to_string())?;
        count += 1;
    }
    ensure!(
        count >= REAL_RELEASES,
        "CLUSTER_STACK_FIXTURES is incomplete: {count} of {REAL_RELEASES} releases"
    );
    Ok(())
}

/// Prints what it costs; the benchmark judges.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_releases_enter_at_once() -> Result<()> {
    let helm = helm().await?;
    let folder = tempfile::tempdir()?;
    let release = StackRelease::example("docker-example");
    let folders: Vec<_> = release
        .write_copies_to(folder.path(), 100)?
        .into_iter()
        .map(|(_, path)| Folder(path))
        .collect();
    let cache = tempfile::tempdir()?;
    let store = open(cache.path(), &helm, true).await?;
    let adds = folders.iter().map(|folder| {
        let (store, name) = (store.clone(), folder.name());
        async move { store.add(folder, &name, &[]).await }
    });
    let start = Instant::now();
    let added = futures::future::try_join_all(adds).await?;
    println!("100 releases entered the store in {:?}", start.elapsed());
    let store = open(cache.path(), &helm, true).await?;
    let start = Instant::now();
    for (folder, added) in folders.iter().zip(&added) {
        let found = store.find(&added.digest, &folder.name(), &[]).await?;
        assert_eq!(found.as_ref(), Some(added));
    }
    println!("100 releases were verified in {:?}", start.elapsed());
    assert_eq!(fs::read_dir(cache.path().join("releases"))?.count(), 100);
    Ok(())
}
