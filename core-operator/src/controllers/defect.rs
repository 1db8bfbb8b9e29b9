//! A panic inside a reconcile: a defect of ours that must end neither the process nor the reconciles of other objects.

use std::{any::Any, fmt::Debug, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use kube::{Resource, core::NamespaceResourceScope};
use serde::{Serialize, de::DeserializeOwned};
use tracing::debug;

use super::own;
use crate::{
    api::Condition,
    conditions::{self, reason},
    context::Context,
    metrics::{Controller, Metrics},
};

/// A reconcile panicked. Passes perhaps: what it met may be gone at the next look.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal error, please report it together with the operator's log: {what}")]
pub struct Defect {
    what: String,
}

impl Defect {
    fn of(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self {
            what: crate::helm::shorten(text.unwrap_or("a panic without words"), 500),
        }
    }

    /// Says so on the object that was looked at: in `Ready`, whose verdict stands, and once by an event. `with` makes the
    /// object with other conditions, and all else of its status as it is.
    pub(super) async fn admit<K>(
        &self,
        context: &Context,
        object: &K,
        conditions: &[Condition],
        with: impl FnOnce(Vec<Condition>) -> K,
        manager: &str,
    ) where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let generation = object.meta().generation;
        let told =
            conditions::with_trouble(conditions, &self.to_string(), generation, (context.now)());
        if told == conditions {
            return;
        }
        match own::replace_status(&with(told), manager, &context.client).await {
            Ok(_) => context.events.warning(
                object.object_ref(&()),
                reason::OPERATOR_TROUBLE,
                self.to_string(),
            ),
            Err(error) => debug!(%error, "defect not shown"),
        }
    }
}

/// Does the work, and makes an error out of a panic. The place of the panic is in the log (see `telemetry`).
///
/// Nothing is left half done that others would see: state that objects share is behind locks, and each change under a
/// lock is complete in itself.
///
/// # Errors
///
/// Those of the work, and [`Defect`].
pub async fn caught<T, E: From<Defect>>(
    controller: Controller,
    metrics: &Metrics,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(payload) => {
            metrics.panicked(controller);
            Err(Defect::of(&*payload).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panic_is_an_error_that_says_what_happened() {
        let metrics = Metrics::new();
        let run = async |work: fn() -> u32| {
            caught(Controller::ClusterStack, &metrics, async {
                Ok::<_, Defect>(work())
            })
            .await
        };
        assert_eq!(run(|| 7).await, Ok(7));
        let index = run(|| [1_u32][std::hint::black_box(3)]).await.unwrap_err();
        assert!(index.to_string().contains("out of bounds"), "{index}");
        let words = run(|| panic!("no {}", "luck")).await.unwrap_err();
        assert!(
            words.to_string().starts_with("internal error")
                && words.to_string().contains("no luck"),
            "{words}"
        );
        let other = run(|| std::panic::panic_any(7)).await.unwrap_err();
        assert!(other.to_string().contains("without words"), "{other}");
        let text = metrics.encode();
        let counted = "reconcile_panics_total{controller=\"clusterstack\"} 3";
        assert!(text.contains(counted), "{text}");
    }
}
