//! `core-operator rbac`: the roles that the operator needs, as YAML.
//!
//! ```text
//! ClusterRole core-operator        collects every role with the label, ours and those of others
//! ClusterRole core-operator-base   ours: no more than is used
//! Role core-operator-leases        in the operator's own namespace
//! ```
//!
//! For objects of other kinds in releases, an administrator gives further ClusterRoles the label.

use super::yaml;
use crate::api::{AGGREGATE_LABEL, GROUP};
use k8s_openapi::{
    api::rbac::v1::{AggregationRule, ClusterRole, PolicyRule, Role},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::core::ObjectMeta;

/// Name of the role that is bound to the operator.
const NAME: &str = "core-operator";

/// What is done to objects of releases.
const APPLY: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];
const READ: &[&str] = &["get", "list", "watch"];

/// The roles.
///
/// # Errors
///
/// If a role cannot be written as YAML.
pub fn roles() -> Result<String, serde_saphyr::ser::Error> {
    let labels = || Some([(AGGREGATE_LABEL.to_owned(), "true".to_owned())].into());
    let collected = ClusterRole {
        metadata: named(NAME),
        aggregation_rule: Some(AggregationRule {
            cluster_role_selectors: Some(vec![LabelSelector {
                match_labels: labels(),
                ..LabelSelector::default()
            }]),
        }),
        rules: None,
    };
    let base = ClusterRole {
        metadata: ObjectMeta {
            labels: labels(),
            ..named(&format!("{NAME}-base"))
        },
        aggregation_rule: None,
        rules: Some(rules()),
    };
    let leases = Role {
        metadata: named(&format!("{NAME}-leases")),
        rules: Some(vec![rule(
            "coordination.k8s.io",
            &["leases"],
            &["get", "create", "update"],
        )]),
    };
    let documents = [yaml(&collected)?, yaml(&base)?, yaml(&leases)?];
    Ok(documents.concat())
}

fn rules() -> Vec<PolicyRule> {
    let mut rules = vec![
        rule(
            GROUP,
            &["clusterstacks"],
            &["get", "list", "watch", "patch"],
        ),
        rule(GROUP, &["clusterstackreleases"], APPLY),
        rule(
            GROUP,
            &["clusterstacks/status", "clusterstackreleases/status"],
            &["update"],
        ),
        // Clusters are looked at, to know which releases are in use, and never touched.
        rule("cluster.x-k8s.io", &["clusters"], READ),
        rule("cluster.x-k8s.io", &["clusterclasses"], APPLY),
    ];
    // The templates that a class refers to; each provider of Cluster API has kinds of its own.
    for group in ["bootstrap", "controlplane", "infrastructure"] {
        rules.push(rule(&format!("{group}.cluster.x-k8s.io"), &["*"], APPLY));
    }
    rules.extend([
        rule("openstack.k-orc.cloud", &["*"], APPLY),
        // Dry runs: they tell whether Cluster API's feature RuntimeSDK is on.
        rule(
            "runtime.cluster.x-k8s.io",
            &["extensionconfigs"],
            &["create", "patch"],
        ),
        rule("apiextensions.k8s.io", &["customresourcedefinitions"], READ),
        // Metadata of those with our label: their rights are ours.
        rule(
            "rbac.authorization.k8s.io",
            &["clusterroles"],
            &["list", "watch"],
        ),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
        // Those that spec.source names, one by one.
        rule("", &["secrets"], &["get"]),
    ]);
    rules
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    PolicyRule {
        api_groups: Some(owned(&[group])),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}
