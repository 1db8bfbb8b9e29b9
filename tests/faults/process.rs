//! The operator as a process: how it starts, what it says of itself, how it ends.

use std::net::TcpListener;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use core_operator::lease;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use tests::tools::{self, Tool};
use tests::{Operator, eventually, operator, scenario};

use super::ground::{Ground, PATIENCE, example, http, metric};

/// Runs the operator to its end, which must come by itself.
async fn run(args: &[&str]) -> Result<(Option<i32>, String)> {
    let binary = operator::binary().await?;
    let mut command = Command::new(binary);
    command
        .env_clear()
        .args([
            "--health-probe-bind-address=127.0.0.1:0",
            "--metrics-bind-address=127.0.0.1:0",
        ])
        .args(args);
    let output: Output = tokio::time::timeout(
        PATIENCE,
        tokio::task::spawn_blocking(move || command.output()),
    )
    .await
    .context("it does not end")???;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.code(), text))
}

#[tokio::test]
async fn wrong_options_end_the_process_with_code_2_and_name_the_option() -> Result<()> {
    for (args, words) in [
        (&["--no-such-option"][..], &["--no-such-option"][..]),
        (
            &["--poll-interval=5s"],
            &["--poll-interval", "5s", "one minute"],
        ),
        (&["--namespace=Not_A_Name"], &["--namespace", "Not_A_Name"]),
        (
            &["--cache-dir=relative"],
            &["--cache-dir", "relative", "absolute"],
        ),
        (&["--source=oci"], &["--source", "not supported yet"]),
        (
            &["--git-org-name=only"],
            &["--git-org-name", "GIT_REPOSITORY_NAME"],
        ),
        (&["--renderers=0"], &["--renderers", "1 to 64"]),
        (&["--leader-elect=perhaps"], &["--leader-elect", "perhaps"]),
        (&["--log-level=shouting"], &["--log-level", "shouting"]),
    ] {
        let (code, text) = run(args).await?;
        ensure!(code == Some(2), "{args:?}: {code:?} {text}");
        for word in words {
            ensure!(text.contains(word), "{args:?}: no {word:?} in {text}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn operator_that_cannot_start_ends_with_code_1_and_says_why() -> Result<()> {
    let tools = tools::ensure_async(&[Tool::HelmRenderer]).await?;
    let renderer = format!(
        "--helm-renderer={}",
        tools.path(Tool::HelmRenderer)?.display()
    );
    let folder = tempfile::tempdir()?;
    let (cache, garbage) = (folder.path().join("cache"), folder.path().join("garbage"));
    std::fs::write(&garbage, "{]: no YAML")?;
    let cache = format!("--cache-dir={}", cache.display());
    let kubeconfig = format!("--kubeconfig={}", garbage.display());
    let in_a_file = format!("--cache-dir={}", garbage.join("cache").display());
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    let taken_port = format!("--health-probe-bind-address={taken}");
    for (args, words) in [
        (
            vec![&*renderer, &*cache, "--kubeconfig=/nonexistent/kubeconfig"],
            vec!["/nonexistent/kubeconfig"],
        ),
        (
            vec![&*renderer, &*cache, &*kubeconfig],
            vec!["kubeconfig", garbage.to_str().context("no text")?],
        ),
        (
            vec![&*renderer, &*cache],
            vec!["--kubeconfig", "KUBECONFIG"],
        ),
        (
            vec![&*cache, "--helm-renderer=/nonexistent/renderer"],
            vec!["/nonexistent/renderer", "No such file"],
        ),
        (
            // There, and no renderer.
            vec![&*cache, "--helm-renderer=/bin/false"],
            vec!["renderer"],
        ),
        (
            vec![&*renderer, &*in_a_file],
            vec![garbage.to_str().context("no text")?, "Not a directory"],
        ),
    ] {
        let (code, text) = run(&args).await?;
        ensure!(code == Some(1), "{args:?}: {code:?} {text}");
        for word in words {
            ensure!(text.contains(word), "{args:?}: no {word:?} in {text}");
        }
        ensure!(!text.contains("panicked"), "{args:?}: {text}");
    }
    // The option is given twice otherwise.
    let binary = operator::binary().await?;
    let output = Command::new(binary)
        .env_clear()
        .args([&taken_port, &renderer, &cache])
        .output()?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "{text}");
    for word in ["--health-probe-bind-address", &taken] {
        ensure!(text.contains(word), "no {word:?} in {text}");
    }
    Ok(())
}

#[tokio::test]
async fn operator_is_live_but_not_ready_until_its_watches_are_filled() -> Result<()> {
    scenario("probes", async |bed| {
        let ground = Ground::shared(bed).await?;
        // May have the lease and ask what is served, and no more.
        let name = format!("waiting-{}", ground.namespace);
        let user = bed.control_plane.user(&name, None)?;
        bed.apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: core-operator-leases}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]
"
        ))
        .await?;
        let operator = ground
            .operator()
            .user(user)
            .without_waiting()
            .start()
            .await?;
        let (healthz, readyz) = (
            format!("{}/healthz", operator.health_url()),
            format!("{}/readyz", operator.health_url()),
        );
        eventually("only the watches are missing", PATIENCE, async || {
            let (code, text) = http(&readyz).await?;
            ensure!(
                code == 503
                    && text.contains("[-]watches: being filled")
                    && text.contains("[+]lease ok"),
                "{code} {text}"
            );
            Ok(())
        })
        .await?;
        ensure!(http(&healthz).await?.0 == 200);
        eventually("the log says what is missing", PATIENCE, async || {
            let log = operator.log()?;
            ensure!(
                log.contains("clusterstacks.clusterstack.x-k8s.io is forbidden"),
                "{log}"
            );
            Ok(())
        })
        .await?;

        // Rights that come later need no restart. Cluster-wide, so it goes again.
        bed.apply(&format!(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: core-operator}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {name}}}]
