//! `cargo bench -p tests --bench stacks`: from N `ClusterStack`s to N usable classes, beside what the API server can do at all.
//!
//! ```text
//! control plane ─► one stack: the API server is warm, and it is known what the operator writes
//!               ─► a new operator, N stacks made by 8 connections: first one made ─► last one Ready
//!               ─► the operator at rest
//!               ─► no operator: the same writes and renders by a bare loop of 8 connections (see [`limit`])
//! ```
//!
//! The harness plays Cluster API on both sides, or its real manager runs beside both. The API server writes its audit log on both sides. Nothing is asserted
//! about time: the table has both figures side by side, and how much of the machine somebody else had meanwhile.
//!
//! ```text
//! cargo bench -p tests --bench stacks                                       # everything: some five minutes beyond building
//! cargo bench -p tests --bench stacks -- 1 100 --rest-seconds 0             # these numbers of stacks
//! cargo bench -p tests --bench stacks -- 10 --rtt-ms 5 --real-cluster-api   # this variant
//! ```

mod connections;
mod copies;
mod example;
mod limit;
mod measure;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use core_operator::api::{ClusterStack, ClusterStackRelease};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use tests::control_plane::{Options, User};
use tests::delay::Delay;
use tests::operator::USER;
use tests::provider_kinds::Provider;
use tests::{
    ClassStatus, ClusterApi, ControlPlane, Operator, cluster_api, eventually, operator,
    provider_kinds,
};

use connections::Connections;
use copies::Copy;
use example::Example;
use limit::Loop;
use measure::{Machine, ReadyWatch, Used};

/// Connections of the harness and of the limit; see `reference` of the operator's own limit of writes.
const CONNECTIONS: usize = 8;

/// How often the limit is measured; the table has the median.
const ROUNDS: usize = 3;

/// Between the end of the work and the time at rest.
const SETTLE: Duration = Duration::from_secs(10);

/// Until stacks are ready, or gone.
const PATIENCE: Duration = Duration::from_mins(5);

