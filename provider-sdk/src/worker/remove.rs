//! Removing an image: first whatever works on it, then all that carries its marker.

use std::sync::Arc;
use std::time::Duration;

use proto::request::DeleteImage;
use proto::{Observation, State};
use tokio::sync::watch;
use tokio::time::sleep;

use super::entry::{Entry, Running, Told};
use super::{Id, Shared, conflict, in_progress, wait};
use crate::provider::Result;
use crate::server::panicked;

/// Looks at a backend that takes its time, in seconds from the first: within the patience of a call.
const LOOKS: [u64; 4] = [0, 1, 2, 3];

/// Removes an image and says how far that is; what the call began goes on without it.
pub(super) async fn remove(
    shared: &Arc<Shared>,
    id: &Id,
    request: DeleteImage,
) -> Result<Observation> {
    let wanted = request.image_key.spec_digest.clone();
    let (entry, told) = loop {
        let entry = shared.entry(id);
        if let Some(told) = joined(&entry) {
            break (entry, told);
        }
        // With these credentials, whatever the ones are that a worker has; and before anything is stopped.
        let marker = shared.marker(id, None);
        let found = shared.provider.observe(&request.target, &marker).await?;
        let differs = |digest: &proto::SpecDigest| wanted.as_ref().is_some_and(|w| w != digest);
        if found
            .as_ref()
            .is_some_and(|found| differs(&found.spec_digest))
        {
            return Err(conflict());
        }
        let bringing = {
            let mut memory = entry.lock();
            if memory.gone {
                continue;
            }
            match &memory.running {
                Some(Running::Removing(told)) => break (Arc::clone(&entry), told.clone()),
                Some(Running::Bringing(bringing)) => {
                    if differs(&bringing.wish.borrow().spec_digest) {
                        return Err(conflict());
                    }
                    bringing.cancel.cancel();
                    bringing.told.clone()
                }
                None => {
                    shared.admit()?;
                    let (tell, told) = watch::channel(Told::Soon);
                    memory.running = Some(Running::Removing(told.clone()));
                    let task = run(
                        Arc::clone(shared),
                        id.clone(),
                        Arc::clone(&entry),
                        request.clone(),
                        tell,
                    );
                    shared.tasks.spawn(task);
                    break (Arc::clone(&entry), told);
                }
            }
        };
        stopped(bringing).await?;
    };
    match wait(told).await {
        Told::Ended(result) => result.map(|seen| *seen),
        Told::Soon | Told::Later => Ok(shared.observation(&entry, &request.image_key)),
    }
}

fn joined(entry: &Entry) -> Option<watch::Receiver<Told>> {
    match &entry.lock().running {
        Some(Running::Removing(told)) => Some(told.clone()),
        _ => None,
    }
}

/// Waits until a cancelled worker has ended.
async fn stopped(mut told: watch::Receiver<Told>) -> Result<()> {
    let ended = told.wait_for(|told| matches!(told, Told::Ended(_)));
    match tokio::time::timeout(super::PATIENCE, ended).await {
        Ok(_ended_or_dropped) => Ok(()),
        Err(_elapsed) => Err(in_progress("worked on, and the work does not stop")),
    }
}

async fn run(
    shared: Arc<Shared>,
    id: Id,
    entry: Arc<Entry>,
    request: DeleteImage,
    tell: watch::Sender<Told>,
) {
    use futures::FutureExt as _;

    let work = std::panic::AssertUnwindSafe(delete(&shared, &id, &request)).catch_unwind();
    let result = tokio::select! {
        result = work => result.unwrap_or_else(|_panic| Err(panicked("delete"))),
        () = shared.stop.cancelled() => Err(super::not_ready()),
    };
    let mut memory = entry.lock();
    memory.running = None;
    let told = match result {
        Ok(true) => {
            shared.forget(&id, &mut memory);
            tracing::info!(key = %id.key, "image removed");
            let key = request.image_key.clone();
            Ok(Box::new(Observation::new(key, State::Absent)))
        }
        Ok(false) => {
            let mut seen = memory.observation(&request.image_key, &shared.info, shared.clock);
            seen.state = State::Deleting;
            seen.published = false;
            seen.error = None;
            seen.next_call_delay = Some(Duration::from_secs(5));
            Ok(Box::new(seen))
        }
        Err(error) => Err(error),
    };
    drop(memory);
    tell.send_replace(Told::Ended(told));
}

/// Whether nothing is left.
async fn delete(shared: &Shared, id: &Id, request: &DeleteImage) -> Result<bool> {
    let marker = shared.marker(id, request.image_key.spec_digest.clone());
    let provider = &shared.provider;
    for pause in LOOKS {
        sleep(Duration::from_secs(pause)).await;
        // Also when nothing is seen: what a cut transfer left may not be an object yet.
        provider.delete(&request.target, &marker).await?;
        if provider.observe(&request.target, &marker).await?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}
