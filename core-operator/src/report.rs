//! How a reconcile's result gets into the status: only when something has changed, and not every passing state.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A state that passes within this time is not written: nobody sees it, and a write costs more than the work.
pub const PASSING: Duration = Duration::from_millis(300);

/// What each further object that is on its way at the same time adds: the more there are, the longer each takes, and
/// writing how far they are would make it longer still. About what an API server on two cores needs for all of it.
const EACH: Duration = Duration::from_millis(20);

/// Longest time for which nothing is said.
const LONGEST: Duration = Duration::from_secs(3);

/// Since when a status differs from what is written, by UID.
#[derive(Debug, Default)]
pub struct Held(Mutex<Holding>);

#[derive(Debug, Default)]
struct Holding {
    since: HashMap<String, Instant>,
    /// The most at one time since there were none.
    most: u32,
}

impl Held {
    /// How long a passing state is still to be held back; `None` when it is to be written now.
    pub fn remaining(&self, uid: &str) -> Option<Duration> {
        let now = Instant::now();
        let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *holding.since.entry(uid.to_owned()).or_insert(now);
        let count = u32::try_from(holding.since.len()).unwrap_or(u32::MAX);
        holding.most = holding.most.max(count);
        let patience = PASSING + EACH.saturating_mul(holding.most - 1);
        let remaining = patience
            .min(LONGEST)
            .saturating_sub(now.duration_since(since));
        (!remaining.is_zero()).then_some(remaining)
    }

    /// The status is written, or differs no more.
    pub fn forget(&self, uid: &str) {
        let mut holding = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holding.since.remove(uid);
        if holding.since.is_empty() {
            holding.most = 0;
        }
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

    #[tokio::test(start_paused = true)]
    async fn states_of_many_may_take_longer_until_all_have_passed() {
        let held = Held::default();
        for uid in 0..11 {
            held.remaining(&uid.to_string());
        }
        assert_eq!(held.remaining("0"), Some(PASSING + 10 * EACH));
        for uid in 1..11 {
            held.forget(&uid.to_string());
        }
        assert_eq!(held.remaining("0"), Some(PASSING + 10 * EACH));
        held.forget("0");
        assert_eq!(held.remaining("0"), Some(PASSING));
        for uid in 0..1000 {
            held.remaining(&uid.to_string());
        }
        assert_eq!(held.remaining("0"), Some(LONGEST));
    }
}
