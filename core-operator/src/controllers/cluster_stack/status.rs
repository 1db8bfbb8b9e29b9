//! The status of a stack: computed from the releases that are there.

use std::time::Duration;

use jiff::Timestamp;
use kube::{Resource as _, ResourceExt};

use super::{
    Error,
    listing::Listed,
    plan::{Observed, Plan},
};
use crate::{
    api::{ClusterStack, ClusterStackRelease, ClusterStackStatus, Condition, Summary},
    conditions::{self, Verdict, reason},
    context::Context,
    controllers::{defect::Defect, own},
    release::ReleaseName,
    report::chain,
};

/// Field manager of our own kind's status.
const MANAGER: &str = "cluster-stack-operator-clusterstack";

/// One release and its name.
struct Entry<'a> {
    name: ReleaseName,
    release: &'a ClusterStackRelease,
}

/// The status to write.
#[must_use]
pub(super) fn compute(
    stack: &ClusterStack,
    observed: &Observed,
    plan: &Plan,
    error: Option<&Error>,
    now: Timestamp,
) -> ClusterStackStatus {
    let before = stack.status.clone().unwrap_or_default();
    let mut entries: Vec<_> = observed
        .releases
        .values()
        .filter_map(|release| {
            let name = ReleaseName::parse(&release.name_any()).ok()?;
            Some(Entry { name, release })
        })
        .collect();
    entries.sort_by(|left, right| left.name.version().list_order(right.name.version()));

    let summary = entries.iter().map(summary).collect();
    let usable: Vec<_> = entries
        .iter()
        .filter(|entry| is_ready(entry.release))
        .collect();
    let usable_versions: Vec<_> = usable
        .iter()
        .map(|entry| entry.name.version().dotted())
        .collect();
    let latest = usable.last().map(|entry| {
        let status = entry.release.status.as_ref();
        let kubernetes = status.and_then(|status| status.kubernetes_version.as_deref());
        format!(
            "{} | {}",
            entry.name.dotted(),
            kubernetes.unwrap_or_default()
        )
    });
    let newest = plan
        .newest
        .as_ref()
        .map(crate::release::version::Version::dotted);

    let available = available(&usable_versions);
    let synced = synced(observed, plan, error);
    let (source, listed) = sources(stack, &observed.listing, plan);
    let ready = ready(stack, observed, plan, &entries, &synced, listed.as_ref());
    let blocked = blocked(observed, &entries);
    let paused = if observed.paused {
        Verdict::yes(reason::PAUSED)
    } else {
        Verdict::no(reason::NOT_PAUSED, "")
    };
    let verdicts = [
        (conditions::READY, (!observed.paused).then_some(ready)),
        (conditions::RELEASE_AVAILABLE, Some(available)),
        (
            conditions::RELEASES_SYNCED,
            (!observed.paused).then_some(synced),
        ),
        (conditions::SOURCE_AVAILABLE, source),
        (conditions::LISTING_SYNCED, listed),
        (conditions::DELETION_BLOCKED, Some(blocked)),
        (conditions::PAUSED, Some(paused)),
    ];
    ClusterStackStatus {
        latest_release: latest.or(before.latest_release),
        summary,
        usable_versions: (!usable_versions.is_empty()).then(|| usable_versions.join(", ")),
        newest_listed: newest.or(before.newest_listed),
        conditions: conditions::write(&before.conditions, verdicts, stack.metadata.generation, now),
    }
}

fn is_ready(release: &ClusterStackRelease) -> bool {
    condition(release, conditions::READY).is_some_and(|condition| condition.status == "True")
}

fn condition<'a>(release: &'a ClusterStackRelease, type_: &str) -> Option<&'a Condition> {
    conditions::find(&release.status.as_ref()?.conditions, type_)
}

