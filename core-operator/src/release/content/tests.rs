use tempfile::TempDir;

use super::*;
use crate::release::{Hook, Version};

const TAG: &str = "docker-scs-1-30-v0-sha-abc";
const CLASS: &str = "docker-scs-1-30-cluster-class-v0-sha.abc.tgz";
const ADDON: &str = "docker-scs-1-30-cluster-addon-v2.tgz";
const METADATA: &str = "apiVersion: metadata.clusterstack.x-k8s.io/v1alpha1
versions:
  clusterStack: v0-sha.abc
  kubernetes: 1.30.10
  components:
    clusterAddon: v2
";

/// A release folder in the making.
struct Folder(TempDir);

impl Folder {
    fn complete() -> Self {
        Self(TempDir::new().unwrap())
            .with("metadata.yaml", METADATA)
            .with(CLASS, "")
            .with(ADDON, "")
    }

    fn with(self, file: &str, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.0.path().join(file), content).unwrap();
        self
    }

    fn without(self, file: &str) -> Self {
        fs::remove_file(self.0.path().join(file)).unwrap();
        self
    }

    fn open_as(&self, tag: &str) -> Result<ReleaseContent, ReleaseInvalid> {
        ReleaseContent::open(self.0.path(), &ReleaseName::parse(tag).unwrap())
    }

    fn error(&self) -> String {
        let error = self.open_as(TAG).unwrap_err();
        assert_eq!(error.recovery(), proto::Recovery::Terminal);
        let message = error.to_string();
        assert!(message.len() < 1024, "{message}");
        message
    }
}

#[test]
fn release_of_one_chart_has_values() {
    let folder = Folder::complete().with(VALUES_FILE, "values: |\n  a: 1\n");
    let content = folder.open_as(TAG).unwrap();
    assert_eq!(content.kubernetes_version, "1.30.10");
    assert_eq!(content.metadata.cluster_addon, Some(Version::plain(2)));
    assert_eq!(content.class_chart, folder.0.path().join(CLASS));
    let addon = content.addon.unwrap();
    assert_eq!(addon.chart, folder.0.path().join(ADDON));
    assert_eq!(
        (addon.stages, addon.values.as_deref()),
        (None, Some("values: |\n  a: 1\n"))
    );
    assert_eq!(
        (content.node_images, content.hashes, content.warnings.len()),
        (None, None, 0)
    );
    assert_eq!(
        Folder::complete()
            .open_as(TAG)
            .unwrap()
            .addon
            .unwrap()
            .values,
        None
    );
}

#[test]
fn release_with_stages_has_no_common_values() {
    let folder = Folder::complete()
        .with(
            "clusteraddon.yaml",
            "addonStages: {AfterControlPlaneInitialized: [{name: cni, action: apply}], x: []}",
        )
        .with(VALUES_FILE, "values: ''");
    let content = folder.open_as(TAG).unwrap();
    let addon = content.addon.unwrap();
    assert_eq!(
        addon
            .stages
            .unwrap()
            .at(Hook::AfterControlPlaneInitialized)
            .len(),
        1
    );
    assert_eq!(addon.values, None);
    assert_eq!(content.warnings.len(), 1, "{:?}", content.warnings);
}

#[test]
fn release_without_addon_and_node_image_is_complete() {
    // pitfall_59: neither component is needed.
    let metadata = METADATA.replace("clusterAddon: v2", "clusterAddon: ''");
    let content = Folder::complete()
        .without(ADDON)
        .with("metadata.yaml", metadata)
        .open_as(TAG)
        .unwrap();
    assert_eq!((content.addon, content.metadata.node_image), (None, None));
}

