//! The suite's own artifacts: bytes of every disk format and a server that can misbehave on demand and counts what it serves.

mod answer;
mod content;
mod maker;
mod server;

pub(crate) use content::{Content, Offer};
pub use maker::{ArtifactMaker, BuiltIn, Image, Made};
pub(crate) use server::{Auth, Place, Served, Store, Via};

use sha2::{Digest, Sha256};

/// SHA-256 as lower-case hex.
pub(crate) fn hex_digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// SHA-256 in the form of the contract.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_digest(bytes))
}
