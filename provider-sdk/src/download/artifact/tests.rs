use async_compression::{
    Level,
    tokio::bufread::{BzEncoder, GzipEncoder, XzEncoder, ZstdEncoder},
};
use axum::body::Body;
use futures::stream;
use proto::{Compression, HttpSource, ProviderError};
use reqwest::Url;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::io::AsyncWriteExt;

use super::*;
use crate::download::tests::{Server, answer, content, cut, redirect, stall, wanted};

const NONE: &[(&str, &str)] = &[];

fn artifact(servers: &[&Server], compression: Compression) -> Artifact {
    artifact_at(
        servers.iter().map(|server| server.url.clone()).collect(),
        compression,
    )
}

fn artifact_at(urls: Vec<Url>, compression: Compression) -> Artifact {
    let source = HttpSource {
        urls,
        ca_bundle_pem: Vec::new(),
    };
    Artifact::new(Source::Http(source), compression)
}

fn options() -> ReadOptions {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    ReadOptions::new(64 << 20).with_loopback(true)
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::new(Algorithm::Sha256, &Sha256::digest(bytes)).unwrap()
}

fn sha512(bytes: &[u8]) -> Digest {
    Digest::new(Algorithm::Sha512, &Sha512::digest(bytes)).unwrap()
}

/// Reads to the end; an error must come in place of the end.
async fn read_with(
    artifact: &Artifact,
    options: &ReadOptions,
) -> Result<(Vec<u8>, Received), DownloadError> {
    let mut reader = open(artifact, options).await?;
    let outcome = reader.outcome();
    let mut bytes = Vec::new();
    let end = reader.read_to_end(&mut bytes).await;
    drop(reader);
    let verdict = outcome.take().expect("a verdict at the end");
    assert_eq!(end.is_ok(), verdict.is_ok(), "{end:?} {verdict:?}");
    Ok((bytes, verdict?))
}

async fn read(artifact: &Artifact) -> Result<(Vec<u8>, Received), DownloadError> {
    read_with(artifact, &options()).await
}

async fn failure(artifact: &Artifact) -> (Option<Reason>, DownloadError) {
    let error = read(artifact).await.unwrap_err();
    (error.reason(), error)
}

async fn whole(bytes: Vec<u8>) -> Server {
    Server::start(move |_, _| answer(200, NONE, bytes.clone())).await
}

async fn status(status: u16) -> Server {
    Server::start(move |_, _| answer(status, NONE, "")).await
}

async fn compressed(bytes: &[u8], compression: Compression) -> Vec<u8> {
    let mut all = Vec::new();
    match compression {
        Compression::Gzip => GzipEncoder::new(bytes).read_to_end(&mut all).await,
        Compression::Xz => XzEncoder::new(bytes).read_to_end(&mut all).await,
        Compression::Zstd => ZstdEncoder::new(bytes).read_to_end(&mut all).await,
        Compression::Bzip2 => BzEncoder::new(bytes).read_to_end(&mut all).await,
        _ => (&*bytes).read_to_end(&mut all).await,
    }
    .unwrap();
    all
}

/// The rest that a request wants, of a server that keeps to ranges and names no version.
fn ranged(all: &[u8], headers: &reqwest::header::HeaderMap) -> crate::download::tests::Answer {
    match headers.get("range") {
        None => answer(200, NONE, all.to_vec()),
        Some(range) => {
            let from = range.to_str().unwrap();
            let from: usize = from["bytes=".len()..from.len() - 1].parse().unwrap();
            let range = format!("bytes {from}-{}/{}", all.len() - 1, all.len());
            answer(206, &[("content-range", &*range)], all[from..].to_vec())
        }
    }
}

#[tokio::test]
async fn each_compression_arrives_as_content() {
    let inside = content(700_000);
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
    ] {
        let packed = compressed(&inside, compression).await;
        let server = whole(packed.clone()).await;
        let artifact = artifact(&[&server], compression)
            .with_digest(sha512(&packed))
            .with_size(packed.len() as u64)
            .with_uncompressed_digest(sha256(&inside));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let see = Arc::clone(&seen);
        let options = options()
            .with_content_digest(Algorithm::Sha512)
            .with_progress(move |bytes| see.lock().unwrap().push(bytes));
        let (bytes, received) = read_with(&artifact, &options).await.unwrap();
        assert_eq!(bytes, inside, "{compression:?}");
        assert_eq!(received.served_digest, sha512(&packed));
        assert_eq!(received.served_bytes, packed.len() as u64);
        assert_eq!(received.content_digest, Some(sha512(&inside)));
        assert_eq!(received.content_bytes, 700_000);
        let seen = seen.lock().unwrap();
        assert!(seen.is_sorted(), "{seen:?}");
        assert_eq!(seen.last(), Some(&(packed.len() as u64)));
    }
}

