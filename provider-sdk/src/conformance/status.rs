//! Reads what the contract puts into statuses and observations, and words it for people.

use std::fmt::Write as _;

use prost::Message as _;
use proto::wire::{self, ErrorReason as Reason, image_observation::State};
use tonic::{Code, Status};
use tonic_types::pb;

/// `ErrorInfo.domain` of the contract.
pub(crate) const DOMAIN: &str = "provider.clusterstack.x-k8s.io";

/// The code that belongs to a reason, and whether it stands in observations only (contract, section 4).
pub(crate) const fn code_of(reason: Reason) -> (Code, bool) {
    match reason {
        Reason::InvalidField
        | Reason::ConfigInvalid
        | Reason::UnsupportedArtifact
        | Reason::SizeLimitExceeded
        | Reason::PageTokenInvalid
        | Reason::NodeImagesInvalid => (Code::InvalidArgument, false),
        Reason::ContentRejected => (Code::InvalidArgument, true),
        Reason::ImageNotFound | Reason::SourceNotFound => (Code::NotFound, false),
        Reason::ImageSpecConflict => (Code::AlreadyExists, false),
        Reason::SourceDenied | Reason::BackendForbidden | Reason::CallerNotAuthorized => {
            (Code::PermissionDenied, false)
        }
        Reason::BackendAuthFailed => (Code::Unauthenticated, false),
        Reason::QuotaExceeded | Reason::ProviderBusy => (Code::ResourceExhausted, false),
        Reason::ForeignObject | Reason::ImageInUse | Reason::BackendMisconfigured => {
            (Code::FailedPrecondition, false)
        }
        Reason::OperationInProgress => (Code::Aborted, false),
        Reason::BackendUnavailable | Reason::SourceUnavailable | Reason::ProviderNotReady => {
            (Code::Unavailable, false)
        }
        Reason::NotSupported => (Code::Unimplemented, false),
        Reason::InternalBug => (Code::Internal, false),
        Reason::DigestMismatch | Reason::SizeMismatch => (Code::DataLoss, true),
        Reason::TransferStalled | Reason::DeadlinePassed => (Code::DeadlineExceeded, true),
        Reason::Unspecified => (Code::Unknown, true),
    }
}

/// The name of a reason as it stands in `ErrorInfo.reason`.
pub(crate) fn reason_name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("ERROR_REASON_").unwrap_or(name)
}

/// The reason of that name.
pub(crate) fn reason_named(name: &str) -> Option<Reason> {
    Reason::from_str_name(&format!("ERROR_REASON_{name}"))
        .filter(|reason| *reason != Reason::Unspecified)
}

/// Code, text and details of a failure, wherever it came from.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) message: String,
    details: Vec<prost_types::Any>,
}

impl From<&Status> for Failure {
    fn from(status: &Status) -> Self {
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            details: pb::Status::decode(status.details())
                .map(|status| status.details)
                .unwrap_or_default(),
        }
    }
}

impl From<&pb::Status> for Failure {
    fn from(status: &pb::Status) -> Self {
        Self {
            code: Code::from_i32(status.code),
            message: status.message.clone(),
            details: status.details.clone(),
        }
    }
}

impl Failure {
    fn details<M: prost::Message + Default>(&self, name: &str) -> Vec<M> {
        self.details
            .iter()
            .filter(|any| any.type_url.rsplit('/').next() == Some(name))
            .filter_map(|any| M::decode(any.value.as_slice()).ok())
            .collect()
    }

    /// All `ErrorInfo`s of the contract's domain.
    pub(crate) fn infos(&self) -> Vec<pb::ErrorInfo> {
        self.details::<pb::ErrorInfo>("google.rpc.ErrorInfo")
            .into_iter()
            .filter(|info| info.domain == DOMAIN)
            .collect()
    }

    /// The reason, if there is exactly one that is known.
    pub(crate) fn reason(&self) -> Option<Reason> {
        match self.infos().as_slice() {
            [info] => reason_named(&info.reason),
            _ => None,
        }
    }

    /// Paths of fields that are named as wrong.
    pub(crate) fn fields(&self) -> Vec<String> {
        self.details::<pb::BadRequest>("google.rpc.BadRequest")
            .into_iter()
            .flat_map(|request| request.field_violations)
            .map(|violation| violation.field)
            .collect()
    }

    /// The delay that was asked for.
    pub(crate) fn retry_delay(&self) -> Option<prost_types::Duration> {
        self.details::<pb::RetryInfo>("google.rpc.RetryInfo")
            .into_iter()
            .find_map(|info| info.retry_delay)
    }

    /// Whether code and reason are these.
    pub(crate) fn is(&self, reason: Reason) -> bool {
        self.code == code_of(reason).0 && self.reason() == Some(reason)
    }

    /// Whether a caller would simply call again soon.
    pub(crate) fn passes_by_itself(&self) -> bool {
        matches!(
            self.reason(),
            Some(
                Reason::OperationInProgress
                    | Reason::ProviderBusy
                    | Reason::ProviderNotReady
                    | Reason::BackendUnavailable
            )
        )
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.code)?;
        match self.infos().as_slice() {
            [] => f.write_str(" without ErrorInfo")?,
            infos => {
                for info in infos {
                    write!(f, " {}", info.reason)?;
                }
            }
        }
        let fields = self.fields();
        if !fields.is_empty() {
            write!(f, " at {}", fields.join(", "))?;
        }
        write!(f, ": \"{}\"", self.message)
    }
}

/// The state, with unknown numbers as unspecified.
pub(crate) fn state(observation: &wire::ImageObservation) -> State {
    State::try_from(observation.state).unwrap_or(State::Unspecified)
}

/// The state's name as people know it.
pub(crate) fn state_name(state: State) -> &'static str {
    let name = state.as_str_name();
    name.strip_prefix("STATE_").unwrap_or(name)
}

/// An observation in one line.
pub(crate) fn brief(observation: &wire::ImageObservation) -> String {
    let mut text = match State::try_from(observation.state) {
        Ok(state) => state_name(state).to_owned(),
        Err(_) => format!("state {}", observation.state),
    };
    if observation.attempt != 0 {
        let _ = write!(text, ", attempt {}", observation.attempt);
    }
    if !observation.provider_image_id.is_empty() {
        let _ = write!(text, ", id \"{}\"", observation.provider_image_id);
    }
    if observation.published {
        text.push_str(", published");
    }
    if let Some(verification) = &observation.verification {
        let _ = write!(
            text,
            ", verified at level {} (digest \"{}\", {} bytes)",
            verification.level, verification.observed_digest, verification.observed_size_bytes
        );
    }
    if let Some(progress) = &observation.progress {
        let _ = write!(
            text,
            ", {} of {} bytes",
            progress.bytes_done, progress.bytes_total
        );
    }
    if let Some(error) = &observation.error {
        let _ = write!(text, ", error {}", Failure::from(error));
    }
    text
}

/// The failure in an observation.
pub(crate) fn failure(observation: &wire::ImageObservation) -> Option<Failure> {
    observation.error.as_ref().map(Failure::from)
}
