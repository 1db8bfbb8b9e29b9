//! The operator at work, while it leads: watches, controllers, and what goes on beside them.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        Controller, controller,
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Clients, RunError};
use crate::{
    api::{AGGREGATE_LABEL, ClusterStackRelease, WATCH_FILTER_LABEL},
    apply::{discovery::Kinds, live::Live, placement::Allowed, write::Writer},
    args::DefaultSource,
    capi::{preflight::Preflight, watch::ClusterApi},
    conditions::{self, reason},
    context::Context,
    controllers::{cluster_stack, cluster_stack_release, places::Places, secrets},
    events::Events,
    helm::Helm,
    metrics::Metrics,
    report::Held,
    retry::Retries,
    servers::Check,
    source::Sources,
    store,
    wakes::{self, Wakers},
    watch::{Change, Waker, Watched, readable},
};

/// How long a running reconcile may take to end after the stop; a pod gets 30 s.
const STOP: Duration = Duration::from_secs(20);

/// What nobody names goes after this time.
const UNUSED: Duration = Duration::from_hours(24);

/// How often the store is looked through for that.
const COLLECT: Duration = Duration::from_hours(1);

/// From the moment that a definition is there until its kind is served; some tenths of a second when idle.
const SERVED_AFTER: Duration = Duration::from_millis(200);

/// Shortest time between two looks at what is served.
const BUNCH: Duration = Duration::from_secs(1);

/// From the moment that a role with our label is there until its rights are ours: a controller joins it with the others,
/// and API servers take that in; tenths of a second when idle. Pauses between looks.
const AGGREGATED_AFTER: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(6),
    Duration::from_secs(20),
];

/// How many objects are reconciled at the same time.
pub(super) struct Concurrency {
    pub stacks: usize,
    pub releases: usize,
}

/// All that the controllers are made of.
pub(super) struct Operator {
    pub clients: Clients,
    pub namespace: Option<String>,
    pub identity: String,
    pub allowed: Allowed,
    pub sources: Sources,
    pub default_source: DefaultSource,
    pub source_root: Option<PathBuf>,
    pub store: store::Store,
    pub helm: Helm,
    pub metrics: Arc<Metrics>,
    pub poll_interval: Duration,
    pub watch_filter: String,
    pub concurrency: Concurrency,
}

impl Operator {
    /// Watches and reconciles until `stop`, and then until what runs has ended, within limits.
    pub async fn work(self, ready: Check, stop: CancellationToken) -> Result<(), RunError> {
        let kinds = Arc::new(Kinds::new(self.clients.requests.clone()));
        let (stacks, wake_stacks) = Waker::new();
        let (releases, wake_releases) = Waker::new();
        let wakers = Wakers { stacks, releases };
        let stacks = self.watch(wakes::of_stack(&wakers));
        let releases = self.watch(wakes::of_release(&wakers));
        // Objects may lie in other namespaces than their releases.
        let namespace = self
            .namespace
            .clone()
            .filter(|_| self.allowed.namespaces.is_empty());
        let live = Live::new(
            self.clients.requests.clone(),
            self.clients.watches.clone(),
            namespace,
            wakes::of_object(&wakers, releases.store()),
        );
        let cluster_api = ClusterApi::new(
            self.clients.watches.clone(),
            Arc::clone(&kinds),
            wakes::of_cluster_api(&wakers, stacks.store(), releases.store()),
        );
        let context = Arc::new(Context {
            client: self.clients.requests.clone(),
            stacks: stacks.store().clone(),
            releases: releases.store().clone(),
            cluster_api,
            preflight: Preflight::new(self.clients.requests.clone(), Arc::clone(&kinds)),
            kinds,
            live,
            writer: Writer::new(self.clients.requests.clone()),
            allowed: self.allowed.clone(),
            places: Places::new(
                self.clients.requests.clone(),
                self.sources,
                self.default_source,
                self.source_root,
            ),
            store: self.store,
            helm: self.helm,
            listings: cluster_stack::listing::Listings::default(),
            assets: cluster_stack_release::assets::AssetJobs::default(),
            memory: cluster_stack_release::memory::Memory::default(),
            wakers,
            events: Events::start(self.clients.requests.clone(), self.identity),
            metrics: Arc::clone(&self.metrics),
            retries: Retries::default(),
            held: Held::default(),
            poll_interval: self.poll_interval,
            now: Timestamp::now,
        });
        context
            .cluster_api
            .follow()
            .await
            .map_err(RunError::Discover)?;
        let _definitions = follow_definitions(self.clients.watches.clone(), &context);
        let _roles = follow_roles(self.clients.watches.clone(), &context);
        stacks.filled().await;
        releases.filled().await;
        ready.ready();
        tokio::spawn(collect(Arc::clone(&context), stop.clone()));
        tokio::spawn(secrets::follow(Arc::clone(&context), stop.clone()));

        let both = async {
            tokio::join!(
                drive(
                    stacks.store().clone(),
                    wake_stacks,
                    self.concurrency.stacks,
                    cluster_stack::reconcile,
                    cluster_stack::on_error,
                    &context,
                    &stop,
                ),
                drive(
                    releases.store().clone(),
                    wake_releases,
                    self.concurrency.releases,
                    cluster_stack_release::reconcile,
                    cluster_stack_release::on_error,
                    &context,
                    &stop,
                ),
            );
        };
        let limit = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP).await;
        };
        tokio::select! {
            () = both => {}
            () = limit => warn!(limit = ?STOP, "reconciles did not end in time"),
        }
        Ok(())
    }

    fn watch<K>(&self, changed: impl Fn(&K, Change) + Send + 'static) -> Watched<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync,
    {
        let client = self.clients.watches.clone();
        let api: Api<DeserializeGuard<K>> = match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        };
        let mut config = watcher::Config::default();
        if !self.watch_filter.is_empty() {
            config = config.labels(&format!("{WATCH_FILTER_LABEL}={}", self.watch_filter));
        }
        let events = readable(watcher(api, config)).map(|event| {
            event
                .map(|event| event.modify(|object: &mut K| object.meta_mut().managed_fields = None))
        });
        Watched::spawn(K::kind(&()).into_owned(), (), events, changed)
    }
}

