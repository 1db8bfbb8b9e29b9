//! The trait that makes a provider integration.
//!
//! An author says how *one* thing is done in a backend; when it is done, in which order, how often and for how long is the
//! SDK's business. So no method needs a lock, a retry, a queue or a memory of its own:
//!
//! ```text
//!   validate, resolve_images            questions of the core, answered at once
//!
//!   observe ──► transfer ──► verify     one worker for each image; hours, if need be
//!      │                       │
//!      │                 named, take_name, give_name      the name, under a lock for each name
//!      └──► delete
//! ```
//!
//! Methods are called with checked values, at most one of those that change an image at a time for one image, and again
//! after whatever went wrong: each starts with a look at what is there. A future that is dropped must stop its work, so
//! an author never spawns tasks that outlive a call.

mod found;
#[cfg(feature = "download")]
mod source;
mod work;

use std::pin::Pin;

use async_trait::async_trait;
use proto::request::{ReleaseIdentity, ResolvedImages, ValidatedTarget};
use proto::{
    ImageSpec, InstallationId, Key, ProviderError, ProviderInfo, Target, VerificationLevel,
};
use tokio::io::AsyncRead;

pub use found::{Found, Marker, Named, Phase, Transferred, Verified};
#[cfg(feature = "download")]
pub use source::source_error;
pub use work::{Progress, Work};

/// What the methods of a provider return.
pub type Result<T, E = ProviderError> = std::result::Result<T, E>;

