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

fn client(fault: Option<Fault>, http: &wire::HttpSource) -> Result<reqwest::Client, Reason> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(5));
    if fault == Some(Fault::RedirectsCredentials) {
        builder = builder.redirect(Policy::none());
    }
    if !http.ca_bundle_pem.is_empty() {
        let bundle = reqwest::Certificate::from_pem_bundle(&http.ca_bundle_pem)
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

/// Continues a download from mirror to mirror; `progress` hears of each piece and may end it.
pub async fn fetch(
    fault: Option<Fault>,
    artifact: &wire::Artifact,
    bytes: &mut Bytes,
    mut progress: impl FnMut(&[u8]),
) -> Result<(), Reason> {
    let Some(wire::artifact::Source::Http(http)) = &artifact.source else {
        return Err(Reason::UnsupportedArtifact);
    };
    let client = client(fault, http)?;
    let mut worst = Reason::SourceNotFound;
    for url in &http.urls {
        let mut response = get(&client, url, artifact, bytes.all.len() as u64).await;
        if let Ok(redirect) = &response
            && redirect.status().is_redirection()
            && let Some(there) = redirect.headers().get("location")
            && let Ok(there) = there.to_str()
        {
            response = get(&client, there, artifact, bytes.all.len() as u64).await;
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
