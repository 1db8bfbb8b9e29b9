//! What somebody else changes is put right, or reported.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use core_operator::api::{CONTENT_ANNOTATION, OWNED_LABEL, RELEASE_ANNOTATION, RELEASE_LABEL};
use core_operator::apply::MANAGER;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tests::{consistently, eventually};

use crate::scene::{
    INFRASTRUCTURE, PATIENCE, back, delete, is, message, release_conditions, says, scene, when,
};
use crate::stack::Stack;

/// Sets a field that every machine template of the example has, as somebody with an editor does.
async fn edit(api: &Api<DynamicObject>, name: &str, socket: &str) -> Result<DynamicObject> {
    let mounts = json!([{"containerPath": socket, "hostPath": socket}]);
    let patch = json!({"spec": {"template": {"spec": {"extraMounts": mounts}}}});
    let params = PatchParams {
        field_manager: Some("editor".to_owned()),
        ..PatchParams::default()
    };
    Ok(api.patch(name, &params, &Patch::Merge(patch)).await?)
}

/// The field that [`edit`] sets.
fn socket(template: &DynamicObject) -> &str {
    let mounts = &template.data["spec"]["template"]["spec"]["extraMounts"];
    mounts[0]["hostPath"].as_str().unwrap_or_default()
}

const SOCKET: &str = "/var/run/docker.sock";

