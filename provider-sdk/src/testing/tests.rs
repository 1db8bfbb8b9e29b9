//! The reference provider over a pipe: what calls are answered that have something wrong with them.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::{CallError, Reason, wire};

use super::*;

fn caller() -> wire::CallerInfo {
    wire::CallerInfo {
        installation_id: "core".to_owned(),
        ..wire::CallerInfo::default()
    }
}

fn target(token: &str, id: &str) -> wire::Target {
    wire::Target {
        target_id: id.to_owned(),
        secrets: BTreeMap::from([("token".to_owned(), token.as_bytes().to_vec())]),
        ..wire::Target::default()
    }
}

fn reference() -> (tempfile::TempDir, Directory, Client) {
    let folder = tempfile::tempdir().unwrap();
    let backend = Directory::open(folder.path()).unwrap();
    let client = connect(Arc::new(Reference::new(backend.clone()))).unwrap();
    (folder, backend, client)
}

#[tokio::test]
async fn refusals_carry_reason_and_field() {
    let (_folder, backend, mut client) = reference();
    let mut validate = async |request: wire::ValidateTargetRequest| {
        let answer = client.images.validate_target(request).await;
        match CallError::of(&answer.expect_err("a refusal")) {
            CallError::Refused(error) => error,
            other => panic!("{other:?}"),
        }
    };
    let request = |target| wire::ValidateTargetRequest {
        caller: Some(caller()),
        target: Some(target),
        spec: None,
    };
    let missing = validate(request(target("", ""))).await;
    assert_eq!(missing.reason(), Some(Reason::InvalidField));
    assert_eq!(missing.fields()[0].0, "target.secrets.token");
    let wrong = validate(request(target("bad", ""))).await;
    assert_eq!(wrong.reason(), Some(Reason::BackendAuthFailed));
    let placed = validate(request(target("good", "t-1"))).await;
    assert_eq!(placed.fields()[0].0, "target.target_id");
    backend.set_fault(Fault::Down, true).unwrap();
    let down = validate(request(target("good", ""))).await;
    assert_eq!(down.reason(), Some(Reason::BackendUnavailable));
    assert!(down.retry_after().is_some());
}

#[tokio::test]
async fn panic_and_full_backend_are_told_in_the_observation() {
    for (fault, reason) in [
        (Fault::Panic, Reason::InternalBug),
        (Fault::Full, Reason::QuotaExceeded),
    ] {
        let (_folder, backend, mut client) = reference();
        backend.set_fault(fault, true).unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        let artifact = wire::Artifact {
            source: Some(wire::artifact::Source::Http(wire::HttpSource {
                urls: vec!["http://127.0.0.1:9/image".to_owned()],
                ca_bundle_pem: Vec::new(),
            })),
            digest: digest.clone(),
            compression: wire::Compression::None.into(),
            ..wire::Artifact::default()
        };
        let request = wire::EnsureImageRequest {
            caller: Some(caller()),
            target: Some(target("good", "t-1")),
            image_key: Some(wire::ImageKey {
                key: "ni-1".to_owned(),
                spec_digest: digest,
            }),
            spec: Some(wire::ImageSpec {
                display_name: "node".to_owned(),
                artifact: Some(artifact),
                disk_format: wire::DiskFormat::Raw.into(),
                ..wire::ImageSpec::default()
            }),
            ..wire::EnsureImageRequest::default()
        };
        // The first call may be answered while the attempt still runs.
        let seen = loop {
            let answer = client.images.ensure_image(request.clone()).await.unwrap();
            let seen = answer.into_inner().observation.unwrap();
            if seen.error.is_some() {
                break proto::Observation::try_from(seen).unwrap();
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(seen.state, proto::State::Pending);
        assert_eq!(seen.error.unwrap().reason(), Some(reason));
    }
}
