//! A client and a provider in one process, with a pipe between them.

use std::sync::Arc;

use hyper_util::rt::TokioIo;
use proto::Invalid;
use proto::wire::identity_service_client::IdentityServiceClient;
use proto::wire::node_image_service_client::NodeImageServiceClient;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Server};

use crate::Provider;
use crate::server::{Services, services};

/// Bytes in the pipe.
const PIPE: usize = 64 << 10;

/// Calls a provider in this process; when it is dropped, the provider ends as if it was killed.
#[derive(Debug)]
#[non_exhaustive]
pub struct Client {
    /// The handshake.
    pub identity: IdentityServiceClient<Channel>,
    /// The images.
    pub images: NodeImageServiceClient<Channel>,
    /// Ends the work for images.
    pub shutdown: crate::server::Shutdown,
    _server: AbortOnDropHandle<()>,
}

/// Serves a provider over a pipe: real messages, real codes, no network.
///
/// # Errors
///
/// What the provider says of itself breaks the contract.
pub fn connect(provider: Arc<impl Provider>) -> Result<Client, Invalid> {
    let Services {
        identity,
        images,
        shutdown,
        ..
    } = services(provider)?;
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let router = Server::builder().add_service(identity).add_service(images);
    let server = tokio::spawn(async move {
        let incoming = futures::stream::once(async { Ok::<_, std::io::Error>(theirs) });
        if let Err(error) = router.serve_with_incoming(incoming).await {
            tracing::debug!(%error, "pipe closed");
        }
    });
    let mut pipe = Some(ours);
    let connector = tower::service_fn(move |_: http::Uri| {
        let pipe = pipe.take().map(TokioIo::new);
        async move { pipe.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::BrokenPipe)) }
    });
    let channel =
        Endpoint::from_static("http://provider.invalid").connect_with_connector_lazy(connector);
    Ok(Client {
        identity: IdentityServiceClient::new(channel.clone()),
        images: NodeImageServiceClient::new(channel),
        shutdown,
        _server: AbortOnDropHandle::new(server),
    })
}
