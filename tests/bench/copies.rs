//! Releases with the same content under names of their own.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use core_operator::release::ReleaseName;
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use tests::stacks::StackRelease;

/// A release in a folder of releases.
#[derive(Clone, Debug)]
pub struct Copy {
    pub name: ReleaseName,
    pub provider: String,
    pub stack: String,
}

/// Writes copies of the project's own example to `folder`.
pub fn of_example(folder: &Path, count: usize) -> Result<Vec<Copy>> {
    let written = StackRelease::example("docker-example").write_copies_to(folder, count)?;
    let copies = written.into_iter().map(|(release, _)| Copy {
        name: release.name().clone(),
        provider: release.provider().to_owned(),
        stack: release.stack().to_owned(),
    });
    Ok(copies.collect())
}

/// Writes copies of a release that lies in `release`, with other stack names: in names of files, in the metadata, in names
/// and texts of the class chart. Addons name no stack and stay as they are.
pub fn of_release(release: &Path, folder: &Path, count: usize) -> Result<Vec<Copy>> {
    let tag = release.file_name().unwrap_or_default().to_string_lossy();
    let name = ReleaseName::parse(&tag).with_context(|| format!("{tag} is no release"))?;
    let (provider, stack) = name
        .stem()
        .split_once('-')
        .with_context(|| format!("{tag} names no provider"))?;
    (0..count)
        .map(|number| {
            let copy = Copy {
                name: ReleaseName::new(
                    &format!("{}{number:04}", name.stem()),
                    name.kubernetes(),
                    name.version().clone(),
                )?,
                provider: provider.to_owned(),
                stack: format!("{stack}{number:04}"),
            };
            let (old, new) = (name.helm_release_name(), copy.name.helm_release_name());
            let renamed = |text: &str| text.replace(&old, &new);
            let path = folder.join(copy.name.tag());
            fs::create_dir(&path)
                .with_context(|| format!("failed to create {}", path.display()))?;
            for (file, content) in files(release)? {
                let is_text = [".yaml", ".json"].iter().any(|end| file.ends_with(end));
                let content = if file.contains("cluster-class") {
                    renamed_archive(&content, renamed)
                } else if is_text {
                    renamed_text(content, renamed)
                } else {
                    Ok(content)
                };
                let content = content.with_context(|| format!("failed to rename {file}"))?;
                fs::write(path.join(renamed(&file)), content)?;
            }
            Ok(copy)
        })
        .collect()
}

fn files(folder: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path: PathBuf = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push((name.into_owned(), fs::read(&path)?));
        }
    }
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    Ok(files)
}

fn renamed_text(content: Vec<u8>, renamed: impl Fn(&str) -> String) -> Result<Vec<u8>> {
    Ok(renamed(&String::from_utf8(content)?).into_bytes())
}

fn renamed_archive(archive: &[u8], renamed: impl Fn(&str) -> String) -> Result<Vec<u8>> {
    let mut writer = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for entry in tar::Archive::new(GzDecoder::new(archive)).entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = renamed(&entry.path()?.to_string_lossy());
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        // Vendored charts name no stack.
        if Path::new(&path)
            .extension()
            .is_none_or(|ending| ending != "tgz")
        {
            content = renamed_text(content, &renamed)?;
        }
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        writer.append_data(&mut header, path, content.as_slice())?;
    }
    let mut gzip = writer.into_inner()?;
    gzip.flush()?;
    Ok(gzip.finish()?)
}
