//! Blocking work, on threads for it, and not on all of them at once.

use std::sync::Arc;

use tokio::{sync::Semaphore, task::spawn_blocking};

use super::StoreError;

/// A few threads for work that waits for the disk. Cheap to clone: clones share the limit.
#[derive(Debug, Clone)]
pub(super) struct Workers {
    permits: Arc<Semaphore>,
}

impl Workers {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(threads.max(1))),
        }
    }

    /// Runs to its end, even if nobody waits any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        // The semaphore is never closed: without a permit the work merely has one thread more.
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let work = move || {
            let result = work();
            drop(permit);
            result
        };
        spawn_blocking(work)
            .await
            .map_err(|source| StoreError::Stop { source })
    }
}
