//! TA: transport, identities, sizes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message as _;
use proto::wire::{self, ErrorReason as Reason};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::Status;

use crate::conformance::{
    case::{Case, Wish},
    check::{Verdict, expect, failed, missing},
    client::{As, Deadline, Line, Rpc as _, channel, channel_with},
    hooks::Hook,
    options::{Identity, Tls},
    recorder::{Outcome, Subject},
    run::{Run, Where},
    status::Failure,
};

fn tls(cx: &Case) -> Verdict<Tls> {
    cx.run
        .options
        .tls
        .clone()
        .ok_or_else(|| missing("the run was given no TLS files"))
}

fn line_as(cx: &Case, tls: &Tls, identity: Option<&Identity>) -> Verdict<Line> {
    let channel = match identity {
        Some(_) => channel_with(&cx.run.address(), Some(tls), identity),
        None => channel(&cx.run.address(), Some(tls), As::Nobody),
    }
    .map_err(missing)?;
    Ok(Line {
        channel,
        disturbed: true,
        ..cx.line()
    })
}

/// One call of each service, for somebody who must not get in.
async fn knocks(cx: &Case, line: &Line) -> Verdict<Vec<(&'static str, Option<Status>)>> {
    let info = line
        .call(&wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        })
        .await;
    let validate = line
        .call(&wire::ValidateTargetRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.placeless(Where::Good)?),
            spec: None,
        })
        .await;
    let get = line
        .call(&wire::GetImageRequest {
            caller: Some(cx.caller()),
            target: Some(cx.run.target(Where::Good)?),
            image_key: Some(wire::ImageKey {
                key: "ni-a".into(),
                spec_digest: String::new(),
            }),
        })
        .await;
    Ok(vec![
        ("GetProviderInfo", info.err()),
        ("ValidateTarget", validate.err()),
        ("GetImage", get.err()),
    ])
}

