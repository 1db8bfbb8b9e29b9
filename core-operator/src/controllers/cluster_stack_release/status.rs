//! The status of a release: computed from all that a look has found, on success and on failure.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource as _, ResourceExt};
use proto::Recovery;

use super::{Error, assets::Files};
use crate::{
    api::{ClusterStackRelease, ClusterStackReleaseStatus, Dependency, Resource},
    capi::ClassReadiness,
    conditions::{self, Status, Verdict, reason},
    context::Context,
    controllers::{defect::Defect, own},
    jobs::Failure,
    store::StoredRelease,
};

/// Field manager of our own kind's status.
const MANAGER: &str = "cluster-stack-operator-clusterstackrelease";

/// How far the node images are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Images {
    /// They are somebody else's work.
    NotNeeded,
    /// The stack does not say where the settings for them are.
    NeedsProviderRef,
    /// Nobody serves the stack's provider.
    NoProviderIntegration {
        /// The provider.
        provider: String,
    },
}

/// What a look has found so far. What is absent was not reached.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The release or its stacks are paused.
    pub paused: bool,
    /// No stack wants the release.
    pub orphaned: bool,
    /// What holds a release that is being deleted.
    pub blocked: Option<String>,
    /// The files.
    pub files: Option<Files>,
    /// The node images.
    pub images: Option<Images>,
    /// The object with its inventory, if that was written on the way.
    pub recorded: Option<ClusterStackRelease>,
    /// The inventory.
    pub resources: Option<Vec<Resource>>,
    /// Whether the objects are as wanted.
    pub applied: Option<Verdict>,
    /// The first class that is not ready.
    pub class: Option<ClassReadiness>,
    /// When to look again, apart from wakes.
    pub look_again: Option<Duration>,
}

impl Progress {
    /// Has the release looked at again after this time at the latest.
    pub fn look_again_in(&mut self, time: Duration) {
        self.look_again = Some(self.look_again.map_or(time, |other| other.min(time)));
    }

    /// Whether nothing is left to do.
    pub fn is_settled(&self) -> bool {
        self.applied.as_ref().is_some_and(Verdict::is_true) && self.class.is_none()
    }

    fn stored(&self) -> Option<&StoredRelease> {
        match &self.files {
            Some(Files::Stored { stored, .. }) => Some(stored),
            _ => None,
        }
    }
}

/// The status to write.
#[must_use]
pub(super) fn compute(
    release: &ClusterStackRelease,
    progress: &Progress,
    error: Option<&Error>,
    now: Timestamp,
) -> ClusterStackReleaseStatus {
    let mut status = release.status.clone().unwrap_or_default();
    let previous = std::mem::take(&mut status.conditions);
    if let Some(stored) = progress.stored() {
        describe(&mut status, stored);
    }
    if let Some(resources) = &progress.resources {
        status.resources.clone_from(resources);
    }
    let downloaded = downloaded(progress, &previous);
    let (provider, images) = images(progress.images.as_ref());
    let applied = applied(progress, error, &previous);
    let parts = [&downloaded, &provider, &images, &applied];
    let ready = ready(progress, &parts);
    let paused = if progress.paused {
        Verdict::yes(reason::PAUSED)
    } else {
        Verdict::no(reason::NOT_PAUSED, "")
    };
    status.conditions = conditions::write(
        &previous,
        [
            (conditions::READY, ready),
            (conditions::DOWNLOADED, downloaded),
            (conditions::PROVIDER_READY, provider),
            (conditions::IMAGES_READY, images),
            (conditions::APPLIED, applied),
            (conditions::DELETION_BLOCKED, Some(blocked(progress))),
            (conditions::PAUSED, Some(paused)),
        ],
        release.metadata.generation,
        now,
    );
    status.ready = conditions::is_true(&status.conditions, conditions::READY);
    if status.ready && status.first_ready_time.is_none() {
        status.first_ready_time = Some(Time(whole_seconds(now)));
    }
    status
}

