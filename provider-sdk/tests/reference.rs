//! The reference provider, as a process that is killed, against the conformance suite.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is a test, which Clippy sees of functions with #[test] only"
)]

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use provider_sdk::conformance::{
    self, Hook, Hooks, Identity, Level, Options, Sample, Tls, Verdict,
};
use provider_sdk::testing::{Directory, Fault, MARKER_PREFIX, PROJECT};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

#[path = "../examples/minimal.rs"]
#[expect(dead_code, reason = "its main is for its own program")]
mod minimal;

const CORE: &str = "core-operator.test.svc";

const SAMPLE: &str = r#"
targets:
  good:
    secrets: {token: "good-${CANARY}"}
  wrongCredentials:
    secrets: {token: "bad-${CANARY}"}
  otherCredentials:
    secrets: {token: "good-other-${CANARY}"}
  refusing:
    config: {answer: refusing}
    secrets: {token: "good-${CANARY}"}
  silent:
    config: {answer: silent}
    secrets: {token: "good-${CANARY}"}
  elsewhere:
    config: {project: elsewhere}
    secrets: {token: "good-${CANARY}"}
markerPrefix: PREFIX
nodeImages:
- release: {provider: reference, stackName: scs, kubernetesVersion: v1.33.4, nodeImageVersion: v1}
  content: |
    images:
    - {name: "ubuntu-${RUN}", url: "${URL}", digest: "${DIGEST}", size: ${SIZE}}
    - {name: "flatcar-${RUN}", url: "${URL}", digest: "${DIGEST}", size: ${SIZE}}
  names: ["ubuntu-${RUN}", "flatcar-${RUN}"]
"#;

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

    fn signed(&self, name: &str) -> Identity {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        params.subject_alt_names.push(SanType::IpAddress(loopback));
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Identity {
            certificate: certificate.pem().into_bytes(),
            key: key.serialize_pem().into_bytes(),
        }
    }

    /// A new certificate for the server, in the folder that it looks at.
    fn serve(&self, folder: &Path) {
        let server = self.signed("localhost");
        for (name, content) in [
            ("tls.key", server.key),
            ("tls.crt", server.certificate),
            ("ca.crt", self.0.pem().into_bytes()),
        ] {
            std::fs::write(folder.join(name), content).unwrap();
        }
    }
}

/// The program, its backend, and how both are handled from outside.
struct Process {
    folder: tempfile::TempDir,
    backend: Directory,
    ours: Authority,
    ports: [u16; 3],
    child: Mutex<Option<Child>>,
}

