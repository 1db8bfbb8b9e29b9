//! Logs to standard error, and traces to a collector if one is named.

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::{ServeError, ServeOptions};

/// Lines of libraries that nobody reads: each export of spans would write some.
const QUIET: &str =
    "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,tower=info,opentelemetry=off";

/// Libraries whose spans are not exported: the exporter itself would make some 150 a call.
const UNTRACED: &str = "debug,h2=off,hyper=off,hyper_util=off,reqwest=off,rustls=off,tonic=off,tower=off,opentelemetry=off";

/// How long the end of the process waits for the last spans.
const FLUSH: Duration = Duration::from_secs(2);

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
#[non_exhaustive]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends the last spans when dropped.
#[derive(Debug)]
#[must_use = "spans are flushed when this is dropped"]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A collector that does not answer at the end cannot be helped.
            let _ = provider.shutdown_with_timeout(FLUSH);
        }
    }
}

/// Sets up logs and traces of a process, once, inside of a tokio runtime.
///
/// # Errors
///
/// A filter or address that is none, or telemetry that is set up already.
pub fn init(name: &str, options: &ServeOptions) -> Result<Telemetry, ServeError> {
    let wrong = |error: &dyn std::fmt::Display| ServeError::Telemetry(error.to_string());
    let level = &options.log_level;
    let filter = EnvFilter::try_new(format!("{QUIET},{level}")).map_err(|error| wrong(&error))?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let lines = match options.log_format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let provider = options
        .otlp_endpoint
        .as_ref()
        .map(|endpoint| {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .build()?;
            let resource = Resource::builder()
                .with_service_name(name.to_owned())
                .build();
            let provider = SdkTracerProvider::builder()
                .with_resource(resource)
                .with_batch_exporter(exporter)
                .build();
            Ok(provider)
        })
        .transpose()
        .map_err(|error: opentelemetry_otlp::ExporterBuildError| wrong(&error))?;
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(name.to_owned()))
            .with_filter(EnvFilter::new(UNTRACED))
    });
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans)
        .try_init()
        .map_err(|error| wrong(&error))?;
    Ok(Telemetry(provider))
}
