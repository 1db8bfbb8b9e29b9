//! With the real Cluster API: its conversion of classes, its webhooks, its controllers.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use crate::apart::{apart, operator};
use crate::scene::{
    back, delete, gone, is, message, release_conditions, says, stack_conditions, when,
};

#[tokio::test]
async fn class_is_taken_kept_right_and_guarded_while_it_is_used() -> Result<()> {
    apart("real", async |scene| {
        let _operator = operator(scene).start().await?;
        let docker = scene.docker();
        scene.bring(&docker).await?;
        let fake = scene.example("fake-example", "f");
        let stack = scene.bring(&fake).await?.name_any();
        let classes = scene.classes();

        // The class of a chart in v1beta1, seen and changed in v1beta2.
        let name = docker.name().dotted();
        let mut class = classes.get(&name).await?;
        class.data["spec"]["patches"][0]["description"] = "edited".into();
        classes
            .replace(&name, &PostParams::default(), &class)
            .await?;
        when(&classes, &name, "is put right", |class| {
            let text = class.data["spec"]["patches"][0]["description"].as_str();
            ensure!(text.is_some_and(|text| text != "edited"), "{text:?}");
            Ok(())
        })
        .await?;
        let before = classes.get(&name).await?;
        delete(&classes, &name).await?;
        back(&classes, &name, &before).await?;
        scene.stack_ready(docker.stack()).await?;

        let class = fake.name().dotted();
        let cluster = format!(
            "
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {{name: tenant}}
spec:
  topology:
    classRef: {{name: {class}}}
    version: v1.34.1
    workers: {{machineDeployments: [{{name: md-0, class: default, replicas: 0}}]}}
"
        );
        scene.apply(&cluster).await?;
        // Cluster API's own guard, which nothing of ours gets in the way of.
        let refused = classes.delete(&class, &DeleteParams::default()).await;
        let refused = refused
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default();
        says(&refused, &["cannot be deleted"])?;

        delete(&scene.stacks(), &stack).await?;
        let seen = scene
            .release_says(&fake, "DeletionBlocked", "True", "InUse")
            .await?;
        says(
            message(release_conditions(&seen), "DeletionBlocked")?,
            &["tenant"],
        )?;
        scene
            .stack_when(&stack, "says so", |stack| {
                is(stack_conditions(stack), "DeletionBlocked", "True", "InUse")
            })
            .await?;
        delete(&scene.clusters(&scene.namespace), "tenant").await?;
        gone(&scene.clusters(&scene.namespace), "tenant").await?;
        gone(&scene.stacks(), &stack).await?;
        scene.release_gone(&fake).await?;
        gone(&classes, &class).await?;
        scene.stack_ready(docker.stack()).await?;
        Ok(())
    })
    .await
}
