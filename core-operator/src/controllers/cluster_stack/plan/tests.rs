use kube::core::ObjectMeta;
use serde_json::json;

use super::*;
use crate::api::ClusterStackReleaseSpec;
use crate::source::Listing;

fn stack(spec: &serde_json::Value) -> ClusterStack {
    let mut whole = json!({"provider": "docker", "name": "scs", "kubernetesVersion": "1.30", "noProvider": true});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    ClusterStack::new("s", serde_json::from_value(whole).unwrap())
}

fn name(version: &str) -> String {
    format!("docker-scs-1-30-{version}")
}

/// A release of the stack, perhaps ready, perhaps owned by others too.
fn release(
    version: &str,
    owners: usize,
    first_ready: Option<i64>,
) -> (String, Arc<ClusterStackRelease>) {
    let owners: Vec<_> = (0..owners)
        .map(|n| json!({"apiVersion": "v", "kind": "ClusterStack", "name": n.to_string(), "uid": n.to_string()}))
        .collect();
    let mut release = ClusterStackRelease::new(&name(version), ClusterStackReleaseSpec::default());
    release.metadata = ObjectMeta {
        name: Some(name(version)),
        owner_references: serde_json::from_value(json!(owners)).unwrap(),
        ..ObjectMeta::default()
    };
    if let Some(second) = first_ready {
        let time = jiff::Timestamp::from_second(second).unwrap();
        release.status = serde_json::from_value(
            json!({"ready": true, "firstReadyTime": time, "conditions": []}),
        )
        .unwrap();
    }
    (name(version), Arc::new(release))
}

fn listing(versions: &[&str]) -> Listed {
    let releases = versions
        .iter()
        .map(|version| ReleaseName::parse(&name(version)).unwrap())
        .collect();
    Listed {
        listing: Some(Arc::new(Listing {
            releases,
            ..Listing::default()
        })),
        ..Listed::default()
    }
}

fn observed(
    listing: Listed,
    releases: impl IntoIterator<Item = (String, Arc<ClusterStackRelease>)>,
) -> Observed {
    Observed {
        listing,
        releases: releases.into_iter().collect(),
        usage_known: true,
        ..Observed::default()
    }
}

fn wanted(plan: &Plan) -> Vec<&str> {
    plan.wanted
        .iter()
        .map(|name| name.strip_prefix("docker-scs-1-30-").unwrap())
        .collect()
}

#[test]
fn newest_of_the_channel_is_subscribed_by_number() {
    // pitfalls 4, 8, 60
    for (channel, newest) in [("stable", "v10"), ("beta", "v1-beta-10")] {
        let stack = stack(&json!({"channel": channel}));
        let listing = listing(&["v9", "v10", "v2", "v1-beta-9", "v1-beta-10", "v0-sha-abc"]);
        let plan = plan(&stack, &observed(listing, []));
        assert_eq!(plan.steps, [Step::Create(name(newest))]);
    }
}

#[test]
fn foreign_stacks_and_kubernetes_versions_are_not_subscribed() {
    let mut listed = listing(&["v1"]);
    let names = [
        "docker-scs-1-31-v7",
        "docker-other-1-30-v8",
        "openstack-scs-1-30-v9",
    ];
    let mut content = Listing::clone(listed.listing.as_ref().unwrap());
    content
        .releases
        .extend(names.map(|name| ReleaseName::parse(name).unwrap()));
    listed.listing = Some(Arc::new(content));
    let plan = plan(&stack(&json!({})), &observed(listed, []));
    assert_eq!(wanted(&plan), ["v1"]);
}

#[test]
fn unordered_versions_are_not_subscribed_but_may_be_listed() {
    let stack = stack(&json!({"channel": "custom", "versions": ["v0-sha.abc", "v0-sha-def"]}));
    let plan = plan(
        &stack,
        &observed(listing(&["v0-sha-abc", "v0-sha-xyz"]), []),
    );
    assert!(plan.unordered);
    assert_eq!(wanted(&plan), ["v0-sha-abc", "v0-sha-def"]);
}

#[test]
fn release_that_nobody_wants_goes() {
    let releases = [
        release("v1", 1, Some(1)),
        release("v2", 1, Some(2)),
        release("v3", 1, None),
    ];
    let observed = observed(listing(&["v1", "v2", "v3"]), releases);
    let plan = plan(&stack(&json!({})), &observed);
    // v3 is the newest, v2 the last that was ready
    assert_eq!(plan.steps, [Step::Delete(name("v1"))]);
    assert_eq!(wanted(&plan), ["v2", "v3"]);
}

#[test]
fn last_usable_release_stays_while_versions_have_no_order() {
    let releases = [
        release("v0-sha-a", 1, Some(5)),
        release("v0-sha-b", 1, Some(9)),
        release("v0-sha-c", 1, None),
    ];
    let stack =
        stack(&json!({"channel": "custom", "autoSubscribe": false, "versions": ["v0-sha-c"]}));
    let plan = plan(&stack, &observed(Listed::default(), releases));
    assert_eq!(wanted(&plan), ["v0-sha-b", "v0-sha-c"]);
}

#[test]
fn release_in_use_stays() {
    // pitfalls 4, 5
    let mut observed = observed(
        listing(&["v2"]),
        [release("v1", 1, None), release("v2", 1, Some(1))],
    );
    observed.used.insert(name("v1"));
    assert_eq!(plan(&stack(&json!({})), &observed).steps, []);
}

#[test]
fn nothing_goes_while_source_or_users_are_not_known() {
    // pitfall 2
    let releases = || [release("v1", 1, None), release("v2", 1, Some(1))];
    let stack = stack(&json!({}));
    let unlisted = observed(Listed::default(), releases());
    assert_eq!(plan(&stack, &unlisted).steps, []);
    let unknown_users = Observed {
        usage_known: false,
        ..observed(listing(&["v2"]), releases())
    };
    assert_eq!(plan(&stack, &unknown_users).steps, []);
}

#[test]
fn release_of_another_stack_is_shared_and_given_up() {
    // pitfall 6
    let mut observed = observed(listing(&["v2"]), [release("v1", 2, None)]);
    let (shared, other) = release("v2", 1, Some(1));
    observed.others.insert(shared.clone(), other);
    let plan = plan(&stack(&json!({})), &observed);
    assert_eq!(plan.steps, [Step::Share(shared), Step::GiveUp(name("v1"))]);
}

#[test]
fn release_that_is_going_is_made_anew_only_when_it_is_gone() {
    let (key, going) = release("v1", 1, None);
    let mut going = ClusterStackRelease::clone(&going);
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        jiff::Timestamp::UNIX_EPOCH,
    ));
    let observed = observed(listing(&["v1"]), [(key, Arc::new(going))]);
    let plan = plan(&stack(&json!({})), &observed);
    assert_eq!(plan.steps, []);
    assert_eq!(plan.going.len(), 1);
}

#[test]
fn deleted_stack_gives_up_everything_at_once() {
    let observed = Observed {
        deleting: true,
        usage_known: false,
        ..observed(
            Listed::default(),
            [release("v1", 1, Some(1)), release("v2", 2, None)],
        )
    };
    let plan = plan(&stack(&json!({"versions": ["v1"]})), &observed);
    assert_eq!(
        plan.steps,
        [Step::Delete(name("v1")), Step::GiveUp(name("v2"))]
    );
    assert!(plan.wanted.is_empty());
}

#[test]
fn plan_of_its_own_result_is_empty() {
    let observed = observed(listing(&["v1", "v2"]), [release("v2", 1, Some(1))]);
    assert_eq!(plan(&stack(&json!({})), &observed).steps, []);
}
