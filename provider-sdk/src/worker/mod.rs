//! Detached workers: at most one for each image at a place, whatever calls come and go.
//!
//! ```text
//!   ensure ──► starts or joins ──► worker: look, plan, step, look again … ──► memory
//!   get    ──► memory while a worker runs, else the backend
//!   delete ──► stops the worker, removes
//! ```
//!
//! A call never does the work: it is answered within seconds, and what it began goes on without it. A worker never waits for
//! its next attempt: it ends, forgets the secrets, and the next call begins the next attempt.

mod bring;
mod entry;
mod name;
mod plan;
mod publish;
mod remove;
mod verify;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::request::{Caller, DeleteImage, EnsureImage, GetImage, ListImages};
use proto::{
    ImageKey, InstallationId, Invalid, Key, Observation, ProviderError, ProviderInfo, Reason,
    SpecDigest, Target, TargetId,
};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::load::Load;
use crate::provider::{Found, Marker, Phase, Provider, Result};
use crate::redact::Redactor;
use entry::{Entry, Memory, Running, Told, Wish};
use publish::NameLocks;

pub(crate) use verify::by_report;
pub use verify::hash;

/// Longest time that a call waits for a worker; the contract wants an answer within 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// Workers at a time, those that wait for a slot included: far more than a core asks for.
const MOST_WORKERS: usize = 1024;

/// What a page token begins with.
const TOKEN: &str = "after-";

/// One image at one place for one installation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Id {
    place: TargetId,
    installation: InstallationId,
    key: Key,
}

/// All workers of a process.
#[derive(Clone)]
pub(crate) struct Workers(Arc<Shared>);

struct Shared {
    provider: Arc<dyn Provider>,
    info: Arc<ProviderInfo>,
    clock: Clock,
    slots: Arc<Semaphore>,
    load: Arc<Load>,
    names: NameLocks,
    entries: Mutex<HashMap<Id, Arc<Entry>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Workers({} running)", self.0.tasks.len())
    }
}

