use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{body::Body, response::IntoResponse};
use futures::{StreamExt, stream};
use proto::{Reason, Recovery};
use reqwest::{ResponseBuilderExt, header::HeaderMap};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{error::retry_after_at, pull::next_url, *};

pub(super) type Answer = http::Response<Body>;

/// A server that answers the n-th request (from 0) as it is told, and remembers what was asked.
pub(super) struct Server {
    pub(super) url: Url,
    seen: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    pub(super) async fn start(
        answer: impl Fn(usize, &HeaderMap) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let seen: Arc<Mutex<Vec<HeaderMap>>> = Arc::default();
        let (answer, remember) = (Arc::new(answer), Arc::clone(&seen));
        let router = axum::Router::new().fallback(move |headers: HeaderMap| {
            let mut seen = remember.lock().unwrap_or_else(PoisonError::into_inner);
            let response = answer(seen.len(), &headers);
            seen.push(headers);
            async { response }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/file", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url: url.parse().unwrap(),
            seen,
        }
    }

    fn download(&self) -> Download {
        Download::new(self.url.clone(), 64 << 20)
    }

    pub(super) fn requests(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// A header of each request.
    pub(super) fn asked(&self, name: &str) -> Vec<Option<String>> {
        let seen = self.seen.lock().unwrap();
        let text = |headers: &HeaderMap| Some(headers.get(name)?.to_str().unwrap().to_owned());
        seen.iter().map(text).collect()
    }
}

pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.into()).unwrap()
}

pub(super) fn redirect(to: impl AsRef<str>) -> Answer {
    answer(302, &[("location", to.as_ref())], "")
}

/// Bytes that do not repeat soon.
pub(super) fn content(size: usize) -> Vec<u8> {
    (0..size)
        .map(|at| u8::try_from((at / 251 + at % 251) % 256).unwrap())
        .collect()
}

/// The bytes from `from` to `cut`, announced as if all would come; then the connection breaks.
pub(super) fn cut(all: &[u8], from: usize, cut: usize, etag: &str) -> Answer {
    broken(all, from, cut, etag, async {
        Err(std::io::Error::other("cut"))
    })
}

/// The same, but nothing happens then.
pub(super) fn stall(all: &[u8], from: usize, cut: usize, etag: &str) -> Answer {
    broken(all, from, cut, etag, futures::future::pending())
}

fn broken(
    all: &[u8],
    from: usize,
    cut: usize,
    etag: &str,
    end: impl Future<Output = std::io::Result<Vec<u8>>> + Send + 'static,
) -> Answer {
    let part = all[from..cut].to_vec();
    let end = async {
        // what was sent so far must arrive, however full the socket is
        for _ in 0..1000 {
            tokio::task::yield_now().await;
        }
        end.await
    };
    let body = stream::iter([Ok(part)]).chain(stream::once(end));
    let range = format!("bytes {from}-{}/{}", all.len() - 1, all.len());
    let length = (all.len() - from).to_string();
    let headers = [
        ("etag", etag),
        ("content-length", &length),
        ("content-range", &range),
    ];
    let (status, headers) = if from == 0 {
        (200, &headers[..2])
    } else {
        (206, &headers[..])
    };
    answer(status, headers, Body::from_stream(body))
}

/// The byte from which the request wants the rest, if it names the version.
pub(super) fn wanted(headers: &HeaderMap, etag: &str) -> usize {
    let range = headers.get("range").map(|range| range.to_str().unwrap());
    match range.and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    }) {
        Some(from) if headers["if-range"] == etag => from,
        _ => 0,
    }
}

fn downloader(options: &ClientOptions) -> Downloader {
    // an error says that another test was first
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Downloader::new(client(options).unwrap())
}

/// Fetches, and returns the content; on failure there must be no file.
async fn fetch(download: &Download) -> Result<Vec<u8>, DownloadError> {
    fetch_with(&ClientOptions::default(), download).await
}

