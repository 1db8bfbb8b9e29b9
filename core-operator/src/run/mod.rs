//! Running the operator: from options to controllers, and the way back.
//!
//! ```text
//! probes, metrics ── store, renderer ── lease ── watches ── controllers ── stop: controllers end, lease is given back
//! ```
//!
//! Nothing is watched or written before the lease is ours. When it is lost, the process ends at once: what runs in it may
//! hang in a write.

mod error;
mod operator;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use provider_sdk::download::ClientOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

pub use error::RunError;
use operator::{Concurrency, Operator};

use crate::{
    apply::placement::Allowed,
    args::{Args, Options},
    client,
    helm::{Helm, RendererConfig},
    lease::{
        Fence, FencedLayer, Leadership, Lease, LeaseConfig, LeaseError, go_operator_is_running,
        process_identity,
    },
    metrics::{ApiRequestsLayer, Metrics},
    servers::{self, Check, Readiness, Server},
    source::Sources,
    store::{self, Dependencies, DependencyOptions, StoreLimits},
};

/// How long one answer of the API server may be silent. It gives up itself after 60 s, webhooks after 30 s.
const SILENCE: Duration = Duration::from_secs(40);

/// How long a watch, or the list that it begins with, may be silent. The API server ends each watch after 290 s, which
/// is what kube asks for, and sends bookmarks in between: whoever is silent for longer is gone.
const WATCH_SILENCE: Duration = Duration::from_mins(6);

/// How long one chart may take, and how much memory: the largest known chart takes 0.2 s and 90 MiB.
const RENDER_TIME: Duration = Duration::from_secs(30);
const RENDER_MEMORY: u64 = 512 << 20;

