//! `ClusterStackRelease`: files → node images → objects → usable.
//!
//! ```text
//! assets   files in the store, by a job beside the reconcile
//! provider node images
//! objects  chart → manifests → decisions → writes; the inventory before the first of them
//! class    Cluster API has taken the class
//! status   conditions, always computed from all of it
//! ```
//!
//! A release that is deleted takes what it made with it, and nothing else: see `delete`.

pub mod assets;
mod delete;
mod error;
pub mod memory;
mod objects;
mod provider;
mod rival;
mod status;

use std::sync::Arc;

use kube::{ResourceExt, runtime::controller::Action};
use tracing::{Instrument, info_span};

pub use error::Error;

use self::{
    assets::Files,
    delete::Outcome,
    status::{Images, Progress},
};
use super::{STALE, look_again, measured, own};
use crate::{
    api::{ClusterStackRelease, RELEASE_FINALIZER, is_paused},
    context::Context,
    metrics::{Controller, Reconciled},
    release::ReleaseName,
};

/// One look at a release.
///
/// # Errors
///
/// [`Error`], whose class decides about the next look; the status says it, too.
pub async fn reconcile(
    release: Arc<ClusterStackRelease>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let (namespace, name) = (release.namespace().unwrap_or_default(), release.name_any());
    let span = info_span!("reconcile", kind = "ClusterStackRelease", release = %format_args!("{namespace}/{name}"));
    let run = Box::pin(run(&release, &context).instrument(span));
    let result = measured(
        Controller::ClusterStackRelease,
        &context.metrics,
        Error::recovery,
        run,
    )
    .await;
    if let Err(Error::Defect(defect)) = &result {
        status::admit(&context, &release, defect).await;
    }
    result
}

/// When a release that failed is looked at again.
#[expect(clippy::needless_pass_by_value, reason = "the controller passes it so")]
pub fn on_error(release: Arc<ClusterStackRelease>, error: &Error, context: Arc<Context>) -> Action {
    let uid = release.uid().unwrap_or_default();
    match error {
        error if error.is_stale() => look_again(Some(STALE)),
        error => Action::requeue(context.retries.failed(&uid, &error.recovery())),
    }
}

async fn run(
    release: &Arc<ClusterStackRelease>,
    context: &Arc<Context>,
) -> Result<(Action, Reconciled), Error> {
    let mut progress = Progress::default();
    if release.metadata.deletion_timestamp.is_some() {
        match delete::advance(release, context).await? {
            Outcome::Gone => return Ok((Action::await_change(), Reconciled::Done)),
            Outcome::Going => {
                return Ok((look_again(Some(delete::LOOK_AGAIN)), Reconciled::Pending));
            }
            Outcome::Blocked(why) => progress.blocked = Some(why),
        }
    }
    let result = drive(release, context, &mut progress).await;
    let status = status::compute(release, &progress, result.as_ref().err(), (context.now)());
    let held = status::report(context, release, status, &progress).await?;
    result?;
    let uid = release.uid().unwrap_or_default();
    context.retries.forget(&uid);
    let done = if progress.is_settled() {
        Reconciled::Done
    } else {
        Reconciled::Pending
    };
    let next = [held, progress.look_again].into_iter().flatten().min();
    Ok((look_again(next), done))
}

async fn drive(
    release: &Arc<ClusterStackRelease>,
    context: &Arc<Context>,
    progress: &mut Progress,
) -> Result<(), Error> {
    let owners = context.owners(release);
    let paused = is_paused(&**release)
        || (!owners.is_empty() && owners.iter().all(|stack| is_paused(&**stack)));
    progress.paused = paused;
    if paused {
        return Ok(());
    }
    let Some(stack) = owners.first() else {
        progress.orphaned = true;
        return Ok(());
    };
    let name = ReleaseName::parse(&release.name_any()).map_err(Error::Name)?;
    // Releases of the Go operator have it already, ours are made with it; one that was taken away comes back.
    own::add_finalizer(&**release, RELEASE_FINALIZER, &context.client)
        .await
        .map_err(Error::Finalizer)?;

    let files = assets::look(release, stack, &name, context);
    progress.look_again = files.due();
    let Files::Stored { stored, .. } = &files else {
        progress.files = Some(files);
        return Ok(());
    };
    let stored = Arc::clone(stored);
    progress.files = Some(files);

    let images = provider::images(stack);
    let ready = images == Images::NotNeeded;
    progress.images = Some(images);
    if !ready {
        return Ok(());
    }
    objects::bring(release, stack, &name, &stored, context, progress).await
}
