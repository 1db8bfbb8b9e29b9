//! The two services.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use async_trait::async_trait;
use proto::wire::{
    self, ErrorReason as Reason, identity_service_server::IdentityService,
    image_observation::State, node_image_service_server::NodeImageService,
};
use serde::Deserialize;
use tokio::sync::Semaphore;
use tonic::{Code, Request, Response, Status};

use super::{
    Fault,
    backend::{Backend, Marker, Object, Verified},
    download::LARGEST,
    names, validate,
    work::{Id, Work, is_late, level},
};

/// Transfers at once.
const SLOTS: usize = 6;

/// One process of the provider.
#[derive(Debug)]
pub struct Sham {
    pub backend: Arc<Backend>,
    pub fault: Option<Fault>,
    pub works: Mutex<HashMap<Id, Work>>,
    pub slots: Semaphore,
    pub log: Arc<Mutex<String>>,
    instance: String,
    remembered: Mutex<HashMap<Id, wire::EnsureImageRequest>>,
    logins: Mutex<HashMap<String, String>>,
    failures: AtomicU64,
}

/// The provider as a server needs it.
#[derive(Clone, Debug)]
pub struct Services(pub Arc<Sham>);

impl Sham {
    pub fn new(backend: Arc<Backend>, fault: Option<Fault>, log: Arc<Mutex<String>>) -> Arc<Self> {
        Arc::new(Self {
            backend,
            fault,
            log,
            works: Mutex::default(),
            slots: Semaphore::new(SLOTS),
            instance: format!("{:032x}", rand::random::<u128>()),
            remembered: Mutex::default(),
            logins: Mutex::default(),
            failures: AtomicU64::new(0),
        })
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Reaches the place of a target.
    async fn login(&self, target: &wire::Target) -> Result<String, Status> {
        let endpoint = validate::endpoint(target)?;
        let token = String::from_utf8_lossy(&target.secrets["token"]).into_owned();
        let mut line = format!("login at {endpoint}");
        if self.has(Fault::SecretInTheLog) {
            line.push_str(&format!(" with {token}"));
        }
        self.log.lock().unwrap().push_str(&(line + "\n"));
        let unavailable = || {
            validate::refuse(
                Reason::BackendUnavailable,
                None,
                "the backend cannot be reached",
            )
        };
        if endpoint == "memory://silent" {
            tokio::time::sleep(Duration::from_secs(2)).await;
            return Err(unavailable());
        }
        if endpoint == "memory://refusing" || self.backend.state().down {
            return Err(unavailable());
        }
        if self.has(Fault::LoginCachedByTarget)
            && let Some(place) = self.logins.lock().unwrap().get(&target.target_id)
        {
            return Ok(place.clone());
        }
        if !token.starts_with("good-") {
            let text = if self.has(Fault::SecretInAnError) {
                format!("the backend refuses the token \"{token}\"")
            } else {
                "the backend refuses the token".to_owned()
            };
            return Err(validate::refuse(Reason::BackendAuthFailed, None, &text));
        }
        if !target.target_id.is_empty() {
            self.logins
                .lock()
                .unwrap()
                .insert(target.target_id.clone(), endpoint.clone());
        }
        Ok(endpoint)
    }

    fn id(&self, place: String, installation: String, key: &wire::ImageKey) -> Id {
        let installation = if self.has(Fault::IgnoresInstallation) {
            "everyone".into()
        } else {
            installation
        };
        (place, installation, key.key.clone())
    }

    /// What is true now.
    fn observe(&self, id: &Id) -> Option<wire::ImageObservation> {
        let (place, installation, key) = id;
        let works = self.works.lock().unwrap();
        let mut state = self.backend.state();
        let object = state.find(place, installation, key).cloned();
        let image_key = |spec_digest: &str| {
            Some(wire::ImageKey {
                key: key.clone(),
                spec_digest: spec_digest.into(),
            })
        };
        let active = object.as_ref().filter(|object| object.verified.is_some());
        // A half-written object without a worker is nothing that anybody can use, but it is ours.
        if let (
            Some(object),
            None
            | Some(Work {
                state: State::Transferring,
                ..
            }),
        ) = (active, works.get(id))
        {
            let marker = object.marker.as_ref()?;
            let verified = object.verified.as_ref()?;
            return Some(wire::ImageObservation {
                image_key: image_key(&marker.spec_digest),
                state: State::Active.into(),
                provider_image_id: object.id.clone(),
                backend_status: "active".into(),
                attempt: object.attempt,
                verification: Some(wire::Verification {
                    level: verified.level,
                    observed_digest: verified.digest.clone(),
                    observed_size_bytes: i64::try_from(verified.size).unwrap(),
                    verify_time: Some(verified.time.into()),
                }),
                published: names::is_published(&state, self.fault, &object.id),
                create_time: Some(object.created.into()),
                update_time: Some(verified.time.into()),
                ..wire::ImageObservation::default()
            });
        }
        if let Some(work) = works.get(id) {
            let spec = work.request.spec.clone().unwrap_or_default();
            let total = spec.artifact.unwrap_or_default().size_bytes;
            return Some(wire::ImageObservation {
                image_key: image_key(
                    &work
                        .request
                        .image_key
                        .clone()
                        .unwrap_or_default()
                        .spec_digest,
                ),
                state: work.state.into(),
                provider_image_id: work.object.clone(),
                attempt: work.attempt,
                error: work.error.clone(),
                progress: (work.state == State::Transferring).then(|| wire::Progress {
                    bytes_done: i64::try_from(work.done).unwrap(),
                    bytes_total: if total >= i64::try_from(work.done).unwrap() {
                        total
                    } else {
                        0
                    },
                    advance_time: None,
                }),
                published: self.has(Fault::PublishedUnverified) && work.request.publish,
                ..wire::ImageObservation::default()
            });
        }
        let object = object?;
        Some(wire::ImageObservation {
            image_key: image_key(&object.marker.as_ref()?.spec_digest),
            state: if self.has(Fault::StuckAfterRestart) {
                State::Transferring
            } else {
                State::Pending
            }
            .into(),
            provider_image_id: object.id,
            attempt: object.attempt,
            ..wire::ImageObservation::default()
        })
    }

    /// Whether the key holds another spec.
    fn conflicts(&self, id: &Id, spec_digest: &str) -> bool {
        if self.has(Fault::IgnoresSpecDigest) {
            return false;
        }
        self.observe(id).is_some_and(|image| {
            image
                .image_key
                .is_some_and(|known| known.spec_digest != spec_digest)
        })
    }

    /// Takes over the only object under the name, if it is what was asked for.
    fn adopt(&self, (place, installation, key): &Id, request: &wire::EnsureImageRequest) -> bool {
        let spec = request.spec.clone().unwrap_or_default();
        let artifact = spec.artifact.unwrap_or_default();
        let mut state = self.backend.state();
        let mut candidates: Vec<&mut Object> = state
            .objects
            .values_mut()
            .filter(|object| object.place == *place && object.name == spec.display_name)
            .collect();
        let [object] = candidates.as_mut_slice() else {
            return false;
        };
        let same = !artifact.digest.is_empty()
            && object.digest == artifact.digest
            && (artifact.size_bytes == 0 || u64::try_from(artifact.size_bytes) == Ok(object.size));
        if !(same || self.has(Fault::AdoptsWithoutComparing))
            || (object.marker.is_some() && !self.has(Fault::AdoptsFromOthers))
        {
            return false;
        }
        object.marker = Some(Marker {
            installation: installation.clone(),
            key: key.clone(),
            spec_digest: request.image_key.clone().unwrap_or_default().spec_digest,
        });
        object.display_name.clone_from(&spec.display_name);
        object.working_name = format!("{}~{key}", spec.display_name);
        object.attempt = 1;
        object.verified = Some(Verified {
            level: wire::VerificationLevel::Metadata.into(),
            digest: object.digest.clone(),
            size: object.size,
            time: SystemTime::now(),
        });
        true
    }

    /// An image that is there: verified again if asked, given its name if asked.
    async fn tend(
        &self,
        id: &Id,
        object: Object,
        request: &wire::EnsureImageRequest,
    ) -> Option<tonic_types::pb::Status> {
        let policy = request.policy.unwrap_or_default();
        let spec = request.spec.clone().unwrap_or_default();
        let artifact = spec.artifact.unwrap_or_default();
        let verified = object.verified.clone()?;
        let since = policy
            .verified_since
            .and_then(|since| SystemTime::try_from(since).ok());
        let wanted = level(self.fault, &artifact, policy.verification_level);
        if since.is_some_and(|since| verified.time < since) || verified.level < wanted {
            let mut state = self.backend.state();
            let now = state.objects.get_mut(&object.id)?;
            if now.digest != verified.digest {
                names::rename(&mut state, &object.id, None);
                drop(state);
                self.works.lock().unwrap().insert(
                    id.clone(),
                    Work {
                        request: request.clone(),
                        attempt: object.attempt,
                        state: State::Failed,
                        error: Some(validate::failure(
                            Reason::DigestMismatch,
                            "the object in the backend has changed",
                        )),
                        done: 0,
                        moved: Instant::now(),
                        not_before: Instant::now(),
                        object: object.id,
                        partial: Vec::new(),
                        worker: std::sync::Weak::new(),
                        task: None,
                    },
                );
                return None;
            }
            now.verified = Some(Verified {
                level: wanted.max(verified.level),
                time: SystemTime::now(),
                ..verified
            });
        }
        if !request.publish {
            if self.has(Fault::FalseTakesTheName) {
                names::rename(&mut self.backend.state(), &object.id, None);
            }
            return None;
        }
        if names::publish(&self.backend, self.fault, &object.id, &spec.display_name).await {
            return None;
        }
        Some(validate::failure(
            Reason::ForeignObject,
            "somebody else's image carries the name",
        ))
    }

    /// Starts or continues work for an image that is not there; answers the worker to wait for, where a fault does that.
    fn start(
        self: &Arc<Self>,
        id: &Id,
        request: &wire::EnsureImageRequest,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let policy = request.policy.unwrap_or_default();
        let leftover = {
            let (place, installation, key) = id;
            self.backend.state().find(place, installation, key).cloned()
        };
        let mut works = self.works.lock().unwrap();
        let known = works.get_mut(id);
        let (mut last, mut partial, mut again) = (0, Vec::new(), false);
        if let Some(work) = known {
            work.request = request.clone();
            last = work.attempt;
            if work.runs() {
                if !self.has(Fault::DownloadsOnEachCall) {
                    return None;
                }
                if let Some(task) = &work.task {
                    task.abort();
                }
                last -= 1;
            } else {
                match work.state {
                    State::Failed if policy.attempt_floor <= work.attempt => return None,
                    State::Failed => {}
                    State::Pending if Instant::now() < work.not_before => return None,
                    _ => {
                        partial = std::mem::take(&mut work.partial);
                        again = true;
                    }
                }
            }
        } else if let Some(object) = &leftover {
            // Half written by a process that is gone.
            if self.has(Fault::StuckAfterRestart) {
                return None;
            }
            last = object.attempt;
        }
        if let Some(object) = leftover {
            self.backend.state().objects.remove(&object.id);
        }
        let attempt = (last + 1).max(policy.attempt_floor);
        let late = is_late(&policy) && !self.has(Fault::DeadlineIsNothing);
        let alive = Arc::new(());
        works.insert(
            id.clone(),
            Work {
                request: request.clone(),
                attempt: if late && again { last } else { attempt },
                state: if late { State::Failed } else { State::Pending },
                error: late
                    .then(|| validate::failure(Reason::DeadlinePassed, "the deadline has passed")),
                done: 0,
                moved: Instant::now(),
                not_before: Instant::now(),
                object: String::new(),
                partial,
                worker: Arc::downgrade(&alive),
                task: None,
            },
        );
        if late {
            return None;
        }
        let worker = tokio::spawn(self.clone().work(id.clone(), alive));
        if let Some(work) = works.get_mut(id) {
            work.task = Some(worker.abort_handle());
        }
        self.has(Fault::TransferDiesWithTheCall).then_some(worker)
    }

    async fn ensure(
        self: &Arc<Self>,
        request: wire::EnsureImageRequest,
    ) -> Result<wire::ImageObservation, Status> {
        let installation = validate::caller(request.caller.as_ref())?;
        let target = validate::target(request.target.as_ref(), true)?;
        let key = validate::key(request.image_key.as_ref(), true)?;
        validate::spec(self.fault, request.spec.as_ref())?;
        validate::policy(request.policy.as_ref())?;
        let id = self.id(self.login(&target).await?, installation, &key);
        if self.conflicts(&id, &key.spec_digest) {
            return Err(conflict());
        }
        self.remembered
            .lock()
            .unwrap()
            .insert(id.clone(), request.clone());
        let there = {
            let (place, installation, key) = &id;
            self.backend.state().find(place, installation, key).cloned()
        };
        let busy = self.works.lock().unwrap().contains_key(&id);
        let policy = request.policy.unwrap_or_default();
        let mut error = None;
        if let Some(object) = there.filter(|object| object.verified.is_some() && !busy) {
            error = self.tend(&id, object, &request).await;
        } else if !busy
            && policy.adopt == i32::from(wire::AdoptPolicy::Matching)
            && self.adopt(&id, &request)
        {
        } else if let Some(worker) = self.start(&id, &request) {
            struct Tied(tokio::task::AbortHandle);
            impl Drop for Tied {
                fn drop(&mut self) {
                    self.0.abort();
                }
            }
            let tied = Tied(worker.abort_handle());
            let _ = worker.await;
            drop(tied);
        }
        let mut image = self.observe(&id).ok_or_else(not_found)?;
        if error.is_some() {
            image.error = error;
        }
        Ok(image)
    }

    async fn get(
        self: &Arc<Self>,
        request: wire::GetImageRequest,
    ) -> Result<wire::ImageObservation, Status> {
        let installation = validate::caller(request.caller.as_ref())?;
        let target = validate::target(request.target.as_ref(), true)?;
        let key = validate::key(request.image_key.as_ref(), false)?;
        let id = self.id(self.login(&target).await?, installation, &key);
        if self.has(Fault::GetStartsWork) && self.observe(&id).is_none() {
            let remembered = self.remembered.lock().unwrap().get(&id).cloned();
            if let Some(request) = remembered {
                self.start(&id, &request);
            }
        }
        self.observe(&id).ok_or_else(not_found)
    }

    async fn delete(
        &self,
        request: wire::DeleteImageRequest,
    ) -> Result<wire::ImageObservation, Status> {
        let installation = validate::caller(request.caller.as_ref())?;
        let target = validate::target(request.target.as_ref(), true)?;
        let key = validate::key(request.image_key.as_ref(), false)?;
        let id = self.id(self.login(&target).await?, installation, &key);
        if !key.spec_digest.is_empty() && self.conflicts(&id, &key.spec_digest) {
            return Err(conflict());
        }
        let work = self.works.lock().unwrap().remove(&id);
        if let Some(task) = work.and_then(|work| work.task) {
            task.abort();
        }
        let mut state = self.backend.state();
        let (place, installation, name) = &id;
        if let Some(object) = state.find(place, installation, name).cloned() {
            if object.in_use {
                return Err(validate::refuse(
                    Reason::ImageInUse,
                    None,
                    "the image is in use",
                ));
            }
            state.objects.remove(&object.id);
        }
        if self.has(Fault::DeletesByName)
            && let Some(request) = self.remembered.lock().unwrap().get(&id)
        {
            let name = request.spec.clone().unwrap_or_default().display_name;
            state.objects.retain(|_, object| object.name != name);
        }
        Ok(wire::ImageObservation {
            image_key: Some(key),
            state: State::Absent.into(),
            ..wire::ImageObservation::default()
        })
    }

    async fn list(
        &self,
        request: wire::ListImagesRequest,
    ) -> Result<wire::ListImagesResponse, Status> {
        let installation = validate::caller(request.caller.as_ref())?;
        let target = validate::target(request.target.as_ref(), true)?;
        let size = match usize::try_from(request.page_size) {
            Ok(0) => 100,
            Ok(size) => size.min(100),
            Err(_) => {
                return Err(validate::refuse(
                    Reason::InvalidField,
                    Some("page_size"),
                    "page_size is negative",
                ));
            }
        };
        let start = match request.page_token.as_str() {
            "" => 0,
            token => token
                .strip_prefix("from-")
                .and_then(|from| from.parse().ok())
                .ok_or_else(|| {
                    validate::refuse(
                        Reason::PageTokenInvalid,
                        Some("page_token"),
                        "the token is not known",
                    )
                })?,
        };
        let place = self.login(&target).await?;
        let none = wire::ImageKey::default();
        let (place, installation, _) = self.id(place, installation, &none);
        let mut ids: Vec<Id> = self
            .works
            .lock()
            .unwrap()
            .keys()
            .filter(|id| id.0 == place && id.1 == installation)
            .cloned()
            .collect();
        ids.extend(self.backend.state().objects.values().filter_map(|object| {
            let marker = object.marker.as_ref()?;
            (object.place == place && marker.installation == installation)
                .then(|| (place.clone(), installation.clone(), marker.key.clone()))
        }));
        ids.sort();
        ids.dedup();
        if self.has(Fault::ListsTwice) {
            ids = ids.iter().flat_map(|id| [id.clone(), id.clone()]).collect();
        }
        let end = (start + size).min(ids.len());
        Ok(wire::ListImagesResponse {
            observations: ids
                .get(start..end)
                .unwrap_or_default()
                .iter()
                .filter_map(|id| self.observe(id))
                .collect(),
            next_page_token: if end < ids.len() {
                format!("from-{end}")
            } else {
                String::new()
            },
        })
    }

    async fn validate(
        &self,
        request: wire::ValidateTargetRequest,
    ) -> Result<wire::ValidateTargetResponse, Status> {
        validate::caller(request.caller.as_ref())?;
        let target = validate::target(request.target.as_ref(), false)?;
        if request.spec.is_some() {
            validate::spec(self.fault, request.spec.as_ref())?;
        }
        let mut identity = self.login(&target).await?;
        if self.has(Fault::RandomIdentity) {
            identity.push_str(&self.instance);
        }
        Ok(wire::ValidateTargetResponse {
            warnings: Vec::new(),
            target_identity: identity,
        })
    }

    async fn resolve(
        &self,
        request: wire::ResolveImagesRequest,
    ) -> Result<wire::ResolveImagesResponse, Status> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            images: Vec<Entry>,
        }
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Entry {
            name: String,
            url: String,
            digest: String,
            size: i64,
        }
        validate::caller(request.caller.as_ref())?;
        validate::target(request.target.as_ref(), false)?;
        validate::release(request.release.as_ref())?;
        if request.node_images.len() > 512 << 10 {
            return Err(validate::refuse(
                Reason::SizeLimitExceeded,
                Some("node_images"),
                "the file is larger than 512 KiB",
            ));
        }
        if request.node_images.is_empty() {
            return Ok(wire::ResolveImagesResponse::default());
        }
        let wrong = || {
            validate::refuse(
                Reason::NodeImagesInvalid,
                Some("node_images"),
                "the file cannot be understood",
            )
        };
        let text = std::str::from_utf8(&request.node_images).map_err(|_error| wrong())?;
        let file: File = serde_saphyr::from_str(text).map_err(|_error| wrong())?;
        let mut images = Vec::new();
        for entry in file.images {
            if self.has(Fault::ResolveFetches)
                && let Ok(response) = reqwest::get(&entry.url).await
            {
                let _ = response.bytes().await;
            }
            images.push(wire::ImageSpec {
                display_name: if self.has(Fault::ChangesNames) {
                    format!("{}-image", entry.name)
                } else {
                    entry.name
                },
                artifact: Some(wire::Artifact {
                    digest: entry.digest,
                    size_bytes: entry.size,
                    compression: wire::Compression::None.into(),
                    source: Some(wire::artifact::Source::Http(wire::HttpSource {
                        urls: vec![entry.url],
                        ca_bundle_pem: Vec::new(),
                    })),
                    ..wire::Artifact::default()
                }),
                disk_format: wire::DiskFormat::Raw.into(),
                ..wire::ImageSpec::default()
            });
        }
        Ok(wire::ResolveImagesResponse {
            images,
            warnings: Vec::new(),
        })
    }

    /// Breaks statuses on their way out.
    fn finish<T>(&self, result: Result<T, Status>) -> Result<Response<T>, Status> {
        let status = match result {
            Ok(response) => return Ok(Response::new(response)),
            Err(status) => status,
        };
        let number = self.failures.fetch_add(1, Ordering::SeqCst);
        let details = || bytes::Bytes::copy_from_slice(status.details());
        Err(match self.fault {
            Some(Fault::NoErrorInfo) => Status::new(status.code(), status.message()),
            Some(Fault::WrongCode) if status.code() == Code::NotFound => {
                Status::with_details(Code::Internal, status.message(), details())
            }
            Some(Fault::LongMessage) => {
                Status::with_details(status.code(), status.message().repeat(100), details())
            }
            Some(Fault::ChangingMessage) => Status::with_details(
                status.code(),
                format!("{} ({number})", status.message()),
                details(),
            ),
            _ => status,
        })
    }
}

