//! Carries out the plan: each step is safe to repeat, and safe to stop after.

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{
    Api, Resource as _, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::json;

use super::{
    Error,
    plan::{Plan, Step},
};
use crate::{
    api::{
        ClusterStack, ClusterStackRelease, ClusterStackReleaseSpec, RELEASE_FINALIZER,
        WATCH_FILTER_LABEL,
    },
    context::Context,
};

/// Reason of the event on a new release; the Go operator's, too.
const CREATED: &str = "ClusterStackReleaseCreated";

/// Does all steps, also after one has failed. Returns the first failure.
pub(super) async fn apply(
    stack: &ClusterStack,
    plan: &Plan,
    context: &Context,
) -> Result<(), Error> {
    let namespace = stack.namespace().unwrap_or_default();
    let api: Api<ClusterStackRelease> = Api::namespaced(context.client.clone(), &namespace);
    let steps = plan.steps.iter().map(|step| async {
        let (action, release, result) = match step {
            Step::Create(name) => ("make", name, create(stack, name, &api, context).await),
            Step::Share(name) => ("share", name, own(stack, name, true, &api).await),
            Step::GiveUp(name) => ("give up", name, own(stack, name, false, &api).await),
            Step::Delete(name) => (
                "delete",
                name,
                delete(name, &api, context, &namespace).await,
            ),
        };
        result.map_err(|source| Error::ChangeRelease {
            action,
            release: release.clone(),
            source,
        })
    });
    join_all(steps).await.into_iter().collect()
}

async fn create(
    stack: &ClusterStack,
    name: &str,
    api: &Api<ClusterStackRelease>,
    context: &Context,
) -> kube::Result<()> {
    let mut release = ClusterStackRelease::new(name, ClusterStackReleaseSpec::default());
    release.metadata.owner_references = Some(vec![owner(stack)]);
    release.metadata.finalizers = Some(vec![RELEASE_FINALIZER.to_owned()]);
    if let Some(filter) = stack.labels().get(WATCH_FILTER_LABEL) {
        release
            .labels_mut()
            .insert(WATCH_FILTER_LABEL.to_owned(), filter.clone());
    }
    match api.create(&PostParams::default(), &release).await {
        Ok(release) => {
            context.events.normal(
                release.object_ref(&()),
                CREATED,
                format!("made for ClusterStack \"{}\"", stack.name_any()),
            );
            Ok(())
        }
        // The watch is a little behind. Should it be another stack's, the next look shares it.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error),
    }
}

/// A plain reference, as the Go operator's: the stack's finalizer decides about the order of deletion.
fn owner(stack: &ClusterStack) -> OwnerReference {
    OwnerReference {
        api_version: ClusterStack::api_version(&()).into_owned(),
        kind: ClusterStack::kind(&()).into_owned(),
        name: stack.name_any(),
        uid: stack.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }
}

/// Makes the stack an owner of the release, or no owner any more. Read and written with the resource version, because
/// another stack may do the same now.
async fn own(
    stack: &ClusterStack,
    name: &str,
    owns: bool,
    api: &Api<ClusterStackRelease>,
) -> kube::Result<()> {
    let release = api.get_metadata(name).await?;
    let ours = owner(stack);
    let mut owners = release.owner_references().to_vec();
    owners.retain(|other| other.uid != ours.uid);
    if owns {
        owners.push(ours);
    } else if owners.is_empty() {
        // The other owner has given it up meanwhile: the next look deletes it.
        return Ok(());
    }
    let patch = json!({"metadata": {
        "resourceVersion": release.metadata.resource_version, "ownerReferences": owners,
    }});
    api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

/// Deletes the release as it was looked at: one that somebody claims meanwhile stays.
async fn delete(
    name: &str,
    api: &Api<ClusterStackRelease>,
    context: &Context,
    namespace: &str,
) -> kube::Result<()> {
    let seen = context.release(&format!("{namespace}/{name}"));
    let params = DeleteParams {
        preconditions: seen.map(|release| Preconditions {
            uid: release.uid(),
            resource_version: release.resource_version(),
        }),
        ..DeleteParams::default()
    };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error),
    }
}
