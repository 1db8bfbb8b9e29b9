//! What is listed, and how often a host is asked for it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use core_operator::source::SourceError;
use proto::Recovery;
use tests::certificates::Authority;
use tests::github::{ApiFault, GitHub, Release};

use super::*;

const HOUR: Duration = Duration::from_hours(1);

fn releases(count: usize) -> impl Iterator<Item = Release> {
    (1..=count)
        .rev()
        .map(|n| Release::new(&format!("a-b-1-30-v{n}")))
}

// pitfalls 8, 61, 62
#[tokio::test]
async fn tags_of_all_pages_are_listed_and_foreign_ones_counted() {
    let mut releases: Vec<_> = releases(7).collect();
    releases[0] = Release::new("v1.2.3").titled("a-b-1-30-v100");
    releases[1] = Release::new("a-b-1-30-v6").titled("The sixth");
    releases[2] = Release::new("a-b-1-30-v5").draft();
    releases[3] = Release::new("a-b-1-30-v4").with_last(|chart| chart.state = "starter");
    releases[4] = Release::empty("a-b-1-30-v3");
    let github = GitHub::start(releases).await.unwrap();
    github.state().page_size = Some(2);
    let listing = source(&github, None).list().await.unwrap();
    assert_eq!(
        tags(&listing.releases),
        ["a-b-1-30-v6", "a-b-1-30-v2", "a-b-1-30-v1"]
    );
    assert_eq!((listing.foreign, listing.unfinished), (1, 2));
    assert_eq!(github.statuses(), [200; 4]);
}

// pitfalls 1.2: conditional requests
#[tokio::test]
async fn only_changed_pages_are_sent_again() {
    let github = GitHub::start(releases(5)).await.unwrap();
    github.state().page_size = Some(2);
    let source = source(&github, None);
    let before = source.list().await.unwrap();
    assert_eq!(source.list().await.unwrap(), before);
    assert_eq!(github.statuses()[3..], [304; 3]);
    github.state().releases[3].draft = true;
    let after = source.list().await.unwrap();
    assert_eq!(after.releases.len(), 4);
    assert_eq!(github.statuses()[6..], [304, 200, 304]);
}

#[tokio::test]
async fn renamed_repository_is_found_with_the_token() {
    let github = GitHub::start(releases(1)).await.unwrap();
    {
        let mut state = github.state();
        (state.renamed, state.token) = (true, Some(TOKEN.to_owned()));
    }
    let listing = source(&github, Some(TOKEN)).list().await.unwrap();
    assert_eq!(listing.releases.len(), 1);
    assert_eq!(github.statuses(), [302, 200]);
}

#[tokio::test]
async fn each_refusal_has_its_class_and_says_what_to_do() {
    let github = GitHub::start(releases(1)).await.unwrap();
    let list = async |token, fault| {
        github.state().fault = fault;
        source(&github, token).list().await.unwrap_err()
    };
    let status = |code| Some(ApiFault::Status(code));
    for (token, fault, class, advice) in [
        (Some(TOKEN), status(401), "slow", "renew the token"),
        (Some(TOKEN), status(403), "slow", "give the token the right"),
        (
            Some(TOKEN),
            status(404),
            "slow",
            "whether the token may read it",
        ),
        (
            None,
            status(404),
            "slow",
            "private repositories need a token",
        ),
        (
            None,
            status(500),
            "unknown",
            "wait until the host works again",
        ),
        (
            None,
            Some(ApiFault::Page),
            "slow",
            "is this the API of GitHub?",
        ),
        (
            None,
            Some(ApiFault::SecondaryLimit),
            "fast",
            "or give a token",
        ),
        (
            Some(TOKEN),
            Some(ApiFault::RateLimit(seconds_from_now(500))),
            "fast",
            "wait until",
        ),
    ] {
        let error = list(token, fault).await;
        assert_eq!(error.recovery().as_str(), class, "{error}");
        let text = format!("{error} {error:?}");
        assert!(
            text.contains(advice) && !text.contains(TOKEN),
            "{advice}: {text}"
        );
        let place = format!("\"sovereign/stacks\" at \"{}/api/v3\"", github.url());
        assert!(error.to_string().contains(&place), "{text}");
    }
}

#[tokio::test]
async fn time_of_a_rate_limit_is_kept_to() {
    let github = GitHub::start([]).await.unwrap();
    for (reset, expected) in [(300, 200..=300), (100_000, 3500..=3600), (-5, 0..=0)] {
        github.state().fault = Some(ApiFault::RateLimit(seconds_from_now(reset)));
        let error = source(&github, None).list().await.unwrap_err();
        let Recovery::Fast {
            not_before: Some(left),
        } = error.recovery()
        else {
            panic!("{error:?}")
        };
        assert!(expected.contains(&left.as_secs()), "{reset}: {left:?}");
    }
}

#[tokio::test]
async fn host_that_is_silent_or_gone_is_unknown() {
    let github = GitHub::start([]).await.unwrap();
    github.state().fault = Some(ApiFault::Stall);
    let gone = spec_at("http://127.0.0.1:1", None, None);
    let sources = impatient_sources();
    for spec in [spec(&github, None), gone] {
        let source = sources.open(&spec).unwrap();
        let error = source.list().await.unwrap_err();
        assert!(matches!(error, SourceError::Reach { .. }), "{error}");
        assert_eq!(error.recovery(), Recovery::Unknown);
    }
}

