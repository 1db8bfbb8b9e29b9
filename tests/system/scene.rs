//! What the tests share: one management cluster in which the test bed plays Cluster API, one operator, one folder with releases.
//!
//! Each test has its own namespace and its own names of stacks, so that it sees nothing of the others.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use core_operator::api::{ClusterStack, ClusterStackRelease, Condition};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tests::audit::{Request, Requests};
use tests::provider_kinds::{self, Provider};
use tests::stacks::StackRelease;
use tests::{
    Bed, ClassStatus, ControlPlane, Operator, cluster_api, eventually, manifests, operator,
    scenario,
};
use tokio::sync::OnceCell;

use crate::stack::Stack;

/// Longest wait for a fact; shorter than the first retry (48 s) of a failure that somebody must act on, so that no retry
/// stands in for a change that should have been noticed.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// A namespace in which every release may have objects.
pub const COMMON: &str = "common-ground";

/// API version of the infrastructure templates in the example stacks.
pub const INFRASTRUCTURE: &str = "infrastructure.cluster.x-k8s.io/v1beta1";

/// What an administrator allows beside the delivered roles.
const FURTHER_RIGHTS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: core-operator-further-kinds
  labels: {clusterstack.x-k8s.io/aggregate-to-core: 'true'}
rules:
- apiGroups: ['']
  resources: [configmaps, secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [scheduling.k8s.io]
  resources: [priorityclasses]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [storage.k8s.io]
  resources: [storageclasses]
  verbs: [get, list, watch, create, patch, delete]
";

/// What all tests share.
pub struct Shared {
    /// The operator, which watches all namespaces.
    pub operator: Operator,
    /// Its `--release-dir` and `--source-root`.
    pub folder: PathBuf,
}

/// What all tests share; the first call starts it.
pub async fn shared() -> Result<&'static Shared> {
    // Never dropped; the guards of its processes end them when this process ends.
    static SHARED: OnceCell<Shared> = OnceCell::const_new();
    SHARED.get_or_try_init(start).await
}

async fn start() -> Result<Shared> {
    let control_plane = ControlPlane::shared().await?;
    let client = control_plane.client().await?;
    tokio::try_join!(
        cluster_api::install_crds(&client),
        provider_kinds::install(&client, &Provider::ALL),
        operator::install_rbac(&client, "default"),
    )?;
    let common = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {COMMON}}}}}");
    manifests::apply_yaml(&client, "default", &common).await?;
    manifests::apply_yaml(&client, "default", FURTHER_RIGHTS).await?;
    let folder = control_plane.folder().join("releases");
    std::fs::create_dir_all(&folder)?;
    let operator = Operator::builder(control_plane)
        .args([
            "--source=local".to_owned(),
            format!("--release-dir={}", folder.display()),
            format!("--source-root={}", folder.display()),
            format!("--allow-namespaces={COMMON}"),
            "--allow-cluster-kinds=PriorityClass.scheduling.k8s.io".to_owned(),
        ])
        .start()
        .await?;
    Ok(Shared { operator, folder })
}

fn class_resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(
        "cluster.x-k8s.io",
        "v1beta2",
        "ClusterClass",
    ))
}

/// Writes a status with this verdict on the class's variables.
pub async fn write_class_status(
    client: &Client,
    class: &DynamicObject,
    verdict: &Value,
) -> Result<()> {
    let generation = class.metadata.generation;
    let mut condition = json!({
        "type": "VariablesReady", "message": "", "lastTransitionTime": "2026-11-22T14:36:48Z",
    });
    for (key, value) in verdict.as_object().into_iter().flatten() {
        condition[key] = value.clone();
    }
    let status = json!({"status": {"observedGeneration": generation, "conditions": [condition]}});
    let namespace = class.namespace().unwrap_or_default();
    let api: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &class_resource());
    let params = PatchParams::default();
    api.patch_status(&class.name_any(), &params, &Patch::Merge(status))
        .await?;
    Ok(())
}

/// A test's own place.
pub struct Scene<'a> {
    /// Namespace, client, report.
    pub bed: &'a Bed<'a>,
    /// The folder in which the operator looks for releases.
    pub folder: &'a Path,
}

impl<'a> std::ops::Deref for Scene<'a> {
    type Target = Bed<'a>;

    fn deref(&self) -> &Bed<'a> {
        self.bed
    }
}

/// Runs a test beside the others: in its own namespace, with the operator that all share.
pub async fn scene(name: &str, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    scene_without_cluster_api(name, async |scene| {
        let _classes = ClassStatus::write(&scene.client, Some(&scene.namespace));
        test(scene).await
    })
    .await
}

/// As [`scene`], and nobody says of a class that it was taken.
pub async fn scene_without_cluster_api(
    name: &str,
    test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>,
) -> Result<()> {
    let shared = shared().await?;
    scenario(name, async |bed| {
        bed.report_log(&shared.operator.folder().join("operator.log"));
        test(&Scene {
            bed,
            folder: &shared.folder,
        })
        .await
    })
    .await
}

