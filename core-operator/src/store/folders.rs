//! The folders of the store, and the few ways in which something appears in them or goes.
//!
//! ```text
//! <cache>/tmp/<random>/            in the making, locked by whoever makes it; no lock: left behind by a dead process
//! <cache>/releases/<digest>/       appears by one rename, with all that is in it on the disk
//!           files/                 as brought
//!           addons/<stage>/        charts of stages, unpacked
//! <cache>/charts/sha256-<digest>.tgz
//! ```
//!
//! Several processes may share the folders: entries never change, and appear and go by renames. The time at which an
//! entry was last named is the time of its change on the disk, so that all of them see it.

use std::{
    collections::HashMap,
    fs::{self, File, FileTimes, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;

/// How exactly it is known when an entry was last named: being named costs a write to the disk.
const NAMED_INTERVAL: Duration = Duration::from_mins(10);

/// Threads that wait for the disk for one release.
const SYNC_THREADS: usize = 8;

/// How often a folder is made that another process takes for left behind, before it is locked.
const ATTEMPTS: usize = 10;

/// The folders of a store.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    /// When this process last wrote down that an entry was named. Whoever holds it decides alone what goes.
    named: Mutex<HashMap<PathBuf, Instant>>,
}

/// What has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    /// Releases.
    pub releases: usize,
    /// Archives of charts on which releases depend.
    pub charts: usize,
}

/// One folder on the disk, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

/// A release in the making. It goes when it is dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    folder: TempDir,
    _lock: File,
}

