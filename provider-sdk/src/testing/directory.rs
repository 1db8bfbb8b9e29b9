//! A backend that is a folder: `objects/<id>/record.json` beside `objects/<id>/data`.
//!
//! It knows nothing of the contract: objects have a name, properties, bytes, and what a backend tells about those. Another
//! process may change it at any time; each record is replaced as a whole.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// What can be made to go wrong, by a file of this name in the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The backend does not answer.
    Down,
    /// It has no room for new objects.
    Full,
    /// It refuses all bytes once it has them.
    Reject,
    /// Transfers stop after the record was made.
    Hang,
    /// The provider's code panics in each transfer.
    Panic,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Down,
        Self::Full,
        Self::Reject,
        Self::Hang,
        Self::Panic,
    ];

    /// Name of the file, and of the option.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Full => "full",
            Self::Reject => "reject",
            Self::Hang => "hang",
            Self::Panic => "panic",
        }
    }
}

impl std::str::FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|fault| fault.name() == text);
        known.ok_or_else(|| "expected down, full, reject, hang or panic".to_owned())
    }
}

/// What the backend knows of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Its id.
    pub id: String,
    /// The project that it belongs to.
    pub project: String,
    /// Its name, by which templates find it.
    pub name: String,
    /// Disk format, as in the proto files.
    pub disk_format: String,
    /// Properties, those of the provider's marker included.
    pub properties: BTreeMap<String, String>,
    /// Digest of the bytes; absent until all of them are there.
    pub digest: Option<String>,
    /// Number of bytes; absent until all of them are there.
    pub size: Option<u64>,
    /// Whether something runs from it.
    pub in_use: bool,
    /// When it was made.
    pub create_time: Timestamp,
}

/// A backend in a folder.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The backend in a folder, which is made if need be.
    ///
    /// # Errors
    ///
    /// The folder cannot be made or read.
    pub fn open(root: impl Into<PathBuf>) -> io::Result<Self> {
        let directory = Self { root: root.into() };
        std::fs::create_dir_all(directory.objects_folder())?;
        let identity = directory.root.join("identity");
        if !identity.try_exists()? {
            replace(&identity, random().as_bytes())?;
        }
        Ok(directory)
    }

    fn objects_folder(&self) -> PathBuf {
        self.root.join("objects")
    }

    fn folder(&self, id: &str) -> PathBuf {
        self.objects_folder().join(id)
    }

    /// Where the bytes of an object are.
    #[must_use]
    pub fn data(&self, id: &str) -> PathBuf {
        self.folder(id).join("data")
    }

    /// What tells this backend from any other.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn identity(&self) -> io::Result<String> {
        std::fs::read_to_string(self.root.join("identity"))
    }

    /// Makes something go wrong, or no longer.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn set_fault(&self, fault: Fault, on: bool) -> io::Result<()> {
        let path = self.root.join(fault.name());
        if on {
            std::fs::write(path, "")
        } else {
            absent_is_fine(std::fs::remove_file(path))
        }
    }

    /// Whether something goes wrong.
    #[must_use]
    pub fn has_fault(&self, fault: Fault) -> bool {
        self.root.join(fault.name()).exists()
    }

    /// All objects, the oldest first.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn objects(&self) -> io::Result<Vec<Record>> {
        let mut objects = Vec::new();
        for entry in std::fs::read_dir(self.objects_folder())? {
            let id = entry?.file_name().to_string_lossy().into_owned();
            objects.extend(self.object(&id)?);
        }
        objects.sort_by(|a, b| (a.create_time, &a.id).cmp(&(b.create_time, &b.id)));
        Ok(objects)
    }

    /// One object.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub fn object(&self, id: &str) -> io::Result<Option<Record>> {
        match std::fs::read(self.folder(id).join("record.json")) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A new object without bytes.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn create(
        &self,
        project: &str,
        name: &str,
        disk_format: &str,
        properties: BTreeMap<String, String>,
    ) -> io::Result<Record> {
        let record = Record {
            id: random(),
            project: project.to_owned(),
            name: name.to_owned(),
            disk_format: disk_format.to_owned(),
            properties,
            digest: None,
            size: None,
            in_use: false,
            create_time: Timestamp::now(),
        };
        std::fs::create_dir_all(self.folder(&record.id))?;
        self.write(&record)?;
        Ok(record)
    }

    fn write(&self, record: &Record) -> io::Result<()> {
        let json = serde_json::to_vec_pretty(record)?;
        replace(&self.folder(&record.id).join("record.json"), &json)
    }

    /// Changes an object.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be written.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Record)) -> io::Result<Record> {
        let mut record = self
            .object(id)?
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        change(&mut record);
        self.write(&record)?;
        Ok(record)
    }

    /// Takes the bytes of an object as they are now: from here on it can be used.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be read.
    pub fn complete(&self, id: &str) -> io::Result<Record> {
        let (digest, size) = hash(&self.data(id))?;
        self.change(id, |record| {
            record.digest = Some(digest);
            record.size = Some(size);
        })
    }

    /// Removes an object; nothing there is no failure.
    ///
    /// # Errors
    ///
    /// The folder cannot be written.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        // The record goes first: a folder without one is no object.
        absent_is_fine(std::fs::remove_file(self.folder(id).join("record.json")))?;
        absent_is_fine(std::fs::remove_dir_all(self.folder(id)))
    }

    /// An object that somebody else made.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or the folder not written.
    pub fn put(
        &self,
        project: &str,
        name: &str,
        disk_format: &str,
        file: &Path,
    ) -> io::Result<Record> {
        let record = self.create(project, name, disk_format, BTreeMap::new())?;
        std::fs::copy(file, self.data(&record.id))?;
        self.complete(&record.id)
    }

    /// Changes the bytes of an object.
    ///
    /// # Errors
    ///
    /// It is not there, or cannot be written.
    pub fn tamper(&self, id: &str) -> io::Result<()> {
        std::fs::OpenOptions::new()
            .append(true)
            .open(self.data(id))?
            .write_all(b"tampered")?;
        self.complete(id).map(drop)
    }
}

/// Digest and size of a file.
pub(super) fn hash(path: &Path) -> io::Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let size = io::copy(
        &mut std::fs::File::open(path)?,
        &mut HashWriter(&mut hasher),
    )?;
    Ok((format!("sha256:{}", hex::encode(hasher.finalize())), size))
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a file that is there as a whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("new-{}", random()));
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}
