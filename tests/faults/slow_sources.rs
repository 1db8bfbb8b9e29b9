//! Sources that are large, silent or slow, and those who have others.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use core_operator::api::ClusterStackRelease;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tests::github::{GitHub, OWNER, REPOSITORY, Release};
use tests::{eventually, scenario};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::ground::{Ground, PATIENCE, example, metric};

/// More of each than the operator reconciles at the same time.
const MANY: usize = 12;

fn github(url: &str, repository: &str) -> String {
    format!("source: {{github: {{url: \"{url}\", owner: {OWNER}, repository: {repository}}}}}")
}

#[tokio::test]
async fn of_200_listed_releases_only_the_newest_is_taken() -> Result<()> {
    scenario("large", async |bed| {
        let ground = Ground::shared(bed).await?;
        // In a directory, and on a host that shows them in pages.
        for number in 1..200 {
            std::fs::create_dir(
                ground
                    .releases
                    .path()
                    .join(format!("docker-large-1-30-v{number}")),
            )?;
        }
        let hosted = example("hosted", "v200");
        let folder = tempfile::tempdir()?;
        let newest = Release::from_folder(&hosted.write_to(folder.path())?)?;
        let mut releases: Vec<_> = (1..200)
            .map(|number| Release::new(&format!("docker-hosted-1-30-v{number}")))
            .collect();
        // Where nobody expects the newest.
        releases.insert(77, newest);
        let host = GitHub::start(releases).await?;
        host.state().page_size = Some(30);

        let operator = ground.operator().start().await?;
        ground.stack("large", &example("large", "v200"), "").await?;
        ground
            .apply_stack("hosted", &hosted, &github(host.url(), REPOSITORY))
            .await?;
        ground.stack("small", &example("small", "v1"), "").await?;
        for stack in ["small", "large", "hosted"] {
            ground.ready(stack).await?;
        }
        let releases: Api<ClusterStackRelease> = ground.api();
        let releases = releases.list(&ListParams::default()).await?;
        let mut names: Vec<_> = releases.iter().map(ResourceExt::name_any).collect();
        names.sort();
        ensure!(
            names
                == [
                    "docker-hosted-1-30-v200",
                    "docker-large-1-30-v200",
                    "docker-small-1-30-v1"
                ],
            "{names:?}"
        );
        // Only what is wanted was downloaded.
        let downloads = "cluster_stack_operator_release_downloads_total{result=\"success\"}";
        let downloads = metric(&operator, downloads).await?;
        ensure!(downloads < 3.5, "{downloads} downloads");
        Ok(())
    })
    .await
}

// Level by order: what hangs still hangs when the others are done.
#[tokio::test]
async fn silent_and_dripping_sources_delay_nobody() -> Result<()> {
    scenario("hanging", async |bed| {
        let ground = Ground::shared(bed).await?;
        let _operator = ground.operator().start().await?;
        let (silent, dripping) = (Host::start(false).await?, Host::start(true).await?);
        let mut stacks = String::new();
        for (name, host) in [("silent", &silent), ("dripping", &dripping)] {
            for number in 0..MANY {
                // Each asks for itself: half of them for the list, half for the files of a release.
                let release = example(&format!("{name}{number}"), "v1");
                let source = github(&host.url, &format!("{name}{number}"));
                let versions = if number % 2 == 0 {
                    ""
                } else {
                    "\nautoSubscribe: false\nversions: [v1]"
                };
                let manifest = super::ground::manifest(
                    &format!("{name}{number}"),
                    &release,
                    &format!("{source}{versions}"),
                );
                let _ = write!(stacks, "---\n{manifest}");
            }
        }
        tests::manifests::apply_yaml(&ground.client, &ground.namespace, &stacks).await?;
        for host in [&silent, &dripping] {
            eventually("all stacks have asked", PATIENCE, async || {
                let asked = host.asked.load(Ordering::SeqCst);
                ensure!(asked >= MANY, "{asked} have asked");
                Ok(())
            })
            .await?;
        }

        let hosted = example("hosted", "v1");
        let folder = tempfile::tempdir()?;
        let host = GitHub::start([Release::from_folder(&hosted.write_to(folder.path())?)?]).await?;
        ground.stack("local", &example("local", "v1"), "").await?;
        ground
            .apply_stack("hosted", &hosted, &github(host.url(), REPOSITORY))
            .await?;
        ground.ready("local").await?;
        ground.ready("hosted").await?;
        for host in [&silent, &dripping] {
            ensure!(host.hanging() > 0, "nobody waits any more");
        }

        // A silent host is told from a broken release.
        ground
            .stack_complains("silent0", &["failed to reach", &silent.url])
            .await?;
        ground
            .stack_complains("silent1", &["failed to reach", &silent.url])
            .await?;
        ensure!(
            dripping.hanging() > 0,
            "nobody waits for what drips any more"
        );
        // And nobody has to wait for it to be rid of it.
        for stack in ["silent0", "silent1", "dripping0", "dripping1"] {
            ground.delete(stack).await?;
        }
        Ok(())
    })
    .await
}

/// A host that takes connections and requests, and gives nothing or a byte now and then.
struct Host {
    url: String,
    asked: Arc<AtomicUsize>,
    given_up: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Host {
    async fn start(drips: bool) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (asked, given_up) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (counted, ended) = (Arc::clone(&asked), Arc::clone(&given_up));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counted, ended) = (Arc::clone(&counted), Arc::clone(&ended));
                tokio::spawn(async move {
                    let _ = hang(stream, drips, &counted).await;
                    ended.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Ok(Self {
            url,
            asked,
            given_up,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// How many wait for an answer.
    fn hanging(&self) -> usize {
        let given_up = self.given_up.load(Ordering::SeqCst);
        self.asked.load(Ordering::SeqCst).saturating_sub(given_up)
    }
}

async fn hang(mut stream: TcpStream, drips: bool, asked: &AtomicUsize) -> std::io::Result<()> {
    let mut buffer = [0; 4096];
    let _ = stream.read(&mut buffer).await?;
    asked.fetch_add(1, Ordering::SeqCst);
    if !drips {
        while stream.read(&mut buffer).await? > 0 {}
        return Ok(());
    }
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    loop {
        // JSON may begin with any number of blanks.
        stream.write_all(b"1\r\n \r\n").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
