//! Names of things between core and provider: installation, place, spec and image (contract, section 5).
//!
//! All of them are derived by the core, from what does not change; the provider compares and never derives. Hashes are
//! SHA-256 over RFC 8785 JSON, so that anybody can compute them in any language.

use std::fmt;
use std::str::FromStr;

use data_encoding::Encoding;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::image::ImageSpec;
use crate::{Invalid, wire};

/// Characters of base32 that are kept of a hash: 200 bits.
const HASH_CHARACTERS: usize = 40;

/// Characters of the hash that a working name shows.
const WORKING_NAME_CHARACTERS: usize = 10;

fn base32() -> Encoding {
    let mut specification = data_encoding::BASE32_NOPAD.specification();
    specification.symbols.make_ascii_lowercase();
    specification
        .encoding()
        .expect("the alphabet of RFC 4648 in lower case has 32 symbols")
}

fn hash(value: &Value) -> [u8; 32] {
    let canonical = serde_json_canonicalizer::to_vec(value)
        .expect("strings, finite numbers, lists and objects have a canonical form");
    Sha256::digest(canonical).into()
}

fn short_hash(value: &Value) -> String {
    let mut text = base32().encode(&hash(value));
    text.truncate(HASH_CHARACTERS);
    text
}

macro_rules! text_type {
    ($(#[doc = $doc:literal])+ $name:ident, $field:literal, $check:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// As it travels.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                if text.is_empty() {
                    return Err(Invalid::required($field));
                }
                let check: fn(&str) -> Option<&'static str> = $check;
                match check(text) {
                    None => Ok(Self(text.to_owned())),
                    Some(why) => Err(Invalid::field($field, why)),
                }
            }
        }
    };
}

fn label(text: &str, longest: usize) -> bool {
    let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9');
    text.len() <= longest
        && text.bytes().all(|byte| plain(byte) || byte == b'-')
        && text.bytes().next().is_some_and(plain)
        && text.bytes().next_back().is_some_and(plain)
}

text_type! {
    /// One deployment of the core; scopes every key, list and deletion.
    InstallationId, "installation_id", |text| {
        (!label(text, 64)).then_some("must be at most 64 of [a-z0-9-], alphanumeric at both ends")
    }
}

text_type! {
    /// A place in a backend: where one target leads to.
    TargetId, "target_id", |text| {
        (text.chars().count() > 128).then_some("must have at most 128 characters")
    }
}

text_type! {
    /// What the image is to be, as a hash.
    SpecDigest, "spec_digest", |text| {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        let fits = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (!fits).then_some("must be \"sha256:\" and 64 lower-case hex digits")
    }
}

text_type! {
    /// One image at one place for one installation.
    Key, "key", |text| (!label(text, 63)).then_some("must be a DNS label of at most 63 characters")
}

impl TargetId {
    /// The place that a provider calls `target_identity`.
    #[must_use]
    pub fn derive(provider_name: &str, target_identity: &str) -> Self {
        Self(format!(
            "t-{}",
            short_hash(&json!([provider_name, target_identity]))
        ))
    }
}

impl SpecDigest {
    /// The hash of a spec in canonical form 1. Not in it: secrets, mirrors beside a digest, the OCI repository, CA bundles.
    #[must_use]
    pub fn of(spec: &ImageSpec) -> Self {
        Self(format!("sha256:{}", hex::encode(hash(&spec.canonical()))))
    }

    /// The hash without the name of its function.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

impl Key {
    /// Equal wishes of one installation for one place have one key.
    #[must_use]
    pub fn derive(installation: &InstallationId, place: &TargetId, digest: &SpecDigest) -> Self {
        Self(format!(
            "ni-{}",
            short_hash(&json!([
                installation.as_str(),
                place.as_str(),
                digest.as_str()
            ]))
        ))
    }

    /// What an image under this key is called while it does not carry its display name.
    #[must_use]
    pub fn working_name(&self, display_name: &str) -> String {
        let hash = self.0.strip_prefix("ni-").unwrap_or(&self.0);
        let shown: String = hash.chars().take(WORKING_NAME_CHARACTERS).collect();
        format!("{display_name}~{shown}")
    }
}

/// How core and provider address an image.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageKey {
    /// The key.
    pub key: Key,
    /// What is or should be under the key; absent where it does not matter.
    pub spec_digest: Option<SpecDigest>,
}

impl TryFrom<wire::ImageKey> for ImageKey {
    type Error = Invalid;

    fn try_from(message: wire::ImageKey) -> Result<Self, Invalid> {
        let spec_digest = match message.spec_digest.as_str() {
            "" => None,
            text => Some(text.parse()?),
        };
        Ok(Self {
            key: message.key.parse()?,
            spec_digest,
        })
    }
}

impl From<&ImageKey> for wire::ImageKey {
    fn from(key: &ImageKey) -> Self {
        Self {
            key: key.key.to_string(),
            spec_digest: key
                .spec_digest
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests;
