//! What a provider sees in its backend.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use proto::{
    Digest, DiskFormat, ImageKey, InstallationId, Key, ProviderError, SpecDigest, Verification,
    VerificationLevel,
};

/// What stands on every object that we make: by it we know it again. An object without it is foreign.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Marker {
    /// Name of the provider.
    pub provider: String,
    /// Whose image it is.
    pub installation: InstallationId,
    /// Which image; the digest is absent where any spec is meant.
    pub image_key: ImageKey,
}

impl Marker {
    /// The marker of an image.
    #[must_use]
    pub fn new(
        provider: impl Into<String>,
        installation: InstallationId,
        image_key: ImageKey,
    ) -> Self {
        Self {
            provider: provider.into(),
            installation,
            image_key,
        }
    }

    /// The key.
    #[must_use]
    pub const fn key(&self) -> &Key {
        &self.image_key.key
    }

    /// The spec, as a hash.
    #[must_use]
    pub const fn spec_digest(&self) -> Option<&SpecDigest> {
        self.image_key.spec_digest.as_ref()
    }

    /// What the image is called while it does not carry its display name. No identity.
    #[must_use]
    pub fn working_name(&self, display_name: &str) -> String {
        self.key().working_name(display_name)
    }

    /// Whether both are of one image, whatever their spec digests.
    #[must_use]
    pub fn same_image(&self, other: &Self) -> bool {
        self.same_owner(other) && self.key() == other.key()
    }

    /// Whether both are of one provider and installation.
    #[must_use]
    pub fn same_owner(&self, other: &Self) -> bool {
        self.provider == other.provider && self.installation == other.installation
    }
}

impl fmt::Display for Marker {
    /// Provider, installation and key: what tells one image from any other at a place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.provider, self.installation, self.key())
    }
}

/// How far an object is, as the backend tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// A record without bytes, which a transfer can fill.
    Reserved,
    /// Some bytes and nobody who brings more. A transfer goes on with them where `Capability::Resume` is announced; else
    /// they are removed first.
    Partial,
    /// The backend fetches or converts by itself, now. A transfer joins that.
    Running,
    /// All bytes are there, and the backend says that they can be used.
    Complete,
    /// It cannot be used and will not get better: refused, deactivated, import given up. Say why in [`Found::error`].
    Broken,
    /// It is being removed.
    Deleting,
}

/// An object of ours.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Found {
    /// Identifier in the backend.
    pub id: String,
    /// The spec digest in its marker.
    pub spec_digest: SpecDigest,
    /// How far it is.
    pub phase: Phase,
    /// Status word of the backend, for people.
    pub backend_status: String,
    /// The display name, while the object carries it; absent while it carries its working name.
    pub published_name: Option<String>,
    /// Size of the stored bytes, if the backend tells it.
    pub size_bytes: Option<u64>,
    /// Digest of the stored bytes, if the backend tells it.
    pub digest: Option<Digest>,
    /// What is known of an earlier verification, from [`remember`](super::Provider::remember), or because the backend
    /// itself takes nothing unverified.
    pub verification: Option<Verification>,
    /// Why it is broken, or what the backend complains about.
    pub error: Option<ProviderError>,
    /// Values for consumers, not secret.
    pub outputs: BTreeMap<String, String>,
    /// When it was made.
    pub create_time: Option<Timestamp>,
}

impl Found {
    /// An object of which nothing more is known.
    #[must_use]
    pub fn new(id: impl Into<String>, spec_digest: SpecDigest, phase: Phase) -> Self {
        Self {
            id: id.into(),
            spec_digest,
            phase,
            backend_status: String::new(),
            published_name: None,
            size_bytes: None,
            digest: None,
            verification: None,
            error: None,
            outputs: BTreeMap::new(),
            create_time: None,
        }
    }
}

/// An object with a name that is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Named {
    /// Identifier in the backend.
    pub id: String,
    /// The marker that it carries; of backends with tags, the marker of the image that the name was given to.
    pub marker: Option<Marker>,
    /// Whether it belongs to the place itself, and is not shared from elsewhere.
    pub local: bool,
    /// Size of the stored bytes, if the backend tells it.
    pub size_bytes: Option<u64>,
    /// Digest of the stored bytes, if the backend tells it.
    pub digest: Option<Digest>,
    /// Format, if the backend tells it.
    pub disk_format: Option<DiskFormat>,
}

impl Named {
    /// An object of the place, with this marker or none.
    #[must_use]
    pub fn new(id: impl Into<String>, marker: Option<Marker>) -> Self {
        Self {
            id: id.into(),
            marker,
            local: true,
            size_bytes: None,
            digest: None,
            disk_format: None,
        }
    }
}

/// What went through the process while an image was brought in; all absent where the backend fetches by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Transferred {
    /// Digest of the bytes as served: the function of the artifact's digest, SHA-256 if it has none.
    pub served_digest: Option<Digest>,
    /// Size as served, in bytes.
    pub served_bytes: Option<u64>,
    /// Digest of the bytes as stored, with the function that the backend uses.
    pub stored_digest: Option<Digest>,
    /// Size as stored, in bytes.
    pub stored_bytes: Option<u64>,
}

impl Transferred {
    /// Bytes that were stored as they were served.
    #[must_use]
    pub fn unchanged(digest: Digest, bytes: u64) -> Self {
        Self::default()
            .served_as(digest.clone(), bytes)
            .stored_as(digest, bytes)
    }

    /// The same with digest and size of the bytes as served.
    #[must_use]
    pub fn served_as(mut self, digest: Digest, bytes: u64) -> Self {
        self.served_digest = Some(digest);
        self.served_bytes = Some(bytes);
        self
    }

    /// The same with digest and size of the bytes as stored.
    #[must_use]
    pub fn stored_as(mut self, digest: Digest, bytes: u64) -> Self {
        self.stored_digest = Some(digest);
        self.stored_bytes = Some(bytes);
        self
    }
}

/// What a verification saw.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// How sure it is.
    pub level: VerificationLevel,
    /// Digest of the bytes as the source serves them, in the function of the artifact's digest.
    pub digest: Option<Digest>,
    /// Size as the source serves them, in bytes.
    pub size_bytes: Option<u64>,
}

impl Verified {
    /// Checked at a level, with what was seen.
    #[must_use]
    pub const fn new(
        level: VerificationLevel,
        digest: Option<Digest>,
        size_bytes: Option<u64>,
    ) -> Self {
        Self {
            level,
            digest,
            size_bytes,
        }
    }
}
