//! Releases with a mistake each, and what is said of them.

use std::io::Write;

use anyhow::{Context, Result};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::EntryType::{self, Link, Regular, Symlink};
use tests::stacks::StackRelease;

use super::super::ground::example;

/// Why most of them cannot be used.
pub const INVALID: &str = "ReleaseInvalid";

/// No YAML; kept all the same.
pub const NODE_IMAGES: &str = "}{ not: [yaml";

/// A release, why it cannot be used, and what its message must contain: file, expected, found.
pub struct Case {
    pub release: StackRelease,
    pub condition: &'static str,
    pub reason: &'static str,
    pub words: Vec<String>,
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
fn archive(entries: &[(&str, EntryType, &str)], more: usize, zeros: u64) -> Result<Vec<u8>> {
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

/// All of them.
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = Cases::default();
    metadata_cases(&mut cases);
    chart_cases(&mut cases)?;
    addon_cases(&mut cases)?;
    render_cases(&mut cases);
    object_cases(&mut cases);
    Ok(cases.0)
}

fn metadata_cases(cases: &mut Cases) {
    cases.files(
        "no-yaml",
        metadata("{{ not: [yaml"),
        &["\"metadata.yaml\"", "no valid YAML", "line 1"],
    );
    cases.files(
        "no-map",
        metadata("just a text"),
        &["\"metadata.yaml\"", "expected", "found"],
    );
    cases.files("empty", metadata(""), &["\"metadata.yaml\"", "empty"]);
    cases.files(
        "version",
        metadata("versions: {clusterStack: v2, kubernetes: v1.30.1}"),
        &[
            "\"metadata.yaml\"",
            "versions.clusterStack",
            "expected",
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
            "expected",
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
            "expected",
            "found \"newest\"",
        ],
    );
    cases.files(
        "endless-version",
        |release| release.kubernetes(&format!("v1.30.4+{}", "a".repeat(200))),
        &[
            "\"metadata.yaml\"",
            "versions.kubernetes",
            "expected",
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
        &["\"metadata.yaml\"", "apiVersion", "expected", "v1alpha1", "found", "v9"],
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
}

fn chart_cases(cases: &mut Cases) -> Result<()> {
    let chart = |name: &str| format!("\"docker-{name}-1-30-cluster-class-v1.tgz\"");
    cases.files(
        "text",
        class_chart("no archive at all"),
        &[&chart("text"), "gzip", "found"],
    );
    cases.files(
        "no-bytes",
        class_chart(""),
        &[&chart("no-bytes"), "expected", "found"],
    );
    cases.files(
        "page",
        class_chart("<!DOCTYPE html><html><title>Log in</title></html>"),
        &[&chart("page"), "expected", "gzip", "found", "page"],
    );
    let whole = class_archive("truncated")?;
    cases.files(
        "truncated",
        class_chart(&whole[..whole.len() / 2]),
        &[&chart("truncated"), "damaged", "expected", "found"],
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
    Ok(())
}

fn addon_cases(cases: &mut Cases) -> Result<()> {
    let addon = |name: &str| format!("\"docker-{name}-1-30-cluster-addon-v1.tgz\"");
    // pitfall 38
    for (name, entry, words) in [
        (
            "traversal",
            ("cni/../../../tmp/evil", Regular, ""),
            ["cni/../../../tmp/evil", "expected"],
        ),
        (
            "absolute",
            ("/etc/evil", Regular, ""),
            ["/etc/evil", "expected"],
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
            "expected",
            "found",
        ],
    );
    cases.files(
        "odd-action",
        stages("addonStages: {AfterControlPlaneInitialized: [{name: cni, action: explode}]}"),
        &["\"clusteraddon.yaml\"", "action", "expected", "found"],
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
    Ok(())
}

fn render_cases(cases: &mut Cases) {
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
}

fn object_cases(cases: &mut Cases) {
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
    if let Some(case) = cases
        .0
        .iter_mut()
        .find(|case| case.release.stack() == "unknown-kind")
    {
        case.reason = "KindNotServed";
    }
}

/// Releases that look like garbage and are none, or not enough of it.
pub fn tolerable() -> Vec<StackRelease> {
    let hashes: serde_json::Map<_, _> = (0..1000)
        .map(|number| (format!("hash{number}"), json!("0".repeat(1000))))
        .collect();
    vec![
        // Only the provider understands it.
        example("images", "v1").with_file("node-images.yaml", NODE_IMAGES),
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
