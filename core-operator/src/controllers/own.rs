//! Writes to objects of our own kinds, always with the resource version: nothing is built on an old state.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use tracing::debug;

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

/// As [`replace_status`]. When the API server refuses the status itself, `spare` is written in its place, made with what
/// it said; and if that is what is there already, nothing.
///
/// # Errors
///
/// As [`add_finalizer`]; the refusal also when `spare` was taken.
pub async fn report_status<K>(
    current: &K,
    wanted: &K,
    spare: impl FnOnce(&str) -> K,
    manager: &str,
    client: &Client,
) -> kube::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + PartialEq
        + Debug,
{
    let refused = match replace_status(wanted, manager, client).await {
        Err(kube::Error::Api(refused)) if refused.code == 422 => refused,
        other => return other,
    };
    let spare = spare(&refused.message);
    if spare != *current
        && let Err(error) = replace_status(&spare, manager, client).await
    {
        debug!(%error, "refused status not told");
    }
    Err(kube::Error::Api(refused))
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

#[cfg(test)]
mod tests {
    use http::{Request, Response};
    use http_body_util::BodyExt as _;
    use kube::{client::Body, core::Status};

    use super::*;
    use crate::{
        api::{ClusterStackRelease, ClusterStackReleaseSpec},
        conditions,
    };

    fn release(digest: Option<&str>, note: &str) -> ClusterStackRelease {
        let mut release =
            ClusterStackRelease::new("docker-scs-1-30-v1", ClusterStackReleaseSpec::default());
        release.metadata.namespace = Some("fleet".to_owned());
        let status = release.status.get_or_insert_default();
        status.digest = digest.map(ToOwned::to_owned);
        let verdict = conditions::Verdict::unknown("Pending", note);
        let verdicts = [(conditions::READY, Some(verdict))];
        status.conditions = conditions::write(&[], verdicts, None, jiff::Timestamp::UNIX_EPOCH);
        release
    }

    fn answer(code: u16, body: &impl Serialize) -> Response<Body> {
        let body = Body::from(serde_json::to_vec(body).unwrap());
        Response::builder().status(code).body(body).unwrap()
    }

    /// Reports a status whose digest the API server does not take; returns what it was sent, and how it ended.
    async fn report(current: &ClusterStackRelease) -> (Vec<ClusterStackRelease>, kube::Result<()>) {
        let (service, mut handle) = tower_test::mock::pair::<Request<Body>, Response<Body>>();
        let client = Client::new(service, "fleet");
        let server = tokio::spawn(async move {
            let mut sent = Vec::new();
            while let Some((request, send)) = handle.next_request().await {
                assert_eq!(request.method(), "PUT");
                assert!(request.uri().path().ends_with("/docker-scs-1-30-v1/status"));
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let object: ClusterStackRelease = serde_json::from_slice(&body).unwrap();
                let refused = object.status.as_ref().unwrap().digest.is_some();
                send.send_response(if refused {
                    let status = Status::failure("status.digest: too long", "Invalid");
                    answer(422, &status.with_code(422))
                } else {
                    answer(200, &object)
                });
                sent.push(object);
            }
            sent
        });
        let spare = |refusal: &str| release(None, refusal);
        let wanted = release(Some("sha256:…"), "");
        let result = report_status(current, &wanted, spare, "manager", &client).await;
        drop(client);
        (server.await.unwrap(), result.map(|_| ()))
    }

    #[tokio::test]
    async fn status_that_is_refused_is_told_in_its_conditions_and_once() {
        let told = release(None, "status.digest: too long");
        let (sent, result) = report(&release(None, "")).await;
        assert_eq!(sent.len(), 2);
        assert_eq!(sent[1], told);
        let error = result.unwrap_err();
        assert!(
            matches!(&error, kube::Error::Api(status) if status.code == 422),
            "{error}"
        );
        assert_eq!(
            crate::retry::recovery_of_report(&error),
            proto::Recovery::Slow
        );
        let (sent, result) = report(&told).await;
        assert_eq!(sent.len(), 1);
        result.unwrap_err();
    }
}
