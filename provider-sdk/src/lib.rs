//! Building blocks for provider integrations of the Cluster Stack Operator.
//!
//! - `provider` (feature `provider`): the trait that an author implements.
//! - `server`: both services of the contract over it, and the workers that bring images.
//! - `serve` (feature `serve`): a provider as a process.
//! - `download` (feature `download`): the downloader, which the core uses as well.
//! - `conformance` (feature `conformance`): the suite that judges any provider, in any language.

#[cfg(feature = "provider")]
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "provider")]
pub mod provider;
#[cfg(feature = "provider")]
mod redact;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "provider")]
pub mod server;
#[cfg(feature = "provider")]
mod worker;

#[cfg(feature = "provider")]
pub use provider::Provider;
#[cfg(feature = "serve")]
pub use serve::serve;
#[cfg(feature = "provider")]
pub use worker::hash;
