use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use proto::request::{Caller, DeleteImage, EnsureImage, GetImage, ListImages};
use proto::{
    AdoptPolicy, Artifact, Compression, DiskFormat, HttpSource, ImageKey, ImageSpec, Observation,
    ProviderError, Reason, Recovery, Secrets, Source, SpecDigest, State, Target, WorkPolicy,
};
use tokio::time::sleep;

use super::*;
use crate::provider::Phase;
use fake::{Act, Fake, Object, digest};

mod fake;

/// Workers over a fake, and requests that read like speech.
struct Bench {
    fake: Arc<Fake>,
    workers: Workers,
    clock: Clock,
}

fn bench() -> Bench {
    over(Fake::default())
}

fn over(fake: Fake) -> Bench {
    let fake = Arc::new(fake);
    let clock = Clock::runtime("2026-11-25T12:00:00Z".parse().expect("an instant"));
    let workers = workers(&fake, clock);
    Bench {
        fake,
        workers,
        clock,
    }
}

fn workers(fake: &Arc<Fake>, clock: Clock) -> Workers {
    Workers::new(
        Arc::clone(fake) as Arc<dyn Provider>,
        Arc::new(fake.info()),
        clock,
    )
}

fn caller() -> Caller {
    Caller {
        request_id: String::new(),
        installation: "core".parse().expect("an installation"),
        core_version: String::new(),
    }
}

fn target() -> Target {
    Target::new(serde_json::Map::new(), Secrets::default(), "1".to_owned())
        .at("t-place".parse().expect("a place"))
}

fn key(number: u32) -> ImageKey {
    let spec_digest: SpecDigest = format!("sha256:{number:064}").parse().expect("a digest");
    ImageKey {
        key: format!("ni-image{number:04}").parse().expect("a key"),
        spec_digest: Some(spec_digest),
    }
}

fn spec(name: &str) -> ImageSpec {
    let source = Source::Http(HttpSource {
        urls: vec![
            "https://images.example.org/node.qcow2"
                .parse()
                .expect("an address"),
        ],
        ca_bundle_pem: Vec::new(),
    });
    let artifact = Artifact::new(source, Compression::None).with_digest(digest("a"));
    ImageSpec::new(name, artifact, DiskFormat::Qcow2)
}

fn ensure(number: u32) -> EnsureImage {
    EnsureImage {
        caller: caller(),
        target: target(),
        image_key: key(number),
        spec: spec("node"),
        policy: WorkPolicy::default(),
        publish: false,
    }
}

impl Bench {
    async fn ensure(&self, request: &EnsureImage) -> Result<Observation> {
        let redactor = Redactor::default();
        self.workers.ensure(request.clone(), redactor).await
    }

    async fn seen(&self, request: &EnsureImage) -> Observation {
        self.ensure(request).await.expect("an observation")
    }

    /// Calls until the image is at rest, as often as the answers say, for a day at most.
    async fn settled(&self, request: &EnsureImage) -> Observation {
        for _ in 0..1000 {
            let seen = self.seen(request).await;
            let waits = seen.state == State::Pending && seen.error.is_some();
            if matches!(seen.state, State::Active | State::Failed) || waits {
                return seen;
            }
            sleep(seen.next_call_delay.unwrap_or(Duration::from_secs(10))).await;
        }
        panic!("the image does not come to rest");
    }

    async fn get(&self, number: u32) -> Result<Observation> {
        let request = GetImage {
            caller: caller(),
            target: target(),
            image_key: key(number),
        };
        self.workers.get(request).await
    }

    async fn delete(&self, number: u32) -> Result<Observation> {
        let request = DeleteImage {
            caller: caller(),
            target: target(),
            image_key: key(number),
        };
        self.workers.delete(request).await
    }

    /// The same backend, and a process that knows nothing.
    fn restarted(&self) -> Self {
        Self {
            fake: Arc::clone(&self.fake),
            workers: workers(&self.fake, self.clock),
            clock: self.clock,
        }
    }
}

fn reason(error: Option<&ProviderError>) -> Option<Reason> {
    error.and_then(ProviderError::reason)
}

fn foreign(name: &str, digit: &str) -> Object {
    Object {
        marker: None,
        spec_digest: None,
        name: name.to_owned(),
        digest: digest(digit),
        phase: Phase::Complete,
    }
}

