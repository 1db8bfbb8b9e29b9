//! ER: the form of every failure.

use std::time::Duration;

use prost::Message as _;
use proto::wire::{self, ErrorReason as Reason};
use tonic::{Code, Status};

use crate::conformance::{
    case::Case,
    check::{Verdict, expect, failed, missing},
    recorder::{Call, Outcome},
    run::{Run, Where, word},
    status::{DOMAIN, Failure, code_of, reason_name, reason_named},
};

/// Statuses that the provider itself gave to calls of which nothing was disturbed.
fn statuses(run: &Run) -> Vec<(Call, Status)> {
    run.recorder
        .calls()
        .into_iter()
        .filter(|call| !call.disturbed)
        .filter_map(|call| match &call.outcome {
            Outcome::Refused(status) => {
                let status = status.clone();
                Some((call, status))
            }
            _ => None,
        })
        // The one status that may be bare (contract, section 4, master rule).
        .filter(|(_, status)| {
            status.code() != Code::Unimplemented || !Failure::from(status).infos().is_empty()
        })
        .collect()
}

fn sent(call: &Call) -> String {
    format!(
        "{} in check {} (key \"{}\")",
        call.method, call.check, call.subject.key
    )
}

pub(crate) fn er_01(run: &Run) -> Verdict {
    for (call, status) in statuses(run) {
        let failure = Failure::from(&status);
        expect(
            failure.infos().len() == 1,
            sent(&call),
            format!("exactly one ErrorInfo of the domain \"{DOMAIN}\" in the details"),
            format!("{} of them: {failure}", failure.infos().len()),
        )?;
    }
    Ok(())
}

pub(crate) fn er_02(run: &Run) -> Verdict {
    for (call, status) in statuses(run) {
        let failure = Failure::from(&status);
        for info in failure.infos() {
            let Some(reason) = reason_named(&info.reason) else {
                return Err(failed(
                    sent(&call),
                    "a reason of errors.proto",
                    format!("\"{}\"", info.reason),
                ));
            };
            expect(
                code_of(reason).0 == failure.code,
                sent(&call),
                format!("{:?} with {}", code_of(reason).0, reason_name(reason)),
                &failure,
            )?;
        }
    }
    for call in run.recorder.calls() {
        for observation in call.observations() {
            let Some(failure) = observation.error.as_ref().map(Failure::from) else {
                continue;
            };
            let good = failure
                .reason()
                .is_some_and(|reason| code_of(reason).0 == failure.code);
            expect(
                good,
                sent(&call),
                "an observation whose error has one registered reason and its code",
                failure,
            )?;
        }
    }
    Ok(())
}

/// Length of a message as it travels.
fn encoded_length(message: &str) -> usize {
    message
        .bytes()
        .map(|byte| {
            if (0x20..0x7f).contains(&byte) && byte != b'%' {
                1
            } else {
                3
            }
        })
        .sum()
}

pub(crate) fn er_03(run: &Run) -> Verdict {
    for (call, status) in statuses(run) {
        let message = encoded_length(status.message());
        expect(
            (1..=1024).contains(&message),
            sent(&call),
            "a message of 1 byte to 1 KiB, percent-encoded",
            format!("{message} bytes: {}", Failure::from(&status)),
        )?;
        let details = status.details().len();
        expect(
            details <= 4096,
            sent(&call),
            "details of at most 4 KiB",
            format!("{details} bytes"),
        )?;
        let metadata: usize = status
            .metadata()
            .clone()
            .into_headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        let trailers = message + details.div_ceil(3) * 4 + metadata + 128;
        expect(
            trailers < 8192,
            sent(&call),
            "trailers of less than 8 KiB",
            format!("{trailers} bytes"),
        )?;
    }
    Ok(())
}

pub(crate) async fn er_04(cx: &Case) -> Verdict {
    let key = wire::ImageKey {
        key: format!("ni-{}", word(40)),
        spec_digest: String::new(),
    };
    let good = wire::GetImageRequest {
        caller: Some(cx.caller()),
        target: Some(cx.run.target(Where::Good)?),
        image_key: Some(key),
    };
    let without_key = wire::GetImageRequest {
        image_key: None,
        ..good.clone()
    };
    for (name, request) in [
        ("GetImage of an unknown key", good),
        ("GetImage without a key", without_key),
    ] {
        let sent = format!("{name}, three times");
        let mut first: Option<Failure> = None;
        for _ in 0..3 {
            let failure = match cx.line().call(&request).await {
                Ok(_) => return Err(failed(sent, "a failure", "OK")),
                Err(status) => Failure::from(&status),
            };
            match &first {
                None => first = Some(failure),
                Some(first) => expect(
                    first.code == failure.code
                        && first.reason() == failure.reason()
                        && first.message == failure.message,
                    &sent,
                    format!("the same code, reason and message: {first}"),
                    failure,
                )?,
            }
        }
    }
    Ok(())
}

