//! The bytes of an artifact as a stream: from the best mirror that works, decompressed, counted, hashed and judged.
//!
//! ```text
//! mirrors ─► pieces ──► decompression ─► limit, hash of content ─► reader of an author
//!               └─► hash of what was served (own thread)      └─► end: digests and size are right, or an error
//! ```
//!
//! The end of the stream comes only after the verdict: who reads to the end without an error has the announced bytes. What
//! has been read before an error must never be used. Memory does not depend on the size of the artifact; nothing is written.

mod decode;
mod served;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use proto::{Artifact, Digest, Reason, Secrets, Source, digest::Algorithm};
use reqwest::header::HeaderValue;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

use super::{
    ClientOptions, Content, DownloadError,
    addresses::Addresses,
    client::client_for,
    hash::{Hash, Hasher},
    pull::{Pull, Wanted},
};
use decode::Decoder;
use served::Served;

/// How an artifact is read.
#[derive(Clone)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Largest number of bytes, as served and after decompression: what expands beyond it is refused.
    pub max_bytes: u64,
    /// Function of a digest of the decompressed bytes that is wanted beside an announced one.
    pub content_digest: Option<Algorithm>,
    /// Whether the provider's own machine may be asked; not by default. Link-local addresses never are.
    pub loopback: bool,
    /// Longest time for name, connection and TLS; 10 s by default.
    pub connect_timeout: Duration,
    /// Longest time without a byte from a server, which is then asked again or given up; 30 s by default.
    pub silence_timeout: Duration,
    progress: Option<Arc<dyn Fn(u64) + Send + Sync>>,
}

impl ReadOptions {
    /// At most so many bytes, as served and after decompression.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        let usual = ClientOptions::default();
        Self {
            max_bytes,
            content_digest: None,
            loopback: false,
            connect_timeout: usual.connect_timeout,
            silence_timeout: usual.silence_timeout,
            progress: None,
        }
    }

    /// The same, also with a digest of the decompressed bytes, such as a backend reports it.
    #[must_use]
    pub const fn with_content_digest(mut self, algorithm: Algorithm) -> Self {
        self.content_digest = Some(algorithm);
        self
    }

    /// The same, allowed to ask the provider's own machine: for tests.
    #[must_use]
    pub const fn with_loopback(mut self, allowed: bool) -> Self {
        self.loopback = allowed;
        self
    }

    /// The same, telling how many bytes have been served after each piece.
    #[must_use]
    pub fn with_progress(mut self, progress: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }
}

impl fmt::Debug for ReadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOptions")
            .field("max_bytes", &self.max_bytes)
            .field("content_digest", &self.content_digest)
            .field("loopback", &self.loopback)
            .finish_non_exhaustive()
    }
}

/// What was read to its end, and is what was announced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Digest of the bytes as served: the function of the artifact's digest, SHA-256 if it has none.
    pub served_digest: Digest,
    /// Size as served, in bytes.
    pub served_bytes: u64,
    /// Digest after decompression: the function that was asked for, else that of the artifact's uncompressed digest. Without
    /// either, that of the served bytes if they are not compressed.
    pub content_digest: Option<Digest>,
    /// Size after decompression, in bytes.
    pub content_bytes: u64,
}

#[cfg(feature = "provider")]
impl From<Received> for crate::provider::Transferred {
    fn from(received: Received) -> Self {
        let mut transferred = Self::unchanged(received.served_digest, received.served_bytes);
        transferred.stored_digest = received.content_digest;
        transferred.stored_bytes = Some(received.content_bytes);
        transferred
    }
}

/// What came of a reader, also after it was given away. Clones tell of the same one.
#[derive(Debug, Clone, Default)]
pub struct Outcome(Arc<Mutex<Option<Result<Received, DownloadError>>>>);

impl Outcome {
    /// The verdict; absent if the reader was not read to its end, or if the verdict has been taken.
    #[must_use]
    pub fn take(&self) -> Option<Result<Received, DownloadError>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, verdict: Result<Received, DownloadError>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(verdict);
    }
}

/// The bytes of an artifact, decompressed. Dropping it closes the connection.
///
/// Where something takes the reader and does not get to the end, the source may be at fault, or whatever took it: ask
/// [`outcome`](Self::outcome) first.
///
/// ```no_run
/// # use proto::{Artifact, ProviderError};
/// # use provider_sdk::download::{ReadOptions, open};
/// # async fn upload(_: impl tokio::io::AsyncRead) -> Result<(), ProviderError> { Ok(()) }
/// # async fn example(artifact: &Artifact) -> Result<(), ProviderError> {
/// let mut reader = open(artifact, &ReadOptions::new(64 << 30)).await?;
/// let outcome = reader.outcome();
/// match (upload(&mut reader).await, outcome.take()) {
///     (_, Some(Err(source))) => return Err(source.into()),
///     (uploaded, _) => uploaded?,
/// }
/// # Ok(())
/// # }
/// ```
pub struct ArtifactReader {
    state: State,
    outcome: Outcome,
    total: Option<u64>,
    end: End,
    content_bytes: u64,
    /// Hashes of the decompressed bytes, where those are not what was served.
    content: Vec<Hash>,
}

