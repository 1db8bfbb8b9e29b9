//! Writes to objects of our own kinds, always with the resource version: nothing is built on an old state.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// Puts a finalizer on the object, unless it is there. Returns whether that was to be done: then the object is another one
/// now, and the watch shows it soon.
///
/// # Errors
///
/// What the API server said; a conflict if somebody else wrote meanwhile.
pub async fn add_finalizer<K>(object: &K, finalizer: &str, client: &Client) -> kube::Result<bool>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    if has_finalizer(object, finalizer) {
        return Ok(false);
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.push(finalizer.to_owned());
    set_finalizers(object, &finalizers, client).await?;
    Ok(true)
}

/// Takes a finalizer from the object, if it is there and the object still is.
///
/// # Errors
///
/// As [`add_finalizer`].
pub async fn remove_finalizer<K>(object: &K, finalizer: &str, client: &Client) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    if !has_finalizer(object, finalizer) {
        return Ok(());
    }
    let mut finalizers = object.finalizers().to_vec();
    finalizers.retain(|name| name != finalizer);
    match set_finalizers(object, &finalizers, client).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

/// Whether the object has the finalizer.
#[must_use]
pub fn has_finalizer(object: &impl ResourceExt, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

/// Replaces the status of an object by the one that it has here, as a whole: nothing of the Go operator's stays in it.
///
/// # Errors
///
/// As [`add_finalizer`].
pub async fn replace_status<K>(object: &K, manager: &str, client: &Client) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let params = PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    };
    let api = api(object, client);
    api.replace_status(&object.name_any(), &params, object)
        .await
}

async fn set_finalizers<K>(object: &K, finalizers: &[String], client: &Client) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + Debug,
{
    let patch = Patch::Merge(json!({"metadata": {
        "resourceVersion": object.resource_version(), "finalizers": finalizers,
    }}));
    let (api, params) = (api(object, client), PatchParams::default());
    api.patch_metadata(&object.name_any(), &params, &patch)
        .await
        .map(|_| ())
}

fn api<K>(object: &K, client: &Client) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let namespace = object.namespace().unwrap_or_default();
    Api::namespaced(client.clone(), &namespace)
}
