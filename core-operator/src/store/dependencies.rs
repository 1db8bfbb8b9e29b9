//! Charts on which a release's charts depend without carrying them.
//!
//! They are fetched when a release enters the store, never while reconciling. Which version it is stands in
//! `Chart.lock`, or is chosen once and recorded; from then on only an archive with the recorded digest is accepted.
//!
//! ```text
//!  Chart.yaml, Chart.lock, recorded ──resolve──► pinned {version, repository, digest} ──fetch──► <digest>.tgz
//! ```

mod error;
mod index;
mod registry;
mod wanted;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{TryStreamExt, future::BoxFuture, stream::BoxStream};
use provider_sdk::download::shown;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use url::Url;

pub use error::DependencyError;

use crate::helm::{ChartInfo, Helm, RenderError};
use index::Repositories;
use registry::Registries;
use wanted::{
    Source, Wanted, is_version, no_version, refuse_offline, refuse_repository, source, wanted,
};

/// The largest archive of a chart: Helm refuses charts of more than 100 MiB unpacked.
const ARCHIVE_BYTES: u64 = 64 << 20;

/// How long a server may take to accept a connection, and to be silent.
const CONNECT_TIME: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);

/// A dependency with its version and content fixed, as it is recorded in the status of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedDependency {
    /// The chart that depends.
    pub chart: String,
    /// The chart on which it depends.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it comes from, as the chart says.
    pub repository: String,
    /// `sha256:` and the hexadecimal digest of the archive.
    pub digest: String,
}

/// How dependencies are fetched.
#[derive(Debug, Clone, Default)]
pub struct DependencyOptions {
    /// Nothing is fetched: what is not at hand is an error.
    pub offline: bool,
    /// Registries (`host:port`) that speak HTTP without TLS.
    pub plain_http_registries: Vec<String>,
}

/// Resolves and fetches chart dependencies.
pub struct Dependencies {
    versions: Arc<dyn ChooseVersion>,
    repositories: Repositories,
    registries: Registries,
    offline: bool,
}

/// Whoever chooses versions as Helm does: Helm, or a test.
trait ChooseVersion: Send + Sync {
    fn choose<'a>(
        &'a self,
        constraint: &'a str,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<Option<String>, RenderError>>;
}

impl ChooseVersion for Helm {
    fn choose<'a>(
        &'a self,
        constraint: &'a str,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<Option<String>, RenderError>> {
        Box::pin(self.resolve(constraint, versions))
    }
}

/// Where an archive lies.
enum Location {
    /// The address, and the digest if the index announces one.
    Http(Url, Option<String>),
    /// Repository and tag. A tag may move: recorded archives are asked for by digest.
    Registry(oci_client::Reference),
}

impl Dependencies {
    /// Dependencies whose versions Helm chooses.
    ///
    /// # Errors
    ///
    /// If the process has no TLS.
    pub fn new(helm: Helm, options: &DependencyOptions) -> reqwest::Result<Self> {
        Self::with_versions(Arc::new(helm), options)
    }

    fn with_versions(
        versions: Arc<dyn ChooseVersion>,
        options: &DependencyOptions,
    ) -> reqwest::Result<Self> {
        Ok(Self {
            versions,
            repositories: Repositories::new(CONNECT_TIME, SILENCE)?,
            registries: Registries::new(&options.plain_http_registries, CONNECT_TIME, SILENCE),
            offline: options.offline,
        })
    }

    /// Version and digest of every dependency that a chart does not carry, in the order of its `Chart.yaml`.
    ///
    /// What is recorded and still fits stays; only the rest is looked up. Nothing is looked up for a chart that carries
    /// all its dependencies.
    ///
    /// # Errors
    ///
    /// If the lock file does not fit, a repository cannot be read, no version fits, or something had to be looked up
    /// offline.
    pub async fn resolve(
        &self,
        info: &ChartInfo,
        recorded: &[PinnedDependency],
    ) -> Result<Vec<PinnedDependency>, DependencyError> {
        let mut result: Vec<PinnedDependency> = Vec::new();
        for wanted in wanted(info)? {
            let pinned = match self.recorded(&wanted, recorded).await? {
                Some(pinned) => pinned.clone(),
                None => self.pin(&wanted).await?,
            };
            if !result.contains(&pinned) {
                result.push(pinned); // aliases: one chart under several names
            }
        }
        Ok(result)
    }

