//! Container images made by hand: no base image, no daemon, the same bytes for the same seed.

use std::io::Write;

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// An image with what a registry and an archive need of it.
#[derive(Clone, Debug)]
pub struct Image {
    /// One file of random bytes each, uncompressed.
    pub layers: Vec<Blob>,
    /// The configuration.
    pub config: Blob,
    /// The manifest.
    pub manifest: Blob,
}

/// Bytes and their digest.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The bytes.
    pub bytes: Bytes,
    /// `sha256:<hex>`.
    pub digest: String,
}

impl Blob {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = format!("sha256:{}", hex::encode(Sha256::digest(&bytes)));
        Self { bytes, digest }
    }

    fn described(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

impl Image {
    /// An image with a layer for each size in bytes. It can be loaded, pulled, tagged and have containers, but there is no program to start in it.
    ///
    /// # Errors
    ///
    /// When there is not enough memory.
    pub fn random(seed: u64, layers: &[usize]) -> Result<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let layers = layers
            .iter()
            .enumerate()
            .map(|(number, &size)| {
                let mut content = vec![0; size];
                random.fill_bytes(&mut content);
                Ok(Blob::new(tar(&[(&format!("random-{number}"), &content)])?))
            })
            .collect::<Result<Vec<_>>>()?;
        let ids: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
        let config = Blob::new(
            json!({
                "created": "1970-01-01T00:00:00Z",
                "architecture": architecture(),
                "os": "linux",
                "config": {"Entrypoint": ["/none"], "Labels": {"seed": seed.to_string()}},
                "rootfs": {"type": "layers", "diff_ids": ids},
                "history": vec![json!({"created": "1970-01-01T00:00:00Z"}); layers.len()],
            })
            .to_string(),
        );
        let described: Vec<Value> = layers.iter().map(|layer| layer.described(LAYER)).collect();
        let manifest = Blob::new(
            json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config.described(CONFIG),
                "layers": described,
            })
            .to_string(),
        );
        Ok(Self {
            layers,
            config,
            manifest,
        })
    }

    /// The digest by which a registry knows it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Docker's image id. With the containerd image store it is the manifest's digest.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.config.digest
    }

    /// Bytes of all layers.
    #[must_use]
    pub fn size(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes.len()).sum()
    }

    /// All blobs, the manifest not among them.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.layers.iter().chain([&self.config])
    }

    /// An archive as `docker save` makes it: an OCI layout with `manifest.json`. `names` are the image's names in it (`name:tag`).
    ///
    /// # Errors
    ///
    /// When there is not enough memory.
    pub fn archive(&self, names: &[&str]) -> Result<Vec<u8>> {
        let layers: Vec<String> = self.layers.iter().map(Blob::path).collect();
        let legacy = json!([{"Config": self.config.path(), "RepoTags": names, "Layers": layers}]);
        let described = |name: Option<&&str>| {
            let mut manifest = self.manifest.described(MANIFEST);
            if let Some(name) = name {
                manifest["annotations"] = json!({"io.containerd.image.name": name});
            }
            manifest
        };
        let manifests: Vec<Value> = match names {
            [] => vec![described(None)],
            names => names.iter().map(|name| described(Some(name))).collect(),
        };
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let blobs = self.blobs().chain([&self.manifest]);
        let mut files: Vec<(String, Bytes)> = blobs
            .map(|blob| (blob.path(), blob.bytes.clone()))
            .collect();
        for (name, content) in [
            ("index.json", index),
            ("manifest.json", legacy),
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
        ] {
            files.push((name.to_owned(), Bytes::from(content.to_string())));
        }
        let files: Vec<(&str, &[u8])> = files
            .iter()
            .map(|(name, content)| (name.as_str(), content.as_ref()))
            .collect();
        tar(&files)
    }
}

/// A tar archive in which nothing depends on time or user.
///
/// # Errors
///
/// When a name is too long.
pub fn tar(files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder
            .append_data(&mut header, name, *content)
            .with_context(|| format!("failed to put {name} into an archive"))?;
    }
    builder.into_inner().context("failed to make an archive")
}

/// Compresses, at the speed that costs least.
///
/// # Errors
///
/// When there is not enough memory.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).context("failed to compress")?;
    encoder.finish().context("failed to compress")
}

/// This machine's architecture, as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
