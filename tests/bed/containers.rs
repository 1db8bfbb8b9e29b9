//! The engine and the registry are real, are a test's own, and leave nothing behind.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tests::docker_engine::{self, DockerEngine};
use tests::image::Image;
use tests::process::Process;
use tests::registry::{self, Registry};
use tests::{certificates, eventually};

use crate::children::{child, line, none_left, role};

const PATIENCE: Duration = Duration::from_secs(30);

/// Cgroups of the engine with this folder.
fn cgroups(engine: &Path) -> Vec<std::path::PathBuf> {
    let name = engine.file_name().unwrap_or_default().to_string_lossy();
    let groups = walkdir::WalkDir::new("/sys/fs/cgroup").max_depth(2);
    groups
        .into_iter()
        .flatten()
        .map(walkdir::DirEntry::into_path)
        .filter(|path| path.to_string_lossy().ends_with(&*name))
        .collect()
}

#[tokio::test]
async fn engine_pulls_by_digest_and_keeps_images_when_it_is_killed() -> Result<()> {
    let (engine, registry) = tokio::try_join!(DockerEngine::start(), Registry::start())?;
    let image = Image::random(1, &[300_000, 1000])?;
    registry.push(&image, "smoke/image", None).await?;
    let name = format!("{}/smoke/image@{}", registry.address(), image.digest());
    engine.docker(["pull", "--quiet", &name]).await?;
    let id = async || {
        engine
            .docker(["image", "inspect", "--format={{.Id}}", &name])
            .await
    };
    ensure!(id().await? == image.id());
    let blobs: u64 = registry
        .answered()?
        .iter()
        .filter(|request| request.method == "GET" && request.path.contains("/blobs/"))
        .map(|request| request.bytes)
        .sum();
    ensure!(blobs > image.size() as u64, "{blobs}");
    ensure!(registry.line().received() > blobs);

    let container = ["create", "--network=none", &name];
    engine.docker(container).await?;
    engine.kill_9()?;
    ensure!(!engine.is_running());
    ensure!(id().await.is_err(), "nobody answers");
    engine.start_again().await?;
    ensure!(id().await? == image.id());
    ensure!(
        engine
            .docker(["ps", "--all", "--quiet"])
            .await?
            .lines()
            .count()
            == 1
    );
    engine.stop()?;
    engine.start_again().await?;

    let folder = engine.folder().to_owned();
    drop(engine);
    ensure!(!folder.exists());
    ensure!(cgroups(&folder).is_empty(), "{:?}", cgroups(&folder));
    none_left(&folder).await
}

#[tokio::test]
async fn engines_are_apart_and_load_archives() -> Result<()> {
    let (one, two) = tokio::try_join!(DockerEngine::start(), DockerEngine::start())?;
    let image = Image::random(2, &[5000])?;
    let archive = one.folder().join("archive.tar");
    std::fs::write(&archive, image.archive(&["smoke:2"])?)?;
    one.docker(["load", "--input", &archive.to_string_lossy()])
        .await?;
    let listed = [
        "images",
        "--no-trunc",
        "--format={{.Repository}}:{{.Tag}} {{.ID}}",
    ];
    ensure!(one.docker(listed).await? == format!("smoke:2 {}", image.id()));
    ensure!(two.docker(listed).await?.is_empty());
    let id = ["info", "--format={{.ID}}"];
    ensure!(one.docker(id).await? != two.docker(id).await?);
    Ok(())
}

#[tokio::test]
async fn frozen_engine_answers_nothing_until_it_is_thawed() -> Result<()> {
    let engine = DockerEngine::start().await?;
    engine.freeze()?;
    let version = tokio::time::timeout(Duration::from_millis(300), engine.docker(["version"]));
    ensure!(version.await.is_err(), "answered");
    engine.thaw()?;
    engine.docker(["version"]).await?;
    engine.stop()
}