/// Bytes of an image, as the backend holds them.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A provider integration: one backend, in terms of node images.
///
/// Whatever a method cannot do, it says with the [`ProviderError`] whose reason fits; the SDK derives from it whether and
/// when there is another attempt. A panic counts as [`proto::Reason::InternalBug`].
#[async_trait]
pub trait Provider: Send + Sync + 'static {
    /// Who this is and what it can do: the same each time. The SDK adds an id of the process.
    fn info(&self) -> ProviderInfo;

    /// Whether settings and credentials work, and which place they lead to. Creates nothing.
    ///
    /// The identity names the scope that is really reached (project and region, daemon): the same after a restart and
    /// with other credentials, another for any other scope.
    ///
    /// # Errors
    ///
    /// `config_invalid` (name the path), `backend_auth_failed`, `backend_unavailable`, …
    async fn validate(&self, target: &Target) -> Result<ValidatedTarget>;

    /// Whether an image could be made at all, beyond what the SDK knows from [`info`](Self::info): unknown options,
    /// reserved properties.
    ///
    /// # Errors
    ///
    /// `unsupported_artifact`, or `INVALID_FIELD` with the path of the field.
    fn validate_spec(&self, spec: &ImageSpec) -> Result<()> {
        let _ = spec;
        Ok(())
    }

    /// Which images a release needs at the target, read from its node-images file, which is not to be trusted. Creates
    /// nothing, fetches no image bytes; tags become digests. Not asked for a release without such a file, which needs none;
    /// the default is for providers that have no file format.
    ///
    /// # Errors
    ///
    /// `node_images_invalid`, `source_not_found`, …
    async fn resolve_images(
        &self,
        target: &Target,
        release: &ReleaseIdentity,
        node_images: &[u8],
    ) -> Result<ResolvedImages> {
        let _ = (target, release, node_images);
        Ok(ResolvedImages::default())
    }

    /// What carries our marker under this key, with whatever spec digest; of several the oldest finished one. Objects with
    /// another marker or none do not count. Changes nothing.
    ///
    /// # Errors
    ///
    /// `backend_auth_failed`, `backend_unavailable`, …; never because nothing is there.
    async fn observe(&self, target: &Target, marker: &Marker) -> Result<Option<Found>>;

    /// Brings the image into the backend and returns once the backend has it whole; may run for hours.
    ///
    /// What is there already is in [`Work::found`]: nothing, an empty record, something to resume or a task of the backend
    /// that runs. The record with marker and working name ([`Work::working_name`]) is made *before* any byte moves. Says
    /// to [`Work::progress`] how far it is: silence is taken for a stall. Credentials are asked for anew with
    /// [`Work::target`], as they may have changed.
    ///
    /// # Errors
    ///
    /// `source_*`, `backend_*`, `quota_exceeded`: tried again later. `digest_mismatch`, `size_mismatch`,
    /// `unsupported_artifact`, `content_rejected`: given up.
    async fn transfer(&self, work: &Work) -> Result<Transferred>;

    /// What the backend holds, checked at a level: a digest and size of the bytes *as the source serves them*. The SDK
    /// compares them with those that are expected, and removes what is wrong.
    ///
    /// [`Work::transferred`] tells what went through this process on the way in; after a restart that is gone, and only
    /// what the backend reports, or reading back, remains. The default takes [`Found::digest`] and
    /// [`Found::size_bytes`], and [`read_back`](Self::read_back) where they tell nothing.
    ///
    /// # Errors
    ///
    /// Whatever kept it from checking: tried again later. `digest_mismatch` where the comparison is its own.
    async fn verify(
        &self,
        work: &Work,
        found: &Found,
        level: VerificationLevel,
    ) -> Result<Verified> {
        crate::worker::by_report(self, work, found, level).await
    }

    /// Stores a finished verification beside the image, so that it is in [`Found::verification`] after a restart. Without
    /// it, an image is verified again after a restart of the provider.
    ///
    /// # Errors
    ///
    /// Whatever kept it from storing; the image is usable nevertheless.
    async fn remember(
        &self,
        target: &Target,
        marker: &Marker,
        done: &proto::Verification,
    ) -> Result<()> {
        let _ = (target, marker, done);
        Ok(())
    }

    /// Everything visible under exactly this name, whoever made it.
    ///
    /// # Errors
    ///
    /// Whatever kept it from looking.
    async fn named(&self, target: &Target, name: &str) -> Result<Vec<Named>>;

    /// Gives an image of ours its display name: a rename, or a tag that points to it. Nothing else has the name then.
    ///
    /// # Errors
    ///
    /// Whatever kept it from naming.
    async fn give_name(
        &self,
        target: &Target,
        marker: &Marker,
        id: &str,
        display_name: &str,
    ) -> Result<()>;

    /// Takes the display name from an image of ours: it gets its working name ([`Marker::working_name`]), or loses the tag.
    ///
    /// # Errors
    ///
    /// Whatever kept it from renaming.
    async fn take_name(
        &self,
        target: &Target,
        marker: &Marker,
        id: &str,
        display_name: &str,
    ) -> Result<()>;

    /// Removes all that carries our marker under this key, a name that it was given included, and nothing else. May return
    /// before the backend is done: the SDK observes afterwards. Nothing there is no failure.
    ///
    /// # Errors
    ///
    /// `image_in_use`, `backend_*`, …
    async fn delete(&self, target: &Target, marker: &Marker) -> Result<()>;

    /// All that carries the marker of an installation, finished or not. Needs [`proto::Capability::List`].
    ///
    /// # Errors
    ///
    /// Whatever kept it from looking.
    async fn list(
        &self,
        target: &Target,
        installation: &InstallationId,
    ) -> Result<Vec<(Key, Found)>> {
        let _ = (target, installation);
        Err(ProviderError::not_supported("images cannot be listed"))
    }

    /// Puts our marker on an object that has none, in one write; the SDK has compared it with the spec. Needs
    /// [`proto::Capability::Adopt`].
    ///
    /// # Errors
    ///
    /// `foreign_object` if it has got a marker by now, `backend_*`, …
    async fn adopt(
        &self,
        target: &Target,
        marker: &Marker,
        object: &Named,
        spec: &ImageSpec,
    ) -> Result<()> {
        let _ = (target, marker, object, spec);
        Err(ProviderError::not_supported("images cannot be adopted"))
    }

    /// The bytes of an object, for hashing what the backend has no digest of. Needed for adopting such objects.
    ///
    /// # Errors
    ///
    /// Whatever kept it from reading.
    async fn read_back(&self, target: &Target, id: &str) -> Result<Reader> {
        let _ = (target, id);
        Err(ProviderError::not_supported("images cannot be read back"))
    }
}
