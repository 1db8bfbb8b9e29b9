//! The reference provider: the contract over a [`Directory`].
//!
//! Read it as an example: everything that an author writes is here, and nothing that the SDK does. Its marker is a property
//! for each part, as a cloud would have it.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use async_trait::async_trait;
use proto::request::{ReleaseIdentity, ResolvedImages, ValidatedTarget};
use proto::{
    ArtifactKind, Capability, Compression, DiskFormat, ImageKey, ImageSpec, InstallationId,
    Invalid, Key, Limits, ProviderError, ProviderInfo, Target, Verification, VerificationLevel,
};
use serde_json::json;

use super::directory::{Directory, Fault, Record, hash};
use super::fetch::{LARGEST, fetch};
use super::node_images;
use crate::provider::{
    Found, Marker, Named, Phase, Provider, Reader, Result, Transferred, Verified, Work,
};

/// Beginning of the names of the properties that are the marker.
pub const MARKER_PREFIX: &str = "reference_";

/// The project of a target that names none.
pub const PROJECT: &str = "default";

/// Longest wait for a backend that does not answer.
const SILENCE: Duration = Duration::from_secs(5);

/// The reference provider.
///
/// Settings of a target: `project` (a place of its own), `answer` (`refusing` or `silent`: a backend that is not there).
/// Secret: `token`, which the backend takes when it begins with `good`.
#[derive(Debug)]
pub struct Reference {
    backend: Directory,
    slots: u32,
}

impl Reference {
    /// The provider of a backend.
    #[must_use]
    pub const fn new(backend: Directory) -> Self {
        Self { backend, slots: 4 }
    }

    /// The same with another number of transfers that may run at once.
    #[must_use]
    pub const fn with_slots(mut self, slots: u32) -> Self {
        self.slots = slots;
        self
    }

    /// Logs in, and says which project it is.
    async fn open(&self, target: &Target) -> Result<String> {
        let (project, answer) = settings(target)?;
        match answer {
            Some("silent") => {
                tokio::time::sleep(SILENCE).await;
                return Err(ProviderError::backend_unavailable(
                    "the backend does not answer",
                ));
            }
            Some(_) => {
                return Err(ProviderError::backend_unavailable(
                    "the backend refuses connections",
                ));
            }
            None => {}
        }
        if self.backend.has_fault(Fault::Down) {
            return Err(ProviderError::backend_unavailable("the backend is down"));
        }
        if !target
            .secrets
            .text("token")
            .is_some_and(|token| token.starts_with("good"))
        {
            return Err(ProviderError::backend_auth_failed(
                "the backend refuses the token",
            ));
        }
        Ok(project)
    }

    /// All objects of the target's project.
    async fn objects(&self, target: &Target) -> Result<Vec<Record>> {
        let project = self.open(target).await?;
        let mut objects = self.backend.objects().map_err(broken)?;
        objects.retain(|object| object.project == project);
        Ok(objects)
    }

    async fn find(&self, target: &Target, marker: &Marker) -> Result<Vec<Record>> {
        let mut objects = self.objects(target).await?;
        objects.retain(|object| marker_of(object).is_some_and(|found| found.same_image(marker)));
        Ok(objects)
    }
}

/// Project and behaviour that the settings ask for.
fn settings(target: &Target) -> Result<(String, Option<&str>)> {
    let wrong = |name: &str, why: &str| {
        let path = format!("target.config.{name}");
        ProviderError::config_invalid(format!("\"{path}\" {why}")).with_field(path, why)
    };
    for (name, value) in &target.config {
        match (name.as_str(), value.as_str()) {
            ("project", Some(project)) if !project.is_empty() => {}
            ("answer", Some("refusing" | "silent")) => {}
            ("project", _) => return Err(wrong(name, "must be a name")),
            ("answer", _) => return Err(wrong(name, "must be \"refusing\" or \"silent\"")),
            _ => return Err(wrong(name, "is not known")),
        }
    }
    let text = |name: &str| target.config.get(name).and_then(|value| value.as_str());
    Ok((
        text("project").unwrap_or(PROJECT).to_owned(),
        text("answer"),
    ))
}

