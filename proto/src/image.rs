//! What an image is to be: bytes, where they are, and how the backend is to present them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use url::Url;

use crate::digest::Digest;
use crate::enumeration::enumeration;
use crate::target::{Secrets, json_len};
use crate::{Invalid, structure, wire};

/// Longest display name, in characters: the working name adds 11, and backends end at 255.
pub const MAX_DISPLAY_NAME: usize = 244;
/// Most mirrors of an artifact.
pub const MAX_URLS: usize = 4;
/// Longest address of an artifact, in bytes.
pub const MAX_URL_BYTES: usize = 2048;
/// Longest OCI repository, in characters.
pub const MAX_REPOSITORY: usize = 512;
/// Largest bundle of certificates, in bytes.
pub const MAX_CA_BUNDLE_BYTES: usize = 256 << 10;
/// Most properties.
pub const MAX_PROPERTIES: usize = 64;
/// Largest properties together, names included, in bytes.
pub const MAX_PROPERTIES_BYTES: usize = 4 << 10;
/// Largest options, in bytes of JSON.
pub const MAX_OPTIONS_BYTES: usize = 16 << 10;

enumeration! {
    /// Compression around the bytes of an image.
    Compression, Compression {
        /// None.
        None = None,
        /// gzip.
        Gzip = Gzip,
        /// xz.
        Xz = Xz,
        /// Zstandard.
        Zstd = Zstd,
        /// bzip2.
        Bzip2 = Bzip2,
    }
}

enumeration! {
    /// Kinds of artifact.
    ArtifactKind, ArtifactKind {
        /// A file behind HTTP(S).
        Http = Http,
        /// A manifest in an OCI registry.
        Oci = Oci,
    }
}

enumeration! {
    /// Formats of the bytes of an image, after decompression.
    DiskFormat, DiskFormat {
        /// QEMU copy-on-write 2.
        Qcow2 = Qcow2,
        /// Plain bytes.
        Raw = Raw,
        /// Disk of `VMware`.
        Vmdk = Vmdk,
        /// Virtual PC disk.
        Vhd = Vhd,
        /// Hyper-V disk.
        Vhdx = Vhdx,
        /// Disk of `VirtualBox`.
        Vdi = Vdi,
        /// Optical disc.
        Iso = Iso,
        /// Virtuozzo disk.
        Ploop = Ploop,
        /// Amazon machine image.
        Ami = Ami,
        /// Amazon kernel image.
        Aki = Aki,
        /// Amazon ramdisk image.
        Ari = Ari,
        /// Container image, not a disk.
        Container = Container,
    }
}

/// A file behind HTTP(S).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSource {
    /// Mirrors of the same bytes, in order of preference.
    pub urls: Vec<Url>,
    /// Certificates to trust for them, in PEM form; empty: those of the system.
    pub ca_bundle_pem: Vec<u8>,
}

/// A manifest in an OCI registry, addressed by the digest of the artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciSource {
    /// Host and path, such as `registry.example.org/images/node`.
    pub repository: String,
    /// Certificates to trust for the registry, in PEM form; empty: those of the system.
    pub ca_bundle_pem: Vec<u8>,
}

/// Where bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// A file behind HTTP(S).
    Http(HttpSource),
    /// A manifest in an OCI registry.
    Oci(OciSource),
}

impl Source {
    /// The kind that a provider announces.
    #[must_use]
    pub const fn kind(&self) -> ArtifactKind {
        match self {
            Self::Http(_) => ArtifactKind::Http,
            Self::Oci(_) => ArtifactKind::Oci,
        }
    }
}

/// Bytes to bring to a target.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Artifact {
    /// Where they are.
    pub source: Source,
    /// Digest of the bytes as served; of the manifest in the case of OCI.
    pub digest: Option<Digest>,
    /// Size as served, in bytes.
    pub size_bytes: Option<u64>,
    /// Compression as served; none in the case of OCI.
    pub compression: Compression,
    /// Digest after decompression.
    pub uncompressed_digest: Option<Digest>,
    /// Credentials for the source: `username`, `password`, `bearer_token`, `registry_config_json`.
    pub secrets: Secrets,
}

impl Artifact {
    /// Bytes about which nothing more is known than where they are.
    #[must_use]
    pub fn new(source: Source, compression: Compression) -> Self {
        Self {
            source,
            digest: None,
            size_bytes: None,
            compression,
            uncompressed_digest: None,
            secrets: Secrets::default(),
        }
    }

    /// A manifest in an OCI registry.
    #[must_use]
    pub fn oci(repository: impl Into<String>, digest: Digest) -> Self {
        let source = Source::Oci(OciSource {
            repository: repository.into(),
            ca_bundle_pem: Vec::new(),
        });
        Self {
            digest: Some(digest),
            ..Self::new(source, Compression::None)
        }
    }

