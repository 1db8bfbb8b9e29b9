//! Which change wakes which reconcile.
//!
//! ```text
//! ClusterStack          ─► itself, its releases
//! ClusterStackRelease   ─► itself (not for its status), its stacks, releases that have an object which it has no more
//! applied object        ─► its release, and all that have it in their inventory
//! ClusterClass          ─► its release
//! Cluster               ─► stacks, and releases that are being deleted: who uses them?
//! ```

use std::{
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
};

use kube::{
    ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

use crate::{
    api::{
        ClusterStack, ClusterStackRelease, DELETE_FOR_MOVE_ANNOTATION, PAUSED_ANNOTATION, Resource,
        WATCH_FILTER_LABEL,
    },
    apply::live::LiveObject,
    capi::{ClassView, ClusterView, watch::Told},
    helm::ObjectIdentity,
    watch::{Change, Waker},
};

/// Wakes for both controllers.
#[derive(Debug, Clone)]
pub struct Wakers {
    /// Reconciles a `ClusterStack`.
    pub stacks: Waker<ClusterStack>,
    /// Reconciles a `ClusterStackRelease`.
    pub releases: Waker<ClusterStackRelease>,
}

/// A stack is reconciled when something changes that is not its status; its releases depend on it.
pub fn of_stack(wakers: &Wakers) -> impl Fn(&ClusterStack, Change) + Send + 'static {
    let (wakers, seen) = (wakers.clone(), Seen::default());
    move |stack, change| {
        if seen.is_new(stack, change) {
            wakers.stacks.wake(ObjectRef::from_obj(stack));
            let namespace = stack.namespace().unwrap_or_default();
            for summary in stack.status.iter().flat_map(|status| &status.summary) {
                let minor = stack.spec.kubernetes_version.replace('.', "-");
                let name = format!("{}-{minor}-{}", stack.stem(), summary.name);
                wakers
                    .releases
                    .wake(ObjectRef::new(&name).within(&namespace));
            }
        }
    }
}

/// A release is reconciled when something changes that is not its status; its stacks show all of it.
pub fn of_release(wakers: &Wakers) -> impl Fn(&ClusterStackRelease, Change) + Send + 'static {
    let (wakers, seen, inventories) = (wakers.clone(), Seen::default(), Inventories::default());
    move |release, change| {
        if seen.is_new(release, change) {
            wakers.releases.wake(ObjectRef::from_obj(release));
        }
        for heir in inventories.heirs(release, change) {
            wakers.releases.wake(heir);
        }
        let namespace = release.namespace().unwrap_or_default();
        for owner in release.owner_references() {
            if owner.kind == "ClusterStack" {
                wakers
                    .stacks
                    .wake(ObjectRef::new(&owner.name).within(&namespace));
            }
        }
    }
}

/// What each release has in its inventory, by its UID.
#[derive(Default)]
struct Inventories(Mutex<HashMap<String, Inventory>>);

struct Inventory {
    release: ObjectRef<ClusterStackRelease>,
    /// Hashes of identities; equal ones of two objects cost a look.
    objects: HashSet<u64>,
}

impl Inventories {
    /// The releases that have an object which this one had until now.
    fn heirs(
        &self,
        release: &ClusterStackRelease,
        change: Change,
    ) -> Vec<ObjectRef<ClusterStackRelease>> {
        let uid = release.uid().unwrap_or_default();
        let reference = ObjectRef::from_obj(release);
        let mut inventories = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut left = inventories
            .remove(&uid)
            .map(|inventory| inventory.objects)
            .unwrap_or_default();
        if change == Change::There {
            let objects: HashSet<_> = release.inventory().iter().map(identity_hash).collect();
            left.retain(|object| !objects.contains(object));
            let release = reference.clone();
            inventories.insert(uid, Inventory { release, objects });
        }
        let others = inventories.values().filter(|other| {
            other.release != reference && left.iter().any(|object| other.objects.contains(object))
        });
        others.map(|other| other.release.clone()).collect()
    }
}

fn identity_hash(entry: &Resource) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.identity().hash(&mut hasher);
    hasher.finish()
}

/// What was last seen of each object, apart from its status.
#[derive(Default)]
struct Seen(Mutex<HashMap<String, u64>>);

