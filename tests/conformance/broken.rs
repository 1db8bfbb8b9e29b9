//! Providers that break one rule each.

use futures::future::join_all;

use crate::{sham::Fault, whole::judged};

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_provider_is_caught_by_the_check_for_it() {
    let runs = Fault::ALL.iter().map(|(fault, check, others)| async move {
        let filter: Vec<_> = std::iter::once(check).chain(*others).copied().collect();
        let report = judged(Some(*fault), &filter).await;
        (fault, check, report)
    });
    let missed: Vec<_> = join_all(runs)
        .await
        .into_iter()
        .filter(|(_, check, report)| !report.failures().contains(check))
        .map(|(fault, check, report)| format!("{fault:?} passes {check}:\n{}", report.text()))
        .collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// The same checks that catch the broken ones pass where nothing is broken.
#[test]
fn every_broken_provider_has_a_check_of_its_own() {
    let checks: std::collections::BTreeSet<_> =
        Fault::ALL.iter().map(|(_, check, _)| check).collect();
    assert_eq!(checks.len(), 32);
}
