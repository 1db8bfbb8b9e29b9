//! Two replicas: one leads, and the other takes over when it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use core_operator::lease;
use kube::Api;
use kube::api::DeleteParams;
use tests::audit::Requests;
use tests::{Operator, eventually, scenario};
use tokio_util::task::AbortOnDropHandle;

use super::ground::{Ground, PATIENCE, example, http};

/// A lease that nobody renews is taken after its duration, at the next look, and by a process that may be slow to get a core.
const TAKE_OVER: Duration = Duration::from_secs(45);

/// Replicas with a user each, so that the audit log tells who wrote what.
struct Replicas<'a> {
    ground: Ground<'a>,
    group: String,
}

struct Replica {
    operator: Arc<Operator>,
    requests: Requests,
}

impl<'a> Replicas<'a> {
    async fn new(bed: &'a tests::Bed<'a>) -> Result<Self> {
        let ground = Ground::shared(bed).await?;
        let group = format!("replicas-{}", ground.namespace);
        bed.apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {group}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: core-operator}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: {group}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {group}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: core-operator-leases}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: Group, name: {group}}}]
"
        ))
        .await?;
        Ok(Self { ground, group })
    }

    async fn start(&self, name: &str) -> Result<Replica> {
        let server = self.ground.bed.control_plane;
        let name = format!("{name}-{}", self.ground.namespace);
        let user = server.user(&name, Some(&self.group))?;
        let operator = self.ground.operator().user(user).start().await?;
        Ok(Replica {
            operator: Arc::new(operator),
            requests: server.requests(&name).await?,
        })
    }

    /// What is cluster-wide goes.
    async fn end(&self) -> Result<()> {
        let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> =
            Api::all(self.ground.client.clone());
        bindings
            .delete(&self.group, &DeleteParams::default())
            .await?;
        Ok(())
    }
}

impl Replica {
    /// Whether it says that it leads; nothing if it does not answer.
    async fn leads(&self) -> Option<bool> {
        leads(&self.operator).await
    }

    async fn leads_within(&self, patience: Duration) -> Result<()> {
        eventually("the replica leads", patience, async || {
            ensure!(
                self.leads().await == Some(true),
                "{}",
                self.operator.log_tail(3)
            );
            Ok(())
        })
        .await
    }
}

async fn leads(operator: &Operator) -> Option<bool> {
    let (_, text) = http(&format!("{}/metrics", operator.metrics_url()))
        .await
        .ok()?;
    Some(
        text.lines()
            .any(|line| line == "cluster_stack_operator_leader 1"),
    )
}

/// Looks all the time whether two lead at once.
struct Referee {
    two_led: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Referee {
    fn watch(one: &Replica, other: &Replica) -> Self {
        let (two_led, looks) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let (found, counted) = (Arc::clone(&two_led), Arc::clone(&looks));
        let (one, other) = (Arc::clone(&one.operator), Arc::clone(&other.operator));
        let task = tokio::spawn(async move {
            loop {
                // The first one twice: in between, it may have given the lease to the other.
                let together = (leads(&one).await, leads(&other).await, leads(&one).await)
                    == (Some(true), Some(true), Some(true));
                if together {
                    found.store(true, Ordering::SeqCst);
                }
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Self {
            two_led,
            looks,
            _task: AbortOnDropHandle::new(task),
        }
    }

    fn verdict(&self) -> Result<()> {
        ensure!(
            !self.two_led.load(Ordering::SeqCst),
            "two replicas led at the same time"
        );
        let looks = self.looks.load(Ordering::SeqCst);
        ensure!(looks > 10, "the referee has looked only {looks} times");
        Ok(())
    }
}

#[tokio::test]
async fn other_replica_takes_over_when_the_leader_is_killed() -> Result<()> {
    scenario("leader-killed", async |bed| {
        let replicas = Replicas::new(bed).await?;
        let ground = &replicas.ground;
        let one = replicas.start("one").await?;
        one.leads_within(PATIENCE).await?;
        let other = replicas.start("other").await?;
        ensure!(other.leads().await == Some(false));
        let referee = Referee::watch(&one, &other);
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;
        // The one that waits is ready, and does not even look.
        let writes = other.requests.writes().await?;
        ensure!(writes.is_empty(), "{writes:?}");

        one.operator.kill_9();
        let killed = Instant::now();
        ground.stack("after", &example("after", "v1"), "").await?;
        other.leads_within(TAKE_OVER).await?;
        // Not before others may: the dead one might only have been silent.
        let took = killed.elapsed();
        ensure!(took > lease::RENEW_DEADLINE, "it took only {took:?}");
        ground.ready("after").await?;
        ground.ready("before").await?;
        referee.verdict()?;
        replicas.end().await
    })
    .await
}

#[tokio::test]
async fn terminated_leader_hands_over_at_once() -> Result<()> {
    scenario("leader-terminated", async |bed| {
        let replicas = Replicas::new(bed).await?;
        let ground = &replicas.ground;
        let one = replicas.start("one").await?;
        one.leads_within(PATIENCE).await?;
        let other = replicas.start("other").await?;
        let referee = Referee::watch(&one, &other);
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;
        let status = one.operator.stop()?;
        ensure!(status.code() == Some(0), "{status:?}");
        let stopped = Instant::now();
        other.leads_within(PATIENCE).await?;
        let took = stopped.elapsed();
        ensure!(took < lease::RENEW_DEADLINE, "it took {took:?}");
        ground.stack("after", &example("after", "v1"), "").await?;
        ground.ready("after").await?;
        // What is as it should be is not written again.
        let classes = other.requests.writes().await?;
        let again: Vec<_> = classes
            .iter()
            .filter(|request| request.name.contains("before") && request.verb == "patch")
            .collect();
        ensure!(again.is_empty(), "{again:?}");
        // One that waits ends as well when it is told to.
        let third = replicas.start("third").await?;
        let status = third.operator.stop()?;
        ensure!(status.code() == Some(0), "{status:?}");
        ensure!(other.leads().await == Some(true));
        referee.verdict()?;
        replicas.end().await
    })
    .await
}

#[tokio::test]
async fn leader_that_slept_past_its_lease_writes_nothing_more_and_ends() -> Result<()> {
    scenario("leader-asleep", async |bed| {
        let replicas = Replicas::new(bed).await?;
        let ground = &replicas.ground;
        let one = replicas.start("one").await?;
        one.leads_within(PATIENCE).await?;
        let other = replicas.start("other").await?;
        let referee = Referee::watch(&one, &other);
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;

        one.operator.process().signal("STOP")?;
        // Work that both will want to do.
        ground
            .stack("meanwhile", &example("meanwhile", "v1"), "")
            .await?;
        other.leads_within(TAKE_OVER).await?;
        ground.ready("meanwhile").await?;
        let mut requests = one.requests;
        requests.mark().await?;
        ground.stack("awake", &example("awake", "v1"), "").await?;
        one.operator.process().signal("CONT")?;
        let process = Arc::clone(&one.operator);
        let status =
            tokio::task::spawn_blocking(move || process.process().wait(PATIENCE)).await??;
        ensure!(status.code() == Some(1), "{status:?}");
        let log = one.operator.log()?;
        ensure!(
            log.contains("lost the lease: another replica may lead"),
            "{log}"
        );
        ground.ready("awake").await?;
        let writes = requests.writes().await?;
        ensure!(writes.is_empty(), "{writes:?}");
        ensure!(other.leads().await == Some(true));
        ensure!(!other.requests.writes().await?.is_empty());
        referee.verdict()?;
        replicas.end().await
    })
    .await
}
