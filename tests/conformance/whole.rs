//! Providers that keep all rules.

use std::{sync::Arc, time::Duration};

use provider_sdk::conformance::{self, Kind, Level, Options, Sample, Verdict};

use crate::sham::{Fault, Handle, Process, SAMPLE};

/// A run over everything that the provider can be asked for.
pub fn options(process: &Arc<Process>) -> Options {
    let mut options = Options::new(process.address(), Sample::parse(SAMPLE).unwrap());
    options.level = Level::Extended;
    options.tls = Some(process.tls.clone());
    options.health_address = Some(process.health());
    options.hooks = Arc::new(Handle(process.clone()));
    options
}

/// Runs the suite over a new provider, with or without a fault.
pub async fn judged(fault: Option<Fault>, filter: &[&str]) -> conformance::Report {
    let process = Process::start(fault).await;
    let mut options = options(&process);
    options.filter = filter.iter().map(ToString::to_string).collect();
    if fault.is_some() {
        // Some faults show only when nothing happens for so long.
        options.patience = Duration::from_secs(30);
    }
    conformance::run(options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn provider_beside_the_sdk_is_conformant_at_every_level() {
    let report = judged(None, &[]).await;
    assert_eq!(report.verdict(), Verdict::Conformant, "{}", report.text());
    assert!(report.left_behind.is_empty(), "{}", report.text());
    assert_eq!(report.checks.len(), 126);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_provider_is_conformant_with_images_from_a_registry() {
    let process = Process::start(None).await;
    let mut options = options(&process);
    options
        .sample
        .artifacts
        .sort_by_key(|format| format.kind != Kind::Oci);
    let report = conformance::run(options).await.unwrap();
    assert_eq!(report.verdict(), Verdict::Conformant, "{}", report.text());
    assert!(report.left_behind.is_empty(), "{}", report.text());
}
