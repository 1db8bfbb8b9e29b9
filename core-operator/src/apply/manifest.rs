//! One rendered object, checked once, so that later steps cannot fail on its shape.

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    api::{
        CONTENT_ANNOTATION, OWNED_LABEL, OWNED_VALUE, RELEASE_ANNOTATION, RELEASE_LABEL,
        RENEW_AFTER_ANNOTATION,
    },
    apply::release_hash,
    helm::{ObjectIdentity, RenderedObject},
};

/// Longest name of any object.
const MAX_NAME_LENGTH: usize = 253;

/// Steps in which objects are applied; what is inside a step goes in parallel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Namespaces, which others lie in.
    Namespaces,
    /// Custom resource definitions, which others are instances of.
    Definitions,
    /// Everything else.
    Rest,
    /// Classes, which refer to templates: Cluster API looks for those as soon as the class is there.
    Classes,
}

/// A rendered object that can be applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    identity: ObjectIdentity,
    version: String,
    source: String,
    value: Value,
}

/// Why a rendered object cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestInvalid {
    /// A field that every object needs is missing, or is not a text.
    #[error("an object of \"{origin}\" has no \"{field}\"")]
    LackField {
        /// Template that it was rendered from.
        origin: String,
        /// Path of the field.
        field: &'static str,
    },
    /// The API version is not "version" or "group/version".
    #[error(
        "an object of \"{origin}\" has the API version \"{found}\", expected \"<version>\" or \"<group>/<version>\""
    )]
    ParseApiVersion {
        /// Template that it was rendered from.
        origin: String,
        /// What stands there.
        found: String,
    },
    /// The API server would choose the name, so a repeat would make another object.
    #[error(
        "{kind} of \"{origin}\" has a generateName, which is not possible for objects of a release: give it a name"
    )]
    GenerateName {
        /// Template that it was rendered from.
        origin: String,
        /// Kind of the object.
        kind: String,
    },
    /// The name is none that an object can have. It becomes part of an address, so it is never sent.
    #[error(
        "{kind} of \"{origin}\" has the name \"{found}\", expected at most 253 characters without \"/\", \"%\", \"?\" and \"#\""
    )]
    RejectName {
        /// Template that it was rendered from.
        origin: String,
        /// Kind of the object.
        kind: String,
        /// The name, shortened.
        found: String,
    },
    /// A label or annotation is a number or a boolean.
    #[error("{object} of \"{origin}\" has a value in \"{field}\" that is no text: quote \"{key}\"")]
    QuoteValue {
        /// Template that it was rendered from.
        origin: String,
        /// Kind and name of the object.
        object: String,
        /// Path of the field.
        field: String,
        /// Key of the value.
        key: String,
    },
}