impl Process {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ours = Authority::new();
        std::fs::create_dir(folder.path().join("tls")).unwrap();
        ours.serve(&folder.path().join("tls"));
        // All three at once, so that they differ; the program takes them a moment later.
        let reserved = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let process = Self {
            backend: Directory::open(folder.path().join("state")).unwrap(),
            ours,
            ports: reserved
                .each_ref()
                .map(|listener| listener.local_addr().unwrap().port()),
            child: Mutex::default(),
            folder,
        };
        drop(reserved);
        process.run();
        process
    }

    fn address(&self, port: usize) -> String {
        format!("127.0.0.1:{}", self.ports[port])
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn run(&self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log())
            .unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_reference-provider"))
            .arg("--state")
            .arg(self.folder.path().join("state"))
            .arg("--tls-dir")
            .arg(self.folder.path().join("tls"))
            .args(["--allow-identity", CORE, "--log-level", "trace"])
            .args(["--listen", &self.address(0)])
            .args(["--health-listen", &self.address(1)])
            .args(["--metrics-listen", &self.address(2)])
            .args(["--slots", "64"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        *self.child.lock().unwrap() = Some(child);
        // It says nothing to anybody before it listens; that it ends instead is seen at once.
        while TcpStream::connect(self.address(0)).is_err() {
            let mut child = self.child.lock().unwrap();
            assert!(matches!(child.as_mut().unwrap().try_wait(), Ok(None)));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn kill(&self) {
        if let Some(mut child) = self.child.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn hook(&self, hook: Hook, arguments: &[(&str, String)]) -> std::io::Result<String> {
        let argument = |name: &str| {
            let known = arguments.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let id = argument("ID");
        match hook {
            Hook::Restart => {
                self.kill();
                self.run();
            }
            Hook::Terminate => {
                let child = self.child.lock().unwrap();
                let pid = child.as_ref().unwrap().id().to_string();
                Command::new("kill").arg(pid).status()?;
            }
            Hook::AwaitExit => {
                let began = Instant::now();
                let child = self.child.lock().unwrap().take();
                child.unwrap().wait()?;
                return Ok(began.elapsed().as_secs_f64().to_string());
            }
            Hook::Logs => return std::fs::read_to_string(self.log()),
            Hook::BackendPutForeign => {
                let (name, file) = (argument("NAME"), argument("FILE"));
                let format = argument("DISK_FORMAT");
                return Ok(self.backend.put(PROJECT, name, format, Path::new(file))?.id);
            }
            Hook::BackendTamper => self.backend.tamper(id)?,
            Hook::BackendRemove => self.backend.remove(id)?,
            Hook::BackendNames => {
                let objects = self.backend.objects()?;
                let lines = objects.iter().map(|o| format!("{}\t{}\n", o.id, o.name));
                return Ok(lines.collect());
            }
            Hook::BackendDown => self.backend.set_fault(Fault::Down, true)?,
            Hook::BackendUp => self.backend.set_fault(Fault::Down, false)?,
            Hook::BackendUse => {
                let object = self.backend.change(id, |record| record.in_use = true)?;
                return Ok(format!("{object:?}"));
            }
            Hook::BackendFree => drop(self.backend.change(id, |record| record.in_use = false)?),
            Hook::RotateCerts => self.ours.serve(&self.folder.path().join("tls")),
        }
        Ok(String::new())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Handle(Arc<Process>);

#[async_trait]
impl Hooks for Handle {
    fn has(&self, _: Hook) -> bool {
        true
    }

    async fn call(&self, hook: Hook, arguments: &[(&str, String)]) -> Result<String, String> {
        let process = Arc::clone(&self.0);
        let arguments: Vec<(String, String)> = arguments
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let done = tokio::task::spawn_blocking(move || {
            let arguments: Vec<(&str, String)> = arguments
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone()))
                .collect();
            process.hook(hook, &arguments)
        });
        done.await
            .map_err(|error| error.to_string())?
            .map_err(|error| error.to_string())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reference_provider_is_conformant_at_every_level() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let process = Arc::new(Process::start());
    let theirs = Authority::new();
    let sample = SAMPLE.replace("PREFIX", MARKER_PREFIX);
    let mut options = Options::new(process.address(0), Sample::parse(&sample).unwrap());
    options.level = Level::Extended;
    options.health_address = Some(process.address(1));
    options.metrics_url = Some(format!("http://{}/metrics", process.address(2)));
    options.hooks = Arc::new(Handle(Arc::clone(&process)));
    options.patience = Duration::from_mins(3);
    options.tls = Some(Tls {
        ca: process.ours.0.pem().into_bytes(),
        identity: process.ours.signed(CORE),
        server_name: None,
        stranger: Some(theirs.signed(CORE)),
        intruder: Some(process.ours.signed("intruder.test.svc")),
    });
    // For whoever works on one check: ids, or beginnings of ids.
    if let Ok(filter) = std::env::var("CONFORMANCE_FILTER") {
        options.filter = filter.split(',').map(ToOwned::to_owned).collect();
    }
    let report = conformance::run(options).await.unwrap();
    if std::env::var_os("CONFORMANCE_FILTER").is_some() {
        assert!(report.failures().is_empty(), "{}", report.text());
        return;
    }
    assert_eq!(report.verdict(), Verdict::Conformant, "{}", report.text());
    assert!(report.left_behind.is_empty(), "{}", report.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn smallest_provider_is_conformant_at_the_basic_level() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let services = provider_sdk::server::services(Arc::new(minimal::Memory::default())).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = tonic::transport::Server::builder()
        .add_service(services.identity)
        .add_service(services.images)
        .serve_with_incoming(tonic::transport::server::TcpIncoming::from(listener));
    let server = tokio::spawn(server);
    let sample = Sample::parse("targets: {good: {}}").unwrap();
    let report = conformance::run(Options::new(address, sample))
        .await
        .unwrap();
    server.abort();
    assert_eq!(report.verdict(), Verdict::Conformant, "{}", report.text());
}
