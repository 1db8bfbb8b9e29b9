//! Connections: plain, over TLS or over a socket in the file system, each knowing who is at the other end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::debug;

use super::peer::Peer;
use super::tls::Tls;

/// Longest handshake: whoever connects and says nothing keeps nobody else out.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes at once.
const HANDSHAKES: usize = 256;

/// Pause after the system refused a connection, such as for want of file descriptors.
const BREATH: Duration = Duration::from_millis(100);

/// What is listened on.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection.
pub(super) enum Connection {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, Peer),
    Socket(UnixStream),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        match self {
            Self::Plain(_) | Self::Socket(_) => Peer::Anybody,
            Self::Tls(_, peer) => peer.clone(),
        }
    }
}

/// Connections as they come. Ends when the receiver is dropped.
pub(super) fn accept(
    listener: Listener,
    tls: Option<Arc<Tls>>,
) -> ReceiverStream<io::Result<Connection>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let accepted = tokio::select! {
                accepted = next(&listener) => accepted,
                () = sender.closed() => return,
            };
            let connection = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            match (connection, &tls) {
                (Connection::Plain(stream), Some(tls)) => {
                    let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await else {
                        return;
                    };
                    let (tls, sender) = (Arc::clone(tls), sender.clone());
                    tokio::spawn(async move {
                        if let Some(connection) = shake_hands(stream, &tls).await {
                            // Nobody there any more: the server ends.
                            let _ = sender.send(Ok(connection)).await;
                        }
                        drop(permit);
                    });
                }
                (connection, _) => {
                    if sender.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn next(listener: &Listener) -> io::Result<Connection> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, _) = listener.accept().await?;
            // Small messages both ways: waiting to fill packets costs 40 ms each.
            stream.set_nodelay(true)?;
            Ok(Connection::Plain(stream))
        }
        Listener::Unix(listener) => Ok(Connection::Socket(listener.accept().await?.0)),
    }
}

async fn shake_hands(stream: TcpStream, tls: &Tls) -> Option<Connection> {
    let from = stream.peer_addr().ok();
    let acceptor = TlsAcceptor::from(tls.config());
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = Peer::of(stream.get_ref().1.peer_certificates());
            Some(Connection::Tls(Box::new(stream), peer))
        }
        // Scanners and misconfigured clients: whoever looks for them turns debug on.
        Ok(Err(error)) => {
            debug!(?from, %error, "a handshake failed");
            None
        }
        Err(_) => {
            debug!(?from, "a handshake took too long");
            None
        }
    }
}

macro_rules! on_stream {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Connection::Plain(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
            Connection::Tls(stream, _) => {
                let $stream = Pin::new(stream.as_mut());
                $call
            }
            Connection::Socket(stream) => {
                let $stream = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_read(context, buffer))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => stream.poll_shutdown(context))
    }
}
