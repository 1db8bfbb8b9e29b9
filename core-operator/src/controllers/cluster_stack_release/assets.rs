//! The files of a release, brought into the store beside the reconcile.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use kube::{ResourceExt, runtime::reflector::ObjectRef};
use proto::Recovery;

use crate::{
    api::{ClusterStack, ClusterStackRelease, Dependency},
    conditions::reason,
    context::Context,
    controllers::places::{PlaceError, Places},
    jobs::{Failure, Jobs, Last, Pace},
    metrics::{Metrics, Outcome},
    release::ReleaseName,
    source::{Source, SourceError},
    store::{BringError, BringFiles, PinnedDependency, Store, StoreError, StoredRelease},
};

/// Releases on their way into the store, by the UID of their object.
pub type AssetJobs = Jobs<Brought, AssetsError>;

/// A release in the store.
#[derive(Debug)]
pub struct Brought {
    stored: Arc<StoredRelease>,
    /// What the source said about its content then.
    revision: Option<String>,
}

/// Why a release is not in the store.
#[derive(Debug, thiserror::Error)]
pub enum AssetsError {
    /// The source cannot be asked.
    #[error(transparent)]
    Place(PlaceError),
    /// The source does not have it.
    #[error(transparent)]
    Source(SourceError),
    /// The store did not take it.
    #[error(transparent)]
    Store(StoreError),
    /// The release could not be looked at, but what a process before this one brought is in the store still.
    #[error("{error}")]
    Keep {
        /// Why it could not be looked at.
        error: Box<Self>,
        /// What is kept.
        stored: Arc<StoredRelease>,
    },
}

impl AssetsError {
    /// What a user does about it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        if let Self::Keep { error, .. } = self {
            return error.reason();
        }
        if let Some(SourceError::FindRelease { .. }) = self.of_source() {
            return reason::RELEASE_NOT_FOUND;
        }
        match (self, Failure::recovery(self)) {
            (Self::Store(StoreError::FetchDependencies { .. }), _) => {
                reason::DEPENDENCY_UNAVAILABLE
            }
            (
                Self::Place(_) | Self::Source(_) | Self::Store(StoreError::Bring { .. }),
                recovery,
            ) => match recovery {
                Recovery::Slow | Recovery::Terminal => reason::SOURCE_REFUSED,
                Recovery::Unknown | Recovery::Fast { .. } => reason::SOURCE_UNAVAILABLE,
            },
            (Self::Store(_), Recovery::Terminal) => reason::RELEASE_INVALID,
            (Self::Store(_) | Self::Keep { .. }, _) => reason::OPERATOR_TROUBLE,
        }
    }

    /// What the source said, if it was the source.
    fn of_source(&self) -> Option<&SourceError> {
        match self {
            Self::Source(error) => Some(error),
            Self::Store(StoreError::Bring { source, .. }) => source.get_ref().downcast_ref(),
            Self::Keep { error, .. } => error.of_source(),
            Self::Place(_) | Self::Store(_) => None,
        }
    }

    /// The message with its causes.
    #[must_use]
    pub fn chain(&self) -> String {
        if let Self::Keep { error, .. } = self {
            return error.chain();
        }
        crate::report::chain(self)
    }

    /// Where the release is in the store, if only what its charts depend on is missing.
    fn digest(&self) -> Option<&str> {
        match self {
            Self::Store(error) => error.digest(),
            Self::Keep { error, .. } => error.digest(),
            Self::Place(_) | Self::Source(_) => None,
        }
    }
}

impl Failure for AssetsError {
    fn recovery(&self) -> Recovery {
        match self {
            Self::Place(error) => error.recovery(),
            Self::Source(error) => error.recovery(),
            Self::Store(error) => error.recovery(),
            Self::Keep { error, .. } => error.recovery(),
        }
    }
}

/// How far the files of a release are.
#[derive(Debug)]
pub enum Files {
    /// They are in the store.
    Stored {
        /// The release.
        stored: Arc<StoredRelease>,
        /// Why they could not be looked at again, if so.
        problem: Option<Arc<AssetsError>>,
        /// Time until the next look.
        due: Option<Duration>,
    },
    /// They are on their way.
    Pending,
    /// They could not be had.
    Failed {
        /// Why.
        error: Arc<AssetsError>,
        /// Time until the next attempt.
        due: Option<Duration>,
    },
}

impl Files {
    /// Time until the next look; none while one is under way, which wakes the release.
    #[must_use]
    pub const fn due(&self) -> Option<Duration> {
        match self {
            Self::Stored { due, .. } | Self::Failed { due, .. } => *due,
            Self::Pending => None,
        }
    }
}

