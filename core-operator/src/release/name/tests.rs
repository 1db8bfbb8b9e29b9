use proptest::prelude::*;

use super::super::version::tests::{any_version, version};
use super::*;
use crate::release::Channel;

#[test]
fn both_forms_of_a_name_give_the_same_parts() {
    // pitfall_61: names of providers and stacks contain dashes, and are never split.
    for (dash, dotted, stem, minor, word) in [
        (
            "docker-scs-1-30-v1",
            "docker-scs-1-30-v1",
            "docker-scs",
            (1, 30),
            None,
        ),
        (
            "docker-scs-1-30-v0-sha-d2lgujm",
            "docker-scs-1-30-v0-sha.d2lgujm",
            "docker-scs",
            (1, 30),
            Some("sha"),
        ),
        (
            "open-stack-my-own-stack-1-32-v10",
            "open-stack-my-own-stack-1-32-v10",
            "open-stack-my-own-stack",
            (1, 32),
            None,
        ),
        (
            "a-1-2-v3-b-4-1-30-v0-beta-7",
            "a-1-2-v3-b-4-1-30-v0-beta.7",
            "a-1-2-v3-b-4",
            (1, 30),
            Some("beta"),
        ),
        (
            "docker-v2-1-30-v1",
            "docker-v2-1-30-v1",
            "docker-v2",
            (1, 30),
            None,
        ),
        (
            "docker-1-30-1-31-v1",
            "docker-1-30-1-31-v1",
            "docker-1-30",
            (1, 31),
            None,
        ),
        (
            "docker-scs-1-30-v0-sha-v1",
            "docker-scs-1-30-v0-sha.v1",
            "docker-scs",
            (1, 30),
            Some("sha"),
        ),
        (
            "docker-scs-1-30-v0-7-v1",
            "docker-scs-1-30-v0-7.v1",
            "docker-scs",
            (1, 30),
            Some("7"),
        ),
        (
            "docker-scs-1-30-v0-v1-v2",
            "docker-scs-1-30-v0-v1.v2",
            "docker-scs",
            (1, 30),
            Some("v1"),
        ),
        (
            "docker.io-scs-1-30-v0-rc-1",
            "docker.io-scs-1-30-v0-rc.1",
            "docker.io-scs",
            (1, 30),
            Some("rc"),
        ),
        ("x-10-0-v0", "x-10-0-v0", "x", (10, 0), None),
        (
            "x-1-30-v18446744073709551615",
            "x-1-30-v18446744073709551615",
            "x",
            (1, 30),
            None,
        ),
    ] {
        for text in [dash, dotted] {
            let name = ReleaseName::parse(text).unwrap();
            assert_eq!(name.stem(), stem, "{text}");
            assert_eq!(
                name.kubernetes(),
                KubernetesMinor::new(minor.0, minor.1),
                "{text}"
            );
            assert_eq!(name.version().word(), word, "{text}");
            assert_eq!(
                (name.tag().as_str(), name.dotted().as_str()),
                (dash, dotted)
            );
            assert_eq!(name.to_string(), dash);
        }
    }
}

#[test]
fn names_for_helm_and_of_charts_follow_from_the_release() {
    let name = ReleaseName::parse("docker-scs-1-30-v0-sha-d2lgujm").unwrap();
    assert_eq!(name.helm_release_name(), "docker-scs-1-30");
    assert_eq!(
        name.class_chart_file(),
        "docker-scs-1-30-cluster-class-v0-sha.d2lgujm.tgz"
    );
    assert_eq!(
        name.addon_chart_file(&version("v2")),
        "docker-scs-1-30-cluster-addon-v2.tgz"
    );
}

