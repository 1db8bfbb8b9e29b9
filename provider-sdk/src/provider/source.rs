//! Failures of the downloader in the words of the contract.

use proto::{Invalid, ProviderError};

use crate::download::DownloadError;

/// What a failed download means for an image. The cause goes where it may differ from one time to the next.
#[must_use]
#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
pub fn source_error(error: DownloadError) -> ProviderError {
    let told = match &error {
        DownloadError::BuildClient { .. } => {
            ProviderError::internal_bug("the HTTP client cannot be set up")
        }
        DownloadError::ReadCertificates { .. } => {
            Invalid::field("spec.artifact.http.ca_bundle_pem", "holds no certificates").into()
        }
        DownloadError::Refused {
            status: 404 | 410, ..
        } => ProviderError::source_not_found("the source has no such file"),
        DownloadError::Refused {
            status: 401 | 403 | 407,
            retry_after: None,
            ..
        } => ProviderError::source_denied("the source refuses the credentials, or wants some"),
        DownloadError::Redirect { .. } => {
            ProviderError::source_denied("the source redirects to where we do not go")
        }
        DownloadError::Reject { .. } => {
            ProviderError::content_rejected("the source sends something else than an image")
        }
        DownloadError::Write { .. } => {
            ProviderError::backend_unavailable("the image cannot be written")
        }
        _ => ProviderError::source_unavailable("the source does not answer, or broke off"),
    };
    let told = told.with_metadata("cause", error.to_string());
    match error.recovery() {
        proto::Recovery::Fast {
            not_before: Some(time),
        } => told.with_retry_after(time),
        _ => told,
    }
}
