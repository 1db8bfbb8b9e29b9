use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::*;
use crate::api::RELEASE_ANNOTATION;

fn cluster(namespace: &str, name: &str, topology: &Value) -> ClusterView {
    let object =
        json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"topology": topology}});
    serde_json::from_value(object).unwrap()
}

fn of_class(namespace: &str, name: &str, class: &str) -> ClusterView {
    cluster(namespace, name, &json!({"classRef": {"name": class}}))
}

fn class(namespace: &str, name: &str, release: Option<&str>) -> ClassView {
    let annotations = release.map(|release| json!({RELEASE_ANNOTATION: release}));
    let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

fn names(users: &[ClusterRef]) -> Vec<String> {
    users.iter().map(ToString::to_string).collect()
}

#[test]
fn clusters_of_other_namespaces_use_the_release_of_their_class() {
    // pitfall 5
    let classes = [class(
        "fleet",
        "docker-scs-1-30-v1",
        Some("fleet/docker-scs-1-30-v1"),
    )];
    let elsewhere = json!({"classRef": {"name": "docker-scs-1-30-v1", "namespace": "fleet"}});
    let older = json!({"class": "docker-scs-1-30-v1", "classNamespace": "fleet"});
    let clusters = [
        cluster("team-b", "z", &elsewhere),
        cluster("team-a", "y", &older),
        of_class("fleet", "x", "docker-scs-1-30-v1"),
        // the class of the same name in its own namespace, which is not there
        of_class("team-a", "other", "docker-scs-1-30-v1"),
    ];
    let usage = Usage::new(&classes, &clusters);
    assert_eq!(
        names(usage.of("fleet", "docker-scs-1-30-v1")),
        ["fleet/x", "team-a/y", "team-b/z"]
    );
    assert_eq!(
        names(usage.of("team-a", "docker-scs-1-30-v1")),
        ["team-a/other"]
    );
}

#[test]
fn classes_with_hash_versions_belong_to_the_release_in_dash_form() {
    // pitfall 4
    let clusters = [of_class("fleet", "a", "docker-scs-1-30-v0-sha.d2lgujm")];
    for classes in [
        // of the Go operator
        vec![class("fleet", "docker-scs-1-30-v0-sha.d2lgujm", None)],
        // deleted by somebody
        vec![],
        vec![class(
            "fleet",
            "docker-scs-1-30-v0-sha.d2lgujm",
            Some("fleet/docker-scs-1-30-v0-sha-d2lgujm"),
        )],
        // a damaged annotation
        vec![class(
            "fleet",
            "docker-scs-1-30-v0-sha.d2lgujm",
            Some("nonsense"),
        )],
    ] {
        let usage = Usage::new(&classes, &clusters);
        let users = usage.of("fleet", "docker-scs-1-30-v0-sha-d2lgujm");
        assert_eq!(names(users), ["fleet/a"], "{classes:?}");
    }
}

#[test]
fn annotation_wins_over_the_name_of_the_class() {
    let classes = [class(
        "fleet",
        "free-name",
        Some("fleet/docker-scs-1-30-v2"),
    )];
    let clusters = [of_class("fleet", "a", "free-name")];
    let usage = Usage::new(&classes, &clusters);
    assert_eq!(names(usage.of("fleet", "docker-scs-1-30-v2")), ["fleet/a"]);
}

#[test]
fn foreign_classes_and_clusters_without_topology_are_nobodys() {
    // pitfalls 23 and 24
    let clusters = [
        of_class("fleet", "a", "quick-start"),
        of_class("fleet", "b", "v1"),
        cluster("fleet", "c", &json!(null)),
        cluster("fleet", "d", &json!({"classRef": {"namespace": "fleet"}})),
    ];
    let classes = [class("fleet", "quick-start", None)];
    assert_eq!(Usage::new(&classes, &clusters), Usage::default());
}

#[test]
fn cluster_uses_its_class_until_it_is_gone() {
    let mut deleting = of_class("fleet", "a", "docker-scs-1-30-v1");
    deleting.metadata = serde_json::from_value(json!({
        "namespace": "fleet", "name": "a", "deletionTimestamp": "2026-11-22T14:36:48Z",
    }))
    .unwrap();
    assert!(deleting.is_deleting());
    let usage = Usage::new([], [&deleting]);
    assert_eq!(usage.of("fleet", "docker-scs-1-30-v1").len(), 1);
}

#[test]
fn message_names_the_first_users_and_counts_the_others() {
    let users: Vec<_> = ["a", "b", "c", "d", "e"]
        .map(|name| ClusterRef {
            namespace: "team".to_owned(),
            name: name.to_owned(),
        })
        .into();
    assert_eq!(used_by(&users[..1]), "used by Cluster \"team/a\"");
    assert_eq!(
        used_by(&users[..3]),
        "used by Cluster \"team/a\", \"team/b\", \"team/c\""
    );
    assert_eq!(
        used_by(&users),
        "used by Cluster \"team/a\", \"team/b\", \"team/c\" and 2 more"
    );
}

#[test]
fn a_thousand_clusters_and_two_hundred_releases_are_looked_up_at_once() {
    let tags: Vec<_> = (0..200).map(|n| format!("docker-scs-1-30-v{n}")).collect();
    let classes: Vec<_> = tags
        .iter()
        .map(|tag| class("fleet", tag, Some(&format!("fleet/{tag}"))))
        .collect();
    let clusters: Vec<_> = (0..1000)
        .map(|n| of_class("fleet", &format!("c{n:04}"), &tags[n % tags.len()]))
        .collect();
    let usage = Usage::new(&classes, &clusters);
    let start = Instant::now();
    let found: usize = tags.iter().map(|tag| usage.of("fleet", tag).len()).sum();
    let each = start.elapsed() / 200;
    assert_eq!(found, 1000);
    // some hundred nanoseconds without optimisation; the limit is for a machine that is busy
    assert!(each < Duration::from_millis(1), "{each:?}");
}
