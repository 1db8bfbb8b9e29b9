//! The handshake: who a provider is, what it speaks, what it can do.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use crate::enumeration::enumeration;
use crate::image::{ArtifactKind, DiskFormat, signed, unsigned};
use crate::time::{read_length, write_length};
use crate::{Invalid, wire};

/// Largest schema of the settings, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 256 << 10;
/// Most secret keys.
pub const MAX_SECRET_KEYS: usize = 64;
/// Most values in each of the other lists: far more than there are.
const MAX_LIST: usize = 256;

enumeration! {
    /// Optional behaviours of a provider.
    Capability, Capability {
        /// Sent by every provider that advertises at all.
        Advertised = Advertised,
        /// Images can be listed.
        List = List,
        /// An interrupted transfer continues where it was.
        Resume = Resume,
        /// Bytes can be read back and hashed.
        VerifyContent = VerifyContent,
        /// The backend, not the provider process, fetches the bytes.
        BackendFetch = BackendFetch,
        /// Matching images without marker can be taken over.
        Adopt = Adopt,
    }
}

/// A secret that a target may or must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// Its name, of `[A-Za-z0-9._-]`.
    pub name: String,
    /// Whether every target needs it.
    pub required: bool,
    /// For people.
    pub description: String,
}

/// Limits of a provider; absent: no statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Transfers that may run at once.
    pub max_concurrent_transfers: Option<u32>,
    /// Largest artifact, in bytes.
    pub max_artifact_bytes: Option<u64>,
    /// Shortest useful interval between two calls for one key.
    pub min_poll_interval: Option<Duration>,
}

/// What a provider says about itself.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ProviderInfo {
    /// Name, fixed for the life of the product: at most 63 of `[a-z0-9.-]`.
    pub name: String,
    /// Semantic version of the build.
    pub version: String,
    /// Random for each process.
    pub instance_id: String,
    /// Packages of the contract that it serves.
    pub contract_versions: Vec<String>,
    /// Optional behaviours.
    pub capabilities: BTreeSet<Capability>,
    /// Behaviours of later versions, by their numbers.
    pub later_capabilities: BTreeSet<i32>,
    /// Kinds of artifact that it accepts.
    pub artifact_kinds: BTreeSet<ArtifactKind>,
    /// Disk formats that it accepts.
    pub disk_formats: BTreeSet<DiskFormat>,
    /// JSON Schema of the settings of a target.
    pub config_schema: Value,
    /// Secrets that a target may or must have.
    pub secret_keys: Vec<SecretKey>,
    /// Limits.
    pub limits: Limits,
}

impl ProviderInfo {
    /// A provider of this version of the contract, with no capability and any settings.
    #[must_use]
    pub fn new(name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            instance_id: String::new(),
            contract_versions: vec![wire::PACKAGE.to_owned()],
            capabilities: BTreeSet::from([Capability::Advertised]),
            later_capabilities: BTreeSet::new(),
            artifact_kinds: BTreeSet::new(),
            disk_formats: BTreeSet::new(),
            config_schema: serde_json::json!({ "type": "object" }),
            secret_keys: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// The same with an optional behaviour.
    #[must_use]
    pub fn with_capability(mut self, capability: Capability) -> Self {
        self.capabilities.insert(capability);
        self
    }

    /// The same, accepting a kind of artifact.
    #[must_use]
    pub fn with_artifact_kind(mut self, kind: ArtifactKind) -> Self {
        self.artifact_kinds.insert(kind);
        self
    }

    /// The same, accepting a disk format.
    #[must_use]
    pub fn with_disk_format(mut self, format: DiskFormat) -> Self {
        self.disk_formats.insert(format);
        self
    }

    /// The same with a JSON Schema for the settings of targets.
    #[must_use]
    pub fn with_config_schema(mut self, schema: Value) -> Self {
        self.config_schema = schema;
        self
    }

    /// The same with a secret that a target may (or must) have.
    #[must_use]
    pub fn with_secret_key(
        mut self,
        name: impl Into<String>,
        required: bool,
        description: impl Into<String>,
    ) -> Self {
        self.secret_keys.push(SecretKey {
            name: name.into(),
            required,
            description: description.into(),
        });
        self
    }

    /// The same with limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether it has an optional behaviour.
    #[must_use]
    pub fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    fn check(&self) -> Result<(), Invalid> {
        let plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-');
        if self.name.is_empty() {
            return Err(Invalid::required("provider_name"));
        }
        if self.name.len() > 63 || !self.name.bytes().all(plain) {
            return Err(Invalid::field(
                "provider_name",
                "must be at most 63 of [a-z0-9.-]",
            ));
        }
        for (field, text) in [
            ("provider_version", &self.version),
            ("instance_id", &self.instance_id),
        ] {
            if text.is_empty() {
                return Err(Invalid::required(field));
            }
            if text.chars().count() > 64 {
                return Err(Invalid::too_large(field, "64 characters"));
            }
        }
        if self.contract_versions.is_empty() {
            return Err(Invalid::required("contract_versions"));
        }
        if self.artifact_kinds.is_empty() {
            return Err(Invalid::required("artifact_kinds"));
        }
        if self.disk_formats.is_empty() {
            return Err(Invalid::required("disk_formats"));
        }
        if self.secret_keys.len() > MAX_SECRET_KEYS {
            return Err(Invalid::too_large(
                "secret_keys",
                format!("{MAX_SECRET_KEYS} entries"),
            ));
        }
        Ok(())
    }

    /// As it travels.
    ///
    /// # Errors
    ///
    /// A required field is missing, or a limit of the contract is exceeded.
    pub fn to_wire(&self) -> Result<wire::GetProviderInfoResponse, Invalid> {
        self.check()?;
        let schema = self.config_schema.to_string();
        if schema.len() > MAX_SCHEMA_BYTES {
            return Err(Invalid::too_large(
                "config_schema_json",
                format!("{} KiB", MAX_SCHEMA_BYTES >> 10),
            ));
        }
        Ok(wire::GetProviderInfoResponse {
            provider_name: self.name.clone(),
            provider_version: self.version.clone(),
            instance_id: self.instance_id.clone(),
            contract_versions: self.contract_versions.clone(),
            capabilities: self
                .capabilities
                .iter()
                .map(|capability| capability.number())
                .chain(self.later_capabilities.iter().copied())
                .collect(),
            artifact_kinds: self
                .artifact_kinds
                .iter()
                .map(|kind| kind.number())
                .collect(),
            disk_formats: self
                .disk_formats
                .iter()
                .map(|format| format.number())
                .collect(),
            config_schema_json: schema,
            secret_keys: self
                .secret_keys
                .iter()
                .map(|key| wire::SecretKey {
                    name: key.name.clone(),
                    required: key.required,
                    description: key.description.clone(),
                })
                .collect(),
            limits: Some(wire::ProviderLimits {
                max_concurrent_transfers: self
                    .limits
                    .max_concurrent_transfers
                    .map(|most| i32::try_from(most).unwrap_or(i32::MAX))
                    .unwrap_or_default(),
                max_artifact_bytes: signed(self.limits.max_artifact_bytes.unwrap_or_default()),
                min_poll_interval: self.limits.min_poll_interval.map(write_length),
            }),
        })
    }
}

impl TryFrom<wire::GetProviderInfoResponse> for ProviderInfo {
    type Error = Invalid;

