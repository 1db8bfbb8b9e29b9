//! What one release in the store is: read from its folder and checked, when it enters and once in each process.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    StoreError, StoreLimits,
    archive::{self, CHART_FILE},
    files::FileList,
    folders,
};
use crate::release::{ReleaseContent, ReleaseName};

/// "Input/output error": the disk has lost what it had.
const EIO: i32 = 5;

/// A release whose files and archives have been checked.
#[derive(Debug)]
pub(super) struct Entry {
    /// Digest of the content, in hexadecimal.
    pub hex: String,
    /// The files, with the paths where they are for good.
    pub content: ReleaseContent,
    /// The chart with the ClusterClass.
    pub class: EntryChart,
    /// The charts of the addons.
    pub addon: EntryAddon,
}

/// The charts of an entry's addons.
#[derive(Debug)]
pub(super) enum EntryAddon {
    None,
    Single(EntryChart),
    Stages(BTreeMap<String, EntryChart>),
}

/// A chart of an entry.
#[derive(Debug)]
pub(super) struct EntryChart {
    /// The archive, or the folder of a stage.
    pub path: PathBuf,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// Digest of the archive, or of the files in the folder.
    pub digest: String,
    /// How messages name it.
    pub label: String,
    /// Whether it may depend on charts that it does not carry.
    pub declares_dependencies: bool,
}

/// Reads the list of a release's files, which lie flat in a folder.
pub(super) fn list_files(
    folder: &Path,
    name: &ReleaseName,
    limits: &StoreLimits,
) -> Result<FileList, StoreError> {
    let failed = |source| StoreError::Read {
        release: name.tag(),
        source,
    };
    let reject = |expected: String, found: String| StoreError::RejectFiles {
        release: name.tag(),
        expected,
        found,
    };
    let (mut paths, mut bytes) = (BTreeMap::new(), 0);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        let shown = archive::shown(&file);
        // the list of files has one line for each
        if entry.file_name().to_str().is_none() || file.chars().any(char::is_control) {
            let expected = "names in UTF-8 without control characters";
            return Err(reject(expected.to_owned(), format!("\"{shown}\"")));
        }
        let metadata = entry.metadata().map_err(failed)?;
        if !metadata.is_file() {
            let found = format!("\"{shown}\", which is something else");
            return Err(reject("only files".to_owned(), found));
        }
        bytes += metadata.len();
        paths.insert(file, entry.path());
        if paths.len() > limits.files {
            let expected = format!("at most {} files", limits.files);
            return Err(reject(expected, "more".to_owned()));
        }
        if bytes > limits.bytes {
            let expected = format!("at most {} bytes", limits.bytes);
            return Err(reject(expected, "more".to_owned()));
        }
    }
    let mut list = FileList::default();
    for (file, path) in paths {
        list.read(file, &path).map_err(failed)?;
    }
    Ok(list)
}

impl Entry {
    /// Checks what was brought to `folder`, unpacks what is rendered from folders, and says what it will be at `place`.
    pub(super) fn make(
        folder: &Path,
        place: &Path,
        files: &FileList,
        name: &ReleaseName,
        limits: &StoreLimits,
    ) -> Result<Self, StoreError> {
        let (entry, _) = Self::read(folder, place, files, name, limits, true)?;
        Ok(entry)
    }

    /// Reads what is in the store and compares all of it with its digest. None if it is not there, not whole or changed.
    ///
    /// # Errors
    ///
    /// It is whole, and no release of this name.
    pub(super) fn verify(
        place: &Path,
        hex: &str,
        name: &ReleaseName,
        limits: &StoreLimits,
    ) -> Result<Option<Self>, StoreError> {
        let files = match list_files(&folders::files(place), name, limits) {
            Ok(files) if files.digest() == hex => files,
            Ok(_) | Err(StoreError::RejectFiles { .. }) => return Ok(None),
            Err(StoreError::Read { source, .. }) if is_lost(&source) => return Ok(None),
            Err(error) => return Err(error),
        };
        let (entry, expected) = Self::read(place, place, &files, name, limits, false)?;
        let found = match folders::present(FileList::read_tree(&folders::addons(place))) {
            Ok(found) => found.unwrap_or_default(),
            Err(source) if is_lost(&source) => return Ok(None),
            Err(source) => {
                return Err(StoreError::Read {
                    release: name.tag(),
                    source,
                });
            }
        };
        Ok((found == expected).then_some(entry))
    }

