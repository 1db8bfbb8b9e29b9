//! A GitHub in this process, for faults that a real one cannot be made to show.
//!
//! It knows one repository. The API lies at `/api/v3`, as on an Enterprise server; files are handed out by a second
//! server on another port, to which both the API and the pages redirect, and which must never see a token.
//!
//! ```text
//! /api/v3/repos/<owner>/<name>/releases[/tags/<tag>]       listing in pages with ETag, one release
//! /api/v3/repos/<owner>/<name>/releases/assets/<id> ─┐
//! /<owner>/<name>/releases/download/<tag>/<file> ────┴──► storage: ETag, ranges, faults
//! ```

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode};
use bytes::Bytes;
use core_operator::release::ReleaseName;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

/// Owner and name of the repository.
pub const OWNER: &str = "sovereign";
/// Its name.
pub const REPOSITORY: &str = "stacks";

/// A page that some proxy shows in place of what was asked for.
const PAGE: &str = "<!DOCTYPE html><title>Log in</title>";

/// The running servers; they end with this value.
#[derive(Debug)]
pub struct GitHub {
    url: String,
    state: Arc<Mutex<State>>,
    _servers: [AbortOnDropHandle<io::Result<()>>; 2],
}

/// What a test can change at any time.
#[derive(Debug, Default)]
pub struct State {
    /// Releases, newest first.
    pub releases: Vec<Release>,
    /// The token without which nothing is found.
    pub token: Option<String>,
    /// Most releases of one page, whatever is asked for.
    pub page_size: Option<usize>,
    /// What the API answers in place of what it has.
    pub fault: Option<ApiFault>,
    /// The repository has another name now; the API redirects to its number.
    pub renamed: bool,
    requests: Vec<Seen>,
    stored: Vec<HeaderMap>,
    pages: String,
    storage: String,
}

/// A request to the API or the pages.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Path and query.
    pub path: String,
    /// All headers.
    pub headers: HeaderMap,
    /// Status of the answer; 0 while there is none.
    pub status: u16,
}

/// What the API does in place of answering.
#[derive(Debug, Clone, Copy)]
pub enum ApiFault {
    /// Only this status.
    Status(u16),
    /// The rate limit is used up until a time (seconds since 1970).
    RateLimit(u64),
    /// The limit for too many requests in too short a time, which has no time of its own.
    SecondaryLimit,
    /// A web page with status 200.
    Page,
    /// JSON without end.
    Endless,
    /// Nothing, for ever.
    Stall,
}

/// What happens to one request for a file; the next one is answered as if nothing had been.
#[derive(Debug, Clone, Copy)]
pub enum FileFault {
    /// The connection breaks after some bytes of what was asked for.
    Cut(usize),
    /// Nothing comes after some bytes.
    Stall(usize),
    /// Only this status.
    Status(u16),
    /// A web page with status 200.
    Page,
}

/// A release.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its tag.
    pub tag: String,
    /// Its title, which is for people.
    pub title: Option<String>,
    /// Whether it is a draft.
    pub draft: bool,
    /// Its files.
    pub assets: Vec<Asset>,
}

/// A file of a release.
#[derive(Debug, Clone)]
pub struct Asset {
    /// Its name.
    pub name: String,
    /// What storage sends.
    pub content: Vec<u8>,
    /// `uploaded` when it is complete.
    pub state: &'static str,
    /// What the API announces.
    pub size: usize,
    /// What the API announces, with the kind; older servers do not.
    pub digest: Option<String>,
    /// What goes wrong, request by request.
    pub faults: Vec<FileFault>,
}

impl Asset {
    /// A complete file that is announced as it is.
    #[must_use]
    pub fn new(name: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        Self {
            name: name.to_owned(),
            state: "uploaded",
            size: content.len(),
            digest: Some(format!("sha256:{}", hex::encode(Sha256::digest(&content)))),
            faults: Vec::new(),
            content,
        }
    }
}

impl Release {
    /// A release without files.
    #[must_use]
    pub fn empty(tag: &str) -> Self {
        Self {
            tag: tag.to_owned(),
            title: None,
            draft: false,
            assets: Vec::new(),
        }
    }

