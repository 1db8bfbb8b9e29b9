//! Sources of releases against a GitHub that misbehaves.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is a test, which Clippy sees of functions with #[test] only"
)]

mod fetching;
mod listing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use core_operator::metrics::Metrics;
use core_operator::release::ReleaseName;
use core_operator::source::{Source, SourceSpec, Sources};
use provider_sdk::download::ClientOptions;
use tests::github::{GitHub, OWNER, REPOSITORY};

/// No token, right or wrong, may be seen anywhere but in a header for the API.
const TOKEN: &str = "hidden-token";

fn sources() -> Sources {
    sources_with(ClientOptions::default())
}

/// Sources that give up soon. Others wait, as a machine that does a lot at once may be slow.
fn impatient_sources() -> Sources {
    let mut options = ClientOptions::default();
    options.silence_timeout = Duration::from_secs(1);
    sources_with(options)
}

fn sources_with(options: ClientOptions) -> Sources {
    tests::install_crypto();
    Sources::new(options, Arc::new(Metrics::new())).unwrap()
}

/// The fake's repository, read with a token.
fn spec(github: &GitHub, token: Option<&str>) -> SourceSpec {
    spec_at(github.url(), token, None)
}

fn spec_at(url: &str, token: Option<&str>, ca: Option<&str>) -> SourceSpec {
    use core_operator::api::{GitHubSource, Source};
    use core_operator::args::DefaultSource;
    use k8s_openapi::{ByteString, api::core::v1::LocalObjectReference};

    let secret = |key: &str, value: &str| [(key.to_owned(), ByteString(value.into()))].into();
    let reference = |name: &str| LocalObjectReference {
        name: name.to_owned(),
    };
    let source = Source {
        github: Some(GitHubSource {
            url: Some(url.to_owned()),
            owner: OWNER.to_owned(),
            repository: REPOSITORY.to_owned(),
        }),
        directory: None,
        secret_ref: token.map(|_| reference("token")),
        ca_secret_ref: ca.map(|_| reference("ca")),
    };
    let token = token.map(|token| secret("token", token));
    let ca = ca.map(|ca| secret("ca.crt", ca));
    let (token, ca) = (token.as_ref(), ca.as_ref());
    SourceSpec::resolve(Some(&source), &DefaultSource::None, None, token, ca).unwrap()
}

fn source(github: &GitHub, token: Option<&str>) -> Arc<dyn Source> {
    sources().open(&spec(github, token)).unwrap()
}

fn name(tag: &str) -> ReleaseName {
    tag.parse().unwrap()
}

fn tags(releases: &[ReleaseName]) -> Vec<String> {
    releases.iter().map(ReleaseName::tag).collect()
}

fn seconds_from_now(seconds: i64) -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second() + seconds).unwrap()
}
