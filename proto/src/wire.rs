//! The messages and services as they travel, generated from the proto files, and nothing else.
//!
//! Whoever speaks gRPC meets these types: the core's client, the server of the SDK, the conformance suite. Everybody else
//! works with the checked types of this crate. Nothing in a message has been checked: numbers may be negative, enum values
//! unknown, required fields absent.
//!
//! The generated code is committed, so no build needs protoc; a test regenerates and compares it.

use std::fmt;

#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes_without_reason,
    missing_docs,
    rustdoc::all,
    reason = "generated from the proto files, whose comments are kept as they are"
)]
mod generated {
    include!("gen/clusterstack.provider.v1alpha1.rs");
}

pub use generated::*;

/// The package of the contract; the version is part of the name.
pub const PACKAGE: &str = "clusterstack.provider.v1alpha1";

/// Descriptors of the package and of what it imports, for reflection and for comparing versions.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/clusterstack.provider.v1alpha1.binpb");

/// Largest message that anybody takes, in bytes: beyond it a call fails before it is read.
pub const MAX_RECEIVED_BYTES: usize = 4 << 20;

/// Stands in place of a secret wherever a message is printed.
const REDACTED: &str = "<redacted>";

/// Names of secrets are no secrets; their values are.
struct Redacted<'a>(&'a std::collections::BTreeMap<String, Vec<u8>>);

impl fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.keys().map(|name| (name, REDACTED)))
            .finish()
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("target_id", &self.target_id)
            .field("config", &self.config)
            .field("secrets", &Redacted(&self.secrets))
            .field("secrets_version", &self.secrets_version)
            .finish()
    }
}

impl fmt::Debug for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifact")
            .field("source", &self.source)
            .field("digest", &self.digest)
            .field("size_bytes", &self.size_bytes)
            .field("compression", &self.compression)
            .field("uncompressed_digest", &self.uncompressed_digest)
            .field("source_secrets", &Redacted(&self.source_secrets))
            .finish()
    }
}

// Left out together with the message that it is part of.
impl fmt::Debug for artifact::Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(source) => source.fmt(f),
            Self::Oci(source) => source.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_messages_hold_no_secret() {
        let secrets =
            std::collections::BTreeMap::from([("password".to_owned(), b"canary".to_vec())]);
        let request = EnsureImageRequest {
            target: Some(Target {
                secrets: secrets.clone(),
                ..Target::default()
            }),
            spec: Some(ImageSpec {
                artifact: Some(Artifact {
                    source_secrets: secrets,
                    ..Artifact::default()
                }),
                ..ImageSpec::default()
            }),
            ..EnsureImageRequest::default()
        };
        let printed = format!("{request:?} {request:#?}");
        assert!(printed.contains("password"), "{printed}");
        assert!(!printed.contains("canary"), "{printed}");
        // As numbers, which is how bytes print.
        assert!(!printed.contains("99, 97, 110"), "{printed}");
    }
}
