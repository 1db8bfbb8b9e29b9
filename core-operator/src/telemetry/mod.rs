//! Logs to standard error, and traces to a collector if one is configured.
//!
//! Telemetry serves the operator and never the other way round: no log line, span or collector may block or fail it.

mod export;
mod filter;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use url::Url;

pub use filter::LogFilter;

/// Name of this service in traces.
pub const SERVICE_NAME: &str = "core-operator";

/// How long the end of the process waits for the last spans: well within the 30 s that a pod gets.
const FLUSH: Duration = Duration::from_secs(2);

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged and exported.
#[derive(Debug, Clone, Default)]
pub struct TelemetryConfig {
    /// Form of the log lines.
    pub log_format: LogFormat,
    /// Which lines are written.
    pub log_filter: LogFilter,
    /// Collector for traces (OTLP over gRPC); `None` exports nothing.
    pub otlp_endpoint: Option<Url>,
    /// PEM file with the authorities of an https collector; `None` takes the system's.
    pub otlp_ca_file: Option<PathBuf>,
}

/// Why telemetry was not set up: wrong configuration only, never the state of the collector.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The exporter does not take this configuration.
    #[error("failed to set up trace export to \"{endpoint}\"")]
    BuildExporter {
        /// The configured collector.
        endpoint: String,
        /// What the exporter says.
        source: Box<opentelemetry_otlp::ExporterBuildError>,
    },
    /// The authorities' certificates for the collector cannot be read.
    #[error("failed to read certificates from {path:?}")]
    ReadCertificates {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// Somebody else has set a subscriber in this process.
    #[error("telemetry is set up already")]
    Install(#[source] tracing_subscriber::util::TryInitError),
}

/// Sends the last spans when dropped, for at most two seconds. To be kept until the end of `main`.
#[must_use = "spans are flushed when this is dropped"]
#[derive(Debug)]
pub struct Guard {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // A collector that does not answer has been logged; there is nothing else to do about it now.
            let _ = provider.shutdown_with_timeout(FLUSH);
        }
    }
}

/// Sets the process's telemetry up. Within a tokio runtime, which must outlive the guard if traces are exported.
///
/// # Errors
///
/// [`TelemetryError`], for configuration that cannot work; an absent collector is none.
pub fn init(config: &TelemetryConfig) -> Result<Guard, TelemetryError> {
    let (subscriber, guard) = build(config, io::stderr, io::stderr().is_terminal())?;
    // Also takes the lines of libraries that use the `log` crate.
    subscriber.try_init().map_err(TelemetryError::Install)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(guard)
}

/// A panic in the form of all other lines, with the object that was worked on: the span is still open.
fn log_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let backtrace = std::backtrace::Backtrace::capture();
    let backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
        .then(|| backtrace.to_string());
    tracing::error!(
        location = panic.location().map(tracing::field::display),
        error = panic.payload_as_str(),
        backtrace,
        "panicked"
    );
}

fn build<W>(
    config: &TelemetryConfig,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync + 'static, Guard), TelemetryError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let TelemetryConfig {
        log_format,
        log_filter,
        otlp_endpoint,
        otlp_ca_file,
    } = config;
    let provider = match otlp_endpoint {
        Some(endpoint) => Some(export::provider(endpoint, otlp_ca_file.as_deref())?),
        None => None,
    };
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SERVICE_NAME))
            .with_filter(LogFilter::traces())
    });
    let subscriber = tracing_subscriber::registry()
        .with(logs(*log_format, writer, colours).with_filter(log_filter.logs()))
        .with(traces);
    Ok((subscriber, Guard { provider }))
}

