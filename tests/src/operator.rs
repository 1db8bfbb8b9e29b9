//! The real operator, as a process of its own and under its own role.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::{Api, Client};
use tokio::sync::OnceCell;

use crate::control_plane::{ApiServer, User};
use crate::manifests;
use crate::ports::Port;
use crate::process::{Process, Program};
use crate::state::State;
use crate::tools::{self, Tool, repository};
use crate::wait::until_ready;

/// The user that the operator is, to be named in role bindings; also the name of its roles.
pub const USER: &str = "core-operator";

/// How long a graceful end may take.
const STOP: Duration = Duration::from_secs(30);

/// Installs the operator's CRDs and role as they are delivered (`deploy/crds`, `deploy/rbac`), and gives the role to [`USER`]: the cluster role `core-operator`
/// everywhere, and leases in `lease_namespace`.
///
/// # Errors
///
/// When a folder is missing or the API server refuses.
pub async fn install_rbac(client: &Client, lease_namespace: &str) -> Result<()> {
    let mut objects = manifests::read_folder(&repository().join("deploy/crds"))?;
    objects.extend(manifests::read_folder(&repository().join("deploy/rbac"))?);
    manifests::apply(client, lease_namespace, objects).await?;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    roles
        .get(USER)
        .await
        .context("deploy/rbac has no such ClusterRole")?;
    let bindings = format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {USER}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {USER}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {USER}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {USER}-leases}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {USER}-leases}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {USER}}}]
"
    );
    manifests::apply_yaml(client, lease_namespace, &bindings).await
}

/// The operator's binary, built in the profile of this program. The first call builds, the others wait for it.
///
/// # Errors
///
/// When it does not build.
pub async fn binary() -> Result<&'static Path> {
    static BINARY: OnceCell<PathBuf> = OnceCell::const_new();
    let path = BINARY.get_or_try_init(|| async {
        tokio::task::spawn_blocking(build)
            .await
            .context("failed to build the operator")?
    });
    path.await.map(PathBuf::as_path)
}

fn build() -> Result<PathBuf> {
    let state = State::create("build-operator")?;
    let (log, output) = (
        state.path().join("cargo.log"),
        state.path().join("artifacts.json"),
    );
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut program = Program::new("cargo build", Path::new(&cargo), &log)
        .directory(repository())
        .output(&output)
        // The whole workspace decides on features, as in `cargo test`: then nothing is compiled twice.
        .args(["build", "--locked", "--workspace", "--bin", "core-operator"])
        .arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        program = program.arg("--release");
    }
    // What cargo told this program about itself is not about the operator, and would make build scripts run again.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if [
            "CARGO_PKG_",
            "CARGO_MANIFEST_",
            "CARGO_BIN_",
            "CARGO_CRATE_",
            "CARGO_PRIMARY_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        {
            program = program.env_remove(&name);
        }
    }
    let build = Process::start(&program)?;
    let status = build.wait(Duration::from_mins(30))?;
    ensure!(
        status.success(),
        "failed to build the operator:\n{}",
        build.log_tail(60)
    );
    let messages = std::fs::read_to_string(&output).context("failed to read what cargo built")?;
    let executable = messages.lines().find_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        (message["target"]["name"] == "core-operator")
            .then(|| message["executable"].as_str().map(PathBuf::from))
            .flatten()
    });
    executable.context("cargo has not built the operator's binary")
}

/// A running operator. Dropping it kills it and all that it started.
#[derive(Debug)]
pub struct Operator {
    process: Process,
    health_port: Port,
    metrics_port: Port,
    folder: PathBuf,
}

/// How an operator is started; see [`Operator::builder`].
#[derive(Debug)]
pub struct Builder<'a> {
    server: &'a ApiServer,
    user: Option<User>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    wait: bool,
    lease_namespace: String,
    cache: Option<PathBuf>,
    logs: Option<&'a Mutex<Vec<PathBuf>>>,
}

