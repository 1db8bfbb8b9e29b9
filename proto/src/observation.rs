//! What a provider sees of one image: state, progress, certainty, failure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::image::{signed, unsigned};
use crate::key::ImageKey;
use crate::policy::VerificationLevel;
use crate::time::{read_instant, read_length, write_instant, write_length};
use crate::{Invalid, ProviderError, wire};

/// Longest identifier of an image in its backend, in characters.
pub const MAX_PROVIDER_IMAGE_ID: usize = 512;
/// Longest status word of a backend, in characters.
pub const MAX_BACKEND_STATUS: usize = 64;
/// Most outputs.
pub const MAX_OUTPUTS: usize = 32;
/// Largest outputs together, names included, in bytes.
pub const MAX_OUTPUTS_BYTES: usize = 4 << 10;

/// Where an image is in its life (contract, section 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum State {
    /// Nothing exists and nothing is running.
    Absent,
    /// Accepted; waiting for a slot or for the next attempt.
    Pending,
    /// Bytes are moving to the backend.
    Transferring,
    /// The backend is importing or converting.
    Processing,
    /// Size or digest is being checked.
    Verifying,
    /// Usable, and verified at the recorded level.
    Active,
    /// Given up; only a higher attempt floor, a new key or deletion moves it.
    Failed,
    /// Being removed.
    Deleting,
    /// One of a later version, by its number: unfinished.
    Later(i32),
}

impl State {
    fn read(number: i32) -> Self {
        use wire::image_observation::State as Wire;
        match Wire::try_from(number) {
            Ok(Wire::Absent) => Self::Absent,
            Ok(Wire::Pending) => Self::Pending,
            Ok(Wire::Transferring) => Self::Transferring,
            Ok(Wire::Processing) => Self::Processing,
            Ok(Wire::Verifying) => Self::Verifying,
            Ok(Wire::Active) => Self::Active,
            Ok(Wire::Failed) => Self::Failed,
            Ok(Wire::Deleting) => Self::Deleting,
            Ok(Wire::Unspecified) | Err(_) => Self::Later(number),
        }
    }

    fn number(self) -> i32 {
        use wire::image_observation::State as Wire;
        match self {
            Self::Absent => Wire::Absent.into(),
            Self::Pending => Wire::Pending.into(),
            Self::Transferring => Wire::Transferring.into(),
            Self::Processing => Wire::Processing.into(),
            Self::Verifying => Wire::Verifying.into(),
            Self::Active => Wire::Active.into(),
            Self::Failed => Wire::Failed.into(),
            Self::Deleting => Wire::Deleting.into(),
            Self::Later(number) => number,
        }
    }

    /// The state as users see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "Absent",
            Self::Pending => "Pending",
            Self::Transferring => "Transferring",
            Self::Processing => "Processing",
            Self::Verifying => "Verifying",
            Self::Active => "Active",
            Self::Failed => "Failed",
            Self::Deleting => "Deleting",
            Self::Later(_) => "Unknown",
        }
    }
}

/// How far a phase is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes done in this phase.
    pub bytes_done: u64,
    /// Bytes in all; absent while unknown.
    pub bytes_total: Option<u64>,
    /// When `bytes_done` last grew.
    pub advance_time: Option<Timestamp>,
}

/// A finished verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// What was checked.
    pub level: VerificationLevel,
    /// Digest that was seen, in the form of the artifact's; empty if none was.
    pub observed_digest: String,
    /// Size that was seen, in bytes.
    pub observed_size_bytes: Option<u64>,
    /// When it was finished.
    pub verify_time: Timestamp,
}

/// What a provider sees of one image.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// Which image; the digest is the stored one.
    pub image_key: ImageKey,
    /// Where it is in its life.
    pub state: State,
    /// Identifier in the backend; empty while there is none.
    pub provider_image_id: String,
    /// Status word of the backend, for people.
    pub backend_status: String,
    /// Number of the attempt; zero before anything was accepted.
    pub attempt: u32,
    /// How far the current phase is.
    pub progress: Option<Progress>,
    /// Why it failed, why the last attempt did not succeed, or why an active image is not published.
    pub error: Option<ProviderError>,
    /// When the core should call again; absent: its own choice.
    pub next_call_delay: Option<Duration>,
    /// The last finished verification.
    pub verification: Option<Verification>,
    /// Values for consumers.
    pub outputs: BTreeMap<String, String>,
    /// Whether the image, and no other visible one, carries the display name.
    pub published: bool,
    /// When the key was first accepted.
    pub create_time: Option<Timestamp>,
    /// When something in here last changed.
    pub update_time: Option<Timestamp>,
}

impl Observation {
    /// An image in this state, of which nothing else is known.
    #[must_use]
    pub const fn new(image_key: ImageKey, state: State) -> Self {
        Self {
            image_key,
            state,
            provider_image_id: String::new(),
            backend_status: String::new(),
            attempt: 0,
            progress: None,
            error: None,
            next_call_delay: None,
            verification: None,
            outputs: BTreeMap::new(),
            published: false,
            create_time: None,
            update_time: None,
        }
    }
}