async fn nothing_succeeds(cx: &Case, line: &Line, who: &str) -> Verdict {
    for (method, refusal) in knocks(cx, line).await? {
        let sent = format!("{method} with {who}");
        match refusal {
            None => return Err(failed(sent, "a refusal", "OK")),
            // An answer of the provider's code means that it was reached.
            Some(status)
                if !Failure::from(&status).infos().is_empty()
                    && !Failure::from(&status).is(Reason::CallerNotAuthorized) =>
            {
                return Err(failed(
                    sent,
                    "a refusal by the transport",
                    Failure::from(&status),
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

pub(crate) async fn ta_01(cx: &Case) -> Verdict {
    let tls = tls(cx)?;
    nothing_succeeds(cx, &line_as(cx, &tls, None)?, "no client certificate").await
}

pub(crate) async fn ta_02(cx: &Case) -> Verdict {
    let tls = tls(cx)?;
    let stranger = tls
        .stranger
        .clone()
        .ok_or_else(|| missing("the run was given no certificate of another authority"))?;
    let line = line_as(cx, &tls, Some(&stranger))?;
    nothing_succeeds(cx, &line, "a certificate of another authority").await
}

pub(crate) async fn ta_03(cx: &Case) -> Verdict {
    let tls = tls(cx)?;
    let intruder = tls
        .intruder
        .clone()
        .ok_or_else(|| missing("the run was given no certificate of another identity"))?;
    let line = line_as(cx, &tls, Some(&intruder))?;
    for (method, refusal) in knocks(cx, &line).await? {
        let sent = format!(
            "{method} with a certificate of the right authority for an identity that is not allowed"
        );
        let expected = "PERMISSION_DENIED CALLER_NOT_AUTHORIZED, or a refused handshake";
        match refusal {
            None => return Err(failed(sent, expected, "OK")),
            Some(status) => {
                let failure = Failure::from(&status);
                expect(
                    failure.infos().is_empty() && failure.code != tonic::Code::PermissionDenied
                        || failure.is(Reason::CallerNotAuthorized),
                    sent,
                    expected,
                    failure,
                )?;
            }
        }
    }
    Ok(())
}

/// A greeting of TLS 1.1, with suites and extensions of its time.
fn old_greeting() -> Vec<u8> {
    let mut hello = vec![3, 2]; // TLS 1.1
    hello.extend_from_slice(&[0x5a; 32]); // random
    hello.push(0); // no session
    hello.extend_from_slice(&[0, 6, 0xc0, 0x13, 0xc0, 0x14, 0, 0x2f]);
    hello.extend_from_slice(&[1, 0]); // no compression
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // secp256r1
        0, 11, 0, 2, 1, 0, // uncompressed points
    ];
    hello.extend_from_slice(&[0, u8::try_from(extensions.len()).unwrap_or_default()]);
    hello.extend_from_slice(extensions);
    let length = u8::try_from(hello.len()).unwrap_or_default();
    let mut message = vec![1, 0, 0, length];
    message.extend_from_slice(&hello);
    let mut record = vec![22, 3, 1, 0, length + 4];
    record.extend_from_slice(&message);
    record
}

async fn answer_to(address: &str, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut answer)).await;
    // Silence and a reset are refusals too.
    let count = read.ok().and_then(Result::ok).unwrap_or(0);
    answer.truncate(count);
    Ok(answer)
}

pub(crate) async fn ta_04(cx: &Case) -> Verdict {
    tls(cx)?;
    let address = cx.run.address();
    let reach = |error| failed("a TCP connection", "it is accepted", error);
    let old = answer_to(&address, &old_greeting()).await.map_err(reach)?;
    expect(
        old.first() != Some(&22),
        "a greeting of TLS 1.1",
        "an alert or the end of the connection",
        "a handshake that goes on",
    )?;
    let plain = answer_to(
        &address,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    )
    .await
    .map_err(reach)?;
    // A SETTINGS frame: type 4 in the fourth byte, on stream 0.
    expect(
        plain.get(3..9) != Some(&[4, 0, 0, 0, 0, 0]),
        "HTTP/2 without TLS on the TLS port",
        "an alert or the end of the connection",
        "HTTP/2 settings",
    )?;
    cx.line()
        .call(&wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        })
        .await
        .map(|_info| ())
        .map_err(|status| failed("GetProviderInfo meanwhile", "OK", Failure::from(&status)))
}

/// A handshake that checks name, chain and dates; answers the server's certificate.
async fn handshake(address: &str, tls: &Tls) -> Result<Vec<u8>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&tls.ca) {
        let certificate = certificate.map_err(|error| format!("authority: {error:?}"))?;
        roots.add(certificate).map_err(|error| text(&error))?;
    }
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&tls.identity.certificate)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("certificate: {error:?}"))?;
    let key = PrivateKeyDer::from_pem_slice(&tls.identity.key)
        .map_err(|error| format!("key: {error:?}"))?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| text(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let host = match &tls.server_name {
        Some(name) => name.clone(),
        None => address
            .rsplit_once(':')
            .map_or(address, |(host, _)| host)
            .to_owned(),
    };
    let name = ServerName::try_from(host).map_err(|error| text(&error))?;
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| text(&error))?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| text(&error))?;
    stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|certificate| certificate.to_vec())
        .ok_or_else(|| "no server certificate".to_owned())
}

pub(crate) async fn ta_05(cx: &Case) -> Verdict {
    let tls = tls(cx)?;
    handshake(&cx.run.address(), &tls)
        .await
        .map(|_certificate| ())
        .map_err(|error| {
            failed(
                "a TLS handshake",
                "a server certificate whose name, chain and dates are valid",
                error,
            )
        })
}

