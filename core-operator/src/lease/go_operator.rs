//! The lease of the Go operator: two operators on one set of objects would undo each other's work.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::record::{Observation, holder};
use super::{DURATION, LeaseError, RENEW_DEADLINE, RETRY, RequestError};

/// Name of the lease that a running Go operator holds (its leader election id).
pub const GO_OPERATOR_LEASE: &str = "clusterstack.x-k8s.io";

/// Looks whether a Go operator works in `namespace`, and returns its identity if so.
///
/// A Go operator that was stopped in good order has emptied its lease, and the answer comes at once. Otherwise the
/// lease is watched: one change is enough to know that it lives (a few seconds), one lease duration without a
/// change to know that it does not. Times in the record are not compared with our clock.
///
/// # Errors
///
/// [`LeaseError::Read`] if the lease cannot be read; then nothing is known.
pub async fn go_operator_is_running(
    client: &Client,
    namespace: &str,
) -> Result<Option<String>, LeaseError> {
    let api: Api<LeaseObject> = Api::namespaced(client.clone(), namespace);
    let mut observation = Observation::default();
    loop {
        let lease = get(&api, RENEW_DEADLINE / 2)
            .await
            .map_err(|source| LeaseError::Read {
                namespace: namespace.to_owned(),
                name: GO_OPERATOR_LEASE.to_owned(),
                source,
            })?;
        let now = Instant::now();
        let Some(lease) = lease else { return Ok(None) };
        let Some(holder) = holder(&lease) else {
            return Ok(None);
        };
        if observation.update(Some(&lease), now) {
            return Ok(Some(holder.to_owned()));
        }
        if observation.expired(DURATION, now) {
            return Ok(None);
        }
        sleep(RETRY).await;
    }
}

async fn get(api: &Api<LeaseObject>, limit: Duration) -> Result<Option<LeaseObject>, RequestError> {
    match timeout(limit, api.get_opt(GO_OPERATOR_LEASE)).await {
        Ok(answer) => answer.map_err(|error| RequestError::Api(Box::new(error))),
        Err(_elapsed) => Err(RequestError::TimeOut(limit)),
    }
}
