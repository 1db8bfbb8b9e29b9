//! The part of a worker that has to do with the display name: publishing, and adoption of what has the name already.

use proto::{Reason, Verification, VerificationLevel};

use super::bring::{Bring, begin};
use super::entry::{Stage, Wish};
use super::publish;
use super::verify::Likeness;
use crate::provider::{Found, Result};

impl Bring {
    /// Takes the display name from an image that is found bad.
    pub(super) async fn take_name(&self, wish: &Wish, found: &Found) -> Result<()> {
        let Some(name) = &found.published_name else {
            return Ok(());
        };
        let _lock = self.shared.names.lock(&self.id.place, name).await;
        let marker = self.marker(wish);
        let provider = &self.shared.provider;
        provider
            .take_name(&self.target(), &marker, &found.id, name)
            .await?;
        self.entry.lock().published = false;
        Ok(())
    }

    /// Gives the name, if that is wanted, and finds out whether the image has it.
    pub(super) async fn name(&self, wish: &Wish, found: &Found) {
        let marker = self.marker(wish);
        let provider = &*self.shared.provider;
        let target = self.target();
        let name = &wish.spec.display_name;
        let named = if wish.publish {
            self.enter(Stage::Naming, None);
            let _lock = self.shared.names.lock(&self.id.place, name).await;
            publish::publish(provider, &target, &marker, &found.id, name)
                .await
                .map(|()| true)
        } else {
            self.shared.published(&target, &marker, Some(found)).await
        };
        // What the backend shows may follow the name.
        if wish.publish
            && found.published_name.as_ref() != Some(name)
            && let Err(error) = self.look(wish).await
        {
            tracing::debug!(key = %self.id.key, %error, "image not seen after it was named");
        }
        let mut memory = self.entry.lock();
        memory.pause = None;
        memory.failures = 0;
        memory.published = *named.as_ref().unwrap_or(&false);
        memory.error = named.err().map(|error| wish.redactor.error(error));
    }

    /// Takes over the one image that has the name, belongs to nobody and is what is wanted.
    pub(super) async fn adopt(&self, wish: &Wish) -> Result<()> {
        let spec = &*wish.spec;
        let Some(likeness) = Likeness::of(spec) else {
            return Ok(());
        };
        let provider = &self.shared.provider;
        let (target, marker) = (self.target(), self.marker(wish));
        let _lock = self
            .shared
            .names
            .lock(&self.id.place, &spec.display_name)
            .await;
        let holders = provider.named(&target, &spec.display_name).await?;
        let [object] = holders.as_slice() else {
            return Ok(());
        };
        if !likeness.admits(object) {
            return Ok(());
        }
        let (same, level) = if let Some(same) = likeness.known(object) {
            (same, VerificationLevel::Metadata)
        } else {
            match provider.read_back(&target, &object.id).await {
                Ok(reader) => (likeness.matches(reader).await?, VerificationLevel::Content),
                Err(error) if error.reason() == Some(Reason::NotSupported) => return Ok(()),
                Err(error) => return Err(error),
            }
        };
        if !same {
            return Ok(());
        }
        match provider.adopt(&target, &marker, object, spec).await {
            Ok(()) => {}
            // Somebody was faster.
            Err(error) if error.reason() == Some(Reason::ForeignObject) => return Ok(()),
            Err(error) => return Err(error),
        }
        tracing::info!(key = %self.id.key, id = object.id, "image adopted");
        begin(&mut self.entry.lock(), wish.policy.attempt_floor);
        let done = Verification {
            level,
            observed_digest: spec
                .artifact
                .digest
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            observed_size_bytes: spec.artifact.size_bytes.or(object.size_bytes),
            verify_time: self.shared.clock.now(),
        };
        self.verified(wish, done).await;
        Ok(())
    }
}
