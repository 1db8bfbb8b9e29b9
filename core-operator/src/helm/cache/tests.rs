use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::helm::renderer::Hook;

/// Renders one object "plain" and, if it is random, a Secret that differs each time; counts.
struct Fake {
    random: bool,
    renders: Arc<AtomicUsize>,
    /// Renders wait for it.
    gate: Arc<Semaphore>,
}

impl Fake {
    fn cache(random: bool) -> (Cache, Arc<AtomicUsize>, Arc<Semaphore>) {
        let fake = Self {
            random,
            renders: Arc::default(),
            gate: Arc::new(Semaphore::new(1000)),
        };
        let (renders, gate) = (Arc::clone(&fake.renders), Arc::clone(&fake.gate));
        (Cache::new(Arc::new(fake)), renders, gate)
    }
}

impl RenderChart for Fake {
    fn render(
        &self,
        question: ChartQuestion,
    ) -> BoxFuture<'static, Result<ChartAnswer, RenderError>> {
        let (random, renders, gate) = (
            self.random,
            Arc::clone(&self.renders),
            Arc::clone(&self.gate),
        );
        Box::pin(async move {
            let permit = gate.acquire_owned().await.unwrap();
            permit.forget();
            let count = renders.fetch_add(1, Ordering::SeqCst);
            if question.release_name == "broken" {
                return Err(RenderError::refused("chart \"a\"", "nil pointer"));
            }
            let cluster = question.values["cluster"].as_str().unwrap_or("none");
            let mut answer = ChartAnswer {
                objects: vec![object("ConfigMap", "plain", "a")],
                ..ChartAnswer::default()
            };
            if random {
                answer.random = if question.scan {
                    vec!["genCA".to_owned()]
                } else {
                    Vec::new()
                };
                let hook = object("Secret", &format!("{cluster}-ca"), &count.to_string());
                answer.hooks = vec![Hook {
                    events: vec!["pre-install".to_owned()],
                    weight: 0,
                    object: hook,
                }];
            }
            Ok(answer)
        })
    }
}

fn object(kind: &str, name: &str, data: &str) -> RenderedObject {
    let object =
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data});
    RenderedObject {
        source: "a/templates/a.yaml".to_owned(),
        object,
    }
}

fn request(digest: &str) -> ChartRequest {
    ChartRequest {
        chart_digest: digest.to_owned(),
        release_name: "a".to_owned(),
        ..ChartRequest::default()
    }
}

fn for_cluster(name: &str) -> ChartRequest {
    let (scope, own_names) = (Some(format!("uid-{name}")), vec![name.to_owned()]);
    ChartRequest {
        scope,
        own_names,
        values: json!({"cluster": name}),
        ..request("sha256:1")
    }
}

fn count(renders: &AtomicUsize) -> usize {
    renders.load(Ordering::SeqCst)
}

#[tokio::test]
async fn equal_requests_are_rendered_once_for_all_scopes() {
    let (cache, renders, _) = Fake::cache(false);
    let first = cache.render(&request("sha256:1")).await.unwrap();
    assert!(first.volatile.is_empty());
    let other_scope = ChartRequest {
        scope: Some("uid".to_owned()),
        ..request("sha256:1")
    };
    assert!(Arc::ptr_eq(
        &first,
        &cache.render(&other_scope).await.unwrap()
    ));
    assert_eq!(count(&renders), 1);
}

#[tokio::test]
async fn every_part_of_the_content_counts() {
    let (cache, renders, _) = Fake::cache(false);
    let base = request("sha256:1");
    let variants = [
        base.clone(),
        ChartRequest {
            chart_digest: "sha256:2".to_owned(),
            ..base.clone()
        },
        ChartRequest {
            dependencies: vec!["/store/sha256-3.tgz".into()],
            ..base.clone()
        },
        ChartRequest {
            release_name: "b".to_owned(),
            ..base.clone()
        },
        ChartRequest {
            namespace: "b".to_owned(),
            ..base.clone()
        },
        ChartRequest {
            kube_version: Some("1.30.1".to_owned()),
            ..base.clone()
        },
        ChartRequest {
            values: json!({"a": 1}),
            ..base.clone()
        },
        ChartRequest {
            include_crds: true,
            ..base.clone()
        },
    ];
    for _ in 0..2 {
        for variant in &variants {
            cache.render(variant).await.unwrap();
        }
    }
    assert_eq!(count(&renders), variants.len());
    // where the chart lies does not
    cache
        .render(&ChartRequest {
            chart: "/elsewhere".into(),
            values: json!({}),
            ..base
        })
        .await
        .unwrap();
    assert_eq!(count(&renders), variants.len());
}

