//! The command line: every option is also an environment variable.
//!
//! All options of the Go operator are accepted, in the forms that Go takes (`-local`, `--leader-elect=false`), so
//! that its manifests need no change; those that have no effect here are named once in a warning
//! ([`Args::ignored`]). `run` takes [`Options`] apart field by field, so that an unused one does not compile.
//!
//! Variables are `CLUSTER_STACK_<OPTION>`, apart from those that the Go operator or OpenTelemetry fix. An empty
//! variable is an absent one: manifests that are filled by substitution leave empty ones behind. Tokens come from
//! the environment only, as every user of a machine sees the command lines of its processes.

mod values;

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use url::Url;

use crate::servers::BindAddress;
use crate::telemetry::{LogFilter, LogFormat, TelemetryConfig};

pub use values::ClusterKind;
use values::{
    absolute_path, dns_label, go_bool, label_value, namespace_or_all, poll_interval, web_url,
};

/// Shown below the options in the help.
const ENVIRONMENT: &str = "\
Environment only:
  GIT_ACCESS_TOKEN  Token for the code host, to read private repositories and for a higher rate limit

Each option can be given by the variable shown with it; an empty variable counts as absent.";

/// Options of the Go operator that are accepted and do nothing.
///
/// Hooks and addons get theirs back with the controllers that they belong to.
const WITHOUT_EFFECT: [(&str, &str); 8] = [
    // The API server's own fairness throttles.
    ("qps", "CLUSTER_STACK_QPS"),
    ("burst", "CLUSTER_STACK_BURST"),
    // There is no hook server yet.
    ("hook-port", "CLUSTER_STACK_HOOK_PORT"),
    ("hook-cert-dir", "CLUSTER_STACK_HOOK_CERT_DIR"),
    // Rules are part of the CRDs.
    ("webhook-port", "CLUSTER_STACK_WEBHOOK_PORT"),
    ("webhook-cert-dir", "CLUSTER_STACK_WEBHOOK_CERT_DIR"),
    // There is no controller for addons yet.
    (
        "clusteraddon-concurrency",
        "CLUSTER_STACK_CLUSTERADDON_CONCURRENCY",
    ),
    (
        "clusteraddoncreate-concurrency",
        "CLUSTER_STACK_CLUSTERADDONCREATE_CONCURRENCY",
    ),
];

/// The Cluster Stack Operator: makes releases of cluster stacks usable in a management cluster.
#[derive(Debug, Parser)]
#[command(name = "core-operator", version, after_help = ENVIRONMENT, max_term_width = 120)]
pub struct Args {
    /// What to do; without a command the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run.
    #[command(flatten)]
    pub options: Options,
    /// Options of the Go operator that were given and do nothing.
    #[arg(skip)]
    ignored: Vec<&'static str>,
}

/// A command other than running the operator.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Print the custom resource definitions.
    Crd,
    /// Print the roles that the operator needs.
    Rbac,
}

/// Where releases come from when a ClusterStack does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SourceKind {
    /// A code host with the API of GitHub.
    Github,
    /// A registry; not supported yet.
    Oci,
    /// The directory given by --release-dir.
    Local,
}

