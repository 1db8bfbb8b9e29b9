//! Taking over from the Go operator in place.
//!
//! The objects are like those that it has left in real clusters: field manager `kubectl`, conditions of Cluster API v1beta1
//! (with `severity`, without `reason`), an inventory in which namespaces may be missing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease, RELEASE_FINALIZER, STACK_FINALIZER};
use core_operator::apply::MANAGER;
use core_operator::lease::GO_OPERATOR_LEASE;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tests::stacks::StackRelease;
use tests::{eventually, manifests};

use crate::apart::{apart, operator};
use crate::scene::{PATIENCE, Scene, delete, gone, says, scene};
use crate::stack::Stack;

/// What it made of the example stack, in an older edition: one more template, and some fields that there are no more.
fn objects(class: &str, namespace: &str) -> String {
    format!(
        "
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: DockerClusterTemplate
metadata:
  name: {class}-cluster
  labels: {{clusterstack.x-k8s.io/instance: owned}}
spec: {{template: {{spec: {{loadBalancer: {{imageTag: v0.9}}}}}}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: DockerMachineTemplate
metadata:
  name: {class}-machinetemplate-docker
  labels: {{clusterstack.x-k8s.io/instance: owned}}
spec: {{template: {{spec: {{}}}}}}
---
apiVersion: controlplane.cluster.x-k8s.io/v1beta1
kind: KubeadmControlPlaneTemplate
metadata:
  name: {class}-control-plane
  labels: {{clusterstack.x-k8s.io/instance: owned}}
spec: {{template: {{spec: {{kubeadmConfigSpec: {{}}}}}}}}
---
apiVersion: cluster.x-k8s.io/v1beta1
kind: ClusterClass
metadata:
  name: {class}
  labels: {{clusterstack.x-k8s.io/instance: owned, edition: old}}
spec:
  controlPlane:
    machineInfrastructure:
      ref: {{apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerMachineTemplate, name: {class}-machinetemplate-docker, namespace: {namespace}}}
    ref: {{apiVersion: controlplane.cluster.x-k8s.io/v1beta1, kind: KubeadmControlPlaneTemplate, name: {class}-control-plane, namespace: {namespace}}}
  infrastructure:
    ref: {{apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerClusterTemplate, name: {class}-cluster, namespace: {namespace}}}
"
    )
}

/// Conditions as it wrote them, all True.
fn conditions(types: &[&str]) -> Value {
    let conditions = types.iter().map(|type_| {
        json!({"type": type_, "status": "True", "severity": "Info", "lastTransitionTime": "2026-11-22T14:36:46Z"})
    });
    conditions.collect()
}

/// The inventory of [`objects`], the last two without a namespace: so it wrote those whose templates name none.
fn inventory(class: &str, namespace: &str) -> Value {
    let entry = |group: &str, kind: &str, name: &str| json!({"group": group, "version": "v1beta1", "kind": kind, "name": name, "status": "synced"});
    let infrastructure = "infrastructure.cluster.x-k8s.io";
    let mut entries = [
        entry("cluster.x-k8s.io", "ClusterClass", class),
        entry(
            infrastructure,
            "DockerClusterTemplate",
            &format!("{class}-cluster"),
        ),
        entry(
            "controlplane.cluster.x-k8s.io",
            "KubeadmControlPlaneTemplate",
            &format!("{class}-control-plane"),
        ),
        entry(
            infrastructure,
            "DockerMachineTemplate",
            &format!("{class}-machinetemplate-docker"),
        ),
    ];
    for entry in &mut entries[..2] {
        entry["namespace"] = json!(namespace);
    }
    json!(entries)
}

/// Leaves all of it in the test's namespace.
async fn leave(scene: &Scene<'_>, release: &StackRelease) -> Result<()> {
    let (tag, class) = (release.name().tag(), release.name().dotted());
    for object in manifests::parse(&objects(&class, &scene.namespace))? {
        let types = object.types.clone().context("no kind")?;
        let api = scene.objects(&types.api_version, &types.kind);
        let params = PatchParams::apply("kubectl").force();
        api.patch(&object.name_any(), &params, &Patch::Apply(&object))
            .await?;
    }
    let stack = Stack::of(release).versions(&["v1"]).create(scene).await?;
    let params = PatchParams {
        field_manager: Some("cso-manager".to_owned()),
        ..PatchParams::default()
    };
    let status = json!({"status": {
        "conditions": conditions(&["Ready", "ClusterStackReleaseAvailable", "ClusterStackReleasesSynced"]),
        "latestRelease": format!("{class} | v1.30.10"),
        "summary": [{"name": "v1", "phase": "done", "ready": true}],
        "usableVersions": "v1",
    }});
    scene
        .stacks()
        .patch_status(&stack.name_any(), &params, &Patch::Merge(status))
        .await?;
    let object: ClusterStackRelease = serde_json::from_value(json!({
        "apiVersion": "clusterstack.x-k8s.io/v1alpha1", "kind": "ClusterStackRelease",
        "metadata": {
            "name": tag, "finalizers": [RELEASE_FINALIZER],
            "ownerReferences": [{
                "apiVersion": "clusterstack.x-k8s.io/v1alpha1", "kind": "ClusterStack",
                "name": stack.name_any(), "uid": stack.uid(),
            }],
        },
        "spec": {},
    }))?;
    let post = PostParams {
        field_manager: Some("cso-manager".to_owned()),
        ..PostParams::default()
    };
    scene.releases().create(&post, &object).await?;
    let status = json!({"status": {
        "conditions": conditions(&["Ready", "ClusterStackReleaseDownloaded", "HelmChartApplied", "ProviderClusterStackReleaseReady", "HookServerReady"]),
        "kubernetesVersion": "v1.30.10", "ready": true,
        "resources": inventory(&class, &scene.namespace),
    }});
    scene
        .releases()
        .patch_status(&tag, &params, &Patch::Merge(status))
        .await?;
    Ok(())
}

/// An object as JSON, with all that our types do not know.
async fn raw(scene: &Scene<'_>, kind: &str, name: &str) -> Result<DynamicObject> {
    let api = scene.objects("clusterstack.x-k8s.io/v1alpha1", kind);
    Ok(api.get(name).await?)
}

/// That a release is ready, and nothing is left of the Go operator's conditions.
fn has_our_conditions(status: &Value) -> Result<()> {
    let conditions = status["conditions"].as_array().context("no conditions")?;
    let types = conditions.iter().filter_map(|it| it["type"].as_str());
    let expected = [
        "Ready",
        "ClusterStackReleaseDownloaded",
        "ProviderReady",
        "ProviderClusterStackReleaseReady",
        "HelmChartApplied",
        "DeletionBlocked",
        "Paused",
    ];
    ensure!(types.eq(expected), "{conditions:?}");
    for condition in conditions {
        let reason = condition["reason"].as_str().unwrap_or_default();
        let whole = condition["severity"].is_null() && condition["observedGeneration"] == 1;
        ensure!(whole && !reason.is_empty(), "{condition}");
    }
    ensure!(conditions[0]["status"] == "True", "{}", conditions[0]);
    Ok(())
}

#[tokio::test]
async fn stack_of_the_go_operator_is_taken_over_in_place() -> Result<()> {
    apart("takeover", async |scene| {
        let release = scene.docker();
        let (tag, class) = (release.name().tag(), release.name().dotted());
        leave(scene, &release).await?;
        let classes = scene.classes();
        let (before, template) = (
            classes.get(&class).await?,
            scene
                .cluster_templates()
                .get(&format!("{class}-cluster"))
                .await?,
        );
        scene.publish(&release)?;
        let _operator = operator(scene).start().await?;
        eventually("the release is ours", PATIENCE, async || {
            let object = raw(scene, "ClusterStackRelease", &tag).await?;
            has_our_conditions(&object.data["status"])?;
            ensure!(object.data["status"]["kubernetesVersion"] == "v1.30.4");
            Ok(())
        })
        .await?;
        let stack: ClusterStack = scene.stack_ready(release.stack()).await?;
        ensure!(stack.finalizers() == [STACK_FINALIZER]);
        let stack = raw(scene, "ClusterStack", release.stack()).await?;
        ensure!(
            !stack.data["status"].to_string().contains("severity"),
            "{}",
            stack.data["status"]
        );

        // The same objects, with the fields of the release and no others.
        let after = classes.get(&class).await?;
        ensure!(after.uid() == before.uid());
        ensure!(
            !after.labels().contains_key("edition"),
            "{:?}",
            after.labels()
        );
        let after = scene
            .cluster_templates()
            .get(&format!("{class}-cluster"))
            .await?;
        ensure!(after.uid() == template.uid());
        let balancer = &after.data["spec"]["template"]["spec"]["loadBalancer"];
        ensure!(balancer["imageTag"].is_null(), "{balancer}");
        gone(
            &scene.machine_templates(),
            &format!("{class}-machinetemplate-docker"),
        )
        .await?;
        let object = scene.releases().get(&tag).await?;
        ensure!(object.inventory().len() == 6, "{:?}", object.inventory());
        for entry in object.inventory() {
            ensure!(entry.namespace == scene.namespace, "{entry:?}");
            let api_version = format!("{}/{}", entry.group, entry.version);
            let object = scene
                .objects(&api_version, &entry.kind)
                .get(&entry.name)
                .await?;
            let managers: Vec<_> = object
                .managed_fields()
                .iter()
                .filter(|it| it.subresource.is_none())
                .collect();
            let names: Vec<_> = managers
                .iter()
                .filter_map(|it| it.manager.as_deref())
                .collect();
            ensure!(
                names.contains(&MANAGER) && !names.contains(&"kubectl"),
                "{names:?}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_of_the_go_operator_that_is_being_deleted_takes_its_objects_along() -> Result<()> {
    // pitfall 10: its own deletion left them for ever
    apart("leftovers", async |scene| {
        let release = scene.docker();
        leave(scene, &release).await?;
        let stranger = format!(
            "{{apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerMachineTemplate, metadata: {{name: {}-mine}}}}",
            release.name().dotted()
        );
        scene.apply(&stranger).await?;
        // It waits for somebody to take its finalizer away.
        delete(&scene.releases(), &release.name().tag()).await?;
        delete(&scene.stacks(), release.stack()).await?;
        let _operator = operator(scene).start().await?;
        scene.release_gone(&release).await?;
        gone(&scene.stacks(), release.stack()).await?;
        let api = scene.objects("controlplane.cluster.x-k8s.io/v1beta1", "KubeadmControlPlaneTemplate");
        for api in [scene.classes(), scene.cluster_templates(), scene.machine_templates(), api] {
            let left = api.list(&ListParams::default()).await?;
            let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
            ensure!(left.iter().all(|name| name.ends_with("-mine")), "{left:?}");
        }
        ensure!(scene.machine_templates().list(&ListParams::default()).await?.items.len() == 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn operator_does_not_start_beside_a_living_go_operator() -> Result<()> {
    const HOLDER: &str = "cso-controller-manager-7d9f_1";
    scene("lease", async |scene| {
        tests::operator::install_rbac(&scene.client, &scene.namespace).await?;
        let leases: Api<Lease> = scene.api();
        let hold = async |holder: &str| {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": GO_OPERATOR_LEASE},
                "spec": {
                    "holderIdentity": holder, "leaseDurationSeconds": 15,
                    "renewTime": format!("{:.6}", Timestamp::now()),
                },
            });
            let params = PatchParams::apply("cso-manager").force();
            leases
                .patch(GO_OPERATOR_LEASE, &params, &Patch::Apply(lease))
                .await
        };
        hold(HOLDER).await?;
        let start = || {
            scene
                .bed
                .operator()
                .lease_namespace(&scene.namespace)
                .arg(format!("--namespace={}", scene.namespace))
                .without_waiting()
                .start()
        };
        let refused = start().await?;
        eventually("the operator has ended", PATIENCE, async || {
            hold(HOLDER).await?;
            ensure!(!refused.is_running(), "it runs");
            Ok(())
        })
        .await?;
        says(
            &refused.log_tail(5),
            &["the Go operator", HOLDER, &scene.namespace, "scale it down"],
        )?;
        ensure!(
            leases.list(&ListParams::default()).await?.items.len() == 1,
            "it took a lease"
        );

        // As a Go operator leaves it that was stopped.
        hold("").await?;
        let started = start().await?;
        started.ready().await?;
        eventually("the operator leads", Duration::from_secs(20), async || {
            let found = leases.list(&ListParams::default()).await?.items.len();
            ensure!(found == 2, "{found} leases");
            Ok(())
        })
        .await?;
        started.stop()?;
        Ok(())
    })
    .await
}
