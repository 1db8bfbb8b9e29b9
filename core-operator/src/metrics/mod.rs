//! The operator's own numbers, as Prometheus reads them.
//!
//! A plain struct that the parts are handed; no global registry, so that tests and several operators in one process
//! do not count into each other. Labels come from closed sets ([`labels`](self)): never a name of an object, a tag
//! or anything else that a user can choose.

mod labels;
mod requests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

pub use labels::{Class, Code, Controller, Outcome, Ready, Reconciled, Source, Verb};
use labels::{
    ControllerLabels, ErrorLabels, ObjectLabels, OutcomeLabels, ReconcileLabels, RequestLabels,
    SourceLabels,
};
pub use requests::{ApiRequests, ApiRequestsLayer};

use crate::lease::Fence;

/// Start of each metric's name.
const PREFIX: &str = "cluster_stack_operator";

/// Bounds of the buckets for durations, in seconds: 1 ms is a chart out of the cache, 100 s a large download.
const SECONDS: [f64; 11] = [
    0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0,
];

fn seconds() -> Histogram {
    Histogram::new(SECONDS)
}

/// All metrics of one operator.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_duration: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    reconcile_errors: Family<ErrorLabels, Counter>,
    reconcile_panics: Family<ControllerLabels, Counter>,
    downloads: Family<OutcomeLabels, Counter>,
    downloaded: Counter,
    renders: Family<OutcomeLabels, Counter>,
    render_duration: Histogram,
    listings: Family<SourceLabels, Counter>,
    foreign_tags: Counter,
    api_requests: Family<RequestLabels, Counter>,
    leader: Gauge,
    leadership: Mutex<Option<Fence>>,
    objects: Family<ObjectLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics at zero. Series whose labels are known beforehand exist from the start, so that a rate over the
    /// first failure is not lost.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix(PREFIX),
            reconciles: Family::default(),
            reconcile_duration: Family::new_with_constructor(seconds),
            reconcile_errors: Family::default(),
            reconcile_panics: Family::default(),
            downloads: Family::default(),
            downloaded: Counter::default(),
            renders: Family::default(),
            render_duration: seconds(),
            listings: Family::default(),
            foreign_tags: Counter::default(),
            api_requests: Family::default(),
            leader: Gauge::default(),
            leadership: Mutex::default(),
            objects: Family::default(),
        };
        metrics.start_at_zero();
        metrics.register()
    }

    fn start_at_zero(&self) {
        for &controller in Controller::ALL {
            for &result in Reconciled::ALL {
                let _ = self
                    .reconciles
                    .get_or_create(&ReconcileLabels { controller, result });
            }
            for &class in Class::ALL {
                let _ = self
                    .reconcile_errors
                    .get_or_create(&ErrorLabels { controller, class });
            }
            let labels = ControllerLabels { controller };
            let _ = self.reconcile_duration.get_or_create(&labels);
            let _ = self.reconcile_panics.get_or_create(&labels);
        }
        for &result in Outcome::ALL {
            let _ = self.downloads.get_or_create(&OutcomeLabels { result });
            let _ = self.renders.get_or_create(&OutcomeLabels { result });
            for &source in Source::ALL {
                let _ = self
                    .listings
                    .get_or_create(&SourceLabels { source, result });
            }
        }
    }

    fn register(mut self) -> Self {
        let registry = &mut self.registry;
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "The running version", build);
        registry.register(
            "reconciles",
            "Reconciles by controller and result",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconcile",
            Unit::Seconds,
            self.reconcile_duration.clone(),
        );
        registry.register(
            "reconcile_errors",
            "Failed reconciles by class: unknown and fast pass by themselves, slow and terminal need somebody",
            self.reconcile_errors.clone(),
        );
        registry.register(
            "reconcile_panics",
            "Reconciles that ended in a panic: each is a defect",
            self.reconcile_panics.clone(),
        );
        registry.register(
            "release_downloads",
            "Downloads of releases by result",
            self.downloads.clone(),
        );
        registry.register_with_unit(
            "release_downloaded",
            "Bytes of release assets received",
            Unit::Bytes,
            self.downloaded.clone(),
        );
        registry.register(
            "renders",
            "Charts and values rendered by Helm, by result",
            self.renders.clone(),
        );
        registry.register_with_unit(
            "render_duration",
            "Time of one render, waiting for a renderer included",
            Unit::Seconds,
            self.render_duration.clone(),
        );
        registry.register(
            "source_listings",
            "Listings of releases by source and result",
            self.listings.clone(),
        );
        registry.register(
            "foreign_tags_ignored",
            "Tags in listings that are no release names, counted in each listing",
            self.foreign_tags.clone(),
        );
        registry.register(
            "api_requests",
            "Requests to API servers by verb and code",
            self.api_requests.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica holds the leader lease",
            self.leader.clone(),
        );
        registry.register(
            "objects",
            "Objects by kind and readiness",
            self.objects.clone(),
        );
        self
    }

    /// One reconcile of `controller` ended after `duration`.
    pub fn reconciled(&self, controller: Controller, result: Reconciled, duration: Duration) {
        self.reconciles
            .get_or_create(&ReconcileLabels { controller, result })
            .inc();
        self.reconcile_duration
            .get_or_create(&ControllerLabels { controller })
            .observe(duration.as_secs_f64());
    }

    /// A reconcile of `controller` failed with this class.
    pub fn reconcile_failed(&self, controller: Controller, recovery: &proto::Recovery) {
        self.reconcile_errors
            .get_or_create(&ErrorLabels {
                controller,
                class: recovery.into(),
            })
            .inc();
    }

    /// A reconcile of `controller` panicked.
    pub fn panicked(&self, controller: Controller) {
        self.reconcile_panics
            .get_or_create(&ControllerLabels { controller })
            .inc();
    }

    /// One release was downloaded, or was not; `bytes` were received either way.
    pub fn downloaded(&self, result: Outcome, bytes: u64) {
        self.downloads
            .get_or_create(&OutcomeLabels { result })
            .inc();
        self.downloaded.inc_by(bytes);
    }

    /// One chart or template was rendered, or was not, within `duration`.
    pub fn rendered(&self, result: Outcome, duration: Duration) {
        self.renders.get_or_create(&OutcomeLabels { result }).inc();
        self.render_duration.observe(duration.as_secs_f64());
    }

    /// The releases of one source were listed; `foreign_tags` of the tags were no release names.
    pub fn listed(&self, source: Source, result: Outcome, foreign_tags: u64) {
        self.listings
            .get_or_create(&SourceLabels { source, result })
            .inc();
        self.foreign_tags.inc_by(foreign_tags);
    }

    /// One request to an API server was answered with `code`.
    fn api_request(&self, verb: Verb, code: Code) {
        self.api_requests
            .get_or_create(&RequestLabels { verb, code })
            .inc();
    }

    /// Whether this replica leads.
    pub fn leader(&self, leads: bool) {
        *self.leadership() = None;
        self.leader.set(leads.into());
    }

    /// This replica leads for as long as `fence` holds, which is asked at each scrape: a process that slept past its lease
    /// must not call itself the leader when it wakes up.
    pub fn leader_while(&self, fence: Fence) {
        *self.leadership() = Some(fence);
    }

    fn leadership(&self) -> MutexGuard<'_, Option<Fence>> {
        self.leadership
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// How many objects of the kind of `controller` there are, by readiness.
    pub fn objects(&self, controller: Controller, ready: usize, not_ready: usize) {
        for (answer, count) in [(Ready::Yes, ready), (Ready::No, not_ready)] {
            let labels = ObjectLabels {
                kind: controller,
                ready: answer,
            };
            self.objects
                .get_or_create(&labels)
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The text that a scraper reads (`OpenMetrics` 1.0).
    #[must_use]
    pub fn encode(&self) -> String {
        if let Some(fence) = &*self.leadership() {
            self.leader.set(fence.holds().into());
        }
        let mut text = String::new();
        // Writing to a string cannot fail; a metric that could not be encoded shows as a text cut short, without EOF.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(metrics: &Metrics, lines: &[&str]) {
        let text = metrics.encode();
        for line in lines {
            let line = format!("\n{PREFIX}_{line}\n");
            assert!(text.contains(&line), "{line} not in {text}");
        }
    }

    #[test]
    fn known_series_start_at_zero() {
        expect(
            &Metrics::new(),
            &[
                "reconciles_total{controller=\"clusterstack\",result=\"error\"} 0",
                "reconcile_errors_total{controller=\"clusterstackrelease\",class=\"terminal\"} 0",
                "release_downloads_total{result=\"error\"} 0",
                "source_listings_total{source=\"github\",result=\"success\"} 0",
                "foreign_tags_ignored_total 0",
                "leader 0",
            ],
        );
    }

    #[test]
    fn what_happens_is_counted() {
        let metrics = Metrics::new();
        metrics.reconciled(
            Controller::ClusterStack,
            Reconciled::Pending,
            Duration::from_millis(20),
        );
        metrics.reconcile_failed(Controller::ClusterStackRelease, &proto::Recovery::FAST);
        metrics.downloaded(Outcome::Success, 1000);
        metrics.downloaded(Outcome::Error, 24);
        metrics.rendered(Outcome::Success, Duration::from_millis(2));
        metrics.listed(Source::Directory, Outcome::Success, 3);
        metrics.leader(true);
        metrics.objects(Controller::ClusterStack, 4, 1);
        metrics.objects(Controller::ClusterStack, 5, 0);
        expect(
            &metrics,
            &[
                "reconciles_total{controller=\"clusterstack\",result=\"pending\"} 1",
                "reconcile_duration_seconds_bucket{le=\"0.03\",controller=\"clusterstack\"} 1",
                "reconcile_errors_total{controller=\"clusterstackrelease\",class=\"fast\"} 1",
                "release_downloads_total{result=\"success\"} 1",
                "release_downloaded_bytes_total 1024",
                "renders_total{result=\"success\"} 1",
                "render_duration_seconds_count 1",
                "source_listings_total{source=\"directory\",result=\"success\"} 1",
                "foreign_tags_ignored_total 3",
                "leader 1",
                "objects{kind=\"clusterstack\",ready=\"true\"} 5",
                "objects{kind=\"clusterstack\",ready=\"false\"} 0",
            ],
        );
    }

    #[test]
    fn classes_are_named_as_everywhere() {
        for recovery in [
            proto::Recovery::Unknown,
            proto::Recovery::FAST,
            proto::Recovery::Slow,
            proto::Recovery::Terminal,
        ] {
            assert_eq!(Class::from(&recovery).as_str(), recovery.as_str());
        }
    }
}
