//! Why a release cannot be used.

use std::io;

use proto::Recovery;

use super::yaml::YamlError;

/// Why a release cannot be used: which file, what was expected in it, what was found.
///
/// The message fits into a condition: names and values of others are cut, and nothing is repeated at length.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseInvalid {
    /// The disk did not give the file. This says nothing about the release.
    #[error("failed to read \"{file}\": {source}")]
    ReadFile {
        /// Name of the file or the folder.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// A file is not there.
    #[error("the release lacks \"{file}\", there is {found}")]
    LackFile {
        /// Name that was expected.
        file: String,
        /// Names that look like it.
        found: String,
    },
    /// A file is larger than any real one.
    #[error("\"{file}\" is too large: expected at most {limit} bytes, found {size}")]
    ExceedSize {
        /// Name of the file.
        file: String,
        /// The largest size that is read.
        limit: u64,
        /// The size of the file.
        size: u64,
    },
    /// A file is not a text.
    #[error("\"{file}\" is wrong: expected text in UTF-8, found something else")]
    RejectEncoding {
        /// Name of the file.
        file: String,
    },
    /// A file is not the YAML that was expected.
    #[error(transparent)]
    ParseYaml(#[from] YamlError),
    /// A field has a value that cannot be.
    #[error("\"{file}\" is wrong in \"{field}\": expected {expected}, found {found}")]
    RejectValue {
        /// Name of the file.
        file: String,
        /// Path of the field.
        field: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl ReleaseInvalid {
    /// The class of failure: a release does not get better by reading it again.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        match self {
            Self::ReadFile { .. } => Recovery::Unknown,
            _ => Recovery::Terminal,
        }
    }
}
