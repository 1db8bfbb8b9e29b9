//! A provider as a process: transport, who may call, health, metrics, telemetry, and an orderly end.
//!
//! ```text
//!   core ──mTLS──► accept ──► Calls (identity, count, trace) ──► the two services
//!   kubelet ─────► health                      scraper ─────► metrics
//! ```
//!
//! On SIGTERM health says "not serving", transfers are cut, nobody new is let in, calls may end for [`DRAIN`]. Health
//! follows the process and never the backend: a pod that is killed because a cloud is away repairs nothing.

mod calls;
mod connection;
mod error;
mod metrics;
mod options;
mod peer;
mod telemetry;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::wire;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tracing::{info, warn};

pub use error::ServeError;
pub use options::{Listen, ServeOptions};
pub use telemetry::{LogFormat, Telemetry, init};

use crate::load::Load;
use crate::provider::Provider;
use crate::server::services;
use calls::Calls;
use connection::Listener;
use metrics::Metrics;
use peer::Allowed;
use tls::Tls;

/// Age at which a connection is to be replaced: certificates change.
pub const MAX_CONNECTION_AGE: Duration = Duration::from_mins(30);

/// Time for the calls of a connection that is too old.
const AGE_GRACE: Duration = Duration::from_mins(1);

/// How long calls may go on after SIGTERM.
pub const DRAIN: Duration = Duration::from_secs(10);

/// Between "not serving" and the end of listening: callers look at health before they call.
const LAME_DUCK: Duration = Duration::from_millis(500);

/// Time for the last answers to be sent.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// How often files with certificates are looked at.
const CERTIFICATES: Duration = Duration::from_secs(5);

/// Services whose health can be asked for, the process as a whole apart.
const SERVICES: [&str; 2] = [
    "clusterstack.provider.v1alpha1.IdentityService",
    "clusterstack.provider.v1alpha1.NodeImageService",
];

/// A provider process that has its ports and does not answer yet.
#[derive(Debug)]
pub struct Process {
    options: ServeOptions,
    listener: Listener,
    health: Option<TcpListener>,
    metrics: Option<TcpListener>,
    tls: Option<Arc<Tls>>,
    follow: Option<AbortOnDropHandle<()>>,
    allowed: Allowed,
    load: Arc<Load>,
}

impl Process {
    /// Checks the options and takes the ports.
    ///
    /// # Errors
    ///
    /// Options that contradict each other, files that cannot be used, ports that are taken.
    pub async fn bind(options: ServeOptions) -> Result<Self, ServeError> {
        let (tls, follow) = match (options.insecure, &options.tls_dir) {
            (true, Some(_)) => return Err(ServeError::ChooseTransport),
            (false, None) => return Err(ServeError::MissTransport),
            (true, None) => (None, None),
            (false, Some(folder)) => {
                if options.allow_identities.is_empty() {
                    return Err(ServeError::MissIdentity);
                }
                let (tls, contents) = Tls::open(folder)?;
                let follow = tokio::spawn(Arc::clone(&tls).follow(contents, CERTIFICATES));
                (Some(tls), Some(AbortOnDropHandle::new(follow)))
            }
        };
        let listener = match &options.listen {
            Listen::Tcp(address) => Listener::Tcp(bind("--listen", address).await?),
            Listen::Unix(path) if tls.is_none() => {
                // What a killed process left; nobody else has this path.
                let _ = std::fs::remove_file(path);
                let socket = UnixListener::bind(path);
                Listener::Unix(socket.map_err(|source| taken("--listen", &options.listen, source))?)
            }
            Listen::Unix(_) => return Err(ServeError::SocketWithTls),
            Listen::Nowhere => {
                let nowhere = io::Error::from(io::ErrorKind::InvalidInput);
                return Err(taken("--listen", &options.listen, nowhere));
            }
        };
        let health = beside("--health-listen", &options.health_listen).await?;
        let metrics = beside("--metrics-listen", &options.metrics_listen).await?;
        Ok(Self {
            allowed: Allowed::new(&options.allow_identities),
            options,
            listener,
            health,
            metrics,
            tls,
            follow,
            load: Arc::default(),
        })
    }

