//! The work for one image, as its author sees it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proto::{HttpSource, ImageSpec, ProviderError, SpecDigest, Target};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::load::Load;

use super::{Found, Marker, Result, Transferred};

/// One attempt to bring an image to a place.
#[derive(Debug)]
pub struct Work {
    pub(crate) target: watch::Receiver<Arc<Target>>,
    pub(crate) marker: Marker,
    pub(crate) spec: Arc<ImageSpec>,
    pub(crate) attempt: u32,
    pub(crate) found: Option<Found>,
    pub(crate) transferred: Option<Transferred>,
    pub(crate) progress: Progress,
}

impl Work {
    /// A first attempt that finds nothing, has one set of credentials and is watched by nobody: for an author's own tests.
    #[must_use]
    pub fn new(target: Target, marker: Marker, spec: ImageSpec) -> Self {
        // A receiver shows the last value also when nobody can send another.
        let (_sender, target) = watch::channel(Arc::new(target));
        Self {
            target,
            marker,
            spec: Arc::new(spec),
            attempt: 1,
            found: None,
            transferred: None,
            progress: Progress::new(),
        }
    }

    /// Where to, with the newest credentials: ask anew before each longer step.
    #[must_use]
    pub fn target(&self) -> Arc<Target> {
        Arc::clone(&self.target.borrow())
    }

    /// What has to stand on the object.
    #[must_use]
    pub const fn marker(&self) -> &Marker {
        &self.marker
    }

    /// What the image is to be.
    #[must_use]
    pub fn spec(&self) -> &ImageSpec {
        &self.spec
    }

    /// The spec as a hash, as it stands in the marker.
    ///
    /// # Errors
    ///
    /// There is none; work that the SDK hands out has one.
    pub fn spec_digest(&self) -> Result<&SpecDigest> {
        self.marker
            .spec_digest()
            .ok_or_else(|| ProviderError::internal_bug("work without a spec digest"))
    }

    /// Where the bytes are, for a provider that takes files behind HTTP.
    ///
    /// # Errors
    ///
    /// They are somewhere else; a provider that announces no other kind is not handed such work.
    pub fn http(&self) -> Result<&HttpSource> {
        self.spec.http().ok_or_else(|| {
            ProviderError::unsupported_artifact("the artifact is no file behind HTTP")
        })
    }

    /// The name under which the object is made.
    #[must_use]
    pub fn working_name(&self) -> String {
        self.marker.working_name(&self.spec.display_name)
    }

    /// Number of the attempt, from 1.
    #[must_use]
    pub const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// What was there when the attempt began.
    #[must_use]
    pub const fn found(&self) -> Option<&Found> {
        self.found.as_ref()
    }

    /// What the transfer of this process saw; absent if another one brought the bytes.
    #[must_use]
    pub const fn transferred(&self) -> Option<&Transferred> {
        self.transferred.as_ref()
    }

    /// Where to say how far it is.
    #[must_use]
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }
}

/// Tells how far a transfer is; cheap, clones tell the same one.
#[derive(Debug, Clone)]
pub struct Progress(Arc<Mutex<Current>>, Arc<Load>);

#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub(crate) id: String,
    pub(crate) backend_status: String,
    pub(crate) bytes_done: u64,
    pub(crate) bytes_total: Option<u64>,
    /// The backend works by itself, on bytes that it has.
    pub(crate) processing: bool,
    /// Nobody can say whether bytes move.
    pub(crate) unmeasured: bool,
    pub(crate) advanced: Instant,
    /// Whether any byte has moved.
    pub(crate) moved: bool,
}

impl Progress {
    /// Of something whose bytes do not count as moved to the backend.
    pub(crate) fn new() -> Self {
        Self::counted(Arc::default())
    }

    /// Of a transfer, whose bytes are counted in `load`.
    pub(crate) fn counted(load: Arc<Load>) -> Self {
        let current = Current {
            id: String::new(),
            backend_status: String::new(),
            bytes_done: 0,
            bytes_total: None,
            processing: false,
            unmeasured: false,
            advanced: Instant::now(),
            moved: false,
        };
        Self(Arc::new(Mutex::new(current)), load)
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // No code that panics runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn current(&self) -> Current {
        self.lock().clone()
    }

    /// Time since something moved, if that can be told at all.
    pub(crate) fn silence(&self) -> Option<Duration> {
        let current = self.lock();
        (!current.unmeasured).then(|| current.advanced.elapsed())
    }

    /// How many bytes have moved.
    #[must_use]
    pub fn bytes_done(&self) -> u64 {
        self.lock().bytes_done
    }

    /// The identifier in the backend, as soon as it is known.
    pub fn set_id(&self, id: impl Into<String>) {
        self.lock().id = id.into();
    }

    /// The status word of the backend, for people.
    pub fn set_status(&self, status: impl Into<String>) {
        self.lock().backend_status = status.into();
    }

    /// How many bytes there are in all.
    pub fn set_total(&self, bytes: u64) {
        self.lock().bytes_total = Some(bytes);
    }

    /// So many more bytes have moved.
    pub fn add(&self, bytes: u64) {
        let mut current = self.lock();
        let done = current.bytes_done.saturating_add(bytes);
        self.advance(&mut current, done);
    }

    /// So many bytes have moved since the transfer began; fewer than before is nothing new.
    pub fn set_done(&self, bytes: u64) {
        self.advance(&mut self.lock(), bytes);
    }

    fn advance(&self, current: &mut Current, bytes: u64) {
        let Some(new) = bytes.checked_sub(current.bytes_done).filter(|new| *new > 0) else {
            return;
        };
        current.bytes_done = bytes;
        current.advanced = Instant::now();
        current.moved = true;
        // What the backend does with bytes that it has is no transfer.
        if !current.processing {
            self.1.moved(new);
        }
    }

    /// The backend fetches by itself and tells no bytes: only the deadline ends it.
    pub fn unmeasured(&self) {
        self.lock().unmeasured = true;
    }

    /// All bytes are there; the backend imports or converts them. Bytes are counted anew from here, if it tells any;
    /// without, only the deadline ends it.
    pub fn processing(&self) {
        let mut current = self.lock();
        if !current.processing {
            current.processing = true;
            current.unmeasured = true;
            current.bytes_done = 0;
            current.bytes_total = None;
            current.moved = false;
        }
    }
}