impl Temporary {
    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Where the files of an entry are as they were brought.
pub(super) fn files(entry: &Path) -> PathBuf {
    entry.join("files")
}

/// Where the unpacked charts of an entry are.
pub(super) fn addons(entry: &Path) -> PathBuf {
    entry.join("addons")
}

impl Folders {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            named: Mutex::default(),
        }
    }

    pub(super) fn releases(&self) -> PathBuf {
        self.root.join("releases")
    }

    pub(super) fn release(&self, hex: &str) -> PathBuf {
        self.releases().join(hex)
    }

    pub(super) fn charts(&self) -> PathBuf {
        self.root.join("charts")
    }

    /// Where the archive with a digest lies; fetching gives it this name.
    pub(super) fn chart(&self, hex: &str) -> PathBuf {
        self.charts().join(format!("sha256-{hex}.tgz"))
    }

    pub(super) fn temporary_folder(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Makes the folders if they are not there.
    pub(super) fn create(&self) -> io::Result<()> {
        for folder in [self.releases(), self.charts(), self.temporary_folder()] {
            fs::create_dir_all(folder)?;
        }
        File::open(&self.root)?.sync_all()
    }

    /// A place for a new release, with an empty folder for its files.
    pub(super) fn temporary(&self) -> io::Result<Temporary> {
        let parent = self.temporary_folder();
        for _ in 0..ATTEMPTS {
            fs::create_dir_all(&parent)?;
            let Some(folder) = present(tempfile::Builder::new().prefix("").tempdir_in(&parent))?
            else {
                continue;
            };
            let Some(lock) = present(File::open(folder.path()))? else {
                continue;
            };
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(error)) => return Err(error),
            }
            // Before it was locked, it may have been swept away.
            if present(fs::metadata(folder.path()))?
                .is_some_and(|found| lock.metadata().is_ok_and(|own| own.ino() == found.ino()))
            {
                fs::create_dir(files(folder.path()))?;
                return Ok(Temporary {
                    folder,
                    _lock: lock,
                });
            }
        }
        Err(io::Error::other("other processes remove it at once"))
    }

    /// Puts a release in its place, on the disk with all that is in it. Answers false if one is there already.
    pub(super) fn keep(&self, temporary: &mut Temporary, hex: &str) -> io::Result<bool> {
        sync_tree(temporary.path())?;
        fs::create_dir_all(self.releases())?;
        match fs::rename(temporary.path(), self.release(hex)) {
            Ok(()) => temporary.folder.disable_cleanup(true),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                ) =>
            {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        File::open(self.releases())?.sync_all()?;
        Ok(true)
    }

    /// What tells a release from one that comes in its place; none if there is no release.
    pub(super) fn identity(&self, hex: &str) -> io::Result<Option<Identity>> {
        let found = present(fs::symlink_metadata(self.release(hex)))?;
        Ok(found.map(|found| Identity(found.dev(), found.ino())))
    }

    /// Removes a release, unless there is another one in its place by now. It goes at once, however long removing its
    /// files takes.
    pub(super) fn discard(&self, hex: &str, identity: Identity) -> io::Result<()> {
        let guard = self.lock();
        if self.identity(hex)? != Some(identity) {
            return Ok(());
        }
        let gone = self.take_away(&self.release(hex))?;
        drop(guard);
        present(gone.close()).map(drop)
    }

    /// Moves a release to where it is only removed any more.
    fn take_away(&self, release: &Path) -> io::Result<TempDir> {
        let parent = self.temporary_folder();
        fs::create_dir_all(&parent)?;
        let gone = tempfile::Builder::new().prefix("").tempdir_in(&parent)?;
        present(fs::rename(release, gone.path().join("release")))?;
        Ok(gone)
    }

    /// Writes down that somebody needs these, if they are there.
    pub(super) fn name<'a>(&self, paths: impl IntoIterator<Item = &'a Path>) {
        let mut named = self.lock();
        for path in paths {
            if named
                .get(path)
                .is_some_and(|then| then.elapsed() < NAMED_INTERVAL)
            {
                continue;
            }
            let written = File::open(path).and_then(|entry| {
                entry.set_times(FileTimes::new().set_modified(SystemTime::now()))
            });
            match written {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    named.remove(path);
                    continue;
                }
                Ok(()) => {}
                // It may go too early then, and is fetched again.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "failed to mark as in use");
                }
            }
            named.insert(path.to_owned(), Instant::now());
        }
    }

    /// Removes what nobody has named for the time `unused`.
    pub(super) fn collect(&self, now: Timestamp, unused: Duration) -> io::Result<Collected> {
        let unused = SignedDuration::try_from(unused).unwrap_or(SignedDuration::MAX);
        let old = |path: &Path| -> io::Result<bool> {
            let Some(metadata) = present(fs::symlink_metadata(path))? else {
                return Ok(false);
            };
            let named = Timestamp::try_from(metadata.modified()?).unwrap_or(Timestamp::MIN);
            Ok(now.duration_since(named) >= unused)
        };
        let mut collected = Collected::default();
        for path in children(&self.releases())? {
            let mut named = self.lock();
            if path.file_name().is_some_and(is_hex) && old(&path)? {
                let gone = self.take_away(&path)?;
                named.remove(&path);
                drop(named); // removing takes a while
                present(gone.close())?;
                collected.releases += 1;
            }
        }
        for path in children(&self.charts())? {
            let mut named = self.lock();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_chart = name.starts_with("sha256-");
            // the others: an archive of which a killed process has fetched a part
            if (is_chart || name.starts_with(".tmp")) && old(&path)? {
                present(fs::remove_file(&path))?;
                named.remove(&path);
                collected.charts += usize::from(is_chart);
            }
        }
        Ok(collected)
    }

    /// Removes what processes have left behind that were killed.
    pub(super) fn sweep(&self) -> io::Result<()> {
        for path in children(&self.temporary_folder())? {
            let Some(folder) = present(File::open(&path))? else {
                continue;
            };
            if !folder.metadata()?.is_dir() {
                continue;
            }
            match folder.try_lock() {
                Ok(()) => {
                    present(fs::remove_dir_all(&path))?;
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Instant>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None in place of the error that it is not there.
pub(super) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_hex(name: &std::ffi::OsStr) -> bool {
    name.len() == 64 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit)
}

fn children(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(entries) = present(fs::read_dir(folder))? else {
        return Ok(Vec::new());
    };
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Waits until all below a folder, and the folder, is on the disk. Nothing in it has its place yet, so the order does not
/// matter.
///
/// Together, not one after the other: whoever waits at the same time is served by one commit of the file system's journal.
/// A release with unpacked addons has some 25 files and folders, each worth some milliseconds alone.
fn sync_tree(folder: &Path) -> io::Result<()> {
    let mut paths = vec![folder.to_owned()];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            paths.push(entry.path());
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    let next = AtomicUsize::new(0);
    let sync = || {
        while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
            File::open(path)?.sync_all()?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads = SYNC_THREADS.min(paths.len());
        let threads: Vec<_> = (1..threads).map(|_| scope.spawn(sync)).collect();
        let own = sync();
        let others = threads.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|_panic| Err(io::Error::other("a thread that syncs has panicked")))
        });
        others.fold(own, Result::and)
    })
}
