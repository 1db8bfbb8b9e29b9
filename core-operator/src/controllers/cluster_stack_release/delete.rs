//! The end of a release: what it made goes with it, and nothing else. The files are not needed, the inventory is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::{Error, rival};
use crate::{
    api::{
        ClusterStackRelease, DELETE_FOR_MOVE_ANNOTATION, PAUSED_ANNOTATION, RELEASE_FINALIZER,
        Resource, has_annotation,
    },
    apply::{
        discovery::ServedKind,
        plan::is_ours,
        write::{Deletion, WriteError, shown},
    },
    capi::{self, usage::used_by},
    context::Context,
    controllers::own,
    helm::ObjectIdentity,
};

/// Something in the way that no watch tells the end of.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// How far the end of a release is.
pub(super) enum Outcome {
    /// Nothing is left, and the finalizer is gone.
    Gone,
    /// Objects are going; their watches tell when they are gone.
    Going,
    /// Something holds the release, which until then is a release like any other.
    Blocked(String),
}

/// Brings a release that is being deleted nearer to its end.
pub(super) async fn advance(
    release: &Arc<ClusterStackRelease>,
    context: &Context,
) -> Result<Outcome, Error> {
    if !own::has_finalizer(&**release, RELEASE_FINALIZER) {
        forget(release, context);
        return Ok(Outcome::Gone);
    }
    let outcome = if has_annotation(&**release, DELETE_FOR_MOVE_ANNOTATION) {
        // It lives on in another management cluster, and so does what it made.
        Outcome::Gone
    } else if has_annotation(&**release, PAUSED_ANNOTATION) {
        Outcome::Going
    } else {
        remove(release, context).await?
    };
    if let Outcome::Gone = outcome {
        own::remove_finalizer(&**release, RELEASE_FINALIZER, &context.client)
            .await
            .map_err(Error::Finalizer)?;
        forget(release, context);
    }
    Ok(outcome)
}

async fn remove(release: &Arc<ClusterStackRelease>, context: &Context) -> Result<Outcome, Error> {
    let namespace = release.namespace().unwrap_or_default();
    let Some(usage) = context.cluster_api.usage() else {
        return Ok(Outcome::Blocked(
            "it is not known yet whether a Cluster uses it".to_owned(),
        ));
    };
    let users = usage.of(&namespace, &release.name_any());
    if !users.is_empty() {
        return Ok(Outcome::Blocked(used_by(users)));
    }
    let inventory = release.inventory();
    let (classes, others): (Vec<_>, Vec<_>) = inventory
        .iter()
        .partition(|entry| entry.group == capi::GROUP && entry.kind == capi::CLUSTER_CLASS_KIND);
    // Classes first: Cluster API refuses to delete one that is used, and then its templates must stay as well.
    for entries in [classes, others] {
        let left = delete(release, &entries, context).await?;
        if !matches!(left, Outcome::Gone) {
            return Ok(left);
        }
    }
    Ok(Outcome::Gone)
}

/// Deletes those of the objects that are still there and ours.
async fn delete(
    release: &Arc<ClusterStackRelease>,
    entries: &[&Resource],
    context: &Context,
) -> Result<Outcome, Error> {
    let namespace = release.namespace().unwrap_or_default();
    let mut kinds: HashMap<ObjectIdentity, ServedKind> = HashMap::new();
    for entry in entries {
        let kind = context.kinds.find_surely(&entry.group, &entry.kind).await;
        // A kind that is not served any more has no objects.
        if let Some(kind) = kind.map_err(Error::Observe)? {
            let entry = entry.placed(kind.namespaced, &namespace);
            kinds.insert(entry.identity(), kind);
        }
    }
    context
        .live
        .watch(kinds.values())
        .await
        .map_err(Error::Watch)?;
    // What the watches show goes first; that nothing is left is not believed before the API server says so.
    for surely in [false, true] {
        let left = delete_found(release, &kinds, surely, context).await?;
        if !matches!(left, Outcome::Gone) {
            return Ok(left);
        }
    }
    Ok(Outcome::Gone)
}

async fn delete_found(
    release: &Arc<ClusterStackRelease>,
    kinds: &HashMap<ObjectIdentity, ServedKind>,
    surely: bool,
    context: &Context,
) -> Result<Outcome, Error> {
    let namespace = release.namespace().unwrap_or_default();
    let full_name = format!("{namespace}/{}", release.name_any());
    let mut outcome = Outcome::Gone;
    for (object, kind) in kinds {
        let mut live = None;
        if !surely {
            live = context.live.find(object).await.map_err(Error::Observe)?;
        }
        // A watch that is cut shows for long what is gone.
        if surely || live.as_ref().is_some_and(|live| live.deleting) {
            live = context.live.ask(object).await.map_err(Error::Observe)?;
        }
        let Some(live) = live.filter(|live| is_ours(live, &full_name)) else {
            continue;
        };
        if let Some(heir) = rival::heir(release, object, context) {
            // It takes the object over as soon as we are gone.
            context.wakers.releases.wake(ObjectRef::from_obj(&*heir));
            continue;
        }
        if !live.deleting {
            match context.writer.delete(kind, object, Some(&live.uid)).await {
                Ok(Deletion::Gone) => continue,
                Ok(Deletion::Going) => {}
                Err(WriteError::Refuse {
                    code: 403, message, ..
                }) => {
                    return Ok(Outcome::Blocked(format!("{}: {message}", shown(object))));
                }
                Err(error) => return Err(Error::Write(error)),
            }
        }
        outcome = Outcome::Going;
    }
    Ok(outcome)
}

fn forget(release: &ClusterStackRelease, context: &Context) {
    let uid = release.uid().unwrap_or_default();
    context.assets.forget(&uid);
    context.memory.forget(&uid);
    context.retries.forget(&uid);
    context.held.forget(&uid);
}
