//! An artifact as it is served: its main bytes, and around them, in a registry, configuration and manifest.

use std::{io::Write, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Crc, FlushCompress, write::GzEncoder};
use proto::wire;
use serde_json::json;

use super::{Image, Made, digest};
use crate::conformance::sample::Kind;

/// Bytes that need not be in memory as a whole.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// In memory.
    Plain(Bytes),
    /// `head`, `count` times `block`, `tail`.
    Repeated {
        head: Bytes,
        block: Bytes,
        count: u64,
        tail: Bytes,
    },
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Plain(bytes) => bytes.len() as u64,
            Self::Repeated {
                head,
                block,
                count,
                tail,
            } => head.len() as u64 + block.len() as u64 * count + tail.len() as u64,
        }
    }

    /// Some bytes from `offset` on, at most `most`; empty at the end.
    pub(crate) fn piece(&self, offset: u64, most: usize) -> Bytes {
        let cut = |bytes: &Bytes, offset: u64| {
            let start = usize::try_from(offset).map_or(bytes.len(), |at| at.min(bytes.len()));
            bytes.slice(start..bytes.len().min(start.saturating_add(most)))
        };
        match self {
            Self::Plain(bytes) => cut(bytes, offset),
            Self::Repeated {
                head,
                block,
                count,
                tail,
            } => {
                let middle = head.len() as u64;
                let end = middle + block.len() as u64 * count;
                if offset < middle {
                    cut(head, offset)
                } else if offset < end {
                    cut(block, (offset - middle) % block.len() as u64)
                } else {
                    cut(tail, offset - end)
                }
            }
        }
    }
}

/// What stands around the main bytes in a registry.
#[derive(Clone, Debug)]
pub(crate) struct Registry {
    pub(crate) manifest: Bytes,
    pub(crate) manifest_digest: String,
    pub(crate) config: Bytes,
    pub(crate) config_digest: String,
    pub(crate) layer_digest: String,
}

/// An artifact to serve.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    /// The file, or the layer.
    pub(crate) body: Body,
    pub(crate) registry: Option<Registry>,
    pub(crate) format: wire::DiskFormat,
    pub(crate) compression: wire::Compression,
    /// Of the bytes as served: of the file, or of the manifest.
    pub(crate) digest: String,
    /// After decompression.
    pub(crate) uncompressed_digest: String,
}

/// How an artifact is described to the provider.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offer {
    /// URLs instead of the plain one.
    pub(crate) urls: Option<Vec<String>>,
    /// Credentials.
    pub(crate) source_secrets: std::collections::BTreeMap<String, Vec<u8>>,
    /// Trusted authority.
    pub(crate) ca_bundle_pem: Vec<u8>,
}

impl Content {
    pub(crate) fn new(made: Made, format: wire::DiskFormat) -> Self {
        match made {
            Made::File(bytes) => {
                let digest = digest(&bytes);
                Self {
                    body: Body::Plain(bytes.into()),
                    registry: None,
                    format,
                    compression: wire::Compression::None,
                    uncompressed_digest: digest.clone(),
                    digest,
                }
            }
            Made::Image(image) => Self::image(image, format),
        }
    }

    fn image(image: Image, format: wire::DiskFormat) -> Self {
        let layer_digest = digest(&image.layer);
        let config_digest = digest(&image.config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": image.config_type, "digest": config_digest, "size": image.config.len()},
            "layers": [{"mediaType": image.layer_type, "digest": layer_digest, "size": image.layer.len()}],
        })
        .to_string();
        let manifest_digest = digest(manifest.as_bytes());
        Self {
            body: Body::Plain(image.layer.into()),
            format,
            compression: wire::Compression::Unspecified,
            digest: manifest_digest.clone(),
            uncompressed_digest: String::new(),
            registry: Some(Registry {
                manifest: manifest.into(),
                manifest_digest,
                config: image.config.into(),
                config_digest,
                layer_digest,
            }),
        }
    }

    /// The same file, compressed with gzip; `None` for what is in a registry.
    pub(crate) fn gzipped(&self) -> Option<Self> {
        let Body::Plain(bytes) = &self.body else {
            return None;
        };
        if self.registry.is_some() {
            return None;
        }
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).ok()?;
        let packed = encoder.finish().ok()?;
        Some(Self {
            digest: digest(&packed),
            body: Body::Plain(packed.into()),
            compression: wire::Compression::Gzip,
            ..self.clone()
        })
    }

    /// A small file in gzip that becomes at least `size` bytes of zeros; one member, as every reader understands it.
    pub(crate) fn expanding(size: u64, format: wire::DiskFormat) -> Option<Self> {
        const BLOCK: usize = 1 << 20;
        let zeros = vec![0; BLOCK];
        let mut compress = Compress::new(Compression::best(), false);
        let mut block = Vec::with_capacity(BLOCK);
        // A full flush ends at a byte and forgets what came before, so the block may be repeated.
        compress
            .compress_vec(&zeros, &mut block, FlushCompress::Full)
            .ok()?;
        let count = size.div_ceil(BLOCK as u64);
        let mut one = Crc::new();
        one.update(&zeros);
        let mut all = Crc::new();
        for _ in 0..count {
            all.combine(&one);
        }
        let mut tail = BytesMut::from(&[0x03, 0x00][..]);
        tail.put_u32_le(all.sum());
        tail.put_u32_le(all.amount());
        let body = Body::Repeated {
            head: Bytes::from_static(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]),
            block: block.into(),
            count,
            tail: tail.freeze(),
        };
        let mut hash = <sha2::Sha256 as sha2::Digest>::new();
        let mut offset = 0;
        loop {
            let piece = body.piece(offset, 1 << 20);
            if piece.is_empty() {
                break;
            }
            sha2::Digest::update(&mut hash, &piece);
            offset += piece.len() as u64;
        }
        Some(Self {
            body,
            registry: None,
            format,
            compression: wire::Compression::Gzip,
            digest: format!("sha256:{}", hex::encode(sha2::Digest::finalize(hash))),
            uncompressed_digest: String::new(),
        })
    }

    pub(crate) const fn kind(&self) -> Kind {
        if self.registry.is_some() {
            Kind::Oci
        } else {
            Kind::Http
        }
    }

    /// All bytes of a file; `None` if they are not in memory.
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Plain(bytes) => Some(bytes),
            Body::Repeated { .. } => None,
        }
    }

    /// Shared, for a server.
    pub(crate) fn shared(self) -> Arc<Self> {
        Arc::new(self)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn expanding_file_is_valid_gzip_of_zeros() {
        let content = Content::expanding(5 << 20, wire::DiskFormat::Raw).unwrap();
        let mut packed = Vec::new();
        while (packed.len() as u64) < content.body.len() {
            packed.extend_from_slice(&content.body.piece(packed.len() as u64, 1000));
        }
        assert_eq!(digest(&packed), content.digest);
        assert!(packed.len() < 100_000);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked.len(), 5 << 20);
        assert!(unpacked.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn compressed_content_keeps_the_digest_of_what_is_inside() {
        let plain = Content::new(Made::File(vec![7; 10_000]), wire::DiskFormat::Raw);
        let packed = plain.gzipped().unwrap();
        assert_eq!(packed.uncompressed_digest, plain.digest);
        assert_ne!(packed.digest, plain.digest);
    }
}
