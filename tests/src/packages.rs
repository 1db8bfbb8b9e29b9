//! Programs of the machine's distribution: the Docker engine and the registry server.
//!
//! A machine that has them is taken as it is. Otherwise the distribution's packages are unpacked into the cache of the test tools: nothing is
//! installed, no service is started, no file outside of the cache is written, and no rights are needed. That works on Debian and what
//! comes from it; elsewhere somebody has to install the programs, and the error says which.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::tools::{cache, lock, say};

/// Programs and the environment that they need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The folder of unpacked packages; `None` when the machine has the programs itself.
    root: Option<PathBuf>,
}

/// What the tests need of the distribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Package {
    /// The engine with all that it starts, and its command line client.
    Docker,
    /// The reference registry server ("distribution").
    Registry,
}

impl Package {
    /// All of them must be there for the package to count as installed.
    const fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &["dockerd", "containerd", "runc", "docker"],
            Self::Registry => &["docker-registry"],
        }
    }

    /// With the libraries that a minimal Debian does not have.
    const fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Docker => &[
                "docker.io",
                "containerd",
                "runc",
                "libdevmapper1.02.1",
                "libseccomp2",
            ],
            Self::Registry => &["docker-registry"],
        }
    }

    /// Makes sure that the programs are there. Two processes may ask at once: one of them unpacks.
    ///
    /// # Errors
    ///
    /// When they are not installed and cannot be had from the distribution.
    pub fn provide(self) -> Result<Programs> {
        if self.programs().iter().all(|program| on_path(program)) {
            return Ok(Programs { root: None });
        }
        let folder = cache()?.join(format!(
            "{}-{}",
            self.packages()[0],
            distribution().unwrap_or_else(|| "unknown".to_owned())
        ));
        if !folder.is_dir() {
            let _lock = lock()?;
            if !folder.is_dir() {
                unpack(self.packages(), &folder).with_context(|| {
                    format!(
                        "these programs are needed and cannot be had from the distribution, please install them: {}",
                        self.programs().join(", ")
                    )
                })?;
            }
        }
        Ok(Programs { root: Some(folder) })
    }

    /// As [`provide`](Self::provide), without blocking the runtime's thread.
    ///
    /// # Errors
    ///
    /// As [`provide`](Self::provide).
    pub async fn provide_async(self) -> Result<Programs> {
        tokio::task::spawn_blocking(move || self.provide())
            .await
            .context("failed to provide packages")?
    }
}

impl Programs {
    /// The file of a program.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn path(&self, program: &str) -> Result<PathBuf> {
        std::env::split_paths(&self.search_path())
            .map(|folder| folder.join(program))
            .find(|path| path.is_file())
            .with_context(|| format!("{program} is not there"))
    }

    /// `PATH` under which the programs find each other.
    #[must_use]
    pub fn search_path(&self) -> OsString {
        let own = self.root.iter();
        let own = own.flat_map(|root| ["usr/sbin", "usr/bin"].map(|folder| root.join(folder)));
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let inherited = std::env::split_paths(&inherited);
        // Where daemons are, which some users' PATH lacks.
        let daemons = ["/usr/sbin", "/sbin"].map(PathBuf::from);
        std::env::join_paths(own.chain(inherited).chain(daemons)).unwrap_or_default()
    }

    /// `LD_LIBRARY_PATH` for libraries that came with the programs; empty when the machine has them.
    #[must_use]
    pub fn library_path(&self) -> OsString {
        let folders = self.root.iter().flat_map(|root| {
            ["lib", "usr/lib"].map(|folder| {
                root.join(folder)
                    .join(format!("{}-linux-gnu", std::env::consts::ARCH))
            })
        });
        std::env::join_paths(folders).unwrap_or_default()
    }
}

fn on_path(program: &str) -> bool {
    Programs { root: None }.path(program).is_ok()
}

/// `debian-12-x86_64`: packages of one distribution release are one version for our purposes.
fn distribution() -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim_matches('"').to_owned())
    };
    let (id, version) = (field("ID=")?, field("VERSION_ID=")?);
    Some(format!("{id}-{version}-{}", std::env::consts::ARCH))
}

/// Downloads packages and unpacks them; `folder` is complete or absent.
fn unpack(packages: &[&str], folder: &Path) -> Result<()> {
    say(&format!("downloading {} once", packages.join(", ")));
    let new = tempfile::tempdir_in(cache()?).context("failed to create a folder in the cache")?;
    let downloads = new.path().join("downloads");
    fs::create_dir(&downloads).context("failed to create a folder in the cache")?;
    download(packages, &downloads, &[])
        // The machine's package lists are empty or too old: lists of our own, from the machine's own sources.
        .or_else(|error| {
            let own = own_lists(new.path())?;
            apt_get(&own, &["update"], new.path()).context(error)?;
            download(packages, &downloads, &own)
        })?;
    let root = new.path().join("root");
    let mut unpacked = 0;
    for entry in fs::read_dir(&downloads).context("failed to read the downloaded packages")? {
        let package = entry
            .context("failed to read the downloaded packages")?
            .path();
        if package
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            run(Command::new("dpkg").arg("-x").args([&package, &root]))?;
            unpacked += 1;
        }
    }
    ensure!(
        unpacked == packages.len(),
        "{unpacked} packages were downloaded in place of {}",
        packages.len()
    );
    fs::rename(&root, folder)
        .with_context(|| format!("failed to put {} into the cache", folder.display()))
}

fn download(packages: &[&str], into: &Path, options: &[OsString]) -> Result<()> {
    apt_get(options, &[&["download"], packages].concat(), into)
}

/// Options that keep the package manager's lists in a folder of ours, so that neither root nor the machine's lock is needed.
fn own_lists(folder: &Path) -> Result<Vec<OsString>> {
    let mut options = Vec::new();
    for (setting, name) in [("Dir::State::Lists", "lists"), ("Dir::Cache", "cache")] {
        let path = folder.join(name);
        fs::create_dir_all(path.join("archives/partial"))
            .and_then(|()| fs::create_dir_all(path.join("partial")))
            .context("failed to create a folder in the cache")?;
        let mut value = OsString::from(format!("-o{setting}="));
        value.push(&path);
        options.push(value);
    }
    // Only what tells versions and addresses of packages.
    for off in [
        "Acquire::Languages=none",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
    ] {
        options.push(format!("-o{off}").into());
    }
    Ok(options)
}

fn apt_get(options: &[OsString], args: &[&str], folder: &Path) -> Result<()> {
    run(Command::new("apt-get")
        // Its unprivileged user could not write into our folder.
        .args(["-q", "-oAPT::Sandbox::User=root"])
        .args(options)
        .args(args)
        .current_dir(folder)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("failed to run {program}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed: {}", words.trim());
    }
    Ok(())
}
