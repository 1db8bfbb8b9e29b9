//! Versions of releases, the channels they belong to, and minor versions of Kubernetes.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::name::{MAX_NAME_LENGTH, ParseNameError};

/// Longest version, in bytes: what the fields have room for that name it, in specs and statuses.
pub const MAX_VERSION_LENGTH: usize = 63;

/// Longest word of a channel.
const MAX_CHANNEL_LENGTH: usize = 16;

/// The version of a release or of a component: `v2`, `v0-beta-1`, `v0-sha-d2lgujm`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    number: u64,
    pre: Option<Pre>,
}

/// `<word>-<patch>` of a version off the stable channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Pre {
    word: String,
    patch: String,
}

impl Version {
    /// A version of the stable channel.
    #[must_use]
    pub const fn plain(number: u64) -> Self {
        Self { number, pre: None }
    }

    /// Reads a version in dash form or in dot form.
    ///
    /// # Errors
    ///
    /// The text is neither, or absurdly long.
    pub fn parse(text: &str) -> Result<Self, ParseNameError> {
        check_length(text)?;
        Self::read(text).ok_or_else(|| ParseNameError::RejectVersion {
            version: text.to_owned(),
        })
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        if text.len() > MAX_VERSION_LENGTH {
            return None;
        }
        let (number, rest) = match text.split_once('-') {
            Some((number, rest)) => (number, Some(rest)),
            None => (text, None),
        };
        let number = parse_number(number.strip_prefix('v')?)?;
        let pre = match rest {
            Some(rest) => {
                let (word, patch) = rest.split_once(['-', '.'])?;
                if !is_alphanumeric(word) || !is_alphanumeric(patch) {
                    return None;
                }
                Some(Pre {
                    word: word.to_owned(),
                    patch: patch.to_owned(),
                })
            }
            None => None,
        };
        Some(Self { number, pre })
    }

    /// Dash form, as in tags: `v0-sha-d2lgujm`.
    #[must_use]
    pub fn dash(&self) -> String {
        self.join('-')
    }

    /// Dot form, as in charts and metadata: `v0-sha.d2lgujm`.
    #[must_use]
    pub fn dotted(&self) -> String {
        self.join('.')
    }

    fn join(&self, separator: char) -> String {
        let number = self.number;
        match &self.pre {
            Some(Pre { word, patch }) => format!("v{number}-{word}{separator}{patch}"),
            None => format!("v{number}"),
        }
    }

    /// The word of the channel, if this is no version of the stable channel.
    #[must_use]
    pub fn word(&self) -> Option<&str> {
        self.pre.as_ref().map(|pre| pre.word.as_str())
    }

    /// Which of two versions of one stack is newer, if that can be told.
    ///
    /// Numbers compare as numbers. Versions of different channels have no order, `v1` and `v1-beta-1` included:
    /// nothing in the format says that a beta precedes the plain version of its number, and `v0-sha-…` builds are
    /// made all the time. A patch that is no number (a hash) has no order either; then only equality is known. The
    /// answer is `Equal` exactly when the versions are equal, and the order is transitive.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        if self.word() != other.word() {
            return None;
        }
        let patches = match (&self.pre, &other.pre) {
            (Some(a), Some(b)) => compare_patches(&a.patch, &b.patch),
            _ => Some(Ordering::Equal),
        };
        match self.number.cmp(&other.number) {
            Ordering::Equal => patches,
            unequal => Some(unequal),
        }
    }

    /// A fixed order for lists that people read, over all versions; it claims nothing about which one is newer.
    #[must_use]
    pub fn list_order(&self, other: &Self) -> Ordering {
        let key = |version: &Self| list_key(version.pre.as_ref().map_or("", |pre| &pre.patch));
        self.number
            .cmp(&other.number)
            .then_with(|| self.word().cmp(&other.word()))
            .then_with(|| key(self).cmp(&key(other)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.dash())
    }
}

impl FromStr for Version {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

/// The newest of several versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Newest<'a> {
    /// There are no versions.
    None,
    /// This one is newer than, or equal to, every other.
    Some(&'a Version),
    /// Several versions cannot be compared, so that none is known to be the newest.
    Unordered,
}

/// Finds the version that is newer than all others.
pub fn newest<'a>(versions: impl Iterator<Item = &'a Version>) -> Newest<'a> {
    let versions: Vec<_> = versions.collect();
    // A greatest version wins every comparison, so it is held from the moment it is met. Whether the one that is
    // held at the end is greatest must be asked again: it may never have met those before it.
    let Some(best) = versions.iter().copied().reduce(|best, next| {
        if best.compare(next) == Some(Ordering::Less) {
            next
        } else {
            best
        }
    }) else {
        return Newest::None;
    };
    if versions
        .iter()
        .all(|other| best.compare(other).is_some_and(Ordering::is_ge))
    {
        Newest::Some(best)
    } else {
        Newest::Unordered
    }
}

