//! The controllers: each observes, plans, applies and reports.

pub mod cluster_stack;
pub mod cluster_stack_release;
pub mod defect;
pub mod own;
pub mod places;
pub mod secrets;

use std::time::Duration;

use kube::runtime::controller::Action;
use proto::Recovery;

use crate::metrics::{Controller, Metrics, Reconciled};

/// A look that nothing asked for: backs every watch.
pub const RESYNC: Duration = Duration::from_mins(10);

/// After a write that was refused because the object is another by now: time for the watch to show it.
pub const STALE: Duration = Duration::from_millis(20);

/// The next look: after `after`, at the latest at the resync; a tenth more or less, so that objects made together do not
/// stay together.
#[must_use]
pub fn look_again(after: Option<Duration>) -> Action {
    let after = after.unwrap_or(RESYNC).min(RESYNC);
    Action::requeue(after.mul_f64(0.9 + 0.2 * rand::random::<f64>()))
}

/// Counts a reconcile and its time, and makes an error out of a panic.
///
/// # Errors
///
/// What the reconcile failed with.
pub(crate) async fn measured<E: From<defect::Defect>>(
    controller: Controller,
    metrics: &Metrics,
    recovery: fn(&E) -> Recovery,
    reconcile: impl Future<Output = Result<(Action, Reconciled), E>>,
) -> Result<Action, E> {
    let begin = tokio::time::Instant::now();
    let result = defect::caught(controller, metrics, reconcile).await;
    let outcome = match &result {
        Ok((_, outcome)) => *outcome,
        Err(error) => {
            metrics.reconcile_failed(controller, &recovery(error));
            Reconciled::Error
        }
    };
    metrics.reconciled(controller, outcome, begin.elapsed());
    result.map(|(action, _)| action)
}
