//! What is in the cluster: metadata of all objects of the kinds that releases apply, by watches.
//!
//! So a reconcile knows without a request whether an object is there, whose it is, and whether somebody changed it.
//! Kinds of Cluster API and of its OpenStack helper are watched whole, because an object that is not ours must be seen
//! before we would write over it; these are few and small. Other kinds (a Secret, a ConfigMap) are watched by our label
//! only, and an object that is not found there is asked for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::DynamicObject,
    core::PartialObjectMeta,
    discovery::ApiResource,
    runtime::{reflector::ObjectRef, watcher},
};
use tokio::time::timeout;

use super::{discovery::ServedKind, renewal};
use crate::{
    api::{
        CONTENT_ANNOTATION, OWNED_LABEL, OWNED_VALUE, RELEASE_ANNOTATION, RELEASE_LABEL,
        RENEW_AFTER_ANNOTATION,
    },
    helm::ObjectIdentity,
    watch::Watched,
};

/// Metadata of one object.
type Metadata = PartialObjectMeta<DynamicObject>;

/// Annotations that [`LiveObject`] reads.
const READ_ANNOTATIONS: [&str; 3] = [
    RELEASE_ANNOTATION,
    CONTENT_ANNOTATION,
    RENEW_AFTER_ANNOTATION,
];

/// How long the first list of a kind may take before the reconcile gives up for now.
const FIRST_LIST: Duration = Duration::from_secs(20);

/// What is known of one object in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LiveObject {
    /// Its UID.
    pub uid: String,
    /// Its generation, if its kind has some.
    pub generation: Option<i64>,
    /// Its resource version.
    pub resource_version: String,
    /// Whether it carries the label that we and the Go operator set.
    pub owned: bool,
    /// `<namespace>/<name>` of the release that its annotation names.
    pub release: Option<String>,
    /// Value of our release label.
    pub release_label: Option<String>,
    /// What it was rendered as when we applied it.
    pub content: Option<String>,
    /// When certificates in it are to be made anew.
    pub renew_after: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

impl LiveObject {
    /// Reads the metadata.
    #[must_use]
    pub fn of(object: &impl ResourceExt) -> Self {
        let annotation = |name| object.annotations().get(name).cloned();
        Self {
            uid: object.uid().unwrap_or_default(),
            generation: object.meta().generation,
            resource_version: object.resource_version().unwrap_or_default(),
            owned: object
                .labels()
                .get(OWNED_LABEL)
                .is_some_and(|value| value == OWNED_VALUE),
            release: annotation(RELEASE_ANNOTATION),
            release_label: object.labels().get(RELEASE_LABEL).cloned(),
            content: annotation(CONTENT_ANNOTATION),
            renew_after: renewal::marked(object.annotations()),
            deleting: object.meta().deletion_timestamp.is_some(),
        }
    }
}

/// Told about each object that was made, changed or deleted.
type Changed = Arc<dyn Fn(&ObjectIdentity, &LiveObject) + Send + Sync>;

/// The watches, one a kind, started when a release first has an object of the kind.
pub struct Live {
    client: Client,
    watching: Client,
    namespace: Option<String>,
    changed: Changed,
    watches: Mutex<HashMap<(String, String), Arc<Watch>>>,
}

struct Watch {
    kind: ServedKind,
    whole: bool,
    objects: Watched<Metadata>,
}

/// The watch of a kind has no first list yet.
#[derive(Debug, thiserror::Error)]
#[error("failed to list {kind} within {} s", FIRST_LIST.as_secs())]
pub struct ListKind {
    /// The kind.
    pub kind: String,
}

impl Live {
    /// Without watches yet; `namespace` restricts them. `watching` must bear the silence of watches, `client` is for
    /// single requests.
    #[must_use]
    pub fn new(
        client: Client,
        watching: Client,
        namespace: Option<String>,
        changed: impl Fn(&ObjectIdentity, &LiveObject) + Send + Sync + 'static,
    ) -> Self {
        Self {
            client,
            watching,
            namespace,
            changed: Arc::new(changed),
            watches: Mutex::default(),
        }
    }

    /// Watches the kinds, and waits for their first lists.
    ///
    /// # Errors
    ///
    /// If a list does not arrive.
    pub async fn watch(
        &self,
        kinds: impl IntoIterator<Item = &ServedKind>,
    ) -> Result<(), ListKind> {
        let watches: Vec<_> = kinds.into_iter().map(|kind| self.started(kind)).collect();
        for watch in watches {
            if watch.objects.is_filled() {
                continue;
            }
            let filled = timeout(FIRST_LIST, watch.objects.filled()).await;
            filled.map_err(|_elapsed| ListKind {
                kind: watch.kind.resource.kind.clone(),
            })?;
        }
        Ok(())
    }

    /// The object, if it is there as far as the watch knows; kinds that are not watched have none.
    ///
    /// # Errors
    ///
    /// If the object had to be asked for and the API server did not answer.
    pub async fn find(&self, identity: &ObjectIdentity) -> Result<Option<LiveObject>, kube::Error> {
        self.look(identity, false).await
    }

