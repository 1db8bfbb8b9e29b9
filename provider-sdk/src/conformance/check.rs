//! What a check is and how it ends.

use std::{fmt::Display, future::Future, pin::Pin};

use super::{case::Case, hooks::Hook, options::Level, run::Run};

/// Whether a provider has to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Always.
    Must,
    /// Better.
    Should,
    /// If the capability is advertised, the limit stated, the sample given.
    Conditional,
}

/// What a check takes, which says what may run beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    /// No transfer, or none that lasts.
    Light,
    /// This many transfers at once.
    Transfers(u32),
    /// Nothing else may run: restarts, floods, an unreachable backend.
    Alone,
}

/// A failed expectation, in words for the provider's author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What the suite did.
    pub sent: String,
    /// What the contract says about it.
    pub expected: String,
    /// What happened.
    pub came: String,
}

/// Why a check was not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotRun {
    /// Not advertised, or another condition of the contract is not met; does not count.
    NotApplicable(String),
    /// Something that the run was not given; a MUST makes the verdict incomplete.
    Missing(String),
    /// The filter of the run; a MUST makes the verdict incomplete.
    LeftOut,
}

/// The end of a check before its end.
#[derive(Clone, Debug)]
pub(crate) enum Stop {
    Failed(Box<Finding>),
    NotRun(NotRun),
}

/// How a check ends.
pub(crate) type Verdict<T = ()> = Result<T, Stop>;

/// A failed expectation.
pub(crate) fn failed(sent: impl Display, expected: impl Display, came: impl Display) -> Stop {
    Stop::Failed(Box::new(Finding {
        sent: sent.to_string(),
        expected: expected.to_string(),
        came: came.to_string(),
    }))
}

/// Fails unless it holds.
pub(crate) fn expect(
    holds: bool,
    sent: impl Display,
    expected: impl Display,
    came: impl Display,
) -> Verdict {
    if holds {
        Ok(())
    } else {
        Err(failed(sent, expected, came))
    }
}

/// The condition of the check is not met by this provider.
pub(crate) fn not_applicable(reason: impl Display) -> Stop {
    Stop::NotRun(NotRun::NotApplicable(reason.to_string()))
}

/// The run was not given what the check needs.
pub(crate) fn missing(reason: impl Display) -> Stop {
    Stop::NotRun(NotRun::Missing(reason.to_string()))
}

pub(crate) type Running<'a> = Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// The steps of a check.
pub(crate) type Steps = for<'a> fn(&'a Case) -> Running<'a>;

/// Looks at the whole run after it.
pub(crate) type Look = fn(&Run) -> Verdict;

/// One check of the contract.
pub(crate) struct Check {
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    pub(crate) duty: Duty,
    pub(crate) hooks: &'static [Hook],
    pub(crate) load: Load,
    /// Paragraphs of the contract that it follows from.
    pub(crate) paragraph: &'static str,
    pub(crate) steps: Option<Steps>,
    pub(crate) look: Option<Look>,
}