impl Workers {
    pub(crate) fn new(provider: Arc<dyn Provider>, info: Arc<ProviderInfo>, clock: Clock) -> Self {
        let slots = info
            .limits
            .max_concurrent_transfers
            .and_then(|most| usize::try_from(most).ok())
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            provider,
            info,
            clock,
            slots: Arc::new(Semaphore::new(slots)),
            load: Arc::default(),
            names: NameLocks::default(),
            entries: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// What they do, as numbers.
    pub(crate) fn load(&self) -> Arc<Load> {
        Arc::clone(&self.0.load)
    }

    /// Stops all workers and waits for their end.
    pub(crate) async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Starts or joins the worker of an image, and says what is true.
    pub(crate) async fn ensure(
        &self,
        request: EnsureImage,
        redactor: Redactor,
    ) -> Result<Observation> {
        let id = Id::of(&request.target, &request.caller, &request.image_key)?;
        let spec_digest = request
            .image_key
            .spec_digest
            .clone()
            .ok_or_else(|| Invalid::required("image_key.spec_digest"))?;
        let wish = Arc::new(Wish {
            spec: Arc::new(request.spec),
            spec_digest,
            policy: request.policy,
            publish: request.publish,
            redactor: Arc::new(redactor),
        });
        let target = Arc::new(request.target);
        let (entry, told) = loop {
            let entry = self.0.entry(&id);
            let mut memory = entry.lock();
            if memory.gone {
                continue;
            }
            let told = match &memory.running {
                Some(Running::Removing(_)) => return Err(in_progress("removed")),
                Some(Running::Bringing(bringing)) => {
                    if bringing.wish.borrow().spec_digest != wish.spec_digest {
                        return Err(conflict());
                    }
                    bringing.target.send_replace(target);
                    bringing.wish.send_replace(wish);
                    bringing.told.clone()
                }
                None => {
                    self.0.admit()?;
                    bring::start(&self.0, &id, &entry, &mut memory, target, wish)
                }
            };
            drop(memory);
            break (entry, told);
        };
        let image_key = &request.image_key;
        match wait(told).await {
            Told::Ended(result) => result.map(|seen| *seen),
            Told::Later => Ok(self.0.observation(&entry, image_key)),
            Told::Soon => {
                let mut memory = entry.lock();
                // It still looks what is there: whatever could be said would be made up.
                if memory.accepted.is_none() && memory.found.is_none() {
                    return Err(ProviderError::backend_unavailable(
                        "the backend did not answer within 8 s",
                    ));
                }
                Ok(memory.observation(image_key, &self.0.info, self.0.clock))
            }
        }
    }

    /// What is true of an image. Starts and changes nothing.
    pub(crate) async fn get(&self, request: GetImage) -> Result<Observation> {
        let id = Id::of(&request.target, &request.caller, &request.image_key)?;
        let entry = self.0.known(&id);
        if let Some(entry) = &entry {
            let mut memory = entry.lock();
            let busy = match &memory.running {
                Some(Running::Bringing(bringing)) => bringing.stage != entry::Stage::Looking,
                Some(Running::Removing(_)) => true,
                None => false,
            };
            if busy {
                return Ok(memory.observation(&request.image_key, &self.0.info, self.0.clock));
            }
        }
        let marker = self.0.marker(&id, None);
        let found = self.0.provider.observe(&request.target, &marker).await?;
        let published = self
            .0
            .published(&request.target, &marker, found.as_ref())
            .await?;
        let entry = entry.unwrap_or_default();
        let mut memory = entry.lock();
        let unknown = memory.accepted.is_none() || memory.running.is_none();
        if found.is_none() && unknown && !memory.failed && memory.pause.is_none() {
            return Err(ProviderError::new(
                Reason::ImageNotFound,
                "there is no image under this key",
            ));
        }
        if memory.running.is_none() {
            memory.see(found);
            memory.published = published;
        }
        Ok(memory.observation(&request.image_key, &self.0.info, self.0.clock))
    }

    /// Removes an image, with whatever work there is for it.
    pub(crate) async fn delete(&self, request: DeleteImage) -> Result<Observation> {
        let id = Id::of(&request.target, &request.caller, &request.image_key)?;
        remove::remove(&self.0, &id, request).await
    }

    /// A page of all images of an installation at a place, and where the next one begins.
    pub(crate) async fn list(&self, request: ListImages) -> Result<(Vec<Observation>, String)> {
        let place = request.target.place()?.clone();
        let installation = &request.caller.installation;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(read_page_token(token)?),
        };
        let listed = self.0.provider.list(&request.target, installation).await?;
        let mut all: BTreeMap<Key, Option<Found>> = listed
            .into_iter()
            .map(|(key, found)| (key, Some(found)))
            .collect();
        for id in self.0.worked_on(&place, installation) {
            all.entry(id.key).or_default();
        }
        let mut page = Vec::new();
        let mut rest = all
            .into_iter()
            .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
        let mut last = None;
        for (key, found) in rest.by_ref().take(request.page_size) {
            let id = Id {
                place: place.clone(),
                installation: installation.clone(),
                key: key.clone(),
            };
            let marker = self.0.marker(&id, None);
            let published = self
                .0
                .published(&request.target, &marker, found.as_ref())
                .await?;
            let entry = self.0.known(&id).unwrap_or_default();
            let mut memory = entry.lock();
            if memory.running.is_none() {
                memory.see(found);
                memory.published = published;
            }
            page.push(memory.observation(&marker.image_key, &self.0.info, self.0.clock));
            last = Some(key);
        }
        let next = match (rest.next(), last) {
            (Some(_), Some(last)) => page_token(&last),
            _ => String::new(),
        };
        Ok((page, next))
    }
}

/// Where the page after this key begins.
pub(crate) fn page_token(last: &Key) -> String {
    format!("{TOKEN}{last}")
}

