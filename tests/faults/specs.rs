//! Specs that cannot be fulfilled: the status says why.

use anyhow::{Context as _, Result, ensure};
use core_operator::api::ClusterStackRelease;
use kube::ResourceExt;
use serde_json::json;
use tests::{eventually, scenario};

use super::ground::{Ground, PATIENCE, class_kind, example, manifest};

#[tokio::test]
async fn version_that_is_wished_no_more_goes_without_ever_having_been_there() -> Result<()> {
    scenario("mistaken", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        ground
            .stack("mistaken", &example("mistaken", "v1"), "versions: [v9]")
            .await?;
        ground
            .stack_complains("mistaken", &["docker-mistaken-1-30-v9"])
            .await?;
        ground
            .patch_stack("mistaken", json!({"versions": ["v1"]}))
            .await?;
        let stack = ground.ready("mistaken").await?;
        let names: Vec<_> = stack
            .status
            .unwrap_or_default()
            .summary
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        ensure!(names == ["v1"], "{names:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stack_for_another_kubernetes_version_says_what_the_source_has() -> Result<()> {
    scenario("mismatch", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        ground.stack("there", &example("there", "v1"), "").await?;
        let wish = example("there", "v1").named("docker-there", "1.31", "v1");
        ground.apply_stack("elsewhere", &wish, "").await?;
        ground
            .stack_complains("elsewhere", &["1 releases", "docker-there-1-31-", "stable"])
            .await?;
        ground.ready("there").await?;
        // Neither provider nor a word about it: baseline 16.
        let release = example("needy", "v1");
        release.write_to(ground.releases.path())?;
        let text = manifest("needy", &release, "").replace("  noProvider: true\n", "");
        bed.apply(&text).await?;
        ground
            .stack_complains("needy", &["spec.providerRef", "noProvider"])
            .await?;
        Ok(())
    })
    .await
}

/// The class is deleted and comes back, so the release is still looked after.
async fn class_comes_back(ground: &Ground<'_>, class: &str) -> Result<()> {
    let classes = ground.objects(&class_kind());
    let before = classes.get(class).await?.uid();
    ground.delete_object(&class_kind(), class).await?;
    eventually("the class is back", PATIENCE, async || {
        ensure!(classes.get(class).await?.uid() != before, "still there");
        Ok(())
    })
    .await
}

// What clusters use is not given up for a source that lacks it, whether or not the process is the same.
#[tokio::test]
async fn release_that_the_new_source_lacks_is_kept_and_says_so_also_after_a_restart() -> Result<()>
{
    scenario("elsewhere", async |bed| {
        let ground = Ground::shared(bed).await?;
        let folder = tempfile::tempdir()?;
        let (cache, root) = (folder.path().join("cache"), folder.path().join("root"));
        std::fs::create_dir_all(root.join("empty"))?;
        let start = async || {
            let operator = ground.operator().cache_dir(&cache);
            let root = format!("--source-root={}", root.display());
            operator.arg(root).start().await
        };
        let operator = start().await?;
        ground.stack("moved", &example("moved", "v1"), "").await?;
        ground.ready("moved").await?;
        let source = json!({"source": {"directory": {"path": "empty"}}});
        ground.patch_stack("moved", source).await?;

        let (release, class) = ("docker-moved-1-30-v1", "docker-moved-1-30-v1");
        let says = async |status: &str, reason: &str| {
            let releases = ground.api::<ClusterStackRelease>();
            eventually("the release says what is missing", PATIENCE, async || {
                let status_now = releases.get(release).await?.status.unwrap_or_default();
                let type_ = "ClusterStackReleaseDownloaded";
                let found = status_now.conditions.iter().find(|it| it.type_ == type_);
                let found = found.context("no condition")?;
                ensure!(
                    (&*found.status, &*found.reason) == (status, reason)
                        && found.message.contains("failed to find release")
                        && found.message.contains("empty"),
                    "{found:?}"
                );
                ensure!(status_now.ready, "{:?}", status_now.conditions);
                Ok(())
            })
            .await
        };
        says("True", "Downloaded").await?;
        class_comes_back(&ground, class).await?;
        operator.stop()?;
        let operator = start().await?;
        class_comes_back(&ground, class).await?;
        says("True", "Downloaded").await?;

        // Nothing is at hand any more; all that is known speaks for the release.
        operator.stop()?;
        std::fs::remove_dir_all(&cache)?;
        let _operator = start().await?;
        says("Unknown", "ReleaseNotFound").await?;
        let source = json!({"source": null});
        ground.patch_stack("moved", source).await?;
        class_comes_back(&ground, class).await?;
        ground.ready("moved").await?;
        Ok(())
    })
    .await
}
