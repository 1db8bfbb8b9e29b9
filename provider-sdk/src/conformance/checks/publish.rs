//! PU: names.

use std::time::{Duration, Instant};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};
use rand::Rng as _;

use crate::conformance::{
    case::{Case, SMALL, Wish, working_name},
    check::{Verdict, expect, failed},
    hooks::Hook,
    run::Run,
    status::{brief, failure, state},
};

pub(crate) async fn pu_01(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let active = cx.until_active(&wish).await?;
    expect(
        !active.published,
        &wish,
        "ACTIVE and not published",
        brief(&active),
    )?;
    let fetched = artifact.sent();
    let wish = wish.published();
    let published = cx.until_published(&wish).await?;
    let again = cx.ensured(&wish).await?;
    for observation in [&published, &again] {
        expect(
            state(observation) == State::Active
                && observation.published
                && observation.provider_image_id == active.provider_image_id,
            &wish,
            format!("ACTIVE and published, id \"{}\"", active.provider_image_id),
            brief(observation),
        )?;
    }
    expect(
        artifact.sent() == fetched,
        &wish,
        "no bytes fetched",
        artifact.counts(),
    )
}

/// Two images that want one name, both ACTIVE and with other bytes.
async fn two(cx: &Case) -> Verdict<[Wish; 2]> {
    let first = cx.wish(&*cx.artifact(SMALL)?)?;
    let mut second = cx.wish(&*cx.artifact(SMALL)?)?;
    second
        .spec
        .display_name
        .clone_from(&first.spec.display_name);
    cx.until_active(&first).await?;
    cx.until_active(&second).await?;
    Ok([first, second])
}

/// Whether each is published, as GetImage says.
async fn published(cx: &Case, wishes: &[Wish; 2]) -> Verdict<[bool; 2]> {
    let first = cx.got(&wishes[0]).await?;
    let second = cx.got(&wishes[1]).await?;
    for observation in [&first, &second] {
        expect(
            state(observation) == State::Active,
            "GetImage of two images that want one name",
            "both ACTIVE",
            brief(observation),
        )?;
    }
    Ok([first.published, second.published])
}

