//! The leader lease: at most one replica works at a time, also while the network is split.
//!
//! One object of kind `Lease` is read, judged and written with its `resourceVersion`, so that of two writers one
//! loses. What keeps two leaders apart in time:
//!
//! ```text
//! leader     PUT sent ──── renew deadline (10 s) ────► `lost` is cancelled, nothing more is written
//! candidate       sees the record change ──── lease duration (15 s) without a change ────► PUT
//! ```
//!
//! - The leader counts from the moment it *sent* the last write that was answered with success; a candidate from
//!   the moment it *saw* a change, which is later. Both use the monotonic clock; times in the record are for people.
//! - A write whose answer got lost makes candidates wait longer, never shorter.
//! - A leader that cannot renew stops by itself. Its process must end: what runs in it may hang in a write.
//!
//! The crates on offer were tried and refused: `kube-lease-manager` had two leaders for ten seconds when one was cut
//! off (no renew deadline, take-over without `resourceVersion`), `kube-leader-election` lets two candidates win.
//!
//! At rest the only write is one PUT per retry interval; while we hold the lease it is not read.

mod config;
mod fenced;
mod go_operator;
mod leadership;
mod record;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use config::{
    DURATION, LEASE_NAME, LeaseConfig, LeaseError, RENEW_DEADLINE, RETRY, RequestError,
    process_identity,
};
pub use fenced::{FencedLayer, NotLeading};
pub use go_operator::{GO_OPERATOR_LEASE, go_operator_is_running};
pub use leadership::{Fence, Leadership};
use record::{Decision, Observation, held_spec, holder, released_spec};

use crate::report::chain;
use crate::servers::Check;

/// A candidate for a lease.
pub struct Lease {
    api: Api<LeaseObject>,
    config: LeaseConfig,
    check: Option<Check>,
    clock: fn() -> Timestamp,
}

/// What we hold: the object as we wrote it last, and when that write was sent.
struct Held {
    object: Box<LeaseObject>,
    since: Instant,
}

/// How an attempt to renew ended.
enum Renewal {
    Renewed(Held),
    /// Not renewed; perhaps the next attempt.
    Failed(RequestError),
    /// Somebody else holds it, or took it from us.
    Taken(String),
}

impl Lease {
    /// A candidate that has not asked for anything yet.
    ///
    /// # Errors
    ///
    /// [`LeaseError::RejectTimes`] if the times of `config` would allow two leaders.
    pub fn new(client: Client, config: LeaseConfig) -> Result<Self, LeaseError> {
        let LeaseConfig {
            duration,
            renew_deadline,
            retry,
            ..
        } = config;
        if retry.is_zero() || retry >= renew_deadline / 2 || renew_deadline >= duration {
            return Err(LeaseError::RejectTimes {
                duration,
                renew_deadline,
                retry,
            });
        }
        let api = Api::namespaced(client, &config.namespace);
        Ok(Self {
            api,
            config,
            check: None,
            clock: Timestamp::now,
        })
    }

    /// Shows in readiness whether the lease can be read and written; a replica that waits is ready. One that takes the lease
    /// is not, from before anybody can see that it has it until its first renewal: what else has to be ready for a leader
    /// is the caller's to say until then.
    #[must_use]
    pub fn reporting_to(mut self, check: Check) -> Self {
        self.check = Some(check);
        self
    }

    /// Waits until the lease is ours, as long as it takes.
    ///
    /// An API server that refuses or is away is asked again every retry interval and shows in the readiness check.
    ///
    /// # Errors
    ///
    /// [`LeaseError::Stop`] when `stop` is cancelled first.
    pub async fn acquire(self, stop: &CancellationToken) -> Result<Leadership, LeaseError> {
        let mut observation = Observation::default();
        let mut waiting_for = None;
        let mut failing = false;
        loop {
            let look = tokio::select! {
                () = stop.cancelled() => return Err(LeaseError::Stop),
                look = self.get() => look,
            };
            // Not cut by `stop`: a write that took effect unseen would make a successor wait.
            let attempt = match look {
                Ok(lease) => self.try_acquire(&mut observation, lease.as_ref()).await,
                Err(error) => Err(error),
            };
            if stop.is_cancelled() {
                if let Ok(Attempt::Held(held)) = &attempt {
                    self.give_back(held).await;
                }
                return Err(LeaseError::Stop);
            }
            if !matches!(attempt, Ok(Attempt::Held(_))) {
                self.show(attempt.as_ref().err());
            }
            match attempt {
                Ok(Attempt::Held(held)) => {
                    info!(
                        lease = self.config.name,
                        identity = self.config.identity,
                        "became leader"
                    );
                    return Ok(Leadership::start(self, held));
                }
                Ok(Attempt::HeldBy(holder)) => {
                    failing = false;
                    if waiting_for.as_ref() != Some(&holder) {
                        info!(lease = self.config.name, holder, "waiting for the lease");
                        waiting_for = Some(holder);
                    }
                }
                Err(error) if failing => {
                    debug!(
                        lease = self.config.name,
                        error = chain(&error),
                        "lease still not available"
                    );
                }
                Err(error) => {
                    warn!(
                        lease = self.config.name,
                        error = chain(&error),
                        "lease not available"
                    );
                    failing = true;
                }
            }
            // Lengthened at random: candidates that started together shall not collide each time.
            let pause = self.config.retry.mul_f64(1.0 + 0.2 * rand::random::<f64>());
            tokio::select! {
                () = stop.cancelled() => return Err(LeaseError::Stop),
                () = sleep(pause) => {}
            }
        }
    }

