//! Who carries a display name: at most one image at a place, and never two at a time.
//!
//! Templates find images by name, and a filter that finds two of them builds no machine; a moment with none is harmless.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use proto::{ProviderError, Target, TargetId};
use tokio::sync::OwnedMutexGuard;

use crate::provider::{Marker, Named, Provider, Result};

type Lock = tokio::sync::Mutex<()>;

/// One lock for each name at a place.
#[derive(Debug, Default)]
pub(super) struct NameLocks(Mutex<HashMap<(TargetId, String), Weak<Lock>>>);

impl NameLocks {
    pub(super) async fn lock(&self, place: &TargetId, name: &str) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let slot = locks.entry((place.clone(), name.to_owned())).or_default();
            slot.upgrade().unwrap_or_else(|| {
                let lock = Arc::new(Lock::default());
                *slot = Arc::downgrade(&lock);
                lock
            })
        };
        lock.lock_owned().await
    }
}

/// Whether this image and nothing else visible carries the name.
pub(super) fn only(holders: &[Named], marker: &Marker) -> bool {
    let ours = |object: &Named| {
        object
            .marker
            .as_ref()
            .is_some_and(|found| found.same_image(marker))
    };
    !holders.is_empty() && holders.iter().all(ours)
}

/// Gives an image of ours the name, in the order in which two never carry it. Called under the lock of the name; after
/// whatever went wrong, again from the start.
pub(super) async fn publish(
    provider: &dyn Provider,
    target: &Target,
    marker: &Marker,
    id: &str,
    name: &str,
) -> Result<()> {
    let holders = provider.named(target, name).await?;
    refuse_foreign(&holders, marker, name)?;
    if only(&holders, marker) {
        return Ok(());
    }
    let mut carried = false;
    for holder in &holders {
        match &holder.marker {
            Some(other) if !other.same_image(marker) => {
                provider.take_name(target, other, &holder.id, name).await?;
            }
            _ => carried = true,
        }
    }
    if !carried {
        provider.give_name(target, marker, id, name).await?;
    }
    let holders = provider.named(target, name).await?;
    let refused = refuse_foreign(&holders, marker, name);
    if refused.is_err() {
        // It came in between. Two images with the name are worse than none of ours.
        provider.take_name(target, marker, id, name).await?;
    }
    refused?;
    if only(&holders, marker) {
        Ok(())
    } else {
        Err(ProviderError::backend_unavailable(format!(
            "the backend does not show the image under its name \"{name}\" yet"
        )))
    }
}

fn refuse_foreign(holders: &[Named], marker: &Marker, name: &str) -> Result<()> {
    let foreign = holders.iter().find(|holder| {
        holder
            .marker
            .as_ref()
            .is_none_or(|other| !other.same_owner(marker))
    });
    foreign.map_or(Ok(()), |object| {
        Err(ProviderError::foreign_object(format!(
            "another image has the name \"{name}\", and is not of this installation: remove or rename it"
        ))
        .with_metadata("id", &object.id))
    })
}