/// Fetches from a server that falls silent. Others may be slow, on a machine that does a lot at once.
async fn fetch_impatiently(download: &Download) -> Result<Vec<u8>, DownloadError> {
    let options = ClientOptions {
        silence_timeout: Duration::from_secs(1),
        ..ClientOptions::default()
    };
    fetch_with(&options, download).await
}

async fn fetch_with(
    options: &ClientOptions,
    download: &Download,
) -> Result<Vec<u8>, DownloadError> {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("target");
    let result = downloader(options).fetch(download, &target).await;
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    let downloaded = match result {
        Ok(downloaded) => downloaded,
        Err(error) => {
            assert!(files.is_empty(), "{files:?}");
            return Err(error);
        }
    };
    assert_eq!(files.len(), 1, "{files:?}");
    let content = std::fs::read(target).unwrap();
    assert_eq!(downloaded.size, content.len() as u64);
    assert_eq!(
        downloaded.sha256,
        <[u8; 32]>::from(Sha256::digest(&content))
    );
    Ok(content)
}

async fn failure(download: &Download) -> DownloadError {
    fetch(download).await.unwrap_err()
}

#[tokio::test]
async fn file_arrives_as_announced() {
    let all = content(300_000);
    let sent = all.clone();
    let server = Server::start(move |_, _| answer(200, &[], sent.clone())).await;
    let mut download = server.download();
    download.size = Some(300_000);
    download.sha256 = Some(Sha256::digest(&all).into());
    assert_eq!(fetch(&download).await.unwrap(), all);
    assert_eq!(
        server.asked("accept-encoding"),
        [Some("identity".to_owned())]
    );
}

// pitfall 63
#[tokio::test]
async fn target_changes_only_when_all_is_there() {
    let folder = TempDir::new().unwrap();
    let target = folder.path().join("target");
    std::fs::write(&target, "before").unwrap();
    let server = Server::start(|n, _| answer([500, 200][n], &[], "after")).await;
    let download = server.download();
    let downloader = downloader(&ClientOptions::default());
    downloader.fetch(&download, &target).await.unwrap_err();
    assert_eq!(std::fs::read(&target).unwrap(), b"before");
    downloader.fetch(&download, &target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"after");
}

// pitfall 63
#[tokio::test]
async fn cut_downloads_go_on_where_they_broke() {
    let all = content(500_000);
    let sent = all.clone();
    let server = Server::start(move |n, headers| {
        let from = wanted(headers, "\"one\"");
        cut(&sent, from, [200_000, 400_000, 500_000][n], "\"one\"")
    })
    .await;
    assert_eq!(fetch(&server.download()).await.unwrap(), all);
    let range = |from: &str| Some(format!("bytes={from}-"));
    let expected = [None, range("200000"), range("400000")];
    assert_eq!(server.asked("range"), expected);
}

// pitfall 63
#[tokio::test]
async fn silent_downloads_go_on_where_they_stopped() {
    let all = content(50_000);
    let sent = all.clone();
    let server = Server::start(move |n, headers| {
        let from = wanted(headers, "\"one\"");
        match n {
            0 => stall(&sent, from, 20_000, "\"one\""),
            _ => cut(&sent, from, 50_000, "\"one\""),
        }
    })
    .await;
    let found = fetch_impatiently(&server.download()).await.unwrap();
    assert_eq!(found, all);
    assert_eq!(server.asked("range")[1].as_deref(), Some("bytes=20000-"));
}

#[tokio::test]
async fn content_replaced_meanwhile_is_fetched_anew() {
    let server = Server::start(|n, headers| {
        if n == 0 {
            return cut(&content(400_000), 0, 300_000, "\"old\"");
        }
        assert_eq!(headers["if-range"], "\"old\"");
        answer(200, &[("etag", "\"new\"")], content(9)[3..].to_vec())
    })
    .await;
    assert_eq!(fetch(&server.download()).await.unwrap(), content(9)[3..]);
}

