//! Values of options: each parser says what it expected.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use url::Url;

/// A cluster-scoped kind, written `<Kind>` for the core group and `<Kind>.<group>` else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterKind {
    /// The kind, such as `ClusterRole`.
    pub kind: String,
    /// The API group, such as `rbac.authorization.k8s.io`; empty for the core group.
    pub group: String,
}

impl fmt::Display for ClusterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group.as_str() {
            "" => f.write_str(&self.kind),
            group => write!(f, "{}.{group}", self.kind),
        }
    }
}

impl FromStr for ClusterKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, group) = text.split_once('.').unwrap_or((text, ""));
        let kind_fits = kind.starts_with(|c: char| c.is_ascii_uppercase())
            && kind.chars().all(|c| c.is_ascii_alphanumeric());
        let group_fits =
            group.is_empty() && !text.ends_with('.') || group.split('.').all(is_dns_label);
        if !(kind_fits && group_fits) {
            return Err("expected \"<Kind>\" or \"<Kind>.<group>\", as in \"ClusterRole.rbac.authorization.k8s.io\"".to_owned());
        }
        Ok(Self {
            kind: kind.to_owned(),
            group: group.to_owned(),
        })
    }
}

/// The rule for names of namespaces (RFC 1123 label).
fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(super) fn dns_label(text: &str) -> Result<String, String> {
    if is_dns_label(text) {
        Ok(text.to_owned())
    } else {
        Err(
            "expected a name of at most 63 small letters, digits and '-', with '-' not at its ends"
                .to_owned(),
        )
    }
}

/// A namespace, or nothing for all: Go programs write `--namespace=` for that.
pub(super) fn namespace_or_all(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        dns_label(text)
    }
}

/// A value of the label `cluster.x-k8s.io/watch-filter`, or nothing for all objects.
pub(super) fn label_value(text: &str) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let ends = |c: char| c.is_ascii_alphanumeric();
    if text.is_empty()
        || text.len() <= 63
            && text.chars().all(inner)
            && text.starts_with(ends)
            && text.ends_with(ends)
    {
        Ok(text.to_owned())
    } else {
        Err("expected a label value: at most 63 letters, digits, '-', '_' and '.', with a letter or digit at its ends".to_owned())
    }
}

/// The words for a boolean that Go's flags take.
pub(super) fn go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("expected true or false".to_owned()),
    }
}

/// A duration as Go and Kubernetes write it (`5m`, `1m30s`); at least a minute, as in the CRD's `pollInterval`.
pub(super) fn poll_interval(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration of at least one minute, as in \"5m\" or \"1h30m\"";
    let parsed: Option<SignedDuration> = text.parse().ok();
    let duration = parsed.and_then(|duration| Duration::try_from(duration).ok());
    duration
        .filter(|duration| *duration >= Duration::from_mins(1))
        .ok_or_else(|| EXPECTED.to_owned())
}

pub(super) fn web_url(text: &str) -> Result<Url, String> {
    const EXPECTED: &str = "expected an address that starts with https:// or http://";
    let url = Url::parse(text).map_err(|error| format!("{error}; {EXPECTED}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(EXPECTED.to_owned());
    }
    // It would be shown in logs and conditions.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "an address must not hold credentials; give them in the variables meant for them"
                .to_owned(),
        );
    }
    Ok(url)
}

/// A path that means the same wherever the process was started.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("expected an absolute path".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_kinds_name_kind_and_group() {
        for (text, kind, group) in [
            ("Namespace", "Namespace", ""),
            (
                "ClusterRole.rbac.authorization.k8s.io",
                "ClusterRole",
                "rbac.authorization.k8s.io",
            ),
        ] {
            let parsed: ClusterKind = text.parse().unwrap();
            assert_eq!((parsed.kind.as_str(), parsed.group.as_str()), (kind, group));
            assert_eq!(parsed.to_string(), text);
        }
        for text in ["", "namespaces", "Namespace.", "A/B", "Role..io", "Role.IO"] {
            assert!(text.parse::<ClusterKind>().is_err(), "{text}");
        }
    }

    #[test]
    fn poll_intervals_are_go_durations_of_at_least_a_minute() {
        for (text, seconds) in [
            ("5m", 300),
            ("1m0s", 60),
            ("90s", 90),
            ("1h30m", 5400),
            ("60s", 60),
        ] {
            assert_eq!(
                poll_interval(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for text in ["", "5", "59s", "-5m", "soon", "5 parsecs"] {
            assert!(
                poll_interval(text)
                    .unwrap_err()
                    .contains("at least one minute"),
                "{text}"
            );
        }
    }

    #[test]
    fn booleans_are_those_of_go() {
        for (text, expected) in [
            ("true", Some(true)),
            ("T", Some(true)),
            ("0", Some(false)),
            ("yes", None),
            ("", None),
        ] {
            assert_eq!(go_bool(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn addresses_hold_no_credentials() {
        web_url("https://ghe.example/api/v3").unwrap();
        for text in [
            "ghe.example",
            "ftp://ghe.example",
            "https://token@ghe.example",
            "https://a:b@ghe.example",
            "https://",
        ] {
            assert!(web_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_follow_their_rules() {
        for (text, label, namespace, value) in [
            ("cso-system", true, true, true),
            ("", false, true, true),
            ("Upper", false, false, true),
            ("-a", false, false, false),
            ("a_b", false, false, true),
            ("a/b", false, false, false),
            (&"a".repeat(64), false, false, false),
        ] {
            assert_eq!(dns_label(text).is_ok(), label, "{text}");
            assert_eq!(namespace_or_all(text).is_ok(), namespace, "{text}");
            assert_eq!(label_value(text).is_ok(), value, "{text}");
        }
    }
}
