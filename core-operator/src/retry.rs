//! When an object is looked at again after a failure: counters for each object, the class of the failure decides.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use proto::Recovery;

/// Failures in a row of each object, by its UID. Forgotten on success and deletion.
#[derive(Debug, Default)]
pub struct Retries {
    failures: Mutex<HashMap<String, Failures>>,
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    class: &'static str,
    /// Of that class.
    count: u32,
    /// Of whatever class.
    all: u32,
}

impl Retries {
    /// How long to wait after one more failure of the object. A failure of another class starts a new count.
    pub fn failed(&self, uid: &str, recovery: &Recovery) -> Duration {
        let class = recovery.as_str();
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures
            .entry(uid.to_owned())
            .and_modify(|entry| {
                let count = if entry.class == class { entry.count } else { 0 };
                *entry = Failures {
                    class,
                    count: count.saturating_add(1),
                    all: entry.all.saturating_add(1),
                };
            })
            .or_insert(Failures {
                class,
                count: 1,
                all: 1,
            });
        recovery.delay_with_jitter(entry.count, rand::random())
    }

    /// How often the object has failed since it last did well.
    pub fn in_a_row(&self, uid: &str) -> u32 {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(uid).map_or(0, |entry| entry.all)
    }

    /// The object did well, or is gone.
    pub fn forget(&self, uid: &str) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(uid);
    }
}

/// The class of a request for an object of our own kinds that an API server refused or did not answer.
///
/// The operator's role always has these rights. An API server that starts does not know its roles yet and refuses
/// everything (401, 403): that passes within seconds and must not cost a minute. A role that is really missing costs a
/// request a minute, as what cannot be reached does.
#[must_use]
pub fn recovery_of_own(error: &kube::Error) -> Recovery {
    match error {
        kube::Error::Api(status) if matches!(status.code, 401 | 403) => Recovery::Unknown,
        _ => recovery_of(error),
    }
}

/// The class of a status that was refused. Another version of the definition may take it, which somebody must install.
#[must_use]
pub fn recovery_of_report(error: &kube::Error) -> Recovery {
    match recovery_of_own(error) {
        Recovery::Terminal => Recovery::Slow,
        other => other,
    }
}

/// The class of a request that an API server refused or did not answer.
#[must_use]
pub fn recovery_of(error: &kube::Error) -> Recovery {
    match error {
        kube::Error::Api(status) => {
            let seconds = status
                .details
                .as_ref()
                .map_or(0, |details| details.retry_after_seconds);
            let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
            Recovery::of_http_status(status.code, retry_after)
        }
        _ => Recovery::Unknown,
    }
}

/// Whether the API server refused a write because the object is another by now.
#[must_use]
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_server_that_names_a_time_is_not_asked_before() {
        let mut status = kube::core::Status::failure("busy", "TooManyRequests").with_code(429);
        let error = |status: &kube::core::Status| kube::Error::Api(status.clone().boxed());
        assert_eq!(recovery_of(&error(&status)), Recovery::FAST);
        status.details = serde_json::from_str("{\"retryAfterSeconds\": 7}").unwrap();
        assert_eq!(
            recovery_of(&error(&status)),
            Recovery::Fast {
                not_before: Some(Duration::from_secs(7))
            }
        );
        assert_eq!(recovery_of(&kube::Error::TlsRequired), Recovery::Unknown);
    }

    #[test]
    fn api_server_that_does_not_know_its_roles_yet_is_asked_again_soon() {
        for (code, own) in [
            (401, Recovery::Unknown),
            (403, Recovery::Unknown),
            (409, Recovery::FAST),
            (422, Recovery::Terminal),
        ] {
            let status = kube::core::Status::failure("no", "Reason").with_code(code);
            let error = kube::Error::Api(status.boxed());
            assert_eq!(recovery_of_own(&error), own, "{code}");
        }
    }

    #[test]
    fn each_object_has_its_own_count_and_success_forgets_it() {
        let retries = Retries::default();
        for _ in 0..5 {
            retries.failed("a", &Recovery::Unknown);
        }
        assert!(retries.failed("a", &Recovery::Unknown) > Duration::from_secs(20));
        assert!(retries.failed("b", &Recovery::Unknown) < Duration::from_secs(2));
        retries.forget("a");
        assert_eq!(retries.in_a_row("a"), 0);
        assert!(retries.failed("a", &Recovery::Unknown) < Duration::from_secs(2));
    }

    #[test]
    fn another_class_starts_a_new_count() {
        let retries = Retries::default();
        for _ in 0..5 {
            retries.failed("a", &Recovery::Unknown);
        }
        assert_eq!(retries.in_a_row("a"), 5);
        let slow = retries.failed("a", &Recovery::Slow);
        assert_eq!(retries.in_a_row("a"), 6);
        assert!(slow < Duration::from_secs(80), "{slow:?}");
    }
}
