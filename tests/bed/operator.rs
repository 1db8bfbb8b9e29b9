//! The operator's program is the one of this source tree.

use std::process::Command;

use anyhow::{Result, ensure};
use tests::{operator, tools};

#[tokio::test]
async fn operator_is_built_from_this_source_tree() -> Result<()> {
    let binary = operator::binary().await?;
    let output = Command::new(binary).arg("crd").output()?;
    ensure!(output.status.success());
    let committed = std::fs::read(tools::repository().join("deploy/crds/crds.yaml"))?;
    ensure!(output.stdout == committed, "prints other definitions");
    Ok(())
}
