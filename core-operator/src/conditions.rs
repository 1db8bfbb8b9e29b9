//! Types and reasons of conditions, and how a set of them is written.
//!
//! A condition says what is so now; its reason says what to do about it. A failure never reads True.

pub mod reason;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::api::Condition;

/// Everything that a user wants of the object is so. Computed last, from the others.
pub const READY: &str = "Ready";
/// Nothing is written for this object, because it is paused or being moved away.
pub const PAUSED: &str = "Paused";
/// The object is to be deleted, and something that uses it keeps it.
pub const DELETION_BLOCKED: &str = "DeletionBlocked";

/// `ClusterStack`: at least one release is Ready.
pub const RELEASE_AVAILABLE: &str = "ClusterStackReleaseAvailable";
/// `ClusterStack`: a `ClusterStackRelease` exists for each wanted version, and none for an unwanted one.
pub const RELEASES_SYNCED: &str = "ClusterStackReleasesSynced";
/// `ClusterStack`: the source of releases answers.
pub const SOURCE_AVAILABLE: &str = "AssetsClientAPIAvailable";
/// `ClusterStack`: the list of releases is the source's newest.
pub const LISTING_SYNCED: &str = "ReleasesSynced";

/// `ClusterStackRelease`: all files of the release are in the store, verified and valid.
pub const DOWNLOADED: &str = "ClusterStackReleaseDownloaded";
/// `ClusterStackRelease`: the provider integration answers.
pub const PROVIDER_READY: &str = "ProviderReady";
/// `ClusterStackRelease`: all node images are active; True without a provider, too.
pub const IMAGES_READY: &str = "ProviderClusterStackReleaseReady";
/// `ClusterStackRelease`: the API server has taken all objects of the release as it wants them.
pub const APPLIED: &str = "HelmChartApplied";

/// Reasons of states that pass by themselves, mostly within a blink.
pub const PASSING: [&str; 6] = [
    reason::PENDING,
    reason::DOWNLOADING,
    reason::APPLYING,
    reason::SYNCING,
    reason::CLASS_NOT_READY,
    reason::CLASS_NOT_OBSERVED,
];

/// The status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is so.
    True,
    /// It is not so.
    False,
    /// It cannot be told.
    Unknown,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What a condition shall say, before it is compared with what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is so.
    pub status: Status,
    /// One word for what to do about it.
    pub reason: Cow<'static, str>,
    /// Details for a human reader.
    pub message: String,
}

impl Verdict {
    /// It is so.
    #[must_use]
    pub fn yes(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status: Status::True,
            reason: reason.into(),
            message: String::new(),
        }
    }

    /// It is not so.
    #[must_use]
    pub fn no(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status: Status::False,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// It cannot be told.
    #[must_use]
    pub fn unknown(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self {
            status: Status::Unknown,
            reason: reason.into(),
            message: message.into(),
        }
    }

    /// Whether it is so.
    #[must_use]
    pub fn is_true(&self) -> bool {
        self.status == Status::True
    }
}

/// Longest message of a condition, in bytes; the rest is cut at a character.
const LONGEST_MESSAGE: usize = 4096;

fn cut(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - '…'.len_utf8()));
        message.push('…');
    }
    message
}

