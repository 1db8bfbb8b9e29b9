//! Kubernetes control planes without nodes: etcd, API servers, and the controllers that tests rely on.
//!
//! One etcd serves any number of API servers, each under a prefix of its own: separate clusters in all that a client can see. Only the management cluster has a
//! controller manager (garbage collection, namespaces, service accounts); in a workload cluster tests play the controllers.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::OnceCell;

use crate::audit::{self, Requests};
use crate::certificates::{Authority, Identity, token_keys};
use crate::ports::Port;
use crate::process::{Process, Program};
use crate::state::State;
use crate::tools::{self, Tool, Tools};
use crate::wait::{eventually, until_ready};

const TOOLS: &[Tool] = &[Tool::Etcd, Tool::KubeApiserver, Tool::KubeControllerManager];

/// How long an API server may take to end; about a second when nothing else runs.
const STOP: Duration = Duration::from_secs(30);

/// What a control plane is to have.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Run the controller manager: owner references, namespaces and service accounts work.
    pub controllers: bool,
    /// Write the audit log that [`ApiServer::requests`] reads. Costs the API server about a tenth of its time.
    pub audit: bool,
    /// Name of the management cluster in messages and files.
    pub name: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            controllers: true,
            audit: true,
            name: "management".to_owned(),
        }
    }
}

/// A management cluster: an API server with an etcd and controllers. Everything ends when this value and all [`ApiServer`]s from it are dropped, or this process ends.
#[derive(Debug)]
pub struct ControlPlane {
    // In the order in which they end.
    controllers: Option<Process>,
    management: ApiServer,
}

/// A control plane is used as its management cluster's API server.
impl std::ops::Deref for ControlPlane {
    type Target = ApiServer;

    fn deref(&self) -> &ApiServer {
        &self.management
    }
}

impl ControlPlane {
    /// Starts a control plane; takes some five seconds.
    ///
    /// # Errors
    ///
    /// When a program is missing and cannot be built, or does not start.
    pub async fn start(options: Options) -> Result<Self> {
        let base = Arc::new(Base::start(options.audit).await?);
        let management = ApiServer::start(&base, &options.name).await?;
        let controllers = if options.controllers {
            Some(base.start_controllers(&management).await?)
        } else {
            None
        };
        Ok(Self {
            controllers,
            management,
        })
    }

    /// The control plane that all tests of this process share, each in a namespace of its own. The first call starts it.
    ///
    /// It is as it comes: tests that need CRDs apply them, which does nothing the second time.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn shared() -> Result<&'static Self> {
        // Never dropped; the guards of its processes end them when this process ends.
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED
            .get_or_try_init(|| Self::start(Options::default()))
            .await
    }

    /// Starts a further API server on the same etcd, without controllers: a workload cluster, empty and independent.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub async fn add_workload(&self, name: &str) -> Result<ApiServer> {
        ApiServer::start(&self.management.base, name).await
    }

    /// The controller manager, if there is one.
    #[must_use]
    pub fn controllers(&self) -> Option<&Process> {
        self.controllers.as_ref()
    }

    /// The process that stores everything.
    #[must_use]
    pub fn etcd(&self) -> &Process {
        &self.management.base.etcd
    }
}

/// An API server and the ways to reach it.
#[derive(Debug)]
pub struct ApiServer {
    name: String,
    process: Mutex<Option<Process>>,
    port: Port,
    admin: User,
    base: Arc<Base>,
}

impl ApiServer {
    async fn start(base: &Arc<Base>, name: &str) -> Result<Self> {
        let port = Port::reserve()?;
        let server = Self {
            name: name.to_owned(),
            process: Mutex::new(None),
            admin: base.user(name, port.number(), "test-bed", Some("system:masters"))?,
            port,
            base: Arc::clone(base),
        };
        server.start_api_server().await?;
        // Made by the API server itself, but not before it says that it is ready.
        let namespaces: Api<Namespace> = Api::all(server.client().await?);
        eventually("the first namespaces are there", STOP, async || {
            namespaces.get("kube-system").await?;
            namespaces.get("default").await?;
            Ok(())
        })
        .await?;
        Ok(server)
    }

