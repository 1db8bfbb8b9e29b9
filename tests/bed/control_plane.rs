//! Control planes start, stop, keep apart and leave nothing behind.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tests::control_plane::Options;
use tests::process::Process;
use tests::{ControlPlane, consistently, eventually, manifests, tools};

use crate::children::{child, line, none_left, role, with_argument};

fn map(name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(name.to_owned());
    map
}

async fn create(client: &Client, namespace: &str, name: &str) -> Result<ConfigMap> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    Ok(api.create(&PostParams::default(), &map(name)).await?)
}

#[tokio::test]
async fn api_server_says_the_pinned_version() -> Result<()> {
    let version = ControlPlane::shared()
        .await?
        .client()
        .await?
        .apiserver_version()
        .await?;
    let modules = tools::repository().join("tests/tools/kubernetes/go.mod");
    let pinned = format!("k8s.io/kubernetes {}", version.git_version);
    ensure!(
        std::fs::read_to_string(modules)?
            .lines()
            .any(|line| line.trim().starts_with(&pinned)),
        "{} is not what is pinned",
        version.git_version
    );
    Ok(())
}

#[tokio::test]
async fn dropped_control_plane_leaves_no_process_and_no_file() -> Result<()> {
    let mut options = Options::default();
    options.name = "dropped".to_owned();
    let control_plane = ControlPlane::start(options).await?;
    let workload = control_plane.add_workload("dropped-too").await?;
    let folder = control_plane.folder().to_owned();
    let programs = with_argument(&folder.to_string_lossy());
    for program in ["etcd", "kube-apiserver", "kube-controller-manager"] {
        ensure!(
            programs.iter().any(|line| line.contains(program)),
            "{program} is not in {programs:?}"
        );
    }
    let client = workload.client().await?;
    drop(control_plane);
    // A workload API server holds on to the etcd it needs.
    client.apiserver_version().await?;
    drop(workload);
    none_left(&folder).await?;
    ensure!(!folder.exists(), "{} is there", folder.display());
    Ok(())
}

#[tokio::test]
async fn control_plane_of_a_killed_owner_ends() -> Result<()> {
    const TEST: &str = "control_plane::control_plane_of_a_killed_owner_ends";
    if role().is_some() {
        let control_plane = ControlPlane::start(Options::default()).await?;
        println!("\nfolder: {}", control_plane.folder().display());
        std::future::pending::<()>().await;
    }
    let logs = tempfile::tempdir()?;
    let owner = Process::start(&child(TEST, "owner", &logs.path().join("owner.log"))?)?;
    let folder = PathBuf::from(line(&owner, "folder: ").await?);
    ensure!(!with_argument(&folder.to_string_lossy()).is_empty());
    owner.kill_9();
    none_left(&folder).await?;
    ensure!(!folder.join("etcd").exists(), "the data of etcd are there");
    // The logs stay until somebody else makes such a folder.
    ensure!(folder.join("etcd.log").exists());
    let _next = tests::state::State::create("sweep")?;
    ensure!(!folder.exists(), "{} is there", folder.display());
    Ok(())
}

