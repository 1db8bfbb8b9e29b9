//! Waiting for facts.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tests::ports::Port;
use tests::{consistently, eventually};

#[tokio::test]
async fn eventually_says_what_it_saw_last() -> Result<()> {
    let mut looks = 0;
    let seen = eventually("the third look", Duration::from_secs(5), async || {
        looks += 1;
        ensure!(looks == 3, "look {looks}");
        Ok(looks)
    })
    .await?;
    ensure!(seen == 3);
    let short = Duration::from_millis(150);
    let error = eventually("never", short, async || -> Result<()> {
        bail!("only this")
    })
    .await
    .unwrap_err()
    .to_string();
    ensure!(
        error.contains("until never") && error.contains("only this"),
        "{error}"
    );
    let begin = Instant::now();
    let error = eventually("an answer", short, std::future::pending::<Result<()>>)
        .await
        .unwrap_err()
        .to_string();
    ensure!(error.contains("no answer"), "{error}");
    ensure!(begin.elapsed() < Duration::from_secs(3));
    Ok(())
}

#[tokio::test]
async fn consistently_fails_with_the_first_look_that_does() -> Result<()> {
    let mut looks = 0;
    let error = consistently("looks are few", Duration::from_secs(5), async || {
        looks += 1;
        ensure!(looks < 3, "look {looks}");
        Ok(())
    })
    .await
    .unwrap_err()
    .to_string();
    ensure!(error.contains("look 3"), "{error}");
    consistently("nothing", Duration::ZERO, async || Ok(())).await
}

#[test]
fn port_is_given_once() -> Result<()> {
    let ports: Vec<_> = (0..50).map(|_| Port::reserve()).collect::<Result<_>>()?;
    let mut numbers: Vec<_> = ports.iter().map(Port::number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 50);
    Ok(())
}
