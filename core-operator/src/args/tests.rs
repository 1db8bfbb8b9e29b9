//! Arguments as they come; the environment is that of a child process, as a process must not change its own.

use std::process::Command as Process;

use secrecy::ExposeSecret as _;

use super::*;

fn parse(args: &[&str]) -> Result<Args, clap::Error> {
    Args::try_from_iter(
        std::iter::once("core-operator")
            .chain(args.iter().copied())
            .map(OsString::from),
    )
}

fn options(args: &[&str]) -> Options {
    parse(args).unwrap().options
}

/// Parses in a child with exactly these variables; returns what [`parses_in_a_child_process`] printed.
fn parse_with(environment: &[(&str, &str)], args: &[&str]) -> String {
    let output = Process::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "args::tests::parses_in_a_child_process",
            "--nocapture",
        ])
        .env_clear()
        .env("ARGS_OF_CHILD", args.join("\n"))
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn parses_in_a_child_process() {
    let Ok(args) = std::env::var("ARGS_OF_CHILD") else {
        return;
    };
    let args: Vec<_> = args.split('\n').filter(|arg| !arg.is_empty()).collect();
    match parse(&args) {
        Ok(args) => {
            let token = args
                .options
                .git_access_token
                .as_ref()
                .map(|token| token.expose_secret().len());
            println!("{args:?}\nlength of token: {token:?}");
        }
        Err(error) => println!("exit code {}\n{error}", error.exit_code()),
    }
}

#[test]
fn without_arguments_the_operator_runs_with_its_defaults() {
    let Args {
        command,
        options,
        ignored,
    } = parse(&[]).unwrap();
    assert_eq!(command, None);
    assert!(ignored.is_empty());
    assert!(options.leader_elect);
    assert_eq!(options.namespace, "");
    assert_eq!(options.poll_interval, Duration::from_mins(5));
    assert_eq!(options.release_dir, PathBuf::from("/tmp/downloads/"));
    assert_eq!(
        options.health_probe_bind_address,
        BindAddress::AllInterfaces(9440)
    );
    assert_eq!(options.metrics_bind_address.to_string(), "127.0.0.1:8080");
    assert!(matches!(options.default_source(), DefaultSource::None));
    assert!(options.helm_renderer().unwrap().ends_with("helm-renderer"));
}

#[test]
fn commands_are_found() {
    assert_eq!(parse(&["crd"]).unwrap().command, Some(Command::Crd));
    assert_eq!(parse(&["rbac"]).unwrap().command, Some(Command::Rbac));
    assert!(parse(&["crds"]).is_err());
}

#[test]
fn every_option_of_the_go_operator_is_accepted() {
    let args = parse(&[
        "--source=github",
        "--local=false",
        "--release-dir=/tmp/downloads/",
        "--watch-filter=blue",
        "--namespace=",
        "--hook-port=9442",
        "--hook-cert-dir=/hooks",
        "--health-probe-bind-address=:9440",
        "--metrics-bind-address=:8080",
        "--leader-elect",
        "--leader-elect-namespace=cso-system",
        "--log-level=info",
        "--qps=50",
        "--burst",
        "-1",
        "--clusterstack-concurrency=1",
        "--clusterstackrelease-concurrency=1",
        "--clusteraddon-concurrency=1",
        "--clusteraddoncreate-concurrency=1",
        "--webhook-port=9443",
        "--webhook-cert-dir=/webhook",
    ])
    .unwrap();
    assert_eq!(args.options.clusterstack_concurrency.get(), 1);
    assert_eq!(args.options.watch_filter, "blue");
    assert_eq!(args.options.leader_elect_namespace, "cso-system");
    let names: Vec<_> = WITHOUT_EFFECT.iter().map(|(name, _)| *name).collect();
    assert_eq!(args.ignored, names);
}

#[test]
fn only_what_was_given_is_called_ignored() {
    assert_eq!(
        parse(&["--qps", "50", "--local"]).unwrap().ignored(),
        ["qps"]
    );
    assert!(parse(&["--local"]).unwrap().ignored().is_empty());
}

#[test]
fn booleans_take_the_forms_of_go() {
    for (args, expected) in [
        (&["--leader-elect"][..], true),
        (&["--leader-elect=false"], false),
        (&["-leader-elect=0"], false),
        (&["--leader-elect=True"], true),
        (&[], true),
        // The value needs the "="; what follows is something else.
        (&["--leader-elect", "--local"], true),
    ] {
        assert_eq!(options(args).leader_elect, expected, "{args:?}");
    }
}

#[test]
fn one_dash_is_as_good_as_two() {
    assert!(options(&["-local"]).local);
    assert_eq!(
        options(&["-metrics-bind-address", "0"]).metrics_bind_address,
        BindAddress::Off
    );
}

#[test]
fn local_wins_over_source() {
    for args in [
        &["--local"][..],
        &["--source", "local"],
        &["--source=oci", "--local"],
    ] {
        let source = options(&[args, &["--release-dir=/releases"]].concat()).default_source();
        assert!(
            matches!(source, DefaultSource::Directory { path } if path.to_str() == Some("/releases")),
            "{args:?}"
        );
    }
}

#[test]
fn lists_are_separated_by_commas() {
    let options = options(&[
        "--allow-namespaces=a,b",
        "--allow-cluster-kinds",
        "Namespace,ClusterRole.rbac.authorization.k8s.io",
    ]);
    assert_eq!(options.allow_namespaces, ["a", "b"]);
    let kinds: Vec<_> = options
        .allow_cluster_kinds
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        kinds,
        ["Namespace", "ClusterRole.rbac.authorization.k8s.io"]
    );
}

