//! Releases checked against an API server in memory that counts what it is asked; time is virtual.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
};

use futures::future::join_all;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::{
    conditions::reason::{
        CLUSTER_TOPOLOGY_DISABLED, FORBIDDEN, KIND_NOT_SERVED, RUNTIME_SDK_DISABLED,
    },
    helm::RenderedObject,
};

const TOPOLOGY_OFF: &str = "admission webhook \"validation.clusterclass.cluster.x-k8s.io\" denied the request: spec: Forbidden: can be set only if the ClusterTopology feature flag is enabled";
const RUNTIME_OFF: &str = "admission webhook \"validation.extensionconfig.runtime.cluster.x-k8s.io\" denied the request: spec: Forbidden: can be set only if the RuntimeSDK feature flag is enabled";

/// What the API server answers, and what it was asked.
struct Server {
    serves_extensions: bool,
    rules: Value,
    review: StatusCode,
    /// Refusals of dry runs, by name of the object.
    refusals: HashMap<&'static str, (StatusCode, String)>,
    /// Questions that are never answered, by what stands in their path.
    silent: Option<&'static str>,
    asked: Vec<String>,
    bodies: Vec<Value>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            serves_extensions: true,
            rules: json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]),
            review: StatusCode::CREATED,
            refusals: HashMap::new(),
            silent: None,
            asked: Vec::new(),
            bodies: Vec::new(),
        }
    }
}

impl Server {
    fn answer(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        let failure = |code: StatusCode, message: &str| {
            let status = json!({"kind": "Status", "status": "Failure", "code": code.as_u16(), "message": message});
            (code, status)
        };
        if path == "/api" {
            let resource = discovered("", "v1", "Secret", "secrets", "Namespaced");
            return (StatusCode::OK, groups(&[("", "v1", vec![resource])]));
        }
        if path == "/apis" {
            let class = discovered(
                GROUP,
                "v1beta2",
                "ClusterClass",
                "clusterclasses",
                "Namespaced",
            );
            let docker = "infrastructure.cluster.x-k8s.io";
            let template = discovered(
                docker,
                "v1beta1",
                "DockerClusterTemplate",
                "dockerclustertemplates",
                "Namespaced",
            );
            let mut found = vec![
                (GROUP, "v1beta2", vec![class]),
                (docker, "v1beta1", vec![template]),
            ];
            if self.serves_extensions {
                let extension = discovered(
                    RUNTIME_GROUP,
                    "v1beta2",
                    EXTENSION_KIND,
                    "extensionconfigs",
                    "Cluster",
                );
                found.push((RUNTIME_GROUP, "v1beta2", vec![extension]));
            }
            return (StatusCode::OK, groups(&found));
        }
        if path.ends_with("/selfsubjectrulesreviews") {
            if self.review != StatusCode::CREATED {
                return failure(self.review, "no");
            }
            let status =
                json!({"incomplete": false, "nonResourceRules": [], "resourceRules": self.rules});
            return (
                self.review,
                json!({"metadata": {}, "spec": {}, "status": status}),
            );
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        match self.refusals.get(name) {
            Some((code, message)) => failure(*code, message),
            None => (StatusCode::OK, json!({"metadata": body["metadata"]})),
        }
    }
}

fn discovered(group: &str, version: &str, kind: &str, plural: &str, scope: &str) -> Value {
    json!({
        "resource": plural, "scope": scope, "verbs": ["get", "list", "watch", "create", "patch", "delete"],
        "responseKind": {"group": group, "version": version, "kind": kind},
    })
}

fn groups(groups: &[(&str, &str, Vec<Value>)]) -> Value {
    let items: Vec<_> = groups
        .iter()
        .map(|(group, version, resources)| {
            json!({"metadata": {"name": group}, "versions": [{"version": version, "resources": resources}]})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

struct Bed {
    server: Arc<Mutex<Server>>,
    preflight: Preflight,
}

fn bed(server: Server) -> Bed {
    let server = Arc::new(Mutex::new(server));
    let shared = Arc::clone(&server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&shared);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let path = parts.uri.path();
            let (answer, silent) = {
                let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
                let query = parts.uri.query().unwrap_or_default();
                let is_dry_run = query.contains("dryRun=All");
                assert!(
                    parts.method == "GET" || is_dry_run || path.ends_with("reviews"),
                    "{} {path} is a write",
                    parts.method
                );
                let (_, last) = path.rsplit_once('/').unwrap();
                let about = match body["spec"]["namespace"].as_str() {
                    Some(namespace) => format!("rights in {namespace}"),
                    None if is_dry_run => format!("try {last}"),
                    None => format!("list {last}"),
                };
                server.asked.push(about);
                server.bodies.push(body.clone());
                let silent = server.silent.is_some_and(|part| path.contains(part));
                (server.answer(path, &body), silent)
            };
            if silent {
                std::future::pending::<()>().await;
            }
            // so that questions asked at the same time overlap
            tokio::time::sleep(Duration::from_millis(1)).await;
            let (code, answer) = answer;
            let body = Body::from(serde_json::to_vec(&answer).unwrap());
            Ok::<_, Infallible>(Response::builder().status(code).body(body).unwrap())
        }
    });
    let client = Client::new(service, "default");
    let kinds = Arc::new(Kinds::new(client.clone()));
    Bed {
        server,
        preflight: Preflight::new(client, kinds),
    }
}

impl Bed {
    /// What was asked since the last call of this.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.server.lock().unwrap().asked)
    }

