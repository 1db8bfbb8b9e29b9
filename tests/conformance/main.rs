//! The conformance suite judged itself: a provider of which everything is right passes, each of many that are wrong in one thing
//! is caught by the check that is there for it, and a provider in another language passes as well.

mod broken;
mod python;
mod sham;
mod whole;
