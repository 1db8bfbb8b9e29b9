//! What the core and every provider integration agree on.
//!
//! The crate does no I/O. Today it holds the classes into which every failure falls ([`recovery`]) and the
//! reasons that providers give ([`reason`]); the messages and services of the contract join them here.

pub mod reason;
pub mod recovery;
pub mod wire;

pub use recovery::Recovery;
