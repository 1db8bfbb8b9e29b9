//! `provider-conformance`: judges a provider integration over the wire. `docs/conformance.md` is its manual.

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Parser;
use provider_sdk::conformance::{
    self, ArtifactServer, Commands, Hook, Identity, Level, Options, Sample, Tls,
};

/// Judges a provider integration of the Cluster Stack Operator by what it says and does over the wire.
///
/// Exit codes: 0 conformant, 1 not conformant, 2 wrong usage, 3 incomplete.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Host and port of the provider.
    #[arg(long, env = "CONFORMANCE_ADDRESS")]
    address: String,
    /// How much to check: basic, core or extended.
    #[arg(long, env = "CONFORMANCE_LEVEL", default_value = "basic")]
    level: Level,
    /// The sample file, YAML or JSON.
    #[arg(long, env = "CONFORMANCE_SAMPLE")]
    sample: PathBuf,
    /// Host and port of the plaintext health endpoint.
    #[arg(long, env = "CONFORMANCE_HEALTH_ADDRESS")]
    health_address: Option<String>,
    /// URL of the provider's metrics.
    #[arg(long, env = "CONFORMANCE_METRICS_URL")]
    metrics_url: Option<String>,
    /// Authority of the server certificate, PEM; without it the provider is called in plaintext.
    #[arg(long, env = "CONFORMANCE_CA", requires = "certificate")]
    ca: Option<PathBuf>,
    /// Certificate of an identity that is let in, PEM.
    #[arg(long, env = "CONFORMANCE_CERTIFICATE", requires_all = ["ca", "key"])]
    certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(long, env = "CONFORMANCE_KEY", requires = "certificate")]
    key: Option<PathBuf>,
    /// Name that the server certificate must carry; the host of the address when absent.
    #[arg(long, env = "CONFORMANCE_SERVER_NAME")]
    server_name: Option<String>,
    /// Certificate of an authority that the provider does not know, PEM.
    #[arg(
        long,
        env = "CONFORMANCE_STRANGER_CERTIFICATE",
        requires = "stranger_key"
    )]
    stranger_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(
        long,
        env = "CONFORMANCE_STRANGER_KEY",
        requires = "stranger_certificate"
    )]
    stranger_key: Option<PathBuf>,
    /// Certificate of the right authority for an identity that is not let in, PEM.
    #[arg(
        long,
        env = "CONFORMANCE_INTRUDER_CERTIFICATE",
        requires = "intruder_key"
    )]
    intruder_certificate: Option<PathBuf>,
    /// Its key, PEM.
    #[arg(
        long,
        env = "CONFORMANCE_INTRUDER_KEY",
        requires = "intruder_certificate"
    )]
    intruder_key: Option<PathBuf>,
    /// A hook: its name, an equals sign, and a command for `sh -c`. May be given several times.
    #[arg(long = "hook", value_name = "NAME=COMMAND", value_parser = hook)]
    hooks: Vec<(Hook, String)>,
    /// Run only checks whose ids begin with this. May be given several times; never conformant.
    #[arg(long = "only", value_name = "ID")]
    only: Vec<String>,
    /// Address on which the suite serves artifacts.
    #[arg(long, env = "CONFORMANCE_ARTIFACT_LISTEN")]
    artifact_listen: Option<std::net::IpAddr>,
    /// Host by which provider and backend reach the artifacts.
    #[arg(long, env = "CONFORMANCE_ARTIFACT_HOST")]
    artifact_host: Option<String>,
    /// Address of the second host, to which downloads are redirected.
    #[arg(long, env = "CONFORMANCE_ARTIFACT_SECOND_LISTEN")]
    artifact_second_listen: Option<std::net::IpAddr>,
    /// Host by which provider and backend reach the second host.
    #[arg(long, env = "CONFORMANCE_ARTIFACT_SECOND_HOST")]
    artifact_second_host: Option<String>,
    /// Offer artifacts in the registry over TLS with a private authority.
    #[arg(long, env = "CONFORMANCE_REGISTRY_TLS")]
    registry_tls: bool,
    /// Seconds within which an image that nothing holds back must become what it should.
    #[arg(long, env = "CONFORMANCE_PATIENCE", default_value_t = 90)]
    patience: u64,
    /// How many checks run at once.
    #[arg(long, env = "CONFORMANCE_CONCURRENCY", default_value_t = 16)]
    concurrency: usize,
    /// Where to write the results as JSON.
    #[arg(long, env = "CONFORMANCE_JSON")]
    json: Option<PathBuf>,
    /// Where to write the results as JUnit XML.
    #[arg(long, env = "CONFORMANCE_JUNIT")]
    junit: Option<PathBuf>,
}

