//! What arrives in the folder, and where the token goes.

use core_operator::source::{Fetched, SourceError};
use proto::Recovery;
use tempfile::TempDir;
use tests::github::{ApiFault, Asset, FileFault, GitHub, Release};

use super::*;

const TAG: &str = "a-b-1-30-v1";

/// The files that arrive, with their content.
async fn fetch(source: &dyn Source) -> Result<Vec<(String, Vec<u8>)>, SourceError> {
    let into = TempDir::new().unwrap();
    let fetched = source.fetch(&name(TAG), into.path()).await?;
    let files = files(into.path());
    let bytes = files.iter().map(|(_, content)| content.len() as u64).sum();
    let files_and_bytes = Fetched {
        files: files.len(),
        bytes,
    };
    assert_eq!(fetched, files_and_bytes);
    Ok(files)
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let release = Release::from_folder(folder).unwrap();
    let mut files: Vec<_> = release
        .assets
        .into_iter()
        .map(|it| (it.name, it.content))
        .collect();
    files.sort();
    files
}

fn content(release: &Release) -> Vec<(String, Vec<u8>)> {
    let assets = release.assets.iter().cloned();
    let mut files: Vec<_> = assets.map(|it| (it.name, it.content)).collect();
    files.sort();
    files
}

async fn failure(release: Release) -> SourceError {
    let github = GitHub::start([release]).await.unwrap();
    fetch(&*source(&github, None)).await.unwrap_err()
}

// pitfall 63
#[tokio::test]
async fn token_is_for_the_api_only() {
    let release = Release::new(TAG);
    let github = GitHub::start([release.clone()]).await.unwrap();
    github.state().token = Some(TOKEN.to_owned());
    let found = fetch(&*source(&github, Some(TOKEN))).await.unwrap();
    assert_eq!(found, content(&release));
    for seen in github.requests() {
        assert!(seen.path.starts_with("/api/v3/"), "{}", seen.path);
        assert_eq!(seen.headers["authorization"], format!("Bearer {TOKEN}"));
    }
    let stored = github.stored();
    assert_eq!(stored.len(), 2);
    for headers in stored {
        assert!(!format!("{headers:?}").contains(TOKEN), "{headers:?}");
        assert!(!headers.contains_key("referer") && !headers.contains_key("authorization"));
    }
}

#[tokio::test]
async fn files_without_token_cost_nothing_of_the_rate_limit() {
    let release = Release::new(TAG);
    let github = GitHub::start([release.clone()]).await.unwrap();
    assert_eq!(
        fetch(&*source(&github, None)).await.unwrap(),
        content(&release)
    );
    let of_api = |path: &str| path.starts_with("/api/v3");
    let requests = github.requests();
    assert_eq!(requests.iter().filter(|seen| of_api(&seen.path)).count(), 1);
}

#[tokio::test]
async fn release_of_another_title_or_state_is_not_found() {
    let other = Release::new("a-b-1-30-v2").titled(TAG);
    let draft = Release::new(TAG).draft();
    for release in [other, draft] {
        let error = failure(release).await;
        assert!(matches!(error, SourceError::FindRelease { .. }), "{error}");
        assert_eq!(error.recovery(), Recovery::Slow);
    }
    // who may not look does not know either
    let github = GitHub::start([Release::new(TAG)]).await.unwrap();
    github.state().token = Some(TOKEN.to_owned());
    let error = fetch(&*source(&github, Some("wrong"))).await.unwrap_err();
    assert!(
        matches!(error, SourceError::Refuse { status: 401, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn unfinished_release_is_waited_for() {
    let error = failure(Release::new(TAG).with_last(|chart| chart.state = "open")).await;
    let text = error.to_string();
    assert!(
        text.contains("\"a-b-1-30-cluster-class-v1.tgz\" is in state \"open\""),
        "{text}"
    );
    assert_eq!(error.recovery(), Recovery::Slow);
}

// pitfall 63
#[tokio::test]
async fn cut_and_silent_files_are_resumed() {
    let release = Release::new(TAG).with_last(|chart| {
        chart.faults = vec![FileFault::Cut(20_000), FileFault::Stall(10_000)];
    });
    let github = GitHub::start([release.clone()]).await.unwrap();
    github.state().token = Some(TOKEN.to_owned());
    let source = impatient_sources().open(&spec(&github, Some(TOKEN)));
    let found = fetch(&*source.unwrap()).await.unwrap();
    assert_eq!(found, content(&release));
    let stored = github.stored();
    let ranges: Vec<_> = stored.iter().filter_map(|it| it.get("range")).collect();
    assert_eq!(ranges, ["bytes=20000-", "bytes=30000-"]);
    assert!(
        stored
            .iter()
            .all(|headers| !headers.contains_key("authorization"))
    );
}

// pitfall 63
#[tokio::test]
async fn file_other_than_announced_is_refused() {
    let with = |change: fn(&mut Asset)| Release::new(TAG).with_last(change);
    let fault =
        |fault: FileFault| Release::new(TAG).with_last(move |chart| chart.faults = vec![fault]);
    for (release, class, message) in [
        (with(|it| it.size += 1), "terminal", "bytes in place of"),
        (with(|it| it.size -= 1), "terminal", "bytes in place of"),
        (with(|it| it.content[9] = 0), "terminal", "its digest is"),
        (fault(FileFault::Page), "terminal", "it is a web page"),
        (fault(FileFault::Status(404)), "slow", "status 404"),
        (fault(FileFault::Status(502)), "unknown", "status 502"),
        (fault(FileFault::Cut(0)), "unknown", "lost"),
    ] {
        let error = failure(release).await;
        assert_eq!(error.recovery().as_str(), class, "{error:?}");
        let SourceError::Download { file, source, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(file, "a-b-1-30-cluster-class-v1.tgz");
        let text = source.to_string();
        assert!(
            text.contains(message) && !text.contains("signature"),
            "{text}"
        );
    }
    // archives are archives, also where no digest is announced
    let plain = Release::new(TAG).with_last(|chart| {
        let name = chart.name.clone();
        *chart = Asset {
            digest: None,
            ..Asset::new(&name, "no archive")
        };
    });
    let error = failure(plain).await;
    assert!(
        format!("{error:?}").contains("no gzip archive"),
        "{error:?}"
    );
}

#[tokio::test]
async fn rate_limit_on_a_fetch_is_waited_for() {
    let github = GitHub::start([Release::new(TAG)]).await.unwrap();
    github.state().fault = Some(ApiFault::RateLimit(seconds_from_now(100)));
    let error = fetch(&*source(&github, None)).await.unwrap_err();
    assert_eq!(error.recovery().as_str(), "fast", "{error}");
}
