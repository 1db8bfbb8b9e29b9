//! Names of releases.
//!
//! ```text
//! docker-scs-1-30-v0-sha-d2lgujm     dash form: tags, names of objects
//! docker-scs-1-30-v0-sha.d2lgujm     dot form: ClusterClasses, charts
//! └──stem──┘ └──┘ └─── version
//!            └──────── Kubernetes minor
//! ```
//!
//! Names are read from the right and the stem is never split, because names of providers and stacks may contain
//! dashes themselves. There is exactly one way to read a name: what would have to be the major version of
//! Kubernetes in the wrong reading starts with a `v`. Numbers have no leading zeros, so what was parsed prints as it
//! was written.

use std::fmt;
use std::str::FromStr;

use super::version::{KubernetesMinor, Version, check_length, parse_number};

/// Longest name that is looked at: names become names of Kubernetes objects, which end there.
pub const MAX_NAME_LENGTH: usize = 253;

/// Why a text is no name, version or channel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseNameError {
    /// Nobody names a release like this. The text is not repeated.
    #[error("a name of {length} characters is too long, at most {MAX_NAME_LENGTH} are allowed")]
    ExceedLength {
        /// Length of the text in bytes.
        length: usize,
    },
    /// The text does not end with a version.
    #[error("\"{name}\" does not end with a version such as \"v1\" or \"v0-beta-1\"")]
    LackVersion {
        /// The text.
        name: String,
    },
    /// No Kubernetes version stands before the version.
    #[error(
        "\"{name}\" has no Kubernetes version such as \"1-30\" before its version \"{version}\""
    )]
    LackKubernetes {
        /// The text.
        name: String,
        /// The version at its end.
        version: String,
    },
    /// What stands before the Kubernetes version is no part of an object's name.
    #[error(
        "\"{stem}\" is no \"<provider>-<stack>\": only lower-case letters, digits, dashes and dots are allowed, with a letter or digit at both ends"
    )]
    RejectStem {
        /// The offending part.
        stem: String,
    },
    /// The text is no version.
    #[error("\"{version}\" is no version such as \"v1\", \"v0-beta-1\" or \"v0-beta.1\"")]
    RejectVersion {
        /// The text.
        version: String,
    },
    /// The text is no Kubernetes version.
    #[error("\"{version}\" is no Kubernetes version such as \"{example}\"")]
    RejectKubernetes {
        /// The text.
        version: String,
        /// What was expected.
        example: &'static str,
    },
    /// The text is no channel.
    #[error(
        "\"{channel}\" is no channel: \"stable\", \"custom\" or a word of at most 16 lower-case letters and digits"
    )]
    RejectChannel {
        /// The text.
        channel: String,
    },
}

/// The name of one release, in parts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReleaseName {
    stem: String,
    kubernetes: KubernetesMinor,
    version: Version,
}

impl ReleaseName {
    /// Puts a name together; `stem` is `<provider>-<stack>`.
    ///
    /// # Errors
    ///
    /// The stem cannot be part of an object's name, or the whole is too long for one.
    pub fn new(
        stem: &str,
        kubernetes: KubernetesMinor,
        version: Version,
    ) -> Result<Self, ParseNameError> {
        check_length(stem)?;
        if !is_stem(stem) {
            return Err(ParseNameError::RejectStem {
                stem: stem.to_owned(),
            });
        }
        let name = Self {
            stem: stem.to_owned(),
            kubernetes,
            version,
        };
        check_length(&name.tag())?;
        Ok(name)
    }

    /// Reads a name in dash form or in dot form.
    ///
    /// # Errors
    ///
    /// The text is no name of a release; tags of other things are, so callers count them and go on.
    pub fn parse(text: &str) -> Result<Self, ParseNameError> {
        check_length(text)?;
        let mut version_found = None;
        // The short reading first. At most one of them gives a name (see the module), so the order does not matter
        // for what is accepted, only for which mistake is reported.
        for (head, version) in split_version(text).into_iter().flatten() {
            if let Some((stem, kubernetes)) = split_kubernetes(head) {
                return Self::new(stem, kubernetes, version);
            }
            version_found.get_or_insert(version);
        }
        let name = text.to_owned();
        Err(match version_found {
            Some(version) => ParseNameError::LackKubernetes {
                name,
                version: version.dash(),
            },
            None => ParseNameError::LackVersion { name },
        })
    }

    /// `<provider>-<stack>`, to be compared with the two joined by a dash.
    #[must_use]
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// The Kubernetes minor version that the release is made for.
    #[must_use]
    pub const fn kubernetes(&self) -> KubernetesMinor {
        self.kubernetes
    }

    /// The version of the release.
    #[must_use]
    pub const fn version(&self) -> &Version {
        &self.version
    }

    /// Dash form, as in tags and names of objects: `docker-scs-1-30-v0-sha-d2lgujm`.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("{}-{}", self.helm_release_name(), self.version.dash())
    }

    /// Dot form, as in the name of a ClusterClass: `docker-scs-1-30-v0-sha.d2lgujm`.
    #[must_use]
    pub fn dotted(&self) -> String {
        format!("{}-{}", self.helm_release_name(), self.version.dotted())
    }

    /// The name under which Helm renders the class chart: `docker-scs-1-30`.
    #[must_use]
    pub fn helm_release_name(&self) -> String {
        format!("{}-{}", self.stem, self.kubernetes.dash())
    }

    /// File name of the chart with the ClusterClass.
    #[must_use]
    pub fn class_chart_file(&self) -> String {
        format!(
            "{}-cluster-class-{}.tgz",
            self.helm_release_name(),
            self.version.dotted()
        )
    }

    /// File name of the addon chart; its version is the one in the metadata, not that of the release.
    #[must_use]
    pub fn addon_chart_file(&self, addon: &Version) -> String {
        format!(
            "{}-cluster-addon-{}.tgz",
            self.helm_release_name(),
            addon.dotted()
        )
    }
}

impl fmt::Display for ReleaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.tag())
    }
}

impl FromStr for ReleaseName {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The ways to take a version from the end of a name, with what stands before it: a plain one, and one with word
/// and patch.
fn split_version(text: &str) -> [Option<(&str, Version)>; 2] {
    let split = |at: usize| Some((text.get(..at)?, Version::read(text.get(at + 1..)?)?));
    let mut dashes = text.rmatch_indices('-').map(|(at, _)| at);
    let last = dashes.next();
    // With a dot in the last part that part holds word and patch, else the last two do.
    let dotted = last.is_some_and(|at| text.split_at(at).1.contains('.'));
    let worded = dashes.nth(usize::from(!dotted));
    [last.and_then(split), worded.and_then(split)]
}

fn split_kubernetes(head: &str) -> Option<(&str, KubernetesMinor)> {
    let (head, minor) = head.rsplit_once('-')?;
    let (stem, major) = head.rsplit_once('-')?;
    Some((
        stem,
        KubernetesMinor::new(parse_number(major)?, parse_number(minor)?),
    ))
}

/// The rule for names of Kubernetes objects; it also keeps slashes and `..` out of paths.
fn is_stem(stem: &str) -> bool {
    stem.split('.').all(|label| {
        let inner = label
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    })
}

#[cfg(test)]
mod tests;