#[test]
fn nonsense_names_option_value_and_expectation() {
    for (args, option, value, expected) in [
        (&["--source=svn"][..], "--source", "svn", "github"),
        (&["--source=oci"], "--source", "oci", "not supported yet"),
        (&["--renderers=0"], "--renderers", "0", "1 to 64"),
        (&["--renderers=many"], "--renderers", "many", "1 to 64"),
        (
            &["--clusterstack-concurrency=-3"],
            "--clusterstack-concurrency",
            "-3",
            "1 to 1000",
        ),
        (
            &["--poll-interval=10s"],
            "--poll-interval",
            "10s",
            "at least one minute",
        ),
        (
            &["--metrics-bind-address=8080"],
            "--metrics-bind-address",
            "8080",
            ":<port>",
        ),
        (
            &["--leader-elect=maybe"],
            "--leader-elect",
            "maybe",
            "true or false",
        ),
        (
            &["--namespace=Not_A_Name"],
            "--namespace",
            "Not_A_Name",
            "small letters",
        ),
        (&["--log-level=chatty"], "--log-level", "chatty", "debug"),
        (&["--log-format=xml"], "--log-format", "xml", "json"),
        (
            &["--github-url=ghe.example"],
            "--github-url",
            "ghe.example",
            "https://",
        ),
        (
            &["--release-dir=releases"],
            "--release-dir",
            "releases",
            "absolute",
        ),
        (
            &["--allow-cluster-kinds=namespaces"],
            "--allow-cluster-kinds",
            "namespaces",
            "<Kind>",
        ),
        (
            &["--git-provider=gitlab"],
            "--git-provider",
            "gitlab",
            "github",
        ),
        (
            &["--git-org-name=scs"],
            "--git-repository-name",
            "",
            "expected both",
        ),
        (&["--no-such-option"], "--no-such-option", "", "unexpected"),
    ] {
        let error = parse(args).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.exit_code(), 2, "{args:?}");
        assert!(
            text.contains(option) && text.contains(value) && text.contains(expected),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn every_option_has_a_variable_of_its_own() {
    let command = command();
    let mut variables = Vec::new();
    for arg in command
        .get_arguments()
        .filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version"))
    {
        let name = arg.get_long().unwrap();
        let variable = arg
            .get_env()
            .unwrap_or_else(|| panic!("--{name} has no variable"))
            .to_str()
            .unwrap()
            .to_owned();
        let expected = name.replace('-', "_").to_uppercase();
        let fixed = variable.starts_with("OTEL_EXPORTER_OTLP_")
            || variable == expected && expected.starts_with("GIT_");
        assert!(
            fixed || variable == format!("CLUSTER_STACK_{expected}"),
            "--{name}: {variable}"
        );
        variables.push(variable);
    }
    let count = variables.len();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(variables.len(), count);
}

#[test]
fn variables_count_and_arguments_win() {
    let environment = [
        ("GIT_PROVIDER", "github"),
        ("GIT_ORG_NAME", "scs"),
        ("GIT_REPOSITORY_NAME", "stacks"),
        ("CLUSTER_STACK_RENDERERS", "7"),
        ("CLUSTER_STACK_LEADER_ELECT", "false"),
        ("CLUSTER_STACK_QPS", "50"),
        ("CLUSTER_STACK_LOG_FORMAT", "json"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"),
    ];
    let printed = parse_with(&environment, &["--log-format=text"]);
    for part in [
        "git_org_name: Some(\"scs\")",
        "renderers: 7",
        "leader_elect: false",
        "ignored: [\"qps\"]",
        "log_format: Text",
        "collector",
    ] {
        assert!(printed.contains(part), "{part} not in {printed}");
    }
}

#[test]
fn an_empty_variable_is_an_absent_one() {
    let environment = [
        ("GIT_PROVIDER", ""),
        ("GIT_ORG_NAME", ""),
        ("GIT_REPOSITORY_NAME", ""),
        ("GIT_ACCESS_TOKEN", ""),
        ("CLUSTER_STACK_RENDERERS", ""),
        ("CLUSTER_STACK_HOOK_PORT", ""),
    ];
    let printed = parse_with(&environment, &[]);
    for part in [
        "git_org_name: None",
        "renderers: 2",
        "ignored: []",
        "length of token: None",
    ] {
        assert!(printed.contains(part), "{part} not in {printed}");
    }
}

#[test]
fn nonsense_in_a_variable_is_an_error_too() {
    let printed = parse_with(&[("CLUSTER_STACK_RENDERERS", "many")], &[]);
    assert!(
        printed.contains("exit code 2")
            && printed.contains("--renderers")
            && printed.contains("many"),
        "{printed}"
    );
}

#[test]
fn tokens_are_never_shown() {
    let environment = [
        ("GIT_ACCESS_TOKEN", "ghp_secret\n"),
        ("OCI_PASSWORD", "oci_secret"),
    ];
    for args in [&[][..], &["--help"], &["--renderers=0"]] {
        let printed = parse_with(&environment, args);
        assert!(
            printed.contains("exit code") || printed.contains("length of token: Some(10)"),
            "{printed}"
        );
        assert!(
            !printed.contains("ghp_secret") && !printed.contains("oci_secret"),
            "{printed}"
        );
    }
    assert!(parse_with(&environment, &[]).contains("length of token: Some(10)"));
}
