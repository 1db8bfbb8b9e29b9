//! EN-18 to EN-24: attempts, deadlines, stalls, slots.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};

use super::ensure::one_download;
use crate::conformance::{
    artifacts::Served,
    case::{Case, SMALL, Wish, seconds_from_now},
    check::{Verdict, expect, failed, not_applicable},
    run::Where,
    status::{Failure, brief, failure, state},
};

pub(crate) async fn en_18(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    artifact.behave(|behaviour| behaviour.corrupt = true);
    let wish = cx.wish(&artifact)?;
    let Some(first) = cx
        .until_failed(&wish, Reason::DigestMismatch, false)
        .await?
    else {
        return Ok(());
    };
    artifact.release();
    let fetched = artifact.sent();
    for _ in 0..5 {
        let observation = cx.ensured(&wish).await?;
        expect(
            state(&observation) == State::Failed,
            format!("{wish} after FAILED"),
            "FAILED, until attempt_floor is raised",
            brief(&observation),
        )?;
    }
    expect(
        artifact.sent() == fetched,
        format!("{wish} five times after FAILED"),
        "nothing fetched",
        artifact.counts(),
    )?;
    let floor = first.attempt + 1;
    let again = wish.with_policy(|policy| policy.attempt_floor = floor);
    let active = cx.until_after_failure(&again, first.attempt).await?;
    expect(
        active.attempt >= floor,
        format!("{again} with attempt_floor {floor}"),
        format!("attempt {floor} or higher"),
        brief(&active),
    )
}

pub(crate) async fn en_19(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let late = |policy: &mut wire::WorkPolicy| policy.deadline = Some(seconds_from_now(-60));
    let wish = cx.wish(&artifact)?.with_policy(late);
    cx.until_failed(&wish, Reason::DeadlinePassed, false)
        .await?;
    expect(
        artifact.sent() == 0,
        format!("{wish} with a deadline in the past"),
        "no bytes fetched",
        artifact.counts(),
    )?;
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.until_active(&wish).await?;
    let wish = wish.with_policy(late);
    let after = cx.ensured(&wish).await?;
    expect(
        state(&after) == State::Active,
        format!("{wish} with a deadline in the past, after ACTIVE"),
        "it stays ACTIVE",
        brief(&after),
    )?;
    // A deadline that comes while bytes move.
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.transferring(&wish, &artifact).await?;
    let soon = seconds_from_now(2);
    let wish = wish.with_policy(|policy| policy.deadline = Some(soon));
    cx.ensured(&wish).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    artifact.release();
    cx.until_failed(&wish, Reason::DeadlinePassed, false)
        .await
        .map(|_observation| ())
}

pub(crate) async fn en_20(cx: &Case) -> Verdict {
    if cx.run.advertises(wire::Capability::BackendFetch) {
        return Err(not_applicable("CAPABILITY_BACKEND_FETCH is advertised"));
    }
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?.with_policy(|policy| {
        policy.stall_timeout = Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        });
    });
    cx.transferring(&wish, &artifact).await?;
    let stopped = Instant::now();
    let sent = format!("{wish} with stall_timeout 10 s, the source stops");
    loop {
        let observation = cx.ensured(&wish).await?;
        let stalled =
            failure(&observation).is_some_and(|failure| failure.is(Reason::TransferStalled));
        if stalled && state(&observation) != State::Transferring {
            break;
        }
        // Seen late by a little: one more pace.
        if stopped.elapsed() > Duration::from_secs(20) + cx.run.pace() {
            return Err(failed(
                sent,
                "within 20 s no longer TRANSFERRING, error TRANSFER_STALLED",
                brief(&observation),
            ));
        }
        tokio::time::sleep(cx.run.pace()).await;
    }
    artifact.release();
    cx.until_active(&wish).await.map(|_observation| ())
}

pub(crate) async fn en_22(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.transferring(&wish, &artifact).await?;
    let mut renewed = wish.clone();
    renewed.target = match cx.run.target(Where::OtherCredentials) {
        Ok(target) => target,
        Err(_) => wish.target,
    };
    renewed.target.secrets_version = "renewed".into();
    let during = cx.ensured(&renewed).await?;
    expect(
        during.error.is_none(),
        format!("{renewed} with new secrets during the transfer"),
        "no failure caused by it",
        brief(&during),
    )?;
    artifact.release();
    cx.until_active(&renewed).await?;
    one_download("new secrets during a transfer", &artifact)
}

pub(crate) async fn en_23(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::Resume)?;
    let artifact = cx.artifact(2 << 20)?;
    artifact.behave(|behaviour| behaviour.cut_at = Some(artifact.size() / 2));
    let wish = cx.wish(&artifact)?;
    let sent = format!("{wish}, the source cut at half");
    let until = Instant::now() + cx.run.options.patience;
    while artifact.sent() < artifact.size() / 2 || *artifact.open().borrow() > 0 {
        cx.ensured(&wish).await?;
        expect(
            Instant::now() < until,
            &sent,
            "the source is asked for bytes",
            artifact.counts(),
        )?;
        tokio::time::sleep(cx.run.pace()).await;
    }
    artifact.release();
    cx.until_active(&wish).await?;
    let ranges = artifact
        .hits()
        .iter()
        .filter(|hit| hit.offset > 0 && hit.header("range").is_some())
        .count();
    expect(
        ranges > 0 && artifact.sent() * 10 < artifact.size() * 16,
        sent,
        "a range request, and less than 1.6 times the size in all",
        format!("{ranges} range requests; {}", artifact.counts()),
    )
}

/// More transfers at once would measure this machine.
const MOST: usize = 64;

pub(crate) async fn en_24(cx: &Case) -> Verdict {
    let limit = usize::try_from(cx.run.limits().max_concurrent_transfers).unwrap_or(0);
    if limit == 0 {
        return Err(not_applicable("no max_concurrent_transfers is stated"));
    }
    if limit > MOST {
        return Err(not_applicable(format!(
            "max_concurrent_transfers is above {MOST}"
        )));
    }
    let mut images = Vec::new();
    for _ in 0..limit + 3 {
        let artifact = cx.artifact(SMALL)?;
        artifact.behave(|behaviour| behaviour.hold_at = Some(artifact.size() / 2));
        let wish = cx.wish(&artifact)?;
        images.push((wish, artifact));
    }
    let sent = format!(
        "{} images at once, the sources stopped in the middle",
        limit + 3
    );
    let running = |images: &[(Wish, Arc<Served>)]| {
        images
            .iter()
            .filter(|(_, artifact)| *artifact.open().borrow() > 0)
            .count()
    };
    // Until all slots are in use, and then for a while.
    let until = Instant::now() + cx.run.options.patience;
    let mut rounds = 0;
    while rounds < 10 {
        for (wish, _) in &images {
            match cx.ensure(wish).await {
                Ok(observation) => expect(
                    !matches!(state(&observation), State::Failed | State::Active),
                    &sent,
                    "a working state",
                    brief(&observation),
                )?,
                Err(status) => {
                    let failure = Failure::from(&status);
                    expect(
                        failure.is(Reason::ProviderBusy),
                        &sent,
                        "OK or PROVIDER_BUSY",
                        failure,
                    )?;
                }
            }
        }
        let now = running(&images);
        expect(
            now <= limit,
            &sent,
            format!("never more than {limit} parallel downloads"),
            format!("{now}"),
        )?;
        if now == limit || Instant::now() > until {
            rounds += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (_, artifact) in &images {
        artifact.release();
    }
    for (wish, _) in &images {
        cx.until_active(wish).await?;
    }
    Ok(())
}
