//! The sources that stacks name, with their Secrets looked up.

use std::{path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt};
use proto::Recovery;

use super::secrets::Secrets;
use crate::{
    api::ClusterStack,
    args::DefaultSource,
    retry::recovery_of,
    source::{Listing, Source, SourceError, SourceSpec, Sources},
};

/// Why a stack's source cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PlaceError {
    /// The API server did not give a Secret.
    #[error("failed to read Secret \"{secret}\": {source}")]
    ReadSecret {
        /// Name of the Secret.
        secret: String,
        /// What the API server said.
        source: Arc<kube::Error>,
    },
    /// The source is refused or fails.
    #[error(transparent)]
    Source(#[from] Arc<SourceError>),
}

impl PlaceError {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::ReadSecret { source, .. } => recovery_of(source),
            Self::Source(error) => error.recovery(),
        }
    }
}

/// The sources that stacks name. Cheap to clone.
#[derive(Clone)]
pub struct Places(Arc<Inner>);

struct Inner {
    client: Client,
    sources: Sources,
    default: DefaultSource,
    root: Option<PathBuf>,
    secrets: Secrets,
}

impl Places {
    /// Sources below `root`, or anywhere on the network; `default` for stacks that name none.
    #[must_use]
    pub fn new(
        client: Client,
        sources: Sources,
        default: DefaultSource,
        root: Option<PathBuf>,
    ) -> Self {
        Self(Arc::new(Inner {
            client,
            sources,
            default,
            root,
            secrets: Secrets::default(),
        }))
    }

    /// What is known of the Secrets that were read.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    /// Whether the stack's releases lie in a directory, whose content may change at any time and is read for next to
    /// nothing.
    #[must_use]
    pub fn is_directory(&self, stack: &ClusterStack) -> bool {
        match &stack.spec.source {
            Some(source) => source.directory.is_some(),
            None => matches!(self.0.default, DefaultSource::Directory { .. }),
        }
    }

    /// The stack's source, ready to be asked.
    ///
    /// # Errors
    ///
    /// If a Secret cannot be read, or the source is not valid.
    pub async fn open(&self, stack: &ClusterStack) -> Result<Arc<dyn Source>, PlaceError> {
        let spec = self.spec(stack).await?;
        Ok(self.0.sources.open(&spec).map_err(Arc::new)?)
    }

    /// What the stack's source has now. Stacks with the same source that ask at the same time share the answer.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), or if the source cannot be listed.
    pub async fn list(&self, stack: &ClusterStack) -> Result<Arc<Listing>, PlaceError> {
        let spec = self.spec(stack).await?;
        Ok(self.0.sources.listing(&spec, Duration::ZERO).await?)
    }

    /// Secrets are read each time, and only those that the stack names in its own namespace: rotation needs no restart,
    /// and no right to list them.
    async fn spec(&self, stack: &ClusterStack) -> Result<SourceSpec, PlaceError> {
        let source = stack.spec.source.as_ref();
        let namespace = stack.namespace().unwrap_or_default();
        let read = async |name: Option<&str>| {
            let Some(name) = name else { return Ok(None) };
            let secrets: Api<Secret> = Api::namespaced(self.0.client.clone(), &namespace);
            let secret = secrets.get_opt(name).await;
            let secret = secret.map_err(|source| PlaceError::ReadSecret {
                secret: name.to_owned(),
                source: Arc::new(source),
            })?;
            self.0.secrets.read(&namespace, name, secret.as_ref());
            Ok::<_, PlaceError>(secret.and_then(|secret| secret.data))
        };
        let token = source.and_then(|source| source.secret_ref.as_ref());
        let ca = source.and_then(|source| source.ca_secret_ref.as_ref());
        let token = read(token.map(|reference| reference.name.as_str())).await?;
        let ca = read(ca.map(|reference| reference.name.as_str())).await?;
        let spec = SourceSpec::resolve(
            source,
            &self.0.default,
            self.0.root.as_deref(),
            token.as_ref(),
            ca.as_ref(),
        );
        Ok(spec.map_err(Arc::new)?)
    }
}

impl std::fmt::Debug for Places {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Places").finish_non_exhaustive()
    }
}
