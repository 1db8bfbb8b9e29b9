//! Folders for what processes of the test bed write: data, keys, logs.

use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A folder that is removed with this value. When the owning process is killed it stays, with its logs, until the next run sweeps it.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    keep: bool,
    _owner: File,
}

impl State {
    /// Makes a folder whose name begins with `prefix`, and removes those of owners that were killed.
    ///
    /// # Errors
    ///
    /// When the folder cannot be made.
    pub fn create(prefix: &str) -> Result<Self> {
        let parent = std::env::temp_dir().join("cluster-stack-operator-tests");
        fs::create_dir_all(&parent)
            .with_context(|| format!("failed to create {}", parent.display()))?;
        sweep(&parent);
        let path = parent.join(format!(
            "{prefix}-{}-{}",
            std::process::id(),
            crate::random_word()
        ));
        // Locked before it gets the name that the sweep of another process looks for.
        let (new, name) = (path.with_extension("new"), owner_file(&path));
        let owner =
            File::create(&new).with_context(|| format!("failed to create {}", new.display()))?;
        owner
            .lock()
            .with_context(|| format!("failed to lock {}", new.display()))?;
        fs::rename(&new, &name).with_context(|| format!("failed to create {}", name.display()))?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self {
            path,
            keep: false,
            _owner: owner,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder there until the next run.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A failed test ends by a panic: its logs are worth reading.
        if !self.keep && !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.path);
            let _ = fs::remove_file(owner_file(&self.path));
        }
    }
}

fn owner_file(folder: &Path) -> PathBuf {
    folder.with_extension("owner")
}

/// Removes folders whose owner has ended. Failures are left for the next sweep.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "owner")
            && let Ok(owner) = File::open(&path)
            && owner.try_lock().is_ok()
        {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
}
