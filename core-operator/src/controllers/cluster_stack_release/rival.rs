//! Two releases that want one object: who has it.

use std::{cmp::Ordering, collections::HashSet, sync::Arc};

use kube::ResourceExt;

use crate::{
    api::{ClusterStack, ClusterStackRelease},
    apply::plan::Rival,
    context::{Context, age},
    helm::ObjectIdentity,
    release::ReleaseName,
};

/// Judges the release `other` (`<namespace>/<name>`) whose mark an object carries that `release` wants.
///
/// Of one stack, the newer release has it; of two stacks, that of the older one. A release that is gone, is being
/// deleted, or does not have the object in its inventory, has no claim.
pub(super) fn judge(
    release: &ClusterStackRelease,
    owners: &[Arc<ClusterStack>],
    other: &str,
    object: &ObjectIdentity,
    context: &Context,
) -> Rival {
    let Some(other) = context.release(other) else {
        return Rival::Yields;
    };
    if other.metadata.deletion_timestamp.is_some() || !other.has_resource(object) {
        return Rival::Yields;
    }
    let theirs = context.owners(&other);
    let same = |stack: &Arc<ClusterStack>| owners.iter().any(|ours| ours.uid() == stack.uid());
    if theirs.iter().any(same) {
        return if is_newer(&other, release) {
            Rival::Keeps
        } else {
            Rival::Yields
        };
    }
    match (owners.first(), theirs.first()) {
        (_, None) => Rival::Yields,
        (Some(ours), Some(theirs)) if age(&**ours) < age(&**theirs) => Rival::Yields,
        _ => Rival::Prevails {
            release: format!(
                "{}/{}",
                other.namespace().unwrap_or_default(),
                other.name_any()
            ),
        },
    }
}

/// The newest other release of the same stacks that has the object too, and gets it when `release` goes. One of another
/// stack makes its own: what it wants may differ.
pub(super) fn heir(
    release: &ClusterStackRelease,
    object: &ObjectIdentity,
    context: &Context,
) -> Option<Arc<ClusterStackRelease>> {
    let mut releases = context.releases.state();
    releases.retain(|other| {
        other.namespace() == release.namespace()
            && other.uid() != release.uid()
            && other.metadata.deletion_timestamp.is_none()
            && other.has_resource(object)
            && share_a_stack(release, other)
            && !context.owners(other).is_empty()
    });
    releases
        .into_iter()
        .max_by(|left, right| order(left, right))
}

fn share_a_stack(left: &ClusterStackRelease, right: &ClusterStackRelease) -> bool {
    let stacks = |release: &ClusterStackRelease| {
        let owners = release.owner_references().iter();
        let stacks = owners.filter(|owner| owner.kind == "ClusterStack");
        stacks
            .map(|owner| owner.uid.clone())
            .collect::<HashSet<_>>()
    };
    !stacks(left).is_disjoint(&stacks(right))
}

fn is_newer(left: &ClusterStackRelease, right: &ClusterStackRelease) -> bool {
    order(left, right).is_gt()
}

fn order(left: &ClusterStackRelease, right: &ClusterStackRelease) -> Ordering {
    let name = |release: &ClusterStackRelease| ReleaseName::parse(&release.name_any()).ok();
    match (name(left), name(right)) {
        (Some(left), Some(right)) => left.version().list_order(right.version()),
        _ => Ordering::Equal,
    }
}
