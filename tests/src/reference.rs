//! Folders that are not part of this source tree: releases of others, and what the Go operator made of them.
//!
//! Where such a folder is, a variable of the environment says. Without the variable the tests that need it do nothing but say so on the terminal; with it the
//! folder must be complete.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Result, ensure};

/// Names the folder with real releases, one folder each.
pub const RELEASES: &str = "CLUSTER_STACK_FIXTURES";

/// Names the folder with objects that the Go operator has written, as YAML.
pub const OBSERVED: &str = "CLUSTER_STACK_OBSERVED";

/// The folder that a variable names, with all of these files or folders in it; `None` and a line on the terminal, that so
/// many `what` were not tried, when the variable is not set.
///
/// # Errors
///
/// When something is missing in the folder.
pub fn folder(variable: &str, what: &str, names: &[&str]) -> Result<Option<PathBuf>> {
    let Some(folder) = std::env::var_os(variable).filter(|folder| !folder.is_empty()) else {
        // Past the test harness, which shows only what failed tests print.
        let _ = writeln!(
            std::io::stderr(),
            "{variable} is not set: tests with {} {what} were NOT RUN",
            names.len()
        );
        return Ok(None);
    };
    let folder = PathBuf::from(folder);
    let missing: Vec<_> = names
        .iter()
        .filter(|name| !folder.join(name).exists())
        .collect();
    ensure!(
        missing.is_empty(),
        "{variable} names {}, where these are missing: {missing:?}",
        folder.display()
    );
    Ok(Some(folder))
}