fn not_found() -> Status {
    validate::refuse(Reason::ImageNotFound, None, "there is no such image")
}

fn conflict() -> Status {
    validate::refuse(
        Reason::ImageSpecConflict,
        None,
        "the key holds another spec",
    )
}

#[async_trait]
impl IdentityService for Services {
    async fn get_provider_info(
        &self,
        request: Request<wire::GetProviderInfoRequest>,
    ) -> Result<Response<wire::GetProviderInfoResponse>, Status> {
        let result = validate::caller(request.get_ref().caller.as_ref()).map(|_caller| {
            wire::GetProviderInfoResponse {
                provider_name: "sham.clusterstack.example".into(),
                provider_version: "1.2.3".into(),
                instance_id: self.0.instance.clone(),
                contract_versions: vec![wire::PACKAGE.into()],
                capabilities: [
                    wire::Capability::Advertised,
                    wire::Capability::List,
                    wire::Capability::Resume,
                    wire::Capability::VerifyContent,
                    wire::Capability::Adopt,
                ]
                .map(i32::from)
                .into(),
                artifact_kinds: vec![wire::ArtifactKind::Http.into()],
                disk_formats: vec![wire::DiskFormat::Raw.into(), wire::DiskFormat::Qcow2.into()],
                config_schema_json: r#"{"type":"object","additionalProperties":false,"required":["endpoint"],"properties":{"endpoint":{"type":"string","pattern":"^memory://"}}}"#.into(),
                secret_keys: vec![wire::SecretKey {
                    name: "token".into(),
                    required: true,
                    description: "how to get in".into(),
                }],
                limits: Some(wire::ProviderLimits {
                    max_concurrent_transfers: i32::try_from(SLOTS).unwrap(),
                    max_artifact_bytes: i64::try_from(LARGEST).unwrap(),
                    min_poll_interval: None,
                }),
            }
        });
        self.0.finish(result)
    }
}

