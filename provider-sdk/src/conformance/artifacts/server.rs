//! The artifact server: HTTP/1.1 files and the reading half of a registry, written by hand because it must misbehave on demand
//! (slow down, stop, cut, corrupt, refuse, redirect) and know what each connection did.

use std::{
    collections::HashMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::Engine as _;
use proto::wire;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{Answer, AnswerBody, Request, answer, read_head, reason_phrase},
    content::{Content, Offer},
};
use crate::conformance::{options::ArtifactServer, sample::Kind};

/// User name and password of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Auth {
    pub(crate) user: String,
    pub(crate) password: String,
}

impl Auth {
    /// The value of the header that proves it.
    pub(super) fn header(&self) -> String {
        let pair = format!("{}:{}", self.user, self.password);
        format!(
            "Basic {}",
            base64::engine::general_purpose::STANDARD.encode(pair)
        )
    }

    /// As the contract hands it to the provider.
    pub(crate) fn secrets(&self) -> std::collections::BTreeMap<String, Vec<u8>> {
        [
            ("username".to_owned(), self.user.clone().into_bytes()),
            ("password".to_owned(), self.password.clone().into_bytes()),
        ]
        .into()
    }
}

/// How an artifact is served from now on; running responses follow.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// Bytes a second.
    pub(crate) rate: Option<u64>,
    /// Stop, with the connection open, before this byte.
    pub(crate) hold_at: Option<u64>,
    /// Close the connection before this byte.
    pub(crate) cut_at: Option<u64>,
    /// One byte in the middle is another.
    pub(crate) corrupt: bool,
    /// Answer everything with this.
    pub(crate) status: Option<u16>,
    /// Demand credentials.
    pub(crate) auth: Option<Auth>,
}

/// Which way to an artifact a URL takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Plain,
    /// Another path to the same bytes.
    Mirror(u8),
    /// Always answers with this status.
    Status(u16),
    /// Answers with a redirect to the second host.
    Redirect,
    /// TLS with a certificate of the suite's own authority.
    Tls,
}

/// Which listener a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Main,
    Second,
    Tls,
}

/// One request for an artifact.
#[derive(Debug)]
pub(crate) struct Hit {
    pub(crate) place: Place,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    /// Whether it asked for the main bytes with GET and got them.
    pub(crate) main: bool,
    /// First byte of the answer.
    pub(crate) offset: u64,
    sent: AtomicU64,
}

impl Hit {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

/// An artifact on the server.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) id: String,
    pub(crate) content: Arc<Content>,
    behaviour: watch::Sender<Behaviour>,
    hits: Mutex<Vec<Arc<Hit>>>,
    open: watch::Sender<usize>,
    hosts: Arc<Hosts>,
}

#[derive(Debug)]
struct Hosts {
    main: String,
    second: String,
    tls: String,
    ca: String,
    registry_tls: bool,
}

