//! Entries of an inventory: objects that a release or an addon has applied.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::helm::ObjectIdentity;

/// Whether an object of an inventory is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum ResourceState {
    /// The API server has taken the object as the release wants it.
    #[serde(rename = "synced")]
    Synced,
    /// Not applied yet, refused, or found changed.
    #[default]
    #[serde(rename = "not-synced")]
    NotSynced,
}

/// One object that is ours. Its identity is group, kind, namespace and name; the version is only the one last used.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// API group, empty for the core group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub group: String,
    /// API version that the object was last applied with.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub version: String,
    /// Kind of the object.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub kind: String,
    /// Name of the object.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Namespace of the object; absent for cluster-scoped ones.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// UID of the object when it was last applied: another one is another object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub uid: String,
    /// Generation of the object when it was last applied: a later one is drift. Absent for kinds without generations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Whether the object is as the release wants it.
    #[serde(default)]
    pub status: ResourceState,
    /// What the API server answered when it refused the object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4096))]
    pub error: String,
}

impl Resource {
    /// Whether the entry stands for this object.
    #[must_use]
    pub fn is(&self, object: &ObjectIdentity) -> bool {
        self.group == object.group
            && self.kind == object.kind
            && self.name == object.name
            && self.namespace == object.namespace.as_deref().unwrap_or_default()
    }

    /// The entry with its namespace. The Go operator left it out where the chart names none: such objects of namespaced
    /// kinds lie in `namespace`.
    #[must_use]
    pub fn placed(&self, namespaced: bool, namespace: &str) -> Self {
        let mut entry = self.clone();
        if namespaced && entry.namespace.is_empty() {
            namespace.clone_into(&mut entry.namespace);
        }
        entry
    }

    /// The object that the entry stands for.
    #[must_use]
    pub fn identity(&self) -> ObjectIdentity {
        ObjectIdentity {
            group: self.group.clone(),
            kind: self.kind.clone(),
            namespace: (!self.namespace.is_empty()).then(|| self.namespace.clone()),
            name: self.name.clone(),
        }
    }
}
