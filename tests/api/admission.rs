//! The admission policy warns about a Kubernetes version that is not the release's, and about nothing else.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use core_operator::api::ClusterStackRelease;
use http::Request;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tests::provider_kinds::{self, Provider};
use tests::{ApiServer, ClusterApi, ControlPlane, cluster_api, eventually, manifests};
use tokio::sync::OnceCell;

use crate::kind::{self, Kind, merged};

const PATIENCE: Duration = Duration::from_secs(30);
const RELEASE: &str = "docker-scs-1-30-v0-sha-d2lgujm";
const CLASS: &str = "docker-scs-1-30-v0-sha.d2lgujm";
const API_VERSIONS: [&str; 2] = ["v1beta1", "v1beta2"];

/// A namespace with the release [`RELEASE`] for Kubernetes v1.30.10, of which the policy knows.
struct Fleet {
    client: Client,
    namespace: String,
}

/// What is asked of the API server.
struct Answer {
    object: Value,
    warnings: Vec<String>,
}

/// The shared control plane with the kinds of Cluster API.
async fn server() -> Result<&'static ApiServer> {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    let server = kind::server().await?;
    let client = server.client().await?;
    INSTALLED
        .get_or_try_init(|| cluster_api::install_crds(&client))
        .await?;
    Ok(server)
}

impl Fleet {
    async fn new() -> Result<Self> {
        let fleet = Self::without_release().await?;
        fleet.release(RELEASE, Some("v1.30.10")).await?;
        fleet.is_known(CLASS).await?;
        Ok(fleet)
    }

    /// On the shared control plane, where Clusters are only kept: neither converted nor reconciled.
    async fn without_release() -> Result<Self> {
        let server = server().await?;
        Ok(Self {
            client: server.client().await?,
            namespace: server.namespace("admission").await?,
        })
    }

    async fn release(&self, name: &str, kubernetes: Option<&str>) -> Result<()> {
        let releases = Kind::within::<ClusterStackRelease>(self.client.clone(), &self.namespace);
        let release = releases
            .create(&json!({
                "apiVersion": "clusterstack.x-k8s.io/v1alpha1", "kind": "ClusterStackRelease",
                "metadata": {"name": name}, "spec": {},
            }))
            .await?;
        let status = json!({"ready": false, "kubernetesVersion": kubernetes});
        releases.accepts_status(&release, status).await?;
        Ok(())
    }

    /// Waits until the policy knows the release of this class: it sees releases a moment later than they are written.
    async fn is_known(&self, class: &str) -> Result<()> {
        let cluster = self.cluster("v1beta2", "trial", class, "v1.0.0");
        eventually(
            &format!("the release of {class} is known"),
            PATIENCE,
            async || {
                let answer = self
                    .send("POST", "v1beta2", "?dryRun=All", &cluster)
                    .await?;
                ensure!(
                    answer.warnings.len() == 1,
                    "warnings: {:?}",
                    answer.warnings
                );
                Ok(())
            },
        )
        .await
    }

    fn cluster(&self, api_version: &str, name: &str, class: &str, kubernetes: &str) -> Value {
        let class = match api_version {
            "v1beta1" => json!({"class": class}),
            _ => json!({"classRef": {"name": class}}),
        };
        json!({
            "apiVersion": format!("cluster.x-k8s.io/{api_version}"), "kind": "Cluster",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"topology": merged(&class, json!({"version": kubernetes}))},
        })
    }

    /// Asks something about Clusters: `rest` goes behind the plural.
    async fn send(
        &self,
        method: &str,
        api_version: &str,
        rest: &str,
        body: &Value,
    ) -> Result<Answer> {
        let namespace = &self.namespace;
        let path =
            format!("/apis/cluster.x-k8s.io/{api_version}/namespaces/{namespace}/clusters{rest}");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(
                "content-type",
                if method == "PATCH" {
                    "application/merge-patch+json"
                } else {
                    "application/json"
                },
            )
            .body(Body::from(serde_json::to_vec(body)?))?;
        let response = self.client.send(request).await?;
        let (head, body) = response.into_parts();
        let object: Value = serde_json::from_slice(&body.collect_bytes().await?)?;
        ensure!(head.status.is_success(), "{object}");
        let mut warnings = Vec::new();
        for value in head.headers.get_all("warning") {
            // 299 - "text", with quotes in the text escaped.
            let text = value.to_str().context("a warning that is no text")?;
            let text = text
                .strip_prefix("299 - \"")
                .and_then(|text| text.strip_suffix('"'))
                .context("an unknown warning")?
                .replace("\\\"", "\"");
            // Cluster API has warnings of its own.
            if text.contains("ValidatingAdmissionPolicy") {
                warnings.push(text);
            }
        }
        Ok(Answer { object, warnings })
    }

    async fn create(&self, api_version: &str, cluster: &Value) -> Result<Answer> {
        self.send("POST", api_version, "", cluster).await
    }

    async fn is_silent(&self, api_version: &str, cluster: &Value) -> Result<()> {
        let answer = self
            .send("POST", api_version, "?dryRun=All", cluster)
            .await?;
        ensure!(
            answer.warnings.is_empty(),
            "{cluster}: {:?}",
            answer.warnings
        );
        Ok(())
    }
}

