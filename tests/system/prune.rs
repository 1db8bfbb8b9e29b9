//! The content of a release changes under its version, as it does while an author works on it in a directory.

use anyhow::{Result, ensure};
use core_operator::api::{OWNED_LABEL, PAUSED_ANNOTATION, RELEASE_ANNOTATION};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tests::stacks::StackRelease;

use crate::scene::{
    INFRASTRUCTURE, Scene, gone, is, message, release_conditions, says, scene, second_after, when,
};
use crate::stack::Stack;

/// The class of the example whose machines are nobody's.
const CLASS: &str =
    include_str!("../stacks/fake-example/cluster-class/templates/cluster-class.yaml");

fn extra(name: &str, image: &str) -> String {
    format!(
        "{{apiVersion: {INFRASTRUCTURE}, kind: DockerMachineTemplate, metadata: {{name: {name}}}, spec: {{template: {{spec: {{customImage: {image}}}}}}}}}"
    )
}

/// A stack with a folder of its own, ready.
async fn start(scene: &Scene<'_>, release: &StackRelease) -> Result<Stack> {
    release.write_to(&scene.folder.join(&scene.namespace))?;
    let stack = Stack::of(release)
        .versions(&[&release.name().version().dotted()])
        .in_directory(&scene.namespace);
    stack.create(scene).await?;
    scene.stack_ready(&stack.name).await?;
    Ok(stack)
}

/// Replaces the release. Its folder gets another name in the spec, which is looked at at once; otherwise the poll interval
/// decides, which is a minute at least.
async fn replace(scene: &Scene<'_>, stack: &Stack, release: &StackRelease) -> Result<()> {
    release.write_to(&scene.folder.join(&scene.namespace))?;
    let current = scene.stacks().get(&stack.name).await?.spec.source;
    let path = current.and_then(|source| source.directory).unwrap().path;
    let source = json!({"directory": {"path": format!("./{path}")}});
    scene
        .patch_stack(&stack.name, json!({"source": source}))
        .await
}

