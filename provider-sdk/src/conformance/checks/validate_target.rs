//! VT: targets.

use std::time::Instant;

use proto::wire::{self, ErrorReason as Reason};
use tonic::Status;

use crate::conformance::{
    artifacts::Offer,
    case::{Case, SMALL, refused},
    check::{Verdict, expect, failed},
    checks::identity::needs_secrets,
    run::Where,
    status::Failure,
};

async fn validate(
    cx: &Case,
    which: Where,
    spec: Option<wire::ImageSpec>,
) -> Verdict<Result<wire::ValidateTargetResponse, Status>> {
    Ok(cx
        .line()
        .call(&wire::ValidateTargetRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.placeless(which)?),
            spec,
        })
        .await)
}

pub(crate) async fn works(
    cx: &Case,
    which: Where,
    spec: Option<wire::ImageSpec>,
) -> Verdict<wire::ValidateTargetResponse> {
    validate(cx, which, spec).await?.map_err(|status| {
        failed(
            format!("ValidateTarget({which:?})"),
            "OK within 15 s",
            Failure::from(&status),
        )
    })
}

pub(crate) async fn vt_01(cx: &Case) -> Verdict {
    let first = works(cx, Where::Good, None).await?;
    let second = works(cx, Where::Good, None).await?;
    let sent = "ValidateTarget(good) twice";
    expect(
        (1..=512).contains(&first.target_identity.chars().count()),
        sent,
        "target_identity of 1 to 512 characters",
        format!("\"{}\"", first.target_identity),
    )?;
    expect(
        first.target_identity == second.target_identity,
        sent,
        format!("target_identity \"{}\" both times", first.target_identity),
        format!("\"{}\"", second.target_identity),
    )
}

pub(crate) async fn vt_02(cx: &Case) -> Verdict {
    needs_secrets(cx)?;
    let answer = validate(cx, Where::WrongCredentials, None).await?;
    refused(
        answer,
        Reason::BackendAuthFailed,
        "ValidateTarget(wrongCredentials)",
    )
    .map(|_failure| ())
}

pub(crate) async fn vt_03(cx: &Case) -> Verdict {
    for which in [Where::Refusing, Where::Silent] {
        let started = Instant::now();
        let answer = validate(cx, which, None).await?;
        refused(
            answer,
            Reason::BackendUnavailable,
            format!(
                "ValidateTarget({which:?}), answered after {:?}",
                started.elapsed()
            ),
        )?;
    }
    Ok(())
}

pub(crate) async fn vt_04(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    works(cx, Where::Good, Some(wish.spec.clone())).await?;
    expect(
        artifact.sent() == 0,
        "ValidateTarget(good) with a spec",
        "no image bytes fetched",
        artifact.counts(),
    )?;
    let listed = cx.listed(&wish.installation, &wish.target).await?;
    expect(
        listed.as_ref().is_none_or(Vec::is_empty),
        "ValidateTarget(good) with a spec, then ListImages",
        "no image made",
        format!("{} images", listed.map_or(0, |list| list.len())),
    )
}

pub(crate) async fn vt_05(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let mut wish = cx.wish_for(&artifact, &Offer::default())?;
    wish.spec.display_name.clear();
    let sent = "ValidateTarget with a spec without display_name, and EnsureImage with it";
    let validated = validate(cx, Where::Good, Some(wish.spec.clone())).await?;
    let ensured = cx.ensure(&wish).await;
    match (validated, ensured) {
        (Err(validated), Err(ensured)) => {
            let (validated, ensured) = (Failure::from(&validated), Failure::from(&ensured));
            expect(
                validated.code == ensured.code && validated.reason() == ensured.reason(),
                sent,
                format!("the same code and reason: {ensured}"),
                validated,
            )
        }
        (validated, ensured) => Err(failed(
            sent,
            "the same refusal",
            format!(
                "ValidateTarget {}, EnsureImage {}",
                if validated.is_ok() { "OK" } else { "refused" },
                if ensured.is_ok() { "OK" } else { "refused" }
            ),
        )),
    }
}

pub(crate) async fn vt_06(cx: &Case) -> Verdict {
    // What the run was not given must be known before anything is restarted.
    let with_others = (!cx.run.info.secret_keys.is_empty()).then_some(Where::OtherCredentials);
    if let Some(others) = with_others {
        cx.run.placeless(others)?;
    }
    cx.run.placeless(Where::Elsewhere)?;
    let before = works(cx, Where::Good, None).await?.target_identity;
    cx.restart().await?;
    let after = works(cx, Where::Good, None).await?.target_identity;
    expect(
        before == after,
        "ValidateTarget(good) before and after a restart",
        format!("target_identity \"{before}\" both times"),
        format!("\"{after}\""),
    )?;
    if let Some(others) = with_others {
        let other = works(cx, others, None).await?.target_identity;
        expect(
            before == other,
            "ValidateTarget(otherCredentials), the same place",
            format!("target_identity \"{before}\""),
            format!("\"{other}\""),
        )?;
    }
    let elsewhere = works(cx, Where::Elsewhere, None).await?.target_identity;
    expect(
        before != elsewhere,
        "ValidateTarget(elsewhere)",
        "another target_identity",
        format!("\"{elsewhere}\", as at the good target"),
    )
}
