//! LI: lists.

use std::collections::BTreeMap;

use proto::wire::{self, ErrorReason as Reason, image_observation::State};

use crate::conformance::{
    case::{Case, SMALL, has_key, refused},
    check::{Verdict, expect, failed},
    run::Where,
    status::{Failure, brief, state},
};

pub(crate) async fn li_01(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::List)?;
    let finished = cx.artifact(SMALL)?;
    let finished = cx.wish(&finished)?;
    cx.until_active(&finished).await?;
    let slow = cx.artifact(SMALL)?;
    let running = cx.wish(&slow)?;
    cx.transferring(&running, &slow).await?;
    let list = cx
        .listed(&finished.installation, &finished.target)
        .await?
        .unwrap_or_default();
    let sent = "ListImages with a finished and a running image";
    let find = |wish| {
        list.iter()
            .find(|image| has_key(image, wish))
            .ok_or_else(|| failed(sent, "both", format!("{} images", list.len())))
    };
    let image = find(&finished)?;
    expect(
        state(image) == State::Active,
        sent,
        "the finished one as ACTIVE",
        brief(image),
    )?;
    let image = find(&running)?;
    expect(
        matches!(
            state(image),
            State::Pending | State::Transferring | State::Processing | State::Verifying
        ),
        sent,
        "the running one in a working state",
        brief(image),
    )?;
    expect(
        list.len() == 2,
        sent,
        "exactly the images of this installation",
        format!("{} images", list.len()),
    )
}

pub(crate) async fn li_02(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::List)?;
    let artifact = cx.artifact(SMALL)?;
    let mut wishes = Vec::new();
    for _ in 0..5 {
        let wish = cx.wish(&artifact)?;
        cx.until_active(&wish).await?;
        wishes.push(wish);
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut page_token = String::new();
    let sent = "ListImages with page_size 1 over 5 images, page after page";
    for _ in 0..20 {
        let response = cx
            .line()
            .call(&wire::ListImagesRequest {
                caller: Some(cx.caller()),
                target: Some(cx.run.target(Where::Good)?),
                page_size: 1,
                page_token,
            })
            .await
            .map_err(|status| failed(sent, "OK", Failure::from(&status)))?;
        expect(
            response.observations.len() <= 1,
            sent,
            "at most one image a page",
            format!("{} images", response.observations.len()),
        )?;
        for image in response.observations {
            let key = image.image_key.unwrap_or_default().key;
            *seen.entry(key).or_default() += 1;
        }
        page_token = response.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    expect(
        page_token.is_empty(),
        sent,
        "a last page with an empty token",
        "20 pages and no end",
    )?;
    expect(
        wishes.len() == seen.len()
            && wishes
                .iter()
                .all(|wish| seen.get(&wish.key.key) == Some(&1)),
        sent,
        "each of the 5 images once",
        format!("{seen:?}"),
    )
}

pub(crate) async fn li_03(cx: &Case) -> Verdict {
    cx.run.needs(wire::Capability::List)?;
    let answer = cx
        .line()
        .call(&wire::ListImagesRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.target(Where::Good)?),
            page_size: 1,
            page_token: "conformance: no token of yours".into(),
        })
        .await;
    refused(
        answer,
        Reason::PageTokenInvalid,
        "ListImages with a token that the provider never gave",
    )
    .map(|_failure| ())
}
