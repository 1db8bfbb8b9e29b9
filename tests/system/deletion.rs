//! The end of stacks and releases.

use std::time::Duration;

use anyhow::{Result, ensure};
use core_operator::api::{
    ClusterStackRelease, DELETE_FOR_MOVE_ANNOTATION, OWNED_LABEL, PAUSED_ANNOTATION,
};
use kube::ResourceExt;
use kube::api::ListParams;
use tests::{consistently, eventually};

use crate::scene::{
    PATIENCE, Scene, back, delete, gone, is, message, release_conditions, says, scene,
    stack_conditions, when,
};
use crate::stack::Stack;

/// The names of all objects in the namespace that releases have applied.
async fn applied(scene: &Scene<'_>, release: &ClusterStackRelease) -> Result<Vec<String>> {
    let ours = ListParams::default().labels(&format!("{OWNED_LABEL}=owned"));
    let mut names = Vec::new();
    for entry in release.inventory() {
        let api_version = format!("{}/{}", entry.group, entry.version);
        let api = scene.objects(&api_version, &entry.kind);
        for object in api.list(&ours).await? {
            names.push(format!("{} {}", entry.kind, object.name_any()));
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

#[tokio::test]
async fn stack_that_goes_takes_its_releases_along_and_classes_before_templates() -> Result<()> {
    // pitfall 10, baseline 14
    scene("ends", async |scene| {
        let release = scene.docker();
        let stack = scene.bring(&release).await?;
        let before = scene.release_ready(&release).await?;
        ensure!(applied(scene, &before).await?.len() == 6);
        let requests = scene.requests().await?;
        delete(&scene.stacks(), &stack.name_any()).await?;
        gone(&scene.stacks(), &stack.name_any()).await?;
        ensure!(
            scene
                .releases()
                .list(&ListParams::default())
                .await?
                .items
                .is_empty()
        );
        let left = applied(scene, &before).await?;
        ensure!(left.is_empty(), "{left:?}");

        let changes = scene.changes(&requests).await?;
        let deletions: Vec<_> = changes.iter().filter(|it| it.verb == "delete").collect();
        let of = |resource: &str| deletions.iter().position(|it| it.resource == resource);
        let class = of("clusterclasses").unwrap();
        let template = deletions
            .iter()
            .position(|it| it.resource.ends_with("templates"));
        ensure!(class < template.unwrap(), "{deletions:#?}");
        // Each once; where the watch is behind, an object that is gone already may be asked for again.
        let done = deletions.iter().filter(|it| it.code == 200).count();
        ensure!(done == 7, "{deletions:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn used_release_stays_until_its_last_user_goes_and_is_repaired_meanwhile() -> Result<()> {
    // pitfalls 5 and 49
    scene("used", async |scene| {
        let release = scene.docker();
        let stack = scene.bring(&release).await?.name_any();
        let (tag, class) = (release.name().tag(), release.name().dotted());
        let other = scene.control_plane.namespace("used-other").await?;
        scene.use_class(&other, "tenant", &class).await?;
        delete(&scene.stacks(), &stack).await?;
        let user = format!("\"{other}/tenant\"");
        let seen = scene
            .release_says(&release, "DeletionBlocked", "True", "InUse")
            .await?;
        says(
            message(release_conditions(&seen), "DeletionBlocked")?,
            &[&user],
        )?;
        says(&scene.event(&tag, "DeletionBlocked").await?, &[&user])?;
        let seen = scene
            .stack_when(&stack, "says what is in its way", |stack| {
                is(stack_conditions(stack), "DeletionBlocked", "True", "InUse")
            })
            .await?;
        says(
            message(stack_conditions(&seen), "DeletionBlocked")?,
            &[&tag, &user],
        )?;
        is(stack_conditions(&seen), "Ready", "False", "Deleting")?;

        // A release like any other until then.
        let before = scene.classes().get(&class).await?;
        delete(&scene.classes(), &class).await?;
        back(&scene.classes(), &class, &before).await?;
        is(
            release_conditions(&scene.release_ready(&release).await?),
            "DeletionBlocked",
            "True",
            "InUse",
        )?;

        delete(&scene.clusters(&other), "tenant").await?;
        gone(&scene.stacks(), &stack).await?;
        scene.release_gone(&release).await?;
        gone(&scene.classes(), &class).await
    })
    .await
}

#[tokio::test]
async fn used_release_that_somebody_deletes_waits_and_is_made_anew() -> Result<()> {
    scene("kubectl", async |scene| {
        let release = scene.docker();
        let stack = scene.bring(&release).await?.name_any();
        let class = release.name().dotted();
        let before = scene.releases().get(&release.name().tag()).await?;
        scene.use_class(&scene.namespace, "tenant", &class).await?;
        delete(&scene.releases(), &release.name().tag()).await?;
        let seen = scene
            .release_says(&release, "DeletionBlocked", "True", "InUse")
            .await?;
        says(
            message(release_conditions(&seen), "DeletionBlocked")?,
            &["tenant"],
        )?;
        ensure!(
            scene
                .classes()
                .get(&class)
                .await?
                .metadata
                .deletion_timestamp
                .is_none()
        );
        scene
            .stack_when(&stack, "says what goes", |stack| {
                is(
                    stack_conditions(stack),
                    "ClusterStackReleasesSynced",
                    "False",
                    "Syncing",
                )?;
                says(
                    message(stack_conditions(stack), "ClusterStackReleasesSynced")?,
                    &[&release.name().tag()],
                )
            })
            .await?;
        delete(&scene.clusters(&scene.namespace), "tenant").await?;
        back(&scene.releases(), &release.name().tag(), &before).await?;
        scene.stack_ready(&stack).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_is_moved_away_takes_nothing_along() -> Result<()> {
    scene("moved", async |scene| {
        let release = scene.docker();
        let stack = scene.bring(&release).await?.name_any();
        let tag = release.name().tag();
        let before = scene.release_ready(&release).await?;
        let objects = applied(scene, &before).await?;
        // As clusterctl does it: what is owned first.
        scene
            .annotate(
                &scene.releases(),
                &tag,
                DELETE_FOR_MOVE_ANNOTATION,
                Some(""),
            )
            .await?;
        scene
            .annotate(
                &scene.stacks(),
                &stack,
                DELETE_FOR_MOVE_ANNOTATION,
                Some(""),
            )
            .await?;
        // Until it is deleted itself, the stack does not make a release anew.
        scene
            .stack_when(&stack, "stands still", |stack| {
                is(stack_conditions(stack), "Paused", "True", "Paused")
            })
            .await?;
        delete(&scene.releases(), &tag).await?;
        delete(&scene.stacks(), &stack).await?;
        gone(&scene.stacks(), &stack).await?;
        scene.release_gone(&release).await?;
        consistently("everything stays", Duration::from_secs(1), async || {
            let left = applied(scene, &before).await?;
            ensure!(left == objects, "{left:?}");
            ensure!(
                scene.releases().get_opt(&tag).await?.is_none(),
                "the release is back"
            );
            Ok(())
        })
        .await
    })
    .await
}

#[tokio::test]
async fn nothing_is_written_for_a_paused_stack() -> Result<()> {
    scene("paused", async |scene| {
        let release = scene.docker();
        let stack = scene.bring(&release).await?.name_any();
        let class = release.name().dotted();
        scene
            .annotate(&scene.stacks(), &stack, PAUSED_ANNOTATION, Some(""))
            .await?;
        scene
            .release_says(&release, "Paused", "True", "Paused")
            .await?;
        scene
            .stack_when(&stack, "is paused", |stack| {
                is(stack_conditions(stack), "Paused", "True", "Paused")?;
                is(stack_conditions(stack), "Ready", "True", "Ready")
            })
            .await?;
        let before = scene.classes().get(&class).await?;
        let requests = scene.requests().await?;
        delete(&scene.classes(), &class).await?;
        scene.publish(&release.clone().version("v2"))?;
        scene
            .patch_stack(&stack, serde_json::json!({"versions": ["v1", "v2"]}))
            .await?;
        consistently("nothing is written", Duration::from_secs(2), async || {
            let changes = scene.changes(&requests).await?;
            ensure!(changes.is_empty(), "{changes:?}");
            Ok(())
        })
        .await?;
        scene
            .annotate(&scene.stacks(), &stack, PAUSED_ANNOTATION, None)
            .await?;
        back(&scene.classes(), &class, &before).await?;
        scene.release_ready(&release.clone().version("v2")).await?;
        scene.stack_ready(&stack).await?;

        // A paused release stands still alone, also when it is being deleted.
        let v2 = release.clone().version("v2");
        scene
            .annotate(
                &scene.releases(),
                &v2.name().tag(),
                PAUSED_ANNOTATION,
                Some(""),
            )
            .await?;
        scene.release_says(&v2, "Paused", "True", "Paused").await?;
        delete(&scene.stacks(), &stack).await?;
        scene.release_gone(&release).await?;
        consistently("the paused one stays", Duration::from_secs(1), async || {
            scene.releases().get(&v2.name().tag()).await?;
            scene.classes().get(&v2.name().dotted()).await?;
            Ok(())
        })
        .await?;
        scene
            .annotate(&scene.releases(), &v2.name().tag(), PAUSED_ANNOTATION, None)
            .await?;
        gone(&scene.stacks(), &stack).await?;
        gone(&scene.classes(), &v2.name().dotted()).await
    })
    .await
}

#[tokio::test]
async fn release_without_a_stack_says_so_and_goes_when_it_is_deleted() -> Result<()> {
    scene("orphan", async |scene| {
        let release = scene.docker();
        let tag = release.name().tag();
        let orphan = format!(
            "{{apiVersion: clusterstack.x-k8s.io/v1alpha1, kind: ClusterStackRelease, metadata: {{name: {tag}}}, spec: {{}}}}"
        );
        scene.apply(&orphan).await?;
        scene.release_says(&release, "Ready", "False", "NoClusterStack").await?;
        scene.publish(&release)?;
        let stack = Stack::of(&release);
        stack.create(scene).await?;
        scene.stack_ready(&stack.name).await?;
        when(&scene.releases(), &tag, "has an owner", |release| {
            ensure!(release.owner_references().len() == 1, "{:?}", release.metadata);
            Ok(())
        })
        .await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn namespace_that_goes_is_not_held_up() -> Result<()> {
    scene("space", async |scene| {
        let release = scene.docker();
        scene.bring(&release).await?;
        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> =
            kube::Api::all(scene.client.clone());
        delete(&namespaces, &scene.namespace).await?;
        eventually("the namespace is gone", PATIENCE, async || {
            let namespace = namespaces.get_opt(&scene.namespace).await?;
            let status = namespace.map(|namespace| namespace.status);
            ensure!(status.is_none(), "{status:?}");
            Ok(())
        })
        .await
    })
    .await
}