/// How fast the operator makes stacks usable, beside the limit
#[derive(Debug, Parser)]
struct Args {
    /// Numbers of stacks [default: 1, 10 and 100, and 10 in each of the variants below]
    stacks: Vec<usize>,
    /// Round trip time between operator and API server in milliseconds
    #[arg(long, value_name = "MS")]
    rtt_ms: Option<u64>,
    /// Run Cluster API's real manager instead of playing it
    #[arg(long)]
    real_cluster_api: bool,
    /// Folder of the release to copy [default: the project's own example docker-example]
    #[arg(long, value_name = "DIR")]
    release: Option<PathBuf>,
    /// How long the operator is watched at rest, after the largest number of stacks; 0 for not at all
    #[arg(long, value_name = "SECONDS", default_value = "60")]
    rest_seconds: u64,
    /// Also print each request of the operator with its time
    #[arg(long)]
    timeline: bool,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is measured in one column of the table.
#[derive(Clone, Copy, Debug, Default)]
struct Case {
    stacks: usize,
    round_trip: Duration,
    real_cluster_api: bool,
    rest: Duration,
}

/// What was measured.
struct Figures {
    case: Case,
    operator: Used,
    /// Looks at stacks, and at releases.
    reconciles: (u64, u64),
    /// From the first stack to the median one that is ready.
    median: Duration,
    rest: Option<Used>,
    operator_peak: u64,
    renderer_peaks: Vec<u64>,
    limit: Used,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    tokio::select! {
        result = bench(&args) => result,
        // Dropping what was started ends it.
        _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

async fn bench(args: &Args) -> Result<()> {
    eprintln!("building the operator …");
    operator::binary().await?;
    let mut all = Vec::new();
    for case in cases(args) {
        eprintln!("{} …", case.name());
        let figures = measure(case, args.release.as_deref())
            .await
            .with_context(|| format!("failed with {}", case.name()))?;
        if args.timeline {
            table::print_timeline(&figures);
        }
        all.push(figures);
    }
    table::print(&all);
    Ok(())
}

fn cases(args: &Args) -> Vec<Case> {
    let round_trip = Duration::from_millis(args.rtt_ms.unwrap_or_default());
    let is_variant = args.rtt_ms.is_some() || args.real_cluster_api;
    let plain = |stacks| Case {
        stacks,
        round_trip,
        real_cluster_api: args.real_cluster_api,
        ..Case::default()
    };
    let mut cases: Vec<_> = args.stacks.iter().copied().map(plain).collect();
    let everything = cases.is_empty() && !is_variant && args.bench;
    if everything {
        cases.extend([1, 10, 100].map(plain));
    } else if cases.is_empty() && is_variant {
        cases.push(plain(10));
    } else if cases.is_empty() {
        // Run by `cargo test --benches`: does it work at all?
        cases.push(plain(1));
    }
    if args.bench
        && let Some(largest) = cases.iter_mut().max_by_key(|case| case.stacks)
    {
        largest.rest = Duration::from_secs(args.rest_seconds);
    }
    if everything {
        cases.push(Case {
            round_trip: Duration::from_millis(5),
            ..plain(10)
        });
        cases.push(Case {
            real_cluster_api: true,
            ..plain(10)
        });
    }
    cases
}

impl Case {
    fn name(&self) -> String {
        let mut name = match self.stacks {
            1 => "1 stack".to_owned(),
            more => format!("{more} stacks"),
        };
        if !self.round_trip.is_zero() {
            name = format!("{name}, {} ms", self.round_trip.as_millis());
        }
        if self.real_cluster_api {
            name.push_str(", real CAPI");
        }
        name
    }
}

async fn measure(case: Case, release: Option<&Path>) -> Result<Figures> {
    let folder = tempfile::tempdir().context("failed to make a folder for the releases")?;
    // The last one is for warming up.
    let mut releases = match release {
        None => copies::of_example(folder.path(), case.stacks + 1)?,
        Some(release) => copies::of_release(release, folder.path(), case.stacks + 1)?,
    };
    let spare = releases.pop().context("no releases")?;
    let plane = Plane::start(case).await?;
    let example = plane.example(folder.path(), &spare).await?;

    let mut figures = plane.operator(case, folder.path(), &releases).await?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let namespace = plane.server.namespace("limit").await?;
        let bare = Loop::prepare(&plane, &example, &namespace, folder.path(), &spare).await?;
        let machine = plane.machine(None);
        let mut requests = plane.server.requests(USER).await?;
        requests.mark().await?;
        let before = machine.look();
        let wall = bare.run(&releases).await?;
        rounds.push(before.used(&machine.look(), wall, requests.list().await?));
    }
    rounds.sort_by_key(|used| used.wall);
    figures.limit = rounds.swap_remove(ROUNDS / 2);
    Ok(figures)
}

/// A management cluster, and the ways to it.
struct Plane {
    _class_status: Option<ClassStatus>,
    cluster_api: Option<ClusterApi>,
    _delay: Option<Delay>,
    /// The operator's user, from afar where the case says so.
    user: User,
    client: Client,
    server: ControlPlane,
}

impl Plane {
    async fn start(case: Case) -> Result<Self> {
        let control_plane = ControlPlane::start(Options::default()).await?;
        let client = control_plane.client().await?;
        provider_kinds::install(&client, &Provider::ALL).await?;
        let (cluster_api, class_status) = if case.real_cluster_api {
            let manager = ClusterApi::start(&control_plane, cluster_api::FEATURE_GATES).await?;
            (Some(manager), None)
        } else {
            cluster_api::install_crds(&client).await?;
            (None, Some(ClassStatus::write(&client, None)))
        };
        operator::install_rbac(&client, "default").await?;
        let near = control_plane.user(USER, None)?;
        let (delay, user) = if case.round_trip.is_zero() {
            (None, near)
        } else {
            let delay = Delay::start(control_plane.address(), case.round_trip)?;
            let user = near.through(delay.address())?;
            (Some(delay), user)
        };
        Ok(Self {
            _class_status: class_status,
            cluster_api,
            _delay: delay,
            user,
            client,
            server: control_plane,
        })
    }

    async fn start_operator(&self, releases: &Path) -> Result<Operator> {
        Operator::builder(&self.server)
            .user(self.user.clone())
            .arg("--source=local")
            .arg(format!("--release-dir={}", releases.display()))
            .start()
            .await
    }

