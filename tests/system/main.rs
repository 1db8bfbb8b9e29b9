//! The life of stacks and releases: the real operator, under its own role, against a real API server.
//!
//! Most tests share a management cluster in which the test bed plays Cluster API ([`scene`]); those that stop an operator or
//! need the real Cluster API share another ([`apart`]).
#![expect(
    clippy::unwrap_used,
    reason = "all of this is a test, which Clippy sees of functions with #[test] only"
)]

mod apart;
mod certificates;
mod conflict;
mod deletion;
mod drift;
mod fixtures;
mod owners;
mod prune;
mod quiet;
mod ready;
mod real;
mod restart;
mod rules;
mod scene;
mod stack;
mod take_over;
mod wanted;
