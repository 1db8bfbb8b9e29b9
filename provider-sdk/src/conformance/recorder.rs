//! Keeps every call of a run with its answer, for the checks that look at the whole run.

use std::{
    sync::{Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use proto::wire;
use tonic::{Status, metadata::KeyAndValueRef};

/// What a call was about.
#[derive(Clone, Debug, Default)]
pub(crate) struct Subject {
    pub(crate) installation: String,
    pub(crate) target: String,
    pub(crate) key: String,
    /// Only of calls that start work.
    pub(crate) wish: Option<Wish>,
}

/// What an EnsureImage asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) attempt_floor: i32,
    pub(crate) verifies_again: bool,
}

/// How a call ended.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Response {
        bytes: Bytes,
        metadata: Vec<u8>,
    },
    Refused(Status),
    /// Not within the deadline, or the caller did not wait.
    NoAnswer,
}

/// One call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) check: &'static str,
    pub(crate) method: &'static str,
    pub(crate) subject: Subject,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    /// The suite disturbed transport, process or backend, so the status may come from elsewhere.
    pub(crate) disturbed: bool,
    pub(crate) outcome: Outcome,
}

impl Call {
    /// The observations in the answer.
    pub(crate) fn observations(&self) -> Vec<wire::ImageObservation> {
        use prost::Message as _;
        let Outcome::Response { bytes, .. } = &self.outcome else {
            return Vec::new();
        };
        let bytes = bytes.clone();
        match self.method {
            "EnsureImage" => wire::EnsureImageResponse::decode(bytes)
                .ok()
                .and_then(|response| response.observation)
                .into_iter()
                .collect(),
            "GetImage" => wire::GetImageResponse::decode(bytes)
                .ok()
                .and_then(|response| response.observation)
                .into_iter()
                .collect(),
            "DeleteImage" => wire::DeleteImageResponse::decode(bytes)
                .ok()
                .and_then(|response| response.observation)
                .into_iter()
                .collect(),
            "ListImages" => wire::ListImagesResponse::decode(bytes)
                .map(|response| response.observations)
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// All bytes that came back.
    pub(crate) fn answer_bytes(&self) -> Vec<u8> {
        match &self.outcome {
            Outcome::Response { bytes, metadata } => {
                let mut all = bytes.to_vec();
                all.push(b'\n');
                all.extend_from_slice(metadata);
                all
            }
            Outcome::Refused(status) => {
                let mut all = status.message().as_bytes().to_vec();
                all.push(b'\n');
                all.extend_from_slice(status.details());
                all.push(b'\n');
                all.extend(metadata_bytes(status.metadata()));
                all
            }
            Outcome::NoAnswer => Vec::new(),
        }
    }
}

/// Metadata as bytes, values decoded.
pub(crate) fn metadata_bytes(metadata: &tonic::metadata::MetadataMap) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in metadata.iter() {
        match entry {
            KeyAndValueRef::Ascii(name, value) => {
                all.extend_from_slice(name.as_str().as_bytes());
                all.extend_from_slice(b": ");
                all.extend_from_slice(value.as_encoded_bytes());
            }
            KeyAndValueRef::Binary(name, value) => {
                all.extend_from_slice(name.as_str().as_bytes());
                all.extend_from_slice(b": ");
                match value.to_bytes() {
                    Ok(bytes) => all.extend_from_slice(&bytes),
                    Err(_) => all.extend_from_slice(value.as_encoded_bytes()),
                }
            }
        }
        all.push(b'\n');
    }
    all
}

/// All calls of a run.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    calls: Mutex<Vec<Call>>,
}

impl Recorder {
    pub(crate) fn add(&self, call: Call) {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(call);
    }

    /// A copy of all calls, in the order in which they ended.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