    fn show(&self, error: Option<&RequestError>) {
        match (&self.check, error) {
            (Some(check), Some(error)) => check.not_ready(chain(error)),
            (Some(check), None) => check.ready(),
            (None, _) => {}
        }
    }

    async fn request<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, RequestError> {
        let limit = self.config.request_timeout();
        match timeout(limit, request).await {
            Ok(answer) => answer.map_err(|error| RequestError::Api(Box::new(error))),
            Err(_elapsed) => Err(RequestError::TimeOut(limit)),
        }
    }

    async fn get(&self) -> Result<Option<LeaseObject>, RequestError> {
        self.request(self.api.get_opt(&self.config.name)).await
    }

    /// Writes our hold over `previous`, which must be what the server has; `None` creates.
    async fn put(&self, previous: Option<&LeaseObject>) -> Result<Held, RequestError> {
        let since = Instant::now();
        let spec = previous.and_then(|lease| lease.spec.as_ref());
        let spec = held_spec(
            spec,
            &self.config.identity,
            self.config.duration,
            (self.clock)(),
        );
        let object = if let Some(previous) = previous {
            let lease = LeaseObject {
                metadata: previous.metadata.clone(),
                spec: Some(spec),
            };
            self.replace(&lease).await?
        } else {
            let name = Some(self.config.name.clone());
            let metadata = ObjectMeta {
                name,
                ..ObjectMeta::default()
            };
            let lease = LeaseObject {
                metadata,
                spec: Some(spec),
            };
            self.request(self.api.create(&PostParams::default(), &lease))
                .await?
        };
        Ok(Held {
            object: Box::new(object),
            since,
        })
    }

    async fn replace(&self, lease: &LeaseObject) -> Result<LeaseObject, RequestError> {
        self.request(
            self.api
                .replace(&self.config.name, &PostParams::default(), lease),
        )
        .await
    }

    async fn try_acquire(
        &self,
        observation: &mut Observation,
        lease: Option<&LeaseObject>,
    ) -> Result<Attempt, RequestError> {
        let now = Instant::now();
        observation.update(lease, now);
        let previous =
            match observation.decide(lease, &self.config.identity, self.config.duration, now) {
                Decision::Wait => {
                    let holder = lease
                        .and_then(holder)
                        .unwrap_or("the holder of a deleted lease");
                    return Ok(Attempt::HeldBy(holder.to_owned()));
                }
                Decision::Take => lease,
                Decision::Create => None,
            };
        if let Some(check) = &self.check {
            check.not_ready("being acquired");
        }
        match self.put(previous).await {
            Ok(held) => Ok(Attempt::Held(held)),
            // Somebody was faster: look again after the retry interval.
            Err(error) if error.code() == Some(409) => {
                Ok(Attempt::HeldBy("somebody who was faster".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    async fn renew(&self, held: &Held) -> Renewal {
        let error = match self.put(Some(&held.object)).await {
            Ok(renewed) => return Renewal::Renewed(renewed),
            Err(error) => error,
        };
        // 409: the object changed under us. An earlier write of ours whose answer got lost is as possible as a
        // label that somebody set, or a successor. 404: deleted; candidates that knew us wait, so we make it anew.
        if !matches!(error.code(), Some(404 | 409)) {
            return Renewal::Failed(error);
        }
        let current = match self.get().await {
            Ok(current) => current,
            Err(error) => return Renewal::Failed(error),
        };
        if let Some(current) = &current
            && holder(current) != Some(&self.config.identity)
        {
            return Renewal::Taken(holder(current).unwrap_or("nobody").to_owned());
        }
        match self.put(current.as_ref()).await {
            Ok(renewed) => Renewal::Renewed(renewed),
            Err(error) => Renewal::Failed(error),
        }
    }

    /// Empties the holder; whoever cannot be told waits for the lease duration instead.
    async fn give_back(&self, held: &Held) {
        let mut object = LeaseObject::clone(&held.object);
        // Twice: the first write meets 409 if the answer to our last renewal got lost.
        for attempt in 1..=2 {
            let spec = released_spec(object.spec.as_ref(), (self.clock)());
            let released = LeaseObject {
                metadata: object.metadata.clone(),
                spec: Some(spec),
            };
            let Err(error) = self.replace(&released).await else {
                info!(lease = self.config.name, "lease released");
                return;
            };
            if attempt == 1
                && error.code() == Some(409)
                && let Ok(Some(current)) = self.get().await
                && holder(&current) == Some(&self.config.identity)
            {
                object = current;
                continue;
            }
            warn!(
                lease = self.config.name,
                error = chain(&error),
                "lease not released, a successor waits until it expires"
            );
            return;
        }
    }
}

enum Attempt {
    Held(Held),
    HeldBy(String),
}
