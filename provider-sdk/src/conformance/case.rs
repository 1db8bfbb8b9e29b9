//! What the steps of one check work with: names and keys of its own, calls, waiting, and the removal of all that it made.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use proto::wire::{self, ErrorReason as Reason, image_observation::State};
use tonic::{Code, Status};

use super::{
    artifacts::{Content, Made, Offer, Served, digest},
    check::{Verdict, failed, not_applicable},
    client::{Deadline, Line},
    run::{Run, Where, word},
    sample::{Format, Kind, to_struct},
    status::{Failure, brief, code_of, reason_name, state, state_name},
};

/// An image that a check wants: all parts of an EnsureImage request.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Part of the installation id; the run's id comes before it.
    pub(crate) installation: String,
    pub(crate) target: wire::Target,
    pub(crate) key: wire::ImageKey,
    pub(crate) spec: wire::ImageSpec,
    pub(crate) policy: wire::WorkPolicy,
    pub(crate) publish: bool,
}

impl Wish {
    pub(crate) fn published(mut self) -> Self {
        self.publish = true;
        self
    }

    pub(crate) fn unpublished(mut self) -> Self {
        self.publish = false;
        self
    }

    pub(crate) fn with_artifact(mut self, change: impl FnOnce(&mut wire::Artifact)) -> Self {
        if let Some(artifact) = &mut self.spec.artifact {
            change(artifact);
        }
        self
    }

    pub(crate) fn with_policy(mut self, change: impl FnOnce(&mut wire::WorkPolicy)) -> Self {
        change(&mut self.policy);
        self
    }
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "EnsureImage(key \"{}\", name \"{}\", publish {})",
            self.key.key, self.spec.display_name, self.publish
        )
    }
}

/// The name of an image that is not published (contract, section 7).
pub(crate) fn working_name(wish: &Wish) -> String {
    let hash: String = wish
        .key
        .key
        .strip_prefix("ni-")
        .unwrap_or(&wish.key.key)
        .chars()
        .take(10)
        .collect();
    format!("{}~{hash}", wish.spec.display_name)
}

/// The point in time that far from now, in the past if negative.
pub(crate) fn seconds_from_now(seconds: i64) -> prost_types::Timestamp {
    let mut timestamp = prost_types::Timestamp::from(SystemTime::now());
    timestamp.seconds += seconds;
    timestamp
}

/// A small artifact.
pub(crate) const SMALL: usize = 256 << 10;

/// One check's view of the run.
pub(crate) struct Case {
    pub(crate) run: Arc<Run>,
    pub(crate) id: &'static str,
    made: Mutex<BTreeMap<(String, String), (wire::Target, wire::ImageKey)>>,
    disturbed: std::sync::atomic::AtomicBool,
}

impl Case {
    pub(crate) fn new(run: Arc<Run>, id: &'static str) -> Arc<Self> {
        Arc::new(Self {
            run,
            id,
            made: Mutex::default(),
            disturbed: std::sync::atomic::AtomicBool::new(false),
        })
    }

    /// From now on, statuses may come from transport or process instead of the provider's code.
    pub(crate) fn disturb(&self) {
        self.disturbed
            .store(true, std::sync::atomic::Ordering::SeqCst);
    }

    fn is_disturbed(&self) -> bool {
        self.disturbed.load(std::sync::atomic::Ordering::SeqCst)
    }

    pub(crate) fn line(&self) -> Line {
        Line {
            disturbed: self.is_disturbed(),
            ..self.run.line(self.id)
        }
    }

    /// The installation id of this check.
    pub(crate) fn installation(&self) -> String {
        self.id.to_lowercase()
    }

    pub(crate) fn caller(&self) -> wire::CallerInfo {
        self.run.caller(&self.installation())
    }

    /// A display name of this check.
    pub(crate) fn name(&self) -> String {
        format!(
            "conformance-{}-{}-{}",
            self.run.id,
            self.id.to_lowercase(),
            self.run.next()
        )
    }

    // ---- artifacts

    /// An artifact of about this size in the usual combination, made of its own bytes.
    pub(crate) fn artifact(&self, size: usize) -> Verdict<Arc<Served>> {
        self.artifact_in(self.run.format()?, size)
    }

    /// A file over HTTP.
    pub(crate) fn file(&self, size: usize) -> Verdict<Arc<Served>> {
        self.artifact_in(self.run.http_format()?, size)
    }

    /// A file in the usual disk format, for the backend rather than for the provider.
    pub(crate) fn loose_file(&self, size: usize) -> Verdict<Arc<Served>> {
        let format = Format {
            kind: Kind::Http,
            ..self.run.format()?
        };
        self.artifact_in(format, size)
    }

    pub(crate) fn artifact_in(&self, format: Format, size: usize) -> Verdict<Arc<Served>> {
        Ok(self.serve(self.content(format, size)?))
    }

