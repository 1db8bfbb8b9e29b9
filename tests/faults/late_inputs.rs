//! What somebody must bring or put right: named as long as it is missing, and taken when it comes, without a hint.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use core_operator::api::ClusterStack;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, PostParams};
use tests::github::{GitHub, OWNER, REPOSITORY, Release};
use tests::{eventually, scenario};

use super::ground::{Ground, conditions, example, is_ready, ready_of};

/// A failure that somebody must act on is looked at again after a minute, a fifth more or less, and where the machine was
/// too slow to mend it before that, after two more.
const SLOW: Duration = Duration::from_mins(4);

// Together: each waits for a minute.
#[tokio::test]
async fn what_comes_late_is_taken_without_a_hint() -> Result<()> {
    tokio::try_join!(absent_version(), release_in_the_making())?;
    Ok(())
}

/// A version that the source does not have yet.
async fn absent_version() -> Result<()> {
    scenario("absent", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        ground
            .stack("absent", &example("absent", "v1"), "versions: [v1, v7]")
            .await?;
        // pitfall 1.2: why, and in the stack as well
        let place = ground.releases.path().display().to_string();
        let words = ["docker-absent-1-30-v7", "failed to find release", &place];
        ground.stack_complains("absent", &words).await?;
        let missing = ground
            .release_says(
                "docker-absent-1-30-v7",
                "ClusterStackReleaseDownloaded",
                "False",
                "ReleaseNotFound",
            )
            .await?;
        ensure!(
            missing.message.contains("failed to find release"),
            "{missing:?}"
        );
        // What is there is usable all the same.
        ground
            .release_says("docker-absent-1-30-v1", "Ready", "True", "Ready")
            .await?;
        let stacks: Api<ClusterStack> = ground.api();
        let status = stacks.get("absent").await?.status.unwrap_or_default();
        ensure!(
            status.usable_versions.as_deref() == Some("v1"),
            "{status:?}"
        );

        // By itself, in the slow rhythm.
        example("absent", "v7").write_to(ground.releases.path())?;
        eventually("the release that came late is taken", SLOW, async || {
            let stack = stacks.get("absent").await?;
            ensure!(is_ready(&stack), "{:?}", ready_of(conditions(&stack)));
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn secret_that_is_made_and_mended_late_is_noticed_soon() -> Result<()> {
    /// Shorter than the 48 s after which it would be tried again without having been noticed.
    const SOON: Duration = Duration::from_secs(40);

    scenario("secret", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        let release = example("secret", "v1");
        let folder = tempfile::tempdir()?;
        let host = GitHub::start([Release::from_folder(&release.write_to(folder.path())?)?]).await?;
        host.state().token = Some("hidden-token".to_owned());
        let source = format!(
            "source: {{github: {{url: \"{}\", owner: {OWNER}, repository: {REPOSITORY}}}, secretRef: {{name: access}}}}",
            host.url()
        );
        ground.apply_stack("secret", &release, &source).await?;
        let words = ["Secret \"access\"", "create it"];
        let complaint = ground.stack_complains("secret", &words).await?;
        ensure!(complaint.status == "False", "{complaint:?}");
        ensure!(host.requests().is_empty(), "asked without the token that was wanted");

        let secrets: Api<Secret> = ground.api();
        let mut secret = Secret::default();
        secret.metadata.name = Some("access".to_owned());
        let token = |text: &[u8]| Some(BTreeMap::from([("token".to_owned(), ByteString(text.to_vec()))]));
        secret.data = token(b"mistyped-token");
        let params = PostParams::default();
        let mut secret = secrets.create(&params, &secret).await?;
        let stacks: Api<ClusterStack> = ground.api();
        eventually("the host was asked with the wrong token", SOON, async || {
            let stack = stacks.get("secret").await?;
            let ready = ready_of(conditions(&stack)).context("no condition Ready")?;
            ensure!(!host.requests().is_empty() && ready.message.contains("401"), "{ready:?}");
            Ok(())
        })
        .await?;
        secret.data = token(b"hidden-token\n");
        secrets.replace("access", &params, &secret).await?;
        eventually("the stack is Ready", SOON, async || {
            let stack = stacks.get("secret").await?;
            ensure!(is_ready(&stack), "{:?}", ready_of(conditions(&stack)));
            Ok(())
        })
        .await
    })
    .await
}

/// A folder that is looked at while its author still copies files into it, or mends them, is looked at again.
async fn release_in_the_making() -> Result<()> {
    /// More than the shortest time between two looks at a source, a tenth more or less, and time to do it.
    const NEXT_LOOK: Duration = Duration::from_mins(3);

    scenario("in-place", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        let whole = example("slow", "v1");
        let file = whole.name().class_chart_file();
        let half = whole.clone().without_file(&file);
        ground.stack("slow", &half, "pollInterval: 1m").await?;
        let mended = example("mended", "v1");
        let broken = mended.clone().with_file("metadata.yaml", "broken");
        ground.stack("mended", &broken, "pollInterval: 1m").await?;
        ground.stack_complains("slow", &["lacks", &file]).await?;
        ground.stack_complains("mended", &["metadata.yaml"]).await?;
        whole.write_to(ground.releases.path())?;
        mended.write_to(ground.releases.path())?;
        let stacks: Api<ClusterStack> = ground.api();
        eventually("both are Ready", NEXT_LOOK, async || {
            for stack in stacks.list(&ListParams::default()).await? {
                ensure!(is_ready(&stack), "{:?}", ready_of(conditions(&stack)));
            }
            Ok(())
        })
        .await
    })
    .await
}
