//! Releases of a GitHub repository, or of a host with the same API.
//!
//! A release is named by its tag. Drafts are no releases, and a release without all its files is not finished. Each
//! page of a listing is asked for with the `ETag` that it had, so that an unchanged one costs nothing of the rate limit.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, ETAG, IF_NONE_MATCH, LINK},
};
use http_body_util::{LengthLimitError, Limited, combinators::BoxBody};
use jiff::Timestamp;
use octocrab::{
    AuthState, FromResponse, OctoBody, Octocrab, OctocrabBuilder,
    service::middleware::{auth_header::AuthHeaderLayer, base_uri::BaseUriLayer},
};
use proto::recovery::LONGEST_NOT_BEFORE;
use provider_sdk::download::{Content, Download, Downloader, retry_after};
use reqwest::Client;
use serde::Deserialize;
use url::Url;

use super::{
    Fetched, Listing, RELEASE_BYTES, Source, SourceError, check_limits, is_file_name,
    release_of_tag, spec::Repository,
};
use crate::{
    helm::shorten,
    metrics,
    release::{ReleaseName, metadata},
};

/// Releases of one page, and pages: GitHub itself shows no more than these.
const PAGE: usize = 100;
const PAGES: usize = 100;

/// Largest answer of the API: one page of releases with long notes.
const ANSWER_BYTES: usize = 32 << 20;

/// Files of a release that are fetched at the same time.
const PARALLEL: usize = 4;

/// GitHub asks for this where a limit has no time of its own.
/// (<https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api>)
const SHORTEST_WAIT: Duration = Duration::from_mins(1);

type Answer = Response<BoxBody<bytes::Bytes, octocrab::Error>>;

/// The releases of a repository.
pub(super) struct GitHub {
    crab: Octocrab,
    downloader: Downloader,
    repository: Repository,
    authorization: Option<HeaderValue>,
    /// The pages of the last complete listing, by address.
    pages: Mutex<HashMap<String, Arc<Page>>>,
}

#[derive(Debug)]
struct Page {
    etag: Option<HeaderValue>,
    listing: Listing,
    /// Path and query: whatever host the answer names, we ask the one that we were told.
    next: Option<String>,
}

/// Of a release, what we read.
#[derive(Deserialize)]
struct Release {
    tag_name: String,
    draft: bool,
    assets: Vec<Asset>,
}

#[derive(Deserialize)]
struct Asset {
    id: u64,
    name: String,
    state: String,
    size: u64,
    digest: Option<String>,
    browser_download_url: Url,
}

