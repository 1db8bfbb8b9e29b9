//! One downloader for the core and for provider integrations.
//!
//! What arrives under the target's name is complete and is what was announced; until then it lies in a file of its own
//! beside it. Credentials never go to another origin than the one that they are for, nothing is fetched over `http`
//! because an `https` server said so, and messages show neither.
//!
//! ```text
//! request ─► redirects ─► 200: kind, size ──► write and hash ──► size, digest ─► (fsync) ─► rename
//!    ▲                    206: the rest ───────────┤
//!    └─────────── cut or silent, something came ◄──┘
//! ```

mod client;
mod error;
mod partial;

use std::path::Path;

use bytes::Bytes;
use proto::Reason;
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_TYPE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LOCATION, RANGE,
    },
};

use client::REDIRECTS;
pub use client::{ClientOptions, client};
pub use error::{DownloadError, retry_after, shown};
use partial::Partial;

/// Attempts of one call, all of which lost the connection; counted anew after each [`PROGRESS`].
const ATTEMPTS: u32 = 3;

/// Bytes after which a server counts as one that gets on: a large image over a poor line must arrive in the end.
const PROGRESS: u64 = 1 << 20;

/// Bytes by which kinds of content are told.
const HEAD: usize = 16;

/// What is fetched, and all that is known about it beforehand.
#[derive(Clone)]
#[non_exhaustive]
pub struct Download {
    /// Where it lies.
    pub url: Url,
    /// Credentials for the origin of the address.
    pub authorization: Option<HeaderValue>,
    /// Wanted media type, for servers that have several answers at one address.
    pub accept: Option<HeaderValue>,
    /// Number of bytes, if announced.
    pub size: Option<u64>,
    /// SHA-256 digest, if announced.
    pub sha256: Option<[u8; 32]>,
    /// Largest number of bytes that is taken.
    pub limit: u64,
    /// What it must look like.
    pub content: Content,
    /// Whether it must survive a loss of power once the call returns; true by default.
    pub durable: bool,
}

/// What content must look like. A web page in place of it is refused always.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Content {
    /// Anything else.
    Any,
    /// A gzip stream.
    Gzip,
}

/// What was fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Downloaded {
    /// Number of bytes.
    pub size: u64,
    /// SHA-256 digest.
    pub sha256: [u8; 32],
}

impl Download {
    /// Anything of at most `limit` bytes.
    #[must_use]
    pub const fn new(url: Url, limit: u64) -> Self {
        Self {
            url,
            authorization: None,
            accept: None,
            size: None,
            sha256: None,
            limit,
            content: Content::Any,
            durable: true,
        }
    }
}

/// Fetches files over HTTP.
#[derive(Debug, Clone)]
pub struct Downloader {
    client: Client,
}

impl Downloader {
    /// A downloader with the proxy, certificates and time-outs of a client, which [`client()`] should have made.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Fetches a file to `target`, which is replaced. A connection that is lost is taken up again where it broke.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, refuses, is lost too often or sends something else than announced, or if the
    /// file cannot be written. Then, and when the call is dropped, `target` is as before.
    pub async fn fetch(
        &self,
        download: &Download,
        target: &Path,
    ) -> Result<Downloaded, DownloadError> {
        let mut partial = Partial::create(target).await?;
        let (mut attempts, mut reached) = (0, 0);
        while let Err(error) = self.attempt(download, &mut partial).await {
            if partial.written() >= reached + PROGRESS {
                (attempts, reached) = (0, partial.written());
            }
            attempts += 1;
            let lost = matches!(
                error,
                DownloadError::Request { .. } | DownloadError::Lose { .. }
            );
            if !lost || partial.written() == 0 || attempts >= ATTEMPTS {
                return Err(error);
            }
            tracing::debug!(url = shown(&download.url), attempts, %error, "download goes on");
        }
        let (size, sha256) = (partial.written(), partial.sha256());
        if let Some(expected) = download.sha256
            && expected != sha256
        {
            let (found, expected) = (hex::encode(sha256), hex::encode(expected));
            return Err(DownloadError::Reject {
                url: shown(&download.url),
                reason: Reason::DigestMismatch,
                message: format!("its digest is sha256:{found}, expected sha256:{expected}"),
            });
        }
        partial.finish(download.durable).await?;
        Ok(Downloaded { size, sha256 })
    }

    /// One request, and all that comes of it.
    async fn attempt(
        &self,
        download: &Download,
        partial: &mut Partial,
    ) -> Result<(), DownloadError> {
        let resume = partial.resume();
        let mut response = self.request(download, resume.as_ref()).await?;
        let url = shown(response.url());
        let rest = resume
            .as_ref()
            .and_then(|(from, _)| continues(response.headers(), *from));
        let announced = match response.status() {
            StatusCode::OK => begin(download, partial, &mut response, &url).await?,
            StatusCode::PARTIAL_CONTENT if rest.is_some() => rest,
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if resume.is_some() => {
                partial.forget();
                return Err(lose(partial, &url, None));
            }
            status => {
                return Err(DownloadError::Refused {
                    url,
                    status: status.as_u16(),
                    retry_after: retry_after(response.headers()),
                });
            }
        };
        while let Some(chunk) = chunk(&mut response, partial, &url).await? {
            check_size(
                download,
                partial.written() + chunk.len() as u64,
                false,
                &url,
            )?;
            partial.write(&chunk).await?;
        }
        // A server that announces nothing ends by closing the connection, which may be a cut as well.
        match announced.or(download.size) {
            Some(size) if partial.written() < size => Err(lose(partial, &url, None)),
            _ => Ok(()),
        }
    }

