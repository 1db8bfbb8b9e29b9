//! From the class chart to objects in the cluster.
//!
//! ```text
//! render ─► check ─► preflight ─► place, mark ─► observe ─► decide ─► record ─► apply, batch by batch ─► prune
//! ```

mod inventory;
mod verdict;
mod wanted;

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use kube::{Resource as _, ResourceExt};

use self::{
    inventory::Inventory,
    wanted::{Leftover, Wanted, leftovers},
};
use super::{Error, delete::LOOK_AGAIN, rival, status::Progress};
use crate::{
    api::{ClusterStack, ClusterStackRelease},
    apply::{
        live::LiveObject,
        manifest::Step,
        plan::{Applied, Decision, Wish, decide, is_ours},
        renewal,
        write::{Deletion, WriteError, shown},
    },
    capi::{self, ClassReadiness},
    conditions::reason,
    context::Context,
    helm::ObjectIdentity,
    release::ReleaseName,
    store::StoredRelease,
};

pub use wanted::Refused;

/// Attempts in a row for which it is not believed that an object is forbidden: after 1, 2 and 4 s, an API server that has
/// just started knows its roles, and a namespace that was going is gone. Preflight has found the rights.
const DOUBTED: u32 = 3;

/// Brings the objects of a release into the cluster and its inventory into `progress`.
pub(super) async fn bring(
    release: &Arc<ClusterStackRelease>,
    stack: &ClusterStack,
    name: &ReleaseName,
    stored: &StoredRelease,
    context: &Context,
    progress: &mut Progress,
) -> Result<(), Error> {
    let mut wanted = wanted::wanted(release, name, stored, context).await?;
    let recorded = release.inventory();
    let namespace = release.namespace().unwrap_or_default();
    let uid = release.uid().unwrap_or_default();
    let leftovers = leftovers(&wanted, recorded, &namespace, context).await?;
    context
        .live
        .watch(
            wanted
                .iter()
                .map(|object| &object.kind)
                .chain(leftovers.iter().map(|object| &object.kind)),
        )
        .await
        .map_err(Error::Watch)?;

    if is_renewal_due(release, &wanted, context).await? {
        // What was rendered then is as old as what is there.
        context.helm.forget(release.uid().as_deref());
        wanted = wanted::wanted(release, name, stored, context).await?;
    }
    let decisions = decisions(release, stack, &wanted, context, progress).await?;
    let mut inventory = Inventory::new(&wanted, &leftovers, recorded);
    inventory.remember(&uid, &wanted, context);
    inventory.decided(&wanted, &decisions);
    let work = to_apply(release, &wanted, &decisions, context, progress);
    if !work.is_empty() && inventory.has_unrecorded(recorded) {
        progress.recorded = Some(inventory.record(release, context).await?);
    }
    let failed = apply(release, &wanted, work, &mut inventory, context).await;
    if failed.is_none() {
        inventory.pruned(&prune(release, &leftovers, context).await);
    }
    progress.resources = Some(inventory.into_resources());
    progress.applied = Some(verdict::applied(&wanted, &decisions));
    progress.class = class(&wanted, context);
    match failed {
        None => Ok(()),
        Some(error) => {
            if matches!(error, WriteError::Refuse { code: 403, .. }) {
                context.preflight.forget(&namespace);
                if context.retries.in_a_row(&uid) < DOUBTED {
                    return Err(Error::Doubt(error));
                }
            }
            Err(Error::Write(error))
        }
    }
}

/// Whether certificates that are the release's own have to be made anew.
async fn is_renewal_due(
    release: &ClusterStackRelease,
    wanted: &[Wanted],
    context: &Context,
) -> Result<bool, Error> {
    let (now, full_name) = ((context.now)(), full_name(release));
    for object in wanted.iter().filter(|object| object.renewal.is_some()) {
        let live = context.live.find(object.manifest.identity()).await;
        let due = live
            .map_err(Error::Observe)?
            .filter(|live| live.release.as_ref() == Some(&full_name))
            .and_then(|live| live.renew_after);
        if due.is_some_and(|due| due <= now) {
            return Ok(true);
        }
    }
    Ok(false)
}

