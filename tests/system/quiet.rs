//! What the operator asks of the API server: little on the way to Ready, nothing at rest.

use anyhow::{Context, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use tests::audit::Counts;
use tests::{Operator, eventually};

use crate::scene::{PATIENCE, scene, shared};
use crate::stack::Stack;

/// The most requests from the creation of a stack with one release of six objects to Ready.
const REQUESTS: usize = 12;

#[tokio::test]
async fn life_from_creation_to_ready_costs_at_most_twelve_requests() -> Result<()> {
    scene("cheap", async |scene| {
        let mut lives = Vec::new();
        // On a busy machine a state that should pass unseen may last long enough to be written, so the cheapest of some
        // lives counts. The first pays for the namespace.
        for life in ["a", "b", "c", "d", "e", "f"] {
            let release = scene.example("docker-example", life);
            scene.publish(&release)?;
            let requests = scene.requests().await?;
            let stack = Stack::of(&release);
            stack.create(scene).await?;
            scene.stack_ready(&stack.name).await?;
            let tag = release.name().tag();
            scene.event(&tag, "ClusterStackReleaseCreated").await?;
            let mut asked = scene.asked(&requests).await?;
            // When anything is refused, of whatever test, the operator tries again whether Cluster API takes classes.
            asked.retain(|request| !request.dry_run);
            let counts = Counts::of(asked.iter());
            let reads: Vec<_> = asked.iter().filter(|it| !it.is_write()).collect();
            ensure!(reads.is_empty(), "{reads:#?}\n{counts}");
            ensure!(
                counts.get("patch", "dockermachinetemplates", "") == 2,
                "{counts}"
            );
            lives.push(counts);
        }
        let cheapest = lives.iter().map(Counts::total).min().unwrap_or_default();
        let all: Vec<_> = lives.iter().map(ToString::to_string).collect();
        ensure!(
            cheapest <= REQUESTS,
            "{cheapest} requests:\n{}",
            all.join("\n")
        );
        Ok(())
    })
    .await
}

/// How many reconciles of releases have ended well.
pub async fn reconciles(operator: &Operator) -> Result<u64> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let url = format!("{}/metrics", operator.metrics_url());
    let text = http.get(url).send().await?.text().await?;
    let mut sum = 0;
    let prefix = "cluster_stack_operator_reconciles_total{controller=\"clusterstackrelease\"";
    for line in text.lines().filter(|line| line.starts_with(prefix)) {
        sum += line
            .rsplit_once(' ')
            .context("no number")?
            .1
            .parse::<u64>()?;
    }
    Ok(sum)
}

#[tokio::test]
async fn second_look_writes_nothing() -> Result<()> {
    scene("quiet", async |scene| {
        for example in ["docker-example", "docker-single", "fake-example"] {
            let suffix = example.replace('-', "");
            let suffix = &suffix[suffix.len() - 8..];
            scene.bring(&scene.example(example, suffix)).await?;
        }
        // Ready is told before everything that is told has settled.
        let tag = scene
            .releases()
            .list(&ListParams::default())
            .await?
            .items
            .remove(0);
        scene
            .event(&tag.metadata.name.unwrap(), "ClusterStackReleaseCreated")
            .await?;

        let requests = scene.requests().await?;
        for stack in scene.stacks().list(&ListParams::default()).await? {
            let name = stack.metadata.name.unwrap();
            scene
                .annotate(&scene.stacks(), &name, "example.com/touched", Some("1"))
                .await?;
        }
        let releases = scene.releases().list(&ListParams::default()).await?;
        for release in releases {
            let name = release.metadata.name.unwrap();
            scene
                .annotate(&scene.releases(), &name, "example.com/touched", Some("1"))
                .await?;
        }
        // Any change of a definition has all releases looked at, those of other tests too.
        let operator = &shared().await?.operator;
        let before = reconciles(operator).await?;
        let all: Api<core_operator::api::ClusterStackRelease> = Api::all(scene.client.clone());
        let all = all.list(&ListParams::default()).await?.items.len() as u64;
        let definitions: Api<CustomResourceDefinition> = Api::all(scene.client.clone());
        let touch =
            Patch::Merge(json!({"metadata": {"labels": {"example.com/touched": scene.namespace}}}));
        let name = "clusterstacks.clusterstack.x-k8s.io";
        definitions
            .patch(name, &PatchParams::default(), &touch)
            .await?;
        eventually("all releases were looked at", PATIENCE, async || {
            let now = reconciles(operator).await?;
            ensure!(now >= before + all, "{} of {all}", now - before);
            Ok(())
        })
        .await?;
        let mut asked = scene.asked(&requests).await?;
        asked.retain(|request| !request.dry_run); // see above
        ensure!(asked.is_empty(), "{asked:#?}");
        Ok(())
    })
    .await
}
