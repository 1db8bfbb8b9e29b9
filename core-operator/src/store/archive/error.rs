//! Why an archive cannot be used.

use std::io;

use proto::Recovery;

/// Why an archive cannot be used: which file, where in it, what was expected, what was found.
///
/// The message fits into a condition: names of others are cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveInvalid {
    /// The disk did not give the archive. This says nothing about the release.
    #[error("failed to read \"{file}\"")]
    Read {
        /// Name of the archive.
        file: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The disk did not take a file of the archive. This says nothing about the release.
    #[error("failed to unpack \"{entry}\" of \"{file}\"")]
    Unpack {
        /// Name of the archive.
        file: String,
        /// Path inside.
        entry: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The file is something else.
    #[error("\"{file}\" is no archive: expected a tar compressed with gzip, found {found}")]
    RejectFormat {
        /// Name of the file.
        file: String,
        /// What it looks like.
        found: String,
    },
    /// The file is cut, or its bytes were changed.
    #[error("\"{file}\" is damaged {place}: expected a whole archive, found {found}")]
    RejectContent {
        /// Name of the archive.
        file: String,
        /// At, in or after which entry.
        place: String,
        /// What is wrong.
        found: String,
    },
    /// An entry is none that a chart may have.
    #[error("\"{file}\" is wrong in \"{entry}\": expected {expected}, found {found}")]
    RejectEntry {
        /// Name of the archive.
        file: String,
        /// Path inside.
        entry: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The archive is larger than any real one.
    #[error("\"{file}\" is too large: expected at most {limit} {unit}, found more {place}")]
    ExceedLimit {
        /// Name of the archive.
        file: String,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
        /// At, in or after which entry.
        place: String,
    },
    /// A file that must be inside is not.
    #[error("\"{file}\" lacks \"{entry}\", there is {found}")]
    LackEntry {
        /// Name of the archive.
        file: String,
        /// Path that was expected.
        entry: String,
        /// What is there instead.
        found: String,
    },
}

impl ArchiveInvalid {
    /// The class of failure: an archive does not get better by reading it again.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        match self {
            Self::Read { .. } | Self::Unpack { .. } => Recovery::Unknown,
            _ => Recovery::Terminal,
        }
    }
}
