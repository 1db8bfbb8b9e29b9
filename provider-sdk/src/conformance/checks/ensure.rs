//! EN: the one call that starts work, again and again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};
use rand::Rng as _;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, net::TcpStream, sync::watch};

use crate::conformance::{
    artifacts::{Offer, Served, Via},
    case::{Case, SMALL, Wish, has_key, refused},
    check::{Verdict, expect, failed},
    client::{As, Deadline, Line, channel},
    hooks::Hook,
    options::{Level, Tls},
    sample::Kind,
    status::{Failure, brief, state},
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

pub(crate) fn one_download(sent: impl std::fmt::Display, served: &Served) -> Verdict {
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
