use proptest::prelude::*;

use super::*;

pub(in crate::release) fn version(text: &str) -> Version {
    Version::parse(text).unwrap()
}

#[test]
fn versions_are_read_in_both_forms() {
    for (text, dash, dotted) in [
        ("v1", "v1", "v1"),
        ("v0-beta-1", "v0-beta-1", "v0-beta.1"),
        ("v0-sha.d2lgujm", "v0-sha-d2lgujm", "v0-sha.d2lgujm"),
        ("v7-1-01", "v7-1-01", "v7-1.01"),
    ] {
        assert_eq!(
            (
                version(text).dash().as_str(),
                version(text).dotted().as_str()
            ),
            (dash, dotted)
        );
    }
    for text in [
        "",
        "v",
        "1",
        "V1",
        "v-1",
        "v01",
        "v1-",
        "v1-beta",
        "v1.beta.1",
        "v1-beta..1",
        "v1-beta-.1",
        "v1-b-1-2",
        " v1",
    ] {
        assert!(Version::parse(text).is_err(), "{text}");
    }
}

#[test]
fn versions_that_no_status_has_room_for_are_none() {
    let version = |length: usize| format!("v1-{}-1", "a".repeat(length - "v1--1".len()));
    assert!(Version::parse(&version(MAX_VERSION_LENGTH)).is_ok());
    let long = version(MAX_VERSION_LENGTH + 1);
    assert!(Version::parse(&long).is_err());
    assert!(crate::release::ReleaseName::parse(&format!("docker-scs-1-30-{long}")).is_err());
}

#[test]
fn numbers_compare_as_numbers() {
    // pitfall_60: compared as text, 10 sorts before 9; pitfall_4: the newest release must be told right.
    use Ordering::{Equal, Greater, Less};
    for (a, b, order) in [
        ("v10", "v9", Some(Greater)),
        ("v1", "v1", Some(Equal)),
        ("v0-beta.10", "v0-beta.9", Some(Greater)),
        ("v0-beta-10", "v0-beta.10", Some(Equal)),
        ("v1-beta.1", "v2-beta.0", Some(Less)),
        (
            "v0-rc.99999999999999999999999999",
            "v0-rc.100000000000000000000000000",
            Some(Less),
        ),
        // pitfall_60: hashes and different words have no order.
        ("v0-sha.abc", "v0-sha.abd", None),
        ("v0-sha.abc", "v0-sha.abc", Some(Equal)),
        ("v0-sha.abc", "v0-sha.1", None),
        ("v0-sha.007", "v0-sha.7", None),
        ("v0-sha.abc", "v1-sha.abb", Some(Less)),
        ("v0-alpha.1", "v0-beta.1", None),
        ("v0-alpha.1", "v1-beta.1", None),
        ("v1", "v1-beta.1", None),
        ("v2", "v1-beta.1", None),
    ] {
        assert_eq!(version(a).compare(&version(b)), order, "{a} {b}");
        assert_eq!(
            version(b).compare(&version(a)),
            order.map(Ordering::reverse),
            "{b} {a}"
        );
    }
}

#[test]
fn newest_is_told_only_if_it_is_newer_than_all() {
    for (versions, expected) in [
        (vec![], "none"),
        (vec!["v1"], "v1"),
        (vec!["v9", "v10", "v2"], "v10"),
        (vec!["v0-beta-9", "v0-beta-10", "v0-beta-10"], "v0-beta-10"),
        (vec!["v0-sha-abc"], "v0-sha-abc"),
        (vec!["v0-sha-abc", "v0-sha-abc"], "v0-sha-abc"),
        (vec!["v0-sha-abc", "v0-sha-abd"], "unordered"),
        (vec!["v0-sha-abc", "v0-sha-abd", "v1-sha-aaa"], "v1-sha-aaa"),
        (vec!["v1-sha-aaa", "v0-sha-abc", "v0-sha-abd"], "v1-sha-aaa"),
        (vec!["v0-beta-1", "v0-alpha-2"], "unordered"),
        (vec!["v1", "v2", "v0-alpha-2"], "unordered"),
    ] {
        let versions: Vec<_> = versions.into_iter().map(version).collect();
        let told = match newest(versions.iter()) {
            Newest::None => "none".to_owned(),
            Newest::Some(version) => version.dash(),
            Newest::Unordered => "unordered".to_owned(),
        };
        assert_eq!(told, expected, "{versions:?}");
    }
}