impl Operator {
    /// Prepares an operator for this API server. It knows nothing of this process's environment.
    #[must_use]
    pub fn builder(server: &ApiServer) -> Builder<'_> {
        Builder {
            server,
            user: None,
            args: Vec::new(),
            env: Vec::new(),
            wait: true,
            lease_namespace: "default".to_owned(),
            cache: None,
            logs: None,
        }
    }

    /// The operator's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.is_running()
    }

    /// The process, for signals.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A folder of its own, which goes with the control plane: the log outlives the operator.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `http://127.0.0.1:<port>` with `/healthz` and `/readyz`.
    #[must_use]
    pub fn health_url(&self) -> String {
        format!("http://{}", self.health_port.address())
    }

    /// `http://127.0.0.1:<port>` with `/metrics`.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.metrics_port.address())
    }

    /// What it has written so far.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn log(&self) -> Result<String> {
        std::fs::read_to_string(self.process.log()).context("failed to read the operator's log")
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        self.process.log_tail(lines)
    }

    /// Ends it as `SIGTERM` does, and waits for it.
    ///
    /// # Errors
    ///
    /// When it has ended before, or does not end in time.
    pub fn stop(&self) -> Result<ExitStatus> {
        self.process.stop(STOP)
    }

    /// Kills it, and only it, as `kill -9` does.
    pub fn kill_9(&self) {
        self.process.kill_9();
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    ///
    /// With the end of its log, when it ends or does not become ready in a minute.
    pub async fn ready(&self) -> Result<()> {
        crate::install_crypto();
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("failed to make a client")?;
        let url = format!("{}/readyz", self.health_url());
        until_ready(&self.process, async || {
            http.get(&url).send().await?.error_for_status()?;
            Ok(())
        })
        .await
    }
}

impl<'a> Builder<'a> {
    /// Tells where its log is, before it starts.
    pub(crate) fn log_to(mut self, logs: &'a Mutex<Vec<PathBuf>>) -> Self {
        self.logs = Some(logs);
        self
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as somebody else than [`USER`].
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.user = Some(user);
        self
    }

    /// Has the lease in this namespace: operators with leases in different ones do not wait for each other, so each must work on objects of its own
    /// (`--namespace`). [`install_rbac`] gives the right to it.
    #[must_use]
    pub fn lease_namespace(mut self, namespace: &str) -> Self {
        namespace.clone_into(&mut self.lease_namespace);
        self
    }

    /// Keeps downloads in this folder, as a container does that is started again in its pod. Without it, each operator has one of its own.
    #[must_use]
    pub fn cache_dir(mut self, folder: &Path) -> Self {
        self.cache = Some(folder.to_owned());
        self
    }

    /// Does not wait for `/readyz`: for operators that wait themselves, such as the second of two replicas, or refuse to start.
    #[must_use]
    pub fn without_waiting(mut self) -> Self {
        self.wait = false;
        self
    }

    /// Starts the operator, built first if need be, and waits until it is ready.
    ///
    /// # Errors
    ///
    /// When it does not build, or with its log, when it does not become ready.
    pub async fn start(self) -> Result<Operator> {
        let binary = binary().await?;
        let tools = tools::ensure_async(&[Tool::HelmRenderer]).await?;
        let renderer = tools.path(Tool::HelmRenderer)?;
        let folder = self
            .server
            .folder()
            .join(format!("operator-{}", crate::random_word()));
        std::fs::create_dir(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let user = match self.user {
            Some(user) => user,
            None => self.server.user(USER, None)?,
        };
        let (health_port, metrics_port) = (Port::reserve()?, Port::reserve()?);
        let log = folder.join("operator.log");
        if let Some(logs) = self.logs {
            logs.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(log.clone());
        }
        let mut program = Program::new(USER, binary, &log)
            .clear_env()
            .args([
                format!("--kubeconfig={}", user.kubeconfig().display()),
                format!("--health-probe-bind-address={}", health_port.address()),
                format!("--metrics-bind-address={}", metrics_port.address()),
                format!("--helm-renderer={}", renderer.display()),
                format!(
                    "--cache-dir={}",
                    self.cache.unwrap_or_else(|| folder.join("cache")).display()
                ),
                format!("--leader-elect-namespace={}", self.lease_namespace),
            ])
            .args(self.args);
        for (name, value) in &self.env {
            program = program.env(name, value);
        }
        let operator = Operator {
            process: Process::start(&program)?,
            health_port,
            metrics_port,
            folder,
        };
        if self.wait {
            operator.ready().await?;
        }
        Ok(operator)
    }
}
