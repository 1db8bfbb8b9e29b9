//! Writes to an API server: server-side apply, deletion, and what an API server's refusal means.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, Preconditions, PropagationPolicy},
    core::Status,
    runtime::wait::{await_condition, conditions},
};
use proto::Recovery;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    MANAGER, adopt::adopted, discovery::ServedKind, live::object_api, manifest::Manifest,
    plan::Applied,
};
use crate::helm::ObjectIdentity;

/// Writes at the same time: with more, an API server on two cores gets no faster (measured: 1 → 407/s, 8 → 697/s).
const CONCURRENT_WRITES: usize = 8;

/// How long a definition may take to be served; tenths of a second when the API server is idle.
const ESTABLISH: Duration = Duration::from_secs(30);

/// Why an object was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Others own fields of the object that is not ours yet, or it changed meanwhile.
    #[error("{object} is in conflict: {message}")]
    Conflict {
        /// Kind and name of the object.
        object: String,
        /// What the API server said.
        message: String,
    },
    /// The object may not be changed like this.
    #[error("{object} cannot be changed: {message}")]
    Immutable {
        /// Kind and name of the object.
        object: String,
        /// What the API server said.
        message: String,
    },
    /// The API server refuses the object.
    #[error("{object} was refused: {message}")]
    Refuse {
        /// Kind and name of the object.
        object: String,
        /// HTTP status of the answer.
        code: u16,
        /// What the API server, or a webhook, said.
        message: String,
    },
    /// There was no answer.
    #[error("failed to write {object}")]
    Request {
        /// Kind and name of the object.
        object: String,
        /// What went wrong.
        source: Box<kube::Error>,
    },
    /// A definition was applied, but its kind is not served.
    #[error("{object} is not established after {} s", ESTABLISH.as_secs())]
    Establish {
        /// Kind and name of the object.
        object: String,
    },
}

impl WriteError {
    /// What the failure tells about the next attempt.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            Self::Conflict { .. } => Recovery::FAST,
            Self::Immutable { .. } => Recovery::Terminal,
            Self::Refuse { code, .. } => Recovery::of_http_status(*code, None),
            Self::Request { .. } | Self::Establish { .. } => Recovery::Unknown,
        }
    }

    fn of(object: String, error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Request {
                object,
                source: Box::new(error),
            };
        };
        let message = crate::helm::shorten(&status.message, 1000);
        match status.code {
            409 => Self::Conflict { object, message },
            422 if message.contains("immutable") => Self::Immutable { object, message },
            code => Self::Refuse {
                object,
                code,
                message,
            },
        }
    }
}

/// The outcome of an apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The object as it is now.
    pub applied: Applied,
    /// Fields that were others' and are ours now, in the API server's words.
    pub taken: Option<String>,
}

/// What a deletion has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object is not there any more.
    Gone,
    /// Somebody has to do something first; the object is there until then.
    Going,
}

/// Writes objects as our field manager, some at a time.
pub struct Writer {
    client: Client,
    permits: Semaphore,
}

