//! Releases that no author should publish: each says what is wrong with it, and disturbs nobody.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::{join_all, try_join_all};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tests::github::{GitHub, OWNER, REPOSITORY, Release};
use tests::stacks::StackRelease;
use tests::{eventually, scenario};

use super::ground::{Ground, PATIENCE, conditions, example, is_ready, metric, ready_of};

const INVALID: &str = "ReleaseInvalid";

/// A release, why it cannot be used, and what its message must contain: file, expected, found.
struct Case {
    release: StackRelease,
    condition: &'static str,
    reason: &'static str,
    words: Vec<String>,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    /// A case of its own name.
    fn add(
        &mut self,
        name: &str,
        change: impl FnOnce(StackRelease) -> StackRelease,
        condition: &'static str,
        words: &[&str],
    ) {
        self.0.push(Case {
            release: change(example(name, "v1")),
            condition,
            reason: INVALID,
            words: words.iter().map(ToString::to_string).collect(),
        });
    }

    fn files(
        &mut self,
        name: &str,
        change: impl FnOnce(StackRelease) -> StackRelease,
        words: &[&str],
    ) {
        self.add(name, change, "ClusterStackReleaseDownloaded", words);
    }

    fn objects(
        &mut self,
        name: &str,
        change: impl FnOnce(StackRelease) -> StackRelease,
        words: &[&str],
    ) {
        self.add(name, change, "HelmChartApplied", words);
    }
}

fn metadata(text: &'static str) -> impl FnOnce(StackRelease) -> StackRelease {
    move |release| release.with_file("metadata.yaml", text)
}

fn class_chart(content: impl Into<Vec<u8>>) -> impl FnOnce(StackRelease) -> StackRelease {
    let content = content.into();
    move |release| {
        let file = release.name().class_chart_file();
        release.with_file(&file, content)
    }
}

fn addon_chart(content: Vec<u8>) -> impl FnOnce(StackRelease) -> StackRelease {
    move |release| {
        let file = release.name().addon_chart_file(release.name().version());
        release.with_file(&file, content)
    }
}

fn template(text: &'static str) -> impl FnOnce(StackRelease) -> StackRelease {
    move |release| release.with_class_template("extra.yaml", text)
}

fn stages(text: &'static str) -> impl FnOnce(StackRelease) -> StackRelease {
    move |release| release.with_file("clusteraddon.yaml", text)
}

/// The class chart of a release as it should be.
fn class_archive(name: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let release = example(name, "v1");
    let path = release.write_to(folder.path())?;
    std::fs::read(path.join(release.name().class_chart_file())).context("no chart")
}

/// An archive of entries that a tar program would not write.
fn archive(entries: &[(&str, tar::EntryType, &str)], more: usize, zeros: u64) -> Result<Vec<u8>> {
    let gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    let chart = "apiVersion: v2\nname: cni\nversion: 1.0.0\n";
    for stage in ["cni", "metrics"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(chart.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("{stage}/Chart.yaml"), chart.as_bytes())?;
    }
    for (path, kind, target) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_size(0);
        header.set_mode(0o644);
        // The crate refuses such paths.
        let bytes = &mut header.as_old_mut().name;
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        tar.append(&header, std::io::empty())?;
    }
    for number in 0..more {
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("cni/{number}"), std::io::empty())?;
    }
    if zeros > 0 {
        let mut header = tar::Header::new_gnu();
        header.set_size(zeros);
        header.set_mode(0o644);
        tar.append_data(
            &mut header,
            "cni/zeros",
            std::io::Read::take(std::io::repeat(0), zeros),
        )?;
    }
    let mut gzip = tar.into_inner()?;
    gzip.flush()?;
    gzip.finish().context("failed to compress")
}

