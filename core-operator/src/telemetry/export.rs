//! Export of spans over OTLP (gRPC), only when an endpoint is configured.
//!
//! The exporter works in a thread of its own behind a bounded queue: a collector that is slow, hangs or is away
//! costs spans, never time. Its state is logged when it changes, not with each batch.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    SpanExporter as OtlpExporter, WithExportConfig as _, WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::{info, warn};
use url::Url;

use super::{SERVICE_NAME, TelemetryError};

/// How long one batch may take. Short, as the batch that is under way may hold up the end of the process.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where distributions keep the certificates of public authorities.
const SYSTEM_CERTIFICATES: [&str; 3] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
];

/// A provider that exports to `endpoint`; connects when there is something to send.
pub(super) fn provider(
    endpoint: &Url,
    ca_file: Option<&Path>,
) -> Result<SdkTracerProvider, TelemetryError> {
    let mut builder = OtlpExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .with_timeout(EXPORT_TIMEOUT);
    if endpoint.scheme() == "https" {
        builder = builder.with_tls_config(tls(ca_file)?);
    }
    let exporter = builder
        .build()
        .map_err(|source| TelemetryError::BuildExporter {
            endpoint: endpoint.to_string(),
            source: Box::new(source),
        })?;
    let exporter = Reporting {
        exporter,
        endpoint: endpoint.to_string(),
        failing: AtomicBool::new(false),
    };
    let resource = Resource::builder().with_service_name(SERVICE_NAME).build();
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build())
}

fn tls(ca_file: Option<&Path>) -> Result<ClientTlsConfig, TelemetryError> {
    let system = || {
        SYSTEM_CERTIFICATES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
    };
    let Some(path) = ca_file.map(Path::to_path_buf).or_else(system) else {
        return Ok(ClientTlsConfig::new());
    };
    let certificates =
        std::fs::read(&path).map_err(|source| TelemetryError::ReadCertificates { path, source })?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates)))
}

/// Says once that exports fail, and once that they work again.
#[derive(Debug)]
struct Reporting {
    exporter: OtlpExporter,
    endpoint: String,
    failing: AtomicBool,
}

impl SpanExporter for Reporting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        let failed_before = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !failed_before => {
                warn!(endpoint = self.endpoint, %error, "traces are not exported");
            }
            Ok(()) if failed_before => info!(endpoint = self.endpoint, "traces are exported again"),
            _ => {}
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