async fn decisions(
    release: &Arc<ClusterStackRelease>,
    stack: &ClusterStack,
    wanted: &[Wanted],
    context: &Context,
    progress: &mut Progress,
) -> Result<Vec<Decision>, Error> {
    let uid = release.uid().unwrap_or_default();
    let full_name = full_name(release);
    let owners = context.owners(release);
    let now = (context.now)();
    let mut decisions = Vec::new();
    for object in wanted {
        let identity = object.manifest.identity();
        let live = context.live.find(identity).await.map_err(Error::Observe)?;
        let shown = live.as_ref().map(|live| live.uid.as_str());
        let remembered = context.memory.recall(&uid, identity, shown);
        if let (None, Some(rest)) = (&live, remembered.as_ref().and_then(|known| known.awaited)) {
            // Just applied: the watch is a little behind.
            progress.look_again_in(rest);
            decisions.push(Decision::Keep);
            continue;
        }
        let last = remembered.map(|known| known.applied).or_else(|| {
            let entry = release.inventory().iter().find(|entry| entry.is(identity));
            entry.and_then(Applied::recorded)
        });
        let wish = Wish {
            manifest: &object.manifest,
            content: &object.content,
            volatile: object.volatile,
            release: &full_name,
            drift: stack.drift_policy(),
            now,
        };
        if object.volatile
            && let Some(due) = live.as_ref().and_then(|live| live.renew_after)
            && let Ok(rest) = Duration::try_from(due.duration_since(now))
        {
            progress.look_again_in(rest);
        }
        decisions.push(decide(&wish, live.as_ref(), last.as_ref(), |other| {
            rival::judge(release, &owners, other, identity, context)
        }));
    }
    let certified: Vec<_> = wanted
        .iter()
        .map(|object| object.renewal.is_some())
        .collect();
    renewal::together(&mut decisions, &certified);
    if decisions
        .iter()
        .any(|decision| matches!(decision, Decision::Conflict { .. } | Decision::Wait))
    {
        // A stranger of a kind that is watched by our label only goes unseen.
        progress.look_again_in(LOOK_AGAIN);
    }
    Ok(decisions)
}

fn full_name(release: &ClusterStackRelease) -> String {
    format!(
        "{}/{}",
        release.namespace().unwrap_or_default(),
        release.name_any()
    )
}

/// One object that is to be applied.
struct Work {
    index: usize,
    adopt: bool,
    force: bool,
}

/// What is to be applied now: nothing new while an object of the release is not to be had, so that a class never refers
/// to a stranger's template; what is ours is put right all the same, but not too often.
fn to_apply(
    release: &ClusterStackRelease,
    wanted: &[Wanted],
    decisions: &[Decision],
    context: &Context,
    progress: &mut Progress,
) -> Vec<Work> {
    let uid = release.uid().unwrap_or_default();
    let blocked = decisions.iter().any(|decision| {
        matches!(
            decision,
            Decision::Conflict { .. } | Decision::Immutable | Decision::Wait
        )
    });
    let mut work = Vec::new();
    for (index, (object, decision)) in wanted.iter().zip(decisions).enumerate() {
        let Decision::Apply {
            drifted,
            adopt,
            force,
        } = *decision
        else {
            continue;
        };
        if blocked && !drifted {
            continue;
        }
        let identity = object.manifest.identity();
        if drifted && let Err(rest) = context.memory.correct(&uid, identity) {
            progress.look_again_in(rest);
            continue;
        }
        work.push(Work {
            index,
            adopt,
            force,
        });
    }
    work
}

