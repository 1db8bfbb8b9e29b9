//! Core.
fn main() {}
