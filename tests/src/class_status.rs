//! Plays Cluster API's part in a class's life: says of each ClusterClass that it was taken in, as soon as it is there.
//!
//! For tests on API servers that have Cluster API's kinds without its manager. Nobody converts objects there, so a status is written in the version
//! in which the class was applied: with fields of two versions in it, the API server would refuse to have the class applied again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio_util::task::AbortOnDropHandle;

const GROUP: &str = "cluster.x-k8s.io";

/// The version that is watched.
const NEWEST: &str = "v1beta2";

/// Statuses that are written at the same time.
const PARALLEL: usize = 8;

/// Between two attempts while the API server is away.
const PAUSE: Duration = Duration::from_millis(200);

/// Somebody who takes in classes, until dropped.
#[derive(Debug)]
pub struct ClassStatus {
    _task: AbortOnDropHandle<()>,
}

impl ClassStatus {
    /// Takes in all classes of a namespace, or of all; also those that are there already. Outlasts an API server that goes and comes back.
    #[must_use]
    pub fn write(client: &Client, namespace: Option<&str>) -> Self {
        let task = tokio::spawn(follow(client.clone(), namespace.map(ToOwned::to_owned)));
        Self {
            _task: AbortOnDropHandle::new(task),
        }
    }
}

fn resource(version: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk(GROUP, version, "ClusterClass");
    ApiResource::from_gvk_with_plural(&kind, "clusterclasses")
}

async fn follow(client: Client, namespace: Option<String>) {
    let resource = resource(NEWEST);
    let api: Api<PartialObjectMeta<DynamicObject>> = match &namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    // Our own writes come back as changes.
    let taken: Arc<Mutex<HashMap<String, i64>>> = Arc::default();
    watcher(api, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(async |class| class.ok())
        .for_each_concurrent(PARALLEL, |class| {
            let (uid, generation) = (
                class.uid().unwrap_or_default(),
                class.metadata.generation.unwrap_or_default(),
            );
            let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = taken.insert(uid, generation) != Some(generation);
            let client = client.clone();
            async move {
                if is_new {
                    take_in(client, &class, generation).await;
                }
            }
        })
        .await;
}

/// Tries until the class has the status, or is gone.
async fn take_in(client: Client, class: &PartialObjectMeta<DynamicObject>, generation: i64) {
    let namespace = class.namespace().unwrap_or_default();
    let version = version(class);
    let api: Api<DynamicObject> = Api::namespaced_with(client, &namespace, &resource(version));
    let condition = if version == NEWEST {
        json!({
            "type": "VariablesReady",
            "status": "True",
            "reason": "VariablesReady",
            "message": "",
            "observedGeneration": generation,
            "lastTransitionTime": Timestamp::now(),
        })
    } else {
        json!({
            "type": "VariablesReconciled",
            "status": "True",
            "lastTransitionTime": Timestamp::now(),
        })
    };
    let status = json!({"status": {"observedGeneration": generation, "conditions": [condition]}});
    loop {
        let written = api
            .patch_status(
                &class.name_any(),
                &PatchParams::default(),
                &Patch::Merge(&status),
            )
            .await;
        match written {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if status.is_not_found() => return,
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The version in which the class was applied.
fn version(class: &PartialObjectMeta<DynamicObject>) -> &str {
    let applied = class
        .managed_fields()
        .iter()
        .filter(|entry| entry.subresource.is_none())
        .find_map(|entry| entry.api_version.as_deref());
    applied
        .and_then(|version| version.strip_prefix(GROUP)?.strip_prefix('/'))
        .unwrap_or(NEWEST)
}
