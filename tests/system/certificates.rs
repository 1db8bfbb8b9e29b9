//! What a chart generates anew at each render stays, until a certificate in it has to be made anew.

use anyhow::{Context, Result, ensure};
use core_operator::api::RENEW_AFTER_ANNOTATION;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, ResourceExt};
use tests::eventually;

use crate::scene::{PATIENCE, Scene, delete, scene, when};

/// An authority and what it signed, in two objects, and something random without a certificate.
const GENERATED: &str = r#"
{{- $ca := genCA "example" 365 }}
{{- $server := genSignedCert "server" nil (list "server") 365 $ca }}
apiVersion: v1
kind: Secret
metadata: {name: generated-ca}
data: {ca.crt: {{ $ca.Cert | b64enc }}}
---
apiVersion: v1
kind: Secret
metadata: {name: generated-server}
data: {ca.crt: {{ $ca.Cert | b64enc }}, tls.crt: {{ $server.Cert | b64enc }}}
---
apiVersion: v1
kind: Secret
metadata: {name: generated-password}
stringData: {password: {{ randAlphaNum 20 }}}
"#;

fn value(secret: &Secret, key: &str) -> Vec<u8> {
    let data = secret.data.as_ref().and_then(|data| data.get(key));
    data.map(|value| value.0.clone()).unwrap_or_default()
}

fn renew_after(secret: &Secret) -> Result<Timestamp> {
    let text = secret.annotations().get(RENEW_AFTER_ANNOTATION);
    Ok(text.context("no time of renewal")?.parse()?)
}

/// Both certificates, once they are of one authority and not `old`.
async fn renewed(secrets: &Api<Secret>, old: &[u8]) -> Result<Secret> {
    eventually("both have a new authority", PATIENCE, async || {
        let ca = secrets.get("generated-ca").await?;
        let server = secrets.get("generated-server").await?;
        ensure!(value(&ca, "ca.crt") != old, "the old one");
        ensure!(value(&ca, "ca.crt") == value(&server, "ca.crt"), "two");
        Ok(ca)
    })
    .await
}

async fn bring(scene: &Scene<'_>) -> Result<Api<Secret>> {
    let release = scene.docker();
    let release = release.with_class_template("generated.yaml", GENERATED);
    scene.bring(&release).await?;
    Ok(Api::namespaced(scene.client.clone(), &scene.namespace))
}

#[tokio::test]
async fn generated_certificates_are_made_anew_together_at_their_time() -> Result<()> {
    scene("certificates", async |scene| {
        let secrets = bring(scene).await?;
        let before = secrets.get("generated-ca").await?;
        let password = secrets.get("generated-password").await?;
        // 80 % of a year.
        let days = renew_after(&before)?.duration_since(Timestamp::now());
        ensure!((290..=292).contains(&(days.as_hours() / 24)), "{days:?}");
        ensure!(renew_after(&password).is_err());

        let past = Some("2020-01-01T00:00:00Z");
        scene
            .annotate(&secrets, "generated-server", RENEW_AFTER_ANNOTATION, past)
            .await?;
        let after = renewed(&secrets, &value(&before, "ca.crt")).await?;
        ensure!(after.uid() == before.uid(), "made anew as an object");
        when(&secrets, "generated-server", "has its time", |secret| {
            ensure!(renew_after(secret)? > Timestamp::now());
            Ok(())
        })
        .await?;
        let same = secrets.get("generated-password").await?;
        ensure!(value(&same, "password") == value(&password, "password"));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn certificate_that_was_deleted_comes_back_with_those_that_it_belongs_to() -> Result<()> {
    scene("certificate-gone", async |scene| {
        let secrets = bring(scene).await?;
        let before = secrets.get("generated-ca").await?;
        delete(&secrets, "generated-ca").await?;
        let after = eventually("is there again", PATIENCE, async || {
            Ok(secrets.get("generated-ca").await?)
        })
        .await?;
        ensure!(after.uid() != before.uid());
        eventually("both have one authority", PATIENCE, async || {
            let ca = secrets.get("generated-ca").await?;
            let server = secrets.get("generated-server").await?;
            ensure!(value(&ca, "ca.crt") == value(&server, "ca.crt"), "two");
            Ok(())
        })
        .await
    })
    .await
}
