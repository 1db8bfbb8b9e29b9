use std::sync::Arc;

use serde_json::{Value, json};

use super::*;
use crate::api::ClusterStackReleaseSpec;
use crate::source::Listing;

fn stack(spec: &Value) -> ClusterStack {
    let mut whole = json!({"provider": "docker", "name": "scs", "kubernetesVersion": "1.30", "noProvider": true});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    ClusterStack::new("s", serde_json::from_value(whole).unwrap())
}

fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({"type": type_, "status": status, "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

fn release(version: &str, conditions: &[Value]) -> (String, Arc<ClusterStackRelease>) {
    let name = format!("docker-scs-1-30-{version}");
    let mut release = ClusterStackRelease::new(&name, ClusterStackReleaseSpec::default());
    let status = json!({"ready": false, "kubernetesVersion": "v1.30.10", "conditions": conditions});
    release.status = serde_json::from_value(status).unwrap();
    (name, Arc::new(release))
}

fn ready(version: &str) -> (String, Arc<ClusterStackRelease>) {
    let all = [
        "Ready",
        "ClusterStackReleaseDownloaded",
        "ProviderClusterStackReleaseReady",
    ];
    release(version, &all.map(|type_| condition(type_, "True", "Ready")))
}

fn observed(releases: impl IntoIterator<Item = (String, Arc<ClusterStackRelease>)>) -> Observed {
    Observed {
        listing: Listed {
            listing: Some(Arc::new(Listing::default())),
            ..Listed::default()
        },
        releases: releases.into_iter().collect(),
        usage_known: true,
        ..Observed::default()
    }
}

fn computed(stack: &ClusterStack, observed: &Observed) -> ClusterStackStatus {
    let plan = Plan {
        wanted: observed.releases.keys().cloned().collect(),
        ..Plan::default()
    };
    compute(stack, observed, &plan, None, Timestamp::UNIX_EPOCH)
}

fn verdict<'a>(status: &'a ClusterStackStatus, type_: &str) -> (&'a str, &'a str) {
    let found = conditions::find(&status.conditions, type_).unwrap();
    (&found.status, &found.reason)
}

#[test]
fn strings_are_those_of_the_go_operator() {
    let releases = [
        ready("v2"),
        ready("v10"),
        release(
            "v0-sha-d2lgujm",
            &[condition("Ready", "False", "Downloading")],
        ),
    ];
    let status = computed(&stack(&json!({})), &observed(releases));
    assert_eq!(status.usable_versions.as_deref(), Some("v2, v10"));
    assert_eq!(
        status.latest_release.as_deref(),
        Some("docker-scs-1-30-v10 | v1.30.10")
    );
    let shown: Vec<_> = status
        .summary
        .iter()
        .map(|entry| {
            (
                entry.name.as_str(),
                entry.ready,
                entry.phase.as_str(),
                entry.message.as_str(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (
                "v0-sha-d2lgujm",
                false,
                "downloading release assets",
                "Downloading"
            ),
            ("v2", true, "done", "Ready"),
            ("v10", true, "done", "Ready"),
        ]
    );
}

#[test]
fn phases_follow_the_conditions() {
    let downloaded = condition("ClusterStackReleaseDownloaded", "True", "Downloaded");
    let images = condition("ProviderClusterStackReleaseReady", "True", "NoProvider");
    for (conditions, phase) in [
        (vec![], "downloading release assets"),
        (vec![downloaded.clone()], "provider-specific work"),
        (vec![downloaded, images], "applying objects"),
    ] {
        let status = computed(&stack(&json!({})), &observed([release("v1", &conditions)]));
        assert_eq!(status.summary[0].phase, phase);
    }
}

#[test]
fn latest_release_is_kept_while_none_is_ready() {
    let mut stack = stack(&json!({}));
    stack.status = Some(ClusterStackStatus {
        latest_release: Some("docker-scs-1-30-v1 | v1.30.1".to_owned()),
        ..ClusterStackStatus::default()
    });
    let status = computed(&stack, &observed([release("v2", &[])]));
    assert_eq!(
        status.latest_release.as_deref(),
        Some("docker-scs-1-30-v1 | v1.30.1")
    );
    assert_eq!(status.usable_versions, None);
}

#[test]
fn stack_is_ready_only_with_all_its_releases() {
    // baseline 02, 03, 04: a broken release was no reason for the Go operator
    let good = computed(&stack(&json!({})), &observed([ready("v1")]));
    assert_eq!(verdict(&good, "Ready"), ("True", "Ready"));
    let broken = release("v2", &[condition("Ready", "False", "ReleaseInvalid")]);
    let status = computed(&stack(&json!({})), &observed([ready("v1"), broken]));
    assert_eq!(verdict(&status, "Ready"), ("False", "ReleaseInvalid"));
    assert_eq!(
        verdict(&status, "ClusterStackReleaseAvailable"),
        ("True", "Available")
    );
}

#[test]
fn failed_listing_is_seen_and_takes_nothing_away() {
    // pitfall 1
    let problem = crate::source::SourceError::NeedSource;
    let mut observed = observed([ready("v1")]);
    observed.listing.problem = Some(Arc::new(crate::controllers::places::PlaceError::Source(
        Arc::new(problem),
    )));
    let status = computed(&stack(&json!({})), &observed);
    assert_eq!(
        verdict(&status, "AssetsClientAPIAvailable"),
        ("False", "SourceRefused")
    );
    assert_eq!(
        verdict(&status, "ReleasesSynced"),
        ("False", "SourceRefused")
    );
    assert_eq!(verdict(&status, "Ready"), ("True", "Ready"));
}

#[test]
fn stack_without_any_release_says_why() {
    let status = computed(&stack(&json!({})), &observed([]));
    assert_eq!(verdict(&status, "Ready"), ("False", "NoRelease"));
    let unsubscribed = computed(&stack(&json!({"autoSubscribe": false})), &observed([]));
    assert_eq!(verdict(&unsubscribed, "Ready"), ("False", "NoRelease"));
}

#[test]
fn deleted_stack_names_what_is_held() {
    let held = release(
        "v1",
        &[
            condition("DeletionBlocked", "True", "InUse"),
            condition("Ready", "True", "Ready"),
        ],
    );
    let mut observed = observed([held]);
    observed.deleting = true;
    let status = computed(&stack(&json!({})), &observed);
    assert_eq!(verdict(&status, "DeletionBlocked"), ("True", "InUse"));
    assert_eq!(verdict(&status, "Ready"), ("False", "Deleting"));
}

#[test]
fn paused_stack_keeps_its_verdicts() {
    let mut stack = stack(&json!({}));
    stack.status = Some(computed(&stack, &observed([ready("v1")])));
    let mut observed = observed([release("v1", &[])]);
    observed.paused = true;
    let status = computed(&stack, &observed);
    assert_eq!(verdict(&status, "Ready"), ("True", "Ready"));
    assert_eq!(verdict(&status, "Paused"), ("True", "Paused"));
}

#[test]
fn status_of_the_same_observation_does_not_change() {
    let mut stack = stack(&json!({}));
    let observed = observed([ready("v1")]);
    let first = computed(&stack, &observed);
    stack.status = Some(first.clone());
    let plan = Plan {
        wanted: observed.releases.keys().cloned().collect(),
        ..Plan::default()
    };
    let later = Timestamp::from_second(1000).unwrap();
    assert_eq!(compute(&stack, &observed, &plan, None, later), first);
}
