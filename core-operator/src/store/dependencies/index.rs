//! Repositories over HTTP: an `index.yaml` that names versions, addresses and digests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use provider_sdk::download::{retry_after, shown};
use reqwest::Client;
use serde::Deserialize;
use url::Url;

use super::DependencyError;

/// The largest index: repositories that keep every version for years have indexes of some ten MB.
const INDEX_BYTES: u64 = 64 << 20;

/// How long an index is reused: resolving and fetching follow each other.
const INDEX_TIME: Duration = Duration::from_mins(5);

/// One version of a chart.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entry {
    pub version: String,
    pub urls: Vec<String>,
    pub digest: Option<String>,
}

impl Entry {
    /// The digest as we write digests; a text that is none counts as not announced.
    pub(super) fn sha256(&self) -> Option<String> {
        let text = self.digest.as_deref()?;
        let hexadecimal = text
            .strip_prefix("sha256:")
            .unwrap_or(text)
            .to_ascii_lowercase();
        (hexadecimal.len() == 64 && hexadecimal.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .then(|| format!("sha256:{hexadecimal}"))
    }

    /// Where the archive lies: addresses may be relative to the repository, whose query they then keep, as in Helm.
    pub(super) fn address(&self, repository: &Url) -> Option<Url> {
        let text = self.urls.first()?;
        if let Ok(absolute) = Url::parse(text) {
            return Some(absolute);
        }
        let mut base = repository.clone();
        base.path_segments_mut().ok()?.pop_if_empty().push("");
        let mut address = base.join(text).ok()?;
        address.set_query(repository.query());
        Some(address)
    }
}

/// The entries are always there: a page of a proxy, which may well be YAML, is told by their absence.
#[derive(Deserialize)]
struct Index {
    entries: HashMap<String, Vec<Entry>>,
}

/// When entries were read, and the entries.
type Recent = (Instant, Arc<Vec<Entry>>);

/// The repositories over HTTP.
pub(super) struct Repositories {
    client: Client,
    /// What was read lately, by repository and chart.
    recent: Mutex<HashMap<(String, String), Recent>>,
}

impl Repositories {
    /// # Errors
    ///
    /// If there is no TLS for the process.
    pub(super) fn new(connect_time: Duration, silence: Duration) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(connect_time)
            .read_timeout(silence)
            .build()?;
        Ok(Self {
            client,
            recent: Mutex::default(),
        })
    }

    /// The versions of a chart in a repository.
    pub(super) async fn entries(
        &self,
        repository: &Url,
        name: &str,
    ) -> Result<Arc<Vec<Entry>>, DependencyError> {
        let key = (repository.to_string(), name.to_owned());
        let recent = self
            .recent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .cloned();
        if let Some((read, entries)) = recent
            && read.elapsed() < INDEX_TIME
        {
            return Ok(entries);
        }
        let mut url = repository.clone();
        let refuse = |message: &str| DependencyError::ReadIndex {
            url: shown(repository),
            message: message.to_owned(),
        };
        url.path_segments_mut()
            .map_err(|()| refuse("the address has no path"))?
            .pop_if_empty()
            .push("index.yaml");
        let mut content = Vec::new();
        let mut stream = self.archive(&url).await?;
        while let Some(part) = stream.try_next().await? {
            if (content.len() + part.len()) as u64 > INDEX_BYTES {
                return Err(DependencyError::ExceedSize {
                    url: shown(&url),
                    limit_bytes: INDEX_BYTES,
                });
            }
            content.extend_from_slice(&part);
        }
        let wanted = name.to_owned();
        // large ones take seconds
        let parsed = tokio::task::spawn_blocking(move || parse(&content, &wanted)).await;
        let entries = parsed.unwrap_or_else(|error| Err(error.to_string()));
        let entries = Arc::new(entries.map_err(|message| DependencyError::ReadIndex {
            url: shown(&url),
            message,
        })?);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.retain(|_, (read, _)| read.elapsed() < INDEX_TIME);
        recent.insert(key, (Instant::now(), Arc::clone(&entries)));
        Ok(entries)
    }

    /// What lies at an address.
    pub(super) async fn archive(
        &self,
        url: &Url,
    ) -> Result<BoxStream<'static, Result<Bytes, DependencyError>>, DependencyError> {
        let failed = {
            let url = shown(url);
            move |source: reqwest::Error| DependencyError::Request {
                url: url.clone(),
                source: source.without_url(),
            }
        };
        let response = self.client.get(url.clone()).send().await.map_err(&failed)?;
        let status = response.status();
        if !status.is_success() {
            let retry_after = retry_after(response.headers());
            return Err(DependencyError::Refused {
                url: shown(url),
                status: status.as_u16(),
                retry_after,
            });
        }
        Ok(response.bytes_stream().map_err(failed).boxed())
    }
}

fn parse(content: &[u8], name: &str) -> Result<Vec<Entry>, String> {
    // The defaults are for files of settings; large repositories have some million nodes.
    let budget = serde_saphyr::budget! {
        max_events: 20_000_000,
        max_nodes: 10_000_000,
        max_total_scalar_bytes: 64 << 20,
    };
    let options = serde_saphyr::options! { budget: budget };
    let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
    // A chart or a page in place of the index: the parser's picture of it would only confuse.
    let mut index: Index = serde_saphyr::from_str_with_options(text, options)
        .map_err(|error| crate::helm::shorten(&error.to_string(), 200))?;
    let mut entries = index.entries.remove(name).unwrap_or_default();
    entries.retain(|entry| !entry.urls.is_empty());
    Ok(entries)
}
