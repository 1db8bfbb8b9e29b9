//! Decompression on the fly, of one or several members in a row, as all these formats allow.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use proto::Compression;
use tokio::io::{AsyncRead, ReadBuf};

use super::served::Served;
use crate::download::DownloadError;

/// Largest memory of an xz decompressor in bytes: the highest preset (`xz -9`) needs 65 MiB, a stream may ask for 4 GiB.
/// Zstandard's own default, 128 MiB, holds for zstd.
const XZ_MEMORY: u64 = 80 << 20;

/// What turns served bytes into content.
pub(super) enum Decoder {
    Plain(Served),
    Gzip(GzipDecoder<Served>),
    Xz(XzDecoder<Served>),
    Zstd(ZstdDecoder<Served>),
    Bzip2(BzDecoder<Served>),
}

macro_rules! each {
    ($self:expr, $decoder:ident => $else:expr, $served:ident => $plain:expr) => {
        match $self {
            Self::Plain($served) => $plain,
            Self::Gzip($decoder) => $else,
            Self::Xz($decoder) => $else,
            Self::Zstd($decoder) => $else,
            Self::Bzip2($decoder) => $else,
        }
    };
}

impl Decoder {
    pub(super) fn new(served: Served, compression: Compression) -> Result<Self, DownloadError> {
        let mut decoder = match compression {
            Compression::None => Self::Plain(served),
            Compression::Gzip => Self::Gzip(GzipDecoder::new(served)),
            Compression::Xz => Self::Xz(XzDecoder::with_mem_limit(served, XZ_MEMORY)),
            Compression::Zstd => Self::Zstd(ZstdDecoder::new(served)),
            Compression::Bzip2 => Self::Bzip2(BzDecoder::new(served)),
            _ => {
                return Err(DownloadError::Unsupported {
                    what: "an artifact with an unknown compression",
                });
            }
        };
        decoder.allow_members();
        Ok(decoder)
    }

    fn allow_members(&mut self) {
        each!(self, decoder => decoder.multiple_members(true), _plain => {});
    }

    pub(super) fn served(&self) -> &Served {
        each!(self, decoder => decoder.get_ref(), served => served)
    }

    pub(super) fn into_served(self) -> Served {
        each!(self, decoder => decoder.into_inner(), served => served)
    }
}

impl AsyncRead for Decoder {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(
            self.get_mut(),
            decoder => Pin::new(decoder).poll_read(context, buffer),
            served => Pin::new(served).poll_read(context, buffer)
        )
    }
}