fn read_page_token(token: &str) -> Result<Key> {
    token
        .strip_prefix(TOKEN)
        .and_then(|key| key.parse().ok())
        .ok_or_else(|| ProviderError::new(Reason::PageTokenInvalid, "the page token is not ours"))
}

impl Id {
    fn of(target: &Target, caller: &Caller, key: &ImageKey) -> std::result::Result<Self, Invalid> {
        Ok(Self {
            place: target
                .place()
                .map_err(|invalid| invalid.within("target"))?
                .clone(),
            installation: caller.installation.clone(),
            key: key.key.clone(),
        })
    }
}

impl Shared {
    fn entry(&self, id: &Id) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(entries.entry(id.clone()).or_default())
    }

    fn known(&self, id: &Id) -> Option<Arc<Entry>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).cloned()
    }

    /// Forgets an image. `memory` is the one of its entry.
    fn forget(&self, id: &Id, memory: &mut Memory) {
        memory.gone = true;
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(id);
    }

    /// Images of an installation at a place that are known here and perhaps nowhere else.
    fn worked_on(&self, place: &TargetId, installation: &InstallationId) -> Vec<Id> {
        let entries: Vec<(Id, Arc<Entry>)> = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries
                .iter()
                .filter(|(id, _)| id.place == *place && id.installation == *installation)
                .map(|(id, entry)| (id.clone(), Arc::clone(entry)))
                .collect()
        };
        entries
            .into_iter()
            .filter(|(_, entry)| {
                let memory = entry.lock();
                memory.accepted.is_some()
                    && (memory.running.is_some() || memory.failed || memory.pause.is_some())
            })
            .map(|(id, _)| id)
            .collect()
    }

    fn marker(&self, id: &Id, spec_digest: Option<SpecDigest>) -> Marker {
        let image_key = ImageKey {
            key: id.key.clone(),
            spec_digest,
        };
        Marker::new(self.info.name.clone(), id.installation.clone(), image_key)
    }

    fn observation(&self, entry: &Entry, key: &ImageKey) -> Observation {
        entry.lock().observation(key, &self.info, self.clock)
    }

    /// Whether another worker may start.
    fn admit(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(not_ready());
        }
        if self.tasks.len() >= MOST_WORKERS {
            return Err(
                ProviderError::new(Reason::ProviderBusy, "too many images are worked on")
                    .with_retry_after(Duration::from_secs(30)),
            );
        }
        Ok(())
    }

    /// Whether an object carries its display name and nothing else does.
    async fn published(
        &self,
        target: &Target,
        marker: &Marker,
        found: Option<&Found>,
    ) -> Result<bool> {
        let Some(name) = found
            .filter(|found| found.phase == Phase::Complete)
            .and_then(|found| found.published_name.as_ref())
        else {
            return Ok(false);
        };
        let holders = self.provider.named(target, name).await?;
        Ok(publish::only(&holders, marker))
    }
}

/// Waits until there is something to say, but not longer than a caller should wait.
async fn wait(mut told: watch::Receiver<Told>) -> Told {
    let near = timeout(PATIENCE, told.wait_for(|told| !matches!(told, Told::Soon))).await;
    match near {
        Ok(Ok(told)) => told.clone(),
        // The worker was dropped with the runtime.
        Ok(Err(_closed)) => Told::Ended(Err(not_ready())),
        Err(_elapsed) => Told::Soon,
    }
}

fn conflict() -> ProviderError {
    ProviderError::new(
        Reason::ImageSpecConflict,
        "the key is taken by another spec: nothing was changed",
    )
}

fn in_progress(what: &str) -> ProviderError {
    ProviderError::new(
        Reason::OperationInProgress,
        format!("the image is being {what}"),
    )
    .with_retry_after(Duration::from_secs(5))
}

fn not_ready() -> ProviderError {
    ProviderError::new(Reason::ProviderNotReady, "the provider is stopping")
}

#[cfg(test)]
mod tests;
