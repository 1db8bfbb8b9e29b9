//! Building blocks for provider integrations of the Cluster Stack Operator.
//!
//! - `provider` (feature `provider`): the trait that an author implements.
//! - `serve` (feature `serve`): a provider as a process.
//! - `download` (feature `download`): the downloader, which the core uses as well.
//! - `conformance` (feature `conformance`): the suite that judges any provider, in any language.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "provider")]
pub mod provider;
#[cfg(feature = "serve")]
pub mod serve;

#[cfg(feature = "provider")]
pub use provider::Provider;
