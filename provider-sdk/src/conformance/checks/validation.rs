//! VA: what is in a request.

use prost::Message as _;
use proto::wire::{self, ErrorReason as Reason};
use serde_json::Value;
use tonic::Code;

use crate::conformance::{
    artifacts::{Offer, Served, Via},
    case::{Case, SMALL, Wish, refused},
    check::{Verdict, expect, failed, missing, not_applicable},
    checks::identity::needs_secrets,
    client::{Deadline, Rpc},
    run::{Where, word},
    sample::{Kind, to_struct},
    schema,
    status::Failure,
};

/// The request is refused with `INVALID_FIELD`, and one of these paths is named.
pub(crate) async fn invalid<R: Rpc>(cx: &Case, request: &R, what: &str, paths: &[&str]) -> Verdict {
    let sent = format!("{}: {what}", R::METHOD);
    let failure = refused(cx.line().call(request).await, Reason::InvalidField, &sent)?;
    let fields = failure.fields();
    let named = fields
        .iter()
        .any(|field| paths.iter().any(|path| field == path));
    expect(
        named,
        sent,
        format!("BadRequest that names \"{}\"", paths.join("\" or \"")),
        failure,
    )
}

/// The process answers.
async fn lives(cx: &Case) -> Verdict {
    cx.line()
        .call(&wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        })
        .await
        .map(|_info| ())
        .map_err(|status| {
            failed(
                "GetProviderInfo afterwards",
                "OK: the process lives",
                Failure::from(&status),
            )
        })
}

/// A wish that nothing is wrong with, and that nothing is fetched for unless it is accepted.
pub(crate) fn good(cx: &Case) -> Verdict<(std::sync::Arc<Served>, Wish)> {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.remember(&wish);
    Ok((artifact, wish))
}

pub(crate) type Change = fn(&mut wire::EnsureImageRequest);

pub(crate) async fn va_02(cx: &Case) -> Verdict {
    let (_artifact, wish) = good(cx)?;
    for key in ["ni-ABC", &"a".repeat(64), "-a", ""] {
        let image_key = Some(wire::ImageKey {
            key: key.into(),
            ..wish.key.clone()
        });
        let what = format!("key \"{key}\"");
        let ensure = wire::EnsureImageRequest {
            image_key: image_key.clone(),
            ..cx.request(&wish)
        };
        let (caller, target) = (ensure.caller.clone(), ensure.target.clone());
        invalid(cx, &ensure, &what, &["image_key.key"]).await?;
        let get = wire::GetImageRequest {
            caller: caller.clone(),
            target: target.clone(),
            image_key: image_key.clone(),
        };
        invalid(cx, &get, &what, &["image_key.key"]).await?;
        let delete = wire::DeleteImageRequest {
            caller,
            target,
            image_key,
        };
        invalid(cx, &delete, &what, &["image_key.key"]).await?;
    }
    Ok(())
}

pub(crate) async fn va_03(cx: &Case) -> Verdict {
    let (_artifact, wish) = good(cx)?;
    for digest in [
        format!("md5:{}", "a".repeat(32)),
        format!("sha256:{}", "a".repeat(63)),
        format!("sha256:{}", "A".repeat(64)),
        "a".repeat(64),
    ] {
        let wish = wish
            .clone()
            .with_artifact(|artifact| artifact.digest.clone_from(&digest));
        invalid(
            cx,
            &cx.request(&wish),
            &format!("digest \"{digest}\""),
            &["spec.artifact.digest"],
        )
        .await?;
    }
    Ok(())
}

pub(crate) async fn va_04(cx: &Case) -> Verdict {
    let artifact = cx.file(SMALL)?;
    let five = (0..5).map(|number| artifact.url(Via::Mirror(number)));
    let user = artifact
        .url(Via::Plain)
        .replacen("://", "://user:password@", 1);
    let ftp = artifact.url(Via::Plain).replacen("http", "ftp", 1);
    for (what, urls) in [
        ("a URL with user info", vec![user]),
        ("an ftp URL", vec![ftp]),
        ("no URL", Vec::new()),
        ("five URLs", five.collect()),
    ] {
        let offer = Offer {
            urls: Some(urls),
            ..Offer::default()
        };
        let wish = cx.wish_for(&artifact, &offer)?;
        cx.remember(&wish);
        let request = cx.request(&wish);
        let failure = refused(
            cx.line().call(&request).await,
            Reason::InvalidField,
            format!("EnsureImage: {what}"),
        )?;
        let fields = failure.fields();
        expect(
            fields
                .iter()
                .any(|field| field.starts_with("spec.artifact.http.urls")),
            format!("EnsureImage: {what}"),
            "BadRequest that names \"spec.artifact.http.urls\", with an index or without",
            failure,
        )?;
    }
    Ok(())
}