"
        ))
        .await?;
        let ready = operator.ready().await;
        let bindings: Api<k8s_openapi::api::rbac::v1::ClusterRoleBinding> =
            Api::all(ground.client.clone());
        bindings.delete(&name, &DeleteParams::default()).await?;
        ready
    })
    .await
}

#[tokio::test]
async fn terminated_operator_ends_with_code_0_and_gives_the_lease_back() -> Result<()> {
    scenario("terminated", async |bed| {
        let ground = Ground::shared(bed).await?;
        let operator = ground.operator().start().await?;
        let release = example("terminated", "v1");
        ground.stack("first", &release, "").await?;
        ground.ready("first").await?;
        // In the middle of work.
        for number in 0..5 {
            let release = example(&format!("burst{number}"), "v1");
            ground
                .stack(&format!("burst{number}"), &release, "")
                .await?;
        }
        let status = operator.stop()?;
        let log = operator.log()?;
        ensure!(status.code() == Some(0), "{status:?}\n{log}");
        ensure!(!log.contains("reconciles did not end in time"), "{log}");
        let leases: Api<Lease> = ground.api();
        let lease = leases.get(lease::LEASE_NAME).await?;
        let holder = lease.spec.clone().and_then(|spec| spec.holder_identity);
        ensure!(
            holder.as_deref().unwrap_or_default().is_empty(),
            "{} is held by {holder:?}",
            lease.name_any()
        );
        // Nobody waits for a lease that nobody holds.
        let next = ground.operator().start().await?;
        ensure!(
            !next.log()?.contains("waiting for the lease"),
            "{}",
            next.log_tail(30)
        );
        for number in 0..5 {
            ground.ready(&format!("burst{number}")).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn numbers_logs_and_traces_tell_what_was_done() -> Result<()> {
    scenario("telemetry", async |bed| {
        let ground = Ground::shared(bed).await?;
        let collector = Collector::start()?;
        let operator = ground
            .operator()
            .args(["--log-format=json", "--log-level=debug"])
            .arg(format!("--otlp-endpoint=http://{}", collector.address))
            // Without effect, and warned of.
            .args(["--qps=1", "--hook-port=9442"])
            .start()
            .await?;
        ground.stack("told", &example("told", "v1"), "").await?;
        ground.ready("told").await?;
        let broken = example("broken", "v1").with_file("metadata.yaml", "versions: 7");
        ground.stack("broken", &broken, "").await?;
        ground.stack_complains("broken", &["metadata.yaml"]).await?;

        let prefix = "cluster_stack_operator";
        for (series, least) in [
            ("leader", 1.0),
            (
                "reconciles_total{controller=\"clusterstack\",result=\"done\"}",
                1.0,
            ),
            (
                "reconciles_total{controller=\"clusterstackrelease\",result=\"done\"}",
                1.0,
            ),
            (
                "reconcile_duration_seconds_count{controller=\"clusterstack\"}",
                1.0,
            ),
            ("release_downloads_total{result=\"success\"}", 2.0),
            ("release_downloaded_bytes_total", 1000.0),
            ("renders_total{result=\"success\"}", 1.0),
            (
                "source_listings_total{source=\"directory\",result=\"success\"}",
                1.0,
            ),
            ("api_requests_total{verb=\"watch\",code=\"200\"}", 3.0),
        ] {
            let value = metric(&operator, &format!("{prefix}_{series}")).await?;
            ensure!(value >= least, "{series} is {value}");
        }
        let (_, text) = http(&format!("{}/metrics", operator.metrics_url())).await?;
        ensure!(text.trim_end().ends_with("# EOF"), "cut: {text}");
        // Labels come from closed sets: no name of a user's object in them.
        ensure!(!text.contains("told") && !text.contains("broken"), "{text}");

        let traces = tokio::task::spawn_blocking(move || collector.wait_for("reconcile"));
        traces.await??;
        operator.stop()?;
        let log = operator.log()?;
        let mut lines = Vec::new();
        for line in log.lines() {
            let line: serde_json::Value =
                serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))?;
            for field in ["timestamp", "level", "target", "message"] {
                ensure!(line[field].is_string(), "no {field} in {line}");
            }
            lines.push(line);
        }
        let warned = lines.iter().filter(|line| {
            line["message"] == "options without effect" && line["options"] == "qps, hook-port"
        });
        ensure!(warned.count() == 1, "{log}");
        ensure!(
            lines.iter().any(|line| line["message"] == "became leader"),
            "{log}"
        );
        Ok(())
    })
    .await
}

/// Takes what a program exports. It is no HTTP/2 server: the first requests are sent before an answer is needed, and their texts are found in the bytes.
struct Collector {
    address: String,
    listener: TcpListener,
}

impl Collector {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        Ok(Self { address, listener })
    }

    fn wait_for(&self, word: &str) -> Result<()> {
        use std::io::Read;

        let (mut stream, _) = self.listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut received = Vec::new();
        let mut buffer = [0; 16 * 1024];
        while !received
            .windows(word.len())
            .any(|part| part == word.as_bytes())
        {
            let count = stream.read(&mut buffer).context("no trace arrived")?;
            ensure!(count > 0, "the operator closed the connection");
            received.extend_from_slice(&buffer[..count]);
        }
        ensure!(received.starts_with(b"PRI * HTTP/2.0"), "no gRPC");
        Ok(())
    }
}

/// The processes that a process has started.
pub fn children(operator: &Operator) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    let tasks = format!("/proc/{}/task", operator.pid());
    for task in std::fs::read_dir(&tasks).with_context(|| format!("no {tasks}"))? {
        // A thread may end meanwhile.
        let children = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    Ok(pids)
}
