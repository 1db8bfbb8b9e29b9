//! From the class chart to objects in the cluster.
//!
//! ```text
//! render ─► check ─► preflight ─► place, mark ─► observe ─► decide ─► record ─► apply, batch by batch ─► prune
//! ```

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::future::join_all;
use kube::{Resource as _, ResourceExt};

use super::{Error, rival, status::Progress};
use crate::{
    api::{ClusterStack, ClusterStackRelease, Resource, ResourceState},
    apply::{
        discovery::ServedKind,
        live::LiveObject,
        manifest::{Manifest, ManifestInvalid, Step},
        placement::Misplaced,
        plan::{Applied, Decision, Wish, decide, is_ours},
        write::{WriteError, shown},
    },
    capi::{
        self, ClassReadiness,
        preflight::{Checked, Subject},
    },
    conditions::{Verdict, reason},
    context::Context,
    helm::{ChartRequest, ObjectIdentity, Rendered},
    release::ReleaseName,
    store::StoredRelease,
};

/// Why objects of a release may not be applied at all.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// An object is not one that can be applied.
    #[error(transparent)]
    Manifest(#[from] ManifestInvalid),
    /// An object lies where it may not.
    #[error(transparent)]
    Misplaced(#[from] Misplaced),
    /// One object is there twice.
    #[error("{object} occurs twice, in \"{first}\" and in \"{second}\"")]
    Twice {
        /// Kind and name.
        object: String,
        /// Template of the first.
        first: String,
        /// Template of the second.
        second: String,
    },
    /// The management cluster lacks something.
    #[error("{message}")]
    Missing {
        /// One word for it.
        reason: &'static str,
        /// All that is missing.
        message: String,
    },
}

impl Refused {
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { reason, .. } => reason,
            _ => reason::RELEASE_INVALID,
        }
    }
}

/// An object of the release, ready to be applied.
struct Wanted {
    manifest: Manifest,
    kind: ServedKind,
    content: String,
    volatile: bool,
    /// Objects of one batch are applied together, batches one after the other.
    batch: (u8, Step),
}

/// An object that the release applied and does not want any more.
struct Leftover {
    kind: ServedKind,
    identity: ObjectIdentity,
    /// Its entry in the inventory.
    entry: Resource,
}

/// Brings the objects of a release into the cluster and its inventory into `progress`.
pub(super) async fn bring(
    release: &Arc<ClusterStackRelease>,
    stack: &ClusterStack,
    name: &ReleaseName,
    stored: &StoredRelease,
    context: &Context,
    progress: &mut Progress,
) -> Result<(), Error> {
    let wanted = wanted(release, name, stored, context).await?;
    let inventory = release.inventory();
    let namespace = release.namespace().unwrap_or_default();
    let leftovers = leftovers(&wanted, inventory, &namespace, context).await?;
    context
        .live
        .watch(
            wanted
                .iter()
                .map(|object| &object.kind)
                .chain(leftovers.iter().map(|object| &object.kind)),
        )
        .await
        .map_err(Error::Watch)?;

    let decisions = decisions(release, stack, &wanted, context, progress).await?;
    let mut states = States::new(&wanted, &leftovers, inventory);
    states.remember(&release.uid().unwrap_or_default(), &wanted, context);
    states.decided(&wanted, &decisions);
    let work = to_apply(release, &wanted, &decisions, context, progress);
    if !work.is_empty() && states.has_unrecorded(inventory) {
        progress.recorded = Some(states.record(release, context).await?);
    }
    let failed = apply(release, &wanted, work, &mut states, context).await;
    if failed.is_none() {
        states.pruned(&prune(release, &leftovers, context).await);
    }
    progress.resources = Some(states.into_resources());
    progress.applied = Some(applied_verdict(&wanted, &decisions));
    progress.class = class(&wanted, context);
    match failed {
        None => Ok(()),
        Some(error) => {
            if matches!(error, WriteError::Refuse { code: 403, .. }) {
                context
                    .preflight
                    .forget(&release.namespace().unwrap_or_default());
            }
            Err(Error::Write(error))
        }
    }
}