    /// The cluster's name in messages and files.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `https://127.0.0.1:<port>`; the same after a restart.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// Where it listens; the same after a restart.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.number()).into()
    }

    /// A new client with all rights. Clients belong to the runtime that made them, so each test needs its own.
    ///
    /// # Errors
    ///
    /// When the client cannot be made; the API server is not asked.
    pub async fn client(&self) -> Result<Client> {
        self.admin.client().await
    }

    /// The user with all rights.
    #[must_use]
    pub fn admin(&self) -> &User {
        &self.admin
    }

    /// A kubeconfig file with all rights, as for `kubectl --kubeconfig`.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.admin.kubeconfig
    }

    /// A user who has no right but those given by role bindings to the name or the group.
    ///
    /// # Errors
    ///
    /// When the certificate or the kubeconfig cannot be made.
    pub fn user(&self, common_name: &str, group: Option<&str>) -> Result<User> {
        self.base
            .user(&self.name, self.port.number(), common_name, group)
    }

    /// The authority that has signed the API server's certificate, and signs what else a test needs.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.base.authority
    }

    /// Watches what a user asks from now on. Needs [`Options::audit`].
    ///
    /// # Errors
    ///
    /// When there is no audit log or the API server does not answer.
    pub async fn requests(&self, user: &str) -> Result<Requests> {
        ensure!(
            self.base.audit,
            "{} was started without an audit log",
            self.name
        );
        Requests::new(self.audit_log(), user, self.admin.clone()).await
    }

    /// Makes a namespace whose name begins with `prefix` and is used by nobody else.
    ///
    /// # Errors
    ///
    /// When the API server refuses.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let mut namespace = Namespace::default();
        let name = format!("{prefix}-{}", crate::random_word());
        namespace.metadata.name = Some(name.clone());
        let api: Api<Namespace> = Api::all(self.client().await?);
        api.create(&kube::api::PostParams::default(), &namespace)
            .await
            .with_context(|| format!("failed to create namespace {name:?}"))?;
        Ok(name)
    }

    /// A folder for files that live as long as the control plane.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.base.state.path()
    }

    /// The last lines of the API server's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        crate::process::tail(&self.log(), lines)
    }

    /// The API server's pid while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    /// Ends the API server as `SIGTERM` does. Its data stay.
    ///
    /// # Errors
    ///
    /// When it does not run, or does not end in time (it is killed then).
    pub fn stop_api_server(&self) -> Result<()> {
        let process = self.process().take();
        let process = process.with_context(|| format!("{} does not run", self.name))?;
        process.stop(STOP).map(|_| ())
    }

    /// Kills the API server as `kill -9` does. Its data stay.
    pub fn kill_api_server(&self) {
        drop(self.process().take());
    }

    /// Starts the API server again, on the same port and data.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start.
    pub async fn start_api_server(&self) -> Result<()> {
        ensure!(self.process().is_none(), "{} runs already", self.name);
        let base = &self.base;
        let (etcd, port) = (base.etcd_port.address(), self.port.number());
        let path = |name: &str| base.state.path().join(name).display().to_string();
        let mut program = Program::new(
            &format!("kube-apiserver of {}", self.name),
            base.tools.path(Tool::KubeApiserver)?,
            &self.log(),
        )
        // A tenth less memory for a tenth of a second at the start.
        .env("GOGC", "50")
        .args([
            format!("--etcd-servers=http://{etcd}"),
            format!("--etcd-prefix=/{}", self.name),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", path("serving.crt")),
            format!("--tls-private-key-file={}", path("serving.key")),
            format!("--client-ca-file={}", path("ca.crt")),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("tokens.pub")),
            format!("--service-account-signing-key-file={}", path("tokens.key")),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--allow-privileged=true".to_owned(),
            "--enable-priority-and-fairness=false".to_owned(),
            "--profiling=false".to_owned(),
            "--event-ttl=15m".to_owned(),
            "--shutdown-delay-duration=0s".to_owned(),
        ]);
        if base.audit {
            program = program.args([
                format!("--audit-policy-file={}", path("audit-policy.yaml")),
                format!("--audit-log-path={}", self.audit_log().display()),
                // In MB, and the default 0 means 100: the log must not be rotated away under its readers.
                "--audit-log-maxsize=10000".to_owned(),
            ]);
        }
        let process = Process::start(&program)?;
        let client = self.client().await?;
        until_ready(&process, async || {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            client.request_text(request).await?;
            Ok(())
        })
        .await?;
        *self.process() = Some(process);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder().join(format!("{}.log", self.name))
    }

    fn audit_log(&self) -> PathBuf {
        self.folder().join(format!("{}.audit.log", self.name))
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A user of one API server, known by a client certificate.
#[derive(Clone, Debug)]
pub struct User {
    kubeconfig: PathBuf,
    text: String,
}

impl User {
    /// The file to give to a program.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The content of the file, as Cluster API keeps it in a cluster's Secret.
    #[must_use]
    pub fn kubeconfig_text(&self) -> &str {
        &self.text
    }

    /// The same user, who reaches the API server by another address: that of a proxy in front of it.
    ///
    /// # Errors
    ///
    /// When the kubeconfig cannot be written.
    pub fn through(&self, address: SocketAddr) -> Result<Self> {
        let lines = self
            .text
            .lines()
            .map(|line| match line.split_once("server: ") {
                Some((indentation, _)) => format!("{indentation}server: https://{address}\n"),
                None => format!("{line}\n"),
            });
        let text: String = lines.collect();
        let kubeconfig = self
            .kubeconfig
            .with_extension(format!("{}.kubeconfig", address.port()));
        write(&kubeconfig, &text)?;
        Ok(Self { kubeconfig, text })
    }

    /// A new client with this user's rights.
    ///
    /// # Errors
    ///
    /// When the client cannot be made; the API server is not asked.
    pub async fn client(&self) -> Result<Client> {
        crate::install_crypto();
        let kubeconfig =
            Kubeconfig::from_yaml(&self.text).context("failed to read the kubeconfig")?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("failed to use the kubeconfig")?;
        let builder = core_operator::client::builder(&config).context("failed to make a client")?;
        Ok(builder.build())
    }
}

/// What the API servers of a control plane share.
#[derive(Debug)]
struct Base {
    etcd: Process,
    etcd_port: Port,
    // Freed only when etcd has ended.
    _peer_port: Port,
    audit: bool,
    authority: Authority,
    tools: Tools,
    state: State,
}

impl Base {
    async fn start(audit: bool) -> Result<Self> {
        crate::install_crypto();
        let tools = tools::ensure_async(TOOLS).await?;
        let state = State::create("control-plane")?;
        let authority = Authority::new()?;
        let serving = authority.server(&["kubernetes.default.svc"])?;
        let (token_key, token_public) = token_keys()?;
        for (name, content) in [
            ("ca.crt", authority.certificate().as_str()),
            ("serving.crt", &serving.certificate),
            ("serving.key", &serving.key),
            ("tokens.key", &token_key),
            ("tokens.pub", &token_public),
            ("audit-policy.yaml", audit::POLICY),
        ] {
            write(&state.path().join(name), content)?;
        }

        let (port, peer_port) = (Port::reserve()?, Port::reserve()?);
        let (client, peer) = (
            format!("http://{}", port.address()),
            format!("http://{}", peer_port.address()),
        );
        let data = state.path().join("etcd");
        let program = Program::new(
            "etcd",
            tools.path(Tool::Etcd)?,
            &state.path().join("etcd.log"),
        )
        .args([
            format!("--data-dir={}", data.display()),
            // Tests do not survive the machine.
            "--unsafe-no-fsync".to_owned(),
            "--log-level=warn".to_owned(),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ])
        .leftover(&data);
        let etcd = Process::start(&program)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("failed to make a client")?;
        until_ready(&etcd, async || {
            http.get(format!("{client}/readyz"))
                .send()
                .await?
                .error_for_status()?;
            Ok(())
        })
        .await?;
        Ok(Self {
            etcd,
            etcd_port: port,
            _peer_port: peer_port,
            audit,
            authority,
            tools,
            state,
        })
    }

    async fn start_controllers(&self, server: &ApiServer) -> Result<Process> {
        let user = server.user("system:kube-controller-manager", None)?;
        let path = |name: &str| self.state.path().join(name).display().to_string();
        let program = Program::new(
            "kube-controller-manager",
            self.tools.path(Tool::KubeControllerManager)?,
            &self.state.path().join("kube-controller-manager.log"),
        )
        .args([
            format!("--kubeconfig={}", user.kubeconfig().display()),
            // Nothing is asked of it, and nothing listens.
            "--secure-port=0".to_owned(),
            "--leader-elect=false".to_owned(),
            "--use-service-account-credentials=true".to_owned(),
            format!("--service-account-private-key-file={}", path("tokens.key")),
            format!("--root-ca-file={}", path("ca.crt")),
            "--controllers=garbage-collector-controller,namespace-controller,serviceaccount-controller,root-ca-certificate-publisher-controller,clusterrole-aggregation-controller"
                .to_owned(),
            "--concurrent-gc-syncs=4".to_owned(),
        ]);
        let process = Process::start(&program)?;
        let accounts: Api<ServiceAccount> = Api::namespaced(server.client().await?, "default");
        // Its first deed; better than a health check, which does not say that the controllers run.
        until_ready(&process, async || {
            accounts.get("default").await?;
            Ok(())
        })
        .await?;
        Ok(process)
    }

    fn user(
        &self,
        cluster: &str,
        port: u16,
        common_name: &str,
        group: Option<&str>,
    ) -> Result<User> {
        let identity = self.authority.client(common_name, group)?;
        let text = kubeconfig(port, &self.authority.certificate(), &identity);
        let file = format!(
            "{cluster}.{}.{}.kubeconfig",
            common_name.replace([':', '/'], "-"),
            crate::random_word()
        );
        let path = self.state.path().join(file);
        write(&path, &text)?;
        Ok(User {
            kubeconfig: path,
            text,
        })
    }
}

fn kubeconfig(port: u16, authority: &str, identity: &Identity) -> String {
    let [authority, certificate, key] =
        [authority, &identity.certificate, &identity.key].map(|pem| BASE64.encode(pem));
    format!(
        "apiVersion: v1
kind: Config
current-context: default
contexts:
- name: default
  context: {{cluster: default, user: default}}
clusters:
- name: default
  cluster:
    server: https://127.0.0.1:{port}
    certificate-authority-data: {authority}
users:
- name: default
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
"
    )
}

/// Readable by this user only; the folder is, too.
fn write(path: &Path, content: &str) -> Result<()> {
    fs::write(path, content).with_context(|| format!("failed to write {}", path.display()))
}