    /// The same, with the digest of the bytes as served.
    #[must_use]
    pub fn with_digest(mut self, digest: Digest) -> Self {
        self.digest = Some(digest);
        self
    }

    /// The same, with the size as served, in bytes.
    #[must_use]
    pub const fn with_size(mut self, bytes: u64) -> Self {
        self.size_bytes = Some(bytes);
        self
    }

    /// The same, with the digest after decompression.
    #[must_use]
    pub fn with_uncompressed_digest(mut self, digest: Digest) -> Self {
        self.uncompressed_digest = Some(digest);
        self
    }

    /// The same, with credentials for the source.
    #[must_use]
    pub fn with_secrets(mut self, secrets: Secrets) -> Self {
        self.secrets = secrets;
        self
    }

    fn check(&self) -> Result<(), Invalid> {
        match &self.source {
            Source::Http(http) => check_http(http).map_err(|invalid| invalid.within("http"))?,
            Source::Oci(oci) => {
                check_oci(oci).map_err(|invalid| invalid.within("oci"))?;
                if self.digest.is_none() {
                    return Err(Invalid::required("digest"));
                }
                if self.compression != Compression::None {
                    return Err(Invalid::field("compression", "is not for OCI manifests"));
                }
            }
        }
        if self
            .size_bytes
            .is_some_and(|bytes| i64::try_from(bytes).is_err())
        {
            return Err(Invalid::too_large("size_bytes", "2^63 - 1"));
        }
        self.secrets.check("source_secrets")
    }

    fn to_wire(&self) -> wire::Artifact {
        wire::Artifact {
            source: Some(match &self.source {
                Source::Http(http) => wire::artifact::Source::Http(wire::HttpSource {
                    urls: http.urls.iter().map(ToString::to_string).collect(),
                    ca_bundle_pem: http.ca_bundle_pem.clone(),
                }),
                Source::Oci(oci) => wire::artifact::Source::Oci(wire::OciSource {
                    repository: oci.repository.clone(),
                    ca_bundle_pem: oci.ca_bundle_pem.clone(),
                }),
            }),
            digest: text(self.digest.as_ref()),
            size_bytes: signed(self.size_bytes.unwrap_or_default()),
            compression: match self.source {
                Source::Http(_) => self.compression.number(),
                Source::Oci(_) => 0,
            },
            uncompressed_digest: text(self.uncompressed_digest.as_ref()),
            source_secrets: self.secrets.to_wire(),
        }
    }

    fn read(message: wire::Artifact) -> Result<Self, Invalid> {
        let source = match message.source {
            None => return Err(Invalid::required("source")),
            Some(wire::artifact::Source::Http(http)) => Source::Http(HttpSource {
                urls: http
                    .urls
                    .iter()
                    .map(|url| read_url(url))
                    .collect::<Result<_, _>>()
                    .map_err(|invalid| invalid.within("http"))?,
                ca_bundle_pem: http.ca_bundle_pem,
            }),
            Some(wire::artifact::Source::Oci(oci)) => Source::Oci(OciSource {
                repository: oci.repository,
                ca_bundle_pem: oci.ca_bundle_pem,
            }),
        };
        let compression = match (message.compression, source.kind()) {
            (0, ArtifactKind::Oci) => Compression::None,
            (0, ArtifactKind::Http) => return Err(Invalid::required("compression")),
            (number, _) => Compression::from_number(number)
                .ok_or_else(|| Invalid::unsupported("compression", "is not known here"))?,
        };
        let artifact = Self {
            source,
            digest: read_digest(&message.digest, "digest")?,
            size_bytes: Some(unsigned(message.size_bytes, "size_bytes")?).filter(|size| *size > 0),
            compression,
            uncompressed_digest: read_digest(&message.uncompressed_digest, "uncompressed_digest")?,
            secrets: message.source_secrets.into_iter().collect(),
        };
        artifact.check()?;
        Ok(artifact)
    }
}

/// What an image is to be. Immutable under one key.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct ImageSpec {
    /// The name by which templates find the image. No identity.
    pub display_name: String,
    /// The bytes.
    pub artifact: Artifact,
    /// Format of the bytes after decompression.
    pub disk_format: DiskFormat,
    /// Smallest disk that can boot it, in bytes; zero: no statement.
    pub min_disk_bytes: u64,
    /// Properties for the backend.
    pub properties: BTreeMap<String, String>,
    /// The provider's own options, made by its `resolve_images`.
    pub options: Map<String, Value>,
}