impl Manifest {
    /// Checks a rendered object.
    ///
    /// # Errors
    ///
    /// [`ManifestInvalid`] names the template and what is wrong with the object.
    pub fn check(rendered: &RenderedObject) -> Result<Self, ManifestInvalid> {
        let origin = || rendered.source.clone();
        let text = |value: &Value, field: &'static str| {
            value
                .as_str()
                .filter(|text| !text.is_empty())
                .map(ToOwned::to_owned)
                .ok_or_else(|| ManifestInvalid::LackField {
                    origin: origin(),
                    field,
                })
        };
        let value = &rendered.object;
        let api_version = text(&value["apiVersion"], "apiVersion")?;
        let kind = text(&value["kind"], "kind")?;
        let metadata = &value["metadata"];
        if metadata["name"].is_null() && !metadata["generateName"].is_null() {
            return Err(ManifestInvalid::GenerateName {
                origin: origin(),
                kind,
            });
        }
        let name = text(&metadata["name"], "metadata.name")?;
        let in_address = |c: char| c.is_control() || matches!(c, '/' | '%' | '?' | '#');
        if name.len() > MAX_NAME_LENGTH
            || [".", ".."].contains(&name.as_str())
            || name.contains(in_address)
        {
            return Err(ManifestInvalid::RejectName {
                origin: origin(),
                kind,
                found: crate::helm::shorten(&name, 100),
            });
        }
        let (group, version) = match api_version.split_once('/') {
            None => ("", api_version.as_str()),
            Some((group, version))
                if !group.is_empty() && !version.is_empty() && !version.contains('/') =>
            {
                (group, version)
            }
            Some(_) => {
                return Err(ManifestInvalid::ParseApiVersion {
                    origin: origin(),
                    found: api_version,
                });
            }
        };
        for part in ["labels", "annotations"] {
            let Some(entries) = metadata[part].as_object() else {
                continue;
            };
            if let Some((key, _)) = entries.iter().find(|(_, value)| !value.is_string()) {
                return Err(ManifestInvalid::QuoteValue {
                    origin: origin(),
                    object: format!("{kind} \"{name}\""),
                    field: format!("metadata.{part}"),
                    key: key.clone(),
                });
            }
        }
        let namespace = metadata["namespace"]
            .as_str()
            .filter(|namespace| !namespace.is_empty())
            .map(ToOwned::to_owned);
        Ok(Self {
            identity: ObjectIdentity {
                group: group.to_owned(),
                kind,
                namespace,
                name,
            },
            version: version.to_owned(),
            source: rendered.source.clone(),
            value: value.clone(),
        })
    }

    /// Group, kind, namespace and name. Without namespace until [`place`](Self::place) was called.
    #[must_use]
    pub const fn identity(&self) -> &ObjectIdentity {
        &self.identity
    }

    /// The API version without its group.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The template that the object was rendered from.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The object as it is applied.
    #[must_use]
    pub const fn value(&self) -> &Value {
        &self.value
    }

    /// The step in which the object is applied.
    #[must_use]
    pub fn step(&self) -> Step {
        match (self.identity.group.as_str(), self.identity.kind.as_str()) {
            ("", "Namespace") => Step::Namespaces,
            ("apiextensions.k8s.io", "CustomResourceDefinition") => Step::Definitions,
            ("cluster.x-k8s.io", "ClusterClass") => Step::Classes,
            _ => Step::Rest,
        }
    }

    /// Puts the object where it belongs: objects of namespaced kinds that name no namespace go to `default_namespace`,
    /// cluster-scoped ones have none, whatever the chart writes.
    #[must_use]
    pub fn place(mut self, namespaced: bool, default_namespace: &str) -> Self {
        let namespace = namespaced.then(|| {
            self.identity
                .namespace
                .take()
                .unwrap_or_else(|| default_namespace.to_owned())
        });
        let metadata = entries(&mut self.value, "metadata");
        match &namespace {
            Some(namespace) => metadata.insert("namespace".to_owned(), json!(namespace)),
            None => metadata.remove("namespace"),
        };
        self.identity.namespace = namespace;
        self
    }

    /// Digest of the object as it was rendered and placed, without our marks.
    ///
    /// 32 hexadecimal characters of a sha-256 over its JSON with sorted keys, so equal for equal objects.
    #[must_use]
    pub fn content_digest(&self) -> String {
        hex::encode(&Sha256::digest(self.value.to_string())[..16])
    }

    /// Adds our labels and annotations: whose the object is, and what it was rendered as (`content`, by which a change
    /// of the release is told from a change in the cluster).
    #[must_use]
    pub fn mark(mut self, release_namespace: &str, release_name: &str, content: &str) -> Self {
        let metadata = entries(&mut self.value, "metadata");
        let labels = child(metadata, "labels");
        labels.insert(OWNED_LABEL.to_owned(), json!(OWNED_VALUE));
        labels.insert(
            RELEASE_LABEL.to_owned(),
            json!(release_hash(release_namespace, release_name)),
        );
        let annotations = child(metadata, "annotations");
        annotations.insert(
            RELEASE_ANNOTATION.to_owned(),
            json!(format!("{release_namespace}/{release_name}")),
        );
        annotations.insert(CONTENT_ANNOTATION.to_owned(), json!(content));
        self
    }

    /// Adds when the certificates in it are to be made anew.
    #[must_use]
    pub fn renew_after(mut self, due: Timestamp) -> Self {
        let metadata = entries(&mut self.value, "metadata");
        let annotations = child(metadata, "annotations");
        annotations.insert(RENEW_AFTER_ANNOTATION.to_owned(), json!(due.to_string()));
        self
    }
}

