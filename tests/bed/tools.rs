//! The tools step builds once, whoever asks.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tests::process::Process;
use tests::tools::{self, Tool};

use crate::children::{child, line, role};

const TEST: &str = "tools::tool_is_built_once_and_survives_a_killed_builder";

fn asker(cache: &Path, name: &str) -> Result<Process> {
    let log = cache.join(format!("{name}.log"));
    let program =
        child(TEST, name, &log)?.env("CLUSTER_STACK_TOOLS_CACHE", &cache.to_string_lossy());
    Process::start(&program)
}

fn has_built(asker: &Process) -> Result<bool> {
    Ok(std::fs::read_to_string(asker.log())?.contains("test bed: building helm-renderer"))
}

#[tokio::test]
async fn tool_is_built_once_and_survives_a_killed_builder() -> Result<()> {
    if role().is_some() {
        // Two threads at once, beside the other process.
        let (one, two) = tokio::join!(
            tools::ensure_async(&[Tool::HelmRenderer]),
            tools::ensure_async(&[Tool::HelmRenderer])
        );
        let path = one?.path(Tool::HelmRenderer)?.to_owned();
        ensure!(path == two?.path(Tool::HelmRenderer)?);
        println!("\npath: {}", path.display());
        return Ok(());
    }
    let cache = tempfile::tempdir()?;
    // While this test has the lock, both come to wait for it.
    let lock = File::create(cache.path().join("lock"))?;
    lock.lock()?;
    let askers = [
        asker(cache.path(), "first")?,
        asker(cache.path(), "second")?,
    ];
    for asker in &askers {
        line(asker, "test bed: waiting for another process").await?;
    }
    drop(lock);

    let built = tests::eventually(
        "one of them builds",
        std::time::Duration::from_secs(20),
        async || {
            for (position, asker) in askers.iter().enumerate() {
                if has_built(asker)? {
                    return Ok(position);
                }
            }
            bail!("none")
        },
    )
    .await?;
    let (builder, other) = (&askers[built], &askers[1 - built]);
    ensure!(!has_built(other)?, "both build");
    builder.kill_9();
    let path = PathBuf::from(line(other, "path: ").await?);
    ensure!(has_built(other)?, "half a program was taken");
    ensure!(path.starts_with(cache.path().canonicalize()?));
    ensure!(path.is_file());

    let third = asker(cache.path(), "third")?;
    ensure!(Path::new(&line(&third, "path: ").await?) == path);
    ensure!(!has_built(&third)?, "built a second time");
    Ok(())
}

#[tokio::test]
async fn tool_that_was_not_asked_for_is_not_given() -> Result<()> {
    let tools = tools::ensure_async(&[Tool::HelmRenderer]).await?;
    let error = tools.path(Tool::Helm).err().context("given")?;
    ensure!(error.to_string() == "helm was not asked for");
    Ok(())
}

#[tokio::test]
async fn installed_program_is_taken_only_in_the_pinned_version() -> Result<()> {
    const TEST: &str = "tools::installed_program_is_taken_only_in_the_pinned_version";
    if role().is_some() {
        let tools = tools::ensure_async(&[Tool::Etcd]).await?;
        println!("\npath: {}", tools.path(Tool::Etcd)?.display());
        return Ok(());
    }
    let modules = tools::repository().join("tests/tools/etcd/go.mod");
    let modules = std::fs::read_to_string(modules)?;
    let pinned = modules
        .lines()
        .find_map(|line| line.trim().strip_prefix("go.etcd.io/etcd/server/v3 v"))
        .and_then(|rest| rest.split(' ').next())
        .context("no version of etcd")?;
    let folder = tempfile::tempdir()?;
    let installed = folder.path().join("etcd");
    for version in [pinned, "3.5.0"] {
        let script = format!("#!/bin/sh\necho 'etcd Version: {version}'\n");
        std::fs::write(&installed, script)?;
        std::fs::set_permissions(&installed, std::fs::Permissions::from_mode(0o755))?;
        let path = folder.path().to_string_lossy();
        let log = folder.path().join(format!("{version}.log"));
        let program = child(TEST, version, &log)?
            .env("KUBEBUILDER_ASSETS", &path)
            .env("CLUSTER_STACK_TOOLS_CACHE", &path)
            // So that nothing can be built: there is no Go.
            .env("PATH", "/nonexistent");
        let asker = Process::start(&program)?;
        if version == pinned {
            ensure!(Path::new(&line(&asker, "path: ").await?) == installed);
        } else {
            asker.wait(std::time::Duration::from_secs(20))?;
            let log = std::fs::read_to_string(asker.log())?;
            ensure!(log.contains("Go 1.26 or newer is needed"), "{log}");
        }
    }
    Ok(())
}
