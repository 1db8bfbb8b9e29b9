//! What can break while a stack is reconciled.

use proto::Recovery;

use crate::{
    controllers::defect::Defect,
    retry::{is_conflict, recovery_of_own, recovery_of_report},
};

/// Why a look at a stack ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The look panicked.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// A release was not made, shared, given up or deleted.
    #[error("failed to {action} ClusterStackRelease \"{release}\": {source}")]
    ChangeRelease {
        /// What was to be done.
        action: &'static str,
        /// Name of the release.
        release: String,
        /// What the API server said.
        source: kube::Error,
    },
    /// The finalizer could not be set or taken away.
    #[error("failed to change the finalizer")]
    Finalizer(#[source] kube::Error),
    /// The status could not be written.
    #[error("failed to write the status")]
    Report(#[source] kube::Error),
}

impl Error {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Defect(_) => Recovery::FAST,
            Self::Report(source) => recovery_of_report(source),
            Self::ChangeRelease { source, .. } | Self::Finalizer(source) => recovery_of_own(source),
        }
    }

    /// Whether an object was changed by somebody after it was read, or the watch is behind our own write.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.cause().is_some_and(is_conflict)
    }

    /// What the API server said, if it was asked.
    const fn cause(&self) -> Option<&kube::Error> {
        match self {
            Self::Defect(_) => None,
            Self::ChangeRelease { source, .. } | Self::Finalizer(source) | Self::Report(source) => {
                Some(source)
            }
        }
    }
}
