//! Real releases of others, where they are at hand, and what the Go operator made of them.
//!
//! They lie outside of this source tree: see [`tests::reference`].

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use core_operator::api::{ClusterStackRelease, OWNED_LABEL};
use core_operator::release::{KubernetesMinor, ReleaseName};
use kube::ResourceExt;
use serde_json::{Value, json};
use tests::{manifests, reference};

use crate::scene::scene;
use crate::stack::Stack;

/// All releases, and the file with what the Go operator made of a release of the same content, if there is one.
const RELEASES: [(&str, Option<&str>); 10] = [
    ("docker-ferrol-1-27-v0-sha-hipstsw", None),
    (
        "docker-ferrol-1-27-v1",
        Some("12-single-stage.clusterstackrelease_docker-single-1-27-v1.yaml"),
    ),
    ("docker-ferrol-1-27-v2", None),
    ("docker-ferrol-1-27-v3", None),
    ("docker-ferrol-1-27-v11", None),
    ("docker-ferrol-1-27-v12", None),
    (
        "docker-scs-1-30-v0-sha-d2lgujm",
        Some("01-ready.clusterstackrelease_docker-ready-1-30-v0-sha-d2lgujm.yaml"),
    ),
    ("docker-scs-1-30-v1", None),
    ("docker-scs-1-30-v2", None),
    (
        "openstack-scs-1-32-v0-sha-sjl0coz",
        Some("20-openstack.clusterstackrelease.yaml"),
    ),
];

/// A class as the Go operator left it.
const CLASS: &str = "01-ready.clusterclass_docker-ready-1-30-v0-sha.d2lgujm.yaml";

/// The same under the name of our stack: the Go operator's had other ones.
fn renamed(name: &str, from: &ReleaseName, to: &ReleaseName) -> String {
    name.replace(&from.dotted(), &to.dotted())
}

/// Group, kind and name of each object in an inventory.
fn shapes(release: &ClusterStackRelease) -> BTreeSet<(String, String, String)> {
    let entries = release.inventory().iter();
    entries
        .map(|it| (it.group.clone(), it.kind.clone(), it.name.clone()))
        .collect()
}

fn observed(folder: &Path, file: &str) -> Result<ClusterStackRelease> {
    let text = std::fs::read_to_string(folder.join(file))?;
    let mut object = serde_saphyr::from_str::<Value>(&text)?;
    if object["kind"] == "List" {
        object = object["items"][0].take();
    }
    Ok(serde_json::from_value(object)?)
}

#[tokio::test]
async fn real_releases_become_ready_with_the_objects_that_the_go_operator_made() -> Result<()> {
    let names: Vec<_> = RELEASES.iter().map(|(name, _)| *name).collect();
    let Some(folder) = reference::folder(reference::RELEASES, "releases", &names)? else {
        return Ok(());
    };
    let mut files: Vec<_> = RELEASES.iter().filter_map(|(_, file)| *file).collect();
    files.push(CLASS);
    let observations = reference::folder(reference::OBSERVED, "observed objects", &files)?;
    scene("fixtures", async |scene| {
        // Both places in which the Go operator's users have releases; nothing is written there.
        let inner = scene.folder.join("cluster-stacks");
        std::fs::create_dir_all(&inner)?;
        let mut stacks: BTreeMap<(String, KubernetesMinor), Vec<ReleaseName>> = BTreeMap::new();
        for (position, tag) in names.iter().enumerate() {
            let place = if position % 2 == 0 { scene.folder } else { &inner };
            symlink(folder.join(tag), place.join(tag))?;
            let name: ReleaseName = tag.parse()?;
            stacks.entry((name.stem().to_owned(), name.kubernetes())).or_default().push(name);
        }
        for ((stem, kubernetes), releases) in &stacks {
            let (provider, stack) = stem.split_once('-').context("no provider")?;
            let versions: Vec<_> = releases.iter().map(|it| it.version().dotted()).collect();
            let spec = json!({
                "provider": provider, "name": stack, "kubernetesVersion": kubernetes.to_string(),
                "channel": "custom", "autoSubscribe": false, "versions": versions, "noProvider": true,
            });
            let stack = Stack { name: stem.clone(), spec };
            stack.create(scene).await?;
        }
        for stem in stacks.keys().map(|(stem, _)| stem) {
            let stack = scene.stack_ready(stem).await?;
            let status = stack.status.unwrap();
            ensure!(status.summary.iter().all(|it| it.ready && it.phase == "done"), "{status:?}");
        }
        for (tag, file) in RELEASES {
            let name: ReleaseName = tag.parse()?;
            let release = scene.releases().get(tag).await?;
            for entry in release.inventory() {
                let api_version = format!("{}/{}", entry.group, entry.version);
                let object = scene.objects(&api_version, &entry.kind).get(&entry.name).await?;
                ensure!(entry.namespace == scene.namespace && object.labels()[OWNED_LABEL] == "owned");
            }
            let classes = release.inventory().iter().filter(|it| it.kind == "ClusterClass");
            let classes: Vec<_> = classes.map(|it| it.name.as_str()).collect();
            ensure!(classes == [name.dotted()], "{classes:?}");
            let (Some(observations), Some(file)) = (&observations, file) else { continue };
            let theirs = observed(observations, file)?;
            let their_name: ReleaseName = theirs.name_any().parse()?;
            let expected: BTreeSet<_> = shapes(&theirs)
                .into_iter()
                .map(|(group, kind, object)| (group, kind, renamed(&object, &their_name, &name)))
                .collect();
            let found = shapes(&release);
            ensure!(found == expected, "{tag}: {found:#?}\nthe Go operator: {expected:#?}");
            let status = (release.status.unwrap(), theirs.status.unwrap());
            ensure!(status.0.kubernetes_version == status.1.kubernetes_version);
            ensure!(status.0.ready && status.1.ready);
        }
        if let Some(observations) = &observations {
            let text = std::fs::read_to_string(observations.join(CLASS))?;
            let theirs = manifests::parse(&text)?.remove(0);
            let name: ReleaseName = theirs.name_any().parse()?;
            let ours: ReleaseName = RELEASES[6].0.parse()?;
            let class = scene.classes().get(&renamed(&theirs.name_any(), &name, &ours)).await?;
            for (label, value) in theirs.labels() {
                ensure!(class.labels().get(label) == Some(value), "{label} is missing");
            }
        }
        Ok(())
    })
    .await
}
