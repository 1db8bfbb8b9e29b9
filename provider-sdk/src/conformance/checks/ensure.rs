//! EN: the one call that starts work, again and again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};
use rand::Rng as _;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, net::TcpStream, sync::watch};

use crate::conformance::{
    artifacts::{Offer, Served, Via},
    case::{Case, SMALL, Wish, has_key, refused, seconds_from_now},
    check::{Verdict, expect, failed, not_applicable},
    client::{As, Deadline, Line, channel},
    hooks::Hook,
    options::{Level, Tls},
    recorder::Call,
    run::{Run, Where},
    sample::Kind,
    status::{Failure, brief, failure, state, state_name},
};

/// What the contract says about an ACTIVE image of this artifact.
fn active_is_complete(wish: &Wish, served: &Served, active: &wire::ImageObservation) -> Verdict {
    let verification = active.verification.clone().unwrap_or_default();
    let problem = if active.provider_image_id.is_empty() {
        Some("provider_image_id is empty")
    } else if active.attempt < 1 {
        Some("attempt is not at least 1")
    } else if !active
        .image_key
        .as_ref()
        .is_some_and(|key| *key == wish.key)
    {
        Some("image_key is another one")
    } else if verification.level < i32::from(wire::VerificationLevel::Metadata) {
        Some("the level is lower than METADATA, which is the default")
    } else if verification.verify_time.is_none() {
        Some("verify_time is missing")
    } else if verification.observed_digest != served.content.digest {
        Some("observed_digest is not the digest of the bytes as served")
    } else if served.content.kind() == Kind::Http
        && u64::try_from(verification.observed_size_bytes) != Ok(served.size())
    {
        Some("observed_size_bytes is not the size as served")
    } else {
        None
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(failed(
            wish,
            format!(
                "ACTIVE with id, attempt, key, level, time, digest \"{}\" and size {}",
                served.content.digest,
                served.size()
            ),
            format!("{problem}: {}", brief(active)),
        )),
    }
}

pub(crate) async fn en_01(cx: &Case) -> Verdict {
    // One is enough for a first day; later each combination.
    let formats = cx.run.formats();
    let count = if cx.run.options.level == Level::Basic {
        1
    } else {
        formats.len()
    };
    cx.run.format()?;
    for format in &formats[..count] {
        let artifact = cx.artifact_in(*format, SMALL)?;
        let wish = cx.wish(&artifact)?;
        let active = cx.until_active(&wish).await?;
        active_is_complete(&wish, &artifact, &active)?;
    }
    Ok(())
}

pub(crate) async fn en_02(cx: &Case) -> Verdict {
    let artifact = cx.artifact(2 << 20)?;
    artifact.behave(|behaviour| behaviour.rate = Some(64 << 10));
    let wish = cx.wish(&artifact)?;
    for _ in 0..3 {
        let started = Instant::now();
        let observation = cx.ensured(&wish).await?;
        let took = started.elapsed();
        expect(
            took <= Duration::from_secs(10),
            format!("{wish}, the source at 64 KiB/s"),
            "an answer within 10 s",
            format!("{took:?}"),
        )?;
        expect(
            matches!(
                state(&observation),
                State::Transferring | State::Processing | State::Pending
            ),
            format!("{wish}, the source at 64 KiB/s"),
            "TRANSFERRING, PROCESSING or PENDING",
            brief(&observation),
        )?;
        tokio::time::sleep(cx.run.pace()).await;
    }
    Ok(())
}

fn one_download(sent: impl std::fmt::Display, served: &Served) -> Verdict {
    expect(
        served.downloads() <= 1,
        sent,
        "one download in all",
        served.counts(),
    )
}

pub(crate) async fn en_03(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.transferring(&wish, &artifact).await?;
    let mut attempts = BTreeSet::new();
    for _ in 0..10 {
        attempts.insert(cx.ensured(&wish).await?.attempt);
    }
    artifact.release();
    attempts.insert(cx.until_active(&wish).await?.attempt);
    let sent = "EnsureImage 10 times during a transfer";
    one_download(sent, &artifact)?;
    expect(
        attempts.len() == 1,
        sent,
        "the same attempt in all answers",
        format!("{attempts:?}"),
    )
}

