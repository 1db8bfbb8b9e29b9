//! Python with pinned packages, for providers in another language.
//!
//! The packages come from the index that pip is set to and go into a virtual environment in the cache of the test tools, one for each
//! set of pinned versions. Nothing is installed into the machine's own Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::tools::{cache, lock, say};

/// Makes sure that an environment with the packages of a requirements file is there; answers its `python`.
///
/// # Errors
///
/// When the machine has no `python3` with its module `venv`, or the packages cannot be had.
pub fn environment(requirements: &Path) -> Result<PathBuf> {
    let pinned = fs::read_to_string(requirements)
        .with_context(|| format!("failed to read {}", requirements.display()))?;
    let version = run(Command::new("python3").arg("--version"))
        .context("python3 is needed for the provider in Python")?;
    let hash = hex::encode(Sha256::digest(format!("{version}{pinned}")));
    let folder = cache()?.join(format!("python-{}", &hash[..16]));
    let python = folder.join("bin/python");
    if folder.is_dir() {
        return Ok(python);
    }
    let _lock = lock()?;
    if folder.is_dir() {
        return Ok(python);
    }
    say("installing Python packages into a virtual environment");
    let new = tempfile::tempdir_in(cache()?).context("failed to create a folder in the cache")?;
    run(Command::new("python3").args(["-m", "venv"]).arg(new.path()))
        .context("python3 needs its module venv (Debian: package python3-venv)")?;
    run(Command::new(new.path().join("bin/python"))
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ])
        .args(["--only-binary", ":all:", "--no-deps", "--requirement"])
        .arg(requirements))?;
    fs::rename(new.keep(), &folder).context("failed to put the environment into the cache")?;
    Ok(python)
}

/// As [`environment`], without blocking the runtime's thread.
///
/// # Errors
///
/// As [`environment`].
pub async fn environment_async(requirements: &Path) -> Result<PathBuf> {
    let requirements = requirements.to_owned();
    tokio::task::spawn_blocking(move || environment(&requirements))
        .await
        .context("failed to provide Python")?
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