#[tokio::test]
async fn concurrent_equal_requests_share_one_rendering() {
    let (cache, renders, gate) = Fake::cache(false);
    gate.forget_permits(1000);
    let (one, two) = (request("sha256:1"), request("sha256:1"));
    let (left, right, ()) = tokio::join!(cache.render(&one), cache.render(&two), async {
        tokio::task::yield_now().await;
        gate.add_permits(10);
    });
    assert!(Arc::ptr_eq(&left.unwrap(), &right.unwrap()));
    assert_eq!(count(&renders), 1);
}

#[tokio::test]
async fn who_gives_up_does_not_stop_the_others() {
    let (cache, renders, gate) = Fake::cache(false);
    gate.forget_permits(1000);
    let one = request("sha256:1");
    let mut abandoned = Box::pin(cache.render(&one));
    let mut patient = Box::pin(cache.render(&one));
    assert!(futures::poll!(&mut abandoned).is_pending());
    assert!(futures::poll!(&mut patient).is_pending());
    drop(abandoned);
    gate.add_permits(10);
    patient.await.unwrap();
    assert_eq!(count(&renders), 1);
    assert!(lock(&cache.state).running.is_empty());
}

#[tokio::test]
async fn failures_are_not_kept() {
    let (cache, renders, _) = Fake::cache(false);
    let broken = ChartRequest {
        release_name: "broken".to_owned(),
        ..request("sha256:1")
    };
    assert!(cache.render(&broken).await.is_err());
    assert!(cache.render(&broken).await.is_err());
    assert_eq!(count(&renders), 2);
}

#[tokio::test]
async fn volatile_objects_are_found_by_a_second_rendering_and_never_shared() {
    let (cache, renders, _) = Fake::cache(true);
    let one = cache.render(&for_cluster("one")).await.unwrap();
    let volatile: Vec<_> = one
        .volatile
        .iter()
        .map(|identity| (identity.kind.as_str(), identity.name.as_str()))
        .collect();
    assert_eq!(volatile, [("Secret", "one-ca")]);
    assert_eq!(count(&renders), 2);

    // the list is kept for values that differ only in the cluster's own names
    let two = cache.render(&for_cluster("two")).await.unwrap();
    assert_eq!(two.volatile.first().unwrap().name, "two-ca");
    assert_eq!(count(&renders), 3);
    assert_ne!(one.before[0].object["data"], two.before[0].object["data"]);

    // the same values for another scope are another rendering
    let third = cache
        .render(&ChartRequest {
            scope: Some("uid-three".to_owned()),
            ..for_cluster("two")
        })
        .await
        .unwrap();
    assert_ne!(third.before[0].object["data"], two.before[0].object["data"]);
    assert_eq!(count(&renders), 4);

    // the same scope again is the same rendering
    assert!(Arc::ptr_eq(
        &two,
        &cache.render(&for_cluster("two")).await.unwrap()
    ));
    assert_eq!(count(&renders), 4);
}

#[tokio::test]
async fn the_cache_forgets_the_longest_unused() {
    let (cache, _, _) = Fake::cache(false);
    let big = Arc::new(Rendered {
        objects: vec![object("ConfigMap", "big", &"x".repeat(6 << 20))],
        ..Rendered::default()
    });
    let mut state = lock(&cache.state);
    for key in 0..2 {
        state.keep(Key::Shared([key; 32]), &big);
    }
    assert!(state.find(&Key::Shared([0; 32])).is_some());
    state.keep(Key::Shared([2; 32]), &big);
    let kept: Vec<_> = (0..3)
        .filter(|key| state.find(&Key::Shared([*key; 32])).is_some())
        .collect();
    assert_eq!(kept, [0, 2]);
    assert!(state.bytes <= CACHE_BYTES);
}
