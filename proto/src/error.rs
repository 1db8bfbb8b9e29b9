//! Failures in the terms of the contract: what a provider says, and what a caller makes of it.
//!
//! A provider says *reason and message* ([`ProviderError`]); the code follows from the reason. A caller gets a status, and
//! first has to know whether it is an answer at all ([`CallError`]): in gRPC a time-out, a panic and a rejected certificate
//! look alike, so only a status with exactly one `ErrorInfo` of our domain is the provider's word.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use prost::Message;
use prost_types::Any;
use tonic::Code;
use tonic_types::pb;

use crate::time::{read_length, write_length};
use crate::{Reason, Recovery};

/// Domain of our reasons in `ErrorInfo`.
pub const DOMAIN: &str = "provider.clusterstack.x-k8s.io";

/// Longest message, in bytes once percent-encoded for a trailer. Beyond 8 KiB of trailers, clients see another code.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// Longest details, in encoded bytes.
pub const MAX_DETAILS_BYTES: usize = 4096;

/// A lower bound for the next attempt is taken from 1 s to 15 min, whatever the peer says.
const RETRY_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_mins(15);

/// Names a retry delay where a reason must come with one and its author gave none.
const USUAL_RETRY_AFTER: Duration = Duration::from_secs(5);

/// What went wrong, in the provider's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderError {
    reason: ReasonText,
    message: String,
    retry_after: Option<Duration>,
    fields: Vec<(String, String)>,
    metadata: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum ReasonText {
    Known(Reason),
    /// Of a later version: its code alone tells what to do.
    Later(String, Code),
}

impl std::error::Error for ProviderError {}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

