//! `ClusterStackRelease`: one release of a cluster stack and what became of it.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Condition, Resource};
use crate::helm::ObjectIdentity;

/// One release of a cluster stack, named like its tag. Made by the operator for a ClusterStack.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "clusterstack.x-k8s.io",
    version = "v1alpha1",
    kind = "ClusterStackRelease",
    doc = "One release of a cluster stack, named like its tag. Made by the operator for a ClusterStack.",
    namespaced,
    status = "ClusterStackReleaseStatus",
    derive = "PartialEq",
    shortname = "cskr",
    category = "cluster-api",
    category = "cluster-stacks",
    label("clusterctl.cluster.x-k8s.io", ""),
    label("clusterctl.cluster.x-k8s.io/move", ""),
    printcolumn(
        name = "K8s Version",
        type_ = "string",
        json_path = ".status.kubernetesVersion"
    ),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStackReleaseSpec {
    /// Kept for objects of the Go operator, and ignored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::reference::object")]
    pub provider_ref: Option<ObjectReference>,
}

/// What became of a release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStackReleaseStatus {
    /// Whether the release is usable; mirrors the condition Ready.
    #[serde(default)]
    pub ready: bool,
    /// When the release was Ready for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_ready_time: Option<Time>,
    /// Kubernetes version of the release, as its metadata.yaml writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub kubernetes_version: Option<String>,
    /// Digest of the release's content: "sha256:" over names, sizes and digests of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub digest: Option<String>,
    /// What the release's hashes.json says. Shown, never a verdict: the values describe the author's folders.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "additionalProperties" = {"type": "string", "maxLength": 256}))]
    pub hashes: std::collections::BTreeMap<String, String>,
    /// Chart dependencies that the release does not bring along, pinned when it was first fetched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    pub dependencies: Vec<Dependency>,
    /// Objects that the release has applied, written before they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub resources: Vec<Resource>,
    /// Observations of the release's state.
    #[serde(default)]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A chart dependency that the release does not bring along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependency {
    /// Name of the chart of the release that needs it, as its Chart.yaml has it.
    #[schemars(length(max = 253))]
    pub chart: String,
    /// Name of the chart that is needed.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Its version.
    #[schemars(length(max = 128))]
    pub version: String,
    /// Repository that it comes from.
    #[schemars(length(max = 2048))]
    pub repository: String,
    /// Digest of its archive: every later fetch must bring the same.
    #[schemars(length(max = 80))]
    pub digest: String,
}

impl ClusterStackRelease {
    /// The objects that the release has applied.
    #[must_use]
    pub fn inventory(&self) -> &[Resource] {
        let status = self.status.as_ref();
        status.map_or(&[], |status| status.resources.as_slice())
    }

    /// Whether the release has applied this object.
    #[must_use]
    pub fn has_resource(&self, object: &ObjectIdentity) -> bool {
        let own = self.metadata.namespace.as_deref().unwrap_or_default();
        let namespaced = object.namespace.is_some();
        self.inventory()
            .iter()
            .any(|entry| entry.is(object) || entry.placed(namespaced, own).is(object))
    }
}