/// Applies batch by batch; a failure ends it after its batch, and the worst of them is returned.
async fn apply(
    release: &ClusterStackRelease,
    wanted: &[Wanted],
    work: Vec<Work>,
    inventory: &mut Inventory,
    context: &Context,
) -> Option<WriteError> {
    let uid = release.uid().unwrap_or_default();
    let mut work = work.into_iter().peekable();
    while let Some(first) = work.peek() {
        let batch = wanted[first.index].batch;
        let together: Vec<_> =
            std::iter::from_fn(|| work.next_if(|next| wanted[next.index].batch == batch)).collect();
        let results = join_all(together.iter().map(|one| apply_one(one, wanted, context))).await;
        let mut failed: Option<WriteError> = None;
        for (one, result) in together.iter().zip(results) {
            let identity = wanted[one.index].manifest.identity();
            match result {
                Ok((applied, taken)) => {
                    if let Some(taken) = taken {
                        let note =
                            format!("{}: fields taken from others: {taken}", shown(identity));
                        context
                            .events
                            .normal(release.object_ref(&()), "FieldsTaken", note);
                    }
                    inventory.applied(one.index, &applied);
                    context.memory.remember(&uid, identity, applied);
                }
                Err(error) => {
                    inventory.failed(one.index, &error);
                    if failed
                        .as_ref()
                        .is_none_or(|worst| severity(&error) > severity(worst))
                    {
                        failed = Some(error);
                    }
                }
            }
        }
        if failed.is_some() {
            return failed;
        }
        if batch.1 == Step::Definitions {
            context.kinds.forget();
        }
    }
    None
}

async fn apply_one(
    one: &Work,
    wanted: &[Wanted],
    context: &Context,
) -> Result<(Applied, Option<String>), WriteError> {
    let object = &wanted[one.index];
    if one.adopt {
        context
            .writer
            .adopt(&object.kind, object.manifest.identity())
            .await?;
    }
    let written = context
        .writer
        .apply(&object.kind, &object.manifest, one.force)
        .await?;
    if object.manifest.step() == Step::Definitions {
        context
            .writer
            .established(object.manifest.identity())
            .await?;
    }
    Ok((written.applied, written.taken))
}

/// What somebody must act on comes before what passes by itself.
fn severity(error: &WriteError) -> u8 {
    match error.recovery() {
        proto::Recovery::Terminal => 3,
        proto::Recovery::Slow => 2,
        proto::Recovery::Fast { .. } => 1,
        proto::Recovery::Unknown => 0,
    }
}

/// Deletes what the release has applied and wants no more, if it is still ours. Returns what is gone, or never was ours.
async fn prune(
    release: &ClusterStackRelease,
    leftovers: &[Leftover],
    context: &Context,
) -> HashSet<ObjectIdentity> {
    let full_name = full_name(release);
    let results = leftovers.iter().map(|object| async {
        let Ok(live) = context.live.find_surely(&object.identity).await else {
            return None;
        };
        let live = live.filter(|live: &LiveObject| is_ours(live, &full_name));
        let Some(live) = live else {
            return Some(object.identity.clone());
        };
        if rival::heir(release, &object.identity, context).is_some() {
            // It takes the object over when it next looks, now that we do not list it any more.
            return Some(object.identity.clone());
        }
        // Refused while in use; the next look tries again.
        let deleted = context
            .writer
            .delete(&object.kind, &object.identity, Some(&live.uid))
            .await;
        (deleted.ok()? == Deletion::Gone).then(|| object.identity.clone())
    });
    join_all(results).await.into_iter().flatten().collect()
}

/// Whether Cluster API has taken all classes of the release.
fn class(wanted: &[Wanted], context: &Context) -> Option<ClassReadiness> {
    wanted
        .iter()
        .map(|object| object.manifest.identity())
        .filter(|identity| {
            identity.group == capi::GROUP && identity.kind == capi::CLUSTER_CLASS_KIND
        })
        .map(|identity| {
            let namespace = identity.namespace.as_deref().unwrap_or_default();
            context
                .cluster_api
                .class(namespace, &identity.name)
                .map_or_else(
                    || ClassReadiness::Pending {
                        reason: reason::CLASS_NOT_READY,
                        message: format!("ClusterClass \"{}\" is not there yet", identity.name),
                    },
                    |class| class.readiness(),
                )
        })
        .find(|readiness| *readiness != ClassReadiness::Ready)
}
