//! What we know of applied objects beyond the inventory: versions, and who fights with us over them.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::{apply::plan::Applied, helm::ObjectIdentity};

/// Longest time between two corrections of an object that somebody else keeps changing.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// After this time without a correction, the next one is the first again.
const FORGET: Duration = Duration::from_mins(5);

/// What was applied for each release, by its UID. Lost with the process: the inventory has what a restart needs.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<String, HashMap<ObjectIdentity, Entry>>>);

/// How long the watch may take to show what was applied.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Entry {
    applied: Option<(Applied, Instant)>,
    /// Whether the watch has shown the object since.
    shown: bool,
    corrections: u32,
    corrected: Option<Instant>,
}

/// What is remembered of an object, seen with what the watch shows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// What the API server said when we last applied it.
    pub applied: Applied,
    /// For an object that the watch has not shown yet: how long that may still take.
    pub awaited: Option<Duration>,
}

impl Memory {
    /// What is remembered of an object of which the watch shows this UID, if any.
    #[must_use]
    pub fn recall(
        &self,
        release: &str,
        object: &ObjectIdentity,
        live: Option<&str>,
    ) -> Option<Remembered> {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = memory.get_mut(release)?.get_mut(object)?;
        let (applied, when) = entry.applied.clone()?;
        entry.shown |= live == Some(applied.uid.as_str());
        let rest = SHOWN_WITHIN.saturating_sub(when.elapsed());
        let awaited = (!entry.shown && !rest.is_zero()).then_some(rest);
        Some(Remembered { applied, awaited })
    }

    /// An object was applied.
    pub fn remember(&self, release: &str, object: &ObjectIdentity, applied: Applied) {
        self.entry(release, object, |entry| {
            let known = entry.applied.as_ref().map(|(applied, _)| &applied.uid);
            entry.shown &= known == Some(&applied.uid);
            entry.applied = Some((applied, Instant::now()));
        });
    }

    /// Asks whether an object that somebody changed may be corrected now; if so, that counts as done.
    ///
    /// The first correction is immediate. Against somebody who changes it again and again, the pauses grow from one
    /// second to a minute.
    ///
    /// # Errors
    ///
    /// The time to wait.
    pub fn correct(&self, release: &str, object: &ObjectIdentity) -> Result<(), Duration> {
        let now = Instant::now();
        self.entry(release, object, |entry| {
            let since = entry
                .corrected
                .map(|corrected| now.duration_since(corrected));
            if since.is_none_or(|since| since > FORGET) {
                entry.corrections = 0;
            }
            let pause = match entry.corrections {
                0 => Duration::ZERO,
                corrections => {
                    Duration::from_secs(1 << (corrections - 1).min(6)).min(LONGEST_PAUSE)
                }
            };
            let rest = pause.saturating_sub(since.unwrap_or(pause));
            if !rest.is_zero() {
                return Err(rest);
            }
            entry.corrections += 1;
            entry.corrected = Some(now);
            Ok(())
        })
    }

    /// The release is gone.
    pub fn forget(&self, release: &str) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(release);
    }

    fn entry<T>(
        &self,
        release: &str,
        object: &ObjectIdentity,
        change: impl FnOnce(&mut Entry) -> T,
    ) -> T {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let objects = memory.entry(release.to_owned()).or_default();
        change(objects.entry(object.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object() -> ObjectIdentity {
        ObjectIdentity {
            group: String::new(),
            kind: "K".to_owned(),
            namespace: None,
            name: "a".to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn object_is_awaited_until_the_watch_shows_it() {
        let (memory, object) = (Memory::default(), object());
        let applied = Applied {
            uid: "u".to_owned(),
            ..Applied::default()
        };
        memory.remember("r", &object, applied.clone());
        let awaited = |live| memory.recall("r", &object, live).unwrap().awaited;
        assert_eq!(awaited(None), Some(SHOWN_WITHIN));
        assert_eq!(awaited(Some("predecessor")), Some(SHOWN_WITHIN));
        assert_eq!(awaited(Some("u")), None);
        assert_eq!(awaited(None), None);
        memory.remember(
            "r",
            &object,
            Applied {
                uid: "v".to_owned(),
                ..applied
            },
        );
        assert_eq!(awaited(None), Some(SHOWN_WITHIN));
        tokio::time::advance(SHOWN_WITHIN).await;
        assert_eq!(awaited(None), None);
    }

    #[tokio::test(start_paused = true)]
    async fn fights_over_an_object_slow_down_and_are_forgotten() {
        let (memory, object) = (Memory::default(), object());
        let correct = || memory.correct("r", &object);
        assert_eq!(correct(), Ok(()));
        assert_eq!(correct(), Err(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(correct(), Ok(()));
        assert_eq!(correct(), Err(Duration::from_secs(2)));
        tokio::time::advance(FORGET + Duration::from_secs(1)).await;
        assert_eq!(correct(), Ok(()));
        assert_eq!(correct(), Err(Duration::from_secs(1)));
    }
}