fn cases() -> Result<Cases> {
    let mut cases = Cases::default();
    let expected = "expected";
    cases.files(
        "no-yaml",
        metadata("{{ not: [yaml"),
        &["\"metadata.yaml\"", "no valid YAML", "line 1"],
    );
    cases.files(
        "no-map",
        metadata("just a text"),
        &["\"metadata.yaml\"", expected, "found"],
    );
    cases.files("empty", metadata(""), &["\"metadata.yaml\"", "empty"]);
    cases.files(
        "version",
        metadata("versions: {clusterStack: v2, kubernetes: v1.30.1}"),
        &[
            "\"metadata.yaml\"",
            "versions.clusterStack",
            expected,
            "\"v1\"",
            "found \"v2\"",
        ],
    );
    cases.files(
        "kubernetes",
        metadata("versions: {clusterStack: v1, kubernetes: v1.29.9}"),
        &[
            "\"metadata.yaml\"",
            "versions.kubernetes",
            expected,
            "\"1.30\"",
            "found \"v1.29.9\"",
        ],
    );
    cases.files(
        "nonsense-version",
        metadata("versions: {clusterStack: v1, kubernetes: newest}"),
        &[
            "\"metadata.yaml\"",
            "versions.kubernetes",
            expected,
            "found \"newest\"",
        ],
    );
    cases.files(
        "endless-version",
        |release| release.kubernetes(&format!("v1.30.4+{}", "a".repeat(200))),
        &[
            "\"metadata.yaml\"",
            "versions.kubernetes",
            expected,
            "found \"v1.30.4+aaa",
        ],
    );
    cases.files(
        "lacks-versions",
        metadata("apiVersion: metadata.clusterstack.x-k8s.io/v1alpha1"),
        &["\"metadata.yaml\"", "lacks the field \"versions\""],
    );
    cases.files(
        "lacks-kubernetes",
        metadata("versions: {clusterStack: v1}"),
        &[
            "\"metadata.yaml\"",
            "lacks the field \"versions.kubernetes\"",
        ],
    );
    cases.files(
        "future",
        metadata("apiVersion: metadata.clusterstack.x-k8s.io/v9\nversions: {clusterStack: v1, kubernetes: v1.30.1}"),
        &["\"metadata.yaml\"", "apiVersion", expected, "v1alpha1", "found", "v9"],
    );
    cases.files(
        "two-megabytes",
        |release| release.with_file("metadata.yaml", vec![b' '; 2 << 20]),
        &["\"metadata.yaml\"", "too large", "1048576", "2097152"],
    );
    cases.files(
        "bytes",
        |release| release.with_file("metadata.yaml", [0xff, 0xfe, 0x00, 0x01]),
        &["\"metadata.yaml\"", "UTF-8"],
    );
    cases.files(
        "no-metadata",
        |release| release.without_file("metadata.yaml"),
        &["lacks \"metadata.yaml\"", "there is"],
    );

    let chart = |name: &str| format!("\"docker-{name}-1-30-cluster-class-v1.tgz\"");
    cases.files(
        "text",
        class_chart("no archive at all"),
        &[&chart("text"), "gzip", "found"],
    );
    cases.files(
        "no-bytes",
        class_chart(""),
        &[&chart("no-bytes"), expected, "found"],
    );
    cases.files(
        "page",
        class_chart("<!DOCTYPE html><html><title>Log in</title></html>"),
        &[&chart("page"), expected, "gzip", "found", "page"],
    );
    let whole = class_archive("truncated")?;
    cases.files(
        "truncated",
        class_chart(&whole[..whole.len() / 2]),
        &[&chart("truncated"), "damaged", expected, "found"],
    );
    cases.files(
        "no-chart",
        |release| {
            let file = release.name().class_chart_file();
            release.without_file(&file)
        },
        &["lacks", &chart("no-chart"), "there is"],
    );
    // pitfall 58: a file whose name merely contains the right one
    cases.files(
        "other-name",
        |release| {
            let file = release.name().class_chart_file();
            release
                .without_file(&file)
                .with_file("docker-other-name-1-30-cluster-class-v10.tgz", &whole)
        },
        &["lacks", &chart("other-name"), "cluster-class-v10.tgz"],
    );

    let addon = |name: &str| format!("\"docker-{name}-1-30-cluster-addon-v1.tgz\"");
    use tar::EntryType::{Link, Regular, Symlink};
    // pitfall 38
    for (name, entry, words) in [
        (
            "traversal",
            ("cni/../../../tmp/evil", Regular, ""),
            ["cni/../../../tmp/evil", expected],
        ),
        (
            "absolute",
            ("/etc/evil", Regular, ""),
            ["/etc/evil", expected],
        ),
        (
            "link-out",
            ("cni/link", Symlink, "/etc/passwd"),
            ["cni/link", "link"],
        ),
        (
            "hard-link",
            ("cni/link", Link, "../../etc/passwd"),
            ["cni/link", "link"],
        ),
    ] {
        let file = addon(name);
        let words = [&*file, words[0], words[1], "found"];
        cases.files(name, addon_chart(archive(&[entry], 0, 0)?), &words);
    }
    cases.files(
        "bomb",
        addon_chart(archive(&[], 0, 101 << 20)?),
        &[&addon("bomb"), "too large", "104857600 bytes"],
    );
    cases.files(
        "many-entries",
        addon_chart(archive(&[], 10_001, 0)?),
        &[&addon("many-entries"), "too large", "10000"],
    );
    cases.files(
        "no-stages",
        stages("[]: {"),
        &["\"clusteraddon.yaml\"", "YAML"],
    );
    cases.files(
        "odd-stages",
        stages("addonStages: {AfterControlPlaneInitialized: cni}"),
        &[
            "\"clusteraddon.yaml\"",
            "AfterControlPlaneInitialized",
            expected,
            "found",
        ],
    );
    cases.files(
        "odd-action",
        stages("addonStages: {AfterControlPlaneInitialized: [{name: cni, action: explode}]}"),
        &["\"clusteraddon.yaml\"", "action", expected, "found"],
    );
    cases.files(
        "stage-without-chart",
        stages("addonStages: {AfterControlPlaneInitialized: [{name: storage, action: apply}]}"),
        &[
            &addon("stage-without-chart"),
            "storage/Chart.yaml",
            "\"cni\"",
            "\"metrics\"",
        ],
    );

    // baseline 05
    cases.objects(
        "no-render",
        template("{{ .Values.no.such.value }}"),
        &["extra.yaml", "nil pointer"],
    );
    cases.objects(
        "fails",
        template("{{ fail \"because I can\" }}"),
        &["extra.yaml", "because I can"],
    );
    cases.objects("no-object", template("kind: [1, 2]"), &["extra.yaml"]);
    cases.objects("no-manifest", template("a: b: c"), &["extra.yaml"]);
    cases.objects(
        "elsewhere",
        template("apiVersion: infrastructure.cluster.x-k8s.io/v1beta1\nkind: DockerClusterTemplate\nmetadata: {name: far, namespace: kube-system}\nspec: {}"),
        &["far", "kube-system"],
    );
    cases.objects(
        "cluster-scoped",
        template("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: mighty}\nrules: []"),
        &["ClusterRole", "mighty", "--allow-cluster-kinds"],
    );
    cases.objects(
        "twice",
        template("apiVersion: infrastructure.cluster.x-k8s.io/v1beta1\nkind: DockerClusterTemplate\nmetadata: {name: same}\nspec: {}\n---\napiVersion: infrastructure.cluster.x-k8s.io/v1beta1\nkind: DockerClusterTemplate\nmetadata: {name: same}\nspec: {}"),
        &["DockerClusterTemplate", "same", "twice", "extra.yaml"],
    );
    cases.objects(
        "long-name",
        template("apiVersion: infrastructure.cluster.x-k8s.io/v1beta1\nkind: DockerClusterTemplate\nmetadata: {name: \"{{ repeat 300 \"x\" }}\"}\nspec: {}"),
        &["DockerClusterTemplate", "xxx"],
    );
    cases.objects(
        "unknown-kind",
        template("apiVersion: nowhere.example.com/v1\nkind: Riddle\nmetadata: {name: it}"),
        &["Riddle", "nowhere.example.com"],
    );
    cases.objects(
        "subresource",
        template("apiVersion: infrastructure.cluster.x-k8s.io/v1beta1\nkind: DockerClusterTemplate\nmetadata: {name: a/status}\nspec: {}"),
        &["DockerClusterTemplate", "extra.yaml", "a/status"],
    );
    for (name, reason) in [("unknown-kind", "KindNotServed")] {
        let case = cases.0.iter_mut().find(|it| it.release.stack() == name);
        case.context("no such case")?.reason = reason;
    }
    Ok(cases)
}