#[test]
fn lists_have_one_order() {
    let sorted = [
        "v0-beta.9",
        "v0-beta.10",
        "v0-sha.8",
        "v0-sha.10",
        "v0-sha.07",
        "v0-sha.abc",
        "v1",
        "v1-rc.1",
        "v9",
        "v10",
    ];
    let mut versions: Vec<_> = sorted.iter().rev().map(|text| version(text)).collect();
    versions.sort_by(Version::list_order);
    assert_eq!(
        versions.iter().map(Version::dotted).collect::<Vec<_>>(),
        sorted
    );
}

#[test]
fn channels_select_by_word() {
    // pitfall_8: any word is a channel, custom takes all of them.
    for (channel, matching) in [
        ("stable", vec!["v1"]),
        ("custom", vec!["v0-sha-abc", "v0-beta-1", "v0-stable-1"]),
        ("beta", vec!["v0-beta-1"]),
        ("sha", vec!["v0-sha-abc"]),
    ] {
        let parsed: Channel = channel.parse().unwrap();
        assert_eq!(parsed.to_string(), channel);
        let all = ["v1", "v0-sha-abc", "v0-beta-1", "v0-stable-1"];
        let told: Vec<_> = all
            .into_iter()
            .filter(|text| parsed.matches(&version(text)))
            .collect();
        assert_eq!(told, matching, "{channel}");
    }
    for text in ["", "Stable", "a-b", "a.b", "12345678901234567", "ü"] {
        assert!(text.parse::<Channel>().is_err(), "{text}");
    }
    assert!("1234567890123456".parse::<Channel>().is_ok());
}

#[test]
fn kubernetes_versions_are_read_with_and_without_v() {
    for text in ["1.30", "v1.30"] {
        assert_eq!(text.parse(), Ok(KubernetesMinor::new(1, 30)), "{text}");
    }
    for text in [
        "v1.30.10",
        "1.30.10",
        "1.30",
        "v1.30.0-rc.1",
        "v1.30.10+k3s1",
    ] {
        assert_eq!(
            KubernetesMinor::of_version(text),
            Ok(KubernetesMinor::new(1, 30)),
            "{text}"
        );
    }
    for text in [
        "", "v", "1", "1.", "1-30", "1.30.1", "1.030", "vv1.30", "a.b", "1.30 ",
    ] {
        assert!(text.parse::<KubernetesMinor>().is_err(), "{text}");
    }
    for text in [
        "",
        "v1",
        "1.x.3",
        "1.30.x",
        "1.30.",
        "1.30.1.2",
        "latest",
        "-1.30.1",
        "1.99999999999.0",
    ] {
        assert!(KubernetesMinor::of_version(text).is_err(), "{text}");
    }
    assert!(KubernetesMinor::new(1, 9) < KubernetesMinor::new(1, 10));
    assert_eq!(KubernetesMinor::new(1, 30).to_string(), "1.30");
}

pub(in crate::release) fn any_version() -> impl Strategy<Value = Version> {
    let pre = proptest::option::of(("[a-z0-9]{1,16}|v[0-9]", "[a-z0-9]{1,10}|v[0-9]"));
    (0..30_u64, pre).prop_map(|(number, pre)| match pre {
        Some((word, patch)) => version(&format!("v{number}-{word}-{patch}")),
        None => Version::plain(number),
    })
}

proptest! {
    #[test]
    fn orders_agree_with_each_other(a in any_version(), b in any_version(), c in any_version()) {
        prop_assert_eq!(a.compare(&b), b.compare(&a).map(Ordering::reverse));
        prop_assert_eq!(a.compare(&b) == Some(Ordering::Equal), a == b);
        if let Some(order) = a.compare(&b) {
            prop_assert_eq!(a.list_order(&b), order);
            if b.compare(&c) == Some(order) {
                prop_assert_eq!(a.compare(&c), Some(order));
            }
        }
        if a.list_order(&b).is_le() && b.list_order(&c).is_le() {
            prop_assert!(a.list_order(&c).is_le());
        }
    }
}