impl Scene<'_> {
    /// Version `v1` of an example stack, under a name that no other test has; `suffix` tells the stacks of one test apart.
    pub fn example(&self, example: &str, suffix: &str) -> StackRelease {
        let release = StackRelease::example(example);
        let (_, word) = self.namespace.rsplit_once('-').unwrap_or_default();
        let stem = format!("{}-{word}{suffix}", release.provider());
        let minor = release.name().kubernetes().to_string();
        release.named(&stem, &minor, "v1")
    }

    /// Version `v1` of the example stack with Docker machines.
    pub fn docker(&self) -> StackRelease {
        self.example("docker-example", "")
    }

    /// Puts a release where the operator finds it.
    pub fn publish(&self, release: &StackRelease) -> Result<()> {
        release.write_to(self.folder).map(|_| ())
    }

    /// Publishes the release, makes a stack that lists just its version, and waits until it is ready.
    pub async fn bring(&self, release: &StackRelease) -> Result<ClusterStack> {
        self.publish(release)?;
        let version = release.name().version().dotted();
        let stack = Stack::of(release).versions(&[&version]);
        stack.create(self).await?;
        self.stack_ready(&stack.name).await
    }

    /// All stacks of the namespace.
    pub fn stacks(&self) -> Api<ClusterStack> {
        self.api()
    }

    /// All releases of the namespace.
    pub fn releases(&self) -> Api<ClusterStackRelease> {
        self.api()
    }

    /// Objects of any kind in the namespace.
    pub fn objects(&self, api_version: &str, kind: &str) -> Api<DynamicObject> {
        self.objects_in(&self.namespace, api_version, kind)
    }

    /// Objects of any kind in any namespace.
    pub fn objects_in(&self, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let kind = GroupVersionKind::gvk(group, version, kind);
        Api::namespaced_with(
            self.client.clone(),
            namespace,
            &ApiResource::from_gvk(&kind),
        )
    }

    /// The classes of the namespace, as Cluster API stores them.
    pub fn classes(&self) -> Api<DynamicObject> {
        self.objects("cluster.x-k8s.io/v1beta2", "ClusterClass")
    }

    /// `DockerMachineTemplate`s of the namespace.
    pub fn machine_templates(&self) -> Api<DynamicObject> {
        self.objects(INFRASTRUCTURE, "DockerMachineTemplate")
    }

    /// `DockerClusterTemplate`s of the namespace.
    pub fn cluster_templates(&self) -> Api<DynamicObject> {
        self.objects(INFRASTRUCTURE, "DockerClusterTemplate")
    }

    /// Waits until a stack is ready.
    pub async fn stack_ready(&self, name: &str) -> Result<ClusterStack> {
        self.stack_when(name, "is ready", |stack| {
            is(stack_conditions(stack), "Ready", "True", "Ready")
        })
        .await
    }

    /// Waits until a fact about a stack is so.
    pub async fn stack_when(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&ClusterStack) -> Result<()>,
    ) -> Result<ClusterStack> {
        when(&self.stacks(), name, what, check).await
    }

    /// Waits until a release is ready.
    pub async fn release_ready(&self, release: &StackRelease) -> Result<ClusterStackRelease> {
        self.release_says(release, "Ready", "True", "Ready").await
    }

    /// Waits until a release has a condition with this status and reason.
    pub async fn release_says(
        &self,
        release: &StackRelease,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<ClusterStackRelease> {
        let what = format!("says {type_}={status}/{reason}");
        when(&self.releases(), &release.name().tag(), &what, |release| {
            is(release_conditions(release), type_, status, reason)
        })
        .await
    }

    /// Waits until nothing is left of a release but, perhaps, objects of others.
    pub async fn release_gone(&self, release: &StackRelease) -> Result<()> {
        gone(&self.releases(), &release.name().tag()).await
    }

    /// Changes a stack's spec as `kubectl patch --type=merge` does.
    pub async fn patch_stack(&self, name: &str, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        let params = PatchParams::default();
        self.stacks().patch(name, &params, &patch).await?;
        Ok(())
    }

    /// Has the operator look at the source of a stack again, as any change of the spec does.
    pub async fn look_again(&self, stack: &str) -> Result<()> {
        let current = self.stacks().get(stack).await?.spec.poll_interval;
        let other = if current.as_deref() == Some("5m") {
            "6m"
        } else {
            "5m"
        };
        self.patch_stack(stack, json!({"pollInterval": other}))
            .await
    }

    /// A Cluster, in whatever namespace, that uses a class of this test's namespace.
    pub async fn use_class(&self, namespace: &str, cluster: &str, class: &str) -> Result<()> {
        let own = &self.namespace;
        let yaml = format!(
            "
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {{name: {cluster}, namespace: {namespace}}}
spec: {{topology: {{classRef: {{name: {class}, namespace: {own}}}, version: v1.30.4}}}}
"
        );
        self.apply(&yaml).await
    }

    /// The Clusters of a namespace.
    pub fn clusters(&self, namespace: &str) -> Api<DynamicObject> {
        self.objects_in(namespace, "cluster.x-k8s.io/v1beta2", "Cluster")
    }

    /// Sets or, with `None`, removes an annotation.
    pub async fn annotate<K>(
        &self,
        api: &Api<K>,
        name: &str,
        annotation: &str,
        value: Option<&str>,
    ) -> Result<()>
    where
        K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {annotation: value}}}));
        let params = PatchParams::default();
        api.patch_metadata(name, &params, &patch).await?;
        Ok(())
    }

    /// The messages of all events with this reason about an object.
    pub async fn events(&self, object: &str, reason: &str) -> Result<Vec<String>> {
        let events: Api<Event> = self.api();
        let events = events.list(&ListParams::default()).await?;
        let about = events.items.into_iter().filter(|event| {
            event.involved_object.name.as_deref() == Some(object)
                && event.reason.as_deref() == Some(reason)
        });
        Ok(about
            .map(|event| event.message.unwrap_or_default())
            .collect())
    }

    /// Waits for an event; its message.
    pub async fn event(&self, object: &str, reason: &str) -> Result<String> {
        let what = format!("there is an event {reason} about {object}");
        eventually(&what, PATIENCE, async || {
            let found = self.events(object, reason).await?;
            found.into_iter().next().context("no such event")
        })
        .await
    }

    /// Follows what the operator asks from now on.
    pub async fn requests(&self) -> Result<Requests> {
        self.control_plane.requests(operator::USER).await
    }

    /// What the operator has asked in this test's namespace.
    pub async fn asked(&self, requests: &Requests) -> Result<Vec<Request>> {
        let mut asked = requests.list().await?;
        asked.retain(|request| request.namespace == self.namespace);
        Ok(asked)
    }

    /// What the operator has written in this test's namespace, apart from statuses and events.
    pub async fn changes(&self, requests: &Requests) -> Result<Vec<Request>> {
        let mut writes = self.asked(requests).await?;
        writes.retain(|request| {
            request.is_write() && request.subresource != "status" && request.resource != "events"
        });
        Ok(writes)
    }
}