/// The conditions to write: the given verdicts in their order, and no type beside them.
///
/// Without a verdict a condition stays as it was, or is Unknown if there was none (or one of the Go operator's, without a
/// reason). The transition time of a condition moves only if its status does.
#[must_use]
pub fn write(
    previous: &[Condition],
    verdicts: impl IntoIterator<Item = (&'static str, Option<Verdict>)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|(type_, verdict)| {
            let kept = previous
                .iter()
                .find(|condition| condition.type_ == type_ && !condition.reason.is_empty());
            if let (None, Some(kept)) = (&verdict, kept) {
                return kept.clone();
            }
            let verdict = verdict.unwrap_or_else(|| Verdict::unknown(reason::PENDING, ""));
            let status = verdict.status.as_str();
            let since = previous
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == status)
                .map_or(Time(now), |condition| {
                    condition.last_transition_time.clone()
                });
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.into_owned(),
                message: cut(verdict.message),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// The conditions with trouble of our own told in [`READY`]: the verdict stands, for nothing new is known about the object.
#[must_use]
pub fn with_trouble(
    previous: &[Condition],
    trouble: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let status = status(previous, READY).unwrap_or(Status::Unknown);
    let reason = match status {
        Status::True => reason::READY,
        Status::False | Status::Unknown => reason::OPERATOR_TROUBLE,
    };
    let verdict = Verdict {
        status,
        reason: reason.into(),
        message: trouble.to_owned(),
    };
    let mut conditions = write(previous, [(READY, Some(verdict))], generation, now);
    let others = previous.iter().filter(|it| it.type_ != READY);
    conditions.extend(others.cloned());
    conditions
}

/// Start of the note that a status was refused.
const REFUSED_STATUS: &str = "the API server refuses the rest of this status";

/// The conditions with the note in [`READY`] that the rest of the status was refused, in the API server's words.
#[must_use]
pub fn with_refusal(mut conditions: Vec<Condition>, refusal: &str) -> Vec<Condition> {
    for condition in &mut conditions {
        if condition.type_ == READY {
            // A condition without a new verdict still has the note of last time.
            let before = condition.message.split(REFUSED_STATUS).next();
            let before = before.unwrap_or_default().trim_end_matches("; ");
            let separator = if before.is_empty() { "" } else { "; " };
            condition.message = cut(format!(
                "{before}{separator}{REFUSED_STATUS}, are the CRDs those of this operator (core-operator crd)? {refusal}"
            ));
        }
    }
    conditions
}

/// The condition of this type, if it is there.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// What the condition of this type says, if it is there.
#[must_use]
pub fn status(conditions: &[Condition], type_: &str) -> Option<Status> {
    Some(match find(conditions, type_)?.status.as_str() {
        "True" => Status::True,
        "False" => Status::False,
        _ => Status::Unknown,
    })
}

/// Whether the condition of this type is True.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first = write(
            &[],
            [(READY, Some(Verdict::no("Waiting", "a")))],
            Some(1),
            at(1),
        );
        let same = write(
            &first,
            [(READY, Some(Verdict::no("Broken", "b")))],
            Some(2),
            at(2),
        );
        assert_eq!(same[0].last_transition_time, Time(at(1)));
        assert_eq!(
            (same[0].reason.as_str(), same[0].observed_generation),
            ("Broken", Some(2))
        );
        let other = write(
            &same,
            [(READY, Some(Verdict::yes("Ready")))],
            Some(2),
            at(3),
        );
        assert_eq!(other[0].last_transition_time, Time(at(3)));
    }

    #[test]
    fn conditions_of_the_go_operator_are_read_and_then_replaced_whole() {
        let old: Vec<Condition> = serde_json::from_value(serde_json::json!([
            {"type": "HookServerReady", "status": "False", "severity": "Info",
             "lastTransitionTime": "2026-11-22T14:36:48Z"},
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T14:36:50Z"},
        ]))
        .unwrap();
        let new = write(&old, [(READY, Some(Verdict::yes("Ready")))], Some(1), at(5));
        assert_eq!(new.len(), 1);
        assert_eq!(new[0].last_transition_time, old[1].last_transition_time);
        assert!(is_true(&new, READY));
    }

    #[test]
    fn condition_without_a_verdict_stays_or_is_unknown() {
        let first = write(&[], [(READY, Some(Verdict::yes("Ready")))], Some(1), at(1));
        let types = [(READY, None), (PAUSED, None)];
        let second = write(&first, types, Some(2), at(2));
        assert_eq!(second[0], first[0]);
        assert_eq!(second[1].status, "Unknown");
    }

    #[test]
    fn trouble_is_told_and_the_verdict_stands() {
        for (verdict, expected) in [
            (Verdict::yes("Ready"), ("True", "Ready")),
            (Verdict::no("Conflict", "a"), ("False", "OperatorTrouble")),
            (
                Verdict::unknown("Pending", ""),
                ("Unknown", "OperatorTrouble"),
            ),
        ] {
            let types = [(READY, Some(verdict)), (PAUSED, None)];
            let before = write(&[], types, Some(1), at(1));
            let after = with_trouble(&before, "internal error", Some(1), at(2));
            let ready = find(&after, READY).unwrap();
            assert_eq!((ready.status.as_str(), ready.reason.as_str()), expected);
            assert_eq!(ready.message, "internal error");
            assert_eq!(ready.last_transition_time, Time(at(1)));
            assert_eq!(find(&after, PAUSED), find(&before, PAUSED));
            // Told once.
            assert_eq!(
                with_trouble(&after, "internal error", Some(1), at(3)),
                after
            );
        }
        assert_eq!(
            with_trouble(&[], "internal error", None, at(1))[0].status,
            "Unknown"
        );
    }

    #[test]
    fn refusal_is_noted_once_and_beside_what_else_there_is_to_say() {
        let before = write(
            &[],
            [(READY, Some(Verdict::no("Conflict", "a is there")))],
            Some(1),
            at(1),
        );
        let first = with_refusal(before, "hashes: too many");
        let message = &first[0].message;
        assert!(
            message.starts_with("a is there; the API server refuses")
                && message.ends_with("too many"),
            "{message}"
        );
        assert_eq!(with_refusal(first.clone(), "hashes: too many"), first);
        let other = with_refusal(first, "digest: too long");
        assert!(!other[0].message.contains("hashes"), "{other:?}");
    }

    #[test]
    fn long_message_is_cut_at_a_character() {
        let long = "ü".repeat(LONGEST_MESSAGE);
        let written = write(
            &[],
            [(READY, Some(Verdict::no("Broken", long)))],
            None,
            at(1),
        );
        assert!(written[0].message.len() <= LONGEST_MESSAGE);
        assert!(written[0].message.ends_with('…'));
    }
}
