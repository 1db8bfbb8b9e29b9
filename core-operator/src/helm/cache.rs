//! Renders by content: one rendering for equal requests, at the same time or later.
//!
//! A render without volatile objects is shared by everybody; one with such objects belongs to the scope it was made for.
//! Whether a chart can be random at all is known after its first rendering; until then, scopes do not wait for each other.

use std::{
    collections::{BTreeSet, HashMap},
    ffi::OsStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    ChartRequest, ObjectIdentity, RenderError, Rendered, RenderedObject, hooks,
    renderer::{ChartAnswer, ChartQuestion, RenderChart, named},
    volatile::{self, OwnNames},
};

/// Memory for renders, roughly: a class chart takes some 20 KiB, cilium 130 KiB.
const CACHE_BYTES: usize = 16 << 20;

/// For how many charts and values it is remembered what is random in them.
const REMEMBERED: usize = 4096;

/// How far the clock of the second rendering is ahead: no common format of a date prints both times alike.
const CLOCK_OFFSET_SECONDS: i64 = ((400 * 24 + 1) * 60 + 1) * 60 + 1;

type Hash = [u8; 32];
type RenderFuture = BoxFuture<'static, Result<Arc<Rendered>, RenderError>>;

/// The key of a render: content, and for whom if it is not for everybody.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Shared(Hash),
    Scoped(Hash, Option<String>),
}

/// The renders, and what is known about charts.
pub(super) struct Cache {
    renderer: Arc<dyn RenderChart>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    renders: HashMap<Key, Entry>,
    bytes: usize,
    /// Counts uses; the entry with the smallest number goes first.
    clock: u64,
    running: HashMap<Key, WeakShared<RenderFuture>>,
    /// By chart and dependencies: whether any random function occurs in them.
    random: HashMap<Hash, bool>,
    /// By chart and neutral values: the objects that do not differ from render to render.
    stable: HashMap<Hash, Arc<BTreeSet<ObjectIdentity>>>,
}

struct Entry {
    rendered: Arc<Rendered>,
    bytes: usize,
    used: u64,
}

/// What one request is about, computed once.
struct Job {
    question: ChartQuestion,
    own_names: Vec<String>,
    chart: Hash,
    content: Hash,
    neutral: Hash,
    /// Values that may contain templates, which "tpl" evaluates: their functions count as well.
    values_are_templates: bool,
    scope: Option<String>,
}

impl Cache {
    pub(super) fn new(renderer: Arc<dyn RenderChart>) -> Self {
        Self {
            renderer,
            state: Arc::default(),
        }
    }

    pub(super) async fn render(
        &self,
        request: &ChartRequest,
    ) -> Result<Arc<Rendered>, RenderError> {
        let job = Job::new(request);
        let render = {
            let mut state = lock(&self.state);
            let scoped = Key::Scoped(job.content, job.scope.clone());
            for key in [&Key::Shared(job.content), &scoped] {
                if let Some(found) = state.find(key) {
                    return Ok(found);
                }
            }
            let shared = !job.values_are_templates && state.random.get(&job.chart) == Some(&false);
            let key = if shared {
                Key::Shared(job.content)
            } else {
                scoped
            };
            match state.running.get(&key).and_then(WeakShared::upgrade) {
                Some(running) => running,
                None => self.start(&mut state, key, job),
            }
        };
        render.await
    }

    /// Forgets what was rendered for one scope only: its random parts are to be made anew.
    pub(super) fn forget(&self, scope: Option<&str>) {
        let mut state = lock(&self.state);
        let mut freed = 0;
        state.renders.retain(|key, entry| {
            let kept = !matches!(key, Key::Scoped(_, owner) if owner.as_deref() == scope);
            if !kept {
                freed += entry.bytes;
            }
            kept
        });
        state.bytes -= freed;
    }

    fn start(&self, state: &mut State, key: Key, job: Job) -> Shared<RenderFuture> {
        let (renderer, shared) = (Arc::clone(&self.renderer), Arc::clone(&self.state));
        let own_key = key.clone();
        let render = async move {
            let result = job.run(&*renderer, &shared).await;
            let mut state = lock(&shared);
            state.running.remove(&own_key);
            if let Ok(rendered) = &result {
                let key = if rendered.volatile.is_empty() {
                    Key::Shared(job.content)
                } else {
                    Key::Scoped(job.content, job.scope)
                };
                state.keep(key, rendered);
            }
            result
        };
        let render = render.boxed().shared();
        if let Some(weak) = render.downgrade() {
            state.running.retain(|_, render| render.upgrade().is_some()); // those nobody waited for
            state.running.insert(key, weak);
        }
        render
    }
}

impl Job {
    fn new(request: &ChartRequest) -> Self {
        let question = ChartQuestion {
            path: request.chart.clone(),
            dependencies: request.dependencies.clone(),
            release_name: request.release_name.clone(),
            namespace: request.namespace.clone(),
            kube_version: request.kube_version.clone().unwrap_or_default(),
            values: if request.values.is_null() {
                Value::Object(serde_json::Map::new())
            } else {
                request.values.clone()
            },
            include_crds: request.include_crds,
            scan: false,
            clock_offset_seconds: 0,
        };
        let files: Vec<_> = request
            .dependencies
            .iter()
            .map(|path| path.file_name().map(OsStr::as_encoded_bytes))
            .collect();
        let chart = hash(&(&request.chart_digest, files));
        let content = |values: &Value| {
            hash(&(
                chart,
                &question.release_name,
                &question.namespace,
                &question.kube_version,
                question.include_crds,
                values,
            ))
        };
        Self {
            chart,
            content: content(&question.values),
            neutral: content(&OwnNames::new(&request.own_names).neutral_value(&question.values)),
            values_are_templates: has_templates(&question.values),
            question,
            own_names: request.own_names.clone(),
            scope: request.scope.clone(),
        }
    }

