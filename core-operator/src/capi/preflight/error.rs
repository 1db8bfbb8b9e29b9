//! Why the preflight could not be made.

use std::{sync::Arc, time::Duration};

use proto::Recovery;

use crate::retry::recovery_of_own;

/// Why the preflight could not be made. It says nothing about the release.
///
/// Everybody who waits for one answer gets the same error, hence `Clone`.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PreflightError {
    /// The API server did not say which kinds it serves.
    #[error("failed to ask the API server which kinds it serves")]
    DiscoverKinds {
        /// What it said instead.
        source: Arc<kube::Error>,
    },
    /// The API server did not say what the operator may do.
    #[error("failed to ask for the operator's rights in namespace \"{namespace}\"")]
    ReviewRights {
        /// Namespace.
        namespace: String,
        /// What it said instead.
        source: Arc<kube::Error>,
    },
    /// The dry run got no answer from the API server.
    #[error("failed to find out whether Cluster API's feature {feature} is on")]
    TryFeature {
        /// Name of the feature.
        feature: &'static str,
        /// What went wrong.
        source: Arc<kube::Error>,
    },
    /// The API server is silent.
    #[error("the API server did not answer within {} s when asked for {question}", limit.as_secs())]
    ExceedTime {
        /// What it was asked for.
        question: &'static str,
        /// How long was waited.
        limit: Duration,
    },
}

impl PreflightError {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::DiscoverKinds { source }
            | Self::ReviewRights { source, .. }
            | Self::TryFeature { source, .. } => recovery_of_own(source),
            Self::ExceedTime { .. } => Recovery::Unknown,
        }
    }
}
