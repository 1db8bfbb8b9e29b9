//! Why a provider process does not start or ends.

use std::io;
use std::path::PathBuf;

/// Why a provider process does not start or ends.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// TLS is off and on.
    #[error("--insecure and --tls-dir exclude each other: leave --insecure out to serve with TLS")]
    ChooseTransport,
    /// TLS is neither off nor on.
    #[error(
        "--tls-dir is missing: give the folder with tls.crt, tls.key and ca.crt, or --insecure for tests"
    )]
    MissTransport,
    /// Nobody would be let in.
    #[error(
        "--allow-identity is missing: name whom to let in, such as \"core-operator.<namespace>.svc\""
    )]
    MissIdentity,
    /// A socket in the file system needs no TLS, and has none.
    #[error("a unix socket is for --insecure only")]
    SocketWithTls,
    /// The address cannot be bound.
    #[error("failed to listen on \"{address}\", given by {flag}")]
    Bind {
        /// The option that names the address.
        flag: &'static str,
        /// The address.
        address: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file with certificates or a key cannot be read.
    #[error("failed to read \"{}\"", path.display())]
    ReadFile {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file is not what its name says.
    #[error("failed to use \"{}\": {why}", path.display())]
    UseFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The system does not let us listen for signals.
    #[error("failed to listen for signals")]
    Signals(#[source] io::Error),
    /// The server ended by itself.
    #[error("failed to serve")]
    Serve(#[source] tonic::transport::Error),
    /// The descriptors for reflection cannot be read.
    #[error("failed to set up reflection")]
    Reflection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Logs or traces cannot be set up.
    #[error("failed to set up telemetry: {0}")]
    Telemetry(String),
    /// What the provider says of itself breaks the contract.
    #[error("the provider's info breaks the contract: {0}")]
    Info(proto::Invalid),
}
