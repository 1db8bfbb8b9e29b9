//! ID: the handshake.

use std::collections::BTreeSet;

use prost::Message as _;
use proto::wire;
use serde_json::Value;
use tonic::Code;

use crate::conformance::{
    case::Case,
    check::{Verdict, expect, failed, not_applicable},
    client::{Deadline, Rpc as _},
    hooks::Hook,
    recorder::{Outcome, Subject},
    run::Where,
    schema,
    status::Failure,
};

const SENT: &str = "GetProviderInfo(caller)";

async fn info(cx: &Case) -> Verdict<wire::GetProviderInfoResponse> {
    cx.line()
        .call(&wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        })
        .await
        .map_err(|status| failed(SENT, "OK within 5 s", Failure::from(&status)))
}

fn is_dns_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 63
        && text.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        })
}

fn is_semantic_version(text: &str) -> bool {
    text.len() <= 64
        && regex::Regex::new(r"^v?\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$")
            .is_ok_and(|pattern| pattern.is_match(text))
}

pub(crate) async fn id_01(cx: &Case) -> Verdict {
    let info = info(cx).await?;
    expect(
        is_dns_name(&info.provider_name),
        SENT,
        "provider_name: a DNS-style name of at most 63 characters",
        format!("\"{}\"", info.provider_name),
    )?;
    expect(
        is_semantic_version(&info.provider_version),
        SENT,
        "provider_version: a semantic version of at most 64 characters",
        format!("\"{}\"", info.provider_version),
    )?;
    expect(
        (1..=64).contains(&info.instance_id.chars().count()),
        SENT,
        "instance_id: 1 to 64 characters",
        format!("\"{}\"", info.instance_id),
    )?;
    expect(
        !info.contract_versions.is_empty(),
        SENT,
        "contract_versions: at least one package",
        "none",
    )?;
    for (name, values) in [
        ("artifact_kinds", &info.artifact_kinds),
        ("disk_formats", &info.disk_formats),
    ] {
        expect(
            !values.is_empty() && !values.contains(&0),
            SENT,
            format!("{name}: at least one, and none UNSPECIFIED"),
            format!("{values:?}"),
        )?;
    }
    expect(
        (1..=256 << 10).contains(&info.config_schema_json.len()),
        SENT,
        "config_schema_json: 1 byte to 256 KiB",
        format!("{} bytes", info.config_schema_json.len()),
    )?;
    let names: BTreeSet<_> = info.secret_keys.iter().map(|key| &key.name).collect();
    let good_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    expect(
        info.secret_keys.len() <= 64
            && names.len() == info.secret_keys.len()
            && names.iter().all(|name| good_name(name)),
        SENT,
        "secret_keys: at most 64 different names of [A-Za-z0-9._-]",
        format!("{names:?}"),
    )?;
    let limits = info.limits.unwrap_or_default();
    expect(
        limits.max_concurrent_transfers >= 0 && limits.max_artifact_bytes >= 0,
        SENT,
        "limits: none negative",
        format!("{limits:?}"),
    )
}

pub(crate) async fn id_02(cx: &Case) -> Verdict {
    for _ in 0..3 {
        info(cx).await?;
    }
    let answers: Vec<_> = cx
        .run
        .recorder
        .calls()
        .into_iter()
        .filter(|call| call.check == cx.id)
        .filter_map(|call| match call.outcome {
            Outcome::Response { bytes, .. } => Some(bytes),
            _ => None,
        })
        .collect();
    expect(
        answers.len() == 3 && answers.windows(2).all(|pair| pair[0] == pair[1]),
        "GetProviderInfo three times",
        "equal bytes",
        "bytes that differ",
    )
}

pub(crate) async fn id_03(cx: &Case) -> Verdict {
    let info = info(cx).await?;
    expect(
        info.contract_versions
            .iter()
            .any(|version| version == wire::PACKAGE),
        SENT,
        format!("contract_versions with \"{}\"", wire::PACKAGE),
        format!("{:?}", info.contract_versions),
    )?;
    for version in &info.contract_versions {
        let request = wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        };
        let service = format!("{version}.IdentityService");
        cx.line()
            .send::<wire::GetProviderInfoRequest>(
                Subject::default(),
                request.encode_to_vec().into(),
                &service,
                Deadline::Core,
            )
            .await
            .map_err(|status| {
                failed(
                    format!("{service}/{}", wire::GetProviderInfoRequest::METHOD),
                    "OK, since the package is listed",
                    Failure::from(&status),
                )
            })?;
    }
    Ok(())
}

