//! The external programs: taken from this machine when the version is exactly the pinned one, otherwise built once from pinned Go modules.
//!
//! The modules are in `tests/tools/<group>`: one group for each set of dependencies, because Kubernetes, Cluster API, Helm and etcd need
//! different versions of the same libraries. What is built goes to a cache folder that all test runs of a user share:
//! `$CLUSTER_STACK_TOOLS_CACHE`, else `$XDG_CACHE_HOME/cluster-stack-operator/tools`, else `~/.cache/cluster-stack-operator/tools`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::process::{Process, Program};

/// The oldest Go that builds the modules, as their `go.mod` say.
const GO: (u32, u32) = (1, 26);

/// An external program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// The store of the API servers.
    Etcd,
    /// The API server.
    KubeApiserver,
    /// Garbage collection, namespaces, service accounts.
    KubeControllerManager,
    /// The command line client.
    Kubectl,
    /// Helm 4, the reference that our renderer is compared with.
    Helm,
    /// Cluster API's core manager.
    CapiCore,
    /// Our own renderer, from `core-operator/helm-renderer`.
    HelmRenderer,
}

/// Where the programs are.
#[derive(Clone, Debug, Default)]
pub struct Tools(BTreeMap<Tool, PathBuf>);

impl Tools {
    /// The program's file.
    ///
    /// # Errors
    ///
    /// When [`ensure`](fn@ensure) was not asked for it.
    pub fn path(&self, tool: Tool) -> Result<&Path> {
        let path = self.0.get(&tool);
        path.map(PathBuf::as_path)
            .with_context(|| format!("{} was not asked for", tool.name()))
    }
}

/// Makes sure that the programs are there, building them if need be, and says where. Two processes may ask at once: one builds.
///
/// Blocks for minutes when something is built, with progress on standard error; see [`ensure_async`].
///
/// # Errors
///
/// When Go is missing or too old, a build fails, or the cache cannot be written.
pub fn ensure(tools: &[Tool]) -> Result<Tools> {
    static FOUND: Mutex<BTreeMap<Tool, PathBuf>> = Mutex::new(BTreeMap::new());

    // Held while building: other tests of this process want the same programs.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    let mut paths = BTreeMap::new();
    for &tool in tools {
        let path = match found.get(&tool) {
            Some(path) => path.clone(),
            None => tool.provide()?,
        };
        found.insert(tool, path.clone());
        paths.insert(tool, path);
    }
    Ok(Tools(paths))
}

/// As [`ensure`](fn@ensure), without blocking the runtime's thread.
///
/// # Errors
///
/// As [`ensure`](fn@ensure).
pub async fn ensure_async(tools: &'static [Tool]) -> Result<Tools> {
    tokio::task::spawn_blocking(|| ensure(tools))
        .await
        .context("failed to provide the tools")?
}