macro_rules! constructors {
    ($($(#[doc = $doc:literal])+ $name:ident = $reason:ident;)+) => {
        impl ProviderError {
            $($(#[doc = $doc])+
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(Reason::$reason, message)
            })+
        }
    };
}

constructors! {
    /// The settings of the target do not fit; name the path with [`ProviderError::with_field`].
    config_invalid = ConfigInvalid;
    /// Kind of artifact, disk format, digest or compression is not supported.
    unsupported_artifact = UnsupportedArtifact;
    /// The node-images file of the release cannot be understood.
    node_images_invalid = NodeImagesInvalid;
    /// The source has no such artifact.
    source_not_found = SourceNotFound;
    /// The source refuses the credentials, or wants some.
    source_denied = SourceDenied;
    /// The source cannot be reached, or not now.
    source_unavailable = SourceUnavailable;
    /// The backend cannot be reached, or not now.
    backend_unavailable = BackendUnavailable;
    /// The backend rejects the credentials.
    backend_auth_failed = BackendAuthFailed;
    /// The backend knows the identity, and refuses.
    backend_forbidden = BackendForbidden;
    /// A feature of the backend is switched off.
    backend_misconfigured = BackendMisconfigured;
    /// The backend has no quota or space left.
    quota_exceeded = QuotaExceeded;
    /// An object without this installation's marker is in the way.
    foreign_object = ForeignObject;
    /// Something uses the image.
    image_in_use = ImageInUse;
    /// The backend refuses the bytes of the image.
    content_rejected = ContentRejected;
    /// The bytes of the image are not those that were announced.
    digest_mismatch = DigestMismatch;
    /// The number of bytes is not the one that was announced.
    size_mismatch = SizeMismatch;
    /// An optional ability that is not there.
    not_supported = NotSupported;
    /// A broken invariant.
    internal_bug = InternalBug;
}

impl ProviderError {
    /// A failure with this reason. The message is for people: English, the same words for the same problem, no secrets,
    /// no query strings; times, ids and counters belong into the metadata.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason: ReasonText::Known(reason),
            message: message.into(),
            retry_after: None,
            fields: Vec::new(),
            metadata: BTreeMap::new(),
        }
    }

    /// The same, not to be tried again before this time is over; taken as 1 s to 15 min.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end()));
        self
    }

    /// The same, naming a field at fault by its path in the spelling of the proto files.
    #[must_use]
    pub fn with_field(mut self, path: impl Into<String>, why: impl Into<String>) -> Self {
        self.fields.push((path.into(), why.into()));
        self
    }

    /// The same with a fact that may differ from one time to the next, such as an id.
    #[must_use]
    pub fn with_metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(name.into(), value.into());
        self
    }

    /// The same with all its text put through `edit`, which takes out what must not leave the process.
    #[must_use]
    pub fn edited(mut self, edit: impl Fn(&str) -> String) -> Self {
        self.message = edit(&self.message);
        for (_, why) in &mut self.fields {
            *why = edit(why);
        }
        for value in self.metadata.values_mut() {
            *value = edit(value);
        }
        self
    }

    /// The reason; absent if it is one of a later version.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match &self.reason {
            ReasonText::Known(reason) => Some(*reason),
            ReasonText::Later(..) => None,
        }
    }

    /// The reason as it travels.
    #[must_use]
    pub fn reason_text(&self) -> &str {
        match &self.reason {
            ReasonText::Known(reason) => reason.as_str(),
            ReasonText::Later(text, _) => text,
        }
    }

    /// The code that goes with the reason.
    #[must_use]
    pub const fn code(&self) -> Code {
        match &self.reason {
            ReasonText::Known(reason) => reason.code(),
            ReasonText::Later(_, code) => *code,
        }
    }

    /// What went wrong, for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Time before which another attempt is of no use.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Fields at fault: path, and what is wrong with it.
    #[must_use]
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// Facts that may differ from one time to the next.
    #[must_use]
    pub const fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// What it tells about the next attempt.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        let fast = Recovery::Fast {
            not_before: self.retry_after,
        };
        match self.code() {
            Code::InvalidArgument | Code::AlreadyExists | Code::Unimplemented | Code::DataLoss => {
                Recovery::Terminal
            }
            Code::NotFound
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unauthenticated => Recovery::Slow,
            Code::ResourceExhausted => match self.reason {
                ReasonText::Known(Reason::ProviderBusy) => fast,
                ReasonText::Later(..) if self.retry_after.is_some() => fast,
                _ => Recovery::Slow,
            },
            Code::Aborted | Code::Internal | Code::Unavailable => fast,
            _ => Recovery::Unknown,
        }
    }

    /// As it travels inside of an observation.
    #[must_use]
    pub fn to_rpc_status(&self) -> pb::Status {
        pb::Status {
            code: self.code() as i32,
            message: shortened(&self.message, MAX_MESSAGE_BYTES),
            details: self.details(),
        }
    }

    /// As it travels as the status of a call.
    #[must_use]
    pub fn to_status(&self) -> tonic::Status {
        let status = self.to_rpc_status();
        let message = status.message.clone();
        tonic::Status::with_details(self.code(), message, status.encode_to_vec().into())
    }

    /// Details that fit: an `ErrorInfo` always, of the rest as much as there is room for.
    fn details(&self) -> Vec<Any> {
        let info = |metadata| {
            any(
                "ErrorInfo",
                &ErrorInfo {
                    reason: self.reason_text().to_owned(),
                    domain: DOMAIN.to_owned(),
                    metadata,
                },
            )
        };
        let mut details = vec![info(self.metadata.clone())];
        let wants_retry = matches!(
            self.reason(),
            Some(
                Reason::BackendUnavailable
                    | Reason::SourceUnavailable
                    | Reason::ProviderNotReady
                    | Reason::ProviderBusy
                    | Reason::OperationInProgress
            )
        );
        let retry_after = self
            .retry_after
            .or_else(|| wants_retry.then_some(USUAL_RETRY_AFTER));
        if let Some(delay) = retry_after {
            let retry_delay = Some(write_length(delay));
            details.push(any("RetryInfo", &pb::RetryInfo { retry_delay }));
        }
        let words = shortened(&self.message, MAX_MESSAGE_BYTES);
        match self.reason() {
            Some(Reason::QuotaExceeded) => details.push(any(
                "QuotaFailure",
                &pb::QuotaFailure {
                    violations: vec![pb::quota_failure::Violation {
                        subject: "backend".to_owned(),
                        description: words,
                        ..Default::default()
                    }],
                },
            )),
            Some(Reason::BackendMisconfigured) => details.push(any(
                "PreconditionFailure",
                &pb::PreconditionFailure {
                    violations: vec![pb::precondition_failure::Violation {
                        r#type: self.reason_text().to_owned(),
                        subject: "backend".to_owned(),
                        description: words,
                    }],
                },
            )),
            _ => {}
        }
        let mut left = self.fields.as_slice();
        while !left.is_empty() {
            let violations = left.iter().map(|(field, why)| violation(field, why));
            let bad_request = pb::BadRequest {
                field_violations: violations.collect(),
            };
            details.push(any("BadRequest", &bad_request));
            if encoded_len(&details) <= MAX_DETAILS_BYTES {
                break;
            }
            details.pop();
            left = &left[..left.len() / 2];
        }
        if encoded_len(&details) > MAX_DETAILS_BYTES {
            details[0] = info(BTreeMap::new());
        }
        details
    }

    /// What an observation says; absent if it is no word of a provider.
    #[must_use]
    pub fn of_rpc_status(status: &pb::Status) -> Option<Self> {
        let code = Code::from_i32(status.code);
        let mut info = None;
        let mut error = Self::new(Reason::InternalBug, status.message.as_str());
        for detail in &status.details {
            match detail.type_url.rsplit('/').next() {
                Some("google.rpc.ErrorInfo") => {
                    let found = ErrorInfo::decode(detail.value.as_slice()).ok()?;
                    if found.domain == DOMAIN && info.replace(found).is_some() {
                        return None;
                    }
                }
                Some("google.rpc.RetryInfo") => {
                    let retry = pb::RetryInfo::decode(detail.value.as_slice()).ok()?;
                    let delay = read_length(retry.retry_delay, "retry_delay");
                    if let Ok(Some(delay)) = delay {
                        error = error.with_retry_after(delay);
                    }
                }
                Some("google.rpc.BadRequest") => {
                    let bad = pb::BadRequest::decode(detail.value.as_slice()).ok();
                    for violation in bad.into_iter().flat_map(|bad| bad.field_violations) {
                        error = error.with_field(violation.field, violation.description);
                    }
                }
                _ => {}
            }
        }
        let info = info?;
        error.metadata = info.metadata;
        // One that comes with another code than its own is judged by the code, as one that we do not know.
        error.reason = match Reason::parse(&info.reason) {
            Some(reason) if reason.code() == code => ReasonText::Known(reason),
            _ => ReasonText::Later(info.reason, code),
        };
        Some(error)
    }
}

