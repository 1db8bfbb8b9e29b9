//! Numbers of a provider process, in the `OpenMetrics` form.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The media type of the `OpenMetrics` specification 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

/// Numbers of a provider process. Labels come from closed sets.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
    transfers: Gauge,
    transferred: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("cluster_stack_provider");
        let calls = Family::<CallLabels, Counter>::default();
        registry.register("calls", "Calls by method and code", calls.clone());
        // 1 ms to 65 s: from a read of memory to the deadline.
        let seconds = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 4.0, 9))
        });
        registry.register("call_seconds", "Time that calls took", seconds.clone());
        let transfers = Gauge::default();
        registry.register("transfers", "Transfers that run now", transfers.clone());
        let transferred = Counter::default();
        registry.register(
            "transferred_bytes",
            "Bytes of images that were brought to the backend",
            transferred.clone(),
        );
        Self {
            registry,
            calls,
            seconds,
            transfers,
            transferred,
        }
    }
}

impl Metrics {
    /// A transfer runs until the guard is dropped.
    pub fn transfer(&self) -> RunningTransfer {
        self.transfers.inc();
        RunningTransfer(self.transfers.clone())
    }

    /// So many more bytes of images have been brought to the backend.
    pub fn transferred(&self, bytes: u64) {
        self.transferred.inc_by(bytes);
    }

    pub(super) fn called(&self, method: &'static str, code: &'static str, took: Duration) {
        self.calls.get_or_create(&CallLabels { method, code }).inc();
        self.seconds
            .get_or_create(&MethodLabels { method })
            .observe(took.as_secs_f64());
    }

    /// All numbers as text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// Counts a transfer for as long as it lives.
#[derive(Debug)]
#[must_use = "the transfer counts as running until this is dropped"]
pub struct RunningTransfer(Gauge);

impl Drop for RunningTransfer {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// `/metrics`.
pub(super) fn routes(metrics: Arc<Metrics>) -> Router {
    let scrape = async |State(metrics): State<Arc<Metrics>>| {
        ([(header::CONTENT_TYPE, OPEN_METRICS)], metrics.encode())
    };
    Router::new()
        .route("/metrics", get(scrape))
        .with_state(metrics)
}