impl ImageSpec {
    /// An image without properties and options.
    #[must_use]
    pub fn new(display_name: impl Into<String>, artifact: Artifact, format: DiskFormat) -> Self {
        Self {
            display_name: display_name.into(),
            artifact,
            disk_format: format,
            min_disk_bytes: 0,
            properties: BTreeMap::new(),
            options: Map::new(),
        }
    }

    /// The same for disks of at least this size, in bytes.
    #[must_use]
    pub const fn with_min_disk(mut self, bytes: u64) -> Self {
        self.min_disk_bytes = bytes;
        self
    }

    /// The same with a property for the backend.
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.properties.insert(name.into(), value.into());
        self
    }

    /// The same with options of the provider's own.
    #[must_use]
    pub fn with_options(mut self, options: Map<String, Value>) -> Self {
        self.options = options;
        self
    }

    /// Where the bytes are, if that is an OCI registry.
    #[must_use]
    pub const fn oci(&self) -> Option<&OciSource> {
        match &self.artifact.source {
            Source::Oci(source) => Some(source),
            Source::Http(_) => None,
        }
    }

    /// Where the bytes are, if that is a file behind HTTP(S).
    #[must_use]
    pub const fn http(&self) -> Option<&HttpSource> {
        match &self.artifact.source {
            Source::Http(source) => Some(source),
            Source::Oci(_) => None,
        }
    }

    /// Whether the spec keeps to the limits of the contract.
    ///
    /// # Errors
    ///
    /// The field that does not.
    pub fn check(&self) -> Result<(), Invalid> {
        check_display_name(&self.display_name)?;
        self.artifact
            .check()
            .map_err(|invalid| invalid.within("artifact"))?;
        if i64::try_from(self.min_disk_bytes).is_err() {
            return Err(Invalid::too_large("min_disk_bytes", "2^63 - 1"));
        }
        if self.properties.len() > MAX_PROPERTIES {
            return Err(Invalid::too_large(
                "properties",
                format!("{MAX_PROPERTIES} entries"),
            ));
        }
        let bytes: usize = self
            .properties
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if bytes > MAX_PROPERTIES_BYTES {
            return Err(Invalid::too_large(
                "properties",
                format!("{} KiB", MAX_PROPERTIES_BYTES >> 10),
            ));
        }
        if json_len(&self.options) > MAX_OPTIONS_BYTES {
            return Err(Invalid::too_large(
                "options",
                format!("{} KiB", MAX_OPTIONS_BYTES >> 10),
            ));
        }
        Ok(())
    }

    /// As it travels.
    ///
    /// # Errors
    ///
    /// A limit of the contract is exceeded.
    pub fn to_wire(&self) -> Result<wire::ImageSpec, Invalid> {
        self.check()?;
        Ok(wire::ImageSpec {
            display_name: self.display_name.clone(),
            artifact: Some(self.artifact.to_wire()),
            disk_format: self.disk_format.number(),
            min_disk_bytes: signed(self.min_disk_bytes),
            properties: self.properties.clone(),
            options: (!self.options.is_empty()).then(|| structure::write(&self.options)),
        })
    }

    /// Canonical form 1: what makes two wishes equal (contract, section 5). Never changes under its number.
    pub(crate) fn canonical(&self) -> Value {
        let mut form = Map::new();
        let mut put = |name: &str, value: Value| {
            let empty = match &value {
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(object) => object.is_empty(),
                _ => false,
            };
            if !empty {
                form.insert(name.to_owned(), value);
            }
        };
        put("form", json!("1"));
        put("display_name", json!(self.display_name));
        let artifact = &self.artifact;
        match (&artifact.source, &artifact.digest) {
            (Source::Http(_), _) => put("kind", json!("http")),
            (Source::Oci(_), _) => put("kind", json!("oci")),
        }
        match (&artifact.digest, &artifact.source) {
            (Some(digest), _) => put("digest", json!(digest.to_string())),
            (None, Source::Http(http)) => {
                let mut urls: Vec<_> = http.urls.iter().map(Url::as_str).collect();
                urls.sort_unstable();
                put("urls", json!(urls));
            }
            (None, Source::Oci(_)) => {}
        }
        let number = |number: u64| match number {
            0 => Value::String(String::new()),
            number => Value::String(number.to_string()),
        };
        put(
            "size_bytes",
            number(artifact.size_bytes.unwrap_or_default()),
        );
        if artifact.source.kind() == ArtifactKind::Http {
            put("compression", json!(artifact.compression.name()));
        }
        put(
            "uncompressed_digest",
            json!(text(artifact.uncompressed_digest.as_ref())),
        );
        put("disk_format", json!(self.disk_format.name()));
        put("min_disk_bytes", number(self.min_disk_bytes));
        put("properties", json!(self.properties));
        put("options", Value::Object(self.options.clone()));
        Value::Object(form)
    }
}

