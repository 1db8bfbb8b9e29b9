//! What the tests stand on: a namespace, all kinds, a folder with releases, and somebody who plays Cluster API.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use core_operator::api::{
    ClusterStack, ClusterStackRelease, Condition, OWNED_LABEL, OWNED_VALUE, Resource,
};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Discovery, Scope, verbs};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tempfile::TempDir;
use tests::operator::{self, Builder};
use tests::provider_kinds::{self, Provider};
use tests::stacks::StackRelease;
use tests::{Bed, ClassStatus, Operator, cluster_api, eventually};
use tokio::sync::OnceCell;

/// How long a fact may take. Nothing here needs more than some seconds; the machine may also compile.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// What the tests stand on.
pub struct Ground<'a> {
    pub bed: &'a Bed<'a>,
    pub client: Client,
    pub namespace: String,
    /// Releases of the default source.
    pub releases: TempDir,
    _classes: ClassStatus,
}

impl<'a> Ground<'a> {
    /// On the shared control plane, in the scenario's namespace.
    pub async fn shared(bed: &'a Bed<'a>) -> Result<Self> {
        static KINDS: OnceCell<()> = OnceCell::const_new();
        KINDS.get_or_try_init(|| kinds(&bed.client)).await?;
        Self::in_namespace(bed, &bed.namespace).await
    }

    /// On a control plane of the test's own.
    pub async fn own(bed: &'a Bed<'a>) -> Result<Self> {
        kinds(&bed.client).await?;
        Self::in_namespace(bed, &bed.namespace).await
    }

    /// In another namespace of a control plane that has the kinds already.
    pub async fn in_namespace(bed: &'a Bed<'a>, namespace: &str) -> Result<Self> {
        operator::install_rbac(&bed.client, namespace).await?;
        Ok(Self {
            bed,
            client: bed.client.clone(),
            namespace: namespace.to_owned(),
            releases: tempfile::tempdir().context("failed to make a folder for releases")?,
            _classes: ClassStatus::write(&bed.client, Some(namespace)),
        })
    }

    /// An operator for this namespace alone, with a lease of its own: those of other tests are not disturbed.
    pub fn operator(&self) -> Builder<'_> {
        self.bed
            .operator()
            .lease_namespace(&self.namespace)
            .arg(format!("--namespace={}", self.namespace))
            .arg("--source=local")
            .arg(format!("--release-dir={}", self.releases.path().display()))
    }

    /// Objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Writes a release into the folder and applies a `ClusterStack` that subscribes to it, with further lines of its spec.
    pub async fn stack(&self, name: &str, release: &StackRelease, spec: &str) -> Result<()> {
        release.write_to(self.releases.path())?;
        self.apply_stack(name, release, spec).await
    }

    /// Applies a `ClusterStack` for a release that may be anywhere.
    pub async fn apply_stack(&self, name: &str, release: &StackRelease, spec: &str) -> Result<()> {
        let text = manifest(name, release, spec);
        tests::manifests::apply_yaml(&self.client, &self.namespace, &text).await
    }

    /// Waits until a stack is Ready as its spec is now.
    pub async fn ready(&self, name: &str) -> Result<ClusterStack> {
        let stacks: Api<ClusterStack> = self.api();
        eventually(
            &format!("ClusterStack {name} is Ready"),
            PATIENCE,
            async || {
                let stack = stacks.get(name).await?;
                ensure!(is_ready(&stack), "{:?}", ready_of(conditions(&stack)));
                Ok(stack)
            },
        )
        .await
    }

    /// Waits until a condition of a release has this status and reason, and returns it.
    pub async fn release_says(
        &self,
        release: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<Condition> {
        let releases: Api<ClusterStackRelease> = self.api();
        eventually(
            &format!("release {release} says {type_}={status} ({reason})"),
            PATIENCE,
            async || {
                let release = releases.get(release).await?;
                let conditions = release.status.unwrap_or_default().conditions;
                let found = conditions.iter().find(|it| it.type_ == type_);
                let found = found.context("no such condition")?;
                ensure!(
                    found.status == status && found.reason == reason,
                    "{conditions:?}"
                );
                Ok(found.clone())
            },
        )
        .await
    }

    /// Waits until the condition Ready of a stack is False or Unknown and its message contains all of these.
    pub async fn stack_complains(&self, name: &str, fragments: &[&str]) -> Result<Condition> {
        let stacks: Api<ClusterStack> = self.api();
        eventually(
            &format!("ClusterStack {name} says {fragments:?}"),
            PATIENCE,
            async || {
                let stack = stacks.get(name).await?;
                let ready = ready_of(conditions(&stack)).context("no condition Ready")?;
                ensure!(
                    ready.status != "True"
                        && fragments.iter().all(|part| ready.message.contains(part)),
                    "{ready:?}"
                );
                Ok(ready.clone())
            },
        )
        .await
    }

    /// Deletes a stack and waits until it is gone.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let stacks: Api<ClusterStack> = self.api();
        stacks.delete(name, &DeleteParams::default()).await?;
        eventually(
            &format!("ClusterStack {name} is gone"),
            PATIENCE,
            async || {
                let Some(stack) = stacks.get_opt(name).await? else {
                    return Ok(());
                };
                bail!("{:?}", stack.status.unwrap_or_default())
            },
        )
        .await
    }

    /// Waits until nothing of ours is left in the namespace.
    pub async fn is_empty(&self) -> Result<()> {
        eventually("nothing of ours is left", PATIENCE, async || {
            let releases = self.api::<ClusterStackRelease>();
            let releases = releases.list(&ListParams::default()).await?;
            let names: Vec<_> = releases.iter().map(ResourceExt::name_any).collect();
            ensure!(names.is_empty(), "releases {names:?}");
            Ok(())
        })
        .await?;
        self.is_without_objects().await
    }

    /// No object in the namespace carries our label.
    pub async fn is_without_objects(&self) -> Result<()> {
        let owned = self.owned().await?;
        ensure!(owned.is_empty(), "objects of ours are there: {owned:?}");
        Ok(())
    }

    /// All objects in the namespace that carry our label, of whatever kind.
    pub async fn owned(&self) -> Result<BTreeSet<Object>> {
        // The storage of new kinds needs a second until it can be listed.
        eventually("all kinds are listed", PATIENCE, async || {
            self.list_owned().await
        })
        .await
    }

    async fn list_owned(&self) -> Result<BTreeSet<Object>> {
        let discovery = Discovery::new(self.client.clone()).run_aggregated().await?;
        let params = ListParams::default().labels(&format!("{OWNED_LABEL}={OWNED_VALUE}"));
        let mut objects = BTreeSet::new();
        for group in discovery.groups() {
            // Kinds of one group need not be served in one version.
            for (resource, capabilities) in group.resources_by_stability() {
                if capabilities.scope != Scope::Namespaced
                    || !capabilities.supports_operation(verbs::LIST)
                {
                    continue;
                }
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
                for object in api.list_metadata(&params).await? {
                    objects.insert(Object {
                        kind: resource.kind.clone(),
                        name: object.name_any(),
                    });
                }
            }
        }
        Ok(objects)
    }

    /// Deletes an object of Cluster API or a provider.
    pub async fn delete_object(&self, kind: &GroupVersionKind, name: &str) -> Result<()> {
        self.objects(kind)
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Objects of a kind without a type of its own.
    pub fn objects(&self, kind: &GroupVersionKind) -> Api<DynamicObject> {
        let resource = ApiResource::from_gvk(kind);
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// Changes fields of a stack's spec.
    pub async fn patch_stack(&self, name: &str, spec: serde_json::Value) -> Result<()> {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let stacks: Api<ClusterStack> = self.api();
        stacks
            .patch(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("failed to change ClusterStack {name}"))?;
        Ok(())
    }
}

/// An object in the test's namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    pub kind: String,
    pub name: String,
}

