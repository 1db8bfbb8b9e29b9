//! Applies YAML, as an administrator does with `kubectl apply --server-side`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream::{self, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, Scope};
use kube::{Api, Client, ResourceExt};

use crate::wait::eventually;

/// The field manager of all that the test bed applies itself.
pub const MANAGER: &str = "test-bed";

/// How long the API server may take to serve a new kind.
const ESTABLISHED: Duration = Duration::from_mins(1);

/// The objects of a YAML text, in its order; empty documents are skipped.
///
/// # Errors
///
/// When a document is no Kubernetes object.
pub fn parse(text: &str) -> Result<Vec<DynamicObject>> {
    // Made for texts of strangers; Cluster API's CRDs are larger than its limits.
    let mut options = serde_saphyr::Options::default();
    options.budget = None;
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple_with_options(text, options).context("failed to parse YAML")?;
    documents
        .into_iter()
        .filter(|document| !document.is_null())
        .map(|document| {
            let object: DynamicObject =
                serde_json::from_value(document).context("no Kubernetes object")?;
            ensure!(
                object.types.is_some(),
                "an object without apiVersion and kind"
            );
            ensure!(object.metadata.name.is_some(), "an object without a name");
            Ok(object)
        })
        .collect()
}

/// The objects of all YAML files below a folder, ordered by path.
///
/// # Errors
///
/// When the folder is missing or a file is not valid.
pub fn read_folder(folder: &Path) -> Result<Vec<DynamicObject>> {
    let mut objects = Vec::new();
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.with_context(|| format!("failed to read {}", folder.display()))?;
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "yaml")
        {
            let text = fs::read_to_string(path)
                .with_context(|| format!("failed to read {}", path.display()))?;
            objects.extend(
                parse(&text).with_context(|| format!("failed to read {}", path.display()))?,
            );
        }
    }
    Ok(objects)
}

/// Applies objects: CRDs first, all at once and until they are served, then the rest in the given order. Namespaced objects that name no namespace go to `namespace`.
///
/// # Errors
///
/// When the API server refuses an object, does not serve its kind, or does not establish a CRD.
pub async fn apply(client: &Client, namespace: &str, objects: Vec<DynamicObject>) -> Result<()> {
    let (crds, others): (Vec<_>, Vec<_>) = objects.into_iter().partition(|object| {
        object
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "CustomResourceDefinition")
    });
    let crds: Vec<CustomResourceDefinition> = crds
        .into_iter()
        .map(|object| object.try_parse().context("no CustomResourceDefinition"))
        .collect::<Result<_>>()?;
    apply_crds(client, crds).await?;
    let mut known = BTreeMap::new();
    for object in others {
        apply_one(client, namespace, object, &mut known).await?;
    }
    Ok(())
}

/// As [`apply`], for YAML.
///
/// # Errors
///
/// As [`apply`] and [`parse`].
pub async fn apply_yaml(client: &Client, namespace: &str, text: &str) -> Result<()> {
    apply(client, namespace, parse(text)?).await
}

/// Applies CRDs and waits until their kinds are served.
///
/// # Errors
///
/// When the API server refuses or does not establish one.
pub async fn apply_crds(client: &Client, crds: Vec<CustomResourceDefinition>) -> Result<()> {
    // Together: each takes the API server some tenths of a second until it is served.
    stream::iter(crds.into_iter().map(Ok))
        .try_for_each_concurrent(8, |crd| apply_crd(client, crd))
        .await
}

async fn apply_crd(client: &Client, crd: CustomResourceDefinition) -> Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = crd.name_any();
    let params = PatchParams::apply(MANAGER).force();
    let applied = api
        .patch(&name, &params, &Patch::Apply(&crd))
        .await
        .with_context(|| format!("failed to apply CRD {name:?}"))?;
    let mut last = Some(applied);
    eventually(
        &format!("CRD {name:?} is established"),
        ESTABLISHED,
        async || {
            let crd = match last.take() {
                Some(crd) => crd,
                None => api.get(&name).await?,
            };
            let conditions = crd
                .status
                .and_then(|status| status.conditions)
                .unwrap_or_default();
            let established = conditions
                .iter()
                .any(|condition| condition.type_ == "Established" && condition.status == "True");
            ensure!(established, "{conditions:?}");
            Ok(())
        },
    )
    .await?;
    // Discovery follows a moment later, and every client that maps kinds to resources needs it.
    for version in crd.spec.versions.iter().filter(|version| version.served) {
        let kind = GroupVersionKind::gvk(&crd.spec.group, &version.name, &crd.spec.names.kind);
        eventually(&format!("{kind:?} is served"), ESTABLISHED, async || {
            discovery::pinned_kind(client, &kind).await?;
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn apply_one(
    client: &Client,
    namespace: &str,
    object: DynamicObject,
    known: &mut BTreeMap<String, (ApiResource, Scope)>,
) -> Result<()> {
    let types = object
        .types
        .clone()
        .context("an object without apiVersion and kind")?;
    let name = object.name_any();
    let what = format!("{} {name:?}", types.kind);
    let key = format!("{}/{}", types.api_version, types.kind);
    if !known.contains_key(&key) {
        let kind = GroupVersionKind::try_from(&types)
            .with_context(|| format!("{what} has no valid apiVersion"))?;
        let (resource, capabilities) = discovery::pinned_kind(client, &kind)
            .await
            .with_context(|| format!("{key} is not served"))?;
        known.insert(key.clone(), (resource, capabilities.scope));
    }
    let (resource, scope) = &known[&key];
    let api: Api<DynamicObject> = match scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => {
            let namespace = object.namespace().unwrap_or_else(|| namespace.to_owned());
            Api::namespaced_with(client.clone(), &namespace, resource)
        }
    };
    api.patch(
        &name,
        &PatchParams::apply(MANAGER).force(),
        &Patch::Apply(&object),
    )
    .await
    .with_context(|| format!("failed to apply {what}"))?;
    Ok(())
}
