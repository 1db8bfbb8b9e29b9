//! What is measured: time, what processes use, and who is ready when.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use core_operator::api::ClusterStack;
use futures::StreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use tests::audit::Request;
use tests::usage::{children, cpu, machine_cpu};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// The processes of a measurement.
pub struct Machine {
    pub operator: Option<u32>,
    pub api_server: u32,
    /// What else belongs to the measurement.
    pub others: Vec<u32>,
}

/// CPU times at one moment.
#[derive(Clone, Debug, Default)]
pub struct Look {
    operator: Duration,
    renderers: Duration,
    api_server: Duration,
    /// The harness, the rest of the control plane.
    others: Duration,
    machine: Duration,
}

/// What was used in a span of time.
#[derive(Clone, Debug, Default)]
pub struct Used {
    pub wall: Duration,
    pub operator: Duration,
    /// Of the operator, or of the limit.
    pub renderers: Duration,
    pub api_server: Duration,
    /// What had nothing to do with the measurement.
    pub foreign: Duration,
    /// What the operator, or the limit in its name, asked of the API server.
    pub requests: Vec<Request>,
}

impl Machine {
    pub fn look(&self) -> Look {
        let harness = std::process::id();
        let renderers = children(self.operator.unwrap_or(harness));
        Look {
            operator: self.operator.map(cpu).unwrap_or_default(),
            // The harness's other children are in groups of their own and named elsewhere.
            renderers: renderers
                .into_iter()
                .filter(|pid| *pid != self.api_server && !self.others.contains(pid))
                .map(cpu)
                .sum(),
            api_server: cpu(self.api_server),
            others: cpu(harness) + self.others.iter().copied().map(cpu).sum::<Duration>(),
            machine: machine_cpu(),
        }
    }
}

impl Look {
    /// What was used since.
    pub fn used(&self, after: &Self, wall: Duration, requests: Vec<Request>) -> Used {
        let since = |part: fn(&Self) -> Duration| part(after).saturating_sub(part(self));
        let [operator, renderers, api_server] = [
            since(|look| look.operator),
            since(|look| look.renderers),
            since(|look| look.api_server),
        ];
        let ours = operator + renderers + api_server + since(|look| look.others);
        Used {
            wall,
            operator,
            renderers,
            api_server,
            foreign: since(|look| look.machine).saturating_sub(ours),
            requests,
        }
    }
}

/// How often a new operator has looked at stacks, and at releases, as its metrics say.
pub async fn reconciles(metrics_url: &str) -> Result<(u64, u64)> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let answer = http.get(format!("{metrics_url}/metrics")).send().await?;
    let text = answer.error_for_status()?.text().await?;
    let of = |controller: &str| {
        let label = format!("reconciles_total{{controller=\"{controller}\"");
        let lines = text.lines().filter(|line| line.contains(&label));
        let counts = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok());
        counts.sum()
    };
    Ok((of("clusterstack"), of("clusterstackrelease")))
}

/// Notes when stacks become ready. A watch: looking again and again would cost the API server more.
pub struct ReadyWatch {
    seen: mpsc::UnboundedReceiver<Instant>,
    _task: AbortOnDropHandle<()>,
}

impl ReadyWatch {
    /// Watches from now on.
    pub async fn start(stacks: &Api<ClusterStack>) -> Result<Self> {
        let (sender, seen) = mpsc::unbounded_channel();
        let (listed, first) = tokio::sync::oneshot::channel();
        let events = watcher(stacks.clone(), watcher::Config::default());
        let task = tokio::spawn(async move {
            let (mut listed, mut ready) = (Some(listed), HashSet::new());
            let mut events = pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    Ok(Event::InitDone) => {
                        let _ = listed.take().map(|listed| listed.send(()));
                    }
                    Ok(Event::Apply(stack) | Event::InitApply(stack))
                        if is_ready(&stack) && ready.insert(stack.name_any()) =>
                    {
                        let _ = sender.send(Instant::now());
                    }
                    _ => {}
                }
            }
        });
        first.await.context("failed to watch the stacks")?;
        Ok(Self {
            seen,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Waits for the next `count` stacks that become ready.
    pub async fn all(&mut self, count: usize, patience: Duration) -> Result<Vec<Instant>> {
        let mut moments = Vec::new();
        let all = async {
            while moments.len() < count
                && let Some(moment) = self.seen.recv().await
            {
                moments.push(moment);
            }
        };
        if tokio::time::timeout(patience, all).await.is_err() {
            bail!(
                "{} of {count} stacks are ready after {patience:?}",
                moments.len()
            );
        }
        Ok(moments)
    }
}

/// Ready, with a version to use.
fn is_ready(stack: &ClusterStack) -> bool {
    stack.status.as_ref().is_some_and(|status| {
        let mut conditions = status.conditions.iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        status.usable_versions.is_some() && ready.is_some_and(|ready| ready.status == "True")
    })
}