/// All options of the running operator.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Kubeconfig of the management cluster [default: KUBECONFIG, else the pod's own account]
    #[arg(long, env = "CLUSTER_STACK_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace whose objects are reconciled; empty means all
    #[arg(long, env = "CLUSTER_STACK_NAMESPACE", default_value = "", hide_default_value = true, value_parser = namespace_or_all)]
    pub namespace: String,

    /// Reconcile only objects whose label cluster.x-k8s.io/watch-filter has this value; empty means all
    #[arg(long, env = "CLUSTER_STACK_WATCH_FILTER", value_name = "VALUE", default_value = "", hide_default_value = true, value_parser = label_value)]
    pub watch_filter: String,

    /// Where releases come from when a ClusterStack does not say
    #[arg(
        long,
        env = "CLUSTER_STACK_SOURCE",
        value_enum,
        default_value = "github"
    )]
    pub source: SourceKind,

    /// The same as --source local
    #[arg(long, env = "CLUSTER_STACK_LOCAL", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = go_bool, action = clap::ArgAction::Set)]
    pub local: bool,

    /// Directory with releases for --source local, in `<DIR>/<tag>` or `<DIR>/cluster-stacks/<tag>`; only read
    #[arg(long, env = "CLUSTER_STACK_RELEASE_DIR", value_name = "DIR", default_value = "/tmp/downloads/", value_parser = absolute_path)]
    pub release_dir: PathBuf,

    /// Directory below which a ClusterStack's spec.source.directory.path may lie [default: none may]
    #[arg(long, env = "CLUSTER_STACK_SOURCE_ROOT", value_name = "DIR", value_parser = absolute_path)]
    pub source_root: Option<PathBuf>,

    /// Directory for downloaded releases; may be emptied at any time
    #[arg(long, env = "CLUSTER_STACK_CACHE_DIR", value_name = "DIR", default_value = "/tmp/cluster-stack-operator", value_parser = absolute_path)]
    pub cache_dir: PathBuf,

    /// How often releases are listed for a ClusterStack that does not say; at least 1m
    #[arg(long, env = "CLUSTER_STACK_POLL_INTERVAL", value_name = "DURATION", default_value = "5m", value_parser = poll_interval)]
    pub poll_interval: Duration,

    /// Fetch no chart dependencies: releases must vendor them
    #[arg(long, env = "CLUSTER_STACK_OFFLINE", default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = go_bool, action = clap::ArgAction::Set)]
    pub offline: bool,

    /// API of the code host; GitHub Enterprise has it at `https://<host>/api/v3`
    #[arg(long, env = "CLUSTER_STACK_GITHUB_URL", value_name = "URL", default_value = "https://api.github.com", value_parser = web_url)]
    pub github_url: Url,

    /// Kind of the code host
    #[arg(long, env = "GIT_PROVIDER", value_name = "NAME", default_value = "github", value_parser = ["github"])]
    pub git_provider: String,

    /// Owner of the repository with the releases
    #[arg(long, env = "GIT_ORG_NAME", value_name = "NAME")]
    pub git_org_name: Option<String>,

    /// Repository with the releases
    #[arg(long, env = "GIT_REPOSITORY_NAME", value_name = "NAME")]
    pub git_repository_name: Option<String>,

    /// Token for the code host (environment only)
    #[arg(skip)]
    pub git_access_token: Option<SecretString>,

    /// Program that renders charts [default: helm-renderer beside this program]
    #[arg(long, env = "CLUSTER_STACK_HELM_RENDERER", value_name = "FILE")]
    pub helm_renderer: Option<PathBuf>,

    /// Number of processes that render charts; each takes 40 to 50 MiB
    #[arg(long, env = "CLUSTER_STACK_RENDERERS", value_name = "N", default_value = "2", value_parser = count::<64>)]
    pub renderers: NonZeroUsize,

    /// Further namespaces in which releases may have objects; separated by commas
    #[arg(long, env = "CLUSTER_STACK_ALLOW_NAMESPACES", value_name = "NAMES", value_delimiter = ',', value_parser = dns_label)]
    pub allow_namespaces: Vec<String>,

    /// Cluster-scoped kinds of which releases may have objects, as `<Kind>.<group>`; separated by commas
    #[arg(
        long,
        env = "CLUSTER_STACK_ALLOW_CLUSTER_KINDS",
        value_name = "KINDS",
        value_delimiter = ','
    )]
    pub allow_cluster_kinds: Vec<ClusterKind>,

    /// Number of `ClusterStack`s reconciled at the same time
    #[arg(long, env = "CLUSTER_STACK_CLUSTERSTACK_CONCURRENCY", value_name = "N", default_value = "10", value_parser = count::<1000>)]
    pub clusterstack_concurrency: NonZeroUsize,

    /// Number of `ClusterStackRelease`s reconciled at the same time
    #[arg(long, env = "CLUSTER_STACK_CLUSTERSTACKRELEASE_CONCURRENCY", value_name = "N", default_value = "10", value_parser = count::<1000>)]
    pub clusterstackrelease_concurrency: NonZeroUsize,

    /// Work only while holding a lease; false is for a single replica
    #[arg(long, env = "CLUSTER_STACK_LEADER_ELECT", default_value = "true", default_missing_value = "true", num_args = 0..=1, require_equals = true, value_parser = go_bool, action = clap::ArgAction::Set)]
    pub leader_elect: bool,

    /// Namespace of the lease; empty means the pod's own, outside of a pod that of the kubeconfig
    #[arg(long, env = "CLUSTER_STACK_LEADER_ELECT_NAMESPACE", value_name = "NAMESPACE", default_value = "", hide_default_value = true, value_parser = namespace_or_all)]
    pub leader_elect_namespace: String,

    /// Address for /healthz and /readyz; `:<port>` means all interfaces, `0` means off
    #[arg(
        long,
        env = "CLUSTER_STACK_HEALTH_PROBE_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = ":9440"
    )]
    pub health_probe_bind_address: BindAddress,

    /// Address for /metrics; `:<port>` means all interfaces, `0` means off
    #[arg(
        long,
        env = "CLUSTER_STACK_METRICS_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8080"
    )]
    pub metrics_bind_address: BindAddress,

    /// Which lines are logged: a level or directives such as `info,core_operator::store=debug`
    #[arg(
        long,
        env = "CLUSTER_STACK_LOG_LEVEL",
        value_name = "FILTER",
        default_value = "info"
    )]
    pub log_level: LogFilter,

    /// Form of log lines
    #[arg(
        long,
        env = "CLUSTER_STACK_LOG_FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,

    /// Collector for traces (OTLP over gRPC) [default: no traces]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL", value_parser = web_url)]
    pub otlp_endpoint: Option<Url>,

    /// PEM file with the authorities of an https collector [default: the system's]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_CERTIFICATE", value_name = "FILE")]
    pub otlp_ca_file: Option<PathBuf>,
}

