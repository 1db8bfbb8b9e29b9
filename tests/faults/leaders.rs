//! Two replicas: one leads, and the other takes over when it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::lease;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::Api;
use kube::api::DeleteParams;
use tests::audit::{Request, Requests};
use tests::{Operator, eventually, scenario};
use tokio_util::task::AbortOnDropHandle;

use super::ground::{Ground, PATIENCE, example};

/// A lease that nobody renews is taken after its duration, at the next look, and by a process that may be slow to get a core.
const TAKE_OVER: Duration = Duration::from_secs(75);

/// How long a replica may take to say whether it leads; one that is stopped never says it, and must not keep the referee.
const ANSWER: Duration = Duration::from_millis(500);

/// Looks of the referee that must follow on what is to be judged.
const LOOKS: usize = 10;

/// Replicas with a user each, so that the audit log tells who wrote what.
struct Replicas<'a> {
    ground: Ground<'a>,
    group: String,
}

struct Replica {
    operator: Arc<Operator>,
    requests: Requests,
    http: reqwest::Client,
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
        tests::install_crypto();
        let user = server.user(&name, Some(&self.group))?;
        let operator = self.ground.operator().user(user).start().await?;
        Ok(Replica {
            operator: Arc::new(operator),
            requests: server.requests(&name).await?,
            http: reqwest::Client::builder()
                .no_proxy()
                .timeout(ANSWER)
                .build()?,
        })
    }

    /// What the lease says.
    async fn lease(&self) -> Result<LeaseSpec> {
        let leases: Api<Lease> = self.ground.api();
        let lease = leases.get(lease::LEASE_NAME).await?;
        lease.spec.context("the lease is empty")
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
    async fn leads_within(&self, patience: Duration) -> Result<()> {
        eventually("the replica leads", patience, async || {
            ensure!(
                leads(&self.http, &self.operator).await == Some(true),
                "{}",
                self.operator.log_tail(3)
            );
            Ok(())
        })
        .await
    }

    /// Waits until nothing new is written, apart from the lease.
    async fn rests(&self) -> Result<()> {
        let mut known = 0;
        eventually("the replica rests", PATIENCE, async || {
            let mut writes = self.requests.writes().await?;
            writes.retain(|request| request.resource != "leases");
            let before = std::mem::replace(&mut known, writes.len());
            ensure!(known == before, "{:?}", writes.last());
            Ok(())
        })
        .await
    }

    /// Stops it as it is, and waits until it stands still.
    async fn freeze(&self) -> Result<()> {
        self.operator.process().signal("STOP")?;
        let stat = format!("/proc/{}/stat", self.operator.pid());
        eventually("the replica stands still", PATIENCE, async || {
            let stat = std::fs::read_to_string(&stat)?;
            // The state follows on the name, which is in brackets and may contain any.
            let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            ensure!(state == Some("T"), "{stat}");
            Ok(())
        })
        .await
    }
}

/// Whether a replica says that it leads; nothing if it does not answer, or not soon.
async fn leads(http: &reqwest::Client, operator: &Operator) -> Option<bool> {
    let url = format!("{}/metrics", operator.metrics_url());
    let text = http.get(url).send().await.ok()?.text().await.ok()?;
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
    /// Begins to look, and has seen both of them when it returns.
    async fn watch(one: &Replica, other: &Replica) -> Result<Self> {
        let http = one.http.clone();
        let (one, other) = (Arc::clone(&one.operator), Arc::clone(&other.operator));
        eventually("both say who leads", PATIENCE, async || {
            let said = (leads(&http, &one).await, leads(&http, &other).await);
            ensure!(said == (Some(true), Some(false)), "{said:?}");
            Ok(())
        })
        .await?;
        let (two_led, looks) = <(Arc<AtomicBool>, Arc<AtomicUsize>)>::default();
        let (found, counted) = (Arc::clone(&two_led), Arc::clone(&looks));
        let task = tokio::spawn(async move {
            loop {
                // The first one twice: in between, it may have given the lease to the other.
                let mut together = true;
                for replica in [&one, &other, &one] {
                    together &= leads(&http, replica).await == Some(true);
                }
                if together {
                    found.store(true, Ordering::SeqCst);
                }
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(Self {
            two_led,
            looks,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// What it has seen until now, and in some more looks.
    async fn verdict(&self) -> Result<()> {
        let begun = self.looks.load(Ordering::SeqCst);
        eventually("the referee looks on", PATIENCE, async || {
            let looks = self.looks.load(Ordering::SeqCst) - begun;
            ensure!(looks > LOOKS, "{looks} looks");
            Ok(())
        })
        .await?;
        ensure!(
            !self.two_led.load(Ordering::SeqCst),
            "two replicas led at the same time"
        );
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
        let referee = Referee::watch(&one, &other).await?;
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;
        // The one that waits is ready, and does not even look.
        let writes = other.requests.writes().await?;
        ensure!(writes.is_empty(), "{writes:?}");

        one.operator.kill_9();
        let last = replicas.lease().await?;
        ground.stack("after", &example("after", "v1"), "").await?;
        other.leads_within(TAKE_OVER).await?;
        // Not before others may: the dead one might only have been silent.
        let next = replicas.lease().await?;
        let (renewed, taken) = last.renew_time.zip(next.acquire_time).context("no times")?;
        let silent = taken.0.duration_since(renewed.0);
        ensure!(
            silent >= lease::DURATION.try_into()?,
            "taken after {silent:?}"
        );
        ground.ready("after").await?;
        ground.ready("before").await?;
        referee.verdict().await?;
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
        let referee = Referee::watch(&one, &other).await?;
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;
        let holder = replicas.lease().await?.holder_identity;
        let status = one.operator.stop()?;
        ensure!(status.code() == Some(0), "{status:?}");
        // Whoever comes need not wait until it expires.
        let lease = replicas.lease().await?;
        ensure!(lease.holder_identity != holder, "{lease:?}");
        other.leads_within(PATIENCE).await?;
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
        other.leads_within(PATIENCE).await?;
        referee.verdict().await?;
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
        let referee = Referee::watch(&one, &other).await?;
        ground.stack("before", &example("before", "v1"), "").await?;
        ground.ready("before").await?;

        one.rests().await?;
        one.freeze().await?;
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
        // It may have fallen asleep in the middle of a renewal, which is refused now.
        let is_late_renewal = |it: &Request| it.resource == "leases" && it.code == 409;
        let mut writes = requests.writes().await?;
        writes.retain(|request| !is_late_renewal(request));
        ensure!(writes.is_empty(), "{writes:?}");
        other.leads_within(PATIENCE).await?;
        ensure!(!other.requests.writes().await?.is_empty());
        referee.verdict().await?;
        replicas.end().await
    })
    .await
}
