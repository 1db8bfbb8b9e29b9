//! What is wrong with a message: which field, and why. The value itself is never repeated, it may be secret.

use crate::{ProviderError, Reason};

/// A message that breaks the contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{field}\" {why}")]
pub struct Invalid {
    reason: Reason,
    field: String,
    why: String,
}

impl Invalid {
    /// The field is missing or malformed; `why` goes on after the field's name: "is required".
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            reason: Reason::InvalidField,
            field: field.into(),
            why: why.into(),
        }
    }

    /// The field exceeds a limit of the contract.
    pub fn too_large(field: impl Into<String>, limit: impl std::fmt::Display) -> Self {
        Self {
            reason: Reason::SizeLimitExceeded,
            field: field.into(),
            why: format!("exceeds {limit}"),
        }
    }

    /// The field asks for something that the receiver does not offer.
    pub fn unsupported(field: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            reason: Reason::UnsupportedArtifact,
            field: field.into(),
            why: why.into(),
        }
    }

    /// The field is empty or absent.
    pub fn required(field: impl Into<String>) -> Self {
        Self::field(field, "is required")
    }

    /// The same, seen from the message that holds it in its field `parent`.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = if self.field.is_empty() {
            parent.to_owned()
        } else {
            format!("{parent}.{}", self.field)
        };
        self
    }

    /// Path of the field, in the spelling of the proto files, such as `spec.artifact.digest`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.field
    }

    /// What is wrong with it.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The reason in the contract's terms.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }
}

impl From<Invalid> for ProviderError {
    fn from(invalid: Invalid) -> Self {
        let error = Self::new(invalid.reason, invalid.to_string());
        error.with_field(invalid.field, invalid.why)
    }
}