    fn change(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.server.lock().unwrap());
    }

    async fn check(&self, namespace: &str, manifests: &[Manifest]) -> Checked {
        self.try_check(namespace, manifests, false).await.unwrap()
    }

    async fn try_check(
        &self,
        namespace: &str,
        manifests: &[Manifest],
        has_stages: bool,
    ) -> Result<Checked, PreflightError> {
        let subject = Subject {
            namespace,
            manifests,
            has_stages,
        };
        self.preflight.check(subject).await
    }
}

fn manifest(api_version: &str, kind: &str, name: &str) -> Manifest {
    checked(json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}}))
}

fn checked(object: Value) -> Manifest {
    Manifest::check(&RenderedObject {
        source: "chart/templates/a.yaml".to_owned(),
        object,
    })
    .unwrap()
}

fn class(name: &str) -> Manifest {
    manifest("cluster.x-k8s.io/v1beta2", "ClusterClass", name)
}

fn template() -> Manifest {
    manifest(
        "infrastructure.cluster.x-k8s.io/v1beta1",
        "DockerClusterTemplate",
        "t",
    )
}

fn release() -> [Manifest; 2] {
    [class("c"), template()]
}

fn reasons(checked: &Checked) -> Vec<&'static str> {
    match checked {
        Checked::Passed(_) => Vec::new(),
        Checked::Missing(misses) => misses.list().iter().map(Miss::reason).collect(),
    }
}

