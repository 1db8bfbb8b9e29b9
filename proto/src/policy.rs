//! Limits of the background work for an image, and how sure the core wants to be.

use std::time::Duration;

use jiff::Timestamp;

use crate::enumeration::enumeration;
use crate::time::{read_instant, read_length, write_instant, write_length};
use crate::{Invalid, wire};

/// Silence of a transfer after which an attempt is given up, where the core names none.
pub const USUAL_STALL_TIMEOUT: Duration = Duration::from_mins(5);

/// What the core may name.
pub const STALL_TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(10)..=Duration::from_hours(1);

enumeration! {
    /// How sure the core wants to be of an image. Without a digest every level means presence.
    VerificationLevel, VerificationLevel {
        /// The backend says that the image is there and usable.
        Presence = Presence,
        /// Size and digest that the backend reports are the expected ones.
        Metadata = Metadata,
        /// The bytes were read back and hashed.
        Content = Content,
    }
}

enumeration! {
    /// What to do with an image that has the display name and nobody's marker.
    AdoptPolicy, AdoptPolicy {
        /// Leave it alone.
        Never = Never,
        /// Take it over if digest, size and owner agree.
        Matching = Matching,
    }
}

/// Limits of the background work for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkPolicy {
    /// Silence of a transfer after which an attempt is given up.
    pub stall_timeout: Duration,
    /// Instant at which all work for the key stops; an active image stays active.
    pub deadline: Option<Timestamp>,
    /// A failed image with a lower attempt number is tried again.
    pub attempt_floor: u32,
    /// Wanted certainty.
    pub verification_level: VerificationLevel,
    /// Verify again unless that was done at or after this instant.
    pub verified_since: Option<Timestamp>,
    /// What to do with an image that has the display name and nobody's marker.
    pub adopt: AdoptPolicy,
}

impl Default for WorkPolicy {
    fn default() -> Self {
        Self {
            stall_timeout: USUAL_STALL_TIMEOUT,
            deadline: None,
            attempt_floor: 0,
            verification_level: VerificationLevel::Metadata,
            verified_since: None,
            adopt: AdoptPolicy::Never,
        }
    }
}

impl TryFrom<wire::WorkPolicy> for WorkPolicy {
    type Error = Invalid;

    fn try_from(message: wire::WorkPolicy) -> Result<Self, Invalid> {
        let usual = Self::default();
        let stall_timeout =
            read_length(message.stall_timeout, "stall_timeout")?.unwrap_or(usual.stall_timeout);
        if !STALL_TIMEOUTS.contains(&stall_timeout) {
            return Err(Invalid::field("stall_timeout", "must be from 10 s to 1 h"));
        }
        let unknown = |field| Invalid::field(field, "holds a value that is not known here");
        Ok(Self {
            stall_timeout,
            deadline: read_instant(message.deadline, "deadline")?,
            attempt_floor: u32::try_from(message.attempt_floor)
                .map_err(|_negative| Invalid::field("attempt_floor", "must not be negative"))?,
            verification_level: match message.verification_level {
                0 => usual.verification_level,
                number => VerificationLevel::from_number(number)
                    .ok_or_else(|| unknown("verification_level"))?,
            },
            verified_since: read_instant(message.verified_since, "verified_since")?,
            adopt: match message.adopt {
                0 => usual.adopt,
                number => AdoptPolicy::from_number(number).ok_or_else(|| unknown("adopt"))?,
            },
        })
    }
}

impl From<&WorkPolicy> for wire::WorkPolicy {
    fn from(policy: &WorkPolicy) -> Self {
        Self {
            stall_timeout: Some(write_length(policy.stall_timeout)),
            deadline: policy.deadline.map(write_instant),
            attempt_floor: i32::try_from(policy.attempt_floor).unwrap_or(i32::MAX),
            verification_level: policy.verification_level.number(),
            verified_since: policy.verified_since.map(write_instant),
            adopt: policy.adopt.number(),
        }
    }
}