fn property<'a>(object: &'a Record, name: &str) -> Option<&'a str> {
    object
        .properties
        .get(&format!("{MARKER_PREFIX}{name}"))
        .map(String::as_str)
}

fn marker_of(object: &Record) -> Option<Marker> {
    let image_key = ImageKey {
        key: property(object, "key")?.parse().ok()?,
        spec_digest: Some(property(object, "spec_digest")?.parse().ok()?),
    };
    let installation = property(object, "installation")?.parse().ok()?;
    Some(Marker::new(
        property(object, "provider")?,
        installation,
        image_key,
    ))
}

fn properties_of(marker: &Marker, display_name: &str) -> BTreeMap<String, String> {
    let digest = marker.spec_digest().map(ToString::to_string);
    [
        ("provider", marker.provider.clone()),
        ("installation", marker.installation.to_string()),
        ("key", marker.key().to_string()),
        ("spec_digest", digest.unwrap_or_default()),
        ("display_name", display_name.to_owned()),
    ]
    .into_iter()
    .map(|(name, value)| (format!("{MARKER_PREFIX}{name}"), value))
    .collect()
}

fn found(object: &Record) -> Option<Found> {
    let marker = marker_of(object)?;
    let complete = object.digest.is_some();
    let phase = if complete {
        Phase::Complete
    } else {
        Phase::Partial
    };
    let mut found = Found::new(&object.id, marker.spec_digest()?.clone(), phase);
    found
        .backend_status
        .push_str(if complete { "stored" } else { "receiving" });
    found.published_name = property(object, "display_name")
        .filter(|name| *name == object.name)
        .map(ToOwned::to_owned);
    found.size_bytes = object.size;
    found.digest = object
        .digest
        .as_ref()
        .and_then(|digest| digest.parse().ok());
    found.verification = verification(object);
    found.create_time = Some(object.create_time);
    Some(found)
}