#[tokio::test]
async fn digests_are_known_without_an_announced_one() {
    let server = whole(content(1000)).await;
    let (_, received) = read(&artifact(&[&server], Compression::None))
        .await
        .unwrap();
    assert_eq!(received.served_digest, sha256(&content(1000)));
    assert_eq!(received.content_digest, Some(sha256(&content(1000))));

    let packed = compressed(&content(1000), Compression::Gzip).await;
    let server = whole(packed.clone()).await;
    let (_, received) = read(&artifact(&[&server], Compression::Gzip))
        .await
        .unwrap();
    assert_eq!(received.served_digest, sha256(&packed));
    assert_eq!(received.content_digest, None);
    assert_eq!(received.content_bytes, 1000);
}

#[tokio::test]
async fn members_in_a_row_are_one_content() {
    for compression in [
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
    ] {
        let mut packed = compressed(b"one ", compression).await;
        packed.extend(compressed(b"two", compression).await);
        let server = whole(packed).await;
        let (bytes, _) = read(&artifact(&[&server], compression)).await.unwrap();
        assert_eq!(bytes, b"one two", "{compression:?}");
    }
}

#[tokio::test]
async fn next_mirror_is_asked_where_one_fails() {
    let good = whole(b"content".to_vec()).await;
    let (missing, broken, denied) = (status(404).await, status(500).await, status(403).await);
    let page = Server::start(|_, _| answer(200, &[("content-type", "text/html")], "a page")).await;
    let nobody = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let nobody: Url = format!("http://{nobody}/").parse().unwrap();
    for first in [&missing.url, &broken.url, &denied.url, &page.url, &nobody] {
        let urls = vec![first.clone(), good.url.clone()];
        let (bytes, _) = read(&artifact_at(urls, Compression::None)).await.unwrap();
        assert_eq!(bytes, b"content", "{first}");
    }
    let asked = good.requests();
    let preferred = whole(b"content".to_vec()).await;
    read(&artifact(&[&preferred, &good], Compression::None))
        .await
        .unwrap();
    assert_eq!((preferred.requests(), good.requests()), (1, asked));
}

#[tokio::test]
async fn most_hopeful_mirror_tells_why_all_failed() {
    let (missing, broken, denied) = (status(404).await, status(503).await, status(401).await);
    for (mirrors, expected) in [
        (vec![&missing, &missing], Reason::SourceNotFound),
        (vec![&broken, &missing], Reason::SourceUnavailable),
        (vec![&missing, &broken], Reason::SourceUnavailable),
        (vec![&denied], Reason::SourceDenied),
    ] {
        let (reason, error) = failure(&artifact(&mirrors, Compression::None)).await;
        assert_eq!(reason, Some(expected), "{error:?}");
    }
}

#[tokio::test]
async fn next_mirror_goes_on_where_one_broke_if_a_digest_will_judge() {
    let all = content(300_000);
    let (sent, rest) = (all.clone(), all.clone());
    let first = Server::start(move |_, _| cut(&sent, 0, 200_000, "\"one\"")).await;
    let second = Server::start(move |_, headers| ranged(&rest, headers)).await;
    let judged = artifact(&[&first, &second], Compression::None).with_digest(sha256(&all));
    let (bytes, received) = read(&judged).await.unwrap();
    assert_eq!(bytes, all);
    assert_eq!(received.served_bytes, 300_000);
    assert_eq!(second.asked("range"), [Some("bytes=200000-".to_owned())]);
    // the version of one server means nothing to another
    assert_eq!(second.asked("if-range"), [None]);
}

#[tokio::test]
async fn mirror_without_ranges_goes_on_as_well() {
    let all = content(300_000);
    let (sent, again) = (all.clone(), all.clone());
    let first = Server::start(move |_, _| cut(&sent, 0, 200_000, "W/\"one\"")).await;
    let second = whole(again).await;
    let judged = artifact(&[&first, &second], Compression::None).with_digest(sha256(&all));
    assert_eq!(read(&judged).await.unwrap().0, all);
}