/// New, changed and vanished definitions: what is served is asked anew, and releases that lack a kind look again.
fn follow_definitions(
    client: Client,
    context: &Arc<Context>,
) -> Watched<PartialObjectMeta<CustomResourceDefinition>> {
    let api = Api::<PartialObjectMeta<CustomResourceDefinition>>::all(client);
    let events = watcher(api, watcher::Config::default()).map(|event| {
        event.map(|event| {
            event.modify(|object: &mut PartialObjectMeta<CustomResourceDefinition>| {
                object.metadata.managed_fields = None;
                object.metadata.annotations = None;
            })
        })
    });
    let (sender, mut changes) = mpsc::unbounded_channel::<()>();
    let weak = Arc::downgrade(context);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            // A new definition is served a moment after it is there.
            tokio::time::sleep(SERVED_AFTER).await;
            while changes.try_recv().is_ok() {}
            let Some(context) = weak.upgrade() else {
                return;
            };
            context.kinds.forget();
            if let Err(error) = context.cluster_api.follow().await {
                warn!(
                    error = crate::report::chain(&error),
                    "failed to ask for the served kinds"
                );
            }
            for release in context.releases.state() {
                context.wakers.releases.wake(ObjectRef::from_obj(&*release));
            }
            // They come in bunches.
            tokio::time::sleep(BUNCH).await;
        }
    });
    let name = "CustomResourceDefinition".to_owned();
    Watched::spawn(name, (), events, move |_, _| {
        let _ = sender.send(());
    })
}

/// New, changed and vanished roles with our label: releases that lack a right look again. Rights that come by another way
/// are found at the next attempt.
fn follow_roles(client: Client, context: &Arc<Context>) -> Watched<PartialObjectMeta<ClusterRole>> {
    let api = Api::<PartialObjectMeta<ClusterRole>>::all(client);
    let config = watcher::Config::default().labels(&format!("{AGGREGATE_LABEL}=true"));
    let (sender, mut changes) = mpsc::unbounded_channel::<()>();
    let weak = Arc::downgrade(context);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            let mut pauses = AGGREGATED_AFTER.iter();
            while let Some(pause) = pauses.next() {
                match timeout(*pause, changes.recv()).await {
                    Ok(Some(())) => pauses = AGGREGATED_AFTER.iter(),
                    Ok(None) => return,
                    Err(_elapsed) => {
                        let Some(context) = weak.upgrade() else {
                            return;
                        };
                        look_at_rights(&context);
                    }
                }
            }
        }
    });
    Watched::spawn(
        "ClusterRole".to_owned(),
        (),
        watcher(api, config),
        move |_, _| {
            let _ = sender.send(());
        },
    )
}

fn look_at_rights(context: &Context) {
    let mut lacking = context.releases.state();
    lacking.retain(|release| lacks_rights(release));
    if lacking.is_empty() {
        return;
    }
    context.preflight.forget_rights();
    for release in lacking {
        let release = ObjectRef::from_obj(&*release);
        context.wakers.releases.wake(release);
    }
}

fn lacks_rights(release: &ClusterStackRelease) -> bool {
    let status = release.status.as_ref();
    let applied = status.and_then(|it| conditions::find(&it.conditions, conditions::APPLIED));
    applied.is_some_and(|it| [reason::FORBIDDEN, reason::REFUSED].contains(&it.reason.as_str()))
}

/// What a reconcile fails with.
trait Failure: std::error::Error + Send + 'static {
    /// Whether only the watch is behind.
    fn is_stale(&self) -> bool;
}

impl Failure for cluster_stack::Error {
    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }
}

impl Failure for cluster_stack_release::Error {
    fn is_stale(&self) -> bool {
        Self::is_stale(self)
    }
}

