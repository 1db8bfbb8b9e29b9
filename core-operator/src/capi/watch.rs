//! Watches of classes and Clusters, in whichever version Cluster API serves, and what follows from both.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;
use kube::{
    Api, Client,
    discovery::ApiResource,
    runtime::{reflector::ObjectRef, watcher},
};

use super::{CLUSTER_CLASS_KIND, CLUSTER_KIND, ClassView, ClusterView, GROUP, usage::Usage};
use crate::{
    apply::discovery::Kinds,
    watch::{Change, Watched},
};

/// Told about an object that was made, changed or deleted.
pub type Listener<K> = Arc<dyn Fn(&K, Change) + Send + Sync>;

/// Who is told about what.
#[derive(Clone)]
pub struct Told {
    /// About classes.
    pub class: Listener<ClassView>,
    /// About Clusters.
    pub cluster: Listener<ClusterView>,
}

/// Classes and Clusters. One watch each, whatever their number and whoever they belong to.
pub struct ClusterApi {
    client: Client,
    kinds: Arc<Kinds>,
    told: Told,
    state: Mutex<State>,
    usage: Arc<UsageCache>,
}

/// Made when first asked for, forgotten when a class or Cluster changes.
#[derive(Default)]
struct UsageCache {
    usage: ArcSwapOption<Usage>,
    /// Counts changes: what was made before one is not kept after it.
    changes: AtomicU64,
}

impl UsageCache {
    fn forget(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.usage.store(None);
    }
}

#[derive(Default)]
struct State {
    classes: Option<Served<ClassView>>,
    clusters: Option<Served<ClusterView>>,
    /// Whether it is known what is served.
    asked: bool,
}

struct Served<K: kube::Resource<DynamicType = ApiResource> + 'static> {
    resource: ApiResource,
    objects: Watched<K>,
}

impl ClusterApi {
    /// Without watches yet: see [`follow`](Self::follow). `client` must bear the silence of watches.
    #[must_use]
    pub fn new(client: Client, kinds: Arc<Kinds>, told: Told) -> Self {
        Self {
            client,
            kinds,
            told,
            state: Mutex::default(),
            usage: Arc::default(),
        }
    }

    /// Watches what Cluster API serves now. To be called at the start and whenever its definitions change.
    ///
    /// # Errors
    ///
    /// If the API server does not say what it serves.
    pub async fn follow(&self) -> Result<(), kube::Error> {
        let classes = self.kinds.find_preferred(GROUP, CLUSTER_CLASS_KIND).await?;
        let clusters = self.kinds.find_preferred(GROUP, CLUSTER_KIND).await?;
        let mut state = self.state();
        state.asked = true;
        let classes = classes.map(|kind| kind.resource);
        if state.classes.as_ref().map(|served| &served.resource) != classes.as_ref() {
            let told = Arc::clone(&self.told.class);
            state.classes = classes
                .map(|resource| self.serve(resource, move |class, change| told(class, change)));
        }
        let clusters = clusters.map(|kind| kind.resource);
        if state.clusters.as_ref().map(|served| &served.resource) != clusters.as_ref() {
            let told = Arc::clone(&self.told.cluster);
            state.clusters = clusters
                .map(|resource| self.serve(resource, move |cluster, change| told(cluster, change)));
        }
        drop(state);
        self.usage.forget();
        Ok(())
    }

    /// A class, if it is there.
    #[must_use]
    pub fn class(&self, namespace: &str, name: &str) -> Option<Arc<ClassView>> {
        let state = self.state();
        let served = state.classes.as_ref()?;
        let key = ObjectRef::new_with(name, served.resource.clone()).within(namespace);
        served.objects.store().get(&key)
    }

    /// Who uses which release; `None` while it is not completely known.
    #[must_use]
    pub fn usage(&self) -> Option<Arc<Usage>> {
        if let Some(usage) = self.usage.usage.load_full() {
            return Some(usage);
        }
        let changes = self.usage.changes.load(Ordering::SeqCst);
        let state = self.state();
        if !state.asked {
            return None;
        }
        let classes = contents(state.classes.as_ref())?;
        let clusters = contents(state.clusters.as_ref())?;
        drop(state);
        let usage = Arc::new(Usage::new(
            classes.iter().map(AsRef::as_ref),
            clusters.iter().map(AsRef::as_ref),
        ));
        self.usage.usage.store(Some(Arc::clone(&usage)));
        if self.usage.changes.load(Ordering::SeqCst) != changes {
            self.usage.usage.store(None);
        }
        Some(usage)
    }

    fn serve<K>(
        &self,
        resource: ApiResource,
        told: impl Fn(&K, Change) + Send + 'static,
    ) -> Served<K>
    where
        K: kube::Resource<DynamicType = ApiResource>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + Sync,
    {
        let api: Api<K> = Api::all_with(self.client.clone(), &resource);
        let events = watcher(api, watcher::Config::default());
        let usage = Arc::clone(&self.usage);
        let changed = move |object: &K, change| {
            usage.forget();
            told(object, change);
        };
        let objects = Watched::spawn(resource.kind.clone(), resource.clone(), events, changed);
        Served { resource, objects }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for ClusterApi {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ClusterApi").finish_non_exhaustive()
    }
}

/// All objects; none where the kind is not served, `None` before the first list.
fn contents<K>(served: Option<&Served<K>>) -> Option<Vec<Arc<K>>>
where
    K: kube::Resource<DynamicType = ApiResource> + Clone + std::fmt::Debug + Send + Sync,
{
    match served {
        None => Some(Vec::new()),
        Some(served) if served.objects.is_filled() => Some(served.objects.store().state()),
        Some(_) => None,
    }
}
