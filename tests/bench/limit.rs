//! The limit: what the same API server needs when nothing but the writes and the renders is left.
//!
//! For each stack, one after the other: finalizer, release, render, inventory, templates (together), class, status of the release, status of the stack – with
//! the bodies that the operator writes, as the operator's user, with [`CONNECTIONS`] requests under way over all stacks. As for the operator, the
//! harness makes the stacks, and somebody writes the status of classes. The operator's events are left out, as is all that it reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use core_operator::api::{
    ClusterStack, ClusterStackRelease, ClusterStackReleaseSpec, ClusterStackReleaseStatus,
    RELEASE_FINALIZER, Resource as Entry, ResourceState, STACK_FINALIZER,
};
use core_operator::apply::MANAGER;
use core_operator::apply::discovery::{Kinds, ServedKind};
use core_operator::apply::manifest::{Manifest, Step};
use core_operator::helm::{ChartRequest, Helm, RendererConfig};
use futures::future::try_join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tests::tools::{self, Tool};

use crate::connections::Connections;
use crate::copies::Copy;
use crate::example::{self, Example};
use crate::{CONNECTIONS, Plane};

/// Renderer processes, as many as the operator has by default.
const RENDERERS: usize = 2;

/// The bare loop, with all that it needs open and warm.
pub struct Loop {
    harness: Connections,
    operator: Connections,
    helm: Helm,
    kinds: Kinds,
    namespace: String,
    folder: PathBuf,
    example: Example,
}

impl Loop {
    /// Opens connections, starts the renderers, learns the kinds of the objects.
    pub async fn prepare(
        plane: &Plane,
        example: &Example,
        namespace: &str,
        folder: &Path,
        spare: &Copy,
    ) -> Result<Arc<Self>> {
        let tools = tools::ensure_async(&[Tool::HelmRenderer]).await?;
        let helm = Helm::new(RendererConfig {
            program: tools.path(Tool::HelmRenderer)?.to_owned(),
            processes: RENDERERS,
            time_limit: Duration::from_mins(1),
            memory_limit_bytes: 512 << 20,
        });
        let bare = Self {
            harness: Connections::open(plane.server.admin(), CONNECTIONS).await?,
            operator: Connections::open(&plane.user, CONNECTIONS).await?,
            helm,
            kinds: Kinds::new(plane.client.clone()),
            namespace: namespace.to_owned(),
            folder: folder.to_owned(),
            example: example.clone(),
        };
        bare.objects(spare).await?;
        Ok(Arc::new(bare))
    }

    /// Does what the operator does for these releases.
    pub async fn run(self: Arc<Self>, releases: &[Copy]) -> Result<Duration> {
        let begin = Instant::now();
        let stacks = releases.iter().map(|release| {
            let (bare, release) = (Arc::clone(&self), release.clone());
            tokio::spawn(async move { bare.stack(&release).await })
        });
        for done in try_join_all(stacks).await? {
            done?;
        }
        Ok(begin.elapsed())
    }

    async fn stack(&self, release: &Copy) -> Result<()> {
        let (stem, tag) = (release.name.stem().to_owned(), release.name.tag());
        let manifest = example::stack(release)?;
        let stack = self
            .harness
            .with(|client| async move {
                self.api::<ClusterStack>(client)
                    .create(&PostParams::default(), &manifest)
                    .await
            })
            .await?;
        let stack = self.with_finalizer(stack).await?;
        let made = self.create_release(&tag, &stack).await?;
        let objects = self.objects(release).await?;

        let status = self.example.release_status(&stem, &self.namespace)?;
        let inventory = inventory(&status);
        let recorded = self.write_release(made, inventory).await?;
        let (classes, templates): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .partition(|(manifest, _)| manifest.step() == Step::Classes);
        for batch in [templates, classes] {
            try_join_all(
                batch
                    .iter()
                    .map(|(manifest, kind)| self.apply(manifest, kind)),
            )
            .await?;
        }
        self.write_release(recorded, status).await?;

        let mut stack = stack;
        stack.status = Some(self.example.stack_status(&stem, &self.namespace)?);
        self.operator
            .with(|client| async move {
                self.api::<ClusterStack>(client)
                    .replace_status(
                        &stem,
                        &written_by("cluster-stack-operator-clusterstack"),
                        &stack,
                    )
                    .await
            })
            .await
            .context("failed to write a stack's status")?;
        Ok(())
    }