/// The words are the Go operator's, byte for byte.
fn summary(entry: &Entry<'_>) -> Summary {
    let is =
        |type_| condition(entry.release, type_).is_some_and(|condition| condition.status == "True");
    let ready = is(conditions::READY);
    let phase = if ready {
        "done"
    } else if !is(conditions::DOWNLOADED) {
        "downloading release assets"
    } else if !is(conditions::IMAGES_READY) {
        "provider-specific work"
    } else {
        "applying objects"
    };
    Summary {
        name: entry.name.version().dash(),
        ready,
        phase: phase.to_owned(),
        message: condition(entry.release, conditions::READY)
            .map(|condition| condition.reason.clone())
            .unwrap_or_default(),
    }
}

fn available(usable: &[String]) -> Verdict {
    if usable.is_empty() {
        Verdict::no(reason::NOT_AVAILABLE, "no release is ready")
    } else {
        Verdict::yes(reason::AVAILABLE)
    }
}

fn synced(observed: &Observed, plan: &Plan, error: Option<&Error>) -> Verdict {
    if let Some(error) = error {
        return Verdict::unknown(reason::OPERATOR_TROUBLE, error.to_string());
    }
    if let Some((release, older)) = observed.contested.iter().next() {
        return Verdict::no(
            reason::CONFLICT,
            format!(
                "release \"{release}\" is as the older ClusterStack \"{older}\" wants it, which has another source, noProvider or providerRef"
            ),
        );
    }
    if !plan.unreadable.is_empty() {
        return Verdict::no(
            reason::RELEASE_INVALID,
            format!("no versions: \"{}\"", plan.unreadable.join("\", \"")),
        );
    }
    if !plan.steps.is_empty() || !plan.going.is_empty() {
        let going: Vec<_> = plan.going.iter().map(String::as_str).collect();
        let message = if going.is_empty() {
            String::new()
        } else {
            format!("going: {}", going.join(", "))
        };
        return Verdict::no(reason::SYNCING, message);
    }
    Verdict::yes(reason::SYNCED)
}

/// Whether the source answers, and whether its list is the newest.
fn sources(
    stack: &ClusterStack,
    listed: &Listed,
    plan: &Plan,
) -> (Option<Verdict>, Option<Verdict>) {
    if !stack.spec.auto_subscribe {
        let unknown = || Some(Verdict::unknown(reason::NOT_SUBSCRIBED, ""));
        return (unknown(), unknown());
    }
    if let Some(problem) = &listed.problem {
        // pitfall 1: a failed listing is seen in both conditions.
        let reason = match problem.recovery() {
            proto::Recovery::Slow | proto::Recovery::Terminal => reason::SOURCE_REFUSED,
            _ => reason::SOURCE_UNAVAILABLE,
        };
        let verdict = Verdict::no(reason, chain(&**problem));
        return (Some(verdict.clone()), Some(verdict));
    }
    let Some(listing) = &listed.listing else {
        return (None, None);
    };
    let available = Some(Verdict::yes(reason::AVAILABLE));
    if plan.unordered {
        return (
            available,
            Some(Verdict::no(
                reason::UNORDERED,
                format!(
                    "the versions of channel \"{}\" have no order, so none of them is followed: list them in spec.versions",
                    stack.spec.channel
                ),
            )),
        );
    }
    let message = if plan.newest.is_none() {
        format!(
            "the source has {} releases, none of them \"{}-{}-…\" in channel \"{}\"",
            listing.releases.len(),
            stack.stem(),
            stack.spec.kubernetes_version.replace('.', "-"),
            stack.spec.channel
        )
    } else {
        String::new()
    };
    let listed = Verdict {
        message,
        ..Verdict::yes(reason::LISTED)
    };
    (available, Some(listed))
}

