//! Reads requests, and says what is wrong with them.

use proto::wire::{self, ErrorReason as Reason};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{Fault, download::LARGEST};

const DOMAIN: &str = "provider.clusterstack.x-k8s.io";

/// Properties that begin like this are the provider's own.
pub const PREFIX: &str = "sham_";

pub fn code(reason: Reason) -> Code {
    use Reason::{
        BackendAuthFailed, BackendUnavailable, DeadlinePassed, DigestMismatch, ForeignObject,
        ImageInUse, ImageNotFound, ImageSpecConflict, InternalBug, OperationInProgress,
        SizeMismatch, SourceDenied, SourceNotFound, SourceUnavailable, TransferStalled,
    };
    match reason {
        ImageNotFound | SourceNotFound => Code::NotFound,
        ImageSpecConflict => Code::AlreadyExists,
        SourceDenied | Reason::CallerNotAuthorized => Code::PermissionDenied,
        BackendAuthFailed => Code::Unauthenticated,
        ForeignObject | ImageInUse => Code::FailedPrecondition,
        OperationInProgress => Code::Aborted,
        BackendUnavailable | SourceUnavailable => Code::Unavailable,
        InternalBug => Code::Internal,
        DigestMismatch | SizeMismatch => Code::DataLoss,
        TransferStalled | DeadlinePassed => Code::DeadlineExceeded,
        _ => Code::InvalidArgument,
    }
}

fn details(reason: Reason, field: Option<&str>) -> ErrorDetails {
    let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
    let mut details = ErrorDetails::with_error_info(name, DOMAIN, [] as [(String, String); 0]);
    if let Some(field) = field {
        details.add_bad_request_violation(field, "see the contract");
    }
    if matches!(code(reason), Code::Unavailable | Code::Aborted) {
        details.set_retry_info(Some(std::time::Duration::from_secs(1)));
    }
    details
}

/// A status of the contract.
pub fn refuse(reason: Reason, field: Option<&str>, text: &str) -> Status {
    Status::with_error_details(code(reason), text, details(reason, field))
}

/// A failure for an observation.
pub fn failure(reason: Reason, text: &str) -> tonic_types::pb::Status {
    use prost::Message as _;
    let status = refuse(reason, None, text);
    tonic_types::pb::Status::decode(status.details()).unwrap_or_default()
}

fn field(path: &str) -> Status {
    refuse(
        Reason::InvalidField,
        Some(path),
        &format!("field \"{path}\" is missing or malformed"),
    )
}

fn need(holds: bool, path: &str) -> Result<(), Status> {
    if holds { Ok(()) } else { Err(field(path)) }
}

pub fn caller(caller: Option<&wire::CallerInfo>) -> Result<String, Status> {
    let caller = caller.ok_or_else(|| field("caller"))?;
    let id = &caller.installation_id;
    let good = (1..=64).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !id.starts_with('-')
        && !id.ends_with('-');
    need(good, "caller.installation_id")?;
    Ok(id.clone())
}

pub fn target(target: Option<&wire::Target>, placed: bool) -> Result<wire::Target, Status> {
    let target = target.ok_or_else(|| field("target"))?;
    let length = target.target_id.len();
    let good = if placed {
        (1..=128).contains(&length)
    } else {
        length == 0
    };
    need(good, "target.target_id")?;
    need(
        target.secrets_version.len() <= 128,
        "target.secrets_version",
    )?;
    need(target.secrets.contains_key("token"), "target.secrets.token")?;
    Ok(target.clone())
}

