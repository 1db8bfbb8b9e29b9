//! Mutual TLS whose files may change while the process runs.
//!
//! The folder is looked at every few seconds: certificates are renewed by somebody else. New connections get the new
//! files, those that are open go on; [`super::MAX_CONNECTION_AGE`] ends them in time. Files that cannot be used are
//! reported once, and the old ones stay.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tracing::{info, warn};

use super::ServeError;

/// The files of a cert-manager Secret.
const FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Contents of the folder, and the configuration that they make.
pub(super) struct Tls {
    folder: PathBuf,
    current: ArcSwap<ServerConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

type Contents = [Vec<u8>; 3];

impl Tls {
    /// Reads the folder.
    pub(super) fn open(folder: &Path) -> Result<(Arc<Self>, Contents), ServeError> {
        let contents = read(folder)?;
        let config = configuration(folder, &contents)?;
        let tls = Self {
            folder: folder.to_owned(),
            current: ArcSwap::from_pointee(config),
        };
        Ok((Arc::new(tls), contents))
    }

    /// What the next handshake uses.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Looks at the folder for ever.
    pub(super) async fn follow(self: Arc<Self>, mut known: Contents, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            // Small files of a memory file system: not worth a thread.
            let read = read(&self.folder);
            let changed = match &read {
                Ok(contents) if *contents == known => continue,
                Ok(contents) => configuration(&self.folder, contents),
                // In the middle of an exchange, or gone: what is in use stays.
                Err(_) => continue,
            };
            if let Ok(contents) = read {
                known = contents;
            }
            match changed {
                Ok(config) => {
                    self.current.store(Arc::new(config));
                    info!(folder = %self.folder.display(), "certificates read anew");
                }
                Err(error) => warn!(%error, "new certificates cannot be used, the old ones stay"),
            }
        }
    }
}

fn read(folder: &Path) -> Result<Contents, ServeError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|source| ServeError::ReadFile { path, source })
    };
    let [certificate, key, authority] = FILES;
    Ok([read(certificate)?, read(key)?, read(authority)?])
}

fn configuration(folder: &Path, contents: &Contents) -> Result<ServerConfig, ServeError> {
    let [certificate, key, authority] = contents;
    let wrong = |name: &str, why: String| ServeError::UseFile {
        path: folder.join(name),
        why,
    };
    let [certificate_file, key_file, authority_file] = FILES;
    let chain = certificates(certificate).map_err(|why| wrong(certificate_file, why))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| {
        wrong(
            key_file,
            format!("expected a private key in PEM form: {error}"),
        )
    })?;
    let mut roots = RootCertStore::empty();
    for root in certificates(authority).map_err(|why| wrong(authority_file, why))? {
        roots
            .add(root)
            .map_err(|error| wrong(authority_file, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| wrong(authority_file, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(certificate_file, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| wrong(certificate_file, error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("expected certificates in PEM form: {error}"))?;
    if chain.is_empty() {
        return Err("expected certificates in PEM form, found none".to_owned());
    }
    Ok(chain)
}
