//! Paths of entries: taken apart, and refused if they lead anywhere but into the archive.

use super::{ArchiveLimits, walk::Refusal};

/// The longest part of a path that file systems take.
const COMPONENT_BYTES: usize = 255;

/// Characters of a path that a message repeats.
const SHOWN: usize = 100;

/// A path as it may stand in a message: on one line, cut in the middle if it is long.
pub(in crate::store) fn shown(path: &str) -> String {
    let clean: String = path
        .chars()
        .map(|char| if char.is_control() { '\u{fffd}' } else { char })
        .collect();
    crate::helm::shorten(&clean, SHOWN)
}

/// The path of an entry without "." and empty parts; empty for the root.
pub(super) fn checked(path: &[u8], limits: &ArchiveLimits) -> Result<String, Refusal> {
    let reject = |expected: &str, found: &str| Err(Refusal::reject(expected, found));
    if path.len() > limits.name_bytes {
        return Err(Refusal::reject(
            format!("a path of at most {} bytes", limits.name_bytes),
            format!("{} bytes", path.len()),
        ));
    }
    let Ok(path) = std::str::from_utf8(path) else {
        return reject("a path in UTF-8", "other bytes");
    };
    if path.starts_with('/') {
        return reject("a path inside of the archive", "an absolute path");
    }
    if path.chars().any(|char| char.is_control() || char == '\\') {
        return reject(
            "a path with \"/\" between folders",
            "a backslash or a control character",
        );
    }
    let parts = parts(path);
    if parts.contains(&"..") {
        return reject(
            "a path inside of the archive",
            "\"..\", which may lead out of it",
        );
    }
    if parts.len() > limits.depth + 1 {
        return Err(Refusal::reject(
            format!("at most {} folders above it", limits.depth),
            format!("{}", parts.len() - 1),
        ));
    }
    if let Some(part) = parts.iter().find(|part| part.len() > COMPONENT_BYTES) {
        return Err(Refusal::reject(
            format!("names of at most {COMPONENT_BYTES} bytes"),
            format!("{} bytes", part.len()),
        ));
    }
    Ok(parts.join("/"))
}

/// Refuses the target of a link that leads out of the archive. Targets of symbolic links count from the folder of the
/// link, those of hard links from the root.
pub(super) fn check_target(path: &str, target: &[u8], symbolic: bool) -> Result<(), Refusal> {
    let target = String::from_utf8_lossy(target);
    let mut depth = match path.rsplit_once('/') {
        Some((folder, _)) if symbolic => folder.split('/').count(),
        _ => 0,
    };
    let mut inside = !target.starts_with('/') && !target.is_empty();
    for part in parts(&target) {
        if part == ".." {
            inside &= depth > 0;
            depth = depth.saturating_sub(1);
        } else {
            depth += 1;
        }
    }
    if inside {
        return Ok(());
    }
    Err(Refusal::reject(
        "no link out of the archive",
        format!("a link to \"{}\"", shown(&target)),
    ))
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect()
}