pub fn key(key: Option<&wire::ImageKey>, with_digest: bool) -> Result<wire::ImageKey, Status> {
    let key = key.ok_or_else(|| field("image_key"))?;
    let text = &key.key;
    let good = (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    need(good, "image_key.key")?;
    need(
        !with_digest || !key.spec_digest.is_empty(),
        "image_key.spec_digest",
    )?;
    Ok(key.clone())
}

fn is_digest(text: &str) -> bool {
    let (hex, length) = match text.split_once(':') {
        Some(("sha256", hex)) => (hex, 64),
        Some(("sha512", hex)) => (hex, 128),
        _ => return false,
    };
    hex.len() == length
        && hex
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

pub fn spec(
    fault: Option<Fault>,
    spec: Option<&wire::ImageSpec>,
) -> Result<wire::ImageSpec, Status> {
    let spec = spec.ok_or_else(|| field("spec"))?;
    need(
        (1..=244).contains(&spec.display_name.chars().count()),
        "spec.display_name",
    )?;
    let artifact = spec
        .artifact
        .as_ref()
        .ok_or_else(|| field("spec.artifact"))?;
    match &artifact.source {
        None => return Err(field("spec.artifact.source")),
        Some(wire::artifact::Source::Oci(oci)) => {
            need(!oci.repository.is_empty(), "spec.artifact.oci.repository")?;
            need(!artifact.digest.is_empty(), "spec.artifact.digest")?;
        }
        Some(wire::artifact::Source::Http(http)) => {
            let good = |url: &String| {
                reqwest::Url::parse(url).is_ok_and(|url| {
                    matches!(url.scheme(), "http" | "https")
                        && url.username().is_empty()
                        && url.password().is_none()
                })
            };
            need(
                (1..=4).contains(&http.urls.len()) && http.urls.iter().all(good),
                "spec.artifact.http.urls",
            )?;
        }
    }
    for (digest, path) in [
        (&artifact.digest, "spec.artifact.digest"),
        (
            &artifact.uncompressed_digest,
            "spec.artifact.uncompressed_digest",
        ),
    ] {
        need(digest.is_empty() || is_digest(digest), path)?;
    }
    need(artifact.size_bytes >= 0, "spec.artifact.size_bytes")?;
    if u64::try_from(artifact.size_bytes).is_ok_and(|size| size > LARGEST) {
        return Err(refuse(
            Reason::SizeLimitExceeded,
            Some("spec.artifact.size_bytes"),
            "the artifact is larger than the limit",
        ));
    }
    let in_registry = matches!(artifact.source, Some(wire::artifact::Source::Oci(_)));
    match wire::Compression::try_from(artifact.compression) {
        Ok(wire::Compression::Unspecified) if in_registry => {}
        Ok(wire::Compression::None | wire::Compression::Gzip) => {}
        Ok(wire::Compression::Unspecified) | Err(_) => {
            return Err(field("spec.artifact.compression"));
        }
        Ok(_) => {
            return Err(refuse(
                Reason::UnsupportedArtifact,
                Some("spec.artifact.compression"),
                "the compression is not supported",
            ));
        }
    }
    let format = wire::DiskFormat::try_from(spec.disk_format);
    if fault == Some(Fault::PanicsOnUnknownEnum) {
        assert!(format.is_ok(), "a number that nobody knows");
    }
    match format {
        Ok(wire::DiskFormat::Raw | wire::DiskFormat::Qcow2 | wire::DiskFormat::Container) => {}
        Ok(wire::DiskFormat::Unspecified) => return Err(field("spec.disk_format")),
        _ => {
            return Err(refuse(
                Reason::UnsupportedArtifact,
                Some("spec.disk_format"),
                "the disk format is not supported",
            ));
        }
    }
    extras(spec)?;
    Ok(spec.clone())
}

/// Size, properties and options.
fn extras(spec: &wire::ImageSpec) -> Result<(), Status> {
    need(spec.min_disk_bytes >= 0, "spec.min_disk_bytes")?;
    let size: usize = spec
        .properties
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    let own = spec.properties.keys().any(|name| name.starts_with(PREFIX));
    need(
        spec.properties.len() <= 64 && size <= 4096 && !own,
        "spec.properties",
    )?;
    if let Some(options) = &spec.options {
        use prost::Message as _;
        if options.encoded_len() > 16 << 10 {
            return Err(refuse(
                Reason::SizeLimitExceeded,
                Some("spec.options"),
                "options are larger than 16 KiB",
            ));
        }
        need(options.fields.is_empty(), "spec.options")?;
    }
    Ok(())
}

pub fn policy(policy: Option<&wire::WorkPolicy>) -> Result<wire::WorkPolicy, Status> {
    let policy = policy.copied().unwrap_or_default();
    need(
        wire::VerificationLevel::try_from(policy.verification_level).is_ok(),
        "policy.verification_level",
    )?;
    need(
        wire::AdoptPolicy::try_from(policy.adopt).is_ok(),
        "policy.adopt",
    )?;
    need(policy.attempt_floor >= 0, "policy.attempt_floor")?;
    Ok(policy)
}

pub fn release(release: Option<&wire::ReleaseIdentity>) -> Result<(), Status> {
    let release = release.ok_or_else(|| field("release"))?;
    for (text, path) in [
        (&release.provider, "release.provider"),
        (&release.stack_name, "release.stack_name"),
        (&release.kubernetes_version, "release.kubernetes_version"),
    ] {
        need(!text.is_empty(), path)?;
    }
    Ok(())
}

/// The only setting.
pub fn endpoint(target: &wire::Target) -> Result<String, Status> {
    let wrong = |text: &str| refuse(Reason::ConfigInvalid, Some("target.config.endpoint"), text);
    let fields = target
        .config
        .as_ref()
        .map(|config| config.fields.clone())
        .unwrap_or_default();
    if let Some(other) = fields.keys().find(|name| *name != "endpoint") {
        return Err(refuse(
            Reason::ConfigInvalid,
            Some(&format!("target.config.{other}")),
            "the setting is not known",
        ));
    }
    match fields.get("endpoint").and_then(|value| value.kind.clone()) {
        Some(prost_types::value::Kind::StringValue(text)) if text.starts_with("memory://") => {
            Ok(text)
        }
        _ => Err(wrong("the endpoint must begin with \"memory://\"")),
    }
}
