//! One downloader for the core and for provider integrations.
//!
//! What arrives under the target's name is complete and is what was announced; until then it lies in a file of its own
//! beside it. Credentials never go to another origin than the one that they are for, nothing is fetched over `http`
//! because an `https` server said so, and messages show neither.
//!
//! ```text
//! place ─► request ─► redirects ─► 200: kind, size ──► pieces ─┬─► file: hash, size, digest ─► (fsync) ─► rename
//!   ▲        ▲                     206: the rest ───────┤       └─► reader: hash, decompress ─► size, digest ─► end
//!   │        └── cut or silent, something came ◄────────┤
//!   └─── next one ◄── refused, not there ◄──────────────┘
//! ```
//!
//! Feature `image` has the reader, with mirrors and decompression; the core does without.

mod addresses;
#[cfg(feature = "image")]
mod artifact;
mod client;
mod content;
mod error;
#[cfg(feature = "image")]
mod hash;
mod partial;
mod pull;

use std::path::Path;

use reqwest::{Client, Url, header::HeaderValue};

use addresses::Addresses;
#[cfg(feature = "image")]
pub use artifact::{ArtifactReader, Outcome, ReadOptions, Received, open};
pub use client::{ClientOptions, client};
pub use content::Content;
pub use error::{DownloadError, retry_after, shown};
use partial::Partial;
use pull::{Piece, Pull, Wanted};

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

    fn wanted(&self) -> Wanted {
        Wanted {
            urls: vec![self.url.clone()],
            authorization: self.authorization.clone(),
            accept: self.accept.clone(),
            size: self.size,
            limit: self.limit,
            content: self.content,
            judged: self.sha256.is_some(),
            addresses: Addresses::All,
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
        let mut pull = Pull::new(self.client.clone(), download.wanted(), true);
        while let Some(piece) = pull.next().await? {
            match piece {
                Piece::Bytes(bytes) => partial.write(&bytes).await?,
                Piece::Restart => partial.restart().await?,
            }
        }
        let (size, sha256) = (pull.received(), partial.sha256());
        if let Some(expected) = download.sha256
            && expected != sha256
        {
            let text = |hash| format!("sha256:{}", hex::encode(hash));
            return Err(pull.mismatch(&text(sha256), &text(expected)));
        }
        partial.finish(download.durable).await?;
        Ok(Downloaded { size, sha256 })
    }
}

#[cfg(test)]
mod tests;
