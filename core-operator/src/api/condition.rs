//! Conditions as they stand in the status of our kinds.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// One observation of an object's state, in the shape of `metav1.Condition`.
///
/// Only `type` and `status` are required, because conditions that the Go operator wrote have no reason; they are
/// read, never kept: every report of ours replaces them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(transform = with_severity)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What is observed, in CamelCase. True is good, except for Paused and DeletionBlocked.
    #[serde(rename = "type")]
    #[schemars(length(max = 316))]
    pub type_: String,
    /// True, False or Unknown.
    #[schemars(length(max = 16))]
    pub status: String,
    /// One word in CamelCase for why the status is as it is, and so for what to do about it.
    #[serde(default)]
    #[schemars(length(max = 1024))]
    pub reason: String,
    /// Details for a human reader.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,
    /// The generation of the object that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When the status last changed.
    #[serde(default = "epoch")]
    pub last_transition_time: Time,
}

/// The Go operator's conditions have it: where the schema does not know a field, `kubectl apply` of a backup fails.
fn with_severity(schema: &mut Schema) {
    if let Some(properties) = schema.get_mut("properties") {
        properties["severity"] = json!({
            "type": "string",
            "maxLength": 32,
            "description": "Written by the Go operator, ignored.",
        });
    }
}

fn epoch() -> Time {
    Time(Timestamp::UNIX_EPOCH)
}
