//! What a run is given: where the provider is, how far to go, and what the provider cannot be asked for.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use super::{
    artifacts::{ArtifactMaker, BuiltIn},
    hooks::{Hooks, NoHooks},
    sample::Sample,
};

/// How much is checked; each level contains the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A stranger's first day: an address, one target, one small artifact.
    Basic,
    /// Every provider, every change: TLS files and samples.
    Core,
    /// Releases, and real backends: hooks.
    Extended,
}

impl Level {
    /// As written on the command line and in reports.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Core => "core",
            Self::Extended => "extended",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "basic" => Ok(Self::Basic),
            "core" => Ok(Self::Core),
            "extended" => Ok(Self::Extended),
            other => Err(format!(
                "unknown level \"{other}\": basic, core or extended"
            )),
        }
    }
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, with what leads to its authority.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

/// How to reach the provider over TLS, and how not to.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority of the server certificate, PEM.
    pub ca: Vec<u8>,
    /// An identity that the provider lets in.
    pub identity: Identity,
    /// The name that the server certificate must carry; the host of the address when absent.
    pub server_name: Option<String>,
    /// An identity signed by an authority that the provider does not know.
    pub stranger: Option<Identity>,
    /// An identity of the right authority that is not on the allow list.
    pub intruder: Option<Identity>,
}

/// Where the suite's own artifact server listens, and how provider and backend reach it.
#[derive(Clone, Debug)]
pub struct ArtifactServer {
    /// Address to listen on; ports are chosen freely.
    pub listen: IpAddr,
    /// Host in the URLs that the provider gets.
    pub host: String,
    /// Address of the second host, to which downloads are redirected.
    pub second_listen: IpAddr,
    /// Host in the URLs of the second host.
    pub second_host: String,
    /// Whether artifacts in the registry are offered over TLS with a private authority instead of plain HTTP.
    pub registry_tls: bool,
}

impl Default for ArtifactServer {
    fn default() -> Self {
        // The whole of 127/8 is the loopback device on Linux; elsewhere the second host falls back to another port.
        Self {
            listen: IpAddr::from([127, 0, 0, 1]),
            host: "127.0.0.1".into(),
            second_listen: IpAddr::from([127, 0, 0, 2]),
            second_host: "127.0.0.2".into(),
            registry_tls: false,
        }
    }
}

/// Everything that a run needs.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Host and port of the provider.
    pub address: String,
    /// Absent: plaintext.
    pub tls: Option<Tls>,
    /// Host and port of the plaintext health endpoint.
    pub health_address: Option<String>,
    /// URL of the provider's metrics.
    pub metrics_url: Option<String>,
    /// How much to check.
    pub level: Level,
    /// Targets, formats, release files.
    pub sample: Sample,
    /// What can be done to provider and backend from outside.
    pub hooks: Arc<dyn Hooks>,
    /// Ids or beginnings of ids to run; empty means all. A filtered run is never conformant.
    pub filter: Vec<String>,
    /// The suite's own server.
    pub artifacts: ArtifactServer,
    /// Makes the bytes of artifacts.
    pub maker: Arc<dyn ArtifactMaker>,
    /// How long an image may take to become what it should, when nothing holds it back.
    pub patience: Duration,
    /// How many checks run at once.
    pub concurrency: usize,
}

impl Options {
    /// A run over plaintext at the level basic, without hooks.
    #[must_use]
    pub fn new(address: impl Into<String>, sample: Sample) -> Self {
        Self {
            address: address.into(),
            tls: None,
            health_address: None,
            metrics_url: None,
            level: Level::Basic,
            sample,
            hooks: Arc::new(NoHooks),
            filter: Vec::new(),
            artifacts: ArtifactServer::default(),
            maker: Arc::new(BuiltIn),
            patience: Duration::from_secs(90),
            concurrency: 16,
        }
    }
}
