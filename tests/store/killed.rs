//! A process that is killed while releases enter its store.
//!
//! The test starts itself a second time: with the variable below set, it adds releases until it is killed.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use core_operator::{
    helm::{Helm, RendererConfig},
    release::ReleaseName,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tests::stacks::StackRelease;

use crate::{Folder, open};

/// Name of the test, as it is asked for.
const TEST: &str = "killed::a_killed_process_leaves_no_half_release";

/// Folder with the releases, and in it the cache.
const FOLDER: &str = "CLUSTER_STACK_TEST_STORE_FOLDER";

/// What the second process prints when it begins, and when a release is in the store.
const STEP: &str = "one step further";

const RELEASES: usize = 8;
const ROUNDS: usize = 20;

/// Charts of the example carry all that they need: nothing is asked of Helm.
fn no_helm() -> Helm {
    Helm::new(RendererConfig {
        program: "/nonexistent/helm-renderer".into(),
        processes: 1,
        time_limit: Duration::from_secs(1),
        memory_limit_bytes: 1 << 20,
    })
}

fn releases(folder: &Path) -> Result<Vec<Folder>> {
    let mut releases = Vec::new();
    for entry in fs::read_dir(folder.join("releases"))? {
        releases.push(Folder(entry?.path()));
    }
    Ok(releases)
}

/// Adds releases and throws the store's away again, for ever.
async fn add_until_killed(folder: &Path) -> Result<()> {
    let (releases, helm) = (releases(folder)?, no_helm());
    eprintln!("{STEP}");
    loop {
        let store = open(&folder.join("cache"), &helm, true).await?;
        let adds = releases.iter().map(|release| {
            let (store, name) = (store.clone(), release.name());
            async move {
                store.add(release, &name, &[]).await?;
                eprintln!("{STEP}");
                anyhow::Ok(())
            }
        });
        futures::future::try_join_all(adds).await?;
        let gone = tempfile::tempdir_in(folder)?;
        fs::rename(folder.join("cache/releases"), gone.path().join("releases"))?;
    }
}

// pitfall 57
#[tokio::test]
async fn a_killed_process_leaves_no_half_release() -> Result<()> {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return add_until_killed(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir()?;
    StackRelease::example("docker-example")
        .write_copies_to(&folder.path().join("releases"), RELEASES)?;
    let (helm, cache) = (no_helm(), folder.path().join("cache"));
    let store = open(&folder.path().join("whole"), &helm, true).await?;
    let mut names: BTreeMap<String, ReleaseName> = BTreeMap::new();
    for release in releases(folder.path())? {
        let added = store.add(&release, &release.name(), &[]).await?;
        names.insert(added.digest.clone(), release.name());
    }

    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let (mut left, mut whole) = (0, 0);
    for round in 0..ROUNDS {
        let steps = random.random_range(0..2 * RELEASES);
        let then = Duration::from_micros(random.random_range(0..5_000));
        kill_one(folder.path(), steps, then)?;
        left += fs::read_dir(cache.join("tmp")).map_or(0, Iterator::count);
        let store = open(&cache, &helm, true).await?;
        ensure!(
            fs::read_dir(cache.join("tmp"))?.next().is_none(),
            "round {round}: something is left behind"
        );
        if !cache.join("releases").exists() {
            continue;
        }
        for entry in fs::read_dir(cache.join("releases"))? {
            let digest = format!("sha256:{}", entry?.file_name().display());
            let name = names.get(&digest).with_context(|| digest.clone())?;
            let found = store.find(&digest, name, &[]).await?;
            ensure!(found.is_some(), "round {round}: {name} is not whole");
            whole += 1;
        }
    }
    println!("{whole} whole releases and {left} unfinished ones after {ROUNDS} kills");
    ensure!(
        left > 0 && whole > 0,
        "the process was never killed in the middle"
    );
    // and the rest of the work goes on
    let store = open(&cache, &helm, true).await?;
    for release in releases(folder.path())? {
        let added = store.add(&release, &release.name(), &[]).await?;
        ensure!(names.contains_key(&added.digest), "other content");
    }
    Ok(())
}

fn kill_one(folder: &Path, steps: usize, then: Duration) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", TEST, "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(child.stderr.take().context("no output")?);
    // Kept open until the end: the process is to be killed, not to fail.
    let mut lines = output.lines().map_while(Result::ok);
    let seen = lines.by_ref().filter(|line| line.contains(STEP));
    let seen = seen.take(steps + 1).count();
    std::thread::sleep(then); // at some moment, whatever it is doing
    let running = child.try_wait()?.is_none();
    child.kill()?;
    child.wait()?;
    drop(lines);
    ensure!(seen > steps && running, "the process ended by itself");
    Ok(())
}
