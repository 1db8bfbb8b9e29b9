use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse};
use proto::Recovery;
use tempfile::TempDir;

use super::*;
use crate::helm::{ChartDependency, ChartLock};

const ARCHIVE: &[u8] = b"\x1f\x8b the archive of a chart";

/// What a server has, by path, and how often it was asked.
#[derive(Clone, Default)]
struct Server {
    files: Arc<HashMap<String, Vec<u8>>>,
    requests: Arc<AtomicUsize>,
    address: String,
}

impl Server {
    /// `{address}` in texts becomes the server's address.
    async fn start(files: &[(&str, &str)]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let content = |text: &str| match text {
            "ARCHIVE" => ARCHIVE.to_vec(),
            text => text
                .replace("{address}", &address)
                .replace("{digest}", &digest_of(ARCHIVE))
                .into_bytes(),
        };
        let files = files
            .iter()
            .map(|(path, text)| ((*path).to_owned(), content(text)))
            .collect();
        let server = Self {
            files: Arc::new(files),
            requests: Arc::default(),
            address,
        };
        let router = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn answer(
    State(server): State<Server>,
    request: axum::extract::Request,
) -> impl IntoResponse {
    server.requests.fetch_add(1, Ordering::SeqCst);
    let path = request
        .uri()
        .path()
        .replace(&digest_of(ARCHIVE), "{digest}");
    match server.files.get(&path) {
        Some(content) if path.contains("/manifests/") => (
            StatusCode::OK,
            [("content-type", "application/vnd.oci.image.manifest.v1+json")],
            content.clone(),
        )
            .into_response(),
        Some(content) => content.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Takes the last version of the list that starts with the constraint; "!" is no constraint.
struct LastPrefix;

impl ChooseVersion for LastPrefix {
    fn choose<'a>(
        &'a self,
        constraint: &'a str,
        versions: &'a [String],
    ) -> BoxFuture<'a, Result<Option<String>, RenderError>> {
        Box::pin(async move {
            if constraint == "!" {
                return Err(RenderError::Render {
                    what: "version \"!\"".to_owned(),
                    message: "improper constraint".to_owned(),
                });
            }
            let prefix = constraint.trim_start_matches('^');
            Ok(versions
                .iter()
                .rfind(|version| version.starts_with(prefix))
                .cloned())
        })
    }
}

fn dependencies(offline: bool, server: &Server) -> Dependencies {
    // an error says that another test was first
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let options = DependencyOptions {
        offline,
        plain_http_registries: vec![server.address.clone()],
    };
    Dependencies::with_versions(Arc::new(LastPrefix), &options).unwrap()
}

fn chart(name: &str, version: &str, repository: &str) -> ChartInfo {
    let dependency = ChartDependency {
        name: name.to_owned(),
        version: version.to_owned(),
        repository: repository.to_owned(),
        ..ChartDependency::default()
    };
    ChartInfo {
        name: "cni".to_owned(),
        version: "1.0.0".to_owned(),
        chart_type: String::new(),
        annotations: std::collections::BTreeMap::new(),
        dependencies: vec![dependency],
        lock: None,
        vendored: Vec::new(),
        missing: vec![name.to_owned()],
        random: Vec::new(),
    }
}

fn locked(version: &str, in_sync: bool, info: ChartInfo) -> ChartInfo {
    let dependencies = vec![ChartDependency {
        version: version.to_owned(),
        ..info.dependencies[0].clone()
    }];
    ChartInfo {
        lock: Some(ChartLock {
            digest: "sha256:1".to_owned(),
            in_sync,
            dependencies,
        }),
        ..info
    }
}

const INDEX: &str = "apiVersion: v1
entries:
  cilium:
  - {version: 1.15.0, urls: [cilium-1.15.0.tgz]}
  - {version: 1.16.0, urls: ['http://{address}/files/c.tgz'], digest: '{digest}'}
  - {version: 1.17.0, urls: []}
  - {version: 2.0.0, urls: [gone.tgz], digest: '{digest}'}
  - {version: 3.0.0, urls: [page.tgz]}
  - {version: 4.0.0, urls: ['oci://{address}/charts/cilium:4.0.0']}
generated: 2026-01-01T00:00:00Z
";

const REPOSITORY: &[(&str, &str)] = &[
    ("/stable/index.yaml", INDEX),
    ("/files/c.tgz", "ARCHIVE"),
    ("/stable/cilium-1.15.0.tgz", "ARCHIVE"),
    ("/stable/page.tgz", "<html>not here</html>"),
    ("/v2/charts/cilium/manifests/4.0.0", MANIFEST),
    ("/v2/charts/cilium/blobs/{digest}", "ARCHIVE"),
];

const MANIFEST: &str = r#"{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "{digest}", "size": 1},
    "layers": [{"mediaType": "application/vnd.cncf.helm.chart.content.v1.tar+gzip", "digest": "{digest}", "size": 27}]}"#;

#[tokio::test]
async fn a_range_is_resolved_once_and_the_record_holds() {
    let server = Server::start(REPOSITORY).await;
    let dependencies = dependencies(false, &server);
    let info = chart("cilium", "^1", &server.url("/stable/"));
    let pinned = dependencies.resolve(&info, &[]).await.unwrap();
    assert_eq!(pinned.len(), 1);
    assert_eq!(
        (pinned[0].version.as_str(), pinned[0].digest.as_str()),
        ("1.16.0", digest_of(ARCHIVE).as_str())
    );
    assert_eq!(server.requests(), 1);

    let older = [PinnedDependency {
        version: "1.15.0".to_owned(),
        ..pinned[0].clone()
    }];
    let kept = dependencies.resolve(&info, &older).await.unwrap();
    assert_eq!(kept, older);
    assert_eq!(server.requests(), 1);

    // a record that no longer fits the chart counts for nothing
    let changed = chart("cilium", "^1.16", &server.url("/stable/"));
    assert_eq!(
        dependencies.resolve(&changed, &older).await.unwrap(),
        pinned
    );
}

#[tokio::test]
async fn the_lock_file_decides_if_it_fits() {
    let server = Server::start(REPOSITORY).await;
    let dependencies = dependencies(false, &server);
    let info = chart("cilium", "^1", &server.url("/stable"));
    // relative address, digest not announced
    let pinned = dependencies
        .resolve(&locked("1.15.0", true, info.clone()), &[])
        .await
        .unwrap();
    assert_eq!(
        (pinned[0].version.as_str(), pinned[0].digest.as_str()),
        ("1.15.0", digest_of(ARCHIVE).as_str())
    );

    let error = dependencies
        .resolve(&locked("1.15.0", false, info.clone()), &[])
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("lock file of chart \"cni\" is out of sync"),
        "{error}"
    );
    assert_eq!(error.recovery(), Recovery::Terminal);

