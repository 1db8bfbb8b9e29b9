//! Options of every provider process.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use tonic::codegen::http::Uri;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::telemetry::LogFormat;

/// Options of every provider process; flatten them into your own. Each is an environment variable as well.
#[derive(Debug, Clone, Args)]
#[non_exhaustive]
pub struct ServeOptions {
    /// Where the core calls: address and port, or `unix:///path` together with --insecure.
    #[arg(long, env = "PROVIDER_LISTEN", default_value = "0.0.0.0:9443")]
    pub listen: Listen,

    /// Folder with tls.crt, tls.key and ca.crt (the authority of clients), as cert-manager makes them; read again when
    /// they change.
    #[arg(long, env = "PROVIDER_TLS_DIR")]
    pub tls_dir: Option<PathBuf>,

    /// Identity of a caller that is let in: a DNS or URI name in its certificate, such as
    /// `core-operator.cluster-stack-system.svc`. May be given several times, or with commas.
    #[arg(
        long = "allow-identity",
        env = "PROVIDER_ALLOW_IDENTITY",
        value_delimiter = ','
    )]
    pub allow_identities: Vec<String>,

    /// Serve without TLS to anybody who connects. For tests; refused together with --tls-dir.
    #[arg(long, env = "PROVIDER_INSECURE")]
    pub insecure: bool,

    /// Where kubelets ask for health (plain gRPC, nothing else is served there); "0" for nowhere.
    #[arg(long, env = "PROVIDER_HEALTH_LISTEN", default_value = "0.0.0.0:8081")]
    pub health_listen: Listen,

    /// Where metrics are scraped (plain HTTP, `/metrics`); "0" for nowhere.
    #[arg(long, env = "PROVIDER_METRICS_LISTEN", default_value = "0.0.0.0:8080")]
    pub metrics_listen: Listen,

    /// Tell callers about services and messages (gRPC reflection).
    #[arg(long, env = "PROVIDER_REFLECTION")]
    pub reflection: bool,

    /// Lines that are logged: off, error, warn, info, debug, trace, or directives such as `info,provider_sdk=debug`.
    #[arg(long, env = "PROVIDER_LOG_LEVEL", default_value = "info", value_parser = log_level)]
    pub log_level: String,

    /// Form of the log lines.
    #[arg(long, env = "PROVIDER_LOG_FORMAT", value_enum, default_value_t)]
    pub log_format: LogFormat,

    /// Collector for traces (OTLP over gRPC without TLS), such as an agent at `http://127.0.0.1:4317`.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = collector)]
    pub otlp_endpoint: Option<String>,
}

impl ServeOptions {
    /// Without TLS at this address, and nothing else served: for tests.
    #[must_use]
    pub fn insecure(listen: Listen) -> Self {
        Self {
            listen,
            tls_dir: None,
            allow_identities: Vec::new(),
            insecure: true,
            health_listen: Listen::Nowhere,
            metrics_listen: Listen::Nowhere,
            reflection: false,
            log_level: "info".to_owned(),
            log_format: LogFormat::default(),
            otlp_endpoint: None,
        }
    }
}

/// A bare word that is no level would be taken for the name of a module, and all lines of ours silently dropped.
fn log_level(text: &str) -> Result<String, String> {
    let is_level = |text: &str| text.parse::<LevelFilter>().is_ok();
    let parts = text.split(',').map(str::trim);
    if text.is_empty()
        || parts
            .into_iter()
            .any(|part| !part.contains('=') && !is_level(part))
    {
        return Err(
            "expected off, error, warn, info, debug, trace, or directives such as \"info,provider_sdk=debug\"".to_owned(),
        );
    }
    EnvFilter::try_new(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

/// Traces go to an agent beside the process; one that wants TLS would be told nothing, without a word.
fn collector(text: &str) -> Result<String, String> {
    match text.parse::<Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.authority().is_some() => {
            Ok(text.to_owned())
        }
        _ => Err("expected an address that begins with \"http://\"".to_owned()),
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// Host and port; port 0 takes a free one.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
    /// Not at all.
    Nowhere,
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" {
            return Ok(Self::Nowhere);
        }
        if let Some(path) = text.strip_prefix("unix://") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err("expected an absolute path after \"unix://\"".to_owned())
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => {
                let host = if host.is_empty() { "0.0.0.0" } else { host };
                Ok(Self::Tcp(format!("{host}:{port}")))
            }
            _ => Err("expected \"address:port\", \"unix:///path\" or \"0\"".to_owned()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Nowhere => f.write_str("0"),
        }
    }
}