/// The mapping below `key`, made where there is none.
fn child<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert_with(|| json!({}));
    mapping(value)
}

/// The mapping below `key` of an object, made where there is none.
fn entries<'a>(value: &'a mut Value, key: &str) -> &'a mut Map<String, Value> {
    child(mapping(value), key)
}

/// The value as a mapping; anything else (such as `labels: null`) is replaced by an empty one.
fn mapping(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value
        .as_object_mut()
        .expect("the line above made it a mapping")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(object: Value) -> RenderedObject {
        RenderedObject {
            source: "chart/templates/a.yaml".to_owned(),
            object,
        }
    }

    fn class() -> Value {
        json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "ClusterClass", "metadata": {"name": "c", "labels": null}})
    }

    #[test]
    fn object_without_namespace_goes_to_the_given_one() {
        let manifest = Manifest::check(&rendered(class()))
            .unwrap()
            .place(true, "fleet");
        assert_eq!(manifest.identity().namespace.as_deref(), Some("fleet"));
        assert_eq!(manifest.value()["metadata"]["namespace"], "fleet");
    }

    #[test]
    fn cluster_scoped_object_loses_the_namespace_that_a_chart_writes() {
        let mut object = class();
        object["metadata"]["namespace"] = json!("somewhere");
        let manifest = Manifest::check(&rendered(object))
            .unwrap()
            .place(false, "fleet");
        assert_eq!(manifest.identity().namespace, None);
        assert!(manifest.value()["metadata"].get("namespace").is_none());
    }

    #[test]
    fn marks_say_whose_the_object_is() {
        let plain = Manifest::check(&rendered(class()))
            .unwrap()
            .place(true, "fleet");
        let digest = plain.content_digest();
        let marked = plain.mark("fleet", "docker-scs-1-30-v1", &digest);
        let metadata = &marked.value()["metadata"];
        assert_eq!(metadata["annotations"][CONTENT_ANNOTATION], json!(digest));
        assert_eq!(metadata["labels"][OWNED_LABEL], "owned");
        assert_eq!(
            metadata["annotations"][RELEASE_ANNOTATION],
            "fleet/docker-scs-1-30-v1"
        );
    }

    #[test]
    fn objects_that_cannot_be_applied_are_refused_with_their_template() {
        for (object, words) in [
            (json!({"kind": "ClusterClass"}), "no \"apiVersion\""),
            (
                json!({"apiVersion": "v1", "metadata": {"name": "a"}}),
                "no \"kind\"",
            ),
            (
                json!({"apiVersion": "a/b/c", "kind": "K", "metadata": {"name": "a"}}),
                "a/b/c",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {}}),
                "metadata.name",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"generateName": "a-"}}),
                "generateName",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a/status"}}),
                "the name \"a/status\"",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a?dryRun=All"}}),
                "without \"/\"",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": ".."}}),
                "the name \"..\"",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a".repeat(254)}}),
                "at most 253",
            ),
            (
                json!({"apiVersion": "v1", "kind": "K", "metadata": {"name": "a", "annotations": {"x": true}}}),
                "quote \"x\"",
            ),
        ] {
            let message = Manifest::check(&rendered(object)).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
            assert!(message.contains("chart/templates/a.yaml"), "{message}");
        }
    }

    #[test]
    fn namespaces_come_before_definitions_before_the_rest() {
        let step = |api_version: &str, kind: &str| {
            let object =
                json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
            Manifest::check(&rendered(object)).unwrap().step()
        };
        assert!(
            step("v1", "Namespace") < step("apiextensions.k8s.io/v1", "CustomResourceDefinition")
        );
        assert!(step("apiextensions.k8s.io/v1", "CustomResourceDefinition") < step("v1", "Secret"));
        // A kind of another group that happens to be called Namespace is nothing special.
        assert_eq!(step("example.com/v1", "Namespace"), Step::Rest);
        // Templates come before the classes that refer to them.
        assert!(Step::Rest < step("cluster.x-k8s.io/v1beta2", "ClusterClass"));
    }
}
