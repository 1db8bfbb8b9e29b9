//! A run: one provider, one artifact server, one record of all calls, and the facts that checks share.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use proto::wire;
use rand::Rng as _;
use tonic::transport::Channel;

use super::{
    artifacts::Store,
    canary::Canaries,
    check::{Verdict, failed, missing, not_applicable},
    client::{As, Line, channel},
    hooks::Hook,
    options::Options,
    recorder::Recorder,
    sample::{self, Format, Kind},
};

/// Which of the sample's targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Good,
    WrongCredentials,
    OtherCredentials,
    Refusing,
    Silent,
    Elsewhere,
}

impl Where {
    const fn name(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::WrongCredentials => "wrongCredentials",
            Self::OtherCredentials => "otherCredentials",
            Self::Refusing => "refusing",
            Self::Silent => "silent",
            Self::Elsewhere => "elsewhere",
        }
    }
}

/// What checks of a run share.
pub(crate) struct Run {
    pub(crate) options: Options,
    /// Random word in all names.
    pub(crate) id: String,
    pub(crate) info: wire::GetProviderInfoResponse,
    /// Place of the target `good`.
    pub(crate) target_id: String,
    pub(crate) store: Store,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) canaries: Canaries,
    formats: Vec<Format>,
    address: RwLock<String>,
    channel: RwLock<Channel>,
    counter: AtomicU64,
    /// Images that could not be removed.
    pub(crate) left: std::sync::Mutex<Vec<String>>,
}

impl Run {
    pub(crate) async fn start(options: Options) -> Result<Self, String> {
        // Whoever runs the suite as a library may have chosen already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let store = Store::start(&options.artifacts).await?;
        let channel = channel(&options.address, options.tls.as_ref(), As::Core)?;
        let id = word(8);
        let canaries = Canaries::new(&options.sample.targets, &id);
        Ok(Self {
            address: RwLock::new(options.address.clone()),
            channel: RwLock::new(channel),
            id,
            info: wire::GetProviderInfoResponse::default(),
            target_id: String::new(),
            store,
            recorder: Arc::default(),
            canaries,
            formats: Vec::new(),
            counter: AtomicU64::new(0),
            left: std::sync::Mutex::default(),
            options,
        })
    }

    /// Asks for the facts that checks need; what is wrong with them is the business of the checks.
    pub(crate) async fn shake_hands(&mut self) -> Result<(), String> {
        let line = self.line("");
        self.info = line
            .call(&wire::GetProviderInfoRequest {
                caller: Some(self.caller("handshake")),
            })
            .await
            .map_err(|status| {
                format!("GetProviderInfo: {}", super::status::Failure::from(&status))
            })?;
        let mut target = self
            .options
            .sample
            .targets
            .good
            .to_wire(self.canaries.word());
        target.target_id.clear();
        let identity = line
            .call(&wire::ValidateTargetRequest {
                caller: Some(self.caller("handshake")),
                target: Some(target),
                spec: None,
            })
            .await
            .map(|response| response.target_identity)
            .unwrap_or_default();
        self.target_id = target_id(&self.info.provider_name, &identity);
        self.formats = if self.options.sample.artifacts.is_empty() {
            let kinds = [
                (wire::ArtifactKind::Http, Kind::Http),
                (wire::ArtifactKind::Oci, Kind::Oci),
            ];
            kinds
                .into_iter()
                .filter(|(kind, _)| self.info.artifact_kinds.contains(&i32::from(*kind)))
                .flat_map(|(_, kind)| {
                    self.info
                        .disk_formats
                        .iter()
                        .filter_map(|format| wire::DiskFormat::try_from(*format).ok())
                        .filter(|format| *format != wire::DiskFormat::Unspecified)
                        .map(move |format| Format { kind, format })
                })
                .collect()
        } else {
            self.options.sample.artifacts.clone()
        };
        Ok(())
    }

    /// Combinations to make artifacts in, the usual one first.
    pub(crate) fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// The usual combination.
    pub(crate) fn format(&self) -> Verdict<Format> {
        self.formats.first().copied().ok_or_else(|| {
            failed(
                "GetProviderInfo",
                "at least one artifact kind and one disk format",
                "none that this suite knows",
            )
        })
    }

