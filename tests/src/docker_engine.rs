//! A real Docker engine of a test's own.
//!
//! ```text
//! unshare ──► first process of a PID and mount namespace ("ground")
//!               │  nsenter
//!               └──► dockerd ──► containerd ──► shims, containers
//! ```
//!
//! The kernel ends everything in the namespace, mounts included, when the ground ends; so no shim, container or mount outlives its test, whatever
//! ends the test. The engine itself can be killed and started again on the same ground, as on a machine. Outside of its folder an engine makes
//! only cgroups, which go with it (or with the next engine, when the test process was killed), and the empty folders `/etc/docker` and `/opt/containerd`.
//!
//! It listens on a unix socket only, makes no network and no firewall rule: containers have `--network none` or `host`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::packages::{Package, Programs};
use crate::process::{Process, Program};
use crate::state::State;
use crate::usage::children;
use crate::wait::until_ready;

/// Before all cgroups of test engines.
const CGROUP: &str = "cluster-stack-operator-";

/// Docker stops containers within 10 s, then itself.
const STOP_PATIENCE: Duration = Duration::from_mins(1);

/// The shell stays, to bury what loses its parent: an engine that is started again takes a dead containerd for a living one otherwise.
/// A private `/run` hides the machine's sockets and gives containerd the short paths that it needs; `$1` is the engine's folder, `$2` the size of its disk.
const GROUND: &str = r#"
set -e
mount -t tmpfs tmpfs /run
mkdir -p /etc/docker
mount --bind "$1/etc" /etc/docker
[ -z "$2" ] || mount -t tmpfs -o "size=$2" tmpfs "$1/data"
echo ready
sleep infinity &
wait
"#;

/// How an engine differs from a plain one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The engine's disk has this many bytes and lies in memory.
    pub space: Option<u64>,
    /// Settings of `daemon.json`.
    pub settings: Value,
}

/// An engine; dropping it ends it with its containers and removes its images.
#[derive(Debug)]
pub struct DockerEngine {
    programs: Programs,
    daemon: Mutex<Option<Process>>,
    ground: Process,
    state: State,
}

