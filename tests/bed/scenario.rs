//! A test has its namespace, and a report when it fails.

use std::panic::AssertUnwindSafe;

use anyhow::{Result, bail, ensure};
use futures::FutureExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tests::{ControlPlane, scenario};

async fn is_going(client: &Client, namespace: &str) -> Result<bool> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let there = namespaces.get_opt(namespace).await?;
    Ok(there.is_none_or(|there| there.metadata.deletion_timestamp.is_some()))
}

#[tokio::test]
async fn report_shows_objects_events_and_logs() -> Result<()> {
    scenario("report", async |bed| {
        let objects = "
apiVersion: v1
kind: ConfigMap
metadata: {name: shown}
data: {key: shown-value}
---
apiVersion: v1
kind: Secret
metadata: {name: hidden}
stringData: {key: hidden-value}
---
apiVersion: v1
kind: Event
metadata: {name: event}
type: Warning
reason: Shown
message: shown-message
involvedObject: {kind: ConfigMap, name: shown, namespace: NAMESPACE}
";
        bed.apply(&objects.replace("NAMESPACE", &bed.namespace))
            .await?;
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("some.log");
        std::fs::write(&log, "shown-line\n")?;
        bed.report_log(&log);
        let report = bed.report().await;
        for part in [
            "--- ConfigMap shown",
            "shown-value",
            "Warning Shown ConfigMap/shown: shown-message",
            "shown-line",
            "log of the API server",
        ] {
            ensure!(report.contains(part), "no {part:?} in\n{report}");
        }
        ensure!(!report.contains("hidden"), "{report}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn namespace_goes_with_its_test_however_that_ends() -> Result<()> {
    let client = ControlPlane::shared().await?.client().await?;
    let mut names = [String::new(), String::new(), String::new()];
    let [passed, failed, panicked] = &mut names;
    scenario("passed", async |bed| {
        passed.clone_from(&bed.namespace);
        Ok(())
    })
    .await?;
    let error = scenario("failed", async |bed| {
        failed.clone_from(&bed.namespace);
        bail!("on purpose")
    })
    .await
    .unwrap_err();
    ensure!(error.to_string() == "on purpose");
    let panic = AssertUnwindSafe(scenario("panicked", async |bed| {
        panicked.clone_from(&bed.namespace);
        panic!("on purpose")
    }))
    .catch_unwind()
    .await
    .unwrap_err();
    ensure!(panic.downcast_ref() == Some(&"on purpose"));
    for name in &names {
        ensure!(!name.is_empty());
        ensure!(is_going(&client, name).await?, "{name} stays");
    }
    Ok(())
}
