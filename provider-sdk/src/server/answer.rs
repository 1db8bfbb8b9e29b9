//! From what a method says to what travels: panics, time, size, secrets and codes.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt as _;
use prost::Message;
use proto::{ProviderError, Reason};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use crate::provider::Result;
use crate::redact::Redactor;

/// Time of a call whose caller set none (contract, section 8).
pub(super) const USUAL_DEADLINE: Duration = Duration::from_mins(1);

/// Largest request and answer (contract, section 8).
pub(super) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Refuses what is larger than the contract allows; what is far larger never gets here.
pub(super) fn check_size<M: Message>(request: &Request<M>) -> Result<()> {
    if request.get_ref().encoded_len() > MAX_MESSAGE_BYTES {
        return Err(ProviderError::new(
            Reason::SizeLimitExceeded,
            "the request exceeds 1 MiB",
        ));
    }
    Ok(())
}

/// Runs a call to its end and puts the answer into the form of the contract.
pub(super) async fn answer<M: Message>(
    call: &'static str,
    metadata: &MetadataMap,
    redactor: &Redactor,
    work: impl Future<Output = Result<M>>,
) -> std::result::Result<Response<M>, Status> {
    let work = AssertUnwindSafe(work).catch_unwind();
    // A time that the caller set is kept by tonic.
    let ended = if metadata.contains_key("grpc-timeout") {
        work.await
    } else {
        let ended = tokio::time::timeout(USUAL_DEADLINE, work).await;
        ended.map_err(|_elapsed| {
            Status::new(Code::DeadlineExceeded, "the call took more than 60 s")
        })?
    };
    let result = ended.unwrap_or_else(|_panic| Err(panicked(call)));
    let result = result.and_then(|message| {
        if message.encoded_len() > MAX_MESSAGE_BYTES {
            return Err(ProviderError::internal_bug("the answer exceeds 1 MiB"));
        }
        Ok(message)
    });
    result.map(Response::new).map_err(|error| {
        let error = redactor.error(status_error(error));
        tracing::debug!(call, reason = error.reason_text(), %error, "call refused");
        error.to_status()
    })
}

/// A caught panic, of which only the place is known that called.
pub(crate) fn panicked(place: &str) -> ProviderError {
    tracing::error!(place, "panic caught");
    ProviderError::internal_bug("the provider has a bug: its code panicked")
}

/// Some reasons tell of the work for an image, never of a call.
fn status_error(error: ProviderError) -> ProviderError {
    match error.reason() {
        Some(reason) if reason.only_in_observations() => {
            ProviderError::internal_bug(error.message())
                .with_metadata("reason", error.reason_text())
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    async fn never(metadata: &MetadataMap) -> Status {
        let work = std::future::pending::<Result<proto::wire::GetImageResponse>>();
        answer("GetImage", metadata, &Redactor::default(), work)
            .await
            .map(drop)
            .expect_err("it never ends")
    }

    #[tokio::test(start_paused = true)]
    async fn call_without_deadline_ends_after_a_minute_and_one_with_keeps_its_own() {
        let started = Instant::now();
        let late = never(&MetadataMap::new()).await;
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert_eq!(started.elapsed(), USUAL_DEADLINE);

        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", "3H".parse().expect("a time"));
        let kept = tokio::time::timeout(3 * USUAL_DEADLINE, never(&metadata)).await;
        assert!(kept.is_err(), "{kept:?}");
    }
}