#[tokio::test]
async fn rest_from_elsewhere_is_not_joined() {
    // the server does not keep to the range it was asked for
    let all = content(50_000);
    let sent = all.clone();
    let server = Server::start(move |n, _| match n {
        0 => cut(&sent, 0, 30_000, "\"one\""),
        1 => cut(&sent, 20_000, 50_000, "\"one\""),
        _ => answer(200, &[], sent.clone()),
    })
    .await;
    assert_eq!(fetch(&server.download()).await.unwrap(), all);
    assert_eq!(server.asked("range")[2], None);
}

#[tokio::test]
async fn weak_version_is_not_resumed() {
    let server = Server::start(|n, _| match n {
        0 => cut(&content(50_000), 0, 30_000, "W/\"one\""),
        _ => answer(200, &[], "whole"),
    })
    .await;
    assert_eq!(fetch(&server.download()).await.unwrap(), b"whole");
    assert_eq!(server.asked("range"), [None, None]);
}

#[tokio::test]
async fn three_cuts_are_too_many() {
    let server = Server::start(|_, headers| {
        let from = wanted(headers, "\"one\"");
        cut(&content(100_000), from, from + 20_000, "\"one\"")
    })
    .await;
    let error = failure(&server.download()).await;
    assert!(
        matches!(
            error,
            DownloadError::Lose {
                received: 60_000,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(error.recovery(), Recovery::Unknown);
    assert_eq!(error.reason(), Some(Reason::SourceUnavailable));
    assert_eq!(server.requests(), 3);
}

#[tokio::test]
async fn cuts_of_a_large_file_that_gets_on_are_not_counted() {
    let all = content(6 << 20);
    let sent = all.clone();
    let server = Server::start(move |_, headers| {
        let from = wanted(headers, "\"one\"");
        cut(
            &sent,
            from,
            (from + (1 << 20) + 1).min(sent.len()),
            "\"one\"",
        )
    })
    .await;
    assert_eq!(fetch(&server.download()).await.unwrap(), all);
    assert_eq!(server.requests(), 6);
}

#[tokio::test]
async fn silence_from_the_start_is_an_error_at_once() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let download = Download::new(url.parse().unwrap(), 10);
    let error = fetch_impatiently(&download).await.unwrap_err();
    assert!(
        matches!(&error, DownloadError::Request { source, .. } if source.is_timeout()),
        "{error:?}"
    );
    assert_eq!(error.recovery(), Recovery::Unknown);
}

// pitfall 63
#[tokio::test]
async fn credentials_stay_within_their_origin() {
    let home: Arc<Mutex<String>> = Arc::default();
    let back = Arc::clone(&home);
    let foreign = Server::start(move |_, _| redirect(&*back.lock().unwrap())).await;
    let to = foreign.url.clone();
    let server = Server::start(move |n, _| match n {
        0 => redirect("/moved"),
        1 => redirect(&to),
        _ => answer(200, &[], "content"),
    })
    .await;
    *home.lock().unwrap() = server.url.to_string();
    let mut download = server.download();
    download.authorization = Some(HeaderValue::from_static("Bearer hidden"));
    assert_eq!(fetch(&download).await.unwrap(), b"content");
    let with = Some("Bearer hidden".to_owned());
    assert_eq!(server.asked("authorization"), [with.clone(), with, None]);
    assert_eq!(foreign.asked("authorization"), [None]);
    assert_eq!(foreign.asked("referer"), [None]);
}

#[tokio::test]
async fn endless_redirects_end() {
    let server = Server::start(|_, _| redirect("/file")).await;
    failure(&server.download()).await;
    let other = Server::start(|_, headers| {
        let host = headers["host"].to_str().unwrap();
        let name = if host.starts_with("localhost") {
            "127.0.0.1"
        } else {
            "localhost"
        };
        redirect(format!(
            "http://{name}:{}/",
            host.rsplit_once(':').unwrap().1
        ))
    })
    .await;
    let error = failure(&other.download()).await;
    assert_eq!(error.reason(), Some(Reason::SourceDenied), "{error:?}");
}

#[tokio::test]
async fn link_local_addresses_are_asked_by_nobody() {
    let server = Server::start(|_, _| redirect("http://169.254.169.254/latest")).await;
    let direct = Download::new("http://[fe80::1]/file".parse().unwrap(), 10);
    for download in [server.download(), direct] {
        let error = failure(&download).await;
        assert!(matches!(error, DownloadError::Forbid { .. }), "{error:?}");
        assert_eq!(error.reason(), Some(Reason::SourceDenied));
        assert_eq!(error.recovery(), Recovery::Slow);
    }
}

#[test]
fn redirects_from_https_to_http_or_elsewhere_are_refused() {
    for (location, allowed) in [
        ("https://other.example/file", true),
        ("/file", true),
        ("http://this.example/file", false),
        ("ftp://this.example/file", false),
        ("https://", false),
    ] {
        let here: Url = "https://this.example/from?secret".parse().unwrap();
        let response = http::Response::builder()
            .url(here)
            .header("location", location);
        let next = next_url(&response.body("").unwrap().into());
        assert_eq!(next.is_ok(), allowed, "{location}: {next:?}");
    }
}

#[tokio::test]
async fn wrong_size_and_digest_are_refused() {
    let server = Server::start(|_, _| answer(200, &[], "content")).await;
    let streamed = Server::start(|_, _| {
        let parts = ["con", "tent"].map(Ok::<_, std::io::Error>);
        answer(200, &[], Body::from_stream(stream::iter(parts)))
    })
    .await;
    let wrong = |server: &Server, wrong: &dyn Fn(&mut Download)| {
        let mut download = server.download();
        wrong(&mut download);
        download
    };
    for (download, expected) in [
        (
            wrong(&server, &|it| it.size = Some(8)),
            Reason::SizeMismatch,
        ),
        (
            wrong(&server, &|it| it.size = Some(6)),
            Reason::SizeMismatch,
        ),
        (
            wrong(&streamed, &|it| it.size = Some(6)),
            Reason::SizeMismatch,
        ),
        (
            wrong(&server, &|it| it.limit = 6),
            Reason::SizeLimitExceeded,
        ),
        (
            wrong(&streamed, &|it| it.limit = 6),
            Reason::SizeLimitExceeded,
        ),
        (
            wrong(&server, &|it| it.sha256 = Some([0; 32])),
            Reason::DigestMismatch,
        ),
    ] {
        let error = failure(&download).await;
        assert_eq!(error.reason(), Some(expected), "{error}");
        assert_eq!(error.recovery(), Recovery::Terminal, "{error}");
    }
    // an end that nobody announced may be a cut
    let error = failure(&wrong(&streamed, &|it| it.size = Some(8))).await;
    assert_eq!(error.recovery(), Recovery::Unknown, "{error}");
}

// pitfall 63
#[tokio::test]
async fn web_pages_are_never_taken_for_content() {
    let typed = ("content-type", "text/html; charset=utf-8");
    let binary = ("content-type", "application/octet-stream");
    for (header, body, kind) in [
        (typed, "a page", Content::Any),
        (
            binary,
            "  \n<!DOCTYPE html><title>Log in</title>",
            Content::Any,
        ),
        (binary, "<html>", Content::Any),
        (binary, "no archive at all", Content::Gzip),
        (binary, "", Content::Gzip),
        (("content-encoding", "gzip"), "squeezed", Content::Any),
    ] {
        let server = Server::start(move |_, _| answer(200, &[header], body)).await;
        let mut download = server.download();
        // the wrong size of a page does not hide that it is one
        (download.content, download.size) = (kind, Some(5));
        let error = failure(&download).await;
        assert_eq!(
            error.reason(),
            Some(Reason::ContentRejected),
            "{body}: {error}"
        );
    }
}

#[tokio::test]
async fn each_status_has_class_and_reason() {
    const NONE: &[(&str, &str)] = &[];
    const AFTER: &[(&str, &str)] = &[("retry-after", "7")];
    let fast = Recovery::Fast {
        not_before: Some(Duration::from_secs(7)),
    };
    for (status, headers, recovery, expected) in [
        (404, NONE, Recovery::Slow, Reason::SourceNotFound),
        (401, NONE, Recovery::Slow, Reason::SourceDenied),
        (403, NONE, Recovery::Slow, Reason::SourceDenied),
        (403, AFTER, fast, Reason::SourceUnavailable),
        (429, AFTER, fast, Reason::SourceUnavailable),
        (503, AFTER, fast, Reason::SourceUnavailable),
        (502, NONE, Recovery::Unknown, Reason::SourceUnavailable),
        (206, NONE, Recovery::Unknown, Reason::SourceUnavailable),
    ] {
        let server = Server::start(move |_, _| answer(status, headers, "text")).await;
        let error = failure(&server.download()).await;
        assert_eq!(error.recovery(), recovery, "{error}");
        assert_eq!(error.reason(), Some(expected), "{error}");
        assert_eq!(server.requests(), 1);
    }
}

#[test]
fn time_to_wait_is_a_number_or_a_date_or_the_end_of_a_rate_limit() {
    let now = "2026-11-25T08:00:00Z".parse().unwrap();
    let reset = ("x-ratelimit-reset", "1795593660");
    for (headers, seconds) in [
        (&[("retry-after", "120")][..], Some(120)),
        (
            &[("retry-after", "Wed, 25 Nov 2026 08:01:30 GMT")],
            Some(90),
        ),
        (&[("retry-after", "Wed, 25 Nov 2026 07:00:00 GMT")], Some(0)),
        (&[("retry-after", "soon")], None),
        (&[("retry-after", "-5")], None),
        (&[("x-ratelimit-remaining", "0"), reset], Some(60)),
        (&[("x-ratelimit-remaining", "9"), reset], None),
        (
            &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9e9")],
            None,
        ),
    ] {
        let answer = answer(403, headers, "");
        let found = retry_after_at(answer.headers(), now);
        assert_eq!(found, seconds.map(Duration::from_secs), "{headers:?}");
    }
}

#[tokio::test]
async fn secrets_in_addresses_are_not_shown() {
    let server = Server::start(|_, _| answer(404, &[], "")).await;
    let mut url = server.url.clone();
    url.set_query(Some("signature=hidden"));
    url.set_password(Some("hidden")).unwrap();
    let refused = failure(&Download::new(url.clone(), 10)).await;
    url.set_port(Some(1)).unwrap();
    let unreached = failure(&Download::new(url, 10)).await;
    for error in [refused, unreached] {
        let text = format!("{error} {error:?}");
        assert!(text.contains("/file") && !text.contains("hidden"), "{text}");
    }
}

#[test]
fn certificates_that_are_none_are_refused() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    for pem in [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
    ] {
        let options = ClientOptions {
            root_certificates: Some(pem.to_owned()),
            ..ClientOptions::default()
        };
        let error = client(&options).unwrap_err();
        assert!(
            matches!(error, DownloadError::ReadCertificates { .. }),
            "{pem:?}: {error:?}"
        );
    }
}

#[tokio::test]
async fn folder_that_is_missing_is_our_own_fault() {
    let server = Server::start(|_, _| answer(200, &[], "content").into_response()).await;
    let target = Path::new("/nonexistent/target");
    let error = downloader(&ClientOptions::default())
        .fetch(&server.download(), target)
        .await
        .unwrap_err();
    assert!(matches!(error, DownloadError::Write { .. }));
    assert_eq!(error.reason(), None);
    assert_eq!(server.requests(), 0);
}
