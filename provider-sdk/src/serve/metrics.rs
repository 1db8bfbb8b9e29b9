//! Numbers of a provider process, in the `OpenMetrics` form.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::load::Load;

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
pub(super) struct Metrics {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram>,
}

/// The numbers of the workers, read when somebody asks.
#[derive(Debug)]
struct OfWorkers(Arc<Load>);

impl Collector for OfWorkers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let running = ConstGauge::new(self.0.transfers());
        let metric = encoder.encode_descriptor(
            "transfers",
            "Transfers that run now",
            None,
            running.metric_type(),
        )?;
        running.encode(metric)?;
        let moved = ConstCounter::new(self.0.transferred_bytes());
        let metric = encoder.encode_descriptor(
            "transferred_bytes",
            "Bytes of images that were brought to the backend",
            None,
            moved.metric_type(),
        )?;
        moved.encode(metric)
    }
}

impl Metrics {
    pub(super) fn new(load: Arc<Load>) -> Self {
        let mut registry = Registry::with_prefix("cluster_stack_provider");
        let calls = Family::<CallLabels, Counter>::default();
        registry.register("calls", "Calls by method and code", calls.clone());
        // 1 ms to 65 s: from a read of memory to the deadline.
        let seconds = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(exponential_buckets(0.001, 4.0, 9))
        });
        registry.register("call_seconds", "Time that calls took", seconds.clone());
        registry.register_collector(Box::new(OfWorkers(load)));
        Self {
            registry,
            calls,
            seconds,
        }
    }

    pub(super) fn called(&self, method: &'static str, code: &'static str, took: Duration) {
        self.calls.get_or_create(&CallLabels { method, code }).inc();
        self.seconds
            .get_or_create(&MethodLabels { method })
            .observe(took.as_secs_f64());
    }

    /// All numbers as text.
    fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
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