    /// Asks for the file, or for its rest, and follows redirects.
    async fn request(
        &self,
        download: &Download,
        resume: Option<&(u64, HeaderValue)>,
    ) -> Result<Response, DownloadError> {
        let mut url = download.url.clone();
        let mut authorization = download.authorization.clone();
        for _ in 0..=REDIRECTS {
            // What is compressed on the way has another size, and cannot be resumed.
            let mut request = self
                .client
                .get(url.clone())
                .header(ACCEPT_ENCODING, "identity");
            if let Some(mut value) = authorization.clone() {
                value.set_sensitive(true);
                request = request.header(AUTHORIZATION, value);
            }
            if let Some(value) = &download.accept {
                request = request.header(ACCEPT, value);
            }
            if let Some((from, etag)) = resume {
                request = request
                    .header(RANGE, format!("bytes={from}-"))
                    .header(IF_RANGE, etag);
            }
            let response = request
                .send()
                .await
                .map_err(|source| DownloadError::Request {
                    url: shown(&url),
                    source: source.without_url(),
                })?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            url = next_url(&response)?;
            // For good, also when the way leads back: a foreign server must not choose what we ask with credentials.
            if url.origin() != download.url.origin() {
                authorization = None;
            }
        }
        Err(DownloadError::Redirect {
            url: shown(&download.url),
            reason: "there are too many of them",
        })
    }
}

/// Starts with the content of an answer, and returns its announced size. The beginning is looked at before anything is
/// believed or written: a web page of some proxy has the wrong size as well.
async fn begin(
    download: &Download,
    partial: &mut Partial,
    response: &mut Response,
    url: &str,
) -> Result<Option<u64>, DownloadError> {
    let mut head = Vec::new();
    while head.len() < HEAD
        && let Some(chunk) = chunk(response, partial, url).await?
    {
        head.extend_from_slice(&chunk);
    }
    if let Some(message) = unfit(response.headers(), &head, download.content) {
        return Err(DownloadError::Reject {
            url: url.to_owned(),
            reason: Reason::ContentRejected,
            message: message.to_owned(),
        });
    }
    let announced = text(response.headers(), CONTENT_LENGTH).and_then(|text| text.parse().ok());
    if let Some(size) = announced {
        check_size(download, size, true, url)?;
    }
    check_size(download, head.len() as u64, false, url)?;
    partial.restart(strong_etag(response.headers())).await?;
    partial.write(&head).await?;
    Ok(announced)
}

async fn chunk(
    response: &mut Response,
    partial: &Partial,
    url: &str,
) -> Result<Option<Bytes>, DownloadError> {
    let chunk = response.chunk().await;
    chunk.map_err(|source| lose(partial, url, Some(source.without_url())))
}

fn lose(partial: &Partial, url: &str, source: Option<reqwest::Error>) -> DownloadError {
    DownloadError::Lose {
        url: url.to_owned(),
        received: partial.written(),
        source,
    }
}

/// What is wrong with the kind of an answer.
fn unfit(headers: &HeaderMap, head: &[u8], content: Content) -> Option<&'static str> {
    let is = |text: &str, start: &str| text.trim_start().to_ascii_lowercase().starts_with(start);
    let media_type = text(headers, CONTENT_TYPE).unwrap_or_default();
    let begin = String::from_utf8_lossy(head);
    if is(media_type, "text/html")
        || is(media_type, "application/xhtml")
        || is(&begin, "<!doctype html")
        || is(&begin, "<html")
    {
        Some("it is a web page")
    } else if text(headers, CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        Some("it was compressed on the way")
    } else if content == Content::Gzip && !head.starts_with(&[0x1f, 0x8b]) {
        Some("it is no gzip archive")
    } else {
        None
    }
}

/// Compares a size with what is announced and allowed; unless it is the `whole`, it may be smaller.
fn check_size(
    download: &Download,
    found: u64,
    whole: bool,
    url: &str,
) -> Result<(), DownloadError> {
    let (reason, message) = match download.size {
        Some(size) if found > size || whole && found < size => {
            let more = if whole { "" } else { "or more " };
            let message = format!("it has {found} bytes {more}in place of {size}");
            (Reason::SizeMismatch, message)
        }
        _ if found > download.limit => {
            let message = format!("it has more than the allowed {} bytes", download.limit);
            (Reason::SizeLimitExceeded, message)
        }
        _ => return Ok(()),
    };
    Err(DownloadError::Reject {
        url: url.to_owned(),
        reason,
        message,
    })
}

fn next_url(response: &Response) -> Result<Url, DownloadError> {
    let here = response.url();
    let refuse = |reason| DownloadError::Redirect {
        url: shown(here),
        reason,
    };
    let next = text(response.headers(), LOCATION)
        .and_then(|location| here.join(location).ok())
        .filter(|next| matches!(next.scheme(), "http" | "https"))
        .ok_or_else(|| refuse("it leads to no web address"))?;
    if here.scheme() == "https" && next.scheme() == "http" {
        return Err(refuse("it leads from https to http"));
    }
    Ok(next)
}

/// The size of the whole, if the answer goes on at `from`.
fn continues(headers: &HeaderMap, from: u64) -> Option<u64> {
    let (range, total) = text(headers, CONTENT_RANGE)?
        .strip_prefix("bytes ")?
        .split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let (start, end, total): (u64, u64, u64) =
        (start.parse().ok()?, end.parse().ok()?, total.parse().ok()?);
    (start == from && start <= end && end < total).then_some(total)
}

/// A weak one says that the content means the same, not that the bytes are the same.
fn strong_etag(headers: &HeaderMap) -> Option<HeaderValue> {
    headers
        .get(ETAG)
        .filter(|etag| etag.as_bytes().starts_with(b"\""))
        .cloned()
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests;