/// The folder with Cluster API's manifests (`crd/bases`, `webhook/manifests.yaml`) of the version that [`Tool::CapiCore`] has.
///
/// They come from the Go module and are kept in the cache, so that a machine with a filled cache needs no module download.
///
/// # Errors
///
/// When Go is missing and they are not in the cache, or the module cannot be downloaded.
pub fn cluster_api_manifests() -> Result<PathBuf> {
    const MODULE: &str = "sigs.k8s.io/cluster-api";

    let module = module_folder("cluster-api");
    let version = required_version(&module, MODULE)?;
    let folder = cache()?.join(format!("cluster-api-manifests-{version}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    let _lock = lock()?;
    if folder.is_dir() {
        return Ok(folder);
    }
    check_go(&module)?;
    go(&module, &["mod", "download", MODULE])?;
    let config = PathBuf::from(go(&module, &["list", "-m", "-f", "{{.Dir}}", MODULE])?.trim())
        .join("core/config");
    let new = tempfile::tempdir_in(cache()?).context("failed to create a folder in the cache")?;
    for part in ["crd/bases", "webhook"] {
        let (from, to) = (config.join(part), new.path().join(part));
        fs::create_dir_all(&to).with_context(|| format!("failed to create {}", to.display()))?;
        for entry in
            fs::read_dir(&from).with_context(|| format!("failed to read {}", from.display()))?
        {
            let entry = entry.with_context(|| format!("failed to read {}", from.display()))?;
            // Read and written, not copied: the module cache is read-only, and so would be the copy.
            let content = fs::read(entry.path())
                .with_context(|| format!("failed to read {}", entry.path().display()))?;
            fs::write(to.join(entry.file_name()), content)
                .context("failed to write to the cache")?;
        }
    }
    fs::rename(new.keep(), &folder)
        .context("failed to put Cluster API's manifests into the cache")?;
    Ok(folder)
}

impl Tool {
    /// The program's name, which is its file name too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
            Self::CapiCore => "capi-core",
            Self::HelmRenderer => "helm-renderer",
        }
    }

    fn provide(self) -> Result<PathBuf> {
        let source = self.source()?;
        if let Some(path) = self.installed(&source.version) {
            return Ok(path);
        }
        let folder = cache()?.join(format!(
            "{}-{}-{}",
            self.name(),
            source.version,
            source.key()?
        ));
        let path = folder.join(self.name());
        if path.is_file() {
            return Ok(path);
        }
        let _lock = lock()?;
        if path.is_file() {
            return Ok(path);
        }
        self.build(&source, &folder)?;
        Ok(path)
    }

    /// Where the program's source is and how it is linked.
    fn source(self) -> Result<Source> {
        let (group, package, required) = match self {
            Self::Etcd => (
                "etcd",
                "go.etcd.io/etcd/server/v3",
                "go.etcd.io/etcd/server/v3",
            ),
            Self::KubeApiserver => (
                "kubernetes",
                "k8s.io/kubernetes/cmd/kube-apiserver",
                KUBERNETES,
            ),
            Self::KubeControllerManager => (
                "kubernetes",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                KUBERNETES,
            ),
            Self::Kubectl => ("kubernetes", "k8s.io/kubernetes/cmd/kubectl", KUBERNETES),
            Self::Helm => ("helm", "helm.sh/helm/v4/cmd/helm", "helm.sh/helm/v4"),
            Self::CapiCore => (
                "cluster-api",
                "sigs.k8s.io/cluster-api/core",
                "sigs.k8s.io/cluster-api",
            ),
            Self::HelmRenderer => {
                return Ok(Source {
                    module: repository().join("core-operator/helm-renderer"),
                    package: ".",
                    version: "dev".to_owned(),
                    linker: "-s -w".to_owned(),
                    whole: true,
                });
            }
        };
        let module = module_folder(group);
        let version = required_version(&module, required)?;
        let minor = version.split('.').nth(1).unwrap_or_default();
        let linker = match self {
            // Without its version the API server calls itself v0.0.0-master+$Format:%H$, and Cluster API's manager refuses it.
            Self::KubeApiserver | Self::KubeControllerManager | Self::Kubectl => {
                let x = "k8s.io/component-base/version";
                format!(
                    "-s -w -X {x}.gitVersion={version} -X {x}.gitMajor=1 -X {x}.gitMinor={minor} -X {x}.gitTreeState=clean -X {x}.buildDate=1970-01-01T00:00:00Z"
                )
            }
            Self::CapiCore => {
                let x = "sigs.k8s.io/cluster-api/version";
                format!(
                    "-s -w -X {x}.gitVersion={version} -X {x}.gitMajor=1 -X {x}.gitMinor={minor} -X {x}.gitTreeState=clean"
                )
            }
            Self::Helm => {
                let x = "helm.sh/helm/v4/internal/version";
                format!("-s -w -X {x}.version={version} -X {x}.gitTreeState=clean")
            }
            Self::Etcd | Self::HelmRenderer => "-s -w ".to_owned(),
        };
        Ok(Source {
            module,
            package,
            version,
            linker,
            whole: false,
        })
    }

    /// The program in `$KUBEBUILDER_ASSETS` or `$PATH`, if it is exactly this version.
    fn installed(self, version: &str) -> Option<PathBuf> {
        // What the program prints for its version, up to the version.
        let (args, before): (&[&str], _) = match self {
            Self::Etcd => (&["--version"], "etcd Version: "),
            Self::KubeApiserver | Self::KubeControllerManager => (&["--version"], "Kubernetes "),
            Self::Kubectl => (&["version", "--client"], "Client Version: "),
            Self::Helm => (&["version", "--template", "{{.Version}}"], ""),
            // The manager cannot be asked; our renderer is always the one of this source tree.
            Self::CapiCore | Self::HelmRenderer => return None,
        };
        let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let search = std::env::var_os("PATH").unwrap_or_default();
        assets
            .into_iter()
            .chain(std::env::split_paths(&search))
            .map(|folder| folder.join(self.name()))
            .filter(|path| path.is_file())
            .find(|path| {
                let Ok(output) = Command::new(path).args(args).stdin(Stdio::null()).output() else {
                    return false;
                };
                let text = String::from_utf8_lossy(&output.stdout);
                let shown = text.lines().find_map(|line| line.strip_prefix(before));
                shown.is_some_and(|shown| {
                    shown.trim().trim_start_matches('v') == version.trim_start_matches('v')
                })
            })
    }

    fn build(self, source: &Source, folder: &Path) -> Result<()> {
        let name = self.name();
        check_go(&source.module)?;
        let minutes = match self {
            Self::KubeApiserver | Self::Helm | Self::CapiCore => "3 minutes",
            _ => "a minute",
        };
        say(&format!(
            "building {name} {} once; the first time this may take {minutes} and more on a slow machine",
            source.version
        ));
        let begin = Instant::now();
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let (binary, log) = (folder.join(format!("{name}.new")), folder.join("build.log"));
        let program = Program::new("go build", Path::new("go"), &log)
            .args([
                "build",
                "-trimpath",
                "-buildvcs=false",
                "-ldflags",
                &source.linker,
                "-o",
            ])
            .args([&binary.to_string_lossy(), source.package])
            .directory(&source.module);
        let build = Process::start(
            &go_settings().fold(program, |program, (name, value)| program.env(name, value)),
        )?;
        let status = loop {
            match build.wait(Duration::from_secs(30)) {
                Ok(status) => break status,
                Err(_) => say(&format!(
                    "still building {name} after {} s",
                    begin.elapsed().as_secs()
                )),
            }
        };
        ensure!(
            status.success(),
            "failed to build {name}:\n{}",
            build.log_tail(30)
        );
        fs::rename(&binary, folder.join(name))
            .with_context(|| format!("failed to put {name} into the cache"))?;
        say(&format!("built {name} in {} s", begin.elapsed().as_secs()));
        Ok(())
    }
}