#[tokio::test]
async fn endless_answer_is_cut_off() {
    let github = GitHub::start([]).await.unwrap();
    github.state().fault = Some(ApiFault::Endless);
    let error = source(&github, None).list().await.unwrap_err();
    assert!(matches!(error, SourceError::ExceedLimit { .. }), "{error}");
}

#[tokio::test]
async fn host_with_a_certificate_of_its_own_is_trusted_by_those_who_say_so() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let url = serve_tls(&authority);
    let list = async |ca: Option<&str>| {
        let source = sources().open(&spec_at(&url, None, ca))?;
        source.list().await
    };
    list(Some(&authority.certificate())).await.unwrap();
    for ca in [None, Some(&*other.certificate())] {
        let error = list(ca).await.unwrap_err();
        assert!(matches!(error, SourceError::Reach { .. }), "{error}");
    }
    let torn = authority.certificate().replace("MII", "A");
    let error = list(Some(&torn)).await.unwrap_err();
    assert!(matches!(error, SourceError::Prepare { .. }), "{error}");
    assert_eq!(error.recovery(), Recovery::Terminal);
}

/// Answers each request with an empty list, over TLS.
fn serve_tls(authority: &Authority) -> String {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    tests::install_crypto();
    let identity = authority.server(&[]).unwrap();
    let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut lines = BufReader::new(&mut stream).lines().map_while(Result::ok);
            // no request if the client does not trust us
            if lines.any(|line| line.is_empty()) {
                let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n[]";
                stream.write_all(answer.as_bytes()).unwrap();
                stream.conn.send_close_notify();
                stream.flush().unwrap();
            }
        }
    });
    url
}

#[tokio::test]
async fn proxy_of_the_environment_is_used() {
    const CHILD: &str = "TEST_BEHIND_A_PROXY";
    if std::env::var_os(CHILD).is_some() {
        let spec = spec_at("http://github.invalid", None, None);
        let listing = sources().open(&spec).unwrap().list().await.unwrap();
        assert_eq!(listing.releases.len(), 3);
        return;
    }
    let github = GitHub::start(releases(3)).await.unwrap();
    // the environment of this process cannot be changed while others read it
    let output = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "listing::proxy_of_the_environment_is_used"])
        .env(CHILD, "")
        .env("http_proxy", github.url())
        .env("no_proxy", "")
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(github.statuses(), [200]);
    assert_eq!(github.requests()[0].headers["host"], "github.invalid");
}

#[tokio::test]
async fn stacks_that_ask_at_once_share_one_request() {
    let github = GitHub::start(releases(3)).await.unwrap();
    let (sources, spec) = (sources(), spec(&github, None));
    let ask = || sources.listing(&spec, Duration::ZERO);
    let listings = futures::future::join_all((0..50).map(|_| ask())).await;
    assert!(
        listings
            .iter()
            .all(|listing| listing.as_ref().unwrap().releases.len() == 3)
    );
    assert_eq!(github.statuses(), [200]);
    // later ones ask again, unless they are content with less
    sources.listing(&spec, HOUR).await.unwrap();
    assert_eq!(github.statuses(), [200]);
    ask().await.unwrap();
    assert_eq!(github.statuses(), [200, 304]);
}

#[tokio::test]
async fn sources_with_other_tokens_are_asked_on_their_own() {
    let github = GitHub::start(releases(1)).await.unwrap();
    github.state().token = Some(TOKEN.to_owned());
    let sources = sources();
    sources
        .listing(&spec(&github, Some(TOKEN)), HOUR)
        .await
        .unwrap();
    for other in [Some("other"), None] {
        sources
            .listing(&spec(&github, other), HOUR)
            .await
            .unwrap_err();
    }
    assert_eq!(github.statuses(), [200, 401, 404]);
}

#[tokio::test]
async fn silent_source_does_not_delay_another() {
    let [silent, other] = [
        GitHub::start([]).await.unwrap(),
        GitHub::start([]).await.unwrap(),
    ];
    silent.state().fault = Some(ApiFault::Stall);
    let sources = sources();
    let (slow, fast) = (spec(&silent, None), spec(&other, None));
    let fast = async {
        // the silent one is being asked
        while silent.requests().is_empty() {
            tokio::task::yield_now().await;
        }
        sources.listing(&fast, HOUR).await
    };
    tokio::select! {
        listing = sources.listing(&slow, HOUR) => panic!("{listing:?}"),
        listing = fast => assert!(listing.is_ok(), "{listing:?}"),
    }
}

#[tokio::test]
async fn source_is_not_asked_before_its_rate_limit_ends() {
    let github = GitHub::start(releases(1)).await.unwrap();
    let (sources, spec) = (sources(), spec(&github, None));
    let ask = || sources.listing(&spec, Duration::ZERO);
    github.state().fault = Some(ApiFault::RateLimit(seconds_from_now(500)));
    let error = ask().await.unwrap_err();
    assert_eq!(error.to_string(), ask().await.unwrap_err().to_string());
    assert_eq!(github.statuses(), [403]);

    let github = GitHub::start(releases(1)).await.unwrap();
    let spec = super::spec(&github, None);
    github.state().fault = Some(ApiFault::RateLimit(seconds_from_now(0)));
    sources.listing(&spec, Duration::ZERO).await.unwrap_err();
    github.state().fault = None;
    sources.listing(&spec, Duration::ZERO).await.unwrap();
}
