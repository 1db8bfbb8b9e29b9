//! What must be true before the operator is called ready.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Named checks that the parts of the operator set, all of which must hold.
///
/// Clones share the checks. Without any check nothing is ready: the operator has not got so far as to register them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    /// Why a check does not hold; `None` if it does.
    checks: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

impl Readiness {
    /// No checks yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The handle to the check `name`, which is not ready until its owner says so. The same name is the same check.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        self.lock()
            .entry(name)
            .or_insert_with(|| Some("not started".to_owned()));
        Check {
            readiness: self.clone(),
            name,
        }
    }

    /// True if there are checks and all of them hold.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let checks = self.lock();
        !checks.is_empty() && checks.values().all(Option::is_none)
    }

    /// The checks that do not hold, each with the reason.
    #[must_use]
    pub fn missing(&self) -> Vec<(&'static str, String)> {
        self.lock()
            .iter()
            .filter_map(|(name, why)| why.clone().map(|why| (*name, why)))
            .collect()
    }

    /// One line per check, in the form that Kubernetes components use.
    pub(super) fn report(&self) -> String {
        let mut report = String::new();
        for (name, why) in self.lock().iter() {
            // Writing to a string cannot fail.
            let _ = match why {
                None => writeln!(report, "[+]{name} ok"),
                Some(why) => writeln!(report, "[-]{name}: {why}"),
            };
        }
        if report.is_empty() {
            report.push_str("[-]starting\n");
        }
        report
    }

    fn set(&self, name: &'static str, why: Option<String>) {
        self.lock().insert(name, why);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        // Each access leaves the map whole; a panic elsewhere must not take the probes down.
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One check, in the hand of the part that it is about.
#[derive(Debug, Clone)]
pub struct Check {
    readiness: Readiness,
    name: &'static str,
}

impl Check {
    /// The check holds.
    pub fn ready(&self) {
        self.readiness.set(self.name, None);
    }

    /// The check does not hold; `why` is shown to whoever asks, and must not hold a secret.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.readiness.set(self.name, Some(why.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_checks_must_hold_and_no_check_is_not_ready() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready());
        let store = readiness.check("store");
        let watches = readiness.check("watches");
        assert!(!readiness.is_ready());
        store.ready();
        assert_eq!(readiness.missing(), [("watches", "not started".to_owned())]);
        watches.ready();
        assert!(readiness.is_ready());
        watches.not_ready("connection lost");
        assert_eq!(
            readiness.missing(),
            [("watches", "connection lost".to_owned())]
        );
        assert_eq!(
            readiness.report(),
            "[+]store ok\n[-]watches: connection lost\n"
        );
        readiness.check("watches").ready();
        assert!(readiness.is_ready());
    }
}
