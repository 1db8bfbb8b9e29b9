//! The conformance suite judged itself: a provider of which everything is right passes, each of many that are wrong in one thing
//! is caught by the check that is there for it, and a provider in another language passes as well.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is a test, which Clippy sees of functions with #[test] only"
)]

mod broken;
mod python;
mod sham;
mod whole;
