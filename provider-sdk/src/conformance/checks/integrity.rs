//! IN: the right bytes, or none.

use std::time::Instant;

use proto::wire::{self, ErrorReason as Reason, VerificationLevel, image_observation::State};

use crate::conformance::{
    artifacts::{Auth, Content, Offer, Place, Via},
    case::{Case, SMALL, Wish, has_key, refused, seconds_from_now},
    check::{Verdict, expect, failed, missing, not_applicable},
    hooks::Hook,
    sample::Kind,
    status::{Failure, brief, failure, state},
};

/// Nothing that anybody could take for the image.
async fn nothing_usable(cx: &Case, wish: &Wish, what: &str) -> Verdict {
    let sent = format!("{wish}, {what}");
    match cx.get(wish).await {
        Ok(image) => expect(
            state(&image) == State::Failed && !image.published,
            format!("{sent}, then GetImage"),
            "FAILED and not published, or IMAGE_NOT_FOUND",
            brief(&image),
        )?,
        Err(status) => {
            let failure = Failure::from(&status);
            expect(
                failure.is(Reason::ImageNotFound),
                format!("{sent}, then GetImage"),
                "FAILED and not published, or IMAGE_NOT_FOUND",
                failure,
            )?;
        }
    }
    if let Some(list) = cx.listed(&wish.installation, &wish.target).await? {
        let active = list
            .iter()
            .find(|image| has_key(image, wish) && state(image) == State::Active);
        expect(
            active.is_none(),
            format!("{sent}, then ListImages"),
            "no ACTIVE image",
            active.map(brief).unwrap_or_default(),
        )?;
    }
    if cx.run.options.hooks.has(Hook::BackendNames) {
        let carriers = cx.carriers(&wish.spec.display_name).await?;
        expect(
            carriers.is_empty(),
            format!("{sent}, then the names in the backend"),
            "no object with the display name",
            format!("{carriers:?}"),
        )?;
    }
    Ok(())
}

pub(crate) async fn in_01(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    artifact.behave(|behaviour| behaviour.corrupt = true);
    let wish = cx.wish(&artifact)?.published();
    cx.until_failed(&wish, Reason::DigestMismatch, false)
        .await?;
    nothing_usable(cx, &wish, "served bytes that differ from the digest").await?;
    let early = cx
        .run
        .recorder
        .calls()
        .iter()
        .filter(|call| call.check == cx.id)
        .flat_map(crate::conformance::recorder::Call::observations)
        .find(|image| state(image) == State::Active);
    expect(
        early.is_none(),
        format!("{wish}, served bytes that differ from the digest"),
        "never ACTIVE",
        early.as_ref().map(brief).unwrap_or_default(),
    )
}

pub(crate) async fn in_02(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    artifact.behave(|behaviour| behaviour.cut_at = Some(artifact.size() / 2));
    let wish = cx.wish(&artifact)?;
    let sent = format!("{wish}, the body cut short");
    let until = Instant::now() + cx.run.options.patience;
    // Until it was cut, and one look more at what is said about it.
    let mut looks = 0;
    while looks < 3 {
        let image = cx.ensured(&wish).await?;
        expect(
            !matches!(state(&image), State::Active | State::Failed),
            &sent,
            "a working state: the next attempt may succeed",
            brief(&image),
        )?;
        if let Some(failure) = failure(&image) {
            expect(
                failure.is(Reason::SourceUnavailable) || failure.is(Reason::TransferStalled),
                &sent,
                "a retryable error: SOURCE_UNAVAILABLE or TRANSFER_STALLED",
                failure,
            )?;
        }
        if artifact.sent() >= artifact.size() / 2 {
            looks += 1;
        }
        expect(
            Instant::now() < until,
            &sent,
            "the source is asked for bytes",
            artifact.counts(),
        )?;
        tokio::time::sleep(cx.run.pace()).await;
    }
    artifact.release();
    cx.until_active(&wish).await.map(|_observation| ())
}

pub(crate) async fn in_03(cx: &Case) -> Verdict {
    for with_digest in [true, false] {
        let artifact = cx.file(SMALL)?;
        let wish = cx.wish(&artifact)?.with_artifact(|artifact| {
            artifact.size_bytes += 1;
            if !with_digest {
                artifact.digest.clear();
            }
        });
        cx.until_failed(&wish, Reason::SizeMismatch, false).await?;
        nothing_usable(cx, &wish, "a size_bytes that is too large by one").await?;
    }
    Ok(())
}