impl TryFrom<wire::ImageSpec> for ImageSpec {
    type Error = Invalid;

    fn try_from(message: wire::ImageSpec) -> Result<Self, Invalid> {
        let artifact = message
            .artifact
            .ok_or_else(|| Invalid::required("artifact"))?;
        let disk_format = match message.disk_format {
            0 => return Err(Invalid::required("disk_format")),
            number => DiskFormat::from_number(number)
                .ok_or_else(|| Invalid::unsupported("disk_format", "is not known here"))?,
        };
        let spec = Self {
            display_name: message.display_name,
            artifact: Artifact::read(artifact).map_err(|invalid| invalid.within("artifact"))?,
            disk_format,
            min_disk_bytes: unsigned(message.min_disk_bytes, "min_disk_bytes")?,
            properties: message.properties,
            options: structure::read(message.options.unwrap_or_default(), "options")?,
        };
        spec.check()?;
        Ok(spec)
    }
}

fn check_display_name(name: &str) -> Result<(), Invalid> {
    if name.is_empty() {
        return Err(Invalid::required("display_name"));
    }
    if name.chars().count() > MAX_DISPLAY_NAME {
        return Err(Invalid::field(
            "display_name",
            format!("must have at most {MAX_DISPLAY_NAME} characters"),
        ));
    }
    if name.chars().any(char::is_control) {
        return Err(Invalid::field(
            "display_name",
            "must not hold control characters, such as line breaks",
        ));
    }
    Ok(())
}

fn check_http(http: &HttpSource) -> Result<(), Invalid> {
    match http.urls.len() {
        0 => return Err(Invalid::required("urls")),
        1..=MAX_URLS => {}
        _ => {
            return Err(Invalid::field(
                "urls",
                format!("must have at most {MAX_URLS} entries"),
            ));
        }
    }
    for url in &http.urls {
        check_url(url)?;
    }
    check_ca_bundle(&http.ca_bundle_pem)
}

fn read_url(text: &str) -> Result<Url, Invalid> {
    if text.len() > MAX_URL_BYTES {
        return Err(Invalid::too_large("urls", format!("{MAX_URL_BYTES} bytes")));
    }
    Url::parse(text)
        .map_err(|error| Invalid::field("urls", format!("must hold addresses: {error}")))
}

fn check_url(url: &Url) -> Result<(), Invalid> {
    if !matches!(url.scheme(), "https" | "http") {
        return Err(Invalid::field("urls", "must be https or http addresses"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Invalid::field(
            "urls",
            "must not hold a user or password: credentials belong into source_secrets",
        ));
    }
    if url.as_str().len() > MAX_URL_BYTES {
        return Err(Invalid::too_large("urls", format!("{MAX_URL_BYTES} bytes")));
    }
    Ok(())
}

fn check_oci(oci: &OciSource) -> Result<(), Invalid> {
    let repository = oci.repository.as_str();
    if repository.is_empty() {
        return Err(Invalid::required("repository"));
    }
    if repository.chars().count() > MAX_REPOSITORY {
        return Err(Invalid::field(
            "repository",
            format!("must have at most {MAX_REPOSITORY} characters"),
        ));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:[]".contains(c);
    let named = repository
        .split_once('/')
        .is_some_and(|(host, path)| !host.is_empty() && !path.is_empty() && !path.contains(':'));
    if !named || !repository.chars().all(plain) {
        return Err(Invalid::field(
            "repository",
            "must be a registry host and a path, without tag and digest",
        ));
    }
    check_ca_bundle(&oci.ca_bundle_pem)
}

fn check_ca_bundle(pem: &[u8]) -> Result<(), Invalid> {
    if pem.len() > MAX_CA_BUNDLE_BYTES {
        return Err(Invalid::too_large(
            "ca_bundle_pem",
            format!("{} KiB", MAX_CA_BUNDLE_BYTES >> 10),
        ));
    }
    Ok(())
}

fn read_digest(text: &str, field: &str) -> Result<Option<Digest>, Invalid> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse()
        .map(Some)
        .map_err(|error| Invalid::field(field, format!("is no digest: {error}")))
}

fn text(digest: Option<&Digest>) -> String {
    digest.map(ToString::to_string).unwrap_or_default()
}

/// A size of a message.
pub(crate) fn unsigned(number: i64, field: &str) -> Result<u64, Invalid> {
    u64::try_from(number).map_err(|_negative| Invalid::field(field, "must not be negative"))
}

/// A size for a message; what is larger than any disk becomes the largest.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
