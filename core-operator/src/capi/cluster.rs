//! A Cluster, as far as it is used here.

use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};

use super::{dynamic_resource, lenient};
use crate::api::{PAUSED_ANNOTATION, has_annotation};

/// A Cluster of Cluster API, v1beta1 or v1beta2.
///
/// Fields that are not used here are not kept; fields with an unexpected value count as absent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Without managed fields and kubectl's copy of the object.
    #[serde(default, deserialize_with = "lenient::metadata")]
    pub metadata: ObjectMeta,
    #[serde(default, deserialize_with = "lenient::mapping")]
    spec: ClusterSpec,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ClusterSpec {
    #[serde(deserialize_with = "lenient::flag")]
    paused: bool,
    #[serde(deserialize_with = "lenient::mapping")]
    topology: TopologyFields,
}

/// The fields of both versions; each object has those of one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct TopologyFields {
    /// v1beta1.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    class: Option<String>,
    /// v1beta1.
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    class_namespace: Option<String>,
    /// v1beta2.
    #[serde(deserialize_with = "lenient::mapping")]
    class_ref: ClassReference,
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    version: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ClassReference {
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    name: Option<String>,
    #[serde(
        deserialize_with = "lenient::text",
        skip_serializing_if = "Option::is_none"
    )]
    namespace: Option<String>,
}

/// What a Cluster with a managed topology is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology<'a> {
    /// Name of the ClusterClass.
    pub class: &'a str,
    /// Namespace of the ClusterClass; that of the Cluster, if it names none.
    pub class_namespace: &'a str,
    /// Kubernetes version that the Cluster shall have.
    pub version: Option<&'a str>,
}

impl ClusterView {
    /// What the Cluster is made from; `None` if it has no managed topology.
    #[must_use]
    pub fn topology(&self) -> Option<Topology<'_>> {
        let fields = &self.spec.topology;
        let reference = &fields.class_ref;
        let class = reference.name.as_deref().or(fields.class.as_deref())?;
        let class_namespace = reference
            .namespace
            .as_deref()
            .or(fields.class_namespace.as_deref())
            .or(self.metadata.namespace.as_deref())
            .unwrap_or_default();
        Some(Topology {
            class,
            class_namespace,
            version: fields.version.as_deref(),
        })
    }

    /// Whether nothing may be written for the Cluster, by its field or by the annotation.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.spec.paused || has_annotation(self, PAUSED_ANNOTATION)
    }

    /// Whether the Cluster is being deleted. It uses its class until it is gone.
    #[must_use]
    pub fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

dynamic_resource!(ClusterView);

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::{Value, json};

    use super::*;

    fn cluster(spec: &Value) -> ClusterView {
        let object = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {"name": "demo", "namespace": "team"}, "spec": spec,
        });
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn topology_is_read_in_both_api_versions() {
        for (topology, class_namespace) in [
            (json!({"class": "c", "version": "v1.34.1"}), "team"),
            (
                json!({"class": "c", "classNamespace": "fleet", "version": "v1.34.1"}),
                "fleet",
            ),
            (
                json!({"classRef": {"name": "c"}, "version": "v1.34.1"}),
                "team",
            ),
            (
                json!({"classRef": {"name": "c", "namespace": "fleet"}, "version": "v1.34.1", "variables": [{"name": "a", "value": {"b": []}}]}),
                "fleet",
            ),
        ] {
            assert_eq!(
                cluster(&json!({"topology": topology})).topology(),
                Some(Topology {
                    class: "c",
                    class_namespace,
                    version: Some("v1.34.1")
                }),
                "{topology}"
            );
        }
    }

    #[test]
    fn odd_fields_count_as_absent_and_do_not_break_the_watch() {
        // pitfall 23
        for spec in [
            json!(null),
            json!({}),
            json!([{"topology": 1}]),
            json!("text"),
            json!(-1.5),
            json!({"topology": null, "paused": "yes"}),
            json!({"topology": ["class"]}),
            json!({"topology": {"class": 7, "classRef": true, "version": []}}),
            json!({"topology": {"class": "", "classRef": {"name": {}, "namespace": "fleet"}}}),
        ] {
            let view = cluster(&spec);
            assert_eq!(view.topology(), None, "{spec}");
            assert!(!view.is_paused(), "{spec}");
            assert_eq!(view.name_any(), "demo");
        }
    }

    #[test]
    fn cluster_is_paused_by_field_or_annotation() {
        assert!(cluster(&json!({"paused": true})).is_paused());
        assert!(!cluster(&json!({"paused": false})).is_paused());
        let mut view = cluster(&json!({}));
        view.annotations_mut()
            .insert(PAUSED_ANNOTATION.to_owned(), String::new());
        assert!(view.is_paused());
    }

    #[test]
    fn only_what_is_used_is_kept() {
        let object = json!({
            "apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster",
            "metadata": {
                "name": "demo", "namespace": "team", "resourceVersion": "7",
                "managedFields": [{"manager": "kubectl"}],
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "keep": "me"},
            },
            "spec": {"topology": {"classRef": {"name": "c"}, "variables": [{"name": "a", "value": 1}]}},
            "status": {"phase": "Provisioned"},
        });
        let view: ClusterView = serde_json::from_value(object).unwrap();
        assert_eq!(
            serde_json::to_value(&view).unwrap(),
            json!({
                "metadata": {"name": "demo", "namespace": "team", "resourceVersion": "7", "annotations": {"keep": "me"}},
                "spec": {"paused": false, "topology": {"classRef": {"name": "c"}}},
            })
        );
    }

    /// What a watch needs of its objects.
    #[test]
    fn view_lives_in_a_store_and_is_listed_in_all_namespaces() {
        use kube::{
            Resource,
            discovery::ApiResource,
            runtime::{reflector, watcher},
        };
        let resource = ApiResource {
            group: super::super::GROUP.to_owned(),
            version: "v1beta1".to_owned(),
            api_version: "cluster.x-k8s.io/v1beta1".to_owned(),
            kind: super::super::CLUSTER_KIND.to_owned(),
            plural: "clusters".to_owned(),
        };
        assert_eq!(
            ClusterView::url_path(&resource, None),
            "/apis/cluster.x-k8s.io/v1beta1/clusters"
        );
        let mut writer = reflector::store::Writer::<ClusterView>::new(resource);
        let store = writer.as_reader();
        writer.apply_watcher_event(&watcher::Event::Apply(cluster(&json!({}))));
        assert_eq!(store.state().len(), 1);
    }
}
