//! `metadata.yaml`: which versions a release consists of.
//!
//! ```yaml
//! apiVersion: metadata.clusterstack.x-k8s.io/v1alpha1
//! versions:
//!   clusterStack: v0-sha.d2lgujm
//!   kubernetes: v1.30.10
//!   components:
//!     clusterAddon: v0-sha.d2lgujm
//!     nodeImage: v0-sha.d2lgujm
//! ```

use serde::Deserialize;

use super::invalid::ReleaseInvalid;
use super::version::{KubernetesMinor, Version};
use super::yaml::{self, Parsed, shorten};

/// Name of the file.
pub const FILE: &str = "metadata.yaml";

/// Longest version of Kubernetes, in bytes: what the status has room for.
const MAX_KUBERNETES_LENGTH: usize = 63;

/// The only version of the format.
pub const API_VERSION: &str = "metadata.clusterstack.x-k8s.io/v1alpha1";

/// What `metadata.yaml` says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Version of the release.
    pub cluster_stack: Version,
    /// Version of Kubernetes as it is written, with or without `v`.
    pub kubernetes: String,
    /// Its minor version.
    pub kubernetes_minor: KubernetesMinor,
    /// Version of the addon chart. Without one the release has no addons.
    pub cluster_addon: Option<Version>,
    /// Version of the node images. Without one the release names none of its own.
    pub node_image: Option<Version>,
}

