//! The API server goes away under the operator, refusing connections or saying nothing, and comes back.

use std::collections::BTreeMap;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease, Condition};
use core_operator::lease;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use tests::control_plane::{Options, User};
use tests::scenario::scenario_on;
use tests::{ControlPlane, Operator, eventually};

use super::ground::{Ground, PATIENCE, class_kind, example};

/// Stacks that are Ready before.
const OLD: [&str; 3] = ["old0", "old1", "old2"];

/// Stacks that are being made ready when it goes.
const NEW: [&str; 3] = ["new0", "new1", "new2"];

/// Stacks that are being made ready when the operator is told to end.
const LAST: [&str; 3] = ["last0", "last1", "last2"];

/// All conditions of the old stacks and their releases.
async fn verdicts(ground: &Ground<'_>) -> Result<BTreeMap<String, Vec<Condition>>> {
    let mut verdicts = BTreeMap::new();
    let stacks = ground.api::<ClusterStack>();
    for stack in stacks.list(&ListParams::default()).await? {
        let name = format!("stack {}", stack.name_any());
        verdicts.insert(name, stack.status.unwrap_or_default().conditions);
    }
    let releases = ground.api::<ClusterStackRelease>();
    for release in releases.list(&ListParams::default()).await? {
        let name = format!("release {}", release.name_any());
        verdicts.insert(name, release.status.unwrap_or_default().conditions);
    }
    verdicts.retain(|name, _| name.contains("old"));
    Ok(verdicts)
}

/// Waits for the end of an operator, which must not need more than this.
async fn end(operator: &Arc<Operator>, patience: Duration) -> Result<ExitStatus> {
    let operator = Arc::clone(operator);
    tokio::task::spawn_blocking(move || operator.process().wait(patience)).await?
}

/// As an administrator may who knows that the holder has ended: the next one need not wait.
async fn forget_lease(ground: &Ground<'_>) -> Result<()> {
    let leases: Api<Lease> = ground.api();
    leases
        .delete(lease::LEASE_NAME, &DeleteParams::default())
        .await?;
    Ok(())
}

async fn lease(ground: &Ground<'_>) -> Result<LeaseSpec> {
    let leases: Api<Lease> = ground.api();
    let lease = leases.get(lease::LEASE_NAME).await?;
    lease.spec.context("the lease is empty")
}

async fn stop(operator: &Arc<Operator>) -> Result<ExitStatus> {
    let operator = Arc::clone(operator);
    tokio::task::spawn_blocking(move || operator.stop()).await?
}

fn signal(pid: Option<u32>, signal: &str) -> Result<()> {
    let pid = pid.context("the API server does not run")?.to_string();
    let status = Command::new("kill")
        .args([&format!("-{signal}"), &pid])
        .status()
        .context("failed to run kill")?;
    ensure!(status.success(), "kill -{signal} {pid} failed");
    Ok(())
}

/// All stacks are Ready, the old ones never were anything else, and what is watched is seen.
async fn recovered(
    ground: &Ground<'_>,
    before: &BTreeMap<String, Vec<Condition>>,
    later: &str,
) -> Result<()> {
    for stack in NEW {
        ground.ready(stack).await?;
    }
    let now = verdicts(ground).await?;
    // With the times of the last changes: none of them was False in between.
    ensure!(now == *before, "{now:#?}\nbefore: {before:#?}");
    ground.stack(later, &example(later, "v1"), "").await?;
    ground.ready(later).await?;
    let (classes, class) = (ground.objects(&class_kind()), "docker-new0-1-30-v1");
    let old = classes.get(class).await?;
    ground.delete_object(&class_kind(), class).await?;
    eventually("the class is back", PATIENCE, async || {
        let new = classes.get(class).await?;
        ensure!(new.uid() != old.uid(), "it is still there");
        Ok(())
    })
    .await?;
    ground.ready("new0").await?;
    Ok(())
}

