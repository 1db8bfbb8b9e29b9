//! Specs that cannot be fulfilled: the status says why, and what comes later is taken.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use core_operator::api::ClusterStack;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tests::github::{GitHub, OWNER, REPOSITORY, Release};
use tests::{eventually, scenario};

use super::ground::{Ground, conditions, example, is_ready, manifest, ready_of};

/// A failure that somebody must act on is looked at again after a minute, a fifth more or less.
const SLOW: std::time::Duration = std::time::Duration::from_secs(100);

#[tokio::test]
async fn version_that_the_source_does_not_have_is_named_and_taken_when_it_comes() -> Result<()> {
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

#[tokio::test]
async fn stack_whose_secret_comes_late_becomes_ready() -> Result<()> {
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
        let token = ByteString(b"hidden-token\n".to_vec());
        secret.data = Some(BTreeMap::from([("token".to_owned(), token)]));
        secrets.create(&PostParams::default(), &secret).await?;
        let stacks: Api<ClusterStack> = ground.api();
        eventually("the stack is Ready", SLOW, async || {
            let stack = stacks.get("secret").await?;
            ensure!(is_ready(&stack), "{:?}", ready_of(conditions(&stack)));
            Ok(())
        })
        .await
    })
    .await
}
