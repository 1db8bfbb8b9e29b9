//! Workers: each moves the bytes of one image, detached from the call that started it.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};

use super::{
    Fault,
    backend::{Marker, Object, Verified, id},
    download::{self, Bytes},
    names,
    service::Sham,
    validate::failure,
};

/// An image: place, installation, key.
pub type Id = (String, String, String);

/// What is known about an image that is not ACTIVE.
#[derive(Debug)]
pub struct Work {
    pub request: wire::EnsureImageRequest,
    pub attempt: i32,
    pub state: State,
    pub error: Option<tonic_types::pb::Status>,
    pub done: u64,
    pub moved: Instant,
    pub not_before: Instant,
    pub object: String,
    /// What an interrupted transfer has got already.
    pub partial: Vec<u8>,
    /// Dead when no worker runs.
    pub worker: Weak<()>,
    pub task: Option<tokio::task::AbortHandle>,
}

impl Work {
    pub fn runs(&self) -> bool {
        self.worker.strong_count() > 0
    }

    pub fn policy(&self) -> wire::WorkPolicy {
        self.request.policy.unwrap_or_default()
    }
}

/// Whether the deadline of the work has come.
pub fn is_late(policy: &wire::WorkPolicy) -> bool {
    policy
        .deadline
        .and_then(|deadline| SystemTime::try_from(deadline).ok())
        .is_some_and(|deadline| deadline <= SystemTime::now())
}

/// The level at which an image of this artifact is verified when that was asked for.
pub fn level(fault: Option<Fault>, artifact: &wire::Artifact, asked: i32) -> i32 {
    if artifact.digest.is_empty() && fault != Some(Fault::MetadataWithoutDigest) {
        wire::VerificationLevel::Presence.into()
    } else {
        asked.max(wire::VerificationLevel::Metadata.into())
    }
}

impl Sham {
    fn change(&self, id: &Id, change: impl FnOnce(&mut Work)) {
        if let Some(work) = self.works.lock().unwrap().get_mut(id) {
            change(work);
        }
    }

