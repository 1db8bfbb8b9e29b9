//! The state machine of one image: from what is there and what is wanted to the next step.
//!
//! A plain function of what was observed, so that every process, however it came to be there, decides alike. The states that
//! the core sees follow from the steps; see `docs/contract.md`, "State machine of one image".

use jiff::Timestamp;
use proto::{SpecDigest, Verification, VerificationLevel, WorkPolicy};

use crate::provider::{Found, Phase};

/// All that the next step depends on.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts that do not depend on each other, not a state"
)]
pub(super) struct Situation<'a> {
    /// The spec that is wanted.
    pub(super) spec_digest: &'a SpecDigest,
    /// Whether the artifact has a digest: without, there is nothing to compare with.
    pub(super) has_digest: bool,
    /// What the core allows.
    pub(super) policy: &'a WorkPolicy,
    /// What the backend has.
    pub(super) found: Option<&'a Found>,
    /// The last finished verification, unless the object changed since.
    pub(super) verification: Option<&'a Verification>,
    /// Number of the last attempt; zero if this process made none.
    pub(super) attempt: u32,
    /// The last attempt was given up for good.
    pub(super) failed: bool,
    /// The last attempt did not succeed, and it is too early for the next one.
    pub(super) waiting: bool,
    /// This run has brought the bytes.
    pub(super) transferred: bool,
    /// Whether a half-written object can be continued.
    pub(super) can_resume: bool,
    /// Whether there may be an image to take over, which has not been looked for in this run.
    pub(super) may_adopt: bool,
    /// The time.
    pub(super) now: Timestamp,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Refuse: the key holds another spec.
    Conflict,
    /// Refuse: the object is being removed.
    Leaving,
    /// Leave it failed.
    StayFailed,
    /// Leave it pending until the time of the next attempt.
    Wait,
    /// Give up: the deadline has passed.
    Late,
    /// Give up: the object cannot be used.
    Broken,
    /// Remove what cannot be continued, and look again.
    Remove,
    /// Look for an image to take over.
    Adopt,
    /// Bring the image in.
    Transfer,
    /// The transfer has ended, yet the image is not whole: somebody's mistake, tried again later.
    Lost,
    /// Check it.
    Verify(VerificationLevel),
    /// It is as it should be; the name may be left.
    Active,
}

/// The level that can be reached: without a digest there is nothing to compare with.
pub(super) const fn level(policy: &WorkPolicy, has_digest: bool) -> VerificationLevel {
    if has_digest {
        policy.verification_level
    } else {
        VerificationLevel::Presence
    }
}

pub(super) fn plan(now: &Situation<'_>) -> Step {
    let late = now
        .policy
        .deadline
        .is_some_and(|deadline| deadline <= now.now);
    // A higher floor is a new beginning, whatever the last attempt came to.
    let anew = now.attempt > 0 && now.policy.attempt_floor > now.attempt;
    if now
        .found
        .is_some_and(|found| found.spec_digest != *now.spec_digest)
    {
        return Step::Conflict;
    }
    if now.failed && !anew {
        return Step::StayFailed;
    }
    let phase = now.found.map(|found| found.phase);
    if phase == Some(Phase::Complete) {
        let level = level(now.policy, now.has_digest);
        let good = now.verification.is_some_and(|done| {
            done.level >= level
                && now
                    .policy
                    .verified_since
                    .is_none_or(|since| done.verify_time >= since)
        });
        return match (good, now.verification) {
            (true, _) => Step::Active,
            // What was good once stays so, as far as anybody may still look.
            (false, Some(_)) if late => Step::Active,
            (false, None) if late => Step::Late,
            (false, _) if now.waiting && !anew => Step::Wait,
            (false, _) => Step::Verify(level),
        };
    }
    if phase == Some(Phase::Deleting) {
        return Step::Leaving;
    }
    if now.transferred {
        return if phase == Some(Phase::Broken) {
            Step::Broken
        } else {
            Step::Lost
        };
    }
    // It was worked on here, and good or on its way: so somebody has spoilt it since.
    if phase == Some(Phase::Broken) && now.attempt > 0 && !anew && !now.waiting {
        return Step::Broken;
    }
    if late {
        return Step::Late;
    }
    if now.waiting && !anew {
        return Step::Wait;
    }
    match phase {
        None if now.may_adopt => Step::Adopt,
        Some(Phase::Broken) => Step::Remove,
        Some(Phase::Partial) if !now.can_resume => Step::Remove,
        _ => Step::Transfer,
    }
}

/// The number of a new attempt.
pub(super) fn next_attempt(last: u32, floor: u32) -> u32 {
    last.saturating_add(1).max(floor)
}

#[cfg(test)]
mod tests;
