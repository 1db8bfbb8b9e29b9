//! The worker of one image: looks, plans, takes a step, and looks again, until nothing is left to do or something failed.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use proto::{
    AdoptPolicy, Capability, ProviderError, Reason, Target, Verification, VerificationLevel,
};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::entry::{Bringing, Entry, Memory, Pause, Running, Stage, Told, Wish, broken};
use super::plan::{Situation, Step, next_attempt, plan};
use super::verify::judge;
use super::{Id, Shared, conflict, in_progress, not_ready};
use crate::provider::{Found, Marker, Progress, Result, Transferred, Verified, Work};
use crate::server::panicked;

/// How often deadline and stall are looked at.
const TICK: Duration = Duration::from_millis(500);

/// Shortest wait after a stall: a source that fell silent is not back at once.
const AFTER_STALL: Duration = Duration::from_secs(10);

/// Removals in one run; more mean that the backend says "removed" and shows the object nevertheless.
const MOST_REMOVALS: u32 = 2;

/// How a run ends that does not reach its goal.
enum End {
    /// Nothing was accepted: the answer to the call.
    Refuse(ProviderError),
    /// Pending, until the next attempt.
    Retry(ProviderError),
    /// Failed.
    GiveUp(ProviderError),
}

/// A worker while it runs.
pub(super) struct Bring {
    pub(super) shared: Arc<Shared>,
    pub(super) id: Id,
    pub(super) entry: Arc<Entry>,
    target: watch::Receiver<Arc<Target>>,
    wish: watch::Receiver<Arc<Wish>>,
    tell: watch::Sender<Told>,
    cancel: CancellationToken,
}

/// Starts a worker. `memory` is the one of `entry`, and has none.
pub(super) fn start(
    shared: &Arc<Shared>,
    id: &Id,
    entry: &Arc<Entry>,
    memory: &mut Memory,
    target: Arc<Target>,
    wish: Arc<Wish>,
) -> watch::Receiver<Told> {
    let (send_target, target) = watch::channel(target);
    let (send_wish, wish) = watch::channel(wish);
    let (tell, told) = watch::channel(Told::Soon);
    let cancel = CancellationToken::new();
    memory.running = Some(Running::Bringing(Bringing {
        target: send_target,
        wish: send_wish,
        told: told.clone(),
        cancel: cancel.clone(),
        stage: Stage::Looking,
        progress: None,
        since: Instant::now(),
    }));
    let bring = Bring {
        shared: Arc::clone(shared),
        id: id.clone(),
        entry: Arc::clone(entry),
        target,
        wish,
        tell,
        cancel,
    };
    shared.tasks.spawn(bring.run());
    told
}

impl Bring {
    async fn run(mut self) {
        loop {
            let wish = self.wish();
            let (cancel, stop) = (self.cancel.clone(), self.shared.stop.clone());
            let drive = AssertUnwindSafe(self.drive()).catch_unwind();
            let result = tokio::select! {
                result = drive => result.unwrap_or_else(|_panic| Err(End::Retry(panicked("worker")))),
                () = cancel.cancelled() => Err(End::Refuse(in_progress("removed"))),
                () = stop.cancelled() => Err(End::Refuse(not_ready())),
            };
            let newest = self.wish();
            let mut memory = self.entry.lock();
            // Whoever asked for more meanwhile joined this worker: nobody else would do it.
            let more = newest.publish != wish.publish || newest.policy != wish.policy;
            if result.is_ok() && more {
                continue;
            }
            memory.running = None;
            let answer = self.settle(&mut memory, &newest, result);
            drop(memory);
            self.tell.send_replace(Told::Ended(answer));
            return;
        }
    }

