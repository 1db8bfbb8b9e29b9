//! The bytes of an archive's content, with limits on what a reader of the tar may ask for.
//!
//! The libraries for gzip and tar want asynchronous readers. Here they get one that blocks and is always ready, so that
//! an archive is walked in one go, on a thread for such work, without a hop for every few kilobytes.

use std::{
    cell::{Cell, RefCell},
    fs::File,
    io::{self, Read},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use async_compression::tokio::bufread::GzipDecoder;
use tokio::io::{AsyncRead, BufReader, ReadBuf};

/// Bytes that are read from the disk at once.
const READ_BYTES: usize = 32 << 10;

/// What the walk and its reader tell each other.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Bytes that may still come, of the whole archive.
    pub total: Cell<u64>,
    /// Bytes that may still come before the walk says what comes next.
    pub step: Cell<u64>,
    /// Whether more was asked for.
    pub exceeded: Cell<bool>,
    /// What the disk said.
    pub disk: RefCell<Option<io::Error>>,
}

/// The content of a compressed file.
pub(super) type Unpacked = Limited<GzipDecoder<BufReader<Disk>>>;

/// The content of a file in gzip; several streams in a row count as one, as in Go.
pub(super) fn unpacked(file: File, watch: &Rc<Watch>) -> Unpacked {
    let disk = Disk {
        file,
        watch: Rc::clone(watch),
    };
    let mut decoder = GzipDecoder::new(BufReader::with_capacity(READ_BYTES, disk));
    decoder.multiple_members(true);
    Limited {
        inner: decoder,
        watch: Rc::clone(watch),
    }
}

/// A file, read where it stands.
pub(super) struct Disk {
    file: File,
    watch: Rc<Watch>,
}

impl AsyncRead for Disk {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = self.file.read(buffer.initialize_unfilled());
        Poll::Ready(match result {
            Ok(read) => {
                buffer.advance(read);
                Ok(())
            }
            Err(error) => {
                let kind = error.kind();
                self.watch.disk.replace(Some(error));
                Err(kind.into())
            }
        })
    }
}

/// A reader that stops at the limits.
pub(super) struct Limited<R> {
    inner: R,
    watch: Rc<Watch>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Limited<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(context, buffer);
        let read = (buffer.filled().len() - before) as u64;
        let left = |of: &Cell<u64>| {
            let left = of.get().checked_sub(read);
            of.set(left.unwrap_or_default());
            left.is_none()
        };
        if left(&self.watch.total) | left(&self.watch.step) {
            self.watch.exceeded.set(true);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        result
    }
}