    /// A combination over HTTP, for what only exists there.
    pub(crate) fn http_format(&self) -> Verdict<Format> {
        self.formats
            .iter()
            .find(|format| format.kind == Kind::Http)
            .copied()
            .ok_or_else(|| not_applicable("ARTIFACT_KIND_HTTP is not announced"))
    }

    pub(crate) fn advertises(&self, capability: wire::Capability) -> bool {
        self.info.capabilities.contains(&capability.into())
    }

    /// Stops a conditional check of what is not advertised.
    pub(crate) fn needs(&self, capability: wire::Capability) -> Verdict {
        if self.advertises(capability) {
            Ok(())
        } else {
            Err(not_applicable(format!(
                "{} is not advertised",
                capability.as_str_name()
            )))
        }
    }

    pub(crate) fn limits(&self) -> wire::ProviderLimits {
        self.info.limits.unwrap_or_default()
    }

    /// A number that no other part of the run has.
    pub(crate) fn next(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::SeqCst)
    }

    pub(crate) fn caller(&self, installation: &str) -> wire::CallerInfo {
        wire::CallerInfo {
            request_id: uuid::Builder::from_random_bytes(rand::rng().random())
                .into_uuid()
                .to_string(),
            installation_id: format!("conformance-{}-{installation}", self.id),
            core_version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    pub(crate) fn address(&self) -> String {
        self.address
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The provider is at a new address, or behind a new process at the old one.
    pub(crate) fn reconnect(&self, address: Option<&str>) -> Result<(), String> {
        if let Some(address) = address {
            address.clone_into(&mut self.address.write().unwrap_or_else(PoisonError::into_inner));
        }
        let channel = channel(&self.address(), self.options.tls.as_ref(), As::Core)?;
        *self.channel.write().unwrap_or_else(PoisonError::into_inner) = channel;
        Ok(())
    }

    /// The shared connection, for one check.
    pub(crate) fn line(&self, check: &'static str) -> Line {
        Line {
            channel: self
                .channel
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            recorder: self.recorder.clone(),
            check,
            disturbed: false,
        }
    }

    /// The sample's target without a place, as ValidateTarget and ResolveImages want it.
    pub(crate) fn placeless(&self, which: Where) -> Verdict<wire::Target> {
        let targets = &self.options.sample.targets;
        let target: Option<&sample::Target> = match which {
            Where::Good => Some(&targets.good),
            Where::WrongCredentials => targets.wrong_credentials.as_ref(),
            Where::OtherCredentials => targets.other_credentials.as_ref(),
            Where::Refusing => targets.refusing.as_ref(),
            Where::Silent => targets.silent.as_ref(),
            Where::Elsewhere => targets.elsewhere.as_ref(),
        };
        target
            .map(|target| target.to_wire(self.canaries.word()))
            .ok_or_else(|| missing(format!("the sample has no target \"{}\"", which.name())))
    }

    /// The sample's target at the place of `good`.
    pub(crate) fn target(&self, which: Where) -> Verdict<wire::Target> {
        Ok(wire::Target {
            target_id: self.target_id.clone(),
            ..self.placeless(which)?
        })
    }

    pub(crate) async fn hook(&self, hook: Hook, arguments: &[(&str, String)]) -> Verdict<String> {
        if !self.options.hooks.has(hook) {
            return Err(missing(format!("there is no hook \"{}\"", hook.name())));
        }
        self.options
            .hooks
            .call(hook, arguments)
            .await
            .map_err(|error| failed(format!("hook \"{}\"", hook.name()), "it works", error))
    }

    /// Time between two calls for one key.
    pub(crate) fn pace(&self) -> Duration {
        let stated = self
            .limits()
            .min_poll_interval
            .and_then(|interval| Duration::try_from(interval).ok())
            .unwrap_or_default();
        stated.clamp(Duration::from_millis(100), Duration::from_secs(2))
    }
}

/// Random lower-case letters and digits.
pub(crate) fn word(length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut random = rand::rng();
    (0..length)
        .map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())]))
        .collect()
}

/// `target_id` as the core derives it (contract, section 5).
pub(crate) fn target_id(provider: &str, identity: &str) -> String {
    use sha2::Digest as _;
    // A list of two strings has one canonical form, whatever serializer writes it.
    let text = serde_json::json!([provider, identity]).to_string();
    let hash = data_encoding::BASE32_NOPAD
        .encode(&sha2::Sha256::digest(text))
        .to_lowercase();
    format!("t-{}", &hash[..40])
}
