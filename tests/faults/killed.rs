//! The operator is killed at random moments while stacks come, change and go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease};
use core_operator::lease;
use futures::future::try_join_all;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tests::stacks::StackRelease;
use tests::{eventually, scenario};

use super::ground::{Ground, Object, PATIENCE, conditions, example, is_ready, ready_of};

/// How often it is killed in one run.
const KILLS: usize = if cfg!(feature = "exhaustive") { 20 } else { 3 };

/// Stacks that come and go.
const STACKS: usize = 5;

/// The variable that repeats a run: the seed that it printed.
const SEED: &str = "FAULTS_SEED";

/// After this time the wishes of one round are fulfilled, even when the machine is busy.
const LONGEST: Duration = Duration::from_millis(2500);

/// A template that a release has or has not, so that objects are pruned.
const EXTRA: &str = "
apiVersion: infrastructure.cluster.x-k8s.io/v1beta1
kind: DockerMachineTemplate
metadata: {name: '{{ .Release.Name }}-{{ .Chart.Version }}-extra'}
spec: {template: {spec: {}}}
";

/// What is wanted of one stack.
#[derive(Debug, Clone, PartialEq)]
struct Wish {
    versions: BTreeSet<&'static str>,
    /// Whether each release has the extra object.
    extra: bool,
}

fn stack(number: usize) -> String {
    format!("killed{number}")
}

fn release(number: usize, version: &str, extra: bool) -> StackRelease {
    let release = example(&stack(number), version);
    if extra {
        release.with_class_template("extra.yaml", EXTRA)
    } else {
        release
    }
}

/// Wishes for some of the stacks; the others go, or do not come.
fn wishes(random: &mut StdRng) -> BTreeMap<usize, Wish> {
    let mut wishes = BTreeMap::new();
    for number in 0..STACKS {
        if random.random_bool(0.3) {
            continue;
        }
        let versions = match random.random_range(0..3) {
            0 => ["v1"].into(),
            1 => ["v2"].into(),
            _ => ["v1", "v2"].into(),
        };
        let extra = random.random_bool(0.5);
        wishes.insert(number, Wish { versions, extra });
    }
    wishes
}

/// Tells the API server, once. What does not work now, because something is still going, works when it is told again.
async fn tell(ground: &Ground<'_>, wishes: &BTreeMap<usize, Wish>) -> Result<()> {
    let stacks: Api<ClusterStack> = ground.api();
    let tell = |number: usize| {
        let stacks = stacks.clone();
        async move {
            let name = stack(number);
            let Some(wish) = wishes.get(&number) else {
                return match stacks.delete(&name, &DeleteParams::default()).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                    other => other.map(|_| ()).context("failed to delete a stack"),
                };
            };
            let versions = json!(wish.versions);
            let spec = format!("autoSubscribe: false\nversions: {versions}");
            let any = release(number, "v1", wish.extra);
            ground.apply_stack(&name, &any, &spec).await
        }
    };
    try_join_all((0..STACKS).map(tell)).await?;
    Ok(())
}

