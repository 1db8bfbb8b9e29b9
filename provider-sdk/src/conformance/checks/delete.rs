//! DE: removal.

use std::time::Duration;

use proto::wire::{ErrorReason as Reason, image_observation::State};

use crate::conformance::{
    case::{Case, SMALL, Wish, refused},
    check::{Verdict, expect, failed},
    hooks::Hook,
    status::{Failure, brief, state, state_name},
};

fn sent(wish: &Wish) -> String {
    format!("DeleteImage(key \"{}\")", wish.key.key)
}

/// Not found, not listed.
async fn gone(cx: &Case, wish: &Wish) -> Verdict {
    cx.not_found(wish).await?;
    expect(
        cx.is_listed(wish).await? != Some(true),
        format!("{}, then ListImages", sent(wish)),
        "the key is not listed",
        "it is listed",
    )
}

pub(crate) async fn de_01(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.until_active(&wish).await?;
    cx.deleted(&wish).await?;
    gone(cx, &wish).await
}

pub(crate) async fn de_02(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    match cx.delete(&wish).await {
        Ok(observation) if state(&observation) == State::Absent => Ok(()),
        Ok(observation) => Err(failed(sent(&wish), "OK, ABSENT", brief(&observation))),
        Err(status) => Err(failed(sent(&wish), "OK, ABSENT", Failure::from(&status))),
    }
}

pub(crate) async fn de_03(cx: &Case) -> Verdict {
    for parallel in [false, true] {
        let artifact = cx.artifact(SMALL)?;
        let wish = cx.wish(&artifact)?;
        cx.until_active(&wish).await?;
        let answers = if parallel {
            futures::future::join_all((0..10).map(|_| cx.delete(&wish))).await
        } else {
            let mut answers = Vec::new();
            for _ in 0..10 {
                answers.push(cx.delete(&wish).await);
            }
            answers
        };
        let what = format!(
            "{} ten times {}",
            sent(&wish),
            if parallel { "at once" } else { "in a row" }
        );
        for answer in answers {
            match answer {
                Ok(observation)
                    if matches!(state(&observation), State::Deleting | State::Absent) => {}
                Ok(observation) => {
                    return Err(failed(what, "DELETING or ABSENT", brief(&observation)));
                }
                Err(status) => {
                    let failure = Failure::from(&status);
                    expect(
                        failure.is(Reason::OperationInProgress),
                        &what,
                        "OK or OPERATION_IN_PROGRESS",
                        failure,
                    )?;
                }
            }
        }
        cx.deleted(&wish).await?;
        gone(cx, &wish).await?;
    }
    Ok(())
}

pub(crate) async fn de_04(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?.published();
    cx.transferring(&wish, &artifact).await?;
    let deletion = cx.deleted(&wish);
    let closing = async {
        if cx.run.advertises(proto::wire::Capability::BackendFetch) {
            return Ok(());
        }
        cx.until_open(
            &artifact,
            "the source connection is closed within 10 s of DeleteImage",
            |open| *open == 0,
            Duration::from_secs(10),
        )
        .await
    };
    let (deleted, closed) = tokio::join!(deletion, closing);
    closed?;
    deleted?;
    gone(cx, &wish).await?;
    if cx.run.options.hooks.has(Hook::BackendNames) {
        let left = cx.carriers(&wish.spec.display_name).await?;
        expect(
            left.is_empty(),
            "DeleteImage during a transfer, then the names in the backend",
            "no object left",
            format!("{left:?}"),
        )?;
    }
    Ok(())
}

pub(crate) async fn de_05(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.until_active(&wish).await?;
    cx.deleted(&wish).await?;
    cx.until_active(&wish).await.map(|_observation| ())
}

pub(crate) async fn de_06(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    for round in 0..20_u32 {
        let (answer, legal): (_, &[State]) = if round % 2 == 0 {
            (cx.ensure(&wish).await, &[State::Absent])
        } else {
            (cx.delete(&wish).await, &[State::Deleting, State::Absent])
        };
        let ensures = round % 2 == 0;
        let what = format!("EnsureImage and DeleteImage in turn, call {}", round + 1);
        match answer {
            Ok(observation) => {
                let listed = legal.contains(&state(&observation));
                // EnsureImage never says ABSENT, DeleteImage nothing but DELETING and ABSENT.
                expect(
                    listed != ensures,
                    what,
                    if ensures {
                        "any state but ABSENT"
                    } else {
                        "DELETING or ABSENT"
                    },
                    brief(&observation),
                )?;
            }
            Err(status) => {
                let failure = Failure::from(&status);
                expect(
                    failure.is(Reason::OperationInProgress),
                    what,
                    "OK or OPERATION_IN_PROGRESS",
                    failure,
                )?;
            }
        }
    }
    // Accepted last, each in turn.
    cx.deleted(&wish).await?;
    gone(cx, &wish).await?;
    cx.until_active(&wish).await?;
    cx.deleted(&wish).await?;
    tokio::time::sleep(cx.run.pace() * 3).await;
    gone(cx, &wish).await
}