    /// Also returns the files of the charts that are rendered from folders.
    fn read(
        folder: &Path,
        place: &Path,
        files: &FileList,
        name: &ReleaseName,
        limits: &StoreLimits,
        unpack: bool,
    ) -> Result<(Self, FileList), StoreError> {
        let mut content = ReleaseContent::open(&folders::files(folder), name)?;
        let mut unpacked = FileList::default();
        let class = single(&mut content.class_chart, place, files, limits)?;
        let addon = match &mut content.addon {
            None => EntryAddon::None,
            Some(addon) => match &addon.stages {
                None => EntryAddon::Single(single(&mut addon.chart, place, files, limits)?),
                Some(stages) => {
                    let into = folders::addons(folder);
                    let into = unpack.then_some(into.as_path());
                    let found = archive::check_stages(
                        &addon.chart,
                        &stages.charts(),
                        into,
                        &limits.archive,
                    )?;
                    let file = moved(&mut addon.chart, place);
                    let charts = found.charts.into_iter().map(|(stage, chart)| {
                        let chart = EntryChart {
                            path: folders::addons(place).join(&stage),
                            is_folder: true,
                            digest: named(&found.files.digest_below(&stage)),
                            label: format!("\"{stage}\" in \"{file}\""),
                            declares_dependencies: chart.declares_dependencies,
                        };
                        (stage, chart)
                    });
                    let charts = charts.collect();
                    unpacked = found.files;
                    EntryAddon::Stages(charts)
                }
            },
        };
        let entry = Self {
            hex: files.digest(),
            content,
            class,
            addon,
        };
        Ok((entry, unpacked))
    }

    /// Whether all charts are where they were: somebody may have emptied the folders.
    pub(super) fn is_there(&self) -> bool {
        self.charts().all(|chart| {
            if chart.is_folder {
                chart.path.join(CHART_FILE).exists()
            } else {
                chart.path.exists()
            }
        })
    }

    /// All charts.
    pub(super) fn charts(&self) -> impl Iterator<Item = &EntryChart> {
        let (single, stages) = match &self.addon {
            EntryAddon::None => (None, None),
            EntryAddon::Single(chart) => (Some(chart), None),
            EntryAddon::Stages(charts) => (None, Some(charts.values())),
        };
        let addon = single.into_iter().chain(stages.into_iter().flatten());
        std::iter::once(&self.class).chain(addon)
    }
}

/// An archive with one chart, checked where it is and named where it will be.
fn single(
    path: &mut PathBuf,
    place: &Path,
    files: &FileList,
    limits: &StoreLimits,
) -> Result<EntryChart, StoreError> {
    let found = archive::check_chart(path, &limits.archive)?;
    let file = moved(path, place);
    Ok(EntryChart {
        path: path.clone(),
        is_folder: false,
        digest: named(&files.digest_of(&file).unwrap_or_default()),
        label: format!("\"{file}\""),
        declares_dependencies: found.declares_dependencies,
    })
}

/// Changes the path of a file to the one in its place, and returns its name.
fn moved(path: &mut PathBuf, place: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_owned();
    *path = folders::files(place).join(&file);
    file.to_string_lossy().into_owned()
}

fn named(hex: &str) -> String {
    format!("sha256:{hex}")
}

/// Whether the disk no longer has what it should have, as far as it can tell.
fn is_lost(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidData
    ) || error.raw_os_error() == Some(EIO)
}
