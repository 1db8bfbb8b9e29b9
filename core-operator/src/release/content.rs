//! What lies in a release folder, checked against the name of the release.
//!
//! ```text
//! docker-scs-1-30-v0-sha-d2lgujm/
//!   metadata.yaml
//!   docker-scs-1-30-cluster-class-v0-sha.d2lgujm.tgz    version of the tag
//!   docker-scs-1-30-cluster-addon-v0-sha.d2lgujm.tgz    version in metadata.yaml
//!   clusteraddon.yaml           addons in stages: the addon archive holds one chart a stage
//!   cluster-addon-values.yaml   else: it is one chart, and these are its values
//!   node-images.yaml            for the provider
//!   hashes.json                 shown, never a verdict: the hashes describe the author's source folders
//!   topology-*.yaml             examples for people, ignored
//! ```
//!
//! Only small texts are read. Archives are checked where they are unpacked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::addon_stages::{self, AddonStages};
use super::invalid::ReleaseInvalid;
use super::metadata::{self, Metadata};
use super::name::ReleaseName;
use super::yaml::shorten;

/// Values of the addon chart of a release without stages.
pub const VALUES_FILE: &str = "cluster-addon-values.yaml";

/// What the provider needs to know about node images.
pub const NODE_IMAGES_FILE: &str = "node-images.yaml";

/// Hashes of the author's source folders.
pub const HASHES_FILE: &str = "hashes.json";

/// Largest text that is read; real ones have a few kilobytes.
pub const MAX_TEXT_SIZE: u64 = 1024 * 1024;

/// Most hashes that are shown: what the status has room for. Real releases have four.
const MAX_HASHES: usize = 32;

/// The longest of them, in bytes. Real ones have 44.
const MAX_HASH_LENGTH: usize = 256;

/// Names of files that a message lists.
const MAX_LISTED: usize = 5;

/// A release whose folder was found to be complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReleaseContent {
    /// What `metadata.yaml` says.
    pub metadata: Metadata,
    /// Version of Kubernetes as `metadata.yaml` writes it.
    pub kubernetes_version: String,
    /// The chart with the ClusterClass.
    pub class_chart: PathBuf,
    /// The addons, if the release has some.
    pub addon: Option<Addon>,
    /// Text of `node-images.yaml`: only the provider understands it.
    pub node_images: Option<String>,
    /// Content of `hashes.json`.
    pub hashes: Option<BTreeMap<String, String>>,
    /// What the release's author should know.
    pub warnings: Vec<String>,
}

/// The addons of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addon {
    /// The archive: one chart, or with stages one folder for each chart.
    pub chart: PathBuf,
    /// When which chart is applied. Without them the archive is one chart, applied at once.
    pub stages: Option<AddonStages>,
    /// Template of the Helm values for the one chart; charts of stages bring their own.
    pub values: Option<String>,
}

impl ReleaseContent {
    /// Reads and checks a folder. It blocks, for as long as the disk takes for a few small files.
    ///
    /// # Errors
    ///
    /// A file is missing, cannot be read, or says something else than the name of the release.
    pub fn open(folder: &Path, name: &ReleaseName) -> Result<Self, ReleaseInvalid> {
        let text = read_text(folder, metadata::FILE)?
            .ok_or_else(|| lack(folder, metadata::FILE, ".yaml"))?;
        let parsed = Metadata::parse(&text)?;
        let (metadata, mut warnings) = (parsed.value, parsed.warnings);
        agree(&metadata, name)?;
        let class_chart = find(folder, &name.class_chart_file())?;
        let addon = match &metadata.cluster_addon {
            Some(version) => Some(open_addon(
                folder,
                &name.addon_chart_file(version),
                &mut warnings,
            )?),
            None => None,
        };
        Ok(Self {
            kubernetes_version: metadata.kubernetes.clone(),
            metadata,
            class_chart,
            addon,
            node_images: read_text(folder, NODE_IMAGES_FILE)?,
            hashes: read_hashes(folder, &mut warnings),
            warnings,
        })
    }
}

/// The metadata must speak of the release whose name it comes under.
fn agree(metadata: &Metadata, name: &ReleaseName) -> Result<(), ReleaseInvalid> {
    let differ = |field: &str, expected: String, found: String| ReleaseInvalid::RejectValue {
        file: metadata::FILE.to_owned(),
        field: field.to_owned(),
        expected,
        found: format!("\"{}\"", shorten(&found)),
    };
    if metadata.cluster_stack != *name.version() {
        let expected = format!(
            "\"{}\" as in the name of the release",
            name.version().dotted()
        );
        return Err(differ(
            "versions.clusterStack",
            expected,
            metadata.cluster_stack.dotted(),
        ));
    }
    if metadata.kubernetes_minor != name.kubernetes() {
        let expected = format!(
            "a version of \"{}\" as in the name of the release",
            name.kubernetes()
        );
        return Err(differ(
            "versions.kubernetes",
            expected,
            metadata.kubernetes.clone(),
        ));
    }
    Ok(())
}

