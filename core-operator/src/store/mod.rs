//! What releases need beside their own files.

pub mod dependencies;
