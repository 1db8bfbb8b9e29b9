//! What a release may have in it, and what the management cluster must offer.

use anyhow::{Result, ensure};
use core_operator::api::ClusterStackRelease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, ObjectMeta};
use kube::{Api, ResourceExt};
use serde_json::json;
use tests::stacks::StackRelease;
use tests::{eventually, manifests};

use crate::scene::{
    INFRASTRUCTURE, PATIENCE, Scene, delete, is, message, release_conditions, says, scene, shared,
    stack_conditions, when,
};
use crate::stack::Stack;

/// A stack in the same namespace that none of this concerns.
async fn neighbour(scene: &Scene<'_>) -> Result<String> {
    Ok(scene
        .bring(&scene.example("docker-single", "n"))
        .await?
        .name_any())
}

/// Makes a stack with this release, and waits until it says why its objects are not applied.
async fn refused(
    scene: &Scene<'_>,
    release: &StackRelease,
    reason: &str,
    words: &[&str],
) -> Result<ClusterStackRelease> {
    scene.publish(release)?;
    let stack = Stack::of(release);
    stack.create(scene).await?;
    let seen = scene
        .release_says(release, "Ready", "False", reason)
        .await?;
    is(
        release_conditions(&seen),
        "HelmChartApplied",
        "False",
        reason,
    )?;
    says(
        message(release_conditions(&seen), "HelmChartApplied")?,
        words,
    )?;
    scene.event(&release.name().tag(), reason).await?;
    let told = scene
        .stack_when(&stack.name, "is not ready", |stack| {
            is(stack_conditions(stack), "Ready", "False", reason)
        })
        .await?;
    says(message(stack_conditions(&told), "Ready")?, words)?;
    let summary = &told.status.unwrap().summary[0];
    ensure!(!summary.ready && summary.phase == "applying objects" && summary.message == reason);
    // Nothing of such a release is applied.
    let classes = scene.classes().list(&ListParams::default()).await?;
    let class = release.name().dotted();
    ensure!(
        classes.iter().all(|found| found.name_any() != class),
        "its class is there"
    );
    Ok(seen)
}

