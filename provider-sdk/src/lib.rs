// The example in there needs the trait.
#![cfg_attr(feature = "provider", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "provider"),
    doc = "Building blocks for provider integrations of the Cluster Stack Operator."
)]

#[cfg(feature = "provider")]
mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "download")]
pub mod download;
#[cfg(feature = "provider")]
mod load;
#[cfg(feature = "provider")]
pub mod provider;
#[cfg(feature = "provider")]
mod redact;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "provider")]
pub mod server;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "provider")]
mod worker;

#[cfg(feature = "provider")]
pub use load::Load;
#[cfg(feature = "provider")]
pub use provider::Provider;
#[cfg(feature = "serve")]
pub use serve::serve;
#[cfg(feature = "provider")]
pub use worker::hash;