fn refused(name: &'static str, message: &str) -> HashMap<&'static str, (StatusCode, String)> {
    HashMap::from([(name, (StatusCode::FORBIDDEN, message.to_owned()))])
}

#[tokio::test(start_paused = true)]
async fn repeated_check_asks_nothing_and_another_namespace_only_for_rights() {
    let bed = bed(Server::default());
    let Checked::Passed(kinds) = bed.check("fleet", &release()).await else {
        panic!("something is missing")
    };
    for manifest in release() {
        assert!(kinds.of(&manifest).unwrap().namespaced);
    }
    let mut asked = bed.asked();
    asked.sort_unstable();
    assert_eq!(asked, ["list api", "list apis", "rights in fleet", "try c"]);
    {
        let server = bed.server.lock().unwrap();
        let tried = server
            .bodies
            .iter()
            .find(|body| body["kind"] == "ClusterClass");
        assert_eq!(tried.unwrap()["metadata"]["namespace"], "fleet");
    }
    assert_eq!(reasons(&bed.check("fleet", &release()).await).len(), 0);
    assert_eq!(reasons(&bed.check("fleet", &[class("d")]).await).len(), 0);
    assert_eq!(bed.asked().len(), 0);
    assert_eq!(reasons(&bed.check("other", &release()).await).len(), 0);
    assert_eq!(bed.asked(), ["rights in other"]);
}

#[tokio::test(start_paused = true)]
async fn all_that_is_missing_is_one_verdict() {
    let mut refusals = refused("c", TOPOLOGY_OFF);
    refusals.extend(refused("cluster-stack-operator-preflight", RUNTIME_OFF));
    let bed = bed(Server {
        rules: json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch", "create", "patch"]}]),
        refusals,
        ..Server::default()
    });
    let manifests = [
        class("c"),
        manifest("cluster.x-k8s.io/v1beta1", "ClusterClass", "old"),
        manifest(
            "bootstrap.cluster.x-k8s.io/v1beta1",
            "KubeadmConfigTemplate",
            "k",
        ),
        template(),
    ];
    let checked = bed.try_check("fleet", &manifests, true).await.unwrap();
    assert_eq!(
        reasons(&checked),
        [
            KIND_NOT_SERVED,
            KIND_NOT_SERVED,
            FORBIDDEN,
            FORBIDDEN,
            CLUSTER_TOPOLOGY_DISABLED,
            RUNTIME_SDK_DISABLED
        ]
    );
    let Checked::Missing(misses) = checked else {
        panic!("nothing is missing")
    };
    assert_eq!(misses.reason(), KIND_NOT_SERVED);
    let message = misses.to_string();
    for words in [
        "KubeadmConfigTemplate of \"bootstrap.cluster.x-k8s.io/v1beta1\" is not served",
        "ClusterClass of \"cluster.x-k8s.io/v1beta1\" is served as \"v1beta2\" only",
        "may not delete \"clusterclasses.cluster.x-k8s.io\" in namespace \"fleet\"",
        "may not delete \"dockerclustertemplates.infrastructure.cluster.x-k8s.io\" in namespace \"fleet\"",
        "ClusterTopology is off",
        "RuntimeSDK is off",
    ] {
        assert!(message.contains(words), "{words} not in {message}");
    }
}

#[tokio::test(start_paused = true)]
async fn feature_that_was_switched_on_is_noticed_at_once_and_remembered_for_ten_minutes() {
    let bed = bed(Server {
        refusals: refused("c", TOPOLOGY_OFF),
        ..Server::default()
    });
    for _ in 0..2 {
        let checked = bed.check("fleet", &release()).await;
        assert_eq!(reasons(&checked), [CLUSTER_TOPOLOGY_DISABLED]);
        assert!(bed.asked().contains(&"try c".to_owned()));
    }
    bed.change(|server| server.refusals.clear());
    assert_eq!(reasons(&bed.check("fleet", &release()).await).len(), 0);
    assert_eq!(bed.asked(), ["try c"]);

    tokio::time::advance(Duration::from_secs(595)).await;
    bed.check("fleet", &release()).await;
    assert!(!bed.asked().contains(&"try c".to_owned()));
    tokio::time::advance(Duration::from_secs(6)).await;
    bed.check("fleet", &release()).await;
    assert_eq!(bed.asked(), ["try c"]);
}

#[tokio::test(start_paused = true)]
async fn extensions_are_tried_only_for_releases_with_stages() {
    let bed = bed(Server::default());
    bed.check("fleet", &release()).await;
    bed.asked();
    for expected in [&["try cluster-stack-operator-preflight"][..], &[]] {
        let checked = bed.try_check("fleet", &release(), true).await.unwrap();
        assert_eq!(reasons(&checked).len(), 0);
        assert_eq!(bed.asked(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_told_blocks_nothing() {
    let invalid = (
        StatusCode::UNPROCESSABLE_ENTITY,
        "ClusterClass \"c\" is invalid: spec.patches: Invalid value".to_owned(),
    );
    let no_right =
        "extensionconfigs.runtime.cluster.x-k8s.io is forbidden: User \"operator\" cannot patch";
    let mut refusals = refused("cluster-stack-operator-preflight", no_right);
    refusals.insert("c", invalid);
    let bed = bed(Server {
        refusals,
        review: StatusCode::FORBIDDEN,
        ..Server::default()
    });
    let checked = bed.try_check("fleet", &release(), true).await.unwrap();
    assert_eq!(reasons(&checked).len(), 0);
    bed.asked();
    // An invalid class tells nothing about another one; that extensions cannot be tried has nothing to do with it.
    let checked = bed.try_check("fleet", &[class("d")], true).await.unwrap();
    assert_eq!(reasons(&checked).len(), 0);
    assert_eq!(bed.asked(), ["try d"]);
}

#[tokio::test(start_paused = true)]
async fn extension_that_is_not_served_is_not_tried() {
    let bed = bed(Server {
        serves_extensions: false,
        ..Server::default()
    });
    let checked = bed.try_check("fleet", &release(), true).await.unwrap();
    assert_eq!(reasons(&checked).len(), 0);
    assert!(
        !bed.asked()
            .contains(&"try cluster-stack-operator-preflight".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn releases_checked_at_the_same_time_share_the_questions() {
    let bed = bed(Server::default());
    let release = release();
    let all = join_all((0..100).map(|_| bed.check("fleet", &release))).await;
    assert!(all.iter().all(|checked| reasons(checked).is_empty()));
    let mut asked = bed.asked();
    asked.sort_unstable();
    assert_eq!(asked, ["list api", "list apis", "rights in fleet", "try c"]);
}

#[tokio::test(start_paused = true)]
async fn invalid_class_of_another_release_does_not_hide_that_the_feature_is_off() {
    let invalid = (
        StatusCode::UNPROCESSABLE_ENTITY,
        "ClusterClass \"broken\" is invalid".to_owned(),
    );
    let mut refusals = refused("c", TOPOLOGY_OFF);
    refusals.insert("broken", invalid);
    let bed = bed(Server {
        refusals,
        ..Server::default()
    });
    bed.preflight.kinds.find("", "v1", "Secret").await.unwrap();
    let (broken, good) = ([class("broken")], release());
    let (first, second) = tokio::join!(bed.check("fleet", &broken), bed.check("fleet", &good));
    assert_eq!(reasons(&first).len(), 0);
    assert_eq!(reasons(&second), [CLUSTER_TOPOLOGY_DISABLED]);
}

#[tokio::test(start_paused = true)]
async fn right_that_was_given_is_noticed_and_one_that_was_taken_after_a_refusal() {
    let everything = Server::default().rules;
    let bed = bed(Server {
        rules: json!([]),
        ..Server::default()
    });
    assert_eq!(
        reasons(&bed.check("fleet", &[template()]).await),
        [FORBIDDEN]
    );
    bed.asked();
    // Just asked: not again for each release that waits for the same right.
    bed.check("fleet", &[template()]).await;
    assert_eq!(bed.asked().len(), 0);
    bed.change(|server| server.rules = everything);
    tokio::time::advance(SHORTEST_INTERVAL).await;
    assert_eq!(reasons(&bed.check("fleet", &[template()]).await).len(), 0);
    assert_eq!(bed.asked(), ["rights in fleet"]);

    bed.change(|server| server.rules = json!([]));
    assert_eq!(reasons(&bed.check("fleet", &[template()]).await).len(), 0);
    bed.preflight.forget("fleet");
    assert_eq!(
        reasons(&bed.check("fleet", &[template()]).await),
        [FORBIDDEN]
    );
    tokio::time::advance(Duration::from_mins(5)).await;
    bed.asked();
    bed.check("fleet", &[template()]).await;
    assert_eq!(bed.asked(), ["rights in fleet"]);
}

#[tokio::test(start_paused = true)]
async fn objects_in_other_namespaces_need_rights_there() {
    let bed = bed(Server::default());
    let elsewhere = checked(json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "shared"},
    }));
    assert_eq!(
        reasons(&bed.check("fleet", &[elsewhere, template()]).await).len(),
        0
    );
    assert_eq!(
        bed.asked(),
        [
            "list apis",
            "list api",
            "rights in fleet",
            "rights in shared"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn kind_that_the_release_defines_itself_is_not_missing() {
    let bed = bed(Server::default());
    let definition = |served: bool| {
        checked(json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.com"},
            "spec": {
                "group": "example.com", "scope": "Cluster", "names": {"kind": "Widget", "plural": "widgets"},
                "versions": [{"name": "v1", "served": served}],
            },
        }))
    };
    let widget = manifest("example.com/v1", "Widget", "w");
    let (kinds, misses) = bed
        .preflight
        .served(&[definition(true), widget.clone()])
        .await
        .unwrap();
    let kind = kinds.of(&widget).unwrap();
    assert_eq!(kind.resource.plural, "widgets");
    assert!(!kind.namespaced);
    // the server in memory serves no definitions
    assert_eq!(misses.len(), 1);
    let (_, misses) = bed
        .preflight
        .served(&[definition(false), widget])
        .await
        .unwrap();
    assert_eq!(misses.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn silent_webhook_ends_in_an_error_after_its_limit_and_delays_nobody_else() {
    let bed = bed(Server {
        silent: Some("clusterclasses"),
        ..Server::default()
    });
    let start = tokio::time::Instant::now();
    let (with_class, template) = ([class("c")], [template()]);
    let (slow, quick) = tokio::join!(
        async {
            let error = bed
                .try_check("fleet", &with_class, false)
                .await
                .unwrap_err();
            (error, start.elapsed())
        },
        async {
            bed.check("fleet", &template).await;
            start.elapsed()
        }
    );
    assert!(quick < Duration::from_secs(1), "{quick:?}");
    let (error, after) = slow;
    assert!(after >= LIMIT && after < LIMIT * 2, "{after:?}");
    assert_eq!(error.recovery(), proto::Recovery::Unknown);
    assert!(error.to_string().contains("within 35 s"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn check_that_is_given_up_leaves_nothing_behind() {
    let bed = bed(Server {
        silent: Some("clusterclasses"),
        ..Server::default()
    });
    let release = release();
    let given_up = tokio::time::timeout(Duration::from_secs(2), bed.check("fleet", &release));
    given_up.await.unwrap_err();
    bed.change(|server| server.silent = None);
    let start = tokio::time::Instant::now();
    assert_eq!(reasons(&bed.check("fleet", &release).await).len(), 0);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn answer_that_was_on_its_way_when_it_was_forgotten_is_not_kept() {
    let bed = bed(Server::default());
    bed.preflight.kinds.find("", "v1", "Secret").await.unwrap();
    bed.asked();
    let manifests = [template()];
    let (checked, ()) = tokio::join!(bed.check("fleet", &manifests), async {
        while bed.asked().is_empty() {
            tokio::task::yield_now().await;
        }
        bed.preflight.forget("fleet");
    });
    assert_eq!(reasons(&checked).len(), 0);
    bed.check("fleet", &manifests).await;
    assert_eq!(bed.asked(), ["rights in fleet"]);
}

#[tokio::test(start_paused = true)]
async fn broken_api_server_is_an_error_and_no_verdict() {
    let bed = bed(Server {
        review: StatusCode::INTERNAL_SERVER_ERROR,
        ..Server::default()
    });
    let error = bed.try_check("fleet", &release(), false).await.unwrap_err();
    assert!(error.to_string().contains("\"fleet\""), "{error}");
    assert_eq!(error.recovery(), proto::Recovery::Unknown);
}