impl DockerEngine {
    /// Starts an engine and waits until it answers.
    ///
    /// # Errors
    ///
    /// When this user is not root, there is no engine to be had, or it does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts an engine with options.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(options: Options) -> Result<Self> {
        ensure!(
            is_root()?,
            "a Docker engine needs root; run the tests as root, in a container or a virtual machine"
        );
        let programs = Package::Docker.provide_async().await?;
        sweep();
        let state = State::create("docker")?;
        for folder in ["etc", "data"] {
            fs::create_dir(state.path().join(folder)).context("failed to create a folder")?;
        }
        let settings = match options.settings {
            Value::Null => json!({}),
            settings => settings,
        };
        fs::write(state.path().join("daemon.json"), settings.to_string())
            .context("failed to write the engine's settings")?;
        let space = options.space.map(|bytes| bytes.to_string());
        let ground = Process::start(
            &Program::new(
                "the engine's ground",
                Path::new("unshare"),
                &state.path().join("ground.log"),
            )
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["sh", "-c", GROUND, "ground"])
            .arg(state.path().to_string_lossy())
            .arg(space.unwrap_or_default()),
        )?;
        until_ready(&ground, async || {
            let log = fs::read_to_string(ground.log())?;
            ensure!(log.ends_with("ready\n"), "{log}");
            Ok(())
        })
        .await?;
        let engine = Self {
            programs,
            daemon: Mutex::new(None),
            ground,
            state,
        };
        engine.start_again().await?;
        Ok(engine)
    }

    /// Starts the engine after [`stop`](Self::stop) or [`kill_9`](Self::kill_9) and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start.
    pub async fn start_again(&self) -> Result<()> {
        ensure!(
            !self.is_running(),
            "the engine runs, it cannot be started again"
        );
        let process = Process::start(&self.program()?)?;
        let ready = until_ready(&process, async || {
            let pong = self.get("/_ping").await?;
            ensure!(pong == "OK", "{pong}");
            Ok(())
        })
        .await;
        *self.daemon() = Some(process);
        ready
    }

    fn program(&self) -> Result<Program> {
        let ground = children(self.ground.pid());
        let ground = ground.first().context("the engine's ground is gone")?;
        let (folder, socket) = (self.state.path(), self.socket());
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        let log = folder.join("dockerd.log");
        let cgroup = format!("/{CGROUP}{}", self.name());
        let program = Program::new("dockerd", Path::new("nsenter"), &log)
            .arg(format!("--target={ground}"))
            .args(["--mount", "--pid", "--"])
            .arg(self.programs.path("dockerd")?.to_string_lossy())
            .arg(format!("--config-file={}", path("daemon.json")))
            .arg(format!("--data-root={}", path("data")))
            .arg(format!("--host=unix://{}", socket.display()))
            .args(["--exec-root=/run/docker", "--pidfile=/run/docker.pid"])
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false"])
            .args(["--ip-forward=false", "--ip-masq=false"])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .arg(format!("--cgroup-parent={cgroup}"))
            // No proxy of the machine's between the engine and a registry of the test bed.
            .clear_env()
            .env("PATH", &self.programs.search_path().to_string_lossy());
        let libraries = self.programs.library_path();
        Ok(if libraries.is_empty() {
            program
        } else {
            program.env("LD_LIBRARY_PATH", &libraries.to_string_lossy())
        })
    }

    /// `unix://…`, as `DOCKER_HOST` has it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The socket's file.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state.path().join("docker.sock")
    }

    /// The folder with all that the engine keeps, and its log.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.state.path()
    }

    /// Whether the engine's process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.daemon().as_ref().is_some_and(Process::is_running)
    }

    /// The last lines of the engine's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        crate::process::tail(&self.state.path().join("dockerd.log"), lines)
    }

    /// Ends the engine in order.
    ///
    /// # Errors
    ///
    /// When it does not run or does not end.
    pub fn stop(&self) -> Result<()> {
        let process = self.daemon().take().context("the engine does not run")?;
        signal(daemon_pid(&process)?, "TERM")?;
        process.wait(STOP_PATIENCE)?;
        Ok(())
    }

    /// Kills the engine as `kill -9` does. Its containers go on until it is started again.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn kill_9(&self) -> Result<()> {
        let process = self.daemon().take().context("the engine does not run")?;
        signal(daemon_pid(&process)?, "KILL")?;
        process.wait(STOP_PATIENCE)?;
        Ok(())
    }

    /// Makes the engine hang: it accepts connections and answers nothing until [`thaw`](Self::thaw).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn freeze(&self) -> Result<()> {
        let daemon = self.daemon();
        let process = daemon.as_ref().context("the engine does not run")?;
        signal(daemon_pid(process)?, "STOP")
    }

    /// Lets a frozen engine go on.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn thaw(&self) -> Result<()> {
        let daemon = self.daemon();
        let process = daemon.as_ref().context("the engine does not run")?;
        signal(daemon_pid(process)?, "CONT")?;
        // It stops when its child does, and does not see it go on.
        signal(process.pid(), "CONT")
    }

    /// Runs the command line client against this engine and gives its output without the final line break.
    ///
    /// # Errors
    ///
    /// With what it printed, when it fails.
    pub async fn docker<S: AsRef<std::ffi::OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let output = tokio::process::Command::new(self.programs.path("docker")?)
            .args(args)
            .env("DOCKER_HOST", self.host())
            // No credentials of the user's.
            .env("DOCKER_CONFIG", self.state.path())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("failed to run docker")?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("docker failed: {}", words.trim());
        }
        let text = String::from_utf8(output.stdout).context("docker printed no text")?;
        Ok(text.trim_end().to_owned())
    }

    /// The body of a GET request, whatever its status.
    async fn get(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(self.socket())
            .await
            .context("failed to connect to the engine")?;
        stream
            .write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())
            .await
            .context("failed to send")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .context("failed to receive")?;
        let (_, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
        Ok(body.to_owned())
    }

    fn name(&self) -> String {
        let name = self.state.path().file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Process>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DockerEngine {
    fn drop(&mut self) {
        let ground = children(self.ground.pid());
        self.ground.kill_9();
        drop(self.daemon().take());
        // The namespace's first process ends last.
        let deadline = Instant::now() + STOP_PATIENCE;
        while let Some(pid) = ground.first()
            && Path::new(&format!("/proc/{pid}")).exists()
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        remove_cgroups(|name| *name == format!("{CGROUP}{}", self.name()));
    }
}

/// The engine itself: `nsenter` starts it as its child.
fn daemon_pid(process: &Process) -> Result<u32> {
    let children = children(process.pid());
    let pid = children.first().copied();
    pid.with_context(|| format!("the engine has ended:\n{}", process.log_tail(10)))
}

fn signal(pid: u32, signal: &str) -> Result<()> {
    let status = std::process::Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", signal, &pid.to_string()])
        .status()
        .context("failed to run sh")?;
    ensure!(status.success(), "failed to send {signal} to {pid}");
    Ok(())
}

fn is_root() -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let own = fs::metadata("/proc/self").context("failed to look for this user")?;
    Ok(own.uid() == 0)
}

/// Removes cgroups whose engine's folder is gone: their owner was killed.
fn sweep() {
    let folders = std::env::temp_dir().join("cluster-stack-operator-tests");
    remove_cgroups(|name| {
        name.strip_prefix(CGROUP)
            .is_some_and(|engine| !folders.join(engine).exists())
    });
}

/// Version 1 has a hierarchy for each controller, version 2 has one.
fn remove_cgroups(wanted: impl Fn(&str) -> bool) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
    let hierarchies = hierarchies.map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        for entry in fs::read_dir(hierarchy).into_iter().flatten().flatten() {
            if wanted(&entry.file_name().to_string_lossy()) {
                let groups = walkdir::WalkDir::new(entry.path()).contents_first(true);
                for group in groups.into_iter().flatten() {
                    if group.file_type().is_dir() {
                        // Fails while a process is in it.
                        let _ = fs::remove_dir(group.path());
                    }
                }
            }
        }
    }
}