    /// Brings the archive of a dependency into the folder `into` and returns its path, `sha256-<digest>.tgz` there.
    ///
    /// An archive that is there and complete is not fetched again. The file appears complete or not at all.
    ///
    /// # Errors
    ///
    /// If the archive cannot be fetched, has another digest than the recorded one, or is not at hand offline.
    pub async fn fetch(
        &self,
        pinned: &PinnedDependency,
        into: &Path,
    ) -> Result<PathBuf, DependencyError> {
        check_form(&pinned.name, &pinned.digest)?; // it becomes part of a path
        let path = into.join(format!("{}.tgz", pinned.digest.replace(':', "-")));
        match tokio::fs::read(&path).await {
            Ok(content) if digest_of(&content) == pinned.digest => return Ok(path),
            Ok(_) => tracing::warn!(path = %path.display(), "fetching a damaged chart again"),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(DependencyError::Write { path, source }),
        }
        let wanted = Wanted {
            chart: &pinned.chart,
            name: &pinned.name,
            version: &pinned.version,
            locked: true,
            repository: &pinned.repository,
        };
        let location = self.locate(&wanted).await?;
        if let Location::Http(_, Some(announced)) = &location {
            check_digest(&pinned.name, &pinned.digest, announced)?;
        }
        let failed = |source| DependencyError::Write {
            path: path.clone(),
            source,
        };
        let temporary = tempfile::NamedTempFile::new_in(into).map_err(failed)?;
        let mut file = tokio::fs::File::from_std(temporary.reopen().map_err(failed)?);
        let mut hasher = Sha256::new();
        let mut stream = self.open(&location, &pinned.digest).await?;
        let mut size = 0;
        while let Some(part) = stream.try_next().await? {
            size = grow(size, &part, &location)?;
            hasher.update(&part);
            file.write_all(&part).await.map_err(failed)?;
        }
        check_digest(&pinned.name, &pinned.digest, &named(hasher))?;
        file.sync_all().await.map_err(failed)?;
        temporary
            .persist(&path)
            .map_err(|error| failed(error.error))?;
        Ok(path)
    }

