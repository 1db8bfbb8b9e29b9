//! `ClusterStack`: which versions of a cluster stack shall be usable.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LocalObjectReference, ObjectReference};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Condition;

/// Shortest accepted time between two looks at the source.
pub const SHORTEST_POLL_INTERVAL: Duration = Duration::from_mins(1);

/// Which versions of a cluster stack shall be usable in this management cluster.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "clusterstack.x-k8s.io",
    version = "v1alpha1",
    kind = "ClusterStack",
    doc = "Which versions of a cluster stack shall be usable in this management cluster.",
    namespaced,
    status = "ClusterStackStatus",
    derive = "PartialEq",
    shortname = "csk",
    category = "cluster-api",
    category = "cluster-stacks",
    label("clusterctl.cluster.x-k8s.io", ""),
    label("clusterctl.cluster.x-k8s.io/move-hierarchy", ""),
    printcolumn(name = "Provider", type_ = "string", json_path = ".spec.provider"),
    printcolumn(name = "ClusterStack", type_ = "string", json_path = ".spec.name"),
    printcolumn(name = "K8s", type_ = "string", json_path = ".spec.kubernetesVersion"),
    printcolumn(name = "Channel", type_ = "string", json_path = ".spec.channel"),
    printcolumn(
        name = "Autosubscribe",
        type_ = "string",
        json_path = ".spec.autoSubscribe"
    ),
    printcolumn(
        name = "Usable",
        type_ = "string",
        json_path = ".status.usableVersions"
    ),
    printcolumn(name = "Latest", type_ = "string", json_path = ".status.latestRelease"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
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
#[x_kube(
    validation = Rule::new("size(self.provider) + size(self.name) < 45").message("\"<provider>-<name>\" must not be longer than 45 characters: it becomes part of Helm release names and label values"),
    validation = Rule::new("has(self.channel) == has(oldSelf.channel) && (!has(self.channel) || self.channel == oldSelf.channel)").message("channel is immutable")
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStackSpec {
    /// Provider of the cluster stack, such as docker or openstack: the first part of its release names. Immutable.
    #[schemars(
        length(min = 1, max = 43),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("provider is immutable"))]
    pub provider: String,
    /// Name of the cluster stack, such as scs: the second part of its release names. Immutable.
    #[schemars(
        length(min = 1, max = 43),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf").message("name is immutable"))]
    pub name: String,
    /// Kubernetes version of the releases, major and minor only, such as 1.34. Immutable.
    #[schemars(length(max = 16), regex(pattern = r"^\d\.\d+$"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("kubernetesVersion is immutable"))]
    pub kubernetes_version: String,
    /// Release channel: "stable" takes versions such as v3, "custom" those with any word such as v0-sha.d2lgujm, any
    /// other word those with just that word, such as "beta" for v1-beta.2. Immutable.
    #[serde(default = "stable")]
    #[schemars(length(max = 16), regex(pattern = r"^[a-z0-9]{1,16}$"))]
    pub channel: String,
    /// Versions that shall be available, such as v3 or v0-sha.d2lgujm, beside those that autoSubscribe finds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(
            length(max = 63),
            regex(pattern = r"^v(0|[1-9][0-9]*)(-[a-z0-9]+[-.][a-z0-9]+)?$")
        )
    )]
    pub versions: Vec<String>,
    /// Whether the newest release of the channel is followed.
    #[serde(default = "yes")]
    pub auto_subscribe: bool,
    /// Whether the cluster stack works without a provider integration; its node images are then somebody else's work.
    #[serde(default)]
    pub no_provider: bool,
    /// The object in this namespace that holds the settings for the provider integration, such as an
    /// OpenStackClusterStackReleaseTemplate. Needed unless noProvider is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::reference::object")]
    pub provider_ref: Option<ObjectReference>,
    /// Where releases come from; absent: the source that the operator was started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// Time between two looks at the source, such as 5m or 1h30m; at least 1m. Absent: what the operator was started
    /// with, 5m by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 2, max = 16),
        regex(pattern = r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?$")
    )]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1m')").message("pollInterval must be at least 1m"))]
    pub poll_interval: Option<String>,
    /// What the operator may do on its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
}