/// How far the files are; starts to bring them when that is due.
pub(super) fn look(
    release: &Arc<ClusterStackRelease>,
    stack: &Arc<ClusterStack>,
    name: &ReleaseName,
    context: &Arc<Context>,
) -> Files {
    let uid = release.uid().unwrap_or_default();
    let interval = stack.poll_interval(context.poll_interval);
    let pace = Pace {
        interval,
        // Its author may mend the release at any time, or be still copying it.
        longest: context.places.is_directory(stack).then_some(interval),
    };
    let status = release.status.as_ref();
    let digest = status.and_then(|status| status.digest.clone());
    let recorded = recorded(release);
    let bring = |last: Last<Brought, AssetsError>| {
        let incomplete = last.failure.as_ref().and_then(|error| error.digest());
        let job = Bring {
            places: context.places.clone(),
            store: context.store.clone(),
            metrics: Arc::clone(&context.metrics),
            stack: Arc::clone(stack),
            name: name.clone(),
            digest: incomplete.map(ToOwned::to_owned).or(digest),
            recorded,
            previous: last.value,
        };
        job.run()
    };
    let (waker, object) = (
        context.wakers.releases.clone(),
        ObjectRef::from_obj(&**release),
    );
    let look = context
        .assets
        .look(&uid, input(stack, context), pace, bring, move || {
            waker.wake(object);
        });
    match (look.value, look.failure) {
        // What is wrong with the content itself counts more than what was there before.
        (_, Some(error)) if Failure::recovery(&*error) == Recovery::Terminal => Files::Failed {
            error,
            due: look.due,
        },
        (Some(brought), problem) => Files::Stored {
            stored: Arc::clone(&brought.stored),
            problem,
            due: look.due,
        },
        (None, Some(error)) => match &*error {
            AssetsError::Keep { stored, .. } => Files::Stored {
                stored: Arc::clone(stored),
                problem: Some(error),
                due: look.due,
            },
            _ => Files::Failed {
                error,
                due: look.due,
            },
        },
        (None, None) => Files::Pending,
    }
}

/// What decides about the content, apart from the release's name.
fn input(stack: &ClusterStack, context: &Context) -> u64 {
    let mut hasher = DefaultHasher::new();
    // The derived form has every field.
    format!("{:?}", stack.spec.source).hash(&mut hasher);
    stack.uid().hash(&mut hasher);
    context.places.secrets().changes(stack).hash(&mut hasher);
    hasher.finish()
}

/// The chart dependencies that were chosen when the release was first fetched.
#[must_use]
pub fn recorded(release: &ClusterStackRelease) -> Vec<PinnedDependency> {
    let status = release.status.as_ref();
    status
        .map(|status| status.dependencies.iter().map(pinned).collect())
        .unwrap_or_default()
}

fn pinned(dependency: &Dependency) -> PinnedDependency {
    let Dependency {
        chart,
        name,
        version,
        repository,
        digest,
    } = dependency.clone();
    PinnedDependency {
        chart,
        name,
        version,
        repository,
        digest,
    }
}

struct Bring {
    places: Places,
    store: Store,
    metrics: Arc<Metrics>,
    stack: Arc<ClusterStack>,
    name: ReleaseName,
    digest: Option<String>,
    recorded: Vec<PinnedDependency>,
    previous: Option<Arc<Brought>>,
}

impl Bring {
    async fn run(self) -> Result<Brought, AssetsError> {
        let error = match self.ask().await {
            // The content is at fault.
            Err(error) if Failure::recovery(&error) == Recovery::Terminal => return Err(error),
            Err(error) if self.previous.is_none() => error,
            other => return other,
        };
        // What this process has brought stays in use while its source is in trouble or has it no more; so it is with what
        // a process before this one has brought.
        let Some(digest) = &self.digest else {
            return Err(error);
        };
        match self.store.find(digest, &self.name, &self.recorded).await {
            Ok(Some(stored)) => Err(AssetsError::Keep {
                error: Box::new(error),
                stored,
            }),
            Ok(None) | Err(_) => Err(error),
        }
    }

    async fn ask(&self) -> Result<Brought, AssetsError> {
        let source = self
            .places
            .open(&self.stack)
            .await
            .map_err(AssetsError::Place)?;
        let revision = source
            .revision(&self.name)
            .await
            .map_err(AssetsError::Source)?;
        // What was brought before is good for as long as the source says so and it is still there.
        let known = match &self.previous {
            Some(previous) if previous.revision == revision => Some(&previous.stored.digest),
            None if revision.is_none() => self.digest.as_ref(),
            _ => None,
        };
        if let Some(digest) = known {
            let found = self.store.find(digest, &self.name, &self.recorded).await;
            if let Some(stored) = found.map_err(AssetsError::Store)? {
                return Ok(Brought { stored, revision });
            }
        }
        let files = FilesOf {
            source: &*source,
            name: &self.name,
            metrics: &self.metrics,
        };
        let stored = self.store.add(&files, &self.name, &self.recorded).await;
        let stored = stored.map_err(AssetsError::Store)?;
        Ok(Brought { stored, revision })
    }
}

/// The files of one release at its source.
struct FilesOf<'a> {
    source: &'a dyn Source,
    name: &'a ReleaseName,
    metrics: &'a Metrics,
}

#[async_trait]
impl BringFiles for FilesOf<'_> {
    async fn bring(&self, into: &Path) -> Result<(), BringError> {
        match self.source.fetch(self.name, into).await {
            Ok(fetched) => {
                self.metrics.downloaded(Outcome::Success, fetched.bytes);
                Ok(())
            }
            Err(error) => {
                self.metrics.downloaded(Outcome::Error, 0);
                Err(BringError::new(error.recovery(), error))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_release_is_told_wherever_it_is_noticed() {
        let missing = || SourceError::FindRelease {
            release: "docker-scs-1-30-v7".to_owned(),
            place: "here".to_owned(),
        };
        let brought = StoreError::Bring {
            release: "docker-scs-1-30-v7".to_owned(),
            source: BringError::new(Recovery::Slow, missing()),
        };
        for error in [AssetsError::Source(missing()), AssetsError::Store(brought)] {
            assert_eq!(error.reason(), reason::RELEASE_NOT_FOUND);
        }
        let unset = AssetsError::Source(SourceError::NeedSource);
        assert_eq!(unset.reason(), reason::SOURCE_REFUSED);
    }
}
