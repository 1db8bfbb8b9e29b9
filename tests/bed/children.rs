//! A test that runs a second time in a process of its own, to be killed there; and what is left of processes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::eventually;
use tests::process::{Process, Program};

/// Says what a test is to do when it runs as the child of itself.
const ROLE: &str = "TEST_BED_ROLE";

/// What this process is to do as somebody's child; `None` in the test itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// The program that runs `test` (with its module) of this binary and nothing else, in this role.
pub fn child(test: &str, role: &str, log: &Path) -> Result<Program> {
    let binary = std::env::current_exe().context("failed to find this binary")?;
    Ok(Program::new(role, &binary, log)
        .args(["--exact", test, "--nocapture"])
        .env(ROLE, role))
}

/// Waits until a line of the child's log begins with `begin`, and gives the rest of it.
pub async fn line(child: &Process, begin: &str) -> Result<String> {
    eventually(
        &format!("{} writes {begin:?}", child.name()),
        Duration::from_mins(2),
        async || {
            let text = fs::read_to_string(child.log())?;
            let mut lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
            let line = lines.find_map(|line| line.strip_prefix(begin));
            line.map(|line| line.trim().to_owned())
                .with_context(|| child.log_tail(5))
        },
    )
    .await
}

/// Waits until no process has `text` in its command line: no program, no guard.
pub async fn none_left(text: &Path) -> Result<()> {
    let text = text.to_string_lossy();
    eventually(
        "all processes are gone",
        Duration::from_secs(10),
        async || {
            let left = with_argument(&text);
            ensure!(left.is_empty(), "still there: {left:?}");
            Ok(())
        },
    )
    .await
}

/// The command lines that contain `text`; ended processes have none.
pub fn with_argument(text: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}