    /// Writes the end of a run into the memory, and says what waiting calls are answered.
    fn settle(
        &self,
        memory: &mut Memory,
        wish: &Wish,
        result: Result<(), End>,
    ) -> Result<Box<proto::Observation>> {
        let key = &self.id.key;
        match result {
            Ok(()) => {}
            Err(End::Refuse(error)) => {
                if memory.accepted.is_none() && memory.found.is_none() {
                    self.shared.forget(&self.id, memory);
                }
                return Err(wish.redactor.error(error));
            }
            Err(End::GiveUp(error)) => {
                let error = wish.redactor.error(error);
                tracing::warn!(%key, attempt = memory.attempt, reason = error.reason_text(), %error, "image given up");
                memory.failed = true;
                memory.pause = None;
                memory.failures = 0;
                memory.error = Some(error);
            }
            Err(End::Retry(error)) => {
                let error = wish.redactor.error(error);
                memory.failures = memory.failures.saturating_add(1);
                let mut delay = error
                    .recovery()
                    .delay_with_jitter(memory.failures, rand::random());
                if error.reason() == Some(Reason::TransferStalled) {
                    delay = delay.max(AFTER_STALL);
                }
                tracing::info!(%key, attempt = memory.attempt, reason = error.reason_text(), %error, ?delay, "image waits for its next attempt");
                memory.pause = Some(Pause {
                    until: Instant::now() + delay,
                    secrets_version: self.target().secrets_version.clone(),
                });
                memory.error = Some(error);
            }
        }
        let key = proto::ImageKey {
            key: self.id.key.clone(),
            spec_digest: Some(wish.spec_digest.clone()),
        };
        Ok(Box::new(memory.observation(
            &key,
            &self.shared.info,
            self.shared.clock,
        )))
    }

    fn wish(&self) -> Arc<Wish> {
        Arc::clone(&self.wish.borrow())
    }