impl TryFrom<wire::ImageObservation> for Observation {
    type Error = Invalid;

    fn try_from(message: wire::ImageObservation) -> Result<Self, Invalid> {
        let image_key: ImageKey = message
            .image_key
            .ok_or_else(|| Invalid::required("image_key"))?
            .try_into()
            .map_err(|invalid: Invalid| invalid.within("image_key"))?;
        for (field, text, longest) in [
            (
                "provider_image_id",
                &message.provider_image_id,
                MAX_PROVIDER_IMAGE_ID,
            ),
            (
                "backend_status",
                &message.backend_status,
                MAX_BACKEND_STATUS,
            ),
        ] {
            if text.chars().count() > longest {
                return Err(Invalid::too_large(field, format!("{longest} characters")));
            }
        }
        let bytes: usize = message.outputs.iter().map(|(k, v)| k.len() + v.len()).sum();
        if message.outputs.len() > MAX_OUTPUTS || bytes > MAX_OUTPUTS_BYTES {
            return Err(Invalid::too_large(
                "outputs",
                format!("{MAX_OUTPUTS} entries or {} KiB", MAX_OUTPUTS_BYTES >> 10),
            ));
        }
        Ok(Self {
            image_key,
            state: State::read(message.state),
            provider_image_id: message.provider_image_id,
            backend_status: message.backend_status,
            attempt: u32::try_from(message.attempt)
                .map_err(|_negative| Invalid::field("attempt", "must not be negative"))?,
            progress: message.progress.map(read_progress).transpose()?,
            error: message
                .error
                .map(|status| {
                    ProviderError::of_rpc_status(&status)
                        .ok_or_else(|| Invalid::field("error", "holds no reason of the contract"))
                })
                .transpose()?,
            next_call_delay: read_length(message.next_call_delay, "next_call_delay")?,
            verification: message.verification.map(read_verification).transpose()?,
            outputs: message.outputs,
            published: message.published,
            create_time: read_instant(message.create_time, "create_time")?,
            update_time: read_instant(message.update_time, "update_time")?,
        })
    }
}

fn read_progress(message: wire::Progress) -> Result<Progress, Invalid> {
    let within = |invalid: Invalid| invalid.within("progress");
    Ok(Progress {
        bytes_done: unsigned(message.bytes_done, "bytes_done").map_err(within)?,
        bytes_total: Some(unsigned(message.bytes_total, "bytes_total").map_err(within)?)
            .filter(|total| *total > 0),
        advance_time: read_instant(message.advance_time, "advance_time").map_err(within)?,
    })
}

fn read_verification(message: wire::Verification) -> Result<Verification, Invalid> {
    let within = |invalid: Invalid| invalid.within("verification");
    Ok(Verification {
        level: VerificationLevel::from_number(message.level)
            .ok_or_else(|| within(Invalid::field("level", "is not known here")))?,
        observed_digest: if message.observed_digest.len() > 256 {
            return Err(within(Invalid::too_large("observed_digest", "256 bytes")));
        } else {
            message.observed_digest
        },
        observed_size_bytes: Some(
            unsigned(message.observed_size_bytes, "observed_size_bytes").map_err(within)?,
        )
        .filter(|size| *size > 0),
        verify_time: read_instant(message.verify_time, "verify_time")
            .map_err(within)?
            .ok_or_else(|| within(Invalid::required("verify_time")))?,
    })
}

impl From<&Observation> for wire::ImageObservation {
    fn from(seen: &Observation) -> Self {
        Self {
            image_key: Some((&seen.image_key).into()),
            state: seen.state.number(),
            provider_image_id: seen.provider_image_id.clone(),
            backend_status: seen.backend_status.clone(),
            attempt: i32::try_from(seen.attempt).unwrap_or(i32::MAX),
            progress: seen.progress.as_ref().map(|progress| wire::Progress {
                bytes_done: signed(progress.bytes_done),
                bytes_total: signed(progress.bytes_total.unwrap_or_default()),
                advance_time: progress.advance_time.map(write_instant),
            }),
            error: seen.error.as_ref().map(ProviderError::to_rpc_status),
            next_call_delay: seen.next_call_delay.map(write_length),
            verification: seen.verification.as_ref().map(|done| wire::Verification {
                level: done.level.number(),
                observed_digest: done.observed_digest.clone(),
                observed_size_bytes: signed(done.observed_size_bytes.unwrap_or_default()),
                verify_time: Some(write_instant(done.verify_time)),
            }),
            outputs: seen.outputs.clone(),
            published: seen.published,
            create_time: seen.create_time.map(write_instant),
            update_time: seen.update_time.map(write_instant),
        }
    }
}
