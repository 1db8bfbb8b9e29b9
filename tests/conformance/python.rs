//! The provider in Python: its stubs are generated from the proto files of this tree, so that "any language" stays true.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use provider_sdk::conformance::{self, Options, Sample, Verdict};
use tests::{
    ports::Port,
    process::{Process, Program},
    python, tools,
};

fn folder() -> PathBuf {
    tools::repository().join("tests/conformance/python")
}

/// The Python files for the contract and what it imports of Google's.
fn stubs(python: &std::path::Path, to: &std::path::Path) -> Result<()> {
    let proto = tools::repository().join("proto");
    let contract = "clusterstack/provider/v1alpha1";
    let files = ["identity", "node_image", "errors"]
        .map(|name| format!("{contract}/{name}.proto"))
        .into_iter()
        .chain(["status", "error_details"].map(|name| format!("google/rpc/{name}.proto")));
    let output = Command::new(python)
        .args(["-m", "grpc_tools.protoc"])
        .arg(format!("--proto_path={}", proto.display()))
        .arg(format!("--python_out={}", to.display()))
        .arg(format!("--grpc_python_out={}", to.display()))
        .args(files)
        .output()
        .context("failed to start protoc")?;
    ensure!(
        output.status.success(),
        "failed to generate stubs: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_in_python_is_conformant_at_level_basic() {
    let python = python::environment_async(&folder().join("requirements.txt"))
        .await
        .unwrap();
    let run = tempfile::tempdir().unwrap();
    stubs(&python, run.path()).unwrap();
    let port = Port::reserve().unwrap();
    let log = run.path().join("provider.log");
    let program = Program::new("provider.py", &python, &log)
        .arg(folder().join("provider.py").display().to_string())
        .arg(port.number().to_string())
        .env("PYTHONPATH", &run.path().display().to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let process = Process::start(&program).unwrap();
    let address = format!("127.0.0.1:{}", port.number());
    tests::wait::eventually("the provider listens", Duration::from_mins(2), async || {
        process.ensure_running()?;
        tokio::net::TcpStream::connect(&address).await?;
        Ok(())
    })
    .await
    .unwrap();
    let sample = Sample::parse(
        "targets:\n  good: {secrets: {token: 'good-${CANARY}'}}\n  wrongCredentials: {secrets: {token: 'bad-${CANARY}'}}\n",
    )
    .unwrap();
    let report = conformance::run(Options::new(address, sample))
        .await
        .unwrap();
    assert_eq!(
        report.verdict(),
        Verdict::Conformant,
        "{}\n{}",
        report.text(),
        process.log_tail(40)
    );
    assert_eq!(report.checks.len(), 32);
}

#[test]
fn provider_in_python_is_short() {
    let text = fs::read_to_string(folder().join("provider.py")).unwrap();
    assert!(text.lines().count() <= 250);
}
