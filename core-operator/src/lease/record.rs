//! What one look at a lease object means: the decision of a candidate, and the specs it writes.
//!
//! Nothing here does I/O or reads a clock: the caller hands in what it saw and when.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// The holder that a lease object names; `None` when it is free (absent or empty).
pub(super) fn holder(lease: &LeaseObject) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

/// How long the holder of a lease object may be silent before others take over.
///
/// The record's own value is what its holder promised; a shorter one than ours is not believed, because our own
/// renew deadline belongs to our own duration.
fn silence(spec: &LeaseSpec, ours: Duration) -> Duration {
    let promised = spec
        .lease_duration_seconds
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map(Duration::from_secs);
    promised.map_or(ours, |promised| promised.max(ours))
}

/// What is to be done about a lease, after looking at it.
#[derive(Debug, PartialEq)]
pub(super) enum Decision {
    /// There is no lease and none is known that could still be held.
    Create,
    /// It is free, expired or ours.
    Take,
    /// Somebody holds it.
    Wait,
}

/// A candidate's memory: what it saw last, and since when that has not changed.
///
/// Times in the record are written by other machines and are never compared with a clock. Only the monotonic time
/// that passed *here* since the record last changed counts; so a clock that is wrong or jumps moves nothing.
#[derive(Debug, Default)]
pub(super) struct Observation {
    seen: Option<Seen>,
}

#[derive(Debug)]
struct Seen {
    version: Option<String>,
    spec: LeaseSpec,
    since: Instant,
}

impl Observation {
    /// Takes in what was read at `now` (the moment the answer arrived); `None` when there is no such object.
    ///
    /// Returns true if what the record says differs from what it said before.
    ///
    /// Silence ends with any write, hence the version: a holder whose clock stands still or goes back and forth may
    /// write a record that equals the one seen before it.
    pub(super) fn update(&mut self, lease: Option<&LeaseObject>, now: Instant) -> bool {
        // A deleted object changes nothing in what its holder believes: the last record stays remembered.
        let Some(lease) = lease else { return false };
        let version = lease.metadata.resource_version.clone();
        let spec = lease.spec.clone().unwrap_or_default();
        let changed = self.seen.as_ref().is_some_and(|seen| seen.spec != spec);
        if self
            .seen
            .as_ref()
            .is_none_or(|seen| changed || seen.version != version)
        {
            self.seen = Some(Seen {
                version,
                spec,
                since: now,
            });
        }
        changed
    }

    /// True once the record has been silent for longer than its holder may be.
    pub(super) fn expired(&self, ours: Duration, now: Instant) -> bool {
        self.seen.as_ref().is_none_or(|seen| {
            now.saturating_duration_since(seen.since) >= silence(&seen.spec, ours)
        })
    }

    /// The decision of the candidate `identity` about the lease that [`Observation::update`] was just called with.
    pub(super) fn decide(
        &self,
        lease: Option<&LeaseObject>,
        identity: &str,
        duration: Duration,
        now: Instant,
    ) -> Decision {
        let Some(lease) = lease else {
            let held = self.seen.as_ref().is_some_and(|seen| {
                seen.spec
                    .holder_identity
                    .as_deref()
                    .is_some_and(|holder| !holder.is_empty() && holder != identity)
            });
            return if held && !self.expired(duration, now) {
                Decision::Wait
            } else {
                Decision::Create
            };
        };
        match holder(lease) {
            None => Decision::Take,
            Some(holder) if holder == identity => Decision::Take,
            Some(_) if self.expired(duration, now) => Decision::Take,
            Some(_) => Decision::Wait,
        }
    }
}

/// The spec that `identity` writes to acquire or to renew, after `previous`.
///
/// The renew time always differs from the previous one, even if the clock stands still: the API server drops a write
/// that changes nothing, others would see silence, and we would believe that we had renewed.
pub(super) fn held_spec(
    previous: Option<&LeaseSpec>,
    identity: &str,
    duration: Duration,
    now: Timestamp,
) -> LeaseSpec {
    let last_renew = previous
        .and_then(|spec| spec.renew_time.as_ref())
        .map(|time| time.0);
    let now = microseconds(now);
    let renew_time = if last_renew == Some(now) {
        now + SignedDuration::from_micros(1)
    } else {
        now
    };
    let ours = previous.is_some_and(|spec| spec.holder_identity.as_deref() == Some(identity));
    let transitions = previous
        .and_then(|spec| spec.lease_transitions)
        .unwrap_or(0);
    let acquire_time = previous
        .filter(|_| ours)
        .and_then(|spec| spec.acquire_time.clone());
    LeaseSpec {
        holder_identity: Some(identity.to_owned()),
        // Rounded up: others must never wait for less than we rely on.
        lease_duration_seconds: Some(
            i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX),
        ),
        acquire_time: acquire_time.or(Some(MicroTime(renew_time))),
        renew_time: Some(MicroTime(renew_time)),
        lease_transitions: Some(if ours || previous.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..LeaseSpec::default()
    }
}

