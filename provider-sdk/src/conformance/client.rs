//! Calls to the provider, every one through the recorder, as bytes: nothing that a provider sends is lost by decoding.

use std::{
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Buf, BufMut, Bytes};
use prost::Message;
use proto::wire;
use tonic::{
    Code, Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    options::{self, Tls},
    recorder::{Call, Outcome, Recorder, Subject, Wish, metadata_bytes},
};

/// A request of the contract, or of the health protocol.
pub(crate) trait Rpc: Message + 'static {
    type Response: Message + Default + std::fmt::Debug;
    const SERVICE: &'static str = "clusterstack.provider.v1alpha1.NodeImageService";
    const METHOD: &'static str;
    /// The core's deadline (contract, section 1).
    const DEADLINE: Duration;

    fn subject(&self) -> Subject {
        Subject::default()
    }
}

fn subject(
    caller: Option<&wire::CallerInfo>,
    target: Option<&wire::Target>,
    key: Option<&wire::ImageKey>,
) -> Subject {
    Subject {
        installation: caller
            .map(|caller| caller.installation_id.clone())
            .unwrap_or_default(),
        target: target
            .map(|target| target.target_id.clone())
            .unwrap_or_default(),
        key: key.map(|key| key.key.clone()).unwrap_or_default(),
        wish: None,
    }
}

impl Rpc for wire::GetProviderInfoRequest {
    type Response = wire::GetProviderInfoResponse;
    const SERVICE: &'static str = "clusterstack.provider.v1alpha1.IdentityService";
    const METHOD: &'static str = "GetProviderInfo";
    const DEADLINE: Duration = Duration::from_secs(5);
}

impl Rpc for wire::ValidateTargetRequest {
    type Response = wire::ValidateTargetResponse;
    const METHOD: &'static str = "ValidateTarget";
    const DEADLINE: Duration = Duration::from_secs(15);
}

impl Rpc for wire::ResolveImagesRequest {
    type Response = wire::ResolveImagesResponse;
    const METHOD: &'static str = "ResolveImages";
    const DEADLINE: Duration = Duration::from_secs(30);
}

impl Rpc for wire::EnsureImageRequest {
    type Response = wire::EnsureImageResponse;
    const METHOD: &'static str = "EnsureImage";
    const DEADLINE: Duration = Duration::from_secs(30);

    fn subject(&self) -> Subject {
        let policy = self.policy.as_ref();
        Subject {
            wish: Some(Wish {
                attempt_floor: policy.map_or(0, |policy| policy.attempt_floor),
                verifies_again: policy.is_some_and(|policy| {
                    policy.verified_since.is_some() || policy.verification_level > 2
                }),
            }),
            ..subject(
                self.caller.as_ref(),
                self.target.as_ref(),
                self.image_key.as_ref(),
            )
        }
    }
}

impl Rpc for wire::GetImageRequest {
    type Response = wire::GetImageResponse;
    const METHOD: &'static str = "GetImage";
    const DEADLINE: Duration = Duration::from_secs(10);

    fn subject(&self) -> Subject {
        subject(
            self.caller.as_ref(),
            self.target.as_ref(),
            self.image_key.as_ref(),
        )
    }
}

impl Rpc for wire::DeleteImageRequest {
    type Response = wire::DeleteImageResponse;
    const METHOD: &'static str = "DeleteImage";
    const DEADLINE: Duration = Duration::from_secs(30);

    fn subject(&self) -> Subject {
        subject(
            self.caller.as_ref(),
            self.target.as_ref(),
            self.image_key.as_ref(),
        )
    }
}

impl Rpc for wire::ListImagesRequest {
    type Response = wire::ListImagesResponse;
    const METHOD: &'static str = "ListImages";
    const DEADLINE: Duration = Duration::from_secs(30);

    fn subject(&self) -> Subject {
        subject(self.caller.as_ref(), self.target.as_ref(), None)
    }
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HealthCheckResponse {
    /// 1 is SERVING, 2 is `NOT_SERVING`.
    #[prost(int32, tag = "1")]
    pub(crate) status: i32,
}

impl Rpc for HealthCheckRequest {
    type Response = HealthCheckResponse;
    const SERVICE: &'static str = "grpc.health.v1.Health";
    const METHOD: &'static str = "Check";
    const DEADLINE: Duration = Duration::from_secs(2);
}

/// Messages as bytes.
#[derive(Clone, Copy, Debug)]
struct Raw(PhantomData<()>);

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// How long a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    /// As the core would set it.
    Core,
    /// Sent with the call and kept by the caller.
    Of(Duration),
    /// None is sent; the caller waits this long.
    NotSent(Duration),
}

