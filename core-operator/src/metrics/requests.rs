//! Counts the operator's requests to an API server, as a layer of kube's client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower::{Layer, Service};

use super::Metrics;
use super::labels::{Code, Verb};

/// Counts each request by verb and code: `ClientBuilder::try_from(config)?.with_layer(&layer).build()`.
///
/// A request counts when its answer's head arrives, a watch therefore when it opens. Repeats that kube's own retry
/// makes lie below this layer and are not seen: switch `default_retry` off where each request must count.
#[derive(Debug, Clone)]
pub struct ApiRequestsLayer {
    metrics: Arc<Metrics>,
}

impl ApiRequestsLayer {
    /// Counts into `metrics`.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }
}

impl<S> Layer<S> for ApiRequestsLayer {
    type Service = ApiRequests<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ApiRequests {
            metrics: self.metrics.clone(),
            inner,
        }
    }
}

/// The service that [`ApiRequestsLayer`] makes.
#[derive(Debug, Clone)]
pub struct ApiRequests<S> {
    metrics: Arc<Metrics>,
    inner: S,
}

/// The request that is under way; one that is given up on counts as unanswered.
struct Pending {
    metrics: Arc<Metrics>,
    verb: Verb,
    code: Code,
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.metrics.api_request(self.verb, self.code);
    }
}

impl<S, B, R> Service<Request<B>> for ApiRequests<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let pending = Pending {
            metrics: self.metrics.clone(),
            verb: Verb::of(&request),
            code: Code::NONE,
        };
        let answer = self.inner.call(request);
        Box::pin(async move {
            // The whole value moves in here; the assignment below alone would capture a copy of the code.
            let mut pending = pending;
            let answer = answer.await;
            if let Ok(answer) = &answer {
                pending.code = Code::of(answer.status().as_u16());
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Api;
    use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
    use kube::client::{Body, ClientBuilder};

    use super::*;

    #[tokio::test]
    async fn each_request_counts_once_by_verb_and_code() {
        let metrics = Arc::new(Metrics::new());
        let service = tower::service_fn(async |request: Request<Body>| {
            let code = if request.uri().path().ends_with("/odd") {
                418
            } else {
                404
            };
            let body = Body::from(br#"{"kind":"Status","code":404,"reason":"NotFound"}"#.to_vec());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        });
        let layer = ApiRequestsLayer::new(metrics.clone());
        let client = ClientBuilder::new(service, "default")
            .with_layer(&layer)
            .build();
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let object = ConfigMap::default();
        let _ = api.get("a").await;
        let _ = api.get("odd").await;
        let _ = api.get_metadata("a").await;
        let _ = api.list(&ListParams::default()).await;
        let _ = api.list_metadata(&ListParams::default()).await;
        let _ = api.watch(&WatchParams::default(), "0").await;
        let _ = api.create(&PostParams::default(), &object).await;
        let _ = api.replace("a", &PostParams::default(), &object).await;
        let _ = api
            .patch("a", &PatchParams::default(), &Patch::Merge(&object))
            .await;
        let _ = api
            .patch("a", &PatchParams::apply("test"), &Patch::Apply(&object))
            .await;
        let _ = api.delete("a", &DeleteParams::default()).await;
        let _ = api
            .delete_collection(&DeleteParams::default(), &ListParams::default())
            .await;
        let text = metrics.encode();
        for (verb, code, count) in [
            ("get", "404", 2),
            ("get", "4xx", 1),
            ("list", "404", 2),
            ("watch", "404", 1),
            ("create", "404", 1),
            ("update", "404", 1),
            ("patch", "404", 1),
            ("apply", "404", 1),
            ("delete", "404", 1),
            ("deletecollection", "404", 1),
        ] {
            let line = format!(
                "cluster_stack_operator_api_requests_total{{verb=\"{verb}\",code=\"{code}\"}} {count}\n"
            );
            assert!(text.contains(&line), "{line} not in {text}");
        }
    }

    #[tokio::test]
    async fn a_request_without_an_answer_counts_as_none() {
        let metrics = Arc::new(Metrics::new());
        let service = tower::service_fn(async |_: Request<Body>| {
            Err::<Response<Body>, _>(std::io::Error::other("connection refused"))
        });
        let layer = ApiRequestsLayer::new(metrics.clone());
        let api: Api<ConfigMap> = Api::default_namespaced(
            ClientBuilder::new(service, "default")
                .with_layer(&layer)
                .build(),
        );
        api.get("a").await.unwrap_err();
        assert!(
            metrics
                .encode()
                .contains("api_requests_total{verb=\"get\",code=\"none\"} 1")
        );
    }
}