    pub(crate) fn content(&self, format: Format, size: usize) -> Verdict<Content> {
        let seed = u64::from_str_radix(
            &super::artifacts::hex_digest(self.run.id.as_bytes())[..12],
            16,
        )
        .unwrap_or_default()
            + self.run.next();
        let made: Made = self
            .run
            .options
            .maker
            .make(format.kind, format.format, size, seed)
            .map_err(|error| not_applicable(format!("no artifact in this form: {error}")))?;
        Ok(Content::new(made, format.format))
    }

    pub(crate) fn serve(&self, content: Content) -> Arc<Served> {
        let id = format!(
            "{}-{}-{}",
            self.run.id,
            self.id.to_lowercase(),
            self.run.next()
        );
        self.run.store.serve(id, content.shared())
    }

    // ---- wishes

    /// A new key at the good target for this artifact.
    pub(crate) fn wish(&self, served: &Served) -> Verdict<Wish> {
        self.wish_for(served, &Offer::default())
    }

    pub(crate) fn wish_for(&self, served: &Served, offer: &Offer) -> Verdict<Wish> {
        Ok(Wish {
            installation: self.installation(),
            target: self.run.target(Where::Good)?,
            key: wire::ImageKey {
                key: format!("ni-{}", word(40)),
                spec_digest: digest(word(40).as_bytes()),
            },
            spec: self.spec(served, offer),
            policy: wire::WorkPolicy {
                deadline: Some(seconds_from_now(7200)),
                ..wire::WorkPolicy::default()
            },
            publish: false,
        })
    }

    pub(crate) fn spec(&self, served: &Served, offer: &Offer) -> wire::ImageSpec {
        wire::ImageSpec {
            display_name: self.name(),
            artifact: Some(served.artifact(offer)),
            disk_format: served.content.format.into(),
            min_disk_bytes: 0,
            properties: BTreeMap::new(),
            options: self.run.options.sample.options.as_ref().map(|options| {
                to_struct(&serde_json::Value::Object(
                    options.clone().into_iter().collect(),
                ))
            }),
        }
    }

    // ---- calls

    pub(crate) fn request(&self, wish: &Wish) -> wire::EnsureImageRequest {
        wire::EnsureImageRequest {
            caller: Some(self.run.caller(&wish.installation)),
            target: Some(wish.target.clone()),
            image_key: Some(wish.key.clone()),
            spec: Some(wish.spec.clone()),
            policy: Some(wish.policy),
            publish: wish.publish,
        }
    }

    /// Remembers what has to be removed in the end.
    pub(crate) fn remember(&self, wish: &Wish) {
        self.made
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(
                (wish.installation.clone(), wish.key.key.clone()),
                (wish.target.clone(), wish.key.clone()),
            );
    }

    /// One EnsureImage.
    pub(crate) async fn ensure(&self, wish: &Wish) -> Result<wire::ImageObservation, Status> {
        self.ensure_within(wish, Deadline::Core).await
    }

    pub(crate) async fn ensure_within(
        &self,
        wish: &Wish,
        deadline: Deadline,
    ) -> Result<wire::ImageObservation, Status> {
        self.remember(wish);
        self.line()
            .call_within(&self.request(wish), deadline)
            .await
            .map(|response| response.observation.unwrap_or_default())
    }

    /// One EnsureImage that must be OK.
    pub(crate) async fn ensured(&self, wish: &Wish) -> Verdict<wire::ImageObservation> {
        self.ensure(wish)
            .await
            .map_err(|status| failed(wish, "OK and an observation", Failure::from(&status)))
    }

    pub(crate) async fn get(&self, wish: &Wish) -> Result<wire::ImageObservation, Status> {
        self.line()
            .call(&wire::GetImageRequest {
                caller: Some(self.run.caller(&wish.installation)),
                target: Some(wish.target.clone()),
                image_key: Some(wish.key.clone()),
            })
            .await
            .map(|response| response.observation.unwrap_or_default())
    }

    /// One GetImage that must be OK.
    pub(crate) async fn got(&self, wish: &Wish) -> Verdict<wire::ImageObservation> {
        self.get(wish).await.map_err(|status| {
            failed(
                format!("GetImage(key \"{}\")", wish.key.key),
                "OK and an observation",
                Failure::from(&status),
            )
        })
    }

    /// GetImage says that there is nothing.
    pub(crate) async fn not_found(&self, wish: &Wish) -> Verdict {
        let sent = format!("GetImage(key \"{}\")", wish.key.key);
        refused(self.get(wish).await, Reason::ImageNotFound, sent).map(|_failure| ())
    }

    pub(crate) async fn delete(&self, wish: &Wish) -> Result<wire::ImageObservation, Status> {
        self.line()
            .call(&wire::DeleteImageRequest {
                caller: Some(self.run.caller(&wish.installation)),
                target: Some(wish.target.clone()),
                image_key: Some(wish.key.clone()),
            })
            .await
            .map(|response| response.observation.unwrap_or_default())
    }

