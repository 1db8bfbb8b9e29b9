//! What users do: `kubectl apply`, `get` and `explain`.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use tests::tools::{self, Tool};

use crate::kind;

/// As users of the Go operator write it.
const MANIFESTS: &str = r#"
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterStack
metadata: {name: docker}
spec:
  provider: docker
  name: scs
  kubernetesVersion: "1.30"
  channel: stable
  autoSubscribe: false
  noProvider: true
  versions: [v1, v2]
---
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterStack
metadata: {name: openstack}
spec:
  provider: openstack
  name: scs
  kubernetesVersion: "1.32"
  channel: custom
  providerRef:
    apiVersion: infrastructure.clusterstack.x-k8s.io/v1alpha1
    kind: OpenStackClusterStackReleaseTemplate
    name: template
  versions: [v0-sha.sjl0coz]
---
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterStackRelease
metadata: {name: docker-scs-1-30-v1}
spec: {}
---
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterAddon
metadata: {name: cluster-addon-demo}
spec:
  hook: AfterControlPlaneInitialized
  clusterRef: {apiVersion: cluster.x-k8s.io/v1beta1, kind: Cluster, name: demo, namespace: default}
"#;

/// kubectl as administrator in a namespace.
struct Kubectl {
    tools: tools::Tools,
    namespace: String,
    file: tempfile::TempDir,
}

impl Kubectl {
    async fn new() -> Result<Self> {
        Ok(Self {
            tools: tools::ensure_async(&[Tool::Kubectl]).await?,
            namespace: kind::server().await?.namespace("kubectl").await?,
            file: tempfile::tempdir()?,
        })
    }

    fn manifests(&self, text: &str) -> Result<String> {
        let path = self.file.path().join("manifests.yaml");
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    fn output(&self, kubeconfig: &Path, args: &[&str]) -> Result<Output> {
        Command::new(self.tools.path(Tool::Kubectl)?)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(args)
            // It keeps what the server serves.
            .env("HOME", self.file.path())
            .env("KUBECACHEDIR", self.file.path().join("cache"))
            .output()
            .context("failed to run kubectl")
    }

    async fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.output(kind::server().await?.kubeconfig(), args)?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{errors}");
        // Warnings, such as of fields that are not known.
        ensure!(errors.is_empty(), "{errors}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

#[tokio::test]
async fn manifests_for_the_go_operator_are_applied_and_shown() -> Result<()> {
    let kubectl = Kubectl::new().await?;
    let file = kubectl.manifests(MANIFESTS)?;
    kubectl.run(&["apply", "-f", &file]).await?;
    // Nothing that the server added counts as a change.
    let again = kubectl.run(&["apply", "-f", &file]).await?;
    ensure!(
        again.lines().count() == 4 && again.lines().all(|line| line.ends_with(" unchanged")),
        "{again}"
    );
    kubectl
        .run(&["apply", "--server-side", "--force-conflicts", "-f", &file])
        .await?;

    for (short, columns, line) in [
        (
            "csk",
            "NAME PROVIDER CLUSTERSTACK K8S CHANNEL AUTOSUBSCRIBE USABLE LATEST READY AGE REASON MESSAGE",
            "openstack openstack scs 1.32 custom true",
        ),
        (
            "cskr",
            "NAME K8S VERSION READY AGE REASON MESSAGE",
            "docker-scs-1-30-v1",
        ),
        (
            "caddon",
            "NAME CLUSTER HOOK READY AGE REASON MESSAGE",
            "cluster-addon-demo AfterControlPlaneInitialized",
        ),
    ] {
        let table = kubectl.run(&["get", short]).await?;
        let lines: Vec<String> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        ensure!(lines[0] == columns, "{table}");
        ensure!(lines.iter().any(|shown| shown.starts_with(line)), "{table}");
    }
    let all = kubectl
        .run(&["get", "cluster-stacks", "-o", "name"])
        .await?;
    ensure!(all.lines().count() == 4, "{all}");
    Ok(())
}

#[tokio::test]
async fn field_with_a_slip_is_refused_by_name() -> Result<()> {
    let kubectl = Kubectl::new().await?;
    let slip = MANIFESTS.replace("autoSubscribe", "autoSubscribed");
    let file = kubectl.manifests(&slip)?;
    let error = kubectl
        .run(&["apply", "-f", &file])
        .await
        .unwrap_err()
        .to_string();
    ensure!(
        error.contains(r#"unknown field "spec.autoSubscribed""#),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn fields_explain_themselves() -> Result<()> {
    let kubectl = Kubectl::new().await?;
    for (field, words) in [
        (
            "clusterstack.spec.channel",
            "such as \"beta\" for v1-beta.2",
        ),
        ("clusterstack.spec.source.github.url", "github.com"),
        ("cskr.status.resources.error", "refused"),
        ("caddon.spec.clusterRef.name", "Name of the object"),
    ] {
        let text = kubectl.run(&["explain", field]).await?;
        ensure!(
            text.split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
                .contains(words),
            "{text}"
        );
    }
    Ok(())
}
