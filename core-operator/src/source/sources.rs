//! All sources in use, each opened once, and what they list.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use proto::Recovery;
use provider_sdk::download::{ClientOptions, client};
use reqwest::Client;
use tokio::{
    sync::Mutex as AsyncMutex,
    time::{Instant, timeout},
};

use super::{Listing, Source, SourceError, SourceSpec, directory::Directory, github::GitHub};
use crate::metrics::{Metrics, Outcome};

/// Sources that are kept open; of more, those go first that were not asked for longest.
const KEPT: usize = 512;

/// Longest time for one listing, all pages together.
const LISTING_TIME: Duration = Duration::from_mins(2);

type ListingResult = Result<Arc<Listing>, Arc<SourceError>>;

/// All sources in use. Stacks with the same source share it, its connections and its listings.
pub struct Sources {
    options: ClientOptions,
    /// For all sources without certificates of their own.
    client: Client,
    metrics: Arc<Metrics>,
    opened: Mutex<HashMap<SourceSpec, (Instant, Arc<Opened>)>>,
}

/// A source, and what it listed last. The lock is held while the source is asked, so that one request serves all who
/// want to know; other sources have their own.
struct Opened {
    source: Arc<dyn Source>,
    last: AsyncMutex<Option<(Instant, ListingResult)>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Sources {
    /// No source yet.
    ///
    /// # Errors
    ///
    /// If the process has no TLS provider, or the certificates in `options` are none.
    pub fn new(options: ClientOptions, metrics: Arc<Metrics>) -> Result<Self, SourceError> {
        let client = client(&options).map_err(|source| SourceError::Prepare {
            place: "any source".to_owned(),
            source,
        })?;
        Ok(Self {
            options,
            client,
            metrics,
            opened: Mutex::default(),
        })
    }

    /// The source that `spec` names. Nothing is asked yet. Needs a Tokio runtime around it.
    ///
    /// # Errors
    ///
    /// If the certificates of the source are none.
    pub fn open(&self, spec: &SourceSpec) -> Result<Arc<dyn Source>, SourceError> {
        Ok(Arc::clone(&self.opened(spec)?.source))
    }

    /// What a source lists, or what it listed less than `max_age` ago. Whoever asks meanwhile waits for the same answer.
    /// A source whose rate limit is used up is not asked before its time.
    ///
    /// # Errors
    ///
    /// As [`Source::list`] and [`open`](Self::open).
    pub async fn listing(&self, spec: &SourceSpec, max_age: Duration) -> ListingResult {
        let asked = Instant::now();
        let opened = self.opened(spec)?;
        let mut last = opened.last.lock().await;
        if let Some((at, result)) = &*last
            && (*at >= asked || serves(*at, result, max_age))
        {
            return result.clone();
        }
        let result = match timeout(LISTING_TIME, opened.source.list()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(SourceError::Reach {
                place: spec.to_string(),
                source: format!("the listing took more than {} s", LISTING_TIME.as_secs()).into(),
            }),
        };
        let (outcome, foreign) = match &result {
            Ok(listing) => (Outcome::Success, listing.foreign),
            Err(_) => (Outcome::Error, 0),
        };
        self.metrics.listed(opened.source.kind(), outcome, foreign);
        let result = result.map(Arc::new).map_err(Arc::new);
        *last = Some((Instant::now(), result.clone()));
        result
    }

    fn opened(&self, spec: &SourceSpec) -> Result<Arc<Opened>, SourceError> {
        if let Some((used, opened)) = self.lock().get_mut(spec) {
            *used = Instant::now();
            return Ok(Arc::clone(opened));
        }
        // Not under the lock: certificates are read from the disk.
        let source = self.connect(spec)?;
        let mut opened = self.lock();
        if opened.len() >= KEPT && !opened.contains_key(spec) {
            let oldest = opened.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(spec, _)| spec.clone()) {
                opened.remove(&oldest);
            }
        }
        let (_, opened) = opened.entry(spec.clone()).or_insert_with(|| {
            let last = AsyncMutex::default();
            (Instant::now(), Arc::new(Opened { source, last }))
        });
        Ok(Arc::clone(opened))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SourceSpec, (Instant, Arc<Opened>)>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(&self, spec: &SourceSpec) -> Result<Arc<dyn Source>, SourceError> {
        match spec {
            SourceSpec::Directory { path, root } => {
                Ok(Arc::new(Directory::new(path.clone(), root.clone())))
            }
            SourceSpec::GitHub(repository) => {
                let client = match &repository.ca {
                    None => self.client.clone(),
                    Some(pem) => {
                        let mut options = self.options.clone();
                        options.root_certificates = Some(pem.clone());
                        client(&options).map_err(|source| SourceError::Prepare {
                            place: spec.to_string(),
                            source,
                        })?
                    }
                };
                Ok(Arc::new(GitHub::new(client, repository)?))
            }
        }
    }
}

/// Whether an answer is still good.
fn serves(at: Instant, result: &ListingResult, max_age: Duration) -> bool {
    match result {
        Ok(_) => at.elapsed() < max_age,
        Err(error) => matches!(
            error.recovery(),
            Recovery::Fast { not_before: Some(left) } if !left.is_zero()
        ),
    }
}

#[cfg(test)]
mod tests;
