//! `cargo demo`: the operator's main job, on a real API server, before your eyes.
//!
//! Starts a control plane with Cluster API, the operator as a process of its own under its own roles, and a
//! `ClusterStack`; shows each step and how long it took. Everything ends with it.

#![expect(clippy::print_stdout, reason = "a demo talks to people")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use core_operator::{
    api::{ClusterStack, ClusterStackRelease},
    release::ReleaseName,
};
use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use tests::{
    ClusterApi, ControlPlane, Operator,
    cluster_api::FEATURE_GATES,
    control_plane::Options,
    manifests, operator,
    provider_kinds::Provider,
    stacks::StackRelease,
    tools::{self, Tool},
};

/// Namespace of the demo's objects.
const NAMESPACE: &str = "fleet";

/// How long a release may take to become ready before the demo gives up and says what it sees.
const PATIENCE: Duration = Duration::from_secs(30);

/// Shows the operator's main job on a real API server.
#[derive(Debug, Parser)]
struct Args {
    /// Leave everything running until Ctrl-C, and print how to reach it
    #[arg(long)]
    keep: bool,
    /// Directory with releases, one folder each [default: the project's own example stack]
    #[arg(long, value_name = "DIR")]
    release_dir: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    tokio::select! {
        result = demo(&args) => result,
        // Dropping what the demo started ends it.
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
    }
}

async fn demo(args: &Args) -> Result<()> {
    let mut steps = Steps::new();
    println!("Cluster Stack Operator: from a release to a usable ClusterClass\n");
    let tools = tools::ensure_async(&[
        Tool::Etcd,
        Tool::KubeApiserver,
        Tool::KubeControllerManager,
        Tool::Kubectl,
        Tool::CapiCore,
        Tool::HelmRenderer,
    ])
    .await?;
    operator::binary().await?;
    steps.done("programs are there");

    let folder = tempfile::tempdir().context("failed to make a folder for the example releases")?;
    let releases = if let Some(directory) = &args.release_dir {
        directory
            .canonicalize()
            .with_context(|| format!("failed to find {}", directory.display()))?
    } else {
        StackRelease::example("docker-example").write_to(folder.path())?;
        folder.path().to_owned()
    };
    let stacks = stacks(&releases)?;

    let control_plane = ControlPlane::start(Options::default()).await?;
    steps.done("API server, etcd and controllers run");
    let client = control_plane.client().await?;
    // First: an API server keeps the first object of a new kind waiting for two seconds.
    operator::install_rbac(&client, "default").await?;
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n");
    manifests::apply_yaml(&client, NAMESPACE, &namespace).await?;
    steps.done("the operator's kinds and roles are installed");
    for provider in Provider::ALL {
        manifests::apply_crds(&client, provider.crds()?).await?;
    }
    let _cluster_api = ClusterApi::start(&control_plane, FEATURE_GATES).await?;
    steps.done("Cluster API runs");
    let operator = Operator::builder(&control_plane)
        .arg("--source=local")
        .arg(format!("--release-dir={}", releases.display()))
        .start()
        .await?;
    steps.done("the operator is ready and leads");

    for (name, manifest) in &stacks {
        println!(
            "\n$ kubectl apply -f -   # ClusterStack {name}\n{}",
            indented(manifest)
        );
        steps.begin();
        manifests::apply_yaml(&client, NAMESPACE, manifest).await?;
        if let Err(error) = follow(&client, name, &mut steps).await {
            println!(
                "\n{error:#}\n\nThe operator's log ends with:\n{}",
                operator.log_tail(15)
            );
        }
    }

    let kubectl = Kubectl {
        program: tools.path(Tool::Kubectl)?,
        kubeconfig: control_plane.kubeconfig(),
    };
    println!();
    kubectl.show(&["get", "clusterstacks,clusterstackreleases,clusterclasses"])?;
    if args.keep {
        keep(&kubectl).await
    } else {
        println!(
            "\nWhat to try next: cargo demo --keep leaves this running and says how to reach it;\n\
             cargo demo --release-dir DIR takes any directory of releases."
        );
        Ok(())
    }
}

async fn keep(kubectl: &Kubectl<'_>) -> Result<()> {
    println!(
        "\nEverything stays until Ctrl-C. In another terminal:\n\n  \
         export KUBECONFIG={kubeconfig}\n  \
         {program} -n {NAMESPACE} get clusterstacks,clusterstackreleases,clusterclasses\n  \
         {program} -n {NAMESPACE} delete clusterclass --all      # they come back\n  \
         {program} -n {NAMESPACE} describe clusterstackreleases  # conditions, inventory, events\n  \
         {program} explain clusterstack.spec\n  \
         {program} -n {NAMESPACE} delete clusterstacks --all     # takes all of it away\n",
        kubeconfig = kubectl.kubeconfig.display(),
        program = kubectl.program.display(),
    );
    std::future::pending::<()>().await;
    Ok(())
}

