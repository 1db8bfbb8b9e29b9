//! Charts in OCI registries, as Helm stores them: one layer with the archive, `+` in versions written as `_` in tags.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use oci_client::{
    Client, Reference, RegistryOperation,
    client::{ClientConfig, ClientProtocol},
    manifest::{OciDescriptor, OciManifest},
    secrets::RegistryAuth,
};

use super::DependencyError;

/// Media type of the layer with the chart's archive (<https://helm.sh/docs/topics/registries/>).
const CHART_LAYER: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// Tags of one request, and requests: more tags than these are not looked at.
const TAGS_PAGE: usize = 1000;
const TAGS_PAGES: usize = 20;

/// The registries, read without credentials.
pub(super) struct Registries {
    client: Client,
}

impl Registries {
    pub(super) fn new(plain_http: &[String], connect_time: Duration, silence: Duration) -> Self {
        let client = Client::new(ClientConfig {
            protocol: ClientProtocol::HttpsExcept(plain_http.to_vec()),
            connect_timeout: Some(connect_time),
            read_timeout: Some(silence),
            platform_resolver: None,
            ..ClientConfig::default()
        });
        Self { client }
    }

    /// The versions of a chart, as its tags say.
    pub(super) async fn versions(&self, chart: &Reference) -> Result<Vec<String>, DependencyError> {
        let mut versions: Vec<String> = Vec::new();
        let mut last = None;
        for _ in 0..TAGS_PAGES {
            let answer = self
                .client
                .list_tags(
                    chart,
                    &RegistryAuth::Anonymous,
                    Some(TAGS_PAGE),
                    last.as_deref(),
                )
                .await;
            let tags = answer.map_err(|source| failed(chart, source))?.tags;
            let next = tags.last().cloned();
            // registries without paging answer the same again
            let complete = tags.len() < TAGS_PAGE || next == last;
            versions.extend(tags.iter().map(|tag| tag.replace('_', "+")));
            last = next;
            if complete {
                break;
            }
        }
        Ok(versions)
    }

    /// The digest of the archive behind a tag.
    pub(super) async fn digest(&self, chart: &Reference) -> Result<String, DependencyError> {
        let manifest = self
            .client
            .pull_manifest(chart, &RegistryAuth::Anonymous)
            .await;
        let (manifest, _) = manifest.map_err(|source| failed(chart, source))?;
        let refuse = |message: &str| DependencyError::FindChart {
            reference: chart.whole(),
            message: message.to_owned(),
        };
        let OciManifest::Image(image) = manifest else {
            return Err(refuse("it is an index of images"));
        };
        let layer = image
            .layers
            .into_iter()
            .find(|layer| layer.media_type == CHART_LAYER);
        layer
            .map(|layer| layer.digest)
            .ok_or_else(|| refuse("it has no layer with a chart"))
    }

    /// The archive with a digest. Anonymous access is agreed on with the registry first.
    pub(super) async fn archive(
        &self,
        chart: &Reference,
        digest: &str,
    ) -> Result<BoxStream<'static, Result<bytes::Bytes, DependencyError>>, DependencyError> {
        let token = self
            .client
            .auth(chart, &RegistryAuth::Anonymous, RegistryOperation::Pull)
            .await;
        token.map_err(|source| failed(chart, source))?;
        let layer = OciDescriptor {
            digest: digest.to_owned(),
            ..OciDescriptor::default()
        };
        let stream = self
            .client
            .pull_blob_stream(chart, &layer)
            .await
            .map_err(|source| failed(chart, source))?;
        let reference = chart.whole();
        let lose = move |source| DependencyError::LoseRegistry {
            reference: reference.clone(),
            source,
        };
        Ok(stream.stream.map_err(lose).boxed())
    }
}

/// The chart `name` below `oci://registry/path`; absent if that is no address.
pub(super) fn reference(repository: &str, name: &str, version: &str) -> Option<Reference> {
    let base = repository.strip_prefix("oci://")?.trim_end_matches('/');
    format!("{base}/{name}:{}", version.replace('+', "_"))
        .parse()
        .ok()
}

fn failed(chart: &Reference, source: oci_client::errors::OciDistributionError) -> DependencyError {
    DependencyError::ReadRegistry {
        reference: chart.whole(),
        source,
    }
}