#[tokio::test]
async fn release_with_an_object_that_may_not_be_is_invalid() -> Result<()> {
    scene("invalid", async |scene| {
        let neighbour = neighbour(scene).await?;
        let object = |api_version: &str, kind: &str, metadata: &str| {
            format!("{{apiVersion: {api_version}, kind: {kind}, metadata: {{{metadata}}}}}")
        };
        let docker = |metadata: &str| object(INFRASTRUCTURE, "DockerMachineTemplate", metadata);
        for (suffix, template, words) in [
            // Rights are there, but a release author must not get them.
            (
                "cluster",
                object("storage.k8s.io/v1", "StorageClass", "name: fast"),
                &[
                    "StorageClass \"fast\"",
                    "--allow-cluster-kinds",
                    "StorageClass.storage.k8s.io",
                ][..],
            ),
            // Whoever reads this must not be told to give the operator more rights.
            (
                "role",
                object(
                    "rbac.authorization.k8s.io/v1",
                    "ClusterRoleBinding",
                    "name: root",
                ),
                &["ClusterRoleBinding \"root\"", "--allow-cluster-kinds"],
            ),
            (
                "space",
                docker("name: a, namespace: kube-system"),
                &["\"kube-system\"", "--allow-namespaces"],
            ),
            (
                "nameless",
                docker("labels: {a: b}"),
                &["bad.yaml", "metadata.name"],
            ),
            (
                "random",
                docker("generateName: a-"),
                &["bad.yaml", "generateName"],
            ),
            (
                "number",
                docker("name: a, labels: {count: 1}"),
                &["bad.yaml", "metadata.labels", "\"count\""],
            ),
            (
                "twice",
                format!("{}\n---\n{}", docker("name: a"), docker("name: a")),
                &["/a\" occurs twice"],
            ),
        ] {
            // The suffix would else end the name of another test's stack.
            let release = scene.example("docker-example", &format!("-{suffix}"));
            let release = release.with_class_template("bad.yaml", &template);
            refused(
                scene,
                &release,
                "ReleaseInvalid",
                &[words, &["bad.yaml"]].concat(),
            )
            .await?;
        }
        scene.stack_ready(&neighbour).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn chart_that_does_not_render_is_told_in_the_words_of_helm() -> Result<()> {
    // pitfall 14, baseline 05
    scene("broken", async |scene| {
        let neighbour = neighbour(scene).await?;
        for (suffix, template, words) in [
            ("fail", "{{ fail \"set a region\" }}", &["set a region"][..]),
            ("call", "{{ nothing .Values }}", &["nothing", "broken.yaml"]),
            ("yaml", "a: [", &["broken.yaml"]),
        ] {
            let release = scene.example("docker-example", &format!("-{suffix}"));
            let release = release.with_class_template("broken.yaml", template);
            refused(scene, &release, "ReleaseInvalid", words).await?;
        }
        scene.stack_ready(&neighbour).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn metadata_that_is_not_valid_is_told_and_concerns_nobody_else() -> Result<()> {
    // baseline 04
    scene("metadata", async |scene| {
        let neighbour = neighbour(scene).await?;
        let release = scene
            .docker()
            .with_file("metadata.yaml", "versions: [1, 2]\n");
        scene.publish(&release)?;
        let stack = Stack::of(&release);
        stack.create(scene).await?;
        let seen = scene
            .release_says(&release, "Ready", "False", "ReleaseInvalid")
            .await?;
        is(
            release_conditions(&seen),
            "ClusterStackReleaseDownloaded",
            "False",
            "ReleaseInvalid",
        )?;
        says(
            message(release_conditions(&seen), "ClusterStackReleaseDownloaded")?,
            &["metadata.yaml"],
        )?;
        scene.stack_ready(&neighbour).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn release_waits_for_kinds_and_is_applied_when_they_arrive() -> Result<()> {
    // pitfalls 44 and 45, baseline 03 and 17
    scene("late", async |scene| {
        let (_, word) = scene.namespace.rsplit_once('-').unwrap();
        let kind = format!("Late{word}Template");
        // Beside an object of another kind with the same name.
        let release = scene.docker();
        let name = format!("{}-worker", release.name().dotted());
        let template = format!("{{apiVersion: {INFRASTRUCTURE}, kind: {kind}, metadata: {{name: {name}}}}}");
        let release = release.with_class_template("late.yaml", &template);
        let requests = scene.requests().await?;
        refused(scene, &release, "KindNotServed", &[&kind, INFRASTRUCTURE, "install"]).await?;
        let changes = scene.changes(&requests).await?;
        ensure!(changes.iter().all(|it| it.group == "clusterstack.x-k8s.io"), "{changes:?}");

        let plural = format!("{}s", kind.to_lowercase());
        let crd: CustomResourceDefinition = serde_json::from_value(json!({
            "metadata": {"name": format!("{plural}.infrastructure.cluster.x-k8s.io")},
            "spec": {
                "group": "infrastructure.cluster.x-k8s.io", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural},
                "versions": [{
                    "name": "v1beta1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                }],
            },
        }))?;
        manifests::apply_crds(&scene.client, vec![crd]).await?;
        let ready = scene.release_ready(&release).await?;
        scene.objects(INFRASTRUCTURE, &kind).get(&name).await?;
        scene.machine_templates().get(&name).await?;
        let entries = ready.inventory().iter().filter(|entry| entry.name == name).count();
        ensure!(entries == 3, "{:?}", ready.inventory());
        let definitions: Api<CustomResourceDefinition> = Api::all(scene.client.clone());
        delete(&definitions, &format!("{plural}.infrastructure.cluster.x-k8s.io")).await?;
        // The objects are gone with their kind, and the release says so.
        scene.release_says(&release, "Ready", "False", "KindNotServed").await?;
        delete(&scene.stacks(), release.stack()).await?;
        scene.release_gone(&release).await
    })
    .await
}

#[tokio::test]
async fn kind_without_rights_is_named_and_a_role_with_the_label_gives_them() -> Result<()> {
    scene("rights", async |scene| {
        let limits = "{apiVersion: v1, kind: LimitRange, metadata: {name: limits}, spec: {limits: [{type: Pod, max: {cpu: 1}}]}}";
        let release = scene.docker().with_class_template("limits.yaml", limits);
        let words = ["limitranges", "create", "clusterstack.x-k8s.io/aggregate-to-core"];
        refused(scene, &release, "Forbidden", &words).await?;
        let role = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: core-operator-limits
  labels: {clusterstack.x-k8s.io/aggregate-to-core: 'true'}
rules:
- {apiGroups: [''], resources: [limitranges], verbs: [get, list, watch, create, patch, delete]}
";
        scene.apply(role).await?;
        eventually("the release is ready", PATIENCE, async || {
            let now = scene.releases().get(&release.name().tag()).await?;
            is(release_conditions(&now), "Ready", "True", "Ready")
        })
        .await?;
        scene.objects("v1", "LimitRange").get("limits").await?;
        delete(&scene.stacks(), release.stack()).await?;
        scene.release_gone(&release).await?;
        let roles: Api<k8s_openapi::api::rbac::v1::ClusterRole> = Api::all(scene.client.clone());
        delete(&roles, "core-operator-limits").await
    })
    .await
}

#[tokio::test]
async fn stack_needs_a_provider_or_says_that_it_does_not() -> Result<()> {
    // pitfall 12, baseline 16
    scene("provider", async |scene| {
        let release = scene.docker();
        scene.publish(&release)?;
        let stack = Stack::of(&release).with("noProvider", json!(false));
        stack.create(scene).await?;
        let seen = scene
            .release_says(&release, "Ready", "False", "NeedsProviderRef")
            .await?;
        for type_ in ["ProviderReady", "ProviderClusterStackReleaseReady"] {
            is(
                release_conditions(&seen),
                type_,
                "False",
                "NeedsProviderRef",
            )?;
        }
        is(
            release_conditions(&seen),
            "HelmChartApplied",
            "False",
            "WaitingForImages",
        )?;
        says(
            message(release_conditions(&seen), "Ready")?,
            &["spec.providerRef", "spec.noProvider"],
        )?;
        let told = scene
            .stack_when(&stack.name, "says so", |stack| {
                is(
                    stack_conditions(stack),
                    "Ready",
                    "False",
                    "NeedsProviderRef",
                )
            })
            .await?;
        ensure!(told.status.unwrap().summary[0].phase == "provider-specific work");

        let reference = json!({
            "apiVersion": "infrastructure.clusterstack.x-k8s.io/v1alpha1",
            "kind": "DockerClusterStackReleaseTemplate", "name": "settings",
        });
        scene
            .patch_stack(&stack.name, json!({"providerRef": reference}))
            .await?;
        let seen = scene
            .release_says(&release, "Ready", "False", "NoProviderIntegration")
            .await?;
        says(
            message(release_conditions(&seen), "ProviderReady")?,
            &["\"docker\""],
        )?;
        ensure!(
            scene
                .classes()
                .list(&ListParams::default())
                .await?
                .items
                .is_empty()
        );

        scene
            .patch_stack(
                &stack.name,
                json!({"providerRef": null, "noProvider": true}),
            )
            .await?;
        scene.stack_ready(&stack.name).await?;
        // A class that is in use is not taken away because somebody changed this.
        scene
            .patch_stack(&stack.name, json!({"noProvider": false}))
            .await?;
        scene
            .release_says(&release, "Ready", "False", "NeedsProviderRef")
            .await?;
        let ObjectMeta {
            deletion_timestamp, ..
        } = scene
            .classes()
            .get(&release.name().dotted())
            .await?
            .metadata;
        ensure!(deletion_timestamp.is_none());
        ensure!(shared().await?.operator.is_running());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn stack_whose_objects_the_api_server_refuses_says_it_in_its_words() -> Result<()> {
    scene("refused", async |scene| {
        let neighbour = neighbour(scene).await?;
        let bad = "{apiVersion: v1, kind: ConfigMap, metadata: {name: NotAName}}";
        let release = scene.docker().with_class_template("bad.yaml", bad);
        refused(
            scene,
            &release,
            "Refused",
            &["ConfigMap", "NotAName", "RFC 1123"],
        )
        .await?;
        let release = when(
            &scene.releases(),
            &release.name().tag(),
            "names the object",
            |release| {
                let entry = release
                    .inventory()
                    .iter()
                    .find(|entry| entry.name == "NotAName");
                ensure!(
                    entry.is_some_and(|entry| entry.error.contains("RFC 1123")),
                    "{entry:?}"
                );
                Ok(())
            },
        )
        .await?;
        // What was applied beside it is known, and goes with the release.
        ensure!(release.inventory().len() == 7);
        delete(&scene.stacks(), &release.owner_references()[0].name).await?;
        crate::scene::gone(&scene.releases(), &release.name_any()).await?;
        let mut left = scene
            .machine_templates()
            .list(&ListParams::default())
            .await?
            .items;
        left.retain(|template| template.name_any().starts_with(&release.name_any()));
        ensure!(left.is_empty(), "{left:?}");
        scene.stack_ready(&neighbour).await?;
        Ok(())
    })
    .await
}
