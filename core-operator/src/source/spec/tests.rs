use k8s_openapi::api::core::v1::LocalObjectReference;
use proto::Recovery;

use super::*;
use crate::api::{DirectorySource, GitHubSource, Source};

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";

fn github_source(url: Option<&str>) -> Source {
    Source {
        github: Some(GitHubSource {
            url: url.map(str::to_owned),
            owner: "org".to_owned(),
            repository: "repo".to_owned(),
        }),
        directory: None,
        secret_ref: None,
        ca_secret_ref: None,
    }
}

fn directory_source(path: &str) -> Source {
    Source {
        github: None,
        directory: Some(DirectorySource {
            path: path.to_owned(),
        }),
        ..github_source(None)
    }
}

fn reference(name: &str) -> LocalObjectReference {
    LocalObjectReference {
        name: name.to_owned(),
    }
}

fn secret(key: &str, value: &[u8]) -> SecretData {
    SecretData::from([(key.to_owned(), ByteString(value.to_vec()))])
}

fn process() -> DefaultSource {
    DefaultSource::Github {
        url: GITHUB_API.parse().unwrap(),
        owner: "org".to_owned(),
        repository: "repo".to_owned(),
        token: Some("process-token".into()),
    }
}

fn resolve(source: &Source) -> Result<SourceSpec, SourceError> {
    SourceSpec::resolve(
        Some(source),
        &process(),
        Some(Path::new("/root")),
        None,
        None,
    )
}

fn repository(spec: Result<SourceSpec, SourceError>) -> Repository {
    match spec.unwrap() {
        SourceSpec::GitHub(repository) => repository,
        other @ SourceSpec::Directory { .. } => panic!("{other:?}"),
    }
}

#[test]
fn stack_without_source_takes_the_process_default() {
    let default = SourceSpec::resolve(None, &process(), None, None, None);
    let token = repository(default).token.unwrap();
    assert_eq!(token.expose_secret(), "process-token");

    let local = DefaultSource::Directory {
        path: "/any".into(),
    };
    let expected = SourceSpec::Directory {
        path: "/any".into(),
        root: None,
    };
    let local = SourceSpec::resolve(None, &local, None, None, None);
    assert_eq!(local.unwrap(), expected);

    let none = SourceSpec::resolve(None, &DefaultSource::None, None, None, None);
    assert!(matches!(none, Err(SourceError::NeedSource)));
}

#[test]
fn token_of_the_process_is_for_its_own_source_only() {
    // any tenant could send it to a host of their choice
    assert_eq!(repository(resolve(&github_source(None))).token, None);
}

// pitfall 63
#[test]
fn api_is_found_from_the_address_of_the_pages() {
    for (url, api) in [
        (None, "https://api.github.com/"),
        (Some("https://github.com"), "https://api.github.com/"),
        (Some("https://api.github.com/"), "https://api.github.com/"),
        (
            Some("https://git.example.com"),
            "https://git.example.com/api/v3",
        ),
        (
            Some("https://git.example.com/api/v3/"),
            "https://git.example.com/api/v3/",
        ),
        (
            Some("http://git.example.com:8080/sub/"),
            "http://git.example.com:8080/sub/api/v3",
        ),
        (
            Some("https://tenant.ghe.com"),
            "https://api.tenant.ghe.com/",
        ),
        (
            Some("https://api.tenant.ghe.com"),
            "https://api.tenant.ghe.com/",
        ),
    ] {
        let repository = repository(resolve(&github_source(url)));
        assert_eq!(repository.api.as_str(), api, "{url:?}");
    }
    for url in [
        "ftp://git.example.com",
        "https://user:hidden@git.example.com",
        "https://git.example.com?token=hidden",
        "https://hidden:x",
    ] {
        let error = resolve(&github_source(Some(url))).unwrap_err();
        assert_eq!(error.recovery(), Recovery::Terminal, "{url}");
        assert!(!error.to_string().contains("hidden"), "{error}");
    }
}

