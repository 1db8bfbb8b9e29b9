//! Brings the bytes of an artifact into a file, hashed on the way.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use proto::digest::Algorithm;
use proto::{Artifact, Compression, Digest, HttpSource, Invalid, ProviderError, Source};
use reqwest::header::{CONTENT_RANGE, LOCATION, RANGE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use sha2::{Digest as _, Sha256, Sha512};
use url::Url;

use crate::download::{ClientOptions, client};
use crate::provider::{Progress, Result, Transferred};

/// Largest number of bytes that is stored, as after decompression.
pub(super) const LARGEST: u64 = 64 << 20;

/// Redirects that are followed.
const REDIRECTS: usize = 10;

/// Hashes with the one function that is needed.
enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn of(digest: Option<&Digest>) -> Self {
        match digest.map(Digest::algorithm) {
            Some(Algorithm::Sha512) => Self::Sha512(Sha512::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn digest(self) -> Option<Digest> {
        match self {
            Self::Sha256(hasher) => Digest::new(Algorithm::Sha256, &hasher.finalize()),
            Self::Sha512(hasher) => Digest::new(Algorithm::Sha512, &hasher.finalize()),
        }
    }
}

/// The file in the backend.
struct Store {
    file: File,
    /// As the backend hashes.
    hasher: Sha256,
    /// As the digest after decompression wants it.
    unpacked: Hasher,
    size: u64,
}

impl Write for Store {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        if self.size > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.hasher.update(bytes);
        self.unpacked.update(bytes);
        self.file.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

enum Unpack {
    Plain(Box<Store>),
    Gzip(Box<MultiGzDecoder<Store>>),
}

impl Unpack {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(store) => store.write_all(bytes),
            Self::Gzip(decoder) => decoder.write_all(bytes),
        }
    }

    fn finish(self) -> io::Result<Store> {
        match self {
            Self::Plain(store) => Ok(*store),
            Self::Gzip(decoder) => decoder.finish(),
        }
    }
}

/// Brings an artifact to `path`, and says what went by. What is there already is continued, if a digest will tell whether
/// that was right.
pub(super) async fn fetch(
    artifact: &Artifact,
    path: &Path,
    progress: &Progress,
) -> Result<Transferred> {
    let Source::Http(source) = &artifact.source else {
        return Err(ProviderError::unsupported_artifact(
            "only files behind HTTP are taken",
        ));
    };
    let there = match std::fs::metadata(path) {
        Ok(file) if artifact.digest.is_some() && artifact.compression == Compression::None => {
            file.len()
        }
        _ => 0,
    };
    let mut response = open(source, artifact, there).await?;
    let there = if response.status() == StatusCode::PARTIAL_CONTENT {
        std::fs::read(path).map_err(unwritable)?
    } else {
        Vec::new()
    };
    if let Some(total) = artifact.size_bytes.or_else(|| {
        response
            .content_length()
            .map(|rest| rest + there.len() as u64)
    }) {
        progress.set_total(total);
    }
    let store = Store {
        file: File::create(path).map_err(unwritable)?,
        hasher: Sha256::new(),
        unpacked: Hasher::of(artifact.uncompressed_digest.as_ref()),
        size: 0,
    };
    let mut unpack = match artifact.compression {
        Compression::None => Unpack::Plain(Box::new(store)),
        Compression::Gzip => Unpack::Gzip(Box::new(MultiGzDecoder::new(store))),
        _ => {
            return Err(ProviderError::unsupported_artifact(
                "only gzip can be unpacked",
            ));
        }
    };
    let (mut served, mut served_bytes) = (Hasher::of(artifact.digest.as_ref()), 0_u64);
    let mut next = Some(Bytes::from(there)).filter(|there| !there.is_empty());
    loop {
        if let Some(chunk) = next {
            served.update(&chunk);
            served_bytes += chunk.len() as u64;
            progress.add(chunk.len() as u64);
            if served_bytes > LARGEST {
                return Err(too_large());
            }
            unpack.write(&chunk).map_err(unpackable)?;
        }
        next = response.chunk().await.map_err(|_cut| {
            ProviderError::source_unavailable("the source closed the connection too early")
        })?;
        if next.is_none() {
            break;
        }
    }
    let store = unpack.finish().map_err(unpackable)?;
    if let Some(expected) = &artifact.uncompressed_digest
        && store.unpacked.digest().as_ref() != Some(expected)
    {
        return Err(ProviderError::digest_mismatch(format!(
            "the digest after decompression is not {expected}"
        )));
    }
    let stored = Digest::new(Algorithm::Sha256, &store.hasher.finalize());
    let (Some(served), Some(stored)) = (served.digest(), stored) else {
        return Err(ProviderError::internal_bug("a hash has the wrong length"));
    };
    Ok(Transferred::default()
        .served_as(served, served_bytes)
        .stored_as(stored, store.size))
}

/// Opens the first mirror that has the artifact.
async fn open(source: &HttpSource, artifact: &Artifact, from: u64) -> Result<Response> {
    let mut options = ClientOptions::default();
    if !source.ca_bundle_pem.is_empty() {
        let pem = String::from_utf8_lossy(&source.ca_bundle_pem).into_owned();
        options.root_certificates = Some(pem);
    }
    let client = client(&options).map_err(|_unusable| {
        let field = "spec.artifact.http.ca_bundle_pem";
        ProviderError::from(Invalid::field(field, "holds no certificates"))
    })?;
    let mut why = None;
    for url in &source.urls {
        match follow(&client, url, artifact, from).await {
            Ok(response) => return Ok(response),
            // A mirror that is away tells more than one that has not got it.
            Err(error) => {
                let kept = why.take().filter(|kept: &ProviderError| {
                    kept.reason() != Some(proto::Reason::SourceNotFound)
                });
                why = kept.or(Some(error));
            }
        }
    }
    Err(why.unwrap_or_else(|| ProviderError::source_not_found("there is no address")))
}

async fn follow(client: &Client, first: &Url, artifact: &Artifact, from: u64) -> Result<Response> {
    let mut url = first.clone();
    let mut ours = true;
    for _ in 0..=REDIRECTS {
        let mut request = client
            .get(url.clone())
            .header("accept-encoding", "identity");
        if from > 0 {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        if ours {
            request = authorized(request, artifact);
        }
        let response = request.send().await.map_err(|_error| {
            ProviderError::source_unavailable(format!(
                "the source at {} cannot be reached",
                host(&url)
            ))
        })?;
        let status = response.status();
        if status == StatusCode::RANGE_NOT_SATISFIABLE && from > 0 {
            // There is nothing after what came already: all of it, or of another file.
            return Box::pin(follow(client, first, artifact, 0)).await;
        }
        if !status.is_redirection() {
            return answered(response, &url, from);
        }
        let next = response
            .headers()
            .get(LOCATION)
            .and_then(|location| location.to_str().ok())
            .and_then(|location| url.join(location).ok())
            .filter(|next| next.scheme() == "https" || next.scheme() == url.scheme())
            .ok_or_else(|| {
                ProviderError::source_denied("the source redirects to where we do not go")
            })?;
        // For good, also when the way leads back.
        ours &= next.origin() == first.origin();
        url = next;
    }
    Err(ProviderError::source_denied(
        "the source redirects too often",
    ))
}

fn answered(response: Response, url: &Url, from: u64) -> Result<Response> {
    let host = host(url);
    let start = format!("bytes {from}-");
    let range = response.headers().get(CONTENT_RANGE);
    let continued = range.is_some_and(|range| range.as_bytes().starts_with(start.as_bytes()));
    match response.status() {
        StatusCode::OK => Ok(response),
        StatusCode::PARTIAL_CONTENT if continued => Ok(response),
        StatusCode::NOT_FOUND | StatusCode::GONE => Err(ProviderError::source_not_found(format!(
            "the source at {host} has no such file"
        ))),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ProviderError::source_denied(
            format!("the source at {host} refuses the credentials, or wants some"),
        )),
        status => Err(ProviderError::source_unavailable(format!(
            "the source at {host} answers with status {}",
            status.as_u16()
        ))),
    }
}

fn authorized(request: RequestBuilder, artifact: &Artifact) -> RequestBuilder {
    let secrets = &artifact.secrets;
    if let Some(token) = secrets.text("bearer_token") {
        request.bearer_auth(token)
    } else if let Some(user) = secrets.text("username") {
        request.basic_auth(user, secrets.text("password"))
    } else {
        request
    }
}

fn host(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

fn too_large() -> ProviderError {
    let message = format!("the image has more than {LARGEST} bytes");
    ProviderError::new(proto::Reason::SizeLimitExceeded, message)
}

fn unpackable(error: io::Error) -> ProviderError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => too_large(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            ProviderError::content_rejected("the bytes are not what their compression says")
        }
        _ => unwritable(error),
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn unwritable(error: io::Error) -> ProviderError {
    ProviderError::backend_unavailable("the image cannot be written")
        .with_metadata("cause", error.to_string())
}
