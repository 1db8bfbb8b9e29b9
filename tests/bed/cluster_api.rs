//! Cluster API's real manager, on an API server of its own: its webhooks concern everybody on it.

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject};
use kube::core::GroupVersionKind;
use tests::cluster_api::FEATURE_GATES;
use tests::provider_kinds::{self, Provider};
use tests::{ClusterApi, ControlPlane, eventually, manifests};

const CLASS: &str = "
apiVersion: infrastructure.cluster.x-k8s.io/v1
kind: FakeClusterTemplate
metadata: {name: fake}
spec: {template: {spec: {}}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1
kind: FakeControlPlaneTemplate
metadata: {name: fake}
spec: {template: {spec: {}}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: ClusterClass
metadata: {name: fake}
spec:
  infrastructure: {templateRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: FakeClusterTemplate, name: fake}}
  controlPlane: {templateRef: {apiVersion: controlplane.cluster.x-k8s.io/v1, kind: FakeControlPlaneTemplate, name: fake}}
";

#[tokio::test]
async fn manager_takes_classes_only_with_cluster_topology() -> Result<()> {
    let server = ControlPlane::shared()
        .await?
        .add_workload("topology")
        .await?;
    let client = server.client().await?;
    provider_kinds::install(&client, &[Provider::Fake]).await?;

    let without = ClusterApi::start(&server, &[("ClusterTopology", false)]).await?;
    let error = manifests::apply_yaml(&client, "default", CLASS)
        .await
        .unwrap_err();
    let message = format!("{error:#}");
    ensure!(
        message.contains("ClusterClass") && message.contains("ClusterTopology"),
        "{message}"
    );
    without.stop_manager()?;

    let with = ClusterApi::start(&server, FEATURE_GATES).await?;
    manifests::apply_yaml(&client, "default", CLASS).await?;
    // By the conversion webhook, and reconciled.
    for version in ["v1beta1", "v1beta2"] {
        let kind = GroupVersionKind::gvk("cluster.x-k8s.io", version, "ClusterClass");
        let classes: Api<DynamicObject> =
            Api::namespaced_with(client.clone(), "default", &ApiResource::from_gvk(&kind));
        eventually(
            &format!("the class is reconciled, seen as {version}"),
            Duration::from_secs(20),
            async || {
                let class = classes.get("fake").await?;
                let status = &class.data["status"];
                ensure!(status["observedGeneration"] == 1, "{status}");
                Ok(())
            },
        )
        .await?;
    }

    // Its webhooks stay: without the manager nothing is written.
    with.kill_manager();
    let other = CLASS.replace("metadata: {name: fake}", "metadata: {name: other}");
    let refused = manifests::apply_yaml(&client, "default", &other).await;
    ensure!(refused.is_err(), "written without the webhook");
    with.start_manager().await?;
    manifests::apply_yaml(&client, "default", &other).await
}

#[tokio::test]
async fn kinds_of_cluster_api_can_be_had_without_its_manager() -> Result<()> {
    let server = ControlPlane::shared().await?.add_workload("kinds").await?;
    let client = server.client().await?;
    tests::cluster_api::install_crds(&client).await?;
    // A second time nothing changes.
    tests::cluster_api::install_crds(&client).await?;
    for (version, topology) in [
        ("v1beta1", "class: any"),
        ("v1beta2", "classRef: {name: any}"),
    ] {
        let cluster = format!(
            "apiVersion: cluster.x-k8s.io/{version}\nkind: Cluster\nmetadata: {{name: of-{version}}}\nspec: {{topology: {{{topology}, version: v1.30.1}}}}\n"
        );
        manifests::apply_yaml(&client, "default", &cluster).await?;
    }
    Ok(())
}