/// A connection on which calls are made, for one check.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) channel: Channel,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) check: &'static str,
    pub(crate) disturbed: bool,
}

impl Line {
    /// Makes a call with the core's deadline.
    pub(crate) async fn call<R: Rpc>(&self, request: &R) -> Result<R::Response, Status> {
        self.call_within(request, Deadline::Core).await
    }

    /// Makes a call with another deadline.
    pub(crate) async fn call_within<R: Rpc>(
        &self,
        request: &R,
        deadline: Deadline,
    ) -> Result<R::Response, Status> {
        self.send::<R>(
            request.subject(),
            request.encode_to_vec().into(),
            R::SERVICE,
            deadline,
        )
        .await
    }

    /// Makes a call with bytes that need not be a message of the contract.
    pub(crate) async fn send<R: Rpc>(
        &self,
        subject: Subject,
        bytes: Bytes,
        service: &str,
        deadline: Deadline,
    ) -> Result<R::Response, Status> {
        let started = Instant::now();
        let mut request = Request::new(bytes);
        let patience = match deadline {
            Deadline::Core => {
                request.set_timeout(R::DEADLINE);
                R::DEADLINE
            }
            Deadline::Of(deadline) => {
                request.set_timeout(deadline);
                deadline
            }
            Deadline::NotSent(patience) => patience,
        };
        let path = http::uri::PathAndQuery::try_from(format!("/{service}/{}", R::METHOD))
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(self.channel.clone());
        // A little longer than the deadline: who keeps it answers himself.
        let call = async {
            client
                .ready()
                .await
                .map_err(|error| Status::unavailable(format!("no connection: {error}")))?;
            client.unary(request, path, Raw(PhantomData)).await
        };
        let answer = tokio::time::timeout(patience + Duration::from_millis(500), call).await;
        let (outcome, result) = match answer {
            Err(_) => (
                Outcome::NoAnswer,
                Err(Status::new(
                    Code::DeadlineExceeded,
                    format!("no answer within {patience:?}"),
                )),
            ),
            Ok(Ok(response)) => {
                let bytes = response.get_ref().clone();
                let decoded = R::Response::decode(bytes.clone()).map_err(|error| {
                    Status::internal(format!("the answer is no {} response: {error}", R::METHOD))
                });
                let metadata = metadata_bytes(response.metadata());
                (Outcome::Response { bytes, metadata }, decoded)
            }
            // tonic's own clock: the provider said nothing.
            Ok(Err(status))
                if status.code() == Code::Cancelled && started.elapsed() >= patience =>
            {
                (
                    Outcome::NoAnswer,
                    Err(Status::new(
                        Code::DeadlineExceeded,
                        format!("no answer within {patience:?}"),
                    )),
                )
            }
            Ok(Err(status)) => (Outcome::Refused(status.clone()), Err(status)),
        };
        self.recorder.add(Call {
            check: self.check,
            method: R::METHOD,
            subject,
            started,
            ended: Instant::now(),
            disturbed: self.disturbed,
            outcome,
        });
        result
    }
}

/// Who the suite says it is when it connects.
#[derive(Clone, Copy, Debug)]
pub(crate) enum As {
    /// Somebody who is let in.
    Core,
    /// Nobody: no certificate.
    Nobody,
}

/// A lazy connection to the address.
pub(crate) fn channel(address: &str, tls: Option<&Tls>, who: As) -> Result<Channel, String> {
    let identity = match who {
        As::Core => tls.map(|tls| tls.identity.clone()),
        As::Nobody => None,
    };
    channel_with(address, tls, identity.as_ref())
}

/// A lazy connection to the address with any identity.
pub(crate) fn channel_with(
    address: &str,
    tls: Option<&Tls>,
    identity: Option<&options::Identity>,
) -> Result<Channel, String> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let text = |error: tonic::transport::Error| format!("address \"{address}\": {error}");
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(text)?
        .connect_timeout(Duration::from_secs(5));
    if let Some(tls) = tls {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name);
        }
        if let Some(identity) = identity {
            config = config.identity(Identity::from_pem(&identity.certificate, &identity.key));
        }
        endpoint = endpoint.tls_config(config).map_err(text)?;
    }
    Ok(endpoint.connect_lazy())
}
