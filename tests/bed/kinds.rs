//! Kinds of providers without providers, and applying YAML.

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use serde_json::json;
use tests::provider_kinds::{Provider, install, uninstall};
use tests::{ControlPlane, manifests};

#[tokio::test]
async fn kinds_of_providers_keep_any_spec_and_status() -> Result<()> {
    let server = ControlPlane::shared().await?;
    let client = server.client().await?;
    install(&client, &Provider::ALL).await?;
    let namespace = server.namespace("kinds").await?;
    for provider in Provider::ALL {
        for crd in provider.crds()? {
            let versions: Vec<_> = crd
                .spec
                .versions
                .iter()
                .map(|version| &version.name)
                .collect();
            let newest = versions.last().context("no version")?;
            for version in &versions {
                let kind = GroupVersionKind::gvk(&crd.spec.group, version, &crd.spec.names.kind);
                let resource = ApiResource::from_gvk_with_plural(&kind, &crd.spec.names.plural);
                let name = format!("of-{version}");
                let yaml = format!(
                    "apiVersion: {}/{version}\nkind: {}\nmetadata: {{name: {name}}}\nspec: {{any: {{thing: [1]}}}}\n",
                    kind.group, kind.kind
                );
                manifests::apply_yaml(&client, &namespace, &yaml).await?;
                let api: Api<DynamicObject> =
                    Api::namespaced_with(client.clone(), &namespace, &resource);
                let status =
                    Patch::Merge(json!({"status": {"ready": true}, "spec": {"any": null}}));
                api.patch_status(&name, &PatchParams::default(), &status)
                    .await?;
                let kind = GroupVersionKind::gvk(&kind.group, newest, &kind.kind);
                let resource = ApiResource::from_gvk_with_plural(&kind, &crd.spec.names.plural);
                let api: Api<DynamicObject> =
                    Api::namespaced_with(client.clone(), &namespace, &resource);
                let object = api.get(&name).await?;
                ensure!(
                    object.data["spec"] == json!({"any": {"thing": [1]}}),
                    "{object:?}"
                );
                ensure!(
                    object.data["status"] == json!({"ready": true}),
                    "{object:?}"
                );
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn kinds_of_a_provider_can_go_and_come_back() -> Result<()> {
    let server = ControlPlane::shared()
        .await?
        .add_workload("late-kinds")
        .await?;
    let client = server.client().await?;
    let image = "apiVersion: openstack.k-orc.cloud/v1alpha1\nkind: Image\nmetadata: {name: node}\nspec: {}\n";
    let apply = || manifests::apply_yaml(&client, "default", image);
    ensure!(apply().await.is_err());
    install(&client, &[Provider::OpenStackResources]).await?;
    apply().await?;
    uninstall(&client, &[Provider::OpenStackResources]).await?;
    ensure!(apply().await.is_err(), "still served");
    install(&client, &[Provider::OpenStackResources]).await?;
    apply().await
}

#[test]
fn yaml_without_kind_or_name_is_no_object() {
    let object = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
    let two = format!("---\n# nothing\n---\n{object}---\n{object}");
    assert_eq!(manifests::parse(&two).unwrap().len(), 2);
    for wrong in [
        "a: 1\n",
        "kind: ConfigMap\nmetadata: {name: a}\n",
        "apiVersion: v1\nkind: ConfigMap\n",
        "[]\n",
        "a: [\n",
    ] {
        assert!(manifests::parse(wrong).is_err(), "{wrong:?}");
    }
}
