//! What must be so before anything of a release is applied, found out in one go and told in one verdict.
//!
//! ```text
//! kinds      every kind is served                      discovery, remembered by apply::discovery
//! rights     every verb is allowed                     one rules review a namespace, remembered for minutes
//! features   ClusterTopology is on, RuntimeSDK where   one dry run each, a good answer remembered
//!            the release has addon stages
//! ```
//!
//! What cannot be told blocks nothing: the apply will say it. At rest a check costs no request. Dry runs aside, nothing
//! is ever written.

mod error;
mod feature;
mod miss;
mod questions;
mod rights;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt as _;
use kube::{Client, core::GroupVersionKind, discovery::ApiResource};
use serde_json::Value;

pub use error::PreflightError;
use feature::{Feature, State, Trial};
pub use miss::{Miss, Misses};
use questions::Questions;
use rights::Rights;

use super::{CLUSTER_CLASS_KIND, GROUP};
use crate::apply::{
    discovery::{Kinds, ServedKind},
    manifest::{Manifest, Step},
};

/// Longest wait for one answer. The API server itself gives up on a request, its webhooks included, after 34 s.
const LIMIT: Duration = Duration::from_secs(35);

/// Rights that were reviewed this short ago are believed even if they do not suffice.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);

/// Group of the extensions of Cluster API.
const RUNTIME_GROUP: &str = "runtime.cluster.x-k8s.io";
const EXTENSION_KIND: &str = "ExtensionConfig";

/// What is to be applied.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Namespace of the release.
    pub namespace: &'a str,
    /// Its objects; whether they were placed already does not matter.
    pub manifests: &'a [Manifest],
    /// Whether the release has stages of addons, which hang on hooks of Cluster API.
    pub has_stages: bool,
}

/// The verdict.
#[derive(Debug)]
pub enum Checked {
    /// Nothing is known to be missing.
    Passed(ServedKinds),
    /// The release cannot be applied.
    Missing(Misses),
}

/// The kinds of all objects of a release, as they are served.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServedKinds(HashMap<GroupVersionKind, ServedKind>);

impl ServedKinds {
    /// The kind of an object that was among those of the check.
    #[must_use]
    pub fn of(&self, manifest: &Manifest) -> Option<&ServedKind> {
        self.0.get(&kind_of(manifest))
    }
}

/// Checks releases against one management cluster, and remembers what it was told.
pub struct Preflight {
    client: Client,
    kinds: Arc<Kinds>,
    /// By namespace.
    rights: Questions<Arc<Rights>>,
    /// By name.
    features: Questions<State>,
}

impl Preflight {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(client: Client, kinds: Arc<Kinds>) -> Self {
        Self {
            client,
            kinds,
            rights: Questions::new(),
            features: Questions::new(),
        }
    }

    /// Whether the release can be applied, as far as that can be told without doing it.
    ///
    /// # Errors
    ///
    /// The API server did not answer. That is no verdict on the release.
    pub async fn check(&self, subject: Subject<'_>) -> Result<Checked, PreflightError> {
        let (kinds, mut misses) = self.served(subject.manifests).await?;
        let (forbidden, topology, runtime) = tokio::try_join!(
            self.forbidden(subject, &kinds),
            self.topology(subject, &kinds),
            self.runtime(subject.has_stages),
        )?;
        misses.extend(forbidden);
        if topology == State::Off {
            misses.push(Miss::ClusterTopologyDisabled);
        }
        if runtime == State::Off {
            misses.push(Miss::RuntimeSdkDisabled);
        }
        Ok(Misses::of(misses).map_or(Checked::Passed(kinds), Checked::Missing))
    }

    /// Forgets what the API server has just contradicted by refusing (403) an object in the namespace.
    pub fn forget(&self, namespace: &str) {
        self.rights.forget(namespace);
        for feature in [Feature::ClusterTopology, Feature::RuntimeSdk] {
            self.features.forget(feature.name());
        }
    }

    /// Forgets all rights: a role has changed.
    pub fn forget_rights(&self) {
        self.rights.forget_all();
    }

    async fn served(
        &self,
        manifests: &[Manifest],
    ) -> Result<(ServedKinds, Vec<Miss>), PreflightError> {
        const QUESTION: &str = "the kinds that it serves";
        let failed = |source| PreflightError::DiscoverKinds {
            source: Arc::new(source),
        };
        let mut served = ServedKinds::default();
        let mut misses = Vec::new();
        let wanted: BTreeSet<_> = manifests
            .iter()
            .map(|manifest| {
                let identity = manifest.identity();
                (&*identity.group, &*identity.kind, manifest.version())
            })
            .collect();
        for (group, kind, version) in wanted {
            let key = GroupVersionKind::gvk(group, version, kind);
            let find = self.kinds.find(group, version, kind);
            let mut found = in_time(QUESTION, find).await?.map_err(failed)?;
            if found.is_none() {
                found = defined_in(manifests, &key);
            }
            if let Some(found) = found {
                served.0.insert(key, found);
                continue;
            }
            let other = self.kinds.find_preferred(group, kind);
            let other = in_time(QUESTION, other).await?.map_err(failed)?;
            misses.push(Miss::KindNotServed {
                kind: key,
                served: other.map(|kind| kind.resource.version),
            });
        }
        Ok((served, misses))
    }

