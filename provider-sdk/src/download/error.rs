//! Why something could not be downloaded.

use std::{error::Error, io, iter::successors, net::IpAddr, path::PathBuf, time::Duration};

use jiff::{Timestamp, fmt::rfc2822};
use proto::{ProviderError, Reason, Recovery};
use reqwest::{Url, header::HeaderMap};

use super::addresses::{Forbidden, forbidden};

/// Why something could not be downloaded. Addresses are shown without user, password and query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DownloadError {
    /// The client cannot be made.
    #[error("failed to set up an HTTP client")]
    BuildClient {
        /// Why.
        source: reqwest::Error,
    },
    /// The certificates to trust are none.
    #[error("failed to read the certificates to trust: expected one or more in PEM form")]
    ReadCertificates {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The server did not answer.
    #[error("failed to request \"{url}\"")]
    Request {
        /// The address.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// The server answered with something other than the content.
    #[error("failed to request \"{url}\": status {status}")]
    Refused {
        /// The address.
        url: String,
        /// Status of the answer.
        status: u16,
        /// Time after which the server wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// The server leads somewhere where we do not go.
    #[error("failed to follow a redirect of \"{url}\": {reason}")]
    Redirect {
        /// The address that leads on.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server fell silent, closed the connection or did not go on where it was asked to.
    #[error("lost \"{url}\" after {received} bytes")]
    Lose {
        /// The address.
        url: String,
        /// Bytes received so far.
        received: u64,
        /// Why, if there is more to say.
        source: Option<reqwest::Error>,
    },
    /// The content is not what was announced, or more than is allowed.
    #[error("refused \"{url}\": {message}")]
    Reject {
        /// The address.
        url: String,
        /// Which rule it breaks.
        reason: Reason,
        /// What was found, and what was expected.
        message: String,
    },
    /// The address is one that must not be asked.
    #[error("refused to request \"{url}\": {address} is {kind}")]
    Forbid {
        /// The address.
        url: String,
        /// What its host leads to.
        address: IpAddr,
        /// What is wrong with that.
        kind: &'static str,
    },
    /// What came in several answers does not belong together.
    #[error("lost \"{url}\": it changed on the way, or its mirrors differ")]
    Change {
        /// The address.
        url: String,
    },
    /// There is no way to read it.
    #[cfg(feature = "image")]
    #[error("failed to read {what}")]
    Unsupported {
        /// What it is.
        what: &'static str,
    },
    /// Credentials for the source cannot be shown to a server.
    #[cfg(feature = "image")]
    #[error(
        "failed to use the credentials for the source: \"{name}\" is not text without control characters"
    )]
    ReadCredentials {
        /// Which of them.
        name: &'static str,
    },
    /// The bytes are those that were announced, if a digest was, but not compressed as announced.
    #[cfg(feature = "image")]
    #[error("refused \"{url}\": it cannot be decompressed")]
    Decompress {
        /// The address.
        url: String,
        /// Why.
        source: io::Error,
    },
    /// The thread that hashes is gone.
    #[cfg(feature = "image")]
    #[error("failed to hash what was downloaded")]
    Hash {
        /// Why.
        source: tokio::task::JoinError,
    },
    /// Somebody else has the verdict.
    #[cfg(feature = "image")]
    #[error("the verdict on the download has been taken before")]
    Taken,
    /// The file cannot be written.
    #[error("failed to write \"{}\"", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl DownloadError {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::BuildClient { .. } | Self::Redirect { .. } | Self::Forbid { .. } => {
                Recovery::Slow
            }
            Self::ReadCertificates { .. } | Self::Reject { .. } => Recovery::Terminal,
            #[cfg(feature = "image")]
            Self::Unsupported { .. } | Self::Decompress { .. } => Recovery::Terminal,
            #[cfg(feature = "image")]
            Self::ReadCredentials { .. } => Recovery::Slow,
            // Code hosts say so when a rate limit is used up.
            Self::Refused {
                status: 403,
                retry_after: Some(time),
                ..
            } => Recovery::Fast {
                not_before: Some(*time),
            },
            Self::Refused {
                status,
                retry_after,
                ..
            } => Recovery::of_http_status(*status, *retry_after),
            Self::Request { .. } | Self::Lose { .. } | Self::Change { .. } | Self::Write { .. } => {
                Recovery::Unknown
            }
            #[cfg(feature = "image")]
            Self::Hash { .. } | Self::Taken => Recovery::Unknown,
        }
    }

    /// The reason for the provider contract; absent where the fault is on our side.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::BuildClient { .. } | Self::ReadCertificates { .. } | Self::Write { .. } => None,
            #[cfg(feature = "image")]
            Self::Hash { .. } | Self::Taken => None,
            #[cfg(feature = "image")]
            Self::Unsupported { .. } => Some(Reason::UnsupportedArtifact),
            #[cfg(feature = "image")]
            Self::ReadCredentials { .. } => Some(Reason::SourceDenied),
            #[cfg(feature = "image")]
            Self::Decompress { .. } => Some(Reason::ContentRejected),
            Self::Request { .. }
            | Self::Lose { .. }
            | Self::Change { .. }
            | Self::Refused {
                status: 403,
                retry_after: Some(_),
                ..
            } => Some(Reason::SourceUnavailable),
            Self::Redirect { .. } | Self::Forbid { .. } => Some(Reason::SourceDenied),
            Self::Reject { reason, .. } => Some(*reason),
            Self::Refused { status, .. } => Some(match status {
                404 | 410 => Reason::SourceNotFound,
                400..=407 | 409..=424 | 426..=428 | 430..=499 => Reason::SourceDenied,
                _ => Reason::SourceUnavailable,
            }),
        }
    }

    /// A request without an answer.
    pub(super) fn request(url: &Url, source: reqwest::Error) -> Self {
        match forbidden(&source) {
            Some(forbidden) => Self::forbid(url, forbidden),
            None => Self::Request {
                url: shown(url),
                source: source.without_url(),
            },
        }
    }

    pub(super) fn forbid(url: &Url, forbidden: Forbidden) -> Self {
        Self::Forbid {
            url: shown(url),
            address: forbidden.address,
            kind: forbidden.kind,
        }
    }
}

