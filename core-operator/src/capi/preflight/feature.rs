//! Features of Cluster API that are off unless somebody switches them on.
//!
//! No API tells which are on. But the webhook for the kind that belongs to a feature refuses every object while it is off,
//! in a dry run as well.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    core::DynamicObject,
};
use serde_json::{Value, json};

use super::{PreflightError, in_time, questions::Told};
use crate::apply::{MANAGER, discovery::ServedKind, manifest::Manifest};

/// Features are switched when a manager is started anew, and who meets one that was switched off is told by the apply.
const ON_LIFETIME: Duration = Duration::from_mins(10);

/// How long it is remembered that the answer to a question tells nothing, if the release has no part in it.
const UNKNOWN_LIFETIME: Duration = Duration::from_mins(1);

/// The name of the extension that is tried; it is never made.
const EXTENSION_NAME: &str = "cluster-stack-operator-preflight";

/// A feature of Cluster API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    /// Classes, and Clusters with a topology.
    ClusterTopology,
    /// Hooks, and so stages of addons around upgrades.
    RuntimeSdk,
}

impl Feature {
    /// Its name as a feature gate.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ClusterTopology => "ClusterTopology",
            Self::RuntimeSdk => "RuntimeSDK",
        }
    }
}

/// Whether a feature is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    On,
    Off,
    Unknown,
}

/// An object whose dry run tells whether a feature is on.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    feature: Feature,
    kind: ServedKind,
    namespace: Option<String>,
    name: String,
    object: Value,
}

impl Trial {
    /// Tries the feature `ClusterTopology` with a class that is to be applied anyway.
    pub(super) fn of_class(class: &Manifest, kind: &ServedKind, default_namespace: &str) -> Self {
        let class = class.clone().place(kind.namespaced, default_namespace);
        let identity = class.identity().clone();
        Self {
            feature: Feature::ClusterTopology,
            kind: kind.clone(),
            namespace: identity.namespace,
            name: identity.name,
            object: class.value().clone(),
        }
    }

    /// Tries the feature `RuntimeSDK` with an extension that nobody could call.
    pub(super) fn of_extension(kind: &ServedKind) -> Self {
        Self {
            feature: Feature::RuntimeSdk,
            kind: kind.clone(),
            namespace: None,
            name: EXTENSION_NAME.to_owned(),
            object: json!({
                "apiVersion": kind.resource.api_version,
                "kind": kind.resource.kind,
                "metadata": {"name": EXTENSION_NAME},
                "spec": {"clientConfig": {"url": "https://extension.invalid"}},
            }),
        }
    }

    /// Sends the dry run: one request.
    pub(super) async fn run(self, client: Client) -> Result<Told<State>, PreflightError> {
        let resource = &self.kind.resource;
        let api: Api<DynamicObject> = match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        };
        let parameters = PatchParams {
            dry_run: true,
            ..PatchParams::apply(MANAGER).force()
        };
        let patch = Patch::Apply(&self.object);
        // The metadata is enough of an answer: a class may be large.
        let dry_run = api.patch_metadata(&self.name, &parameters, &patch);
        let answer = in_time("a dry run", dry_run).await?;
        self.feature.judge(answer.map(drop))
    }
}

impl Feature {
    /// What the answer to a dry run says about the feature.
    ///
    /// A refusal for any other reason (an invalid class, no right to apply it) says nothing: the apply will be refused
    /// in the same way, and reports it.
    fn judge(self, answer: Result<(), kube::Error>) -> Result<Told<State>, PreflightError> {
        let (value, holds) = match answer {
            Ok(()) => (State::On, ON_LIFETIME),
            Err(kube::Error::Api(status)) if self.is_off_by(&status.message) => {
                (State::Off, Duration::ZERO)
            }
            Err(kube::Error::Api(status)) => {
                tracing::debug!(
                    feature = self.name(),
                    message = status.message,
                    "cannot be told"
                );
                let holds = match self {
                    Self::ClusterTopology => Duration::ZERO,
                    Self::RuntimeSdk => UNKNOWN_LIFETIME,
                };
                (State::Unknown, holds)
            }
            Err(error) => {
                return Err(PreflightError::TryFeature {
                    feature: self.name(),
                    source: Arc::new(error),
                });
            }
        };
        Ok(Told { value, holds })
    }

    /// Cluster API 1.14 says "spec: Forbidden: can be set only if the ClusterTopology feature flag is enabled".
    fn is_off_by(self, message: &str) -> bool {
        message.contains(self.name()) && message.to_lowercase().contains("feature")
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_a_refusal_that_names_the_feature_says_that_it_is_off() {
        for (feature, code, message, state) in [
            (
                Feature::ClusterTopology,
                403,
                "admission webhook \"validation.clusterclass.cluster.x-k8s.io\" denied the request: spec: Forbidden: can be set only if the ClusterTopology feature flag is enabled",
                State::Off,
            ),
            (
                Feature::RuntimeSdk,
                403,
                "admission webhook \"validation.extensionconfig.runtime.cluster.x-k8s.io\" denied the request: spec: Forbidden: can be set only if the RuntimeSDK feature flag is enabled",
                State::Off,
            ),
            // another feature
            (
                Feature::ClusterTopology,
                422,
                "ClusterClass.cluster.x-k8s.io \"c\" is invalid: spec.patches[0].external: Forbidden: patch.external can be used only if the RuntimeSDK feature flag is enabled",
                State::Unknown,
            ),
            (
                Feature::ClusterTopology,
                403,
                "clusterclasses.cluster.x-k8s.io \"c\" is forbidden: User \"operator\" cannot patch resource \"clusterclasses\"",
                State::Unknown,
            ),
            (
                Feature::ClusterTopology,
                500,
                "Internal error occurred: failed calling webhook \"validation.clusterclass.cluster.x-k8s.io\": connection refused",
                State::Unknown,
            ),
        ] {
            let status = Status::failure(message, "").with_code(code).boxed();
            let told = feature.judge(Err(kube::Error::Api(status))).unwrap();
            assert_eq!(told.value, state, "{message}");
            assert!(told.holds <= UNKNOWN_LIFETIME, "{message}");
        }
    }

    #[test]
    fn accepted_dry_run_says_that_the_feature_is_on() {
        let told = Feature::ClusterTopology.judge(Ok(())).unwrap();
        assert_eq!((told.value, told.holds), (State::On, ON_LIFETIME));
    }

    #[test]
    fn api_server_that_cannot_be_reached_is_no_verdict() {
        let error = Feature::RuntimeSdk
            .judge(Err(kube::Error::TlsRequired))
            .unwrap_err();
        assert_eq!(error.recovery(), proto::Recovery::Unknown);
        assert!(error.to_string().contains("RuntimeSDK"));
    }
}