impl Served {
    /// Changes how it is served.
    pub(crate) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        self.behaviour.send_modify(change);
    }

    /// Serves it well from now on.
    pub(crate) fn release(&self) {
        self.behave(|behaviour| *behaviour = Behaviour::default());
    }

    /// All requests until now.
    pub(crate) fn hits(&self) -> Vec<Arc<Hit>> {
        self.hits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Requests for the main bytes from the first one on.
    pub(crate) fn downloads(&self) -> usize {
        self.hits()
            .iter()
            .filter(|hit| hit.main && hit.offset == 0)
            .count()
    }

    /// Main bytes sent until now.
    pub(crate) fn sent(&self) -> u64 {
        self.hits()
            .iter()
            .map(|hit| hit.sent.load(Ordering::SeqCst))
            .sum()
    }

    /// Requests of any kind until now.
    pub(crate) fn requests(&self) -> usize {
        self.hits
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Responses with main bytes that are running, as a value to wait on.
    pub(crate) fn open(&self) -> watch::Receiver<usize> {
        self.open.subscribe()
    }

    /// Size of the main bytes.
    pub(crate) fn size(&self) -> u64 {
        self.content.body.len()
    }

    /// What was counted, for people.
    pub(crate) fn counts(&self) -> String {
        format!(
            "{} requests, {} downloads, {} of {} bytes sent",
            self.requests(),
            self.downloads(),
            self.sent(),
            self.size()
        )
    }

    /// A URL for a file.
    pub(crate) fn url(&self, via: Via) -> String {
        let (scheme, host) = match via {
            Via::Tls => ("https", &self.hosts.tls),
            _ => ("http", &self.hosts.main),
        };
        let way = match via {
            Via::Plain | Via::Tls => "plain".to_owned(),
            Via::Mirror(number) => format!("mirror-{number}"),
            Via::Status(status) => format!("status-{status}"),
            Via::Redirect => "redirect".to_owned(),
        };
        format!("{scheme}://{host}/{way}/{}/image", self.id)
    }

    /// Host and path in the registry.
    pub(crate) fn repository(&self) -> String {
        let host = if self.hosts.registry_tls {
            &self.hosts.tls
        } else {
            &self.hosts.main
        };
        format!("{host}/conformance/{}", self.id)
    }

    /// The authority behind `Via::Tls`, PEM.
    pub(crate) fn authority(&self) -> Vec<u8> {
        self.hosts.ca.clone().into_bytes()
    }

    /// Host to which downloads are redirected.
    pub(super) fn second_host(&self) -> &str {
        &self.hosts.second
    }

    /// As the provider gets it.
    pub(crate) fn artifact(&self, offer: &Offer) -> wire::Artifact {
        let source = match self.content.kind() {
            Kind::Http => wire::artifact::Source::Http(wire::HttpSource {
                urls: offer
                    .urls
                    .clone()
                    .unwrap_or_else(|| vec![self.url(Via::Plain)]),
                ca_bundle_pem: offer.ca_bundle_pem.clone(),
            }),
            Kind::Oci => wire::artifact::Source::Oci(wire::OciSource {
                repository: self.repository(),
                ca_bundle_pem: if self.hosts.registry_tls {
                    self.authority()
                } else {
                    offer.ca_bundle_pem.clone()
                },
            }),
        };
        wire::Artifact {
            digest: self.content.digest.clone(),
            size_bytes: match self.content.kind() {
                Kind::Http => i64::try_from(self.size()).unwrap_or(i64::MAX),
                // A manifest's size says nothing about the bytes that move.
                Kind::Oci => 0,
            },
            compression: self.content.compression.into(),
            uncompressed_digest: String::new(),
            source_secrets: offer.source_secrets.clone(),
            source: Some(source),
        }
    }
}

struct Inner {
    items: RwLock<HashMap<String, Arc<Served>>>,
}

/// The server; it ends when this is dropped.
pub(crate) struct Store {
    inner: Arc<Inner>,
    hosts: Arc<Hosts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Store {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn host_and_port(host: &str, address: SocketAddr) -> String {
    if host.contains(':') {
        format!("[{host}]:{}", address.port())
    } else {
        format!("{host}:{}", address.port())
    }
}

impl Store {
    /// Starts listening.
    pub(crate) async fn start(options: &ArtifactServer) -> Result<Self, String> {
        let listen = |address: IpAddr| async move {
            let listener = TcpListener::bind((address, 0))
                .await
                .map_err(|error| format!("artifact server on {address}: {error}"))?;
            let address = listener
                .local_addr()
                .map_err(|error| format!("artifact server: {error}"))?;
            Ok::<_, String>((listener, address))
        };
        let (main, main_address) = listen(options.listen).await?;
        let (tls, tls_address) = listen(options.listen).await?;
        let (second, second_host) =
            if let Ok((second, address)) = listen(options.second_listen).await {
                (second, host_and_port(&options.second_host, address))
            } else {
                let (second, address) = listen(options.listen).await?;
                (second, host_and_port(&options.host, address))
            };
        let (acceptor, ca) = certificates(&options.host)
            .map_err(|error| format!("certificates of the artifact server: {error}"))?;
        let hosts = Arc::new(Hosts {
            main: host_and_port(&options.host, main_address),
            second: second_host,
            tls: host_and_port(&options.host, tls_address),
            ca,
            registry_tls: options.registry_tls,
        });
        let inner = Arc::new(Inner {
            items: RwLock::default(),
        });
        let tasks = vec![
            tokio::spawn(accept(main, Place::Main, None, inner.clone())),
            tokio::spawn(accept(second, Place::Second, None, inner.clone())),
            tokio::spawn(accept(tls, Place::Tls, Some(acceptor), inner.clone())),
        ];
        Ok(Self {
            inner,
            hosts,
            tasks,
        })
    }

    /// Serves one more artifact under a name of its own.
    pub(crate) fn serve(&self, id: String, content: Arc<Content>) -> Arc<Served> {
        let served = Arc::new(Served {
            id: id.clone(),
            content,
            behaviour: watch::Sender::default(),
            hits: Mutex::default(),
            open: watch::Sender::default(),
            hosts: self.hosts.clone(),
        });
        self.inner
            .items
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, served.clone());
        served
    }
}

/// An authority that nobody trusts, and a certificate of it.
fn certificates(host: &str) -> Result<(TlsAcceptor, String), String> {
    let text = |error: rcgen::Error| error.to_string();
    let named = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = named("conformance suite authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    let key = KeyPair::generate().map_err(text)?;
    let authority = CertifiedIssuer::self_signed(params, key).map_err(text)?;
    let mut params = named("conformance suite artifacts");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![match host.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(host.try_into().map_err(text)?),
    }];
    let key = KeyPair::generate().map_err(text)?;
    let certificate = params.signed_by(&key, &authority).map_err(text)?;
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .map_err(|error| error.to_string())?;
    Ok((TlsAcceptor::from(Arc::new(config)), authority.pem()))
}

async fn accept(listener: TcpListener, place: Place, tls: Option<TlsAcceptor>, inner: Arc<Inner>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (tls, inner) = (tls.clone(), inner.clone());
        tokio::spawn(async move {
            match tls {
                None => connection(stream, place, &inner).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        connection(stream, place, &inner).await;
                    }
                }
            }
        });
    }
}