/// Runs the operator until it is told to stop (SIGTERM, SIGINT).
///
/// # Errors
///
/// Why it did not start, or that it lost its lease.
#[expect(
    clippy::too_many_lines,
    reason = "options are taken apart field by field, so that an unused one does not compile"
)]
pub async fn run(args: Args) -> Result<(), RunError> {
    let ignored = args.ignored().join(", ");
    if !ignored.is_empty() {
        warn!(options = ignored, "options without effect");
    }
    let Options {
        ref kubeconfig,
        ref namespace,
        ref watch_filter,
        source: _, // in default_source
        local: _,
        release_dir: _,
        ref source_root,
        ref cache_dir,
        poll_interval,
        offline,
        github_url: _, // in default_source
        git_provider: _,
        git_org_name: _,
        git_repository_name: _,
        git_access_token: _,
        helm_renderer: _, // in helm_renderer()
        renderers,
        ref allow_namespaces,
        ref allow_cluster_kinds,
        clusterstack_concurrency,
        clusterstackrelease_concurrency,
        leader_elect,
        ref leader_elect_namespace,
        ref health_probe_bind_address,
        ref metrics_bind_address,
        log_level: _, // in telemetry
        log_format: _,
        otlp_endpoint: _,
        otlp_ca_file: _,
    } = args.options;
    let stop = stop_on_signals()?;
    let metrics = Arc::new(Metrics::new());
    let readiness = Readiness::new();
    let checks = Checks::new(&readiness);
    serve(
        "--health-probe-bind-address",
        health_probe_bind_address,
        servers::health(readiness),
        &stop,
    )
    .await?;
    serve(
        "--metrics-bind-address",
        metrics_bind_address,
        servers::metrics(Arc::clone(&metrics)),
        &stop,
    )
    .await?;

    let program = args.options.helm_renderer();
    let helm = helm(program.map_err(RunError::FindRenderer)?, renderers.get()).await?;
    checks.renderer.ready();
    let store = open_store(cache_dir, &helm, offline).await?;
    checks.store.ready();
    let sources = Sources::new(ClientOptions::default(), Arc::clone(&metrics))
        .map_err(RunError::PrepareSources)?;

    let config = cluster_config(kubeconfig.as_ref()).await?;
    info!(server = %config.cluster_url, "management cluster");
    let identity = process_identity();
    let lease_namespace = if leader_elect_namespace.is_empty() {
        config.default_namespace.clone()
    } else {
        leader_elect_namespace.clone()
    };
    let plain = client::builder(&config)
        .map_err(RunError::MakeClient)?
        .build();
    checks.watches.ready(); // a replica that waits has nothing to watch
    let leadership = lead(
        &plain,
        leader_elect,
        &lease_namespace,
        &identity,
        &checks,
        &stop,
    )
    .await?;
    let Some(leadership) = leadership else {
        return Ok(()); // stopped while it waited
    };
    let fence = leadership.as_ref().map(Leadership::fence);
    match &fence {
        Some(fence) => metrics.leader_while(fence.clone()),
        None => metrics.leader(true),
    }
    checks.watches.not_ready("being filled");
    checks.lease.ready();

    let clients = Clients::new(&config, WATCH_SILENCE, &metrics, fence.as_ref())?;
    let operator = Operator {
        clients,
        namespace: (!namespace.is_empty()).then(|| namespace.clone()),
        identity,
        allowed: Allowed {
            namespaces: allow_namespaces.clone(),
            cluster_kinds: allow_cluster_kinds.clone(),
        },
        sources,
        default_source: args.options.default_source(),
        source_root: source_root.clone(),
        store,
        helm,
        metrics: Arc::clone(&metrics),
        poll_interval,
        watch_filter: watch_filter.clone(),
        concurrency: Concurrency {
            stacks: clusterstack_concurrency.get(),
            releases: clusterstackrelease_concurrency.get(),
        },
    };
    let work = operator.work(checks.watches, stop.clone());
    let lost = leadership
        .as_ref()
        .map(|leadership| leadership.lost().clone());
    let lost = async move {
        match lost {
            Some(lost) => lost.cancelled_owned().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // First: nothing may go on by chance.
        biased;
        () = lost => {
            error!("lost the lease");
            return Err(RunError::LoseLease);
        }
        result = work => result?,
    }
    metrics.leader(false);
    if let Some(leadership) = leadership {
        leadership.release().await;
    }
    info!("stopped");
    Ok(())
}

/// What readiness depends on.
struct Checks {
    renderer: Check,
    store: Check,
    lease: Check,
    watches: Check,
}

impl Checks {
    fn new(readiness: &Readiness) -> Self {
        Self {
            renderer: readiness.check("renderer"),
            store: readiness.check("store"),
            lease: readiness.check("lease"),
            watches: readiness.check("watches"),
        }
    }
}

fn stop_on_signals() -> Result<CancellationToken, RunError> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Signals)?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        token.cancel();
    });
    Ok(stop)
}

/// The renderer, tried once: a missing or broken program ends the start and not the first release.
async fn helm(program: PathBuf, processes: usize) -> Result<Helm, RunError> {
    let helm = Helm::new(RendererConfig {
        program,
        processes,
        time_limit: RENDER_TIME,
        memory_limit_bytes: RENDER_MEMORY,
    });
    let tried = helm.template("ready", &serde_json::Value::Null).await;
    tried.map_err(RunError::TryRenderer)?;
    Ok(helm)
}

async fn open_store(
    cache_dir: &Path,
    helm: &Helm,
    offline: bool,
) -> Result<store::Store, RunError> {
    let options = DependencyOptions {
        offline,
        ..DependencyOptions::default()
    };
    let dependencies =
        Dependencies::new(helm.clone(), &options).map_err(RunError::PrepareDependencies)?;
    store::Store::open(
        cache_dir,
        helm.clone(),
        dependencies,
        StoreLimits::default(),
    )
    .await
    .map_err(RunError::OpenStore)
}

async fn serve(
    flag: &'static str,
    address: &servers::BindAddress,
    router: axum::Router,
    stop: &CancellationToken,
) -> Result<(), RunError> {
    if let Some(server) = Server::bind(flag, address).await? {
        tokio::spawn(server.serve(router, stop.clone()));
    }
    Ok(())
}