/// Why a call to a provider failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The provider says no.
    #[error("{}: {}", .0.reason_text(), .0)]
    Refused(ProviderError),
    /// The provider does not know the call, or the whole contract.
    #[error("the provider does not serve this call")]
    NotServed,
    /// No answer of the provider: nobody listens, time is up, the connection was cut or refused.
    #[error("no answer from the provider: {message}")]
    Unanswered {
        /// Code of the status, which means little.
        code: Code,
        /// Text of the status.
        message: String,
    },
}

impl CallError {
    /// What a status means (contract, section 4, master rule).
    #[must_use]
    pub fn of(status: &tonic::Status) -> Self {
        let refused = pb::Status::decode(status.details())
            .ok()
            .filter(|details| details.code == status.code() as i32)
            .and_then(|details| ProviderError::of_rpc_status(&details));
        match refused {
            Some(error) => Self::Refused(error),
            None if status.code() == Code::Unimplemented => Self::NotServed,
            None => Self::Unanswered {
                code: status.code(),
                message: shortened(status.message(), MAX_MESSAGE_BYTES),
            },
        }
    }

    /// The provider's reason, if it gave one that this version knows.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            Self::Refused(error) => error.reason(),
            Self::NotServed | Self::Unanswered { .. } => None,
        }
    }

    /// What it tells about the next attempt.
    #[must_use]
    pub const fn recovery(&self) -> Recovery {
        match self {
            Self::Refused(error) => error.recovery(),
            Self::NotServed => Recovery::Terminal,
            Self::Unanswered { .. } => Recovery::Unknown,
        }
    }
}

/// As in `google/rpc/error_details.proto`, with a map that has an order: equal errors have equal bytes.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

fn violation(field: &str, why: &str) -> pb::bad_request::FieldViolation {
    pb::bad_request::FieldViolation {
        field: field.to_owned(),
        description: why.to_owned(),
        ..Default::default()
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any {
        type_url: format!("type.googleapis.com/google.rpc.{name}"),
        value: message.encode_to_vec(),
    }
}

fn encoded_len(details: &[Any]) -> usize {
    details.iter().map(|detail| detail.encoded_len() + 8).sum()
}

/// The beginning of a text that is at most `limit` bytes long in a trailer, where all but plain characters take three.
fn shortened(text: &str, limit: usize) -> String {
    let width = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.~/:,;=+()'@!&*".contains(c) {
            1
        } else {
            3 * c.len_utf8()
        }
    };
    let mut room = limit;
    for (position, c) in text.char_indices() {
        if width(c) > room {
            // Three bytes of three, for the sign that something is missing.
            let mut kept = &text[..position];
            let mut spare = room;
            while let Some(last) = kept.chars().next_back().filter(|_| spare < 9) {
                spare += width(last);
                kept = &kept[..kept.len() - last.len_utf8()];
            }
            return format!("{kept}…");
        }
        room -= width(c);
    }
    text.to_owned()
}

#[cfg(test)]
mod tests;
