use super::*;

const NOW: &str = "2026-11-25T12:00:00Z";

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn digest(digit: &str) -> SpecDigest {
    format!("sha256:{}", digit.repeat(64))
        .parse()
        .expect("a digest")
}

/// A situation, told like a sentence.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the facts of a situation, which do not depend on each other"
)]
struct Case {
    found: Option<Found>,
    policy: WorkPolicy,
    verification: Option<Verification>,
    attempt: u32,
    failed: bool,
    waiting: bool,
    transferred: bool,
    can_resume: bool,
    may_adopt: bool,
    has_digest: bool,
}

fn nothing() -> Case {
    Case {
        found: None,
        policy: WorkPolicy::default(),
        verification: None,
        attempt: 0,
        failed: false,
        waiting: false,
        transferred: false,
        can_resume: false,
        may_adopt: false,
        has_digest: true,
    }
}

fn found(phase: Phase) -> Case {
    Case {
        found: Some(Found::new("id", digest("1"), phase)),
        ..nothing()
    }
}

impl Case {
    fn of_other_spec(mut self) -> Self {
        self.found = self.found.map(|found| Found {
            spec_digest: digest("2"),
            ..found
        });
        self
    }
    fn verified(mut self, level: VerificationLevel, time: &str) -> Self {
        self.verification = Some(Verification {
            level,
            observed_digest: String::new(),
            observed_size_bytes: None,
            verify_time: at(time),
        });
        self
    }
    fn attempted(mut self, times: u32) -> Self {
        self.attempt = times;
        self
    }
    fn failed(mut self) -> Self {
        self.failed = true;
        self
    }
    fn waiting(mut self) -> Self {
        self.waiting = true;
        self
    }
    fn transferred(mut self) -> Self {
        self.transferred = true;
        self
    }
    fn resumable(mut self) -> Self {
        self.can_resume = true;
        self
    }
    fn adoptable(mut self) -> Self {
        self.may_adopt = true;
        self
    }
    fn without_digest(mut self) -> Self {
        self.has_digest = false;
        self
    }
    fn floor(mut self, attempt: u32) -> Self {
        self.policy.attempt_floor = attempt;
        self
    }
    fn level(mut self, level: VerificationLevel) -> Self {
        self.policy.verification_level = level;
        self
    }
    fn since(mut self, time: &str) -> Self {
        self.policy.verified_since = Some(at(time));
        self
    }
    fn late(mut self) -> Self {
        self.policy.deadline = Some(at(NOW));
        self
    }
    fn step(&self) -> Step {
        plan(&Situation {
            spec_digest: &digest("1"),
            has_digest: self.has_digest,
            policy: &self.policy,
            found: self.found.as_ref(),
            verification: self.verification.as_ref(),
            attempt: self.attempt,
            failed: self.failed,
            waiting: self.waiting,
            transferred: self.transferred,
            can_resume: self.can_resume,
            may_adopt: self.may_adopt,
            now: at(NOW),
        })
    }
}

#[test]
fn every_situation_has_its_step() {
    use Phase::{Broken, Complete, Deleting, Partial, Reserved, Running};
    use VerificationLevel::{Content, Metadata, Presence};
    const BEFORE: &str = "2026-11-25T11:00:00Z";
    for (case, step) in vec![
        (nothing(), Step::Transfer),
        (nothing().adoptable(), Step::Adopt),
        (nothing().late(), Step::Late),
        (nothing().attempted(1).waiting(), Step::Wait),
        (nothing().attempted(1).waiting().late(), Step::Late),
        (nothing().attempted(1).waiting().floor(2), Step::Transfer),
        (nothing().attempted(1).failed(), Step::StayFailed),
        (nothing().attempted(1).failed().floor(1), Step::StayFailed),
        (nothing().attempted(1).failed().floor(2), Step::Transfer),
        (nothing().attempted(1).failed().floor(2).late(), Step::Late),
        (nothing().attempted(1).transferred(), Step::Lost),
        (found(Reserved), Step::Transfer),
        (found(Running), Step::Transfer),
        (found(Running).late(), Step::Late),
        (found(Running).adoptable(), Step::Transfer),
        (found(Partial), Step::Remove),
        (found(Partial).resumable(), Step::Transfer),
        (found(Partial).attempted(1).transferred(), Step::Lost),
        (found(Broken), Step::Remove),
        (found(Broken).attempted(1), Step::Broken),
        (found(Broken).attempted(1).transferred(), Step::Broken),
        (found(Broken).attempted(1).failed().floor(2), Step::Remove),
        (found(Deleting), Step::Leaving),
        (found(Complete), Step::Verify(Metadata)),
        (found(Complete).without_digest(), Step::Verify(Presence)),
        (found(Complete).level(Content), Step::Verify(Content)),
        (
            found(Complete).level(Content).without_digest(),
            Step::Verify(Presence),
        ),
        (found(Complete).late(), Step::Late),
        (found(Complete).attempted(1).waiting(), Step::Wait),
        (found(Complete).attempted(1).failed(), Step::StayFailed),
        (found(Complete).verified(Metadata, BEFORE), Step::Active),
        (
            found(Complete).verified(Metadata, BEFORE).late(),
            Step::Active,
        ),
        (
            found(Complete).verified(Presence, BEFORE),
            Step::Verify(Metadata),
        ),
        (
            found(Complete).verified(Presence, BEFORE).without_digest(),
            Step::Active,
        ),
        (
            found(Complete).verified(Metadata, BEFORE).level(Content),
            Step::Verify(Content),
        ),
        (
            found(Complete).verified(Metadata, BEFORE).since(NOW),
            Step::Verify(Metadata),
        ),
        (
            found(Complete).verified(Metadata, NOW).since(NOW),
            Step::Active,
        ),
        (
            found(Complete).verified(Metadata, BEFORE).since(NOW).late(),
            Step::Active,
        ),
        (found(Complete).of_other_spec(), Step::Conflict),
        (found(Partial).of_other_spec().late(), Step::Conflict),
        (
            found(Broken).of_other_spec().attempted(1).failed(),
            Step::Conflict,
        ),
    ] {
        assert_eq!(
            case.step(),
            step,
            "{:?}, {:?}, attempt {}, failed {}, waiting {}",
            case.found.map(|found| found.phase),
            case.policy,
            case.attempt,
            case.failed,
            case.waiting
        );
    }
}

#[test]
fn attempts_only_grow() {
    for (last, floor, next) in [(0, 0, 1), (0, 5, 5), (3, 1, 4), (3, 9, 9)] {
        assert_eq!(next_attempt(last, floor), next);
    }
}