    /// A release with the files that each has; their content means nothing.
    #[must_use]
    pub fn new(tag: &str) -> Self {
        let mut release = Self::empty(tag);
        release.assets.push(Asset::new("metadata.yaml", tag));
        if let Ok(name) = ReleaseName::parse(tag) {
            let mut chart = vec![0x1f, 0x8b];
            chart.extend(tag.bytes().cycle().take(50_000));
            let chart = Asset::new(&name.class_chart_file(), chart);
            release.assets.push(chart);
        }
        release
    }

    /// The files of a folder that is named like the release.
    ///
    /// # Errors
    ///
    /// When the folder cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let tag = folder.file_name().context("the folder has no name")?;
        let mut release = Self::empty(&tag.to_string_lossy());
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("failed to read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let content = std::fs::read(entry.path())
                .with_context(|| format!("failed to read {}", entry.path().display()))?;
            let asset = Asset::new(&entry.file_name().to_string_lossy(), content);
            release.assets.push(asset);
        }
        Ok(release)
    }

    /// The same as a draft.
    #[must_use]
    pub const fn draft(mut self) -> Self {
        self.draft = true;
        self
    }

    /// The same with a title.
    #[must_use]
    pub fn titled(mut self, title: &str) -> Self {
        self.title = Some(title.to_owned());
        self
    }

    /// The same with another last file.
    #[must_use]
    pub fn with_last(mut self, change: impl FnOnce(&mut Asset)) -> Self {
        if let Some(asset) = self.assets.last_mut() {
            change(asset);
        }
        self
    }
}

