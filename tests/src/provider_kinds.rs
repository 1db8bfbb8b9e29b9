//! The kinds of Cluster API providers, without the providers: CRDs that keep any spec and status.
//!
//! A test owns objects of these kinds and writes what a provider would write.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DeleteParams;
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt, discovery};
use serde_json::{Value, json};

use crate::manifests::apply_crds;
use crate::wait::eventually;

/// How long the API server may take to remove a kind and its objects.
const GONE: Duration = Duration::from_mins(1);

const BOOTSTRAP: &str = "bootstrap.cluster.x-k8s.io";
const CONTROL_PLANE: &str = "controlplane.cluster.x-k8s.io";
const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io";
const ORC: &str = "openstack.k-orc.cloud";

/// A group of kinds that are installed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// `DockerCluster`, `DockerMachine`, `DockerMachinePool` and their templates.
    Docker,
    /// `OpenStackCluster`, `OpenStackMachine` and their templates.
    OpenStack,
    /// `KubeadmConfig`, `KubeadmControlPlane` and their templates.
    Kubeadm,
    /// `Image` of the OpenStack resource controller.
    OpenStackResources,
    /// `FakeCluster`, `FakeMachine`, `FakeControlPlane`, `FakeConfig` and their templates: nobody's, for tests that play the provider.
    Fake,
}

impl Provider {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Docker,
        Self::OpenStack,
        Self::Kubeadm,
        Self::OpenStackResources,
        Self::Fake,
    ];

    /// The CRDs.
    ///
    /// # Errors
    ///
    /// Never, unless the API types have changed.
    pub fn crds(self) -> Result<Vec<CustomResourceDefinition>> {
        // What the providers' releases of today serve, the newest version last, and the contract of Cluster API that each version follows.
        let (both, first): (&[_], &[_]) = (&["v1beta1", "v1beta2"], &["v1beta1"]);
        let contracts = |version: &str| json!({"cluster.x-k8s.io/v1beta1": "v1beta1", "cluster.x-k8s.io/v1beta2": version});
        let old = json!({"cluster.x-k8s.io/v1beta1": "v1beta1"});
        let with_template =
            |group, kind: &str| [(group, kind.to_owned()), (group, format!("{kind}Template"))];
        let (kinds, versions, labels): (Vec<_>, &[&str], Value) = match self {
            Self::Docker => (
                ["DockerCluster", "DockerMachine", "DockerMachinePool"]
                    .into_iter()
                    .flat_map(|kind| with_template(INFRASTRUCTURE, kind))
                    .collect(),
                both,
                contracts("v1beta2"),
            ),
            Self::OpenStack => (
                ["OpenStackCluster", "OpenStackMachine"]
                    .into_iter()
                    .flat_map(|kind| with_template(INFRASTRUCTURE, kind))
                    .collect(),
                first,
                old,
            ),
            Self::Kubeadm => (
                with_template(BOOTSTRAP, "KubeadmConfig")
                    .into_iter()
                    .chain(with_template(CONTROL_PLANE, "KubeadmControlPlane"))
                    .collect(),
                both,
                contracts("v1beta2"),
            ),
            Self::OpenStackResources => (vec![(ORC, "Image".to_owned())], &["v1alpha1"], json!({})),
            Self::Fake => (
                [
                    (INFRASTRUCTURE, "FakeCluster"),
                    (INFRASTRUCTURE, "FakeMachine"),
                    (CONTROL_PLANE, "FakeControlPlane"),
                    (BOOTSTRAP, "FakeConfig"),
                ]
                .into_iter()
                .flat_map(|(group, kind)| with_template(group, kind))
                .collect(),
                &["v1"],
                json!({"cluster.x-k8s.io/v1beta2": "v1"}),
            ),
        };
        kinds
            .into_iter()
            .map(|(group, kind)| {
                serde_json::from_value(crd(group, &kind, versions, &labels))
                    .with_context(|| format!("failed to make the CRD of {kind}"))
            })
            .collect()
    }
}

/// Installs the kinds of some providers; those that are there stay as they are.
///
/// # Errors
///
/// When the API server refuses.
pub async fn install(client: &Client, providers: &[Provider]) -> Result<()> {
    let mut crds = Vec::new();
    for provider in providers {
        crds.extend(provider.crds()?);
    }
    apply_crds(client, crds).await
}

/// Takes the CRDs of some providers away, with all their objects: what a management cluster looks like before its provider is installed.
/// Returns when the kinds are no longer served.
///
/// # Errors
///
/// When the API server refuses, or objects stay because of their finalizers.
pub async fn uninstall(client: &Client, providers: &[Provider]) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut crds = Vec::new();
    for provider in providers {
        crds.extend(provider.crds()?);
    }
    for crd in &crds {
        let name = crd.name_any();
        match api.delete(&name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => {
                return Err(error).with_context(|| format!("failed to delete CRD {name:?}"));
            }
        }
    }
    for crd in &crds {
        let name = crd.name_any();
        eventually(&format!("CRD {name:?} is gone"), GONE, async || {
            ensure!(api.get_opt(&name).await?.is_none(), "still there");
            for version in &crd.spec.versions {
                let kind =
                    GroupVersionKind::gvk(&crd.spec.group, &version.name, &crd.spec.names.kind);
                let served = discovery::pinned_kind(client, &kind).await.is_ok();
                ensure!(!served, "{kind:?} is still served");
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn crd(group: &str, kind: &str, versions: &[&str], labels: &Value) -> Value {
    let free = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let singular = kind.to_lowercase();
    let plural = format!("{singular}s");
    let versions: Vec<_> = versions
        .iter()
        .enumerate()
        .map(|(position, version)| {
            json!({
                "name": version,
                "served": true,
                // Objects differ in nothing but apiVersion, so no conversion webhook is needed.
                "storage": position + 1 == versions.len(),
                "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": free, "status": free}}},
            })
        })
        .collect();
    let mut names = BTreeMap::from([
        ("kind", json!(kind)),
        ("listKind", json!(format!("{kind}List"))),
        ("plural", json!(plural)),
        ("singular", json!(singular)),
    ]);
    if group != ORC {
        names.insert("categories", json!(["cluster-api"]));
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"), "labels": labels},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": versions},
    })
}