#[test]
fn files_for_others_are_kept_as_they_are() {
    let folder = Folder::complete()
        .with("topology-docker.yaml", [0xff; 10])
        .with(NODE_IMAGES_FILE, "not: [yaml")
        .with(HASHES_FILE, r#"{"clusterStack": "abc", "n": 1}"#);
    let content = folder.open_as(TAG).unwrap();
    assert_eq!(content.node_images.as_deref(), Some("not: [yaml"));
    let hashes = content.hashes.unwrap();
    assert_eq!(
        (hashes["clusterStack"].as_str(), hashes["n"].as_str()),
        ("abc", "1")
    );
    assert!(content.warnings.is_empty());
}

#[test]
fn hashes_never_decide() {
    let large = vec![b' '; usize::try_from(MAX_TEXT_SIZE).unwrap() + 1];
    let many: BTreeMap<_, _> = (0..=MAX_HASHES).map(|n| (n.to_string(), "abc")).collect();
    let many = serde_json::to_vec(&many).unwrap();
    let long = format!(
        "{{\"clusterStack\": \"{}\"}}",
        "a".repeat(MAX_HASH_LENGTH + 1)
    );
    for hashes in [
        b"".as_slice(),
        b"{",
        b"[]",
        &[0xff, 0xfe],
        &large,
        &many,
        long.as_bytes(),
    ] {
        let content = Folder::complete()
            .with(HASHES_FILE, hashes)
            .open_as(TAG)
            .unwrap();
        assert_eq!((content.hashes, content.warnings.len()), (None, 1));
        assert!(
            content.warnings[0].starts_with("\"hashes.json\""),
            "{:?}",
            content.warnings
        );
    }
}

#[test]
fn garbage_in_metadata_is_named() {
    let large = vec![b'#'; usize::try_from(MAX_TEXT_SIZE).unwrap() + 1];
    for (metadata, message) in [
        (b"".as_slice(), "\"metadata.yaml\" is empty"),
        (b"\n# nothing\n", "\"metadata.yaml\" is empty"),
        (
            b"<!DOCTYPE html><html>404</html>",
            "expected a map, found text",
        ),
        (
            b"- a\n- b\n",
            "\"metadata.yaml\" is wrong in the document (line 1, column 1): expected a map, found a list",
        ),
        (
            b"versions: [",
            "\"metadata.yaml\" is no valid YAML at line 1",
        ),
        (
            &[0x1f, 0x8b, 0x08, 0x00, 0xff],
            "\"metadata.yaml\" is wrong: expected text in UTF-8",
        ),
        (&[0x00, 0x01, 0x02], "\"metadata.yaml\" is no valid YAML"),
        (
            &large,
            "\"metadata.yaml\" is too large: expected at most 1048576 bytes, found 1048577",
        ),
    ] {
        let error = Folder::complete().with("metadata.yaml", metadata).error();
        assert!(error.contains(message), "{error}");
    }
    let error = Folder::complete().without("metadata.yaml").error();
    assert_eq!(
        error,
        "the release lacks \"metadata.yaml\", there is no file \"*.yaml\""
    );
}

#[test]
fn metadata_of_another_release_is_refused() {
    for (from, to, message) in [
        (
            "v0-sha.abc",
            "v0-sha.abd",
            "\"versions.clusterStack\": expected \"v0-sha.abc\" as in the name of the release, found \"v0-sha.abd\"",
        ),
        ("v0-sha.abc", "v1", "found \"v1\""),
        (
            "1.30.10",
            "v1.31.0",
            "\"versions.kubernetes\": expected a version of \"1.30\" as in the name of the release, found \"v1.31.0\"",
        ),
    ] {
        let error = Folder::complete()
            .with("metadata.yaml", METADATA.replace(from, to))
            .error();
        assert!(error.contains(message), "{error}");
    }
    let folder = Folder::complete().with(
        "metadata.yaml",
        METADATA.replace("v0-sha.abc", "v0-sha-abc"),
    );
    assert!(
        folder.open_as(TAG).is_ok(),
        "both forms mean the same version"
    );
}

#[test]
fn charts_are_found_by_their_exact_name() {
    // pitfall_58: found by substring, version 1 would match the charts of 10 and 11.
    let metadata =
        "versions: {clusterStack: v10, kubernetes: v1.30.10, components: {clusterAddon: v1}}";
    let folder = |class: &str, addon: &str| {
        Folder(TempDir::new().unwrap())
            .with("metadata.yaml", metadata)
            .with(class, "")
            .with(addon, "")
    };
    let complete = folder(
        "docker-scs-1-30-cluster-class-v10.tgz",
        "docker-scs-1-30-cluster-addon-v1.tgz",
    );
    assert!(complete.open_as("docker-scs-1-30-v10").is_ok());
    for (class, addon, message) in [
        (
            "docker-scs-1-30-cluster-class-v1.tgz",
            "docker-scs-1-30-cluster-addon-v1.tgz",
            "the release lacks \"docker-scs-1-30-cluster-class-v10.tgz\", there is only \"docker-scs-1-30-cluster-addon-v1.tgz\", \"docker-scs-1-30-cluster-class-v1.tgz\"",
        ),
        (
            "docker-scs-1-30-cluster-class-v10.tgz",
            "docker-scs-1-30-cluster-addon-v10.tgz",
            "the release lacks \"docker-scs-1-30-cluster-addon-v1.tgz\", there is only \"docker-scs-1-30-cluster-addon-v10.tgz\", \"docker-scs-1-30-cluster-class-v10.tgz\"",
        ),
        (
            "docker-scs-1-30-cluster-class-v100.tgz",
            "other-docker-scs-1-30-cluster-addon-v1.tgz",
            "the release lacks \"docker-scs-1-30-cluster-class-v10.tgz\"",
        ),
    ] {
        let error = folder(class, addon)
            .open_as("docker-scs-1-30-v10")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(message), "{error}");
    }
}

#[test]
fn folder_in_the_place_of_a_chart_is_no_chart() {
    let folder = Folder::complete().without(CLASS);
    fs::create_dir(folder.0.path().join(CLASS)).unwrap();
    assert!(folder.error().starts_with("the release lacks"));
}

#[test]
fn messages_stay_short_however_many_files_there_are() {
    let folder = (0..200).fold(Folder::complete().without(CLASS), |folder, n| {
        folder.with(&format!("{}{n}.tgz", "x".repeat(200)), "")
    });
    assert!(folder.error().contains("and 196 more"));
}

#[test]
fn broken_stages_are_named() {
    for (text, message) in [
        ("", "\"clusteraddon.yaml\" is empty"),
        (
            "addonStages: []",
            "\"clusteraddon.yaml\" is wrong in \"addonStages\"",
        ),
    ] {
        let error = Folder::complete().with("clusteraddon.yaml", text).error();
        assert!(error.contains(message), "{error}");
    }
}

#[test]
fn a_missing_folder_says_nothing_about_the_release() {
    let name = ReleaseName::parse(TAG).unwrap();
    let error = ReleaseContent::open(Path::new("/nonexistent"), &name).unwrap_err();
    assert_eq!(error.recovery(), proto::Recovery::Unknown);
}