impl GitHub {
    /// Starts both servers on free ports.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(releases: impl IntoIterator<Item = Release>) -> Result<Self> {
        let [api, storage] = [listen().await?, listen().await?];
        let url = format!("http://{}", api.local_addr()?);
        let state = Arc::new(Mutex::new(State {
            releases: releases.into_iter().collect(),
            pages: url.clone(),
            storage: format!("http://{}", storage.local_addr()?),
            ..State::default()
        }));
        let (one, other) = (Arc::clone(&state), Arc::clone(&state));
        let servers = [
            serve(api, move |request| answer(&one, &request)),
            serve(storage, move |request| lock(&other).store(&request)),
        ];
        Ok(Self {
            url,
            state,
            _servers: servers.map(AbortOnDropHandle::new),
        })
    }

    /// Address of the pages; the API is at `/api/v3`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it has, to be changed.
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The requests so far, other than those to storage.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.state().requests.clone()
    }

    /// The status of each answer so far, other than those of storage.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let state = self.state();
        state.requests.iter().map(|seen| seen.status).collect()
    }

    /// The headers of each request to storage so far.
    #[must_use]
    pub fn stored(&self) -> Vec<HeaderMap> {
        self.state().stored.clone()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn listen() -> Result<TcpListener> {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    listener.context("failed to listen on the loopback address")
}

type Answer = Response<Body>;

fn serve(
    listener: TcpListener,
    answer: impl Fn(Request) -> Answer + Clone + Send + Sync + 'static,
) -> JoinHandle<io::Result<()>> {
    let router = axum::Router::new().fallback(move |request: Request| {
        let answer = answer.clone();
        async move {
            let answer = answer(request);
            // a status that means: none
            if answer.status() == StatusCode::CONTINUE {
                std::future::pending::<()>().await;
            }
            answer
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await })
}

fn answer(state: &Mutex<State>, request: &Request) -> Answer {
    let mut state = lock(state);
    let answer = state.api(request);
    let path = request.uri().path_and_query();
    let seen = Seen {
        path: path.map(ToString::to_string).unwrap_or_default(),
        headers: request.headers().clone(),
        status: match answer.status().as_u16() {
            100 => 0,
            status => status,
        },
    };
    state.requests.push(seen);
    answer
}

impl State {
    fn api(&self, request: &Request) -> Answer {
        let path = request.uri().path();
        let Some(path) = path.strip_prefix("/api/v3") else {
            return self.page(path);
        };
        match self.fault {
            None => {}
            Some(ApiFault::Status(code)) => return status(code),
            Some(ApiFault::RateLimit(reset)) => {
                let reset = reset.to_string();
                let headers = [
                    ("x-ratelimit-remaining", "0"),
                    ("x-ratelimit-reset", &reset),
                ];
                let message = json!({ "message": "API rate limit exceeded for 127.0.0.1." });
                return reply(403, &headers, message.to_string());
            }
            Some(ApiFault::SecondaryLimit) => {
                let message = "You have exceeded a secondary rate limit.";
                return reply(403, &[], json!({ "message": message }).to_string());
            }
            Some(ApiFault::Page) => return reply(200, &[], PAGE),
            Some(ApiFault::Endless) => {
                let blanks = Bytes::from(vec![b' '; 1 << 20]);
                let body = stream::repeat_with(move || Ok::<_, io::Error>(blanks.clone()));
                return reply(200, &[], Body::from_stream(body));
            }
            Some(ApiFault::Stall) => return status(100),
        }
        let given = request.headers().get("authorization");
        let right = self.token.as_ref().is_none_or(|token| {
            given.is_some_and(|given| given.as_bytes() == format!("Bearer {token}").as_bytes())
        });
        if !right {
            return status(if given.is_some() { 401 } else { 404 });
        }
        let named = path.strip_prefix(&format!("/repos/{OWNER}/{REPOSITORY}"));
        let rest = match (named, path.strip_prefix("/repositories/7")) {
            (Some(rest), _) if self.renamed => {
                let query = request.uri().query().unwrap_or_default();
                return redirect(&format!("/api/v3/repositories/7{rest}?{query}"));
            }
            (Some(rest), _) | (None, Some(rest)) => rest,
            (None, None) => return status(404),
        };
        if let Some(tag) = rest.strip_prefix("/releases/tags/") {
            let found = self
                .releases
                .iter()
                .position(|it| it.tag == tag && !it.draft);
            return found.map_or_else(
                || status(404),
                |index| reply(200, &[], self.release(index).to_string()),
            );
        }
        if let Some(id) = rest.strip_prefix("/releases/assets/") {
            return redirect(&format!("{}/{id}?signature=valid", self.storage));
        }
        match rest {
            "/releases" => self.listing(request),
            _ => status(404),
        }
    }

    fn page(&self, path: &str) -> Answer {
        let parts: Vec<_> = path.split('/').collect();
        let [_, OWNER, REPOSITORY, "releases", "download", tag, file] = parts[..] else {
            return status(404);
        };
        let found = self
            .releases
            .iter()
            .enumerate()
            .find_map(|(index, release)| {
                let asset = release.assets.iter().position(|asset| asset.name == file)?;
                (release.tag == tag).then(|| id(index, asset))
            });
        match found {
            Some(id) if self.token.is_none() => {
                redirect(&format!("{}/{id}?signature=valid", self.storage))
            }
            _ => status(404),
        }
    }

    fn listing(&self, request: &Request) -> Answer {
        let query = request.uri().query().unwrap_or_default();
        let query: BTreeMap<_, _> = query
            .split('&')
            .filter_map(|it| it.split_once('='))
            .collect();
        let number = |name: &str| query.get(name).and_then(|text| text.parse::<usize>().ok());
        let asked = number("per_page").unwrap_or(30).min(100);
        let (size, page) = (self.page_size.unwrap_or(asked), number("page").unwrap_or(1));
        let (begin, end) = ((page - 1) * size, page * size);
        let shown = (begin..end.min(self.releases.len())).map(|index| self.release(index));
        let body = Value::Array(shown.collect()).to_string();

        let etag = format!("W/\"{}\"", hex::encode(Sha256::digest(&body)));
        let mut headers = vec![("etag", etag.as_str())];
        let mut links = String::new();
        if end < self.releases.len() {
            // a host that does not know its own name
            let base = format!("http://wrong.invalid{}", request.uri().path());
            let next = page + 1;
            let _ = write!(links, "<{base}?per_page={asked}&page={next}>; rel=\"next\"");
            headers.push(("link", &links));
        }
        if request
            .headers()
            .get("if-none-match")
            .is_some_and(|known| known == etag.as_str())
        {
            return reply(304, &headers[..1], "");
        }
        reply(200, &headers, body)
    }

    fn release(&self, index: usize) -> Value {
        let Release {
            tag,
            title,
            draft,
            assets,
        } = &self.releases[index];
        let asset = |(at, asset): (usize, &Asset)| {
            json!({
                "id": id(index, at),
                "name": asset.name,
                "state": asset.state,
                "size": asset.size,
                "digest": asset.digest,
                "browser_download_url":
                    format!("{}/{OWNER}/{REPOSITORY}/releases/download/{tag}/{}", self.pages, asset.name),
            })
        };
        let assets: Vec<_> = assets.iter().enumerate().map(asset).collect();
        json!({ "id": index, "tag_name": tag, "name": title, "draft": draft, "assets": assets })
    }

    fn store(&mut self, request: &Request) -> Answer {
        self.stored.push(request.headers().clone());
        let id: Option<usize> = request.uri().path()[1..].parse().ok();
        let asset = id.and_then(|id| {
            let release = self.releases.get_mut(id / ASSETS)?;
            release.assets.get_mut(id % ASSETS)
        });
        let Some(asset) = asset.filter(|_| request.uri().query() == Some("signature=valid")) else {
            return status(403);
        };
        let fault = (!asset.faults.is_empty()).then(|| asset.faults.remove(0));
        let all = &asset.content;
        let etag = format!("\"{}\"", hex::encode(Sha256::digest(all)));
        let header = |name| request.headers().get(name)?.to_str().ok();
        let from = header("range")
            .filter(|_| header("if-range") == Some(&etag))
            .and_then(|range| {
                range
                    .strip_prefix("bytes=")?
                    .strip_suffix('-')?
                    .parse()
                    .ok()
            })
            .filter(|from| *from < all.len());
        let rest = &all[from.unwrap_or(0)..];
        let (length, last) = (rest.len().to_string(), all.len().saturating_sub(1));
        let range = format!("bytes {}-{last}/{}", from.unwrap_or(0), all.len());
        let headers = [
            ("content-type", "application/octet-stream"),
            ("etag", &etag),
            ("content-length", &length),
            ("content-range", &range),
        ];
        let (code, headers) = match from {
            Some(_) => (206, &headers[..]),
            None => (200, &headers[..3]),
        };
        let broken = |bytes: usize, end: stream::BoxStream<'static, io::Result<Vec<u8>>>| {
            let begin = rest[..bytes.min(rest.len())].to_vec();
            let flushed = async {
                // what was sent so far must arrive, however full the socket is
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
                Ok(Vec::new())
            };
            let body = stream::iter([Ok(begin)])
                .chain(stream::once(flushed))
                .chain(end);
            reply(code, headers, Body::from_stream(body))
        };
        match fault {
            None => reply(code, headers, rest.to_vec()),
            Some(FileFault::Cut(bytes)) => {
                let end = || io::Error::other("cut");
                broken(bytes, stream::iter([Err(end())]).boxed())
            }
            Some(FileFault::Stall(bytes)) => broken(bytes, stream::pending().boxed()),
            Some(FileFault::Status(code)) => status(code),
            Some(FileFault::Page) => reply(200, &[("content-type", "text/html")], PAGE),
        }
    }
}

/// More files than any release of a test has.
const ASSETS: usize = 1000;

const fn id(release: usize, asset: usize) -> usize {
    release * ASSETS + asset
}

fn reply(code: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut answer = Response::new(body.into());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        let header = (name.parse(), value.parse());
        if let (Ok::<axum::http::HeaderName, _>(name), Ok(value)) = header {
            answer.headers_mut().insert(name, value);
        }
    }
    answer
}

fn status(code: u16) -> Answer {
    reply(
        code,
        &[],
        json!({ "message": format!("status {code}") }).to_string(),
    )
}

fn redirect(to: &str) -> Answer {
    reply(302, &[("location", to)], "")
}
