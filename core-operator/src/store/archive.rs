//! Archives of charts: walked once, and refused if they could harm whoever reads them.
//!
//! ```text
//! class chart, single addon        addons in stages
//!   <folder>/Chart.yaml              cni/Chart.yaml       one folder for each stage,
//!   <folder>/templates/…             cni/charts/…         written out as they are walked
//!                                    metrics/Chart.yaml
//! ```
//!
//! Nothing is written but what a check has passed, and nothing outside of the folder that was asked for. Memory does
//! not grow with the archive. Everything blocks.

mod error;
mod names;
mod reader;
mod walk;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

pub use error::ArchiveInvalid;
pub(super) use names::shown;

use super::files::FileList;
use crate::release::yaml;
use walk::{Refusal, Visit, walk};

/// Name of the file that makes a folder a chart.
pub(super) const CHART_FILE: &str = "Chart.yaml";

/// Where charts of the old format declare dependencies.
const REQUIREMENTS_FILE: &str = "requirements.yaml";

/// The largest `Chart.yaml`; real ones have a few kilobytes.
const CHART_FILE_BYTES: usize = 1 << 20;

/// Folders that a message names.
const MAX_LISTED: usize = 5;

/// How large archives of charts may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveLimits {
    /// Entries, folders included. cilium has 200, kube-prometheus-stack 300.
    pub entries: usize,
    /// Bytes that an archive may have when it is unpacked, with the archive's own structure: what Helm allows a chart.
    pub unpacked_bytes: u64,
    /// Bytes of an entry's path.
    pub name_bytes: usize,
    /// Folders above an entry.
    pub depth: usize,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            unpacked_bytes: 100 << 20,
            name_bytes: 1024,
            depth: 32,
        }
    }
}

/// What a walk has found out about a chart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Found {
    /// Whether the chart names other charts, which it may carry or not; only Helm can tell.
    pub declares_dependencies: bool,
}

/// The charts of an archive with stages, by folder.
#[derive(Debug, Default)]
pub(super) struct FoundStages {
    /// Every file of these charts.
    pub files: FileList,
    /// By folder.
    pub charts: BTreeMap<String, Found>,
}

/// Checks an archive that holds one chart.
///
/// # Errors
///
/// It is none, or exceeds a limit, or the disk does not give it.
pub(super) fn check_chart(path: &Path, limits: &ArchiveLimits) -> Result<Found, ArchiveInvalid> {
    let mut visit = SingleChart::default();
    let file = walk(path, limits, &mut visit)?;
    match (visit.folder, visit.facts.chart) {
        (Some(_), Some(text)) => Ok(found(&file, &text, visit.facts.requirements)),
        (folder, _) => Err(ArchiveInvalid::LackEntry {
            entry: match &folder {
                Some(folder) => format!("{folder}/{CHART_FILE}"),
                None => CHART_FILE.to_owned(),
            },
            found: match folder {
                Some(_) => "a folder without it".to_owned(),
                None => "no file at all".to_owned(),
            },
            file,
        }),
    }
}

/// Checks an archive that holds one chart for each stage, and writes those charts to `unpack_into`.
///
/// What belongs to no stage is checked and left out.
///
/// # Errors
///
/// It is none, a chart is not there, a limit is exceeded, or the disk fails.
pub(super) fn check_stages(
    path: &Path,
    stages: &BTreeSet<&str>,
    unpack_into: Option<&Path>,
    limits: &ArchiveLimits,
) -> Result<FoundStages, ArchiveInvalid> {
    let mut visit = Stages {
        names: stages,
        unpack_into,
        files: FileList::default(),
        facts: BTreeMap::new(),
        folders: BTreeSet::new(),
        current: None,
    };
    let file = walk(path, limits, &mut visit)?;
    let mut charts = BTreeMap::new();
    for &stage in stages {
        let facts = visit.facts.remove(stage).unwrap_or_default();
        let Some(text) = facts.chart else {
            return Err(ArchiveInvalid::LackEntry {
                file,
                entry: format!("{stage}/{CHART_FILE}"),
                found: listed(&visit.folders),
            });
        };
        let name = format!("{file}: {stage}/{CHART_FILE}");
        charts.insert(stage.to_owned(), found(&name, &text, facts.requirements));
    }
    Ok(FoundStages {
        files: visit.files,
        charts,
    })
}

/// What is kept of a chart's files.
#[derive(Debug, Default)]
struct Facts {
    chart: Option<Vec<u8>>,
    requirements: bool,
}

fn found(file: &str, text: &[u8], requirements: bool) -> Found {
    #[derive(Deserialize)]
    struct ChartFile {
        dependencies: Option<Vec<IgnoredAny>>,
    }

    let text = String::from_utf8_lossy(text);
    let declared = match yaml::parse::<ChartFile>(file, &text) {
        Ok(parsed) => parsed
            .value
            .dependencies
            .is_some_and(|declared| !declared.is_empty()),
        // Helm reads it its own way, and finds the words if it cannot.
        Err(_) => true,
    };
    Found {
        declares_dependencies: declared || requirements,
    }
}

