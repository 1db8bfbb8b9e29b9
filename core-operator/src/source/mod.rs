//! Where releases come from.
//!
//! A source lists names of releases and brings their files; it knows nothing of what is in them beyond the names, and
//! nothing of the store, the cluster or other sources. Tags that are no release names are counted, never an error.
//!
//! ```text
//! spec.source, Secrets, process default ──► SourceSpec ──► Sources ──► Source: github, directory
//!                                                          one each, shared listings
//! ```

mod directory;
mod error;
mod github;
mod sources;
mod spec;

use std::{collections::HashSet, fmt, path::Path};

use async_trait::async_trait;

use crate::{metrics, release::ReleaseName};

pub use error::SourceError;
pub use sources::Sources;
pub use spec::{Repository, SecretData, SourceSpec, Token};

/// Most files of one release; real ones have five to ten.
const RELEASE_FILES: usize = 100;

/// Most bytes of one release; real ones have some hundred KiB. Node images are not among its files.
const RELEASE_BYTES: u64 = 256 << 20;

/// A place with releases, with everything looked up: ready to be asked.
#[async_trait]
pub trait Source: Send + Sync + fmt::Debug {
    /// The kind of the source, for metrics.
    fn kind(&self) -> metrics::Source;

    /// All finished releases.
    ///
    /// # Errors
    ///
    /// If there is any doubt that these are all.
    async fn list(&self) -> Result<Listing, SourceError>;

    /// A text that changes whenever the content of a release may have changed; absent where the content of a tag is
    /// taken to be fixed. Far cheaper than fetching.
    ///
    /// # Errors
    ///
    /// If the release is not there or the source cannot be read.
    async fn revision(&self, name: &ReleaseName) -> Result<Option<String>, SourceError>;

    /// Brings all files of a release into the empty folder `into`, without folders below it. They are what the source
    /// announces (size, digest), but need not survive a loss of power: that is for the caller to see to.
    ///
    /// # Errors
    ///
    /// If the release is not there, is not finished or breaks a limit, or if it could not be brought; `into` then holds
    /// anything.
    async fn fetch(&self, name: &ReleaseName, into: &Path) -> Result<Fetched, SourceError>;
}

/// What a source has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The finished releases, each once, in the order of the source.
    pub releases: Vec<ReleaseName>,
    /// How many tags are no names of releases.
    pub foreign: u64,
    /// How many releases are not finished: some of their files are not there yet.
    pub unfinished: u64,
}

impl Listing {
    /// Puts the parts of a listing together. While its parts are read, a release may move from one to the next.
    fn join<'a>(parts: impl IntoIterator<Item = &'a Self>) -> Self {
        let (mut all, mut seen) = (Self::default(), HashSet::new());
        for part in parts {
            let new = part.releases.iter().filter(|name| seen.insert(*name));
            all.releases.extend(new.cloned());
            all.foreign += part.foreign;
            all.unfinished += part.unfinished;
        }
        all
    }
}

/// What was brought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Number of files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The release that a tag or folder is named after. The dot form is no tag: there could be two of one release.
fn release_of_tag(tag: &str) -> Option<ReleaseName> {
    ReleaseName::parse(tag)
        .ok()
        .filter(|name| name.tag() == tag)
}

/// Whether a name stays in the folder that it is put in, on any system, and can be shown.
fn is_file_name(name: &str) -> bool {
    let fits = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
    (1..=255).contains(&name.len()) && !name.starts_with('.') && name.chars().all(fits)
}

/// Refuses a release that is larger than anybody needs.
fn check_limits(name: &ReleaseName, files: usize, bytes: u64) -> Result<(), SourceError> {
    let limit = if files > RELEASE_FILES {
        format!("{RELEASE_FILES} files")
    } else if bytes > RELEASE_BYTES {
        format!("{RELEASE_BYTES} bytes")
    } else {
        return Ok(());
    };
    Err(SourceError::ExceedLimit {
        what: format!("release \"{name}\""),
        limit,
    })
}

#[cfg(test)]
mod tests;