impl GitHub {
    /// # Errors
    ///
    /// If the API's address or the token cannot be part of a request.
    pub(super) fn new(client: Client, repository: &Repository) -> Result<Self, SourceError> {
        let refuse = |what: &str| SourceError::RefuseSource {
            message: format!("{what} of {repository} is not valid"),
        };
        let base: Uri = repository
            .api
            .as_str()
            .parse()
            .map_err(|_invalid| refuse("the address"))?;
        let authorization = repository.token.as_ref().map(|token| {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()));
            let mut value = value.map_err(|_invalid| refuse("the token"))?;
            value.set_sensitive(true);
            Ok(value)
        });
        let authorization = authorization.transpose()?;
        Ok(Self {
            crab: octocrab(client.clone(), &base, authorization.clone()),
            downloader: Downloader::new(client),
            repository: repository.clone(),
            authorization,
            pages: Mutex::default(),
        })
    }

    /// The part of all addresses that names the repository.
    fn route(&self, rest: &str) -> String {
        let Repository { owner, name, .. } = &self.repository;
        format!("/repos/{owner}/{name}/releases{rest}")
    }

    fn place(&self) -> String {
        self.repository.to_string()
    }

    /// An answer of the API. Without `known` there is no 304.
    async fn ask(&self, route: &str, known: Option<&HeaderValue>) -> Result<Answer, SourceError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            ACCEPT,
            HeaderValue::from_static("application/vnd.github+json"),
        );
        if let Some(etag) = known {
            headers.insert(IF_NONE_MATCH, etag.clone());
        }
        let answer = self.crab._get_with_headers(route, Some(headers)).await;
        let answer = answer.map_err(|error| self.failed(error))?;
        if answer.status() == StatusCode::NOT_MODIFIED && known.is_some() {
            return Ok(answer);
        }
        let answer = octocrab::map_github_error(answer).await;
        answer.map_err(|error| self.failed(error))
    }

    async fn page(&self, route: &str, known: Option<Arc<Page>>) -> Result<Arc<Page>, SourceError> {
        let etag = known.as_ref().and_then(|page| page.etag.as_ref());
        let answer = self.ask(route, etag).await?;
        if let Some(page) = known
            && answer.status() == StatusCode::NOT_MODIFIED
        {
            return Ok(page);
        }
        let (etag, next) = (answer.headers().get(ETAG).cloned(), next(answer.headers()));
        let releases = Vec::<Release>::from_response(answer).await;
        let releases = releases.map_err(|error| self.failed(error))?;
        let mut listing = Listing::default();
        for release in releases.iter().filter(|release| !release.draft) {
            match release_of_tag(&release.tag_name) {
                None => listing.foreign += 1,
                Some(name) => match missing(&name, release) {
                    None => listing.releases.push(name),
                    Some(message) => {
                        tracing::debug!(release = %name, message, "release is not finished");
                        listing.unfinished += 1;
                    }
                },
            }
        }
        Ok(Arc::new(Page {
            etag,
            listing,
            next,
        }))
    }

    async fn release(&self, name: &ReleaseName) -> Result<Release, SourceError> {
        let tag = name.tag();
        let absent = || SourceError::FindRelease {
            release: name.tag(),
            place: self.place(),
        };
        let answer = self.ask(&self.route(&format!("/tags/{tag}")), None).await;
        let answer = answer.map_err(|error| match error {
            SourceError::Refuse { status: 404, .. } => absent(),
            other => other,
        })?;
        let release = Release::from_response(answer).await;
        let release = release.map_err(|error| self.failed(error))?;
        if release.draft || release.tag_name != tag {
            return Err(absent());
        }
        if let Some(message) = missing(name, &release) {
            return Err(SourceError::AwaitRelease {
                release: tag,
                place: self.place(),
                message,
            });
        }
        check(name, &release.assets)?;
        Ok(release)
    }

    async fn download(
        &self,
        name: &ReleaseName,
        asset: Asset,
        into: &Path,
    ) -> Result<u64, SourceError> {
        // Addresses of pages do not count for the rate limit but know no tokens.
        let url = match self.authorization {
            Some(_) => self.asset_url(asset.id),
            None => asset.browser_download_url,
        };
        let mut download = Download::new(url, RELEASE_BYTES);
        download.authorization.clone_from(&self.authorization);
        download.accept = Some(HeaderValue::from_static("application/octet-stream"));
        download.size = Some(asset.size);
        download.sha256 = asset.digest.as_deref().and_then(sha256);
        download.durable = false;
        let target = into.join(&asset.name);
        if target.extension().is_some_and(|it| it == "tgz") {
            download.content = Content::Gzip;
        }
        match self.downloader.fetch(&download, &target).await {
            Ok(downloaded) => Ok(downloaded.size),
            Err(source) => Err(SourceError::Download {
                release: name.tag(),
                file: asset.name,
                source,
            }),
        }
    }

    /// Made here, so that the token goes to no other host than the one that it is for.
    fn asset_url(&self, id: u64) -> Url {
        let mut url = self.repository.api.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{path}{}", self.route(&format!("/assets/{id}"))));
        url
    }

    fn failed(&self, error: octocrab::Error) -> SourceError {
        let place = self.place();
        match error {
            octocrab::Error::GitHub { source, .. } => self.refused(&source),
            octocrab::Error::Json { .. } | octocrab::Error::Serde { .. } => {
                SourceError::ReadAnswer {
                    place,
                    message: shorten(&error.to_string(), 200),
                }
            }
            octocrab::Error::Service { source, .. } if source.is::<LengthLimitError>() => {
                SourceError::ExceedLimit {
                    what: format!("an answer of {place}"),
                    limit: format!("{ANSWER_BYTES} bytes"),
                }
            }
            octocrab::Error::Service { source, .. } => SourceError::Reach {
                place,
                source: match source.downcast::<reqwest::Error>() {
                    Ok(source) => Box::new(source.without_url()),
                    Err(source) => source,
                },
            },
            other => SourceError::Reach {
                place,
                source: other.into(),
            },
        }
    }

    fn refused(&self, error: &octocrab::GitHubError) -> SourceError {
        let status = error.status_code.as_u16();
        let mut retry_after = error.headers.as_ref().and_then(retry_after);
        if retry_after.is_none() && error.message.contains("rate limit") {
            retry_after = Some(SHORTEST_WAIT);
        }
        // A time instead of a duration: the message stays the same while it is waited for.
        let retry_at = retry_after.map(|time| Timestamp::now() + time.min(LONGEST_NOT_BEFORE));
        let advice = match (status, retry_at, &self.authorization) {
            (403 | 429, Some(time), None) => {
                &format!("wait until {time:.0}, or give a token: there is a higher limit with one")
            }
            (_, Some(time), _) => &format!("wait until {time:.0}"),
            (401, ..) => "renew the token",
            (403, _, Some(_)) => "give the token the right to read the repository's contents",
            (404, _, Some(_)) => "check owner and name, and whether the token may read it",
            (403 | 404, _, None) => "check owner and name; private repositories need a token",
            (300..=399, ..) => "name the place where it is now",
            (500.., ..) => "wait until the host works again",
            _ => "check that this is the API of GitHub",
        };
        SourceError::Refuse {
            place: self.place(),
            status,
            message: shorten(&error.message, 200),
            advice: advice.to_owned(),
            retry_at,
        }
    }
}