#[tokio::test]
async fn api_server_keeps_port_and_data_when_it_is_stopped_or_killed() -> Result<()> {
    let server = ControlPlane::shared()
        .await?
        .add_workload("restarted")
        .await?;
    let (client, url) = (server.client().await?, server.url());
    create(&client, "default", "kept").await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    for graceful in [true, false] {
        let before = server.pid().context("does not run")?;
        if graceful {
            server.stop_api_server()?;
        } else {
            server.kill_api_server();
        }
        ensure!(server.pid().is_none());
        ensure!(maps.get("kept").await.is_err(), "a stopped server answers");
        server.start_api_server().await?;
        ensure!(server.pid() != Some(before));
        ensure!(server.url() == url);
        // The same client as before: the port and the certificates are the same.
        maps.get("kept").await?;
    }
    let error = server.start_api_server().await.unwrap_err();
    ensure!(error.to_string().contains("runs already"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn workload_cluster_is_independent_of_its_management_cluster() -> Result<()> {
    let management = ControlPlane::shared().await?;
    let workload = management.add_workload("independent").await?;
    let (here, there) = (management.client().await?, workload.client().await?);
    let namespace = management.namespace("independent").await?;
    let namespaces: Api<Namespace> = Api::all(there.clone());
    ensure!(namespaces.get_opt(&namespace).await?.is_none());

    create(&there, "default", "only-there").await?;
    let maps: Api<ConfigMap> = Api::namespaced(here, "default");
    ensure!(maps.get_opt("only-there").await?.is_none());

    // One authority signs for both, but rights are each cluster's own.
    let user = workload.user("reader", None)?;
    let maps: Api<ConfigMap> = Api::namespaced(user.client().await?, "default");
    ensure!(is_forbidden(maps.get("only-there").await));
    manifests::apply_yaml(&there, "default", &binding("reader")).await?;
    eventually(
        "the reader may read there",
        Duration::from_secs(10),
        async || Ok(maps.get("only-there").await.map(|_| ())?),
    )
    .await
}

fn binding(user: &str) -> String {
    format!(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: {user}}}
rules: [{{apiGroups: [''], resources: [configmaps], verbs: [get]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {user}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {user}}}
subjects: [{{apiGroup: rbac.authorization.k8s.io, kind: User, name: {user}}}]
"
    )
}

fn is_forbidden<T>(result: kube::Result<T>) -> bool {
    matches!(result, Err(kube::Error::Api(status)) if status.is_forbidden())
}

#[tokio::test]
async fn user_has_only_the_rights_that_are_given() -> Result<()> {
    let server = ControlPlane::shared().await?;
    let admin = server.client().await?;
    let namespace = server.namespace("rights").await?;
    create(&admin, &namespace, "readable").await?;
    let name = format!("user-{namespace}");
    let client = server.user(&name, None)?.client().await?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    ensure!(is_forbidden(maps.get("readable").await));

    manifests::apply_yaml(&admin, &namespace, &binding(&name)).await?;
    eventually(
        "the user may read a ConfigMap",
        Duration::from_secs(10),
        async || Ok(maps.get("readable").await.map(|_| ())?),
    )
    .await?;
    ensure!(is_forbidden(maps.list(&ListParams::default()).await));
    let parameters = DeleteParams::default();
    ensure!(is_forbidden(maps.delete("readable", &parameters).await));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    ensure!(is_forbidden(secrets.get("any").await));
    let elsewhere: Api<ConfigMap> = Api::namespaced(client, "default");
    ensure!(is_forbidden(elsewhere.get("readable").await));

    // By group: the certificate's organization.
    let client = server
        .user("root", Some("system:masters"))?
        .client()
        .await?;
    let secrets: Api<Secret> = Api::namespaced(client, &namespace);
    secrets.list(&ListParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn controllers_collect_garbage_and_empty_namespaces() -> Result<()> {
    let server = ControlPlane::shared().await?;
    ensure!(server.controllers().is_some_and(Process::is_running));
    let client = server.client().await?;
    let namespace = server.namespace("garbage").await?;
    let owner = create(&client, &namespace, "owner").await?;
    let mut child = map("child");
    child.metadata.owner_references = Some(vec![serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.metadata.uid,
    }))?]);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    maps.create(&PostParams::default(), &child).await?;
    create(&client, &namespace, "orphan").await?;
    maps.delete("owner", &DeleteParams::background()).await?;
    let patience = Duration::from_secs(20);
    eventually("the child is gone", patience, async || {
        ensure!(maps.get_opt("child").await?.is_none());
        Ok(())
    })
    .await?;
    consistently(
        "the other object stays",
        Duration::from_millis(300),
        async || Ok(maps.get("orphan").await.map(|_| ())?),
    )
    .await?;

    let namespaces: Api<Namespace> = Api::all(client);
    namespaces
        .delete(&namespace, &DeleteParams::default())
        .await?;
    eventually("the namespace is gone", patience, async || match namespaces
        .get_opt(&namespace)
        .await?
    {
        Some(there) => bail!("{:?}", there.status),
        None => Ok(()),
    })
    .await
}
