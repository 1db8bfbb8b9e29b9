//! What is known after a restart: everything that counts is in the cluster.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::json;
use tests::eventually;

use crate::apart::{apart, operator};
use crate::quiet::reconciles;
use crate::scene::{PATIENCE, back, delete, gone, message, release_conditions, says, when};
use crate::stack::Stack;

#[tokio::test]
async fn operator_knows_after_a_restart_what_was_changed_meanwhile() -> Result<()> {
    apart("restart", async |scene| {
        let (reported, corrected) = (
            scene.example("docker-example", "r"),
            scene.example("docker-example", "c"),
        );
        let first = operator(scene).start().await?;
        for (release, policy) in [(&reported, "Report"), (&corrected, "Correct")] {
            scene.publish(release)?;
            let stack = Stack::of(release).with("policy", json!({"drift": policy}));
            stack.create(scene).await?;
            scene.stack_ready(&stack.name).await?;
        }
        first.stop()?;

        // Nothing has happened: nothing is written.
        let requests = scene.requests().await?;
        let second = operator(scene).start().await?;
        eventually("all releases were looked at", PATIENCE, async || {
            // Once for the files, once for the objects.
            let now = reconciles(&second).await?;
            ensure!(now >= 4, "{now}");
            Ok(())
        })
        .await?;
        second.stop()?;
        let mut asked = scene.asked(&requests).await?;
        asked.retain(|request| request.is_write() && request.resource != "leases");
        ensure!(asked.is_empty(), "{asked:#?}");

        let (classes, templates) = (scene.classes(), scene.machine_templates());
        let mut before = Vec::new();
        for release in [&reported, &corrected] {
            let class = release.name().dotted();
            before.push(classes.get(&class).await?);
            delete(&classes, &class).await?;
            let patch =
                Patch::Merge(json!({"spec": {"template": {"spec": {"customImage": "mine"}}}}));
            templates
                .patch(&format!("{class}-worker"), &PatchParams::default(), &patch)
                .await?;
            let patch =
                Patch::Merge(json!({"spec": {"template": {"spec": {"extraMounts": null}}}}));
            templates
                .patch(&format!("{class}-worker"), &PatchParams::default(), &patch)
                .await?;
        }
        let third = operator(scene).start().await?;
        let class = corrected.name().dotted();
        back(&classes, &class, &before[1]).await?;
        when(
            &templates,
            &format!("{class}-worker"),
            "is put right",
            |template| {
                let spec = &template.data["spec"]["template"]["spec"];
                ensure!(spec["extraMounts"].is_array(), "{spec}");
                // A field that the release does not set is nobody's business.
                ensure!(spec["customImage"] == "mine", "{spec}");
                Ok(())
            },
        )
        .await?;
        let class = reported.name().dotted();
        let seen = scene
            .release_says(&reported, "HelmChartApplied", "False", "Drifted")
            .await?;
        let text = message(release_conditions(&seen), "HelmChartApplied")?;
        says(text, &[&class, "was deleted"])?;
        let entry = seen
            .inventory()
            .iter()
            .find(|entry| entry.name == format!("{class}-worker"));
        ensure!(
            entry.is_some_and(|entry| entry.error.contains("was changed")),
            "{entry:?}"
        );
        ensure!(
            classes.get_opt(&class).await?.is_none(),
            "the class is back"
        );
        third.stop()?;

        // pitfall 9: neither the source nor the cache is there, and all goes.
        for release in [&reported, &corrected] {
            std::fs::remove_dir_all(scene.folder.join(release.name().tag()))?;
        }
        let _fourth = operator(scene).start().await?;
        for release in [&reported, &corrected] {
            delete(&scene.stacks(), release.stack()).await?;
            gone(&scene.stacks(), release.stack()).await?;
            scene.release_gone(release).await?;
        }
        for api in [classes, templates, scene.cluster_templates()] {
            let left = api.list(&ListParams::default()).await?;
            let left: Vec<_> = left.iter().map(ResourceExt::name_any).collect();
            ensure!(left.is_empty(), "{left:?}");
        }
        Ok(())
    })
    .await
}
