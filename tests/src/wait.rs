//! Waiting for facts, instead of sleeping.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::process::Process;

/// Between two looks; short against what tests wait for, long enough that ten waiting tests do not load the API server.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks again and again until it succeeds.
///
/// `look` returns an error while the fact is not there yet; the error says what was seen instead:
///
/// ```no_run
/// # async fn example(classes: kube::Api<kube::api::DynamicObject>) -> anyhow::Result<()> {
/// use std::time::Duration;
///
/// let class = tests::eventually("the class is there", Duration::from_secs(10), async || {
///     Ok(classes.get("docker-ferrol-1-27-v1").await?)
/// })
/// .await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// After `timeout`, with what was seen last.
pub async fn eventually<T>(
    what: &str,
    timeout: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    let mut seen = "nothing yet".to_owned();
    loop {
        // A look that hangs must not hide what the one before saw.
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => seen = format!("{error:#}"),
            Err(_) => bail!(
                "waited {timeout:?} until {what}; the last look got no answer, the one before: {seen}"
            ),
        }
        if Instant::now() + PAUSE >= deadline {
            bail!("waited {timeout:?} until {what}; last seen: {seen}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Fails as soon as something is seen that must not be: `look` is repeated for all of `duration` and must succeed each time.
///
/// # Errors
///
/// The first error of `look`.
pub async fn consistently(
    what: &str,
    duration: Duration,
    mut look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let begin = Instant::now();
    loop {
        if let Err(error) = look().await {
            bail!(
                "after {:?} no longer so that {what}: {error:#}",
                begin.elapsed()
            );
        }
        if begin.elapsed() >= duration {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a program answers, and gives up at once when it ends.
///
/// # Errors
///
/// With the end of the program's log, when it ends or does not answer within a minute.
pub(crate) async fn until_ready(
    process: &Process,
    mut look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    // Seconds when idle, far more when the machine also compiles.
    const TIMEOUT: Duration = Duration::from_mins(1);

    let deadline = Instant::now() + TIMEOUT;
    loop {
        process.ensure_running()?;
        // A server that is starting may accept the connection and not answer yet.
        let seen = match tokio::time::timeout(Duration::from_secs(5), look()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "no answer".to_owned(),
        };
        if Instant::now() >= deadline {
            let (name, log) = (process.name(), process.log_tail(30));
            bail!("{name} is not ready after {TIMEOUT:?}: {seen}; its log ends with:\n{log}");
        }
        tokio::time::sleep(PAUSE / 2).await;
    }
}