impl Writer {
    /// Writes with this client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self {
            client,
            permits: Semaphore::const_new(CONCURRENT_WRITES),
        }
    }

    /// Applies an object. With `force`, fields that others own become ours; without, that is a conflict.
    ///
    /// A Job or a `RoleBinding` that cannot be changed is deleted and made anew; anything else is an error.
    ///
    /// # Errors
    ///
    /// [`WriteError`] names the object and what the API server said.
    pub async fn apply(
        &self,
        kind: &ServedKind,
        manifest: &Manifest,
        force: bool,
    ) -> Result<Written, WriteError> {
        let applied = match self.apply_once(kind, manifest, false).await {
            Err(WriteError::Conflict { message, .. }) if force => {
                let applied = self.apply_once(kind, manifest, true).await?;
                return Ok(Written {
                    applied,
                    taken: Some(message),
                });
            }
            Err(WriteError::Immutable { .. }) if force && is_replaceable(manifest.identity()) => {
                self.delete(kind, manifest.identity(), None).await?;
                self.apply_once(kind, manifest, false).await?
            }
            other => other?,
        };
        Ok(Written {
            applied,
            taken: None,
        })
    }

    async fn apply_once(
        &self,
        kind: &ServedKind,
        manifest: &Manifest,
        force: bool,
    ) -> Result<Applied, WriteError> {
        let _permit = self.permits.acquire().await;
        let identity = manifest.identity();
        let mut params = PatchParams::apply(MANAGER);
        params.force = force;
        let object = self
            .objects(kind, identity)
            .patch_metadata(&identity.name, &params, &Patch::Apply(manifest.value()))
            .await
            .map_err(|error| WriteError::of(shown(identity), error))?;
        Ok(Applied {
            uid: object.uid().unwrap_or_default(),
            generation: object.metadata.generation,
            resource_version: object.resource_version(),
        })
    }

    /// Moves the fields that the Go operator applied to us.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply); a conflict if the object changed meanwhile.
    pub async fn adopt(
        &self,
        kind: &ServedKind,
        identity: &ObjectIdentity,
    ) -> Result<(), WriteError> {
        let _permit = self.permits.acquire().await;
        let failed = |error| WriteError::of(shown(identity), error);
        let api = self.objects(kind, identity);
        let Some(object) = api.get_metadata_opt(&identity.name).await.map_err(failed)? else {
            return Ok(());
        };
        let managed = object.metadata.managed_fields.clone().unwrap_or_default();
        let Some(managed) = adopted(&managed) else {
            return Ok(());
        };
        let patch = json!({"metadata": {
            "resourceVersion": object.metadata.resource_version, "managedFields": managed,
        }});
        api.patch_metadata(
            &identity.name,
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .map_err(failed)?;
        Ok(())
    }

    /// Deletes an object, with `uid` only that very one. What is gone already is fine.
    ///
    /// # Errors
    ///
    /// As [`apply`](Self::apply).
    pub async fn delete(
        &self,
        kind: &ServedKind,
        identity: &ObjectIdentity,
        uid: Option<&str>,
    ) -> Result<Deletion, WriteError> {
        let _permit = self.permits.acquire().await;
        let params = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: uid.map(|uid| Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match self
            .objects(kind, identity)
            .delete(&identity.name, &params)
            .await
        {
            Ok(answer) if answer.is_right() => Ok(Deletion::Gone),
            // The object itself is returned where finalizers or a grace period keep it.
            Ok(_) => Ok(Deletion::Going),
            Err(kube::Error::Api(status)) if is_gone(&status) => Ok(Deletion::Gone),
            Err(error) => Err(WriteError::of(shown(identity), error)),
        }
    }

    /// Waits until a definition that was applied is served.
    ///
    /// # Errors
    ///
    /// [`WriteError::Establish`] if it takes too long.
    pub async fn established(&self, definition: &ObjectIdentity) -> Result<(), WriteError> {
        let api: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        let established = await_condition(api, &definition.name, conditions::is_crd_established());
        match timeout(ESTABLISH, established).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(WriteError::Establish {
                object: shown(definition),
            }),
        }
    }

    fn objects(&self, kind: &ServedKind, identity: &ObjectIdentity) -> Api<DynamicObject> {
        object_api(&self.client, &kind.resource, identity.namespace.as_deref())
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Writer").finish_non_exhaustive()
    }
}

/// Gone, or replaced by another object of the same name.
fn is_gone(status: &Status) -> bool {
    status.code == 404 || (status.code == 409 && status.message.contains("UID"))
}

/// Whether objects of the kind are made anew when they cannot be changed: nothing is lost with them.
fn is_replaceable(identity: &ObjectIdentity) -> bool {
    matches!(
        (identity.group.as_str(), identity.kind.as_str()),
        ("batch", "Job")
            | (
                "rbac.authorization.k8s.io",
                "RoleBinding" | "ClusterRoleBinding"
            )
    )
}

/// Kind and name, with the namespace where there is one.
#[must_use]
pub fn shown(identity: &ObjectIdentity) -> String {
    match &identity.namespace {
        Some(namespace) => format!("{} \"{namespace}/{}\"", identity.kind, identity.name),
        None => format!("{} \"{}\"", identity.kind, identity.name),
    }
}
