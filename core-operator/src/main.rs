//! The program `core-operator`.

use std::io::Write;

use anyhow::{Context, bail};
use core_operator::args::{Args, Command};
use core_operator::commands::crd;

fn main() -> anyhow::Result<()> {
    match Args::from_process().command {
        Some(Command::Crd) => {
            let crds = crd::crds().context("failed to write the definitions")?;
            std::io::stdout()
                .write_all(crds.as_bytes())
                .context("failed to print the definitions")
        }
        Some(Command::Rbac) | None => bail!("this version only prints definitions: use \"crd\""),
    }
}