/// At most one object under the key.
async fn one_object(cx: &Case, wish: &Wish, sent: &str) -> Verdict {
    if let Some(list) = cx.listed(&wish.installation, &wish.target).await? {
        let count = list.iter().filter(|image| has_key(image, wish)).count();
        expect(
            count <= 1,
            format!("{sent}, then ListImages"),
            "one object",
            format!("{count} entries of the key"),
        )?;
    }
    if cx.run.options.hooks.has(Hook::BackendNames) {
        let name = &wish.spec.display_name;
        let objects: BTreeSet<_> = cx
            .backend_names()
            .await?
            .into_iter()
            .filter(|(_, carried)| carried.contains(name.as_str()))
            .map(|(id, _)| id)
            .collect();
        expect(
            objects.len() <= 1,
            format!("{sent}, then the names in the backend"),
            "one object",
            format!("{objects:?}"),
        )?;
    }
    Ok(())
}

pub(crate) async fn en_04(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let sent = "20 parallel first EnsureImage of one key";
    let answers = futures::future::join_all((0..20).map(|_| cx.ensure(&wish))).await;
    for answer in answers {
        if let Err(status) = answer {
            let failure = Failure::from(&status);
            expect(
                failure.is(Reason::OperationInProgress),
                sent,
                "OK or OPERATION_IN_PROGRESS",
                failure,
            )?;
        }
    }
    cx.until_active(&wish).await?;
    one_download(sent, &artifact)?;
    one_object(cx, &wish, sent).await
}

pub(crate) async fn en_05(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let first = cx.until_active(&wish).await?;
    let fetched = artifact.sent();
    let again = cx.ensured(&wish).await?;
    expect(
        state(&again) == State::Active && again.provider_image_id == first.provider_image_id,
        format!("{wish} after ACTIVE"),
        format!("ACTIVE at once, id \"{}\"", first.provider_image_id),
        brief(&again),
    )?;
    expect(
        artifact.sent() == fetched,
        format!("{wish} after ACTIVE"),
        "no bytes fetched",
        artifact.counts(),
    )
}

pub(crate) async fn en_06(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let first = cx.until_active(&wish).await?;
    let other_artifact = cx.artifact(SMALL)?;
    let mut other = cx.wish(&other_artifact)?;
    other.key.key.clone_from(&wish.key.key);
    refused(
        cx.ensure(&other).await,
        Reason::ImageSpecConflict,
        format!("{other} with another spec_digest"),
    )?;
    let after = cx.got(&wish).await?;
    expect(
        state(&after) == State::Active
            && after.provider_image_id == first.provider_image_id
            && after.image_key == first.image_key,
        format!("{other} with another spec_digest, then GetImage"),
        format!("the first image unchanged: {}", brief(&first)),
        brief(&after),
    )?;
    expect(
        other_artifact.sent() == 0,
        format!("{other} with another spec_digest"),
        "nothing touched",
        format!("the other artifact: {}", other_artifact.counts()),
    )
}

pub(crate) async fn en_07(cx: &Case) -> Verdict {
    let artifact = cx.file(SMALL)?;
    let mirrors = |order: [u8; 2]| Offer {
        urls: Some(order.map(|number| artifact.url(Via::Mirror(number))).into()),
        ..Offer::default()
    };
    let wish = cx.wish_for(&artifact, &mirrors([1, 2]))?;
    let first = cx.until_active(&wish).await?;
    let fetched = artifact.sent();
    let mut reordered = wish.clone();
    reordered.spec.artifact = Some(artifact.artifact(&mirrors([2, 1])));
    let again = cx.ensured(&reordered).await?;
    expect(
        state(&again) == State::Active
            && again.provider_image_id == first.provider_image_id
            && artifact.sent() == fetched,
        format!("{wish} with its mirrors in another order"),
        format!("the same image: {}", brief(&first)),
        format!("{}; {}", brief(&again), artifact.counts()),
    )
}

pub(crate) async fn en_08(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let first = cx.wish(&artifact)?;
    let second = cx.wish(&artifact)?;
    cx.until_active(&first).await?;
    let before = cx.until_active(&second).await?;
    cx.deleted(&first).await?;
    let sent = "two keys with the same artifact, DeleteImage of the first, GetImage of the second";
    let after = cx.got(&second).await?;
    expect(
        state(&after) == State::Active && after.provider_image_id == before.provider_image_id,
        sent,
        format!("still {}", brief(&before)),
        brief(&after),
    )?;
    let again = cx.ensured(&second).await?;
    expect(
        state(&again) == State::Active,
        sent.replace("GetImage", "EnsureImage"),
        "ACTIVE",
        brief(&again),
    )
}