/// Waits until a fact about an object is so.
pub async fn when<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    check: impl Fn(&K) -> Result<()>,
) -> Result<K>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    eventually(&format!("{name} {what}"), PATIENCE, async || {
        let object = api.get(name).await?;
        check(&object)?;
        Ok(object)
    })
    .await
}

/// Waits until an object is gone.
pub async fn gone<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    eventually(&format!("{name} is gone"), PATIENCE, async || {
        match api.get_opt(name).await? {
            None => Ok(()),
            Some(object) => bail!("still there: {object:?}"),
        }
    })
    .await
}

/// Waits until an object is there that is not `before`.
pub async fn back<K>(api: &Api<K>, name: &str, before: &K) -> Result<K>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    when(api, name, "is back", |object| {
        ensure!(object.uid() != before.uid(), "still the old one");
        Ok(())
    })
    .await
}

/// Deletes an object.
pub async fn delete<K>(api: &Api<K>, name: &str) -> Result<()>
where
    K: Resource + Clone + std::fmt::Debug + DeserializeOwned,
{
    api.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until what is made now is younger than what was made then: API servers keep whole seconds.
pub async fn second_after(made: Option<Time>) -> Result<()> {
    let made = made.context("not made")?.0;
    eventually("the next second has begun", PATIENCE, async || {
        let now = jiff::Timestamp::now();
        ensure!(now.as_second() > made.as_second(), "{now}");
        Ok(())
    })
    .await
}

pub fn stack_conditions(stack: &ClusterStack) -> &[Condition] {
    stack
        .status
        .as_ref()
        .map_or(&[], |status| status.conditions.as_slice())
}

pub fn release_conditions(release: &ClusterStackRelease) -> &[Condition] {
    release
        .status
        .as_ref()
        .map_or(&[], |status| status.conditions.as_slice())
}

/// That a condition has this status and reason.
pub fn is(conditions: &[Condition], type_: &str, status: &str, reason: &str) -> Result<()> {
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == type_)
        .with_context(|| format!("no condition {type_}"))?;
    ensure!(
        found.status == status && found.reason == reason,
        "{type_} is {}/{}: {}",
        found.status,
        found.reason,
        found.message
    );
    Ok(())
}

/// The message of a condition.
pub fn message<'a>(conditions: &'a [Condition], type_: &str) -> Result<&'a str> {
    let found = conditions
        .iter()
        .find(|condition| condition.type_ == type_)
        .with_context(|| format!("no condition {type_}"))?;
    Ok(&found.message)
}

/// That a text has all of these in it.
pub fn says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in {text:?}");
    }
    Ok(())
}