fn listed(folders: &BTreeSet<String>) -> String {
    if folders.is_empty() {
        return "no folder".to_owned();
    }
    let names: Vec<_> = folders
        .iter()
        .take(MAX_LISTED)
        .map(|name| format!("\"{}\"", shown(name)))
        .collect();
    let more = match folders.len().saturating_sub(MAX_LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("only {}{more}", names.join(", "))
}

/// Keeps the text of `Chart.yaml` while it passes by.
fn keep(text: &mut Option<Vec<u8>>, part: &[u8]) -> Result<(), Refusal> {
    let text = text.get_or_insert_default();
    if text.len() + part.len() > CHART_FILE_BYTES {
        return Err(Refusal::reject(
            format!("at most {CHART_FILE_BYTES} bytes"),
            "more",
        ));
    }
    text.extend_from_slice(part);
    Ok(())
}

/// One chart in one folder, whose name means nothing.
#[derive(Debug, Default)]
struct SingleChart {
    folder: Option<String>,
    facts: Facts,
    in_chart_file: bool,
}

impl Visit for SingleChart {
    /// Helm drops the first part of every path: the "." in place of the folder.
    fn takes_dots(&self) -> bool {
        false
    }

    fn begin(&mut self, path: &str) -> Result<(), Refusal> {
        let Some((folder, rest)) = path.split_once('/') else {
            return Err(Refusal::reject(
                "everything in the chart's folder",
                "a file beside it",
            ));
        };
        match &self.folder {
            Some(known) if known != folder => {
                return Err(Refusal::reject(
                    format!("one folder, \"{}\"", shown(known)),
                    "another one",
                ));
            }
            Some(_) => {}
            None => self.folder = Some(folder.to_owned()),
        }
        self.in_chart_file = rest == CHART_FILE;
        if self.in_chart_file {
            self.facts.chart = Some(Vec::new());
        }
        self.facts.requirements |= rest == REQUIREMENTS_FILE;
        Ok(())
    }

    fn part(&mut self, part: &[u8]) -> Result<(), Refusal> {
        if self.in_chart_file {
            keep(&mut self.facts.chart, part)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Helm takes a link in an archive for an empty file.
    fn link(&mut self, path: &str) -> Result<(), Refusal> {
        self.begin(path)
    }
}

/// One chart for each stage.
struct Stages<'a> {
    names: &'a BTreeSet<&'a str>,
    unpack_into: Option<&'a Path>,
    files: FileList,
    facts: BTreeMap<String, Facts>,
    /// Top folders that are there, for messages.
    folders: BTreeSet<String>,
    current: Option<Current>,
}

/// The file that is being read.
struct Current {
    path: String,
    stage: String,
    in_chart_file: bool,
    output: Option<File>,
    size: u64,
    hasher: Sha256,
}

impl Visit for Stages<'_> {
    fn takes_dots(&self) -> bool {
        true
    }

    fn begin(&mut self, path: &str) -> Result<(), Refusal> {
        self.current = None;
        let Some((stage, rest)) = path.split_once('/') else {
            return Ok(()); // `.helmignore` of the author's folder
        };
        if self.folders.len() <= MAX_LISTED || self.names.contains(stage) {
            self.folders.insert(stage.to_owned());
        }
        if !self.names.contains(stage) {
            return Ok(());
        }
        let facts = self.facts.entry(stage.to_owned()).or_default();
        facts.requirements |= rest == REQUIREMENTS_FILE;
        let in_chart_file = rest == CHART_FILE;
        if in_chart_file {
            facts.chart = Some(Vec::new());
        }
        let output = match self.unpack_into {
            Some(folder) => Some(create(&folder.join(path)).map_err(Refusal::Write)?),
            None => None,
        };
        self.current = Some(Current {
            path: path.to_owned(),
            stage: stage.to_owned(),
            in_chart_file,
            output,
            size: 0,
            hasher: Sha256::new(),
        });
        Ok(())
    }

    fn part(&mut self, part: &[u8]) -> Result<(), Refusal> {
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.size += part.len() as u64;
        current.hasher.update(part);
        if let Some(output) = &mut current.output {
            output.write_all(part).map_err(Refusal::Write)?;
        }
        if current.in_chart_file
            && let Some(facts) = self.facts.get_mut(&current.stage)
        {
            keep(&mut facts.chart, part)?;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), Refusal> {
        if let Some(current) = self.current.take() {
            let digest = current.hasher.finalize().into();
            self.files.insert(current.path, current.size, digest);
        }
        Ok(())
    }

    /// The charts are rendered from folders, and links in a folder could lead anywhere: the renderer refuses them.
    fn link(&mut self, path: &str) -> Result<(), Refusal> {
        match path.split_once('/') {
            Some((stage, _)) if self.names.contains(stage) => {
                Err(Refusal::reject("files and folders", "a link"))
            }
            _ => Ok(()),
        }
    }
}

/// A new file, with the folders above it.
fn create(path: &PathBuf) -> std::io::Result<File> {
    match File::create_new(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            File::create_new(path)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests;
