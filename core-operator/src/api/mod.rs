//! The custom resources of the group `clusterstack.x-k8s.io/v1alpha1`.
//!
//! The Rust types are the source: `core-operator crd` prints the definitions, `deploy/crds` holds them, CI fails if
//! both differ. Objects of the Go operator are accepted and read unchanged; see `docs/architecture.md`.

#![expect(
    clippy::duplicated_attributes,
    reason = "the schema derive repeats the attributes of each field in its expansion"
)]
#![expect(
    clippy::doc_markdown,
    reason = "the comments are what kubectl explain prints, where backticks only disturb"
)]

mod cluster_addon;
mod cluster_stack;
mod cluster_stack_release;
mod condition;
mod reference;
mod resource;

pub use cluster_addon::{ClusterAddon, ClusterAddonSpec, ClusterAddonStatus, Stage};
pub use cluster_stack::{
    ClusterStack, ClusterStackSpec, ClusterStackStatus, DirectorySource, DriftPolicy, GitHubSource,
    Policy, Source, Summary,
};
pub use cluster_stack_release::{
    ClusterStackRelease, ClusterStackReleaseSpec, ClusterStackReleaseStatus, Dependency,
};
pub use condition::Condition;
pub use resource::{Resource, ResourceState};

/// Group of all our kinds.
pub const GROUP: &str = "clusterstack.x-k8s.io";
/// Version of all our kinds.
pub const VERSION: &str = "v1alpha1";

/// Label on every object that we apply; the Go operator sets it, too.
pub const OWNED_LABEL: &str = "clusterstack.x-k8s.io/instance";
/// Value of [`OWNED_LABEL`].
pub const OWNED_VALUE: &str = "owned";
/// Label on every object that we apply: [`release_hash`](crate::apply::release_hash) of the release it belongs to.
pub const RELEASE_LABEL: &str = "clusterstack.x-k8s.io/release";
/// Annotation on every object that we apply: `<namespace>/<name>` of the release it belongs to.
pub const RELEASE_ANNOTATION: &str = "clusterstack.x-k8s.io/release";
/// Annotation on every object that we apply: digest of the object as the release renders it.
pub const CONTENT_ANNOTATION: &str = "clusterstack.x-k8s.io/content";
/// When certificates in an object of a release are to be made anew (RFC 3339).
pub const RENEW_AFTER_ANNOTATION: &str = "clusterstack.x-k8s.io/renew-after";
/// Label on a ClusterRole, with the value `true`, that gives its rights to the operator, too.
pub const AGGREGATE_LABEL: &str = "clusterstack.x-k8s.io/aggregate-to-core";
/// Annotation of Cluster API that stops all writes.
pub const PAUSED_ANNOTATION: &str = "cluster.x-k8s.io/paused";
/// Label by which objects are shared out among operators, as in Cluster API.
pub const WATCH_FILTER_LABEL: &str = "cluster.x-k8s.io/watch-filter";
/// Annotation by which `clusterctl move` says that an object only leaves this management cluster.
pub const DELETE_FOR_MOVE_ANNOTATION: &str = "clusterctl.cluster.x-k8s.io/delete-for-move";

/// Finalizer of a `ClusterStack`.
pub const STACK_FINALIZER: &str = "clusterstack.clusterstack.x-k8s.io";
/// Finalizer of a `ClusterStackRelease`, the same as the Go operator's.
pub const RELEASE_FINALIZER: &str = "clusterstackrelease.clusterstack.x-k8s.io";

/// Whether nothing may be written for the object: somebody paused it, or `clusterctl move` is taking it away.
#[must_use]
pub fn is_paused(object: &impl kube::ResourceExt) -> bool {
    has_annotation(object, PAUSED_ANNOTATION) || has_annotation(object, DELETE_FOR_MOVE_ANNOTATION)
}

/// Whether the object carries an annotation, with whatever value.
#[must_use]
pub fn has_annotation(object: &impl kube::ResourceExt, annotation: &str) -> bool {
    object.annotations().contains_key(annotation)
}
