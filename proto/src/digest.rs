//! Digests of bytes, as they stand in artifacts: `sha256:` or `sha512:` and lower-case hex.

use std::fmt;
use std::str::FromStr;

/// Hash functions that digests may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Algorithm {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// Bytes of a hash.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// A hash and the function that made it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: Algorithm,
    hex: String,
}

/// A text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected \"sha256:\" or \"sha512:\" and lower-case hex digits")]
pub struct ParseDigest;

impl Digest {
    /// The digest with this hash; absent if the hash has the wrong length.
    #[must_use]
    pub fn new(algorithm: Algorithm, hash: &[u8]) -> Option<Self> {
        (hash.len() == algorithm.bytes()).then(|| Self {
            algorithm,
            hex: hex::encode(hash),
        })
    }

    /// The hash function.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The hash as lower-case hex.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl FromStr for Digest {
    type Err = ParseDigest;

    fn from_str(text: &str) -> Result<Self, ParseDigest> {
        let (name, hex) = text.split_once(':').ok_or(ParseDigest)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(ParseDigest),
        };
        let lower_hex = hex
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex.len() != 2 * algorithm.bytes() || !lower_hex {
            return Err(ParseDigest);
        }
        Ok(Self {
            algorithm,
            hex: hex.to_owned(),
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_and_written_alike() {
        for text in [
            format!("sha256:{}", "0a".repeat(32)),
            format!("sha512:{}", "f9".repeat(64)),
        ] {
            assert_eq!(text.parse::<Digest>().map(|d| d.to_string()), Ok(text));
        }
    }

    #[test]
    fn texts_that_are_no_digests_are_refused() {
        for text in [
            String::new(),
            "0a".repeat(32),
            format!("md5:{}", "0a".repeat(16)),
            format!("sha256:{}", "0A".repeat(32)),
            format!("sha256:{}a", "0a".repeat(31)),
            format!("sha512:{}", "0a".repeat(32)),
            format!("sha256:{} ", "0a".repeat(32)),
        ] {
            assert_eq!(text.parse::<Digest>(), Err(ParseDigest), "{text}");
        }
    }
}