fn stable() -> String {
    "stable".to_owned()
}

const fn yes() -> bool {
    true
}

/// Where releases come from: exactly one of the kinds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new("(has(self.github) ? 1 : 0) + (has(self.directory) ? 1 : 0) == 1").message("exactly one of github and directory must be set"))]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// Releases of a GitHub repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<GitHubSource>,
    /// Release folders in a directory that the operator can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<DirectorySource>,
    /// Secret in this namespace whose key "token" is sent to the source. Absent: anonymous access.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::reference::local")]
    pub secret_ref: Option<LocalObjectReference>,
    /// Secret in this namespace whose key "ca.crt" holds the certificates (PEM) that the source's own is signed with,
    /// beside the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::reference::local")]
    pub ca_secret_ref: Option<LocalObjectReference>,
}

/// Releases of a GitHub repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitHubSource {
    /// Address of a GitHub Enterprise server, such as `https://github.example.com`. Absent: github.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 2048),
        regex(pattern = r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$")
    )]
    pub url: Option<String>,
    /// User or organization that owns the repository.
    #[schemars(
        length(min = 1, max = 100),
        regex(pattern = r"^[A-Za-z0-9_-][A-Za-z0-9_.-]*$")
    )]
    pub owner: String,
    /// Name of the repository.
    #[schemars(length(min = 1, max = 100), regex(pattern = r"^[A-Za-z0-9_.-]+$"))]
    #[x_kube(validation = Rule::new("self != '.' && self != '..'").message("repository must be a name"))]
    pub repository: String,
}

/// Release folders in a directory that the operator can read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DirectorySource {
    /// Folder with one folder a release, relative to the operator's --source-root.
    #[schemars(length(min = 1, max = 4096))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(p, p == '..')").message("path must be relative and stay below the operator's --source-root"))]
    pub path: String,
}

/// What the operator may do on its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// What happens when an applied object was changed by somebody else: Correct puts it right, Report only says so.
    #[serde(default)]
    pub drift: DriftPolicy,
}

/// What happens when an applied object was changed by somebody else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// The object is put right.
    #[default]
    Correct,
    /// The object is left alone, and the release says so.
    Report,
}

/// What was observed of a cluster stack.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStackStatus {
    /// The newest release that is Ready, in dot form, and its Kubernetes version: "docker-scs-1-30-v2 | v1.30.10".
    /// Kept while none is Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub latest_release: Option<String>,
    /// Each release of the cluster stack and how far it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub summary: Vec<Summary>,
    /// Versions of all Ready releases in dot form, ascending, joined by ", ".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub usable_versions: Option<String>,
    /// The newest version that the source listed for the channel, in dot form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub newest_listed: Option<String>,
    /// Observations of the cluster stack's state.
    #[serde(default)]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// How far one release of a cluster stack is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Version of the release, in dash form.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Whether the release is Ready.
    pub ready: bool,
    /// What is being worked on: "downloading release assets", "provider-specific work", "applying objects" or "done".
    #[schemars(length(max = 63))]
    pub phase: String,
    /// Reason of the release's condition Ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
}

impl ClusterStack {
    /// The part of release names before the Kubernetes version: `<provider>-<name>`.
    #[must_use]
    pub fn stem(&self) -> String {
        format!("{}-{}", self.spec.provider, self.spec.name)
    }

    /// What happens on drift.
    #[must_use]
    pub fn drift_policy(&self) -> DriftPolicy {
        self.spec
            .policy
            .as_ref()
            .map(|policy| policy.drift)
            .unwrap_or_default()
    }

    /// Time between two looks at the source: the stack's own, else `default`; nothing below
    /// one minute.
    #[must_use]
    pub fn poll_interval(&self, default: Duration) -> Duration {
        self.spec
            .poll_interval
            .as_deref()
            .and_then(|text| text.parse::<jiff::SignedDuration>().ok())
            .and_then(|duration| Duration::try_from(duration).ok())
            .unwrap_or(default)
            .max(SHORTEST_POLL_INTERVAL)
    }
}