/// A number from 1 to `MOST`.
fn count<const MOST: usize>(text: &str) -> Result<NonZeroUsize, String> {
    let number: Option<NonZeroUsize> = text.parse().ok();
    number
        .filter(|number| number.get() <= MOST)
        .ok_or_else(|| format!("expected a number from 1 to {MOST}"))
}

/// Where releases come from when a ClusterStack does not say.
#[derive(Debug)]
pub enum DefaultSource {
    /// Nowhere: each ClusterStack must name its source.
    None,
    /// A repository of a code host.
    Github {
        /// The host's API.
        url: Url,
        /// Owner of the repository.
        owner: String,
        /// The repository.
        repository: String,
        /// Token, if there is one.
        token: Option<SecretString>,
    },
    /// A directory, in `<path>/<tag>` or `<path>/cluster-stacks/<tag>`.
    Directory {
        /// The directory.
        path: PathBuf,
    },
}

impl Options {
    /// The source for each `ClusterStack` that names none, from `--source`, `--local`, `--release-dir` and `GIT_…`.
    #[must_use]
    pub fn default_source(&self) -> DefaultSource {
        match (
            self.source_kind(),
            &self.git_org_name,
            &self.git_repository_name,
        ) {
            (SourceKind::Local, ..) => DefaultSource::Directory {
                path: self.release_dir.clone(),
            },
            (SourceKind::Github, Some(owner), Some(repository)) => DefaultSource::Github {
                url: self.github_url.clone(),
                owner: owner.clone(),
                repository: repository.clone(),
                token: self.git_access_token.clone(),
            },
            (SourceKind::Github | SourceKind::Oci, ..) => DefaultSource::None,
        }
    }

    /// `--local` wins over `--source`, as in the Go operator.
    fn source_kind(&self) -> SourceKind {
        if self.local {
            SourceKind::Local
        } else {
            self.source
        }
    }

