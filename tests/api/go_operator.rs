//! Objects that the Go operator has written are taken as they are, and read and written back by our types without loss.

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use core_operator::api::{ClusterAddon, ClusterStack, ClusterStackRelease};
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::{ApiServer, ControlPlane, reference};

use crate::kind::{self, Kind, name};

/// Files with objects of our kinds among what was observed.
const OBSERVED: &[&str] = &[
    "01-before-hook.clusteraddon_cluster-addon-c0000.yaml",
    "01-ready.clusteraddon_cluster-addon-c0000.yaml",
    "01-ready.clusterstack_ready.yaml",
    "01-ready.clusterstackrelease_docker-ready-1-30-v0-sha-d2lgujm.yaml",
    "02-missing-release.clusterstack_absent.yaml",
    "02-missing-release.clusterstackrelease_docker-absent-1-30-v7.yaml",
    "03-missing-crd.clusterstack_nocrd.yaml",
    "03-missing-crd.clusterstackrelease_openstack-nocrd-1-32-v0-sha-sjl0coz.yaml",
    "04-broken-metadata.clusterstack_badmeta.yaml",
    "04-broken-metadata.clusterstackrelease_docker-badmeta-1-30-v0-sha-d2lgujm.yaml",
    "05-broken-chart.clusterstack_badchart.yaml",
    "05-broken-chart.clusterstackrelease_docker-badchart-1-30-v0-sha-d2lgujm.yaml",
    "08-after-removal.clusterstack_up.yaml",
    "08-after-removal.clusterstackreleases.yaml",
    "08-two-versions.clusterstack_up.yaml",
    "08-upgraded.clusteraddon_cluster-addon-c0001.yaml",
    "10-namespace-mismatch.clusteraddon_cluster-addon-c0002.yaml",
    "11-post-condition-waiting.clusteraddon_cluster-addon-c0003.yaml",
    "12-single-stage.clusteraddon_cluster-addon-c0001.yaml",
    "12-single-stage.clusterstack_single.yaml",
    "12-single-stage.clusterstackrelease_docker-single-1-27-v1.yaml",
    "13-unreachable.clusteraddon_cluster-addon-c0006.yaml",
    "17-crd-arrives-later.clusterstackrelease_openstack-late-1-32-v0-sha-sjl0coz.yaml",
    "18-class-changed-before-hook.clusteraddon_cluster-addon-c0001.yaml",
    "18-kubernetes-upgraded.clusteraddon_cluster-addon-c0001.yaml",
    "20-openstack.clusteraddon.yaml",
    "20-openstack.clusterstackrelease.yaml",
];

/// The same shapes, for where those files are not: conditions with severity and without reason, stages, null and empty
/// values where Go writes its zero values.
const SHAPES: &str = r#"
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterStack
metadata: {name: stack}
spec:
  provider: openstack
  name: demo
  kubernetesVersion: "1.32"
  channel: custom
  versions: null
  autoSubscribe: false
  noProvider: false
  providerRef: {apiVersion: infrastructure.clusterstack.x-k8s.io/v1alpha1, kind: OpenStackClusterStackReleaseTemplate, name: demo}
status:
  conditions:
  - {type: Ready, status: "False", severity: Warning, reason: NotThere, message: not there, lastTransitionTime: "2025-01-02T03:04:05Z"}
  - {type: ClusterStackReleasesSynced, status: "True", lastTransitionTime: "2025-01-02T03:04:05Z"}
  latestRelease: ""
  summary: [{name: v0-sha-abcdefg, ready: false, phase: "", message: NotThere}]
---
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterStackRelease
metadata:
  name: openstack-demo-1-32-v0-sha-abcdefg
  finalizers: [clusterstackrelease.clusterstack.x-k8s.io]
  ownerReferences: [{apiVersion: clusterstack.x-k8s.io/v1alpha1, kind: ClusterStack, name: stack, uid: 0e21bab8-0579-4580-a838-a7b790a10017}]
spec: {providerRef: {apiVersion: infrastructure.clusterstack.x-k8s.io/v1alpha1, kind: OpenStackClusterStackRelease, name: demo, namespace: cluster}}
status:
  conditions: [{type: Ready, status: "False", severity: Error, reason: Broken, message: broken, lastTransitionTime: "2025-01-02T03:04:05Z"}]
  kubernetesVersion: 1.32.5
  ready: false
  resources:
  - {group: cluster.x-k8s.io, version: v1beta1, kind: ClusterClass, name: demo, namespace: cluster, status: synced}
  - {version: v1, kind: Secret, name: demo, status: not-synced, error: refused}
---
apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterAddon
metadata:
  name: cluster-addon-demo
  annotations: {ClusterAddonStage: created}
  finalizers: [clusteraddon.clusterstack.x-k8s.io]
spec:
  clusterRef: {apiVersion: cluster.x-k8s.io/v1beta1, kind: Cluster, name: demo, namespace: cluster, uid: 0e21bab8-0579-4580-a838-a7b790a10017}
  hook: AfterControlPlaneInitialized