pub(crate) async fn en_09(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let ours = cx.wish(&artifact)?;
    let theirs = Wish {
        installation: format!("{}-other", ours.installation),
        ..ours.clone()
    };
    cx.until_active(&ours).await?;
    cx.not_found(&theirs).await?;
    expect(
        cx.is_listed(&theirs).await? != Some(true),
        "an image of one installation, ListImages of another",
        "it is not listed",
        "it is listed",
    )?;
    cx.until_active(&theirs).await?;
    cx.deleted(&theirs).await?;
    cx.not_found(&theirs).await?;
    let after = cx.got(&ours).await?;
    expect(
        state(&after) == State::Active && cx.is_listed(&ours).await? != Some(false),
        "one key under two installation ids, DeleteImage of one",
        "the other stays ACTIVE",
        brief(&after),
    )
}

/// Long enough for a provider to ask the source after it took a call.
const SOON: Duration = Duration::from_secs(2);

/// The work went on although its first caller went away.
async fn goes_on(cx: &Case, wish: &Wish, artifact: &Served, sent: &str) -> Verdict {
    // If the source was asked, the call was accepted, and its bytes cannot have come to an end yet.
    if artifact.downloads() > 0 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        expect(
            *artifact.open().borrow() > 0,
            sent,
            "the transfer goes on",
            format!("the source connection was closed; {}", artifact.counts()),
        )?;
    }
    artifact.release();
    cx.until_active(wish).await?;
    one_download(sent, artifact)
}

/// Waits until the source was asked for the bytes.
async fn asked(artifact: &Served, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    while artifact.downloads() == 0 {
        if Instant::now() > until {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    true
}

pub(crate) async fn en_10(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    artifact.behave(|behaviour| behaviour.hold_at = Some(artifact.size() / 2));
    let wish = cx.wish(&artifact)?;
    cx.disturb();
    // On a machine that is slow the first call may end before the provider has read it.
    for deadline in [50, 100, 200, 400, 800] {
        let _ = cx
            .ensure_within(&wish, Deadline::Of(Duration::from_millis(deadline)))
            .await;
        if asked(&artifact, SOON).await {
            break;
        }
    }
    goes_on(
        cx,
        &wish,
        &artifact,
        "EnsureImage with a deadline of 50 ms, later EnsureImage again",
    )
    .await
}

/// Passes bytes on until it is told to cut, and swallows the provider's answers from the moment it is asked to.
async fn relay(listener: TcpListener, to: String, mut cut: watch::Receiver<bool>) {
    let Ok((mut near, _)) = listener.accept().await else {
        return;
    };
    let Ok(mut far) = TcpStream::connect(to).await else {
        return;
    };
    let pass = async {
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    tokio::select! {
        () = pass => {}
        _ = cut.wait_for(|cut| *cut) => {}
    }
    // No farewell: dropping a socket with unread bytes resets it.
    let _ = near.shutdown().await;
}

pub(crate) async fn en_11(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    artifact.behave(|behaviour| behaviour.hold_at = Some(artifact.size() / 2));
    let wish = cx.wish(&artifact)?;
    cx.disturb();
    let setup =
        |error: std::io::Error| failed("a relay in front of the provider", "it runs", error);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(setup)?;
    let address = listener.local_addr().map_err(setup)?.to_string();
    let (cut, told) = watch::channel(false);
    let relay = tokio::spawn(relay(listener, cx.run.address(), told));
    // The relay has another address; the certificate names the provider.
    let tls = cx.run.options.tls.clone().map(|tls| Tls {
        server_name: tls.server_name.clone().or_else(|| {
            cx.run
                .address()
                .rsplit_once(':')
                .map(|(host, _)| host.to_owned())
        }),
        ..tls
    });
    let line = Line {
        channel: channel(&address, tls.as_ref(), As::Core)
            .map_err(|error| failed("a relay in front of the provider", "it runs", error))?,
        ..cx.line()
    };
    cx.remember(&wish);
    let request = cx.request(&wish);
    // The connection first, so that the cut falls into the call.
    let _ = line
        .call(&wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        })
        .await;
    tokio::select! {
        _ = line.call(&request) => {}
        _ = asked(&artifact, cx.run.options.patience) => {}
    }
    let _ = cut.send(true);
    let _ = relay.await;
    asked(&artifact, SOON).await;
    goes_on(
        cx,
        &wish,
        &artifact,
        "EnsureImage whose TCP connection is cut, later EnsureImage again",
    )
    .await
}

pub(crate) async fn en_12(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.transferring(&wish, &artifact).await?;
    cx.restart().await?;
    artifact.release();
    let sent = "a restart during a transfer, then EnsureImage again and again";
    let active = cx.until_active(&wish).await?;
    active_is_complete(&wish, &artifact, &active)?;
    one_object(cx, &wish, sent).await
}

pub(crate) async fn en_13(cx: &Case) -> Verdict {
    for round in 1..=10 {
        let artifact = cx.artifact(SMALL)?;
        // Slow enough for a restart in the middle, fast enough for one at the end.
        artifact.behave(|behaviour| behaviour.rate = Some(2 << 20));
        let wish = cx.wish(&artifact)?.published();
        let pause = Duration::from_millis(rand::rng().random_range(0..400));
        cx.disturb();
        let calls = async {
            loop {
                let _ = cx.ensure(&wish).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            () = calls => {}
            () = tokio::time::sleep(pause) => {}
        }
        cx.restart().await?;
        artifact.release();
        let sent = format!("a restart {pause:?} into a life, round {round}, then EnsureImage");
        cx.until_published(&wish).await?;
        one_object(cx, &wish, &sent).await?;
        cx.deleted(&wish).await?;
    }
    Ok(())
}

/// The calls of one key that follow each other: what overlaps has no order.
fn in_order<'a>(calls: &[&'a Call]) -> Vec<(&'a Call, &'a Call)> {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.started);
    calls
        .windows(2)
        .filter(|pair| pair[0].ended <= pair[1].started)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

/// Calls by installation, target and key.
fn by_image(calls: &[Call]) -> BTreeMap<(String, String, String), Vec<&Call>> {
    let mut images: BTreeMap<_, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if call.subject.key.is_empty() || call.method == "ListImages" {
            continue;
        }
        images
            .entry((
                call.subject.installation.clone(),
                call.subject.target.clone(),
                call.subject.key.clone(),
            ))
            .or_default()
            .push(call);
    }
    images
}

