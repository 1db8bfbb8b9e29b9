//! Both services of the contract over one [`Provider`].
//!
//! Checks what comes in, asks the provider or the workers, and puts the answer into the form of the contract. Nothing here
//! outlives a call: work for images belongs to the workers.

mod answer;
mod checks;

use std::sync::Arc;

use proto::request::{
    Caller, DeleteImage, EnsureImage, GetImage, ListImages, MAX_IMAGES, MAX_TARGET_IDENTITY,
    ResolveImages, ResolvedImages, ValidateTarget,
};
use proto::wire::identity_service_server::{IdentityService, IdentityServiceServer};
use proto::wire::node_image_service_server::{NodeImageService, NodeImageServiceServer};
use proto::{
    Capability, ImageSpec, Invalid, Observation, ProviderError, ProviderInfo, Secrets, Target, wire,
};
use tonic::{Request, Response, Status};

use crate::clock::Clock;
use crate::load::Load;
use crate::provider::{Provider, Result};
use crate::redact::Redactor;
use crate::worker::Workers;
use answer::{MAX_MESSAGE_BYTES, answer, check_size};

pub(crate) use answer::panicked;

/// Room that a page leaves for everything but its entries.
const PAGE_BYTES: usize = MAX_MESSAGE_BYTES - (4 << 10);

/// What a provider serves, ready for a `tonic` router.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Services {
    /// The handshake.
    pub identity: IdentityServiceServer<Server>,
    /// The images.
    pub images: NodeImageServiceServer<Server>,
    /// What the handshake says.
    pub info: Arc<ProviderInfo>,
    /// What the work for images comes to, as numbers.
    pub load: Arc<Load>,
    /// Ends the work for images.
    pub shutdown: Shutdown,
}

/// Ends the work for images when the process is to end.
#[derive(Debug, Clone)]
pub struct Shutdown(Workers);

impl Shutdown {
    /// Stops all work and waits until it has stopped; transfers are cut, and continued by the next process. Calls that come
    /// later and want work done are answered with `PROVIDER_NOT_READY`.
    pub async fn stop(&self) {
        self.0.stop().await;
    }
}

/// Both services over a provider.
///
/// # Errors
///
/// What the provider says of itself breaks the contract.
pub fn services(provider: Arc<impl Provider>) -> std::result::Result<Services, Invalid> {
    services_with(provider, Clock::Wall)
}

pub(crate) fn services_with(
    provider: Arc<dyn Provider>,
    clock: Clock,
) -> std::result::Result<Services, Invalid> {
    let mut info = provider.info();
    info.capabilities.insert(Capability::Advertised);
    info.instance_id = format!("{:032x}", rand::random::<u128>());
    let handshake = Arc::new(info.to_wire()?);
    let info = Arc::new(info);
    let workers = Workers::new(Arc::clone(&provider), Arc::clone(&info), clock);
    let server = Server {
        provider,
        info: Arc::clone(&info),
        handshake,
        workers: workers.clone(),
    };
    Ok(Services {
        identity: IdentityServiceServer::new(server.clone())
            .max_decoding_message_size(wire::MAX_RECEIVED_BYTES),
        images: NodeImageServiceServer::new(server)
            .max_decoding_message_size(wire::MAX_RECEIVED_BYTES),
        info,
        load: workers.load(),
        shutdown: Shutdown(workers),
    })
}

/// Answers the calls of the contract.
#[derive(Clone)]
pub struct Server {
    provider: Arc<dyn Provider>,
    info: Arc<ProviderInfo>,
    handshake: Arc<wire::GetProviderInfoResponse>,
    workers: Workers,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("provider", &self.info.name)
            .finish_non_exhaustive()
    }
}

type Answer<M> = std::result::Result<Response<M>, Status>;

/// The secrets of a request, before anything in it is checked: a refusal must not repeat them either.
fn redactor(target: Option<&wire::Target>, spec: Option<&wire::ImageSpec>) -> Redactor {
    let artifact = spec.and_then(|spec| spec.artifact.as_ref());
    let of = |secrets: &std::collections::BTreeMap<String, Vec<u8>>| -> Secrets {
        let secrets = secrets.iter().take(proto::target::MAX_SECRETS);
        secrets.map(|(n, v)| (n.clone(), v.clone())).collect()
    };
    let all: Vec<Secrets> = target
        .map(|target| of(&target.secrets))
        .into_iter()
        .chain(artifact.map(|artifact| of(&artifact.source_secrets)))
        .collect();
    Redactor::new(&all)
}