#[tokio::test(start_paused = true)]
async fn image_is_brought_once_whatever_is_called() {
    let bench = bench();
    let calls = (0..20).map(|_| async { bench.seen(&ensure(1)).await });
    let seen = futures::future::join_all(calls).await;
    assert!(seen.iter().all(|seen| seen.state == State::Transferring));
    let active = bench.settled(&ensure(1)).await;
    assert_eq!(active.state, State::Active);
    assert_eq!(active.attempt, 1);
    let verified = active.verification.clone().expect("a verification");
    assert_eq!(verified.observed_digest, digest("a").to_string());
    assert_eq!(bench.seen(&ensure(1)).await, active);
    assert_eq!(bench.get(1).await, Ok(active));
    assert_eq!(bench.fake.transfers(), 1);
}

#[tokio::test(start_paused = true)]
async fn work_goes_on_without_its_call() {
    let bench = bench();
    drop(tokio::time::timeout(Duration::from_millis(1), bench.ensure(&ensure(1))).await);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.seen(&ensure(1)).await.state, State::Active);
    assert_eq!(bench.fake.transfers(), 1);
}

#[tokio::test(start_paused = true)]
async fn another_spec_under_the_key_is_refused_and_nothing_touched() {
    let bench = bench();
    let mut other = ensure(1);
    other.image_key.spec_digest = key(2).spec_digest;
    bench.seen(&ensure(1)).await;
    let running = bench.ensure(&other).await.expect_err("a conflict");
    let active = bench.settled(&ensure(1)).await;
    let resting = bench.ensure(&other).await.expect_err("a conflict");
    for error in [running, resting] {
        assert_eq!(error.reason(), Some(Reason::ImageSpecConflict));
    }
    assert_eq!(bench.seen(&ensure(1)).await, active);
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_are_gone_before_the_image_is_failed() {
    let bench = bench();
    bench.fake.acts([Act::Spoil]);
    let failed = bench.settled(&ensure(1)).await;
    assert_eq!(failed.state, State::Failed);
    assert_eq!(reason(failed.error.as_ref()), Some(Reason::DigestMismatch));
    assert!(bench.fake.names().is_empty());
    for _ in 0..5 {
        assert_eq!(bench.seen(&ensure(1)).await.state, State::Failed);
    }
    assert_eq!(
        bench.get(1).await.expect("an observation").state,
        State::Failed
    );
    assert_eq!(bench.fake.transfers(), 1);
    let mut again = ensure(1);
    again.policy.attempt_floor = 5;
    let active = bench.settled(&again).await;
    assert_eq!((active.state, active.attempt), (State::Active, 5));
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_longer_and_longer_and_end_with_the_deadline() {
    let bench = bench();
    let unavailable = ProviderError::source_unavailable("the host is away");
    bench.fake.acts(vec![Act::Fail(unavailable); 100]);
    let mut request = ensure(1);
    request.policy.deadline = Some(bench.clock.now() + Duration::from_mins(30));
    let first = bench.settled(&request).await;
    assert_eq!(
        reason(first.error.as_ref()),
        Some(Reason::SourceUnavailable)
    );
    let delay = first.next_call_delay.expect("a delay");
    assert!(delay <= Duration::from_secs(2), "{delay:?}");
    // Too early: no attempt.
    assert_eq!(bench.seen(&request).await.attempt, 1);
    assert_eq!(bench.fake.transfers(), 1);
    let failed = loop {
        let seen = bench.seen(&request).await;
        if seen.state == State::Failed {
            break seen;
        }
        sleep(seen.next_call_delay.unwrap_or_default()).await;
    };
    let error = failed.error.expect("a cause");
    assert_eq!(error.reason(), Some(Reason::DeadlinePassed));
    let last = error.metadata().get("last_reason").map(String::as_str);
    assert_eq!(last, Some("SOURCE_UNAVAILABLE"));
    // One a minute, once the curve is at its end.
    assert!(
        (25..60).contains(&bench.fake.transfers()),
        "{}",
        bench.fake.transfers()
    );
}

#[tokio::test(start_paused = true)]
async fn new_secrets_are_tried_at_once() {
    let bench = bench();
    bench
        .fake
        .acts([Act::Fail(ProviderError::source_denied("no"))]);
    let denied = bench.settled(&ensure(1)).await;
    assert_eq!(denied.state, State::Pending);
    let mut request = ensure(1);
    request.target.secrets_version = "2".to_owned();
    assert_eq!(bench.settled(&request).await.state, State::Active);
}

#[tokio::test(start_paused = true)]
async fn silent_transfer_is_given_up_and_tried_again() {
    let bench = bench();
    bench.fake.acts([Act::Hang]);
    let mut request = ensure(1);
    request.policy.stall_timeout = Duration::from_secs(10);
    let stalled = bench.settled(&request).await;
    assert_eq!(stalled.state, State::Pending);
    assert_eq!(
        reason(stalled.error.as_ref()),
        Some(Reason::TransferStalled)
    );
    assert_eq!(bench.fake.running.load(Ordering::SeqCst), 0);
    sleep(stalled.next_call_delay.expect("a delay")).await;
    let active = bench.settled(&request).await;
    // What is brought by the second attempt shows no trouble of the first one.
    assert_eq!(
        (active.state, active.attempt, active.error),
        (State::Active, 2, None)
    );
}

#[tokio::test(start_paused = true)]
async fn slow_transfers_and_imports_are_no_stalls_but_have_a_deadline() {
    for act in [Act::Crawl, Act::Import] {
        let bench = bench();
        bench.fake.acts([act]);
        let mut request = ensure(1);
        request.policy.deadline = Some(bench.clock.now() + Duration::from_mins(20));
        bench.seen(&request).await;
        sleep(Duration::from_mins(19)).await;
        let running = bench.seen(&request).await;
        assert!(matches!(
            running.state,
            State::Transferring | State::Processing
        ));
        sleep(Duration::from_mins(2)).await;
        let failed = bench.seen(&request).await;
        assert_eq!(reason(failed.error.as_ref()), Some(Reason::DeadlinePassed));
        assert_eq!(bench.fake.running.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn passed_deadline_starts_nothing_and_spoils_nothing() {
    let bench = bench();
    let mut late = ensure(1);
    late.policy.deadline = Some(bench.clock.now());
    let failed = bench.seen(&late).await;
    assert_eq!(reason(failed.error.as_ref()), Some(Reason::DeadlinePassed));
    assert_eq!(bench.fake.transfers(), 0);
    assert_eq!(failed.attempt, 1);
    bench.settled(&ensure(2)).await;
    let mut late = ensure(2);
    late.policy.deadline = Some(bench.clock.now());
    late.policy.verified_since = Some(bench.clock.now() + Duration::from_secs(1));
    assert_eq!(bench.seen(&late).await.state, State::Active);
}

#[tokio::test(start_paused = true)]
async fn panic_of_the_author_is_an_attempt_that_did_not_succeed() {
    let bench = bench();
    bench.fake.acts([Act::Panic]);
    let seen = bench.settled(&ensure(1)).await;
    let error = seen.error.expect("a cause");
    assert_eq!(error.reason(), Some(Reason::InternalBug));
    assert_eq!(error.recovery(), Recovery::FAST);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.settled(&ensure(1)).await.state, State::Active);
}

#[tokio::test(start_paused = true)]
async fn no_more_transfers_run_than_there_are_slots() {
    let bench = over(Fake {
        slots: Some(2),
        ..Fake::default()
    });
    let mut states = Vec::new();
    for number in 1..=5 {
        states.push(bench.seen(&ensure(number)).await.state);
    }
    assert_eq!(states[2..], [State::Pending; 3]);
    for number in 1..=5 {
        assert_eq!(bench.settled(&ensure(number)).await.state, State::Active);
    }
    assert_eq!(bench.fake.most.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn running_transfer_gets_the_newest_credentials() {
    let bench = bench();
    bench.fake.acts([Act::Crawl]);
    bench.seen(&ensure(1)).await;
    sleep(Duration::from_secs(3)).await;
    let mut request = ensure(1);
    request.target.secrets_version = "2".to_owned();
    bench.seen(&request).await;
    sleep(Duration::from_secs(3)).await;
    let secrets = bench.fake.lock().secrets.clone();
    assert_eq!(secrets.first().map(String::as_str), Some("1"));
    assert_eq!(secrets.last().map(String::as_str), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn deletion_stops_the_work() {
    let bench = bench();
    bench.fake.acts([Act::Crawl]);
    bench.seen(&ensure(1)).await;
    sleep(Duration::from_secs(3)).await;
    let gone = bench.delete(1).await.expect("an observation");
    assert_eq!(gone.state, State::Absent);
    assert_eq!(bench.fake.running.load(Ordering::SeqCst), 0);
    let unknown = bench.get(1).await.expect_err("nothing");
    assert_eq!(unknown.reason(), Some(Reason::ImageNotFound));
    assert_eq!(bench.settled(&ensure(1)).await.state, State::Active);
    for _ in 0..2 {
        assert_eq!(
            bench.delete(1).await.map(|seen| seen.state),
            Ok(State::Absent)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn deletion_answers_what_the_backend_says() {
    let bench = bench();
    bench.settled(&ensure(1)).await;
    bench.fake.lock().in_use = true;
    let used = bench.delete(1).await.expect_err("in use");
    assert_eq!(used.reason(), Some(Reason::ImageInUse));
    let refused = ProviderError::backend_auth_failed("wrong password");
    bench.fake.lock().down = Some(refused.clone());
    assert_eq!(bench.delete(1).await, Err(refused.clone()));
    assert_eq!(bench.get(1).await, Err(refused));
    bench.fake.lock().down = None;
    bench.fake.lock().in_use = false;
    let mut other = key(1);
    other.spec_digest = key(2).spec_digest;
    let request = DeleteImage {
        caller: caller(),
        target: target(),
        image_key: other,
    };
    let conflict = bench.workers.delete(request).await.expect_err("a conflict");
    assert_eq!(conflict.reason(), Some(Reason::ImageSpecConflict));
    assert_eq!(bench.get(1).await.map(|seen| seen.state), Ok(State::Active));
}

#[tokio::test(start_paused = true)]
async fn names_are_given_without_two_ever_having_one() {
    let bench = bench();
    let publish = |number| EnsureImage {
        publish: true,
        ..ensure(number)
    };
    assert!(bench.settled(&publish(1)).await.published);
    for round in 0..6 {
        let (wanted, other) = if round % 2 == 0 { (2, 1) } else { (1, 2) };
        bench.settled(&publish(wanted)).await;
        assert!(bench.get(wanted).await.expect("seen").published);
        assert!(!bench.get(other).await.expect("seen").published);
        // No claim changes nothing.
        assert!(bench.seen(&ensure(wanted)).await.published);
    }
    for names in &bench.fake.lock().history {
        assert!(
            names.iter().filter(|name| *name == "node").count() <= 1,
            "{names:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn foreign_image_with_the_name_is_left_alone() {
    let bench = bench();
    bench.fake.put("foreign", foreign("node", "c"));
    let request = EnsureImage {
        publish: true,
        ..ensure(1)
    };
    let seen = bench.settled(&request).await;
    assert_eq!((seen.state, seen.published), (State::Active, false));
    assert_eq!(reason(seen.error.as_ref()), Some(Reason::ForeignObject));
    assert_eq!(bench.fake.lock().objects["foreign"].name, "node");
    bench.fake.lock().objects.remove("foreign");
    let seen = bench.seen(&request).await;
    assert_eq!((seen.published, seen.error), (true, None));
}

#[tokio::test(start_paused = true)]
async fn only_the_very_image_is_adopted() {
    for (objects, adopted) in [
        (vec![foreign("node", "a")], true),
        (vec![foreign("node", "c")], false),
        (vec![foreign("node", "a"), foreign("node", "a")], false),
        (vec![foreign("other", "a")], false),
    ] {
        let bench = bench();
        for (number, object) in objects.into_iter().enumerate() {
            bench.fake.put(&format!("foreign-{number}"), object);
        }
        let mut request = ensure(1);
        request.policy.adopt = AdoptPolicy::Matching;
        let seen = bench.settled(&request).await;
        assert_eq!(seen.state, State::Active);
        assert_eq!(seen.published, adopted);
        assert_eq!(bench.fake.transfers(), usize::from(!adopted));
        let never = bench.restarted();
        assert_eq!(
            never.settled(&ensure(1)).await.provider_image_id,
            seen.provider_image_id
        );
    }
}

#[tokio::test(start_paused = true)]
async fn new_process_goes_on_from_what_the_backend_has() {
    for (phase, removed) in [
        (None, false),
        (Some(Phase::Partial), true),
        (Some(Phase::Broken), true),
        (Some(Phase::Complete), false),
    ] {
        let bench = bench();
        if let Some(phase) = phase {
            let marker = Marker::new("fake", caller().installation, key(1));
            let mut object = foreign("node~image0001", "a");
            object.marker = Some(marker);
            object.spec_digest = key(1).spec_digest;
            object.phase = phase;
            bench.fake.put("old", object);
        }
        let active = bench.settled(&ensure(1)).await;
        assert_eq!(active.state, State::Active, "{phase:?}");
        assert_eq!(active.attempt, if removed { 2 } else { 1 }, "{phase:?}");
        assert_eq!(
            active.provider_image_id == "old",
            phase == Some(Phase::Complete)
        );
        assert_eq!(bench.fake.lock().objects.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn spoilt_image_is_found_out() {
    let bench = bench();
    let publish = EnsureImage {
        publish: true,
        ..ensure(1)
    };
    bench.settled(&publish).await;
    for object in bench.fake.lock().objects.values_mut() {
        object.digest = digest("c");
    }
    assert_eq!(
        bench.get(1).await.map(|seen| seen.state),
        Ok(State::Pending)
    );
    let failed = bench.settled(&publish).await;
    assert_eq!((failed.state, failed.published), (State::Failed, false));
    assert_eq!(reason(failed.error.as_ref()), Some(Reason::DigestMismatch));
    assert!(bench.fake.names().is_empty());
}

#[tokio::test(start_paused = true)]
async fn vanished_image_is_brought_again() {
    let bench = bench();
    bench.settled(&ensure(1)).await;
    bench.fake.lock().objects.clear();
    let unknown = bench.get(1).await.expect_err("nothing");
    assert_eq!(unknown.reason(), Some(Reason::ImageNotFound));
    let active = bench.settled(&ensure(1)).await;
    assert_eq!((active.state, active.attempt), (State::Active, 2));
}

#[tokio::test(start_paused = true)]
async fn verification_is_repeated_when_asked_for() {
    let bench = bench();
    let first = bench.settled(&ensure(1)).await;
    sleep(Duration::from_mins(1)).await;
    let mut request = ensure(1);
    request.policy.verified_since = Some(bench.clock.now());
    let second = bench.settled(&request).await;
    assert_eq!(second.provider_image_id, first.provider_image_id);
    let time = |seen: &Observation| seen.verification.as_ref().map(|done| done.verify_time);
    assert!(time(&second) > time(&first));
    assert_eq!(bench.fake.transfers(), 1);
}

#[tokio::test(start_paused = true)]
async fn all_images_are_listed_page_by_page() {
    let bench = bench();
    for number in 1..=4 {
        bench.settled(&ensure(number)).await;
    }
    bench.fake.acts([Act::Crawl]);
    bench.seen(&ensure(5)).await;
    let mut token = String::new();
    let mut keys = Vec::new();
    loop {
        let request = ListImages {
            caller: caller(),
            target: target(),
            page_size: 2,
            page_token: token,
        };
        let (page, next) = bench.workers.list(request).await.expect("a page");
        keys.extend(
            page.into_iter()
                .map(|seen| (seen.image_key.key, seen.state)),
        );
        token = next;
        if token.is_empty() {
            break;
        }
    }
    let expected = (1..=5).map(|number| {
        let state = if number == 5 {
            State::Transferring
        } else {
            State::Active
        };
        (key(number).key, state)
    });
    assert_eq!(keys, expected.collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn backend_that_is_away_is_told_as_it_is() {
    let bench = bench();
    let away = ProviderError::backend_unavailable("nobody answers");
    bench.fake.lock().down = Some(away.clone());
    assert_eq!(bench.ensure(&ensure(1)).await, Err(away));
    assert_eq!(bench.fake.transfers(), 0);
}

#[tokio::test(start_paused = true)]
async fn stop_ends_all_work() {
    let bench = bench();
    bench.fake.acts([Act::Crawl]);
    bench.seen(&ensure(1)).await;
    bench.workers.stop().await;
    assert_eq!(bench.fake.running.load(Ordering::SeqCst), 0);
    let refused = bench.ensure(&ensure(1)).await.expect_err("stopping");
    assert_eq!(refused.reason(), Some(Reason::ProviderNotReady));
}

#[tokio::test(start_paused = true)]
async fn transfers_are_counted_while_they_run_and_their_bytes_for_good() {
    let bench = bench();
    let load = bench.workers.load();
    bench.fake.lock().acts.push_back(Act::Crawl);
    assert_eq!(bench.seen(&ensure(1)).await.state, State::Transferring);
    sleep(Duration::from_millis(5500)).await;
    assert_eq!((load.transfers(), load.transferred_bytes()), (1, 5));
    bench.delete(1).await.expect("an observation");
    assert_eq!((load.transfers(), load.transferred_bytes()), (0, 5));
    bench.settled(&ensure(2)).await;
    assert_eq!((load.transfers(), load.transferred_bytes()), (0, 12));
}
