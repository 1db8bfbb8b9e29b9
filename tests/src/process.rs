//! Child processes that end with their owner, whatever ends the owner.
//!
//! ```text
//! test process ──pipe──► guard (sh)   at end of file: KILL the whole process group
//!      │                               │
//!      └── spawns ──► program ◄────────┘ same process group
//! ```
//!
//! Each program is started by a small shell script that first leaves a *guard* behind and then becomes the program (`exec`), so the pid that
//! we know is the program's own. The guard reads a pipe of which only the test process has the other end. When the test process ends, even by
//! `kill -9`, the kernel closes the pipe and the guard kills the process group: the program and all that it started.
//!
//! Not taken: `PR_SET_PDEATHSIG` fires when the spawning *thread* ends, and each test has its own; a guard program of our own would have to be
//! built and found by every binary that uses this crate.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Becomes the program; `$1` is a folder that goes when the owner has gone (or empty).
///
/// The guard is started by a shell that ends at once, so that the program does not get a child it knows nothing of. As a member of the
/// process group the guard also keeps the group's number from being used again, so it cannot hit a stranger.
const SCRIPT: &str = r#"
leftover=$1
shift
exec 3<&0
( ( trap '' HUP INT TERM
    cd /
    while read -r signal; do kill -s "$signal" "$$"; done
    kill -s KILL "$$"
    [ -z "$leftover" ] || rm -rf "$leftover"
    kill -s KILL -- "-$$"
  ) <&3 3<&- >/dev/null 2>&1 & )
exec "$@" </dev/null 3<&-
"#;

/// How a program is started; see [`Process::start`].
#[derive(Debug)]
pub struct Program {
    name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    removed: Vec<String>,
    cleared: bool,
    directory: Option<PathBuf>,
    log: PathBuf,
    output: Option<PathBuf>,
    leftover: Option<PathBuf>,
}

impl Program {
    /// The program at `path`, called `name` in messages, with its output appended to the file `log`.
    #[must_use]
    pub fn new(name: &str, path: &Path, log: &Path) -> Self {
        Self {
            name: name.to_owned(),
            path: path.to_owned(),
            args: Vec::new(),
            env: Vec::new(),
            removed: Vec::new(),
            cleared: false,
            directory: None,
            log: log.to_owned(),
            output: None,
            leftover: None,
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Does not hand over this variable of this process's environment.
    #[must_use]
    pub fn env_remove(mut self, name: &str) -> Self {
        self.removed.push(name.to_owned());
        self
    }

    /// Hands over nothing of this process's environment but `PATH`, `HOME` and `TMPDIR`.
    #[must_use]
    pub fn clear_env(mut self) -> Self {
        self.cleared = true;
        self
    }

    /// Starts the program in this folder.
    #[must_use]
    pub fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Writes standard output to a file of its own, not to the log.
    #[must_use]
    pub fn output(mut self, file: &Path) -> Self {
        self.output = Some(file.to_owned());
        self
    }

    /// The file with the output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// A folder to remove when the owner ends without having done so itself.
    #[must_use]
    pub fn leftover(mut self, folder: &Path) -> Self {
        self.leftover = Some(folder.to_owned());
        self
    }
}

/// A running (or ended) program. Dropping it kills it and everything it started.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    pid: u32,
    child: Mutex<Handles>,
}

#[derive(Debug)]
struct Handles {
    child: Child,
    /// The pipe of the guard; closed to make the guard act.
    guard: Option<ChildStdin>,
}

impl Process {
    /// Starts a program.
    ///
    /// A program that cannot be executed is seen as one that ended at once; the log says why.
    ///
    /// # Errors
    ///
    /// When the log cannot be written or the shell cannot be started.
    pub fn start(program: &Program) -> Result<Self> {
        let name = &program.name;
        let log = append(&program.log)?;
        let output = match &program.output {
            Some(path) => File::create(path)
                .with_context(|| format!("failed to create {}", path.display()))?,
            None => log.try_clone().context("failed to share the log")?,
        };
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SCRIPT, "guard"])
            .arg(program.leftover.as_deref().unwrap_or_else(|| Path::new("")))
            .arg(&program.path)
            .args(&program.args);
        if program.cleared {
            command.env_clear();
            for name in ["PATH", "HOME", "TMPDIR"] {
                if let Some(value) = std::env::var_os(name) {
                    command.env(name, value);
                }
            }
        }
        for name in &program.removed {
            command.env_remove(name);
        }
        command.envs(program.env.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &program.directory {
            command.current_dir(directory);
        }
        // A group of its own: Ctrl-C in a terminal reaches the owner only, which then ends its children in order.
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(output)
            .stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self {
            name: name.clone(),
            log: program.log.clone(),
            pid: child.id(),
            child: Mutex::new(Handles {
                guard: child.stdin.take(),
                child,
            }),
        })
    }

    /// What the program is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pid of the program itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The file with the program's output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Whether the program still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.handles().child.try_wait(), Ok(None))
    }

    /// Sends a signal by its name without `SIG`, such as `STOP`, `CONT` or `HUP`.
    ///
    /// # Errors
    ///
    /// When the program has ended.
    pub fn signal(&self, signal: &str) -> Result<()> {
        self.ensure_running()?;
        // The guard sends it: std knows no signal but KILL.
        let mut handles = self.handles();
        let Some(guard) = &mut handles.guard else {
            bail!("{} has no guard any more", self.name);
        };
        writeln!(guard, "{signal}")
            .with_context(|| format!("failed to send {signal} to {}", self.name))
    }

    /// Ends the program as `SIGTERM` does and waits; one that does not end within `patience` is killed, which is an error.
    ///
    /// # Errors
    ///
    /// When the program had ended before, or does not end in time.
    pub fn stop(&self, patience: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        match self.wait(patience) {
            Ok(status) => Ok(status),
            Err(error) => {
                self.kill_9();
                Err(error)
            }
        }
    }

    /// Kills the program, and only it, as `kill -9` does; returns when it is gone. What it started is left alone until the drop.
    pub fn kill_9(&self) {
        let mut handles = self.handles();
        // Fails only when it has ended already.
        let _ = handles.child.kill();
        let _ = handles.child.wait();
    }

    /// Waits for the program to end by itself.
    ///
    /// # Errors
    ///
    /// When it still runs after `patience`.
    pub fn wait(&self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.handles().child.try_wait();
            if let Some(status) =
                ended.with_context(|| format!("failed to wait for {}", self.name))?
            {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} still runs after {patience:?}\n{}",
                    self.name,
                    self.log_tail(20)
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An error with the end of the log if the program no longer runs.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn ensure_running(&self) -> Result<()> {
        let ended = self.handles().child.try_wait();
        match ended.with_context(|| format!("failed to look for {}", self.name))? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended ({status}), its log ends with:\n{}",
                self.name,
                self.log_tail(30)
            ),
        }
    }

    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill_9();
        // Closing the pipe makes the guard end what the program may have left behind.
        self.handles().guard = None;
    }
}

/// The last lines of a text file, or why there are none.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    // Far more than the lines asked for, far less than a long log.
    const WINDOW: u64 = 256 * 1024;
    let read = || -> std::io::Result<String> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let all: Vec<&str> = text.lines().collect();
            all[all.len().saturating_sub(lines)..].join("\n")
        }
        Err(error) => format!("({}: {error})", path.display()),
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .with_context(|| format!("failed to open {}", path.display()))
}
