//! Gets the bytes of an artifact.

use std::{io::Read as _, time::Duration};

use futures::StreamExt as _;
use proto::wire::{self, ErrorReason as Reason};
use reqwest::{StatusCode, redirect::Policy};
use sha2::{Digest as _, Sha256};

use super::Fault;

/// Largest artifact, before and after decompression.
pub const LARGEST: u64 = 32 << 20;

/// Bytes in memory, as far as they have come.
#[derive(Debug, Default)]
pub struct Bytes {
    pub all: Vec<u8>,
}

fn client(fault: Option<Fault>, authority: &[u8]) -> Result<reqwest::Client, Reason> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5));
    if fault == Some(Fault::RedirectsCredentials) {
        builder = builder.redirect(Policy::none());
    }
    if !authority.is_empty() {
        let bundle = reqwest::Certificate::from_pem_bundle(authority)
            .map_err(|_error| Reason::InvalidField)?;
        for certificate in bundle {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build().map_err(|_error| Reason::InternalBug)
}

async fn get(
    client: &reqwest::Client,
    url: &str,
    artifact: &wire::Artifact,
    from: u64,
) -> Result<reqwest::Response, reqwest::Error> {
    let mut request = client.get(url);
    if from > 0 {
        request = request.header("range", format!("bytes={from}-"));
    }
    let text = |name: &str| {
        artifact
            .source_secrets
            .get(name)
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    if let Some(user) = text("username") {
        request = request.basic_auth(user, text("password"));
    }
    request.send().await
}

/// Continues a download; `progress` hears of all bytes so far. Answers the digest of what was served.
pub async fn fetch(
    fault: Option<Fault>,
    artifact: &wire::Artifact,
    bytes: &mut Bytes,
    mut progress: impl FnMut(&[u8]),
) -> Result<String, Reason> {
    match &artifact.source {
        Some(wire::artifact::Source::Http(http)) => {
            let client = client(fault, &http.ca_bundle_pem)?;
            first_of(&client, &http.urls, artifact, bytes, &mut progress).await?;
            Ok(digest(&bytes.all))
        }
        Some(wire::artifact::Source::Oci(oci)) => {
            let client = client(fault, &oci.ca_bundle_pem)?;
            let base = registry(oci).ok_or(Reason::InvalidField)?;
            let mut manifest = Bytes::default();
            let url = format!("{base}/manifests/{}", artifact.digest);
            first_of(&client, &[url], artifact, &mut manifest, &mut |_| {}).await?;
            let layer = layer(&manifest.all).ok_or(Reason::ContentRejected)?;
            let url = format!("{base}/blobs/{layer}");
            first_of(&client, &[url], artifact, bytes, &mut progress).await?;
            if digest(&bytes.all) != layer {
                return Err(Reason::DigestMismatch);
            }
            Ok(digest(&manifest.all))
        }
        None => Err(Reason::UnsupportedArtifact),
    }
}

/// The address of a repository's API.
fn registry(source: &wire::OciSource) -> Option<String> {
    let (host, path) = source.repository.split_once('/')?;
    Some(format!("http://{host}/v2/{path}"))
}

/// The digest of a manifest's only layer.
fn layer(manifest: &[u8]) -> Option<String> {
    let manifest: serde_json::Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest["layers"][0]["digest"].as_str()?.to_owned())
}

/// The digest of the manifest that a tag names.
pub async fn resolve(reference: &str) -> Result<(String, String), Reason> {
    let (repository, tag) = reference
        .rsplit_once(':')
        .ok_or(Reason::NodeImagesInvalid)?;
    let source = wire::OciSource {
        repository: repository.into(),
        ca_bundle_pem: Vec::new(),
    };
    let client = client(None, &[])?;
    let base = registry(&source).ok_or(Reason::NodeImagesInvalid)?;
    let mut manifest = Bytes::default();
    let url = format!("{base}/manifests/{tag}");
    let artifact = wire::Artifact::default();
    first_of(&client, &[url], &artifact, &mut manifest, &mut |_| {}).await?;
    Ok((repository.to_owned(), digest(&manifest.all)))
}

/// The bytes of the first URL that has them.
async fn first_of(
    client: &reqwest::Client,
    urls: &[String],
    artifact: &wire::Artifact,
    bytes: &mut Bytes,
    progress: &mut impl FnMut(&[u8]),
) -> Result<(), Reason> {
    let mut worst = Reason::SourceNotFound;
    for url in urls {
        let mut response = get(client, url, artifact, bytes.all.len() as u64).await;
        if let Ok(redirect) = &response
            && redirect.status().is_redirection()
            && let Some(there) = redirect.headers().get("location")
            && let Ok(there) = there.to_str()
        {
            response = get(client, there, artifact, bytes.all.len() as u64).await;
        }
        let Ok(response) = response else {
            worst = Reason::SourceUnavailable;
            continue;
        };
        match response.status() {
            StatusCode::OK => bytes.all.clear(),
            StatusCode::PARTIAL_CONTENT => {}
            StatusCode::NOT_FOUND => continue,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                worst = Reason::SourceDenied;
                continue;
            }
            _ => {
                worst = Reason::SourceUnavailable;
                continue;
            }
        }
        let mut stream = response.bytes_stream();
        while let Some(piece) = stream.next().await {
            let Ok(piece) = piece else {
                return Err(Reason::SourceUnavailable);
            };
            bytes.all.extend_from_slice(&piece);
            progress(&bytes.all);
            if bytes.all.len() as u64 > LARGEST {
                return Err(Reason::SizeLimitExceeded);
            }
        }
        return Ok(());
    }
    Err(worst)
}

/// The digest in the form of the contract.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// What is inside, or why it is not.
pub fn unpack(artifact: &wire::Artifact, bytes: &[u8]) -> Result<Vec<u8>, Reason> {
    if artifact.compression != i32::from(wire::Compression::Gzip) {
        return Ok(bytes.to_vec());
    }
    let mut inner = Vec::new();
    flate2::read::GzDecoder::new(bytes)
        .take(LARGEST + 1)
        .read_to_end(&mut inner)
        .map_err(|_error| Reason::ContentRejected)?;
    if inner.len() as u64 > LARGEST {
        return Err(Reason::SizeLimitExceeded);
    }
    Ok(inner)
}
