//! What a process remembers of one image, and the observation that follows from it.
//!
//! All of it may be forgotten: the backend has what counts. Secrets are held only while a worker runs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use proto::{
    ImageKey, ImageSpec, Observation, Progress as Advance, ProviderError, ProviderInfo, SpecDigest,
    State, Target, Verification, WorkPolicy,
};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::provider::{Found, Phase, Progress, Transferred};
use crate::redact::Redactor;

/// Shortest and longest time after which a running transfer is worth another look: young ones are often short.
const POLL: std::ops::RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(30);

/// What the core asks for, as it said last.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) spec: Arc<ImageSpec>,
    pub(super) spec_digest: SpecDigest,
    pub(super) policy: WorkPolicy,
    pub(super) publish: bool,
    pub(super) redactor: Arc<Redactor>,
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Looks what is there.
    Looking,
    /// Waits for a slot.
    Queued,
    /// Brings bytes.
    Transferring,
    /// Checks them.
    Verifying,
    /// Gives the name.
    Naming,
}

/// What waiting calls are told.
#[derive(Debug, Clone)]
pub(super) enum Told {
    /// The answer is near.
    Soon,
    /// This takes long; what is true now is in the memory.
    Later,
    /// The worker has ended.
    Ended(Result<Box<Observation>, ProviderError>),
}

/// A worker that brings an image, for as long as it runs.
#[derive(Debug)]
pub(super) struct Bringing {
    pub(super) target: watch::Sender<Arc<Target>>,
    pub(super) wish: watch::Sender<Arc<Wish>>,
    pub(super) told: watch::Receiver<Told>,
    pub(super) cancel: CancellationToken,
    pub(super) stage: Stage,
    pub(super) progress: Option<Progress>,
    pub(super) since: Instant,
}

/// A worker, of which an image has at most one.
#[derive(Debug)]
pub(super) enum Running {
    Bringing(Bringing),
    Removing(watch::Receiver<Told>),
}

/// When the next attempt may begin.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) secrets_version: String,
}

/// What is remembered of one image.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The image is gone and this memory with it: whoever still holds it looks for the new one.
    pub(super) gone: bool,
    pub(super) running: Option<Running>,
    pub(super) spec_digest: Option<SpecDigest>,
    pub(super) accepted: Option<Timestamp>,
    /// Number of the last attempt.
    pub(super) attempt: u32,
    /// Attempts in a row that did not succeed.
    pub(super) failures: u32,
    pub(super) pause: Option<Pause>,
    pub(super) failed: bool,
    pub(super) error: Option<ProviderError>,
    pub(super) verification: Option<Verification>,
    pub(super) transferred: Option<Transferred>,
    /// The object as it was last seen.
    pub(super) found: Option<Found>,
    pub(super) published: bool,
    last: Option<Observation>,
}

/// The memory of one image, shared by its calls and its worker.
#[derive(Debug, Default)]
pub(super) struct Entry(Mutex<Memory>);

