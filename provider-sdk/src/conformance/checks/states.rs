//! EN-16, EN-17: the states and the progress of all images of a run.

use std::collections::{BTreeMap, BTreeSet};

use proto::wire::{self, image_observation::State};

use crate::conformance::{
    check::{Verdict, expect, failed},
    recorder::Call,
    run::Run,
    status::{brief, state, state_name},
};

/// The calls of one key that follow each other: what overlaps has no order.
fn in_order<'a>(calls: &[&'a Call]) -> Vec<(&'a Call, &'a Call)> {
    let mut calls = calls.to_vec();
    calls.sort_by_key(|call| call.started);
    calls
        .windows(2)
        .filter(|pair| pair[0].ended <= pair[1].started)
        .map(|pair| (pair[0], pair[1]))
        .collect()
}

/// Calls by installation, target and key.
fn by_image(calls: &[Call]) -> BTreeMap<(String, String, String), Vec<&Call>> {
    let mut images: BTreeMap<_, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        if call.subject.key.is_empty() || call.method == "ListImages" {
            continue;
        }
        images
            .entry((
                call.subject.installation.clone(),
                call.subject.target.clone(),
                call.subject.key.clone(),
            ))
            .or_default()
            .push(call);
    }
    images
}

/// What any observation has to hold.
fn observation_is_sound(call: &Call, image: &wire::ImageObservation) -> Verdict {
    let sent = format!("{} in check {}", call.method, call.check);
    let state = state(image);
    let problem = match state {
        State::Unspecified => Some("no state of the contract"),
        State::Absent if call.method != "DeleteImage" => {
            Some("ABSENT, which only DeleteImage answers")
        }
        State::Processing | State::Verifying | State::Active
            if image.provider_image_id.is_empty() =>
        {
            Some("no provider_image_id, which is required from PROCESSING on")
        }
        State::Active if image.verification.is_none() => {
            Some("ACTIVE without a finished verification")
        }
        State::Failed if image.error.is_none() => Some("FAILED without an error"),
        State::Pending | State::Transferring | State::Processing | State::Verifying
            if image.published =>
        {
            Some("published before ACTIVE")
        }
        State::Absent | State::Deleting => None,
        _ if image.attempt < 1 => Some("an attempt of less than 1"),
        _ => None,
    };
    match problem {
        None => Ok(()),
        Some(problem) => Err(failed(
            sent,
            "an observation that contract, section 3 allows",
            format!("{problem}: {}", brief(image)),
        )),
    }
}

pub(crate) fn en_16(run: &Run) -> Verdict {
    let calls = run.recorder.calls();
    for call in &calls {
        for image in call.observations() {
            observation_is_sound(call, &image)?;
        }
    }
    // Where the suite meddled with process or backend, anything may have happened in between.
    let disturbed: BTreeSet<_> = calls
        .iter()
        .filter(|call| call.disturbed)
        .map(|call| call.check)
        .collect();
    for calls in by_image(&calls).values() {
        if calls.iter().any(|call| disturbed.contains(call.check)) {
            continue;
        }
        for (before, after) in in_order(calls) {
            let (Some(was), Some(is)) = (
                before.observations().into_iter().next(),
                after.observations().into_iter().next(),
            ) else {
                continue;
            };
            if !may_become(&was, &is, after) {
                return Err(failed(
                    format!(
                        "{} after {} in check {}",
                        after.method, before.method, after.check
                    ),
                    format!("a state that may follow on {}", state_name(state(&was))),
                    format!("{}, before it {}", brief(&is), brief(&was)),
                ));
            }
        }
    }
    Ok(())
}

/// Whether one observation may follow on another when `call` came between them (contract, section 3, transitively).
fn may_become(was: &wire::ImageObservation, is: &wire::ImageObservation, call: &Call) -> bool {
    let (from, to) = (state(was), state(is));
    let wish = call.subject.wish;
    let deletes = call.method == "DeleteImage";
    if deletes {
        return matches!(to, State::Deleting | State::Absent);
    }
    match from {
        // Only EnsureImage brings something out of nothing.
        State::Absent | State::Deleting => wish.is_some() || matches!(to, State::Deleting),
        State::Active => match to {
            State::Active => true,
            State::Verifying | State::Failed | State::Pending => {
                wish.is_some_and(|wish| wish.verifies_again)
            }
            _ => false,
        },
        State::Failed => {
            to == State::Failed || wish.is_some_and(|wish| wish.attempt_floor > was.attempt)
        }
        State::Pending | State::Transferring | State::Processing | State::Verifying => {
            !matches!(to, State::Absent | State::Deleting | State::Unspecified)
                && is.attempt >= was.attempt
        }
        State::Unspecified => true,
    }
}

