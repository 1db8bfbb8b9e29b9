//! Rules of `ClusterStackRelease`.

use anyhow::{Result, ensure};
use core_operator::api::ClusterStackRelease;
use serde_json::{Value, json};

use crate::kind::{Kind, merged};

#[tokio::test]
async fn accepts_an_empty_spec_and_a_provider_reference() -> Result<()> {
    let releases = Kind::new::<ClusterStackRelease>().await?;
    let reference = json!({
        "apiVersion": "infrastructure.clusterstack.x-k8s.io/v1alpha1", "kind": "OpenStackClusterStackRelease",
        "name": "openstack-scs-1-32-v1", "namespace": "cluster", "uid": "1",
    });
    releases.accepts(json!({})).await?;
    let spec = json!({"providerRef": reference});
    let release = releases.accepts(spec.clone()).await?;
    ensure!(release["spec"] == spec, "{release}");
    // Kept and ignored, so it may change.
    releases.accepts_change(spec.clone(), json!({})).await?;
    releases.accepts_change(json!({}), spec).await
}

#[tokio::test]
async fn drops_unknown_fields() -> Result<()> {
    let releases = Kind::new::<ClusterStackRelease>().await?;
    let release = releases
        .create_leniently(&json!({"colour": "green"}))
        .await?;
    ensure!(release["spec"] == json!({}), "{release}");
    Ok(())
}

#[tokio::test]
async fn status_is_written_apart_from_the_spec() -> Result<()> {
    let releases = Kind::new::<ClusterStackRelease>().await?;
    let other = json!({"providerRef": {"name": "any"}});
    releases.keeps_spec_and_status_apart(json!({}), other).await
}

#[tokio::test]
async fn accepts_a_status_with_all_that_is_known_of_a_release() -> Result<()> {
    let releases = Kind::new::<ClusterStackRelease>().await?;
    let release = releases.accepts(json!({})).await?;
    let digest = format!("sha256:{}", "0".repeat(64));
    let status = json!({
        "ready": true,
        "firstReadyTime": "2026-11-22T14:36:46Z",
        "kubernetesVersion": "v1.30.10",
        "digest": digest,
        "hashes": {"clusterStack": "d2lgujm"},
        "dependencies": [{"chart": "a.tgz", "name": "cilium", "version": "1.16.6", "repository": "https://helm.cilium.io", "digest": digest}],
        "resources": [
            {"group": "cluster.x-k8s.io", "version": "v1beta1", "kind": "ClusterClass", "name": "a", "namespace": "b", "status": "synced"},
            {"version": "v1", "kind": "Namespace", "name": "a", "status": "not-synced", "error": "refused"},
        ],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Usable", "message": "", "observedGeneration": 1,
            "lastTransitionTime": "2026-11-22T14:36:46Z",
        }],
    });
    let written = releases.accepts_status(&release, status.clone()).await?;
    ensure!(written["status"] == status, "{written}");
    // The Go operator writes the version without v, too.
    let status = json!({"kubernetesVersion": "1.30.10"});
    let written = releases.accepts_status(&release, status).await?;
    ensure!(written["status"]["ready"] == false, "{written}");
    Ok(())
}

#[tokio::test]
async fn rejects_an_inventory_that_is_too_long_or_says_something_else() -> Result<()> {
    let releases = Kind::new::<ClusterStackRelease>().await?;
    let release = releases.accepts(json!({})).await?;
    let object = json!({"version": "v1", "kind": "Secret", "name": "a"});
    let many = |count| json!({"resources": vec![object.clone(); count]});
    releases.accepts_status(&release, many(4096)).await?;
    releases
        .rejects_status(&release, "must have at most 4096 items", [many(4097)])
        .await?;
    let with = |fields: Value| json!({"resources": [merged(&object, fields)]});
    releases
        .rejects_status(
            &release,
            "status.resources",
            [
                with(json!({"status": "unknown"})),
                with(json!({"name": "a".repeat(254)})),
                with(json!({"error": "a".repeat(4097)})),
            ],
        )
        .await?;
    let dependency = json!({"chart": "a.tgz", "name": "b", "version": "1", "repository": "c"});
    releases
        .rejects_status(
            &release,
            "status.dependencies[0].digest",
            [json!({"dependencies": [dependency]})],
        )
        .await
}

#[tokio::test]
async fn columns_are_those_of_the_go_operator() -> Result<()> {
    let releases = Kind::new::<ClusterStackRelease>().await?;
    let columns = releases.columns().await?;
    ensure!(
        columns == ["Name", "K8s Version", "Ready", "Age", "Reason", "Message"],
        "{columns:?}"
    );
    ensure!(releases.names().await? == json!([["cskr"], ["cluster-api", "cluster-stacks"]]));
    Ok(())
}
