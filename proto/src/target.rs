//! Where images go: settings and secrets that lead to one place in a backend.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::key::TargetId;
use crate::{Invalid, structure, wire};

/// Largest settings, in bytes of JSON.
pub const MAX_CONFIG_BYTES: usize = 64 << 10;
/// Most secrets of a target or a source.
pub const MAX_SECRETS: usize = 64;
/// Largest secrets of a target or a source together, names included, in bytes.
pub const MAX_SECRET_BYTES: usize = 256 << 10;

/// Secret values by name: never printed, wiped from memory when dropped.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Zeroizing<Vec<u8>>>);

impl Secrets {
    /// The value of one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(|value| value.as_slice())
    }

    /// The value of one that is text; absent too if it is not UTF-8.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn check(&self, field: &str) -> Result<(), Invalid> {
        if self.0.len() > MAX_SECRETS {
            return Err(Invalid::too_large(field, format!("{MAX_SECRETS} entries")));
        }
        let bytes: usize = self
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > MAX_SECRET_BYTES {
            return Err(Invalid::too_large(
                field,
                format!("{} KiB", MAX_SECRET_BYTES >> 10),
            ));
        }
        Ok(())
    }

    pub(crate) fn to_wire(&self) -> BTreeMap<String, Vec<u8>> {
        self.0
            .iter()
            .map(|(name, value)| (name.clone(), value.to_vec()))
            .collect()
    }
}

impl FromIterator<(String, Vec<u8>)> for Secrets {
    fn from_iter<I: IntoIterator<Item = (String, Vec<u8>)>>(secrets: I) -> Self {
        Self(
            secrets
                .into_iter()
                .map(|(name, value)| (name, Zeroizing::new(value)))
                .collect(),
        )
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Settings and secrets that lead to one place.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Target {
    /// The place, once it is known.
    pub id: Option<TargetId>,
    /// Settings, which the provider checks.
    pub config: Map<String, Value>,
    /// Credentials.
    pub secrets: Secrets,
    /// Changes whenever the secrets change; no secret itself.
    pub secrets_version: String,
}

impl Target {
    /// A target whose place is not known yet.
    #[must_use]
    pub const fn new(
        config: Map<String, Value>,
        secrets: Secrets,
        secrets_version: String,
    ) -> Self {
        Self {
            id: None,
            config,
            secrets,
            secrets_version,
        }
    }

    /// The same, with its place.
    #[must_use]
    pub fn at(mut self, id: TargetId) -> Self {
        self.id = Some(id);
        self
    }

    /// The place.
    ///
    /// # Errors
    ///
    /// It is not known.
    pub fn place(&self) -> Result<&TargetId, Invalid> {
        self.id
            .as_ref()
            .ok_or_else(|| Invalid::required("target_id"))
    }

    fn check(&self) -> Result<(), Invalid> {
        self.secrets.check("secrets")?;
        if json_len(&self.config) > MAX_CONFIG_BYTES {
            return Err(Invalid::too_large(
                "config",
                format!("{} KiB", MAX_CONFIG_BYTES >> 10),
            ));
        }
        if self.secrets_version.chars().count() > 128 {
            return Err(Invalid::too_large("secrets_version", "128 characters"));
        }
        Ok(())
    }

    /// As it travels.
    ///
    /// # Errors
    ///
    /// A limit of the contract is exceeded.
    pub fn to_wire(&self) -> Result<wire::Target, Invalid> {
        self.check()?;
        Ok(wire::Target {
            target_id: self
                .id
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            config: Some(structure::write(&self.config)),
            secrets: self.secrets.to_wire(),
            secrets_version: self.secrets_version.clone(),
        })
    }
}

impl TryFrom<wire::Target> for Target {
    type Error = Invalid;

    fn try_from(message: wire::Target) -> Result<Self, Invalid> {
        let target = Self {
            id: match message.target_id.as_str() {
                "" => None,
                text => Some(text.parse()?),
            },
            config: structure::read(message.config.unwrap_or_default(), "config")?,
            secrets: message.secrets.into_iter().collect(),
            secrets_version: message.secrets_version,
        };
        target.check()?;
        Ok(target)
    }
}

/// Bytes of an object as JSON.
pub(crate) fn json_len(object: &Map<String, Value>) -> usize {
    serde_json::to_vec(object).map_or(usize::MAX, |json| json.len())
}
