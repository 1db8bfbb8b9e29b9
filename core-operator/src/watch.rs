//! Watches: one task keeps a store filled and tells what has changed.
//!
//! ```text
//! API server ══ watch ══► task ──► store ◄── reconciles read
//!                          └────► changed(object) ──► wakes of controllers
//! ```
//!
//! Every change is told, deletions too, also those that happened while the watch was cut. Wakes go into channels without
//! a limit: each controller keeps at most one wake an object, and a watch never waits for a reader. (The shared streams
//! of kube lose wakes of deleted objects and then stand still.)

use std::{
    collections::HashSet,
    fmt::Debug,
    hash::Hash,
    pin::pin,
    sync::{Mutex, PoisonError},
};

use futures::{Stream, StreamExt, future};
use kube::{
    Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store, store::Writer},
        watcher::{self, Event},
    },
};
use tokio::{sync::mpsc, task::AbortHandle};
use tracing::{debug, warn};

use crate::report::chain;

/// Ends its task when dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a watch tells about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was made or changed.
    There,
    /// It was deleted.
    Gone,
}

/// A store that a watch keeps filled; the watch ends with it.
pub struct Watched<K>
where
    K: Resource + 'static,
    K::DynamicType: Eq + Hash,
{
    store: Store<K>,
    filled: tokio::sync::watch::Receiver<bool>,
    _task: Task,
}

impl<K> Watched<K>
where
    K: Resource + Clone + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Send + Sync,
{
    /// Starts a task that follows `events`. `changed` is called for each object that was made, changed or deleted, after
    /// the store has taken it in; for a deleted one with its last state.
    pub fn spawn(
        kind: String,
        resource: K::DynamicType,
        events: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        changed: impl Fn(&K, Change) + Send + 'static,
    ) -> Self {
        let writer = Writer::new(resource);
        let store = writer.as_reader();
        let (sender, filled) = tokio::sync::watch::channel(false);
        let task = tokio::spawn(follow(kind, events, writer, changed, sender));
        Self {
            store,
            filled,
            _task: Task(task.abort_handle()),
        }
    }

    /// The store.
    #[must_use]
    pub const fn store(&self) -> &Store<K> {
        &self.store
    }

    /// Whether the first list has arrived.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        *self.filled.borrow()
    }

    /// Waits for the first list. (The store's own `wait_until_ready` wakes only the last of those who wait.)
    pub async fn filled(&self) {
        // The only failure is that the task has ended, which it does only with `self`.
        let _ = self.filled.clone().wait_for(|filled| *filled).await;
    }
}

impl<K> Debug for Watched<K>
where
    K: Resource + 'static,
    K::DynamicType: Eq + Hash,
{
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watched").finish_non_exhaustive()
    }
}

async fn follow<K>(
    kind: String,
    events: impl Stream<Item = watcher::Result<Event<K>>>,
    mut writer: Writer<K>,
    changed: impl Fn(&K, Change),
    filled: tokio::sync::watch::Sender<bool>,
) where
    K: Resource + Clone + Debug + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    let store = writer.as_reader();
    let mut failing = false;
    let mut events = pin!(events.default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) if failing => {
                debug!(kind, error = chain(&error), "watch still interrupted");
                continue;
            }
            Err(error) => {
                warn!(kind, error = chain(&error), "watch interrupted");
                failing = true;
                continue;
            }
        };
        if failing {
            debug!(kind, "watch goes on");
            failing = false;
        }
        match &event {
            Event::Apply(object) => {
                writer.apply_watcher_event(&event);
                changed(object, Change::There);
            }
            Event::Delete(object) => {
                writer.apply_watcher_event(&event);
                changed(object, Change::Gone);
            }
            Event::Init | Event::InitApply(_) => writer.apply_watcher_event(&event),
            Event::InitDone => {
                let before = store.state();
                writer.apply_watcher_event(&event);
                filled.send_replace(true);
                let now = store.state();
                for (object, change) in differences(&before, &now) {
                    changed(object, change);
                }
            }
        }
    }
}

/// Objects that are new, changed or gone after a list.
fn differences<'a, K: Resource>(
    before: &'a [std::sync::Arc<K>],
    now: &'a [std::sync::Arc<K>],
) -> Vec<(&'a K, Change)> {
    let key = |object: &K| (object.uid(), object.resource_version());
    let old: HashSet<_> = before.iter().map(|object| key(object)).collect();
    let new: HashSet<_> = now.iter().map(|object| object.uid()).collect();
    let changed = now.iter().filter(|object| !old.contains(&key(object)));
    let gone = before.iter().filter(|object| !new.contains(&object.uid()));
    let changed = changed.map(|object| (&**object, Change::There));
    changed
        .chain(gone.map(|object| (&**object, Change::Gone)))
        .collect()
}