/// Which versions of a stack are followed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Channel {
    /// Plain versions: `v1`.
    Stable,
    /// Every version with a word.
    Custom,
    /// Versions with this word.
    Word(String),
}

impl Channel {
    /// Whether a version belongs to the channel.
    #[must_use]
    pub fn matches(&self, version: &Version) -> bool {
        match self {
            Self::Stable => version.word().is_none(),
            Self::Custom => version.word().is_some(),
            Self::Word(word) => version.word() == Some(word),
        }
    }
}

impl FromStr for Channel {
    type Err = ParseNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "stable" => Ok(Self::Stable),
            "custom" => Ok(Self::Custom),
            word if word.len() <= MAX_CHANNEL_LENGTH && is_alphanumeric(word) => {
                Ok(Self::Word(word.to_owned()))
            }
            _ => {
                check_length(text)?;
                Err(ParseNameError::RejectChannel {
                    channel: text.to_owned(),
                })
            }
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stable => "stable",
            Self::Custom => "custom",
            Self::Word(word) => word,
        })
    }
}

/// A minor version of Kubernetes: `1.30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KubernetesMinor {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
}

impl KubernetesMinor {
    /// Puts one together.
    #[must_use]
    pub const fn new(major: u32, minor: u32) -> Self {
        Self { major, minor }
    }

    /// The minor version of a version as it stands in metadata: `v1.30.10`, `1.30.10`, `v1.30.10+k3s1`, `1.30`.
    ///
    /// # Errors
    ///
    /// The text is no version of Kubernetes.
    pub fn of_version(text: &str) -> Result<Self, ParseNameError> {
        check_length(text)?;
        let numbers = text.split(['+', '-']).next().unwrap_or_default();
        // The numbers behind the minor version are not used, but tell a version from a typing mistake.
        let mut patches = numbers.split('.').skip(2);
        let patches_fit = patches
            .next()
            .is_none_or(|patch| parse_number::<u32>(patch).is_some())
            && patches.next().is_none();
        Self::read(numbers, 3)
            .filter(|_| patches_fit)
            .ok_or_else(|| ParseNameError::RejectKubernetes {
                version: text.to_owned(),
                example: "v1.30.10",
            })
    }

    fn read(text: &str, parts: usize) -> Option<Self> {
        // `v1.30` is not what the field asks for, but there is nothing else that it could mean.
        let mut parts = text.strip_prefix('v').unwrap_or(text).splitn(parts, '.');
        Some(Self {
            major: parse_number(parts.next()?)?,
            minor: parse_number(parts.next()?)?,
        })
    }

    /// As it stands in names: `1-30`.
    #[must_use]
    pub fn dash(&self) -> String {
        format!("{}-{}", self.major, self.minor)
    }
}

impl fmt::Display for KubernetesMinor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl FromStr for KubernetesMinor {
    type Err = ParseNameError;

    /// Reads `1.30`, as in `spec.kubernetesVersion`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        check_length(text)?;
        Self::read(text, 2).ok_or_else(|| ParseNameError::RejectKubernetes {
            version: text.to_owned(),
            example: "1.30",
        })
    }
}

pub(super) const fn check_length(text: &str) -> Result<(), ParseNameError> {
    let length = text.len();
    if length > MAX_NAME_LENGTH {
        Err(ParseNameError::ExceedLength { length })
    } else {
        Ok(())
    }
}

/// Digits without leading zeros: only then does a number print as it was written.
pub(super) fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    if is_number(text) {
        text.parse().ok()
    } else {
        None
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'))
}

fn is_alphanumeric(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn compare_patches(a: &str, b: &str) -> Option<Ordering> {
    if a == b {
        return Some(Ordering::Equal);
    }
    // Without leading zeros the longer number is the larger one, however many digits it has. With them it is no
    // number (a hash may consist of digits), as in semantic versions.
    (is_number(a) && is_number(b)).then(|| a.len().cmp(&b.len()).then_with(|| a.cmp(b)))
}

/// Numbers before hashes, numbers by value.
fn list_key(patch: &str) -> (bool, usize, String) {
    if is_number(patch) {
        (false, patch.len(), patch.to_owned())
    } else {
        (true, 0, patch.to_owned())
    }
}

#[cfg(test)]
pub(in crate::release) mod tests;
