//! `ClusterStack`: which releases there shall be.
//!
//! ```text
//! listing  what the source has, by a job beside the reconcile
//! plan     wanted = listed by the user ∪ newest ∪ last usable ∪ in use; the rest goes
//! apply    ClusterStackReleases made, shared, given up, deleted
//! status   computed from the releases that are there
//! ```
//!
//! A stack that is deleted stays until its releases are gone.

mod apply;
mod error;
pub mod listing;
mod plan;
mod status;

use std::{sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::controller::Action};
use tracing::{Instrument, info_span};

pub use error::Error;

use self::{
    listing::Listed,
    plan::{Observed, Plan, Step},
};
use super::{STALE, look_again, measured, own};
use crate::{
    api::{
        ClusterStack, ClusterStackRelease, DELETE_FOR_MOVE_ANNOTATION, STACK_FINALIZER,
        has_annotation, is_paused,
    },
    context::Context,
    metrics::{Controller, Reconciled},
};

/// How long the watch may take to show a stack after a write to it.
const SHOWN: Duration = Duration::from_secs(1);

/// One look at a stack.
///
/// # Errors
///
/// [`Error`], whose class decides about the next look; the status says it, too.
pub async fn reconcile(stack: Arc<ClusterStack>, context: Arc<Context>) -> Result<Action, Error> {
    let (namespace, name) = (stack.namespace().unwrap_or_default(), stack.name_any());
    let span =
        info_span!("reconcile", kind = "ClusterStack", stack = %format_args!("{namespace}/{name}"));
    let run = Box::pin(run(&stack, &context).instrument(span));
    let result = measured(
        Controller::ClusterStack,
        &context.metrics,
        Error::recovery,
        run,
    )
    .await;
    if let Err(Error::Defect(defect)) = &result {
        status::admit(&context, &stack, defect).await;
    }
    result
}

/// When a stack that failed is looked at again.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
pub fn on_error(stack: Arc<ClusterStack>, error: &Error, context: Arc<Context>) -> Action {
    if error.is_stale() {
        return look_again(Some(STALE));
    }
    let uid = stack.uid().unwrap_or_default();
    Action::requeue(context.retries.failed(&uid, &error.recovery()))
}

async fn run(
    stack: &Arc<ClusterStack>,
    context: &Arc<Context>,
) -> Result<(Action, Reconciled), Error> {
    let uid = stack.uid().unwrap_or_default();
    let deleting = stack.metadata.deletion_timestamp.is_some();
    let paused = is_paused(&**stack);
    if deleting && has_annotation(&**stack, DELETE_FOR_MOVE_ANNOTATION) {
        // It lives on in another management cluster.
        remove_finalizer(stack, context).await?;
        return Ok((Action::await_change(), Reconciled::Done));
    }
    if !deleting && !paused {
        let added = own::add_finalizer(&**stack, STACK_FINALIZER, &context.client).await;
        if added.map_err(Error::Finalizer)? {
            // What the old state asks for would be done again for the new one, before the watch shows that it is done.
            return Ok((look_again(Some(SHOWN)), Reconciled::Pending));
        }
    }
    let listed = if deleting || paused {
        Listed::default()
    } else {
        listing::look(stack, context)
    };
    let observed = observe(stack, context, &listed);
    let plan = plan::plan(stack, &observed);
    let result = if paused {
        Ok(())
    } else {
        apply::apply(stack, &plan, context).await
    };
    if deleting && !paused && observed.releases.is_empty() {
        remove_finalizer(stack, context).await?;
        context.listings.forget(&uid);
        context.retries.forget(&uid);
        context.held.forget(&uid);
        return Ok((Action::await_change(), Reconciled::Done));
    }
    let computed = status::compute(
        stack,
        &observed,
        &plan,
        result.as_ref().err(),
        (context.now)(),
    );
    let held = status::report(context, stack, computed).await?;
    result?;
    context.retries.forget(&uid);
    let done = if plan.is_settled() {
        Reconciled::Done
    } else {
        Reconciled::Pending
    };
    // A release wakes its owners, and this stack is none any more.
    let gave_up = plan.gives_up() && !paused;
    let next = [held, listed.due, gave_up.then_some(crate::report::PASSING)];
    let next = next.into_iter().flatten().min();
    Ok((look_again(next), done))
}

async fn remove_finalizer(stack: &ClusterStack, context: &Context) -> Result<(), Error> {
    own::remove_finalizer(stack, STACK_FINALIZER, &context.client)
        .await
        .map_err(Error::Finalizer)
}

/// All that the decision needs. Nothing is asked for: it is all in the stores.
fn observe(stack: &Arc<ClusterStack>, context: &Context, listed: &Listed) -> Observed {
    let namespace = stack.namespace().unwrap_or_default();
    let uid = stack.uid().unwrap_or_default();
    let usage = context.cluster_api.usage();
    let mut observed = Observed {
        listing: listed.clone(),
        paused: is_paused(&**stack),
        deleting: stack.metadata.deletion_timestamp.is_some(),
        usage_known: usage.is_some(),
        ..Observed::default()
    };
    for release in context.releases.state() {
        if release.namespace().as_deref() != Some(&namespace) {
            continue;
        }
        let owners = release.owner_references();
        let ours = owners.iter().any(|owner| owner.uid == uid);
        let name = release.name_any();
        if !ours {
            observed.others.insert(name, release);
            continue;
        }
        if let Some(usage) = &usage
            && !usage.of(&namespace, &name).is_empty()
        {
            observed.used.insert(name.clone());
        }
        if let Some(older) = governing(stack, &release, context) {
            observed.contested.insert(name.clone(), older);
        }
        observed.releases.insert(name, release);
    }
    observed
}

/// The older stack that decides about a release which both want otherwise, if there is one.
fn governing(
    stack: &ClusterStack,
    release: &ClusterStackRelease,
    context: &Context,
) -> Option<String> {
    let oldest = context.owners(release).into_iter().next()?;
    let decides = |stack: &ClusterStack| {
        let spec = &stack.spec;
        (
            spec.source.clone(),
            spec.no_provider,
            spec.provider_ref.clone(),
        )
    };
    let differs = oldest.uid() != stack.uid() && decides(&oldest) != decides(stack);
    differs.then(|| oldest.name_any())
}

impl Plan {
    /// Whether a release is left to another stack.
    fn gives_up(&self) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, Step::GiveUp(_)))
    }

    /// Whether nothing is left to do.
    fn is_settled(&self) -> bool {
        self.steps.is_empty() && self.going.is_empty()
    }
}
