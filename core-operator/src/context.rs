//! What every reconcile can use: a plain struct, made once in [`run`](crate::run).

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::{
    Client, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{ClusterStack, ClusterStackRelease},
    apply::{discovery::Kinds, live::Live, placement::Allowed, write::Writer},
    capi::{preflight::Preflight, watch::ClusterApi},
    controllers::{cluster_stack, cluster_stack_release, places::Places},
    events::Events,
    helm::Helm,
    metrics::Metrics,
    retry::Retries,
    store::Store as ReleaseStore,
    wakes::Wakers,
};

/// What every reconcile can use.
pub struct Context {
    /// Client of the management cluster, with time-outs, for single requests.
    pub client: Client,
    /// All ClusterStacks.
    pub stacks: Store<ClusterStack>,
    /// All ClusterStackReleases.
    pub releases: Store<ClusterStackRelease>,
    /// Classes and Clusters of Cluster API.
    pub cluster_api: ClusterApi,
    /// The kinds that the management cluster serves.
    pub kinds: Arc<Kinds>,
    /// What must be so before a release is applied.
    pub preflight: Preflight,
    /// Metadata of the objects of releases.
    pub live: Live,
    /// Server-side apply.
    pub writer: Writer,
    /// Where objects of releases may lie.
    pub allowed: Allowed,
    /// Sources of releases.
    pub places: Places,
    /// Releases on disk.
    pub store: ReleaseStore,
    /// The renderer.
    pub helm: Helm,
    /// Listings under way and done, by ClusterStack.
    pub listings: cluster_stack::listing::Listings,
    /// Releases on their way into the store, by ClusterStackRelease.
    pub assets: cluster_stack_release::assets::AssetJobs,
    /// What was applied, by ClusterStackRelease.
    pub memory: cluster_stack_release::memory::Memory,
    /// Wakes for reconciles.
    pub wakers: Wakers,
    /// Events for users.
    pub events: Events,
    /// The operator's own numbers.
    pub metrics: Arc<Metrics>,
    /// Failures in a row.
    pub retries: Retries,
    /// Statuses that were held back.
    pub held: crate::report::Held,
    /// Time between two looks at the source of a ClusterStack that does not say.
    pub poll_interval: Duration,
    /// The clock.
    pub now: fn() -> Timestamp,
}

impl Context {
    /// The ClusterStacks that want a release, the oldest first: it decides when they do not agree.
    #[must_use]
    pub fn owners(&self, release: &ClusterStackRelease) -> Vec<Arc<ClusterStack>> {
        let namespace = release.namespace().unwrap_or_default();
        let mut stacks: Vec<_> = release
            .owner_references()
            .iter()
            .filter(|owner| owner.kind == "ClusterStack")
            .filter_map(|owner| {
                let stack = self
                    .stacks
                    .get(&ObjectRef::new(&owner.name).within(&namespace))?;
                (stack.uid().as_deref() == Some(owner.uid.as_str())).then_some(stack)
            })
            .collect();
        stacks.sort_by_cached_key(|stack| age(&**stack));
        stacks
    }

    /// The releases that a stack wants.
    #[must_use]
    pub fn releases_of(&self, stack: &ClusterStack) -> Vec<Arc<ClusterStackRelease>> {
        let (namespace, uid) = (stack.namespace(), stack.uid());
        let mut releases = self.releases.state();
        releases.retain(|release| {
            let mut owners = release.owner_references().iter();
            release.namespace() == namespace
                && owners.any(|owner| Some(owner.uid.as_str()) == uid.as_deref())
        });
        releases
    }

    /// The release with this `<namespace>/<name>`, as the annotation of an applied object has it.
    #[must_use]
    pub fn release(&self, full_name: &str) -> Option<Arc<ClusterStackRelease>> {
        let (namespace, name) = full_name.split_once('/')?;
        self.releases.get(&ObjectRef::new(name).within(namespace))
    }
}

/// The older of two objects has the smaller key; made in the same second, the UID decides.
pub fn age(object: &impl ResourceExt) -> (Option<Timestamp>, String) {
    let created = object.creation_timestamp().map(|time| time.0);
    (created, object.uid().unwrap_or_default())
}
