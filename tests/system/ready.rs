//! From a release to a usable class.

use anyhow::{Context, Result, ensure};
use core_operator::api::{
    CONTENT_ANNOTATION, ClusterStack, Condition, OWNED_LABEL, OWNED_VALUE, RELEASE_ANNOTATION,
    RELEASE_FINALIZER, RELEASE_LABEL, ResourceState, STACK_FINALIZER,
};
use core_operator::apply::{MANAGER, release_hash};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use serde_json::json;
use tests::github::{GitHub, OWNER, REPOSITORY, Release};
use tests::stacks::StackRelease;

use crate::scene::{
    Scene, is, message, release_conditions, says, scene, scene_without_cluster_api, shared,
    stack_conditions, write_class_status,
};
use crate::stack::Stack;

/// That all conditions are about this generation.
fn observed(conditions: &[Condition], generation: Option<i64>) -> Result<()> {
    for condition in conditions {
        ensure!(condition.observed_generation == generation, "{condition:?}");
    }
    Ok(())
}

/// Type, status and reason of each condition, in their order.
fn told(conditions: &[Condition]) -> Vec<(&str, &str, &str)> {
    let told = conditions.iter();
    told.map(|it| (it.type_.as_str(), it.status.as_str(), it.reason.as_str()))
        .collect()
}

/// A stack that follows the releases of the folder, ready with its first one.
async fn ready(scene: &Scene<'_>) -> Result<(StackRelease, ClusterStack)> {
    let release = scene.docker();
    scene.publish(&release)?;
    let stack = Stack::of(&release);
    stack.create(scene).await?;
    Ok((release, scene.stack_ready(&stack.name).await?))
}