/// Renders the class chart and makes its objects ready to be applied, in the order of their batches.
async fn wanted(
    release: &ClusterStackRelease,
    name: &ReleaseName,
    stored: &StoredRelease,
    context: &Context,
) -> Result<Vec<Wanted>, Error> {
    let namespace = release.namespace().unwrap_or_default();
    let rendered = render(release, name, stored, context).await?;
    let manifests: Vec<_> = rendered
        .all()
        .map(Manifest::check)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::Refuse(error.into()))?;
    let has_stages = stored
        .content
        .addon
        .as_ref()
        .is_some_and(|addon| addon.stages.is_some());
    let kinds = match context
        .preflight
        .check(Subject {
            namespace: &namespace,
            manifests: &manifests,
            has_stages,
        })
        .await
        .map_err(Error::Preflight)?
    {
        Checked::Passed(kinds) => kinds,
        Checked::Missing(missed) => {
            refuse_misplaced(&manifests, &namespace, context).await?;
            return Err(Error::Refuse(Refused::Missing {
                reason: missed.reason(),
                message: missed.to_string(),
            }));
        }
    };
    let phases = [
        (0, &rendered.before),
        (1, &rendered.objects),
        (2, &rendered.after),
    ];
    let phases = phases
        .into_iter()
        .flat_map(|(phase, objects)| objects.iter().map(move |_| phase));
    let mut wanted = Vec::new();
    let mut seen: HashMap<ObjectIdentity, String> = HashMap::new();
    for (phase, manifest) in phases.zip(manifests) {
        let volatile = rendered.volatile.contains(manifest.identity());
        let Some(kind) = kinds.of(&manifest).cloned() else {
            continue; // preflight has named it
        };
        let manifest = manifest.place(kind.namespaced, &namespace);
        context
            .allowed
            .check(&manifest, &namespace)
            .map_err(|error| Error::Refuse(error.into()))?;
        if let Some(first) = seen.insert(manifest.identity().clone(), manifest.source().to_owned())
        {
            return Err(Error::Refuse(Refused::Twice {
                object: shown(manifest.identity()),
                first,
                second: manifest.source().to_owned(),
            }));
        }
        let digest = if volatile {
            // Another render is no change of the release; another chart is.
            format!("chart-{}", stored.class.digest)
        } else {
            manifest.content_digest()
        };
        wanted.push(Wanted {
            batch: (phase, manifest.step()),
            manifest: manifest.mark(&namespace, &release.name_any(), &digest),
            kind,
            content: digest,
            volatile,
        });
    }
    wanted.sort_by_key(|object| object.batch);
    Ok(wanted)
}

/// Refuses what may not be there at all, before anybody is asked to give rights for it.
async fn refuse_misplaced(
    manifests: &[Manifest],
    namespace: &str,
    context: &Context,
) -> Result<(), Error> {
    for manifest in manifests {
        let identity = manifest.identity();
        let kind = context
            .kinds
            .find(&identity.group, manifest.version(), &identity.kind)
            .await
            .map_err(Error::Observe)?;
        let Some(kind) = kind else { continue };
        let placed = manifest.clone().place(kind.namespaced, namespace);
        context
            .allowed
            .check(&placed, namespace)
            .map_err(|error| Error::Refuse(error.into()))?;
    }
    Ok(())
}

async fn render(
    release: &ClusterStackRelease,
    name: &ReleaseName,
    stored: &StoredRelease,
    context: &Context,
) -> Result<Arc<Rendered>, Error> {
    let request = ChartRequest {
        chart: stored.class.path.clone(),
        chart_digest: stored.class.digest.clone(),
        dependencies: stored.class.dependencies.clone(),
        release_name: name.helm_release_name(),
        namespace: release.namespace().unwrap_or_default(),
        scope: release.uid(),
        ..ChartRequest::default()
    };
    let begin = tokio::time::Instant::now();
    let result = context.helm.chart(&request).await;
    let outcome = if result.is_ok() {
        crate::metrics::Outcome::Success
    } else {
        crate::metrics::Outcome::Error
    };
    context.metrics.rendered(outcome, begin.elapsed());
    result.map_err(Error::Render)
}

/// What the inventory has and the chart has no more. Objects of kinds that are not served any more have vanished.
async fn leftovers(
    wanted: &[Wanted],
    inventory: &[Resource],
    namespace: &str,
    context: &Context,
) -> Result<Vec<Leftover>, Error> {
    let identities: HashSet<_> = wanted
        .iter()
        .map(|object| object.manifest.identity())
        .collect();
    let mut leftovers = Vec::new();
    for entry in inventory {
        if identities.contains(&entry.identity()) {
            continue;
        }
        let kind = context
            .kinds
            .find_preferred(&entry.group, &entry.kind)
            .await;
        let Some(kind) = kind.map_err(Error::Observe)? else {
            continue;
        };
        let entry = entry.placed(kind.namespaced, namespace);
        let identity = entry.identity();
        if !identities.contains(&identity) {
            leftovers.push(Leftover {
                kind,
                identity,
                entry,
            });
        }
    }
    Ok(leftovers)
}

