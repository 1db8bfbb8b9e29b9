//! Work that takes long, beside the reconciles: one job an object, its last results at hand.
//!
//! A reconcile never waits for a registry, a code host or a disk: it starts a job, goes on, and is woken when the job has
//! ended. So no slow source takes a place that another object needs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proto::Recovery;
use tokio::{task::AbortHandle, time::Instant};

use crate::retry::Retries;

/// What a failed job tells.
pub trait Failure: Send + Sync + 'static {
    /// When to try again.
    fn recovery(&self) -> Recovery;
}

/// How often a job is repeated.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time after a success.
    pub interval: Duration,
    /// Longest time after a failure, where looking again costs next to nothing; absent: as its class says.
    pub longest: Option<Duration>,
}

/// The jobs of one sort, by the UID of the object that they are for.
#[derive(Debug)]
pub struct Jobs<T, E>(Arc<Inner<T, E>>);

#[derive(Debug)]
struct Inner<T, E> {
    slots: Mutex<HashMap<String, Slot<T, E>>>,
    retries: Retries,
}

#[derive(Debug)]
struct Slot<T, E> {
    input: u64,
    running: Option<AbortHandle>,
    /// When the last job ended.
    ended: Option<Instant>,
    value: Option<Arc<T>>,
    failure: Option<Arc<E>>,
    /// After a failure: not before this.
    again: Option<Instant>,
}

/// What the jobs before a new one have left.
#[derive(Debug)]
pub struct Last<T, E> {
    /// Result of the last job that went well.
    pub value: Option<Arc<T>>,
    /// Why the last job failed, if it did.
    pub failure: Option<Arc<E>>,
}

/// What is known of an object's jobs.
#[derive(Debug)]
pub struct Look<T, E> {
    /// Result of the last job that went well, for whatever input.
    pub value: Option<Arc<T>>,
    /// Why the last job failed, if it did.
    pub failure: Option<Arc<E>>,
    /// Whether a job is under way.
    pub running: bool,
    /// Time until the next job is due; `None` while one is under way.
    pub due: Option<Duration>,
}

impl<T, E> Clone for Jobs<T, E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T, E> Default for Jobs<T, E> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            slots: Mutex::default(),
            retries: Retries::default(),
        }))
    }
}