/// What is compared at the end.
#[derive(Debug, Clone)]
struct End {
    digest: Option<Digest>,
    uncompressed_digest: Option<Digest>,
    content_digest: Option<Algorithm>,
    max_bytes: u64,
    /// Whether content is what was served.
    plain: bool,
}

enum State {
    Reading(Box<Decoder>),
    /// All is read, or the rest cannot be decompressed.
    Ending(Pin<Box<dyn Future<Output = Result<Received, DownloadError>> + Send>>),
    /// There was a verdict; the text of a failure is repeated.
    Ended(Option<String>),
}

impl fmt::Debug for ArtifactReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArtifactReader")
            .field("total", &self.total)
            .field("content_bytes", &self.content_bytes)
            .finish_non_exhaustive()
    }
}

/// Asks for the bytes of an artifact behind HTTP(S).
///
/// # Errors
///
/// If no mirror has the artifact or can be reached, if what they announce is not what is wanted, or if the artifact has
/// another kind of source.
pub async fn open(
    artifact: &Artifact,
    options: &ReadOptions,
) -> Result<ArtifactReader, DownloadError> {
    let Source::Http(source) = &artifact.source else {
        return Err(DownloadError::Unsupported {
            what: "an artifact that is not behind HTTP",
        });
    };
    if source.urls.is_empty() {
        return Err(DownloadError::Unsupported {
            what: "an artifact without an address",
        });
    }
    let addresses = if options.loopback {
        Addresses::All
    } else {
        Addresses::Remote
    };
    let certificates = String::from_utf8_lossy(&source.ca_bundle_pem).into_owned();
    let client_options = ClientOptions {
        connect_timeout: options.connect_timeout,
        silence_timeout: options.silence_timeout,
        root_certificates: Some(certificates).filter(|pem| !pem.is_empty()),
    };
    let client = client_for(&client_options, addresses)?;
    let wanted = Wanted {
        urls: source.urls.clone(),
        authorization: authorization(&artifact.secrets)?,
        accept: None,
        size: artifact.size_bytes,
        limit: options.max_bytes,
        content: Content::Any,
        judged: artifact.digest.is_some(),
        addresses,
    };
    let mut pull = Pull::new(client, wanted, false);
    pull.open().await?;
    let total = pull.total();

    let served = artifact
        .digest
        .as_ref()
        .map_or(Algorithm::Sha256, Digest::algorithm);
    let mut content: Vec<_> = artifact
        .uncompressed_digest
        .as_ref()
        .map(Digest::algorithm)
        .into_iter()
        .chain(options.content_digest)
        .collect();
    content.dedup();
    let plain = artifact.compression == proto::Compression::None;
    let (beside, inside) = if plain {
        content.retain(|algorithm| *algorithm != served);
        (content, Vec::new())
    } else {
        (Vec::new(), content)
    };
    let functions = |algorithms: Vec<_>| {
        algorithms
            .into_iter()
            .map(Hash::new)
            .collect::<Result<_, _>>()
    };
    let hasher = Hasher::start(functions([vec![served], beside].concat())?);
    let served = Served::new(pull, hasher, options.progress.clone());
    Ok(ArtifactReader {
        state: State::Reading(Box::new(Decoder::new(served, artifact.compression)?)),
        outcome: Outcome::default(),
        total,
        end: End {
            digest: artifact.digest.clone(),
            uncompressed_digest: artifact.uncompressed_digest.clone(),
            content_digest: options.content_digest,
            max_bytes: options.max_bytes,
            plain,
        },
        content_bytes: 0,
        content: functions(inside)?,
    })
}

/// The header that shows credentials for a source. A token goes before a name and a password.
fn authorization(secrets: &Secrets) -> Result<Option<HeaderValue>, DownloadError> {
    let text = |name| match secrets.get(name) {
        None => Ok(None),
        Some(_) => secrets
            .text(name)
            .map(Some)
            .ok_or(DownloadError::ReadCredentials { name }),
    };
    let (name, value) = if let Some(token) = text("bearer_token")? {
        ("bearer_token", format!("Bearer {}", token.trim()))
    } else {
        let (user, password) = (text("username")?, text("password")?);
        if user.is_none() && password.is_none() {
            return Ok(None);
        }
        let pair = format!(
            "{}:{}",
            user.unwrap_or_default(),
            password.unwrap_or_default()
        );
        (
            "password",
            format!("Basic {}", BASE64_STANDARD.encode(pair)),
        )
    };
    // The reason holds nothing but the fact.
    let mut value =
        HeaderValue::try_from(value).map_err(|_invalid| DownloadError::ReadCredentials { name })?;
    value.set_sensitive(true);
    Ok(Some(value))
}

