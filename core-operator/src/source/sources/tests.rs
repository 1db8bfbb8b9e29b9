use std::path::PathBuf;

use super::*;

fn sources() -> Sources {
    // an error says that another test was first
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Sources::new(ClientOptions::default(), Arc::new(Metrics::new())).unwrap()
}

fn spec(path: impl Into<PathBuf>) -> SourceSpec {
    SourceSpec::Directory {
        path: path.into(),
        root: None,
    }
}

#[tokio::test]
async fn equal_sources_are_opened_once() {
    let sources = sources();
    let [one, again, other] = ["/one", "/one", "/other"].map(|path| sources.open(&spec(path)));
    assert!(Arc::ptr_eq(one.as_ref().unwrap(), &again.unwrap()));
    assert!(!Arc::ptr_eq(&one.unwrap(), &other.unwrap()));
}

#[tokio::test]
async fn source_that_was_not_asked_for_longest_is_closed() {
    let sources = sources();
    for n in 0..KEPT {
        sources.open(&spec(n.to_string())).unwrap();
    }
    let kept = |n: usize| sources.lock().contains_key(&spec(n.to_string()));
    sources.open(&spec("0")).unwrap();
    sources.open(&spec(KEPT.to_string())).unwrap();
    assert!(kept(0) && !kept(1) && kept(2) && kept(KEPT));
}

#[tokio::test]
async fn listing_is_kept_for_as_long_as_the_caller_likes() {
    let folder = tempfile::TempDir::new().unwrap();
    let (sources, spec) = (sources(), spec(folder.path()));
    let found = async |max_age| {
        sources
            .listing(&spec, max_age)
            .await
            .unwrap()
            .releases
            .len()
    };
    assert_eq!(found(Duration::ZERO).await, 0);
    std::fs::create_dir(folder.path().join("a-b-1-30-v1")).unwrap();
    assert_eq!(found(Duration::from_hours(1)).await, 0);
    assert_eq!(found(Duration::ZERO).await, 1);
    let text = sources.metrics.encode();
    assert!(
        text.contains("source_listings_total{source=\"directory\",result=\"success\"} 2\n"),
        "{text}"
    );
}

#[tokio::test]
async fn failure_is_not_kept() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("later");
    let (sources, spec) = (sources(), spec(&path));
    let hour = Duration::from_hours(1);
    sources.listing(&spec, hour).await.unwrap_err();
    std::fs::create_dir(path).unwrap();
    sources.listing(&spec, hour).await.unwrap();
}
