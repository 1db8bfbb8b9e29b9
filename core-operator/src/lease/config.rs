//! Which lease, with which times; and why it cannot be had.

use std::time::Duration;

/// Name of the lease that the leader of this operator holds.
pub const LEASE_NAME: &str = "core-operator.clusterstack.x-k8s.io";

/// How long others wait for a silent holder: what client-go and with it every other controller uses.
pub const DURATION: Duration = Duration::from_secs(15);
/// How long a holder goes on without a successful renewal (client-go's value).
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two renewals, and between two looks of a candidate (client-go's value).
pub const RETRY: Duration = Duration::from_secs(2);

/// Which lease, for whom, and its times.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// Namespace of the lease object.
    pub namespace: String,
    /// Name of the lease object.
    pub name: String,
    /// Who we are. No two processes may ever share it, a restarted one not either: see [`process_identity`].
    pub identity: String,
    /// How long others wait for a silent holder.
    pub duration: Duration,
    /// How long the holder goes on without a successful renewal; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Time between two attempts; shorter than half of `renew_deadline`.
    pub retry: Duration,
}

impl LeaseConfig {
    /// The operator's own lease in `namespace` with the usual times (15 s, 10 s, 2 s).
    #[must_use]
    pub fn new(namespace: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: LEASE_NAME.to_owned(),
            identity: identity.into(),
            duration: DURATION,
            renew_deadline: RENEW_DEADLINE,
            retry: RETRY,
        }
    }

    /// A request that hangs must leave time for a second one before the renew deadline.
    pub(super) fn request_timeout(&self) -> Duration {
        self.renew_deadline / 2
    }
}

/// An identity that no other process has: the host's name and 64 random bits.
///
/// The host's name alone would do harm: a container that restarts in its pod keeps it, and would take the lease of
/// its predecessor for its own.
#[must_use]
pub fn process_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!(
        "{}_{:016x}",
        if host.is_empty() {
            "core-operator"
        } else {
            host
        },
        rand::random::<u64>()
    )
}

/// Why a lease was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The times do not fit: two leaders would be possible, or none could stay.
    #[error(
        "lease times do not fit: retry {retry:?} must be shorter than half of renew deadline {renew_deadline:?}, \
         which must be shorter than the lease duration {duration:?}"
    )]
    RejectTimes {
        /// Given lease duration.
        duration: Duration,
        /// Given renew deadline.
        renew_deadline: Duration,
        /// Given retry interval.
        retry: Duration,
    },
    /// The operator was told to stop while it waited.
    #[error("stopped before the lease was acquired")]
    Stop,
    /// The API server did not let us read a lease.
    #[error("failed to read lease \"{namespace}/{name}\"")]
    Read {
        /// Namespace of the lease.
        namespace: String,
        /// Name of the lease.
        name: String,
        /// What went wrong.
        source: RequestError,
    },
}

/// Why one request about a lease failed.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// No answer in time; the request may have taken effect.
    #[error("no answer within {0:?}")]
    TimeOut(Duration),
    /// The API server refused, or the connection broke: its causes say how.
    #[error(transparent)]
    Api(Box<kube::Error>),
}

impl RequestError {
    /// The HTTP code of the API server's answer, if it gave one.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Api(error) => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::TimeOut(_) => None,
        }
    }
}
