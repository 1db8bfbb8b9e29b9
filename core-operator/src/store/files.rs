//! Lists of files with their digests, and the one digest over such a list.
//!
//! The digest of a list is the SHA-256 of one line for each file, in the order of the bytes of their paths:
//!
//! ```text
//! <SHA-256 in hexadecimal> <size in bytes> <path>\n
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use sha2::{Digest, Sha256};

/// Bytes that are read at once.
const PART_BYTES: usize = 64 << 10;

/// Files by path, with what they contain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FileList(BTreeMap<String, FileDigest>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FileDigest {
    size: u64,
    sha256: [u8; 32],
}

impl FileList {
    pub(super) fn insert(&mut self, path: String, size: u64, sha256: [u8; 32]) {
        self.0.insert(path, FileDigest { size, sha256 });
    }

    /// The digest of the list, in hexadecimal.
    pub(super) fn digest(&self) -> String {
        digest(self.0.iter().map(|(path, file)| (path.as_str(), file)))
    }

    /// The digest of what lies below a folder, in hexadecimal; the folder's own name is not part of it.
    pub(super) fn digest_below(&self, folder: &str) -> String {
        let below = self.0.iter().filter_map(|(path, file)| {
            let path = path.strip_prefix(folder)?.strip_prefix('/')?;
            Some((path, file))
        });
        digest(below)
    }

    /// The digest of one file, in hexadecimal.
    pub(super) fn digest_of(&self, path: &str) -> Option<String> {
        self.0.get(path).map(|file| hex::encode(file.sha256))
    }

    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Reads a file and adds it.
    pub(super) fn read(&mut self, path: String, file: &Path) -> io::Result<()> {
        let mut file = File::open(file)?;
        let mut buffer = vec![0; PART_BYTES];
        let (mut size, mut hasher) = (0, Sha256::new());
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => {
                    size += read as u64;
                    hasher.update(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.insert(path, size, hasher.finalize().into());
        Ok(())
    }

    /// Reads all files below a folder. What is neither file nor folder is an error.
    pub(super) fn read_tree(folder: &Path) -> io::Result<Self> {
        let mut list = Self::default();
        let mut folders = vec![(folder.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let name = entry.file_name();
                let name = name.to_str().ok_or(io::ErrorKind::InvalidData)?;
                let path = format!("{prefix}{name}");
                match entry.file_type()? {
                    kind if kind.is_dir() => folders.push((entry.path(), format!("{path}/"))),
                    kind if kind.is_file() => list.read(path, &entry.path())?,
                    _ => return Err(io::ErrorKind::InvalidData.into()),
                }
            }
        }
        Ok(list)
    }
}

fn digest<'a>(files: impl Iterator<Item = (&'a str, &'a FileDigest)>) -> String {
    let mut hasher = Sha256::new();
    for (path, file) in files {
        hasher.update(format!(
            "{} {} {path}\n",
            hex::encode(file.sha256),
            file.size
        ));
    }
    hex::encode(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_the_documented_lines() {
        let folder = tempfile::TempDir::new().unwrap();
        fs::create_dir(folder.path().join("b")).unwrap();
        fs::write(folder.path().join("b/x"), "hello").unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let list = FileList::read_tree(folder.path()).unwrap();
        let (empty, hello) = (
            hex::encode(Sha256::digest("")),
            hex::encode(Sha256::digest("hello")),
        );
        let lines = format!("{empty} 0 a\n{hello} 5 b/x\n");
        assert_eq!(list.digest(), hex::encode(Sha256::digest(lines)));
        assert_eq!(
            list.digest_below("b"),
            hex::encode(Sha256::digest(format!("{hello} 5 x\n")))
        );
        assert_eq!(list.digest_of("b/x"), Some(hello));
        assert_eq!(list.digest_of("x"), None);
    }

    #[test]
    fn links_are_no_files() {
        let folder = tempfile::TempDir::new().unwrap();
        std::os::unix::fs::symlink("/etc/hostname", folder.path().join("a")).unwrap();
        let error = FileList::read_tree(folder.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