fn hook(text: &str) -> Result<(Hook, String), String> {
    let (name, command) = text
        .split_once('=')
        .ok_or("a hook is written as NAME=COMMAND")?;
    let hook = Hook::from_name(name).ok_or_else(|| {
        let names: Vec<_> = Hook::ALL.iter().map(|hook| hook.name()).collect();
        format!("unknown hook \"{name}\": {}", names.join(", "))
    })?;
    Ok((hook, command.to_owned()))
}

fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("\"{}\": {error}", path.display()))
}

fn identity(
    certificate: Option<&PathBuf>,
    key: Option<&PathBuf>,
) -> Result<Option<Identity>, String> {
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some(Identity {
            certificate: read(certificate)?,
            key: read(key)?,
        })),
        _ => Ok(None),
    }
}

fn options(args: &Args) -> Result<Options, String> {
    let text = String::from_utf8(read(&args.sample)?)
        .map_err(|error| format!("\"{}\": {error}", args.sample.display()))?;
    let mut options = Options::new(args.address.clone(), Sample::parse(&text)?);
    options.level = args.level;
    options.health_address.clone_from(&args.health_address);
    options.metrics_url.clone_from(&args.metrics_url);
    if let (Some(ca), Some(identity_of_core)) = (
        &args.ca,
        identity(args.certificate.as_ref(), args.key.as_ref())?,
    ) {
        options.tls = Some(Tls {
            ca: read(ca)?,
            identity: identity_of_core,
            server_name: args.server_name.clone(),
            stranger: identity(
                args.stranger_certificate.as_ref(),
                args.stranger_key.as_ref(),
            )?,
            intruder: identity(
                args.intruder_certificate.as_ref(),
                args.intruder_key.as_ref(),
            )?,
        });
    }
    options.hooks = Arc::new(
        args.hooks
            .iter()
            .fold(Commands::new(), |commands, (hook, command)| {
                commands.with(*hook, command)
            }),
    );
    options.filter.clone_from(&args.only);
    let usual = ArtifactServer::default();
    let listen = args.artifact_listen.unwrap_or(usual.listen);
    let second_listen = args.artifact_second_listen.unwrap_or_else(|| {
        // Elsewhere than on the usual address there is no second one to guess.
        if args.artifact_listen.is_some() {
            listen
        } else {
            usual.second_listen
        }
    });
    options.artifacts = ArtifactServer {
        host: args
            .artifact_host
            .clone()
            .unwrap_or_else(|| listen.to_string()),
        second_host: args
            .artifact_second_host
            .clone()
            .unwrap_or_else(|| second_listen.to_string()),
        listen,
        second_listen,
        registry_tls: args.registry_tls,
    };
    options.patience = Duration::from_secs(args.patience);
    options.concurrency = args.concurrency;
    Ok(options)
}

#[expect(clippy::print_stdout, reason = "the report is what the program is for")]
async fn judge(args: &Args) -> Result<ExitCode, String> {
    let report = conformance::run(options(args)?).await?;
    print!("{}", report.text());
    for (path, text) in [(&args.json, report.json()), (&args.junit, report.junit())] {
        if let Some(path) = path {
            std::fs::write(path, text)
                .map_err(|error| format!("\"{}\": {error}", path.display()))?;
        }
    }
    Ok(ExitCode::from(report.verdict().exit_code()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    judge(&args).await.unwrap_or_else(|error| {
        eprintln!("provider-conformance: {error}");
        ExitCode::from(2)
    })
}
