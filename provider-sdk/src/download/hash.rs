//! Hashing beside reading: a thread of its own takes each piece while the next one is on its way.

use bytes::Bytes;
use proto::digest::{Algorithm, Digest};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinHandle, spawn_blocking},
};

use super::DownloadError;

/// Pieces that may wait for the thread; one is at most as large as the receive buffer of a connection, some 400 KiB.
const WAITING: usize = 4;

/// A hash that grows.
pub(super) enum Hash {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hash {
    pub(super) fn new(algorithm: Algorithm) -> Result<Self, DownloadError> {
        match algorithm {
            Algorithm::Sha256 => Ok(Self::Sha256(Sha256::new())),
            Algorithm::Sha512 => Ok(Self::Sha512(Sha512::new())),
            _ => Err(DownloadError::Unsupported {
                what: "an artifact with a digest of an unknown function",
            }),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Sha512(hash) => hash.update(bytes),
        }
    }

    pub(super) fn finish(self) -> Digest {
        let digest = match self {
            Self::Sha256(hash) => Digest::new(Algorithm::Sha256, &hash.finalize()),
            Self::Sha512(hash) => Digest::new(Algorithm::Sha512, &hash.finalize()),
        };
        digest.expect("a hash is as long as its function makes it")
    }
}

/// Hashes, with one or more functions at once, on a thread of its own that ends with it.
pub(super) struct Hasher {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<Vec<Digest>>,
}

impl Hasher {
    pub(super) fn start(mut hashes: Vec<Hash>) -> Self {
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(WAITING);
        let thread = spawn_blocking(move || {
            while let Some(piece) = waiting.blocking_recv() {
                for hash in &mut hashes {
                    hash.update(&piece);
                }
            }
            hashes.into_iter().map(Hash::finish).collect()
        });
        Self { pieces, thread }
    }

    /// Hands a piece over, and waits only if the thread is behind.
    pub(super) async fn update(&self, piece: Bytes) {
        // A thread that is gone says why at the end.
        let _ = self.pieces.send(piece).await;
    }

    /// The digests, in the order of the functions.
    pub(super) async fn finish(self) -> Result<Vec<Digest>, JoinError> {
        drop(self.pieces);
        self.thread.await
    }
}