impl Entry {
    pub(super) fn lock(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    /// Takes over what the backend shows. A verification counts for the bytes that it was made of, and no others.
    pub(super) fn see(&mut self, found: Option<Found>) {
        match &found {
            None => self.verification = None,
            Some(now) => {
                let changed = self.found.as_ref().is_some_and(|before| {
                    before.phase == Phase::Complete
                        && now.phase == Phase::Complete
                        && (before.id != now.id
                            || differ(before.digest.as_ref(), now.digest.as_ref())
                            || differ(before.size_bytes.as_ref(), now.size_bytes.as_ref()))
                });
                if changed {
                    self.verification = None;
                } else if self.verification.is_none() && self.found.is_none() {
                    // Nothing of this process's own yet: what was stored beside the image counts.
                    self.verification.clone_from(&now.verification);
                }
                self.spec_digest = Some(now.spec_digest.clone());
            }
        }
        self.found = found;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.found
            .as_ref()
            .is_some_and(|found| found.phase == Phase::Complete)
    }

    pub(super) fn waiting(&self, secrets_version: &str) -> bool {
        self.pause.as_ref().is_some_and(|pause| {
            pause.until > Instant::now() && pause.secrets_version == secrets_version
        })
    }

    fn state(&self) -> State {
        match &self.running {
            Some(Running::Removing(_)) => return State::Deleting,
            Some(Running::Bringing(bringing)) => match bringing.stage {
                Stage::Queued => return State::Pending,
                Stage::Transferring => {
                    let current = bringing.progress.as_ref().map(Progress::current);
                    let processing =
                        current.is_some_and(|now| now.processing && !now.id.is_empty());
                    return if processing {
                        State::Processing
                    } else {
                        State::Transferring
                    };
                }
                Stage::Verifying if self.found.is_some() => return State::Verifying,
                // Brought just now, and not seen yet.
                Stage::Verifying => return State::Transferring,
                Stage::Looking | Stage::Naming => {}
            },
            None => {}
        }
        let phase = self.found.as_ref().map(|found| found.phase);
        if self.failed {
            return State::Failed;
        }
        match phase {
            Some(Phase::Complete) if self.verification.is_some() => State::Active,
            Some(Phase::Running) if self.running.is_none() => State::Processing,
            Some(Phase::Deleting) => State::Deleting,
            Some(Phase::Broken) if self.pause.is_none() => State::Failed,
            _ => State::Pending,
        }
    }

    /// What is true now.
    pub(super) fn observation(
        &mut self,
        key: &ImageKey,
        info: &ProviderInfo,
        clock: Clock,
    ) -> Observation {
        let state = self.state();
        let mut seen = Observation::new(
            ImageKey {
                key: key.key.clone(),
                spec_digest: self.spec_digest.clone().or_else(|| key.spec_digest.clone()),
            },
            state,
        );
        // Whatever is there was accepted once, perhaps by another process.
        let accepted = self.found.is_some() || self.accepted.is_some();
        seen.attempt = self.attempt.max(u32::from(accepted));
        seen.error.clone_from(&self.error);
        if let Some(found) = &self.found {
            seen.provider_image_id.clone_from(&found.id);
            seen.backend_status.clone_from(&found.backend_status);
            seen.outputs.clone_from(&found.outputs);
            seen.create_time = found.create_time;
            if state == State::Failed && seen.error.is_none() {
                seen.error = Some(broken(found));
            }
        }
        seen.create_time = seen.create_time.or(self.accepted);
        seen.published = self.published && !matches!(state, State::Failed | State::Deleting);
        if self.is_complete() {
            seen.verification.clone_from(&self.verification);
        }
        if let Some(Running::Bringing(bringing)) = &self.running {
            progress_of(bringing, state, &mut seen, clock);
        } else if state == State::Pending {
            seen.next_call_delay = self
                .pause
                .as_ref()
                .map(|pause| pause.until.saturating_duration_since(Instant::now()));
        }
        if let (Some(delay), Some(least)) = (seen.next_call_delay, info.limits.min_poll_interval) {
            seen.next_call_delay = Some(delay.max(least));
        }
        seen.update_time = self.last.as_ref().and_then(|last| last.update_time);
        if self.last.as_ref() != Some(&seen) {
            seen.update_time = Some(clock.now());
            self.last = Some(seen.clone());
        }
        seen
    }
}

/// What a backend does not tell this time has not changed.
fn differ<T: PartialEq>(before: Option<&T>, now: Option<&T>) -> bool {
    before.is_some() && now.is_some() && before != now
}

fn progress_of(bringing: &Bringing, state: State, seen: &mut Observation, clock: Clock) {
    let age = bringing.since.elapsed();
    seen.next_call_delay = Some((age / 2).clamp(*POLL.start(), *POLL.end()));
    if !matches!(state, State::Transferring | State::Processing) {
        return;
    }
    let Some(current) = bringing.progress.as_ref().map(Progress::current) else {
        return;
    };
    if !current.id.is_empty() {
        seen.provider_image_id = current.id;
    }
    if !current.backend_status.is_empty() {
        seen.backend_status = current.backend_status;
    }
    seen.progress = Some(Advance {
        bytes_done: current.bytes_done,
        bytes_total: current
            .bytes_total
            .filter(|total| *total >= current.bytes_done),
        advance_time: current
            .moved
            .then(|| clock.now() - current.advanced.elapsed()),
    });
}

/// Why a broken object is broken.
pub(super) fn broken(found: &Found) -> ProviderError {
    found.error.clone().unwrap_or_else(|| {
        ProviderError::content_rejected("the backend says that the image cannot be used")
    })
}