pub(crate) async fn va_05(cx: &Case) -> Verdict {
    let (artifact, wish) = good(cx)?;
    let known = (1..=12).filter_map(|number| wire::DiskFormat::try_from(number).ok());
    let other = known
        .into_iter()
        .find(|format| !cx.run.info.disk_formats.contains(&i32::from(*format)));
    if let Some(other) = other {
        let mut wish = wish.clone();
        wish.spec.disk_format = other.into();
        let answer = cx.ensure(&wish).await;
        refused(
            answer,
            Reason::UnsupportedArtifact,
            format!(
                "EnsureImage: {}, which is not announced",
                other.as_str_name()
            ),
        )?;
    }
    if artifact.content.kind() == Kind::Http {
        let wish = wish.with_artifact(|artifact| artifact.compression = 0);
        invalid(
            cx,
            &cx.request(&wish),
            "compression unspecified for HTTP",
            &["spec.artifact.compression"],
        )
        .await?;
    }
    Ok(())
}

pub(crate) async fn va_06(cx: &Case) -> Verdict {
    let schema: Value =
        serde_json::from_str(&cx.run.info.config_schema_json).unwrap_or(Value::Bool(true));
    let good = match &cx.run.options.sample.targets.good.config {
        Value::Null => Value::Object(serde_json::Map::new()),
        config => config.clone(),
    };
    let wrong = cx
        .run
        .options
        .sample
        .violating_config
        .clone()
        .or_else(|| schema::violation(&schema, &good))
        .ok_or_else(|| {
            missing("the sample has no violatingConfig, and none can be made from the schema")
        })?;
    let sent = format!("ValidateTarget with settings {wrong}");
    let answer = cx
        .line()
        .call(&wire::ValidateTargetRequest {
            caller: Some(cx.caller()),
            target: Some(wire::Target {
                config: Some(to_struct(&wrong)),
                ..cx.run.placeless(Where::Good)?
            }),
            spec: None,
        })
        .await;
    let failure = refused(answer, Reason::ConfigInvalid, &sent)?;
    let fields = failure.fields();
    expect(
        fields
            .iter()
            .any(|field| field.starts_with("target.config")),
        sent,
        "BadRequest with a path that begins with \"target.config\"",
        failure,
    )
}

pub(crate) async fn va_07(cx: &Case) -> Verdict {
    needs_secrets(cx)?;
    let required: Vec<_> = cx
        .run
        .info
        .secret_keys
        .iter()
        .filter(|key| key.required)
        .collect();
    if required.is_empty() {
        return Err(not_applicable("no secret key is required"));
    }
    for key in required {
        let mut target = cx.run.placeless(Where::Good)?;
        target.secrets.remove(&key.name);
        let sent = format!("ValidateTarget without the secret \"{}\"", key.name);
        let answer = cx
            .line()
            .call(&wire::ValidateTargetRequest {
                caller: Some(cx.caller()),
                target: Some(target),
                spec: None,
            })
            .await;
        let failure = refused(answer, Reason::InvalidField, &sent)?;
        let fields = failure.fields();
        expect(
            fields
                .iter()
                .any(|field| field.starts_with("target.secrets") && field.contains(&key.name)),
            sent,
            format!(
                "BadRequest that names the key, such as \"target.secrets.{}\"",
                key.name
            ),
            failure,
        )?;
    }
    Ok(())
}

/// The wish is taken: an observation that is not FAILED.
async fn accepted(cx: &Case, request: &wire::EnsureImageRequest, what: &str) -> Verdict {
    let sent = format!("EnsureImage: {what}");
    let answer = cx
        .line()
        .call(request)
        .await
        .map_err(|status| failed(&sent, "OK", Failure::from(&status)))?;
    let observation = answer.observation.unwrap_or_default();
    expect(
        observation.state != i32::from(wire::image_observation::State::Failed),
        sent,
        "accepted",
        crate::conformance::status::brief(&observation),
    )
}