    async fn recorded<'a>(
        &self,
        wanted: &Wanted<'_>,
        recorded: &'a [PinnedDependency],
    ) -> Result<Option<&'a PinnedDependency>, DependencyError> {
        for pinned in recorded {
            if pinned.chart != wanted.chart
                || pinned.name != wanted.name
                || pinned.repository != wanted.repository
            {
                continue;
            }
            let fits = if wanted.locked {
                pinned.version == wanted.version
            } else {
                self.choose(wanted, std::slice::from_ref(&pinned.version))
                    .await?
                    .is_some()
            };
            if fits {
                return Ok(Some(pinned));
            }
        }
        Ok(None)
    }

    async fn choose(
        &self,
        wanted: &Wanted<'_>,
        versions: &[String],
    ) -> Result<Option<String>, DependencyError> {
        let chosen = self.versions.choose(wanted.version, versions).await;
        chosen.map_err(|source| DependencyError::ChooseVersion {
            name: wanted.name.to_owned(),
            source,
        })
    }

    /// Looks a dependency up for the first time.
    async fn pin(&self, wanted: &Wanted<'_>) -> Result<PinnedDependency, DependencyError> {
        let version = match source(wanted)? {
            _ if self.offline => return Err(refuse_offline(wanted)),
            _ if wanted.locked => wanted.version.to_owned(),
            Source::Repository(repository) => {
                let entries = self.repositories.entries(&repository, wanted.name).await?;
                let versions: Vec<_> = entries.iter().map(|entry| entry.version.clone()).collect();
                self.choose(wanted, &versions)
                    .await?
                    .ok_or_else(|| no_version(wanted))?
            }
            Source::Registry if is_version(wanted.version) => wanted.version.to_owned(),
            Source::Registry => {
                let versions = self
                    .registries
                    .versions(&reference(wanted, "latest")?)
                    .await?;
                self.choose(wanted, &versions)
                    .await?
                    .ok_or_else(|| no_version(wanted))?
            }
        };
        let exact = Wanted {
            version: &version,
            locked: true,
            ..*wanted
        };
        let location = self.locate(&exact).await?;
        let digest = match &location {
            Location::Registry(reference) => self.registries.digest(reference).await?,
            Location::Http(_, Some(announced)) => announced.clone(),
            Location::Http(_, None) => self.measure(&location).await?,
        };
        check_form(wanted.name, &digest)?;
        Ok(PinnedDependency {
            chart: wanted.chart.to_owned(),
            name: wanted.name.to_owned(),
            repository: wanted.repository.to_owned(),
            version,
            digest,
        })
    }

    /// Where the archive of an exact version lies.
    async fn locate(&self, wanted: &Wanted<'_>) -> Result<Location, DependencyError> {
        let reference = match source(wanted)? {
            _ if self.offline => return Err(refuse_offline(wanted)),
            Source::Registry => reference(wanted, wanted.version)?,
            Source::Repository(repository) => {
                let entries = self.repositories.entries(&repository, wanted.name).await?;
                let entry = entries
                    .iter()
                    .find(|entry| entry.version == wanted.version)
                    .ok_or_else(|| no_version(wanted))?;
                let address = entry
                    .address(&repository)
                    .ok_or_else(|| no_version(wanted))?;
                match address.scheme() {
                    "http" | "https" => return Ok(Location::Http(address, entry.sha256())),
                    // an index may point into a registry, with the tag in the address
                    "oci" => address.as_str()["oci://".len()..]
                        .parse()
                        .map_err(|_invalid| no_version(wanted))?,
                    scheme => {
                        return Err(refuse_repository(
                            wanted,
                            format!("its address has the scheme \"{scheme}\""),
                        ));
                    }
                }
            }
        };
        Ok(Location::Registry(reference))
    }

    async fn open(
        &self,
        location: &Location,
        digest: &str,
    ) -> Result<BoxStream<'static, Result<Bytes, DependencyError>>, DependencyError> {
        match location {
            Location::Http(url, _) => self.repositories.archive(url).await,
            Location::Registry(reference) => self.registries.archive(reference, digest).await,
        }
    }

    /// The digest of an archive that nobody announces: read, not kept.
    async fn measure(&self, location: &Location) -> Result<String, DependencyError> {
        let mut stream = self.open(location, "").await?;
        let (mut hasher, mut size, mut beginning) = (Sha256::new(), 0, Vec::<u8>::new());
        while let Some(part) = stream.try_next().await? {
            size = grow(size, &part, location)?;
            hasher.update(&part);
            beginning.extend(part.iter().take(2_usize.saturating_sub(beginning.len())));
        }
        // without an announced digest, a page of a proxy would be recorded for ever
        if beginning != [0x1f, 0x8b] {
            return Err(DependencyError::FindChart {
                reference: location.shown(),
                message: "it is no gzip archive".to_owned(),
            });
        }
        Ok(named(hasher))
    }
}

impl Location {
    fn shown(&self) -> String {
        match self {
            Self::Http(url, _) => shown(url),
            Self::Registry(reference) => reference.whole(),
        }
    }
}

fn reference(wanted: &Wanted<'_>, version: &str) -> Result<oci_client::Reference, DependencyError> {
    registry::reference(wanted.repository, wanted.name, version).ok_or_else(|| {
        refuse_repository(
            wanted,
            "the address of its registry is not valid".to_owned(),
        )
    })
}

fn grow(size: u64, part: &Bytes, location: &Location) -> Result<u64, DependencyError> {
    let size = size + part.len() as u64;
    if size > ARCHIVE_BYTES {
        return Err(DependencyError::ExceedSize {
            url: location.shown(),
            limit_bytes: ARCHIVE_BYTES,
        });
    }
    Ok(size)
}

fn check_digest(name: &str, expected: &str, found: &str) -> Result<(), DependencyError> {
    if expected == found {
        return Ok(());
    }
    Err(DependencyError::CheckDigest {
        name: name.to_owned(),
        expected: expected.to_owned(),
        found: found.to_owned(),
    })
}

fn check_form(name: &str, digest: &str) -> Result<(), DependencyError> {
    match digest.strip_prefix("sha256:") {
        Some(hexadecimal)
            if hexadecimal.len() == 64
                && hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            Ok(())
        }
        _ => check_digest(name, "sha256:<64 hexadecimal digits>", digest),
    }
}

fn digest_of(content: &[u8]) -> String {
    named(Sha256::new_with_prefix(content))
}

fn named(hasher: Sha256) -> String {
    format!("sha256:{}", hex::encode(hasher.finalize()))
}

#[cfg(test)]
mod tests;
