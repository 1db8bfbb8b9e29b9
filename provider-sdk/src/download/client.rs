//! The HTTP client with which everything is fetched.

use std::time::Duration;

use reqwest::{Certificate, Client, redirect};

use super::{DownloadError, addresses::Addresses};

/// Redirects that are followed for one request, as in browsers and curl.
pub(super) const REDIRECTS: usize = 10;

/// How servers are reached. Proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY`, …).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Longest time for name, connection and TLS; 10 s by default.
    pub connect_timeout: Duration,
    /// Longest time without a byte from the server; 30 s by default. There is no limit for the whole of an answer.
    pub silence_timeout: Duration,
    /// Certificates (PEM) that are trusted beside the system's.
    pub root_certificates: Option<String>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(30),
            root_certificates: None,
        }
    }
}

/// Makes a client that follows redirects only within an origin (scheme, host and port): what leads out is returned as
/// it is, for the caller to follow without credentials. Names never lead it to link-local addresses.
///
/// # Errors
///
/// If the certificates are none, or the process has no TLS provider.
pub fn client(options: &ClientOptions) -> Result<Client, DownloadError> {
    client_for(options, Addresses::All)
}

/// The same, for these addresses.
pub(super) fn client_for(
    options: &ClientOptions,
    addresses: Addresses,
) -> Result<Client, DownloadError> {
    let within_origin = redirect::Policy::custom(|attempt| {
        let same = attempt
            .previous()
            .last()
            .is_some_and(|previous| previous.origin() == attempt.url().origin());
        if !same {
            attempt.stop()
        } else if attempt.previous().len() > REDIRECTS {
            attempt.error("too many redirects")
        } else {
            attempt.follow()
        }
    });
    let certificates = match &options.root_certificates {
        Some(pem) => certificates(pem)?,
        None => Vec::new(),
    };
    Client::builder()
        .user_agent(concat!(
            "cluster-stack-operator/",
            env!("CARGO_PKG_VERSION")
        ))
        .dns_resolver(addresses)
        .redirect(within_origin)
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.silence_timeout)
        .tls_certs_merge(certificates)
        .build()
        .map_err(|source| match options.root_certificates {
            Some(_) => DownloadError::ReadCertificates {
                source: source.into(),
            },
            None => DownloadError::BuildClient { source },
        })
}

fn certificates(pem: &str) -> Result<Vec<Certificate>, DownloadError> {
    let refuse = |source| DownloadError::ReadCertificates { source };
    let certificates =
        Certificate::from_pem_bundle(pem.as_bytes()).map_err(|source| refuse(source.into()))?;
    if certificates.is_empty() {
        return Err(refuse("there is no certificate in it".into()));
    }
    Ok(certificates)
}
