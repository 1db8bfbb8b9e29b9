//! A real OCI registry (the reference server, "distribution") behind a [`Line`], with its files on disk for whoever wants to damage them.
//!
//! ```text
//! client ──► line (slow, silent, cut; counts bytes) ──► docker-registry ──► files
//! ```

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::StatusCode;
use http::header::{ACCEPT, CONTENT_TYPE, LOCATION};
use serde_json::json;

use crate::certificates::Authority;
use crate::image::{Image, MANIFEST};
use crate::line::Line;
use crate::packages::Package;
use crate::ports::Port;
use crate::process::{Process, Program};
use crate::state::State;
use crate::wait::until_ready;

const STOP_PATIENCE: Duration = Duration::from_secs(20);

/// How a registry is started.
#[derive(Debug, Default)]
pub struct Options<'a> {
    /// Names and passwords without which nothing can be read; nobody needs one when there are none.
    pub users: Vec<(String, String)>,
    /// Who signs the certificate; without, it is plain HTTP.
    pub authority: Option<&'a Authority>,
}

/// A running registry; it ends with this value and takes its images along.
#[derive(Debug)]
pub struct Registry {
    line: Line,
    process: Mutex<Option<Process>>,
    client: reqwest::Client,
    users: Vec<(String, String)>,
    scheme: &'static str,
    port: Port,
    state: State,
}

/// A request that the registry has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// `GET`, `HEAD`, ….
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub bytes: u64,
}

impl Registry {
    /// Starts a registry that serves everybody over plain HTTP.
    ///
    /// # Errors
    ///
    /// When there is no registry server to be had or it does not start.
    pub async fn start() -> Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Starts a registry with options.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub async fn start_with(options: Options<'_>) -> Result<Self> {
        crate::install_crypto();
        let state = State::create("registry")?;
        let port = Port::reserve()?;
        let path = |name: &str| state.path().join(name);
        let mut config = json!({
            "version": "0.1",
            "log": {"level": "info", "formatter": "text"},
            "storage": {
                "filesystem": {"rootdirectory": path("data")},
                "delete": {"enabled": true},
            },
            "http": {"addr": port.address(), "secret": "of no use to anybody"},
        });
        let mut client = reqwest::Client::builder().no_proxy();
        if let Some(authority) = options.authority {
            let identity = authority.server(&[])?;
            fs::write(path("tls.crt"), &identity.certificate)?;
            fs::write(path("tls.key"), &identity.key)?;
            config["http"]["tls"] = json!({"certificate": path("tls.crt"), "key": path("tls.key")});
            let root = reqwest::Certificate::from_pem(authority.certificate().as_bytes())?;
            client = client.tls_certs_only([root]);
        }
        if !options.users.is_empty() {
            let lines: Result<Vec<String>> = options
                .users
                .iter()
                .map(|(name, password)| Ok(format!("{name}:{}\n", bcrypt(password)?)))
                .collect();
            fs::write(path("htpasswd"), lines?.concat())?;
            config["auth"] = json!({"htpasswd": {"realm": "registry", "path": path("htpasswd")}});
        }
        // JSON is YAML.
        fs::write(path("config.yml"), config.to_string())
            .context("failed to write the registry's settings")?;
        let registry = Self {
            line: Line::open(SocketAddr::from((Ipv4Addr::LOCALHOST, port.number())))?,
            process: Mutex::new(None),
            client: client.build().context("failed to make a client")?,
            users: options.users,
            scheme: if options.authority.is_some() {
                "https"
            } else {
                "http"
            },
            port,
            state,
        };
        registry.start_again().await?;
        Ok(registry)
    }

    /// Starts the registry after [`stop`](Self::stop), at the same address and with the same images.
    ///
    /// # Errors
    ///
    /// When it runs, or does not start.
    pub async fn start_again(&self) -> Result<()> {
        let programs = Package::Registry.provide_async().await?;
        ensure!(self.process().is_none(), "the registry runs");
        let program = Program::new(
            "docker-registry",
            &programs.path("docker-registry")?,
            &self.log(),
        )
        .arg("serve")
        .arg(self.state.path().join("config.yml").to_string_lossy())
        // It takes every variable that begins with REGISTRY_ for a setting.
        .clear_env();
        let process = Process::start(&program)?;
        let ready = until_ready(&process, async || {
            // Past the line, which is for tests.
            let url = format!("{}://{}/v2/", self.scheme, self.port.address());
            let status = self.client.get(url).send().await?.status();
            ensure!(
                [StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&status),
                "{status}"
            );
            Ok(())
        })
        .await;
        *self.process() = Some(process);
        ready
    }

