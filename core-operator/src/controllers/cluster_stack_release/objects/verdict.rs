//! What the decisions about a release's objects mean for people.

use super::wanted::Wanted;
use crate::{
    apply::{plan::Decision, write::shown},
    conditions::{Verdict, reason},
};

/// What is wrong with an object, for people.
pub(super) fn problem(object: &Wanted, decision: &Decision) -> Option<String> {
    let shown = shown(object.manifest.identity());
    match decision {
        Decision::Keep | Decision::Leave | Decision::Apply { .. } => None,
        Decision::Report { what, .. } => Some(format!("{shown} {what}")),
        Decision::Conflict { owner } => Some(format!("{shown} is there and is {owner}")),
        Decision::Immutable => Some(format!(
            "{shown} was changed under its name by the release (\"{}\"): Machines made from it would not follow, so the \
             author must give it a new name",
            object.manifest.source()
        )),
        Decision::Wait => Some(format!("{shown} is being deleted")),
    }
}

/// Longest list of problems in one message.
const LISTED: usize = 5;

/// Whether all objects are as wanted, and if not, what comes first.
pub(super) fn applied(wanted: &[Wanted], decisions: &[Decision]) -> Verdict {
    let problems = |choose: fn(&Decision) -> bool| {
        let chosen: Vec<_> = wanted
            .iter()
            .zip(decisions)
            .filter(|(_, decision)| choose(decision))
            .filter_map(|(object, decision)| problem(object, decision))
            .collect();
        let rest = chosen.len().saturating_sub(LISTED);
        let mut text = chosen[..chosen.len() - rest].join("; ");
        if rest > 0 {
            text = format!("{text}; and {rest} more");
        }
        (!chosen.is_empty()).then_some(text)
    };
    if let Some(text) = problems(|decision| matches!(decision, Decision::Conflict { .. })) {
        return Verdict::no(reason::CONFLICT, text);
    }
    if let Some(text) = problems(|decision| matches!(decision, Decision::Immutable)) {
        return Verdict::no(reason::IMMUTABLE_CHANGED, text);
    }
    if let Some(text) = problems(|decision| matches!(decision, Decision::Wait)) {
        return Verdict::no(reason::APPLYING, text);
    }
    if let Some(text) =
        problems(|decision| matches!(decision, Decision::Report { missing: true, .. }))
    {
        return Verdict::no(reason::DRIFTED, text);
    }
    if let Some(text) = problems(|decision| matches!(decision, Decision::Report { .. })) {
        return Verdict {
            message: text,
            ..Verdict::yes(reason::DRIFTED)
        };
    }
    Verdict::yes(reason::APPLIED)
}
