//! Helm: charts and templates rendered by Helm itself, in processes of its own.
//!
//! ```text
//!  Helm ── cache ── RendererPool ══ stdin/stdout ══ helm-renderer (Go, the library Helm 4)
//!          │  └ hooks: before, after, or not at all
//!          └ volatile: what differs from render to render
//! ```
//!
//! The core hands over charts that lie in the store, names and values, and gets objects. Nothing here reads a cluster,
//! the network or the environment; equal requests give equal objects, but for those in [`Rendered::volatile`].

mod cache;
mod error;
mod hooks;
mod pool;
mod renderer;
mod volatile;

use std::{
    collections::BTreeSet,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::Value;

pub use error::RenderError;
pub(crate) use error::shorten;
pub use pool::{RendererConfig, RendererPool};
pub use renderer::{ChartDependency, ChartInfo, ChartLock};

use renderer::{
    InspectQuestion, ResolveAnswer, ResolveQuestion, TemplateAnswer, TemplateQuestion,
    ValuesAnswer, ValuesQuestion, named,
};

/// Helm, with its processes and its cache. Cheap to clone: clones share both.
#[derive(Clone)]
pub struct Helm {
    pool: RendererPool,
    cache: Arc<cache::Cache>,
}

impl Helm {
    /// Helm without processes: the first requests start them.
    #[must_use]
    pub fn new(config: RendererConfig) -> Self {
        let pool = RendererPool::start(config);
        let cache = Arc::new(cache::Cache::new(Arc::new(pool.clone())));
        Self { pool, cache }
    }

    /// The objects of a chart, as `helm template` renders them. Concurrent equal requests share one rendering.
    ///
    /// # Errors
    ///
    /// [`RenderError::Render`] with Helm's words if the chart cannot be rendered with these values; other variants if
    /// the renderer failed.
    pub async fn chart(&self, request: &ChartRequest) -> Result<Arc<Rendered>, RenderError> {
        self.cache.render(request).await
    }

    /// Forgets what was rendered for one scope only, so that the next rendering makes its random parts anew.
    pub fn forget(&self, scope: Option<&str>) {
        self.cache.forget(scope);
    }

    /// A text evaluated as Helm evaluates templates of charts, over `data` in place of Helm's own objects.
    ///
    /// Integers stay integers. What `data` lacks is empty, but something below it is an error, as in Helm.
    ///
    /// # Errors
    ///
    /// [`RenderError::Render`] if the template is not valid; other variants if the renderer failed.
    pub async fn template(&self, text: &str, data: &Value) -> Result<String, RenderError> {
        let question = TemplateQuestion {
            name: "template",
            text,
            data,
        };
        self.pool
            .ask("template", "the template", &question)
            .await
            .map(|answer: TemplateAnswer| answer.text)
    }

    /// YAML read as Helm reads a file of values: YAML 1.1 (`yes` is true), several documents are merged.
    ///
    /// # Errors
    ///
    /// [`RenderError::Render`] if the text is no YAML mapping; other variants if the renderer failed.
    pub async fn values(&self, text: &str) -> Result<Value, RenderError> {
        self.pool
            .ask("values", "the values", &ValuesQuestion { text })
            .await
            .map(|answer: ValuesAnswer| answer.values)
    }

    /// The version that Helm chooses for a constraint: equal text first, else the newest that satisfies it.
    ///
    /// # Errors
    ///
    /// [`RenderError::Render`] if the constraint is not valid; other variants if the renderer failed.
    pub async fn resolve(
        &self,
        constraint: &str,
        versions: &[String],
    ) -> Result<Option<String>, RenderError> {
        let what = format!("version \"{constraint}\"");
        let question = ResolveQuestion {
            constraint,
            versions,
        };
        self.pool
            .ask("resolve", &what, &question)
            .await
            .map(|answer: ResolveAnswer| answer.version)
    }

    /// What a chart (archive or folder) says about itself and its dependencies.
    ///
    /// # Errors
    ///
    /// [`RenderError::Render`] if it is no chart; other variants if the renderer failed.
    pub async fn inspect(&self, chart: &Path) -> Result<ChartInfo, RenderError> {
        self.pool
            .ask("inspect", &named(chart), &InspectQuestion { path: chart })
            .await
    }
}

impl fmt::Debug for Helm {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Helm").finish_non_exhaustive()
    }
}

/// What to render.
#[derive(Debug, Clone, Default)]
pub struct ChartRequest {
    /// The chart in the store: an archive, or a folder.
    pub chart: PathBuf,
    /// Digest of the chart's content; two charts with one digest are the same chart.
    pub chart_digest: String,
    /// Archives of charts that the chart names as dependencies and does not carry; file names are their digests.
    pub dependencies: Vec<PathBuf>,
    /// Name of the Helm release, at most 53 characters.
    pub release_name: String,
    /// Namespace of the Helm release.
    pub namespace: String,
    /// Kubernetes version that the chart sees; absent means Helm's default.
    pub kube_version: Option<String>,
    /// Values over those of the chart, a mapping or null; see [`Helm::values`].
    pub values: Value,
    /// Whether the objects in the folders `crds` belong to the result, before the others.
    pub include_crds: bool,
    /// For whom volatile objects are rendered, such as the UID of a Cluster; they are never shared between scopes.
    pub scope: Option<String>,
    /// Texts in the values that are the Cluster's own (name, namespace, UID, host): charts that render randomly are
    /// rendered a second time only once for values that are equal but for these.
    pub own_names: Vec<String>,
}

/// The objects of a chart.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rendered {
    /// Hooks before an installation or upgrade, in their order.
    pub before: Vec<RenderedObject>,
    /// The objects in Helm's install order.
    pub objects: Vec<RenderedObject>,
    /// Hooks after an installation or upgrade, in their order.
    pub after: Vec<RenderedObject>,
    /// Which of them differ from render to render: they are not compared with live objects to find drift.
    pub volatile: BTreeSet<ObjectIdentity>,
}

impl Rendered {
    /// All objects in the order in which they are applied.
    pub fn all(&self) -> impl Iterator<Item = &RenderedObject> {
        self.before.iter().chain(&self.objects).chain(&self.after)
    }
}

/// One object of a chart.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RenderedObject {
    /// The template that it comes from, such as `cilium/templates/cilium-agent/daemonset.yaml`.
    pub source: String,
    /// The object; `apiVersion` and `kind` are there.
    pub object: Value,
}

impl RenderedObject {
    /// Which object it is.
    #[must_use]
    pub fn identity(&self) -> ObjectIdentity {
        let text = |pointer: &str| self.object.pointer(pointer).and_then(Value::as_str);
        let api_version = text("/apiVersion").unwrap_or_default();
        ObjectIdentity {
            group: api_version
                .split_once('/')
                .map(|(group, _)| group.to_owned())
                .unwrap_or_default(),
            kind: text("/kind").unwrap_or_default().to_owned(),
            namespace: text("/metadata/namespace").map(str::to_owned),
            name: self.name().to_owned(),
        }
    }

    /// The object's name; empty if it has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// An object as the chart names it: without the version of its group, and with a namespace only if the chart gives one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectIdentity {
    /// Group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace, if the object names one.
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}
