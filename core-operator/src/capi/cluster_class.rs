//! A ClusterClass, as far as it is used here, and when it is ready for Clusters.

use kube::{ResourceExt as _, core::ObjectMeta};
use serde::{Deserialize, Serialize};

use super::{dynamic_resource, lenient};
use crate::{
    api::RELEASE_ANNOTATION,
    conditions::reason::{CLASS_NOT_OBSERVED, CLASS_VARIABLES_NOT_READY},
};

/// Says that the variables of a class are known; v1beta2 and v1beta1.
const VARIABLE_CONDITIONS: [&str; 2] = ["VariablesReady", "VariablesReconciled"];

/// A ClusterClass of Cluster API, v1beta1 or v1beta2.
///
/// Fields that are not used here are not kept; fields with an unexpected value count as absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassView {
    /// Without managed fields and kubectl's copy of the object.
    #[serde(default, deserialize_with = "lenient::metadata")]
    pub metadata: ObjectMeta,
    #[serde(default, deserialize_with = "lenient::mapping")]
    status: ClassStatus,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ClassStatus {
    #[serde(
        deserialize_with = "lenient::number",
        skip_serializing_if = "Option::is_none"
    )]
    observed_generation: Option<i64>,
    #[serde(deserialize_with = "lenient::list")]
    conditions: Vec<ClassCondition>,
}

/// A condition of either version; those of v1beta1 have no generation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClassCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    observed_generation: Option<i64>,
}

/// Whether Clusters can be made from a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassReadiness {
    /// Cluster API has taken the class as it is now.
    Ready,
    /// Not yet.
    Pending {
        /// One word for conditions.
        reason: &'static str,
        /// Details for a human reader; Cluster API's own where it gave some.
        message: String,
    },
}

impl ClassView {
    /// Whether Clusters can be made from the class: Cluster API has seen its newest state and knows its variables.
    ///
    /// References to outdated versions of templates (`RefVersionsUpToDate`) do not matter: Cluster API goes on with them.
    #[must_use]
    pub fn readiness(&self) -> ClassReadiness {
        let generation = self.metadata.generation.unwrap_or_default();
        let condition = VARIABLE_CONDITIONS.iter().find_map(|type_| {
            let mut conditions = self.status.conditions.iter();
            conditions.find(|condition| condition.type_ == *type_)
        });
        // Cluster API raises observedGeneration on success only, so the failure is looked at first.
        if let Some(condition) = condition
            && condition.status == "False"
            && condition
                .observed_generation
                .is_none_or(|seen| seen >= generation)
        {
            return ClassReadiness::Pending {
                reason: CLASS_VARIABLES_NOT_READY,
                message: if condition.message.is_empty() {
                    format!("the variables of {} are not ready", self.words())
                } else {
                    condition.message.clone()
                },
            };
        }
        let seen = self
            .status
            .observed_generation
            .is_some_and(|seen| seen >= generation);
        if seen && condition.is_some_and(|condition| condition.status == "True") {
            return ClassReadiness::Ready;
        }
        ClassReadiness::Pending {
            reason: CLASS_NOT_OBSERVED,
            message: format!("Cluster API has not yet taken {} in", self.words()),
        }
    }

    /// Namespace and name of the release that the class belongs to, if it says so.
    #[must_use]
    pub fn release(&self) -> Option<(&str, &str)> {
        self.annotations().get(RELEASE_ANNOTATION)?.split_once('/')
    }

    fn words(&self) -> String {
        format!(
            "ClusterClass \"{}/{}\"",
            self.namespace().unwrap_or_default(),
            self.name_any()
        )
    }
}

dynamic_resource!(ClassView);

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(generation: i64, status: &Value) -> ClassView {
        let object = json!({
            "metadata": {"name": "c", "namespace": "fleet", "generation": generation},
            "spec": {"variables": [{"name": "v"}]}, "status": status,
        });
        serde_json::from_str(&object.to_string()).unwrap()
    }

    fn pending(readiness: ClassReadiness) -> (&'static str, String) {
        match readiness {
            ClassReadiness::Pending { reason, message } => (reason, message),
            ClassReadiness::Ready => panic!("ready"),
        }
    }

    #[test]
    fn class_is_ready_when_its_newest_state_was_taken_in() {
        for type_ in VARIABLE_CONDITIONS {
            let conditions = json!([
                {"type": "RefVersionsUpToDate", "status": "False", "message": "old templates"},
                {"type": type_, "status": "True", "lastTransitionTime": "2026-11-22T14:36:48Z"},
            ]);
            let status = json!({"observedGeneration": 3, "conditions": conditions});
            assert_eq!(class(3, &status).readiness(), ClassReadiness::Ready);
            let (reason, message) = pending(class(4, &status).readiness());
            assert_eq!(reason, CLASS_NOT_OBSERVED);
            assert!(message.contains("\"fleet/c\""), "{message}");
        }
    }

    #[test]
    fn mistake_of_the_author_is_shown_in_the_words_of_cluster_api() {
        let failure =
            "VariableDiscovery failed: the following variables have conflicting schemas: v";
        for condition in [
            json!({"type": "VariablesReconciled", "status": "False", "severity": "Error", "reason": "VariableDiscoveryFailed", "message": failure}),
            json!({"type": "VariablesReady", "status": "False", "reason": "VariableDiscoveryFailed", "message": failure, "observedGeneration": 2}),
        ] {
            let status = json!({"observedGeneration": 1, "conditions": [condition]});
            assert_eq!(
                pending(class(2, &status).readiness()),
                (CLASS_VARIABLES_NOT_READY, failure.to_owned())
            );
        }
    }

    #[test]
    fn failure_of_an_older_state_is_no_verdict_on_the_newest() {
        let condition = json!({"type": "VariablesReady", "status": "False", "message": "old", "observedGeneration": 1});
        let status = json!({"observedGeneration": 1, "conditions": [condition]});
        assert_eq!(pending(class(2, &status).readiness()).0, CLASS_NOT_OBSERVED);
    }

    #[test]
    fn class_that_nobody_looked_at_is_pending() {
        for status in [
            json!(null),
            json!({}),
            json!("odd"),
            json!({"observedGeneration": "1", "conditions": {"type": "VariablesReady"}}),
            json!({"observedGeneration": 1, "conditions": [7, {"type": "VariablesReady"}]}),
            json!({"observedGeneration": 1, "conditions": [{"type": "VariablesReady", "status": "Unknown"}]}),
            json!({"observedGeneration": 1}),
            json!({"conditions": [{"type": "VariablesReady", "status": "True"}]}),
        ] {
            assert_eq!(
                pending(class(1, &status).readiness()).0,
                CLASS_NOT_OBSERVED,
                "{status}"
            );
        }
    }

    #[test]
    fn release_is_read_from_the_annotation() {
        let mut view = class(1, &json!({}));
        assert_eq!(view.release(), None);
        view.annotations_mut().insert(
            RELEASE_ANNOTATION.to_owned(),
            "fleet/a-b-1-30-v1".to_owned(),
        );
        assert_eq!(view.release(), Some(("fleet", "a-b-1-30-v1")));
    }
}