/// Publishes the second while somebody looks at both: never two.
async fn publish_watched(cx: &Case, wishes: &[Wish; 2], wanted: usize) -> Verdict {
    let wish = wishes[wanted].clone().published();
    let publishing = cx.until_published(&wish);
    let watching = async {
        loop {
            // The one that loses the name is asked first: what is seen second is newer, so seeing both is seeing two at once
            // or the order the wrong way round.
            let loser = cx.get(&wishes[1 - wanted]).await;
            let winner = cx.get(&wishes[wanted]).await;
            let loser_again = cx.get(&wishes[1 - wanted]).await;
            let all = [loser, winner, loser_again];
            if all
                .iter()
                .all(|answer| answer.as_ref().is_ok_and(|image| image.published))
            {
                return failed(
                    "GetImage of two images that want one name, while the second is published",
                    "at no moment two published",
                    "two published",
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        result = publishing => result.map(|_observation| ()),
        stop = watching => Err(stop),
    }
}

pub(crate) async fn pu_02(cx: &Case) -> Verdict {
    let wishes = two(cx).await?;
    let ids = [
        cx.got(&wishes[0]).await?.provider_image_id,
        cx.got(&wishes[1]).await?.provider_image_id,
    ];
    cx.until_published(&wishes[0].clone().published()).await?;
    publish_watched(cx, &wishes, 1).await?;
    let now = published(cx, &wishes).await?;
    expect(
        now == [false, true],
        "EnsureImage(publish) of the first, then of the second image with one name",
        "only the second published",
        format!("published: first {}, second {}", now[0], now[1]),
    )?;
    let after = [
        cx.got(&wishes[0]).await?.provider_image_id,
        cx.got(&wishes[1]).await?.provider_image_id,
    ];
    expect(
        ids == after,
        "publication of another image under the name",
        format!("unchanged ids {ids:?}"),
        format!("{after:?}"),
    )
}

pub(crate) async fn pu_03(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?.published();
    cx.until_published(&wish).await?;
    let without = wish.clone().unpublished();
    for _ in 0..3 {
        let observation = cx.ensured(&without).await?;
        expect(
            observation.published && state(&observation) == State::Active,
            &without,
            "still ACTIVE and published",
            brief(&observation),
        )?;
    }
    let observation = cx.got(&wish).await?;
    expect(
        observation.published,
        format!("{without}, then GetImage"),
        "still published",
        brief(&observation),
    )
}

/// Published means ACTIVE, in every answer of the check.
fn never_early(run: &Run, check: &str, wish: &Wish) -> Verdict {
    for call in run.recorder.calls() {
        if call.check != check || call.subject.key != wish.key.key {
            continue;
        }
        for observation in call.observations() {
            expect(
                !observation.published || state(&observation) == State::Active,
                format!("{} with publish from the first call", call.method),
                "not published before ACTIVE",
                brief(&observation),
            )?;
        }
    }
    Ok(())
}

pub(crate) async fn pu_04(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?.published();
    cx.transferring(&wish, &artifact).await?;
    let during = cx.ensured(&wish).await?;
    expect(
        !during.published,
        &wish,
        "not published during the transfer",
        brief(&during),
    )?;
    if cx.run.options.hooks.has(Hook::BackendNames) {
        let carriers = cx.carriers(&wish.spec.display_name).await?;
        expect(
            carriers.is_empty(),
            format!("{wish}, then the names in the backend during the transfer"),
            "no object with the display name",
            format!("{carriers:?}"),
        )?;
    }
    artifact.release();
    cx.until_published(&wish).await?;
    never_early(&cx.run, cx.id, &wish)?;

    let artifact = cx.artifact(SMALL)?;
    artifact.behave(|behaviour| behaviour.corrupt = true);
    let wish = cx.wish(&artifact)?.published();
    cx.until_failed(&wish, Reason::DigestMismatch, false)
        .await?;
    never_early(&cx.run, cx.id, &wish)?;
    if cx.run.options.hooks.has(Hook::BackendNames) {
        let carriers = cx.carriers(&wish.spec.display_name).await?;
        expect(
            carriers.is_empty(),
            format!("{wish} with wrong bytes, then the names in the backend"),
            "no object with the display name",
            format!("{carriers:?}"),
        )?;
    }
    Ok(())
}

pub(crate) async fn pu_05(cx: &Case) -> Verdict {
    let wishes = two(cx).await?;
    for round in 0..5 {
        for wanted in [0, 1] {
            cx.until_published(&wishes[wanted].clone().published())
                .await?;
            let now = published(cx, &wishes).await?;
            expect(
                now[wanted] && !now[1 - wanted],
                format!("publication of both in turn, round {}", round + 1),
                "exactly the last one published",
                format!("published: {now:?}, wanted number {wanted}"),
            )?;
        }
    }
    Ok(())
}

pub(crate) async fn pu_06(cx: &Case) -> Verdict {
    let wishes = two(cx).await?;
    let name = wishes[0].spec.display_name.clone();
    let turns = async {
        for _ in 0..5 {
            for wish in &wishes {
                cx.until_published(&wish.clone().published()).await?;
            }
        }
        Ok(())
    };
    let watching = async {
        loop {
            match cx.carriers(&name).await {
                Ok(carriers) if carriers.len() > 1 => {
                    return failed(
                        "names in the backend while two images are published in turn",
                        "never two objects with the display name",
                        format!("{carriers:?}"),
                    );
                }
                Ok(_) => tokio::time::sleep(Duration::from_millis(2)).await,
                Err(stop) => return stop,
            }
        }
    };
    tokio::select! {
        result = turns => result,
        stop = watching => Err(stop),
    }?;
    let names = cx.backend_names().await?;
    // Where names are tags of container images, a working name cannot be written: there is none, or what the provider makes of it.
    let tags = cx.run.format()?.format == wire::DiskFormat::Container;
    for (wish, published) in [(&wishes[0], false), (&wishes[1], true)] {
        let id = cx.got(wish).await?.provider_image_id;
        let carried: Vec<_> = names
            .iter()
            .filter(|(known, _)| *known == id)
            .map(|(_, name)| name.as_str())
            .collect();
        let (good, wanted) = if published {
            (carried.contains(&name.as_str()), name.clone())
        } else {
            let working = working_name(wish);
            let good =
                carried.contains(&working.as_str()) || (tags && !carried.contains(&name.as_str()));
            (good, working)
        };
        expect(
            good,
            format!("names in the backend of the object \"{id}\""),
            format!("\"{wanted}\""),
            format!("{carried:?}"),
        )?;
    }
    Ok(())
}

pub(crate) async fn pu_07(cx: &Case) -> Verdict {
    let wishes = two(cx).await?;
    for round in 0..10_usize {
        let wanted = round % 2;
        let wish = wishes[wanted].clone().published();
        cx.disturb();
        let pause = Duration::from_millis(rand::rng().random_range(0..100));
        let calls = async {
            loop {
                let _ = cx.ensure(&wish).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            () = calls => {}
            () = tokio::time::sleep(pause) => {}
        }
        cx.restart().await?;
        cx.until_published(&wish).await?;
        let now = published(cx, &wishes).await?;
        expect(
            now[wanted] && !now[1 - wanted],
            format!("a restart {pause:?} into a publication, then EnsureImage"),
            "exactly the wanted one published",
            format!("published: {now:?}, wanted number {wanted}"),
        )?;
    }
    Ok(())
}

/// ACTIVE, not published, because of somebody else's object.
pub(crate) async fn blocked(cx: &Case, wish: &Wish) -> Verdict<wire::ImageObservation> {
    cx.until(
        wish,
        "ACTIVE, not published, error FOREIGN_OBJECT",
        |image| {
            state(image) == State::Active
                && !image.published
                && failure(image).is_some_and(|failure| failure.is(Reason::ForeignObject))
        },
    )
    .await
}

pub(crate) async fn pu_08(cx: &Case) -> Verdict {
    let foreign = cx.loose_file(SMALL)?;
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?.published();
    let name = wish.spec.display_name.clone();
    let id = cx.put_foreign(&name, &foreign).await?;
    let result = async {
        blocked(cx, &wish).await?;
        // It stays so: a moment of both would be one too many.
        for _ in 0..3 {
            blocked(cx, &wish).await?;
            let carriers = cx.carriers(&name).await?;
            expect(
                carriers == [id.clone()],
                "an object without marker that carries the display name, EnsureImage(publish)",
                format!("the foreign object \"{id}\" alone carries the name"),
                format!("{carriers:?}"),
            )?;
        }
        Ok(())
    }
    .await;
    cx.run.hook(Hook::BackendRemove, &[("ID", id)]).await?;
    result?;
    cx.until_published(&wish).await.map(|_observation| ())
}

pub(crate) async fn pu_09(cx: &Case) -> Verdict {
    let first = cx.wish(&*cx.artifact(SMALL)?)?.published();
    let mut second = cx.wish(&*cx.artifact(SMALL)?)?.published();
    second.installation.push_str("-other");
    second
        .spec
        .display_name
        .clone_from(&first.spec.display_name);
    cx.until_published(&first).await?;
    blocked(cx, &second).await?;
    let observation = cx.got(&first).await?;
    expect(
        observation.published && state(&observation) == State::Active,
        "the name of another installation's published image, EnsureImage(publish)",
        "the first one keeps it",
        brief(&observation),
    )
}

pub(crate) async fn pu_10(cx: &Case) -> Verdict {
    let wishes = two(cx).await?;
    cx.until_published(&wishes[1].clone().published()).await?;
    cx.deleted(&wishes[1]).await?;
    let until = Instant::now() + cx.run.pace() * 5;
    while Instant::now() < until {
        let observation = cx.ensured(&wishes[0]).await?;
        expect(
            !observation.published,
            "DeleteImage of the published image, then EnsureImage(publish false) of the other",
            "the other one is not published",
            brief(&observation),
        )?;
        tokio::time::sleep(cx.run.pace()).await;
    }
    cx.until_published(&wishes[0].clone().published())
        .await
        .map(|_observation| ())
}
