//! What time it is: deadlines and times of verification are instants that the core names, so they go by the wall clock.

use jiff::Timestamp;
#[cfg(test)]
use tokio::time::Instant;

/// The wall clock, or in tests one that goes with the time of the runtime, which can be paused.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Clock {
    Wall,
    #[cfg(test)]
    Runtime(Timestamp, Instant),
}

impl Clock {
    #[cfg(test)]
    pub(crate) fn runtime(start: Timestamp) -> Self {
        Self::Runtime(start, Instant::now())
    }

    pub(crate) fn now(self) -> Timestamp {
        match self {
            Self::Wall => Timestamp::now(),
            #[cfg(test)]
            Self::Runtime(start, since) => start + since.elapsed(),
        }
    }
}