    fn try_from(message: wire::GetProviderInfoResponse) -> Result<Self, Invalid> {
        for (field, length) in [
            ("contract_versions", message.contract_versions.len()),
            ("capabilities", message.capabilities.len()),
            ("artifact_kinds", message.artifact_kinds.len()),
            ("disk_formats", message.disk_formats.len()),
        ] {
            if length > MAX_LIST {
                return Err(Invalid::too_large(field, format!("{MAX_LIST} entries")));
            }
        }
        if message.config_schema_json.len() > MAX_SCHEMA_BYTES {
            return Err(Invalid::too_large(
                "config_schema_json",
                format!("{} KiB", MAX_SCHEMA_BYTES >> 10),
            ));
        }
        let config_schema = serde_json::from_str(&message.config_schema_json).map_err(|error| {
            Invalid::field("config_schema_json", format!("is not JSON: {error}"))
        })?;
        // What was never set is no capability; what this version does not know is one of a later version.
        let numbers = message
            .capabilities
            .iter()
            .copied()
            .filter(|number| *number != 0);
        let (known, later): (Vec<i32>, Vec<i32>) =
            numbers.partition(|number| Capability::from_number(*number).is_some());
        let info = Self {
            name: message.provider_name,
            version: message.provider_version,
            instance_id: message.instance_id,
            contract_versions: message.contract_versions,
            capabilities: known
                .into_iter()
                .filter_map(Capability::from_number)
                .collect(),
            later_capabilities: later.into_iter().collect(),
            artifact_kinds: message
                .artifact_kinds
                .into_iter()
                .filter_map(ArtifactKind::from_number)
                .collect(),
            disk_formats: message
                .disk_formats
                .into_iter()
                .filter_map(DiskFormat::from_number)
                .collect(),
            config_schema,
            secret_keys: message
                .secret_keys
                .into_iter()
                .map(|key| SecretKey {
                    name: key.name,
                    required: key.required,
                    description: key.description,
                })
                .collect(),
            limits: read_limits(message.limits.unwrap_or_default())
                .map_err(|invalid| invalid.within("limits"))?,
        };
        info.check()?;
        Ok(info)
    }
}

fn read_limits(message: wire::ProviderLimits) -> Result<Limits, Invalid> {
    let transfers = u32::try_from(message.max_concurrent_transfers)
        .map_err(|_negative| Invalid::field("max_concurrent_transfers", "must not be negative"))?;
    let bytes = unsigned(message.max_artifact_bytes, "max_artifact_bytes")?;
    Ok(Limits {
        max_concurrent_transfers: Some(transfers).filter(|most| *most > 0),
        max_artifact_bytes: Some(bytes).filter(|most| *most > 0),
        min_poll_interval: read_length(message.min_poll_interval, "min_poll_interval")?
            .filter(|interval| !interval.is_zero()),
    })
}