    let vendored = ChartInfo {
        missing: Vec::new(),
        ..locked("1.15.0", false, info)
    };
    assert_eq!(dependencies.resolve(&vendored, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn archives_arrive_complete_once_and_are_repaired() {
    let server = Server::start(REPOSITORY).await;
    let dependencies = dependencies(false, &server);
    let pinned = dependencies
        .resolve(&chart("cilium", "^1.16", &server.url("/stable")), &[])
        .await
        .unwrap();
    let folder = TempDir::new().unwrap();
    let path = dependencies.fetch(&pinned[0], folder.path()).await.unwrap();
    assert_eq!(
        path.file_name().unwrap().to_str().unwrap(),
        format!("{}.tgz", digest_of(ARCHIVE).replace(':', "-"))
    );
    assert_eq!(std::fs::read(&path).unwrap(), ARCHIVE);
    let requests = server.requests();
    dependencies.fetch(&pinned[0], folder.path()).await.unwrap();
    assert_eq!(server.requests(), requests);

    std::fs::write(&path, "damaged").unwrap();
    dependencies.fetch(&pinned[0], folder.path()).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), ARCHIVE);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn other_content_than_recorded_is_refused_and_leaves_nothing() {
    let server = Server::start(REPOSITORY).await;
    let dependencies = dependencies(false, &server);
    let folder = TempDir::new().unwrap();
    for (version, digest) in [
        ("1.15.0", digest_of(b"x")),
        ("1.16.0", digest_of(b"x")),
        ("1.16.0", "sha256:../../x".to_owned()),
    ] {
        let pinned = PinnedDependency {
            chart: "cni".to_owned(),
            name: "cilium".to_owned(),
            version: version.to_owned(),
            repository: server.url("/stable"),
            digest,
        };
        let error = dependencies
            .fetch(&pinned, folder.path())
            .await
            .unwrap_err();
        assert!(
            matches!(error, DependencyError::CheckDigest { .. }),
            "{error}"
        );
        assert_eq!(error.recovery(), Recovery::Terminal);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn registries_are_asked_for_tags_and_archives_by_digest() {
    let server = Server::start(&[
        (
            "/v2/charts/cilium/tags/list",
            r#"{"name": "charts/cilium", "tags": ["1.15.0", "1.16.0_build.1", "latest"]}"#,
        ),
        ("/v2/charts/cilium/manifests/1.16.0_build.1", MANIFEST),
        ("/v2/charts/cilium/blobs/{digest}", "ARCHIVE"),
    ])
    .await;
    let dependencies = dependencies(false, &server);
    let info = chart("cilium", "^1", &format!("oci://{}/charts", server.address));
    let pinned = dependencies.resolve(&info, &[]).await.unwrap();
    assert_eq!(
        (pinned[0].version.as_str(), pinned[0].digest.as_str()),
        ("1.16.0+build.1", digest_of(ARCHIVE).as_str())
    );
    let folder = TempDir::new().unwrap();
    let path = dependencies.fetch(&pinned[0], folder.path()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), ARCHIVE);
}

#[tokio::test]
async fn an_index_may_point_into_a_registry() {
    let server = Server::start(REPOSITORY).await;
    let dependencies = dependencies(false, &server);
    let pinned = dependencies
        .resolve(&chart("cilium", "^4", &server.url("/stable")), &[])
        .await
        .unwrap();
    let folder = TempDir::new().unwrap();
    let path = dependencies.fetch(&pinned[0], folder.path()).await.unwrap();
    assert_eq!(std::fs::read(path).unwrap(), ARCHIVE);
}

#[tokio::test]
async fn offline_only_what_is_recorded_and_at_hand_works() {
    let server = Server::start(REPOSITORY).await;
    let info = chart("cilium", "^1.16", &server.url("/stable"));
    let pinned = dependencies(false, &server)
        .resolve(&info, &[])
        .await
        .unwrap();
    let folder = TempDir::new().unwrap();
    dependencies(false, &server)
        .fetch(&pinned[0], folder.path())
        .await
        .unwrap();
    let requests = server.requests();

    let offline = dependencies(true, &server);
    assert_eq!(offline.resolve(&info, &pinned).await.unwrap(), pinned);
    offline.fetch(&pinned[0], folder.path()).await.unwrap();
    for error in [
        offline.resolve(&info, &[]).await.unwrap_err(),
        offline
            .fetch(&pinned[0], TempDir::new().unwrap().path())
            .await
            .unwrap_err(),
    ] {
        assert!(error.to_string().contains("refused offline"), "{error}");
        assert_eq!(error.recovery(), Recovery::Terminal);
    }
    assert_eq!(server.requests(), requests);
}

#[tokio::test]
async fn failures_say_what_to_do_and_fall_into_their_class() {
    let server = Server::start(REPOSITORY).await;
    let dependencies = dependencies(false, &server);
    let gone = format!("http://user:hunter2@{}/nothing", server.address);
    for (version, repository, message, recovery) in [
        (
            "^1",
            "file://../other",
            "folder on the author's machine: vendor it",
            Recovery::Terminal,
        ),
        (
            "^1",
            "@bitnami",
            "\"@bitnami\" is a name for a repository",
            Recovery::Terminal,
        ),
        ("^1", "", "names no repository", Recovery::Terminal),
        (
            "^1",
            "ftp://a/b",
            "unknown scheme \"ftp\"",
            Recovery::Terminal,
        ),
        (
            "^9",
            &server.url("/stable"),
            "failed to find \"cilium\" in a version \"^9\"",
            Recovery::Slow,
        ),
        (
            "^1.17",
            &server.url("/stable"),
            "failed to find",
            Recovery::Slow,
        ),
        (
            "!",
            &server.url("/stable"),
            "failed to choose a version of \"cilium\"",
            Recovery::Terminal,
        ),
        (
            "^1",
            &gone,
            "/nothing/index.yaml\": status 404",
            Recovery::Slow,
        ),
        (
            "^1",
            &server.url("/files/c.tgz/.."),
            "status 404",
            Recovery::Slow,
        ),
        (
            "^3",
            &server.url("/stable"),
            "it is no gzip archive",
            Recovery::Slow,
        ),
        (
            "^1",
            &format!("oci://{}/none", server.address),
            "from its registry",
            Recovery::Slow,
        ),
        (
            "^1",
            "http://127.0.0.1:1/",
            "failed to request \"http://127.0.0.1:1/index.yaml\"",
            Recovery::Unknown,
        ),
    ] {
        let error = dependencies
            .resolve(&chart("cilium", version, repository), &[])
            .await
            .unwrap_err();
        assert!(error.to_string().contains(message), "{repository}: {error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert_eq!(error.recovery(), recovery, "{repository}: {error:?}");
    }
    let missing = dependencies
        .resolve(&chart("cilium", "^2", &server.url("/stable")), &[])
        .await
        .unwrap();
    let error = dependencies
        .fetch(&missing[0], TempDir::new().unwrap().path())
        .await
        .unwrap_err();
    assert_eq!(error.recovery(), Recovery::Slow, "{error}");
}

#[tokio::test]
async fn pages_in_place_of_an_index_are_none() {
    for page in [
        "<html><body>Sign in: now</body></html>",
        "- a\n- b\n",
        "entries: [1",
    ] {
        let server = Server::start(&[("/index.yaml", page)]).await;
        let error = dependencies(false, &server)
            .resolve(&chart("cilium", "^1", &server.url("")), &[])
            .await
            .unwrap_err();
        assert!(
            matches!(error, DependencyError::ReadIndex { .. }),
            "{error}"
        );
    }
}

#[test]
fn versions_are_told_from_ranges() {
    for (text, expected) in [
        ("1.2.3", true),
        ("v1.2.3-rc.1+b", true),
        ("1.2", true),
        ("1.x", false),
        ("^1", false),
        ("1 - 2", false),
        ("", false),
        ("*", false),
    ] {
        assert_eq!(is_version(text), expected, "{text}");
    }
}
