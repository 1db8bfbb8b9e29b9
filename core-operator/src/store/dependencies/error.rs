//! Why a chart dependency could not be resolved or fetched.

use std::{io, path::PathBuf, time::Duration};

use oci_client::errors::{OciDistributionError, OciErrorCode};
use proto::Recovery;

use crate::helm::RenderError;

/// Why a chart dependency could not be resolved or fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DependencyError {
    /// The operator runs offline and the chart is not at hand.
    #[error(
        "chart \"{chart}\" does not carry its dependency \"{name}\" ({version}), and fetching it from \"{repository}\" is \
         refused offline: vendor it in the chart (`helm dependency build`)"
    )]
    RefuseOffline {
        /// The chart that depends.
        chart: String,
        /// The chart on which it depends.
        name: String,
        /// Version or range of versions.
        version: String,
        /// Where it would come from.
        repository: String,
    },
    /// The repository is none that an operator can read.
    #[error(
        "chart \"{chart}\" does not carry its dependency \"{name}\", and {reason}: vendor it in the chart (`helm dependency build`)"
    )]
    RefuseRepository {
        /// The chart that depends.
        chart: String,
        /// The chart on which it depends.
        name: String,
        /// What is wrong with the repository.
        reason: String,
    },
    /// `Chart.lock` does not belong to `Chart.yaml`.
    #[error(
        "the lock file of chart \"{chart}\" is out of sync with its Chart.yaml: run `helm dependency update` for the release"
    )]
    CheckLock {
        /// The chart.
        chart: String,
    },
    /// The constraint is not valid, or the renderer failed.
    #[error("failed to choose a version of \"{name}\"")]
    ChooseVersion {
        /// The chart on which another depends.
        name: String,
        /// Why.
        source: RenderError,
    },
    /// No version in the repository satisfies the constraint.
    #[error("failed to find \"{name}\" in a version \"{version}\" in \"{repository}\"")]
    FindVersion {
        /// The chart on which another depends.
        name: String,
        /// Version or range of versions.
        version: String,
        /// The repository.
        repository: String,
    },
    /// The repository's index is none.
    #[error("failed to read the index \"{url}\": {message}")]
    ReadIndex {
        /// Where it comes from.
        url: String,
        /// What is wrong with it.
        message: String,
    },
    /// The server did not answer, or stopped in the middle.
    #[error("failed to request \"{url}\"")]
    Request {
        /// The address, without credentials.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server refused.
    #[error("failed to request \"{url}\": status {status}")]
    Refused {
        /// The address, without credentials.
        url: String,
        /// Status of the answer.
        status: u16,
        /// When the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The registry did not answer, or refused.
    #[error("failed to read \"{reference}\" from its registry")]
    ReadRegistry {
        /// Image reference.
        reference: String,
        /// Why.
        source: OciDistributionError,
    },
    /// The registry stopped in the middle of a chart.
    #[error("lost the registry while it sent \"{reference}\"")]
    LoseRegistry {
        /// Image reference.
        reference: String,
        /// Why.
        source: io::Error,
    },
    /// What the registry holds is no Helm chart.
    #[error("failed to find a chart in \"{reference}\": {message}")]
    FindChart {
        /// Image reference.
        reference: String,
        /// What is there instead.
        message: String,
    },
    /// More bytes than allowed.
    #[error("\"{url}\" has more than the allowed {limit_bytes} bytes")]
    ExceedSize {
        /// The address, without credentials.
        url: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The bytes are not those that were announced or recorded.
    #[error("chart \"{name}\" has digest {found} in place of {expected}")]
    CheckDigest {
        /// The chart.
        name: String,
        /// As recorded, or as the index says.
        expected: String,
        /// As fetched.
        found: String,
    },
    /// The chart cannot be written.
    #[error("failed to write \"{}\"", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DependencyError {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::RefuseOffline { .. } | Self::RefuseRepository { .. } | Self::CheckLock { .. } => {
                Recovery::Terminal
            }
            Self::ExceedSize { .. } | Self::CheckDigest { .. } => Recovery::Terminal,
            Self::ChooseVersion { source, .. } => source.recovery(),
            // the owner of the repository has to act
            Self::FindVersion { .. } | Self::ReadIndex { .. } | Self::FindChart { .. } => {
                Recovery::Slow
            }
            Self::Refused {
                status,
                retry_after,
                ..
            } => Recovery::of_http_status(*status, *retry_after),
            Self::ReadRegistry { source, .. } => of_registry(source),
            Self::Request { .. } | Self::LoseRegistry { .. } | Self::Write { .. } => {
                Recovery::Unknown
            }
        }
    }
}

fn of_registry(error: &OciDistributionError) -> Recovery {
    match error {
        OciDistributionError::ServerError { code, .. } => Recovery::of_http_status(*code, None),
        OciDistributionError::RegistryError { envelope, .. } => {
            match envelope.errors.first().map(|error| &error.code) {
                Some(OciErrorCode::Toomanyrequests) => Recovery::FAST,
                None => Recovery::Unknown,
                Some(_) => Recovery::Slow,
            }
        }
        OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
            Recovery::Unknown
        }
        _ => Recovery::Slow,
    }
}