pub(crate) fn en_17(run: &Run) -> Verdict {
    let calls = run.recorder.calls();
    for call in &calls {
        for image in call.observations() {
            if let Some(progress) = &image.progress {
                expect(
                    progress.bytes_done >= 0
                        && progress.bytes_total >= 0
                        && (progress.bytes_total == 0
                            || progress.bytes_done <= progress.bytes_total),
                    format!("{} in check {}", call.method, call.check),
                    "bytes_done from 0 to bytes_total",
                    brief(&image),
                )?;
            }
        }
    }
    for calls in by_image(&calls).values() {
        for (before, after) in in_order(calls) {
            let (Some(was), Some(is)) = (
                before.observations().into_iter().next(),
                after.observations().into_iter().next(),
            ) else {
                continue;
            };
            let done = |image: &wire::ImageObservation| {
                image
                    .progress
                    .as_ref()
                    .map_or(0, |progress| progress.bytes_done)
            };
            // A process that was restarted counts anew, in the same attempt if it goes on with it.
            let same = was.attempt == is.attempt
                && was.state == is.state
                && !before.disturbed
                && !after.disturbed;
            expect(
                !same || done(&is) >= done(&was),
                format!("{} twice in check {}", after.method, after.check),
                "bytes_done that never shrinks within an attempt and state",
                format!("{}, before it {}", brief(&is), brief(&was)),
            )?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::conformance::recorder::{self, Outcome, Subject};

    fn image(state: State, attempt: i32) -> wire::ImageObservation {
        wire::ImageObservation {
            state: state.into(),
            attempt,
            ..wire::ImageObservation::default()
        }
    }

    fn call(method: &'static str, wish: Option<recorder::Wish>) -> Call {
        Call {
            check: "EN-16",
            method,
            subject: Subject {
                wish,
                ..Subject::default()
            },
            started: Instant::now(),
            ended: Instant::now(),
            disturbed: false,
            outcome: Outcome::NoAnswer,
        }
    }

    #[test]
    fn states_follow_on_each_other_as_the_contract_says() {
        let plain = recorder::Wish {
            attempt_floor: 0,
            verifies_again: false,
        };
        let ensure = call("EnsureImage", Some(plain));
        let raised = call(
            "EnsureImage",
            Some(recorder::Wish {
                attempt_floor: 2,
                ..plain
            }),
        );
        let verify = call(
            "EnsureImage",
            Some(recorder::Wish {
                verifies_again: true,
                ..plain
            }),
        );
        let get = call("GetImage", None);
        let delete = call("DeleteImage", None);
        for (from, to, by, allowed) in [
            (State::Pending, State::Active, &get, true),
            (State::Transferring, State::Pending, &ensure, true),
            (State::Active, State::Transferring, &ensure, false),
            (State::Active, State::Verifying, &ensure, false),
            (State::Active, State::Verifying, &verify, true),
            (State::Active, State::Absent, &get, false),
            (State::Failed, State::Pending, &ensure, false),
            (State::Failed, State::Pending, &raised, true),
            (State::Absent, State::Pending, &get, false),
            (State::Absent, State::Transferring, &ensure, true),
            (State::Active, State::Deleting, &delete, true),
            (State::Active, State::Active, &delete, false),
            (State::Transferring, State::Deleting, &get, false),
        ] {
            assert_eq!(
                may_become(&image(from, 1), &image(to, 1), by),
                allowed,
                "{from:?} {to:?} {}",
                by.method
            );
        }
        assert!(!may_become(
            &image(State::Pending, 2),
            &image(State::Pending, 1),
            &ensure
        ));
    }
}