pub(crate) async fn va_08(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let mut wish = cx.wish(&artifact)?;
    wish.key.key = format!("ni-{}", word(60));
    let fill = 244 - wish.spec.display_name.chars().count();
    wish.spec.display_name.push_str(&"x".repeat(fill));
    // 64 entries and not more than 4 KiB of names and values.
    wish.spec.properties = (0..64)
        .map(|number| {
            (
                format!("conformance_{number:02}"),
                "v".repeat(4096 / 64 - 14),
            )
        })
        .collect();
    wish.spec.min_disk_bytes = 1 << 40;
    wish.target.secrets_version = "v".repeat(128);
    wish.policy.stall_timeout = Some(prost_types::Duration {
        seconds: 3600,
        nanos: 0,
    });
    if artifact.content.kind() == Kind::Http {
        // Text around the certificates is allowed, and fills the limit.
        let mut bundle = artifact.authority();
        bundle.resize(256 << 10, b'\n');
        let urls = (0..4).map(|number| artifact.url(Via::Mirror(number)));
        let offer = Offer {
            urls: Some(urls.collect()),
            ca_bundle_pem: bundle,
            ..Offer::default()
        };
        wish.spec.artifact = Some(artifact.artifact(&offer));
    }
    let mut request = cx.request(&wish);
    // The suite's installation ids are shorter, so this one is removed by hand.
    let longest = format!("{:x<64}", cx.caller().installation_id);
    if let Some(caller) = &mut request.caller {
        caller.installation_id.clone_from(&longest);
    }
    let result = match accepted(cx, &request, "every limit at its maximum").await {
        // A provider whose backend takes no authority may say so (contract, section 2).
        Err(_) if cx.run.advertises(wire::Capability::BackendFetch) => {
            if let Some(wire::artifact::Source::Http(http)) = request
                .spec
                .as_mut()
                .and_then(|spec| spec.artifact.as_mut())
                .and_then(|artifact| artifact.source.as_mut())
            {
                http.ca_bundle_pem.clear();
            }
            accepted(cx, &request, "every limit at its maximum, but no authority").await
        }
        result => result,
    };
    let delete = wire::DeleteImageRequest {
        caller: request.caller,
        target: request.target,
        image_key: request.image_key,
    };
    let gone = async {
        loop {
            let answer = cx.line().call(&delete).await;
            if answer.is_ok_and(|response| {
                response.observation.unwrap_or_default().state
                    == i32::from(wire::image_observation::State::Absent)
            }) {
                return;
            }
            tokio::time::sleep(cx.run.pace()).await;
        }
    };
    let removed = tokio::time::timeout(cx.run.options.patience, gone).await;
    result?;
    expect(
        removed.is_ok(),
        "DeleteImage of a key of 63 characters",
        "ABSENT",
        "no such answer",
    )?;
    let mut wish = cx.wish(&artifact)?;
    wish.spec.display_name.push_str("-äöü-名前");
    cx.remember(&wish);
    accepted(cx, &cx.request(&wish), "a display name that is not ASCII").await
}

pub(crate) async fn va_09(cx: &Case) -> Verdict {
    let (_artifact, wish) = good(cx)?;
    let cases: [(&str, Change); 3] = [
        ("disk_format = 999", |r| {
            if let Some(spec) = &mut r.spec {
                spec.disk_format = 999;
            }
        }),
        ("verification_level = 999", |r| {
            if let Some(policy) = &mut r.policy {
                policy.verification_level = 999;
            }
        }),
        ("adopt = 999", |r| {
            if let Some(policy) = &mut r.policy {
                policy.adopt = 999;
            }
        }),
    ];
    for (what, change) in cases {
        let mut request = cx.request(&wish);
        change(&mut request);
        bad_argument(cx, &request, what).await?;
    }
    lives(cx).await
}

/// `INVALID_ARGUMENT` with any reason that goes with it.
async fn bad_argument<R: Rpc>(cx: &Case, request: &R, what: &str) -> Verdict {
    let sent = format!("{}: {what}", R::METHOD);
    match cx.line().call(request).await {
        Err(status)
            if status.code() == Code::InvalidArgument
                && !Failure::from(&status).infos().is_empty() =>
        {
            Ok(())
        }
        Err(status) => Err(failed(
            sent,
            "INVALID_ARGUMENT with an ErrorInfo",
            Failure::from(&status),
        )),
        Ok(_) => Err(failed(sent, "INVALID_ARGUMENT with an ErrorInfo", "OK")),
    }
}

