//! The conformance suite: judges any provider integration, in any language, by what it says and does over the wire.
//!
//! ```text
//! Options --> Run (recorder, artifact server, canaries) --> checks, side by side --> checks alone --> looks at the record --> Report
//! ```
//!
//! It is black box: it knows the messages of the contract and nothing of a provider's code, of this crate's server side least of
//! all. All calls go through one recorder ([`recorder`](self)), all bytes come from an artifact server that counts them, and
//! whatever a check made is removed at its end, also when it failed. A check that could not be run is never a pass.
//!
//! `docs/conformance.md` says how an author uses it.

mod artifacts;
mod canary;
mod case;
mod check;
mod checks;
mod client;
mod hands;
mod hooks;
mod options;
mod recorder;
mod report;
mod run;
mod sample;
mod schema;
mod status;
mod table;
mod waiting;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use proto::wire;
use tokio::sync::Semaphore;

pub use artifacts::{ArtifactMaker, BuiltIn, Image, Made};
pub use check::{Duty, Finding, NotRun};
pub use hooks::{Commands, Hook, Hooks, NoHooks};
pub use options::{ArtifactServer, Identity, Level, Options, Tls};
pub use report::{CheckResult, Outcome, Report, Verdict};
pub use sample::{About, Format, Kind, NodeImages, Release, Sample, Target, Targets};

use case::Case;
use check::{Check, Load, Stop, failed, missing};
use run::Run;
use table::CHECKS;

/// A check that takes longer than this is stuck; the longest by nature wait a minute.
const LONGEST_CHECK: Duration = Duration::from_mins(10);

/// Judges a provider.
///
/// # Errors
///
/// When the run cannot begin: a wrong address, unreadable TLS files, no port for the artifact server, a filter that names
/// nothing. What is wrong with the provider is in the report.
pub async fn run(options: Options) -> Result<Report, String> {
    let started = Instant::now();
    let unknown = options.filter.iter().find(|wanted| {
        !CHECKS
            .iter()
            .any(|check| check.id.starts_with(wanted.as_str()))
    });
    if let Some(unknown) = unknown {
        return Err(format!("no check is named \"{unknown}\""));
    }
    let mut run = Run::start(options).await?;
    let hands = run.shake_hands().await;
    let run = Arc::new(run);
    let mut results = BTreeMap::new();
    match hands {
        Ok(()) => {
            side_by_side(&run, &mut results).await;
            alone(&run, &mut results).await;
            look(&run, &mut results);
        }
        Err(error) => {
            for check in wanted(&run) {
                let stop = if check.id == "ID-01" {
                    failed("GetProviderInfo", "OK within 5 s", &error)
                } else {
                    missing(format!("the handshake failed: {error}"))
                };
                results.insert(check.id, (Err(stop), Duration::ZERO));
            }
        }
    }
    Ok(report(&run, results, started.elapsed()))
}

/// How a check ended, and after what time.
type Ended = (check::Verdict, Duration);

fn wanted(run: &Run) -> impl Iterator<Item = &'static Check> {
    CHECKS.iter().filter(|check| {
        check.level <= run.options.level
            && (run.options.filter.is_empty()
                || run
                    .options
                    .filter
                    .iter()
                    .any(|wanted| check.id.starts_with(wanted.as_str())))
    })
}

/// Runs the steps of a check and removes what they made.
async fn steps(run: &Arc<Run>, check: &'static Check) -> Ended {
    let started = Instant::now();
    if let Some(hook) = check
        .hooks
        .iter()
        .find(|hook| !run.options.hooks.has(**hook))
    {
        let stop = missing(format!("there is no hook \"{}\"", hook.name()));
        return (Err(stop), started.elapsed());
    }
    let Some(steps) = check.steps else {
        return (Ok(()), started.elapsed());
    };
    let case = Case::new(run.clone(), check.id);
    // A task of its own, so that a mistake of the suite ends one check and not the run.
    let task = tokio::spawn({
        let case = case.clone();
        async move {
            tokio::time::timeout(LONGEST_CHECK, steps(&case))
                .await
                .unwrap_or_else(|_elapsed| {
                    Err(failed(
                        "the steps of the check",
                        format!("an end within {LONGEST_CHECK:?}"),
                        "no end",
                    ))
                })
        }
    });
    let result = task
        .await
        .unwrap_or_else(|error| Err(missing(format!("the suite itself failed: {error}"))));
    let took = started.elapsed();
    case.clean().await;
    (result, took)
}

