//! What is the same for every call: who may call, what is counted and traced, and the end of the process.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use opentelemetry::propagation::Extractor;
use proto::{ProviderError, Reason};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderName, Request, Response};
use tower::{Layer, Service};
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::metrics::Metrics;
use super::peer::{Allowed, Peer};

/// Calls of the contract; others are counted as one.
const METHODS: [&str; 7] = [
    "GetProviderInfo",
    "ValidateTarget",
    "ResolveImages",
    "EnsureImage",
    "GetImage",
    "DeleteImage",
    "ListImages",
];

/// What every call goes through.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub(super) allowed: Allowed,
    pub(super) metrics: Arc<Metrics>,
    /// Cancelled when calls that still run have to end.
    pub(super) closing: CancellationToken,
}

impl<S> Layer<S> for Calls {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            calls: self.clone(),
            inner,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Guarded<S> {
    calls: Calls,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let started = Instant::now();
        let method = method(request.uri().path());
        let metrics = Arc::clone(&self.calls.metrics);
        if let Err(refused) = self.calls.allowed.check(request.extensions().get::<Peer>()) {
            tracing::warn!(method, error = %refused, "caller refused");
            let answer = refused.to_status().into_http();
            metrics.called(method, code(&answer), started.elapsed());
            return Box::pin(std::future::ready(Ok(answer)));
        }
        let span = tracing::info_span!("call", method);
        let parent = opentelemetry::global::get_text_map_propagator(|propagator| {
            propagator.extract(&Headers(request.headers()))
        });
        // Fails only without a layer that exports, and then there is nothing to continue.
        let _ = span.set_parent(parent);
        let closing = self.calls.closing.clone();
        let call = self.inner.call(request);
        let answer = async move {
            let answer = tokio::select! {
                answer = call => answer?,
                () = closing.cancelled() => {
                    ProviderError::new(Reason::ProviderNotReady, "the provider is stopping")
                        .to_status()
                        .into_http()
                }
            };
            metrics.called(method, code(&answer), started.elapsed());
            Ok(answer)
        };
        Box::pin(answer.instrument(span))
    }
}

fn method(path: &str) -> &'static str {
    let last = path.rsplit('/').next().unwrap_or_default();
    METHODS
        .into_iter()
        .find(|method| *method == last)
        .unwrap_or("other")
}

/// The code of an answer: refusals have it in the headers.
fn code(answer: &Response<Body>) -> &'static str {
    let code = answer
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |status| Code::from_bytes(status.as_bytes()));
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Where a trace comes from.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}
