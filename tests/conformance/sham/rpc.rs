//! The two services, and what they answer without an image.

use std::sync::Arc;

use async_trait::async_trait;
use proto::wire::{
    self, ErrorReason as Reason, identity_service_server::IdentityService,
    node_image_service_server::NodeImageService,
};
use serde::Deserialize;
use tonic::{Request, Response, Status};

use super::{
    Fault,
    download::{self, LARGEST},
    service::{SLOTS, Sham},
    validate,
};

/// The provider as a server needs it.
#[derive(Clone, Debug)]
pub struct Services(pub Arc<Sham>);

impl Sham {
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
            #[serde(default)]
            url: String,
            #[serde(default)]
            digest: String,
            #[serde(default)]
            size: i64,
            /// Repository and tag, instead of all that.
            #[serde(default)]
            reference: String,
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
            let (artifact, format) = if entry.reference.is_empty() {
                let artifact = wire::Artifact {
                    digest: entry.digest,
                    size_bytes: entry.size,
                    compression: wire::Compression::None.into(),
                    source: Some(wire::artifact::Source::Http(wire::HttpSource {
                        urls: vec![entry.url],
                        ca_bundle_pem: Vec::new(),
                    })),
                    ..wire::Artifact::default()
                };
                (artifact, wire::DiskFormat::Raw)
            } else {
                let (repository, digest) = download::resolve(&entry.reference)
                    .await
                    .map_err(|reason| validate::refuse(reason, None, "the tag leads nowhere"))?;
                let artifact = wire::Artifact {
                    digest,
                    source: Some(wire::artifact::Source::Oci(wire::OciSource {
                        repository,
                        ca_bundle_pem: Vec::new(),
                    })),
                    ..wire::Artifact::default()
                };
                (artifact, wire::DiskFormat::Container)
            };
            images.push(wire::ImageSpec {
                display_name: if self.has(Fault::ChangesNames) {
                    format!("{}-image", entry.name)
                } else {
                    entry.name
                },
                artifact: Some(artifact),
                disk_format: format.into(),
                ..wire::ImageSpec::default()
            });
        }
        Ok(wire::ResolveImagesResponse {
            images,
            warnings: Vec::new(),
        })
    }
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
                artifact_kinds: vec![wire::ArtifactKind::Http.into(), wire::ArtifactKind::Oci.into()],
                disk_formats: vec![wire::DiskFormat::Raw.into(), wire::DiskFormat::Qcow2.into(), wire::DiskFormat::Container.into()],
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