pub(crate) async fn in_04(cx: &Case) -> Verdict {
    for status in [404, 500] {
        let artifact = cx.file(SMALL)?;
        let offer = Offer {
            urls: Some(vec![
                artifact.url(Via::Status(status)),
                artifact.url(Via::Mirror(2)),
            ]),
            ..Offer::default()
        };
        cx.until_active(&cx.wish_for(&artifact, &offer)?).await?;
    }
    Ok(())
}

/// The reason, as a status or in an observation of work that has not succeeded.
async fn until_said(cx: &Case, wish: &Wish, reasons: &[Reason], what: &str) -> Verdict {
    let sent = format!("{wish}, {what}");
    let expected = reasons
        .iter()
        .map(|reason| crate::conformance::status::reason_name(*reason))
        .collect::<Vec<_>>()
        .join(" or ");
    let until = Instant::now() + cx.run.options.patience;
    loop {
        let came = match cx.ensure(wish).await {
            Ok(image) => {
                expect(
                    state(&image) != State::Active,
                    &sent,
                    format!("{expected}, not ACTIVE"),
                    brief(&image),
                )?;
                let said = failure(&image);
                if said
                    .as_ref()
                    .is_some_and(|said| reasons.iter().any(|reason| said.is(*reason)))
                {
                    return Ok(());
                }
                // Work that is given up says nothing else any more.
                expect(
                    state(&image) != State::Failed,
                    &sent,
                    &expected,
                    brief(&image),
                )?;
                brief(&image)
            }
            Err(status) => {
                let said = Failure::from(&status);
                if reasons.iter().any(|reason| said.is(*reason)) {
                    return Ok(());
                }
                expect(said.passes_by_itself(), &sent, &expected, &said)?;
                said.to_string()
            }
        };
        expect(Instant::now() < until, &sent, &expected, came)?;
        tokio::time::sleep(cx.run.pace()).await;
    }
}

pub(crate) async fn in_05(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = if artifact.content.kind() == Kind::Http {
        let urls = vec![
            artifact.url(Via::Status(404)),
            artifact.url(Via::Status(404)),
        ];
        let offer = Offer {
            urls: Some(urls),
            ..Offer::default()
        };
        cx.wish_for(&artifact, &offer)?
    } else {
        artifact.behave(|behaviour| behaviour.status = Some(404));
        cx.wish(&artifact)?
    };
    until_said(
        cx,
        &wish,
        &[Reason::SourceNotFound],
        "all mirrors answer 404",
    )
    .await
}

fn auth(cx: &Case) -> Auth {
    Auth {
        user: "conformance".into(),
        password: cx.run.canaries.word().to_owned(),
    }
}

/// Whether the provider may and does refuse what its backend cannot be given (contract, section 2).
async fn backend_takes_none(cx: &Case, wish: &Wish) -> Verdict<bool> {
    if !cx.run.advertises(wire::Capability::BackendFetch) {
        return Ok(false);
    }
    Ok(match cx.ensure(wish).await {
        Err(status) => Failure::from(&status).is(Reason::UnsupportedArtifact),
        Ok(image) => failure(&image).is_some_and(|failure| failure.is(Reason::UnsupportedArtifact)),
    })
}

pub(crate) async fn in_06(cx: &Case) -> Verdict {
    let right = auth(cx);
    let wrong = Auth {
        password: format!("{}-wrong", right.password),
        ..right.clone()
    };
    let wish_with = |auth: &Auth| {
        let artifact = cx.artifact(SMALL)?;
        artifact.behave(|behaviour| behaviour.auth = Some(right.clone()));
        let offer = Offer {
            source_secrets: auth.secrets(),
            ..Offer::default()
        };
        cx.wish_for(&artifact, &offer)
    };
    let (good, bad) = (wish_with(&right)?, wish_with(&wrong)?);
    if backend_takes_none(cx, &good).await? {
        return until_said(
            cx,
            &bad,
            &[Reason::UnsupportedArtifact],
            "wrong credentials for the source",
        )
        .await;
    }
    cx.until_active(&good).await?;
    until_said(
        cx,
        &bad,
        &[Reason::SourceDenied],
        "wrong credentials for the source",
    )
    .await
}

