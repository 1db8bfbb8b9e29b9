//! Whether bytes are the right ones: what was seen against what was announced.

use proto::digest::Algorithm;
use proto::{
    Artifact, Compression, Digest, ImageSpec, ProviderError, Verification, VerificationLevel,
};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::AsyncReadExt as _;

use crate::clock::Clock;
use crate::provider::{Found, Named, Provider, Reader, Result, Verified, Work};

/// Bytes that are hashed at a time.
const CHUNK: usize = 256 << 10;

/// Compares what a provider saw with what was announced.
///
/// # Errors
///
/// `DIGEST_MISMATCH`, `SIZE_MISMATCH`; `INTERNAL_BUG` if less was checked than `wanted`.
pub(super) fn judge(
    artifact: &Artifact,
    wanted: VerificationLevel,
    seen: &Verified,
    clock: Clock,
) -> Result<Verification> {
    if let (Some(expected), Some(found)) = (artifact.size_bytes, seen.size_bytes)
        && expected != found
    {
        return Err(ProviderError::size_mismatch(format!(
            "the image has {found} bytes in place of {expected}"
        )));
    }
    let level = match (&artifact.digest, &seen.digest) {
        (Some(expected), Some(found)) if expected.algorithm() == found.algorithm() => {
            if expected != found {
                return Err(ProviderError::digest_mismatch(format!(
                    "the digest of the image is {found}, expected {expected}"
                )));
            }
            seen.level
        }
        _ => VerificationLevel::Presence,
    };
    if level < wanted {
        return Err(ProviderError::internal_bug(format!(
            "the provider checked the image at level {} in place of {}",
            level.name(),
            wanted.name()
        )));
    }
    Ok(Verification {
        level,
        observed_digest: seen
            .digest
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        observed_size_bytes: seen.size_bytes,
        verify_time: clock.now(),
    })
}

/// Checks an image by what the backend reports of its bytes, or by reading them back where that tells nothing.
///
/// # Errors
///
/// `DIGEST_MISMATCH` if the stored bytes are not those that came in; whatever kept it from reading back.
pub(crate) async fn by_report(
    provider: &(impl Provider + ?Sized),
    work: &Work,
    found: &Found,
    level: VerificationLevel,
) -> Result<Verified> {
    let artifact = &work.spec().artifact;
    let plain = artifact.compression == Compression::None;
    let brought = work.transferred();
    let expected = match (plain, &artifact.uncompressed_digest) {
        (true, _) => artifact.digest.as_ref(),
        (false, Some(digest)) => Some(digest),
        (false, None) => brought.and_then(|brought| brought.stored_digest.as_ref()),
    };
    let algorithm = expected.map(Digest::algorithm);
    let reported = found
        .digest
        .clone()
        .filter(|digest| algorithm.is_none_or(|wanted| digest.algorithm() == wanted));
    let needed = level == VerificationLevel::Content || algorithm.is_some() && reported.is_none();
    let (stored, size) = if needed && level > VerificationLevel::Presence {
        let reader = provider.read_back(&work.target(), &found.id).await?;
        let algorithm = algorithm.unwrap_or(Algorithm::Sha256);
        let (digest, size) = hash(reader, algorithm).await?;
        (Some(digest), Some(size))
    } else {
        (reported, found.size_bytes)
    };
    if plain {
        return Ok(Verified::new(level, stored, size));
    }
    // What was unpacked is compared with what is inside; only then the digest of what was served counts.
    if let (Some(expected), Some(stored)) = (expected, &stored)
        && expected != stored
    {
        return Err(ProviderError::digest_mismatch(format!(
            "the digest of the unpacked image is {stored}, expected {expected}"
        )));
    }
    let served = brought.and_then(|brought| brought.served_digest.clone());
    let known = artifact.uncompressed_digest.is_some() && stored.is_some();
    let served = served.or_else(|| artifact.digest.clone().filter(|_| known));
    let size = brought.and_then(|brought| brought.served_bytes);
    Ok(Verified::new(level, served, size))
}

/// What a stored object must look like to be taken over; absent if a spec does not say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Likeness<'a> {
    digest: &'a Digest,
    size_bytes: Option<u64>,
    spec: &'a ImageSpec,
}

impl<'a> Likeness<'a> {
    pub(super) fn of(spec: &'a ImageSpec) -> Option<Self> {
        let artifact = &spec.artifact;
        // Without the digest of the bytes as served there is no wish that could be fulfilled by stored ones.
        let served = artifact.digest.as_ref()?;
        let (digest, size_bytes) = if artifact.compression == Compression::None {
            (served, artifact.size_bytes)
        } else {
            (artifact.uncompressed_digest.as_ref()?, None)
        };
        Some(Self {
            digest,
            size_bytes,
            spec,
        })
    }

    /// Whether an object may be it, apart from its digest.
    pub(super) fn admits(&self, object: &Named) -> bool {
        object.marker.is_none()
            && object.local
            && object
                .disk_format
                .is_none_or(|format| format == self.spec.disk_format)
            && match (self.size_bytes, object.size_bytes) {
                (Some(expected), Some(found)) => expected == found,
                _ => true,
            }
    }

    /// Whether the digest that the backend reports is the one; absent if it reports none that can be compared.
    pub(super) fn known(&self, object: &Named) -> Option<bool> {
        object
            .digest
            .as_ref()
            .filter(|digest| digest.algorithm() == self.digest.algorithm())
            .map(|digest| digest == self.digest)
    }

    /// Whether bytes are the ones.
    pub(super) async fn matches(&self, reader: Reader) -> Result<bool> {
        let (digest, size) = hash(reader, self.digest.algorithm()).await?;
        Ok(digest == *self.digest && self.size_bytes.is_none_or(|expected| expected == size))
    }
}

/// Digest and size of what a reader yields.
///
/// # Errors
///
/// `BACKEND_UNAVAILABLE` if it breaks off.
pub async fn hash(mut reader: Reader, algorithm: Algorithm) -> Result<(Digest, u64)> {
    let (mut sha256, mut sha512) = (Sha256::new(), Sha512::new());
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let read = reader.read(&mut chunk).await.map_err(|error| {
            ProviderError::backend_unavailable("the image could not be read back")
                .with_metadata("cause", error.to_string())
        })?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        size += bytes.len() as u64;
        match algorithm {
            Algorithm::Sha512 => sha512.update(bytes),
            _ => sha256.update(bytes),
        }
    }
    let digest = match algorithm {
        Algorithm::Sha512 => Digest::new(Algorithm::Sha512, &sha512.finalize()),
        _ => Digest::new(Algorithm::Sha256, &sha256.finalize()),
    };
    let digest =
        digest.ok_or_else(|| ProviderError::internal_bug("a hash has the wrong length"))?;
    Ok((digest, size))
}
