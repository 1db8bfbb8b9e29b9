//! Why a source could not be used.

use std::{error::Error, io, path::PathBuf, time::Duration};

use jiff::Timestamp;
use proto::Recovery;
use provider_sdk::download::DownloadError;

/// Why a source could not be used. Messages name places without credentials and say what a user can do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Neither the stack nor the process names a source.
    #[error(
        "no source is named: set spec.source, or start the operator with GIT_ORG_NAME and GIT_REPOSITORY_NAME, or with --source local"
    )]
    NeedSource,
    /// What the stack or the process names cannot be a source.
    #[error("the source is refused: {message}")]
    RefuseSource {
        /// What is wrong with it, and what is expected.
        message: String,
    },
    /// A Secret is missing.
    #[error(
        "failed to find Secret \"{name}\" of spec.source: create it in the namespace of the ClusterStack"
    )]
    FindSecret {
        /// Its name.
        name: String,
    },
    /// A Secret does not hold what it should.
    #[error("failed to read key \"{key}\" of Secret \"{name}\": expected {expected}")]
    ReadSecret {
        /// Its name.
        name: String,
        /// The key.
        key: &'static str,
        /// What it should hold.
        expected: &'static str,
    },
    /// The HTTP client cannot be made.
    #[error("failed to prepare access to {place}")]
    Prepare {
        /// The source.
        place: String,
        /// Why.
        source: DownloadError,
    },
    /// The directory cannot be read.
    #[error("failed to read directory \"{}\"", path.display())]
    ReadDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The host did not answer, or was cut.
    #[error("failed to reach {place}")]
    Reach {
        /// The source.
        place: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The host refused.
    #[error("{place} answered with status {status} (\"{message}\"): {advice}")]
    Refuse {
        /// The source.
        place: String,
        /// Status of the answer.
        status: u16,
        /// What the host says.
        message: String,
        /// What to do.
        advice: String,
        /// When the host wants to be asked again.
        retry_at: Option<Timestamp>,
    },
    /// The answer is not what an API like that of GitHub gives.
    #[error(
        "{place} gave an answer that is not understood ({message}): is this the API of GitHub?"
    )]
    ReadAnswer {
        /// The source.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// There is no such release.
    #[error("failed to find release \"{release}\" in {place}")]
    FindRelease {
        /// The release.
        release: String,
        /// The source.
        place: String,
    },
    /// Files of the release are still missing.
    #[error("release \"{release}\" in {place} is not finished: {message}")]
    AwaitRelease {
        /// The release.
        release: String,
        /// The source.
        place: String,
        /// What is missing.
        message: String,
    },
    /// The source holds more than anybody needs.
    #[error("{what} exceeds the limit of {limit}")]
    ExceedLimit {
        /// What is too large.
        what: String,
        /// How much is allowed, with the unit.
        limit: String,
    },
    /// A file cannot be part of a release.
    #[error("file \"{file}\" of release \"{release}\" is refused: {reason}")]
    RefuseFile {
        /// The release.
        release: String,
        /// The file.
        file: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file could not be downloaded.
    #[error("failed to download \"{file}\" of release \"{release}\"")]
    Download {
        /// The release.
        release: String,
        /// The file.
        file: String,
        /// Why.
        source: DownloadError,
    },
    /// A file could not be copied.
    #[error("failed to copy \"{}\"", path.display())]
    CopyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody writes to the release while it is read.
    #[error("release \"{release}\" changed while it was copied")]
    MoveUnderfoot {
        /// The release.
        release: String,
    },
}

impl SourceError {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::RefuseSource { .. } => Recovery::Terminal,
            Self::Refuse {
                status, retry_at, ..
            } => match (*status, retry_at.map(left)) {
                // It leads away: the repository is somewhere else now.
                (300..=399, _) => Recovery::Slow,
                // So are rate limits refused.
                (403, not_before @ Some(_)) => Recovery::Fast { not_before },
                (status, left) => Recovery::of_http_status(status, left),
            },
            Self::MoveUnderfoot { .. } => Recovery::FAST,
            Self::Prepare { source, .. } | Self::Download { source, .. } => source.recovery(),
            Self::Reach { .. } | Self::CopyFile { .. } => Recovery::Unknown,
            // Whoever owns the source, the stack or the operator has to act.
            Self::NeedSource
            | Self::FindSecret { .. }
            | Self::ReadSecret { .. }
            | Self::ReadDirectory { .. }
            | Self::ReadAnswer { .. }
            | Self::FindRelease { .. }
            | Self::AwaitRelease { .. }
            | Self::ExceedLimit { .. }
            | Self::RefuseFile { .. } => Recovery::Slow,
        }
    }
}

/// How long it is until a time.
fn left(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}
