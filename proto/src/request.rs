//! Requests whose fields have been checked: what a call is about, without anything that could still be wrong with its form.

use crate::image::ImageSpec;
use crate::key::{ImageKey, InstallationId, TargetId};
use crate::observation::Observation;
use crate::policy::WorkPolicy;
use crate::target::Target;
use crate::{Invalid, wire};

/// Largest node-images file, in bytes.
pub const MAX_NODE_IMAGES_BYTES: usize = 512 << 10;
/// Most images of one release at one target.
pub const MAX_IMAGES: usize = 64;
/// Most images on a page.
pub const MAX_PAGE: usize = 100;
/// Longest page token, in characters.
pub const MAX_PAGE_TOKEN: usize = 512;
/// Longest identity of a place, in characters.
pub const MAX_TARGET_IDENTITY: usize = 512;

/// Facts about the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Of this attempt, for tracing only.
    pub request_id: String,
    /// Whose keys, lists and deletions these are.
    pub installation: InstallationId,
    /// Semantic version of the core.
    pub core_version: String,
}

impl Caller {
    /// Reads the caller of any request.
    ///
    /// # Errors
    ///
    /// It is missing, or its installation is none.
    pub fn read(message: Option<wire::CallerInfo>) -> Result<Self, Invalid> {
        let message = message.ok_or_else(|| Invalid::required("caller"))?;
        Ok(Self {
            installation: message
                .installation_id
                .parse()
                .map_err(|invalid: Invalid| invalid.within("caller"))?,
            request_id: message.request_id,
            core_version: message.core_version,
        })
    }
}

impl From<&Caller> for wire::CallerInfo {
    fn from(caller: &Caller) -> Self {
        Self {
            request_id: caller.request_id.clone(),
            installation_id: caller.installation.to_string(),
            core_version: caller.core_version.clone(),
        }
    }
}

/// Whether the target works, and which place it is.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidateTarget {
    /// The caller.
    pub caller: Caller,
    /// The target, without its place.
    pub target: Target,
    /// A spec that should be accepted there.
    pub spec: Option<ImageSpec>,
}

/// Which release is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseIdentity {
    /// `ClusterStack.spec.provider`.
    pub provider: String,
    /// `ClusterStack.spec.name`.
    pub stack_name: String,
    /// Kubernetes version of the release.
    pub kubernetes_version: String,
    /// Version of the node images in the release's metadata; empty if it has none.
    pub node_image_version: String,
}

/// Which images a release needs at a target.
#[derive(Debug, Clone, PartialEq)]
pub struct ResolveImages {
    /// The caller.
    pub caller: Caller,
    /// The target, without its place.
    pub target: Target,
    /// The release.
    pub release: ReleaseIdentity,
    /// The release's node-images file as it is; empty if it has none.
    pub node_images: Vec<u8>,
}

/// An image that is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct EnsureImage {
    /// The caller.
    pub caller: Caller,
    /// Where.
    pub target: Target,
    /// Which; its digest is there.
    pub image_key: ImageKey,
    /// What.
    pub spec: ImageSpec,
    /// Limits.
    pub policy: WorkPolicy,
    /// Whether it should carry the display name.
    pub publish: bool,
}

/// An image that is asked about.
#[derive(Debug, Clone, PartialEq)]
pub struct GetImage {
    /// The caller.
    pub caller: Caller,
    /// Where.
    pub target: Target,
    /// Which.
    pub image_key: ImageKey,
}

/// An image that is to go.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteImage {
    /// The caller.
    pub caller: Caller,
    /// Where.
    pub target: Target,
    /// Which.
    pub image_key: ImageKey,
}

/// All images of an installation at a place.
#[derive(Debug, Clone, PartialEq)]
pub struct ListImages {
    /// The caller.
    pub caller: Caller,
    /// Where.
    pub target: Target,
    /// Most entries of the page.
    pub page_size: usize,
    /// Where to go on; empty: at the beginning.
    pub page_token: String,
}

