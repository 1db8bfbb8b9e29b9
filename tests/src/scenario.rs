//! The frame of a system test: a namespace of its own, and a report of what there is when it fails.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::{DeleteParams, DynamicObject, ListParams};
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};

use crate::control_plane::{ApiServer, ControlPlane};
use crate::operator::{Builder, Operator};
use crate::process::tail;

/// A longer report hides more than it shows.
const LOG_LINES: usize = 60;

/// What a test works with.
pub struct Bed<'a> {
    /// The control plane.
    pub control_plane: &'a ControlPlane,
    /// A client with all rights.
    pub client: Client,
    /// The test's own namespace.
    pub namespace: String,
    logs: Mutex<Vec<PathBuf>>,
}

impl Bed<'_> {
    /// Objects of a kind in the test's namespace.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies YAML; what names no namespace goes to the test's.
    ///
    /// # Errors
    ///
    /// As [`manifests::apply_yaml`](crate::manifests::apply_yaml).
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        crate::manifests::apply_yaml(&self.client, &self.namespace, yaml).await
    }

    /// An operator on this control plane, whose log is in the report, should the test fail.
    #[must_use]
    pub fn operator(&self) -> Builder<'_> {
        Operator::builder(self.control_plane).log_to(&self.logs)
    }

    /// Has the end of this file in the report, should the test fail.
    pub fn report_log(&self, log: &Path) {
        self.logs().push(log.to_owned());
    }

    /// All that may tell why a test failed: objects, events, the ends of logs.
    pub async fn report(&self) -> String {
        // The API server may be what failed.
        let objects = tokio::time::timeout(
            Duration::from_secs(20),
            objects(&self.client, &self.namespace),
        )
        .await;
        let mut text = match objects.map_err(anyhow::Error::from).flatten() {
            Ok(objects) => objects,
            Err(error) => format!("objects of {} cannot be shown: {error:#}\n", self.namespace),
        };
        for path in self.logs().iter() {
            let _ = write!(text, "--- {}\n{}\n", path.display(), tail(path, LOG_LINES));
        }
        let server: &ApiServer = self.control_plane;
        let _ = write!(
            text,
            "--- log of the API server\n{}\n",
            server.log_tail(LOG_LINES / 3)
        );
        text
    }

    fn logs(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a test in a namespace of its own on the shared control plane.
///
/// # Errors
///
/// The test's own; a panic goes on as a panic. Either is preceded by a report of objects, events and logs.
pub async fn scenario(name: &str, test: impl AsyncFnOnce(&Bed<'_>) -> Result<()>) -> Result<()> {
    scenario_on(ControlPlane::shared().await?, name, test).await
}

/// As [`scenario`](fn@scenario), on a control plane that the test has made for itself.
///
/// # Errors
///
/// As [`scenario`](fn@scenario).
pub async fn scenario_on(
    control_plane: &ControlPlane,
    name: &str,
    test: impl AsyncFnOnce(&Bed<'_>) -> Result<()>,
) -> Result<()> {
    let bed = Bed {
        control_plane,
        client: control_plane.client().await?,
        namespace: control_plane.namespace(name).await?,
        logs: Mutex::new(Vec::new()),
    };
    let begin = Instant::now();
    let result = AssertUnwindSafe(test(&bed)).catch_unwind().await;
    if !matches!(result, Ok(Ok(()))) {
        eprintln!(
            "{name} failed after {:?}\n{}",
            begin.elapsed(),
            bed.report().await
        );
    }
    // Not waited for: a finalizer of an operator that is gone must not hold up the others.
    let namespaces: Api<Namespace> = Api::all(bed.client.clone());
    let _ = namespaces
        .delete(&bed.namespace, &DeleteParams::background())
        .await;
    match result {
        Ok(result) => result,
        Err(panic) => resume_unwind(panic),
    }
}

/// All objects of a namespace as YAML, and its events as lines.
///
/// # Errors
///
/// When the API server does not answer.
pub async fn objects(client: &Client, namespace: &str) -> Result<String> {
    let mut text = String::new();
    let discovery = Discovery::new(client.clone())
        .exclude(&["events.k8s.io"])
        .run()
        .await
        .context("failed to ask for the served kinds")?;
    for group in discovery.groups() {
        for (resource, capabilities) in group.resources_by_stability() {
            let skipped = ["Event", "Secret"].contains(&resource.kind.as_str());
            if skipped
                || capabilities.scope != Scope::Namespaced
                || !capabilities.supports_operation(verbs::LIST)
            {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(client.clone(), namespace, &resource);
            let Ok(list) = api.list(&ListParams::default()).await else {
                continue;
            };
            for mut object in list {
                // In every namespace, of no interest.
                if ["kube-root-ca.crt", "default"].contains(&object.name_any().as_str()) {
                    continue;
                }
                object.metadata.managed_fields = None;
                let yaml = serde_saphyr::to_string(&object)
                    .unwrap_or_else(|error| format!("no YAML: {error}"));
                let _ = write!(text, "--- {} {}\n{yaml}", resource.kind, object.name_any());
            }
        }
    }
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let events = events
        .list(&ListParams::default())
        .await
        .context("failed to list events")?;
    let _ = writeln!(text, "--- events");
    for event in events {
        let object = event.involved_object;
        let _ = writeln!(
            text,
            "{} {} {}/{}: {}",
            event.type_.unwrap_or_default(),
            event.reason.unwrap_or_default(),
            object.kind.unwrap_or_default(),
            object.name.unwrap_or_default(),
            event.message.unwrap_or_default()
        );
    }
    Ok(text)
}
