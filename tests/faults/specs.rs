//! Specs that cannot be fulfilled: the status says why.

use anyhow::{Result, ensure};
use serde_json::json;
use tests::scenario;

use super::ground::{Ground, example, manifest};

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
