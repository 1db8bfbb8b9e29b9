//! Why a release cannot be found in the store or added to it.

use std::{error::Error, fmt, io, path::PathBuf};

use proto::Recovery;

use super::{ArchiveInvalid, DependencyError};
use crate::{helm::RenderError, release::ReleaseInvalid};

/// Why a release cannot be found in the store or added to it: one variant for each step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store has no place for a release.
    #[error("failed to prepare the release store in \"{}\"", path.display())]
    Prepare {
        /// The folder.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The source did not bring the files.
    #[error("failed to fetch the files of \"{release}\"")]
    Bring {
        /// Name of the release.
        release: String,
        /// What the source said.
        source: BringError,
    },
    /// The disk did not give what is in the store, or what was brought.
    #[error("failed to read the files of \"{release}\" in the release store")]
    Read {
        /// Name of the release.
        release: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The files are none of a release.
    #[error("the files of \"{release}\" are wrong: expected {expected}, found {found}")]
    RejectFiles {
        /// Name of the release.
        release: String,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A file says something wrong.
    #[error(transparent)]
    CheckRelease(#[from] ReleaseInvalid),
    /// An archive cannot be used.
    #[error(transparent)]
    CheckArchive(#[from] ArchiveInvalid),
    /// The disk did not take the release.
    #[error("failed to write \"{release}\" to the release store")]
    Keep {
        /// Name of the release.
        release: String,
        /// What the disk said.
        source: io::Error,
    },
    /// Helm does not tell what a chart depends on.
    #[error("failed to read the chart of {chart} with Helm")]
    InspectChart {
        /// The release is in the store under this digest, without what it depends on.
        digest: String,
        /// Which chart of the release.
        chart: String,
        /// Why.
        source: Box<RenderError>,
    },
    /// A chart on which a chart depends cannot be had.
    #[error("failed to fetch what {chart} depends on")]
    FetchDependencies {
        /// The release is in the store under this digest, without what it depends on.
        digest: String,
        /// Which chart of the release.
        chart: String,
        /// Why.
        source: Box<DependencyError>,
    },
    /// What was fetched is no chart.
    #[error("failed to use what {chart} depends on")]
    CheckDependency {
        /// The release is in the store under this digest, without what it depends on.
        digest: String,
        /// Which chart of the release.
        chart: String,
        /// Why.
        source: Box<ArchiveInvalid>,
    },
    /// Entries that nobody needs stay.
    #[error("failed to collect unused releases in \"{}\"", path.display())]
    Collect {
        /// The folder.
        path: PathBuf,
        /// What the disk said.
        source: io::Error,
    },
    /// The process ends, or a defect of ours stopped the work.
    #[error("the work on the release store was stopped")]
    Stop {
        /// Why.
        source: tokio::task::JoinError,
    },
}

impl StoreError {
    /// What the failure tells about the next attempt: a full or broken disk says nothing about the release.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Prepare { .. }
            | Self::Read { .. }
            | Self::Keep { .. }
            | Self::Collect { .. }
            | Self::Stop { .. } => Recovery::Unknown,
            Self::RejectFiles { .. } => Recovery::Terminal,
            Self::Bring { source, .. } => source.recovery(),
            Self::CheckRelease(source) => source.recovery(),
            Self::CheckArchive(source) => source.recovery(),
            Self::CheckDependency { source, .. } => source.recovery(),
            Self::InspectChart { source, .. } => source.recovery(),
            Self::FetchDependencies { source, .. } => source.recovery(),
        }
    }

    /// The digest under which the release is in the store already, if it only lacks what its charts depend on: the next
    /// attempt is [`find`](super::Store::find), which goes on from there without fetching the release again.
    #[must_use]
    pub fn digest(&self) -> Option<&str> {
        match self {
            Self::InspectChart { digest, .. }
            | Self::FetchDependencies { digest, .. }
            | Self::CheckDependency { digest, .. } => Some(digest),
            _ => None,
        }
    }
}

/// Why a source did not bring the files of a release, in the source's own words.
#[derive(Debug)]
pub struct BringError {
    recovery: Recovery,
    error: Box<dyn Error + Send + Sync>,
}

impl BringError {
    /// An error with its class of failure.
    pub fn new(recovery: Recovery, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            recovery,
            error: error.into(),
        }
    }

    /// What the failure tells about the next attempt.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        self.recovery
    }

    /// The source's own error.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.error
    }
}

impl fmt::Display for BringError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(formatter)
    }
}

impl Error for BringError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}