impl Server {
    fn check_spec(&self, spec: &ImageSpec) -> Result<()> {
        checks::spec(&self.info, spec)?;
        self.provider.validate_spec(spec)
    }

    async fn validate(&self, request: ValidateTarget) -> Result<wire::ValidateTargetResponse> {
        let target = &request.target;
        checks::secrets(&self.info, target)?;
        if let Some(spec) = &request.spec {
            self.check_spec(spec)?;
        }
        let valid = self.provider.validate(target).await?;
        let length = valid.identity.chars().count();
        if length == 0 || length > MAX_TARGET_IDENTITY {
            return Err(ProviderError::internal_bug(
                "the identity of the place has no or more than 512 characters",
            ));
        }
        let mut warnings = valid.warnings;
        if let Some(spec) = &request.spec {
            let named = self.provider.named(target, &spec.display_name).await?;
            let ours = |marker: &crate::provider::Marker| {
                marker.provider == self.info.name
                    && marker.installation == request.caller.installation
            };
            if named
                .iter()
                .any(|object| !object.marker.as_ref().is_some_and(ours))
            {
                warnings.push(format!(
                    "an image named \"{}\" that is not of this installation is in the way of publishing",
                    spec.display_name
                ));
            }
        }
        Ok(wire::ValidateTargetResponse {
            warnings,
            target_identity: valid.identity,
        })
    }

    async fn resolve(&self, request: ResolveImages) -> Result<wire::ResolveImagesResponse> {
        checks::secrets(&self.info, &request.target)?;
        if request.node_images.is_empty() {
            return Ok(wire::ResolveImagesResponse::default());
        }
        let ResolvedImages { images, warnings } = self
            .provider
            .resolve_images(&request.target, &request.release, &request.node_images)
            .await?;
        let invalid = |invalid: Invalid| ProviderError::node_images_invalid(invalid.to_string());
        if images.len() > MAX_IMAGES {
            return Err(invalid(Invalid::too_large("images", "64 entries")));
        }
        let mut names = std::collections::BTreeSet::new();
        let mut answer = wire::ResolveImagesResponse {
            images: Vec::with_capacity(images.len()),
            warnings,
        };
        for spec in &images {
            answer.images.push(spec.to_wire().map_err(invalid)?);
            self.check_spec(spec)?;
            if !names.insert(&spec.display_name) {
                return Err(ProviderError::node_images_invalid(format!(
                    "two images have the name \"{}\"",
                    spec.display_name
                )));
            }
        }
        Ok(answer)
    }

    async fn ensure(&self, request: EnsureImage, redactor: Redactor) -> Result<Observation> {
        self.check_target(&request.target)?;
        checks::policy(&self.info, &request.policy)?;
        self.check_spec(&request.spec)?;
        self.workers.ensure(request, redactor).await
    }

    async fn list(&self, request: ListImages) -> Result<(Vec<Observation>, String)> {
        if !self.info.can(Capability::List) {
            return Err(ProviderError::not_supported("images cannot be listed"));
        }
        self.check_target(&request.target)?;
        self.workers.list(request).await
    }

    fn check_target(&self, target: &Target) -> Result<()> {
        Ok(checks::secrets(&self.info, target)?)
    }
}

#[tonic::async_trait]
impl IdentityService for Server {
    async fn get_provider_info(
        &self,
        request: Request<wire::GetProviderInfoRequest>,
    ) -> Answer<wire::GetProviderInfoResponse> {
        let (metadata, _, message) = request.into_parts();
        let work = async {
            Caller::read(message.caller)?;
            Ok((*self.handshake).clone())
        };
        answer("GetProviderInfo", &metadata, &Redactor::default(), work).await
    }
}