fn open_addon(
    folder: &Path,
    chart: &str,
    warnings: &mut Vec<String>,
) -> Result<Addon, ReleaseInvalid> {
    let chart = find(folder, chart)?;
    let Some(text) = read_text(folder, addon_stages::FILE)? else {
        return Ok(Addon {
            chart,
            stages: None,
            values: read_text(folder, VALUES_FILE)?,
        });
    };
    let parsed = AddonStages::parse(&text)?;
    warnings.extend(parsed.warnings);
    Ok(Addon {
        chart,
        stages: Some(parsed.value),
        values: None,
    })
}

/// A file of exactly this name: a name that merely contains it may be that of another version.
fn find(folder: &Path, file: &str) -> Result<PathBuf, ReleaseInvalid> {
    let path = folder.join(file);
    match fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(path),
        Ok(_) => Err(lack(folder, file, ".tgz")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(lack(folder, file, ".tgz")),
        Err(source) => Err(ReleaseInvalid::ReadFile {
            file: file.to_owned(),
            source,
        }),
    }
}

/// The error for a missing file, with the files of its kind that are there.
fn lack(folder: &Path, file: &str, kind: &str) -> ReleaseInvalid {
    let mut names: Vec<_> = match fs::read_dir(folder) {
        Ok(entries) => entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect(),
        Err(source) => {
            return ReleaseInvalid::ReadFile {
                file: file.to_owned(),
                source,
            };
        }
    };
    names.retain(|name| name.ends_with(kind));
    names.sort();
    let rest = names.len().saturating_sub(MAX_LISTED);
    let listed: Vec<_> = names
        .iter()
        .take(MAX_LISTED)
        .map(|name| format!("\"{}\"", shorten(name)))
        .collect();
    let found = match (listed.join(", "), rest) {
        (listed, _) if listed.is_empty() => format!("no file \"*{kind}\""),
        (listed, 0) => format!("only {listed}"),
        (listed, rest) => format!("only {listed} and {rest} more"),
    };
    ReleaseInvalid::LackFile {
        file: file.to_owned(),
        found,
    }
}

/// The text of a file, if it is there.
fn read_text(folder: &Path, file: &str) -> Result<Option<String>, ReleaseInvalid> {
    let failed = |source| ReleaseInvalid::ReadFile {
        file: file.to_owned(),
        source,
    };
    let opened = match File::open(folder.join(file)) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(failed(source)),
    };
    let size = opened.metadata().map_err(failed)?.len();
    let mut bytes = Vec::new();
    // The size may change after it was asked for.
    opened
        .take(MAX_TEXT_SIZE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_TEXT_SIZE {
        return Err(ReleaseInvalid::ExceedSize {
            file: file.to_owned(),
            limit: MAX_TEXT_SIZE,
            size,
        });
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(ReleaseInvalid::RejectEncoding {
            file: file.to_owned(),
        }),
    }
}

/// Whatever is wrong with the hashes, the release can be used.
fn read_hashes(folder: &Path, warnings: &mut Vec<String>) -> Option<BTreeMap<String, String>> {
    let text = match read_text(folder, HASHES_FILE) {
        Ok(text) => text?,
        Err(error) => {
            warnings.push(error.to_string());
            return None;
        }
    };
    match serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&text) {
        Ok(hashes) => {
            let hash = |value: serde_json::Value| match value {
                serde_json::Value::String(hash) => hash,
                other => other.to_string(),
            };
            let hashes: BTreeMap<_, _> = hashes
                .into_iter()
                .map(|(name, value)| (name, hash(value)))
                .collect();
            let fits = |text: &String| text.len() <= MAX_HASH_LENGTH;
            let all_fit = hashes.iter().all(|(name, hash)| fits(name) && fits(hash));
            if hashes.len() > MAX_HASHES || !all_fit {
                warnings.push(format!(
                    "\"{HASHES_FILE}\" is not shown: expected at most {MAX_HASHES} texts of {MAX_HASH_LENGTH} bytes, found more"
                ));
                return None;
            }
            Some(hashes)
        }
        Err(error) => {
            let place = (error.line(), error.column());
            warnings.push(format!(
                "\"{HASHES_FILE}\" is no JSON map at line {}, column {}",
                place.0, place.1
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests;
