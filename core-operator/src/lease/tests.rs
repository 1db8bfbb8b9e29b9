//! Candidates against a lease server in memory, whose connections can be cut one by one; time is virtual.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::metrics::Metrics;

/// What happens to the requests of one candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Link {
    Up,
    /// Requests never arrive and are never answered.
    Cut,
    /// Requests arrive and take effect, the answers do not come back.
    Deaf,
    /// The API server answers 500.
    Broken,
    /// Requests take effect at once, the answers come a second later.
    Late,
}

/// The lease server: compare-and-swap on `resourceVersion`, as the real one.
#[derive(Default)]
struct Server {
    lease: Mutex<Option<LeaseObject>>,
    version: Mutex<u64>,
    requests: Mutex<Vec<(String, Method)>>,
}

impl Server {
    fn answer(&self, method: &Method, body: &[u8]) -> (StatusCode, serde_json::Value) {
        let failure = |code: StatusCode, reason: &str| {
            (
                code,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code.as_u16()}),
            )
        };
        let mut stored = self.lease.lock().unwrap();
        match (method, stored.clone()) {
            (&Method::GET, Some(lease)) => (StatusCode::OK, serde_json::to_value(lease).unwrap()),
            (&Method::GET | &Method::PUT, None) => failure(StatusCode::NOT_FOUND, "NotFound"),
            (&Method::POST, Some(_)) => failure(StatusCode::CONFLICT, "AlreadyExists"),
            (&Method::POST | &Method::PUT, current) => {
                let mut lease: LeaseObject = serde_json::from_slice(body).unwrap();
                let expected = current
                    .as_ref()
                    .and_then(|lease| lease.metadata.resource_version.clone());
                if lease.metadata.resource_version != expected {
                    return failure(StatusCode::CONFLICT, "Conflict");
                }
                // A write that changes nothing leaves the version as it is.
                if current.as_ref() != Some(&lease) {
                    let mut version = self.version.lock().unwrap();
                    *version += 1;
                    lease.metadata.resource_version = Some(version.to_string());
                }
                *stored = Some(lease.clone());
                (StatusCode::OK, serde_json::to_value(lease).unwrap())
            }
            other => panic!("unexpected request {other:?}"),
        }
    }

    fn holder(&self) -> Option<String> {
        self.lease
            .lock()
            .unwrap()
            .as_ref()
            .and_then(holder)
            .map(str::to_owned)
    }

    /// Changes the record as a stranger would.
    fn edit(&self, change: impl FnOnce(&mut LeaseObject)) {
        let mut stored = self.lease.lock().unwrap();
        let lease = stored.get_or_insert_with(LeaseObject::default);
        change(lease);
        let mut version = self.version.lock().unwrap();
        *version += 1;
        lease.metadata.resource_version = Some(version.to_string());
    }

    fn requests_of(&self, who: &str) -> Vec<Method> {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|(from, _)| from == who)
            .map(|(_, method)| method.clone())
            .collect()
    }
}

/// A candidate's own way to the server.
#[derive(Clone)]
struct Wire(Arc<Mutex<Link>>);

impl Wire {
    fn set(&self, link: Link) {
        *self.0.lock().unwrap() = link;
    }
}

