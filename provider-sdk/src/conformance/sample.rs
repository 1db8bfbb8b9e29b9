//! The sample file: what a provider's author says about targets, formats and release files.

use std::collections::BTreeMap;

use proto::wire;
use serde::Deserialize;
use serde_json::Value;

/// Contents of the sample file, YAML or JSON.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Sample {
    /// Targets by the part that they play.
    pub targets: Targets,
    /// What to make; empty means every announced combination, HTTP first.
    #[serde(default)]
    pub artifacts: Vec<Format>,
    /// `ImageSpec.options` of every image, if the provider needs some.
    #[serde(default)]
    pub options: Option<BTreeMap<String, Value>>,
    /// Settings that violate the provider's schema; absent means that the suite derives some from the schema.
    #[serde(default)]
    pub violating_config: Option<Value>,
    /// Beginning of the names of properties in which the provider keeps its marker.
    #[serde(default)]
    pub marker_prefix: Option<String>,
    /// Release files and what they lead to; an empty list says that the provider has no file format.
    #[serde(default)]
    pub node_images: Vec<NodeImages>,
}

/// Targets by the part that they play.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Targets {
    /// Works.
    pub good: Target,
    /// The same place with credentials that its backend refuses.
    pub wrong_credentials: Option<Target>,
    /// The same place with other credentials that work.
    pub other_credentials: Option<Target>,
    /// A backend at an address that refuses connections.
    pub refusing: Option<Target>,
    /// A backend at an address that swallows packets.
    pub silent: Option<Target>,
    /// Another place.
    pub elsewhere: Option<Target>,
}

/// Settings and secrets of a target.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// `Target.config`.
    #[serde(default)]
    pub config: Value,
    /// `Target.secrets`. `${CANARY}` in a value becomes a random word that is searched for in everything that comes back.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("config", &self.config)
            .field("secrets", &self.secrets.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Target {
    /// As it travels, without a place.
    #[must_use]
    pub(crate) fn to_wire(&self, canary: &str) -> wire::Target {
        let secrets: BTreeMap<_, _> = self
            .secrets
            .iter()
            .map(|(name, value)| {
                (
                    name.clone(),
                    value.replace("${CANARY}", canary).into_bytes(),
                )
            })
            .collect();
        let version = secrets
            .iter()
            .flat_map(|(name, value)| name.bytes().chain(value.iter().copied()));
        wire::Target {
            target_id: String::new(),
            config: Some(to_struct(&self.config)),
            secrets_version: super::artifacts::hex_digest(&version.collect::<Vec<_>>())[..16]
                .to_owned(),
            secrets,
        }
    }
}

/// A combination to make artifacts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Format {
    /// How the bytes are served.
    pub kind: Kind,
    /// Disk format, as the last part of its name: `RAW`, `QCOW2`, `CONTAINER`.
    #[serde(deserialize_with = "disk_format")]
    pub format: wire::DiskFormat,
}

/// How the bytes are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file behind HTTP.
    Http,
    /// A manifest in a registry.
    Oci,
}

fn disk_format<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<wire::DiskFormat, D::Error> {
    let name = String::deserialize(deserializer)?;
    wire::DiskFormat::from_str_name(&format!("DISK_FORMAT_{}", name.to_uppercase()))
        .ok_or_else(|| serde::de::Error::custom(format!("unknown disk format \"{name}\"")))
}

/// A release file and what it leads to.
///
/// In `content` and `names`, `${RUN}` is the run's id, `${URL}`, `${DIGEST}` and `${SIZE}` belong to a small artifact over
/// HTTP, `${REPOSITORY}`, `${MANIFEST}`, `${TAG}` and `${MISSING_TAG}` to one in the suite's registry.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeImages {
    /// What the file is a sample of.
    #[serde(default)]
    pub about: About,
    /// The release that it belongs to.
    pub release: Release,
    /// The file.
    pub content: String,
    /// Display names that must come back, in any order; empty for a missing tag.
    #[serde(default)]
    pub names: Vec<String>,
}

/// What a release file is a sample of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum About {
    /// Images that exist.
    #[default]
    Images,
    /// An image given by a tag of a registry.
    OciTag,
    /// An image given by a tag that the registry does not have.
    MissingTag,
}

/// The release that a file belongs to.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// Such as `openstack`.
    pub provider: String,
    /// Such as `scs`.
    pub stack_name: String,
    /// Such as `v1.33.4`.
    pub kubernetes_version: String,
    /// Empty if the release has none.
    #[serde(default)]
    pub node_image_version: String,
}

impl Sample {
    /// Reads a sample file.
    ///
    /// # Errors
    ///
    /// When it is no YAML (JSON is YAML), or has fields that mean nothing here.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| format!("sample file: {error}"))
    }
}

/// JSON as a protobuf struct; what is no object becomes an empty one.
pub(crate) fn to_struct(value: &Value) -> prost_types::Struct {
    match value {
        Value::Object(fields) => prost_types::Struct {
            fields: fields
                .iter()
                .map(|(name, value)| (name.clone(), to_value(value)))
                .collect(),
        },
        _ => prost_types::Struct::default(),
    }
}

fn to_value(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(to_value).collect(),
        }),
        Value::Object(_) => Kind::StructValue(to_struct(value)),
    };
    prost_types::Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_file_is_read_from_yaml() {
        let sample = Sample::parse(
            "targets:\n  good:\n    config: {endpoint: x}\n    secrets: {token: \"${CANARY}-a\"}\nartifacts:\n- {kind: oci, format: container}\n",
        )
        .unwrap();
        assert_eq!(
            sample.artifacts,
            [Format {
                kind: Kind::Oci,
                format: wire::DiskFormat::Container
            }]
        );
        let target = sample.targets.good.to_wire("bird");
        assert_eq!(target.secrets["token"], b"bird-a");
        assert_eq!(target.config.unwrap().fields.len(), 1);
    }

    #[test]
    fn sample_file_with_unknown_field_is_refused() {
        let error = Sample::parse("targets: {good: {}}\ntarget: {}\n").unwrap_err();
        assert!(error.contains("target"), "{error}");
    }
}
