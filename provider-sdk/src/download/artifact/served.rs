//! The bytes as served, for a decompressor to read; each piece is hashed beside.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use proto::{Digest, Reason};
use tokio::io::{AsyncBufRead, AsyncRead, ReadBuf};

use crate::download::{
    DownloadError,
    hash::Hasher,
    pull::{Piece, Pull},
};

/// A piece on its way, and the source that comes back with it.
type Asking = Pin<Box<dyn Future<Output = (Box<Source>, Option<Bytes>)> + Send>>;

type Progress = Option<Arc<dyn Fn(u64) + Send + Sync>>;

/// The bytes as served.
pub(super) struct Served {
    state: State,
    /// What is not taken yet of the newest piece.
    piece: Bytes,
}

enum State {
    Waiting(Box<Source>),
    Asking(Asking),
    /// Only while it changes.
    Between,
}

struct Source {
    pull: Pull,
    hasher: Hasher,
    progress: Progress,
    /// Why there are no more bytes.
    end: Option<Result<(), DownloadError>>,
}

impl Source {
    async fn next(&mut self) -> Option<Bytes> {
        if self.end.is_some() {
            return None;
        }
        match self.pull.next().await {
            Ok(Some(Piece::Bytes(bytes))) => {
                self.hasher.update(bytes.clone()).await;
                if let Some(progress) = &self.progress {
                    progress(self.pull.received());
                }
                return Some(bytes);
            }
            // It was told that nothing can be taken back.
            Ok(Some(Piece::Restart)) => {
                let url = self.pull.place();
                self.end = Some(Err(DownloadError::Change { url }));
            }
            Ok(None) => self.end = Some(Ok(())),
            Err(error) => self.end = Some(Err(error)),
        }
        None
    }
}

impl Served {
    pub(super) fn new(pull: Pull, hasher: Hasher, progress: Progress) -> Self {
        let source = Source {
            pull,
            hasher,
            progress,
            end: None,
        };
        Self {
            state: State::Waiting(Box::new(source)),
            piece: Bytes::new(),
        }
    }

    /// The next piece that is not empty, unless there is none.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.piece.is_empty() {
            match std::mem::replace(&mut self.state, State::Between) {
                State::Waiting(source) if source.end.is_some() => {
                    let failed = matches!(source.end, Some(Err(_)));
                    self.state = State::Waiting(source);
                    // The reason comes with the verdict.
                    return Poll::Ready(if failed {
                        Err(io::ErrorKind::UnexpectedEof.into())
                    } else {
                        Ok(())
                    });
                }
                State::Waiting(mut source) => {
                    self.state = State::Asking(Box::pin(async move {
                        let piece = source.next().await;
                        (source, piece)
                    }));
                }
                State::Asking(mut asking) => match asking.as_mut().poll(context) {
                    Poll::Ready((source, piece)) => {
                        self.state = State::Waiting(source);
                        self.piece = piece.unwrap_or_default();
                    }
                    Poll::Pending => {
                        self.state = State::Asking(asking);
                        return Poll::Pending;
                    }
                },
                State::Between => return Poll::Ready(Err(io::ErrorKind::Other.into())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and forgets what is left; afterwards the source has ended.
    ///
    /// # Errors
    ///
    /// Why it ended before its time.
    pub(super) async fn drain(&mut self) -> Result<(), DownloadError> {
        loop {
            self.piece = Bytes::new();
            let more = std::future::poll_fn(|context| self.poll_piece(context)).await;
            if more.is_err() || self.piece.is_empty() {
                break;
            }
        }
        match &mut self.state {
            State::Waiting(source) => source.end.take().unwrap_or(Ok(())),
            _ => Ok(()),
        }
    }

    /// The source after its end, and the digests of what it served.
    pub(super) async fn finish(self) -> Result<(Pull, Vec<Digest>), DownloadError> {
        let State::Waiting(source) = self.state else {
            return Err(DownloadError::Taken);
        };
        let digests = source.hasher.finish().await;
        Ok((
            source.pull,
            digests.map_err(|source| DownloadError::Hash { source })?,
        ))
    }

    /// What has more bytes after decompression than are allowed.
    pub(super) fn too_large(&self, allowed: u64) -> DownloadError {
        let url = match &self.state {
            State::Waiting(source) => source.pull.place(),
            _ => String::new(),
        };
        DownloadError::Reject {
            url,
            reason: Reason::SizeLimitExceeded,
            message: format!("it has more than the allowed {allowed} bytes after decompression"),
        }
    }
}

impl AsyncBufRead for Served {
    fn poll_fill_buf(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        ready!(this.poll_piece(context))?;
        Poll::Ready(Ok(&this.piece))
    }

    fn consume(mut self: Pin<&mut Self>, bytes: usize) {
        self.piece.advance(bytes);
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_piece(context))?;
        let bytes = self.piece.len().min(buffer.remaining());
        buffer.put_slice(&self.piece[..bytes]);
        self.piece.advance(bytes);
        Poll::Ready(Ok(()))
    }
}