/// The spec that gives the lease back: no holder, so that the next look of a successor may take it.
pub(super) fn released_spec(previous: Option<&LeaseSpec>, now: Timestamp) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(String::new()),
        // client-go writes one second here too; the API server refuses zero.
        lease_duration_seconds: Some(1),
        acquire_time: previous.and_then(|spec| spec.acquire_time.clone()),
        renew_time: Some(MicroTime(microseconds(now))),
        lease_transitions: previous.and_then(|spec| spec.lease_transitions),
        ..LeaseSpec::default()
    }
}

/// The precision of `MicroTime`: what is finer is lost on the way and must not make two times look different.
fn microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: i64, seconds: i32) -> LeaseObject {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        };
        LeaseObject {
            spec: Some(spec),
            ..LeaseObject::default()
        }
    }

    const OURS: Duration = Duration::from_secs(15);

    #[tokio::test(start_paused = true)]
    async fn decisions_follow_from_holder_and_silence() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        for (seen, now, expected) in [
            (None, after(0), Decision::Create),
            (Some(lease("", 0, 15)), after(0), Decision::Take),
            (Some(lease("me", 0, 15)), after(0), Decision::Take),
            (Some(lease("other", 0, 15)), after(0), Decision::Wait),
            // The record is from 1970 and from the year 2100: its times say nothing.
            (
                Some(lease("other", 4_102_444_800, 15)),
                after(14),
                Decision::Wait,
            ),
            (Some(lease("other", 0, 15)), after(14), Decision::Wait),
            (Some(lease("other", 0, 15)), after(15), Decision::Take),
            (
                Some(lease("other", 4_102_444_800, 15)),
                after(15),
                Decision::Take,
            ),
            // A longer promise of the holder counts, a shorter one does not.
            (Some(lease("other", 0, 60)), after(59), Decision::Wait),
            (Some(lease("other", 0, 60)), after(60), Decision::Take),
            (Some(lease("other", 0, 1)), after(14), Decision::Wait),
            (Some(lease("other", 0, -5)), after(14), Decision::Wait),
        ] {
            let mut observation = Observation::default();
            observation.update(seen.as_ref(), start);
            assert_eq!(
                observation.decide(seen.as_ref(), "me", OURS, now),
                expected,
                "{seen:?} at {now:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_deleted_under_its_holder_is_not_created_before_the_holder_must_have_stopped() {
        let start = Instant::now();
        let mut observation = Observation::default();
        observation.update(Some(&lease("other", 0, 15)), start);
        observation.update(None, start);
        assert_eq!(
            observation.decide(None, "me", OURS, start + Duration::from_secs(14)),
            Decision::Wait
        );
        assert_eq!(
            observation.decide(None, "me", OURS, start + OURS),
            Decision::Create
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_ends_the_silence_even_if_the_record_reads_as_before() {
        let start = Instant::now();
        let mut observation = Observation::default();
        let mut seen = lease("other", 0, 15);
        seen.metadata.resource_version = Some("1".to_owned());
        observation.update(Some(&seen), start);
        seen.metadata.resource_version = Some("3".to_owned());
        assert!(!observation.update(Some(&seen), start + Duration::from_secs(9)));
        assert!(!observation.expired(OURS, start + Duration::from_secs(16)));
        assert!(observation.expired(OURS, start + Duration::from_secs(24)));
    }

    #[test]
    fn renew_time_differs_even_if_the_clock_stands_still() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let first = held_spec(None, "me", OURS, now);
        let second = held_spec(Some(&first), "me", OURS, now);
        assert_ne!(first.renew_time, second.renew_time);
        assert_eq!(first.acquire_time, second.acquire_time);
        assert_eq!(second.lease_transitions, Some(0));
        let taken = held_spec(Some(&second), "other", OURS, now);
        assert_eq!(taken.lease_transitions, Some(1));
    }

    #[test]
    fn a_duration_below_a_second_is_rounded_up() {
        let spec = held_spec(
            None,
            "me",
            Duration::from_millis(1500),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(spec.lease_duration_seconds, Some(2));
    }
}