async fn cluster_config(kubeconfig: Option<&PathBuf>) -> Result<Config, RunError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let failed = |source| RunError::ReadKubeconfig {
                path: path.clone(),
                source,
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(failed)?
        }
        None => Config::infer().await.map_err(RunError::FindCluster)?,
    };
    // Our own classes of failure decide about repeats.
    config.default_retry = false;
    config.read_timeout = Some(SILENCE);
    config.reset_reader_on_write = true;
    Ok(config)
}

/// Waits until this replica may work: `None` when it is told to stop first, no leadership where none is asked for.
async fn lead(
    client: &Client,
    leader_elect: bool,
    namespace: &str,
    identity: &str,
    checks: &Checks,
    stop: &CancellationToken,
) -> Result<Option<Option<Leadership>>, RunError> {
    if let Some(holder) = go_operator_is_running(client, namespace).await? {
        return Err(RunError::MeetGoOperator {
            namespace: namespace.to_owned(),
            holder,
        });
    }
    if !leader_elect {
        return Ok(Some(None));
    }
    let lease = Lease::new(client.clone(), LeaseConfig::new(namespace, identity))?;
    match lease.reporting_to(checks.lease.clone()).acquire(stop).await {
        Ok(leadership) => Ok(Some(Some(leadership))),
        Err(LeaseError::Stop) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Clients that write only while we lead, and count what they ask.
struct Clients {
    /// For single requests.
    requests: Client,
    /// For watches, which are silent for minutes.
    watches: Client,
}

impl Clients {
    fn new(
        config: &Config,
        watch_silence: Duration,
        metrics: &Arc<Metrics>,
        fence: Option<&Fence>,
    ) -> Result<Self, RunError> {
        let client = |config: &Config| {
            let builder = client::builder(config)?;
            let counted = builder.with_layer(&ApiRequestsLayer::new(Arc::clone(metrics)));
            Ok(counted
                .with_layer(&FencedLayer::new(fence.cloned()))
                .build())
        };
        let mut watching = config.clone();
        watching.read_timeout = Some(watch_silence);
        Ok(Self {
            requests: client(config).map_err(RunError::MakeClient)?,
            watches: client(&watching).map_err(RunError::MakeClient)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{extract::State, http::Uri};
    use k8s_openapi::{List, api::core::v1::ConfigMap};
    use kube::{Api, runtime::watcher};

    use super::*;
    use crate::watch::Watched;

    /// An API server that never answers the first list.
    async fn answer(
        State(lists): State<Arc<AtomicUsize>>,
        uri: Uri,
    ) -> axum::Json<List<ConfigMap>> {
        let watches = uri
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        if watches || lists.fetch_add(1, Ordering::SeqCst) == 0 {
            std::future::pending::<()>().await;
        }
        let mut list = List::default();
        list.metadata.resource_version = Some("1".to_owned());
        axum::Json(list)
    }

    #[tokio::test]
    async fn list_of_a_watch_that_hangs_is_asked_for_again() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let lists = Arc::new(AtomicUsize::default());
        let router = axum::Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&lists));
        tokio::spawn(axum::serve(listener, router).into_future());
        let config = Config::new(url.parse().unwrap());
        let (silence, metrics) = (Duration::from_millis(50), Arc::new(Metrics::new()));
        let clients = Clients::new(&config, silence, &metrics, None).unwrap();
        let api = Api::<ConfigMap>::all(clients.watches);
        let events = watcher(api, watcher::Config::default());
        let watched = Watched::spawn("ConfigMap".to_owned(), (), events, |_, _| {});
        let patience = Duration::from_mins(1);
        tokio::time::timeout(patience, watched.filled())
            .await
            .unwrap();
        assert!(lists.load(Ordering::SeqCst) > 1);
    }
}
