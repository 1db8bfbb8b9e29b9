//! Building blocks for provider integrations of the Cluster Stack Operator.
//!
//! Today that is the downloader (feature `download`), which the core uses as well, and the suite that judges any provider,
//! in any language (feature `conformance`).

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "download")]
pub mod download;