    /// Where the core calls, with the port that was really taken.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(_) => None,
        }
    }

    /// Where health is asked for.
    #[must_use]
    pub fn health_address(&self) -> Option<SocketAddr> {
        self.health.as_ref()?.local_addr().ok()
    }

    /// Where metrics are scraped.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// The same, showing also what the workers of a provider do.
    #[must_use]
    pub fn with_load(mut self, load: Arc<Load>) -> Self {
        self.load = load;
        self
    }

    /// Serves until `stop` is ready, and then to an orderly end.
    ///
    /// # Errors
    ///
    /// The server ended by itself.
    pub async fn run(
        self,
        routes: Routes,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let Self {
            options,
            listener,
            health,
            metrics,
            tls,
            follow: _follow,
            allowed,
            load,
        } = self;
        let numbers = Arc::new(Metrics::new(load));
        // For people and scripts alike: the port that was taken where the option said 0.
        let listening = match &listener {
            Listener::Tcp(listener) => listener.local_addr().map(|address| address.to_string()),
            Listener::Unix(_) => Ok(options.listen.to_string()),
        };
        info!(address = %listening.unwrap_or_default(), tls = tls.is_some(), "listening");
        let (reporter, health_service) = tonic_health::server::health_reporter();
        report(&reporter, ServingStatus::Serving).await;
        let _health = health.map(|listener| {
            let server = Server::builder().add_service(health_service.clone());
            let incoming = TcpListenerStream::new(listener);
            AbortOnDropHandle::new(tokio::spawn(server.serve_with_incoming(incoming)))
        });
        let _metrics = metrics.map(|listener| {
            let routes = metrics::routes(Arc::clone(&numbers));
            AbortOnDropHandle::new(tokio::spawn(axum::serve(listener, routes).into_future()))
        });
        let mut routes = routes.add_service(health_service);
        if options.reflection {
            let reflection = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(wire::FILE_DESCRIPTOR_SET)
                .build_v1()
                .map_err(|error| ServeError::Reflection(Box::new(error)))?;
            routes = routes.add_service(reflection);
        }
        let (draining, closing) = (CancellationToken::new(), CancellationToken::new());
        let calls = Calls {
            allowed,
            metrics: numbers,
            closing: closing.clone(),
        };
        let serving = Server::builder()
            .max_connection_age(MAX_CONNECTION_AGE)
            .max_connection_age_grace(AGE_GRACE)
            .layer(calls)
            .add_routes(routes)
            .serve_with_incoming_shutdown(
                connection::accept(listener, tls),
                draining.clone().cancelled_owned(),
            );
        let mut serving = std::pin::pin!(serving);
        tokio::select! {
            ended = &mut serving => return ended.map_err(ServeError::Serve),
            () = stop => {}
        }
        info!("stopping");
        report(&reporter, ServingStatus::NotServing).await;
        let end = async {
            tokio::time::sleep(LAME_DUCK).await;
            draining.cancel();
            tokio::time::sleep(DRAIN).await;
            warn!("calls did not end in time");
            closing.cancel();
            tokio::time::sleep(LAST_ANSWERS).await;
        };
        tokio::select! {
            ended = serving => ended.map_err(ServeError::Serve),
            () = end => Ok(()),
        }
    }
}

/// Serves a provider until the process is told to end (SIGTERM, SIGINT): all that the `main` of a provider does after it has
/// read its options. Sets up logs and traces of the process as well.
///
/// # Errors
///
/// Options that cannot work, ports that are taken, a provider whose info breaks the contract.
pub async fn serve(provider: impl Provider, options: ServeOptions) -> Result<(), ServeError> {
    // Fails only when somebody did it before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let services = services(Arc::new(provider)).map_err(ServeError::Info)?;
    let _telemetry = init(&services.info.name, &options)?;
    let stop = told_to_stop().map_err(ServeError::Signals)?;
    let process = Process::bind(options).await?.with_load(services.load);
    let routes = Routes::new(services.identity).add_service(services.images);
    let (workers, stopping) = (services.shutdown.clone(), services.shutdown);
    // The work goes first: calls that wait for it are answered at once.
    let stop = async move {
        stop.await;
        tokio::spawn(async move { stopping.stop().await });
    };
    process.run(routes, stop).await?;
    workers.stop().await;
    Ok(())
}

/// Ready when the process is told to end (SIGTERM, SIGINT).
///
/// # Errors
///
/// The system does not let us listen for signals.
pub fn told_to_stop() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for service in ["", SERVICES[0], SERVICES[1]] {
        reporter.set_service_status(service, status).await;
    }
}

async fn bind(flag: &'static str, address: &str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Bind {
            flag,
            address: address.to_owned(),
            source,
        })
}

fn taken(flag: &'static str, listen: &Listen, source: io::Error) -> ServeError {
    ServeError::Bind {
        flag,
        address: listen.to_string(),
        source,
    }
}

/// A port beside the one for calls.
async fn beside(flag: &'static str, listen: &Listen) -> Result<Option<TcpListener>, ServeError> {
    match listen {
        Listen::Tcp(address) => bind(flag, address).await.map(Some),
        Listen::Nowhere => Ok(None),
        Listen::Unix(_) => {
            let unsupported = io::Error::from(io::ErrorKind::Unsupported);
            Err(taken(flag, listen, unsupported))
        }
    }
}

#[cfg(test)]
mod tests;
