//! Real connections over loopback, with certificates made for the test.

use std::path::Path;

use proto::wire::identity_service_client::IdentityServiceClient;
use proto::wire::identity_service_server::{IdentityService, IdentityServiceServer};
use proto::wire::{GetProviderInfoRequest, GetProviderInfoResponse};
use proto::{CallError, Reason};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::*;

const CORE: &str = "core-operator.test.svc";

/// Answers at once, or only when the process ends if the caller asks for "slow".
struct Echo;

#[tonic::async_trait]
impl IdentityService for Echo {
    async fn get_provider_info(
        &self,
        request: Request<GetProviderInfoRequest>,
    ) -> Result<Response<GetProviderInfoResponse>, Status> {
        let caller = request.into_inner().caller.unwrap_or_default();
        if caller.request_id == "slow" {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(GetProviderInfoResponse::default()))
    }
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    fn signed(&self, name: &str, edit: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        edit(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn identity(&self, name: &str) -> Identity {
        let (certificate, key) = self.signed(name, |_| {});
        Identity::from_pem(certificate, key)
    }

    /// Files of a server whose clients this authority signs.
    fn write(&self, folder: &Path) {
        let (certificate, key) = self.signed("provider.test.svc", |_| {});
        for (name, text) in [
            ("tls.crt", certificate),
            ("tls.key", key),
            ("ca.crt", self.0.pem()),
        ] {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
}

struct Running {
    address: SocketAddr,
    health: SocketAddr,
    metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<Result<(), ServeError>>,
}

fn options() -> ServeOptions {
    let any: Listen = "127.0.0.1:0".parse().unwrap();
    ServeOptions {
        health_listen: any.clone(),
        metrics_listen: any.clone(),
        ..ServeOptions::insecure(any)
    }
}

fn with_tls(folder: &Path) -> ServeOptions {
    ServeOptions {
        insecure: false,
        tls_dir: Some(folder.to_owned()),
        allow_identities: vec![CORE.to_owned()],
        ..options()
    }
}

async fn start(options: ServeOptions) -> Running {
    let process = Process::bind(options).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    Running {
        address: process.address().unwrap(),
        health: process.health_address().unwrap(),
        metrics: process.metrics_address().unwrap(),
        stop: Some(stop),
        ended: tokio::spawn(process.run(
            Routes::new(IdentityServiceServer::new(Echo)),
            async move {
                // Dropped by a test that ends early: stop as well.
                let _ = stopped.await;
            },
        )),
    }
}

fn channel(address: SocketAddr, authority: &Authority, identity: Option<Identity>) -> Channel {
    let mut tls = ClientTlsConfig::new()
        .domain_name("provider.test.svc")
        .ca_certificate(Certificate::from_pem(authority.0.pem()));
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    Endpoint::from_shared(format!("https://{address}"))
        .unwrap()
        .tls_config(tls)
        .unwrap()
        .connect_lazy()
}

fn plain(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .unwrap()
        .connect_lazy()
}

async fn call(channel: Channel) -> Result<(), Status> {
    IdentityServiceClient::new(channel)
        .get_provider_info(GetProviderInfoRequest::default())
        .await
        .map(drop)
}

async fn slow(channel: Channel) -> Result<(), Status> {
    let mut request = GetProviderInfoRequest::default();
    request.caller.get_or_insert_default().request_id = "slow".to_owned();
    IdentityServiceClient::new(channel)
        .get_provider_info(request)
        .await
        .map(drop)
}

async fn health(address: SocketAddr, service: &str) -> Result<i32, Status> {
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(plain(address)).check(request).await?;
    Ok(answer.into_inner().status)
}

#[tokio::test]
async fn only_the_allowed_identity_of_the_right_authority_is_served() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    authority.write(folder.path());
    let running = start(with_tls(folder.path())).await;
    let address = running.address;
    let of = |identity| channel(address, &authority, identity);

    call(of(Some(authority.identity(CORE)))).await.unwrap();
    let wrong = call(of(Some(authority.identity("other.test.svc"))))
        .await
        .unwrap_err();
    assert_eq!(
        CallError::of(&wrong).reason(),
        Some(Reason::CallerNotAuthorized)
    );
    assert!(wrong.message().contains("other.test.svc"), "{wrong}");
    let (certificate, key) = authority.signed(CORE, |params| {
        params.not_before = rcgen::date_time_ymd(2000, 1, 1);
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    });
    for identity in [
        None,
        Some(other.identity(CORE)),
        Some(Identity::from_pem(certificate, key)),
    ] {
        let refused = call(of(identity)).await.unwrap_err();
        assert_eq!(CallError::of(&refused).reason(), None, "{refused}");
    }
    // Bytes that are no handshake disturb nobody.
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // An alert, or the connection is closed at once.
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
    call(of(Some(authority.identity(CORE)))).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn new_files_are_used_without_a_restart_and_cut_nothing() {
    let (old, new) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    old.write(folder.path());
    let running = start(with_tls(folder.path())).await;
    let open = channel(running.address, &old, Some(old.identity(CORE)));
    call(open.clone()).await.unwrap();

    // Something that cannot be used: what is there stays.
    std::fs::write(folder.path().join("tls.crt"), "no certificate").unwrap();
    tokio::time::sleep(2 * CERTIFICATES).await;
    call(channel(running.address, &old, Some(old.identity(CORE))))
        .await
        .unwrap();

    new.write(folder.path());
    tokio::time::sleep(2 * CERTIFICATES).await;
    call(channel(running.address, &new, Some(new.identity(CORE))))
        .await
        .unwrap();
    call(channel(running.address, &new, Some(old.identity(CORE))))
        .await
        .unwrap_err();
    call(open).await.unwrap();
}

#[tokio::test]
async fn health_port_serves_health_and_nothing_else() {
    let running = start(options()).await;
    for service in ["", SERVICES[0], SERVICES[1]] {
        assert_eq!(health(running.health, service).await.unwrap(), 1);
        assert_eq!(health(running.address, service).await.unwrap(), 1);
    }
    let unknown = health(running.health, "unknown").await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let other = call(plain(running.health)).await.unwrap_err();
    assert_eq!(other.code(), Code::Unimplemented);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let running = start(options()).await;
    call(plain(running.address)).await.unwrap();
    let mut stream = TcpStream::connect(running.metrics).await.unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    for line in [
        r#"cluster_stack_provider_calls_total{method="GetProviderInfo",code="OK"} 1"#,
        "cluster_stack_provider_transfers 0",
        "cluster_stack_provider_transferred_bytes_total 0",
    ] {
        assert!(answer.contains(line), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn stopping_says_so_first_and_ends_calls_that_would_never_end() {
    let mut running = start(options()).await;
    let lasting = tokio::spawn(slow(plain(running.address)));
    call(plain(running.address)).await.unwrap();
    while !lasting.is_finished() && running.stop.is_some() {
        // The call has arrived when a later one on the same runtime was answered.
        call(plain(running.address)).await.unwrap();
        running.stop.take().unwrap().send(()).unwrap();
    }
    while health(running.health, "").await.unwrap() == 1 {
        tokio::task::yield_now().await;
    }
    let ended = lasting.await.unwrap().unwrap_err();
    assert_eq!(
        CallError::of(&ended).reason(),
        Some(Reason::ProviderNotReady)
    );
    running.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn options_that_cannot_work_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let tls = with_tls(folder.path());
    let cases: [(ServeOptions, &str); 6] = [
        (
            ServeOptions {
                insecure: true,
                ..tls.clone()
            },
            "--insecure and --tls-dir exclude each other",
        ),
        (
            ServeOptions {
                tls_dir: None,
                ..tls.clone()
            },
            "--tls-dir is missing",
        ),
        (
            ServeOptions {
                allow_identities: Vec::new(),
                ..tls.clone()
            },
            "--allow-identity is missing",
        ),
        (tls, "failed to read"),
        (ServeOptions::insecure(Listen::Nowhere), "given by --listen"),
        (
            ServeOptions::insecure(Listen::Tcp("192.0.2.1:1".to_owned())),
            "given by --listen",
        ),
    ];
    for (options, message) in cases {
        let error = Process::bind(options).await.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
}

#[tokio::test]
async fn socket_that_a_killed_process_left_is_taken_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("provider.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let process = Process::bind(ServeOptions::insecure(Listen::Unix(path.clone())))
        .await
        .unwrap();
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(
        process.run(Routes::new(IdentityServiceServer::new(Echo)), async move {
            let _ = stopped.await;
        }),
    );
    let channel = Endpoint::from_shared(format!("unix://{}", path.display()))
        .unwrap()
        .connect_lazy();
    call(channel).await.unwrap();
}

#[test]
fn nonsense_on_the_command_line_is_refused_with_what_is_expected() {
    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        serve: ServeOptions,
    }
    let parse = |option: &str| {
        <Program as clap::Parser>::try_parse_from(["provider", option]).map(|read| read.serve)
    };
    for option in [
        "--log-level=verbose",
        "--log-level=",
        "--log-level=info,chatty",
        "--log-level=provider_sdk=loud",
        "--otlp-endpoint=https://collector.example:4317",
        "--otlp-endpoint=collector",
        "--listen=9443",
    ] {
        assert!(parse(option).is_err(), "{option}");
    }
    for option in [
        "--log-level=debug",
        "--log-level=info,provider_sdk=trace",
        "--otlp-endpoint=http://127.0.0.1:4317",
    ] {
        assert!(parse(option).is_ok(), "{option}");
    }
}

#[test]
fn addresses_are_read_and_nonsense_is_refused() {
    for (text, listen) in [
        ("127.0.0.1:9443", Listen::Tcp("127.0.0.1:9443".to_owned())),
        (":9443", Listen::Tcp("0.0.0.0:9443".to_owned())),
        ("[::]:9443", Listen::Tcp("[::]:9443".to_owned())),
        ("unix:///run/p.sock", Listen::Unix("/run/p.sock".into())),
        ("0", Listen::Nowhere),
    ] {
        assert_eq!(text.parse(), Ok(listen), "{text}");
    }
    for text in ["", "9443", "host", "host:port", "unix://p.sock"] {
        assert!(text.parse::<Listen>().is_err(), "{text}");
    }
}