/// Whether a path leads to a field of the request, as the proto files spell it.
fn is_path(method: &str, path: &str) -> bool {
    let Ok(files) = prost_types::FileDescriptorSet::decode(wire::FILE_DESCRIPTOR_SET) else {
        return false;
    };
    let find = |name: &str| {
        let name = name.rsplit('.').next().unwrap_or_default();
        files
            .file
            .iter()
            .filter(|file| file.package() == wire::PACKAGE)
            .flat_map(|file| &file.message_type)
            .find(|message| message.name() == name)
    };
    let mut message = find(&format!("{method}Request"));
    let mut parts = path.split('.');
    while let Some(part) = parts.next() {
        let name = part.split('[').next().unwrap_or_default();
        let Some(current) = message else {
            return false;
        };
        if current.oneof_decl.iter().any(|oneof| oneof.name() == name) {
            return parts.next().is_none();
        }
        let Some(field) = current.field.iter().find(|field| field.name() == name) else {
            return false;
        };
        message = find(field.type_name());
        if message.is_none() {
            // A scalar ends the path; what is inside of maps, structs and well-known types has its own names.
            return field.type_name.is_some() || parts.next().is_none();
        }
    }
    true
}

pub(crate) fn er_05(run: &Run) -> Verdict {
    let answers: Vec<_> = statuses(run)
        .into_iter()
        .map(|(call, status)| (call, Failure::from(&status)))
        .filter(|(_, failure)| failure.reason() == Some(Reason::InvalidField))
        .collect();
    if answers.is_empty() {
        return Err(missing("no call was answered with INVALID_FIELD"));
    }
    for (call, failure) in answers {
        let fields = failure.fields();
        let wrong = fields.iter().find(|path| !is_path(call.method, path));
        expect(
            !fields.is_empty() && wrong.is_none(),
            sent(&call),
            format!(
                "BadRequest with the path of a field of {}Request, such as \"image_key.key\"",
                call.method
            ),
            format!("{fields:?}: {failure}"),
        )?;
    }
    Ok(())
}

pub(crate) fn er_06(run: &Run) -> Verdict {
    for (call, status) in statuses(run) {
        let failure = Failure::from(&status);
        let soon = failure.code == Code::Unavailable
            || matches!(
                failure.reason(),
                Some(Reason::ProviderBusy | Reason::OperationInProgress)
            );
        if !soon || failure.infos().is_empty() {
            continue;
        }
        let delay = failure
            .retry_delay()
            .and_then(|delay| Duration::try_from(delay).ok());
        expect(
            delay.is_some_and(|delay| delay > Duration::ZERO && delay <= Duration::from_mins(15)),
            sent(&call),
            "RetryInfo with a delay of more than nothing and at most 15 minutes",
            format!("{delay:?}: {failure}"),
        )?;
    }
    Ok(())
}

pub(crate) fn er_07(run: &Run) -> Verdict {
    const NEVER: [Code; 5] = [
        Code::Cancelled,
        Code::Unknown,
        Code::OutOfRange,
        Code::DataLoss,
        Code::DeadlineExceeded,
    ];
    for call in run.recorder.calls() {
        if let Outcome::Refused(status) = &call.outcome {
            let failure = Failure::from(status);
            expect(
                !NEVER.contains(&failure.code) || failure.infos().is_empty(),
                sent(&call),
                "no status of CANCELLED, UNKNOWN, OUT_OF_RANGE, DATA_LOSS or DEADLINE_EXCEEDED with an ErrorInfo",
                failure,
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_proto_files() {
        for path in [
            "image_key.key",
            "spec.artifact.http.urls[3]",
            "spec.artifact.source",
            "spec.properties[\"a.b\"]",
            "target.config.endpoint",
            "target.secrets.password",
            "policy.stall_timeout",
            "caller",
        ] {
            assert!(is_path("EnsureImage", path), "{path}");
        }
        for path in [
            "",
            "imageKey.key",
            "spec.artifact.urls",
            "publish.x",
            "page_size",
        ] {
            assert!(!is_path("EnsureImage", path), "{path}");
        }
        assert!(is_path("ListImages", "page_size"));
    }

    #[test]
    fn messages_are_measured_as_they_travel() {
        assert_eq!(encoded_length("a b%"), 6);
        assert_eq!(encoded_length("ü"), 6);
    }
}