    /// As [`find`](Self::find), but the API server is asked before the object counts as absent: a watch may be behind, or
    /// cut for a while, and who forgets an object that is there leaves it behind for ever.
    ///
    /// # Errors
    ///
    /// If the API server did not answer.
    pub async fn find_surely(
        &self,
        identity: &ObjectIdentity,
    ) -> Result<Option<LiveObject>, kube::Error> {
        self.look(identity, true).await
    }

    async fn look(
        &self,
        identity: &ObjectIdentity,
        surely: bool,
    ) -> Result<Option<LiveObject>, kube::Error> {
        let Some(watch) = self.watch_of(identity) else {
            return Ok(None);
        };
        let resource = watch.kind.resource.clone();
        let mut key = ObjectRef::<Metadata>::new_with(&identity.name, resource);
        key.namespace.clone_from(&identity.namespace);
        if let Some(object) = watch.objects.store().get(&key) {
            return Ok(Some(LiveObject::of(&*object)));
        }
        if watch.whole && !surely {
            return Ok(None);
        }
        self.ask(identity).await
    }

    /// The object as the API server has it now, whatever the watch shows; kinds that are not watched have none.
    ///
    /// # Errors
    ///
    /// If the API server did not answer.
    pub async fn ask(&self, identity: &ObjectIdentity) -> Result<Option<LiveObject>, kube::Error> {
        let Some(watch) = self.watch_of(identity) else {
            return Ok(None);
        };
        let resource = &watch.kind.resource;
        let api: Api<DynamicObject> =
            object_api(&self.client, resource, identity.namespace.as_deref());
        let found = api.get_metadata_opt(&identity.name).await?;
        Ok(found.map(|object| LiveObject::of(&object)))
    }

    fn watch_of(&self, identity: &ObjectIdentity) -> Option<Arc<Watch>> {
        let watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = (identity.group.clone(), identity.kind.clone());
        watches.get(&kind).cloned()
    }

    /// Ends the watch of a kind, because its definition has changed or is gone.
    pub fn forget(&self, group: &str, kind: &str) {
        self.watches
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&(group.to_owned(), kind.to_owned()));
    }

    fn started(&self, kind: &ServedKind) -> Arc<Watch> {
        let key = (kind.resource.group.clone(), kind.resource.kind.clone());
        let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let watch = watches.entry(key).or_insert_with(|| {
            let whole = is_watched_whole(&kind.resource.group);
            let mut config = watcher::Config::default();
            if !whole {
                config = config.labels(&format!("{OWNED_LABEL}={OWNED_VALUE}"));
            }
            let namespace = self.namespace.as_deref().filter(|_| kind.namespaced);
            let api: Api<Metadata> = match namespace {
                Some(namespace) => {
                    Api::namespaced_with(self.watching.clone(), namespace, &kind.resource)
                }
                None => Api::all_with(self.watching.clone(), &kind.resource),
            };
            let (changed, resource) = (Arc::clone(&self.changed), kind.resource.clone());
            // Strangers too: a release may wait for one to go.
            let told = move |object: &Metadata, _| {
                changed(&identity(&resource, object), &LiveObject::of(object));
            };
            let events = futures::StreamExt::map(watcher(api, config), |event| event.map(trimmed));
            let name = kind.resource.kind.clone();
            Arc::new(Watch {
                kind: kind.clone(),
                whole,
                objects: Watched::spawn(name, kind.resource.clone(), events, told),
            })
        });
        Arc::clone(watch)
    }
}

impl std::fmt::Debug for Live {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Live").finish_non_exhaustive()
    }
}

/// Whether all objects of the group's kinds are watched.
fn is_watched_whole(group: &str) -> bool {
    group == "cluster.x-k8s.io"
        || group.ends_with(".cluster.x-k8s.io")
        || group == "openstack.k-orc.cloud"
}

/// An API for one object, wherever it lies.
#[must_use]
pub fn object_api<K>(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = ApiResource, Scope = kube::core::DynamicResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

fn identity(resource: &ApiResource, object: &Metadata) -> ObjectIdentity {
    ObjectIdentity {
        group: resource.group.clone(),
        kind: resource.kind.clone(),
        namespace: object.namespace(),
        name: object.name_any(),
    }
}

/// Without what nobody reads: most of the memory.
fn trimmed(event: watcher::Event<Metadata>) -> watcher::Event<Metadata> {
    event.modify(|object| {
        let metadata = &mut object.metadata;
        metadata.managed_fields = None;
        metadata.owner_references = None;
        metadata.finalizers = None;
        if let Some(labels) = &mut metadata.labels {
            labels.retain(|key, _| [OWNED_LABEL, RELEASE_LABEL].contains(&key.as_str()));
        }
        if let Some(annotations) = &mut metadata.annotations {
            annotations.retain(|key, _| READ_ANNOTATIONS.contains(&key.as_str()));
        }
    })
}
