//! Subcommands of the core's program.

pub mod crd;