#[tokio::test]
async fn without_a_digest_mirrors_are_not_mixed() {
    let all = content(300_000);
    let sent = all.clone();
    let first = Server::start(move |_, _| cut(&sent, 0, 200_000, "W/\"one\"")).await;
    let second = whole(all.clone()).await;
    let (reason, error) = failure(&artifact(&[&first, &second], Compression::None)).await;
    assert!(matches!(error, DownloadError::Lose { .. }), "{error:?}");
    assert_eq!(reason, Some(Reason::SourceUnavailable));
    assert_eq!((first.requests(), second.requests()), (1, 0));

    // the same server with the same version may go on
    let sent = all.clone();
    let strong = Server::start(move |n, headers| {
        let from = wanted(headers, "\"one\"");
        cut(&sent, from, [200_000, 300_000][n], "\"one\"")
    })
    .await;
    let (bytes, _) = read(&artifact(&[&strong], Compression::None))
        .await
        .unwrap();
    assert_eq!(bytes, all);
}

#[tokio::test]
async fn content_that_changed_on_the_way_is_lost_and_not_joined() {
    let server = Server::start(|n, _| match n {
        0 => cut(&content(300_000), 0, 200_000, "\"old\""),
        _ => answer(200, &[("etag", "\"new\"")], content(300_007)[7..].to_vec()),
    })
    .await;
    let (reason, error) = failure(&artifact(&[&server], Compression::None)).await;
    assert!(matches!(error, DownloadError::Change { .. }), "{error:?}");
    assert_eq!(reason, Some(Reason::SourceUnavailable));
}

#[tokio::test]
async fn mirrors_that_differ_are_no_wrong_digest() {
    let all = content(300_000);
    let sent = all.clone();
    let first = Server::start(move |_, _| cut(&sent, 0, 200_000, "\"one\"")).await;
    let second = whole(content(300_007)[7..].to_vec()).await;
    let judged = artifact(&[&first, &second], Compression::None).with_digest(sha256(&all));
    let (_, error) = failure(&judged).await;
    assert!(matches!(error, DownloadError::Change { .. }), "{error:?}");
}

#[tokio::test]
async fn silent_server_is_left_for_the_next() {
    let all = content(300_000);
    let (sent, rest) = (all.clone(), all.clone());
    let first = Server::start(move |_, _| stall(&sent, 0, 200_000, "\"one\"")).await;
    let second = Server::start(move |_, headers| ranged(&rest, headers)).await;
    let judged = artifact(&[&first, &second], Compression::None).with_digest(sha256(&all));
    let mut options = options();
    options.silence_timeout = Duration::from_secs(1);
    assert_eq!(read_with(&judged, &options).await.unwrap().0, all);
}

#[tokio::test]
async fn wrong_bytes_end_with_an_error_in_place_of_the_end() {
    let server = whole(b"content".to_vec()).await;
    let plain = || artifact(&[&server], Compression::None);
    for (wrong, expected) in [
        (
            plain().with_digest(sha256(b"other")),
            Reason::DigestMismatch,
        ),
        (
            plain().with_digest(sha512(b"other")),
            Reason::DigestMismatch,
        ),
        (
            plain().with_uncompressed_digest(sha256(b"other")),
            Reason::DigestMismatch,
        ),
        (
            plain().with_uncompressed_digest(sha512(b"other")),
            Reason::DigestMismatch,
        ),
        (plain().with_size(6), Reason::SizeMismatch),
        (plain().with_size(8), Reason::SizeMismatch),
    ] {
        let (reason, error) = failure(&wrong).await;
        assert_eq!(reason, Some(expected), "{error:?}");
    }
    let packed = compressed(b"content", Compression::Zstd).await;
    let server = whole(packed.clone()).await;
    let inner = artifact(&[&server], Compression::Zstd)
        .with_digest(sha256(&packed))
        .with_uncompressed_digest(sha256(b"other"));
    assert_eq!(failure(&inner).await.0, Some(Reason::DigestMismatch));
}

#[tokio::test]
async fn broken_compression_is_judged_by_the_digest_first() {
    for compression in [
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
    ] {
        let packed = compressed(&content(200_000), compression).await;
        let mut garbled = packed.clone();
        let middle = garbled.len() / 2;
        garbled[middle..].fill(0xa5);
        for broken in [
            garbled,
            packed[..middle].to_vec(),
            b"not compressed at all".to_vec(),
        ] {
            let server = whole(broken.clone()).await;
            let plain = || artifact(&[&server], compression);
            for (artifact, expected) in [
                (plain(), Reason::ContentRejected),
                (
                    plain().with_digest(sha256(&broken)),
                    Reason::ContentRejected,
                ),
                (plain().with_digest(sha256(&packed)), Reason::DigestMismatch),
            ] {
                let (reason, error) = failure(&artifact).await;
                assert_eq!(reason, Some(expected), "{compression:?}: {error:?}");
            }
        }
    }
}