impl ArtifactReader {
    /// Number of bytes that will be served, if it is known.
    #[must_use]
    pub const fn total(&self) -> Option<u64> {
        self.total
    }

    /// Tells what came of it, also after the reader was given away.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        self.outcome.clone()
    }

    /// The verdict. What has not been read yet is read, and thrown away.
    ///
    /// # Errors
    ///
    /// If the bytes could not be read, or are not what was announced.
    pub async fn finish(mut self) -> Result<Received, DownloadError> {
        let mut rest = vec![0; 64 << 10];
        // The verdict has the reason of a failure.
        while let Ok(1..) = self.read(&mut rest).await {}
        self.outcome.take().unwrap_or(Err(DownloadError::Taken))
    }

    fn fail(&mut self, error: DownloadError) -> io::Error {
        let text = error.to_string();
        self.state = State::Ended(Some(text.clone()));
        self.outcome.set(Err(error));
        io::Error::other(text)
    }
}

impl AsyncRead for ArtifactReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Ended(None) => return Poll::Ready(Ok(())),
                State::Ended(Some(text)) => {
                    return Poll::Ready(Err(io::Error::other(text.clone())));
                }
                State::Ending(verdict) => match ready!(verdict.as_mut().poll(context)) {
                    Ok(received) => {
                        this.outcome.set(Ok(received));
                        this.state = State::Ended(None);
                    }
                    Err(error) => return Poll::Ready(Err(this.fail(error))),
                },
                State::Reading(decoder) => {
                    if buffer.remaining() == 0 {
                        return Poll::Ready(Ok(()));
                    }
                    let before = buffer.filled().len();
                    let result = ready!(Pin::new(&mut **decoder).poll_read(context, buffer));
                    let new = &buffer.filled()[before..];
                    if result.is_ok() && !new.is_empty() {
                        this.content_bytes += new.len() as u64;
                        if this.content_bytes > this.end.max_bytes {
                            let error = decoder.served().too_large(this.end.max_bytes);
                            buffer.set_filled(before);
                            return Poll::Ready(Err(this.fail(error)));
                        }
                        for hash in &mut this.content {
                            hash.update(new);
                        }
                        return Poll::Ready(Ok(()));
                    }
                    buffer.set_filled(before);
                    let State::Reading(decoder) =
                        std::mem::replace(&mut this.state, State::Ended(None))
                    else {
                        continue;
                    };
                    let hashes = std::mem::take(&mut this.content);
                    let ending = this.end.clone().judge(
                        decoder.into_served(),
                        result.err(),
                        hashes,
                        this.content_bytes,
                    );
                    this.state = State::Ending(Box::pin(ending));
                }
            }
        }
    }
}

impl End {
    /// Reads what the decompression left, and compares.
    async fn judge(
        self,
        mut served: Served,
        broken: Option<io::Error>,
        content: Vec<Hash>,
        content_bytes: u64,
    ) -> Result<Received, DownloadError> {
        // Also what cannot be decompressed: whether it is at all what was announced is the better answer.
        served.drain().await?;
        let (pull, digests) = served.finish().await?;
        let served_digest = digests[0].clone();
        let differs = |expected: &Option<Digest>, found: &Digest| {
            expected
                .as_ref()
                .filter(|expected| *expected != found)
                .map(ToString::to_string)
        };
        if let Some(expected) = differs(&self.digest, &served_digest) {
            return Err(pull.mismatch(&served_digest.to_string(), &expected));
        }
        if let Some(source) = broken {
            return Err(DownloadError::Decompress {
                url: pull.place(),
                source,
            });
        }
        let all = if self.plain {
            digests
        } else {
            content.into_iter().map(Hash::finish).collect()
        };
        let found = |algorithm| all.iter().find(|digest| digest.algorithm() == algorithm);
        if let Some(expected) = &self.uncompressed_digest
            && let Some(found) = found(expected.algorithm())
            && found != expected
        {
            return Err(DownloadError::Reject {
                url: pull.place(),
                reason: Reason::DigestMismatch,
                message: format!("its digest is {found} after decompression, expected {expected}"),
            });
        }
        let announced = self.uncompressed_digest.as_ref().map(Digest::algorithm);
        let content_digest = match self.content_digest.or(announced) {
            Some(algorithm) => found(algorithm).cloned(),
            None => all.first().cloned(),
        };
        Ok(Received {
            served_digest,
            served_bytes: pull.received(),
            content_digest,
            content_bytes,
        })
    }
}