async fn connection<S: AsyncRead + AsyncWrite + Send>(stream: S, place: Place, inner: &Inner) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut buffer = Vec::new();
    while let Some(request) = read_head(&mut reader, &mut buffer).await {
        let last = request.header("connection") == Some("close");
        let (answer, served) = route(&request, place, inner);
        let main = matches!(answer.body, AnswerBody::Main { .. }) && request.method == "GET";
        let hit = Arc::new(Hit {
            place,
            main,
            offset: match answer.body {
                AnswerBody::Main { from, .. } => from,
                AnswerBody::Small(_) => 0,
            },
            sent: AtomicU64::new(0),
            method: request.method.clone(),
            path: request.path.clone(),
            headers: request.headers,
        });
        if let Some(served) = &served {
            served
                .hits
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(hit.clone());
        }
        let length = match &answer.body {
            AnswerBody::Small(bytes) => bytes.len() as u64,
            AnswerBody::Main { from, to } => to - from,
        };
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ncontent-length: {length}\r\n",
            answer.status,
            reason_phrase(answer.status)
        );
        for (name, value) in &answer.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        if writer.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let _ = writer.flush().await;
        if request.method == "HEAD" {
            continue;
        }
        match (answer.body, served) {
            (AnswerBody::Small(bytes), _) => {
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
            (AnswerBody::Main { from, to }, Some(served)) => {
                let _open = Open::new(&served);
                let sending = send(&mut writer, &served, &hit, from, to);
                // A client that goes away is noticed even when nothing is being sent.
                let gone = async {
                    while reader
                        .read_buf(&mut buffer)
                        .await
                        .is_ok_and(|count| count > 0)
                    {}
                };
                tokio::select! {
                    complete = sending => if !complete { return },
                    () = gone => return,
                }
            }
            (AnswerBody::Main { .. }, None) => return,
        }
        if last {
            let _ = writer.shutdown().await;
            return;
        }
    }
}

/// Counts a running response.
struct Open<'a>(&'a Served);

impl<'a> Open<'a> {
    fn new(served: &'a Served) -> Self {
        served.open.send_modify(|open| *open += 1);
        Self(served)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}

/// Sends a range as the behaviour of the moment says; false when the connection must be closed.
async fn send<W: AsyncWrite + Unpin>(
    writer: &mut W,
    served: &Served,
    hit: &Hit,
    from: u64,
    to: u64,
) -> bool {
    const PIECE: u64 = 64 << 10;
    /// A slowed response moves ten times a second.
    const TICK: Duration = Duration::from_millis(100);
    let mut changes = served.behaviour.subscribe();
    let wrong = served.content.body.len() / 2;
    let mut at = from;
    while at < to {
        let behaviour = changes.borrow_and_update().clone();
        let mut end = to.min(at + PIECE);
        if let Some(cut) = behaviour.cut_at {
            if at >= cut {
                let _ = writer.flush().await;
                return false;
            }
            end = end.min(cut);
        }
        if let Some(hold) = behaviour.hold_at {
            if at >= hold {
                let _ = writer.flush().await;
                if changes.changed().await.is_err() {
                    return false;
                }
                continue;
            }
            end = end.min(hold);
        }
        if let Some(rate) = behaviour.rate {
            end = end.min(at + (rate / 10).max(1));
        }
        let mut piece = served
            .content
            .body
            .piece(at, usize::try_from(end - at).unwrap_or(usize::MAX));
        if behaviour.corrupt && (at..at + piece.len() as u64).contains(&wrong) {
            let mut other = piece.to_vec();
            if let Some(byte) = usize::try_from(wrong - at)
                .ok()
                .and_then(|place| other.get_mut(place))
            {
                *byte ^= 0xff;
            }
            piece = other.into();
        }
        if writer.write_all(&piece).await.is_err() {
            return false;
        }
        at += piece.len() as u64;
        hit.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        if behaviour.rate.is_some() && writer.flush().await.is_ok() {
            let _ = tokio::time::timeout(TICK, changes.changed()).await;
        }
    }
    writer.flush().await.is_ok()
}

fn route(request: &Request, place: Place, inner: &Inner) -> (Answer, Option<Arc<Served>>) {
    let path = request.path.split('?').next().unwrap_or_default();
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let find = |id: &str| {
        inner
            .items
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(id)
            .cloned()
    };
    let (way, id, rest): (&str, &str, &[&str]) = match parts.as_slice() {
        ["v2"] => {
            return (
                Answer::small(200, "{}")
                    .with("docker-distribution-api-version", "registry/2.0")
                    .with("content-type", "application/json"),
                None,
            );
        }
        ["v2", "conformance", id, rest @ ..] => ("registry", id, rest),
        [way, id, "image"] => (way, id, &[]),
        _ => return (Answer::small(404, "no such path"), None),
    };
    let Some(served) = find(id) else {
        return (Answer::small(404, "no such artifact"), None);
    };
    let behaviour = served.behaviour.borrow().clone();
    let answer = answer(request, place, &served, &behaviour, way, rest);
    (answer, Some(served))
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
