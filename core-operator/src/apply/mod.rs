//! Applying rendered objects to an API server, of the management cluster or of a workload cluster.
//!
//! ```text
//! rendered object ── manifest (checked, placed, marked) ──► plan (with live, rules, record) ──► write
//!                                                             ▲
//!                        watches of metadata ── live ─────────┘
//! ```

pub mod adopt;
pub mod discovery;
pub mod live;
pub mod manifest;
pub mod placement;
pub mod plan;
pub mod renewal;
pub mod write;

use sha2::{Digest as _, Sha256};

/// Field manager of all objects that come from releases.
pub const MANAGER: &str = "cluster-stack-operator";

/// Value of the label by which the objects of a release are found: 32 hexadecimal characters of a hash of its full
/// name, since names of releases may be longer than the 63 characters of a label value.
#[must_use]
pub fn release_hash(namespace: &str, name: &str) -> String {
    hex::encode(&Sha256::digest(format!("{namespace}/{name}"))[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_in_different_namespaces_have_different_hashes() {
        assert_ne!(
            release_hash("a", "docker-scs-1-30-v1"),
            release_hash("b", "docker-scs-1-30-v1")
        );
        assert_eq!(release_hash("a", "x").len(), 32);
    }
}