pub(crate) async fn in_07(cx: &Case) -> Verdict {
    let artifact = cx.file(SMALL)?;
    let auth = auth(cx);
    artifact.behave(|behaviour| behaviour.auth = Some(auth.clone()));
    let offer = Offer {
        urls: Some(vec![artifact.url(Via::Redirect)]),
        source_secrets: auth.secrets(),
        ..Offer::default()
    };
    let wish = cx.wish_for(&artifact, &offer)?;
    if backend_takes_none(cx, &wish).await? {
        return Ok(());
    }
    let result = cx.until_active(&wish).await;
    let sent = format!("{wish} with credentials, redirected to a second host");
    for hit in artifact.hits() {
        if hit.place == Place::Second {
            let leak = hit.header("authorization").is_some()
                || hit
                    .headers
                    .iter()
                    .any(|(_, value)| cx.run.canaries.find(value.as_bytes()).is_some());
            expect(
                !leak,
                &sent,
                "no Authorization header at the second host",
                format!("{} {} with the credentials", hit.method, hit.path),
            )?;
        }
    }
    result.map(|_observation| ())
}

pub(crate) async fn in_08(cx: &Case) -> Verdict {
    let format = cx.run.http_format()?;
    let packed = || {
        cx.content(format, SMALL)?
            .gzipped()
            .ok_or_else(|| not_applicable("the artifact cannot be compressed"))
    };
    let inner = packed()?;
    let digest = inner.uncompressed_digest.clone();
    let artifact = cx.serve(inner);
    let good = cx
        .wish(&artifact)?
        .with_artifact(|artifact| artifact.uncompressed_digest = digest);
    match cx.ensure(&good).await {
        Err(status) if Failure::from(&status).is(Reason::UnsupportedArtifact) => {
            return Err(not_applicable("gzip is not supported"));
        }
        _ => {
            cx.until_active(&good).await?;
        }
    }
    let artifact = cx.serve(packed()?);
    let wrong = cx.wish(&artifact)?.with_artifact(|artifact| {
        artifact.uncompressed_digest = format!("sha256:{}", "0".repeat(64));
    });
    cx.until_failed(&wrong, Reason::DigestMismatch, false)
        .await?;
    nothing_usable(cx, &wrong, "a wrong digest of what is inside").await
}

/// More would measure this machine's processor.
const LARGEST_EXPANSION: i64 = 16 << 30;

pub(crate) async fn in_09(cx: &Case) -> Verdict {
    let format = cx.run.http_format()?;
    let limit = cx.run.limits().max_artifact_bytes;
    if limit == 0 {
        return Err(not_applicable("no max_artifact_bytes is stated"));
    }
    if limit > LARGEST_EXPANSION {
        return Err(missing(format!(
            "max_artifact_bytes is {limit}; with at most {LARGEST_EXPANSION} (16 GiB) this could be tried"
        )));
    }
    let size = u64::try_from(limit).unwrap_or_default() + (8 << 20);
    let content = tokio::task::spawn_blocking(move || Content::expanding(size, format.format))
        .await
        .ok()
        .flatten()
        .ok_or_else(|| not_applicable("no such file can be made"))?;
    let artifact = cx.serve(content);
    let wish = cx.wish(&artifact)?;
    let sent = format!(
        "{wish}: a file of {} bytes that expands to {size}",
        artifact.size()
    );
    let until = Instant::now() + cx.run.options.patience * 4;
    loop {
        match cx.ensure(&wish).await {
            Err(status) if Failure::from(&status).is(Reason::UnsupportedArtifact) => {
                return Err(not_applicable("gzip is not supported"));
            }
            Err(status) => {
                let failure = Failure::from(&status);
                expect(failure.passes_by_itself(), &sent, "FAILED", failure)?;
            }
            Ok(image) if state(&image) == State::Failed => break,
            Ok(image) => {
                expect(
                    state(&image) != State::Active && Instant::now() < until,
                    &sent,
                    "FAILED",
                    brief(&image),
                )?;
            }
        }
        tokio::time::sleep(cx.run.pace()).await;
    }
    cx.line()
        .call(&wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        })
        .await
        .map(|_info| ())
        .map_err(|status| failed(sent, "the process lives", Failure::from(&status)))
}

