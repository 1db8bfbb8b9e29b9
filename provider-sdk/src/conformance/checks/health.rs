//! HL: health of the process.

use std::time::{Duration, Instant};

use prost::Message as _;
use proto::wire::{self, ErrorReason as Reason};
use tonic::{Code, Status};

use crate::conformance::{
    case::{Case, refused},
    check::{Verdict, expect, failed, missing},
    client::{As, Deadline, HealthCheckRequest, Line, Rpc as _, channel},
    hooks::Hook,
    recorder::Subject,
    run::Where,
    status::Failure,
};

const SERVING: i32 = 1;

const SERVICES: [&str; 3] = [
    "",
    "clusterstack.provider.v1alpha1.IdentityService",
    "clusterstack.provider.v1alpha1.NodeImageService",
];

/// Statuses of the health protocol are not those of the contract.
fn quiet(line: Line) -> Line {
    Line {
        disturbed: true,
        ..line
    }
}

fn health_line(cx: &Case) -> Verdict<Line> {
    let address = cx
        .run
        .options
        .health_address
        .as_ref()
        .ok_or_else(|| missing("the run was given no address of the health port"))?;
    let channel = channel(address, None, As::Nobody)
        .map_err(|error| failed("health address", "an address", error))?;
    Ok(quiet(Line {
        channel,
        ..cx.line()
    }))
}

async fn check(line: &Line, service: &str) -> Result<i32, Status> {
    line.call(&HealthCheckRequest {
        service: service.into(),
    })
    .await
    .map(|response| response.status)
}

async fn serving(line: &Line, place: &str) -> Verdict {
    for service in SERVICES {
        let sent = format!("Health.Check(\"{service}\") on the {place}");
        match check(line, service).await {
            Ok(SERVING) => {}
            Ok(other) => return Err(failed(sent, "SERVING (1)", format!("status {other}"))),
            Err(status) => return Err(failed(sent, "SERVING (1)", Failure::from(&status))),
        }
    }
    Ok(())
}

pub(crate) async fn hl_01(cx: &Case) -> Verdict {
    serving(&quiet(cx.line()), "address of the provider").await?;
    match health_line(cx) {
        Ok(line) => serving(&line, "health port").await,
        // Whether there is one is the business of HL-03.
        Err(_) => Ok(()),
    }
}

pub(crate) async fn hl_02(cx: &Case) -> Verdict {
    let answer = check(&quiet(cx.line()), "conformance.NoSuchService").await;
    let sent = "Health.Check(\"conformance.NoSuchService\")";
    match answer {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed(sent, "NOT_FOUND", Failure::from(&status))),
        Ok(status) => Err(failed(sent, "NOT_FOUND", format!("OK, status {status}"))),
    }
}

pub(crate) async fn hl_03(cx: &Case) -> Verdict {
    let line = health_line(cx)?;
    serving(&line, "health port").await?;
    let get = wire::GetImageRequest {
        caller: Some(cx.caller()),
        target: Some(cx.run.target(Where::Good)?),
        image_key: Some(wire::ImageKey {
            key: "ni-a".into(),
            spec_digest: String::new(),
        }),
    };
    let info = wire::GetProviderInfoRequest {
        caller: Some(cx.caller()),
    };
    for (name, answer) in [
        ("GetImage", line.call(&get).await.map(|_response| ())),
        (
            "GetProviderInfo",
            line.call(&info).await.map(|_response| ()),
        ),
    ] {
        let sent = format!("{name} on the health port");
        match answer {
            Err(status) if status.code() == Code::Unimplemented => {}
            Err(status) => return Err(failed(sent, "UNIMPLEMENTED", Failure::from(&status))),
            Ok(()) => return Err(failed(sent, "UNIMPLEMENTED", "OK")),
        }
    }
    Ok(())
}

pub(crate) async fn hl_04(cx: &Case) -> Verdict {
    cx.run.hook(Hook::BackendDown, &[]).await?;
    let result = without_backend(cx).await;
    cx.run.hook(Hook::BackendUp, &[]).await?;
    result
}

async fn without_backend(cx: &Case) -> Verdict {
    serving(&quiet(cx.line()), "address of the provider, backend down").await?;
    let answer = cx
        .line()
        .call(&wire::ValidateTargetRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.placeless(Where::Good)?),
            spec: None,
        })
        .await;
    refused(
        answer,
        Reason::BackendUnavailable,
        "ValidateTarget(good), backend down",
    )
    .map(|_failure| ())
}

pub(crate) async fn hl_05(cx: &Case) -> Verdict {
    cx.disturb();
    let result = termination(cx).await;
    // Whatever happened: the checks that follow need a provider.
    cx.restart().await?;
    result
}

async fn termination(cx: &Case) -> Verdict {
    if !cx.run.options.hooks.has(Hook::AwaitExit) {
        return Err(missing("there is no hook \"await-exit\""));
    }
    let slow = match cx.run.placeless(Where::Silent) {
        Ok(silent) => silent,
        Err(_) => cx.run.placeless(Where::Good)?,
    };
    let line = cx.line();
    let request = wire::ValidateTargetRequest {
        caller: Some(cx.caller()),
        target: Some(slow),
        spec: None,
    };
    let call = tokio::spawn({
        let line = line.clone();
        async move {
            line.send::<wire::ValidateTargetRequest>(
                Subject::default(),
                request.encode_to_vec().into(),
                wire::ValidateTargetRequest::SERVICE,
                Deadline::Core,
            )
            .await
        }
    });
    // Time for the call to arrive.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let health = health_line(cx).unwrap_or_else(|_| quiet(line));
    let started = Instant::now();
    cx.run.hook(Hook::Terminate, &[]).await?;
    let mut seen = "SERVING until the end".to_owned();
    let mut said = false;
    while started.elapsed() < Duration::from_secs(30) {
        match check(&health, "").await {
            Ok(SERVING) => {}
            Ok(_) => said = true,
            Err(status) => {
                if !said {
                    seen = Failure::from(&status).to_string();
                }
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cx.run.hook(Hook::AwaitExit, &[]).await?;
    let took = started.elapsed();
    let answer = call
        .await
        .map_err(|error| failed("a call during the end", "an answer", error))?;
    expect(
        took <= Duration::from_secs(30),
        "SIGTERM",
        "exit within 30 s",
        format!("{took:?}"),
    )?;
    if let Err(status) = answer {
        let failure = Failure::from(&status);
        expect(
            failure.code == Code::Unavailable || !failure.infos().is_empty(),
            "ValidateTarget while the provider ends",
            "an answer of the provider, or UNAVAILABLE",
            failure,
        )?;
    }
    expect(
        said,
        "Health.Check after SIGTERM",
        "NOT_SERVING before the port closes",
        seen,
    )
}