/// Releases that look like garbage and are none, or not enough of it.
fn tolerable() -> Vec<StackRelease> {
    let hashes: serde_json::Map<_, _> = (0..1000)
        .map(|number| (format!("hash{number}"), json!("0".repeat(1000))))
        .collect();
    vec![
        // Only the provider understands it.
        example("images", "v1").with_file("node-images.yaml", "}{ not: [yaml"),
        example("hashes", "v1").with_file("hashes.json", "no JSON"),
        example("many-hashes", "v1").with_file(
            "hashes.json",
            serde_json::Value::Object(hashes).to_string(),
        ),
        example("topology", "v1").with_file("topology-docker.yaml", [0xff; 100]),
        example("extra", "v1").with_file("what is this?.txt", "nobody knows"),
        // The hook key in a real release is literally "name".
        example("slip", "v1").with_file(
            "clusteraddon.yaml",
            "addonStages: {name: [{name: cni, action: apply}], AfterControlPlaneInitialized: [{name: cni, action: apply}]}",
        ),
        example("build", "v1").kubernetes("v1.30.4+build.7"),
    ]
}

#[tokio::test]
async fn each_broken_release_says_what_is_wrong_and_no_other_is_disturbed() -> Result<()> {
    scenario("garbage", async |bed| {
        let ground = Ground::shared(bed).await?;
        let operator = ground.operator().start().await?;
        let Cases(cases) = cases()?;
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
            counted >= foreign.len() as f64,
            "{counted} of {}",
            foreign.len()
        );
        Ok(())
    })
    .await
}

// A folder that is looked at while its author still copies files into it, or mends them, is looked at again.
#[tokio::test]
async fn release_that_was_copied_slowly_or_mended_in_place_becomes_ready() -> Result<()> {
    /// The shortest time between two looks at a source, a tenth more or less, and time to do it.
    const NEXT_LOOK: Duration = Duration::from_secs(100);

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