async fn decisions(
    release: &Arc<ClusterStackRelease>,
    stack: &ClusterStack,
    wanted: &[Wanted],
    context: &Context,
    progress: &mut Progress,
) -> Result<Vec<Decision>, Error> {
    let uid = release.uid().unwrap_or_default();
    let full_name = full_name(release);
    let owners = context.owners(release);
    let mut decisions = Vec::new();
    for object in wanted {
        let identity = object.manifest.identity();
        let live = context.live.find(identity).await.map_err(Error::Observe)?;
        let shown = live.as_ref().map(|live| live.uid.as_str());
        let remembered = context.memory.recall(&uid, identity, shown);
        if let (None, Some(rest)) = (&live, remembered.as_ref().and_then(|known| known.awaited)) {
            // Just applied: the watch is a little behind.
            progress.look_again_in(rest);
            decisions.push(Decision::Keep);
            continue;
        }
        let last = remembered.map(|known| known.applied).or_else(|| {
            let entry = release.inventory().iter().find(|entry| entry.is(identity));
            entry.and_then(Applied::recorded)
        });
        let wish = Wish {
            manifest: &object.manifest,
            content: &object.content,
            volatile: object.volatile,
            release: &full_name,
            drift: stack.drift_policy(),
        };
        decisions.push(decide(&wish, live.as_ref(), last.as_ref(), |other| {
            rival::judge(release, &owners, other, identity, context)
        }));
    }
    Ok(decisions)
}

fn full_name(release: &ClusterStackRelease) -> String {
    format!(
        "{}/{}",
        release.namespace().unwrap_or_default(),
        release.name_any()
    )
}

/// One object that is to be applied.
struct Work {
    index: usize,
    adopt: bool,
    force: bool,
}

/// What is to be applied now: nothing new while an object of the release is not to be had, so that a class never refers
/// to a stranger's template; what is ours is put right all the same, but not too often.
fn to_apply(
    release: &ClusterStackRelease,
    wanted: &[Wanted],
    decisions: &[Decision],
    context: &Context,
    progress: &mut Progress,
) -> Vec<Work> {
    let uid = release.uid().unwrap_or_default();
    let blocked = decisions.iter().any(|decision| {
        matches!(
            decision,
            Decision::Conflict { .. } | Decision::Immutable | Decision::Wait
        )
    });
    let mut work = Vec::new();
    for (index, (object, decision)) in wanted.iter().zip(decisions).enumerate() {
        let Decision::Apply {
            drifted,
            adopt,
            force,
        } = *decision
        else {
            continue;
        };
        if blocked && !drifted {
            continue;
        }
        let identity = object.manifest.identity();
        if drifted && let Err(rest) = context.memory.correct(&uid, identity) {
            progress.look_again_in(rest);
            continue;
        }
        work.push(Work {
            index,
            adopt,
            force,
        });
    }
    work
}

/// Applies batch by batch; a failure ends it after its batch, and the worst of them is returned.
async fn apply(
    release: &ClusterStackRelease,
    wanted: &[Wanted],
    work: Vec<Work>,
    states: &mut States,
    context: &Context,
) -> Option<WriteError> {
    let uid = release.uid().unwrap_or_default();
    let mut work = work.into_iter().peekable();
    while let Some(first) = work.peek() {
        let batch = wanted[first.index].batch;
        let together: Vec<_> =
            std::iter::from_fn(|| work.next_if(|next| wanted[next.index].batch == batch)).collect();
        let results = join_all(together.iter().map(|one| apply_one(one, wanted, context))).await;
        let mut failed: Option<WriteError> = None;
        for (one, result) in together.iter().zip(results) {
            let identity = wanted[one.index].manifest.identity();
            match result {
                Ok((applied, taken)) => {
                    if let Some(taken) = taken {
                        let note =
                            format!("{}: fields taken from others: {taken}", shown(identity));
                        context
                            .events
                            .normal(release.object_ref(&()), "FieldsTaken", note);
                    }
                    states.applied(one.index, &applied);
                    context.memory.remember(&uid, identity, applied);
                }
                Err(error) => {
                    states.failed(one.index, &error);
                    if failed
                        .as_ref()
                        .is_none_or(|worst| severity(&error) > severity(worst))
                    {
                        failed = Some(error);
                    }
                }
            }
        }
        if failed.is_some() {
            return failed;
        }
        if batch.1 == Step::Definitions {
            context.kinds.forget();
        }
    }
    None
}