    /// What is logged and exported.
    #[must_use]
    pub fn telemetry(&self) -> TelemetryConfig {
        TelemetryConfig {
            log_format: self.log_format,
            log_filter: self.log_level.clone(),
            otlp_endpoint: self.otlp_endpoint.clone(),
            otlp_ca_file: self.otlp_ca_file.clone(),
        }
    }

    /// The renderer program: as given, else `helm-renderer` beside this program.
    ///
    /// # Errors
    ///
    /// When the system does not tell where this program lies.
    pub fn helm_renderer(&self) -> std::io::Result<PathBuf> {
        match &self.helm_renderer {
            Some(path) => Ok(path.clone()),
            None => Ok(std::env::current_exe()?.with_file_name("helm-renderer")),
        }
    }
}

impl Args {
    /// The process's arguments and environment. Nonsense ends the process with code 2 and a message that names the
    /// option, the value and what was expected.
    #[must_use]
    pub fn from_process() -> Self {
        Self::try_from_iter(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// The given arguments (the first is the program) and the process's environment.
    ///
    /// # Errors
    ///
    /// What clap says; `--help` and `--version` arrive here too.
    pub fn try_from_iter(args: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        let mut command = command();
        let matches = command.try_get_matches_from_mut(args.into_iter().map(with_two_dashes))?;
        let mut args =
            Self::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        args.ignored = ignored(&matches);
        args.options.git_access_token = secret("GIT_ACCESS_TOKEN");
        if args.command.is_some() {
            return Ok(args);
        }
        let Options {
            git_org_name,
            git_repository_name,
            ..
        } = &args.options;
        let kind = args.options.source_kind();
        if kind == SourceKind::Github && git_org_name.is_some() != git_repository_name.is_some() {
            let text = "of '--git-org-name <NAME>' (GIT_ORG_NAME) and '--git-repository-name <NAME>' \
                        (GIT_REPOSITORY_NAME) only one was given; expected both, or neither if each ClusterStack \
                        names its source";
            return Err(command.error(ErrorKind::MissingRequiredArgument, text));
        }
        if kind == SourceKind::Oci {
            let text = "invalid value 'oci' for '--source <SOURCE>': registries are not supported yet; \
                        expected github or local, or spec.source in each ClusterStack";
            return Err(command.error(ErrorKind::InvalidValue, text));
        }
        Ok(args)
    }

    /// The options that were given although they have no effect, without their dashes. For one warning at the start.
    #[must_use]
    pub fn ignored(&self) -> Vec<&str> {
        self.ignored.clone()
    }
}

/// The command with the options of the Go operator that do nothing, and without empty variables.
fn command() -> clap::Command {
    let mut command = Args::command();
    for (name, variable) in WITHOUT_EFFECT {
        // Any value will do, as it is not used; also "-1".
        command = command.arg(
            clap::Arg::new(name)
                .long(name)
                .env(variable)
                .hide(true)
                .allow_hyphen_values(true),
        );
    }
    command.mut_args(|arg| {
        let empty = arg
            .get_env()
            .is_some_and(|name| std::env::var_os(name).is_some_and(|value| value.is_empty()));
        if empty {
            arg.env(Resettable::Reset)
        } else {
            arg
        }
    })
}

/// Go's flags take one dash as well as two: `-local`. There are no short options beside `-h` and `-V`.
fn with_two_dashes(arg: OsString) -> OsString {
    match arg.to_str().and_then(|text| text.strip_prefix('-')) {
        Some(name) if name.len() > 1 && name.starts_with(|c: char| c.is_ascii_lowercase()) => {
            format!("--{name}").into()
        }
        _ => arg,
    }
}

fn ignored(matches: &ArgMatches) -> Vec<&'static str> {
    let given = |name: &str| {
        matches!(
            matches.value_source(name),
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        )
    };
    WITHOUT_EFFECT
        .iter()
        .filter(|(name, _)| given(name))
        .map(|(name, _)| *name)
        .collect()
}

fn secret(variable: &str) -> Option<SecretString> {
    std::env::var(variable)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
        .map(Into::into)
}

#[cfg(test)]
mod tests;
