//! What the core and every provider integration agree on: the provider contract, `docs/contract.md`.
//!
//! ```text
//!   bytes <──> wire (generated) <──> checked types <──> core, SDK, authors
//!                                        │
//!                          CallError, ProviderError ──> Recovery
//! ```
//!
//! - [`wire`]: messages and services as they travel. Nothing in them has been checked.
//! - Checked types: [`key`], [`target`], [`image`], [`policy`], [`observation`], [`info`], and whole requests and answers in
//!   [`request`]. Converting a message fails with an [`Invalid`] that names the field; nothing that a peer sends panics.
//! - [`error`]: what a provider says when something fails, and what a caller makes of a status; [`recovery`]: the one
//!   decision about the next attempt, for every failure anywhere.
//!
//! The crate does no I/O. Secrets never reach `Debug` or an error.

pub mod digest;
mod enumeration;
pub mod error;
pub mod image;
pub mod info;
mod invalid;
pub mod key;
pub mod observation;
pub mod policy;
pub mod reason;
pub mod recovery;
pub mod request;
mod structure;
pub mod target;
mod time;
pub mod wire;

pub use digest::Digest;
pub use error::{CallError, ProviderError};
pub use image::{
    Artifact, ArtifactKind, Compression, DiskFormat, HttpSource, ImageSpec, OciSource, Source,
};
pub use info::{Capability, Limits, ProviderInfo, SecretKey};
pub use invalid::Invalid;
pub use key::{ImageKey, InstallationId, Key, SpecDigest, TargetId};
pub use observation::{Observation, Progress, State, Verification};
pub use policy::{AdoptPolicy, VerificationLevel, WorkPolicy};
pub use reason::Reason;
pub use recovery::Recovery;
pub use target::{Secrets, Target};
