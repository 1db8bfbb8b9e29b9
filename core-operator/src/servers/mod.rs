//! The servers for probes and metrics.
//!
//! *Live* and *ready* are different questions. `/healthz` answers as long as the process runs: a failure there makes
//! the kubelet kill the pod, which repairs nothing that is wrong elsewhere. `/readyz` answers whether this replica
//! could work: release store open, renderer answers, watches filled, lease machinery works. A replica that waits for
//! the lease is ready, or a rolling update would never end.
//!
//! They never show an object's name or a secret, and never call out: a probe must not hang on the API server.

mod address;
mod readiness;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use address::BindAddress;
pub use readiness::{Check, Readiness};

use crate::metrics::Metrics;

/// The media type of [`Metrics::encode`] (`OpenMetrics` specification 1.0).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// How long open connections may last after the stop: a scraper that reads slowly must not hold up the end.
const DRAIN: Duration = Duration::from_secs(2);

/// Why a server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be bound.
    #[error(
        "failed to listen on \"{address}\", given by {flag}: {source}; give another address, or \"0\" for none"
    )]
    Bind {
        /// The option that names the address, such as `--metrics-bind-address`.
        flag: &'static str,
        /// The address as given.
        address: BindAddress,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A server that has its port but does not answer yet.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    flag: &'static str,
}

impl Server {
    /// Takes the port; `None` if `address` is off. `flag` is the option that the address came from.
    ///
    /// Apart from serving, so that a port that is taken ends the start and not the work.
    ///
    /// # Errors
    ///
    /// [`ServerError::Bind`], naming option and address.
    pub async fn bind(
        flag: &'static str,
        address: &BindAddress,
    ) -> Result<Option<Self>, ServerError> {
        let mut failure = None;
        for (host, port) in address.candidates() {
            match TcpListener::bind((host.as_str(), port)).await {
                Ok(listener) => return Ok(Some(Self { listener, flag })),
                // A port that is taken is the answer; a missing IP version asks for the next candidate.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    failure = Some(error);
                    break;
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(None),
            Some(source) => Err(ServerError::Bind {
                flag,
                address: address.clone(),
                source,
            }),
        }
    }

    /// The address that was really bound, which tells the port where the option said 0.
    ///
    /// # Errors
    ///
    /// What the operating system says.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `stop` is cancelled, and then at most two seconds longer to requests that are under way.
    pub async fn serve(self, router: Router, stop: CancellationToken) {
        let flag = self.flag;
        if let Ok(address) = self.local_address() {
            info!(flag, %address, "listening");
        }
        let stopped = stop.clone();
        let mut serving = std::pin::pin!(
            axum::serve(self.listener, router)
                .with_graceful_shutdown(async move { stopped.cancelled().await })
                .into_future()
        );
        let result = tokio::select! {
            result = &mut serving => result,
            () = stop.cancelled() => timeout(DRAIN, serving).await.unwrap_or(Ok(())),
        };
        if let Err(error) = result {
            warn!(flag, %error, "server ended");
        }
    }
}

/// `/healthz` and `/readyz`.
pub fn health(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let code = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, readiness.report())
}

/// `/metrics`.
pub fn metrics(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(metrics)
}

async fn scrape(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::Instant;

    use super::*;

    async fn start(
        router: Router,
        stop: &CancellationToken,
    ) -> (SocketAddr, tokio::task::JoinHandle<()>) {
        let address = "127.0.0.1:0".parse().unwrap();
        let server = Server::bind("--metrics-bind-address", &address)
            .await
            .unwrap()
            .unwrap();
        (
            server.local_address().unwrap(),
            tokio::spawn(server.serve(router, stop.clone())),
        )
    }

    async fn request(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn live_is_not_ready() {
        let stop = CancellationToken::new();
        let readiness = Readiness::new();
        let watches = readiness.check("watches");
        let (address, serving) = start(health(readiness), &stop).await;
        assert!(
            request(address, "/healthz")
                .await
                .starts_with("HTTP/1.1 200")
        );
        watches.not_ready("filling");
        let answer = request(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("[-]watches: filling"),
            "{answer}"
        );
        watches.ready();
        let answer = request(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("[+]watches ok"),
            "{answer}"
        );
        assert!(request(address, "/other").await.starts_with("HTTP/1.1 404"));
        stop.cancel();
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    // pitfall_65: the Go operator parses the metrics address, listens on :8080 all the same, and has no own metrics.
    #[tokio::test]
    async fn own_metrics_are_served_on_the_given_address() {
        let stop = CancellationToken::new();
        let values = Arc::new(Metrics::new());
        values.leader(true);
        let (address, _serving) = start(metrics(values), &stop).await;
        let answer = request(address, "/metrics").await;
        assert!(answer.contains(OPEN_METRICS), "{answer}");
        assert!(
            answer.contains("cluster_stack_operator_leader 1"),
            "{answer}"
        );
        assert!(answer.trim_end().ends_with("# EOF"), "{answer}");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_reported_with_option_and_address() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = Server::bind("--health-probe-bind-address", &address.parse().unwrap())
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains(&address) && text.contains("--health-probe-bind-address"),
            "{text}"
        );
        assert!(text.contains("in use"), "{text}");
    }

    #[tokio::test]
    async fn all_interfaces_include_the_loopback_and_off_is_off() {
        let server = Server::bind("--metrics-bind-address", &":0".parse().unwrap())
            .await
            .unwrap()
            .unwrap();
        let port = server.local_address().unwrap().port();
        TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        assert!(
            Server::bind("--metrics-bind-address", &BindAddress::Off)
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_request_does_not_hold_up_the_stop() {
        let stop = CancellationToken::new();
        let (address, serving) = start(health(Readiness::new()), &stop).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        assert!(
            request(address, "/healthz")
                .await
                .starts_with("HTTP/1.1 200")
        );
        let start = Instant::now();
        stop.cancel();
        serving.await.unwrap();
        assert!(
            start.elapsed() < DRAIN + Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
}
