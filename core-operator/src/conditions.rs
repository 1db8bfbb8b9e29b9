//! Types and reasons of conditions, and how a set of them is written.
//!
//! A condition says what is so now; its reason says what to do about it. A failure never reads True.

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

/// Reason: Cluster API has not looked at the newest state of the `ClusterClass` yet; does its manager run?
pub const CLASS_NOT_OBSERVED: &str = "ClassNotObserved";
/// Reason: Cluster API cannot work out the variables of the `ClusterClass`; its author must act.
pub const CLASS_VARIABLES_NOT_READY: &str = "ClassVariablesNotReady";

/// Reason: the release has objects of kinds that this management cluster does not know; install what brings them.
pub const KIND_NOT_SERVED: &str = "KindNotServed";
/// Reason: the operator lacks rights on objects of the release; give it a role.
pub const FORBIDDEN: &str = "Forbidden";
/// Reason: Cluster API refuses every `ClusterClass`; switch its feature `ClusterTopology` on.
pub const CLUSTER_TOPOLOGY_DISABLED: &str = "ClusterTopologyDisabled";
/// Reason: Cluster API calls no hooks, which the addon stages of the release need; switch its feature `RuntimeSDK` on.
pub const RUNTIME_SDK_DISABLED: &str = "RuntimeSDKDisabled";

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
    pub reason: &'static str,
    /// Details for a human reader.
    pub message: String,
}

impl Verdict {
    /// It is so.
    #[must_use]
    pub const fn yes(reason: &'static str) -> Self {
        Self {
            status: Status::True,
            reason,
            message: String::new(),
        }
    }

    /// It is not so.
    #[must_use]
    pub fn no(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::False,
            reason,
            message: message.into(),
        }
    }

    /// It cannot be told.
    #[must_use]
    pub fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: Status::Unknown,
            reason,
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

/// The conditions to write: the given verdicts in their order, and nothing of what stood there before.
///
/// The transition time of a condition moves only if its status does.
#[must_use]
pub fn write(
    previous: &[Condition],
    verdicts: impl IntoIterator<Item = (&'static str, Verdict)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .into_iter()
        .map(|(type_, verdict)| {
            let status = verdict.status.as_str();
            let since = previous
                .iter()
                .find(|condition| condition.type_ == type_ && condition.status == status)
                .map_or(Time(now), |condition| {
                    condition.last_transition_time.clone()
                });
            let mut message = verdict.message;
            if message.len() > LONGEST_MESSAGE {
                message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - '…'.len_utf8()));
                message.push('…');
            }
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.to_owned(),
                message,
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
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
        let first = write(&[], [(READY, Verdict::no("Waiting", "a"))], Some(1), at(1));
        let same = write(
            &first,
            [(READY, Verdict::no("Broken", "b"))],
            Some(2),
            at(2),
        );
        assert_eq!(same[0].last_transition_time, Time(at(1)));
        assert_eq!(
            (same[0].reason.as_str(), same[0].observed_generation),
            ("Broken", Some(2))
        );
        let other = write(&same, [(READY, Verdict::yes("Ready"))], Some(2), at(3));
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
        let new = write(&old, [(READY, Verdict::yes("Ready"))], Some(1), at(5));
        assert_eq!(new.len(), 1);
        assert_eq!(new[0].last_transition_time, old[1].last_transition_time);
        assert!(is_true(&new, READY));
    }

    #[test]
    fn long_message_is_cut_at_a_character() {
        let long = "ü".repeat(LONGEST_MESSAGE);
        let written = write(&[], [(READY, Verdict::no("Broken", long))], None, at(1));
        assert!(written[0].message.len() <= LONGEST_MESSAGE);
        assert!(written[0].message.ends_with('…'));
    }
}