fn unplaced(message: Option<wire::Target>) -> Result<Target, Invalid> {
    let target = target(message)?;
    match target.id {
        None => Ok(target),
        Some(_) => Err(Invalid::field(
            "target.target_id",
            "must be empty here: the answer tells which place it is",
        )),
    }
}

fn placed(message: Option<wire::Target>) -> Result<Target, Invalid> {
    let target = target(message)?;
    target.place().map_err(|invalid| invalid.within("target"))?;
    Ok(target)
}

fn target(message: Option<wire::Target>) -> Result<Target, Invalid> {
    message
        .ok_or_else(|| Invalid::required("target"))?
        .try_into()
        .map_err(|invalid: Invalid| invalid.within("target"))
}

fn image_key(message: Option<wire::ImageKey>) -> Result<ImageKey, Invalid> {
    message
        .ok_or_else(|| Invalid::required("image_key"))?
        .try_into()
        .map_err(|invalid: Invalid| invalid.within("image_key"))
}

fn spec(message: wire::ImageSpec) -> Result<ImageSpec, Invalid> {
    message
        .try_into()
        .map_err(|invalid: Invalid| invalid.within("spec"))
}

impl TryFrom<wire::ValidateTargetRequest> for ValidateTarget {
    type Error = Invalid;

    fn try_from(message: wire::ValidateTargetRequest) -> Result<Self, Invalid> {
        Ok(Self {
            caller: Caller::read(message.caller)?,
            target: unplaced(message.target)?,
            spec: message.spec.map(spec).transpose()?,
        })
    }
}

impl TryFrom<wire::ResolveImagesRequest> for ResolveImages {
    type Error = Invalid;

    fn try_from(message: wire::ResolveImagesRequest) -> Result<Self, Invalid> {
        let caller = Caller::read(message.caller)?;
        let target = unplaced(message.target)?;
        let release = message
            .release
            .ok_or_else(|| Invalid::required("release"))?;
        for (field, text) in [
            ("release.provider", &release.provider),
            ("release.stack_name", &release.stack_name),
            ("release.kubernetes_version", &release.kubernetes_version),
        ] {
            if text.is_empty() {
                return Err(Invalid::required(field));
            }
        }
        if message.node_images.len() > MAX_NODE_IMAGES_BYTES {
            return Err(Invalid::too_large(
                "node_images",
                format!("{} KiB", MAX_NODE_IMAGES_BYTES >> 10),
            ));
        }
        Ok(Self {
            caller,
            target,
            release: ReleaseIdentity {
                provider: release.provider,
                stack_name: release.stack_name,
                kubernetes_version: release.kubernetes_version,
                node_image_version: release.node_image_version,
            },
            node_images: message.node_images,
        })
    }
}

impl TryFrom<wire::EnsureImageRequest> for EnsureImage {
    type Error = Invalid;

    fn try_from(message: wire::EnsureImageRequest) -> Result<Self, Invalid> {
        let caller = Caller::read(message.caller)?;
        let target = placed(message.target)?;
        let image_key = image_key(message.image_key)?;
        if image_key.spec_digest.is_none() {
            return Err(Invalid::required("image_key.spec_digest"));
        }
        let spec = spec(message.spec.ok_or_else(|| Invalid::required("spec"))?)?;
        let policy: WorkPolicy = message
            .policy
            .unwrap_or_default()
            .try_into()
            .map_err(|invalid: Invalid| invalid.within("policy"))?;
        Ok(Self {
            caller,
            target,
            image_key,
            spec,
            policy,
            publish: message.publish,
        })
    }
}

impl TryFrom<wire::GetImageRequest> for GetImage {
    type Error = Invalid;

    fn try_from(message: wire::GetImageRequest) -> Result<Self, Invalid> {
        Ok(Self {
            caller: Caller::read(message.caller)?,
            target: placed(message.target)?,
            image_key: image_key(message.image_key)?,
        })
    }
}

impl TryFrom<wire::DeleteImageRequest> for DeleteImage {
    type Error = Invalid;

    fn try_from(message: wire::DeleteImageRequest) -> Result<Self, Invalid> {
        Ok(Self {
            caller: Caller::read(message.caller)?,
            target: placed(message.target)?,
            image_key: image_key(message.image_key)?,
        })
    }
}

