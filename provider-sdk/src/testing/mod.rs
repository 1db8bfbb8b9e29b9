//! For tests: a whole provider whose backend is a folder, and a client over a pipe.
//!
//! [`Reference`] keeps all rules of the contract and downloads for real; what it stores survives its process, so it can be
//! killed at any moment. [`Directory`] is its backend, and what can be done to it behind the provider's back. [`connect`]
//! calls any provider without a network.

mod client;
mod directory;
mod fetch;
mod node_images;
mod reference;

pub use client::{Client, connect};
pub use directory::{Directory, Fault, Record};
pub use reference::{MARKER_PREFIX, PROJECT, Reference};

#[cfg(test)]
mod tests;
