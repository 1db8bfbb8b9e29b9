//! `ClusterAddon`: the addons of one workload cluster. Only the type; its controller comes later.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Condition, Resource};

/// The addons of one workload cluster. Made by the operator for a Cluster whose class comes from a cluster stack.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "clusterstack.x-k8s.io",
    version = "v1alpha1",
    kind = "ClusterAddon",
    doc = "The addons of one workload cluster. Made by the operator for a Cluster whose class comes from a cluster stack.",
    namespaced,
    status = "ClusterAddonStatus",
    derive = "PartialEq",
    shortname = "caddon",
    category = "cluster-api",
    category = "cluster-stacks",
    label("clusterctl.cluster.x-k8s.io", ""),
    label("clusterctl.cluster.x-k8s.io/move", ""),
    printcolumn(
        name = "Cluster",
        type_ = "string",
        json_path = ".metadata.ownerReferences[?(@.kind==\"Cluster\")].name"
    ),
    printcolumn(name = "Ready", type_ = "boolean", json_path = ".status.ready"),
    printcolumn(
        name = "Hook",
        type_ = "string",
        json_path = ".spec.hook",
        priority = 1
    ),
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
#[x_kube(validation = Rule::new("!has(self.clusterRef.namespace) || !has(oldSelf.clusterRef.namespace) || self.clusterRef.namespace == oldSelf.clusterRef.namespace").message("the namespace of clusterRef is immutable"))]
#[serde(rename_all = "camelCase")]
pub struct ClusterAddonSpec {
    /// The Cluster whose addons these are.
    pub cluster_ref: ObjectReference,
    /// The ClusterClass whose addons are installed, in dot form. A mirror, never read for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub cluster_stack: Option<String>,
    /// Version of the installed addons, in dash form. A mirror, never read for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub version: Option<String>,
    /// Lifecycle hook that is being worked on. A mirror, never read for a decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub hook: Option<String>,
}

/// What was observed of the addons of one workload cluster.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAddonStatus {
    /// Whether the addons are applied and healthy; mirrors the condition Ready.
    #[serde(default)]
    pub ready: bool,
    /// Objects that are applied in the workload cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub resources: Vec<Resource>,
    /// Observations of the addons' state.
    #[serde(default)]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
