//! Building blocks for provider integrations of the Cluster Stack Operator.
//!
//! Today that is the downloader ([`download`], feature `download`), which the core uses as well.

#[cfg(feature = "download")]
pub mod download;
