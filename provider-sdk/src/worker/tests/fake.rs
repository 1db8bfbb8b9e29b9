//! A provider whose backend is a map, and which does what a test tells it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use proto::request::{ReleaseIdentity, ResolvedImages, ValidatedTarget};
use proto::{
    ArtifactKind, Capability, Digest, DiskFormat, ImageSpec, InstallationId, Key, Limits,
    ProviderError, ProviderInfo, SpecDigest, Target, VerificationLevel,
};
use tokio::time::sleep;

use crate::provider::{
    Found, Marker, Named, Phase, Progress, Provider, Result, Transferred, Verified, Work,
};

/// What the next transfer does.
#[derive(Clone)]
pub(super) enum Act {
    /// Bytes come for a second, and are the right ones.
    Finish,
    /// Bytes come, but wrong ones.
    Spoil,
    /// A byte comes every second, for ever.
    Crawl,
    /// Nothing comes, for ever.
    Hang,
    /// The backend works by itself and tells nothing, for an hour.
    Import,
    Fail(ProviderError),
    Panic,
}

#[derive(Clone)]
pub(super) struct Object {
    pub(super) marker: Option<Marker>,
    pub(super) spec_digest: Option<SpecDigest>,
    pub(super) name: String,
    pub(super) digest: Digest,
    pub(super) phase: Phase,
}

#[derive(Default)]
pub(super) struct Backend {
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) acts: VecDeque<Act>,
    pub(super) down: Option<ProviderError>,
    pub(super) in_use: bool,
    /// All names after each change.
    pub(super) history: Vec<Vec<String>>,
    pub(super) secrets: Vec<String>,
    next: usize,
}

#[derive(Default)]
pub(super) struct Fake {
    pub(super) backend: Mutex<Backend>,
    pub(super) transfers: AtomicUsize,
    pub(super) running: AtomicUsize,
    pub(super) most: AtomicUsize,
    pub(super) slots: Option<u32>,
}

pub(super) fn digest(digit: &str) -> Digest {
    format!("sha256:{}", digit.repeat(64))
        .parse()
        .expect("a digest")
}

/// Counts a transfer as running until it is dropped, however it ends.
struct Slot<'a>(&'a Fake);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Fake {
    pub(super) fn acts(&self, acts: impl IntoIterator<Item = Act>) {
        self.lock().acts.extend(acts);
    }

    pub(super) fn lock(&self) -> std::sync::MutexGuard<'_, Backend> {
        self.backend.lock().expect("no test panics under the lock")
    }

    pub(super) fn put(&self, id: &str, object: Object) {
        self.lock().objects.insert(id.to_owned(), object);
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.lock().names()
    }

    pub(super) fn transfers(&self) -> usize {
        self.transfers.load(Ordering::SeqCst)
    }

    fn reach(&self) -> Result<()> {
        self.lock().down.clone().map_or(Ok(()), Err)
    }
}

impl Backend {
    fn names(&self) -> Vec<String> {
        self.objects
            .values()
            .map(|object| object.name.clone())
            .collect()
    }

    fn note(&mut self) {
        let names = self.names();
        self.history.push(names);
    }
}

#[async_trait]
impl Provider for Fake {
    fn info(&self) -> ProviderInfo {
        ProviderInfo::new("fake", "1.0.0")
            .with_artifact_kind(ArtifactKind::Http)
            .with_disk_format(DiskFormat::Qcow2)
            .with_capability(Capability::List)
            .with_capability(Capability::Adopt)
            .with_limits(Limits {
                max_concurrent_transfers: self.slots,
                ..Limits::default()
            })
    }

    async fn validate(&self, _: &Target) -> Result<ValidatedTarget> {
        Ok(ValidatedTarget {
            identity: "here".to_owned(),
            warnings: Vec::new(),
        })
    }

    async fn resolve_images(
        &self,
        _: &Target,
        _: &ReleaseIdentity,
        _: &[u8],
    ) -> Result<ResolvedImages> {
        Ok(ResolvedImages::default())
    }