    /// Ends the registry; its address refuses connections then.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn stop(&self) -> Result<()> {
        let process = self.process().take().context("the registry does not run")?;
        self.line.cut();
        process.stop(STOP_PATIENCE)?;
        Ok(())
    }

    /// `127.0.0.1:<port>`, the first part of a repository's name.
    #[must_use]
    pub fn address(&self) -> String {
        self.line.address().to_string()
    }

    /// `http://127.0.0.1:<port>`, or https.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    /// What lies between clients and the registry.
    #[must_use]
    pub const fn line(&self) -> &Line {
        &self.line
    }

    /// Stores an image in a repository, under a tag if one is given; what is there already is not sent again.
    ///
    /// # Errors
    ///
    /// When the registry refuses it.
    pub async fn push(&self, image: &Image, repository: &str, tag: Option<&str>) -> Result<()> {
        for blob in image.blobs() {
            let begin = self.request(http::Method::POST, &format!("{repository}/blobs/uploads/"));
            let answer = accepted(begin, "begin an upload").await?;
            let location = answer.headers().get(LOCATION);
            let location = location.context("an upload without address")?.to_str()?;
            let mut url: url::Url = location.parse().context("an upload without address")?;
            url.query_pairs_mut().append_pair("digest", &blob.digest);
            let upload = self
                .authorized(self.client.put(url))
                .body(blob.bytes.clone());
            accepted(upload, "store a blob").await?;
        }
        let name = tag.unwrap_or_else(|| image.digest());
        let manifest = self
            .request(http::Method::PUT, &format!("{repository}/manifests/{name}"))
            .header(CONTENT_TYPE, MANIFEST)
            .body(image.manifest.bytes.clone());
        accepted(manifest, "store a manifest").await?;
        Ok(())
    }

    /// Forgets a manifest and the tags that name it; blobs stay.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub async fn delete(&self, repository: &str, digest: &str) -> Result<()> {
        let path = format!("{repository}/manifests/{digest}");
        let request = self
            .request(http::Method::DELETE, &path)
            .header(ACCEPT, MANIFEST);
        accepted(request, "delete a manifest").await?;
        Ok(())
    }

    /// Changes a byte in the middle of a blob on disk.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn corrupt(&self, digest: &str) -> Result<()> {
        let path = self.blob(digest)?;
        let mut bytes = fs::read(&path).with_context(|| format!("no blob {digest}"))?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("an empty blob")? ^= 1;
        fs::write(&path, bytes).context("failed to change a blob")
    }

    /// Removes a blob from the disk, but not from what the registry says it has.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn lose(&self, digest: &str) -> Result<()> {
        fs::remove_file(self.blob(digest)?).with_context(|| format!("no blob {digest}"))
    }

    /// What was answered until now. A request is listed shortly after its answer has ended.
    ///
    /// # Errors
    ///
    /// When the log cannot be read.
    pub fn answered(&self) -> Result<Vec<Answered>> {
        let log = fs::read_to_string(self.log()).context("failed to read the registry's log")?;
        // 127.0.0.1 - - [25/Nov/2026:12:00:00 +0000] "GET /v2/ HTTP/1.1" 200 2 "" "agent"
        Ok(log
            .lines()
            .filter_map(|line| {
                let mut quoted = line.split('"');
                let _client = quoted.next()?;
                let mut request = quoted.next()?.split(' ');
                let mut result = quoted.next()?.split_whitespace();
                Some(Answered {
                    method: request.next()?.to_owned(),
                    path: request
                        .next()
                        .filter(|path| path.starts_with("/v2/"))?
                        .to_owned(),
                    status: result.next()?.parse().ok()?,
                    bytes: result.next()?.parse().ok()?,
                })
            })
            .collect())
    }

    fn request(&self, method: http::Method, path: &str) -> reqwest::RequestBuilder {
        let url = format!("{}/v2/{path}", self.url());
        self.authorized(self.client.request(method, url))
    }

    fn authorized(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match self.users.first() {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    }

    fn blob(&self, digest: &str) -> Result<PathBuf> {
        let hex = digest.strip_prefix("sha256:").context("no digest")?;
        let start = hex.get(..2).context("no digest")?;
        let blobs = self
            .state
            .path()
            .join("data/docker/registry/v2/blobs/sha256");
        Ok(blobs.join(start).join(hex).join("data"))
    }

    fn log(&self) -> PathBuf {
        self.state.path().join("registry.log")
    }

    fn process(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accepted(request: reqwest::RequestBuilder, what: &str) -> Result<reqwest::Response> {
    let answer = request
        .send()
        .await
        .with_context(|| format!("failed to {what}"))?;
    let status = answer.status();
    if !status.is_success() {
        let words = answer.text().await.unwrap_or_default();
        anyhow::bail!("failed to {what}: {status}: {words}");
    }
    Ok(answer)
}

/// The registry takes no other kind of hash; perl, which is on every Debian, makes it with the C library.
fn bcrypt(password: &str) -> Result<String> {
    let salt: String = rand::Rng::sample_iter(rand::rng(), rand::distr::Alphanumeric)
        .take(21)
        .map(char::from)
        .collect();
    let mut perl = Command::new("perl")
        // The last of the 22 characters carries two bits only.
        .args([
            "-e",
            "print crypt(<STDIN>, \"\\$2y\\$04\\$$ARGV[0].\")",
            &salt,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("failed to run perl")?;
    let mut input = perl.stdin.take().context("perl takes no input")?;
    input.write_all(password.as_bytes())?;
    drop(input);
    let output = perl.wait_with_output().context("failed to run perl")?;
    let hash = String::from_utf8(output.stdout).context("perl printed no text")?;
    ensure!(
        hash.starts_with("$2y$"),
        "this machine's C library knows no bcrypt"
    );
    Ok(hash)
}