/// Makes stacks with these names in both.
async fn add(grounds: [&Ground<'_>; 2], stacks: &[&str]) -> Result<()> {
    for ground in grounds {
        for stack in stacks {
            ground.stack(stack, &example(stack, "v1"), "").await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn outages_of_the_api_server_change_no_verdict_and_are_survived() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default()).await?;
    scenario_on(&control_plane, "outage", async |bed| {
        // One that leads by a lease, and one without: it is never told to end.
        let leading = Ground::own(bed).await?;
        let namespace = control_plane.namespace("alone").await?;
        let alone = Ground::in_namespace(bed, &namespace).await?;
        let leader = Arc::new(leading.operator().start().await?);
        let survivor = alone.operator().arg("--leader-elect=false").start().await?;
        add([&leading, &alone], &OLD).await?;
        for ground in [&leading, &alone] {
            for stack in OLD {
                ground.ready(stack).await?;
            }
        }
        let before = [verdicts(&leading).await?, verdicts(&alone).await?];

        // Connections are refused, in the middle of work.
        add([&leading, &alone], &NEW).await?;
        control_plane.kill_api_server();
        let late = leading.operator().without_waiting().start().await?;
        let late = Arc::new(late);
        let status = end(&late, PATIENCE).await?;
        ensure!(status.code() == Some(1), "{status:?}");
        let log = late.log()?;
        ensure!(
            log.contains("failed to read lease") && log.contains("refused"),
            "it does not say why it ends: {log}"
        );
        control_plane.start_api_server().await?;
        let held = eventually("the lease is read", PATIENCE, async || {
            lease(&leading).await
        })
        .await?;
        eventually("the leader goes on or has ended", PATIENCE, async || {
            let renewed = lease(&leading).await?.renew_time != held.renew_time;
            ensure!(renewed || !leader.is_running(), "{held:?}");
            Ok(())
        })
        .await?;
        // Longer than a leader may go without renewing: then it has ended, and its pod starts it again.
        let leader = if leader.is_running() {
            leader
        } else {
            ensure!(
                leader.log()?.contains("lost the lease"),
                "{}",
                leader.log()?
            );
            forget_lease(&leading).await?;
            Arc::new(leading.operator().start().await?)
        };
        recovered(&leading, &before[0], "later0").await?;
        recovered(&alone, &before[1], "later0").await?;
        ensure!(survivor.is_running());

        // Connections are taken and nothing is said, for longer than a lease may go without renewing.
        signal(control_plane.pid(), "STOP")?;
        let silent = leading.operator().without_waiting().start().await?;
        let silent = Arc::new(silent);
        let ends = tokio::try_join!(end(&leader, PATIENCE), end(&silent, PATIENCE));
        signal(control_plane.pid(), "CONT")?;
        let (led, started) = ends?;
        ensure!(
            led.code() == Some(1) && started.code() == Some(1),
            "{led:?} {started:?}"
        );
        let log = leader.log()?;
        ensure!(
            log.contains("not renewed in time") && log.contains("lost the lease"),
            "{log}"
        );
        let log = silent.log()?;
        ensure!(
            log.contains("failed to read lease") && log.contains("no answer within"),
            "{log}"
        );
        forget_lease(&leading).await?;
        let leader = Arc::new(leading.operator().start().await?);
        recovered(&leading, &before[0], "later1").await?;
        recovered(&alone, &before[1], "later1").await?;
        ensure!(survivor.is_running());

        // Told to end in the middle of work, while nobody answers: as long as a pod has for it.
        add([&leading, &alone], &LAST).await?;
        signal(control_plane.pid(), "STOP")?;
        let survivor = Arc::new(survivor);
        let ends = tokio::try_join!(stop(&leader), stop(&survivor));
        signal(control_plane.pid(), "CONT")?;
        let (led, alone) = ends?;
        ensure!(alone.code() == Some(0), "{alone:?}");
        // Or its lease ran out while it waited for answers.
        ensure!(matches!(led.code(), Some(0 | 1)), "{led:?}");
        for operator in [&survivor, &leader] {
            let log = operator.log()?;
            ensure!(!log.contains("panicked"), "{log}");
        }
        Ok(())
    })
    .await
}

/// Name of a user and of the role with all of that user's rights, which the operator does not know to be its own: a change
/// of it goes unnoticed.
const CUT: &str = "cut";

/// Makes the user, with the delivered rights.
async fn user_with_own_role(ground: &Ground<'_>) -> Result<User> {
    let roles: Api<ClusterRole> = Api::all(ground.client.clone());
    let base = roles.get("core-operator-base").await?;
    let mut role = ClusterRole {
        rules: base.rules,
        ..ClusterRole::default()
    };
    role.metadata.name = Some(CUT.to_owned());
    roles.create(&PostParams::default(), &role).await?;
    ground
        .bed
        .apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {CUT}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {CUT}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {CUT}}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {CUT}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: core-operator-leases}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {CUT}}}]
"
        ))
        .await?;
    ground.bed.control_plane.user(CUT, None)
}

/// Takes away the right to watch the kinds of a group.
async fn forbid_watch(ground: &Ground<'_>, group: &str) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(ground.client.clone());
    let mut role = roles.get(CUT).await?;
    for rule in role.rules.iter_mut().flatten() {
        if rule.api_groups.iter().flatten().any(|it| it == group) {
            rule.verbs.retain(|verb| verb != "watch");
        }
    }
    roles.replace(CUT, &PostParams::default(), &role).await?;
    Ok(())
}

// A watch that is cut shows nothing new: what it does not show may be there, and what it shows may be gone.
#[tokio::test]
async fn deletion_does_not_hang_on_watches_that_are_cut() -> Result<()> {
    let control_plane = ControlPlane::start(Options::default()).await?;
    scenario_on(&control_plane, "unseen", async |bed| {
        let ground = Ground::own(bed).await?;
        let operator = ground
            .operator()
            .user(user_with_own_role(&ground).await?)
            .arg("--leader-elect=false")
            .start()
            .await?;
        ground.stack("seen", &example("seen", "v1"), "").await?;
        ground.ready("seen").await?;
        forbid_watch(&ground, "infrastructure.cluster.x-k8s.io").await?;
        // Watches that are open stay so.
        control_plane.kill_api_server();
        control_plane.start_api_server().await?;
        eventually("watches are refused", PATIENCE, async || {
            let log = operator.log()?;
            let refused = "cannot watch resource \\\"dockermachinetemplates\\\"";
            ensure!(log.contains(refused), "{log}");
            Ok(())
        })
        .await?;
        ground.stack("unseen", &example("unseen", "v1"), "").await?;
        ground.ready("unseen").await?;
        ground.delete("unseen").await?;
        let left = ground.owned().await?;
        let left: Vec<_> = left
            .iter()
            .filter(|object| object.name.contains("unseen"))
            .collect();
        ensure!(left.is_empty(), "{left:?}");
        // What is gone may still be shown, if it was when the watch was cut.
        let template = ("DockerMachineTemplate", "docker-seen-1-30-v1-worker");
        let kind = kube::core::GroupVersionKind::gvk(
            "infrastructure.cluster.x-k8s.io",
            "v1beta1",
            template.0,
        );
        ground.delete_object(&kind, template.1).await?;
        ground.delete("seen").await?;
        ground.is_empty().await
    })
    .await
}
