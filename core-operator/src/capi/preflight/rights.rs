//! What the operator may do in a namespace, by the API server's own account.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::authorization::v1::{
    ResourceRule, SelfSubjectRulesReview, SelfSubjectRulesReviewSpec, SubjectRulesReviewStatus,
};
use kube::{Api, Client, api::PostParams};
use proto::Recovery;

use super::{PreflightError, in_time, questions::Told};
use crate::retry::recovery_of;

/// What the operator does with the objects of releases.
const VERBS: [&str; 6] = ["get", "list", "watch", "create", "patch", "delete"];

/// Roles change rarely, and a right that was taken away shows as a refusal (403), which makes us forget.
const LIFETIME: Duration = Duration::from_mins(3);

/// The rules that apply to the operator in one namespace, those for the whole cluster included.
#[derive(Debug, Default)]
pub(super) struct Rights {
    rules: Vec<ResourceRule>,
    /// There are no other rules than these.
    complete: bool,
}

impl Rights {
    fn new(status: SubjectRulesReviewStatus) -> Self {
        Self {
            complete: !status.incomplete && status.evaluation_error.is_none(),
            rules: status
                .resource_rules
                .into_iter()
                // A rule for some names only allows neither to list nor to create.
                .filter(|rule| {
                    let names = rule.resource_names.as_deref().unwrap_or_default();
                    names.is_empty() || names.iter().any(|name| name == "*")
                })
                .collect(),
        }
    }

    /// What is not allowed. Empty also if that cannot be told.
    pub(super) fn missing(&self, group: &str, plural: &str) -> Vec<&'static str> {
        if !self.complete {
            return Vec::new();
        }
        let has =
            |list: &[String], wanted: &str| list.iter().any(|item| item == wanted || item == "*");
        let rules: Vec<_> = self
            .rules
            .iter()
            .filter(|rule| {
                has(rule.api_groups.as_deref().unwrap_or_default(), group)
                    && has(rule.resources.as_deref().unwrap_or_default(), plural)
            })
            .collect();
        VERBS
            .into_iter()
            .filter(|verb| !rules.iter().any(|rule| has(&rule.verbs, verb)))
            .collect()
    }
}

/// Asks for the rights in a namespace: one request. A refusal to tell them is no error: nothing is known then.
pub(super) async fn review(
    client: Client,
    namespace: String,
) -> Result<Told<Arc<Rights>>, PreflightError> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.clone()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let api = Api::<SelfSubjectRulesReview>::all(client);
    let rights = match in_time(
        "its own rights",
        api.create(&PostParams::default(), &review),
    )
    .await?
    {
        Ok(answer) => Rights::new(answer.status.unwrap_or_default()),
        Err(error) => match recovery_of(&error) {
            Recovery::Slow | Recovery::Terminal => {
                tracing::debug!(namespace, error = %error, "own rights are not told");
                Rights::default()
            }
            Recovery::Unknown | Recovery::Fast { .. } => {
                return Err(PreflightError::ReviewRights {
                    namespace,
                    source: Arc::new(error),
                });
            }
        },
    };
    Ok(Told {
        value: Arc::new(rights),
        holds: LIFETIME,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rights(status: Value) -> Rights {
        Rights::new(serde_json::from_value(status).unwrap())
    }

    #[test]
    fn rules_add_up_and_stars_stand_for_everything() {
        let group = "infrastructure.cluster.x-k8s.io";
        let plural = "dockerclustertemplates";
        for (rules, missing) in [
            (json!([]), &VERBS[..]),
            (
                json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
                &[],
            ),
            (
                json!([{"apiGroups": [group], "resources": [plural], "verbs": ["get", "list", "watch"]},
                       {"apiGroups": ["", group], "resources": ["*"], "verbs": ["create", "patch"]}]),
                &["delete"],
            ),
            (
                json!([{"apiGroups": [group], "resources": ["*/status"], "verbs": ["*"]}]),
                &VERBS,
            ),
            (
                json!([{"apiGroups": [""], "resources": ["*"], "verbs": ["*"]}]),
                &VERBS,
            ),
            (
                json!([{"apiGroups": [group], "resources": [plural], "resourceNames": ["one"], "verbs": ["*"]}]),
                &VERBS,
            ),
            (
                json!([{"apiGroups": [group], "resources": [plural], "resourceNames": [], "verbs": ["*"]}]),
                &[],
            ),
        ] {
            let rights = rights(json!({"incomplete": false, "resourceRules": rules}));
            assert_eq!(rights.missing(group, plural), missing, "{rules}");
        }
    }

    #[test]
    fn nothing_is_missing_by_an_incomplete_account() {
        for status in [
            json!({"incomplete": true, "resourceRules": []}),
            json!({"incomplete": false, "evaluationError": "no such role", "resourceRules": []}),
        ] {
            assert!(
                rights(status.clone())
                    .missing("apps", "deployments")
                    .is_empty(),
                "{status}"
            );
        }
    }
}