#[tokio::test]
async fn cluster_with_another_version_than_its_release_is_warned() -> Result<()> {
    let fleet = Fleet::new().await?;
    for api_version in API_VERSIONS {
        let cluster = fleet.cluster(api_version, api_version, CLASS, "v1.30.9");
        let answer = fleet.create(api_version, &cluster).await?;
        let [warning] = answer.warnings.as_slice() else {
            bail!("{:?}", answer.warnings);
        };
        let expected = format!(
            "spec.topology.version is \"v1.30.9\", but release \"{RELEASE}\", which the ClusterClass comes from, is made for Kubernetes \"v1.30.10\""
        );
        ensure!(warning.ends_with(&expected), "{warning}");
    }
    Ok(())
}

#[tokio::test]
async fn stable_release_is_found_among_others() -> Result<()> {
    let fleet = Fleet::without_release().await?;
    for (version, kubernetes) in [("v1", "1.30.1"), ("v2", "v1.30.2"), ("v11", "1.30.11")] {
        let name = format!("docker-scs-1-30-{version}");
        fleet.release(&name, Some(kubernetes)).await?;
        fleet.is_known(&name).await?;
    }
    for api_version in API_VERSIONS {
        let cluster =
            |kubernetes| fleet.cluster(api_version, "any", "docker-scs-1-30-v2", kubernetes);
        for equal in ["v1.30.2", "1.30.2"] {
            fleet.is_silent(api_version, &cluster(equal)).await?;
        }
        for other in ["v1.30.1", "v1.30.11", "v1.30.2-rc.1", "v1.30.20"] {
            let answer = fleet
                .send("POST", api_version, "?dryRun=All", &cluster(other))
                .await?;
            ensure!(answer.warnings.len() == 1, "{other}: {:?}", answer.warnings);
        }
        // The leading v is missing in the metadata of this release.
        let cluster =
            |kubernetes| fleet.cluster(api_version, "any", "docker-scs-1-30-v11", kubernetes);
        fleet.is_silent(api_version, &cluster("v1.30.11")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn cluster_of_a_foreign_class_is_not_touched() -> Result<()> {
    // pitfalls 47, 48
    let fleet = Fleet::new().await?;
    fleet.release("docker-scs-1-30-v7", None).await?;
    for api_version in API_VERSIONS {
        for class in [
            "foreign",
            // The release's name is not the class's.
            RELEASE,
            "docker.scs-1-30-v0-sha-d2lgujm",
            "docker-scs-1-30-v0-sha.other",
            // Its release has not been fetched.
            "docker-scs-1-30-v7",
        ] {
            fleet
                .is_silent(
                    api_version,
                    &fleet.cluster(api_version, "any", class, "v1.0.0"),
                )
                .await?;
        }
        // A class of another namespace comes from a release there.
        let mut elsewhere = fleet.cluster(api_version, "any", CLASS, "v1.0.0");
        let topology = &mut elsewhere["spec"]["topology"];
        match api_version {
            "v1beta1" => topology["classNamespace"] = json!("elsewhere"),
            _ => topology["classRef"]["namespace"] = json!("elsewhere"),
        }
        fleet.is_silent(api_version, &elsewhere).await?;
        let mut own = elsewhere;
        let topology = &mut own["spec"]["topology"];
        match api_version {
            "v1beta1" => topology["classNamespace"] = json!(fleet.namespace),
            _ => topology["classRef"]["namespace"] = json!(fleet.namespace),
        }
        let answer = fleet.send("POST", api_version, "?dryRun=All", &own).await?;
        ensure!(answer.warnings.len() == 1, "{:?}", answer.warnings);
    }
    // Without topology.
    let plain = json!({
        "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "plain"},
        "spec": {"controlPlaneEndpoint": {"host": "127.0.0.1", "port": 6443}},
    });
    fleet.is_silent("v1beta2", &plain).await
}

#[tokio::test]
async fn release_of_another_namespace_concerns_nobody() -> Result<()> {
    let _elsewhere = Fleet::new().await?;
    let fleet = Fleet::without_release().await?;
    for api_version in API_VERSIONS {
        fleet
            .is_silent(
                api_version,
                &fleet.cluster(api_version, "any", CLASS, "v1.0.0"),
            )
            .await?;
    }
    Ok(())
}

/// A class that Cluster API's manager accepts, made of the templates beside it.
fn class(name: &str) -> String {
    format!(
        "
apiVersion: infrastructure.cluster.x-k8s.io/v1
kind: FakeClusterTemplate
metadata: {{name: fake}}
spec: {{template: {{spec: {{}}}}}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1
kind: FakeControlPlaneTemplate
metadata: {{name: fake}}
spec: {{template: {{spec: {{}}}}}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: ClusterClass
metadata: {{name: {name}}}
spec:
  infrastructure: {{templateRef: {{apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: FakeClusterTemplate, name: fake}}}}
  controlPlane: {{templateRef: {{apiVersion: controlplane.cluster.x-k8s.io/v1, kind: FakeControlPlaneTemplate, name: fake}}}}
"
    )
}

#[tokio::test]
async fn cluster_is_warned_when_its_topology_changes_and_never_when_it_goes() -> Result<()> {
    // pitfall 47: nothing stands in the way of removing finalizers
    // With Cluster API itself, which converts between the versions.
    let server = ControlPlane::shared()
        .await?
        .add_workload("admission")
        .await?;
    let client = server.client().await?;
    kind::install(&server).await?;
    provider_kinds::install(&client, &[Provider::Fake]).await?;
    let _manager = ClusterApi::start(&server, cluster_api::FEATURE_GATES).await?;
    let namespace = server.namespace("admission").await?;
    let fleet = Fleet { client, namespace };
    for name in [CLASS, "foreign"] {
        manifests::apply_yaml(&fleet.client, &fleet.namespace, &class(name)).await?;
    }
    fleet.release(RELEASE, Some("v1.30.10")).await?;
    fleet.is_known(CLASS).await?;

    for api_version in API_VERSIONS {
        let mut cluster = fleet.cluster(api_version, api_version, CLASS, "v1.30.9");
        cluster["metadata"]["finalizers"] = json!(["example.org/kept"]);
        // No control plane says that it has the version before.
        cluster["metadata"]["annotations"] =
            json!({"unsafe.topology.cluster.x-k8s.io/disable-update-version-check": ""});
        ensure!(fleet.create(api_version, &cluster).await?.warnings.len() == 1);

        let rest = format!("/{api_version}");
        let patch = async |patch: Value| {
            let answer = fleet.send("PATCH", api_version, &rest, &patch).await;
            answer.with_context(|| format!("{api_version}: {patch}"))
        };
        let version = |version| json!({"spec": {"topology": {"version": version}}});
        let class =
            |class| json!({"spec": fleet.cluster(api_version, "", class, "v1.31.0")["spec"]});
        // Controllers write metadata again and again.
        let label = || json!({"metadata": {"labels": {"tier": "gold"}}});
        for (change, warned) in [
            (label(), 0),
            (version("v1.30.10"), 0),
            (version("v1.31.0"), 1),
            (class("foreign"), 0),
            (class(CLASS), 1),
        ] {
            let answer = patch(change.clone()).await?;
            ensure!(
                answer.warnings.len() == warned,
                "{change}: {:?}",
                answer.warnings
            );
        }
        let deleted = fleet.send("DELETE", api_version, &rest, &json!({})).await?;
        ensure!(
            deleted.object["metadata"]["deletionTimestamp"].is_string(),
            "{}",
            deleted.object
        );
        // The API server begins a patch with what its cache has, and keeps the warnings of an attempt that comes too early.
        let cached = format!("{rest}?resourceVersion=0");
        eventually("the deletion is in the cache", PATIENCE, async || {
            let shown = fleet.send("GET", api_version, &cached, &json!({})).await?;
            ensure!(shown.object["metadata"]["deletionTimestamp"].is_string());
            Ok(())
        })
        .await?;
        let changed = patch(version("v1.31.1")).await?;
        let freed = patch(json!({"metadata": {"finalizers": null}})).await?;
        for answer in [deleted, changed, freed] {
            ensure!(answer.warnings.is_empty(), "{:?}", answer.warnings);
        }
    }
    Ok(())
}