fn ready(
    stack: &ClusterStack,
    observed: &Observed,
    plan: &Plan,
    entries: &[Entry<'_>],
    synced: &Verdict,
    listed: Option<&Verdict>,
) -> Verdict {
    if observed.deleting {
        return Verdict::no(reason::DELETING, "");
    }
    if !synced.is_true() {
        return synced.clone();
    }
    for entry in entries {
        if is_ready(entry.release) {
            continue;
        }
        let found = condition(entry.release, conditions::READY);
        let text = found
            .map(|found| found.message.as_str())
            .unwrap_or_default();
        let message = format!("release \"{}\": {text}", entry.release.name_any());
        let reason = found.map_or_else(|| reason::PENDING.to_owned(), |found| found.reason.clone());
        return Verdict::no(reason, message.trim_end_matches([' ', ':']));
    }
    if !entries.is_empty() {
        return Verdict::yes(reason::READY);
    }
    if !plan.wanted.is_empty() {
        return Verdict::no(reason::SYNCING, "");
    }
    // Nothing is wanted: the listing says why.
    match listed {
        None => Verdict::unknown(reason::PENDING, "the source is being listed"),
        Some(listed) if stack.spec.auto_subscribe && !listed.is_true() => listed.clone(),
        Some(listed) => Verdict::no(reason::NO_RELEASE, listed.message.clone()),
    }
}

/// A stack that is being deleted says which of its releases are held, and by whom.
fn blocked(observed: &Observed, entries: &[Entry<'_>]) -> Verdict {
    let held: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let blocked = condition(entry.release, conditions::DELETION_BLOCKED)?;
            (blocked.status == "True").then(|| {
                format!(
                    "release \"{}\": {}",
                    entry.release.name_any(),
                    blocked.message
                )
            })
        })
        .collect();
    if observed.deleting && !held.is_empty() {
        Verdict {
            message: held.join("; "),
            ..Verdict::yes(reason::IN_USE)
        }
    } else {
        Verdict::no(reason::NOT_BLOCKED, "")
    }
}

/// Writes the status if it has changed; while releases are still on their way, it may be held back, and the time is
/// returned after which to look again.
///
/// # Errors
///
/// [`Error::Report`].
pub(super) async fn report(
    context: &Context,
    stack: &ClusterStack,
    status: ClusterStackStatus,
) -> Result<Option<Duration>, Error> {
    let uid = stack.uid().unwrap_or_default();
    if stack.status.as_ref() == Some(&status) {
        context.held.forget(&uid);
        return Ok(None);
    }
    let ready = conditions::find(&status.conditions, conditions::READY);
    let passing = ready.is_some_and(|ready| {
        conditions::PASSING.contains(&ready.reason.as_str()) && ready.status != "True"
    });
    if passing && let Some(rest) = context.held.remaining(&uid) {
        return Ok(Some(rest));
    }
    let with = |status| {
        let mut object = stack.clone();
        object.status = Some(status);
        object
    };
    let spare = |refusal: &str| {
        with(ClusterStackStatus {
            conditions: conditions::with_refusal(status.conditions.clone(), refusal),
            ..stack.status.clone().unwrap_or_default()
        })
    };
    let wanted = with(status.clone());
    let written = own::report_status(stack, &wanted, spare, MANAGER, &context.client).await;
    let written = written.map_err(Error::Report)?;
    context.held.forget(&uid);
    tell(context, stack, &written);
    Ok(None)
}

/// Says that a look at the stack panicked.
pub(super) async fn admit(context: &Context, stack: &ClusterStack, defect: &Defect) {
    let before = stack.status.clone().unwrap_or_default();
    let with = |conditions| {
        let mut object = stack.clone();
        object.status.get_or_insert_default().conditions = conditions;
        object
    };
    defect
        .admit(context, stack, &before.conditions, with, MANAGER)
        .await;
}

/// Events for what is new and needs somebody: the source, and mistakes in the spec. Releases have events of their own.
fn tell(context: &Context, before: &ClusterStack, now: &ClusterStack) {
    let find = |stack: &ClusterStack, type_: &str| {
        conditions::find(&stack.status.as_ref()?.conditions, type_).cloned()
    };
    for type_ in [conditions::LISTING_SYNCED, conditions::RELEASES_SYNCED] {
        let Some(after) = find(now, type_).filter(|after| after.status == "False") else {
            continue;
        };
        let told = find(before, type_).is_some_and(|before| before.reason == after.reason);
        if !told && after.reason != reason::SYNCING {
            context
                .events
                .warning(now.object_ref(&()), &after.reason, after.message);
        }
    }
}

#[cfg(test)]
mod tests;