/// Leaves out objects that do not parse, and logs each once.
pub fn readable<K>(
    events: impl Stream<Item = watcher::Result<Event<DeserializeGuard<K>>>>,
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: Resource,
    K::DynamicType: Default,
{
    let logged = Mutex::new(HashSet::new());
    events.filter_map(move |event| {
        let keep = |guard: DeserializeGuard<K>| match guard.0 {
            Ok(object) => Some(object),
            Err(invalid) => {
                let metadata = invalid.metadata;
                let mut logged = logged.lock().unwrap_or_else(PoisonError::into_inner);
                if logged.insert((metadata.uid.clone(), metadata.generation)) {
                    let kind = K::kind(&K::DynamicType::default()).into_owned();
                    warn!(
                        kind,
                        namespace = metadata.namespace,
                        name = metadata.name,
                        error = invalid.error,
                        "object does not parse"
                    );
                }
                None
            }
        };
        future::ready(match event {
            Ok(Event::Apply(guard)) => keep(guard).map(|object| Ok(Event::Apply(object))),
            Ok(Event::Delete(guard)) => keep(guard).map(|object| Ok(Event::Delete(object))),
            Ok(Event::InitApply(guard)) => keep(guard).map(|object| Ok(Event::InitApply(object))),
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Err(error) => Some(Err(error)),
        })
    })
}

/// Wakes a controller for an object.
#[derive(Debug)]
pub struct Waker<K: Resource<DynamicType = ()>>(mpsc::UnboundedSender<ObjectRef<K>>);

impl<K: Resource<DynamicType = ()>> Clone for Waker<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource<DynamicType = ()>> Waker<K> {
    /// A waker and what its controller listens to.
    #[must_use]
    pub fn new() -> (Self, mpsc::UnboundedReceiver<ObjectRef<K>>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Has the object reconciled soon. Without effect when the controller has ended.
    pub fn wake(&self, object: ObjectRef<K>) {
        let _ = self.0.send(object);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, version: &str) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(format!("uid-{name}"));
        object.metadata.resource_version = Some(version.to_owned());
        object
    }

    #[tokio::test]
    async fn changes_and_deletions_during_an_interruption_are_told() {
        let events = [
            Event::Init,
            Event::InitApply(object("same", "1")),
            Event::InitApply(object("changed", "2")),
            Event::InitApply(object("gone", "3")),
            Event::InitDone,
            // the watch was cut and starts again
            Event::Init,
            Event::InitApply(object("same", "1")),
            Event::InitApply(object("changed", "5")),
            Event::InitApply(object("new", "6")),
            Event::InitDone,
            Event::Delete(object("new", "7")),
        ];
        let told = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::<ConfigMap>::new(());
        let store = writer.as_reader();
        let sink = Arc::clone(&told);
        follow(
            "ConfigMap".to_owned(),
            stream::iter(events.map(Ok)),
            writer,
            move |object: &ConfigMap, change| {
                sink.lock().unwrap().push((object.name_any(), change));
            },
            tokio::sync::watch::channel(false).0,
        )
        .await;
        let told = told.lock().unwrap();
        let of = |name: &str| -> Vec<Change> {
            let changes = told.iter().filter(|(told, _)| told == name);
            changes.map(|(_, change)| *change).collect()
        };
        assert_eq!(of("same"), [Change::There]);
        assert_eq!(of("changed"), [Change::There, Change::There]);
        assert_eq!(of("gone"), [Change::There, Change::Gone]);
        assert_eq!(of("new"), [Change::There, Change::Gone]);
        assert_eq!(store.len(), 2);
    }

    #[tokio::test]
    async fn first_list_wakes_all_who_wait_for_it() {
        let (sender, list) = tokio::sync::oneshot::channel::<()>();
        let events = stream::once(async { list.await.map(|()| Event::Init).unwrap() })
            .chain(stream::iter([Event::InitDone]))
            .chain(stream::pending());
        let watched: Watched<ConfigMap> =
            Watched::spawn("ConfigMap".to_owned(), (), events.map(Ok), |_, _| {});
        let waiting = futures::future::join3(watched.filled(), watched.filled(), watched.filled());
        let arriving = async {
            tokio::task::yield_now().await;
            assert!(!watched.is_filled());
            sender.send(()).unwrap();
        };
        tokio::join!(waiting, arriving);
        assert!(watched.is_filled());
    }
}
