//! Requests to the renderer and its answers, field by field as in `helm-renderer`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RenderError, RenderedObject, RendererPool};

/// One rendering of a chart.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChartQuestion {
    pub path: PathBuf,
    pub dependencies: Vec<PathBuf>,
    pub release_name: String,
    pub namespace: String,
    pub kube_version: String,
    pub values: Value,
    pub include_crds: bool,
    /// Also say which functions occur that are random.
    pub scan: bool,
    /// How far the templates' clock is ahead.
    pub clock_offset_seconds: i64,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ChartAnswer {
    pub objects: Vec<RenderedObject>,
    pub hooks: Vec<Hook>,
    #[serde(default)]
    pub random: Vec<String>,
    #[serde(default)]
    pub warnings: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Hook {
    pub events: Vec<String>,
    pub weight: i64,
    #[serde(flatten)]
    pub object: RenderedObject,
}

/// Whoever renders charts: the pool, or a test.
pub(super) trait RenderChart: Send + Sync {
    fn render(
        &self,
        question: ChartQuestion,
    ) -> BoxFuture<'static, Result<ChartAnswer, RenderError>>;
}

impl RenderChart for RendererPool {
    fn render(
        &self,
        question: ChartQuestion,
    ) -> BoxFuture<'static, Result<ChartAnswer, RenderError>> {
        let pool = self.clone();
        Box::pin(async move { pool.ask("chart", &named(&question.path), &question).await })
    }
}

/// How errors name a chart: the paths of the store mean nothing to a reader.
pub(super) fn named(chart: &Path) -> String {
    format!(
        "chart \"{}\"",
        chart.file_name().unwrap_or(chart.as_os_str()).display()
    )
}

#[derive(Serialize)]
pub(super) struct TemplateQuestion<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub data: &'a Value,
}

#[derive(Deserialize)]
pub(super) struct TemplateAnswer {
    pub text: String,
}

#[derive(Serialize)]
pub(super) struct ValuesQuestion<'a> {
    pub text: &'a str,
}

#[derive(Deserialize)]
pub(super) struct ValuesAnswer {
    pub values: Value,
}

#[derive(Serialize)]
pub(super) struct ResolveQuestion<'a> {
    pub constraint: &'a str,
    pub versions: &'a [String],
}

#[derive(Deserialize)]
pub(super) struct ResolveAnswer {
    pub version: Option<String>,
}

#[derive(Serialize)]
pub(super) struct InspectQuestion<'a> {
    pub path: &'a Path,
}

/// What a chart says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartInfo {
    /// The name in `Chart.yaml`.
    pub name: String,
    /// The version in `Chart.yaml`.
    pub version: String,
    /// `application` or `library`; empty means `application`.
    #[serde(default, rename = "type")]
    pub chart_type: String,
    /// The annotations in `Chart.yaml`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// The charts on which it depends, as declared.
    pub dependencies: Vec<ChartDependency>,
    /// What `Chart.lock` says, if the chart has one.
    pub lock: Option<ChartLock>,
    /// Names of the charts that it carries.
    pub vendored: Vec<String>,
    /// Names of declared dependencies that it does not carry.
    pub missing: Vec<String>,
    /// Functions in its templates whose result differs from time to time.
    pub random: Vec<String>,
}

/// A dependency as `Chart.yaml` or `Chart.lock` has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ChartDependency {
    /// Name of the chart.
    pub name: String,
    /// A version, or in `Chart.yaml` a range of versions.
    pub version: String,
    /// Address of the repository: `https://…`, `oci://…`, `file://…`; empty for a chart in the folder `charts`.
    pub repository: String,
    /// Name under which the chart appears.
    pub alias: String,
    /// Values that switch it on.
    pub condition: String,
}

/// `Chart.lock`: the versions that the author's `helm dependency update` chose.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChartLock {
    /// Digest over the declared and the chosen dependencies.
    pub digest: String,
    /// Whether the digest fits `Chart.yaml` as it is now.
    pub in_sync: bool,
    /// The chosen dependencies.
    pub dependencies: Vec<ChartDependency>,
}
