//! Why something could not be downloaded.

use std::{error::Error, io, path::PathBuf, time::Duration};

use jiff::{Timestamp, fmt::rfc2822};
use proto::{Reason, Recovery};
use reqwest::{Url, header::HeaderMap};

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
            Self::BuildClient { .. } | Self::Redirect { .. } => Recovery::Slow,
            Self::ReadCertificates { .. } | Self::Reject { .. } => Recovery::Terminal,
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
            Self::Request { .. } | Self::Lose { .. } | Self::Write { .. } => Recovery::Unknown,
        }
    }

    /// The reason for the provider contract; absent where the fault is on our side.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::BuildClient { .. } | Self::ReadCertificates { .. } | Self::Write { .. } => None,
            Self::Request { .. }
            | Self::Lose { .. }
            | Self::Refused {
                status: 403,
                retry_after: Some(_),
                ..
            } => Some(Reason::SourceUnavailable),
            Self::Redirect { .. } => Some(Reason::SourceDenied),
            Self::Reject { reason, .. } => Some(*reason),
            Self::Refused { status, .. } => Some(match status {
                404 | 410 => Reason::SourceNotFound,
                400..=407 | 409..=424 | 426..=428 | 430..=499 => Reason::SourceDenied,
                _ => Reason::SourceUnavailable,
            }),
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