    /// Moves the bytes of an image and verifies them. `_alive` dies with it.
    pub async fn work(self: Arc<Self>, id: Id, _alive: Arc<()>) {
        let Ok(_slot) = self.slots.acquire().await else {
            return;
        };
        let Some((request, attempt, partial)) =
            self.works.lock().unwrap().get_mut(&id).map(|work| {
                (
                    work.request.clone(),
                    work.attempt,
                    std::mem::take(&mut work.partial),
                )
            })
        else {
            return;
        };
        let spec = request.spec.clone().unwrap_or_default();
        let artifact = spec.artifact.clone().unwrap_or_default();
        let Some(object) = self.create(&id, &request, attempt) else {
            self.give_up(&id, "", Reason::InternalBug);
            return;
        };
        self.change(&id, |work| {
            work.state = State::Transferring;
            work.object.clone_from(&object);
            work.done = partial.len() as u64;
            work.moved = Instant::now();
        });
        let mut bytes = Bytes { all: partial };
        let fetched = {
            let fetch = download::fetch(self.fault, &artifact, &mut bytes, |all| {
                self.change(&id, |work| {
                    work.done = all.len() as u64;
                    work.moved = Instant::now();
                });
            });
            tokio::select! {
                result = fetch => result,
                reason = self.watch(&id) => Err(reason),
            }
        };
        let bytes = bytes.all;
        let seen = match fetched {
            Ok(seen) => seen,
            Err(
                reason @ (Reason::SourceNotFound
                | Reason::SourceDenied
                | Reason::SourceUnavailable
                | Reason::TransferStalled),
            ) => {
                self.backend.state().objects.remove(&object);
                self.change(&id, |work| {
                    work.state = State::Pending;
                    work.error = Some(failure(reason, "the transfer did not succeed"));
                    work.not_before = Instant::now() + Duration::from_millis(200);
                    work.partial = bytes;
                });
                return;
            }
            Err(reason) => {
                self.give_up(&id, &object, reason);
                return;
            }
        };
        if self.fault == Some(Fault::ActiveBeforeVerification) {
            self.complete(&id, &object, (&seen, bytes.len()), &artifact);
            // Long enough to be seen, however slow the machine is.
            for _ in 0..2000 {
                if self.shown_early.load(Ordering::SeqCst) > 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self.change(&id, |work| work.state = State::Verifying);
        match verify(&artifact, &seen, &bytes) {
            Ok(()) => {
                self.complete(&id, &object, (&seen, bytes.len()), &artifact);
                let publish = self.works.lock().unwrap().remove(&id);
                if publish.is_some_and(|work| work.request.publish) {
                    names::publish(&self.backend, self.fault, &object, &spec.display_name).await;
                }
            }
            Err(reason) => self.give_up(&id, &object, reason),
        }
    }

    /// Looks after a transfer until it must end.
    async fn watch(&self, id: &Id) -> Reason {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let works = self.works.lock().unwrap();
            let Some(work) = works.get(id) else {
                continue;
            };
            let policy = work.policy();
            if is_late(&policy) && self.fault != Some(Fault::DeadlineIsNothing) {
                return Reason::DeadlinePassed;
            }
            let patience = policy
                .stall_timeout
                .and_then(|patience| Duration::try_from(patience).ok())
                .unwrap_or(Duration::from_mins(5));
            if work.moved.elapsed() > patience {
                return Reason::TransferStalled;
            }
        }
    }

    /// Creates the record before any byte, with the first id that was never taken.
    fn create(
        &self,
        (place, installation, key): &Id,
        request: &wire::EnsureImageRequest,
        attempt: i32,
    ) -> Option<String> {
        let spec = request.spec.as_ref()?;
        let hash = key.trim_start_matches("ni-");
        let working_name = format!("{}~{}", spec.display_name, &hash[..hash.len().min(10)]);
        let early = self.fault == Some(Fault::PublishedUnverified) && request.publish;
        let mut state = self.backend.state();
        (0..1000).find_map(|n| {
            let id = id(&format!("{place}/{installation}"), key, n);
            let added = state.add(Object {
                id: id.clone(),
                place: place.clone(),
                name: if early {
                    spec.display_name.clone()
                } else {
                    working_name.clone()
                },
                display_name: spec.display_name.clone(),
                working_name: working_name.clone(),
                attempt,
                marker: Some(Marker {
                    installation: installation.clone(),
                    key: key.clone(),
                    spec_digest: request.image_key.clone().unwrap_or_default().spec_digest,
                }),
                complete: false,
                digest: String::new(),
                size: 0,
                verified: None,
                in_use: false,
                created: SystemTime::now(),
            });
            if added {
                Some(Some(id))
            } else if self.fault == Some(Fault::BurntIdEndsIt) {
                Some(None)
            } else {
                None
            }
        })?
    }

    fn complete(
        &self,
        id: &Id,
        object: &str,
        (seen, size): (&str, usize),
        artifact: &wire::Artifact,
    ) {
        let asked = self
            .works
            .lock()
            .unwrap()
            .get(id)
            .map_or(0, |work| work.policy().verification_level);
        if let Some(object) = self.backend.state().objects.get_mut(object) {
            object.complete = true;
            seen.clone_into(&mut object.digest);
            object.size = size as u64;
            object.verified = Some(Verified {
                level: level(self.fault, artifact, asked),
                digest: object.digest.clone(),
                size: object.size,
                time: SystemTime::now(),
            });
        }
    }

    fn give_up(&self, id: &Id, object: &str, reason: Reason) {
        self.backend.state().objects.remove(object);
        self.change(id, |work| {
            work.state = State::Failed;
            work.error = Some(failure(reason, "the image was given up"));
            work.object.clear();
        });
    }
}

fn verify(artifact: &wire::Artifact, seen: &str, bytes: &[u8]) -> Result<(), Reason> {
    if !artifact.digest.is_empty() && artifact.digest != seen {
        return Err(Reason::DigestMismatch);
    }
    if artifact.size_bytes > 0 && u64::try_from(artifact.size_bytes) != Ok(bytes.len() as u64) {
        return Err(Reason::SizeMismatch);
    }
    let inner = download::unpack(artifact, bytes)?;
    if !artifact.uncompressed_digest.is_empty()
        && artifact.uncompressed_digest != download::digest(&inner)
    {
        return Err(Reason::DigestMismatch);
    }
    Ok(())
}