    async fn forbidden(
        &self,
        subject: Subject<'_>,
        kinds: &ServedKinds,
    ) -> Result<Vec<Miss>, PreflightError> {
        let mut wanted = BTreeSet::new();
        for manifest in subject.manifests {
            let Some(kind) = kinds.of(manifest) else {
                continue;
            };
            let named = manifest.identity().namespace.as_deref();
            let namespace = kind.namespaced.then(|| named.unwrap_or(subject.namespace));
            wanted.insert((namespace, &*kind.resource.group, &*kind.resource.plural));
        }
        let mut misses = Vec::new();
        let mut remaining = wanted.into_iter().peekable();
        while let Some(&(namespace, _, _)) = remaining.peek() {
            let resources: Vec<_> =
                std::iter::from_fn(|| remaining.next_if(|next| next.0 == namespace))
                    .map(|(_, group, plural)| (group, plural))
                    .collect();
            // The review for a namespace has the rules for the whole cluster as well.
            let place = namespace.unwrap_or(subject.namespace);
            let missing = self.missing_rights(place, &resources).await?;
            misses.extend(
                missing
                    .into_iter()
                    .map(|(resource, verbs)| Miss::Forbidden {
                        resource,
                        namespace: namespace.map(ToOwned::to_owned),
                        verbs,
                    }),
            );
        }
        Ok(misses)
    }

    /// The resources (`<plural>.<group>`) in a namespace for which rights are missing.
    async fn missing_rights(
        &self,
        namespace: &str,
        resources: &[(&str, &str)],
    ) -> Result<Vec<(String, Vec<&'static str>)>, PreflightError> {
        let mut missing = Vec::new();
        // What is remembered is good enough to pass, but not to block: a role may have been given meanwhile.
        for longest_age in [Duration::MAX, SHORTEST_INTERVAL] {
            let ask = || rights::review(self.client.clone(), namespace.to_owned()).boxed();
            let rights = self.rights.ask(namespace, longest_age, ask).await?.value;
            missing = resources
                .iter()
                .filter_map(|(group, plural)| {
                    let verbs = rights.missing(group, plural);
                    let separator = if group.is_empty() { "" } else { "." };
                    (!verbs.is_empty()).then(|| (format!("{plural}{separator}{group}"), verbs))
                })
                .collect();
            if missing.is_empty() {
                break;
            }
        }
        Ok(missing)
    }

    async fn topology(
        &self,
        subject: Subject<'_>,
        kinds: &ServedKinds,
    ) -> Result<State, PreflightError> {
        let class = subject.manifests.iter().find_map(|manifest| {
            let identity = manifest.identity();
            let is_class = identity.group == GROUP && identity.kind == CLUSTER_CLASS_KIND;
            Some((manifest, kinds.of(manifest).filter(|_| is_class)?))
        });
        let Some((class, kind)) = class else {
            return Ok(State::Unknown);
        };
        self.try_feature(Feature::ClusterTopology, || {
            Trial::of_class(class, kind, subject.namespace)
        })
        .await
    }

    async fn runtime(&self, is_needed: bool) -> Result<State, PreflightError> {
        if !is_needed {
            return Ok(State::Unknown);
        }
        let find = self.kinds.find_preferred(RUNTIME_GROUP, EXTENSION_KIND);
        let kind = in_time("the kinds that it serves", find)
            .await?
            .map_err(|source| PreflightError::DiscoverKinds {
                source: Arc::new(source),
            })?;
        let Some(kind) = kind else {
            return Ok(State::Unknown);
        };
        self.try_feature(Feature::RuntimeSdk, || Trial::of_extension(&kind))
            .await
    }

    async fn try_feature(
        &self,
        feature: Feature,
        trial: impl Fn() -> Trial,
    ) -> Result<State, PreflightError> {
        let ask = || trial().run(self.client.clone()).boxed();
        let answer = self
            .features
            .ask(feature.name(), Duration::MAX, ask)
            .await?;
        // The dry run of another release's class, refused for what is wrong with that class: ours may tell more.
        let is_ours = feature == Feature::ClusterTopology;
        if answer.shared && answer.value == State::Unknown && is_ours {
            return Ok(trial().run(self.client.clone()).await?.value);
        }
        Ok(answer.value)
    }
}

impl std::fmt::Debug for Preflight {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Preflight").finish_non_exhaustive()
    }
}

fn kind_of(manifest: &Manifest) -> GroupVersionKind {
    let identity = manifest.identity();
    GroupVersionKind::gvk(&identity.group, manifest.version(), &identity.kind)
}

/// The kind as a definition among the objects themselves will make it: definitions are applied before the rest.
fn defined_in(manifests: &[Manifest], wanted: &GroupVersionKind) -> Option<ServedKind> {
    let is_wanted = |spec: &&Value| {
        let versions = spec["versions"].as_array();
        spec["group"] == *wanted.group
            && spec["names"]["kind"] == *wanted.kind
            && versions.is_some_and(|versions| {
                versions
                    .iter()
                    .any(|version| version["name"] == *wanted.version && version["served"] == true)
            })
    };
    let spec = manifests
        .iter()
        .filter(|manifest| manifest.step() == Step::Definitions)
        .map(|definition| &definition.value()["spec"])
        .find(is_wanted)?;
    Some(ServedKind {
        resource: ApiResource::from_gvk_with_plural(wanted, spec["names"]["plural"].as_str()?),
        namespaced: spec["scope"] == "Namespaced",
    })
}

/// The answer to a request, if it comes in time.
async fn in_time<T>(
    question: &'static str,
    request: impl Future<Output = T>,
) -> Result<T, PreflightError> {
    tokio::time::timeout(LIMIT, request)
        .await
        .map_err(|_elapsed| PreflightError::ExceedTime {
            question,
            limit: LIMIT,
        })
}

#[cfg(test)]
mod tests;
