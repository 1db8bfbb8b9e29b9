//! What we hold once the lease is ours: renewed in the background, lost by the clock, given back at the end.

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Held, Lease, Renewal, RequestError};
use crate::report::chain;

/// We lead, until [`Leadership::lost`] is cancelled.
///
/// Dropped without [`Leadership::release`], it ends at once but is not given back: whoever drops it by accident may
/// have work under way, so a successor waits until the lease expires.
#[must_use = "leadership ends when this is dropped"]
pub struct Leadership {
    fence: Fence,
    release: CancellationToken,
    task: JoinHandle<()>,
}

impl Leadership {
    /// Starts to renew.
    pub(super) fn start(lease: Lease, held: Held) -> Self {
        let lost = CancellationToken::new();
        let release = CancellationToken::new();
        let (valid_until, fence) = watch::channel(held.since + lease.config.renew_deadline);
        let task = tokio::spawn(hold(
            lease,
            held,
            valid_until,
            lost.clone(),
            release.clone(),
        ));
        Self {
            fence: Fence {
                lost,
                valid_until: fence,
            },
            release,
            task,
        }
    }

    /// Cancelled when we do not lead any more. Then the process must end, without waiting for anything.
    #[must_use]
    pub fn lost(&self) -> &CancellationToken {
        &self.fence.lost
    }

    /// To be asked before each write to the outside.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Gives the lease back, so that a successor takes over at its next look. For a graceful stop, *after* all work
    /// has stopped. Ends within three request time-outs (half a renew deadline each).
    pub async fn release(mut self) {
        self.release.cancel();
        if let Err(error) = (&mut self.task).await {
            warn!(%error, "lease task broke");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        // First: a task that never ran has nothing that would cancel it.
        self.fence.lost.cancel();
        self.task.abort();
    }
}

/// Tells whether we still lead, by the clock and not only by the token.
///
/// A process that stood still (stopped, swapped out, starved) wakes up with a token that nobody had the time to
/// cancel; the clock is right at once.
#[derive(Debug, Clone)]
pub struct Fence {
    lost: CancellationToken,
    valid_until: watch::Receiver<Instant>,
}

impl Fence {
    /// True while no other replica can have taken over.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.lost.is_cancelled() && Instant::now() < *self.valid_until.borrow()
    }
}

/// Renews until the lease is lost or is to be given back.
async fn hold(
    lease: Lease,
    mut held: Held,
    valid_until: watch::Sender<Instant>,
    lost: CancellationToken,
    release: CancellationToken,
) {
    // However this task ends, nobody may go on believing.
    let _lost = lost.clone().drop_guard();
    let config = &lease.config;
    let mut next = held.since + config.retry;
    loop {
        let deadline = held.since + config.renew_deadline;
        let renewal = async {
            sleep_until(next.min(deadline)).await;
            // The deadline also cuts a renewal that is under way: its answer would come too late to count.
            if Instant::now() < deadline {
                timeout_at(deadline, lease.renew(&held)).await.ok()
            } else {
                None
            }
        };
        let renewal = tokio::select! {
            biased;
            () = release.cancelled() => {
                lost.cancel();
                return lease.give_back(&held).await;
            }
            renewal = renewal => renewal,
        };
        match renewal {
            Some(Renewal::Renewed(renewed)) => {
                next = renewed.since + config.retry;
                valid_until.send_replace(renewed.since + config.renew_deadline);
                held = renewed;
                lease.show(None);
            }
            Some(Renewal::Failed(error)) => {
                warn!(
                    lease = config.name,
                    error = chain(&error),
                    "lease not renewed"
                );
                next = Instant::now() + config.retry;
                lease.show(Some(&error));
            }
            Some(Renewal::Taken(holder)) => {
                warn!(lease = config.name, holder, "lease lost: taken");
                return;
            }
            None => {
                warn!(lease = config.name, deadline = ?config.renew_deadline, "lease lost: not renewed in time");
                return lease.show(Some(&RequestError::TimeOut(config.renew_deadline)));
            }
        }
    }
}