pub(crate) async fn in_10(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let active = cx.until_active(&wish).await?;
    cx.disturb();
    cx.run
        .hook(Hook::BackendTamper, &[("ID", active.provider_image_id)])
        .await?;
    let verify = wish.with_policy(|policy| policy.verified_since = Some(seconds_from_now(0)));
    let sent = format!("{verify} with verified_since now, after the backend's object was changed");
    let until = Instant::now() + cx.run.options.patience;
    loop {
        let came = match cx.ensure(&verify).await {
            Ok(image) if matches!(state(&image), State::Failed | State::Pending) => return Ok(()),
            // Already being made anew.
            Ok(image) if state(&image) == State::Transferring => return Ok(()),
            Ok(image) => brief(&image),
            Err(status) => Failure::from(&status).to_string(),
        };
        expect(Instant::now() < until, &sent, "not ACTIVE", came)?;
        tokio::time::sleep(cx.run.pace()).await;
    }
}

pub(crate) async fn in_11(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let before = cx.until_active(&wish).await?;
    let time = |image: &wire::ImageObservation| {
        image
            .verification
            .as_ref()
            .and_then(|verification| verification.verify_time)
            .map(|time| (time.seconds, time.nanos))
    };
    // A clock that counts whole seconds must be able to show that it moved.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let verify = wish.with_policy(|policy| policy.verified_since = Some(seconds_from_now(0)));
    let after = cx
        .until(&verify, "ACTIVE with a later verify_time", |image| {
            state(image) == State::Active && time(image) > time(&before)
        })
        .await?;
    expect(
        after.provider_image_id == before.provider_image_id,
        format!("{verify} with verified_since now"),
        format!("the same id \"{}\"", before.provider_image_id),
        brief(&after),
    )
}

pub(crate) async fn in_12(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx
        .wish(&artifact)?
        .with_policy(|policy| policy.verification_level = VerificationLevel::Content.into());
    if !cx.run.advertises(wire::Capability::VerifyContent) {
        return refused(
            cx.ensure(&wish).await,
            Reason::InvalidField,
            format!("{wish} with CONTENT, which is not advertised"),
        )
        .map(|_failure| ());
    }
    let active = cx.until_active(&wish).await?;
    expect(
        active.verification.as_ref().is_some_and(|verification| {
            verification.level == i32::from(VerificationLevel::Content)
        }),
        format!("{wish} with CONTENT"),
        "ACTIVE, level CONTENT (3)",
        brief(&active),
    )
}

pub(crate) async fn in_13(cx: &Case) -> Verdict {
    let artifact = cx.file(SMALL)?;
    let offer = |ca_bundle_pem: Vec<u8>| Offer {
        urls: Some(vec![artifact.url(Via::Tls)]),
        ca_bundle_pem,
        ..Offer::default()
    };
    let unknown = cx.wish_for(&artifact, &offer(Vec::new()))?;
    until_said(
        cx,
        &unknown,
        &[Reason::SourceUnavailable],
        "the source has a certificate of an unknown authority",
    )
    .await?;
    let known = cx.wish_for(&artifact, &offer(artifact.authority()))?;
    if backend_takes_none(cx, &known).await? {
        return Ok(());
    }
    cx.until_active(&known).await.map(|_observation| ())
}

pub(crate) async fn in_14(cx: &Case) -> Verdict {
    let artifact = cx.file(SMALL)?;
    let wish = cx
        .wish(&artifact)?
        .with_artifact(|artifact| {
            artifact.digest.clear();
            artifact.size_bytes = 0;
        })
        .with_policy(|policy| policy.verification_level = VerificationLevel::Metadata.into());
    let active = cx.until_active(&wish).await?;
    let verification = active.verification.clone().unwrap_or_default();
    expect(
        verification.level == i32::from(VerificationLevel::Presence),
        format!("{wish} without digest and size, METADATA asked"),
        "ACTIVE, level PRESENCE (1)",
        brief(&active),
    )?;
    expect(
        !verification.observed_digest.is_empty() && verification.observed_size_bytes > 0,
        format!("{wish} without digest and size"),
        "observed digest and size all the same",
        brief(&active),
    )
}
