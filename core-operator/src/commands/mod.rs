//! Subcommands of the core's program.

pub mod admission;
pub mod crd;