/// What any observation has to hold.
fn observation_is_sound(call: &Call, image: &wire::ImageObservation) -> Verdict {
    let sent = format!("{} in check {}", call.method, call.check);
    let state = state(image);
    let problem = match state {
        State::Unspecified => Some("no state of the contract"),
        State::Absent if call.method != "DeleteImage" => {
            Some("ABSENT, which only DeleteImage answers")
        }
        State::Processing | State::Verifying | State::Active
            if image.provider_image_id.is_empty() =>
        {
            Some("no provider_image_id, which is required from PROCESSING on")
        }
        State::Active if image.verification.is_none() => {
            Some("ACTIVE without a finished verification")
        }
        State::Failed if image.error.is_none() => Some("FAILED without an error"),
        State::Pending | State::Transferring | State::Processing | State::Verifying
            if image.published =>
        {
            Some("published before ACTIVE")
        }
        State::Absent | State::Deleting => None,
        _ if image.attempt < 1 => Some("an attempt of less than 1"),
        _ => None,
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(failed(
            sent,
            "an observation that contract, section 3 allows",
            format!("{problem}: {}", brief(image)),
        )),
    }
}

pub(crate) fn en_16(run: &Run) -> Verdict {
    let calls = run.recorder.calls();
    for call in &calls {
        for image in call.observations() {
            observation_is_sound(call, &image)?;
        }
    }
    // Where the suite meddled with process or backend, anything may have happened in between.
    let disturbed: BTreeSet<_> = calls
        .iter()
        .filter(|call| call.disturbed)
        .map(|call| call.check)
        .collect();
    for calls in by_image(&calls).values() {
        if calls.iter().any(|call| disturbed.contains(call.check)) {
            continue;
        }
        for (before, after) in in_order(calls) {
            let (Some(was), Some(is)) = (
                before.observations().into_iter().next(),
                after.observations().into_iter().next(),
            ) else {
                continue;
            };
            if !may_become(&was, &is, after) {
                return Err(failed(
                    format!(
                        "{} after {} in check {}",
                        after.method, before.method, after.check
                    ),
                    format!("a state that may follow on {}", state_name(state(&was))),
                    format!("{}, before it {}", brief(&is), brief(&was)),
                ));
            }
        }
    }
    Ok(())
}

/// Whether one observation may follow on another when `call` came between them (contract, section 3, transitively).
fn may_become(was: &wire::ImageObservation, is: &wire::ImageObservation, call: &Call) -> bool {
    let (from, to) = (state(was), state(is));
    let wish = call.subject.wish;
    let deletes = call.method == "DeleteImage";
    if deletes {
        return matches!(to, State::Deleting | State::Absent);
    }
    match from {
        // Only EnsureImage brings something out of nothing.
        State::Absent | State::Deleting => wish.is_some() || matches!(to, State::Deleting),
        State::Active => match to {
            State::Active => true,
            State::Verifying | State::Failed | State::Pending => {
                wish.is_some_and(|wish| wish.verifies_again)
            }
            _ => false,
        },
        State::Failed => {
            to == State::Failed || wish.is_some_and(|wish| wish.attempt_floor > was.attempt)
        }
        State::Pending | State::Transferring | State::Processing | State::Verifying => {
            !matches!(to, State::Absent | State::Deleting | State::Unspecified)
                && is.attempt >= was.attempt
        }
        State::Unspecified => true,
    }
}

