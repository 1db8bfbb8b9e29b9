//! Children end as they are told, and with their owner.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use tests::eventually;
use tests::process::{Process, Program, tail};

use crate::children::{child, line, none_left, role, with_argument};

const PATIENCE: Duration = Duration::from_secs(10);

/// A shell script under a name that no other process has.
fn script(text: &str, folder: &Path) -> Program {
    let log = folder.join("script.log");
    Program::new("script", Path::new("/bin/sh"), &log)
        .args(["-c", text])
        .arg(folder.to_string_lossy())
}

/// Starts a child of its own, says so and waits. The child has the folder in its command line.
const PARENT: &str = r#"sh -c 'sleep 600; :' "$0" & echo started; wait"#;

#[tokio::test]
async fn drop_ends_the_program_and_what_it_started() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let process = Process::start(&script(PARENT, folder.path()))?;
    line(&process, "started").await?;
    ensure!(process.is_running());
    let running = with_argument(&folder.path().to_string_lossy());
    ensure!(
        running.iter().any(|line| line.starts_with("sh -c sleep")),
        "{running:?}"
    );
    drop(process);
    none_left(folder.path()).await
}

#[tokio::test]
async fn killed_owner_takes_its_children_and_their_leftovers_along() -> Result<()> {
    const TEST: &str = "process::killed_owner_takes_its_children_and_their_leftovers_along";
    if let Some(folder) = role() {
        let folder = Path::new(&folder);
        let program = script(PARENT, folder).leftover(&folder.join("leftover"));
        let process = Process::start(&program)?;
        line(&process, "started").await?;
        println!("\nowner is ready");
        std::future::pending::<()>().await;
    }
    let (folder, logs) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let leftover = folder.path().join("leftover");
    std::fs::create_dir(&leftover)?;
    let role = folder.path().to_string_lossy();
    let owner = Process::start(&child(TEST, &role, &logs.path().join("owner.log"))?)?;
    line(&owner, "owner is ready").await?;
    ensure!(!with_argument(&role).is_empty());
    owner.kill_9();
    none_left(folder.path()).await?;
    eventually("the leftover is gone", PATIENCE, async || {
        ensure!(!leftover.exists());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stop_is_a_signal_that_the_program_can_answer() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "trap 'echo bye; exit 7' TERM; echo started; while :; do sleep 0.05; done";
    let process = Process::start(&script(text, folder.path()))?;
    line(&process, "started").await?;
    ensure!(process.stop(PATIENCE)?.code() == Some(7));
    ensure!(process.log_tail(1) == "bye");
    ensure!(process.stop(PATIENCE).is_err(), "has ended before");
    Ok(())
}

#[tokio::test]
async fn program_that_ignores_the_stop_is_killed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "trap '' TERM; echo started; while :; do sleep 0.05; done";
    let process = Process::start(&script(text, folder.path()))?;
    line(&process, "started").await?;
    ensure!(process.stop(Duration::from_millis(200)).is_err());
    ensure!(!process.is_running());
    Ok(())
}

#[tokio::test]
async fn frozen_program_goes_on_when_it_is_told_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "echo started; while :; do date +%s%N; sleep 0.02; done";
    let process = Process::start(&script(text, folder.path()))?;
    line(&process, "started").await?;
    process.signal("STOP")?;
    let stat = format!("/proc/{}/stat", process.pid());
    let state = async |wanted: &str| {
        eventually(
            &format!("the program is in {wanted:?}"),
            PATIENCE,
            async || {
                let text = std::fs::read_to_string(&stat)?;
                let state = text
                    .rsplit(") ")
                    .next()
                    .and_then(|rest| rest.chars().next());
                ensure!(state.is_some_and(|state| wanted.contains(state)), "{text}");
                Ok(())
            },
        )
        .await
    };
    state("T").await?;
    process.signal("CONT")?;
    state("RS").await
}

#[tokio::test]
async fn program_that_cannot_be_executed_ends_at_once_and_says_why() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let process = Process::start(&Program::new("nothing", Path::new("/nonexistent"), &log))?;
    ensure!(!process.wait(PATIENCE)?.success());
    let error = process.ensure_running().unwrap_err().to_string();
    ensure!(error.contains("/nonexistent"), "{error}");
    Ok(())
}

#[tokio::test]
async fn program_sees_only_the_environment_it_is_given() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = script("env; echo end", folder.path())
        .env("GIVEN", "yes")
        .clear_env();
    let process = Process::start(&program)?;
    process.wait(PATIENCE)?;
    let text = std::fs::read_to_string(process.log())?;
    ensure!(
        text.contains("GIVEN=yes\n") && text.contains("PATH="),
        "{text}"
    );
    ensure!(!text.contains("CARGO"), "{text}");
    Ok(())
}

#[test]
fn tail_shows_the_last_lines_or_why_there_are_none() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("log");
    assert!(tail(&path, 2).contains("No such file"));
    std::fs::write(&path, "a\nb\nc\n")?;
    assert_eq!(tail(&path, 2), "b\nc");
    assert_eq!(tail(&path, 9), "a\nb\nc");
    Ok(())
}