    /// Brings one stack up and away again. What the operator has written about it is the example for the limit.
    async fn example(&self, folder: &Path, spare: &Copy) -> Result<Example> {
        let operator = self.start_operator(folder).await?;
        let namespace = self.server.namespace("example").await?;
        let stacks: Api<ClusterStack> = Api::namespaced(self.client.clone(), &namespace);
        let mut ready = ReadyWatch::start(&stacks).await?;
        let stack = example::stack(spare)?;
        stacks.create(&PostParams::default(), &stack).await?;
        ready
            .all(1, PATIENCE)
            .await
            .with_context(|| operator.log_tail(20))?;
        let example = Example::read(&self.client, &namespace, spare).await?;
        let name = spare.name.stem();
        stacks.delete(name, &DeleteParams::default()).await?;
        eventually("the stack is gone", PATIENCE, async || {
            let stack = stacks.get_opt(name).await?;
            ensure!(stack.is_none(), "{stack:?}");
            Ok(())
        })
        .await?;
        operator.stop()?;
        Ok(example)
    }

    async fn operator(&self, case: Case, folder: &Path, releases: &[Copy]) -> Result<Figures> {
        let namespace = self.server.namespace("fleet").await?;
        let stacks: Api<ClusterStack> = Api::namespaced(self.client.clone(), &namespace);
        let manifests: Vec<_> = releases.iter().map(example::stack).collect::<Result<_>>()?;
        let harness = Connections::open(self.server.admin(), CONNECTIONS).await?;
        let operator = self.start_operator(folder).await?;
        let mut ready = ReadyWatch::start(&stacks).await?;
        // The lease, the first lists: not what is measured.
        tokio::time::sleep(Duration::from_secs(1)).await;

        let machine = self.machine(Some(operator.pid()));
        let mut requests = self.server.requests(USER).await?;
        requests.mark().await?;
        let before = machine.look();
        let begin = Instant::now();
        let creations = manifests.iter().map(|stack| {
            let namespace = &namespace;
            harness.with(move |client| async move {
                let api: Api<ClusterStack> = Api::namespaced(client, namespace);
                api.create(&PostParams::default(), stack).await
            })
        });
        let (created, seen) = tokio::join!(
            futures::future::try_join_all(creations),
            ready.all(releases.len(), PATIENCE)
        );
        created.context("failed to create a stack")?;
        let mut seen = seen.with_context(|| operator.log_tail(20))?;
        let after = machine.look();
        seen.sort();
        let since = |moment: Option<&Instant>| moment.map_or(Duration::ZERO, |end| *end - begin);
        let used = before.used(&after, since(seen.last()), requests.list().await?);
        let reconciles = measure::reconciles(&operator.metrics_url()).await?;
        self.check(&namespace, releases.len()).await?;

        let rest = if case.rest.is_zero() {
            None
        } else {
            eprintln!("at rest …");
            tokio::time::sleep(SETTLE).await;
            requests.mark().await?;
            let (before, begin) = (machine.look(), Instant::now());
            tokio::time::sleep(case.rest).await;
            let after = machine.look();
            Some(before.used(&after, begin.elapsed(), requests.list().await?))
        };
        let figures = Figures {
            case,
            operator: used,
            reconciles,
            median: since(seen.get(seen.len() / 2)),
            rest,
            operator_peak: tests::usage::peak_memory(operator.pid()),
            renderer_peaks: tests::usage::children(operator.pid())
                .into_iter()
                .map(tests::usage::peak_memory)
                .collect(),
            limit: Used::default(),
        };
        operator.stop()?;
        Ok(figures)
    }

    /// A stack that is Ready must be so for a reason.
    async fn check(&self, namespace: &str, expected: usize) -> Result<()> {
        let releases: Api<ClusterStackRelease> = Api::namespaced(self.client.clone(), namespace);
        let releases = releases.list(&ListParams::default()).await?;
        let ready = releases
            .iter()
            .filter(|release| release.status.as_ref().is_some_and(|status| status.ready))
            .count();
        let classes = example::classes(&self.client, namespace).await?;
        ensure!(
            (ready, classes) == (expected, expected),
            "{ready} releases are ready and {classes} classes are there, not {expected}"
        );
        Ok(())
    }

    fn machine(&self, operator: Option<u32>) -> Machine {
        Machine {
            operator,
            api_server: self.server.pid().unwrap_or_default(),
            others: [
                Some(self.server.etcd().pid()),
                self.server.controllers().map(tests::process::Process::pid),
                self.cluster_api.as_ref().and_then(ClusterApi::pid),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }
}
