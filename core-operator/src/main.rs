//! The program `core-operator`.

use std::io::Write;

use anyhow::Context;
use core_operator::args::{Args, Command};
use core_operator::commands::{crd, rbac};
use core_operator::{run, telemetry};

fn main() -> anyhow::Result<()> {
    let args = Args::from_process();
    let text = match args.command {
        None => return operate(args),
        Some(Command::Crd) => crd::crds().context("failed to write the definitions")?,
        Some(Command::Rbac) => rbac::roles().context("failed to write the roles")?,
    };
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes()).context("failed to print")
}

fn operate(args: Args) -> anyhow::Result<()> {
    // Fails only when somebody did it before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().context("failed to start threads")?;
    let result = runtime.block_on(async {
        let _telemetry = telemetry::init(&args.options.telemetry()).context("failed to start")?;
        run::run(args).await.context("failed to run")
    });
    // A replica that has lost its lease must not wait for a write or a disk that hangs.
    runtime.shutdown_background();
    result
}