pub(crate) async fn va_10(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    cx.remember(&wish);
    // Field 999 of every message on the way, a text.
    let unknown = |mut bytes: Vec<u8>| {
        prost::encoding::encode_key(999, prost::encoding::WireType::LengthDelimited, &mut bytes);
        prost::encoding::encode_varint(7, &mut bytes);
        bytes.extend_from_slice(b"unknown");
        bytes
    };
    let request = cx.request(&wish);
    let mut bytes = unknown(request.encode_to_vec());
    // Parts of a message that come twice are merged, so this adds the field inside of spec (4).
    let inner = unknown(Vec::new());
    prost::encoding::encode_key(4, prost::encoding::WireType::LengthDelimited, &mut bytes);
    prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
    bytes.extend_from_slice(&inner);
    cx.line()
        .send::<wire::EnsureImageRequest>(
            request.subject(),
            bytes.into(),
            wire::EnsureImageRequest::SERVICE,
            Deadline::Core,
        )
        .await
        .map(|_response| ())
        .map_err(|status| {
            failed(
                "EnsureImage with unknown fields",
                "OK, as without them",
                Failure::from(&status),
            )
        })
}

pub(crate) async fn va_11(cx: &Case) -> Verdict {
    let (_artifact, wish) = good(cx)?;
    let cases: [(&str, Change); 4] = [
        ("size_bytes = -1", |r| {
            if let Some(artifact) = r.spec.as_mut().and_then(|spec| spec.artifact.as_mut()) {
                artifact.size_bytes = -1;
            }
        }),
        ("min_disk_bytes = -1", |r| {
            if let Some(spec) = &mut r.spec {
                spec.min_disk_bytes = -1;
            }
        }),
        ("65 properties", |r| {
            if let Some(spec) = &mut r.spec {
                spec.properties = (0..65)
                    .map(|number| (format!("p{number}"), "v".into()))
                    .collect();
            }
        }),
        ("a display name of 245 characters", |r| {
            if let Some(spec) = &mut r.spec {
                spec.display_name = "n".repeat(245);
            }
        }),
    ];
    for (what, change) in cases {
        let mut request = cx.request(&wish);
        change(&mut request);
        bad_argument(cx, &request, what).await?;
    }
    if cx.run.advertises(wire::Capability::List) {
        let request = wire::ListImagesRequest {
            caller: Some(cx.caller()),
            target: Some(wish.target),
            page_size: -1,
            page_token: String::new(),
        };
        bad_argument(cx, &request, "page_size = -1").await?;
    }
    Ok(())
}

pub(crate) async fn va_12(cx: &Case) -> Verdict {
    let (_artifact, wish) = good(cx)?;
    let mut large = wish.clone();
    large.spec.options = Some(to_struct(
        &serde_json::json!({"conformance": "x".repeat(17 << 10)}),
    ));
    refused(
        cx.ensure(&large).await,
        Reason::SizeLimitExceeded,
        "EnsureImage: options of 17 KiB",
    )?;
    let mut unknown = wish.clone();
    let mut options = unknown.spec.options.take().unwrap_or_default();
    options.fields.insert(
        "conformance-unknown".into(),
        prost_types::Value {
            kind: Some(prost_types::value::Kind::BoolValue(true)),
        },
    );
    unknown.spec.options = Some(options);
    refused(
        cx.ensure(&unknown).await,
        Reason::InvalidField,
        "EnsureImage: an option \"conformance-unknown\"",
    )?;
    let prefix = cx
        .run
        .options
        .sample
        .marker_prefix
        .as_ref()
        .ok_or_else(|| missing("the sample has no markerPrefix"))?;
    let mut marked = wish;
    marked
        .spec
        .properties
        .insert(format!("{prefix}conformance"), "x".into());
    refused(
        cx.ensure(&marked).await,
        Reason::InvalidField,
        format!("EnsureImage: a property \"{prefix}conformance\" under the marker prefix"),
    )
    .map(|_failure| ())
}