impl From<&Resource> for Object {
    fn from(entry: &Resource) -> Self {
        Self {
            kind: entry.kind.clone(),
            name: entry.name.clone(),
        }
    }
}

/// The kind of classes, as the API server prefers it.
pub fn class_kind() -> GroupVersionKind {
    GroupVersionKind::gvk("cluster.x-k8s.io", "v1beta2", "ClusterClass")
}

/// The example release under another stack's name.
pub fn example(stack: &str, version: &str) -> StackRelease {
    StackRelease::example("docker-example").named(&format!("docker-{stack}"), "1.30", version)
}

/// A `ClusterStack` that works without provider, with further lines of its spec.
pub fn manifest(name: &str, release: &StackRelease, spec: &str) -> String {
    let mut indented = String::new();
    for line in spec.lines() {
        indented.extend(["  ", line, "\n"]);
    }
    format!(
        "apiVersion: clusterstack.x-k8s.io/v1alpha1
kind: ClusterStack
metadata: {{name: {name}}}
spec:
  provider: {}
  name: {}
  kubernetesVersion: \"{}\"
  noProvider: true
{indented}",
        release.provider(),
        release.stack(),
        release.name().kubernetes(),
    )
}

pub fn conditions(stack: &ClusterStack) -> &[Condition] {
    stack
        .status
        .as_ref()
        .map_or(&[], |status| status.conditions.as_slice())
}

pub fn ready_of(conditions: &[Condition]) -> Option<&Condition> {
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

/// Ready, and that is said of the newest spec.
pub fn is_ready(stack: &ClusterStack) -> bool {
    ready_of(conditions(stack)).is_some_and(|ready| {
        ready.status == "True" && ready.observed_generation == stack.metadata.generation
    })
}

/// The operator's own numbers: the value of a series, by its whole name with labels.
pub async fn metric(operator: &Operator, series: &str) -> Result<f64> {
    let text = http(&format!("{}/metrics", operator.metrics_url()))
        .await?
        .1;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let line = line.with_context(|| format!("no series {series} in\n{text}"))?;
    line.trim().parse().context("no number")
}

/// Status and body of an answer.
pub async fn http(url: &str) -> Result<(u16, String)> {
    tests::install_crypto();
    let client = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(2))
        .build()?;
    let answer = client.get(url).send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

async fn kinds(client: &Client) -> Result<()> {
    cluster_api::install_crds(client).await?;
    provider_kinds::install(client, &[Provider::Docker, Provider::Kubeadm]).await
}
