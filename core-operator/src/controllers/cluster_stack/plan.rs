//! Which releases of a stack there shall be: a plain function of spec and observation.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::listing::Listed;
use crate::{
    api::{ClusterStack, ClusterStackRelease},
    release::{Channel, KubernetesMinor, Newest, ReleaseName, Version, newest},
};

/// All that the decision needs.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// What the source has.
    pub listing: Listed,
    /// The releases of the stack, by name.
    pub releases: BTreeMap<String, Arc<ClusterStackRelease>>,
    /// Releases in the namespace that are not the stack's, by name.
    pub others: BTreeMap<String, Arc<ClusterStackRelease>>,
    /// Names of the stack's releases that a Cluster uses.
    pub used: BTreeSet<String>,
    /// Releases that an older stack wants otherwise (source, provider), with that stack's name.
    pub contested: BTreeMap<String, String>,
    /// Whether all users are known.
    pub usage_known: bool,
    /// The stack is paused.
    pub paused: bool,
    /// The stack is being deleted.
    pub deleting: bool,
}

/// One change to the releases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Make the release.
    Create(String),
    /// The release is there already, of another stack or of none: it becomes this one's, too.
    Share(String),
    /// Another stack wants the release: it is only not this one's any more.
    GiveUp(String),
    /// Nobody wants the release.
    Delete(String),
}

/// What is to be done, and why.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Changes, releases to be made first.
    pub steps: Vec<Step>,
    /// Names of all releases that shall be there.
    pub wanted: BTreeSet<String>,
    /// Names of releases that are being deleted.
    pub going: BTreeSet<String>,
    /// Entries of `spec.versions` that are no versions.
    pub unreadable: Vec<String>,
    /// The newest version of the channel that the source has.
    pub newest: Option<Version>,
    /// The source has versions of the channel, and none of them is the newest.
    pub unordered: bool,
}

/// Decides which releases there shall be.
///
/// Releases stay that the user lists, the newest of the source, the newest that was ever ready, and those in use. Nothing
/// is removed as long as the source or the users are not completely known.
pub(super) fn plan(stack: &ClusterStack, observed: &Observed) -> Plan {
    let mut plan = Plan::default();
    let releases = observed.releases.values();
    plan.going = releases
        .filter(|release| release.metadata.deletion_timestamp.is_some())
        .filter_map(|release| release.metadata.name.clone())
        .collect();
    if !observed.deleting {
        wanted(stack, observed, &mut plan);
    }
    for name in &plan.wanted {
        match (observed.releases.get(name), observed.others.get(name)) {
            // One that is going must be gone before it can come again.
            (Some(_), _) => {}
            (None, Some(other)) if other.metadata.deletion_timestamp.is_some() => {}
            (None, Some(_)) => plan.steps.push(Step::Share(name.clone())),
            (None, None) => plan.steps.push(Step::Create(name.clone())),
        }
    }
    let complete = observed.deleting
        || (observed.usage_known
            && (!stack.spec.auto_subscribe
                || (observed.listing.listing.is_some() && observed.listing.problem.is_none())));
    if complete {
        for (name, release) in &observed.releases {
            if plan.wanted.contains(name) || plan.going.contains(name) {
                continue;
            }
            let owners = release
                .metadata
                .owner_references
                .as_deref()
                .unwrap_or_default();
            plan.steps.push(if owners.len() > 1 {
                Step::GiveUp(name.clone())
            } else {
                Step::Delete(name.clone())
            });
        }
    }
    plan
}

fn wanted(stack: &ClusterStack, observed: &Observed, plan: &mut Plan) {
    let Ok(kubernetes) = KubernetesMinor::of_version(&stack.spec.kubernetes_version) else {
        plan.unreadable.push(stack.spec.kubernetes_version.clone());
        return;
    };
    let name_of = |version: &Version| ReleaseName::new(&stack.stem(), kubernetes, version.clone());
    for text in &stack.spec.versions {
        match Version::parse(text).and_then(|version| name_of(&version)) {
            Ok(name) => {
                plan.wanted.insert(name.tag());
            }
            Err(_) => plan.unreadable.push(text.clone()),
        }
    }
    let channel: Option<Channel> = stack.spec.channel.parse().ok();
    let in_channel = |version: &&Version| {
        channel
            .as_ref()
            .is_some_and(|channel| channel.matches(version))
    };

    if let Some(listing) = &observed.listing.listing {
        let versions = listing
            .releases
            .iter()
            .filter(|name| name.stem() == stack.stem() && name.kubernetes() == kubernetes)
            .map(ReleaseName::version)
            .filter(in_channel);
        match newest(versions) {
            Newest::Some(version) => {
                plan.newest = Some(version.clone());
                plan.wanted.extend(name_of(version).map(|name| name.tag()));
            }
            Newest::Unordered => plan.unordered = true,
            Newest::None => {}
        }
    }

    plan.wanted.extend(last_usable(observed));
    plan.wanted.extend(observed.used.iter().cloned());
}

/// The newest release that was ever ready; where versions have no order, the last that became so.
fn last_usable(observed: &Observed) -> Option<String> {
    let ready: Vec<_> = observed
        .releases
        .iter()
        .filter(|(_, release)| was_ready(release))
        .filter_map(|(tag, release)| Some((tag, ReleaseName::parse(tag).ok()?, release)))
        .collect();
    let newest = newest(ready.iter().map(|(_, name, _)| name.version()));
    let found = match newest {
        Newest::None => None,
        Newest::Some(version) => ready.iter().find(|(_, name, _)| name.version() == version),
        Newest::Unordered => ready.iter().max_by_key(|(_, _, release)| {
            let status = release.status.as_ref();
            status.and_then(|status| status.first_ready_time.as_ref().map(|time| time.0))
        }),
    };
    found.map(|(tag, _, _)| (*tag).clone())
}

fn was_ready(release: &ClusterStackRelease) -> bool {
    let status = release.status.as_ref();
    // The Go operator keeps no time of first readiness.
    status.is_some_and(|status| status.first_ready_time.is_some() || status.ready)
}

#[cfg(test)]
mod tests;
