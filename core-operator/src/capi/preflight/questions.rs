//! Questions to the API server whose answers hold for a while.
//!
//! Equal questions at the same time are asked once, by whoever comes first; the others wait for that answer. The lock
//! is held to look things up, never while a question is on its way.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::Instant;

use super::PreflightError;

/// What was found out, and for how long that holds.
#[derive(Debug, Clone)]
pub(super) struct Told<T> {
    pub value: T,
    /// Zero for an answer that only those get who wait for it now.
    pub holds: Duration,
}

/// An answer, and how it was come by.
pub(super) struct Answer<T> {
    pub value: T,
    /// Somebody else asked, at the same time.
    pub shared: bool,
}

type Asking<T> = BoxFuture<'static, Result<Told<T>, PreflightError>>;

/// The questions of one kind, by what they are about.
pub(super) struct Questions<T> {
    state: Arc<Mutex<State<T>>>,
}

struct State<T> {
    questions: HashMap<String, Question<T>>,
    asked: u64,
}

struct Question<T> {
    told: Option<(Told<T>, Instant)>,
    /// The question that is on its way, with its number.
    running: Option<(u64, WeakShared<Asking<T>>)>,
}

impl<T: Clone + Send + Sync + 'static> Questions<T> {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                questions: HashMap::new(),
                asked: 0,
            })),
        }
    }

    /// The answer as it is remembered, unless it is older than `longest_age`, or else a new one.
    pub(super) async fn ask(
        &self,
        about: &str,
        longest_age: Duration,
        ask: impl FnOnce() -> Asking<T>,
    ) -> Result<Answer<T>, PreflightError> {
        let (running, shared) = {
            let mut state = lock(&self.state);
            let question = state.questions.get(about);
            if let Some((told, since)) = question.and_then(|question| question.told.as_ref())
                && since.elapsed() < told.holds.min(longest_age)
            {
                return Ok(Answer {
                    value: told.value.clone(),
                    shared: false,
                });
            }
            match question.and_then(Question::running) {
                Some(running) => (running, true),
                None => (self.start(&mut state, about, ask()), false),
            }
        };
        let told = running.await?;
        Ok(Answer {
            value: told.value,
            shared,
        })
    }

    /// The next one asks, whatever is remembered or on its way.
    pub(super) fn forget(&self, about: &str) {
        lock(&self.state).questions.remove(about);
    }

    /// Forgets every answer.
    pub(super) fn forget_all(&self) {
        lock(&self.state).questions.clear();
    }

    fn start(&self, state: &mut State<T>, about: &str, asking: Asking<T>) -> Shared<Asking<T>> {
        state.asked += 1;
        let (number, shared_state, key) = (state.asked, Arc::clone(&self.state), about.to_owned());
        let running = async move {
            let result = asking.await;
            let mut state = lock(&shared_state);
            // Not if it was forgotten meanwhile: the answer may be from before that.
            if let Some(question) = state.questions.get_mut(&key)
                && question
                    .running
                    .as_ref()
                    .is_some_and(|(own, _)| *own == number)
            {
                question.running = None;
                if let Ok(told) = &result {
                    question.told = Some((told.clone(), Instant::now()));
                }
            }
            result
        };
        let running = running.boxed().shared();
        state.questions.retain(|_, question| question.is_alive());
        let question = state.questions.entry(about.to_owned()).or_insert(Question {
            told: None,
            running: None,
        });
        question.running = running.downgrade().map(|weak| (number, weak));
        running
    }
}

impl<T: Clone> Question<T> {
    fn running(&self) -> Option<Shared<Asking<T>>> {
        self.running.as_ref()?.1.upgrade()
    }

    fn is_alive(&self) -> bool {
        let holds = |(told, since): &(Told<T>, Instant)| since.elapsed() < told.holds;
        self.told.as_ref().is_some_and(holds) || self.running().is_some()
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    // Every change under the lock is complete in itself: a panic elsewhere leaves nothing half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
