//! One way through an archive, entry by entry.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read},
    path::Path,
    rc::Rc,
};

use futures::{StreamExt, executor::block_on};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tar::{Archive, Entry, EntryType};

use super::{
    ArchiveInvalid, ArchiveLimits, names,
    reader::{Unpacked, Watch, unpacked},
};

/// Bytes between two entries: headers, and long names in entries of their own.
const HEADER_BYTES: u64 = 256 << 10;

/// Bytes of a file that are handed on at once.
const PART_BYTES: usize = 64 << 10;

/// Bytes that are looked at to say what a file is.
const BEGINNING_BYTES: u64 = 512;

/// Takes the files of an archive, one after the other. Paths are clean: relative, without "." and "..", at most once.
pub(super) trait Visit {
    /// Whether paths may start with "./", as `tar -C folder .` writes them.
    fn takes_dots(&self) -> bool;
    /// A file begins.
    fn begin(&mut self, path: &str) -> Result<(), Refusal>;
    /// Some of its bytes.
    fn part(&mut self, part: &[u8]) -> Result<(), Refusal>;
    /// It was whole.
    fn end(&mut self) -> Result<(), Refusal>;
    /// A link that stays inside of the archive.
    fn link(&mut self, path: &str) -> Result<(), Refusal>;
}

/// Why an entry is refused; the walk knows which one it is.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is none that a chart may have.
    Reject { expected: String, found: String },
    /// The disk did not take it.
    Write(io::Error),
}

impl Refusal {
    pub(super) fn reject(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Reject {
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// Walks through an archive and returns its name as it stands in messages.
pub(super) fn walk(
    path: &Path,
    limits: &ArchiveLimits,
    visit: &mut dyn Visit,
) -> Result<String, ArchiveInvalid> {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let walk = Walk {
        file: names::shown(&name.to_string_lossy()),
        limits,
        watch: Rc::default(),
    };
    let failed = |source| ArchiveInvalid::Read {
        file: walk.file.clone(),
        source,
    };
    let beginning = beginning(path).map_err(failed)?;
    if !beginning.starts_with(&[0x1f, 0x8b]) {
        return Err(ArchiveInvalid::RejectFormat {
            found: describe(&beginning),
            file: walk.file,
        });
    }
    let reader = unpacked(File::open(path).map_err(failed)?, &walk.watch);
    // Nothing in it waits: the reader blocks.
    block_on(walk.run(reader, visit))?;
    Ok(walk.file)
}

struct Walk<'a> {
    file: String,
    limits: &'a ArchiveLimits,
    watch: Rc<Watch>,
}

/// Where the walk is.
enum Place {
    Start,
    In(String),
    After(String),
}

impl Place {
    fn shown(&self) -> String {
        match self {
            Self::Start => "at its beginning".to_owned(),
            Self::In(entry) => format!("in \"{entry}\""),
            Self::After(entry) => format!("after \"{entry}\""),
        }
    }
}

impl Walk<'_> {
    async fn run(&self, reader: Unpacked, visit: &mut dyn Visit) -> Result<(), ArchiveInvalid> {
        self.watch.total.set(self.limits.unpacked_bytes);
        self.watch.step.set(HEADER_BYTES);
        let mut place = Place::Start;
        let mut archive = Archive::new(reader);
        let mut entries = archive
            .entries()
            .map_err(|error| self.damaged(&place, &error))?;
        let mut paths = Paths::default();
        let mut buffer = vec![0; PART_BYTES];
        let mut count = 0;
        while let Some(entry) = entries.next().await {
            let mut entry = entry.map_err(|error| self.damaged(&place, &error))?;
            let bytes = entry
                .path_bytes()
                .map_err(|error| self.damaged(&place, &error))?;
            let shown = names::shown(&String::from_utf8_lossy(&bytes));
            let bytes = bytes.into_owned();
            place = Place::In(shown.clone());
            count += 1;
            if count > self.limits.entries {
                return Err(self.exceed(self.limits.entries as u64, "entries", &place));
            }
            if entry.effective_size() > self.watch.total.get() {
                return Err(self.exceed_bytes(&place));
            }
            self.watch.step.set(entry.effective_size() + HEADER_BYTES);
            self.entry(&mut entry, &bytes, &mut paths, &mut buffer, visit)
                .await
                .map_err(|failure| self.named(failure, &shown, &place))?;
            self.watch.step.set(HEADER_BYTES);
            place = Place::After(shown);
        }
        drop(entries);
        // The rest is read, too: only then gzip has compared its checksum.
        if let Ok(mut rest) = archive.into_inner() {
            self.watch.step.set(self.watch.total.get());
            loop {
                match rest.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) => return Err(self.damaged(&place, &error)),
                }
            }
        }
        Ok(())
    }

    async fn entry(
        &self,
        entry: &mut Entry<Archive<Unpacked>>,
        path: &[u8],
        paths: &mut Paths,
        buffer: &mut [u8],
        visit: &mut dyn Visit,
    ) -> Result<(), Failure> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // `git archive` writes the commit into one
            return read(entry, buffer, &mut |_| Ok(())).await;
        }
        if path.starts_with(b"./") && !visit.takes_dots() {
            return Err(Refusal::reject("\"<chart>/<file>\"", "\"./\" before it").into());
        }
        let directory = path.ends_with(b"/");
        let path = names::checked(path, self.limits)?;
        let no_content = |what: &str, size: u64| match size {
            0 => Ok(()),
            // readers of tar do not agree whether such bytes are content or the next entry
            size => Err(Refusal::reject(
                format!("a {what} without content"),
                format!("{size} bytes"),
            )),
        };
        match kind {
            EntryType::Directory => no_content("folder", entry.effective_size())?,
            EntryType::Regular if directory => no_content("folder", entry.effective_size())?,
            EntryType::Symlink | EntryType::Link => {
                no_content("link", entry.effective_size())?;
                let target = entry.link_name_bytes()?.unwrap_or_default().into_owned();
                names::check_target(&path, &target, kind == EntryType::Symlink)?;
                paths.insert(&path)?;
                visit.link(&path)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                if is_sparse(entry).await? {
                    return Err(unwanted("a sparse file"));
                }
                paths.insert(&path)?;
                visit.begin(&path)?;
                read(entry, buffer, &mut |part| visit.part(part)).await?;
                visit.end()?;
            }
            EntryType::GNUSparse => return Err(unwanted("a sparse file")),
            EntryType::Char | EntryType::Block => return Err(unwanted("a device")),
            EntryType::Fifo => return Err(unwanted("a named pipe")),
            _ => {
                return Err(unwanted(&format!(
                    "an entry of the unknown type {}",
                    kind.as_byte().escape_ascii()
                )));
            }
        }
        Ok(())
    }

    fn named(&self, failure: Failure, entry: &str, place: &Place) -> ArchiveInvalid {
        let (file, entry) = (self.file.clone(), entry.to_owned());
        match failure {
            Failure::Damaged(error) => self.damaged(place, &error),
            Failure::Refused(Refusal::Write(source)) => ArchiveInvalid::Unpack {
                file,
                entry,
                source,
            },
            Failure::Refused(Refusal::Reject { expected, found }) => ArchiveInvalid::RejectEntry {
                file,
                entry,
                expected,
                found,
            },
        }
    }

    /// What a failed read means: the disk, a limit, or the archive itself.
    fn damaged(&self, place: &Place, error: &io::Error) -> ArchiveInvalid {
        if let Some(source) = self.watch.disk.take() {
            return ArchiveInvalid::Read {
                file: self.file.clone(),
                source,
            };
        }
        if self.watch.exceeded.get() {
            return match self.watch.total.get() {
                0 => self.exceed_bytes(place),
                _ => self.exceed(HEADER_BYTES, "bytes of headers between two entries", place),
            };
        }
        ArchiveInvalid::RejectContent {
            file: self.file.clone(),
            place: place.shown(),
            found: match error.kind() {
                io::ErrorKind::UnexpectedEof => "its end".to_owned(),
                _ => names::shown(&error.to_string()),
            },
        }
    }

    fn exceed_bytes(&self, place: &Place) -> ArchiveInvalid {
        self.exceed(self.limits.unpacked_bytes, "bytes unpacked", place)
    }

    fn exceed(&self, limit: u64, unit: &'static str, place: &Place) -> ArchiveInvalid {
        ArchiveInvalid::ExceedLimit {
            file: self.file.clone(),
            limit,
            unit,
            place: place.shown(),
        }
    }
}