/// In the words of the contract: the same ones for the same problem, with what differs each time apart.
impl From<DownloadError> for ProviderError {
    fn from(error: DownloadError) -> Self {
        let reason = match &error {
            // In a provider, they are part of the artifact.
            DownloadError::ReadCertificates { .. } => Reason::InvalidField,
            other => other.reason().unwrap_or(Reason::InternalBug),
        };
        let mut message = match &error {
            DownloadError::Lose { url, .. } => format!("lost \"{url}\" on the way"),
            other => other.to_string(),
        };
        for cause in successors(error.source(), |cause| (*cause).source()) {
            let cause = cause.to_string();
            // Wrappers repeat what they wrap.
            if !message.ends_with(&cause) {
                message = format!("{message}: {cause}");
            }
        }
        let converted = Self::new(reason, message);
        match error {
            DownloadError::ReadCertificates { .. } => converted.with_field(
                "spec.artifact.http.ca_bundle_pem",
                "is not one or more certificates in PEM form",
            ),
            DownloadError::Lose { received, .. } => {
                converted.with_metadata("received_bytes", received.to_string())
            }
            DownloadError::Refused {
                retry_after: Some(time),
                ..
            } => converted.with_retry_after(time),
            _ => converted,
        }
    }
}

/// An address for messages: without user, password, query and fragment, any of which may hold a secret.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Addresses that cannot have a user have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// The time that a server names in `Retry-After`, as seconds or as a date, or as the end of a rate limit that is used
/// up (`X-RateLimit-Remaining`, `X-RateLimit-Reset`, as code hosts send them with any status).
#[must_use]
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    retry_after_at(headers, Timestamp::now())
}

pub(super) fn retry_after_at(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name: &str| Some(headers.get(name)?.to_str().ok()?.trim());
    let until = match text("retry-after") {
        Some(text) => match text.parse() {
            Ok(seconds) => return Some(Duration::from_secs(seconds)),
            Err(_no_number) => rfc2822::parse(text).ok()?.timestamp(),
        },
        None if text("x-ratelimit-remaining") == Some("0") => {
            Timestamp::from_second(text("x-ratelimit-reset")?.parse().ok()?).ok()?
        }
        None => return None,
    };
    // In the past: at once.
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}
