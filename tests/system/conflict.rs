//! One object, several who want it: strangers, two releases of a stack, two stacks.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::{OWNED_LABEL, RELEASE_ANNOTATION};
use kube::api::{DynamicObject, ListParams};
use kube::core::GroupVersionKind;
use kube::{Api, ResourceExt};
use serde_json::json;
use tests::consistently;
use tests::stacks::StackRelease;

use crate::scene::{
    COMMON, INFRASTRUCTURE, Scene, delete, gone, is, message, release_conditions, says, scene,
    second_after, stack_conditions, when,
};
use crate::stack::Stack;

/// A machine template whose name has no version in it.
fn shared_template(name: &str, mount: &str) -> String {
    format!(
        "{{apiVersion: {INFRASTRUCTURE}, kind: DockerMachineTemplate, metadata: {{name: {name}}}, spec: {{template: {{spec: {{customImage: {mount}}}}}}}}}"
    )
}

/// Waits until an object belongs to a release.
async fn belongs(
    api: &Api<DynamicObject>,
    name: &str,
    namespace: &str,
    release: &StackRelease,
) -> Result<DynamicObject> {
    let owner = format!("{namespace}/{}", release.name().tag());
    when(api, name, &format!("is of {owner}"), |object| {
        let found = object.annotations().get(RELEASE_ANNOTATION);
        ensure!(found == Some(&owner), "it is of {found:?}");
        Ok(())
    })
    .await
}

async fn conflict(scene: &Scene<'_>, release: &StackRelease, words: &[&str]) -> Result<()> {
    let seen = scene
        .release_says(release, "Ready", "False", "Conflict")
        .await?;
    is(
        release_conditions(&seen),
        "HelmChartApplied",
        "False",
        "Conflict",
    )?;
    says(
        message(release_conditions(&seen), "HelmChartApplied")?,
        words,
    )
}