/// Why the walk cannot go on.
enum Failure {
    Damaged(io::Error),
    Refused(Refusal),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Damaged(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

fn unwanted(found: &str) -> Failure {
    Refusal::reject("a file or a folder", found).into()
}

/// Hands all bytes of an entry on.
async fn read(
    entry: &mut Entry<Archive<Unpacked>>,
    buffer: &mut [u8],
    part: &mut dyn FnMut(&[u8]) -> Result<(), Refusal>,
) -> Result<(), Failure> {
    let mut left = entry.effective_size();
    while left > 0 {
        let read = read_some(entry, buffer).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        left = left.saturating_sub(read as u64);
        part(&buffer[..read])?;
    }
    Ok(())
}

/// Fills the buffer as far as the entry goes: the decoder gives a few kilobytes at once.
async fn read_some(reader: &mut (dyn AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]).await? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Files with holes, as GNU tar describes them: the content of such an entry is not that of the file.
async fn is_sparse(entry: &mut Entry<Archive<Unpacked>>) -> io::Result<bool> {
    let Some(extensions) = entry.pax_extensions().await? else {
        return Ok(false);
    };
    for extension in extensions {
        if extension?.key_bytes().starts_with(b"GNU.sparse.") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The paths that were there already: of two entries with one name, readers take the one or the other.
#[derive(Default)]
struct Paths {
    files: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Paths {
    fn insert(&mut self, path: &str) -> Result<(), Refusal> {
        let twice = || Refusal::reject("each name once", "it a second time");
        if path.is_empty() || self.folders.contains(path) {
            return Err(Refusal::reject("a file", "the name of a folder"));
        }
        let mut folder = path;
        while let Some((above, _)) = folder.rsplit_once('/') {
            if self.files.contains(above) {
                return Err(twice());
            }
            if !self.folders.insert(above.to_owned()) {
                break; // then those above are there, too
            }
            folder = above;
        }
        if self.files.insert(path.to_owned()) {
            Ok(())
        } else {
            Err(twice())
        }
    }
}

fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(BEGINNING_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What a file looks like that is no archive, for people.
fn describe(beginning: &[u8]) -> String {
    let text = String::from_utf8_lossy(beginning);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let lower = text.to_ascii_lowercase();
    if beginning.is_empty() {
        "an empty file".to_owned()
    } else if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        "a page in HTML".to_owned()
    } else if beginning.starts_with(b"PK\x03\x04") {
        "a ZIP archive".to_owned()
    } else if beginning.get(257..262) == Some(b"ustar") {
        "a tar without compression".to_owned()
    } else if beginning.is_ascii() && !beginning.contains(&0) {
        "a text".to_owned()
    } else {
        "other bytes".to_owned()
    }
}
