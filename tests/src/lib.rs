//! Test bed of the project.

pub mod stacks;
