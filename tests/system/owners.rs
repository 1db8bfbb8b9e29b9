//! One release, two stacks that want it.

use anyhow::{Result, ensure};
use kube::ResourceExt;

use crate::scene::{
    INFRASTRUCTURE, delete, gone, is, message, says, scene, second_after, stack_conditions, when,
};
use crate::stack::Stack;

#[tokio::test]
async fn release_of_two_stacks_goes_with_the_last_of_them() -> Result<()> {
    // pitfall 6
    scene("two", async |scene| {
        let release = scene.docker();
        let tag = release.name().tag();
        scene.publish(&release)?;
        let (one, two) = (
            Stack::of(&release).versions(&["v1"]).named("one"),
            Stack::of(&release).versions(&["v1"]).named("two"),
        );
        let mut owners = Vec::new();
        for stack in [&one, &two] {
            stack.create(scene).await?;
            owners.push(scene.stack_ready(&stack.name).await?.uid());
        }
        let owned_by = async |expected: &[Option<String>]| {
            when(&scene.releases(), &tag, "has its owners", |release| {
                let found: Vec<_> = release
                    .owner_references()
                    .iter()
                    .map(|it| Some(it.uid.clone()))
                    .collect();
                ensure!(found == expected, "{found:?}");
                Ok(())
            })
            .await
        };
        let before = owned_by(&owners).await?;
        delete(&scene.stacks(), "one").await?;
        gone(&scene.stacks(), "one").await?;
        let after = owned_by(&owners[1..]).await?;
        ensure!(after.uid() == before.uid());
        scene.stack_ready("two").await?;
        delete(&scene.stacks(), "two").await?;
        gone(&scene.stacks(), "two").await?;
        scene.release_gone(&release).await?;
        gone(&scene.classes(), &release.name().dotted()).await
    })
    .await
}

#[tokio::test]
async fn younger_stack_with_another_source_for_the_same_release_is_in_conflict() -> Result<()> {
    scene("sources", async |scene| {
        let release = scene.docker();
        scene.bring(&release).await?;
        let older = release.stack().to_owned();
        let made = scene.stacks().get(&older).await?.metadata.creation_timestamp;
        second_after(made).await?;
        let folder = format!("{}-elsewhere", scene.namespace);
        let (class, extra) = (release.name().dotted(), "extra.yaml");
        let template = format!("{{apiVersion: {INFRASTRUCTURE}, kind: DockerMachineTemplate, metadata: {{name: {class}-extra}}}}");
        let other = release.clone().with_class_template(extra, &template);
        other.write_to(&scene.folder.join(&folder))?;
        let younger = Stack::of(&release).versions(&["v1"]).named("younger").in_directory(&folder);
        younger.create(scene).await?;
        let seen = scene
            .stack_when("younger", "is in conflict", |stack| {
                is(stack_conditions(stack), "Ready", "False", "Conflict")
            })
            .await?;
        says(
            message(stack_conditions(&seen), "Ready")?,
            &[&release.name().tag(), &older],
        )?;
        scene.event("younger", "Conflict").await?;
        scene.stack_ready(&older).await?;

        // It gets its own when the other is gone.
        delete(&scene.stacks(), &older).await?;
        when(&scene.machine_templates(), &format!("{class}-extra"), "is there", |_| Ok(())).await?;
        scene.stack_ready("younger").await?;
        Ok(())
    })
    .await
}
