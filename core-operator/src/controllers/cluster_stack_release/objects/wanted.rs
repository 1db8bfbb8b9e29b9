//! What the release wants: its chart rendered, checked, and made ready to be applied.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use jiff::Timestamp;
use kube::ResourceExt;

use super::super::Error;
use crate::{
    api::{ClusterStackRelease, Resource},
    apply::{
        discovery::ServedKind,
        manifest::{Manifest, ManifestInvalid, Step},
        placement::Misplaced,
        renewal,
        write::shown,
    },
    capi::preflight::{Checked, Subject},
    conditions::reason,
    context::Context,
    helm::{ChartRequest, ObjectIdentity, Rendered},
    metrics::Outcome,
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
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::Missing { reason, .. } => reason,
            _ => reason::RELEASE_INVALID,
        }
    }
}

/// An object of the release, ready to be applied.
pub(super) struct Wanted {
    pub manifest: Manifest,
    pub kind: ServedKind,
    pub content: String,
    pub volatile: bool,
    /// When the certificates in it are to be made anew, if others come with each render.
    pub renewal: Option<Timestamp>,
    /// Objects of one batch are applied together, batches one after the other.
    pub batch: (u8, Step),
}

/// An object that the release applied and does not want any more.
pub(super) struct Leftover {
    pub kind: ServedKind,
    pub identity: ObjectIdentity,
    /// Its entry in the inventory.
    pub entry: Resource,
}

/// Renders the class chart and makes its objects ready to be applied, in the order of their batches.
pub(super) async fn wanted(
    release: &ClusterStackRelease,
    name: &ReleaseName,
    stored: &StoredRelease,
    context: &Context,
) -> Result<Vec<Wanted>, Error> {
    let namespace = release.namespace().unwrap_or_default();
    let now = (context.now)();
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
        let renewal = volatile
            .then(|| renewal::due(manifest.value()))
            .flatten()
            .map(|due| renewal::mark(due, now));
        let batch = (phase, manifest.step());
        let mut manifest = manifest.mark(&namespace, &release.name_any(), &digest);
        if let Some(due) = renewal {
            manifest = manifest.renew_after(due);
        }
        wanted.push(Wanted {
            batch,
            manifest,
            kind,
            content: digest,
            volatile,
            renewal,
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
        Outcome::Success
    } else {
        Outcome::Error
    };
    context.metrics.rendered(outcome, begin.elapsed());
    result.map_err(Error::Render)
}

/// What the inventory has and the chart has no more. Objects of kinds that are not served any more have vanished.
pub(super) async fn leftovers(
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
        let kind = context.kinds.find_surely(&entry.group, &entry.kind).await;
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