    async fn with_finalizer(&self, mut stack: ClusterStack) -> Result<ClusterStack> {
        let name = stack.name_any();
        let patch = json!({"metadata": {
            "resourceVersion": stack.resource_version(), "finalizers": [STACK_FINALIZER],
        }});
        let patched = self
            .operator
            .with(|client| async move {
                self.api::<ClusterStack>(client)
                    .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))
                    .await
            })
            .await
            .context("failed to set a finalizer")?;
        stack.metadata = patched.metadata;
        Ok(stack)
    }

    async fn create_release(&self, tag: &str, stack: &ClusterStack) -> Result<ClusterStackRelease> {
        let mut release = ClusterStackRelease::new(tag, ClusterStackReleaseSpec::default());
        release.metadata.owner_references = Some(vec![OwnerReference {
            api_version: ClusterStack::api_version(&()).into_owned(),
            kind: ClusterStack::kind(&()).into_owned(),
            name: stack.name_any(),
            uid: stack.uid().unwrap_or_default(),
            ..OwnerReference::default()
        }]);
        release.metadata.finalizers = Some(vec![RELEASE_FINALIZER.to_owned()]);
        self.operator
            .with(|client| async move {
                self.api::<ClusterStackRelease>(client)
                    .create(&PostParams::default(), &release)
                    .await
            })
            .await
            .context("failed to create a release")
    }

    async fn write_release(
        &self,
        mut release: ClusterStackRelease,
        status: ClusterStackReleaseStatus,
    ) -> Result<ClusterStackRelease> {
        release.status = Some(status);
        self.operator
            .with(|client| async move {
                self.api::<ClusterStackRelease>(client)
                    .replace_status(
                        &release.name_any(),
                        &written_by("cluster-stack-operator-clusterstackrelease"),
                        &release,
                    )
                    .await
            })
            .await
            .context("failed to write a release's status")
    }

    /// Renders the class chart and marks its objects, as the operator does.
    async fn objects(&self, release: &Copy) -> Result<Vec<(Manifest, ServedKind)>> {
        let (name, tag) = (&release.name, release.name.tag());
        let request = ChartRequest {
            chart: self.folder.join(&tag).join(name.class_chart_file()),
            // No two of them are alike.
            chart_digest: tag.clone(),
            release_name: name.helm_release_name(),
            namespace: self.namespace.clone(),
            ..ChartRequest::default()
        };
        let rendered = self.helm.chart(&request).await?;
        let mut objects = Vec::new();
        for object in rendered.all() {
            let manifest = Manifest::check(object)?;
            let identity = manifest.identity();
            let kind = self
                .kinds
                .find(&identity.group, manifest.version(), &identity.kind)
                .await?
                .with_context(|| format!("{} is not served", identity.kind))?;
            let manifest = manifest.place(kind.namespaced, &self.namespace);
            let content = manifest.content_digest();
            objects.push((manifest.mark(&self.namespace, &tag, &content), kind));
        }
        Ok(objects)
    }

    async fn apply(&self, manifest: &Manifest, kind: &ServedKind) -> Result<()> {
        let name = &manifest.identity().name;
        self.operator
            .with(|client| async move {
                let api: Api<DynamicObject> =
                    Api::namespaced_with(client, &self.namespace, &kind.resource);
                let patch = Patch::Apply(manifest.value());
                api.patch_metadata(name, &PatchParams::apply(MANAGER), &patch)
                    .await
            })
            .await
            .with_context(|| format!("failed to apply {} {name:?}", manifest.identity().kind))?;
        Ok(())
    }

    fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(client, &self.namespace)
    }
}

/// What is known of a release before its objects are applied.
fn inventory(status: &ClusterStackReleaseStatus) -> ClusterStackReleaseStatus {
    let resources = status.resources.iter().cloned().map(|entry| Entry {
        uid: String::new(),
        generation: None,
        status: ResourceState::NotSynced,
        ..entry
    });
    ClusterStackReleaseStatus {
        resources: resources.collect(),
        ..ClusterStackReleaseStatus::default()
    }
}

fn written_by(manager: &str) -> PostParams {
    PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    }
}