impl<T: Send + Sync + 'static, E: Failure> Jobs<T, E> {
    /// Starts a job when one is due: for the first time, when `input` is another one than before (what runs for the old
    /// one is dropped), or as `pace` and the class of the last failure allow. `done` is called after the job has ended.
    /// The job gets what the ones before it left.
    pub fn look<F>(
        &self,
        uid: &str,
        input: u64,
        pace: Pace,
        job: impl FnOnce(Last<T, E>) -> F,
        done: impl FnOnce() + Send + 'static,
    ) -> Look<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let now = Instant::now();
        let mut slots = self.slots();
        let slot = slots.entry(uid.to_owned()).or_insert_with(|| Slot {
            input,
            running: None,
            ended: None,
            value: None,
            failure: None,
            again: None,
        });
        if slot.input != input {
            if let Some(running) = slot.running.take() {
                running.abort();
            }
            slot.input = input;
            slot.ended = None;
            slot.again = None;
            self.0.retries.forget(uid);
        }
        if slot.running.as_ref().is_some_and(AbortHandle::is_finished) {
            // It panicked, so nobody has told its end.
            slot.running = None;
            slot.ended = Some(now);
            slot.again = Some(now + self.0.retries.failed(uid, &Recovery::Unknown));
        }
        let next = match (slot.ended, slot.again) {
            (None, _) => now,
            (Some(ended), Some(again)) => {
                pace.longest.map_or(again, |time| again.min(ended + time))
            }
            (Some(ended), None) => ended + pace.interval,
        };
        if slot.running.is_none() && next <= now {
            let last = Last {
                value: slot.value.clone(),
                failure: slot.failure.clone(),
            };
            let (jobs, uid, job) = (self.clone(), uid.to_owned(), job(last));
            let task = tokio::spawn(async move {
                let result = job.await;
                jobs.end(&uid, input, result);
                done();
            });
            slot.running = Some(task.abort_handle());
        }
        let running = slot.running.is_some();
        Look {
            value: slot.value.clone(),
            failure: slot.failure.clone(),
            running,
            due: (!running).then(|| next.saturating_duration_since(now)),
        }
    }

    /// The object is gone, or wants no job any more.
    pub fn forget(&self, uid: &str) {
        if let Some(running) = self.slots().remove(uid).and_then(|slot| slot.running) {
            running.abort();
        }
        self.0.retries.forget(uid);
    }

    fn end(&self, uid: &str, input: u64, result: Result<T, E>) {
        let mut slots = self.slots();
        // Another input, or none, is of interest by now.
        let Some(slot) = slots.get_mut(uid).filter(|slot| slot.input == input) else {
            return;
        };
        let now = Instant::now();
        slot.running = None;
        slot.ended = Some(now);
        match result {
            Ok(value) => {
                slot.value = Some(Arc::new(value));
                slot.failure = None;
                slot.again = None;
                self.0.retries.forget(uid);
            }
            Err(failure) => {
                slot.again = Some(now + self.0.retries.failed(uid, &failure.recovery()));
                slot.failure = Some(Arc::new(failure));
            }
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<String, Slot<T, E>>> {
        self.0.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[derive(Debug)]
    struct Broken(Recovery);

    impl Failure for Broken {
        fn recovery(&self) -> Recovery {
            self.0
        }
    }

    const MINUTE: Duration = Duration::from_mins(1);

    /// As the class of a failure says.
    const PACE: Pace = Pace {
        interval: MINUTE,
        longest: None,
    };

    /// Starts a job with this result if one is due, and waits for its end.
    async fn run(
        jobs: &Jobs<u32, Broken>,
        input: u64,
        result: Result<u32, Broken>,
    ) -> Look<u32, Broken> {
        let (sender, ended) = oneshot::channel();
        let look = jobs.look(
            "a",
            input,
            PACE,
            |_| async { result },
            || {
                let _ = sender.send(());
            },
        );
        if look.running {
            ended.await.unwrap();
        }
        jobs.look("a", input, PACE, |_| async { unreachable!() }, || {})
    }

    #[tokio::test(start_paused = true)]
    async fn success_is_kept_for_the_interval() {
        let jobs = Jobs::default();
        let look = run(&jobs, 1, Ok(5)).await;
        assert_eq!(look.value.as_deref(), Some(&5));
        assert_eq!(look.due, Some(MINUTE));
        tokio::time::advance(MINUTE).await;
        assert_eq!(run(&jobs, 1, Ok(6)).await.value.as_deref(), Some(&6));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_keeps_the_last_value_and_waits_as_its_class_says() {
        let jobs = Jobs::default();
        run(&jobs, 1, Ok(5)).await;
        tokio::time::advance(MINUTE).await;
        let look = run(&jobs, 1, Err(Broken(Recovery::Terminal))).await;
        assert_eq!(look.value.as_deref(), Some(&5));
        assert!(look.failure.is_some());
        assert!(look.due.unwrap() > Duration::from_hours(9));
        // another input is tried at once
        assert_eq!(run(&jobs, 2, Ok(7)).await.value.as_deref(), Some(&7));
    }

    #[tokio::test(start_paused = true)]
    async fn failure_waits_no_longer_than_the_pace_says() {
        let jobs = Jobs::default();
        run(&jobs, 1, Err(Broken(Recovery::Terminal))).await;
        let pace = Pace {
            longest: Some(2 * MINUTE),
            ..PACE
        };
        let look = jobs.look("a", 1, pace, |_| async { unreachable!() }, || {});
        assert_eq!(look.due, Some(2 * MINUTE));
    }

    #[tokio::test(start_paused = true)]
    async fn job_that_panicked_is_started_again() {
        let jobs: Jobs<u32, Broken> = Jobs::default();
        let look = jobs.look("a", 1, PACE, |_| async { panic!("a defect") }, || {});
        assert!(look.running);
        tokio::task::yield_now().await;
        let look = jobs.look("a", 1, PACE, |_| async { unreachable!() }, || {});
        assert!(!look.running && look.due.unwrap() < 2 * Duration::from_secs(1));
        tokio::time::advance(MINUTE).await;
        assert_eq!(run(&jobs, 1, Ok(3)).await.value.as_deref(), Some(&3));
    }

    #[tokio::test(start_paused = true)]
    async fn job_for_an_old_input_is_dropped() {
        let jobs: Jobs<u32, Broken> = Jobs::default();
        let look = jobs.look("a", 1, PACE, |_| std::future::pending(), || {});
        assert!(look.running);
        assert_eq!(run(&jobs, 2, Ok(2)).await.value.as_deref(), Some(&2));
    }
}