    pub(super) fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target.borrow())
    }

    pub(super) fn marker(&self, wish: &Wish) -> Marker {
        self.shared.marker(&self.id, Some(wish.spec_digest.clone()))
    }

    pub(super) fn enter(&self, stage: Stage, progress: Option<Progress>) {
        if let Some(Running::Bringing(bringing)) = &mut self.entry.lock().running {
            bringing.stage = stage;
            bringing.progress = progress;
        }
        if matches!(stage, Stage::Queued | Stage::Transferring) {
            self.tell.send_replace(Told::Later);
        }
    }

    pub(super) async fn look(&self, wish: &Wish) -> Result<Option<Found>> {
        let found = self
            .shared
            .provider
            .observe(&self.target(), &self.marker(wish))
            .await?;
        self.entry.lock().see(found.clone());
        Ok(found)
    }

    async fn drive(&mut self) -> Result<(), End> {
        let (mut transferred, mut may_adopt, mut removals) = (false, true, 0);
        let wish = self.wish();
        let mut found = self.look(&wish).await.map_err(End::Refuse)?;
        loop {
            let wish = self.wish();
            let step = self.next(&wish, found.as_ref(), transferred, may_adopt);
            tracing::debug!(key = %self.id.key, ?step, "image planned");
            match (step, &found) {
                (Step::Conflict, _) => return Err(End::Refuse(conflict())),
                (Step::Leaving, _) => return Err(End::Refuse(in_progress("removed"))),
                (Step::StayFailed | Step::Wait, _) => return Ok(()),
                (Step::Late, _) => return Err(self.late()),
                (Step::Lost, _) => {
                    return Err(End::Retry(ProviderError::internal_bug(
                        "the transfer ended, but the backend does not have the whole image",
                    )));
                }
                (Step::Active, Some(found)) => {
                    self.name(&wish, found).await;
                    return Ok(());
                }
                (Step::Broken, Some(found)) => {
                    self.take_name(&wish, found).await.map_err(End::Retry)?;
                    return Err(End::GiveUp(broken(found)));
                }
                (Step::Verify(level), Some(found)) => self.verify(&wish, found, level).await?,
                (Step::Remove, _) if removals < MOST_REMOVALS => {
                    removals += 1;
                    let marker = self.marker(&wish);
                    let provider = &self.shared.provider;
                    let removed = provider.delete(&self.target(), &marker).await;
                    removed.map_err(End::Retry)?;
                    let mut memory = self.entry.lock();
                    memory.attempt = memory.attempt.max(1);
                }
                (Step::Remove, _) => {
                    return Err(End::Retry(ProviderError::backend_unavailable(
                        "the backend does not remove a half-written image",
                    )));
                }
                (Step::Adopt, _) => {
                    may_adopt = false;
                    self.adopt(&wish).await.map_err(End::Retry)?;
                }
                (Step::Transfer, _) => {
                    self.transfer(&wish, found.clone()).await?;
                    transferred = true;
                    self.enter(Stage::Verifying, None);
                }
                (Step::Active | Step::Broken | Step::Verify(_), None) => {
                    return Err(End::Retry(ProviderError::internal_bug(
                        "a step was planned for an object that is not there",
                    )));
                }
            }
            found = self.look(&self.wish()).await.map_err(End::Retry)?;
        }
    }

    fn next(&self, wish: &Wish, found: Option<&Found>, transferred: bool, adopt: bool) -> Step {
        let mut memory = self.entry.lock();
        let info = &self.shared.info;
        let now = self.shared.clock.now();
        let step = plan(&Situation {
            spec_digest: &wish.spec_digest,
            has_digest: wish.spec.artifact.digest.is_some(),
            policy: &wish.policy,
            found,
            verification: memory.verification.as_ref(),
            attempt: memory.attempt,
            failed: memory.failed,
            waiting: memory.waiting(&self.target().secrets_version),
            transferred,
            can_resume: info.can(Capability::Resume),
            may_adopt: adopt
                && wish.policy.adopt == AdoptPolicy::Matching
                && info.can(Capability::Adopt),
            now,
        });
        if !matches!(step, Step::Conflict | Step::Leaving) {
            memory.accepted.get_or_insert(now);
            memory.spec_digest = Some(wish.spec_digest.clone());
        }
        if matches!(step, Step::Verify(_) | Step::Active | Step::Late) && memory.attempt == 0 {
            memory.attempt = next_attempt(0, wish.policy.attempt_floor);
        }
        if matches!(step, Step::Verify(_)) && memory.failed {
            begin(&mut memory, wish.policy.attempt_floor);
        }
        step
    }

    /// Waits for a slot, then lets the provider bring the image.
    async fn transfer(&self, wish: &Wish, found: Option<Found>) -> Result<(), End> {
        let attempt = begin(&mut self.entry.lock(), wish.policy.attempt_floor);
        let _slot = self.slot().await?;
        let load = &self.shared.load;
        let (_transferring, progress) = (load.begin(), Progress::counted(Arc::clone(load)));
        self.enter(Stage::Transferring, Some(progress.clone()));
        let work = self.work(wish, found, None, attempt, progress.clone());
        tracing::info!(key = %self.id.key, attempt, image = wish.spec.display_name, "image transfer begins");
        let brought = {
            let transfer = self.shared.provider.transfer(&work);
            tokio::pin!(transfer);
            loop {
                tokio::select! {
                    result = &mut transfer => break result,
                    () = sleep(TICK) => self.watch(Some(&progress))?,
                }
            }
        };
        let checked = brought.and_then(|brought| {
            let seen = Verified::new(
                VerificationLevel::Metadata,
                brought.served_digest.clone(),
                brought.served_bytes,
            );
            let artifact = &wish.spec.artifact;
            judge(
                artifact,
                VerificationLevel::Presence,
                &seen,
                self.shared.clock,
            )?;
            Ok(brought)
        });
        match checked {
            Ok(brought) => {
                tracing::info!(key = %self.id.key, attempt, "image transfer ends");
                self.entry.lock().transferred = Some(brought);
                Ok(())
            }
            Err(error) if given_up(&error) => Err(self.discard(wish, error).await),
            Err(error) => Err(End::Retry(error)),
        }
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, End> {
        let slots = &self.shared.slots;
        if let Ok(slot) = Arc::clone(slots).try_acquire_owned() {
            return Ok(slot);
        }
        self.enter(Stage::Queued, None);
        let slot = Arc::clone(slots).acquire_owned();
        tokio::pin!(slot);
        loop {
            tokio::select! {
                slot = &mut slot => return slot.map_err(|_closed| End::Refuse(not_ready())),
                () = sleep(TICK) => self.watch(None)?,
            }
        }
    }

    fn work(
        &self,
        wish: &Wish,
        found: Option<Found>,
        transferred: Option<Transferred>,
        attempt: u32,
        progress: Progress,
    ) -> Work {
        Work {
            target: self.target.clone(),
            marker: self.marker(wish),
            spec: Arc::clone(&wish.spec),
            attempt,
            found,
            transferred,
            progress,
        }
    }

    /// Whether work may go on: going by the newest limits, which may have moved meanwhile.
    fn watch(&self, progress: Option<&Progress>) -> Result<(), End> {
        let policy = &self.wish().policy;
        if policy
            .deadline
            .is_some_and(|deadline| deadline <= self.shared.clock.now())
        {
            return Err(self.late());
        }
        let silence = progress.and_then(Progress::silence);
        if silence.is_some_and(|silence| silence >= policy.stall_timeout) {
            return Err(End::Retry(ProviderError::new(
                Reason::TransferStalled,
                "no byte moved for the stall time-out",
            )));
        }
        Ok(())
    }

    /// Given up because of the time, with the last cause.
    fn late(&self) -> End {
        let mut error = ProviderError::new(
            Reason::DeadlinePassed,
            "the deadline of the work has passed",
        );
        if let Some(last) = &self.entry.lock().error
            && last.reason() != Some(Reason::DeadlinePassed)
        {
            error = error
                .with_metadata("last_reason", last.reason_text())
                .with_metadata("last_message", last.message());
        }
        End::GiveUp(error)
    }

    async fn verify(
        &self,
        wish: &Wish,
        found: &Found,
        level: VerificationLevel,
    ) -> Result<(), End> {
        let (attempt, transferred, before) = {
            let memory = self.entry.lock();
            let before = memory.verification.is_some();
            (memory.attempt, memory.transferred.clone(), before)
        };
        let progress = Progress::new();
        self.enter(Stage::Verifying, Some(progress.clone()));
        let work = self.work(wish, Some(found.clone()), transferred, attempt, progress);
        let seen = {
            let verify = self.shared.provider.verify(&work, found, level);
            tokio::pin!(verify);
            loop {
                tokio::select! {
                    result = &mut verify => break result,
                    () = sleep(TICK) => match self.watch(None) {
                        // What was good stays so when nobody may look any longer.
                        Err(_late) if before => return Ok(()),
                        watched => watched?,
                    },
                }
            }
        };
        let artifact = &wish.spec.artifact;
        let clock = self.shared.clock;
        match seen.and_then(|seen| judge(artifact, level, &seen, clock)) {
            Ok(done) => {
                self.verified(wish, done).await;
                Ok(())
            }
            Err(error) if given_up(&error) => {
                let named = self.take_name(wish, found).await;
                named.map_err(End::Retry)?;
                Err(self.discard(wish, error).await)
            }
            Err(error) => Err(End::Retry(error)),
        }
    }

    pub(super) async fn verified(&self, wish: &Wish, done: Verification) {
        {
            let mut memory = self.entry.lock();
            memory.verification = Some(done.clone());
            memory.pause = None;
            memory.failures = 0;
        }
        let provider = &self.shared.provider;
        let target = self.target();
        if let Err(error) = provider.remember(&target, &self.marker(wish), &done).await {
            let error = wish.redactor.error(error);
            tracing::warn!(key = %self.id.key, %error, "verification not stored: it is repeated after a restart");
        }
    }

    /// Removes bytes that nobody must use, and only then says that the image failed.
    async fn discard(&self, wish: &Wish, why: ProviderError) -> End {
        let provider = &self.shared.provider;
        match provider.delete(&self.target(), &self.marker(wish)).await {
            Ok(()) => {
                let mut memory = self.entry.lock();
                memory.see(None);
                memory.published = false;
                End::GiveUp(why)
            }
            Err(error) => {
                self.entry.lock().verification = None;
                End::Retry(error.with_metadata("discarded_for", why.reason_text()))
            }
        }
    }
}

/// Begins a new attempt.
pub(super) fn begin(memory: &mut Memory, floor: u32) -> u32 {
    memory.attempt = next_attempt(memory.attempt, floor);
    memory.failed = false;
    memory.pause = None;
    memory.transferred = None;
    memory.attempt
}

/// Whether another attempt could only end alike.
fn given_up(error: &ProviderError) -> bool {
    matches!(
        error.reason(),
        Some(
            Reason::DigestMismatch
                | Reason::SizeMismatch
                | Reason::UnsupportedArtifact
                | Reason::ContentRejected
                | Reason::SizeLimitExceeded
        )
    )
}