    /// DeleteImage until ABSENT.
    pub(crate) async fn deleted(&self, wish: &Wish) -> Verdict {
        let sent = format!("DeleteImage(key \"{}\") until ABSENT", wish.key.key);
        let until = Instant::now() + self.run.options.patience;
        loop {
            let came = match self.delete(wish).await {
                Ok(observation) if state(&observation) == State::Absent => return Ok(()),
                Ok(observation) if state(&observation) == State::Deleting => brief(&observation),
                Ok(observation) => {
                    return Err(failed(sent, "DELETING or ABSENT", brief(&observation)));
                }
                Err(status) if self.calls_again(&status) => Failure::from(&status).to_string(),
                Err(status) => {
                    return Err(failed(sent, "DELETING or ABSENT", Failure::from(&status)));
                }
            };
            if Instant::now() > until {
                return Err(failed(
                    sent,
                    format!("ABSENT within {:?}", self.run.options.patience),
                    came,
                ));
            }
            tokio::time::sleep(self.run.pace()).await;
        }
    }

    /// Keys that ListImages shows to an installation; `None` if it is not served.
    pub(crate) async fn listed(
        &self,
        installation: &str,
        target: &wire::Target,
    ) -> Verdict<Option<Vec<wire::ImageObservation>>> {
        if !self.run.advertises(wire::Capability::List) {
            return Ok(None);
        }
        let mut all = Vec::new();
        let mut page_token = String::new();
        // 100 pages of 100 images are more than any check makes.
        for _ in 0..100 {
            let response = self
                .line()
                .call(&wire::ListImagesRequest {
                    caller: Some(self.run.caller(installation)),
                    target: Some(target.clone()),
                    page_size: 0,
                    page_token,
                })
                .await
                .map_err(|status| failed("ListImages", "OK and a page", Failure::from(&status)))?;
            all.extend(response.observations);
            page_token = response.next_page_token;
            if page_token.is_empty() {
                return Ok(Some(all));
            }
        }
        Err(failed(
            "ListImages, page after page",
            "a last page with an empty token",
            "100 pages and no end",
        ))
    }

    /// Whether the key is in the list, if there is a list.
    pub(crate) async fn is_listed(&self, wish: &Wish) -> Verdict<Option<bool>> {
        let list = self.listed(&wish.installation, &wish.target).await?;
        Ok(list.map(|list| list.iter().any(|image| has_key(image, wish))))
    }

    /// Whether a caller would simply call again soon.
    pub(crate) fn calls_again(&self, status: &Status) -> bool {
        let failure = Failure::from(status);
        failure.passes_by_itself()
            || (self.is_disturbed()
                && failure.infos().is_empty()
                && matches!(
                    failure.code,
                    Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded
                ))
    }

    // ---- the end

    /// Removes all that the check made.
    pub(crate) async fn clean(&self) {
        let made = std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner));
        let line = Line {
            disturbed: true,
            ..self.run.line(self.id)
        };
        let removals = made.into_iter().map(|((installation, key), (target, _))| {
            let line = line.clone();
            async move {
                let request = wire::DeleteImageRequest {
                    caller: Some(self.run.caller(&installation)),
                    target: Some(wire::Target {
                        target_id: target.target_id.clone(),
                        ..self.run.target(Where::Good).unwrap_or(target)
                    }),
                    image_key: Some(wire::ImageKey {
                        key: key.clone(),
                        spec_digest: String::new(),
                    }),
                };
                let until = Instant::now() + Duration::from_secs(30);
                loop {
                    let answer = line.call(&request).await;
                    let why = match &answer {
                        Ok(response) => {
                            let observation = response.observation.clone().unwrap_or_default();
                            if state(&observation) == State::Absent {
                                return;
                            }
                            state_name(state(&observation)).to_owned()
                        }
                        // Never accepted, so never made.
                        Err(status) if Failure::from(status).is(Reason::InvalidField) => return,
                        Err(status) => Failure::from(status).to_string(),
                    };
                    if Instant::now() > until {
                        self.run
                            .left
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push(format!("{} of {}: {why}", key, self.id));
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        });
        futures::future::join_all(removals).await;
    }
}

/// Whether an observation is about this wish.
pub(crate) fn has_key(observation: &wire::ImageObservation, wish: &Wish) -> bool {
    observation
        .image_key
        .as_ref()
        .is_some_and(|key| key.key == wish.key.key)
}

/// The call must have been refused for this reason.
pub(crate) fn refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    reason: Reason,
    sent: impl std::fmt::Display,
) -> Verdict<Failure> {
    let expected = format!("{:?} {}", code_of(reason).0, reason_name(reason));
    match answer {
        Ok(response) => {
            let mut came = format!("OK: {response:?}");
            if let Some((at, _)) = came.char_indices().nth(300) {
                came.truncate(at);
                came.push('…');
            }
            Err(failed(sent, expected, came))
        }
        Err(status) => {
            let failure = Failure::from(&status);
            if failure.is(reason) {
                Ok(failure)
            } else {
                Err(failed(sent, expected, failure))
            }
        }
    }
}
