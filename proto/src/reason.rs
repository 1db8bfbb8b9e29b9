//! Reasons of failures, as they stand in error details of the provider contract and in metrics.
//!
//! One reason belongs to exactly one class; see `docs/architecture.md` for what a user does about each.

/// An artifact is not where the release says that it is.
pub const SOURCE_NOT_FOUND: &str = "SOURCE_NOT_FOUND";
/// The host of an artifact refuses the credentials, or wants some.
pub const SOURCE_DENIED: &str = "SOURCE_DENIED";
/// The host of an artifact does not answer, or not now.
pub const SOURCE_UNAVAILABLE: &str = "SOURCE_UNAVAILABLE";
/// The bytes of an artifact are not those that were announced.
pub const DIGEST_MISMATCH: &str = "DIGEST_MISMATCH";
/// The number of bytes of an artifact is not the one that was announced.
pub const SIZE_MISMATCH: &str = "SIZE_MISMATCH";
/// An artifact is larger than allowed.
pub const SIZE_LIMIT_EXCEEDED: &str = "SIZE_LIMIT_EXCEEDED";
/// An artifact is not of the announced kind, such as a web page in place of an archive.
pub const CONTENT_REJECTED: &str = "CONTENT_REJECTED";
