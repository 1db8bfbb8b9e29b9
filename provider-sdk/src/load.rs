//! What the workers of a process do, as numbers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the workers of a process do, as numbers.
#[derive(Debug, Default)]
pub struct Load {
    transfers: AtomicU64,
    transferred: AtomicU64,
}

impl Load {
    /// Transfers that run now.
    #[must_use]
    pub fn transfers(&self) -> u64 {
        self.transfers.load(Ordering::Relaxed)
    }

    /// Bytes that have moved to the backend since the start, those of attempts that failed included.
    #[must_use]
    pub fn transferred_bytes(&self) -> u64 {
        self.transferred.load(Ordering::Relaxed)
    }

    /// A transfer runs for as long as the guard lives.
    pub(crate) fn begin(self: &Arc<Self>) -> Transferring {
        self.transfers.fetch_add(1, Ordering::Relaxed);
        Transferring(Arc::clone(self))
    }

    pub(crate) fn moved(&self, bytes: u64) {
        self.transferred.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Counts a transfer for as long as it lives.
#[derive(Debug)]
pub(crate) struct Transferring(Arc<Load>);

impl Drop for Transferring {
    fn drop(&mut self) {
        self.0.transfers.fetch_sub(1, Ordering::Relaxed);
    }
}
