//! A layer of kube's client that lets nothing be written by a replica that does not lead.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http::{Method, Request};
use tower::{BoxError, Layer, Service};

use super::Fence;

/// The write was not sent, because another replica may lead.
#[derive(Debug, thiserror::Error)]
#[error("not sent: this replica does not lead any more")]
pub struct NotLeading;

/// Refuses requests that write once the lease is lost: `ClientBuilder::try_from(config)?.with_layer(&layer).build()`.
#[derive(Debug, Clone)]
pub struct FencedLayer(Option<Fence>);

impl FencedLayer {
    /// Asks `fence` before each write; without one, everything passes.
    #[must_use]
    pub const fn new(fence: Option<Fence>) -> Self {
        Self(fence)
    }
}

impl<S> Layer<S> for FencedLayer {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fenced {
            fence: self.0.clone(),
            inner,
        }
    }
}

/// The service that [`FencedLayer`] makes.
#[derive(Debug, Clone)]
pub struct Fenced<S> {
    fence: Option<Fence>,
    inner: S,
}

impl<S, B> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let writes = *request.method() != Method::GET;
        if writes && self.fence.as_ref().is_some_and(|fence| !fence.holds()) {
            return Box::pin(async { Err(NotLeading.into()) });
        }
        let answer = self.inner.call(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}