const KUBERNETES: &str = "k8s.io/kubernetes";

struct Source {
    module: PathBuf,
    package: &'static str,
    version: String,
    linker: String,
    /// The program is this module itself, so all its files count; else `go.mod` and `go.sum` say everything.
    whole: bool,
}

impl Source {
    /// Changes with whatever changes the program.
    fn key(&self) -> Result<String> {
        let mut files = Vec::new();
        if self.whole {
            for entry in walkdir::WalkDir::new(&self.module).sort_by_file_name() {
                let entry =
                    entry.with_context(|| format!("failed to read {}", self.module.display()))?;
                let path = entry.path();
                // What `go build` reads; a program that somebody has built there does not count.
                let read = path.extension().is_some_and(|extension| {
                    ["go", "mod", "sum"].map(OsStr::new).contains(&extension)
                });
                if read && !path.to_string_lossy().ends_with("_test.go") {
                    files.push(entry.into_path());
                }
            }
        } else {
            files = vec![self.module.join("go.mod"), self.module.join("go.sum")];
        }
        let mut hash = Sha256::new();
        hash.update(&self.linker);
        for file in files {
            let content =
                fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?;
            let name = file.strip_prefix(&self.module).unwrap_or(&file);
            hash.update(name.to_string_lossy().as_bytes());
            hash.update(content.len().to_le_bytes());
            hash.update(content);
        }
        Ok(hex::encode(&hash.finalize()[..8]))
    }
}

/// The version that a `go.mod` requires of a module.
fn required_version(folder: &Path, module: &str) -> Result<String> {
    let path = folder.join("go.mod");
    let text =
        fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    text.lines()
        .filter_map(|line| {
            let mut words = line
                .trim()
                .trim_start_matches("require ")
                .split_whitespace();
            (words.next() == Some(module))
                .then(|| words.next())
                .flatten()
        })
        .find(|word| word.starts_with('v'))
        .map(ToOwned::to_owned)
        .with_context(|| format!("{} does not require {module}", path.display()))
}

fn check_go(module: &Path) -> Result<()> {
    let wanted = format!(
        "Go {}.{} or newer is needed to build the test tools",
        GO.0, GO.1
    );
    // Asked in the module's folder: there Go chooses its tool chain, which may be another one than the installed.
    let version = go(module, &["env", "GOVERSION"])
        .with_context(|| format!("{wanted}: https://go.dev/doc/install"))?;
    let mut numbers = version
        .trim()
        .trim_start_matches("go")
        .split(|character: char| !character.is_ascii_digit())
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    ensure!(
        found >= GO,
        "{wanted}, but it is {}: https://go.dev/doc/install",
        version.trim()
    );
    Ok(())
}

fn go(folder: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new("go")
        .args(args)
        .current_dir(folder)
        .envs(go_settings())
        .stdin(Stdio::null())
        .output()
        .context("failed to run go, is it installed and in PATH?")?;
    if !output.status.success() {
        bail!(
            "go {} failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("go printed no text")
}

/// What must not depend on the user's own settings: static programs, exactly the listed modules.
fn go_settings() -> impl Iterator<Item = (&'static str, &'static str)> {
    [("CGO_ENABLED", "0"), ("GOFLAGS", ""), ("GOWORK", "off")].into_iter()
}

/// Held while something is put into the cache; the other process then finds it there.
pub(crate) fn lock() -> Result<File> {
    let path = cache()?.join("lock");
    let file =
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
    if file.try_lock().is_err() {
        say("waiting for another process that provides test tools");
        file.lock()
            .with_context(|| format!("failed to lock {}", path.display()))?;
    }
    Ok(file)
}

pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let folder = set("CLUSTER_STACK_TOOLS_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("cluster-stack-operator/tools")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/cluster-stack-operator/tools")))
        .context(
            "no folder for the test tools: set CLUSTER_STACK_TOOLS_CACHE, XDG_CACHE_HOME or HOME",
        )?;
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    fs::canonicalize(&folder).with_context(|| format!("failed to find {}", folder.display()))
}

fn module_folder(group: &str) -> PathBuf {
    repository().join("tests/tools").join(group)
}

/// The root of the source tree.
#[must_use]
pub fn repository() -> &'static Path {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests)
}

/// Progress for somebody who waits. Written past `eprintln!`, whose output the test harness keeps until a test fails.
pub(crate) fn say(message: &str) {
    let _ = writeln!(std::io::stderr(), "test bed: {message}");
}
