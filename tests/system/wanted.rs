//! Which releases there are: those of the spec, the newest, the last usable one, those in use; and no others.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::ClusterStack;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use tests::stacks::StackRelease;
use tests::{consistently, eventually};

use crate::scene::{
    PATIENCE, Scene, delete, gone, is, message, release_conditions, says, scene, stack_conditions,
};
use crate::stack::Stack;

/// A class chart that does not render.
const BROKEN: &str = "{{ fail \"not yet\" }}";

/// Waits until the namespace has exactly these releases.
async fn only(scene: &Scene<'_>, releases: &[&StackRelease]) -> Result<()> {
    let mut expected: Vec<_> = releases.iter().map(|it| it.name().tag()).collect();
    expected.sort_unstable();
    eventually(
        &format!("there are only {expected:?}"),
        PATIENCE,
        async || {
            let found = scene.releases().list(&ListParams::default()).await?;
            let found: Vec<_> = found.iter().map(ResourceExt::name_any).collect();
            ensure!(found == expected, "{found:?}");
            Ok(())
        },
    )
    .await
}

fn usable(stack: &ClusterStack, versions: &str) -> Result<()> {
    let status = stack.status.as_ref().context("no status")?;
    let found = status.usable_versions.as_deref();
    ensure!(found == Some(versions), "usable are {found:?}");
    Ok(())
}

