//! Releases that no author should publish: each says what is wrong with it, and disturbs nobody.

mod broken;

use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease};
use futures::future::{join_all, try_join_all};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use tests::github::{GitHub, OWNER, REPOSITORY, Release};
use tests::{eventually, scenario};

use self::broken::{Case, INVALID, NODE_IMAGES, cases, tolerable};
use super::ground::{Ground, PATIENCE, conditions, example, metric, ready_of};

#[tokio::test]
async fn each_broken_release_says_what_is_wrong_and_no_other_is_disturbed() -> Result<()> {
    scenario("garbage", async |bed| {
        let ground = Ground::shared(bed).await?;
        let operator = ground.operator().start().await?;
        let cases = cases()?;
        ensure!(cases.len() > 30);
        try_join_all(
            cases
                .iter()
                .map(|case| ground.stack(case.release.stack(), &case.release, "")),
        )
        .await?;
        let linked = example("linked", "v1");
        let folder = linked.write_to(ground.releases.path())?;
        symlink("/etc/passwd", folder.join("passwd"))?;
        ground.apply_stack("linked", &linked, "").await?;
        // After all of them.
        let tolerable = tolerable();
        try_join_all(
            tolerable
                .iter()
                .map(|release| ground.stack(release.stack(), release, "")),
        )
        .await?;
        ground
            .stack("healthy", &example("healthy", "v1"), "")
            .await?;

        ground.ready("healthy").await?;
        try_join_all(
            tolerable
                .iter()
                .map(|release| ground.ready(release.stack())),
        )
        .await?;
        let kept = walkdir::WalkDir::new(operator.folder().join("cache/releases"))
            .into_iter()
            .filter_map(Result::ok)
            .find(|entry| entry.file_name() == "node-images.yaml");
        let kept = std::fs::read_to_string(kept.context("node-images.yaml was not kept")?.path())?;
        ensure!(kept == NODE_IMAGES, "{kept}");
        let verdicts = join_all(cases.iter().map(|case| says(&ground, case))).await;
        let wrong: Vec<_> = cases
            .iter()
            .zip(verdicts)
            .filter_map(|(case, verdict)| Some((case.release.stack(), verdict.err()?)))
            .map(|(stack, error)| format!("{stack}: {error:#}"))
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        ground
            .release_says("docker-linked-1-30-v1", "Ready", "False", "SourceRefused")
            .await?;
        ground
            .stack_complains("linked", &["passwd", "link"])
            .await?;
        ensure!(!std::fs::exists("/tmp/evil")? && !std::fs::exists("/etc/evil")?);
        ensure!(operator.is_running());
        let log = operator.log()?;
        ensure!(!log.contains("panicked"), "{log}");

        // pitfall 9 and 1.2: a broken release is deleted like any other.
        let stacks: Api<ClusterStack> = ground.api();
        let all = stacks.list(&ListParams::default()).await?;
        let names: Vec<_> = all.iter().map(ResourceExt::name_any).collect();
        try_join_all(names.iter().map(|name| ground.delete(name))).await?;
        ground.is_empty().await
    })
    .await
}

/// The release and its stack say what is wrong.
async fn says(ground: &Ground<'_>, case: &Case) -> Result<()> {
    let tag = case.release.name().tag();
    let found = ground
        .release_says(&tag, case.condition, "False", case.reason)
        .await?;
    for word in &case.words {
        ensure!(
            found.message.contains(word),
            "no {word:?} in {:?}",
            found.message
        );
    }
    let ready = ground
        .release_says(&tag, "Ready", "False", case.reason)
        .await?;
    ensure!(ready.message == found.message, "Ready says {ready:?}");
    let fragments: Vec<_> = case.words.iter().map(String::as_str).collect();
    ground
        .stack_complains(case.release.stack(), &fragments)
        .await?;
    Ok(())
}

// pitfall 9: deleting needs the inventory and nothing else
#[tokio::test]
async fn release_whose_files_are_gone_everywhere_is_deleted_with_all_it_made() -> Result<()> {
    scenario("files-gone", async |bed| {
        let ground = Ground::shared(bed).await?;
        let cache = tempfile::tempdir()?;
        let operator = ground.operator().cache_dir(cache.path()).start().await?;
        let release = example("lost", "v1");
        ground.stack("lost", &release, "").await?;
        ground.ready("lost").await?;
        ensure!(!ground.owned().await?.is_empty());
        operator.stop()?;
        for folder in [cache.path(), ground.releases.path()] {
            std::fs::remove_dir_all(folder)?;
            std::fs::create_dir(folder)?;
        }
        let _operator = ground.operator().cache_dir(cache.path()).start().await?;
        ground.delete("lost").await?;
        ground.is_empty().await
    })
    .await
}

