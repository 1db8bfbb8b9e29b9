use std::sync::Arc;

use super::*;
use crate::api::ClusterStackReleaseSpec;
use crate::{
    apply::write::WriteError,
    controllers::{cluster_stack_release::assets::AssetsError, places::PlaceError},
    helm::RenderError,
    source::SourceError,
};

fn release(status: ClusterStackReleaseStatus) -> ClusterStackRelease {
    let mut release =
        ClusterStackRelease::new("docker-scs-1-30-v1", ClusterStackReleaseSpec::default());
    release.metadata.generation = Some(1);
    release.status = Some(status);
    release
}

fn applied() -> Progress {
    Progress {
        images: Some(Images::NotNeeded),
        applied: Some(Verdict::yes(reason::APPLIED)),
        ..Progress::default()
    }
}

fn failed(error: SourceError) -> Progress {
    Progress {
        files: Some(Files::Failed {
            error: Arc::new(AssetsError::Place(PlaceError::Source(Arc::new(error)))),
            due: None,
        }),
        ..Progress::default()
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn verdict<'a>(status: &'a ClusterStackReleaseStatus, type_: &str) -> (&'a str, &'a str) {
    let found = conditions::find(&status.conditions, type_).unwrap();
    (&found.status, &found.reason)
}

/// The status of a release that is ready.
fn ready_status() -> ClusterStackReleaseStatus {
    let mut status = compute(
        &release(ClusterStackReleaseStatus::default()),
        &applied(),
        None,
        at(5),
    );
    for condition in &mut status.conditions {
        if condition.type_ == conditions::DOWNLOADED {
            "True".clone_into(&mut condition.status);
            "Downloaded".clone_into(&mut condition.reason);
        }
    }
    status
}

#[test]
fn all_conditions_are_there_from_the_first_look() {
    let status = compute(
        &release(ClusterStackReleaseStatus::default()),
        &Progress::default(),
        None,
        at(1),
    );
    let types: Vec<_> = status
        .conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    assert_eq!(
        types,
        [
            "Ready",
            "ClusterStackReleaseDownloaded",
            "ProviderReady",
            "ProviderClusterStackReleaseReady",
            "HelmChartApplied",
            "DeletionBlocked",
            "Paused"
        ]
    );
    assert!(!status.ready);
}

#[test]
fn applied_release_is_ready_and_remembers_since_when() {
    let status = ready_status();
    assert_eq!(verdict(&status, "Ready"), ("True", "Ready"));
    assert!(status.ready);
    assert_eq!(status.first_ready_time, Some(Time(at(5))));
    let later = compute(&release(status.clone()), &applied(), None, at(90));
    assert_eq!(later, status);
}

#[test]
fn class_that_is_not_ready_is_the_release_s_reason() {
    let progress = Progress {
        class: Some(ClassReadiness::Pending {
            reason: reason::CLASS_VARIABLES_NOT_READY,
            message: "bad variable".to_owned(),
        }),
        ..applied()
    };
    let status = compute(&release(ready_status()), &progress, None, at(6));
    assert_eq!(
        verdict(&status, "Ready"),
        ("False", "ClassVariablesNotReady")
    );
    assert_eq!(verdict(&status, "HelmChartApplied"), ("True", "Applied"));
}

#[test]
fn chart_that_does_not_render_is_not_ready() {
    // baseline 05: the Go operator called it ready
    let error = Error::Render(RenderError::Render {
        what: "chart".to_owned(),
        message: "nil pointer".to_owned(),
    });
    let progress = Progress {
        images: Some(Images::NotNeeded),
        ..Progress::default()
    };
    let status = compute(&release(ready_status()), &progress, Some(&error), at(6));
    assert_eq!(
        verdict(&status, "HelmChartApplied"),
        ("False", "ReleaseInvalid")
    );
    assert_eq!(verdict(&status, "Ready"), ("False", "ReleaseInvalid"));
    let message = &conditions::find(&status.conditions, "Ready")
        .unwrap()
        .message;
    assert!(message.contains("nil pointer"), "{message}");
}

#[test]
fn unreachable_is_not_broken() {
    // what passes by itself changes no verdict
    let error = Error::Observe(kube::Error::TlsRequired);
    let progress = Progress {
        images: Some(Images::NotNeeded),
        ..Progress::default()
    };
    let status = compute(&release(ready_status()), &progress, Some(&error), at(6));
    assert_eq!(verdict(&status, "Ready"), ("True", "Ready"));
    assert_eq!(verdict(&status, "HelmChartApplied"), ("True", "Applied"));

    let status = compute(
        &release(ready_status()),
        &failed(SourceError::NeedSource),
        None,
        at(6),
    );
    assert_eq!(
        verdict(&status, "ClusterStackReleaseDownloaded"),
        ("Unknown", "SourceRefused")
    );
    assert_eq!(verdict(&status, "Ready"), ("True", "Ready"));
}

#[test]
fn object_that_is_forbidden_at_first_changes_no_verdict() {
    let refuse = || WriteError::Refuse {
        object: "ClusterClass \"fleet/a\"".to_owned(),
        code: 403,
        message: "not yet".to_owned(),
    };
    let progress = || Progress {
        images: Some(Images::NotNeeded),
        ..Progress::default()
    };
    let new = || release(ClusterStackReleaseStatus::default());
    for (before, error, applied, ready) in [
        (
            release(ready_status()),
            Error::Doubt(refuse()),
            ("True", "Applied"),
            ("True", "Ready"),
        ),
        (
            new(),
            Error::Doubt(refuse()),
            ("Unknown", "Refused"),
            ("Unknown", "Pending"),
        ),
        (
            new(),
            Error::Write(refuse()),
            ("False", "Refused"),
            ("False", "Refused"),
        ),
    ] {
        let status = compute(&before, &progress(), Some(&error), at(6));
        assert_eq!(verdict(&status, "HelmChartApplied"), applied, "{error:?}");
        assert_eq!(verdict(&status, "Ready"), ready, "{error:?}");
    }
}

#[test]
fn release_that_was_never_there_says_why() {
    let new = release(ClusterStackReleaseStatus::default());
    let status = compute(&new, &failed(SourceError::NeedSource), None, at(1));
    assert_eq!(
        verdict(&status, "ClusterStackReleaseDownloaded"),
        ("False", "SourceRefused")
    );
    assert_eq!(verdict(&status, "Ready"), ("False", "SourceRefused"));
}

#[test]
fn missing_provider_explains_itself() {
    // pitfall 12
    let new = release(ClusterStackReleaseStatus::default());
    for (images, reason) in [
        (Images::NeedsProviderRef, "NeedsProviderRef"),
        (
            Images::NoProviderIntegration {
                provider: "openstack".to_owned(),
            },
            "NoProviderIntegration",
        ),
    ] {
        let progress = Progress {
            images: Some(images),
            ..Progress::default()
        };
        let status = compute(&new, &progress, None, at(1));
        for type_ in ["ProviderReady", "ProviderClusterStackReleaseReady", "Ready"] {
            assert_eq!(verdict(&status, type_), ("False", reason), "{type_}");
        }
        assert_eq!(
            verdict(&status, "HelmChartApplied"),
            ("False", "WaitingForImages")
        );
    }
}

#[test]
fn release_that_nobody_wants_is_not_ready() {
    let progress = Progress {
        orphaned: true,
        ..Progress::default()
    };
    let status = compute(&release(ready_status()), &progress, None, at(6));
    assert_eq!(verdict(&status, "Ready"), ("False", "NoClusterStack"));
}

#[test]
fn paused_and_held_releases_keep_their_readiness() {
    let progress = Progress {
        paused: true,
        blocked: Some("used by Cluster \"a/b\"".to_owned()),
        ..Progress::default()
    };
    let status = compute(&release(ready_status()), &progress, None, at(6));
    assert_eq!(verdict(&status, "Ready"), ("True", "Ready"));
    assert_eq!(verdict(&status, "Paused"), ("True", "Paused"));
    assert_eq!(verdict(&status, "DeletionBlocked"), ("True", "InUse"));
}

#[test]
fn status_of_the_go_operator_is_replaced_whole() {
    let old = serde_json::json!({
        "ready": true,
        "resources": [{"group": "g", "kind": "K", "name": "n", "namespace": "ns", "status": "synced", "version": "v1"}],
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-22T14:36:50Z"},
            {"type": "Other", "status": "True", "severity": "Info", "lastTransitionTime": "2026-11-22T14:36:50Z"},
        ],
    });
    let old = release(serde_json::from_value(old).unwrap());
    let status = compute(&old, &Progress::default(), None, at(1));
    assert!(conditions::find(&status.conditions, "Other").is_none());
    assert!(
        status
            .conditions
            .iter()
            .all(|condition| !condition.reason.is_empty())
    );
    assert_eq!(status.resources.len(), 1);
}