async fn apply_one(
    one: &Work,
    wanted: &[Wanted],
    context: &Context,
) -> Result<(Applied, Option<String>), WriteError> {
    let object = &wanted[one.index];
    if one.adopt {
        context
            .writer
            .adopt(&object.kind, object.manifest.identity())
            .await?;
    }
    let written = context
        .writer
        .apply(&object.kind, &object.manifest, one.force)
        .await?;
    if object.manifest.step() == Step::Definitions {
        context
            .writer
            .established(object.manifest.identity())
            .await?;
    }
    Ok((written.applied, written.taken))
}

/// What somebody must act on comes before what passes by itself.
fn severity(error: &WriteError) -> u8 {
    match error.recovery() {
        proto::Recovery::Terminal => 3,
        proto::Recovery::Slow => 2,
        proto::Recovery::Fast { .. } => 1,
        proto::Recovery::Unknown => 0,
    }
}

/// Deletes what the release has applied and wants no more, if it is still ours. Returns what is gone, or never was ours.
async fn prune(
    release: &ClusterStackRelease,
    leftovers: &[Leftover],
    context: &Context,
) -> HashSet<ObjectIdentity> {
    let full_name = full_name(release);
    let results = leftovers.iter().map(|object| async {
        let Ok(live) = context.live.find(&object.identity).await else {
            return None;
        };
        let live = live.filter(|live: &LiveObject| is_ours(live, &full_name));
        let Some(live) = live else {
            return Some(object.identity.clone());
        };
        // Refused while in use; the next look tries again.
        let _ = context
            .writer
            .delete(&object.kind, &object.identity, Some(&live.uid))
            .await;
        None
    });
    join_all(results).await.into_iter().flatten().collect()
}

/// The inventory in the making.
struct States {
    entries: Vec<Resource>,
    /// Entries of what is not wanted any more, after the others.
    leftovers: Vec<Resource>,
}

impl States {
    fn new(wanted: &[Wanted], leftovers: &[Leftover], inventory: &[Resource]) -> Self {
        let known = |identity: &ObjectIdentity| inventory.iter().find(|entry| entry.is(identity));
        let entries = wanted
            .iter()
            .map(|object| {
                let identity = object.manifest.identity();
                let known = known(identity);
                Resource {
                    group: identity.group.clone(),
                    version: object.manifest.version().to_owned(),
                    kind: identity.kind.clone(),
                    name: identity.name.clone(),
                    namespace: identity.namespace.clone().unwrap_or_default(),
                    uid: known.map(|entry| entry.uid.clone()).unwrap_or_default(),
                    generation: known.and_then(|entry| entry.generation),
                    status: ResourceState::NotSynced,
                    error: String::new(),
                }
            })
            .collect();
        let leftovers = leftovers
            .iter()
            .map(|object| object.entry.clone())
            .map(|entry| Resource {
                status: ResourceState::NotSynced,
                error: "not wanted any more, is being removed".to_owned(),
                ..entry
            })
            .collect();
        Self { entries, leftovers }
    }

    /// Takes over what was applied since the inventory was written: the status after an apply may have been held back.
    fn remember(&mut self, release: &str, wanted: &[Wanted], context: &Context) {
        for (entry, object) in self.entries.iter_mut().zip(wanted) {
            let identity = object.manifest.identity();
            if let Some(known) = context.memory.recall(release, identity, None) {
                entry.uid = known.applied.uid;
                entry.generation = known.applied.generation;
            }
        }
    }

    fn decided(&mut self, wanted: &[Wanted], decisions: &[Decision]) {
        for ((entry, decision), object) in self.entries.iter_mut().zip(decisions).zip(wanted) {
            match decision {
                Decision::Keep | Decision::Leave => entry.status = ResourceState::Synced,
                other => {
                    entry.error = problem(object, other).unwrap_or_default();
                }
            }
        }
    }

    /// Whether an object is about to be applied that the inventory does not have.
    fn has_unrecorded(&self, inventory: &[Resource]) -> bool {
        let same = |left: &Resource, right: &Resource| {
            (&left.group, &left.kind, &left.namespace, &left.name)
                == (&right.group, &right.kind, &right.namespace, &right.name)
        };
        self.entries
            .iter()
            .any(|entry| !inventory.iter().any(|known| same(known, entry)))
    }