pub(crate) fn en_17(run: &Run) -> Verdict {
    let calls = run.recorder.calls();
    for call in &calls {
        for image in call.observations() {
            if let Some(progress) = &image.progress {
                expect(
                    progress.bytes_done >= 0
                        && progress.bytes_total >= 0
                        && (progress.bytes_total == 0
                            || progress.bytes_done <= progress.bytes_total),
                    format!("{} in check {}", call.method, call.check),
                    "bytes_done from 0 to bytes_total",
                    brief(&image),
                )?;
            }
        }
    }
    for calls in by_image(&calls).values() {
        for (before, after) in in_order(calls) {
            let (Some(was), Some(is)) = (
                before.observations().into_iter().next(),
                after.observations().into_iter().next(),
            ) else {
                continue;
            };
            let done = |image: &wire::ImageObservation| {
                image
                    .progress
                    .as_ref()
                    .map_or(0, |progress| progress.bytes_done)
            };
            // A process that was restarted counts anew, in the same attempt if it goes on with it.
            let same = was.attempt == is.attempt
                && was.state == is.state
                && !before.disturbed
                && !after.disturbed;
            expect(
                !same || done(&is) >= done(&was),
                format!("{} twice in check {}", after.method, after.check),
                "bytes_done that never shrinks within an attempt and state",
                format!("{}, before it {}", brief(&is), brief(&was)),
            )?;
        }
    }
    Ok(())
}

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

pub(crate) async fn en_24(cx: &Case) -> Verdict {
    let limit = usize::try_from(cx.run.limits().max_concurrent_transfers).unwrap_or(0);
    if limit == 0 {
        return Err(not_applicable("no max_concurrent_transfers is stated"));
    }
    /// More at once would measure this machine.
    const MOST: usize = 64;
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
    let running = |images: &[(Wish, std::sync::Arc<Served>)]| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::recorder::{self, Outcome, Subject};

    fn image(state: State, attempt: i32) -> wire::ImageObservation {
        wire::ImageObservation {
            state: state.into(),
            attempt,
            ..wire::ImageObservation::default()
        }
    }

    fn call(method: &'static str, wish: Option<recorder::Wish>) -> Call {
        Call {
            check: "EN-16",
            method,
            subject: Subject {
                wish,
                ..Subject::default()
            },
            started: Instant::now(),
            ended: Instant::now(),
            disturbed: false,
            outcome: Outcome::NoAnswer,
        }
    }

    #[test]
    fn states_follow_on_each_other_as_the_contract_says() {
        let plain = recorder::Wish {
            attempt_floor: 0,
            verifies_again: false,
        };
        let ensure = call("EnsureImage", Some(plain));
        let raised = call(
            "EnsureImage",
            Some(recorder::Wish {
                attempt_floor: 2,
                ..plain
            }),
        );
        let verify = call(
            "EnsureImage",
            Some(recorder::Wish {
                verifies_again: true,
                ..plain
            }),
        );
        let get = call("GetImage", None);
        let delete = call("DeleteImage", None);
        for (from, to, by, allowed) in [
            (State::Pending, State::Active, &get, true),
            (State::Transferring, State::Pending, &ensure, true),
            (State::Active, State::Transferring, &ensure, false),
            (State::Active, State::Verifying, &ensure, false),
            (State::Active, State::Verifying, &verify, true),
            (State::Active, State::Absent, &get, false),
            (State::Failed, State::Pending, &ensure, false),
            (State::Failed, State::Pending, &raised, true),
            (State::Absent, State::Pending, &get, false),
            (State::Absent, State::Transferring, &ensure, true),
            (State::Active, State::Deleting, &delete, true),
            (State::Active, State::Active, &delete, false),
            (State::Transferring, State::Deleting, &get, false),
        ] {
            assert_eq!(
                may_become(&image(from, 1), &image(to, 1), by),
                allowed,
                "{from:?} {to:?} {}",
                by.method
            );
        }
        assert!(!may_become(
            &image(State::Pending, 2),
            &image(State::Pending, 1),
            &ensure
        ));
    }
}
