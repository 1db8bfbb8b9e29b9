//! What of a well-formed request this provider accepts, going by what it announces of itself.

use proto::{
    AdoptPolicy, Capability, ImageSpec, Invalid, ProviderInfo, Target, VerificationLevel,
    WorkPolicy,
};

/// Whether the kind of artifact, the format and the size are among those that the provider takes.
pub(super) fn spec(info: &ProviderInfo, spec: &ImageSpec) -> Result<(), Invalid> {
    let kind = spec.artifact.source.kind();
    if !info.artifact_kinds.contains(&kind) {
        return Err(Invalid::unsupported(
            "spec.artifact.source",
            format!(
                "is of kind {}, which this provider does not take",
                kind.name()
            ),
        ));
    }
    if !info.disk_formats.contains(&spec.disk_format) {
        return Err(Invalid::unsupported(
            "spec.disk_format",
            format!(
                "is {}, which this provider does not take",
                spec.disk_format.name()
            ),
        ));
    }
    match (info.limits.max_artifact_bytes, spec.artifact.size_bytes) {
        (Some(most), Some(size)) if size > most => Err(Invalid::too_large(
            "spec.artifact.size_bytes",
            format!("the {most} bytes that this provider takes"),
        )),
        _ => Ok(()),
    }
}

/// Whether the provider can do what is asked for.
pub(super) fn policy(info: &ProviderInfo, policy: &WorkPolicy) -> Result<(), Invalid> {
    if policy.verification_level == VerificationLevel::Content
        && !info.can(Capability::VerifyContent)
    {
        return Err(Invalid::field(
            "policy.verification_level",
            "is CONTENT, which this provider cannot do",
        ));
    }
    if policy.adopt == AdoptPolicy::Matching && !info.can(Capability::Adopt) {
        return Err(Invalid::field(
            "policy.adopt",
            "is MATCHING, which this provider cannot do",
        ));
    }
    Ok(())
}

/// Whether all secrets are there that every target needs.
pub(super) fn secrets(info: &ProviderInfo, target: &Target) -> Result<(), Invalid> {
    for key in info.secret_keys.iter().filter(|key| key.required) {
        if target.secrets.get(&key.name).is_none_or(<[u8]>::is_empty) {
            return Err(Invalid::required(format!("target.secrets.{}", key.name)));
        }
    }
    Ok(())
}