fn blocked(progress: &Progress) -> Verdict {
    match &progress.blocked {
        Some(why) => Verdict {
            message: why.clone(),
            ..Verdict::yes(reason::IN_USE)
        },
        None => Verdict::no(reason::NOT_BLOCKED, ""),
    }
}

/// The precision of times in the API: a finer one would look like a change when it comes back.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn describe(status: &mut ClusterStackReleaseStatus, stored: &StoredRelease) {
    status.digest = Some(stored.digest.clone());
    status.kubernetes_version = Some(stored.content.kubernetes_version.clone());
    status.hashes = stored.content.hashes.clone().unwrap_or_default();
    status.dependencies = stored
        .dependencies
        .iter()
        .cloned()
        .map(|pinned| Dependency {
            chart: pinned.chart,
            name: pinned.name,
            version: pinned.version,
            repository: pinned.repository,
            digest: pinned.digest,
        })
        .collect();
}

fn downloaded(progress: &Progress, previous: &[crate::api::Condition]) -> Option<Verdict> {
    let before = conditions::status(previous, conditions::DOWNLOADED);
    match progress.files.as_ref()? {
        Files::Stored {
            stored, problem, ..
        } => {
            let mut notes: Vec<_> = stored.content.warnings.clone();
            notes.extend(
                problem
                    .as_ref()
                    .map(|problem| format!("kept as it was fetched: {}", problem.chain())),
            );
            Some(Verdict {
                message: notes.join("; "),
                ..Verdict::yes(reason::DOWNLOADED)
            })
        }
        Files::Pending if before == Some(Status::True) => None,
        Files::Pending => Some(Verdict::no(reason::DOWNLOADING, "")),
        Files::Failed { error, .. } => {
            let message = error.chain();
            // Unreachable is not broken: what was there before is not at hand now, and nothing more is known.
            if error.recovery() != Recovery::Terminal
                && before.is_some_and(|before| before != Status::False)
            {
                Some(Verdict::unknown(error.reason(), message))
            } else {
                Some(Verdict::no(error.reason(), message))
            }
        }
    }
}

fn images(images: Option<&Images>) -> (Option<Verdict>, Option<Verdict>) {
    let both = |verdict: Verdict| (Some(verdict.clone()), Some(verdict));
    match images {
        None => (None, None),
        Some(Images::NotNeeded) => both(Verdict::yes(reason::NO_PROVIDER)),
        Some(Images::NeedsProviderRef) => both(Verdict::no(
            reason::NEEDS_PROVIDER_REF,
            "the ClusterStack needs spec.providerRef, or spec.noProvider: true if its node images are there without us",
        )),
        Some(Images::NoProviderIntegration { provider }) => both(Verdict::no(
            reason::NO_PROVIDER_INTEGRATION,
            format!("no provider integration serves the provider \"{provider}\""),
        )),
    }
}

fn applied(
    progress: &Progress,
    error: Option<&Error>,
    previous: &[crate::api::Condition],
) -> Option<Verdict> {
    let before = conditions::status(previous, conditions::APPLIED);
    match (error, progress.images.as_ref()) {
        (Some(error), _) => match error.recovery() {
            // Passes by itself: the last verdict stands.
            Recovery::Unknown | Recovery::Fast { .. } if before == Some(Status::True) => None,
            Recovery::Unknown | Recovery::Fast { .. } => {
                Some(Verdict::unknown(error.reason(), error.chain()))
            }
            Recovery::Slow | Recovery::Terminal => Some(Verdict::no(error.reason(), error.chain())),
        },
        (None, Some(Images::NeedsProviderRef | Images::NoProviderIntegration { .. }))
            if before != Some(Status::True) =>
        {
            Some(Verdict::no(reason::WAITING_FOR_IMAGES, ""))
        }
        (None, _) => progress.applied.clone(),
    }
}