/// A `ClusterStack` for each stack of which there is a release: its name and manifest.
fn stacks(folder: &Path) -> Result<Vec<(String, String)>> {
    let mut stacks = std::collections::BTreeMap::new();
    for sub in [folder.to_owned(), folder.join("cluster-stacks")] {
        let Ok(entries) = std::fs::read_dir(&sub) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = ReleaseName::parse(&entry.file_name().to_string_lossy());
            let Ok(name) = name else { continue };
            let Some((provider, stack)) = name.stem().split_once('-') else {
                continue;
            };
            let key = (provider.to_owned(), stack.to_owned(), name.kubernetes());
            stacks
                .entry(key)
                .or_insert_with(Vec::new)
                .push(name.version().clone());
        }
    }
    ensure!(!stacks.is_empty(), "{} holds no releases", folder.display());
    let manifests = stacks.into_iter().map(|((provider, stack, kubernetes), mut versions)| {
        versions.sort_by(core_operator::release::Version::list_order);
        let name = format!("{provider}-{stack}-{}", kubernetes.dash());
        // Versions with a word have no newest one, so they are listed.
        let plain = versions.iter().all(|version| version.word().is_none());
        let subscription = if plain {
            String::new()
        } else {
            let listed: Vec<_> = versions.iter().map(core_operator::release::Version::dotted).collect();
            format!("  channel: custom\n  autoSubscribe: false\n  versions: [{}]\n", listed.join(", "))
        };
        let manifest = format!(
            "apiVersion: clusterstack.x-k8s.io/v1alpha1\nkind: ClusterStack\nmetadata:\n  name: {name}\nspec:\n  \
             provider: {provider}\n  name: {stack}\n  kubernetesVersion: \"{kubernetes}\"\n  noProvider: true\n{subscription}"
        );
        (name, manifest)
    });
    Ok(manifests.collect())
}

/// Shows what becomes of a stack and its releases, until it is ready or waits for somebody.
async fn follow(client: &Client, name: &str, steps: &mut Steps) -> Result<()> {
    let stacks: Api<ClusterStack> = Api::namespaced(client.clone(), NAMESPACE);
    let releases: Api<ClusterStackRelease> = Api::namespaced(client.clone(), NAMESPACE);
    let field = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut stack = std::pin::pin!(watcher(stacks, field).applied_objects());
    let mut release =
        std::pin::pin!(watcher(releases, watcher::Config::default()).applied_objects());
    let mut shown = std::collections::BTreeMap::new();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        tokio::select! {
            Some(object) = release.next() => {
                let object = object?;
                let ours = object.owner_references().iter().any(|owner| owner.name == name);
                if !ours { continue }
                let status = object.status.clone().unwrap_or_default();
                let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
                let text = match ready {
                    Some(ready) if ready.status == "True" => {
                        let objects = status.resources.len();
                        format!("release {}: Ready, {objects} objects applied", object.name_any())
                    }
                    Some(ready) => format!("release {}: {} {}", object.name_any(), ready.reason, ready.message),
                    None => format!("release {}: made", object.name_any()),
                };
                if shown.insert(object.name_any(), text.clone()).as_ref() != Some(&text) {
                    steps.done(text.trim_end());
                }
            }
            Some(object) = stack.next() => {
                let status = object?.status.unwrap_or_default();
                let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
                let Some(ready) = ready else { continue };
                if ready.status == "True" {
                    let usable = status.usable_versions.unwrap_or_default();
                    steps.done(&format!("ClusterStack {name}: Ready, usable: {usable}"));
                    return Ok(());
                }
            }
            () = tokio::time::sleep_until(deadline) => {
                bail!("ClusterStack {name} is not ready after {} s", PATIENCE.as_secs());
            }
        }
    }
}

struct Kubectl<'a> {
    program: &'a Path,
    kubeconfig: &'a Path,
}

impl Kubectl<'_> {
    fn show(&self, args: &[&str]) -> Result<()> {
        println!("$ kubectl --namespace {NAMESPACE} {}", args.join(" "));
        let status = Command::new(self.program)
            .arg("--kubeconfig")
            .arg(self.kubeconfig)
            .args(["--namespace", NAMESPACE])
            .args(args)
            .status()
            .context("failed to run kubectl")?;
        ensure!(status.success(), "kubectl failed: {status}");
        Ok(())
    }
}

/// Prints what is done, and how long it took.
struct Steps(Instant);

impl Steps {
    fn new() -> Self {
        Self(Instant::now())
    }

    fn begin(&mut self) {
        self.0 = Instant::now();
    }

    fn done(&mut self, what: &str) {
        println!("{:>8.2} s  {what}", self.0.elapsed().as_secs_f64());
        self.begin();
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
