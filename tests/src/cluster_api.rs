//! Cluster API: its kinds alone, or with its real core manager.
//!
//! Does in Rust what kustomize and cert-manager do for an installation with Pods: certificates, and webhooks by URL instead of by Service.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::control_plane::ApiServer;
use crate::manifests;
use crate::ports::Port;
use crate::process::{Process, Program};
use crate::tools::{self, Tool};
use crate::wait::until_ready;

/// How long the manager may take to end.
const STOP: Duration = Duration::from_secs(30);

/// The feature gates that cluster stacks need: `ClusterTopology` for classes, `RuntimeSDK` for hooks.
pub const FEATURE_GATES: &[(&str, bool)] = &[("ClusterTopology", true), ("RuntimeSDK", true)];

/// Cluster API's core manager on an API server. Dropping it kills the manager; CRDs and webhooks stay, and refuse writes.
#[derive(Debug)]
pub struct ClusterApi {
    process: Mutex<Option<Process>>,
    program: Program,
    webhook_port: Port,
    health_port: Port,
}

/// Installs Cluster API's kinds without its manager: nothing defaults, converts, validates or reconciles, and tests write status themselves.
///
/// Not on an API server that has the manager: its CRDs would lose their conversion webhook.
///
/// # Errors
///
/// When the manifests cannot be had or the API server refuses.
pub async fn install_crds(client: &Client) -> Result<()> {
    manifests::apply_crds(client, crds(&json!({"strategy": "None"})).await?).await
}

impl ClusterApi {
    /// Installs Cluster API with its core manager, as system:masters, with these feature gates; see [`FEATURE_GATES`]. Takes some four seconds.
    ///
    /// # Errors
    ///
    /// When the manager is missing and cannot be built, does not start, or the API server refuses.
    pub async fn start(server: &ApiServer, feature_gates: &[(&str, bool)]) -> Result<Self> {
        let tools = tools::ensure_async(&[Tool::CapiCore]).await?;
        let (webhook_port, health_port) = (Port::reserve()?, Port::reserve()?);
        let url = format!("https://{}", webhook_port.address());
        let authority = BASE64.encode(server.authority().certificate());

        let certificates = server
            .folder()
            .join(format!("cluster-api-{}", server.name()));
        let serving = server.authority().server(&[])?;
        fs::create_dir_all(&certificates)
            .context("failed to create the folder for the webhook's certificate")?;
        fs::write(certificates.join("tls.crt"), serving.certificate)
            .context("failed to write the certificate")?;
        fs::write(certificates.join("tls.key"), serving.key).context("failed to write the key")?;

        let gates: Vec<_> = feature_gates
            .iter()
            .map(|(name, on)| format!("{name}={on}"))
            .collect();
        let user = server.user("cluster-api", Some("system:masters"))?;
        let program = Program::new(
            "capi-core",
            tools.path(Tool::CapiCore)?,
            &server
                .folder()
                .join(format!("cluster-api-{}.log", server.name())),
        )
        .env("GOGC", "50")
        .args([
            format!("--kubeconfig={}", user.kubeconfig().display()),
            "--leader-elect=false".to_owned(),
            format!("--feature-gates={}", gates.join(",")),
            // Listens on all interfaces: the manager has no option for the address.
            format!("--webhook-port={}", webhook_port.number()),
            format!("--webhook-cert-dir={}", certificates.display()),
            format!("--health-addr={}", health_port.address()),
            "--diagnostics-address=0".to_owned(),
        ]);
        let manager = Self {
            process: Mutex::new(None),
            program,
            webhook_port,
            health_port,
        };

        let client = server.client().await?;
        let conversion = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("{url}/convert"), "caBundle": authority},
        }});
        // The manager exits at once when a kind is not served yet.
        manifests::apply_crds(&client, crds(&conversion).await?).await?;
        manager.start_manager().await?;
        // After the manager: until it serves its webhooks, their configurations would refuse everything.
        manifests::apply(&client, "default", webhooks(&url, &authority).await?).await?;
        Ok(manager)
    }

    /// Ends the manager as `SIGTERM` does. Its webhooks stay configured, so most writes to Cluster API's kinds are refused until it is back.
    ///
    /// # Errors
    ///
    /// When it does not run or does not end in time.
    pub fn stop_manager(&self) -> Result<()> {
        let process = self.process().take();
        process
            .context("Cluster API's manager does not run")?
            .stop(STOP)
            .map(|_| ())
    }

    /// Kills the manager as `kill -9` does.
    pub fn kill_manager(&self) {
        drop(self.process().take());
    }

    /// Starts the manager again, on the same ports.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start.
    pub async fn start_manager(&self) -> Result<()> {
        ensure!(
            self.process().is_none(),
            "Cluster API's manager runs already"
        );
        let process = Process::start(&self.program)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .context("failed to make a client")?;
        let url = format!("http://{}/readyz", self.health_port.address());
        until_ready(&process, async || {
            http.get(&url).send().await?.error_for_status()?;
            Ok(())
        })
        .await?;
        *self.process() = Some(process);
        Ok(())
    }

    /// The manager's pid while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process().as_ref().map(Process::pid)
    }

    /// The last lines of the manager's log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        crate::process::tail(self.program.log(), lines)
    }

    /// The port of the webhooks.
    #[must_use]
    pub fn webhook_port(&self) -> u16 {
        self.webhook_port.number()
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn crds(conversion: &Value) -> Result<Vec<CustomResourceDefinition>> {
    read("crd/bases")
        .await?
        .into_iter()
        .map(|mut object| {
            object.metadata.labels.get_or_insert_default().insert(
                "cluster.x-k8s.io/provider".to_owned(),
                "cluster-api".to_owned(),
            );
            object.data["spec"]["conversion"] = conversion.clone();
            object
                .try_parse()
                .context("not only CRDs among Cluster API's CRDs")
        })
        .collect()
}

async fn webhooks(url: &str, authority: &str) -> Result<Vec<DynamicObject>> {
    let mut configurations = read("webhook").await?;
    configurations.retain(|object| object.data.get("webhooks").is_some());
    for configuration in &mut configurations {
        let name = configuration.metadata.name.take().unwrap_or_default();
        configuration.metadata.name = Some(format!("capi-{name}"));
        let webhooks = configuration.data["webhooks"].as_array_mut();
        for webhook in webhooks.context("no list of webhooks")? {
            let path = webhook["clientConfig"]["service"]["path"].as_str();
            let path = path.context("a webhook without path")?.to_owned();
            webhook["clientConfig"] = json!({"url": format!("{url}{path}"), "caBundle": authority});
        }
    }
    Ok(configurations)
}

async fn read(part: &'static str) -> Result<Vec<DynamicObject>> {
    tokio::task::spawn_blocking(move || {
        let folder: PathBuf = tools::cluster_api_manifests()?;
        if part == "webhook" {
            // Beside it lie inputs of kustomize.
            let path = folder.join("webhook/manifests.yaml");
            let text = fs::read_to_string(&path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            return manifests::parse(&text);
        }
        manifests::read_folder(&folder.join(part))
    })
    .await
    .context("failed to read Cluster API's manifests")?
}