impl Metadata {
    /// Reads the text of the file. Unknown fields are skipped.
    ///
    /// # Errors
    ///
    /// The text is no YAML, or a field is missing or wrong.
    pub fn parse(text: &str) -> Result<Parsed<Self>, ReleaseInvalid> {
        let Parsed {
            value: raw,
            mut warnings,
        } = yaml::parse::<Raw>(FILE, text)?;
        match raw.api_version.as_deref().unwrap_or_default() {
            API_VERSION => {}
            // The Go operator never looks at it, so there may be releases without one.
            "" => warnings.push(format!(
                "\"{FILE}\" lacks \"apiVersion\", \"{API_VERSION}\" is assumed"
            )),
            other => return Err(wrong("apiVersion", &format!("\"{API_VERSION}\""), other)),
        }
        let versions = raw.versions;
        let components = versions.components.unwrap_or_default();
        let metadata = Self {
            cluster_stack: version("versions.clusterStack", &versions.cluster_stack)?,
            kubernetes_minor: KubernetesMinor::of_version(&versions.kubernetes)
                .ok()
                .filter(|_| versions.kubernetes.len() <= MAX_KUBERNETES_LENGTH)
                .ok_or_else(|| {
                    wrong(
                        "versions.kubernetes",
                        "a version such as \"v1.30.10\"",
                        &versions.kubernetes,
                    )
                })?,
            kubernetes: versions.kubernetes,
            cluster_addon: component("versions.components.clusterAddon", components.cluster_addon)?,
            node_image: component("versions.components.nodeImage", components.node_image)?,
        };
        Ok(Parsed {
            value: metadata,
            warnings,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    api_version: Option<String>,
    versions: RawVersions,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawVersions {
    cluster_stack: String,
    kubernetes: String,
    components: Option<RawComponents>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawComponents {
    cluster_addon: Option<String>,
    node_image: Option<String>,
}

/// The parser's own message would not name the field.
fn version(field: &str, text: &str) -> Result<Version, ReleaseInvalid> {
    Version::parse(text)
        .ok()
        .ok_or_else(|| wrong(field, "a version such as \"v1\" or \"v0-beta.1\"", text))
}

/// The release tool writes an empty string for a component that it did not build.
fn component(field: &str, text: Option<String>) -> Result<Option<Version>, ReleaseInvalid> {
    text.filter(|text| !text.is_empty())
        .map(|text| version(field, &text))
        .transpose()
}

fn wrong(field: &str, expected: &str, found: &str) -> ReleaseInvalid {
    ReleaseInvalid::RejectValue {
        file: FILE.to_owned(),
        field: field.to_owned(),
        expected: expected.to_owned(),
        found: format!("\"{}\"", shorten(found)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(versions: &str) -> Result<Parsed<Metadata>, ReleaseInvalid> {
        Metadata::parse(&format!(
            "apiVersion: {API_VERSION}\nversions: {versions}\n"
        ))
    }

    #[test]
    fn components_are_optional() {
        // pitfall_59: what may be published can be loaded.
        let v = |text: &str| Some(Version::parse(text).unwrap());
        for (components, addon, image) in [
            ("", None, None),
            (", components: ", None, None),
            (", components: {}", None, None),
            (", components: {clusterAddon: v2}", v("v2"), None),
            (
                ", components: {clusterAddon: v2, nodeImage: ''}",
                v("v2"),
                None,
            ),
            (", components: {clusterAddon: '', nodeImage: ~}", None, None),
            (
                ", components: {clusterAddon: v0-sha.abc, nodeImage: v0-sha-abc}",
                v("v0-sha.abc"),
                v("v0-sha.abc"),
            ),
            (
                ", components: {clusterAddon: v2, nodeImage: v1, other: {}}",
                v("v2"),
                v("v1"),
            ),
        ] {
            let parsed = metadata(&format!(
                "{{clusterStack: v1, kubernetes: v1.30.10{components}}}"
            ))
            .unwrap();
            assert_eq!(
                (parsed.value.cluster_addon, parsed.value.node_image),
                (addon, image),
                "{components}"
            );
            assert!(parsed.warnings.is_empty());
        }
    }

    #[test]
    fn kubernetes_version_is_kept_as_written() {
        for kubernetes in ["v1.30.10", "1.30.10", "1.30", "v1.30.10+build.7"] {
            let parsed =
                metadata(&format!("{{clusterStack: v1, kubernetes: {kubernetes}}}")).unwrap();
            assert_eq!(parsed.value.kubernetes, kubernetes);
            assert_eq!(parsed.value.kubernetes_minor, KubernetesMinor::new(1, 30));
        }
    }

    #[test]
    fn kubernetes_version_that_no_status_has_room_for_is_refused() {
        let long = format!("v1.30.10+{}", "a".repeat(MAX_KUBERNETES_LENGTH));
        let error = metadata(&format!("{{clusterStack: v1, kubernetes: {long}}}")).unwrap_err();
        assert!(error.to_string().contains("versions.kubernetes"), "{error}");
    }

    #[test]
    fn unknown_fields_and_a_missing_api_version_are_tolerated() {
        let text = "kind: x\nversions: {clusterStack: v1, kubernetes: v1.30.10, new: [1]}";
        assert_eq!(Metadata::parse(text).unwrap().warnings.len(), 1);
        let text = format!(
            "apiVersion: {API_VERSION}\nversions: {{clusterStack: v1, clusterStack: v2, kubernetes: v1.30.10}}"
        );
        let parsed = Metadata::parse(&text).unwrap();
        assert_eq!(
            (
                parsed.value.cluster_stack.dash().as_str(),
                parsed.warnings.len()
            ),
            ("v2", 1)
        );
    }

    #[test]
    fn errors_name_the_field_with_what_was_expected_and_found() {
        for (versions, message) in [
            (
                "",
                "\"metadata.yaml\" is wrong in \"versions\" (line 2, column 9): expected a map, found nothing",
            ),
            (
                "[v1]",
                "\"metadata.yaml\" is wrong in \"versions\" (line 2, column 11): expected a map, found a list",
            ),
            (
                "{kubernetes: v1.30.10}",
                "\"metadata.yaml\" lacks the field \"versions.clusterStack\" (line 2, column 12)",
            ),
            (
                "{clusterStack: v1}",
                "\"metadata.yaml\" lacks the field \"versions.kubernetes\" (line 2, column 12)",
            ),
            (
                "{clusterStack: 1, kubernetes: v1.30.10}",
                "\"metadata.yaml\" is wrong in \"versions.clusterStack\": expected a version such as \"v1\" or \"v0-beta.1\", found \"1\"",
            ),
            (
                "{clusterStack: v1, kubernetes: latest}",
                "\"metadata.yaml\" is wrong in \"versions.kubernetes\": expected a version such as \"v1.30.10\", found \"latest\"",
            ),
            (
                "{clusterStack: v1, kubernetes: v1.30.10, components: {clusterAddon: {}}}",
                "\"metadata.yaml\" is wrong in \"versions.components.clusterAddon\" (line 2, column 79): expected text, found a map",
            ),
            (
                // pitfall_59: a version that cannot be read is an error, not a wrong chart name.
                "{clusterStack: v1, kubernetes: v1.30.10, components: {clusterAddon: two}}",
                "\"metadata.yaml\" is wrong in \"versions.components.clusterAddon\": expected a version such as \"v1\" or \"v0-beta.1\", found \"two\"",
            ),
        ] {
            assert_eq!(metadata(versions).expect_err(versions).to_string(), message);
        }
        let error =
            Metadata::parse("apiVersion: v2\nversions: {clusterStack: v1, kubernetes: v1.30.10}")
                .unwrap_err();
        assert!(error.to_string().contains("found \"v2\""), "{error}");
        let error = metadata(&format!(
            "{{clusterStack: {}, kubernetes: v1.30.10}}",
            "v".repeat(100_000)
        ))
        .unwrap_err();
        assert!(error.to_string().len() < 1024, "{error}");
    }
}