#[tonic::async_trait]
impl NodeImageService for Server {
    async fn validate_target(
        &self,
        request: Request<wire::ValidateTargetRequest>,
    ) -> Answer<wire::ValidateTargetResponse> {
        let size = check_size(&request);
        let (metadata, _, message) = request.into_parts();
        let redactor = redactor(message.target.as_ref(), message.spec.as_ref());
        let work = async {
            size?;
            let mut answer = self.validate(message.try_into()?).await?;
            for warning in &mut answer.warnings {
                *warning = redactor.text(warning);
            }
            Ok(answer)
        };
        answer("ValidateTarget", &metadata, &redactor, work).await
    }

    async fn resolve_images(
        &self,
        request: Request<wire::ResolveImagesRequest>,
    ) -> Answer<wire::ResolveImagesResponse> {
        let size = check_size(&request);
        let (metadata, _, message) = request.into_parts();
        let redactor = redactor(message.target.as_ref(), None);
        let work = async {
            size?;
            let mut answer = self.resolve(message.try_into()?).await?;
            for warning in &mut answer.warnings {
                *warning = redactor.text(warning);
            }
            Ok(answer)
        };
        answer("ResolveImages", &metadata, &redactor, work).await
    }

    async fn ensure_image(
        &self,
        request: Request<wire::EnsureImageRequest>,
    ) -> Answer<wire::EnsureImageResponse> {
        let size = check_size(&request);
        let (metadata, _, message) = request.into_parts();
        let of = || redactor(message.target.as_ref(), message.spec.as_ref());
        let (here, there) = (of(), of());
        let work = async {
            size?;
            let seen = self.ensure(message.try_into()?, there).await?;
            Ok(wire::EnsureImageResponse {
                observation: Some((&here.observation(seen)).into()),
            })
        };
        answer("EnsureImage", &metadata, &here, work).await
    }

    async fn get_image(
        &self,
        request: Request<wire::GetImageRequest>,
    ) -> Answer<wire::GetImageResponse> {
        let size = check_size(&request);
        let (metadata, _, message) = request.into_parts();
        let redactor = redactor(message.target.as_ref(), None);
        let work = async {
            size?;
            let request: GetImage = message.try_into()?;
            self.check_target(&request.target)?;
            let seen = self.workers.get(request).await?;
            Ok(wire::GetImageResponse {
                observation: Some((&redactor.observation(seen)).into()),
            })
        };
        answer("GetImage", &metadata, &redactor, work).await
    }

    async fn delete_image(
        &self,
        request: Request<wire::DeleteImageRequest>,
    ) -> Answer<wire::DeleteImageResponse> {
        let size = check_size(&request);
        let (metadata, _, message) = request.into_parts();
        let redactor = redactor(message.target.as_ref(), None);
        let work = async {
            size?;
            let request: DeleteImage = message.try_into()?;
            self.check_target(&request.target)?;
            let seen = self.workers.delete(request).await?;
            Ok(wire::DeleteImageResponse {
                observation: Some((&redactor.observation(seen)).into()),
            })
        };
        answer("DeleteImage", &metadata, &redactor, work).await
    }

    async fn list_images(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Answer<wire::ListImagesResponse> {
        let size = check_size(&request);
        let (metadata, _, message) = request.into_parts();
        let redactor = redactor(message.target.as_ref(), None);
        let work = async {
            size?;
            let (page, mut next_page_token) = self.list(message.try_into()?).await?;
            let mut observations: Vec<wire::ImageObservation> = Vec::with_capacity(page.len());
            let mut bytes = 0;
            for seen in page {
                let token = crate::worker::page_token(&seen.image_key.key);
                let entry: wire::ImageObservation = (&redactor.observation(seen)).into();
                bytes += prost::Message::encoded_len(&entry) + 8;
                if bytes > PAGE_BYTES {
                    // The page starts where its first entry that did not fit would have been.
                    next_page_token = observations
                        .last()
                        .and_then(|last| last.image_key.as_ref())
                        .and_then(|key| key.key.parse().ok())
                        .map_or(token, |key| crate::worker::page_token(&key));
                    break;
                }
                observations.push(entry);
            }
            Ok(wire::ListImagesResponse {
                observations,
                next_page_token,
            })
        };
        answer("ListImages", &metadata, &redactor, work).await
    }
}
