//! Releases checked against real API servers, with Cluster API's manager and with real rights.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use core_operator::{
    apply::{discovery::Kinds, manifest::Manifest},
    capi::preflight::{Checked, Miss, Preflight, Subject},
    helm::RenderedObject,
};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
    core::GroupVersionKind,
    discovery::ApiResource,
};
use tests::{
    ClusterApi, ControlPlane,
    cluster_api::FEATURE_GATES,
    manifests,
    provider_kinds::{self, Provider},
};

pub const RELEASE: &str = "
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

/// A template whose provider is not installed.
const DOCKER: &str = "
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: DockerClusterTemplate
metadata: {name: docker}
";

fn release(yaml: &str) -> Result<Vec<Manifest>> {
    manifests::parse(yaml)?
        .into_iter()
        .map(|object| {
            let rendered = RenderedObject {
                source: "chart/templates/release.yaml".to_owned(),
                object: serde_json::to_value(object).context("an object without JSON")?,
            };
            Manifest::check(&rendered).context("an object that cannot be applied")
        })
        .collect()
}

fn preflight(client: &Client) -> Preflight {
    Preflight::new(client.clone(), Arc::new(Kinds::new(client.clone())))
}

async fn check(preflight: &Preflight, namespace: &str, yaml: &str) -> Result<Checked> {
    let manifests = release(yaml)?;
    let subject = Subject {
        namespace,
        manifests: &manifests,
        has_stages: true,
    };
    preflight.check(subject).await.context("no verdict")
}

fn misses(checked: Checked) -> Vec<Miss> {
    match checked {
        Checked::Passed(_) => Vec::new(),
        Checked::Missing(misses) => misses.list().to_vec(),
    }
}

#[tokio::test]
async fn features_that_are_off_are_told_and_nothing_is_made() -> Result<()> {
    let server = ControlPlane::shared()
        .await?
        .add_workload("preflight")
        .await?;
    let admin = server.client().await?;
    provider_kinds::install(&admin, &[Provider::Fake]).await?;
    let client = server
        .user("operator", Some("system:masters"))?
        .client()
        .await?;
    let mut requests = server.requests("operator").await?;

    let off: Vec<_> = FEATURE_GATES
        .iter()
        .map(|(name, _)| (*name, false))
        .collect();
    let without = ClusterApi::start(&server, &off).await?;
    let checks = preflight(&client);
    let found = misses(check(&checks, "default", &format!("{RELEASE}---{DOCKER}")).await?);
    let kind = GroupVersionKind::gvk(
        "infrastructure.cluster.x-k8s.io",
        "v1beta1",
        "DockerClusterTemplate",
    );
    let expected = [
        Miss::KindNotServed { kind, served: None },
        Miss::ClusterTopologyDisabled,
        Miss::RuntimeSdkDisabled,
    ];
    ensure!(found == expected, "{found:?}");
    without.stop_manager()?;

    let _with = ClusterApi::start(&server, FEATURE_GATES).await?;
    let found = misses(check(&checks, "default", RELEASE).await?);
    ensure!(found.is_empty(), "{found:?}");
    // Known now: a second look asks nothing.
    requests.mark().await?;
    let found = misses(check(&checks, "default", RELEASE).await?);
    ensure!(found.is_empty(), "{found:?}");
    let asked = requests.counts().await?;
    ensure!(asked.total() == 0, "{asked:?}");

    for (group, kind) in [
        ("cluster.x-k8s.io", "ClusterClass"),
        ("runtime.cluster.x-k8s.io", "ExtensionConfig"),
    ] {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1beta2", kind));
        let made = Api::<DynamicObject>::all_with(admin.clone(), &resource)
            .list(&ListParams::default())
            .await?;
        ensure!(made.items.is_empty(), "{made:?}");
    }
    Ok(())
}

#[tokio::test]
async fn rights_that_are_missing_are_told() -> Result<()> {
    let server = ControlPlane::shared().await?.add_workload("rights").await?;
    let admin = server.client().await?;
    provider_kinds::install(&admin, &[Provider::Fake]).await?;
    tests::cluster_api::install_crds(&admin).await?;
    // As operators are given them: a role for the cluster, and one more in one namespace only.
    let roles = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: reader}
rules:
- {apiGroups: [cluster.x-k8s.io, runtime.cluster.x-k8s.io], resources: ['*'], verbs: ['*']}
- {apiGroups: ['*'], resources: [fakeclustertemplates, fakecontrolplanetemplates], verbs: [get, list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: reader}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: writer}
rules:
- {apiGroups: [infrastructure.cluster.x-k8s.io], resources: [fakeclustertemplates], verbs: [create, patch, delete]}
- {apiGroups: [controlplane.cluster.x-k8s.io], resources: [fakecontrolplanetemplates], verbs: [create, patch]}
- {apiGroups: [controlplane.cluster.x-k8s.io], resources: [fakecontrolplanetemplates], resourceNames: [fake], verbs: [delete]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: writer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: writer}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
";
    manifests::apply_yaml(&admin, "default", roles).await?;
    let client = server.user("operator", None)?.client().await?;
    let missing = |plural: &str, namespace: &str, verbs: Vec<&'static str>| Miss::Forbidden {
        resource: plural.to_owned(),
        namespace: Some(namespace.to_owned()),
        verbs,
    };
    let (control_planes, clusters) = (
        "fakecontrolplanetemplates.controlplane.cluster.x-k8s.io",
        "fakeclustertemplates.infrastructure.cluster.x-k8s.io",
    );

    let checks = preflight(&client);
    let found = misses(check(&checks, "default", RELEASE).await?);
    let expected = [missing(control_planes, "default", vec!["delete"])];
    ensure!(found == expected, "{found:?}");

    let other = server.namespace("other").await?;
    let writes = || vec!["create", "patch", "delete"];
    let found = misses(check(&checks, &other, RELEASE).await?);
    let expected = [
        missing(control_planes, &other, writes()),
        missing(clusters, &other, writes()),
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}