/// Runs one controller until `stop`, and then until its reconciles have ended.
async fn drive<K, R, E, C>(
    store: Store<K>,
    wakes: mpsc::UnboundedReceiver<ObjectRef<K>>,
    concurrency: usize,
    reconcile: fn(Arc<K>, Arc<C>) -> R,
    on_error: fn(Arc<K>, &E, Arc<C>) -> controller::Action,
    context: &Arc<C>,
    stop: &CancellationToken,
) where
    K: Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
    R: Future<Output = Result<controller::Action, E>> + Send + 'static,
    E: Failure,
    C: Send + Sync + 'static,
{
    let config =
        controller::Config::default().concurrency(u16::try_from(concurrency).unwrap_or(u16::MAX));
    let kind = K::kind(&()).into_owned();
    Controller::for_stream(stream::pending(), store)
        .with_config(config)
        .reconcile_on(UnboundedReceiverStream::new(wakes))
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, on_error, Arc::clone(context))
        .for_each(|result| {
            match result {
                Ok(_) | Err(controller::Error::ObjectNotFound(_)) => {}
                Err(controller::Error::ReconcilerFailed(failure, object)) if failure.is_stale() => {
                    debug!(kind, %object, "the watch is behind");
                }
                Err(controller::Error::ReconcilerFailed(failure, object)) => {
                    let failure = crate::report::chain(&failure);
                    warn!(kind, %object, error = failure, "reconcile failed");
                }
                Err(failure) => debug!(kind, error = %failure, "controller"),
            }
            std::future::ready(())
        })
        .await;
}

/// Says again and again which releases are needed, and removes the others from the disk.
async fn collect(context: Arc<Context>, stop: CancellationToken) {
    while timeout(COLLECT, stop.cancelled()).await.is_err() {
        for release in context.releases.state() {
            let Some(digest) = release
                .status
                .as_ref()
                .and_then(|status| status.digest.as_ref())
            else {
                continue;
            };
            let dependencies = cluster_stack_release::assets::recorded(&release);
            if let Err(error) = context.store.touch(digest, &dependencies).await {
                warn!(%error, "failed to mark a release as needed");
            }
        }
        match context.store.collect((context.now)(), UNUSED).await {
            Ok(collected) => debug!(
                releases = collected.releases,
                charts = collected.charts,
                "collected"
            ),
            Err(error) => warn!(%error, "failed to collect unused releases"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex};

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::{ResourceExt, runtime::reflector::store::Writer};
    use proto::Recovery;

    use super::*;
    use crate::{controllers::defect::Defect, metrics};

    impl Failure for Defect {
        fn is_stale(&self) -> bool {
            false
        }
    }

    /// How often each object was looked at, and failed.
    #[derive(Default)]
    struct Seen {
        looks: Mutex<BTreeMap<String, usize>>,
        failures: Mutex<Vec<String>>,
        metrics: Metrics,
        stop: CancellationToken,
    }

    async fn reconcile(
        object: Arc<ConfigMap>,
        seen: Arc<Seen>,
    ) -> Result<controller::Action, Defect> {
        let name = object.name_any();
        let look = async {
            let mut looks = seen.looks.lock().unwrap();
            let count = looks.entry(name.clone()).or_default();
            *count += 1;
            let count = *count;
            let healthy = looks.get("healthy").copied().unwrap_or_default();
            drop(looks);
            assert!(name != "broken" || count > 2, "a defect");
            if name == "broken" && healthy > 0 {
                seen.stop.cancel();
            }
            Ok((
                controller::Action::await_change(),
                metrics::Reconciled::Done,
            ))
        };
        let fast = |_: &Defect| Recovery::FAST;
        let controller = metrics::Controller::ClusterStack;
        crate::controllers::measured(controller, &seen.metrics, fast, look).await
    }

    #[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
    fn on_error(object: Arc<ConfigMap>, error: &Defect, seen: Arc<Seen>) -> controller::Action {
        let failure = format!("{}: {error}", object.name_any());
        seen.failures.lock().unwrap().push(failure);
        controller::Action::requeue(Duration::from_secs(1))
    }

    #[tokio::test(start_paused = true)]
    async fn panic_of_one_object_is_tried_again_and_disturbs_no_other() {
        let mut writer = Writer::<ConfigMap>::new(());
        let (waker, queue) = Waker::new();
        writer.apply_watcher_event(&watcher::Event::Init);
        for name in ["broken", "healthy"] {
            let mut object = ConfigMap::default();
            object.metadata.name = Some(name.to_owned());
            writer.apply_watcher_event(&watcher::Event::InitApply(object.clone()));
            waker.wake(ObjectRef::from_obj(&object));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let seen = Arc::new(Seen::default());
        drive(
            writer.as_reader(),
            queue,
            4,
            reconcile,
            on_error,
            &seen,
            &seen.stop,
        )
        .await;
        assert_eq!(
            *seen.looks.lock().unwrap(),
            BTreeMap::from([("broken".to_owned(), 3), ("healthy".to_owned(), 1)])
        );
        let failures = seen.failures.lock().unwrap();
        assert!(
            failures.len() == 2
                && failures
                    .iter()
                    .all(|it| it.starts_with("broken: internal error")),
            "{failures:?}"
        );
        let text = seen.metrics.encode();
        for count in [
            "reconcile_panics_total{controller=\"clusterstack\"} 2",
            "class=\"fast\"} 2",
        ] {
            assert!(text.contains(count), "{text}");
        }
    }
}
