//! Tests.

pub mod stacks;