#[async_trait]
impl NodeImageService for Services {
    async fn validate_target(
        &self,
        request: Request<wire::ValidateTargetRequest>,
    ) -> Result<Response<wire::ValidateTargetResponse>, Status> {
        let result = self.0.validate(request.into_inner()).await;
        self.0.finish(result)
    }

    async fn resolve_images(
        &self,
        request: Request<wire::ResolveImagesRequest>,
    ) -> Result<Response<wire::ResolveImagesResponse>, Status> {
        let result = self.0.resolve(request.into_inner()).await;
        self.0.finish(result)
    }

    async fn ensure_image(
        &self,
        request: Request<wire::EnsureImageRequest>,
    ) -> Result<Response<wire::EnsureImageResponse>, Status> {
        let result = self.0.ensure(request.into_inner()).await;
        self.0.finish(result.map(|image| wire::EnsureImageResponse {
            observation: Some(image),
        }))
    }

    async fn get_image(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Result<Response<wire::GetImageResponse>, Status> {
        let result = self.0.get(request.into_inner()).await;
        self.0.finish(result.map(|image| wire::GetImageResponse {
            observation: Some(image),
        }))
    }

    async fn delete_image(
        &self,
        request: Request<wire::DeleteImageRequest>,
    ) -> Result<Response<wire::DeleteImageResponse>, Status> {
        let result = self.0.delete(request.into_inner()).await;
        self.0.finish(result.map(|image| wire::DeleteImageResponse {
            observation: Some(image),
        }))
    }

    async fn list_images(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        let result = self.0.list(request.into_inner()).await;
        self.0.finish(result)
    }
}
