//! The smallest provider, with a place in memory: `minimal --insecure --listen 127.0.0.1:9443`.

use std::collections::BTreeMap;

use proto::{ArtifactKind, Digest, DiskFormat, ProviderInfo, Target};
use proto::{digest::Algorithm, request::ValidatedTarget};
use provider_sdk::download::{ClientOptions, Download, Downloader, client};
use provider_sdk::provider::{
    Found, Marker, Named, Phase, Result, Transferred, Work, source_error,
};
use tokio::sync::Mutex;

/// The object of each image; `published_name` is its name.
#[derive(Default)]
pub struct Memory(Mutex<BTreeMap<String, (Marker, Found)>>);

#[async_trait::async_trait]
impl provider_sdk::Provider for Memory {
    fn info(&self) -> ProviderInfo {
        ProviderInfo::new("memory", "0.1.0")
            .with_artifact_kind(ArtifactKind::Http)
            .with_disk_format(DiskFormat::Raw)
    }
    async fn validate(&self, _: &Target) -> Result<ValidatedTarget> {
        Ok(ValidatedTarget::new("memory"))
    }
    async fn observe(&self, _: &Target, marker: &Marker) -> Result<Option<Found>> {
        let images = self.0.lock().await;
        Ok(images.get(&marker.to_string()).map(|image| image.1.clone()))
    }
    async fn transfer(&self, work: &Work) -> Result<Transferred> {
        let (id, url) = (work.marker().to_string(), work.http()?.urls[0].clone());
        let path = std::env::temp_dir().join(work.marker().key().as_str());
        let downloader = Downloader::new(client(&ClientOptions::default()).map_err(source_error)?);
        work.progress().unmeasured(); // else silence counts as a stall
        let got = downloader
            .fetch(&Download::new(url, 1 << 30), &path)
            .await
            .map_err(source_error)?;
        std::fs::remove_file(path).ok();
        let mut found = Found::new(&id, work.spec_digest()?.clone(), Phase::Complete);
        (found.digest, found.size_bytes) =
            (Digest::new(Algorithm::Sha256, &got.sha256), Some(got.size));
        self.0
            .lock()
            .await
            .insert(id, (work.marker().clone(), found));
        Ok(Transferred::default())
    }
    async fn named(&self, _: &Target, name: &str) -> Result<Vec<Named>> {
        let images = self.0.lock().await;
        let holders = images
            .values()
            .filter(|(_, found)| found.published_name.as_deref() == Some(name));
        Ok(holders
            .map(|(marker, found)| Named::new(&found.id, Some(marker.clone())))
            .collect())
    }
    async fn give_name(&self, _: &Target, _: &Marker, id: &str, name: &str) -> Result<()> {
        if let Some((_, found)) = self.0.lock().await.get_mut(id) {
            found.published_name = Some(name.to_owned());
        }
        Ok(())
    }
    async fn take_name(&self, _: &Target, _: &Marker, id: &str, _: &str) -> Result<()> {
        if let Some((_, found)) = self.0.lock().await.get_mut(id) {
            found.published_name = None;
        }
        Ok(())
    }
    async fn delete(&self, _: &Target, marker: &Marker) -> Result<()> {
        self.0.lock().await.remove(&marker.to_string());
        Ok(())
    }
}

#[derive(clap::Parser)]
struct Args {
    #[command(flatten)]
    serve: provider_sdk::serve::ServeOptions,
}

#[tokio::main]
async fn main() -> Result<(), provider_sdk::serve::ServeError> {
    provider_sdk::serve(Memory::default(), <Args as clap::Parser>::parse().serve).await
}