#[tokio::test]
async fn object_of_somebody_else_is_not_touched_and_nothing_else_is_applied() -> Result<()> {
    scene("stranger", async |scene| {
        let release = scene.docker();
        let name = format!("{}-worker", release.name().dotted());
        let templates = scene.machine_templates();
        scene.apply(&shared_template(&name, "mine")).await?;
        let before = templates.get(&name).await?;
        scene.publish(&release)?;
        let stack = Stack::of(&release);
        stack.create(scene).await?;
        conflict(
            scene,
            &release,
            &["DockerMachineTemplate", &name, OWNED_LABEL],
        )
        .await?;
        scene.event(&release.name().tag(), "Conflict").await?;
        scene
            .stack_when(&stack.name, "says so", |stack| {
                is(stack_conditions(stack), "Ready", "False", "Conflict")
            })
            .await?;
        consistently("nothing is applied", Duration::from_secs(1), async || {
            for api in [
                scene.classes(),
                scene.cluster_templates(),
                scene.machine_templates(),
            ] {
                let found = api.list(&ListParams::default()).await?;
                let names: Vec<_> = found.iter().map(ResourceExt::name_any).collect();
                ensure!(names.iter().all(|found| *found == name), "{names:?}");
            }
            let now = templates.get(&name).await?;
            ensure!(
                now.resource_version() == before.resource_version(),
                "it was written"
            );
            Ok(())
        })
        .await?;

        // A release that goes leaves it, too.
        delete(&scene.stacks(), &stack.name).await?;
        gone(&scene.stacks(), &stack.name).await?;
        let now = templates.get(&name).await?;
        ensure!(
            now.resource_version() == before.resource_version(),
            "it was written"
        );

        let stack = Stack::of(&release);
        stack.create(scene).await?;
        conflict(scene, &release, &[&name]).await?;
        delete(&templates, &name).await?;
        scene.stack_ready(&stack.name).await?;
        belongs(&templates, &name, &scene.namespace, &release).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn object_of_a_kind_that_is_watched_by_label_only_is_not_touched_either() -> Result<()> {
    scene("settings", async |scene| {
        let settings =
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {whose: mine}}";
        let release = scene
            .docker()
            .with_class_template("settings.yaml", &settings.replace("mine", "the-release"));
        scene.apply(settings).await?;
        scene.publish(&release)?;
        let stack = Stack::of(&release);
        stack.create(scene).await?;
        conflict(scene, &release, &["ConfigMap", "settings"]).await?;
        let api = scene.objects("v1", "ConfigMap");
        ensure!(api.get("settings").await?.data["data"]["whose"] == "mine");
        delete(&api, "settings").await?;
        // No watch tells, so it is asked for again and again.
        scene.stack_ready(&stack.name).await?;
        ensure!(api.get("settings").await?.data["data"]["whose"] == "the-release");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn newest_of_two_releases_of_a_stack_keeps_an_object_that_both_render() -> Result<()> {
    scene("shared", async |scene| {
        let template = shared_template("common", "one");
        let of = |version: &str| {
            scene
                .docker()
                .version(version)
                .with_class_template("common.yaml", &template)
        };
        let (v1, v2) = (of("v1"), of("v2"));
        scene.publish(&v1)?;
        scene.publish(&v2)?;
        let templates = scene.machine_templates();
        let stack = Stack::of(&v1).versions(&["v1"]);
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;
        let before = belongs(&templates, "common", &scene.namespace, &v1).await?;
        let same = async |release: &StackRelease| {
            let now = belongs(&templates, "common", &scene.namespace, release).await?;
            ensure!(now.uid() == before.uid(), "made anew");
            Ok(())
        };

        scene
            .patch_stack(&stack.name, json!({"versions": ["v1", "v2"]}))
            .await?;
        scene.release_ready(&v2).await?;
        same(&v2).await?;
        // The older one counts it as its own, and does not fight for it.
        let older = scene.release_ready(&v1).await?;
        let status = older.status.unwrap();
        let entry = status.resources.iter().find(|entry| entry.name == "common");
        ensure!(serde_json::to_value(entry.context("forgotten")?.status)? == "synced");
        let requests = scene.requests().await?;
        consistently("nobody writes it", Duration::from_secs(1), async || {
            let changes = scene.changes(&requests).await?;
            ensure!(changes.is_empty(), "{changes:?}");
            Ok(())
        })
        .await?;

        // The older one goes, and does not take it along.
        scene
            .patch_stack(&stack.name, json!({"versions": ["v2"]}))
            .await?;
        scene.release_gone(&v1).await?;
        same(&v2).await
    })
    .await
}

#[tokio::test]
async fn older_release_gets_the_common_object_when_the_newer_goes() -> Result<()> {
    scene("inherit", async |scene| {
        let template = shared_template("common", "one");
        let of = |version: &str| {
            scene
                .docker()
                .version(version)
                .with_class_template("common.yaml", &template)
        };
        // Of versions without order the last that became ready is kept as the last usable one.
        let (old, new) = (of("v0-sha.aaaaaaa"), of("v0-sha.bbbbbbb"));
        let templates = scene.machine_templates();
        scene.publish(&new)?;
        scene.publish(&old)?;
        let stack = Stack::of(&old)
            .versions(&["v0-sha.aaaaaaa"])
            .with("channel", json!("custom"));
        stack.create(scene).await?;
        let ready = scene.release_ready(&old).await?;
        let before = belongs(&templates, "common", &scene.namespace, &old).await?;
        second_after(ready.status.unwrap().first_ready_time).await?;

        scene
            .patch_stack(
                &stack.name,
                json!({"versions": ["v0-sha.aaaaaaa", "v0-sha.bbbbbbb"]}),
            )
            .await?;
        scene.release_ready(&new).await?;
        belongs(&templates, "common", &scene.namespace, &new).await?;
        // Deleted by hand while nobody wants it any more, apart from that rule.
        scene
            .patch_stack(&stack.name, json!({"versions": ["v0-sha.aaaaaaa"]}))
            .await?;
        delete(&scene.releases(), &new.name().tag()).await?;
        let now = belongs(&templates, "common", &scene.namespace, &old).await?;
        ensure!(now.uid() == before.uid(), "made anew");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn template_that_a_newer_release_changes_under_one_name_makes_that_release_invalid()
-> Result<()> {
    scene("renamed", async |scene| {
        let of = |version: &str, image: &str| {
            let template = shared_template("common", image);
            scene
                .docker()
                .version(version)
                .with_class_template("common.yaml", &template)
        };
        let (v1, v2) = (of("v1", "one"), of("v2", "two"));
        scene.bring(&v1).await?;
        scene.publish(&v2)?;
        scene
            .patch_stack(v1.stack(), json!({"versions": ["v1", "v2"]}))
            .await?;
        let seen = scene
            .release_says(&v2, "Ready", "False", "ImmutableChanged")
            .await?;
        says(
            message(release_conditions(&seen), "Ready")?,
            &["common", "common.yaml"],
        )?;
        let template = scene.machine_templates().get("common").await?;
        ensure!(template.data["spec"]["template"]["spec"]["customImage"] == "one");
        scene.release_ready(&v1).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn older_of_two_stacks_keeps_an_object_that_both_want() -> Result<()> {
    scene("older", async |scene| {
        let template = shared_template("common", "one");
        let of = |suffix: &str| {
            scene
                .example("docker-example", suffix)
                .with_class_template("common.yaml", &template)
        };
        let (older, younger) = (of("a"), of("b"));
        let stack = scene.bring(&older).await?;
        second_after(stack.metadata.creation_timestamp).await?;
        scene.publish(&younger)?;
        Stack::of(&younger).create(scene).await?;
        conflict(scene, &younger, &["common", &older.name().tag(), "older"]).await?;
        scene.release_ready(&older).await?;
        let templates = scene.machine_templates();
        belongs(&templates, "common", &scene.namespace, &older).await?;

        // Made anew or taken over: one that is going has no claim.
        delete(&scene.stacks(), older.stack()).await?;
        gone(&scene.stacks(), older.stack()).await?;
        scene.stack_ready(younger.stack()).await?;
        belongs(&templates, "common", &scene.namespace, &younger).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stacks_of_two_namespaces_do_not_share_objects() -> Result<()> {
    scene("spaces", async |scene| {
        let (_, word) = scene.namespace.rsplit_once('-').unwrap();
        let name = format!("common-{word}");
        let common = shared_template(&name, "one").replace("metadata: {", &format!("metadata: {{namespace: {COMMON}, "));
        let class = format!(
            "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {name}}}, value: 7}}"
        );
        let of = |suffix: &str, template: &str| {
            scene.example("docker-example", suffix).with_class_template("common.yaml", template)
        };
        let other = scene.control_plane.namespace("spaces-other").await?;
        let classes: Api<DynamicObject> = Api::all_with(
            scene.client.clone(),
            &kube::api::ApiResource::from_gvk(&GroupVersionKind::gvk("scheduling.k8s.io", "v1", "PriorityClass")),
        );
        for (suffix, template, api, kind) in [
            ("n", &common, scene.objects_in(COMMON, INFRASTRUCTURE, "DockerMachineTemplate"), "DockerMachineTemplate"),
            ("c", &class, classes, "PriorityClass"),
        ] {
            let release = of(suffix, template);
            let stack = scene.bring(&release).await?;
            second_after(stack.metadata.creation_timestamp).await?;
            let before = belongs(&api, &name, &scene.namespace, &release).await?;
            // Even the same release in another namespace.
            let twin = Stack::of(&release).versions(&["v1"]);
            twin.create_in(scene, &other).await?;
            let releases: Api<core_operator::api::ClusterStackRelease> =
                Api::namespaced(scene.client.clone(), &other);
            let seen = when(&releases, &release.name().tag(), "is in conflict", |release| {
                is(release_conditions(release), "Ready", "False", "Conflict")
            })
            .await?;
            let owner = format!("{}/{}", scene.namespace, release.name().tag());
            says(message(release_conditions(&seen), "Ready")?, &[kind, &name, &owner])?;
            let now = belongs(&api, &name, &scene.namespace, &release).await?;
            ensure!(now.resource_version() == before.resource_version(), "it was written");

            let stacks: Api<core_operator::api::ClusterStack> = Api::namespaced(scene.client.clone(), &other);
            delete(&stacks, &twin.name).await?;
            gone(&stacks, &twin.name).await?;
            belongs(&api, &name, &scene.namespace, &release).await?;
            // Cluster-wide objects do not go with the namespace.
            delete(&scene.stacks(), release.stack()).await?;
            gone(&api, &name).await?;
        }
        Ok(())
    })
    .await
}
