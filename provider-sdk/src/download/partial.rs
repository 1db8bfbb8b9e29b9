//! A file that is not complete yet.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use tempfile::TempPath;
use tokio::{
    io::{AsyncSeekExt, AsyncWriteExt, BufWriter},
    task::spawn_blocking,
};

use super::DownloadError;

/// Each write goes to another thread, so they are made few.
const BUFFER: usize = 256 << 10;

/// A file beside its target, gone when dropped before [`finish`](Self::finish).
pub(super) struct Partial {
    target: PathBuf,
    path: TempPath,
    file: BufWriter<tokio::fs::File>,
    hasher: Sha256,
}

impl Partial {
    pub(super) async fn create(target: &Path) -> Result<Self, DownloadError> {
        let target = target.to_owned();
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
            .unwrap_or_else(|| Path::new("."))
            .to_owned();
        let create = move || {
            tempfile::Builder::new()
                .prefix(".download-")
                .tempfile_in(folder)
        };
        let file = blocking(create).await.map_err(write_error(&target))?;
        let (file, path) = file.into_parts();
        Ok(Self {
            target,
            path,
            file: BufWriter::with_capacity(BUFFER, file.into()),
            hasher: Sha256::new(),
        })
    }

    pub(super) fn sha256(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }

    /// Begins anew.
    pub(super) async fn restart(&mut self) -> Result<(), DownloadError> {
        self.hasher = Sha256::new();
        self.truncate().await.map_err(write_error(&self.target))
    }

    async fn truncate(&mut self) -> io::Result<()> {
        self.file.rewind().await?;
        self.file.get_mut().set_len(0).await
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> Result<(), DownloadError> {
        self.hasher.update(bytes);
        let written = self.file.write_all(bytes).await;
        written.map_err(write_error(&self.target))
    }

    /// Gives the file its name.
    pub(super) async fn finish(mut self, durable: bool) -> Result<(), DownloadError> {
        let failed = write_error(&self.target);
        self.file.flush().await.map_err(&failed)?;
        let file = self.file.into_inner().into_std().await;
        let (path, target) = (self.path, self.target);
        let finish = move || {
            if durable {
                file.sync_all()?;
            }
            let folder = path.parent().map(Path::to_owned);
            path.persist(&target).map_err(|error| error.error)?;
            match folder {
                // The name is in the folder.
                Some(folder) if durable => File::open(folder)?.sync_all(),
                _ => Ok(()),
            }
        };
        blocking(finish).await.map_err(failed)
    }
}

fn write_error(target: &Path) -> impl Fn(io::Error) -> DownloadError + use<> {
    let path = target.to_owned();
    move |source| DownloadError::Write {
        path: path.clone(),
        source,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(panic.into()))
}
