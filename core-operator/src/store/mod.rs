//! To come.

pub mod dependencies;