/// The first part that is not so says why the release is not ready. Nothing new known: as before.
fn ready(progress: &Progress, parts: &[&Option<Verdict>]) -> Option<Verdict> {
    if progress.paused {
        return None;
    }
    if progress.orphaned {
        return Some(Verdict::no(
            reason::NO_CLUSTER_STACK,
            "no ClusterStack in this namespace wants the release",
        ));
    }
    let missing = parts
        .iter()
        .copied()
        .flatten()
        .find(|part| part.status == Status::False);
    if let Some(missing) = missing {
        return Some(missing.clone());
    }
    if let Some(ClassReadiness::Pending { reason, message }) = &progress.class {
        return Some(Verdict::no(*reason, message.clone()));
    }
    progress
        .applied
        .as_ref()
        .filter(|applied| applied.is_true())
        .map(|_| Verdict::yes(reason::READY))
}

/// Writes the status if it has changed. A passing state may be held back: then the time is returned after which to look
/// again.
///
/// # Errors
///
/// [`Error::Report`].
pub(super) async fn report(
    context: &Context,
    release: &ClusterStackRelease,
    status: ClusterStackReleaseStatus,
    progress: &Progress,
) -> Result<Option<Duration>, Error> {
    let uid = release.uid().unwrap_or_default();
    let current = progress.recorded.as_ref().unwrap_or(release);
    if current.status.as_ref() == Some(&status) {
        context.held.forget(&uid);
        return Ok(None);
    }
    let ready = conditions::find(&status.conditions, conditions::READY);
    if ready.is_some_and(|ready| conditions::PASSING.contains(&ready.reason.as_str()))
        && let Some(rest) = context.held.remaining(&uid)
    {
        return Ok(Some(rest));
    }
    let spare = |refusal: &str| ClusterStackReleaseStatus {
        conditions: conditions::with_refusal(status.conditions.clone(), refusal),
        ..current.status.clone().unwrap_or_default()
    };
    let written = own::report_status(
        current,
        &with_status(current, status.clone()),
        |refusal| with_status(current, spare(refusal)),
        MANAGER,
        &context.client,
    )
    .await
    .map_err(|source| Error::Report { source })?;
    context.held.forget(&uid);
    tell(context, release, &written);
    Ok(None)
}

/// Says that a look at the release panicked.
pub(super) async fn admit(context: &Context, release: &ClusterStackRelease, defect: &Defect) {
    let before = release.status.clone().unwrap_or_default();
    let with = |conditions| {
        let mut object = release.clone();
        object.status.get_or_insert_default().conditions = conditions;
        object
    };
    defect
        .admit(context, release, &before.conditions, with, MANAGER)
        .await;
}

/// Writes the inventory and leaves the rest of the status as it is.
///
/// # Errors
///
/// What the API server said; a conflict if somebody else wrote meanwhile.
pub(super) async fn record(
    release: &ClusterStackRelease,
    resources: Vec<Resource>,
    context: &Context,
) -> kube::Result<ClusterStackRelease> {
    let status = ClusterStackReleaseStatus {
        resources,
        ..release.status.clone().unwrap_or_default()
    };
    let object = with_status(release, status);
    own::replace_status(&object, MANAGER, &context.client).await
}

fn with_status(
    release: &ClusterStackRelease,
    status: ClusterStackReleaseStatus,
) -> ClusterStackRelease {
    let mut object = release.clone();
    object.status = Some(status);
    object
}

/// An event for a failure that is new.
fn tell(context: &Context, before: &ClusterStackRelease, now: &ClusterStackRelease) {
    let find = |release: &ClusterStackRelease, type_| {
        conditions::find(&release.status.as_ref()?.conditions, type_).cloned()
    };
    let blocked = |release| {
        find(release, conditions::DELETION_BLOCKED).filter(|found| found.status == "True")
    };
    if let (None, Some(after)) = (blocked(before), blocked(now)) {
        context.events.warning(
            now.object_ref(&()),
            conditions::DELETION_BLOCKED,
            after.message,
        );
    }
    let ready = |release| find(release, conditions::READY);
    let Some(after) = ready(now).filter(|after| after.status == "False") else {
        return;
    };
    let told = ready(before)
        .is_some_and(|before| before.status == "False" && before.reason == after.reason);
    if !told && !conditions::PASSING.contains(&after.reason.as_str()) {
        context
            .events
            .warning(now.object_ref(&()), &after.reason, after.message);
    }
}

#[cfg(test)]
mod tests;