#[tokio::test]
async fn expansion_ends_at_the_limit() {
    for compression in [
        Compression::Gzip,
        Compression::Xz,
        Compression::Zstd,
        Compression::Bzip2,
    ] {
        let server = whole(compressed(&vec![0; 3 << 20], compression).await).await;
        let artifact = artifact(&[&server], compression);
        let mut options = options();
        options.max_bytes = 2 << 20;
        let mut reader = open(&artifact, &options).await.unwrap();
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).await.unwrap_err();
        assert!(bytes.len() <= 2 << 20, "{}", bytes.len());
        let error = reader.finish().await.unwrap_err();
        assert_eq!(error.reason(), Some(Reason::SizeLimitExceeded), "{error:?}");
        options.max_bytes = 3 << 20;
        read_with(&artifact, &options).await.unwrap();
    }
}

/// The checksum at the end of headers of xz.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

#[tokio::test]
async fn xz_may_not_ask_for_any_amount_of_memory() {
    let mut highest = Vec::new();
    XzEncoder::with_quality(&b"content"[..], Level::Best)
        .read_to_end(&mut highest)
        .await
        .unwrap();
    let server = whole(highest.clone()).await;
    read(&artifact(&[&server], Compression::Xz)).await.unwrap();

    // behind the header of the stream: size, flags, LZMA2, one byte of properties: the dictionary
    let block = 12;
    let end = block + 4 * usize::from(highest[block]);
    assert_eq!(highest[block + 2..block + 4], [0x21, 1]);
    highest[block + 4] = 36; // 1 GiB
    let sum = crc32(&highest[block..end]);
    highest[end..end + 4].copy_from_slice(&sum.to_le_bytes());
    let server = whole(highest).await;
    let (reason, error) = failure(&artifact(&[&server], Compression::Xz)).await;
    assert_eq!(reason, Some(Reason::ContentRejected), "{error:?}");
    let text = format!("{error:?}").to_lowercase();
    assert!(text.contains("mem"), "{text}");
}

#[tokio::test]
async fn credentials_go_to_mirrors_and_never_to_another_host() {
    let foreign = whole(b"content".to_vec()).await;
    let to = foreign.url.clone();
    let first = status(500).await;
    let second = Server::start(move |_, _| redirect(&to)).await;
    for (secrets, header) in [
        (
            vec![("username", "someone"), ("password", "hidden")],
            "Basic c29tZW9uZTpoaWRkZW4=",
        ),
        (vec![("bearer_token", "hidden\n")], "Bearer hidden"),
    ] {
        let secrets = secrets
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let artifact =
            artifact(&[&first, &second], Compression::None).with_secrets(secrets.collect());
        assert_eq!(read(&artifact).await.unwrap().0, b"content");
        let last = |server: &Server| server.asked("authorization").pop().unwrap();
        assert_eq!(last(&first).as_deref(), Some(header));
        assert_eq!(last(&second).as_deref(), Some(header));
        assert_eq!(last(&foreign), None);
    }
}

#[tokio::test]
async fn credentials_that_are_no_text_are_refused_without_showing_them() {
    let server = whole(b"content".to_vec()).await;
    for value in [&b"hidden\nx: y"[..], b"hidden\xff"] {
        let secrets = [("bearer_token".to_owned(), value.to_vec())];
        let artifact =
            artifact(&[&server], Compression::None).with_secrets(secrets.into_iter().collect());
        let (reason, error) = failure(&artifact).await;
        assert_eq!(reason, Some(Reason::SourceDenied), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hidden"));
    }
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn own_machine_is_asked_only_where_allowed() {
    let server = whole(b"content".to_vec()).await;
    let port = server.url.port().unwrap();
    let remote = options().with_loopback(false);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"] {
        let url = format!("http://{host}:{port}/").parse().unwrap();
        let artifact = artifact_at(vec![url], Compression::None);
        let error = open(&artifact, &remote).await.unwrap_err();
        assert!(matches!(error, DownloadError::Forbid { .. }), "{error:?}");
        assert_eq!(error.reason(), Some(Reason::SourceDenied), "{host}");
    }
    assert_eq!(server.requests(), 0);

    let leads = Server::start(|_, _| redirect("http://169.254.169.254/latest")).await;
    let (reason, error) = failure(&artifact(&[&leads], Compression::None)).await;
    assert!(matches!(error, DownloadError::Forbid { .. }), "{error:?}");
    assert_eq!(reason, Some(Reason::SourceDenied));
}

/// A server with a certificate of a CA of its own, and that CA.
async fn tls_server() -> (Url, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(["localhost".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            key.serialize_der().try_into().unwrap(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = acceptor.accept(connection).await else {
                    return;
                };
                let mut asked = Vec::new();
                while !asked.ends_with(b"\r\n\r\n") {
                    asked.push(connection.read_u8().await.unwrap());
                }
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\ncontent";
                connection.write_all(answer).await.unwrap();
                connection.shutdown().await.unwrap();
            });
        }
    });
    let url = format!("https://localhost:{port}/").parse().unwrap();
    (url, ca)
}

