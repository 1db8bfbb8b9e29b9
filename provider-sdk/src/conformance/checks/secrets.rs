//! SE: secrets stay where they are.

use std::time::Duration;

use proto::wire::{self, ErrorReason as Reason};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::conformance::{
    artifacts::{Auth, Offer},
    case::{Case, SMALL, refused},
    check::{Verdict, expect, failed, missing},
    checks::identity::needs_secrets,
    hooks::Hook,
    run::{Run, Where},
    status::brief,
};

fn clean(run: &Run, text: &[u8], place: &str) -> Verdict {
    match run.canaries.find(text) {
        None => Ok(()),
        Some(form) => Err(failed(
            format!("the whole run, then a search for its secrets in {place}"),
            "never found",
            format!("found, {form}"),
        )),
    }
}

/// Failures of all kinds while secrets are at hand.
pub(crate) async fn se_01(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let auth = Auth {
        user: "conformance".into(),
        password: cx.run.canaries.word().to_owned(),
    };
    let offer = Offer {
        source_secrets: auth.secrets(),
        ..Offer::default()
    };
    let wish = cx.wish_for(&artifact, &offer)?;
    // Refused, then denied by a source that wants other credentials.
    let mut nameless = wish.clone();
    nameless.spec.display_name.clear();
    let _ = cx.ensure(&nameless).await;
    artifact.behave(|behaviour| {
        behaviour.auth = Some(Auth {
            password: "another".into(),
            ..auth
        });
    });
    for _ in 0..5 {
        let _ = cx.ensure(&wish).await;
        let _ = cx.get(&wish).await;
        tokio::time::sleep(cx.run.pace()).await;
    }
    if let Ok(wrong) = cx.run.placeless(Where::WrongCredentials) {
        let request = wire::ValidateTargetRequest {
            caller: Some(cx.caller()),
            target: Some(wrong),
            spec: None,
        };
        let _ = cx.line().call(&request).await;
    }
    Ok(())
}

pub(crate) fn se_01_look(run: &Run) -> Verdict {
    for call in run.recorder.calls() {
        if let Some(form) = run.canaries.find(&call.answer_bytes()) {
            return Err(failed(
                format!("{} in check {}", call.method, call.check),
                "no secret in response, status, trailers or outputs",
                format!("found, {form}"),
            ));
        }
    }
    Ok(())
}

pub(crate) async fn se_02(cx: &Case) -> Verdict {
    let logs = cx.run.hook(Hook::Logs, &[]).await?;
    expect(
        !logs.trim().is_empty(),
        "hook \"logs\"",
        "logs at the most verbose level",
        "nothing",
    )?;
    clean(&cx.run, logs.as_bytes(), "the logs")
}

pub(crate) async fn se_03(cx: &Case) -> Verdict {
    let url = cx
        .run
        .options
        .metrics_url
        .as_ref()
        .ok_or_else(|| missing("the run was given no URL of metrics"))?;
    let text = plain_get(url)
        .await
        .map_err(|error| failed(format!("GET {url}"), "metrics", error))?;
    clean(&cx.run, &text, "the metrics")
}

/// One GET over plain HTTP: metrics are never behind TLS here.
async fn plain_get(url: &str) -> Result<Vec<u8>, String> {
    let url = url::Url::parse(url).map_err(|error| error.to_string())?;
    let host = url.host_str().ok_or("no host")?;
    let port = url.port_or_known_default().ok_or("no port")?;
    let get = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n",
            url.path()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await?;
        std::io::Result::Ok(all)
    };
    tokio::time::timeout(Duration::from_secs(10), get)
        .await
        .map_err(|_elapsed| "no answer within 10 s".to_owned())?
        .map_err(|error| error.to_string())
}

pub(crate) async fn se_04(cx: &Case) -> Verdict {
    let artifact = cx.artifact(SMALL)?;
    let auth = Auth {
        user: "conformance".into(),
        password: cx.run.canaries.word().to_owned(),
    };
    let offer = Offer {
        source_secrets: auth.secrets(),
        ..Offer::default()
    };
    artifact.behave(|behaviour| behaviour.auth = Some(auth));
    let wish = cx.wish_for(&artifact, &offer)?;
    let active = match cx.until_active(&wish).await {
        Ok(active) => active,
        // A backend that takes no credentials of sources cannot keep them either.
        Err(_) if cx.run.advertises(wire::Capability::BackendFetch) => {
            let artifact = cx.artifact(SMALL)?;
            cx.until_active(&cx.wish(&artifact)?).await?
        }
        Err(stop) => return Err(stop),
    };
    let argument = [("ID", active.provider_image_id)];
    let metadata = cx.run.hook(Hook::BackendUse, &argument).await?;
    if cx.run.options.hooks.has(Hook::BackendFree) {
        cx.run.hook(Hook::BackendFree, &argument).await?;
    }
    clean(&cx.run, metadata.as_bytes(), "the backend's metadata")
}

pub(crate) async fn se_05(cx: &Case) -> Verdict {
    needs_secrets(cx)?;
    let artifact = cx.artifact(SMALL)?;
    let wish = cx.wish(&artifact)?;
    let wrong = cx.run.target(Where::WrongCredentials)?;
    let before = cx.until_active(&wish).await?;
    let mut stranger = wish.clone();
    stranger.target = wrong;
    refused(
        cx.get(&stranger).await,
        Reason::BackendAuthFailed,
        "right secrets, then GetImage with wrong ones and the same target_id",
    )?;
    refused(
        cx.delete(&stranger).await,
        Reason::BackendAuthFailed,
        "right secrets, then DeleteImage with wrong ones and the same target_id",
    )?;
    let after = cx.got(&wish).await?;
    expect(
        after.provider_image_id == before.provider_image_id,
        "GetImage with the right secrets afterwards",
        "the image stays",
        brief(&after),
    )
}
