//! The audit log tells what a user has asked.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchParams};
use serde_json::json;
use tests::ControlPlane;

#[tokio::test]
async fn requests_of_a_user_are_counted_from_the_mark() -> Result<()> {
    let server = ControlPlane::shared().await?;
    let namespace = server.namespace("audit").await?;
    let name = format!("auditor-{namespace}");
    let client = server.user(&name, Some("system:masters"))?.client().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, &namespace);
    maps.list(&ListParams::default()).await?;

    let mut requests = server.requests(&name).await?;
    ensure!(requests.list().await?.is_empty(), "older than the mark");
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "counted"}}))?;
    let trial = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    maps.create(&trial, &map).await?;
    maps.create(&PostParams::default(), &map).await?;
    let patch = Patch::Merge(json!({"data": {"a": "b"}}));
    maps.patch("counted", &PatchParams::default(), &patch)
        .await?;
    ensure!(maps.get_opt("missing").await?.is_none());
    // Counts while it goes on, too.
    let _watch = maps.watch(&WatchParams::default(), "0").await?;

    let counts = requests.counts().await?;
    let of = |verb| counts.get(verb, "configmaps", "");
    ensure!(
        (of("create"), of("patch"), of("get"), of("watch")) == (2, 1, 1, 1),
        "{counts}"
    );
    ensure!(counts.total() == 5, "{counts}");
    ensure!(counts.by_verb()["create"] == 2);
    let writes: Vec<_> = requests
        .writes()
        .await?
        .iter()
        .map(ToString::to_string)
        .collect();
    ensure!(
        writes
            == [
                format!("create configmaps {namespace}/counted -> 201"),
                format!("patch configmaps {namespace}/counted -> 200"),
            ],
        "{writes:?}"
    );
    requests.mark().await?;
    ensure!(requests.counts().await?.total() == 0);
    Ok(())
}