    async fn observe(&self, _: &Target, marker: &Marker) -> Result<Option<Found>> {
        self.reach()?;
        let backend = self.lock();
        let found = backend.objects.iter().find(|(_, object)| {
            object
                .marker
                .as_ref()
                .is_some_and(|found| found.same_image(marker))
        });
        Ok(found.map(|(id, object)| {
            let spec = object.spec_digest.clone().expect("ours has one");
            let mut found = Found::new(id, spec, object.phase);
            found.published_name = (!object.name.contains('~')).then(|| object.name.clone());
            found.digest = Some(object.digest.clone());
            found
        }))
    }

    async fn transfer(&self, work: &Work) -> Result<Transferred> {
        self.transfers.fetch_add(1, Ordering::SeqCst);
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
        let _slot = Slot(self);
        let act = self.lock().acts.pop_front().unwrap_or(Act::Finish);
        let progress: &Progress = work.progress();
        let bytes = match act {
            Act::Finish => digest("a"),
            Act::Spoil => digest("b"),
            Act::Fail(error) => return Err(error),
            Act::Panic => panic!("a bug of the author"),
            Act::Hang => std::future::pending().await,
            Act::Import => {
                progress.set_id("importing");
                progress.processing();
                sleep(Duration::from_hours(1)).await;
                digest("a")
            }
            Act::Crawl => loop {
                sleep(Duration::from_secs(1)).await;
                progress.add(1);
                let secret = work.target().secrets_version.clone();
                self.lock().secrets.push(secret);
            },
        };
        sleep(Duration::from_secs(1)).await;
        progress.add(7);
        let mut backend = self.lock();
        backend.next += 1;
        let id = format!("id-{}", backend.next);
        let object = Object {
            marker: Some(work.marker().clone()),
            spec_digest: work.marker().spec_digest().cloned(),
            name: work.working_name(),
            digest: bytes,
            phase: Phase::Complete,
        };
        backend.objects.insert(id, object);
        backend.note();
        Ok(Transferred::default())
    }

    async fn verify(&self, _: &Work, found: &Found, level: VerificationLevel) -> Result<Verified> {
        self.reach()?;
        Ok(Verified::new(level, found.digest.clone(), Some(7)))
    }

    async fn named(&self, _: &Target, name: &str) -> Result<Vec<Named>> {
        self.reach()?;
        let backend = self.lock();
        let holders = backend
            .objects
            .iter()
            .filter(|(_, object)| object.name == name);
        Ok(holders
            .map(|(id, object)| {
                let mut named = Named::new(id, object.marker.clone());
                named.digest = Some(object.digest.clone());
                named
            })
            .collect())
    }

    async fn give_name(&self, _: &Target, _: &Marker, id: &str, name: &str) -> Result<()> {
        let mut backend = self.lock();
        backend.objects.get_mut(id).expect("an object").name = name.to_owned();
        backend.note();
        Ok(())
    }

    async fn take_name(&self, _: &Target, marker: &Marker, id: &str, name: &str) -> Result<()> {
        let mut backend = self.lock();
        backend.objects.get_mut(id).expect("an object").name = marker.working_name(name);
        backend.note();
        Ok(())
    }

    async fn delete(&self, _: &Target, marker: &Marker) -> Result<()> {
        self.reach()?;
        let mut backend = self.lock();
        if backend.in_use {
            return Err(ProviderError::image_in_use("a machine runs from it"));
        }
        backend.objects.retain(|_, object| {
            !object
                .marker
                .as_ref()
                .is_some_and(|found| found.same_image(marker))
        });
        backend.note();
        Ok(())
    }

    async fn list(&self, _: &Target, owner: &InstallationId) -> Result<Vec<(Key, Found)>> {
        let backend = self.lock();
        let ours = backend.objects.iter().filter_map(|(id, object)| {
            let marker = object.marker.as_ref()?;
            let spec = object.spec_digest.clone()?;
            (marker.installation == *owner)
                .then(|| (marker.key().clone(), Found::new(id, spec, object.phase)))
        });
        Ok(ours.collect())
    }

    async fn adopt(
        &self,
        _: &Target,
        marker: &Marker,
        object: &Named,
        _: &ImageSpec,
    ) -> Result<()> {
        let mut backend = self.lock();
        let object = backend.objects.get_mut(&object.id).expect("an object");
        object.marker = Some(marker.clone());
        object.spec_digest = marker.spec_digest().cloned();
        Ok(())
    }
}