// pitfalls 6, 10, 57: whenever it is killed, nothing is doubled, forgotten or left behind.
#[tokio::test]
async fn operator_that_is_killed_at_any_moment_converges_and_leaks_nothing() -> Result<()> {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed
            .parse()
            .with_context(|| format!("{SEED} is no number"))?,
        Err(_) => rand::rng().random::<u64>(),
    };
    eprintln!("{KILLS} kills; the same again: {SEED}={seed}");
    scenario("killed", async |bed| {
        let ground = Ground::shared(bed).await?;
        let mut random = StdRng::seed_from_u64(seed);
        let cache = tempfile::tempdir()?;
        let leases: Api<Lease> = ground.api();
        let mut wished = BTreeMap::new();
        for kill in 0..KILLS {
            wished = wishes(&mut random);
            for (&number, wish) in &wished {
                for version in ["v1", "v2"] {
                    release(number, version, wish.extra).write_to(ground.releases.path())?;
                }
            }
            let early = random.random_bool(0.25);
            let moment = LONGEST.mul_f64(random.random::<f64>());
            let operator = ground
                .operator()
                .cache_dir(cache.path())
                .without_waiting()
                .start()
                .await?;
            if !early {
                operator.ready().await?;
            }
            tell(&ground, &wished).await?;
            // Chance is the test here.
            tokio::time::sleep(moment).await;
            operator.kill_9();
            eprintln!("kill {kill}: {moment:?} after the wishes");
            // As an administrator may who is in a hurry: the dead one cannot lead any more.
            let _ = leases
                .delete(lease::LEASE_NAME, &DeleteParams::default())
                .await;
        }

        let operator = ground.operator().cache_dir(cache.path()).start().await?;
        settled(&ground, &wished).await?;
        consistent(&ground, &wished).await?;
        let unfinished = std::fs::read_dir(cache.path().join("tmp"))?.count();
        ensure!(
            unfinished == 0,
            "{unfinished} downloads of killed processes are left"
        );

        tell(&ground, &BTreeMap::new()).await?;
        eventually("all stacks are gone", PATIENCE, async || {
            let stacks: Api<ClusterStack> = ground.api();
            let left = stacks.list(&ListParams::default()).await?;
            ensure!(left.items.is_empty(), "{left:?}");
            Ok(())
        })
        .await?;
        ground.is_empty().await?;
        ensure!(operator.is_running());
        Ok(())
    })
    .await
}

/// Waits until all wishes are fulfilled.
async fn settled(ground: &Ground<'_>, wished: &BTreeMap<usize, Wish>) -> Result<()> {
    let stacks: Api<ClusterStack> = ground.api();
    eventually("all wishes are fulfilled", PATIENCE, async || {
        // A stack that was still going when it was wanted again is wanted still.
        tell(ground, wished).await?;
        for number in 0..STACKS {
            let name = stack(number);
            let Some(wish) = wished.get(&number) else {
                ensure!(stacks.get_opt(&name).await?.is_none(), "{name} is there");
                continue;
            };
            let stack = stacks.get(&name).await?;
            ensure!(
                stack.metadata.deletion_timestamp.is_none(),
                "{name} is going"
            );
            ensure!(
                is_ready(&stack),
                "{name}: {:?}",
                ready_of(conditions(&stack))
            );
            let status = stack.status.unwrap_or_default();
            for version in &wish.versions {
                let entry = status.summary.iter().find(|entry| entry.name == *version);
                ensure!(entry.is_some_and(|entry| entry.ready), "{name}: {status:?}");
            }
        }
        Ok(())
    })
    .await
}

/// Each object is in exactly one inventory, each entry of an inventory is there, and each release has one class.
async fn consistent(ground: &Ground<'_>, wished: &BTreeMap<usize, Wish>) -> Result<()> {
    eventually(
        "objects and inventories are the same",
        PATIENCE,
        async || {
            let releases: Api<ClusterStackRelease> = ground.api();
            let mut recorded = BTreeSet::new();
            for release in releases.list(&ListParams::default()).await? {
                let name = release.name_any();
                let status = release.status.unwrap_or_default();
                ensure!(status.ready, "{name}: {:?}", status.conditions);
                let classes = status.resources.iter();
                let classes = classes.filter(|entry| entry.kind == "ClusterClass").count();
                ensure!(classes == 1, "{name} has {classes} classes");
                let extra = status
                    .resources
                    .iter()
                    .any(|entry| entry.name.ends_with("-extra"));
                let number = (0..STACKS).find(|number| name.contains(&stack(*number)));
                let wish = number.and_then(|number| wished.get(&number));
                let wish = wish.with_context(|| format!("nobody wants {name}"))?;
                ensure!(extra == wish.extra, "{name}: the extra object is wrong");
                for entry in &status.resources {
                    ensure!(!entry.uid.is_empty(), "{name} does not know {entry:?}");
                    ensure!(
                        recorded.insert(Object::from(entry)),
                        "{entry:?} is there twice"
                    );
                }
            }
            let owned = ground.owned().await?;
            let leaked: Vec<_> = owned.difference(&recorded).collect();
            let missing: Vec<_> = recorded.difference(&owned).collect();
            ensure!(
                leaked.is_empty() && missing.is_empty(),
                "in no inventory: {leaked:?}; only in an inventory: {missing:?}"
            );
            Ok(())
        },
    )
    .await
}
