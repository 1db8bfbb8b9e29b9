//! How a reconcile's result gets into the status: only when something has changed, and not every passing state.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A state that passes within this time is not written: nobody sees it, and a write costs more than the work.
pub const PASSING: Duration = Duration::from_millis(300);

/// Since when a status differs from what is written, by UID.
#[derive(Debug, Default)]
pub struct Held(Mutex<HashMap<String, Instant>>);

impl Held {
    /// How long a passing state is still to be held back; `None` when it is to be written now.
    pub fn remaining(&self, uid: &str) -> Option<Duration> {
        let now = Instant::now();
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *since.entry(uid.to_owned()).or_insert(now);
        let remaining = PASSING.saturating_sub(now.duration_since(since));
        (!remaining.is_zero()).then_some(remaining)
    }

    /// The status is written, or differs no more.
    pub fn forget(&self, uid: &str) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.remove(uid);
    }
}

/// The message of an error with those of its causes, as far as they say something new.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_states_that_last_are_written() {
        let held = Held::default();
        assert_eq!(held.remaining("a"), Some(PASSING));
        tokio::time::advance(PASSING / 3).await;
        assert_eq!(
            held.remaining("a"),
            Some(PASSING.checked_sub(PASSING / 3).unwrap())
        );
        tokio::time::advance(PASSING).await;
        assert_eq!(held.remaining("a"), None);
        held.forget("a");
        assert_eq!(held.remaining("a"), Some(PASSING));
    }
}