async fn right(api: &Api<DynamicObject>, name: &str) -> Result<DynamicObject> {
    when(api, name, "is put right", |template| {
        ensure!(socket(template) == SOCKET, "mounts {}", socket(template));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn deleted_objects_come_back() -> Result<()> {
    // pitfall 11, baseline 06
    scene("deleted", async |scene| {
        let release = scene.docker();
        scene.bring(&release).await?;
        let class = release.name().dotted();
        for (api, name) in [
            (scene.classes(), class.clone()),
            (scene.machine_templates(), format!("{class}-worker")),
        ] {
            let before = api.get(&name).await?;
            delete(&api, &name).await?;
            back(&api, &name, &before).await?;
        }
        scene.stack_ready(release.stack()).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn changed_objects_are_put_right() -> Result<()> {
    scene("changed", async |scene| {
        let release = scene.docker();
        scene.bring(&release).await?;
        let (api, name) = (
            scene.machine_templates(),
            format!("{}-worker", release.name().dotted()),
        );
        let before = api.get(&name).await?;
        edit(&api, &name, "/tmp/other.sock").await?;
        let after = right(&api, &name).await?;
        ensure!(after.uid() == before.uid(), "made anew");
        let note = scene.event(&release.name().tag(), "FieldsTaken").await?;
        says(&note, &[&name, "editor", "extraMounts"])?;

        // Each of our marks, and nothing else of what others add.
        scene
            .annotate(&api, &name, "example.com/mine", Some("stays"))
            .await?;
        for (part, key) in [
            ("labels", OWNED_LABEL),
            ("labels", RELEASE_LABEL),
            ("annotations", RELEASE_ANNOTATION),
            ("annotations", CONTENT_ANNOTATION),
        ] {
            let patch = Patch::Merge(json!({"metadata": {part: {key: null}}}));
            api.patch_metadata(&name, &PatchParams::default(), &patch)
                .await?;
            when(&api, &name, &format!("has its {key} again"), |object| {
                let marks = if part == "labels" {
                    object.labels()
                } else {
                    object.annotations()
                };
                ensure!(marks.contains_key(key), "{marks:?}");
                Ok(())
            })
            .await?;
        }
        let after = api.get(&name).await?;
        ensure!(after.annotations()["example.com/mine"] == "stays");
        ensure!(after.uid() == before.uid());
        scene.stack_ready(release.stack()).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn field_that_another_manager_takes_is_taken_back_with_an_event() -> Result<()> {
    // pitfall 43: not silently
    scene("taken", async |scene| {
        let release = scene.docker();
        scene.bring(&release).await?;
        let (api, name) = (scene.machine_templates(), format!("{}-worker", release.name().dotted()));
        let mounts = json!([{"containerPath": "/x", "hostPath": "/x"}]);
        let patch = json!({
            "apiVersion": INFRASTRUCTURE, "kind": "DockerMachineTemplate", "metadata": {"name": name},
            "spec": {"template": {"spec": {"extraMounts": mounts}}},
        });
        let params = PatchParams::apply("other-tool").force();
        api.patch(&name, &params, &Patch::Apply(patch)).await?;
        let after = right(&api, &name).await?;
        let note = scene.event(&release.name().tag(), "FieldsTaken").await?;
        says(&note, &[&name, "other-tool"])?;
        let owner = after.managed_fields().iter().find(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| fields.0.to_string());
            fields.is_some_and(|fields| fields.contains("f:extraMounts"))
        });
        ensure!(owner.context("nobody owns the field")?.manager.as_deref() == Some(MANAGER));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn drift_is_only_reported_where_the_policy_says_so() -> Result<()> {
    scene("report", async |scene| {
        let release = scene.docker();
        scene.publish(&release)?;
        let stack = Stack::of(&release).with("policy", json!({"drift": "Report"}));
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;
        let (templates, classes) = (scene.machine_templates(), scene.classes());
        let class = release.name().dotted();
        let name = format!("{class}-worker");

        let edited = edit(&templates, &name, "/tmp/other.sock").await?;
        let seen = scene
            .release_says(&release, "HelmChartApplied", "True", "Drifted")
            .await?;
        says(
            message(release_conditions(&seen), "HelmChartApplied")?,
            &[&name, "was changed"],
        )?;
        let status = seen.status.unwrap();
        let entry = status
            .resources
            .iter()
            .find(|entry| entry.name == name)
            .unwrap();
        ensure!(entry.error.contains("was changed"), "{entry:?}");
        scene.stack_ready(&stack.name).await?;

        let before = classes.get(&class).await?;
        delete(&classes, &class).await?;
        let seen = scene
            .release_says(&release, "HelmChartApplied", "False", "Drifted")
            .await?;
        says(
            message(release_conditions(&seen), "HelmChartApplied")?,
            &[&class, "was deleted"],
        )?;
        consistently("nothing is put right", Duration::from_secs(2), async || {
            ensure!(
                classes.get_opt(&class).await?.is_none(),
                "the class is back"
            );
            let now = templates.get(&name).await?;
            ensure!(
                now.resource_version() == edited.resource_version(),
                "the template was written"
            );
            Ok(())
        })
        .await?;

        scene
            .patch_stack(&stack.name, json!({"policy": {"drift": "Correct"}}))
            .await?;
        right(&templates, &name).await?;
        back(&classes, &class, &before).await?;
        scene.stack_ready(&stack.name).await?;
        is(
            release_conditions(&scene.release_ready(&release).await?),
            "HelmChartApplied",
            "True",
            "Applied",
        )
    })
    .await
}

#[tokio::test]
async fn two_managers_that_fight_over_a_field_do_not_heat_up_the_api_server() -> Result<()> {
    const ROUNDS: usize = 4;
    scene("fight", async |scene| {
        let release = scene.docker();
        scene.bring(&release).await?;
        let (api, name) = (
            scene.machine_templates(),
            format!("{}-worker", release.name().dotted()),
        );
        let requests = scene.requests().await?;
        let begin = std::time::Instant::now();
        for round in 0..ROUNDS {
            edit(&api, &name, &format!("/tmp/{round}.sock")).await?;
            right(&api, &name).await?;
        }
        // at once, after 1 s, after 2 s, after 4 s
        let took = begin.elapsed();
        ensure!(
            took > Duration::from_secs(6),
            "{ROUNDS} corrections in {took:?}"
        );
        let changes = scene.changes(&requests).await?;
        // Each is tried without force first, so that the event names who is in the way.
        ensure!(changes.len() <= 2 * ROUNDS, "{changes:#?}");

        // Nothing is given up either: the other one wins for a while, not for ever.
        edit(&api, &name, "/tmp/last.sock").await?;
        let quiet = scene.requests().await?;
        consistently("nothing is written", Duration::from_secs(3), async || {
            let changes = scene.changes(&quiet).await?;
            ensure!(changes.is_empty(), "{changes:?}");
            Ok(())
        })
        .await?;
        eventually("the last change is put right", PATIENCE, async || {
            ensure!(socket(&api.get(&name).await?) == SOCKET);
            Ok(())
        })
        .await
    })
    .await
}