#[tokio::test]
async fn newest_release_is_followed_and_the_one_before_goes() -> Result<()> {
    scene("follow", async |scene| {
        let (v1, v2) = (scene.docker(), scene.docker().version("v2"));
        scene.publish(&v1)?;
        let stack = Stack::of(&v1);
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;

        // Not ours, whatever it is called.
        let stranger = format!(
            "{{apiVersion: infrastructure.cluster.x-k8s.io/v1beta1, kind: DockerMachineTemplate, metadata: {{name: {}-mine}}}}",
            v1.name().dotted()
        );
        scene.apply(&stranger).await?;
        scene.publish(&v2)?;
        scene.look_again(&stack.name).await?;
        scene.release_ready(&v2).await?;
        only(scene, &[&v2]).await?;
        let status = scene
            .stack_when(&stack.name, "has only v2", |stack| usable(stack, "v2"))
            .await?
            .status
            .unwrap();
        ensure!(status.latest_release == Some(format!("{} | v1.30.4", v2.name().dotted())));
        let classes = scene.classes().list(&ListParams::default()).await?;
        ensure!(classes.items.len() == 1 && classes.items[0].name_any() == v2.name().dotted());
        let templates = scene.machine_templates().list(&ListParams::default()).await?;
        let mut names: Vec<_> = templates.iter().map(ResourceExt::name_any).collect();
        names.retain(|name| name.starts_with(&v1.name().dotted()));
        ensure!(names == [format!("{}-mine", v1.name().dotted())], "{names:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn listed_and_used_releases_stay_beside_the_newest() -> Result<()> {
    // pitfall 5: users of other namespaces count
    scene("stay", async |scene| {
        let of = |version: &str| scene.docker().version(version);
        let (v1, v2, v3, v4) = (of("v1"), of("v2"), of("v3"), of("v4"));
        for release in [&v1, &v2, &v3] {
            scene.publish(release)?;
        }
        let versions = json!(["v1", "v2"]);
        let stack = Stack::of(&v1).with("versions", versions);
        stack.create(scene).await?;
        scene
            .stack_when(&stack.name, "has all", |stack| usable(stack, "v1, v2, v3"))
            .await?;

        let other = scene.control_plane.namespace("stay-other").await?;
        scene.use_class(&other, "user", &v2.name().dotted()).await?;
        // Time for the Cluster to be seen, too: were it unknown, nothing would keep v2.
        consistently("all stay", Duration::from_secs(1), async || {
            usable(&scene.stacks().get(&stack.name).await?, "v1, v2, v3")
        })
        .await?;
        scene
            .patch_stack(&stack.name, json!({"versions": ["v1"]}))
            .await?;
        scene.publish(&v4)?;
        scene.look_again(&stack.name).await?;
        scene
            .stack_when(&stack.name, "has v4, and v3 is gone", |stack| {
                usable(stack, "v1, v2, v4")
            })
            .await?;
        only(scene, &[&v1, &v2, &v4]).await?;

        // Nobody uses v2 any more.
        delete(&scene.clusters(&other), "user").await?;
        only(scene, &[&v1, &v4]).await?;
        gone(&scene.classes(), &v2.name().dotted()).await
    })
    .await
}

#[tokio::test]
async fn used_release_with_a_hash_version_stays() -> Result<()> {
    // pitfall 4: classes are named in dot form, releases in dash form
    scene("hash", async |scene| {
        let old = scene.docker().version("v0-sha.aaaaaaa");
        let new = scene.docker().version("v0-sha.bbbbbbb");
        let newest = scene.docker().version("v0-sha.ccccccc");
        for release in [&old, &new, &newest] {
            scene.publish(release)?;
        }
        let stack = Stack::of(&old)
            .versions(&["v0-sha.aaaaaaa"])
            .with("channel", json!("custom"));
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;
        scene
            .use_class(&scene.namespace, "user", &old.name().dotted())
            .await?;
        for (version, release) in [("v0-sha-bbbbbbb", &new), ("v0-sha-ccccccc", &newest)] {
            scene
                .patch_stack(&stack.name, json!({"versions": [version]}))
                .await?;
            scene.release_ready(release).await?;
        }
        // The middle one was the last usable until the newest became so.
        only(scene, &[&old, &newest]).await?;
        delete(&scene.clusters(&scene.namespace), "user").await?;
        only(scene, &[&newest]).await
    })
    .await
}

#[tokio::test]
async fn last_usable_release_stays_while_the_newest_is_broken() -> Result<()> {
    scene("usable", async |scene| {
        let v1 = scene.docker();
        let v2 = scene.docker().version("v2").with_class_template("broken.yaml", BROKEN);
        scene.publish(&v1)?;
        let stack = Stack::of(&v1);
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;
        scene.publish(&v2)?;
        scene.look_again(&stack.name).await?;
        let seen = scene
            .stack_when(&stack.name, "is not ready", |stack| {
                is(stack_conditions(stack), "Ready", "False", "ReleaseInvalid")
            })
            .await?;
        says(message(stack_conditions(&seen), "Ready")?, &[&v2.name().tag(), "not yet"])?;
        usable(&seen, "v1")?;
        is(stack_conditions(&seen), "ClusterStackReleaseAvailable", "True", "Available")?;
        let status = seen.status.unwrap();
        ensure!(status.latest_release == Some(format!("{} | v1.30.4", v1.name().dotted())));
        ensure!(status.newest_listed.as_deref() == Some("v2"));
        let summary = serde_json::to_value(&status.summary)?;
        let expected = json!([
            {"name": "v1", "ready": true, "phase": "done", "message": "Ready"},
            {"name": "v2", "ready": false, "phase": "applying objects", "message": "ReleaseInvalid"},
        ]);
        ensure!(summary == expected, "{summary}");
        only(scene, &[&v1, &v2]).await
    })
    .await
}

#[tokio::test]
async fn version_that_is_removed_from_the_spec_goes_with_its_objects_and_nothing_else() -> Result<()>
{
    // pitfall 10, baseline 08
    scene("removed", async |scene| {
        let (v1, v2) = (scene.docker(), scene.docker().version("v2"));
        let neighbour = scene.example("docker-example", "n");
        scene.bring(&neighbour).await?;
        for release in [&v1, &v2] {
            scene.publish(release)?;
        }
        let stack = Stack::of(&v1).versions(&["v1", "v2"]);
        stack.create(scene).await?;
        scene
            .stack_when(&stack.name, "has both", |stack| usable(stack, "v1, v2"))
            .await?;
        scene
            .patch_stack(&stack.name, json!({"versions": ["v2"]}))
            .await?;
        scene.release_gone(&v1).await?;
        for api in [
            scene.classes(),
            scene.machine_templates(),
            scene.cluster_templates(),
        ] {
            for object in api.list(&ListParams::default()).await? {
                let name = object.name_any();
                ensure!(!name.starts_with(&v1.name().dotted()), "{name} is left");
            }
        }
        scene
            .stack_when(&stack.name, "has v2", |stack| usable(stack, "v2"))
            .await?;
        for release in [&v2, &neighbour] {
            let status = scene.release_ready(release).await?.status.unwrap();
            for entry in status.resources {
                let api_version = format!("{}/{}", entry.group, entry.version);
                let object = scene
                    .objects(&api_version, &entry.kind)
                    .get(&entry.name)
                    .await?;
                ensure!(object.uid().as_deref() == Some(&*entry.uid), "{entry:?}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn versions_are_compared_as_numbers() -> Result<()> {
    // pitfall 60
    scene("numbers", async |scene| {
        for (suffix, channel, versions) in [
            ("s", "stable", ["v9", "v10", "v2"]),
            ("b", "beta", ["v1-beta.9", "v1-beta.10", "v1-beta.2"]),
        ] {
            let of = |version: &str| scene.example("docker-example", suffix).version(version);
            for version in versions {
                scene.publish(&of(version))?;
            }
            let newest = of(versions[1]);
            let stack = Stack::of(&newest).with("channel", json!(channel));
            stack.create(scene).await?;
            let stack = scene.stack_ready(&stack.name).await?;
            usable(&stack, versions[1])?;
            ensure!(stack.status.unwrap().newest_listed.as_deref() == Some(versions[1]));
        }
        let found = scene.releases().list(&ListParams::default()).await?;
        ensure!(found.items.len() == 2, "others were made");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn foreign_folders_and_releases_of_others_are_ignored() -> Result<()> {
    // pitfalls 8 and 61
    scene("foreign", async |scene| {
        let release = scene.docker();
        let folder = scene.folder.join(&scene.namespace);
        release.write_to(&folder)?;
        let tag = release.name().tag();
        for name in [
            "latest".to_owned(),
            "v1.2.3".to_owned(),
            format!("{tag}-rc"),
            format!("{tag}1x"),
            tag.replace("-v1", "-v0-sha.abc"),
            tag.replace("-1-30-", "-more-1-30-").replace("-v1", "-v7"),
            tag.replace("-1-30-", "-1-31-").replace("-v1", "-v8"),
            tag.replace("-v1", "-v9-alpha-1"),
        ] {
            std::fs::create_dir(folder.join(name))?;
        }
        std::fs::write(folder.join(tag.replace("-v1", "-v5")), "a file")?;
        let stack = Stack::of(&release).in_directory(&scene.namespace);
        stack.create(scene).await?;
        let stack = scene.stack_ready(&stack.name).await?;
        usable(&stack, "v1")?;
        only(scene, &[&release]).await?;
        let events = scene.api::<k8s_openapi::api::core::v1::Event>();
        let events = events.list(&ListParams::default()).await?;
        let about: Vec<_> = events
            .iter()
            .filter(|event| event.type_.as_deref() == Some("Warning"))
            .collect();
        ensure!(about.is_empty(), "{about:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_hundred_releases_make_one() -> Result<()> {
    scene("many", async |scene| {
        let folder = scene.folder.join(&scene.namespace);
        let newest = scene.docker().version("v200");
        for number in 1..200 {
            let tag = newest.name().tag().replace("v200", &format!("v{number}"));
            std::fs::create_dir_all(folder.join(tag))?;
        }
        newest.write_to(&folder)?;
        let stack = Stack::of(&newest).in_directory(&scene.namespace);
        stack.create(scene).await?;
        usable(&scene.stack_ready(&stack.name).await?, "v200")?;
        only(scene, &[&newest]).await
    })
    .await
}

#[tokio::test]
async fn versions_without_order_are_not_followed() -> Result<()> {
    scene("unordered", async |scene| {
        let one = scene.docker().version("v0-sha.aaaaaaa");
        scene.publish(&one)?;
        scene.publish(&scene.docker().version("v0-sha.bbbbbbb"))?;
        let stack = Stack::of(&one).with("channel", json!("sha"));
        stack.create(scene).await?;
        let seen = scene
            .stack_when(&stack.name, "says so", |stack| {
                is(stack_conditions(stack), "Ready", "False", "Unordered")
            })
            .await?;
        is(
            stack_conditions(&seen),
            "ReleasesSynced",
            "False",
            "Unordered",
        )?;
        is(
            stack_conditions(&seen),
            "AssetsClientAPIAvailable",
            "True",
            "Available",
        )?;
        says(
            message(stack_conditions(&seen), "Ready")?,
            &["\"sha\"", "spec.versions"],
        )?;
        scene.event(&stack.name, "Unordered").await?;
        only(scene, &[]).await?;

        // The user decides.
        scene
            .patch_stack(&stack.name, json!({"versions": ["v0-sha.aaaaaaa"]}))
            .await?;
        scene.stack_ready(&stack.name).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stack_without_a_release_says_what_was_looked_for() -> Result<()> {
    scene("nothing", async |scene| {
        let release = scene.docker();
        let stack = Stack::of(&release);
        stack.create(scene).await?;
        let seen = scene
            .stack_when(&stack.name, "says so", |stack| {
                is(stack_conditions(stack), "Ready", "False", "NoRelease")
            })
            .await?;
        let prefix = release.name().tag().replace("v1", "…");
        says(
            message(stack_conditions(&seen), "Ready")?,
            &[&prefix, "\"stable\""],
        )
    })
    .await
}

#[tokio::test]
async fn source_that_is_away_is_seen_and_takes_nothing_away() -> Result<()> {
    // pitfalls 1 and 2
    scene("outage", async |scene| {
        let v1 = scene.docker();
        let v2 = scene
            .docker()
            .version("v2")
            .with_class_template("broken.yaml", BROKEN);
        let (folder, away) = (
            scene.folder.join(&scene.namespace),
            scene.folder.join(format!("{}-away", scene.namespace)),
        );
        v1.write_to(&folder)?;
        let stack = Stack::of(&v1).in_directory(&scene.namespace);
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;
        // The newest, which is not ready: nothing but the listing wants it.
        v2.write_to(&folder)?;
        scene.look_again(&stack.name).await?;
        scene
            .release_says(&v2, "Ready", "False", "ReleaseInvalid")
            .await?;

        std::fs::rename(&folder, &away)?;
        scene.look_again(&stack.name).await?;
        let seen = scene
            .stack_when(&stack.name, "says that the source is away", |stack| {
                is(
                    stack_conditions(stack),
                    "AssetsClientAPIAvailable",
                    "False",
                    "SourceRefused",
                )
            })
            .await?;
        is(
            stack_conditions(&seen),
            "ReleasesSynced",
            "False",
            "SourceRefused",
        )?;
        let path = folder.display().to_string();
        says(
            message(stack_conditions(&seen), "AssetsClientAPIAvailable")?,
            &[&path],
        )?;
        scene.event(&stack.name, "SourceRefused").await?;
        consistently("nothing is deleted", Duration::from_secs(2), async || {
            for release in [&v1, &v2] {
                let object = scene.releases().get(&release.name().tag()).await?;
                ensure!(object.metadata.deletion_timestamp.is_none());
            }
            let stack = scene.stacks().get(&stack.name).await?;
            // Seen as long as it lasts.
            is(
                stack_conditions(&stack),
                "AssetsClientAPIAvailable",
                "False",
                "SourceRefused",
            )?;
            usable(&stack, "v1")
        })
        .await?;
        is(
            release_conditions(&scene.release_ready(&v1).await?),
            "HelmChartApplied",
            "True",
            "Applied",
        )?;

        std::fs::rename(&away, &folder)?;
        scene.look_again(&stack.name).await?;
        scene
            .stack_when(&stack.name, "says that the source is back", |stack| {
                is(
                    stack_conditions(stack),
                    "AssetsClientAPIAvailable",
                    "True",
                    "Available",
                )?;
                is(stack_conditions(stack), "ReleasesSynced", "True", "Listed")
            })
            .await?;
        Ok(())
    })
    .await
}
