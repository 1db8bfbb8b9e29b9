//! Connections to API servers.
//!
//! kube's own stack but for one thing: small packets are sent at once. Where the kernel holds one back until the one
//! before is acknowledged (Nagle), and the other end delays its acknowledgement, the first request of each new
//! connection takes 40 ms more; a release needs several connections at the same time.
//!
//! Answers are not compressed: API servers are near, and each lists a few hundred KiB once.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Config,
    client::{Body, ClientBuilder, ConfigExt as _},
};
use tower::{BoxError, ServiceBuilder, ServiceExt as _, util::BoxService};

/// What speaks to an API server.
pub type ApiService = BoxService<Request<Body>, Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError>;

/// A client in the making: layers may be put around it. Needs a Tokio runtime around it.
///
/// # Errors
///
/// If the certificates or credentials in `config` are none, or it wants a proxy: API servers are reached directly.
pub fn builder(config: &Config) -> kube::Result<ClientBuilder<ApiService>> {
    if let Some(proxy) = &config.proxy_url {
        return Err(kube::Error::ProxyProtocolUnsupported {
            proxy_url: Box::new(proxy.clone()),
        });
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let mut connector = TimeoutConnector::new(connector);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let client: Client<_, Body> = Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client)
        .map_response(|answer: Response<_>| {
            answer.map(|body| body.map_err(BoxError::from).boxed_unsync())
        });
    Ok(ClientBuilder::new(
        service.boxed(),
        config.default_namespace.clone(),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::{io::AsyncReadExt as _, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn time_outs_of_the_configuration_are_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Whoever gives up hangs up as well: that says nothing.
            while stream.read_u8().await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let mut config = Config::new(format!("http://{address}").parse().unwrap());
        config.read_timeout = Some(Duration::from_millis(50));
        let client = builder(&config).unwrap().build();
        let begin = Instant::now();
        let answer = async { client.apiserver_version().await };
        tokio::select! {
            answer = answer => { answer.unwrap_err(); }
            () = silent => unreachable!("it never ends"),
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("no time-out"),
        }
        assert!(begin.elapsed() >= Duration::from_millis(50));
    }

    #[tokio::test]
    async fn proxy_is_refused_and_not_left_out() {
        let mut config = Config::new("http://127.0.0.1:1".parse().unwrap());
        config.proxy_url = Some("http://proxy.example:3128".parse().unwrap());
        assert!(builder(&config).is_err());
    }
}