#[tokio::test]
async fn certificates_of_an_artifact_are_trusted_for_it() {
    let (url, ca) = tls_server().await;
    let (reason, error) = failure(&artifact_at(vec![url.clone()], Compression::None)).await;
    assert_eq!(reason, Some(Reason::SourceUnavailable), "{error:?}");
    let with = |pem: &str| {
        let source = HttpSource {
            urls: vec![url.clone()],
            ca_bundle_pem: pem.as_bytes().to_vec(),
        };
        Artifact::new(Source::Http(source), Compression::None)
    };
    assert_eq!(read(&with(&ca)).await.unwrap().0, b"content");
    let error = ProviderError::from(read(&with("nothing")).await.unwrap_err());
    assert_eq!(error.reason(), Some(Reason::InvalidField));
    assert_eq!(error.fields()[0].0, "spec.artifact.http.ca_bundle_pem");
}

#[tokio::test]
async fn dropped_reader_closes_its_connection() {
    let (gone, closed) = tokio::sync::oneshot::channel::<()>();
    let gone = Mutex::new(Some(gone));
    let server = Server::start(move |_, _| {
        let gone = gone.lock().unwrap().take();
        let forever = stream::unfold(gone, |gone| async {
            // keeps the sender as long as the server sends
            Some((Ok::<_, io::Error>(vec![0; 1000]), gone))
        });
        answer(200, NONE, Body::from_stream(forever))
    })
    .await;
    let artifact = artifact(&[&server], Compression::None);
    let mut reader = open(&artifact, &options()).await.unwrap();
    reader.read_u8().await.unwrap();
    let outcome = reader.outcome();
    drop(reader);
    closed.await.unwrap_err();
    assert!(outcome.take().is_none());
}

#[tokio::test]
async fn reader_that_is_left_early_still_gets_a_verdict() {
    let server = whole(content(300_000)).await;
    let good = artifact(&[&server], Compression::None).with_digest(sha256(&content(300_000)));
    let mut reader = open(&good, &options()).await.unwrap();
    assert_eq!(reader.total(), Some(300_000));
    reader.read_exact(&mut [0; 1000]).await.unwrap();
    assert_eq!(reader.finish().await.unwrap().content_bytes, 300_000);
    let bad = good.with_digest(sha256(b"other"));
    let reader = open(&bad, &options()).await.unwrap();
    let error = reader.finish().await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DigestMismatch));
}

#[tokio::test]
async fn same_failure_has_the_same_words() {
    let mut texts = Vec::new();
    for cut_at in [1000, 2000] {
        let server = Server::start(move |_, _| cut(&content(5000), 0, cut_at, "W/\"one\"")).await;
        let (_, error) = failure(&artifact(&[&server], Compression::None)).await;
        let error = ProviderError::from(error);
        assert_eq!(error.metadata()["received_bytes"], cut_at.to_string());
        assert_eq!(error.reason(), Some(Reason::SourceUnavailable));
        let port = server.url.port().unwrap().to_string();
        texts.push(error.to_string().replace(&port, "port"));
    }
    assert_eq!(texts[0], texts[1]);
    let server = Server::start(|_, _| answer(503, &[("retry-after", "7")], "")).await;
    let mut url = server.url.clone();
    url.set_query(Some("signature=hidden"));
    let (_, error) = failure(&artifact_at(vec![url], Compression::None)).await;
    let error = ProviderError::from(error);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
    assert!(!error.to_string().contains("hidden"), "{error}");
}

#[tokio::test]
async fn only_files_behind_http_are_read() {
    let oci = Artifact::oci("registry.example/image", sha256(b""));
    let nowhere = artifact_at(Vec::new(), Compression::None);
    for artifact in [oci, nowhere] {
        assert_eq!(
            failure(&artifact).await.0,
            Some(Reason::UnsupportedArtifact)
        );
    }
}
