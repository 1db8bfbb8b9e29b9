//! GE: reading.

use proto::wire;

use crate::conformance::{
    case::{Case, SMALL},
    check::{Verdict, expect},
    hooks::Hook,
    status::brief,
};

pub(crate) async fn ge_01(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    cx.not_found(&cx.wish(&artifact)?).await
}

pub(crate) async fn ge_02(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.not_found(&wish).await?;
    nothing_there(cx, &wish).await?;
    // A deleted image is as unknown as one that never was, even to a provider that remembers its spec.
    cx.until_active(&wish).await?;
    cx.deleted(&wish).await?;
    let fetched = artifact.sent();
    cx.not_found(&wish).await?;
    tokio::time::sleep(cx.run.pace() * 3).await;
    nothing_there(cx, &wish).await?;
    expect(
        artifact.sent() == fetched,
        "GetImage after DeleteImage",
        "nothing fetched",
        artifact.counts(),
    )
}

async fn nothing_there(cx: &Case, wish: &crate::conformance::case::Wish) -> Verdict {
    expect(
        cx.is_listed(wish).await? != Some(true),
        "GetImage of an unknown key, then ListImages",
        "nothing created",
        "the key is listed",
    )?;
    cx.not_found(wish).await
}

pub(crate) async fn ge_03(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.until_active(&wish).await?;
    let ensured = cx.ensured(&wish).await?;
    let got = cx.got(&wish).await?;
    // Nothing is left to call for.
    let plain = |observation: &wire::ImageObservation| wire::ImageObservation {
        next_call_delay: None,
        ..observation.clone()
    };
    expect(
        plain(&ensured) == plain(&got),
        "EnsureImage and GetImage of an ACTIVE image",
        format!("equal observations: {}", brief(&ensured)),
        format!("{}; in full {ensured:?} and {got:?}", brief(&got)),
    )
}

pub(crate) async fn ge_04(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let first = cx.until_active(&wish).await?;
    cx.disturb();
    cx.run
        .hook(
            Hook::BackendRemove,
            &[("ID", first.provider_image_id.clone())],
        )
        .await?;
    cx.not_found(&wish).await?;
    let again = cx.until_active(&wish).await?;
    expect(
        artifact.downloads() >= 2
            || artifact.content.kind() == crate::conformance::sample::Kind::Oci,
        "EnsureImage after the object vanished from the backend",
        "the image is made again",
        format!("{}; {}", brief(&again), artifact.counts()),
    )
}
