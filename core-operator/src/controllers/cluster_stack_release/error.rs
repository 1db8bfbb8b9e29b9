//! What can break while a release is reconciled, one variant a step.

use proto::Recovery;

use super::objects::Refused;
use crate::{
    apply::{live::ListKind, write::WriteError},
    capi::preflight::PreflightError,
    conditions::reason,
    controllers::defect::Defect,
    helm::RenderError,
    release::ParseNameError,
    retry::{is_conflict, recovery_of_own, recovery_of_report},
};

/// Why a look at a release ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The look panicked.
    #[error(transparent)]
    Defect(#[from] Defect),
    /// The name is none of a release.
    #[error(transparent)]
    Name(ParseNameError),
    /// The chart does not render.
    #[error(transparent)]
    Render(RenderError),
    /// The release has objects that may not be applied.
    #[error(transparent)]
    Refuse(Refused),
    /// It could not be found out whether the release can be applied.
    #[error("failed to check what the management cluster offers")]
    Preflight(#[source] PreflightError),
    /// The cluster's objects could not be looked at.
    #[error(transparent)]
    Watch(ListKind),
    /// An object could not be looked at.
    #[error("failed to look at the objects of the release")]
    Observe(#[source] kube::Error),
    /// Objects were not written; the first of them.
    #[error(transparent)]
    Write(WriteError),
    /// An object was refused as forbidden, which may pass.
    #[error(transparent)]
    Doubt(WriteError),
    /// The inventory could not be written, so nothing was applied.
    #[error("failed to write the inventory")]
    Record(#[source] kube::Error),
    /// The finalizer could not be set or taken away.
    #[error("failed to change the finalizer")]
    Finalizer(#[source] kube::Error),
    /// The status could not be written.
    #[error("failed to write the status")]
    Report {
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
}

impl Error {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Defect(_) => Recovery::FAST,
            // Looked at again as soon as the cluster changes, and slowly for what no watch tells.
            Self::Refuse(Refused::Missing { .. }) => Recovery::Slow,
            Self::Name(_) | Self::Refuse(_) => Recovery::Terminal,
            Self::Render(error) => error.recovery(),
            Self::Preflight(error) => error.recovery(),
            Self::Watch(_) | Self::Doubt(_) => Recovery::Unknown,
            Self::Write(error) => error.recovery(),
            // Objects are looked at only after preflight has found the rights to do so.
            Self::Observe(error) | Self::Record(error) | Self::Finalizer(error) => {
                recovery_of_own(error)
            }
            Self::Report { source } => recovery_of_report(source),
        }
    }

    /// Whether the release was changed by somebody after it was read, or the watch is behind our own write.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Record(source) | Self::Finalizer(source) | Self::Report { source } => {
                is_conflict(source)
            }
            _ => false,
        }
    }

    /// What a user does about it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Refuse(refused) => refused.reason(),
            Self::Name(_) | Self::Render(RenderError::Render { .. }) => reason::RELEASE_INVALID,
            Self::Write(WriteError::Conflict { .. }) => reason::CONFLICT,
            Self::Write(WriteError::Immutable { .. }) => reason::IMMUTABLE_CHANGED,
            Self::Write(WriteError::Refuse { .. }) | Self::Doubt(_) => reason::REFUSED,
            _ => reason::OPERATOR_TROUBLE,
        }
    }

    /// The message with its causes.
    pub(super) fn chain(&self) -> String {
        crate::report::chain(self)
    }
}
