//! A second management cluster, with the real Cluster API, for tests that stop operators or need that of the real one.
//!
//! Each test has operators of its own, which see its namespace only.

use anyhow::Result;
use tests::cluster_api::FEATURE_GATES;
use tests::control_plane::Options;
use tests::operator::{self, Builder};
use tests::provider_kinds::{self, Provider};
use tests::scenario::scenario_on;
use tests::{ClusterApi, ControlPlane};
use tokio::sync::OnceCell;

use crate::scene::Scene;

struct Apart {
    control_plane: ControlPlane,
    _cluster_api: ClusterApi,
}

async fn start() -> Result<Apart> {
    let mut options = Options::default();
    "apart".clone_into(&mut options.name);
    let control_plane = ControlPlane::start(options).await?;
    let client = control_plane.client().await?;
    operator::install_rbac(&client, "default").await?;
    provider_kinds::install(&client, &Provider::ALL).await?;
    let cluster_api = ClusterApi::start(&control_plane, FEATURE_GATES).await?;
    Ok(Apart {
        control_plane,
        _cluster_api: cluster_api,
    })
}

/// Runs a test without an operator: it starts its own.
pub async fn apart(name: &str, test: impl AsyncFnOnce(&Scene<'_>) -> Result<()>) -> Result<()> {
    // Never dropped; the guards of its processes end them when this process ends.
    static APART: OnceCell<Apart> = OnceCell::const_new();
    let apart = APART.get_or_try_init(start).await?;
    scenario_on(&apart.control_plane, name, async |bed| {
        operator::install_rbac(&bed.client, &bed.namespace).await?;
        let folder = tempfile::tempdir()?;
        test(&Scene {
            bed,
            folder: folder.path(),
        })
        .await
    })
    .await
}

/// An operator for the test's namespace, with an empty cache.
pub fn operator<'a>(scene: &'a Scene<'_>) -> Builder<'a> {
    scene
        .bed
        .operator()
        .lease_namespace(&scene.namespace)
        .arg(format!("--namespace={}", scene.namespace))
        .arg("--source=local")
        .arg(format!("--release-dir={}", scene.folder.display()))
}