    async fn run(
        &self,
        renderer: &dyn RenderChart,
        state: &Mutex<State>,
    ) -> Result<Arc<Rendered>, RenderError> {
        let known = lock(state).random.get(&self.chart).copied();
        let scan = self.values_are_templates || known.is_none();
        let answer = renderer
            .render(ChartQuestion {
                scan,
                ..self.question.clone()
            })
            .await?;
        for warning in &answer.warnings {
            tracing::warn!(chart = %named(&self.question.path), warning, "rendering a chart");
        }
        let random = if scan {
            !answer.random.is_empty()
        } else {
            known == Some(true)
        };
        if scan && !(self.values_are_templates && random) {
            remember(&mut lock(state).random, self.chart, random);
        }
        let stable = if random {
            Some(self.stable(renderer, state, &answer).await?)
        } else {
            None
        };
        Ok(Arc::new(self.finish(answer, stable.as_deref())))
    }

    /// The objects of the chart that do not differ from render to render, found by a second rendering.
    async fn stable(
        &self,
        renderer: &dyn RenderChart,
        state: &Mutex<State>,
        first: &ChartAnswer,
    ) -> Result<Arc<BTreeSet<ObjectIdentity>>, RenderError> {
        if let Some(known) = lock(state).stable.get(&self.neutral) {
            return Ok(Arc::clone(known));
        }
        let second = renderer
            .render(ChartQuestion {
                clock_offset_seconds: CLOCK_OFFSET_SECONDS,
                ..self.question.clone()
            })
            .await?;
        let names = OwnNames::new(&self.own_names);
        let stable = volatile::stable(objects(first), objects(&second));
        let stable: Arc<BTreeSet<_>> = Arc::new(
            stable
                .iter()
                .map(|identity| names.neutral_identity(identity))
                .collect(),
        );
        remember(&mut lock(state).stable, self.neutral, Arc::clone(&stable));
        Ok(stable)
    }

    fn finish(&self, answer: ChartAnswer, stable: Option<&BTreeSet<ObjectIdentity>>) -> Rendered {
        let (before, after) = hooks::split(answer.hooks);
        let mut rendered = Rendered {
            before,
            objects: answer.objects,
            after,
            volatile: BTreeSet::new(),
        };
        if let Some(stable) = stable {
            let names = OwnNames::new(&self.own_names);
            let identities = rendered.all().map(RenderedObject::identity);
            rendered.volatile = identities
                .filter(|identity| !stable.contains(&names.neutral_identity(identity)))
                .collect();
        }
        rendered
    }
}

impl State {
    fn find(&mut self, key: &Key) -> Option<Arc<Rendered>> {
        self.clock += 1;
        let entry = self.renders.get_mut(key)?;
        entry.used = self.clock;
        Some(Arc::clone(&entry.rendered))
    }

    fn keep(&mut self, key: Key, rendered: &Arc<Rendered>) {
        let bytes = rendered
            .all()
            .map(|object| object.source.len() + weight(&object.object))
            .sum();
        if bytes > CACHE_BYTES {
            return;
        }
        self.clock += 1;
        let entry = Entry {
            rendered: Arc::clone(rendered),
            bytes,
            used: self.clock,
        };
        self.bytes += bytes;
        if let Some(replaced) = self.renders.insert(key, entry) {
            self.bytes -= replaced.bytes;
        }
        while self.bytes > CACHE_BYTES {
            // some hundred entries: looking at each is cheaper than an order of them
            let Some(oldest) = self
                .renders
                .iter()
                .min_by_key(|(_, entry)| entry.used)
                .map(|(key, _)| key.clone())
            else {
                break;
            };
            if let Some(entry) = self.renders.remove(&oldest) {
                self.bytes -= entry.bytes;
            }
        }
    }
}

fn objects(answer: &ChartAnswer) -> impl Iterator<Item = &RenderedObject> {
    answer
        .objects
        .iter()
        .chain(answer.hooks.iter().map(|hook| &hook.object))
}

/// Forgets all when full: what is forgotten costs a rendering to find out again.
fn remember<T>(known: &mut HashMap<Hash, T>, key: Hash, value: T) {
    if known.len() >= REMEMBERED {
        known.clear();
    }
    known.insert(key, value);
}

fn hash(value: &impl Serialize) -> Hash {
    let content = serde_json::to_vec(value).expect("texts, bytes and JSON values have a JSON form");
    Sha256::digest(content).into()
}

fn has_templates(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("{{"),
        Value::Array(items) => items.iter().any(has_templates),
        Value::Object(entries) => entries.values().any(has_templates),
        _ => false,
    }
}

/// Bytes that a value takes in memory, roughly.
fn weight(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(weight).sum(),
            // a node of a B-tree is about two thirds full
            Value::Object(entries) => entries
                .iter()
                .map(|(key, value)| 48 + key.len() + weight(value))
                .sum(),
            _ => 0,
        }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Every change under the lock is complete in itself: a panic elsewhere leaves nothing half done.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
