//! What a chart wants and does not carry, and where that may come from.

use provider_sdk::download::shown;
use url::Url;

use super::DependencyError;
use crate::helm::{ChartDependency, ChartInfo};

/// One dependency that a chart does not carry.
pub(super) struct Wanted<'a> {
    pub chart: &'a str,
    pub name: &'a str,
    /// A version if it is locked, else perhaps a range.
    pub version: &'a str,
    pub locked: bool,
    pub repository: &'a str,
}

/// What kind of place a dependency comes from.
pub(super) enum Source {
    Repository(Url),
    Registry,
}

pub(super) fn source(wanted: &Wanted<'_>) -> Result<Source, DependencyError> {
    let refuse = |reason: String| Err(refuse_repository(wanted, reason));
    match wanted.repository.split_once("://") {
        Some(("http" | "https", _)) => match Url::parse(wanted.repository) {
            Ok(url) if url.has_host() => Ok(Source::Repository(url)),
            _ => refuse("the address of its repository is not valid".to_owned()),
        },
        Some(("oci", _)) => Ok(Source::Registry),
        Some(("file", _)) => {
            refuse("its repository is a folder on the author's machine".to_owned())
        }
        Some((scheme, _)) => refuse(format!(
            "its repository has the unknown scheme \"{scheme}\""
        )),
        None if wanted.repository.is_empty() => refuse("it names no repository for it".to_owned()),
        // "@name" and "alias:name"
        None => refuse(format!(
            "\"{}\" is a name for a repository on the author's machine",
            wanted.repository
        )),
    }
}

/// The declared dependencies that are not there, with the versions of the lock file if there is one.
pub(super) fn wanted(info: &ChartInfo) -> Result<Vec<Wanted<'_>>, DependencyError> {
    let missing = info
        .dependencies
        .iter()
        .enumerate()
        .filter(|(_, declared)| info.missing.contains(&declared.name));
    let Some(lock) = &info.lock else {
        let unlocked = missing.map(|(_, declared)| Wanted {
            chart: &info.name,
            name: &declared.name,
            version: &declared.version,
            locked: false,
            repository: &declared.repository,
        });
        return Ok(unlocked.collect());
    };
    let missing: Vec<_> = missing.collect();
    if missing.is_empty() {
        return Ok(Vec::new()); // an old lock file harms nobody then
    }
    // Helm writes one entry for each declared dependency, in their order.
    let fits = |(index, declared): (usize, &ChartDependency)| {
        lock.dependencies
            .get(index)
            .is_some_and(|locked| locked.name == declared.name)
    };
    if !lock.in_sync || !missing.iter().copied().all(fits) {
        return Err(DependencyError::CheckLock {
            chart: info.name.clone(),
        });
    }
    let locked = missing.into_iter().map(|(index, declared)| Wanted {
        chart: &info.name,
        name: &declared.name,
        version: &lock.dependencies[index].version,
        locked: true,
        repository: &lock.dependencies[index].repository,
    });
    Ok(locked.collect())
}

/// Whether Helm takes a text for one version (as lenient as its parser: `1.2` is one) and asks for no list of tags.
pub(super) fn is_version(text: &str) -> bool {
    let text = text.strip_prefix('v').unwrap_or(text);
    let core = text.split(['-', '+']).next().unwrap_or_default();
    let parts: Vec<_> = core.split('.').collect();
    parts.len() <= 3
        && parts
            .iter()
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

pub(super) fn no_version(wanted: &Wanted<'_>) -> DependencyError {
    DependencyError::FindVersion {
        name: wanted.name.to_owned(),
        version: wanted.version.to_owned(),
        repository: shown_repository(wanted),
    }
}

pub(super) fn refuse_offline(wanted: &Wanted<'_>) -> DependencyError {
    DependencyError::RefuseOffline {
        chart: wanted.chart.to_owned(),
        name: wanted.name.to_owned(),
        version: wanted.version.to_owned(),
        repository: shown_repository(wanted),
    }
}

pub(super) fn refuse_repository(wanted: &Wanted<'_>, reason: String) -> DependencyError {
    DependencyError::RefuseRepository {
        chart: wanted.chart.to_owned(),
        name: wanted.name.to_owned(),
        reason,
    }
}

pub(super) fn shown_repository(wanted: &Wanted<'_>) -> String {
    Url::parse(wanted.repository).map_or_else(|_| wanted.repository.to_owned(), |url| shown(&url))
}
