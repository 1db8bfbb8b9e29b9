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
    printcolumn(name = "Hook", type_ = "string", json_path = ".spec.hook"),
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
// CEL writes reserved words, such as namespace, with underscores.
#[x_kube(
    validation = Rule::new("!has(oldSelf.clusterRef.kind) || (has(self.clusterRef.kind) && self.clusterRef.kind == oldSelf.clusterRef.kind)").message("kind of clusterRef is immutable"),
    validation = Rule::new("!has(oldSelf.clusterRef.__namespace__) || (has(self.clusterRef.__namespace__) && self.clusterRef.__namespace__ == oldSelf.clusterRef.__namespace__)").message("namespace of clusterRef is immutable"),
    validation = Rule::new("!has(oldSelf.clusterRef.name) || (has(self.clusterRef.name) && self.clusterRef.name == oldSelf.clusterRef.name)").message("name of clusterRef is immutable")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAddonSpec {
    /// The Cluster whose addons these are; kind, namespace and name are immutable.
    #[schemars(schema_with = "super::reference::object")]
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
    /// Stages of the hook that is being worked on; empty when they are done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub stages: Vec<Stage>,
    /// Observations of the addons' state.
    #[serde(default)]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far one stage of the addons is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Name of the stage's chart.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// What the stage does with the objects of its chart: "apply" or "delete".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63))]
    pub action: String,
    /// What is being worked on: "Pending", "waitingForPreCondition", "applyingOrDeleting", "waitingForPostCondition" or
    /// "done".
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub phase: String,
}
