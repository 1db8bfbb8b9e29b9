//! Some connections to an API server, each with one request at a time.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use kube::Client;
use tests::control_plane::User;
use tokio::sync::Semaphore;

/// A client speaks HTTP/1.1 and so opens a connection for each request that is under way: one client a connection, one
/// request a client.
pub struct Connections {
    idle: Mutex<Vec<Client>>,
    permits: Semaphore,
}

impl Connections {
    /// Opens the connections.
    pub async fn open(user: &User, count: usize) -> Result<Self> {
        let mut idle = Vec::new();
        for _ in 0..count {
            let client = user.client().await?;
            client
                .apiserver_version()
                .await
                .context("failed to open a connection")?;
            idle.push(client);
        }
        Ok(Self {
            idle: Mutex::new(idle),
            permits: Semaphore::new(count),
        })
    }

    /// Does a request as soon as a connection is idle, first come, first served.
    pub async fn with<F: Future>(&self, request: impl FnOnce(Client) -> F) -> F::Output {
        let permit = self.permits.acquire().await;
        let client = self
            .idle()
            .pop()
            .expect("there is a client for each permit");
        let result = request(client.clone()).await;
        self.idle().push(client);
        drop(permit);
        result
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