/// Runs what disturbs nobody.
async fn side_by_side(run: &Arc<Run>, results: &mut BTreeMap<&'static str, Ended>) {
    let stated = u32::try_from(run.limits().max_concurrent_transfers).unwrap_or(0);
    // A transfer that is held keeps its slot, so there are never more of them than slots.
    let slots = if stated == 0 { 16 } else { stated };
    let transfers = Arc::new(Semaphore::new(slots as usize));
    let checks = Arc::new(Semaphore::new(run.options.concurrency.max(1)));
    let tasks: Vec<_> = wanted(run)
        .filter(|check| check.load != Load::Alone)
        .map(|check| {
            let (run, transfers, checks) = (run.clone(), transfers.clone(), checks.clone());
            let task = async move {
                // In this order: whoever waits for a slot keeps nobody from running who needs none.
                let _slots = match check.load {
                    Load::Transfers(count) => transfers.acquire_many(count.min(slots)).await.ok(),
                    _ => None,
                };
                let _check = checks.acquire().await.ok();
                steps(&run, check).await
            };
            (check.id, tokio::spawn(task))
        })
        .collect();
    for (id, task) in tasks {
        let ended = task.await.unwrap_or_else(|error| {
            (
                Err(missing(format!("the suite itself failed: {error}"))),
                Duration::ZERO,
            )
        });
        results.insert(id, ended);
    }
}

/// Runs what disturbs everybody, one after the other.
async fn alone(run: &Arc<Run>, results: &mut BTreeMap<&'static str, Ended>) {
    for check in wanted(run).filter(|check| check.load == Load::Alone) {
        results.insert(check.id, steps(run, check).await);
    }
}

/// Looks at the record of the whole run.
fn look(run: &Run, results: &mut BTreeMap<&'static str, Ended>) {
    for check in wanted(run) {
        let Some(look) = check.look else {
            continue;
        };
        let started = Instant::now();
        let looked = look(run);
        let ended = results
            .entry(check.id)
            .or_insert_with(|| (Ok(()), Duration::ZERO));
        if ended.0.is_ok() {
            ended.0 = looked;
        }
        ended.1 += started.elapsed();
    }
}

fn report(run: &Run, results: BTreeMap<&'static str, Ended>, took: Duration) -> Report {
    let filtered = !run.options.filter.is_empty();
    let mut results = results;
    let checks = CHECKS
        .iter()
        .filter(|check| check.level <= run.options.level)
        .map(|check| {
            let (result, took) = results.remove(check.id).unwrap_or_else(|| {
                let reason = if filtered {
                    Stop::NotRun(NotRun::LeftOut)
                } else {
                    missing("not implemented")
                };
                (Err(reason), Duration::ZERO)
            });
            CheckResult {
                id: check.id,
                level: check.level,
                duty: check.duty,
                paragraph: check.paragraph,
                outcome: match result {
                    Ok(()) => Outcome::Passed,
                    Err(Stop::Failed(finding)) => Outcome::Failed(*finding),
                    Err(Stop::NotRun(reason)) => Outcome::NotRun(reason),
                },
                took,
            }
        })
        .collect();
    Report {
        level: run.options.level,
        contract: wire::PACKAGE,
        provider_name: run.info.provider_name.clone(),
        provider_version: run.info.provider_version.clone(),
        capabilities: run
            .info
            .capabilities
            .iter()
            .map(|number| match wire::Capability::try_from(*number) {
                Ok(capability) => capability
                    .as_str_name()
                    .trim_start_matches("CAPABILITY_")
                    .to_owned(),
                Err(_) => number.to_string(),
            })
            .collect(),
        checks,
        left_behind: run
            .left
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
        took,
    }
}