#[tokio::test]
async fn engine_runs_out_of_space_where_it_is_told_so() -> Result<()> {
    let options = docker_engine::Options {
        space: Some(16 << 20),
        settings: json!({"max-download-attempts": 1}),
    };
    let (engine, registry) =
        tokio::try_join!(DockerEngine::start_with(options), Registry::start())?;
    let image = Image::random(3, &[32 << 20])?;
    registry.push(&image, "large", None).await?;
    let name = format!("{}/large@{}", registry.address(), image.digest());
    let error = engine
        .docker(["pull", &name])
        .await
        .err()
        .context("pulled")?;
    ensure!(
        error.to_string().contains("no space left on device"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn killed_owner_takes_engine_and_registry_along() -> Result<()> {
    const TEST: &str = "containers::killed_owner_takes_engine_and_registry_along";
    if role().is_some() {
        let (engine, registry) = tokio::try_join!(DockerEngine::start(), Registry::start())?;
        let image = Image::random(4, &[5000])?;
        registry.push(&image, "image", None).await?;
        let name = format!("{}/image@{}", registry.address(), image.digest());
        engine.docker(["create", "--network=none", &name]).await?;
        println!("\nengine: {}", engine.folder().display());
        std::future::pending::<()>().await;
    }
    let logs = tempfile::tempdir()?;
    let owner = Process::start(&child(TEST, "owner", &logs.path().join("owner.log"))?)?;
    let engine = line(&owner, "engine: ").await?;
    owner.kill_9();
    none_left(Path::new(&engine)).await?;
    // The next engine sweeps what is no process.
    eventually("the folder is gone", PATIENCE, async || {
        drop(DockerEngine::start().await?);
        ensure!(!Path::new(&engine).exists(), "still there");
        Ok(())
    })
    .await?;
    drop(DockerEngine::start().await?);
    ensure!(cgroups(Path::new(&engine)).is_empty());
    Ok(())
}

#[tokio::test]
async fn registry_asks_for_users_and_shows_its_certificate() -> Result<()> {
    let authority = certificates::Authority::new()?;
    let options = registry::Options {
        users: vec![("reader".to_owned(), "one two".to_owned())],
        authority: Some(&authority),
    };
    let registry = Registry::start_with(options).await?;
    let image = Image::random(5, &[1000])?;
    registry.push(&image, "image", Some("v1")).await?;
    let root = reqwest::Certificate::from_pem(authority.certificate().as_bytes())?;
    let client = reqwest::Client::builder().tls_certs_only([root]).build()?;
    let url = format!("{}/v2/image/blobs/{}", registry.url(), image.id());
    for (password, status) in [("one two", 200), ("wrong", 401)] {
        let answer = client.get(&url).basic_auth("reader", Some(password));
        ensure!(answer.send().await?.status() == status);
    }
    Ok(())
}

#[tokio::test]
async fn registry_can_be_damaged_and_restarted() -> Result<()> {
    let registry = Registry::start().await?;
    let (image, other) = (Image::random(6, &[1000])?, Image::random(7, &[1000])?);
    for image in [&image, &other] {
        registry.push(image, "image", None).await?;
    }
    let get = async |path: &str| {
        let answer = reqwest::get(format!("{}/v2/image/{path}", registry.url())).await?;
        anyhow::Ok((answer.status().as_u16(), answer.bytes().await?))
    };
    let layer = &image.layers[0];
    let path = format!("blobs/{}", layer.digest);
    ensure!(get(&path).await? == (200, layer.bytes.clone()));
    registry.corrupt(&layer.digest)?;
    let (status, bytes) = get(&path).await?;
    ensure!(status == 200 && bytes != layer.bytes && bytes.len() == layer.bytes.len());
    registry.lose(&layer.digest)?;
    ensure!(get(&path).await?.0 == 404);

    registry.delete("image", image.digest()).await?;
    ensure!(get(&format!("manifests/{}", image.digest())).await?.0 == 404);
    registry.stop()?;
    ensure!(get(&path).await.is_err());
    registry.start_again().await?;
    ensure!(get(&format!("blobs/{}", other.id())).await?.0 == 200);
    Ok(())
}