/// The API's client: our HTTP client below, with bounded answers. What octocrab would add beyond this we have (time-outs,
/// redirects) or do not want (retries that sleep, a cache of whole bodies).
fn octocrab(client: Client, base: &Uri, authorization: Option<HeaderValue>) -> Octocrab {
    let send = tower::service_fn(move |request: Request<OctoBody>| {
        let client = client.clone();
        async move {
            let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
            let answer: Response<reqwest::Body> = client.execute(request).await?.into();
            Ok::<_, reqwest::Error>(answer.map(|body| Limited::new(body, ANSWER_BYTES)))
        }
    });
    let builder = OctocrabBuilder::new_empty()
        .with_service(send)
        .with_layer(&BaseUriLayer::new(base.clone()))
        .with_layer(&AuthHeaderLayer::new(
            authorization,
            base.clone(),
            base.clone(),
        ))
        .with_auth(AuthState::None);
    let Ok::<_, Infallible>(crab) = builder.build();
    crab
}

/// What a release lacks. Files are uploaded one by one after the release is made, and in any order.
fn missing(name: &ReleaseName, release: &Release) -> Option<String> {
    let waiting = |asset: &&Asset| asset.state != "uploaded";
    if let Some(asset) = release.assets.iter().find(waiting) {
        let state = shorten(&asset.state, 20);
        return Some(format!("\"{}\" is in state \"{state}\"", asset.name));
    }
    [metadata::FILE.to_owned(), name.class_chart_file()]
        .into_iter()
        .find(|file| !release.assets.iter().any(|asset| asset.name == *file))
        .map(|file| format!("it has no \"{file}\""))
}

/// Refuses what cannot be put into a folder.
fn check(name: &ReleaseName, assets: &[Asset]) -> Result<(), SourceError> {
    let bytes = assets
        .iter()
        .fold(0_u64, |sum, asset| sum.saturating_add(asset.size));
    check_limits(name, assets.len(), bytes)?;
    match assets.iter().find(|asset| !is_file_name(&asset.name)) {
        None => Ok(()),
        Some(asset) => Err(SourceError::RefuseFile {
            release: name.tag(),
            file: shorten(&asset.name, 100),
            reason: "its name has special characters",
        }),
    }
}

/// Path and query of the next page (RFC 8288).
fn next(headers: &HeaderMap) -> Option<String> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let next = links
        .split(',')
        .find(|link| link.contains("rel=\"next\""))?;
    let (_, url) = next.split_once('<')?;
    let url: Uri = url.split_once('>')?.0.parse().ok()?;
    Some(url.path_and_query()?.to_string())
}

fn sha256(digest: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(digest.strip_prefix("sha256:")?, &mut bytes).ok()?;
    Some(bytes)
}

impl fmt::Debug for GitHub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitHub({})", self.repository)
    }
}

#[async_trait]
impl Source for GitHub {
    fn kind(&self) -> metrics::Source {
        metrics::Source::Github
    }

    async fn list(&self) -> Result<Listing, SourceError> {
        let lock = || self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, mut pages) = (lock().clone(), Vec::new());
        let mut route = Some(self.route(&format!("?per_page={PAGE}")));
        while let Some(this) = route.take() {
            if pages.len() == PAGES {
                return Err(SourceError::ExceedLimit {
                    what: format!("the list of releases of {}", self.place()),
                    limit: format!("{PAGES} pages"),
                });
            }
            let page = self.page(&this, known.get(&this).cloned()).await?;
            route.clone_from(&page.next);
            pages.push((this, page));
        }
        let listing = Listing::join(pages.iter().map(|(_, page)| &page.listing));
        *lock() = pages.into_iter().collect();
        Ok(listing)
    }

    async fn revision(&self, _name: &ReleaseName) -> Result<Option<String>, SourceError> {
        Ok(None)
    }

    async fn fetch(&self, name: &ReleaseName, into: &Path) -> Result<Fetched, SourceError> {
        let assets = self.release(name).await?.assets;
        let files = assets.len();
        let downloads: Vec<_> = assets
            .into_iter()
            .map(|asset| self.download(name, asset, into))
            .collect();
        let bytes = stream::iter(downloads)
            .buffer_unordered(PARALLEL)
            .try_fold(0, async |sum, bytes| Ok(sum + bytes))
            .await?;
        Ok(Fetched { files, bytes })
    }
}

#[cfg(test)]
mod tests;