fn connect(server: &Arc<Server>, who: &str) -> (Client, Wire) {
    let wire = Wire(Arc::new(Mutex::new(Link::Up)));
    let (server, link, who) = (server.clone(), wire.clone(), who.to_owned());
    let service = tower::service_fn(move |request: Request<Body>| {
        let (server, state, who) = (server.clone(), *link.0.lock().unwrap(), who.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            server
                .requests
                .lock()
                .unwrap()
                .push((who, parts.method.clone()));
            let (code, answer) = match state {
                Link::Cut => std::future::pending().await,
                Link::Broken => (
                    StatusCode::INTERNAL_SERVER_ERROR,
                    json!({"kind": "Status", "code": 500}),
                ),
                Link::Up => server.answer(&parts.method, &body),
                Link::Late => {
                    let answer = server.answer(&parts.method, &body);
                    sleep(seconds(1)).await;
                    answer
                }
                Link::Deaf => {
                    server.answer(&parts.method, &body);
                    std::future::pending().await
                }
            };
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    (Client::new(service, "operators"), wire)
}

fn candidate(server: &Arc<Server>, who: &str) -> (Lease, Wire) {
    let (client, wire) = connect(server, who);
    (
        Lease::new(client, LeaseConfig::new("operators", who)).unwrap(),
        wire,
    )
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn acquire(lease: Lease) -> Leadership {
    lease.acquire(&CancellationToken::new()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_free_lease_is_acquired_at_once_and_kept_with_one_put_per_interval() {
    let server = Arc::new(Server::default());
    let (lease, _) = candidate(&server, "a");
    let start = Instant::now();
    let leadership = acquire(lease).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(server.requests_of("a"), [Method::GET, Method::POST]);
    sleep(seconds(61)).await;
    assert!(leadership.fence().holds());
    let renewals = server.requests_of("a").split_off(2);
    assert_eq!(renewals, vec![Method::PUT; 30]);
}

#[tokio::test(start_paused = true)]
async fn take_over_after_release_needs_one_look() {
    let server = Arc::new(Server::default());
    let (a, _) = candidate(&server, "a");
    let (b, _) = candidate(&server, "b");
    let leadership = acquire(a).await;
    let successor = tokio::spawn(acquire(b));
    sleep(seconds(30)).await;
    let fence = leadership.fence();
    leadership.release().await;
    assert!(!fence.holds());
    assert_eq!(server.holder(), None);
    let released = Instant::now();
    let _leadership = successor.await.unwrap();
    assert!(
        released.elapsed() <= RETRY.mul_f64(1.2),
        "{:?}",
        released.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn take_over_after_death_waits_for_the_lease_duration() {
    let server = Arc::new(Server::default());
    let (a, wire) = candidate(&server, "a");
    let (b, _) = candidate(&server, "b");
    let leadership = acquire(a).await;
    let successor = tokio::spawn(acquire(b));
    sleep(seconds(7)).await;
    wire.set(Link::Cut);
    let cut = Instant::now();
    leadership.lost().cancelled().await;
    assert!(cut.elapsed() <= RENEW_DEADLINE, "{:?}", cut.elapsed());
    let _leadership = successor.await.unwrap();
    // The last renewal was at most one interval before the cut, and was seen at most one look later.
    assert!(
        cut.elapsed() >= DURATION.checked_sub(RETRY).unwrap(),
        "{:?}",
        cut.elapsed()
    );
    assert!(
        cut.elapsed() <= DURATION + 2 * RETRY.mul_f64(1.2),
        "{:?}",
        cut.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn the_renew_deadline_cancels_whatever_the_server_answers() {
    for link in [Link::Cut, Link::Deaf, Link::Broken] {
        let server = Arc::new(Server::default());
        let (lease, wire) = candidate(&server, "a");
        let leadership = acquire(lease).await;
        let fence = leadership.fence();
        let last_renewal = Instant::now();
        wire.set(link);
        leadership.lost().cancelled().await;
        assert_eq!(last_renewal.elapsed(), RENEW_DEADLINE, "{link:?}");
        assert!(!fence.holds(), "{link:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_that_is_dropped_ends_and_is_not_given_away() {
    let server = Arc::new(Server::default());
    let (lease, _) = candidate(&server, "a");
    let leadership = acquire(lease).await;
    let fence = leadership.fence();
    drop(leadership);
    sleep(seconds(1)).await;
    assert!(!fence.holds());
    assert_eq!(server.holder().as_deref(), Some("a"));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_slept_does_not_call_itself_one() {
    let server = Arc::new(Server::default());
    let (lease, _) = candidate(&server, "a");
    let leadership = acquire(lease).await;
    let metrics = Metrics::new();
    metrics.leader_while(leadership.fence());
    let says = |word: &str| metrics.encode().contains(&format!("_leader {word}\n"));
    assert!(says("1"));
    // Nothing else runs meanwhile.
    let asleep = tokio::time::advance(RENEW_DEADLINE);
    std::pin::pin!(asleep).as_mut().now_or_never();
    assert!(says("0"));
    assert!(!leadership.lost().is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_short_outage_loses_nothing() {
    for link in [Link::Cut, Link::Deaf, Link::Broken] {
        let server = Arc::new(Server::default());
        let (lease, wire) = candidate(&server, "a");
        let leadership = acquire(lease).await;
        wire.set(link);
        sleep(seconds(6)).await;
        wire.set(Link::Up);
        sleep(seconds(60)).await;
        assert!(leadership.fence().holds(), "{link:?}");
        leadership.release().await;
        assert_eq!(server.holder(), None, "{link:?}");
    }
}

/// Two candidates, links that change at random, a clock that jumps: whoever leads, leads alone.
#[tokio::test(start_paused = true)]
async fn two_candidates_never_lead_at_once_under_partitions_and_clock_jumps() {
    use rand::rngs::StdRng;
    use rand::{Rng as _, SeedableRng as _};

    for seed in 0..40 {
        let mut random = StdRng::seed_from_u64(seed);
        let server = Arc::new(Server::default());
        let leading: Arc<Mutex<Vec<(String, Fence)>>> = Arc::default();
        let mut wires = Vec::new();
        let mut tasks = Vec::new();
        for who in ["a", "b"] {
            let (client, wire) = connect(&server, who);
            wires.push(wire);
            let leading = leading.clone();
            tasks.push(tokio::spawn(async move {
                for life in 0.. {
                    let identity = format!("{who}{life}");
                    let mut lease =
                        Lease::new(client.clone(), LeaseConfig::new("operators", &identity))
                            .unwrap();
                    // One candidate lives in the past, the other's clock jumps by up to a day with each call.
                    lease.clock = if who == "a" {
                        || Timestamp::UNIX_EPOCH
                    } else {
                        jumping
                    };
                    let leadership = acquire(lease).await;
                    leading.lock().unwrap().push((identity, leadership.fence()));
                    leadership.lost().cancelled().await;
                }
            }));
        }
        let mut terms = 0;
        for _ in 0..400 {
            sleep(Duration::from_millis(random.random_range(100..2000))).await;
            if random.random_bool(0.1) {
                let link = [Link::Up, Link::Up, Link::Cut, Link::Deaf, Link::Broken]
                    [random.random_range(0..5)];
                wires[random.random_range(0..2)].set(link);
            }
            let leaders = leading.lock().unwrap();
            terms = leaders.len();
            let now: Vec<_> = leaders
                .iter()
                .filter(|(_, fence)| fence.holds())
                .map(|(who, _)| who)
                .collect();
            assert!(now.len() <= 1, "seed {seed}: {now:?}");
        }
        assert!(terms > 0, "seed {seed}: nobody ever led");
        for task in tasks {
            task.abort();
        }
    }
}

fn jumping() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(rand::random_range(-86_400..86_400))
}

#[tokio::test(start_paused = true)]
async fn a_holder_in_the_future_or_past_is_neither_robbed_nor_believed_for_ever() {
    for renewed in [0, 4_102_444_800] {
        let server = Arc::new(Server::default());
        server.edit(|lease| {
            lease.spec = Some(held_spec(
                None,
                "other",
                DURATION,
                Timestamp::from_second(renewed).unwrap(),
            ));
        });
        let start = Instant::now();
        let (lease, _) = candidate(&server, "a");
        let _leadership = acquire(lease).await;
        assert!(start.elapsed() >= DURATION, "{:?}", start.elapsed());
        assert!(
            start.elapsed() <= DURATION + RETRY.mul_f64(1.2),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_with_the_same_version_one_loses() {
    let server = Arc::new(Server::default());
    let (a, _) = candidate(&server, "a");
    let (b, _) = candidate(&server, "b");
    // Both have looked; then both write.
    let first = a
        .try_acquire(&mut Observation::default(), None)
        .await
        .unwrap();
    let second = b
        .try_acquire(&mut Observation::default(), None)
        .await
        .unwrap();
    assert!(matches!(first, Attempt::Held(_)));
    assert!(matches!(second, Attempt::HeldBy(_)));

    server.edit(|lease| lease.spec = Some(released_spec(None, Timestamp::now())));
    let free = server.lease.lock().unwrap().clone();
    let first = b
        .try_acquire(&mut Observation::default(), free.as_ref())
        .await
        .unwrap();
    let second = a
        .try_acquire(&mut Observation::default(), free.as_ref())
        .await
        .unwrap();
    assert!(matches!(first, Attempt::Held(_)));
    assert!(matches!(second, Attempt::HeldBy(_)));
    assert_eq!(server.holder().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_label_set_by_somebody_costs_the_holder_nothing() {
    let server = Arc::new(Server::default());
    let (lease, _) = candidate(&server, "a");
    let leadership = acquire(lease).await;
    server.edit(|lease| {
        lease
            .metadata
            .labels
            .get_or_insert_default()
            .insert("team".to_owned(), "blue".to_owned());
    });
    sleep(seconds(20)).await;
    assert!(leadership.fence().holds());
    let stored = server.lease.lock().unwrap().clone().unwrap();
    assert_eq!(stored.metadata.labels.unwrap()["team"], "blue");
    // One 409, one look, then PUT after PUT again.
    assert_eq!(
        server
            .requests_of("a")
            .iter()
            .filter(|method| *method == Method::GET)
            .count(),
        2
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_deleted_under_its_holder_is_made_anew_by_it_and_by_nobody_else() {
    let server = Arc::new(Server::default());
    let (a, _) = candidate(&server, "a");
    let (b, _) = candidate(&server, "b");
    let leadership = acquire(a).await;
    let waiting = tokio::spawn(acquire(b));
    sleep(seconds(9)).await;
    *server.lease.lock().unwrap() = None;
    sleep(seconds(30)).await;
    assert!(leadership.fence().holds());
    assert_eq!(server.holder().as_deref(), Some("a"));
    assert!(!waiting.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_replaced_stops_at_its_next_renewal() {
    let server = Arc::new(Server::default());
    let (lease, _) = candidate(&server, "a");
    let leadership = acquire(lease).await;
    server.edit(|lease| lease.spec = Some(held_spec(None, "b", DURATION, Timestamp::now())));
    let start = Instant::now();
    leadership.lost().cancelled().await;
    assert_eq!(start.elapsed(), RETRY);
    assert_eq!(server.holder().as_deref(), Some("b"));
}

#[tokio::test(start_paused = true)]
async fn a_candidate_can_be_stopped_while_it_waits_and_while_the_server_hangs() {
    for link in [Link::Up, Link::Cut] {
        let server = Arc::new(Server::default());
        server
            .edit(|lease| lease.spec = Some(held_spec(None, "other", DURATION, Timestamp::now())));
        let (lease, wire) = candidate(&server, "a");
        wire.set(link);
        let stop = CancellationToken::new();
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { lease.acquire(&stop).await.err() }
        });
        sleep(seconds(1)).await;
        let start = Instant::now();
        stop.cancel();
        assert!(matches!(waiting.await.unwrap(), Some(LeaseError::Stop)));
        assert_eq!(start.elapsed(), Duration::ZERO, "{link:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_waits_is_ready_and_one_without_api_server_is_not() {
    let server = Arc::new(Server::default());
    server
        .edit(|lease| lease.spec = Some(held_spec(None, "other", seconds(600), Timestamp::now())));
    let readiness = crate::servers::Readiness::new();
    let (lease, wire) = candidate(&server, "a");
    let lease = lease.reporting_to(readiness.check("lease"));
    let _waiting = tokio::spawn(acquire(lease));
    sleep(seconds(1)).await;
    assert!(readiness.is_ready());
    wire.set(Link::Broken);
    sleep(seconds(4)).await;
    assert!(!readiness.is_ready());
    wire.set(Link::Up);
    sleep(seconds(4)).await;
    assert!(readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_is_not_ready_before_it_says_so() {
    let server = Arc::new(Server::default());
    let readiness = crate::servers::Readiness::new();
    let (lease, wire) = candidate(&server, "a");
    wire.set(Link::Late);
    let acquiring = tokio::spawn(acquire(lease.reporting_to(readiness.check("lease"))));
    while server.holder().is_none() {
        assert!(!readiness.is_ready());
        sleep(Duration::from_millis(100)).await;
    }
    // Others see already who holds it.
    assert!(!readiness.is_ready());
    let _leadership = acquiring.await.unwrap();
    assert!(!readiness.is_ready());
    sleep(seconds(10)).await;
    assert!(readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_takes_over_is_not_ready_before_it_says_so() {
    let server = Arc::new(Server::default());
    let (a, _) = candidate(&server, "a");
    let leadership = acquire(a).await;
    let readiness = crate::servers::Readiness::new();
    let (b, wire) = candidate(&server, "b");
    let acquiring = tokio::spawn(acquire(b.reporting_to(readiness.check("lease"))));
    sleep(seconds(10)).await;
    assert!(readiness.is_ready());
    leadership.release().await;
    wire.set(Link::Late);
    while server.holder().is_none() {
        sleep(Duration::from_millis(100)).await;
    }
    assert!(!readiness.is_ready());
    let _leadership = acquiring.await.unwrap();
    assert!(!readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn times_that_would_allow_two_leaders_are_refused() {
    let server = Arc::new(Server::default());
    for (duration, renew_deadline, retry) in [(10, 10, 2), (10, 15, 2), (15, 10, 5), (15, 10, 0)] {
        let mut config = LeaseConfig::new("operators", "a");
        config.duration = seconds(duration);
        config.renew_deadline = seconds(renew_deadline);
        config.retry = seconds(retry);
        let refused = Lease::new(connect(&server, "a").0, config);
        assert!(
            matches!(refused, Err(LeaseError::RejectTimes { .. })),
            "{duration} {renew_deadline} {retry}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_go_operator_counts_as_running_only_while_its_lease_moves() {
    let go = |holder: &str, at: i64| {
        held_spec(None, holder, DURATION, Timestamp::from_second(at).unwrap())
    };
    // No lease; an emptied one: at once.
    let server = Arc::new(Server::default());
    let (client, _) = connect(&server, "probe");
    let start = Instant::now();
    assert_eq!(
        go_operator_is_running(&client, "operators").await.unwrap(),
        None
    );
    server.edit(|lease| lease.spec = Some(released_spec(Some(&go("cso", 0)), Timestamp::now())));
    assert_eq!(
        go_operator_is_running(&client, "operators").await.unwrap(),
        None
    );
    assert_eq!(start.elapsed(), Duration::ZERO);

    // Left behind by one that was killed, even with a renew time in the future: one lease duration.
    server.edit(|lease| lease.spec = Some(go("cso", 4_102_444_800)));
    assert_eq!(
        go_operator_is_running(&client, "operators").await.unwrap(),
        None
    );
    assert!(start.elapsed() >= DURATION);

    // Renewed by a clock that is years behind ours: it lives.
    let renewing = tokio::spawn({
        let server = server.clone();
        async move {
            loop {
                sleep(RETRY).await;
                server.edit(|lease| {
                    let spec = lease.spec.as_mut().unwrap();
                    let time = spec.renew_time.as_ref().unwrap().0 + SignedDuration::from_secs(2);
                    spec.renew_time = Some(MicroTime(time));
                });
            }
        }
    });
    let start = Instant::now();
    assert_eq!(
        go_operator_is_running(&client, "operators")
            .await
            .unwrap()
            .as_deref(),
        Some("cso")
    );
    assert!(start.elapsed() <= 2 * RETRY);
    renewing.abort();
}

#[test]
fn each_process_has_its_own_identity() {
    assert_ne!(process_identity(), process_identity());
}