    /// Writes the inventory, so that nothing that is applied can be forgotten.
    async fn record(
        &self,
        release: &ClusterStackRelease,
        context: &Context,
    ) -> Result<ClusterStackRelease, Error> {
        super::status::record(release, self.all(), context)
            .await
            .map_err(Error::Record)
    }

    fn applied(&mut self, index: usize, applied: &Applied) {
        let entry = &mut self.entries[index];
        entry.uid.clone_from(&applied.uid);
        entry.generation = applied.generation;
        entry.status = ResourceState::Synced;
        entry.error.clear();
    }

    fn failed(&mut self, index: usize, error: &WriteError) {
        self.entries[index].error = error.to_string();
    }

    fn pruned(&mut self, gone: &HashSet<ObjectIdentity>) {
        self.leftovers
            .retain(|entry| !gone.contains(&entry.identity()));
    }

    fn all(&self) -> Vec<Resource> {
        self.entries
            .iter()
            .chain(&self.leftovers)
            .cloned()
            .collect()
    }

    fn into_resources(self) -> Vec<Resource> {
        let mut resources = self.entries;
        resources.extend(self.leftovers);
        resources
    }
}

/// What is wrong with an object, for people.
fn problem(object: &Wanted, decision: &Decision) -> Option<String> {
    let shown = shown(object.manifest.identity());
    match decision {
        Decision::Keep | Decision::Leave | Decision::Apply { .. } => None,
        Decision::Report { what, .. } => Some(format!("{shown} {what}")),
        Decision::Conflict { owner } => Some(format!("{shown} is there and is {owner}")),
        Decision::Immutable => Some(format!(
            "{shown} was changed under its name by the release (\"{}\"): Machines made from it would not follow, so the \
             author must give it a new name",
            object.manifest.source()
        )),
        Decision::Wait => Some(format!("{shown} is being deleted")),
    }
}

/// Longest list of problems in one message.
const LISTED: usize = 5;

fn applied_verdict(wanted: &[Wanted], decisions: &[Decision]) -> Verdict {
    let problems = |choose: fn(&Decision) -> bool| {
        let chosen: Vec<_> = wanted
            .iter()
            .zip(decisions)
            .filter(|(_, decision)| choose(decision))
            .filter_map(|(object, decision)| problem(object, decision))
            .collect();
        let rest = chosen.len().saturating_sub(LISTED);
        let mut text = chosen[..chosen.len() - rest].join("; ");
        if rest > 0 {
            text = format!("{text}; and {rest} more");
        }
        (!chosen.is_empty()).then_some(text)
    };
    if let Some(text) = problems(|decision| matches!(decision, Decision::Conflict { .. })) {
        return Verdict::no(reason::CONFLICT, text);
    }
    if let Some(text) = problems(|decision| matches!(decision, Decision::Immutable)) {
        return Verdict::no(reason::IMMUTABLE_CHANGED, text);
    }
    if let Some(text) = problems(|decision| matches!(decision, Decision::Wait)) {
        return Verdict::no(reason::APPLYING, text);
    }
    if let Some(text) =
        problems(|decision| matches!(decision, Decision::Report { missing: true, .. }))
    {
        return Verdict::no(reason::DRIFTED, text);
    }
    if let Some(text) = problems(|decision| matches!(decision, Decision::Report { .. })) {
        return Verdict {
            message: text,
            ..Verdict::yes(reason::DRIFTED)
        };
    }
    Verdict::yes(reason::APPLIED)
}

/// Whether Cluster API has taken all classes of the release.
fn class(wanted: &[Wanted], context: &Context) -> Option<ClassReadiness> {
    wanted
        .iter()
        .map(|object| object.manifest.identity())
        .filter(|identity| {
            identity.group == capi::GROUP && identity.kind == capi::CLUSTER_CLASS_KIND
        })
        .map(|identity| {
            let namespace = identity.namespace.as_deref().unwrap_or_default();
            context
                .cluster_api
                .class(namespace, &identity.name)
                .map_or_else(
                    || ClassReadiness::Pending {
                        reason: reason::CLASS_NOT_READY,
                        message: format!("ClusterClass \"{}\" is not there yet", identity.name),
                    },
                    |class| class.readiness(),
                )
        })
        .find(|readiness| *readiness != ClassReadiness::Ready)
}