/// Tags that are no names of releases, or of nobody's.
fn foreign_tags() -> Vec<String> {
    let mut tags: Vec<String> = [
        "latest",
        "v1.2.3",
        "../../etc/passwd",
        "docker-tags-1-30-v1/../../../etc/passwd",
        "docker-tags-1-30-",
        "docker-tags-1-30-v",
        "docker-tags-1-30-v01",
        "docker-tags-1-30-v-1",
        "docker-tags-1-30-V2",
        "docker-tags-1-30-v1-sha",
        "docker-tags-1-30-v1-sha-a-b-c-",
        "docker-tags-1-30-v99999999999999999999999999",
        "docker-tags-99999999999999999999-30-v3",
        "docker tags 1 30 v4",
        "docker-tags-1-30-v5\n",
        "dócker-tags-1-30-v6",
        "docker-tags-1-30-v7\u{202e}",
        "-",
        "🦀",
        "%2e%2e%2f",
        "docker-tags-1-30-v2.0.1",
        // Longer than any status has room for.
        "docker-tags-1-30-v1-abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijk-1",
    ]
    .map(str::to_owned)
    .into();
    tags.push("x".repeat(10_000));
    tags.push(format!("docker-{}-1-30-v1", "tags-".repeat(2_000)));
    tags.push(format!("docker-tags-1-30-v{}", "9".repeat(10_000)));
    tags
}

// pitfalls 8, 41, 61
#[tokio::test]
async fn foreign_tags_of_a_repository_are_counted_and_change_nothing() -> Result<()> {
    scenario("tags", async |bed| {
        let ground = Ground::shared(bed).await?;
        let release = example("tags", "v1");
        let folder = tempfile::tempdir()?;
        let folder = release.write_to(folder.path())?;
        let foreign = foreign_tags();
        // In front of the right one, behind it, and of other stacks.
        let mut releases: Vec<_> = foreign.iter().map(|tag| Release::empty(tag)).collect();
        releases.insert(foreign.len() / 2, Release::from_folder(&folder)?);
        releases.push(Release::new("openstack-tags-1-30-v8"));
        releases.push(Release::new("docker-tags-1-31-v8"));
        let github = GitHub::start(releases).await?;
        github.state().page_size = Some(5);
        let operator = ground.operator().start().await?;
        ground
            .apply_stack(
                "tags",
                &release,
                &format!(
                    "source: {{github: {{url: \"{}\", owner: {OWNER}, repository: {REPOSITORY}}}}}",
                    github.url()
                ),
            )
            .await?;
        let stack = ground.ready("tags").await?;
        for condition in conditions(&stack) {
            let good = !["Paused", "DeletionBlocked"].contains(&&*condition.type_);
            ensure!((condition.status == "True") == good, "{condition:?}");
        }
        let status = stack.status.unwrap_or_default();
        ensure!(
            status.usable_versions.as_deref() == Some("v1"),
            "{status:?}"
        );
        let releases: Api<ClusterStackRelease> = ground.api();
        let releases = releases.list(&ListParams::default()).await?;
        ensure!(releases.items.len() == 1, "{releases:?}");
        let counted = metric(
            &operator,
            "cluster_stack_operator_foreign_tags_ignored_total",
        )
        .await?;
        ensure!(
            counted >= f64::from(u32::try_from(foreign.len())?),
            "{counted} of {}",
            foreign.len()
        );
        Ok(())
    })
    .await
}

// Terminal for the content, not for the name under which the next content comes.
#[tokio::test]
async fn broken_release_that_is_made_anew_becomes_ready() -> Result<()> {
    scenario("mended", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        let broken = example("mended", "v1").with_file("metadata.yaml", "broken");
        ground.stack("mended", &broken, "").await?;
        ground.stack_complains("mended", &["metadata.yaml"]).await?;
        example("mended", "v1").write_to(ground.releases.path())?;
        let releases: Api<ClusterStackRelease> = ground.api();
        releases
            .delete("docker-mended-1-30-v1", &DeleteParams::default())
            .await?;
        ground.ready("mended").await?;
        let release = releases.get("docker-mended-1-30-v1").await?;
        let conditions = release.status.unwrap_or_default().conditions;
        ensure!(ready_of(&conditions).is_some_and(|ready| ready.status == "True"));
        eventually("the event of the failure is there", PATIENCE, async || {
            let events: Api<k8s_openapi::api::events::v1::Event> = ground.api();
            let events = events.list(&ListParams::default()).await?;
            let told = events.iter().filter(|event| {
                event.reason.as_deref() == Some(INVALID)
                    && event.type_.as_deref() == Some("Warning")
            });
            ensure!(told.count() > 0, "{events:?}");
            Ok(())
        })
        .await
    })
    .await
}
