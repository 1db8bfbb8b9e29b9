//! Cluster API as this operator sees it: its objects in both API versions, and what it must be able to do.
//!
//! ```text
//! ClusterView, ClassView   slim objects for watches, one type for v1beta1 and v1beta2
//!     └── usage            which Clusters, of any namespace, use which release
//! preflight                what must be so before a release is applied
//! ```
//!
//! Nothing here writes: the only changes that are sent are dry runs.

mod cluster;
mod cluster_class;
mod lenient;
pub mod preflight;
pub mod usage;
pub mod watch;

pub use cluster::{ClusterView, Topology};
pub use cluster_class::{ClassReadiness, ClassView};

/// Group of `Cluster` and `ClusterClass`.
pub const GROUP: &str = "cluster.x-k8s.io";
/// Kind of a cluster.
pub const CLUSTER_KIND: &str = "Cluster";
/// Kind of a class of clusters.
pub const CLUSTER_CLASS_KIND: &str = "ClusterClass";

/// An object with the field `metadata`, whose API version is known at run time only.
macro_rules! dynamic_resource {
    ($view:ty) => {
        impl kube::Resource for $view {
            type DynamicType = kube::discovery::ApiResource;
            type Scope = kube::core::DynamicResourceScope;

            fn kind(resource: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                resource.kind.as_str().into()
            }

            fn group(resource: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                resource.group.as_str().into()
            }

            fn version(resource: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                resource.version.as_str().into()
            }

            fn plural(resource: &Self::DynamicType) -> std::borrow::Cow<'_, str> {
                resource.plural.as_str().into()
            }

            fn meta(&self) -> &kube::core::ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut kube::core::ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
use dynamic_resource;
