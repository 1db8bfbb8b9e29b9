//! Kinds that arrive after the release that needs them.

use std::time::Duration;

use anyhow::{Result, ensure};
use core_operator::api::{ClusterStackRelease, ResourceState};
use kube::Api;
use tests::provider_kinds::{self, Provider};
use tests::{eventually, manifests, scenario};

use super::ground::{Ground, Object, PATIENCE, example};

/// Two kinds that share a name, and one that nothing else of the chart needs.
const OBJECTS: &str = "
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: OpenStackClusterTemplate
metadata: {name: same}
spec: {template: {spec: {}}}
---
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: OpenStackMachineTemplate
metadata: {name: same}
spec: {template: {spec: {flavor: SCS-2V-4}}}
---
apiVersion: openstack.k-orc.cloud/v1alpha1
kind: Image
metadata: {name: same}
spec: {}
";

/// From the last definition to the last object; tenths of a second when the machine is idle. Shorter than the 48 s after
/// which it would be tried again without being woken.
const SOON: Duration = Duration::from_secs(40);

// baseline 17, pitfall 44
#[tokio::test]
async fn release_whose_kinds_come_late_is_applied_as_soon_as_they_are_there() -> Result<()> {
    scenario("late-kinds", async |bed| {
        let ground = Ground::shared(bed).await?;
        let providers = [Provider::OpenStack, Provider::OpenStackResources];
        // No other test here uses them.
        provider_kinds::uninstall(&ground.client, &providers).await?;
        let _operator = ground.operator().start().await?;
        let release = example("late", "v1").with_class_template("openstack.yaml", OBJECTS);
        ground.stack("late", &release, "").await?;
        let missing = ground
            .release_says(&release.name().tag(), "HelmChartApplied", "False", "KindNotServed")
            .await?;
        // All of them at once.
        for kind in ["OpenStackClusterTemplate", "OpenStackMachineTemplate", "Image"] {
            ensure!(missing.message.contains(kind), "{missing:?}");
        }
        ground.is_without_objects().await?;

        manifests::apply_crds(&ground.client, Provider::OpenStackResources.crds()?).await?;
        eventually("only the others are missing", PATIENCE, async || {
            let releases: Api<ClusterStackRelease> = ground.api();
            let status = releases.get(&release.name().tag()).await?.status;
            let conditions = status.unwrap_or_default().conditions;
            let applied = conditions.iter().find(|it| it.type_ == "HelmChartApplied");
            ensure!(
                applied.is_some_and(|it| it.reason == "KindNotServed" && !it.message.contains("Image")),
                "{applied:?}"
            );
            Ok(())
        })
        .await?;
        manifests::apply_crds(&ground.client, Provider::OpenStack.crds()?).await?;
        let releases: Api<ClusterStackRelease> = ground.api();
        eventually("every object is applied", SOON, async || {
            let status = releases.get(&release.name().tag()).await?.status.unwrap_or_default();
            ensure!(status.ready, "{:?}", status.conditions);
            let owned = ground.owned().await?;
            for entry in &status.resources {
                ensure!(
                    entry.status == ResourceState::Synced && owned.contains(&Object::from(entry)),
                    "{entry:?}"
                );
            }
            for kind in ["OpenStackClusterTemplate", "OpenStackMachineTemplate", "Image"] {
                let object = Object { kind: kind.to_owned(), name: "same".to_owned() };
                ensure!(owned.contains(&object), "no {kind}");
            }
            Ok(())
        })
        .await?;
        // Deleted by kind and name as well.
        ground.delete("late").await?;
        ground.is_empty().await?;
        provider_kinds::uninstall(&ground.client, &providers).await
    })
    .await
}
