//! Rules of `ClusterAddon`.

use anyhow::{Result, ensure};
use core_operator::api::ClusterAddon;
use serde_json::{Value, json};

use crate::kind::{Kind, merged};

fn reference(fields: Value) -> Value {
    let cluster = json!({"apiVersion": "cluster.x-k8s.io/v1beta1", "kind": "Cluster", "name": "demo", "namespace": "fleet", "uid": "1"});
    merged(&cluster, fields)
}

fn addon(fields: Value) -> Value {
    json!({"clusterRef": reference(fields)})
}

#[tokio::test]
async fn accepts_a_cluster_with_what_is_installed_there() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    addons.accepts(addon(json!({}))).await?;
    let spec = merged(
        &addon(json!({})),
        json!({"clusterStack": "docker-scs-1-30-v0-sha.d2lgujm", "version": "v0-sha-d2lgujm", "hook": "AfterControlPlaneInitialized"}),
    );
    let created = addons.accepts(spec.clone()).await?;
    ensure!(created["spec"] == spec, "{created}");
    addons
        .accepts_change(spec.clone(), addon(json!({})))
        .await?;
    addons.accepts_change(addon(json!({})), spec).await
}

#[tokio::test]
async fn rejects_an_addon_without_cluster() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    addons
        .rejects(
            "spec.clusterRef",
            [
                json!({}),
                json!({"clusterRef": Value::Null}),
                json!({"version": "v1"}),
            ],
        )
        .await
}

#[tokio::test]
async fn rejects_fields_that_are_too_long() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    for (field, length) in [("clusterStack", 253), ("version", 63), ("hook", 63)] {
        let with = |length| merged(&addon(json!({})), json!({field: "a".repeat(length)}));
        addons.accepts(with(length)).await?;
        addons
            .rejects(&format!("spec.{field}"), [with(length + 1)])
            .await?;
    }
    Ok(())
}

#[tokio::test]
async fn rejects_another_cluster() -> Result<()> {
    // pitfall 51: an addon cannot be turned towards the cluster of another namespace
    let addons = Kind::new::<ClusterAddon>().await?;
    for field in ["kind", "name", "namespace"] {
        let words = format!("{field} of clusterRef is immutable");
        for changed in [json!("other"), Value::Null] {
            addons
                .rejects_change(&words, addon(json!({})), addon(json!({field: changed})))
                .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn accepts_another_version_of_the_same_cluster() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    let newer = addon(json!({"apiVersion": "cluster.x-k8s.io/v1beta2", "uid": "2"}));
    addons.accepts_change(addon(json!({})), newer).await?;
    // The namespace is the addon's own, so to name it changes nothing.
    addons
        .accepts_change(addon(json!({"namespace": Value::Null})), addon(json!({})))
        .await
}

#[tokio::test]
async fn drops_unknown_fields() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    let created = addons
        .create_leniently(&merged(&addon(json!({})), json!({"colour": "green"})))
        .await?;
    ensure!(created["spec"] == addon(json!({})), "{created}");
    Ok(())
}

#[tokio::test]
async fn status_is_written_apart_from_the_spec() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    let other = merged(&addon(json!({})), json!({"version": "v1"}));
    addons
        .keeps_spec_and_status_apart(addon(json!({})), other)
        .await
}

#[tokio::test]
async fn accepts_stages_and_objects_in_the_status() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    let object = addons.accepts(addon(json!({}))).await?;
    let status = json!({
        "ready": false,
        "resources": [{"kind": "ServiceAccount", "name": "a", "namespace": "kube-system", "status": "synced", "version": "v1"}],
        "stages": [{"name": "cni", "action": "apply", "phase": "waitingForPreCondition"}, {"name": "", "phase": ""}],
        "conditions": [],
    });
    let written = addons.accepts_status(&object, status.clone()).await?;
    ensure!(written["status"] == status, "{written}");
    let written = addons.accepts_status(&object, json!({})).await?;
    ensure!(written["status"]["ready"] == false, "{written}");
    let wrong = [json!({"stages": [{"name": "a".repeat(254), "phase": "done"}]})];
    addons
        .rejects_status(&object, "status.stages[0].name", wrong)
        .await
}

#[tokio::test]
async fn columns_are_those_of_the_go_operator() -> Result<()> {
    let addons = Kind::new::<ClusterAddon>().await?;
    let columns = addons.columns().await?;
    ensure!(
        columns
            == [
                "Name", "Cluster", "Hook", "Ready", "Age", "Reason", "Message"
            ],
        "{columns:?}"
    );
    ensure!(addons.names().await? == json!([["caddon"], ["cluster-api", "cluster-stacks"]]));
    Ok(())
}
