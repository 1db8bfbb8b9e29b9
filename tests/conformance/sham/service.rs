//! What the provider knows and does about images.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};
use tokio::sync::Semaphore;
use tonic::{Code, Response, Status};

use super::{
    Fault,
    backend::{Backend, Marker, Object, Verified},
    names, validate,
    work::{Id, Work, is_late, level},
};

/// Transfers at once.
pub const SLOTS: usize = 6;

/// One process of the provider.
#[derive(Debug)]
pub struct Sham {
    pub backend: Arc<Backend>,
    pub fault: Option<Fault>,
    pub works: Mutex<HashMap<Id, Work>>,
    pub slots: Semaphore,
    pub log: Arc<Mutex<String>>,
    pub instance: String,
    remembered: Mutex<HashMap<Id, wire::EnsureImageRequest>>,
    logins: Mutex<HashMap<String, String>>,
    failures: AtomicU64,
    /// How often an image was shown as ACTIVE whose worker still runs.
    pub shown_early: AtomicU64,
}

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
            shown_early: AtomicU64::new(0),
        })
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Reaches the place of a target.
    pub async fn login(&self, target: &wire::Target) -> Result<String, Status> {
        let endpoint = validate::endpoint(target)?;
        let token = String::from_utf8_lossy(&target.secrets["token"]).into_owned();
        let mut line = format!("login at {endpoint}");
        if self.has(Fault::SecretInTheLog) {
            let _ = write!(line, " with {token}");
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
            if works.contains_key(id) {
                self.shown_early.fetch_add(1, Ordering::SeqCst);
            }
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

    pub async fn ensure(
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

    pub async fn get(
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

    pub async fn delete(
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

    pub async fn list(
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

    /// Breaks statuses on their way out.
    pub fn finish<T>(&self, result: Result<T, Status>) -> Result<Response<T>, Status> {
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