#[test]
fn names_that_would_change_the_address_are_refused() {
    for (owner, name) in [
        ("..", "repo"),
        ("org", "."),
        ("org", "a/b"),
        ("", "b"),
        ("o?", "b"),
    ] {
        let mut source = github_source(None);
        let github = source.github.as_mut().unwrap();
        (github.owner, github.repository) = (owner.to_owned(), name.to_owned());
        let error = resolve(&source).unwrap_err();
        assert!(
            matches!(error, SourceError::RefuseSource { .. }),
            "{owner}/{name}"
        );
    }
}

#[test]
fn secrets_are_read_or_missed_by_name() {
    let mut source = github_source(None);
    source.secret_ref = Some(reference("my-token"));
    source.ca_secret_ref = Some(reference("my-ca"));
    let resolve = |token: Option<&SecretData>, ca: Option<&SecretData>| {
        SourceSpec::resolve(Some(&source), &process(), None, token, ca)
    };
    let (token, ca) = (secret("token", b"abc\n"), secret("ca.crt", PEM.as_bytes()));
    let found = repository(resolve(Some(&token), Some(&ca)));
    assert_eq!(found.token.unwrap().expose_secret(), "abc");
    assert_eq!(found.ca.as_deref(), Some(PEM));

    for (token, ca, named) in [
        (None, Some(&ca), "Secret \"my-token\""),
        (Some(&token), None, "Secret \"my-ca\""),
        (Some(&ca), Some(&ca), "key \"token\" of Secret \"my-token\""),
        (Some(&secret("token", b" ")), Some(&ca), "key \"token\""),
        (
            Some(&secret("token", b"hid den")),
            Some(&ca),
            "key \"token\"",
        ),
        (
            Some(&secret("token", b"hidden\xff")),
            Some(&ca),
            "key \"token\"",
        ),
        (
            Some(&token),
            Some(&secret("ca.crt", b"none")),
            "key \"ca.crt\" of Secret \"my-ca\"",
        ),
    ] {
        let error = resolve(token, ca).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(named) && !text.contains("hid"), "{text}");
        assert_eq!(error.recovery(), Recovery::Slow);
    }
}

#[test]
fn directories_stay_below_the_source_root() {
    let expected = SourceSpec::Directory {
        path: "/root/team/stacks".into(),
        root: Some("/root".into()),
    };
    assert_eq!(
        resolve(&directory_source("team/./stacks")).unwrap(),
        expected
    );
    for path in ["/etc", "..", "team/../../etc"] {
        let error = resolve(&directory_source(path)).unwrap_err();
        assert!(matches!(error, SourceError::RefuseSource { .. }), "{path}");
    }
    let source = directory_source("team");
    let error = SourceSpec::resolve(Some(&source), &process(), None, None, None).unwrap_err();
    assert!(error.to_string().contains("--source-root"), "{error}");
}

#[test]
fn source_of_none_or_two_kinds_is_refused() {
    let both = Source {
        directory: directory_source("team").directory,
        ..github_source(None)
    };
    let none = Source {
        github: None,
        ..github_source(None)
    };
    for source in [both, none] {
        let error = resolve(&source).unwrap_err();
        assert!(matches!(error, SourceError::RefuseSource { .. }), "{error}");
    }
}

#[test]
fn sources_differ_by_credentials_and_do_not_show_them() {
    let with = |token: Option<&str>, ca: Option<&str>| {
        let api = GITHUB_API.parse().unwrap();
        let ca = ca.map(str::to_owned);
        github(api, "org", "repo", token.map(Into::into), ca).unwrap()
    };
    assert_eq!(with(Some("hidden"), None), with(Some("hidden"), None));
    assert_ne!(with(Some("hidden"), None), with(Some("other"), None));
    assert_ne!(with(Some("hidden"), None), with(None, None));
    assert_ne!(with(None, Some(PEM)), with(None, None));
    let spec = with(Some("hidden"), None);
    let SourceSpec::GitHub(repository) = &spec else {
        panic!("{spec:?}")
    };
    for text in [
        format!("{spec:?}"),
        repository.to_string(),
        spec.to_string(),
    ] {
        assert!(text.contains("repo") && !text.contains("hidden"), "{text}");
    }
}
