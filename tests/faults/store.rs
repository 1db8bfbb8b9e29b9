//! What lies on the disk of the operator, and the processes that read it, taken away.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use tests::{Operator, eventually, scenario};

use super::ground::{Ground, PATIENCE, class_kind, example};
use super::process::children;

fn kill_9(pid: u32) -> Result<()> {
    // It may have ended by itself.
    Command::new("kill")
        .args(["-9", &pid.to_string()])
        .status()
        .context("failed to run kill")?;
    Ok(())
}

fn kill_children(operator: &Operator) -> Result<usize> {
    let pids = children(operator)?;
    for pid in &pids {
        kill_9(*pid)?;
    }
    Ok(pids.len())
}

#[tokio::test]
async fn killed_renderers_are_replaced() -> Result<()> {
    scenario("renderers", async |bed| {
        let ground = Ground::shared(bed).await?;
        let operator = ground.operator().start().await?;
        let mut killed = 0;
        for number in 0..10 {
            // Each chart is rendered for itself: their names differ.
            let release = example(&format!("rendered{number}"), "v1");
            ground
                .stack(&format!("rendered{number}"), &release, "")
                .await?;
            killed += kill_children(&operator)?;
        }
        for number in 0..10 {
            killed += kill_children(&operator)?;
            ground.ready(&format!("rendered{number}")).await?;
        }
        ensure!(killed > 0, "there was no renderer to kill");
        ensure!(operator.is_running());
        // One that is killed while nobody needs it is not missed either.
        kill_children(&operator)?;
        ground.stack("after", &example("after", "v1"), "").await?;
        ground.ready("after").await?;
        let zombies = children(&operator)?;
        ensure!(
            zombies.len() <= 2,
            "{zombies:?} are left of killed renderers"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn cache_that_is_deleted_is_filled_again() -> Result<()> {
    scenario("cache-gone", async |bed| {
        let ground = Ground::shared(bed).await?;
        let folder = tempfile::tempdir()?;
        let cache = folder.path().join("cache");
        let operator = ground.operator().cache_dir(&cache).start().await?;
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;
        std::fs::remove_dir_all(&cache)?;
        ground.stack("after", &example("after", "v1"), "").await?;
        ground.ready("after").await?;
        // What was there before is still put right.
        let classes = ground.objects(&class_kind());
        let class = classes.get("docker-before-1-30-v1").await?;
        ground
            .delete_object(&class_kind(), "docker-before-1-30-v1")
            .await?;
        eventually("the class is back", PATIENCE, async || {
            let new = classes.get("docker-before-1-30-v1").await?;
            ensure!(new.uid() != class.uid(), "still the old one");
            Ok(())
        })
        .await?;
        ground.ready("before").await?;
        // By a process that has nothing in its memory.
        operator.stop()?;
        std::fs::remove_dir_all(&cache)?;
        let _operator = ground.operator().cache_dir(&cache).start().await?;
        ground
            .delete_object(&class_kind(), "docker-before-1-30-v1")
            .await?;
        eventually("the class is back again", PATIENCE, async || {
            classes.get("docker-before-1-30-v1").await?;
            Ok(())
        })
        .await?;
        ground.ready("before").await?;
        Ok(())
    })
    .await
}

/// Nothing can be written below; works for root as well, whom permissions do not stop.
fn block(cache: &Path) -> Result<()> {
    std::fs::remove_dir_all(cache)?;
    std::fs::write(cache, "in the way")?;
    Ok(())
}

#[tokio::test]
async fn cache_that_cannot_be_written_is_named_and_no_fault_of_the_release() -> Result<()> {
    scenario("cache-blocked", async |bed| {
        let ground = Ground::shared(bed).await?;
        let folder = tempfile::tempdir()?;
        let cache = folder.path().join("cache");
        let operator = ground.operator().cache_dir(&cache).start().await?;
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;
        block(&cache)?;
        ground.stack("during", &example("during", "v1"), "").await?;
        let said = ground
            .release_says(
                "docker-during-1-30-v1",
                "ClusterStackReleaseDownloaded",
                "False",
                "OperatorTrouble",
            )
            .await?;
        ensure!(
            said.message.contains("release store")
                && said.message.contains(&*cache.to_string_lossy()),
            "{said:?}"
        );
        // Nothing is known against a release that was usable: its stack only looks again.
        ground
            .patch_stack("before", json!({"versions": ["v1"]}))
            .await?;
        ground.ready("before").await?;
        ensure!(operator.is_running());
        // Nobody restarts it.
        std::fs::remove_file(&cache)?;
        ground.ready("during").await?;
        Ok(())
    })
    .await
}