status:
  conditions: [{type: Ready, status: "False", severity: Info, reason: Waiting, lastTransitionTime: "2025-01-02T03:04:05Z"}]
  ready: false
  stages: [{name: cni, action: apply, phase: done}, {name: csi, phase: Pending}]
"#;

/// An API server without garbage collection, which would take objects whose owners are not there.
async fn server(name: &str) -> Result<ApiServer> {
    let server = ControlPlane::shared().await?.add_workload(name).await?;
    kind::install(&server).await?;
    Ok(server)
}

#[tokio::test]
async fn objects_in_the_shapes_of_the_go_operator_survive() -> Result<()> {
    let server = server("go-shapes").await?;
    for object in objects(SHAPES)? {
        survives(&server, object).await?;
    }
    Ok(())
}

#[tokio::test]
async fn observed_objects_of_the_go_operator_survive() -> Result<()> {
    let folder = reference::folder(
        reference::OBSERVED,
        "files of the Go operator's objects",
        OBSERVED,
    )?;
    let Some(folder) = folder else {
        return Ok(());
    };
    let server = server("go-observed").await?;
    for file in OBSERVED {
        let text = std::fs::read_to_string(folder.join(file))?;
        for object in objects(&text)? {
            survives(&server, object)
                .await
                .with_context(|| (*file).to_owned())?;
        }
    }
    Ok(())
}

/// The documents of a YAML text, lists taken apart.
fn objects(text: &str) -> Result<Vec<Value>> {
    let mut objects = Vec::new();
    for document in serde_saphyr::from_multiple::<Value>(text)? {
        match document["items"].as_array() {
            Some(items) => objects.extend(items.clone()),
            None => objects.push(document),
        }
    }
    ensure!(!objects.is_empty(), "no objects");
    Ok(objects)
}

async fn survives(server: &ApiServer, mut object: Value) -> Result<()> {
    // The same name occurs in several files.
    let namespace = server.namespace("go").await?;
    let metadata = object["metadata"].as_object_mut().context("no metadata")?;
    for field in [
        "creationTimestamp",
        "generation",
        "managedFields",
        "resourceVersion",
        "uid",
    ] {
        metadata.remove(field);
    }
    metadata.insert("namespace".to_owned(), json!(namespace));
    let client = server.client().await?;
    match object["kind"].as_str() {
        Some("ClusterStack") => survives_as::<ClusterStack>(client, &object).await,
        Some("ClusterStackRelease") => survives_as::<ClusterStackRelease>(client, &object).await,
        Some("ClusterAddon") => survives_as::<ClusterAddon>(client, &object).await,
        other => bail!("a {other:?}"),
    }
    .with_context(|| name(&object).to_owned())
}

async fn survives_as<K>(client: Client, object: &Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .context("no namespace")?;
    let kind = Kind::within::<K>(client.clone(), namespace);

    // As a backup is restored: the object, then its status.
    let mut created = kind.create(object).await.context("create")?;
    created["status"] = object["status"].clone();
    let restored = kind
        .replace_status(&created)
        .await
        .context("restore the status")?;
    contains(&restored, object, "").context("restored")?;

    // As our controllers write: what they read, with a change.
    let api: Api<K> = Api::namespaced(client, namespace);
    let mut typed = api.get(name(object)).await.context("read")?;
    typed
        .annotations_mut()
        .insert("touched".to_owned(), "yes".to_owned());
    let name = typed.name_any();
    let written = api
        .replace(&name, &PostParams::default(), &typed)
        .await
        .context("write")?;
    typed
        .meta_mut()
        .resource_version
        .clone_from(&written.meta().resource_version);
    api.replace_status(&name, &PostParams::default(), &typed)
        .await
        .context("write the status")?;

    let mut expected = object.clone();
    for condition in expected["status"]["conditions"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        // Ours replace the whole condition, and have none.
        condition
            .as_object_mut()
            .map(|condition| condition.remove("severity"));
    }
    let now = kind.get(&name).await?;
    contains(&now, &expected, "").context("written back")?;
    ensure!(now["spec"] == restored["spec"], "{}", now["spec"]);
    ensure!(now["metadata"]["annotations"]["touched"] == "yes");
    Ok(())
}

/// Fails unless `whole` has all that `part` has; null and absent are the same.
fn contains(whole: &Value, part: &Value, path: &str) -> Result<()> {
    match (whole, part) {
        (_, Value::Null) => Ok(()),
        (Value::Object(whole), Value::Object(part)) => part.iter().try_for_each(|(name, part)| {
            contains(
                whole.get(name).unwrap_or(&Value::Null),
                part,
                &format!("{path}.{name}"),
            )
        }),
        (Value::Array(whole), Value::Array(part)) => {
            ensure!(
                whole.len() == part.len(),
                "{path} has {} entries",
                whole.len()
            );
            whole
                .iter()
                .zip(part)
                .try_for_each(|(whole, part)| contains(whole, part, path))
        }
        // An empty list or text is not written by our types.
        (Value::Null, part) if part == "" || part == &json!([]) => Ok(()),
        (whole, part) => {
            ensure!(whole == part, "{path} is {whole}, not {part}");
            Ok(())
        }
    }
}