fn verification(object: &Record) -> Option<Verification> {
    Some(Verification {
        level: VerificationLevel::from_name(property(object, "verified")?)?,
        observed_digest: property(object, "served_digest")
            .unwrap_or_default()
            .to_owned(),
        observed_size_bytes: property(object, "served_bytes").and_then(|size| size.parse().ok()),
        verify_time: property(object, "verify_time")?.parse().ok()?,
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn broken(error: io::Error) -> ProviderError {
    ProviderError::backend_unavailable("the folder cannot be used")
        .with_metadata("cause", error.to_string())
}

#[async_trait]
impl Provider for Reference {
    fn info(&self) -> ProviderInfo {
        ProviderInfo::new("reference", env!("CARGO_PKG_VERSION"))
            .with_artifact_kind(ArtifactKind::Http)
            .with_disk_format(DiskFormat::Raw)
            .with_disk_format(DiskFormat::Qcow2)
            .with_capability(Capability::List)
            .with_capability(Capability::Resume)
            .with_capability(Capability::VerifyContent)
            .with_capability(Capability::Adopt)
            .with_config_schema(json!({
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {
                    "project": { "type": "string", "minLength": 1 },
                    "answer": { "enum": ["refusing", "silent"] },
                },
                "additionalProperties": false,
            }))
            .with_secret_key(
                "token",
                true,
                "What the backend is to take; begins with \"good\"",
            )
            .with_limits(Limits {
                max_concurrent_transfers: Some(self.slots),
                max_artifact_bytes: Some(LARGEST),
                min_poll_interval: None,
            })
    }

    async fn validate(&self, target: &Target) -> Result<ValidatedTarget> {
        let project = self.open(target).await?;
        let backend = self.backend.identity().map_err(broken)?;
        Ok(ValidatedTarget {
            identity: format!("{backend}/{project}"),
            warnings: Vec::new(),
        })
    }

    fn validate_spec(&self, spec: &ImageSpec) -> Result<()> {
        if let Some(name) = spec.options.keys().next() {
            return Err(Invalid::field(format!("spec.options.{name}"), "is not known").into());
        }
        if spec
            .properties
            .keys()
            .any(|name| name.starts_with(MARKER_PREFIX))
        {
            let why = format!("must not hold names that begin with \"{MARKER_PREFIX}\"");
            return Err(Invalid::field("spec.properties", why).into());
        }
        match spec.artifact.compression {
            Compression::None | Compression::Gzip => Ok(()),
            _ => Err(
                Invalid::unsupported("spec.artifact.compression", "must be NONE or GZIP").into(),
            ),
        }
    }

    async fn resolve_images(
        &self,
        _: &Target,
        _: &ReleaseIdentity,
        file: &[u8],
    ) -> Result<ResolvedImages> {
        node_images::read(file)
    }

    async fn observe(&self, target: &Target, marker: &Marker) -> Result<Option<Found>> {
        let objects = self.find(target, marker).await?;
        let complete = objects.iter().find(|object| object.digest.is_some());
        Ok(complete.or_else(|| objects.first()).and_then(found))
    }

    async fn transfer(&self, work: &Work) -> Result<Transferred> {
        let project = self.open(&work.target()).await?;
        assert!(!self.backend.has_fault(Fault::Panic), "told to panic");
        if self.backend.has_fault(Fault::Full) {
            return Err(ProviderError::quota_exceeded(
                "the backend has no room left",
            ));
        }
        let spec = work.spec();
        let object = match work.found() {
            // Half of it came already.
            Some(found) => self.backend.object(&found.id).map_err(broken)?,
            None => None,
        };
        let object = if let Some(object) = object {
            object
        } else {
            let mut properties = spec.properties.clone();
            properties.extend(properties_of(work.marker(), &spec.display_name));
            let (name, format) = (work.working_name(), spec.disk_format.name());
            self.backend
                .create(&project, &name, format, properties)
                .map_err(broken)?
        };
        work.progress().set_id(&object.id);
        if self.backend.has_fault(Fault::Hang) {
            std::future::pending::<()>().await;
        }
        let seen = fetch(
            &spec.artifact,
            &self.backend.data(&object.id),
            work.progress(),
        )
        .await?;
        if self.backend.has_fault(Fault::Reject) {
            return Err(ProviderError::content_rejected(
                "the backend does not like the bytes",
            ));
        }
        self.backend
            .change(&object.id, |record| note(record, &seen))
            .map_err(broken)?;
        self.backend.complete(&object.id).map_err(broken)?;
        Ok(seen)
    }

    async fn verify(
        &self,
        work: &Work,
        found: &Found,
        level: VerificationLevel,
    ) -> Result<Verified> {
        self.open(&work.target()).await?;
        let object = self.backend.object(&found.id).map_err(broken)?;
        let object =
            object.ok_or_else(|| ProviderError::backend_unavailable("the object is gone"))?;
        let mut digest = object.digest.clone();
        if level == VerificationLevel::Content {
            let path = self.backend.data(&found.id);
            let read = tokio::task::spawn_blocking(move || hash(&path)).await;
            let read = read.map_err(|_ended| ProviderError::internal_bug("hashing ended early"))?;
            digest = Some(read.map_err(broken)?.0);
        }
        // What came in is what was asked for, and what is there is what came in.
        if digest.as_deref() != property(&object, "stored_digest") {
            return Err(ProviderError::digest_mismatch(
                "the stored bytes have changed",
            ));
        }
        Ok(Verified::new(
            level,
            property(&object, "served_digest").and_then(|digest| digest.parse().ok()),
            property(&object, "served_bytes").and_then(|size| size.parse().ok()),
        ))
    }

    async fn remember(&self, target: &Target, marker: &Marker, done: &Verification) -> Result<()> {
        for object in self.find(target, marker).await? {
            self.backend
                .change(&object.id, |record| {
                    let mut set = |name: &str, value: String| {
                        record
                            .properties
                            .insert(format!("{MARKER_PREFIX}{name}"), value)
                    };
                    set("verified", done.level.name().to_owned());
                    set("verify_time", done.verify_time.to_string());
                })
                .map_err(broken)?;
        }
        Ok(())
    }

    async fn named(&self, target: &Target, name: &str) -> Result<Vec<Named>> {
        let mut objects = self.objects(target).await?;
        objects.retain(|object| object.name == name);
        Ok(objects
            .iter()
            .map(|object| {
                let mut named = Named::new(&object.id, marker_of(object));
                named.size_bytes = object.size;
                named.digest = object
                    .digest
                    .as_ref()
                    .and_then(|digest| digest.parse().ok());
                named.disk_format = DiskFormat::from_name(&object.disk_format);
                named
            })
            .collect())
    }

    async fn give_name(
        &self,
        target: &Target,
        _: &Marker,
        id: &str,
        display_name: &str,
    ) -> Result<()> {
        self.open(target).await?;
        let rename = |record: &mut Record| display_name.clone_into(&mut record.name);
        self.backend.change(id, rename).map(drop).map_err(broken)
    }

    async fn take_name(
        &self,
        target: &Target,
        marker: &Marker,
        id: &str,
        display_name: &str,
    ) -> Result<()> {
        self.give_name(target, marker, id, &marker.working_name(display_name))
            .await
    }

    async fn delete(&self, target: &Target, marker: &Marker) -> Result<()> {
        for object in self.find(target, marker).await? {
            if object.in_use {
                return Err(ProviderError::image_in_use("something runs from the image"));
            }
            self.backend.remove(&object.id).map_err(broken)?;
        }
        Ok(())
    }

    async fn list(
        &self,
        target: &Target,
        installation: &InstallationId,
    ) -> Result<Vec<(Key, Found)>> {
        let objects = self.objects(target).await?;
        let ours = objects.iter().filter_map(|object| {
            let marker = marker_of(object)?;
            let provider = marker.provider == self.info().name;
            let key =
                (provider && marker.installation == *installation).then(|| marker.key().clone())?;
            Some((key, found(object)?))
        });
        Ok(ours.collect())
    }

    async fn adopt(
        &self,
        target: &Target,
        marker: &Marker,
        object: &Named,
        spec: &ImageSpec,
    ) -> Result<()> {
        self.open(target).await?;
        self.backend
            .change(&object.id, |record| {
                record
                    .properties
                    .extend(properties_of(marker, &spec.display_name));
                let mut seen = Transferred::default();
                seen.served_digest.clone_from(&spec.artifact.digest);
                seen.served_bytes = spec.artifact.size_bytes.or(record.size);
                note(record, &seen);
            })
            .map(drop)
            .map_err(broken)
    }

    async fn read_back(&self, target: &Target, id: &str) -> Result<Reader> {
        self.open(target).await?;
        let file = tokio::fs::File::open(self.backend.data(id))
            .await
            .map_err(broken)?;
        Ok(Box::pin(file))
    }
}

/// Keeps what went by beside the object: after a restart nobody else would know.
fn note(record: &mut Record, seen: &Transferred) {
    let digest = seen.served_digest.as_ref().map(ToString::to_string);
    let size = seen.served_bytes.map(|bytes| bytes.to_string());
    let stored = seen.stored_digest.as_ref().map(ToString::to_string);
    let stored = stored.or_else(|| record.digest.clone());
    for (name, value) in [
        ("served_digest", digest),
        ("served_bytes", size),
        ("stored_digest", stored),
    ] {
        if let Some(value) = value {
            record
                .properties
                .insert(format!("{MARKER_PREFIX}{name}"), value);
        }
    }
}
