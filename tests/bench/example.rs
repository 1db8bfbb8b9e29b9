//! What a user writes for a stack, and what the operator writes about one.

use anyhow::{Context, Result};
use core_operator::api::{
    ClusterStack, ClusterStackRelease, ClusterStackReleaseStatus, ClusterStackStatus,
};
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::copies::Copy;

/// A stack that lists the release; named like its releases, without the version.
pub fn stack(release: &Copy) -> Result<ClusterStack> {
    let name = &release.name;
    let stack = json!({
        "apiVersion": "clusterstack.x-k8s.io/v1alpha1",
        "kind": "ClusterStack",
        "metadata": {"name": name.stem()},
        "spec": {
            "provider": release.provider,
            "name": release.stack,
            "kubernetesVersion": name.kubernetes().to_string(),
            "autoSubscribe": false,
            "noProvider": true,
            "versions": [name.version().dotted()],
        },
    });
    serde_json::from_value(stack).context("failed to make a ClusterStack")
}

/// How many classes there are in the namespace.
pub async fn classes(client: &Client, namespace: &str) -> Result<usize> {
    let kind = GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta2", "ClusterClass");
    let resource = ApiResource::from_gvk_with_plural(&kind, "clusterclasses");
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let classes = api.list_metadata(&ListParams::default()).await?;
    Ok(classes.items.len())
}

/// What the operator wrote about one stack.
#[derive(Clone)]
pub struct Example {
    stem: String,
    namespace: String,
    stack: ClusterStack,
    release: ClusterStackRelease,
}

impl Example {
    /// Reads the objects of the stack of this release.
    pub async fn read(client: &Client, namespace: &str, release: &Copy) -> Result<Self> {
        let stacks: Api<ClusterStack> = Api::namespaced(client.clone(), namespace);
        let releases: Api<ClusterStackRelease> = Api::namespaced(client.clone(), namespace);
        Ok(Self {
            stem: release.name.stem().to_owned(),
            namespace: namespace.to_owned(),
            stack: stacks.get(release.name.stem()).await?,
            release: releases.get(&release.name.tag()).await?,
        })
    }

    /// The status of another stack.
    pub fn stack_status(&self, stem: &str, namespace: &str) -> Result<ClusterStackStatus> {
        self.of(self.stack.status.as_ref(), stem, namespace)
    }

    /// The status of another release.
    pub fn release_status(&self, stem: &str, namespace: &str) -> Result<ClusterStackReleaseStatus> {
        self.of(self.release.status.as_ref(), stem, namespace)
    }

    fn of<T: Serialize + DeserializeOwned>(
        &self,
        status: Option<&T>,
        stem: &str,
        namespace: &str,
    ) -> Result<T> {
        let text = serde_json::to_string(&status)?;
        let text = text
            .replace(&self.stem, stem)
            .replace(&self.namespace, namespace);
        serde_json::from_str(&text).context("the operator wrote no status")
    }
}