fn logs<S, W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(colours);
    match format {
        LogFormat::Text => layer.boxed(),
        // Fields beside the message instead of below "fields": that is what log stores index.
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;
    use tokio::time::{Instant, timeout};
    use tracing::{debug, info, info_span};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log_format: LogFormat, filter: &str, work: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let config = TelemetryConfig {
            log_format,
            log_filter: filter.parse().unwrap(),
            ..TelemetryConfig::default()
        };
        let (subscriber, _guard) = build(&config, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, work);
        lines.text()
    }

    #[test]
    fn json_lines_have_fields_beside_the_message() {
        let text = logged(LogFormat::Json, "info", || {
            let _span = info_span!("reconcile", release = "v2").entered();
            info!(bytes = 7, "downloaded");
            debug!("decided");
        });
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "downloaded");
        assert_eq!(line["bytes"], 7);
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["span"]["release"], "v2");
    }

    /// Names the test below in a process of its own: the hook is the process's.
    const ALONE: &str = "TELEMETRY_PANICS";

    #[test]
    fn panic_is_a_line_like_any_other() {
        const NAME: &str = "telemetry::tests::panic_is_a_line_like_any_other";
        if std::env::var_os(ALONE).is_some() {
            let config = TelemetryConfig {
                log_format: LogFormat::Json,
                ..TelemetryConfig::default()
            };
            let _guard = init(&config).unwrap();
            let _span = info_span!("reconcile", release = "v2").entered();
            panic!("no {}", "luck");
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        let line = text.lines().find(|line| line.contains("panicked"));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["level"], "ERROR");
        assert_eq!(line["error"], "no luck");
        assert_eq!(line["span"]["release"], "v2");
        let place = line["location"].as_str().unwrap();
        assert!(place.contains("telemetry/mod.rs:"), "{line}");
    }

    #[test]
    fn text_lines_have_no_colours_outside_of_a_terminal() {
        let text = logged(LogFormat::Text, "debug", || {
            debug!(release = "v2", "decided");
            tracing::debug!(target: "h2::client", "frame");
            tracing::error!(target: "opentelemetry_sdk", "export failed");
        });
        assert!(
            text.contains("decided") && text.contains("release=\"v2\""),
            "{text}"
        );
        assert!(
            !text.contains('\u{1b}') && !text.contains("frame") && !text.contains("export failed"),
            "{text}"
        );
    }

    #[test]
    fn directives_show_what_they_name() {
        let text = logged(LogFormat::Text, "info,h2=debug", || {
            debug!("decided");
            tracing::debug!(target: "h2::client", "frame");
        });
        assert!(
            text.contains("frame") && !text.contains("decided"),
            "{text}"
        );
    }

    /// Writes some spans to the collector at `address`; returns what was logged.
    async fn traced(address: std::net::SocketAddr) -> (String, Duration) {
        let lines = Lines::default();
        let writer = lines.clone();
        let endpoint = Some(Url::parse(&format!("http://{address}")).unwrap());
        let config = TelemetryConfig {
            otlp_endpoint: endpoint,
            ..TelemetryConfig::default()
        };
        let (subscriber, guard) = build(&config, move || writer.clone(), false).unwrap();
        // The exporter's thread logs too, with the process's subscriber, which tests do not set.
        let start = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            for release in 0..5000 {
                let _span = info_span!("reconcile", release).entered();
            }
        });
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
        let start = Instant::now();
        tokio::task::spawn_blocking(move || drop(guard))
            .await
            .unwrap();
        (lines.text(), start.elapsed())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn spans_reach_the_collector_under_the_name_of_the_service() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let exporting = tokio::spawn(traced(address));
        let (mut stream, _) = timeout(Duration::from_secs(20), listener.accept())
            .await
            .unwrap()
            .unwrap();
        // Requests travel uncompressed: the names can be found in the bytes without an HTTP/2 server.
        let mut received = Vec::new();
        let found = |received: &[u8], word: &str| {
            received
                .windows(word.len())
                .any(|part| part == word.as_bytes())
        };
        while !(found(&received, "core-operator") && found(&received, "reconcile")) {
            let mut buffer = [0; 16 * 1024];
            let count = timeout(Duration::from_secs(20), stream.read(&mut buffer))
                .await
                .unwrap()
                .unwrap();
            assert!(count > 0, "connection closed early");
            received.extend_from_slice(&buffer[..count]);
        }
        assert!(received.starts_with(b"PRI * HTTP/2.0"));
        exporting.abort();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_collector_that_is_away_or_never_answers_blocks_and_fails_nothing() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closed = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        for address in [closed, silent.local_addr().unwrap()] {
            let (_, flushed) = traced(address).await;
            assert!(
                flushed < FLUSH + Duration::from_secs(2),
                "{address}: {flushed:?}"
            );
        }
    }

    #[tokio::test]
    async fn certificates_that_cannot_be_read_are_named() {
        let config = TelemetryConfig {
            otlp_endpoint: Some(Url::parse("https://collector:4317").unwrap()),
            otlp_ca_file: Some("/nowhere/ca.pem".into()),
            ..TelemetryConfig::default()
        };
        let error = build(&config, io::sink, false).err().unwrap();
        assert!(error.to_string().contains("/nowhere/ca.pem"), "{error}");
    }
}
