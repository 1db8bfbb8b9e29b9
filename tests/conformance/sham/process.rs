//! The provider as a process that can be killed: a runtime of its own, which takes all connections and workers with it.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use proto::wire::{
    identity_service_server::IdentityServiceServer,
    node_image_service_server::NodeImageServiceServer,
};
use provider_sdk::conformance::{Identity, Tls};
use tests::{certificates::Authority, ports::Port};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{
    Request,
    service::LayerExt as _,
    transport::{
        Certificate, Identity as ServerIdentity, Server, ServerTlsConfig, server::TcpIncoming,
    },
};

use super::{Fault, backend::Backend, rpc::Services, service::Sham};

/// The provider, its backend, and who may call it.
pub struct Process {
    pub backend: Arc<Backend>,
    pub log: Arc<Mutex<String>>,
    fault: Option<Fault>,
    runtime: Mutex<Option<Runtime>>,
    address: SocketAddr,
    health: SocketAddr,
    _ports: [Port; 2],
    identity: ServerIdentity,
    pub tls: Tls,
}

/// What the suite's hooks hold on to.
#[derive(Clone)]
pub struct Handle(pub Arc<Process>);

fn plain(identity: tests::certificates::Identity) -> Identity {
    Identity {
        certificate: identity.certificate.into_bytes(),
        key: identity.key.into_bytes(),
    }
}

impl Process {
    /// Starts a provider on free ports.
    pub async fn start(fault: Option<Fault>) -> Arc<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (ours, theirs) = (Authority::new().unwrap(), Authority::new().unwrap());
        let server = ours.server(&[]).unwrap();
        let client =
            |authority: &Authority, name: &str| plain(authority.client(name, None).unwrap());
        let (port, health) = (Port::reserve().unwrap(), Port::reserve().unwrap());
        let at = |port: &Port| SocketAddr::from(([127, 0, 0, 1], port.number()));
        let process = Arc::new(Self {
            backend: Arc::default(),
            log: Arc::default(),
            fault,
            runtime: Mutex::default(),
            address: at(&port),
            health: at(&health),
            _ports: [port, health],
            identity: ServerIdentity::from_pem(&server.certificate, &server.key),
            tls: Tls {
                ca: ours.certificate().into_bytes(),
                identity: client(&ours, "core-operator"),
                server_name: None,
                stranger: Some(client(&theirs, "core-operator")),
                intruder: Some(client(&ours, "intruder")),
            },
        });
        process.run().await;
        process
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn health(&self) -> String {
        self.health.to_string()
    }

    async fn run(self: &Arc<Self>) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let process = self.clone();
        let started = runtime.spawn(async move { process.serve().await });
        started.await.unwrap();
        *self.runtime.lock().unwrap() = Some(runtime);
    }

    /// Listens, and leaves the serving to tasks of the runtime.
    async fn serve(&self) {
        let sham = Sham::new(self.backend.clone(), self.fault, self.log.clone());
        let services = Services(sham);
        let core = self.tls.identity.certificate.clone();
        let core = rustls_der(&core);
        let anyone = self.fault == Some(Fault::ChecksTheAuthorityOnly);
        let guard = move |request: Request<()>| {
            let known = request
                .peer_certs()
                .is_some_and(|chain| chain.first().is_some_and(|first| first.as_ref() == core));
            if known || anyone {
                Ok(request)
            } else {
                Err(super::validate::refuse(
                    proto::wire::ErrorReason::CallerNotAuthorized,
                    None,
                    "this identity may not call",
                ))
            }
        };
        let (reporter, health) = tonic_health::server::health_reporter();
        reporter
            .set_serving::<IdentityServiceServer<Services>>()
            .await;
        reporter
            .set_serving::<NodeImageServiceServer<Services>>()
            .await;
        let tls = ServerTlsConfig::new()
            .identity(self.identity.clone())
            .client_ca_root(Certificate::from_pem(&self.tls.ca));
        let guarded =
            tower::ServiceBuilder::new().layer(tonic::service::InterceptorLayer::new(guard));
        let server = Server::builder()
            .tls_config(tls)
            .unwrap()
            .add_service(
                guarded
                    .clone()
                    .named_layer(IdentityServiceServer::new(services.clone())),
            )
            .add_service(guarded.named_layer(NodeImageServiceServer::new(services)))
            .add_service(health.clone());
        let listener = TcpIncoming::from(bind(self.address).await).with_nodelay(Some(true));
        tokio::spawn(server.serve_with_incoming(listener));
        let listener = TcpIncoming::from(bind(self.health).await);
        tokio::spawn(
            Server::builder()
                .add_service(health)
                .serve_with_incoming(listener),
        );
    }

    /// Ends the process as SIGKILL would, and starts another one over the same backend.
    pub async fn restart(self: &Arc<Self>) {
        self.stop();
        self.run().await;
    }

    fn stop(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The port is free as soon as the runtime that had it is gone.
async fn bind(address: SocketAddr) -> TcpListener {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn rustls_der(pem: &[u8]) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};
    CertificateDer::from_pem_slice(pem).unwrap().to_vec()
}
