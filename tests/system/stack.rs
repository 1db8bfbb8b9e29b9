//! Builds ClusterStacks.

use anyhow::{Context, Result};
use core_operator::api::ClusterStack;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};
use tests::stacks::StackRelease;

use crate::scene::Scene;

/// A ClusterStack in the making.
pub struct Stack {
    pub name: String,
    pub spec: Value,
}

impl Stack {
    /// Without a provider, wanting releases like this one; called like the stack.
    pub fn of(release: &StackRelease) -> Self {
        Self {
            name: release.stack().to_owned(),
            spec: json!({
                "provider": release.provider(),
                "name": release.stack(),
                "kubernetesVersion": release.name().kubernetes().to_string(),
                "noProvider": true,
            }),
        }
    }

    /// Calls the object other than the stack.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// Wants just these versions.
    pub fn versions(self, versions: &[&str]) -> Self {
        self.with("versions", json!(versions))
            .with("autoSubscribe", json!(false))
    }

    /// Sets a field of the spec.
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec[field] = value;
        self
    }

    /// Reads a folder below `--source-root`.
    pub fn in_directory(self, path: &str) -> Self {
        self.with("source", json!({"directory": {"path": path}}))
    }

    /// Makes it.
    pub async fn create(&self, scene: &Scene<'_>) -> Result<ClusterStack> {
        self.create_in(scene, &scene.namespace).await
    }

    /// Makes it in another namespace.
    pub async fn create_in(&self, scene: &Scene<'_>, namespace: &str) -> Result<ClusterStack> {
        let stack = serde_json::from_value(json!({
            "apiVersion": "clusterstack.x-k8s.io/v1alpha1",
            "kind": "ClusterStack",
            "metadata": {"name": self.name},
            "spec": self.spec,
        }))?;
        let api: Api<ClusterStack> = Api::namespaced(scene.client.clone(), namespace);
        api.create(&PostParams::default(), &stack)
            .await
            .with_context(|| format!("failed to create ClusterStack \"{}\"", self.name))
    }
}