pub(crate) async fn de_07(cx: &Case) -> Verdict {
    let foreign = cx.loose_file(SMALL)?;
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let id = cx.put_foreign(&wish.spec.display_name, &foreign).await?;
    let untouched = async |when: &str| {
        let carriers = cx.carriers(&wish.spec.display_name).await?;
        expect(
            carriers.contains(&id),
            format!("an object \"{id}\" without marker that carries the display name, then {when}"),
            "it is untouched",
            format!("ids with that name: {carriers:?}"),
        )
    };
    let result = async {
        untouched("nothing").await?;
        // Publishing too is refused, but the work is the image's own.
        match cx.ensure(&wish.clone().published()).await {
            Ok(_) => {
                cx.until_active(&wish).await?;
            }
            Err(status) => {
                let failure = Failure::from(&status);
                expect(
                    failure.is(Reason::ForeignObject),
                    &wish,
                    "FOREIGN_OBJECT, or an image of its own",
                    failure,
                )?;
            }
        }
        untouched("EnsureImage").await?;
        cx.deleted(&wish).await?;
        untouched("DeleteImage").await?;
        // A key that never had an image, whose name somebody else's object carries.
        let other = Wish {
            key: cx.wish(&artifact)?.key,
            ..wish.clone()
        };
        cx.deleted(&other).await?;
        untouched("DeleteImage of another key").await
    }
    .await;
    cx.run
        .hook(Hook::BackendRemove, &[("ID", id.clone())])
        .await?;
    result
}

pub(crate) async fn de_08(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let active = cx.until_active(&wish).await?;
    let id = active.provider_image_id;
    let argument = [("ID", id.clone())];
    cx.run.hook(Hook::BackendUse, &argument).await?;
    let answer = cx.delete(&wish).await;
    let during = match &answer {
        Err(status) if Failure::from(status).is(Reason::ImageInUse) => {
            let observation = cx.get(&wish).await;
            match observation {
                Ok(observation) if state(&observation) == State::Active => Ok(()),
                Ok(observation) => Err(failed(
                    "DeleteImage of an image in use, then GetImage",
                    "ACTIVE",
                    brief(&observation),
                )),
                Err(status) => Err(failed(
                    "DeleteImage of an image in use, then GetImage",
                    "ACTIVE",
                    Failure::from(&status),
                )),
            }
        }
        Ok(observation) if state(observation) == State::Deleting => Ok(()),
        Ok(observation) => Err(failed(
            "DeleteImage of an image in use",
            "IMAGE_IN_USE, or DELETING until it is free",
            state_name(state(observation)),
        )),
        Err(status) => Err(failed(
            "DeleteImage of an image in use",
            "IMAGE_IN_USE, or DELETING until it is free",
            Failure::from(status),
        )),
    };
    if cx.run.options.hooks.has(Hook::BackendFree) {
        cx.run.hook(Hook::BackendFree, &argument).await?;
    }
    during?;
    cx.deleted(&wish).await
}

pub(crate) async fn de_09(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let mut wish = cx.wish(&artifact)?;
    cx.until_active(&wish).await?;
    cx.restart().await?;
    wish.key.spec_digest.clear();
    cx.deleted(&wish).await?;
    gone(cx, &wish).await
}

pub(crate) async fn de_10(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let before = cx.until_active(&wish).await?;
    let mut other = wish.clone();
    other.key.spec_digest = format!("sha256:{}", "0".repeat(64));
    refused(
        cx.delete(&other).await,
        Reason::ImageSpecConflict,
        format!("{} with another spec_digest", sent(&wish)),
    )?;
    let after = cx.got(&wish).await?;
    expect(
        state(&after) == State::Active && after.provider_image_id == before.provider_image_id,
        format!("{} with another spec_digest, then GetImage", sent(&wish)),
        format!("ACTIVE, id \"{}\"", before.provider_image_id),
        brief(&after),
    )
}

pub(crate) async fn de_11(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    for round in 0..5 {
        if round == 2 {
            artifact.behave(|behaviour| behaviour.corrupt = true);
            cx.until_failed(&wish, Reason::DigestMismatch, false)
                .await?;
            artifact.release();
        } else {
            cx.until_active(&wish).await?;
        }
        cx.deleted(&wish).await?;
        cx.not_found(&wish).await?;
    }
    cx.until_active(&wish).await.map(|_observation| ())
}
