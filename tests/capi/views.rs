//! Classes and Clusters as the real manager leaves them, read in both API versions.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::capi::{
    CLUSTER_CLASS_KIND, CLUSTER_KIND, ClassReadiness, ClassView, ClusterView, GROUP, usage::Usage,
};
use kube::{
    Api, Client, Resource, ResourceExt, api::ListParams, core::GroupVersionKind,
    discovery::ApiResource,
};
use serde::de::DeserializeOwned;
use tests::{
    ClusterApi, ControlPlane,
    cluster_api::FEATURE_GATES,
    eventually, manifests,
    provider_kinds::{self, Provider},
};

use crate::preflight::RELEASE;

/// A class whose variables come from an extension that nobody has.
const BROKEN: &str = "
apiVersion: cluster.x-k8s.io/v1beta2
kind: ClusterClass
metadata: {name: broken}
spec:
  infrastructure: {templateRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: FakeClusterTemplate, name: fake}}
  controlPlane: {templateRef: {apiVersion: controlplane.cluster.x-k8s.io/v1, kind: FakeControlPlaneTemplate, name: fake}}
  patches:
  - {name: outside, external: {generatePatchesExtension: nobody.nowhere, discoverVariablesExtension: nobody.nowhere}}
";

const CLUSTERS: &str = "
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: far}
spec: {topology: {classRef: {name: docker-scs-1-34-v0-sha.d2lgujm, namespace: default}, version: v1.34.1}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: Cluster
metadata: {name: older}
spec: {topology: {class: docker-scs-1-34-v0-sha.d2lgujm, classNamespace: default, version: v1.34.1}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: foreign}
spec: {topology: {classRef: {name: fake, namespace: default}, version: v1.34.1}}
---
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: plain}
spec: {infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: FakeCluster, name: plain}}
";

async fn all<K>(client: &Client, version: &str, kind: &str) -> Result<Vec<K>>
where
    K: Resource<DynamicType = ApiResource> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, version, kind));
    let list = Api::<K>::all_with(client.clone(), &resource)
        .list(&ListParams::default())
        .await
        .with_context(|| format!("failed to list {kind} as {version}"))?;
    Ok(list.items)
}

#[tokio::test]
async fn classes_and_their_users_are_the_same_in_both_api_versions() -> Result<()> {
    let server = ControlPlane::shared().await?.add_workload("views").await?;
    let client = server.client().await?;
    provider_kinds::install(&client, &[Provider::Fake]).await?;
    let _manager = ClusterApi::start(&server, FEATURE_GATES).await?;
    let ours = RELEASE.replace(
        "kind: ClusterClass\nmetadata: {name: fake}",
        "kind: ClusterClass\nmetadata: {name: docker-scs-1-34-v0-sha.d2lgujm}",
    );
    for yaml in [RELEASE, BROKEN, &ours] {
        manifests::apply_yaml(&client, "default", yaml).await?;
    }

    for version in ["v1beta1", "v1beta2"] {
        eventually(
            &format!("the classes are taken in, seen as {version}"),
            Duration::from_secs(20),
            async || {
                let classes = all::<ClassView>(&client, version, CLUSTER_CLASS_KIND).await?;
                ensure!(classes.len() == 3, "{classes:?}");
                for class in classes {
                    match (class.name_any().as_str(), class.readiness()) {
                        ("broken", ClassReadiness::Pending { reason, message }) => ensure!(
                            reason == "ClassVariablesNotReady"
                                && message.contains("VariableDiscovery failed"),
                            "{reason}: {message}"
                        ),
                        (name, readiness) => ensure!(
                            readiness == ClassReadiness::Ready && name != "broken",
                            "{name}: {readiness:?}"
                        ),
                    }
                }
                Ok(())
            },
        )
        .await?;
    }

    let team = server.namespace("team").await?;
    manifests::apply_yaml(&client, &team, CLUSTERS).await?;
    for version in ["v1beta1", "v1beta2"] {
        let classes = all::<ClassView>(&client, version, CLUSTER_CLASS_KIND).await?;
        let clusters = all::<ClusterView>(&client, version, CLUSTER_KIND).await?;
        ensure!(clusters.len() == 4, "{clusters:?}");
        let usage = Usage::new(&classes, &clusters);
        let users: Vec<_> = usage
            .of("default", "docker-scs-1-34-v0-sha-d2lgujm")
            .iter()
            .map(ToString::to_string)
            .collect();
        let expected = [format!("{team}/far"), format!("{team}/older")];
        ensure!(users == expected, "{version}: {users:?}");
    }
    Ok(())
}
