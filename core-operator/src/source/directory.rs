//! Releases in a directory: `<directory>/<tag>` or `<directory>/cluster-stacks/<tag>`. Only read.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::{Fetched, Listing, Source, SourceError, check_limits, is_file_name, release_of_tag};
use crate::{metrics, release::ReleaseName};

/// The folder in which the Go operator looks for releases as well.
const INNER: &str = "cluster-stacks";

/// A directory with one folder a release.
#[derive(Debug, Clone)]
pub(super) struct Directory {
    path: PathBuf,
    /// Where everything must lie, links followed; absent if the operator's own choice may lead anywhere.
    root: Option<PathBuf>,
}

/// A regular file of a release.
struct ReleaseFile {
    name: String,
    /// Without links.
    path: PathBuf,
    metadata: Metadata,
}

impl Directory {
    pub(super) const fn new(path: PathBuf, root: Option<PathBuf>) -> Self {
        Self { path, root }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, SourceError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let directory = self.clone();
        let joined = spawn_blocking(move || work(&directory)).await;
        joined.unwrap_or_else(|panic| Err(self.unreadable(panic.into())))
    }

    fn unreadable(&self, source: io::Error) -> SourceError {
        SourceError::ReadDirectory {
            path: self.path.clone(),
            source,
        }
    }

    /// Where a path leads, if that is below the root.
    fn inside(&self, path: &Path) -> io::Result<PathBuf> {
        let target = path.canonicalize()?;
        match &self.root {
            Some(root) if !target.starts_with(root.canonicalize()?) => Err(io::Error::other(
                "a link leads out of the operator's --source-root",
            )),
            _ => Ok(target),
        }
    }

    fn read_list(&self) -> Result<Listing, SourceError> {
        let outer = self
            .inside(&self.path)
            .and_then(|path| self.read_folder(&path));
        let outer = outer.map_err(|source| self.unreadable(source))?;
        let inner = self
            .inside(&self.path.join(INNER))
            .and_then(|path| self.read_folder(&path));
        match inner {
            Ok(inner) => Ok(Listing::join([&outer, &inner])),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(outer)
            }
            Err(error) => Err(self.unreadable(error)),
        }
    }

    fn read_folder(&self, folder: &Path) -> io::Result<Listing> {
        let mut listing = Listing::default();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let release = name.to_str().and_then(release_of_tag);
            match release {
                Some(release) if self.is_folder(&entry)? => listing.releases.push(release),
                None if name == INNER => {}
                _ => listing.foreign += 1,
            }
        }
        Ok(listing)
    }

    fn is_folder(&self, entry: &fs::DirEntry) -> io::Result<bool> {
        let kind = entry.file_type()?;
        let linked = || {
            self.inside(&entry.path())
                .is_ok_and(|target| target.is_dir())
        };
        Ok(kind.is_dir() || kind.is_symlink() && linked())
    }

    /// The folder of a release, without links.
    fn folder(&self, name: &ReleaseName) -> Result<PathBuf, SourceError> {
        let tag = name.tag();
        let folders = [self.path.join(&tag), self.path.join(INNER).join(&tag)];
        let folder = folders.iter().find(|folder| folder.is_dir());
        let Some(folder) = folder else {
            // A directory that cannot be read says nothing about the release.
            fs::read_dir(&self.path).map_err(|source| self.unreadable(source))?;
            return Err(SourceError::FindRelease {
                release: tag,
                place: format!("\"{}\"", self.path.display()),
            });
        };
        self.inside(folder)
            .map_err(|source| SourceError::ReadDirectory {
                path: folder.clone(),
                source,
            })
    }

    /// The regular files of a release, by name. Folders and what is hidden are no part of it.
    fn files(folder: &Path, name: &ReleaseName) -> Result<Vec<ReleaseFile>, SourceError> {
        let unreadable = |source| SourceError::ReadDirectory {
            path: folder.to_owned(),
            source,
        };
        let (mut files, mut bytes) = (Vec::new(), 0_u64);
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let refuse = |reason| SourceError::RefuseFile {
                release: name.tag(),
                file: entry.file_name().to_string_lossy().into_owned(),
                reason,
            };
            let mut path = entry.path();
            if entry.file_type().map_err(unreadable)?.is_symlink() {
                path = path
                    .canonicalize()
                    .map_err(|_broken| refuse("it is a link to nothing"))?;
                if !path.starts_with(folder) {
                    return Err(refuse(
                        "it is a link that leads out of the release's folder",
                    ));
                }
            }
            let metadata = fs::symlink_metadata(&path).map_err(unreadable)?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !metadata.is_file() || hidden {
                continue;
            }
            let file_name = entry.file_name().into_string().ok();
            let file_name = file_name
                .filter(|name| is_file_name(name))
                .ok_or_else(|| refuse("its name has special characters"))?;
            bytes = bytes.saturating_add(metadata.len());
            check_limits(name, files.len() + 1, bytes)?;
            files.push(ReleaseFile {
                name: file_name,
                path,
                metadata,
            });
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    fn read_revision(&self, name: &ReleaseName) -> Result<String, SourceError> {
        Ok(fingerprint(&Self::files(&self.folder(name)?, name)?))
    }

    fn copy(&self, name: &ReleaseName, into: &Path) -> Result<Fetched, SourceError> {
        let folder = self.folder(name)?;
        let files = Self::files(&folder, name)?;
        let mut fetched = Fetched::default();
        for file in &files {
            let copied = file.copy(&into.join(&file.name));
            fetched.bytes += copied.map_err(|source| SourceError::CopyFile {
                path: file.path.clone(),
                source,
            })?;
            fetched.files += 1;
        }
        if fingerprint(&Self::files(&folder, name)?) != fingerprint(&files) {
            return Err(SourceError::MoveUnderfoot {
                release: name.tag(),
            });
        }
        Ok(fetched)
    }
}

impl ReleaseFile {
    /// Copies what was there when the folder was read, whatever was added since.
    fn copy(&self, to: &Path) -> io::Result<u64> {
        let mut source = File::open(&self.path)?.take(self.metadata.len());
        io::copy(&mut source, &mut File::create_new(to)?)
    }
}

/// Changes when a file is added, removed, replaced or written to.
fn fingerprint(files: &[ReleaseFile]) -> String {
    let mut hasher = Sha256::new();
    for ReleaseFile { name, metadata, .. } in files {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name);
        for number in [
            metadata.size(),
            metadata.ino(),
            metadata.mtime().cast_unsigned(),
            metadata.mtime_nsec().cast_unsigned(),
            // set on each change, whatever a program that copies does to the time above
            metadata.ctime().cast_unsigned(),
            metadata.ctime_nsec().cast_unsigned(),
        ] {
            hasher.update(number.to_le_bytes());
        }
    }
    hex::encode(hasher.finalize())
}

#[async_trait]
impl Source for Directory {
    fn kind(&self) -> metrics::Source {
        metrics::Source::Directory
    }

    async fn list(&self) -> Result<Listing, SourceError> {
        self.blocking(Self::read_list).await
    }

    async fn revision(&self, name: &ReleaseName) -> Result<Option<String>, SourceError> {
        let name = name.clone();
        let revision = self.blocking(move |this| this.read_revision(&name)).await?;
        Ok(Some(revision))
    }

    async fn fetch(&self, name: &ReleaseName, into: &Path) -> Result<Fetched, SourceError> {
        let (name, into) = (name.clone(), into.to_owned());
        self.blocking(move |this| this.copy(&name, &into)).await
    }
}

#[cfg(test)]
mod tests;