#[test]
fn foreign_tags_are_told_apart_with_a_reason() {
    for (text, reason) in [
        ("", "does not end with a version"),
        ("v1", "does not end with a version"),
        ("-", "does not end with a version"),
        ("---", "does not end with a version"),
        ("v1.30.10", "does not end with a version"),
        ("release-2024-01-01", "does not end with a version"),
        ("docker-scs-1-30-v", "does not end with a version"),
        ("docker-scs-1-30-v01", "does not end with a version"),
        ("docker-scs-1-30-v+1", "does not end with a version"),
        ("docker-scs-1-30-v1-", "does not end with a version"),
        ("docker-scs-1-30-v1-beta", "does not end with a version"),
        ("docker-scs-1-30-v1-beta-", "does not end with a version"),
        ("docker-scs-1-30-v1-beta-1-2", "does not end with a version"),
        ("docker-scs-1-30-v1-beta.1.2", "does not end with a version"),
        ("docker-scs-1-30-v1-Beta-1", "does not end with a version"),
        ("docker-scs-1-30-v1.beta.1", "does not end with a version"),
        (
            "docker-scs-1-30-v18446744073709551616",
            "does not end with a version",
        ),
        ("docker-scs-1-30-v1\n", "does not end with a version"),
        ("docker-scs-1-30-v٣", "does not end with a version"),
        ("schön-1-30-ü-ß.ö", "does not end with a version"),
        (
            "docker-v1",
            "has no Kubernetes version such as \"1-30\" before its version \"v1\"",
        ),
        ("1-30-v1", "has no Kubernetes version"),
        ("docker-1.30-v1", "has no Kubernetes version"),
        ("docker-scs-1-030-v1", "has no Kubernetes version"),
        ("docker-scs-1-30-sha-v1", "has no Kubernetes version"),
        (
            "docker-scs-v0-sha-d2lgujm",
            "before its version \"v0-sha-d2lgujm\"",
        ),
        ("-1-30-v1", "is no \"<provider>-<stack>\""),
        ("docker--1-30-v1", "is no \"<provider>-<stack>\""),
        ("Docker-scs-1-30-v1", "is no \"<provider>-<stack>\""),
        ("../../etc-1-30-v1", "is no \"<provider>-<stack>\""),
        ("..-1-30-v1", "is no \"<provider>-<stack>\""),
        ("a b-1-30-v1", "is no \"<provider>-<stack>\""),
    ] {
        let error = ReleaseName::parse(text).expect_err(text).to_string();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn absurdly_long_tags_are_refused_without_being_repeated() {
    for text in [
        "v".repeat(10_000),
        "-".repeat(10_000),
        format!("{}-1-30-v1", "a".repeat(10_000)),
        "1-".repeat(5_000),
    ] {
        let length = text.len();
        assert_eq!(
            ReleaseName::parse(&text),
            Err(ParseNameError::ExceedLength { length })
        );
        assert_eq!(
            Version::parse(&text),
            Err(ParseNameError::ExceedLength { length })
        );
        assert!(text.parse::<Channel>().unwrap_err().to_string().len() < 200);
        assert!(
            text.parse::<KubernetesMinor>()
                .unwrap_err()
                .to_string()
                .len()
                < 200
        );
        assert!(
            KubernetesMinor::of_version(&text)
                .unwrap_err()
                .to_string()
                .len()
                < 200
        );
    }
    let stem = "a".repeat(MAX_NAME_LENGTH - "-1-30-v1".len());
    assert!(ReleaseName::parse(&format!("{stem}-1-30-v1")).is_ok());
    assert!(ReleaseName::new(&stem, KubernetesMinor::new(1, 30), Version::plain(10)).is_err());
}

fn any_name() -> impl Strategy<Value = ReleaseName> {
    // Stems that look like the end of a name are the hard ones.
    let stem = "([a-z0-9]{1,5}|v[0-9]|[0-9]{1,2})(-([a-z0-9]{1,5}|v[0-9]|[0-9]{1,2})){0,5}";
    (stem, 0..3_u32, 0..40_u32, any_version()).prop_map(|(stem, major, minor, version)| {
        ReleaseName::new(&stem, KubernetesMinor::new(major, minor), version).unwrap()
    })
}

proptest! {
    #[test]
    fn printed_names_are_read_as_they_were(name in any_name()) {
        prop_assert_eq!(&ReleaseName::parse(&name.tag()).unwrap(), &name);
        prop_assert_eq!(&ReleaseName::parse(&name.dotted()).unwrap(), &name);
    }

    #[test]
    fn read_names_print_as_they_were(text in "([a-z0-9]{1,3}-){0,6}[0-9]{1,2}-[0-9]{1,2}-v[0-9]{1,2}([-.][a-z0-9]{1,3}){0,3}") {
        if let Ok(name) = ReleaseName::parse(&text) {
            prop_assert!(name.tag() == text || name.dotted() == text, "{}", text);
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC*|[-.v0-9a-zß]{0,40}") {
        if let Ok(name) = ReleaseName::parse(&text) {
            prop_assert!(name.tag() == text || name.dotted() == text, "{}", text);
        }
        if let Ok(version) = Version::parse(&text) {
            prop_assert!(version.dash() == text || version.dotted() == text, "{}", text);
        }
        let _ = (text.parse::<Channel>(), text.parse::<KubernetesMinor>(), KubernetesMinor::of_version(&text));
    }
}
