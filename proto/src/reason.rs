//! Reasons of failures, as they stand in error details of the provider contract and in metrics.
//!
//! One reason belongs to exactly one code; `docs/contract.md` says what a caller does about each.

use tonic::Code;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $code:ident;)+) => {
        /// Why a call or the work for an image failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Reason {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Reason {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The text in `ErrorInfo.reason`.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }

            /// The one code that goes with it.
            #[must_use]
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$name => Code::$code,)+
                }
            }
        }
    };
}

reasons! {
    /// A field is missing or malformed.
    InvalidField = "INVALID_FIELD", InvalidArgument;
    /// The settings of the target do not fit the provider's schema.
    ConfigInvalid = "CONFIG_INVALID", InvalidArgument;
    /// Kind of artifact, disk format, digest or compression is not supported.
    UnsupportedArtifact = "UNSUPPORTED_ARTIFACT", InvalidArgument;
    /// A documented limit is exceeded.
    SizeLimitExceeded = "SIZE_LIMIT_EXCEEDED", InvalidArgument;
    /// A page token is unknown or has expired.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument;
    /// The node-images file of the release cannot be understood.
    NodeImagesInvalid = "NODE_IMAGES_INVALID", InvalidArgument;
    /// Nothing is under the key.
    ImageNotFound = "IMAGE_NOT_FOUND", NotFound;
    /// The source has no such artifact.
    SourceNotFound = "SOURCE_NOT_FOUND", NotFound;
    /// The key is taken by another spec.
    ImageSpecConflict = "IMAGE_SPEC_CONFLICT", AlreadyExists;
    /// The source refuses the credentials, or wants some.
    SourceDenied = "SOURCE_DENIED", PermissionDenied;
    /// The backend knows the identity, and refuses.
    BackendForbidden = "BACKEND_FORBIDDEN", PermissionDenied;
    /// This caller may not use the provider.
    CallerNotAuthorized = "CALLER_NOT_AUTHORIZED", PermissionDenied;
    /// The backend rejects the credentials.
    BackendAuthFailed = "BACKEND_AUTH_FAILED", Unauthenticated;
    /// The backend has no quota or space left.
    QuotaExceeded = "QUOTA_EXCEEDED", ResourceExhausted;
    /// The provider cannot even queue.
    ProviderBusy = "PROVIDER_BUSY", ResourceExhausted;
    /// An object without this installation's marker is in the way.
    ForeignObject = "FOREIGN_OBJECT", FailedPrecondition;
    /// Something uses the image.
    ImageInUse = "IMAGE_IN_USE", FailedPrecondition;
    /// A feature of the backend is switched off.
    BackendMisconfigured = "BACKEND_MISCONFIGURED", FailedPrecondition;
    /// Opposite work on the same key is running.
    OperationInProgress = "OPERATION_IN_PROGRESS", Aborted;
    /// The backend cannot be reached, or not now.
    BackendUnavailable = "BACKEND_UNAVAILABLE", Unavailable;
    /// The source cannot be reached, or not now.
    SourceUnavailable = "SOURCE_UNAVAILABLE", Unavailable;
    /// The provider is starting or stopping.
    ProviderNotReady = "PROVIDER_NOT_READY", Unavailable;
    /// An optional call that is not served.
    NotSupported = "NOT_SUPPORTED", Unimplemented;
    /// A broken invariant, or a caught panic.
    InternalBug = "INTERNAL_BUG", Internal;
    /// Only in observations: the bytes are not those that were announced.
    DigestMismatch = "DIGEST_MISMATCH", DataLoss;
    /// Only in observations: the number of bytes is not the one that was announced.
    SizeMismatch = "SIZE_MISMATCH", DataLoss;
    /// Only in observations: no byte moved for the stall time-out.
    TransferStalled = "TRANSFER_STALLED", DeadlineExceeded;
    /// Only in observations: the deadline of the work has passed.
    DeadlinePassed = "DEADLINE_PASSED", DeadlineExceeded;
    /// Only in observations: the backend refuses the bytes.
    ContentRejected = "CONTENT_REJECTED", InvalidArgument;
}

impl Reason {
    /// The reason with this text; absent for one of a later version.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|reason| reason.as_str() == text)
    }

    /// Whether it tells of the work for an image, and never of a call.
    #[must_use]
    pub const fn only_in_observations(self) -> bool {
        matches!(
            self,
            Self::DigestMismatch
                | Self::SizeMismatch
                | Self::TransferStalled
                | Self::DeadlinePassed
                | Self::ContentRejected
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ErrorReason;

    #[test]
    fn reasons_are_those_of_the_proto_file() {
        for (number, reason) in (1..).zip(Reason::ALL) {
            let generated = ErrorReason::try_from(number).expect("a reason with this number");
            assert_eq!(
                generated.as_str_name(),
                format!("ERROR_REASON_{}", reason.as_str())
            );
            assert_eq!(Reason::parse(reason.as_str()), Some(*reason));
        }
        let beyond = i32::try_from(Reason::ALL.len()).expect("a small number") + 1;
        assert!(ErrorReason::try_from(beyond).is_err());
        assert_eq!(Reason::parse("UNSPECIFIED"), None);
    }
}