pub(crate) async fn ta_06(cx: &Case) -> Verdict {
    let tls = tls(cx)?;
    let sent = "a TLS handshake";
    let shaken = |error| failed(sent, "it succeeds", error);
    let before = handshake(&cx.run.address(), &tls).await.map_err(shaken)?;
    // A transfer that runs while the certificate changes.
    let artifact = cx.artifact(crate::conformance::case::SMALL)?;
    let wish: Wish = cx.wish(&artifact)?;
    cx.transferring(&wish, &artifact).await?;
    cx.run.hook(Hook::RotateCerts, &[]).await?;
    let until = Instant::now() + Duration::from_mins(1);
    loop {
        let now = handshake(&cx.run.address(), &tls).await.map_err(shaken)?;
        if now != before {
            break;
        }
        if Instant::now() > until {
            return Err(failed(
                "a TLS handshake after the server certificate was replaced",
                "the new certificate within 60 s",
                "the old one",
            ));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    artifact.release();
    cx.until_active(&wish).await?;
    expect(
        artifact.downloads() == 1,
        "a transfer while the server certificate is replaced",
        "one download",
        artifact.counts(),
    )
}

pub(crate) async fn ta_07(cx: &Case) -> Verdict {
    cx.disturb();
    let line = cx.line();
    let request = wire::ResolveImagesRequest {
        caller: Some(cx.caller()),
        target: Some(cx.run.placeless(Where::Good)?),
        node_images: vec![b'x'; 5 << 20],
        ..wire::ResolveImagesRequest::default()
    };
    if line.call(&request).await.is_ok() {
        return Err(failed("ResolveImages with 5 MiB", "any failure", "OK"));
    }
    line.call(&wire::GetProviderInfoRequest {
        caller: Some(cx.caller()),
    })
    .await
    .map(|_info| ())
    .map_err(|status| {
        failed(
            "GetProviderInfo on the channel of a request of 5 MiB",
            "OK",
            Failure::from(&status),
        )
    })
}

pub(crate) async fn ta_08(cx: &Case) -> Verdict {
    let line = cx.line();
    let calls = (0..100).map(|_| {
        let line = line.clone();
        let request = wire::GetProviderInfoRequest {
            caller: Some(cx.caller()),
        };
        async move {
            line.call_within(&request, Deadline::Of(Duration::from_secs(30)))
                .await
        }
    });
    let refused: Vec<_> = futures::future::join_all(calls)
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    match refused.first() {
        None => Ok(()),
        Some(status) => Err(failed(
            "100 parallel GetProviderInfo on one channel",
            "all OK within 30 s",
            format!(
                "{} failures, first {}",
                refused.len(),
                Failure::from(status)
            ),
        )),
    }
}

pub(crate) async fn ta_09(cx: &Case) -> Verdict {
    let request = wire::ValidateTargetRequest {
        caller: Some(cx.caller()),
        target: Some(cx.run.placeless(Where::Silent)?),
        spec: None,
    };
    // The provider's own limit is 60 s; what it answers then is its own business.
    cx.disturb();
    let started = Instant::now();
    let answer = cx
        .line()
        .send::<wire::ValidateTargetRequest>(
            Subject::default(),
            Bytes::from(request.encode_to_vec()),
            wire::ValidateTargetRequest::SERVICE,
            Deadline::NotSent(Duration::from_secs(70)),
        )
        .await;
    let took = started.elapsed();
    expect(
        took <= Duration::from_secs(70),
        "ValidateTarget(silent) without a deadline",
        "an end within 70 s",
        format!("{took:?}: {:?}", answer.map_err(|status| status.code())),
    )
}

pub(crate) fn ta_10(run: &Run) -> Verdict {
    for call in run.recorder.calls() {
        let Outcome::Response { bytes, .. } = &call.outcome else {
            continue;
        };
        let limit = if call.method == "GetProviderInfo" {
            512 << 10
        } else {
            1 << 20
        };
        expect(
            bytes.len() <= limit,
            format!("{} in check {}", call.method, call.check),
            format!("a response of at most {limit} bytes"),
            format!("{} bytes", bytes.len()),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_greeting_is_well_formed() {
        let greeting = old_greeting();
        assert_eq!(usize::from(greeting[4]), greeting.len() - 5);
        assert_eq!(usize::from(greeting[8]), greeting.len() - 9);
        assert_eq!(greeting[9..11], [3, 2]);
    }
}
