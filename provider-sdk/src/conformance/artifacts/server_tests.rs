use super::*;
use crate::conformance::artifacts::{ArtifactMaker as _, BuiltIn, digest};

async fn served(size: usize) -> (Store, Arc<Served>) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let store = Store::start(&ArtifactServer::default()).await.unwrap();
    let made = BuiltIn
        .make(Kind::Http, wire::DiskFormat::Raw, size, 1)
        .unwrap();
    let content = Content::new(made, wire::DiskFormat::Raw).shared();
    let served = store.serve("a".into(), content);
    (store, served)
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

#[tokio::test]
async fn good_artifact_is_served_whole_and_in_ranges() {
    let (_store, served) = served(300_000).await;
    let all = client()
        .get(served.url(Via::Plain))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(&all, served.content.bytes().unwrap());
    let part = client()
        .get(served.url(Via::Plain))
        .header("range", "bytes=100000-")
        .send()
        .await
        .unwrap();
    assert_eq!(part.status(), 206);
    assert_eq!(part.bytes().await.unwrap(), all.slice(100_000..));
    assert_eq!((served.downloads(), served.requests()), (1, 2));
    assert_eq!(served.sent(), 500_000);
}

#[tokio::test]
async fn held_artifact_moves_on_when_released_and_notices_who_leaves() {
    let (_store, served) = served(300_000).await;
    served.behave(|behaviour| behaviour.hold_at = Some(1000));
    let url = served.url(Via::Plain);
    let staying = tokio::spawn(async move {
        let response = client().get(url).send().await.unwrap();
        response.bytes().await.unwrap().len()
    });
    let url = served.url(Via::Plain);
    let leaving = tokio::spawn(async move { client().get(url).send().await?.bytes().await });
    let mut open = served.open();
    open.wait_for(|open| *open == 2).await.unwrap();
    leaving.abort();
    open.wait_for(|open| *open == 1).await.unwrap();
    served.release();
    assert_eq!(staying.await.unwrap(), 300_000);
}

#[tokio::test]
async fn cut_and_corrupt_bytes_are_what_they_say() {
    let (_store, served) = served(300_000).await;
    served.behave(|behaviour| behaviour.cut_at = Some(100_000));
    let response = client().get(served.url(Via::Plain)).send().await.unwrap();
    assert_eq!(response.content_length(), Some(300_000));
    assert!(response.bytes().await.is_err());
    served.behave(|behaviour| {
        behaviour.cut_at = None;
        behaviour.corrupt = true;
    });
    let bytes = client()
        .get(served.url(Via::Plain))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let good = served.content.bytes().unwrap();
    let differences = bytes.iter().zip(good).filter(|(a, b)| a != b).count();
    assert_eq!((bytes.len(), differences), (good.len(), 1));
}

#[tokio::test]
async fn redirect_leads_to_another_host_which_asks_for_nothing() {
    let (_store, served) = served(1000).await;
    let auth = Auth {
        user: "u".into(),
        password: "p".into(),
    };
    served.behave(|behaviour| behaviour.auth = Some(auth.clone()));
    let denied = client()
        .get(served.url(Via::Redirect))
        .send()
        .await
        .unwrap();
    assert_eq!(denied.status(), 401);
    let response = client()
        .get(served.url(Via::Redirect))
        .basic_auth("u", Some("p"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let last = served.hits().pop().unwrap();
    assert_eq!(last.place, Place::Second);
    assert_eq!(last.header("authorization"), None);
}

#[tokio::test]
async fn private_authority_is_needed_over_tls() {
    let (_store, served) = served(1000).await;
    assert!(client().get(served.url(Via::Tls)).send().await.is_err());
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .add_root_certificate(reqwest::Certificate::from_pem(&served.authority()).unwrap())
        .build()
        .unwrap();
    let response = trusting.get(served.url(Via::Tls)).send().await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len() as u64, served.size());
}

#[tokio::test]
async fn registry_serves_a_manifest_and_what_it_names() {
    let (store, _) = served(1000).await;
    let made = BuiltIn
        .make(Kind::Oci, wire::DiskFormat::Container, 1000, 1)
        .unwrap();
    let content = Content::new(made, wire::DiskFormat::Container).shared();
    let served = store.serve("b".into(), content.clone());
    let repository = served.repository();
    let (host, path) = repository.split_once('/').unwrap();
    let base = format!("http://{host}/v2/{path}");
    let manifest = client()
        .get(format!("{base}/manifests/{}", content.digest))
        .send()
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    assert_eq!(digest(&manifest), content.digest);
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    for blob in [&manifest["config"], &manifest["layers"][0]] {
        let wanted = blob["digest"].as_str().unwrap();
        let bytes = client()
            .get(format!("{base}/blobs/{wanted}"))
            .send()
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        assert_eq!(digest(&bytes), wanted);
    }
    assert_eq!(served.downloads(), 1);
    let missing = client()
        .get(format!("{base}/manifests/missing"))
        .send()
        .await
        .unwrap();
    assert_eq!(missing.status(), 404);
}