#[tokio::test]
async fn object_that_the_chart_drops_is_removed() -> Result<()> {
    scene("dropped", async |scene| {
        let release = scene.docker();
        let class = release.name().dotted();
        let (name, taken) = (format!("{class}-extra"), format!("{class}-taken"));
        let both = format!("{}\n---\n{}", extra(&name, "a"), extra(&taken, "a"));
        let stack = start(
            scene,
            &release.clone().with_class_template("extra.yaml", &both),
        )
        .await?;
        let templates = scene.machine_templates();
        let worker = templates.get(&format!("{class}-worker")).await?;
        // Somebody makes one of them theirs, while nobody looks.
        scene
            .annotate(&scene.stacks(), &stack.name, PAUSED_ANNOTATION, Some(""))
            .await?;
        scene
            .release_says(&release, "Paused", "True", "Paused")
            .await?;
        let unmarked = Patch::Merge(json!({"metadata": {
            "labels": {OWNED_LABEL: null}, "annotations": {RELEASE_ANNOTATION: null},
        }}));
        templates
            .patch_metadata(&taken, &PatchParams::default(), &unmarked)
            .await?;
        replace(scene, &stack, &release).await?;
        scene
            .annotate(&scene.stacks(), &stack.name, PAUSED_ANNOTATION, None)
            .await?;

        gone(&templates, &name).await?;
        let release = when(
            &scene.releases(),
            &release.name().tag(),
            "has forgotten both",
            |release| {
                let left: Vec<_> = release
                    .inventory()
                    .iter()
                    .filter(|it| it.name == name || it.name == taken)
                    .collect();
                ensure!(left.is_empty(), "{left:?}");
                Ok(())
            },
        )
        .await?;
        is(release_conditions(&release), "Ready", "True", "Ready")?;
        ensure!(
            templates
                .get(&taken)
                .await?
                .metadata
                .deletion_timestamp
                .is_none()
        );
        let now = templates.get(&format!("{class}-worker")).await?;
        ensure!(
            now.resource_version() == worker.resource_version(),
            "the others were written"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn object_that_the_newer_release_drops_is_left_to_the_older_one() -> Result<()> {
    scene("left", async |scene| {
        let (v1, v2) = (scene.docker(), scene.docker().version("v2"));
        let with_common = |release: &StackRelease| {
            let template = extra("common", "a");
            release
                .clone()
                .with_class_template("common.yaml", &template)
        };
        with_common(&v1).write_to(&scene.folder.join(&scene.namespace))?;
        let stack = start(scene, &with_common(&v2)).await?;
        scene
            .patch_stack(&stack.name, json!({"versions": ["v1", "v2"]}))
            .await?;
        scene.release_ready(&v1).await?;
        let templates = scene.machine_templates();
        let before = templates.get("common").await?;
        let owner =
            |release: &StackRelease| format!("{}/{}", scene.namespace, release.name().tag());
        ensure!(before.annotations()[RELEASE_ANNOTATION] == owner(&v2));

        replace(scene, &stack, &v2).await?;
        when(
            &scene.releases(),
            &v2.name().tag(),
            "has forgotten it",
            |release| {
                let left = release.inventory().iter().find(|it| it.name == "common");
                ensure!(left.is_none(), "{left:?}");
                Ok(())
            },
        )
        .await?;
        let after = when(&templates, "common", "is of the older one", |template| {
            ensure!(template.annotations()[RELEASE_ANNOTATION] == owner(&v1));
            Ok(())
        })
        .await?;
        ensure!(after.uid() == before.uid(), "made anew");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn object_that_the_older_stack_drops_is_made_as_the_younger_wants_it() -> Result<()> {
    scene("succession", async |scene| {
        let of = |suffix: &str, image: &str| {
            let template = extra("common", image);
            scene
                .example("docker-example", suffix)
                .with_class_template("common.yaml", &template)
        };
        let (older, younger) = (of("a", "a"), of("b", "b"));
        let stack = start(scene, &older).await?;
        let made = scene
            .stacks()
            .get(&stack.name)
            .await?
            .metadata
            .creation_timestamp;
        second_after(made).await?;
        scene.publish(&younger)?;
        Stack::of(&younger).create(scene).await?;
        scene
            .release_says(&younger, "Ready", "False", "Conflict")
            .await?;
        replace(scene, &stack, &scene.example("docker-example", "a")).await?;
        scene.release_ready(&younger).await?;
        let template = scene.machine_templates().get("common").await?;
        ensure!(template.data["spec"]["template"]["spec"]["customImage"] == "b");
        scene.release_ready(&older).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn class_that_changes_under_its_name_is_applied_and_a_template_is_not() -> Result<()> {
    scene("edited", async |scene| {
        // Without Cluster API's conversion webhook only a class in the stored version can be applied twice.
        let release = scene.example("fake-example", "");
        let class = release.name().dotted();
        let name = format!("{class}-extra");
        let with = |image: &str, label: &str| {
            release
                .clone()
                .with_class_template("extra.yaml", &extra(&name, image))
                .with_class_template(
                    "cluster-class.yaml",
                    &CLASS.replacen(
                        "metadata:",
                        &format!("metadata:\n  labels: {{edition: {label}}}"),
                        1,
                    ),
                )
        };
        let stack = start(scene, &with("a", "first")).await?;
        let edition = async |label: &str| {
            when(
                &scene.classes(),
                &class,
                &format!("is the {label} edition"),
                |class| {
                    ensure!(class.labels()["edition"] == label, "{:?}", class.labels());
                    Ok(())
                },
            )
            .await
        };
        let before = edition("first").await?;
        replace(scene, &stack, &with("a", "second")).await?;
        let after = edition("second").await?;
        ensure!(after.uid() == before.uid());
        scene.stack_ready(&stack.name).await?;

        replace(scene, &stack, &with("b", "third")).await?;
        let seen = scene
            .release_says(&release, "Ready", "False", "ImmutableChanged")
            .await?;
        says(
            message(release_conditions(&seen), "Ready")?,
            &[&name, "extra.yaml"],
        )?;
        scene
            .event(&release.name().tag(), "ImmutableChanged")
            .await?;
        let template = scene.machine_templates().get(&name).await?;
        ensure!(template.data["spec"]["template"]["spec"]["customImage"] == "a");
        // Nothing of a release that cannot be had as a whole.
        edition("second").await?;

        replace(scene, &stack, &with("a", "fourth")).await?;
        edition("fourth").await?;
        scene.stack_ready(&stack.name).await?;
        Ok(())
    })
    .await
}
