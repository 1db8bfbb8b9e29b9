//! The program `provider-conformance`: what its exit codes and files say.
#![expect(
    clippy::unwrap_used,
    reason = "all of this is a test, which Clippy sees of functions with #[test] only"
)]

use std::process::{Command, Output};

/// Nobody listens on the port of a service that died decades ago.
const NOBODY: &str = "127.0.0.1:1";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_provider-conformance"))
        .args(arguments)
        .output()
        .unwrap()
}

fn sample(folder: &tempfile::TempDir) -> String {
    let path = folder.path().join("sample.yaml");
    std::fs::write(&path, "targets: {good: {}}").unwrap();
    path.display().to_string()
}

#[test]
fn provider_that_does_not_answer_is_not_conformant() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample(&folder);
    let (json, junit) = (folder.path().join("a.json"), folder.path().join("a.xml"));
    let output = run(&[
        "--address",
        NOBODY,
        "--sample",
        &sample,
        "--json",
        &json.display().to_string(),
        "--junit",
        &junit.display().to_string(),
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("FAIL     ID-01"), "{text}");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(json["verdict"], "not conformant");
    assert_eq!(json["checks"].as_array().unwrap().len(), 32);
    let junit = std::fs::read_to_string(junit).unwrap();
    assert!(
        junit.contains("tests=\"32\" failures=\"1\" skipped=\"31\""),
        "{junit}"
    );
}

#[test]
fn wrong_usage_is_told_apart_from_a_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let good = sample(&folder);
    let with = |more: &[&str]| {
        let mut arguments = vec!["--address", NOBODY, "--sample", &good];
        arguments.extend_from_slice(more);
        run(&arguments)
    };
    for output in [
        run(&["--address", NOBODY]),
        run(&["--address", NOBODY, "--sample", "/does/not/exist"]),
        with(&["--level", "high"]),
        with(&["--hook", "dance=true"]),
        with(&["--only", "XX-01"]),
    ] {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(!output.stderr.is_empty(), "{output:?}");
    }
}
