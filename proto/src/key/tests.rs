//! The expected values were computed by another program, in another language.

use serde_json::json;

use super::*;
use crate::image::{Artifact, Compression, DiskFormat, HttpSource, Source};
use crate::{Digest, Secrets};

fn http(urls: &[&str]) -> Source {
    Source::Http(HttpSource {
        urls: urls
            .iter()
            .map(|url| url.parse().expect("an address"))
            .collect(),
        ca_bundle_pem: Vec::new(),
    })
}

fn digest(text: &str) -> Digest {
    text.parse().expect("a digest")
}

fn full(urls: &[&str]) -> ImageSpec {
    let artifact = Artifact::new(http(urls), Compression::Zstd)
        .with_digest(digest(&format!("sha256:{}", "0a".repeat(32))))
        .with_size(1 << 30)
        .with_uncompressed_digest(digest(&format!("sha512:{}", "f9".repeat(64))));
    let options = json!({"visibility": "private", "tags": ["a", 1]});
    ImageSpec::new("ubuntu-2204-v1.33", artifact, DiskFormat::Qcow2)
        .with_min_disk(20)
        .with_property("hw_disk_bus", "scsi")
        .with_options(options.as_object().expect("an object").clone())
}

#[test]
fn place_digest_and_key_are_those_of_the_contract() {
    let place = TargetId::derive("docker", "daemon-1");
    assert_eq!(place.as_str(), "t-tp6k3b26wxxivlz2a4tyqg5gmcyskbn77e2gtctw");
    let digest = SpecDigest::of(&full(&["https://a.example.org/i"]));
    assert_eq!(
        digest.as_str(),
        "sha256:8a57ee9d14fab279d8a41969c754e3816ce3a1df77eb122a7b575cd32e99786b"
    );
    let installation = "installation-1".parse().expect("an installation");
    let key = Key::derive(&installation, &place, &digest);
    assert_eq!(key.as_str(), "ni-tlwfhubnipxxij536sc4r74swh3ntmhcravhjt3d");
    assert_eq!(key.as_str().parse(), Ok(key.clone()));
    assert_eq!(key.working_name("node-v1"), "node-v1~tlwfhubnip");
}

#[test]
fn without_digest_the_addresses_are_the_wish_in_any_order() {
    let spec = |urls: &[&str]| {
        let artifact = Artifact::new(http(urls), Compression::None);
        SpecDigest::of(&ImageSpec::new("n", artifact, DiskFormat::Raw))
    };
    let one = spec(&["https://b.example.org/i", "https://a.example.org/i"]);
    let other = spec(&["https://a.example.org/i", "https://b.example.org/i"]);
    assert_eq!(
        one.as_str(),
        "sha256:4ac5eea156bf7a963979b266b81c09908bd003c1dcfbf6eef337e7b7fb5310c1"
    );
    assert_eq!(one, other);
    assert_ne!(one, spec(&["https://c.example.org/i"]));
}

#[test]
fn secrets_mirrors_repository_and_trust_are_not_part_of_the_wish() {
    let oci = |repository: &str| {
        Artifact::oci(repository, digest(&format!("sha256:{}", "0a".repeat(32))))
    };
    let of = |artifact| SpecDigest::of(&ImageSpec::new("n", artifact, DiskFormat::Container));
    let plain = of(oci("registry.example.org/n"));
    assert_eq!(
        plain.as_str(),
        "sha256:0ad26bc2dda74dc1f590c4ccf6a75980ad9d60d20961c964d55397ab9d3fe361"
    );
    let secrets = Secrets::from_iter([("password".to_owned(), b"x".to_vec())]);
    assert_eq!(plain, of(oci("mirror.example.org/m").with_secrets(secrets)));
    assert_eq!(
        SpecDigest::of(&full(&["https://a.example.org/i"])),
        SpecDigest::of(&full(&["https://b.example.org/i"]))
    );
}

#[test]
fn names_that_break_the_rules_are_refused() {
    for text in ["", "Upper", "-leading", "trailing-", "a_b", &"a".repeat(64)] {
        let invalid = text.parse::<Key>().expect_err(text);
        assert_eq!(invalid.path(), "key");
    }
    assert!("a".repeat(63).parse::<Key>().is_ok());
    for text in ["", "UPPER", &"a".repeat(65)] {
        assert!(text.parse::<InstallationId>().is_err(), "{text}");
    }
    assert!("a".repeat(64).parse::<InstallationId>().is_ok());
    for text in ["", "sha256:", &format!("sha512:{}", "0a".repeat(32))] {
        assert!(text.parse::<SpecDigest>().is_err(), "{text}");
    }
    assert!("é".repeat(128).parse::<TargetId>().is_ok());
    assert!("é".repeat(129).parse::<TargetId>().is_err());
}
