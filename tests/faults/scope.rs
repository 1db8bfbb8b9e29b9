//! Operators that are told to leave some objects alone.

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease};
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use tests::{eventually, scenario};

use super::ground::{Ground, PATIENCE, example, manifest};

/// Nobody has looked at it.
fn untouched(stack: &ClusterStack) -> Result<()> {
    ensure!(
        stack.status.is_none() && stack.finalizers().is_empty(),
        "{stack:?}"
    );
    Ok(())
}

#[tokio::test]
async fn namespace_restricts_the_operator_to_it() -> Result<()> {
    scenario("inside", async |bed| {
        let ground = Ground::shared(bed).await?;
        let outside = bed.control_plane.namespace("outside").await?;
        let release = example("scoped", "v1");
        release.write_to(ground.releases.path())?;
        let text = manifest("scoped", &release, "");
        // The other one first.
        for namespace in [&outside, &ground.namespace] {
            tests::manifests::apply_yaml(&ground.client, namespace, &text).await?;
        }
        let mut requests = bed.control_plane.requests("core-operator").await?;
        requests.mark().await?;
        let _operator = ground.operator().start().await?;
        ground.ready("scoped").await?;
        let stacks: Api<ClusterStack> = Api::namespaced(ground.client.clone(), &outside);
        untouched(&stacks.get("scoped").await?)?;
        for request in requests.list().await? {
            ensure!(request.namespace != outside, "{request}");
        }
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> =
            Api::all(ground.client.clone());
        namespaces
            .delete(&outside, &kube::api::DeleteParams::background())
            .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn watch_filter_restricts_the_operator_to_objects_with_the_label() -> Result<()> {
    scenario("filter", async |bed| {
        let ground = Ground::shared(bed).await?;
        let labelled = |name: &str, release, label: &str| {
            manifest(name, release, "").replace(
                &format!("metadata: {{name: {name}}}"),
                &format!(
                    "metadata: {{name: {name}, labels: {{cluster.x-k8s.io/watch-filter: {label}}}}}"
                ),
            )
        };
        let (mine, others, nobodys) = (
            example("mine", "v1"),
            example("others", "v1"),
            example("nobodys", "v1"),
        );
        for release in [&mine, &others, &nobodys] {
            release.write_to(ground.releases.path())?;
        }
        bed.apply(&labelled("others", &others, "others")).await?;
        bed.apply(&manifest("nobodys", &nobodys, "")).await?;
        bed.apply(&labelled("mine", &mine, "mine")).await?;
        let _operator = ground.operator().arg("--watch-filter=mine").start().await?;
        ground.ready("mine").await?;
        let stacks: Api<ClusterStack> = ground.api();
        for name in ["others", "nobodys"] {
            untouched(&stacks.get(name).await?)?;
        }
        let releases: Api<ClusterStackRelease> = ground.api();
        let made = releases.list(&ListParams::default()).await?;
        let made = made.items.first().context("no release")?.clone();
        ensure!(made.name_any() == mine.name().tag(), "{made:?}");

        // A label that comes later.
        bed.apply(&labelled("nobodys", &nobodys, "mine")).await?;
        ground.ready("nobodys").await?;
        // One that goes: what was made stays as it is.
        bed.apply(&labelled("mine", &mine, "others")).await?;
        ground.stack("third", &example("third", "v1"), "").await?;
        bed.apply(&labelled("third", &example("third", "v1"), "mine"))
            .await?;
        ground.ready("third").await?;
        eventually(
            "the release of the stack that left is there",
            PATIENCE,
            async || {
                releases.get(&mine.name().tag()).await?;
                Ok(())
            },
        )
        .await?;
        ensure!(!ground.owned().await?.is_empty());
        Ok(())
    })
    .await
}