pub(crate) async fn id_04(cx: &Case) -> Verdict {
    let info = info(cx).await?;
    let has = |capability: wire::Capability| info.capabilities.contains(&capability.into());
    let different: BTreeSet<_> = info.capabilities.iter().collect();
    expect(
        has(wire::Capability::Advertised)
            && !has(wire::Capability::Unspecified)
            && different.len() == info.capabilities.len(),
        SENT,
        "capabilities with ADVERTISED, without UNSPECIFIED, each once",
        format!("{:?}", info.capabilities),
    )
}

pub(crate) async fn id_05(cx: &Case) -> Verdict {
    let answer = cx
        .line()
        .call(&wire::ListImagesRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.target(Where::Good)?),
            ..wire::ListImagesRequest::default()
        })
        .await;
    let advertised = cx.run.advertises(wire::Capability::List);
    let sent = "ListImages at the good target";
    match (answer, advertised) {
        (Ok(_), true) => Ok(()),
        (Err(status), false) if status.code() == Code::Unimplemented => Ok(()),
        (Ok(_), false) => Err(failed(
            sent,
            "UNIMPLEMENTED, since LIST is not advertised",
            "OK",
        )),
        (Err(status), true) => Err(failed(
            sent,
            "OK, since LIST is advertised",
            Failure::from(&status),
        )),
        (Err(status), false) => Err(failed(
            sent,
            "UNIMPLEMENTED, since LIST is not advertised",
            Failure::from(&status),
        )),
    }
}

pub(crate) async fn id_06(cx: &Case) -> Verdict {
    let info = info(cx).await?;
    let schema: Value = serde_json::from_str(&info.config_schema_json)
        .map_err(|error| failed(SENT, "config_schema_json is JSON", error))?;
    if let Some(flaw) = schema::flaw(&schema) {
        return Err(failed(SENT, "config_schema_json is a JSON Schema", flaw));
    }
    let good = match &cx.run.options.sample.targets.good.config {
        Value::Null => Value::Object(serde_json::Map::new()),
        config => config.clone(),
    };
    if let Some(misfit) = schema::misfit(&schema, &good) {
        return Err(failed(
            SENT,
            "the sample's good settings fit config_schema_json",
            misfit,
        ));
    }
    let names = schema::property_names(&schema);
    let secret = info
        .secret_keys
        .iter()
        .find(|key| names.contains(&key.name));
    expect(
        secret.is_none(),
        SENT,
        "no property of config_schema_json is named like a secret key",
        format!(
            "\"{}\"",
            secret.map(|key| key.name.as_str()).unwrap_or_default()
        ),
    )
}

pub(crate) async fn id_07(cx: &Case) -> Verdict {
    cx.disturb();
    cx.run.hook(Hook::BackendDown, &[]).await?;
    let answer = info(cx).await;
    cx.run.hook(Hook::BackendUp, &[]).await?;
    answer.map(|_info| ())
}

pub(crate) async fn id_08(cx: &Case) -> Verdict {
    let before = info(cx).await?;
    cx.restart().await?;
    let after = info(cx).await?;
    let sent = "GetProviderInfo before and after a restart";
    expect(
        before.instance_id != after.instance_id,
        sent,
        "another instance_id",
        format!("\"{}\" both times", after.instance_id),
    )?;
    expect(
        before.provider_name == after.provider_name,
        sent,
        format!("provider_name \"{}\"", before.provider_name),
        format!("\"{}\"", after.provider_name),
    )
}

/// Stops a check that needs target secrets.
pub(crate) fn needs_secrets(cx: &Case) -> Verdict {
    if cx.run.info.secret_keys.is_empty() {
        Err(not_applicable("secret_keys is empty"))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_versions_are_recognised() {
        assert!(is_dns_name("docker.clusterstack.example"));
        for wrong in ["", "-a", "A", "a..b", "a_b", &"a".repeat(64)] {
            assert!(!is_dns_name(wrong), "{wrong}");
        }
        assert!(is_semantic_version("1.2.3-rc.1+b"));
        for wrong in ["1.2", "", "one"] {
            assert!(!is_semantic_version(wrong), "{wrong}");
        }
    }
}
