use super::*;
use crate::Reason;

fn spec() -> wire::ImageSpec {
    wire::ImageSpec {
        display_name: "node".to_owned(),
        artifact: Some(wire::Artifact {
            source: Some(wire::artifact::Source::Http(wire::HttpSource {
                urls: vec!["https://files.example.org/node.qcow2".to_owned()],
                ca_bundle_pem: Vec::new(),
            })),
            digest: format!("sha256:{}", "0a".repeat(32)),
            size_bytes: 7,
            compression: wire::Compression::Gzip.into(),
            ..wire::Artifact::default()
        }),
        disk_format: wire::DiskFormat::Qcow2.into(),
        ..wire::ImageSpec::default()
    }
}

fn oci() -> wire::ImageSpec {
    let mut oci = spec();
    artifact(&mut oci).source = Some(wire::artifact::Source::Oci(wire::OciSource {
        repository: "registry.example.org/node".to_owned(),
        ca_bundle_pem: Vec::new(),
    }));
    artifact(&mut oci).compression = 0;
    oci
}

fn artifact(spec: &mut wire::ImageSpec) -> &mut wire::Artifact {
    spec.artifact.as_mut().expect("an artifact")
}

fn urls(spec: &mut wire::ImageSpec, urls: &[&str]) {
    let urls = urls.iter().map(ToString::to_string).collect();
    artifact(spec).source = Some(wire::artifact::Source::Http(wire::HttpSource {
        urls,
        ca_bundle_pem: Vec::new(),
    }));
}

#[test]
fn specs_travel_both_ways() {
    for message in [spec(), oci()] {
        let spec: ImageSpec = message.clone().try_into().expect("a good spec");
        assert_eq!(spec.to_wire(), Ok(message));
    }
}

#[test]
fn fields_that_break_the_contract_are_named() {
    type Edit = fn(&mut wire::ImageSpec);
    let cases: [(&str, Reason, Edit); 22] = [
        ("display_name", Reason::InvalidField, |s| {
            s.display_name.clear();
        }),
        ("display_name", Reason::InvalidField, |s| {
            s.display_name = "é".repeat(245);
        }),
        ("display_name", Reason::InvalidField, |s| {
            s.display_name = "two\nlines".to_owned();
        }),
        ("artifact", Reason::InvalidField, |s| s.artifact = None),
        ("artifact.source", Reason::InvalidField, |s| {
            artifact(s).source = None;
        }),
        ("artifact.http.urls", Reason::InvalidField, |s| urls(s, &[])),
        ("artifact.http.urls", Reason::InvalidField, |s| {
            urls(s, &["https://a.org"; 5]);
        }),
        ("artifact.http.urls", Reason::InvalidField, |s| {
            urls(s, &["ftp://a.org/i"]);
        }),
        ("artifact.http.urls", Reason::InvalidField, |s| {
            urls(s, &["https://u:p@a.org/i"]);
        }),
        ("artifact.http.urls", Reason::InvalidField, |s| {
            urls(s, &["no address"]);
        }),
        ("artifact.digest", Reason::InvalidField, |s| {
            artifact(s).digest = "md5:00".to_owned();
        }),
        ("artifact.uncompressed_digest", Reason::InvalidField, |s| {
            artifact(s).uncompressed_digest = "0a".repeat(32);
        }),
        ("artifact.size_bytes", Reason::InvalidField, |s| {
            artifact(s).size_bytes = -1;
        }),
        ("artifact.compression", Reason::InvalidField, |s| {
            artifact(s).compression = 0;
        }),
        ("artifact.compression", Reason::UnsupportedArtifact, |s| {
            artifact(s).compression = 999;
        }),
        ("artifact.source_secrets", Reason::SizeLimitExceeded, |s| {
            artifact(s).source_secrets = [("a".to_owned(), vec![0; 256 << 10])].into();
        }),
        ("disk_format", Reason::InvalidField, |s| s.disk_format = 0),
        ("disk_format", Reason::UnsupportedArtifact, |s| {
            s.disk_format = 999;
        }),
        ("min_disk_bytes", Reason::InvalidField, |s| {
            s.min_disk_bytes = -1;
        }),
        ("properties", Reason::SizeLimitExceeded, |s| {
            s.properties = (0..65).map(|n| (n.to_string(), String::new())).collect();
        }),
        ("properties", Reason::SizeLimitExceeded, |s| {
            s.properties = [("a".to_owned(), "b".repeat(4096))].into();
        }),
        ("options", Reason::SizeLimitExceeded, |s| {
            let long = serde_json::json!({ "a": "b".repeat(16 << 10) });
            s.options = Some(structure::write(long.as_object().expect("an object")));
        }),
    ];
    for (field, reason, edit) in cases {
        let mut message = spec();
        edit(&mut message);
        let invalid = ImageSpec::try_from(message).expect_err(field);
        assert_eq!((invalid.path(), invalid.reason()), (field, reason));
    }
}

#[test]
fn oci_manifests_need_a_digest_and_a_plain_repository() {
    let mut without = oci();
    artifact(&mut without).digest.clear();
    let invalid = ImageSpec::try_from(without).expect_err("no digest");
    assert_eq!(invalid.path(), "artifact.digest");
    for repository in [
        "",
        "node",
        "/node",
        "a.org/",
        "a.org/node:v1",
        "a.org/node@sha256:0",
    ] {
        let mut message = oci();
        artifact(&mut message).source = Some(wire::artifact::Source::Oci(wire::OciSource {
            repository: repository.to_owned(),
            ca_bundle_pem: Vec::new(),
        }));
        let invalid = ImageSpec::try_from(message).expect_err(repository);
        assert_eq!(invalid.path(), "artifact.oci.repository");
    }
}

#[test]
fn every_limit_at_its_maximum_is_accepted() {
    let mut message = spec();
    message.display_name = "é".repeat(244);
    message.properties = (0..64)
        .map(|n| (format!("{n:02}"), "v".repeat(62)))
        .collect();
    let options = serde_json::json!({ "a": "b".repeat((16 << 10) - 8) });
    message.options = Some(structure::write(options.as_object().expect("an object")));
    artifact(&mut message).source_secrets = (0..64)
        .map(|n| (format!("{n:02}"), vec![0; 4094]))
        .collect();
    let accepted = ImageSpec::try_from(message);
    assert_eq!(accepted.map(|spec| spec.display_name), Ok("é".repeat(244)));
}
