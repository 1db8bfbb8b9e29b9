//! AD: taking over what is there already.

use proto::wire::{self, AdoptPolicy, ErrorReason as Reason, image_observation::State};

use crate::conformance::{
    artifacts::Served,
    case::{Case, SMALL, Wish, refused},
    check::{Verdict, expect},
    checks::publish::blocked,
    hooks::Hook,
    status::{brief, state},
};

fn matching(wish: Wish) -> Wish {
    wish.published()
        .with_policy(|policy| policy.adopt = AdoptPolicy::Matching.into())
}

type Change = fn(Wish) -> Wish;

async fn remove(cx: &Case, id: &str) -> Verdict {
    cx.run
        .hook(Hook::BackendRemove, &[("ID", id.to_owned())])
        .await
        .map(|_printed| ())
}

pub(crate) async fn ad_01(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::Adopt)?;
    let artifact = cx.file(SMALL)?;
    let wish = matching(cx.wish(&artifact)?);
    let id = cx.put_foreign(&wish.spec.display_name, &artifact).await?;
    let result = adopted(cx, &wish, &artifact, &id).await;
    if result.is_err() {
        remove(cx, &id).await?;
    }
    result
}

async fn adopted(cx: &Case, wish: &Wish, artifact: &Served, id: &str) -> Verdict {
    let observation = cx.until_published(wish).await?;
    let sent = "an object without marker with the same bytes and name, EnsureImage(MATCHING)";
    expect(
        observation.provider_image_id == id,
        sent,
        format!("ACTIVE, published, id \"{id}\""),
        brief(&observation),
    )?;
    expect(
        artifact.sent() == 0,
        sent,
        "no bytes fetched",
        artifact.counts(),
    )
}

pub(crate) async fn ad_02(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::Adopt)?;
    let plain = |wish: Wish| wish;
    let no_digest = |wish: Wish| {
        wish.with_artifact(|artifact| {
            artifact.digest.clear();
            artifact.uncompressed_digest.clear();
        })
    };
    let never = |wish: Wish| wish.with_policy(|policy| policy.adopt = AdoptPolicy::Never.into());
    let cases: [(&str, usize, usize, bool, Change); 5] = [
        ("other bytes", SMALL, 1, false, plain),
        ("another size", SMALL * 2, 1, false, plain),
        ("two candidates", SMALL, 2, true, plain),
        ("a spec without digest", SMALL, 1, true, no_digest),
        ("adopt NEVER", SMALL, 1, true, never),
    ];
    for (what, size, count, same, change) in cases {
        let artifact = cx.file(SMALL)?;
        let there = if same {
            artifact.clone()
        } else {
            cx.file(size)?
        };
        let wish = change(matching(cx.wish(&artifact)?));
        let name = wish.spec.display_name.clone();
        let mut ids = Vec::new();
        for _ in 0..count {
            ids.push(cx.put_foreign(&name, &there).await?);
        }
        ids.sort();
        let result = left_alone(cx, &wish, what, &ids).await;
        for id in &ids {
            remove(cx, id).await?;
        }
        result?;
    }
    Ok(())
}

async fn left_alone(cx: &Case, wish: &Wish, what: &str, ids: &[String]) -> Verdict {
    let sent = format!("an object without marker that carries the name, {what}, EnsureImage");
    let observation = blocked(cx, wish).await?;
    expect(
        !ids.contains(&observation.provider_image_id),
        &sent,
        "an image of its own, not published, FOREIGN_OBJECT",
        brief(&observation),
    )?;
    let mut carriers = cx.carriers(&wish.spec.display_name).await?;
    carriers.sort();
    carriers.dedup();
    expect(
        carriers == ids,
        sent,
        format!("the foreign objects {ids:?} untouched"),
        format!("{carriers:?}"),
    )
}

pub(crate) async fn ad_03(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::Adopt)?;
    let artifact = cx.file(SMALL)?;
    let wish = matching(cx.wish(&artifact)?);
    let name = wish.spec.display_name.clone();
    let id = cx.put_foreign(&name, &artifact).await?;
    if let Err(stop) = adopted(cx, &wish, &artifact, &id).await {
        remove(cx, &id).await?;
        return Err(stop);
    }
    cx.deleted(&wish).await?;
    let carriers = cx.carriers(&name).await?;
    expect(
        carriers.is_empty(),
        "DeleteImage of an adopted image",
        "it is gone",
        format!("{carriers:?}"),
    )?;
    let again = cx.until_active(&wish).await?;
    expect(
        artifact.sent() > 0,
        "EnsureImage after DeleteImage of an adopted image",
        "a new image, from the source",
        format!("{}; {}", brief(&again), artifact.counts()),
    )
}

pub(crate) async fn ad_04(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::Adopt)?;
    let artifact = cx.artifact(SMALL)?;
    let first = cx.wish(&artifact)?.published();
    let theirs = cx.until_published(&first).await?;
    let mut second = matching(Wish {
        key: cx.wish(&artifact)?.key,
        ..first.clone()
    });
    second.installation.push_str("-other");
    let ours = blocked(cx, &second).await?;
    let sent =
        "the name is another installation's image with the same bytes, EnsureImage(MATCHING)";
    // Equal bytes may have equal ids where the id is a digest; the marker is what counts.
    let still = cx.got(&first).await?;
    expect(
        still.published
            && state(&still) == State::Active
            && still.provider_image_id == theirs.provider_image_id,
        sent,
        "not adopted: the first installation's image stays as it is",
        format!("{}; the second one: {}", brief(&still), brief(&ours)),
    )?;
    cx.deleted(&second).await?;
    let still = cx.got(&first).await?;
    expect(
        still.published && state(&still) == State::Active,
        format!("{sent}, then DeleteImage of the second"),
        "the first installation's image stays",
        brief(&still),
    )
}

pub(crate) async fn ad_05(cx: &Case) -> Verdict {
    if cx.run.advertises(wire::Capability::Adopt) {
        return Err(crate::conformance::check::not_applicable(
            "CAPABILITY_ADOPT is advertised",
        ));
    }
    let artifact = cx.artifact(SMALL)?;
    let wish = matching(cx.wish(&artifact)?);
    refused(
        cx.ensure(&wish).await,
        Reason::InvalidField,
        "EnsureImage(MATCHING) where ADOPT is not advertised",
    )
    .map(|_failure| ())
}