impl TryFrom<wire::ListImagesRequest> for ListImages {
    type Error = Invalid;

    fn try_from(message: wire::ListImagesRequest) -> Result<Self, Invalid> {
        let caller = Caller::read(message.caller)?;
        let target = placed(message.target)?;
        let page_size = usize::try_from(message.page_size)
            .map_err(|_negative| Invalid::field("page_size", "must not be negative"))?;
        if message.page_token.chars().count() > MAX_PAGE_TOKEN {
            return Err(Invalid::too_large(
                "page_token",
                format!("{MAX_PAGE_TOKEN} characters"),
            ));
        }
        Ok(Self {
            caller,
            target,
            page_size: if page_size == 0 {
                MAX_PAGE
            } else {
                page_size.min(MAX_PAGE)
            },
            page_token: message.page_token,
        })
    }
}

/// The target that a caller named, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidatedTarget {
    /// Which place it is, in the provider's words.
    pub identity: String,
    /// Things that work but deserve attention.
    pub warnings: Vec<String>,
}

impl ValidatedTarget {
    /// A place, about which there is nothing to warn.
    #[must_use]
    pub fn new(identity: impl Into<String>) -> Self {
        Self {
            identity: identity.into(),
            warnings: Vec::new(),
        }
    }

    /// The place, as the core calls it.
    #[must_use]
    pub fn place(&self, provider_name: &str) -> TargetId {
        TargetId::derive(provider_name, &self.identity)
    }
}

impl TryFrom<wire::ValidateTargetResponse> for ValidatedTarget {
    type Error = Invalid;

    fn try_from(message: wire::ValidateTargetResponse) -> Result<Self, Invalid> {
        if message.target_identity.is_empty() {
            return Err(Invalid::required("target_identity"));
        }
        if message.target_identity.chars().count() > MAX_TARGET_IDENTITY {
            return Err(Invalid::too_large(
                "target_identity",
                format!("{MAX_TARGET_IDENTITY} characters"),
            ));
        }
        Ok(Self {
            identity: message.target_identity,
            warnings: message.warnings,
        })
    }
}

/// The images that a release needs at a target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ResolvedImages {
    /// What they are to be; each display name once.
    pub images: Vec<ImageSpec>,
    /// Things that work but deserve attention.
    pub warnings: Vec<String>,
}

impl TryFrom<wire::ResolveImagesResponse> for ResolvedImages {
    type Error = Invalid;

    fn try_from(message: wire::ResolveImagesResponse) -> Result<Self, Invalid> {
        if message.images.len() > MAX_IMAGES {
            return Err(Invalid::too_large(
                "images",
                format!("{MAX_IMAGES} entries"),
            ));
        }
        let images: Vec<ImageSpec> = message
            .images
            .into_iter()
            .map(|image| {
                image
                    .try_into()
                    .map_err(|invalid: Invalid| invalid.within("images"))
            })
            .collect::<Result<_, _>>()?;
        let mut names = std::collections::BTreeSet::new();
        if !images
            .iter()
            .all(|image| names.insert(image.display_name.as_str()))
        {
            return Err(Invalid::field("images", "must hold each display_name once"));
        }
        Ok(Self {
            images,
            warnings: message.warnings,
        })
    }
}

/// One page of images.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// The images.
    pub observations: Vec<Observation>,
    /// Where to go on; empty on the last page.
    pub next_page_token: String,
}

impl TryFrom<wire::ListImagesResponse> for Page {
    type Error = Invalid;

    fn try_from(message: wire::ListImagesResponse) -> Result<Self, Invalid> {
        if message.observations.len() > MAX_PAGE {
            return Err(Invalid::too_large(
                "observations",
                format!("{MAX_PAGE} entries"),
            ));
        }
        Ok(Self {
            observations: message
                .observations
                .into_iter()
                .map(|seen| {
                    seen.try_into()
                        .map_err(|invalid: Invalid| invalid.within("observations"))
                })
                .collect::<Result<_, _>>()?,
            next_page_token: message.next_page_token,
        })
    }
}
