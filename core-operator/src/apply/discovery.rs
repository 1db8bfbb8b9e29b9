//! Which kinds an API server serves: asked once, and again when a kind is not among them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use kube::{
    Client,
    discovery::{ApiResource, Discovery, Scope},
};
use tokio::sync::Mutex;

/// Shortest time between two questions because of a kind that is not served. A new definition asks at once.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);

/// A kind that the API server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedKind {
    /// Group, version, kind and the name in URLs.
    pub resource: ApiResource,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
}

/// The kinds of one API server, remembered. One question costs two requests.
pub struct Kinds {
    client: Client,
    known: ArcSwapOption<Discovery>,
    asked: Mutex<Option<Instant>>,
}

impl Kinds {
    /// Knows nothing yet: the first look-up asks.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            known: ArcSwapOption::empty(),
            asked: Mutex::new(None),
        }
    }

    /// The kind as it is served in exactly this version; `None` if it is not.
    ///
    /// # Errors
    ///
    /// If the API server had to be asked and did not answer.
    pub async fn find(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<Option<ServedKind>, kube::Error> {
        self.look_up(|known| {
            let found = known.get(group)?.versioned_resources(version);
            found
                .into_iter()
                .find(|(resource, _)| resource.kind == kind)
        })
        .await
    }

    /// The kind in the version that the API server prefers, or in its own most stable one: one group holds kinds of several
    /// providers, which are not all served in the same version. `None` if the group or the kind is not served.
    ///
    /// # Errors
    ///
    /// If the API server had to be asked and did not answer.
    pub async fn find_preferred(
        &self,
        group: &str,
        kind: &str,
    ) -> Result<Option<ServedKind>, kube::Error> {
        self.look_up(|known| {
            let group = known.get(group)?;
            group.recommended_kind(kind).or_else(|| {
                let kinds = group.resources_by_stability();
                kinds.into_iter().find(|(found, _)| found.kind == kind)
            })
        })
        .await
    }

    /// As [`find_preferred`](Self::find_preferred), but the API server is asked anew before it is said that a kind is not
    /// served: who takes its objects for vanished leaves them behind for ever.
    ///
    /// # Errors
    ///
    /// If the API server had to be asked and did not answer.
    pub async fn find_surely(
        &self,
        group: &str,
        kind: &str,
    ) -> Result<Option<ServedKind>, kube::Error> {
        let found = self.find_preferred(group, kind).await?;
        if found.is_some() {
            return Ok(found);
        }
        self.forget();
        self.find_preferred(group, kind).await
    }

    /// Forgets everything, because definitions have changed: the next look-up asks.
    pub fn forget(&self) {
        self.known.store(None);
    }

    async fn look_up(
        &self,
        find: impl Fn(&Discovery) -> Option<(ApiResource, kube::discovery::ApiCapabilities)>,
    ) -> Result<Option<ServedKind>, kube::Error> {
        let served = |known: &Discovery| {
            find(known).map(|(resource, capabilities)| ServedKind {
                resource,
                namespaced: capabilities.scope == Scope::Namespaced,
            })
        };
        if let Some(known) = self.known.load_full()
            && let Some(kind) = served(&known)
        {
            return Ok(Some(kind));
        }
        // Only one asks; those who waited for it find the answer.
        let mut asked = self.asked.lock().await;
        if let Some(known) = self.known.load_full() {
            if let Some(kind) = served(&known) {
                return Ok(Some(kind));
            }
            if asked.is_some_and(|time| time.elapsed() < SHORTEST_INTERVAL) {
                return Ok(None);
            }
        }
        let known = Discovery::new(self.client.clone()).run_aggregated().await?;
        *asked = Some(Instant::now());
        let kind = served(&known);
        self.known.store(Some(Arc::new(known)));
        Ok(kind)
    }
}

impl std::fmt::Debug for Kinds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Kinds").finish_non_exhaustive()
    }
}