#[tokio::test]
async fn stack_with_a_local_release_becomes_ready_and_says_so_in_the_words_of_the_go_operator()
-> Result<()> {
    scene("ready", async |scene| {
        let (release, stack) = ready(scene).await?;
        let status = stack.status.clone().unwrap();
        let summary = serde_json::to_value(&status.summary)?;
        let expected = json!([{"name": "v1", "ready": true, "phase": "done", "message": "Ready"}]);
        ensure!(summary == expected, "{summary}");
        ensure!(status.usable_versions.as_deref() == Some("v1"));
        ensure!(status.latest_release == Some(format!("{} | v1.30.4", release.name().dotted())));
        ensure!(status.newest_listed.as_deref() == Some("v1"));
        let expected = [
            ("Ready", "True", "Ready"),
            ("ClusterStackReleaseAvailable", "True", "Available"),
            ("ClusterStackReleasesSynced", "True", "Synced"),
            ("AssetsClientAPIAvailable", "True", "Available"),
            ("ReleasesSynced", "True", "Listed"),
            ("DeletionBlocked", "False", "NotBlocked"),
            ("Paused", "False", "NotPaused"),
        ];
        ensure!(told(&status.conditions) == expected, "{status:?}");
        observed(&status.conditions, stack.metadata.generation)?;
        ensure!(stack.finalizers() == [STACK_FINALIZER]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_is_made_for_its_stack_and_lists_its_objects() -> Result<()> {
    scene("inventory", async |scene| {
        let (release, stack) = ready(scene).await?;
        let (tag, class) = (release.name().tag(), release.name().dotted());
        let object = scene.releases().get(&tag).await?;
        let status = object.status.clone().unwrap();
        let expected = [
            ("Ready", "True", "Ready"),
            ("ClusterStackReleaseDownloaded", "True", "Downloaded"),
            ("ProviderReady", "True", "NoProvider"),
            ("ProviderClusterStackReleaseReady", "True", "NoProvider"),
            ("HelmChartApplied", "True", "Applied"),
            ("DeletionBlocked", "False", "NotBlocked"),
            ("Paused", "False", "NotPaused"),
        ];
        ensure!(told(&status.conditions) == expected, "{status:?}");
        observed(&status.conditions, object.metadata.generation)?;
        ensure!(status.ready && status.first_ready_time.is_some());
        ensure!(status.kubernetes_version.as_deref() == Some("v1.30.4"));
        ensure!(status.digest.context("no digest")?.starts_with("sha256:"));
        ensure!(status.hashes.contains_key("clusterStack"));

        // plain, as the Go operator's
        let owners = serde_json::to_value(object.owner_references())?;
        let owner = json!([{
            "apiVersion": "clusterstack.x-k8s.io/v1alpha1", "kind": "ClusterStack",
            "name": stack.name_any(), "uid": stack.uid(),
        }]);
        ensure!(owners == owner, "{owners}");
        ensure!(object.finalizers() == [RELEASE_FINALIZER]);
        let note = scene.event(&tag, "ClusterStackReleaseCreated").await?;
        says(&note, &[&stack.name_any()])?;

        let entries = status.resources.iter();
        let mut names: Vec<_> = entries
            .map(|it| format!("{} {}", it.kind, it.name))
            .collect();
        names.sort_unstable();
        let expected = [
            format!("ClusterClass {class}"),
            format!("DockerClusterTemplate {class}-cluster"),
            format!("DockerMachineTemplate {class}-control-plane"),
            format!("DockerMachineTemplate {class}-worker"),
            format!("KubeadmConfigTemplate {class}-worker"),
            format!("KubeadmControlPlaneTemplate {class}-control-plane"),
        ];
        ensure!(names == expected, "{names:?}");
        for entry in &status.resources {
            ensure!(entry.status == ResourceState::Synced && entry.error.is_empty());
            ensure!(
                entry.namespace == scene.namespace && entry.generation == Some(1),
                "{entry:?}"
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn objects_of_a_release_carry_our_marks_and_nobody_owns_them() -> Result<()> {
    scene("marks", async |scene| {
        let (release, _) = ready(scene).await?;
        let tag = release.name().tag();
        let full_name = format!("{}/{tag}", scene.namespace);
        for entry in scene.releases().get(&tag).await?.inventory() {
            let api_version = format!("{}/{}", entry.group, entry.version);
            let api = scene.objects(&api_version, &entry.kind);
            let object = api.get(&entry.name).await?;
            ensure!(object.uid().as_deref() == Some(&*entry.uid));
            ensure!(object.labels()[OWNED_LABEL] == OWNED_VALUE);
            ensure!(object.labels()[RELEASE_LABEL] == release_hash(&scene.namespace, &tag));
            ensure!(object.annotations()[RELEASE_ANNOTATION] == full_name);
            ensure!(object.annotations().contains_key(CONTENT_ANNOTATION));
            ensure!(object.owner_references().is_empty() && object.finalizers().is_empty());
            let managers: Vec<_> = object
                .managed_fields()
                .iter()
                .filter(|entry| entry.subresource.is_none())
                .map(|entry| (entry.manager.as_deref(), entry.operation.as_deref()))
                .collect();
            ensure!(managers == [(Some(MANAGER), Some("Apply"))], "{managers:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_example_stack_becomes_ready() -> Result<()> {
    scene("examples", async |scene| {
        for (example, suffix) in [
            ("docker-example", "e"),
            ("docker-single", "s"),
            ("fake-example", "f"),
        ] {
            scene.bring(&scene.example(example, suffix)).await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn hash_version_is_taken_in_dot_and_in_dash_form() -> Result<()> {
    scene("forms", async |scene| {
        for (suffix, form) in [("a", "v0-sha.d2lgujm"), ("b", "v0-sha-d2lgujm")] {
            let release = scene
                .example("docker-example", suffix)
                .version("v0-sha.d2lgujm");
            let dotted = release.name().dotted();
            scene.publish(&release)?;
            let stack = Stack::of(&release)
                .versions(&[form])
                .with("channel", json!("custom"));
            stack.create(scene).await?;
            let status = scene.stack_ready(&stack.name).await?.status.unwrap();
            ensure!(status.summary.len() == 1 && status.summary[0].name == "v0-sha-d2lgujm");
            ensure!(status.usable_versions.as_deref() == Some("v0-sha.d2lgujm"));
            ensure!(status.latest_release == Some(format!("{dotted} | v1.30.4")));
            // Not listed, so nothing is known of the source.
            is(
                &status.conditions,
                "AssetsClientAPIAvailable",
                "Unknown",
                "NotSubscribed",
            )?;
            let class = scene.classes().get(&dotted).await?;
            let expected = format!("{}/{}", scene.namespace, release.name().tag());
            ensure!(class.annotations()[RELEASE_ANNOTATION] == expected);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stack_becomes_ready_from_github() -> Result<()> {
    const TOKEN: &str = "very-secret";
    scene("github", async |scene| {
        let release = scene.docker();
        let folder = tempfile::tempdir()?;
        let published = Release::from_folder(&release.write_to(folder.path())?)?;
        let github =
            GitHub::start([Release::new("nightly"), published.titled("The first")]).await?;
        github.state().token = Some(TOKEN.to_owned());
        let source = json!({
            "github": {"url": github.url(), "owner": OWNER, "repository": REPOSITORY},
            "secretRef": {"name": "github"},
        });
        let stack = Stack::of(&release).with("source", source);
        stack.create(scene).await?;
        let refused = scene
            .stack_when(&stack.name, "says that the Secret is missing", |stack| {
                is(
                    stack_conditions(stack),
                    "AssetsClientAPIAvailable",
                    "False",
                    "SourceRefused",
                )
            })
            .await?;
        says(
            message(stack_conditions(&refused), "ReleasesSynced")?,
            &["Secret \"github\""],
        )?;

        let secret = Secret {
            metadata: kube::core::ObjectMeta {
                name: Some("github".to_owned()),
                ..Default::default()
            },
            data: Some([("token".to_owned(), ByteString(TOKEN.into()))].into()),
            ..Default::default()
        };
        scene
            .api::<Secret>()
            .create(&PostParams::default(), &secret)
            .await?;
        scene.look_again(&stack.name).await?;
        let ready = scene.stack_ready(&stack.name).await?;
        ensure!(
            ready.status.unwrap().latest_release
                == Some(format!("{} | v1.30.4", release.name().dotted()))
        );
        ensure!(
            github
                .stored()
                .iter()
                .all(|headers| !headers.contains_key("authorization"))
        );
        let log = shared().await?.operator.log()?;
        ensure!(!log.contains(TOKEN), "the token is in the log");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_is_ready_only_while_cluster_api_has_taken_its_class() -> Result<()> {
    scene_without_cluster_api("taken", async |scene| {
        let release = scene.docker();
        let (name, class) = (release.stack().to_owned(), release.name().dotted());
        scene.publish(&release)?;
        Stack::of(&release).create(scene).await?;
        let waiting = scene.release_says(&release, "Ready", "False", "ClassNotObserved").await?;
        ensure!(!waiting.status.as_ref().unwrap().ready);
        is(release_conditions(&waiting), "HelmChartApplied", "True", "Applied")?;
        let stack = scene
            .stack_when(&name, "waits for the class", |stack| {
                is(stack_conditions(stack), "Ready", "False", "ClassNotObserved")
            })
            .await?;
        let status = stack.status.unwrap();
        let summary = serde_json::to_value(&status.summary)?;
        let expected = json!([{"name": "v1", "ready": false, "phase": "applying objects", "message": "ClassNotObserved"}]);
        ensure!(summary == expected, "{summary}");
        ensure!(status.usable_versions.is_none() && status.latest_release.is_none());
        is(&status.conditions, "ClusterStackReleaseAvailable", "False", "NotAvailable")?;

        let found = scene.classes().get(&class).await?;
        let verdict = json!({"status": "False", "reason": "VariableDiscoveryFailed", "message": "two schemas for a"});
        write_class_status(&scene.client, &found, &verdict).await?;
        let refused = scene.release_says(&release, "Ready", "False", "ClassVariablesNotReady").await?;
        says(message(release_conditions(&refused), "Ready")?, &["two schemas for a"])?;

        write_class_status(&scene.client, &found, &json!({"status": "True", "reason": "VariablesReady"})).await?;
        scene.stack_ready(&name).await?;

        // pitfall 11: derived, never latched
        write_class_status(&scene.client, &found, &verdict).await?;
        scene.release_says(&release, "Ready", "False", "ClassVariablesNotReady").await?;
        let stack = scene
            .stack_when(&name, "is not ready any more", |stack| {
                is(stack_conditions(stack), "Ready", "False", "ClassVariablesNotReady")
            })
            .await?;
        // kept while none is ready
        let latest = stack.status.unwrap().latest_release;
        ensure!(latest == Some(format!("{class} | v1.30.4")));

        crate::scene::delete(&scene.classes(), &class).await?;
        let fresh = crate::scene::back(&scene.classes(), &class, &found).await?;
        let good = json!({"status": "True", "reason": "VariablesReady"});
        write_class_status(&scene.client, &fresh, &good).await?;
        scene.stack_ready(&name).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_that_is_not_there_says_where_it_was_looked_for() -> Result<()> {
    // baseline 02
    scene("absent", async |scene| {
        let release = scene.docker();
        let stack = Stack::of(&release).versions(&["v7"]);
        stack.create(scene).await?;
        let stack = scene
            .stack_when(&stack.name, "is not ready", |stack| {
                is(stack_conditions(stack), "Ready", "False", "ReleaseNotFound")
            })
            .await?;
        let folder = scene.folder.display().to_string();
        says(
            message(stack_conditions(&stack), "Ready")?,
            &["-1-30-v7\" in ", &folder],
        )?;
        let summary = &stack.status.unwrap().summary[0];
        ensure!(summary.phase == "downloading release assets" && !summary.ready);
        let templates = scene
            .machine_templates()
            .list(&ListParams::default())
            .await?;
        ensure!(templates.items.is_empty());
        Ok(())
    })
    .await
}