impl Seen {
    /// Whether spec, finalizers, owners, or an annotation or label that counts are other than last time, or the object
    /// is gone.
    fn is_new(&self, object: &impl ResourceExt, change: Change) -> bool {
        let uid = object.uid().unwrap_or_default();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if change == Change::Gone {
            seen.remove(&uid);
            return true;
        }
        let metadata = object.meta();
        let mut hasher = DefaultHasher::new();
        metadata.generation.hash(&mut hasher);
        metadata.finalizers.hash(&mut hasher);
        metadata.deletion_timestamp.is_some().hash(&mut hasher);
        object.labels().get(WATCH_FILTER_LABEL).hash(&mut hasher);
        for annotation in [PAUSED_ANNOTATION, DELETE_FOR_MOVE_ANNOTATION] {
            object
                .annotations()
                .contains_key(annotation)
                .hash(&mut hasher);
        }
        for owner in object.owner_references() {
            owner.uid.hash(&mut hasher);
        }
        let now = hasher.finish();
        seen.insert(uid, now) != Some(now)
    }
}

/// A class wakes its release; a class or Cluster may change which releases are in use.
#[must_use]
pub fn of_cluster_api(
    wakers: &Wakers,
    stacks: &Store<ClusterStack>,
    releases: &Store<ClusterStackRelease>,
) -> Told {
    let class = {
        let waker = wakers.releases.clone();
        move |class: &ClassView, _| {
            if let Some((namespace, name)) = class.release() {
                waker.wake(ObjectRef::new(name).within(namespace));
            }
        }
    };
    let cluster = {
        let (wakers, stacks, releases) = (wakers.clone(), stacks.clone(), releases.clone());
        let users = Seen::default();
        move |cluster: &ClusterView, change| {
            // Its status changes all the time.
            if cluster.topology().is_none() || !users.is_new(cluster, change) {
                return;
            }
            for stack in stacks.state() {
                wakers.stacks.wake(ObjectRef::from_obj(&*stack));
            }
            for release in releases.state() {
                if release.metadata.deletion_timestamp.is_some() {
                    wakers.releases.wake(ObjectRef::from_obj(&*release));
                }
            }
        }
    };
    Told {
        class: Arc::new(class),
        cluster: Arc::new(cluster),
    }
}

/// An applied object wakes the release whose it is, and every other one that has it in its inventory.
pub fn of_object(
    wakers: &Wakers,
    releases: &Store<ClusterStackRelease>,
) -> impl Fn(&ObjectIdentity, &LiveObject) + Send + Sync + 'static {
    let (waker, releases) = (wakers.releases.clone(), releases.clone());
    move |identity, live| {
        let named = live
            .release
            .as_deref()
            .and_then(|name| name.split_once('/'));
        if let Some((namespace, name)) = named {
            waker.wake(ObjectRef::new(name).within(namespace));
        }
        for release in releases.state() {
            if release.has_resource(identity) {
                waker.wake(ObjectRef::from_obj(&*release));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ClusterStackReleaseSpec, ResourceState};

    fn release(name: &str, objects: &[&str]) -> ClusterStackRelease {
        let mut release = ClusterStackRelease::new(name, ClusterStackReleaseSpec::default());
        release.metadata.namespace = Some("fleet".to_owned());
        release.metadata.uid = Some(format!("uid-{name}"));
        let entries = objects.iter().map(|name| Resource {
            group: "g".to_owned(),
            version: "v1".to_owned(),
            kind: "K".to_owned(),
            name: (*name).to_owned(),
            namespace: "fleet".to_owned(),
            uid: String::new(),
            generation: None,
            status: ResourceState::Synced,
            error: String::new(),
        });
        release.status.get_or_insert_default().resources = entries.collect();
        release
    }

    #[test]
    fn release_that_has_an_object_as_well_is_woken_when_another_has_it_no_more() {
        let inventories = Inventories::default();
        let heirs = |release: ClusterStackRelease, change| {
            let mut names: Vec<_> = inventories
                .heirs(&release, change)
                .into_iter()
                .map(|heir| heir.name)
                .collect();
            names.sort();
            names
        };
        let none: [&str; 0] = [];
        for (name, objects) in [
            ("new", &["common", "own", "both"][..]),
            ("old", &["common", "both"]),
            ("older", &["both"]),
            ("other", &["foreign"]),
        ] {
            assert_eq!(heirs(release(name, objects), Change::There), none);
        }
        let same = release("new", &["both", "own", "common"]);
        assert_eq!(heirs(same, Change::There), none);
        let dropped = release("new", &["own", "both"]);
        assert_eq!(heirs(dropped.clone(), Change::There), ["old"]);
        assert_eq!(heirs(dropped.clone(), Change::There), none);
        assert_eq!(heirs(dropped, Change::Gone), ["old", "older"]);
    }
}
