//! `clusteraddon.yaml`: which addon charts are applied at which points in the life of a cluster.
//!
//! ```yaml
//! addonStages:
//!   AfterControlPlaneInitialized:
//!     - name: cni
//!       action: apply
//!       waitForPostCondition:
//!         objects:
//!           - {key: agent, apiVersion: apps/v1, kind: DaemonSet, name: agent, namespace: kube-system}
//!         conditions: agent.status.numberReady == agent.status.desiredNumberScheduled
//! ```
//!
//! The file is only read and checked here; conditions are evaluated elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Deserializer};

use super::invalid::ReleaseInvalid;
use super::yaml::{self, Parsed, shorten};

/// Name of the file.
pub const FILE: &str = "clusteraddon.yaml";

/// A point in the life of a cluster, as Cluster API names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before anything of a cluster is made.
    BeforeClusterCreate,
    /// The API server of a new cluster answers.
    AfterControlPlaneInitialized,
    /// A new Kubernetes version is wanted.
    BeforeClusterUpgrade,
    /// Before one step of the control plane.
    BeforeControlPlaneUpgrade,
    /// After one step of the control plane.
    AfterControlPlaneUpgrade,
    /// Before one step of the workers.
    BeforeWorkersUpgrade,
    /// After one step of the workers.
    AfterWorkersUpgrade,
    /// Everything has the new Kubernetes version.
    AfterClusterUpgrade,
    /// The cluster is about to be deleted.
    BeforeClusterDelete,
}

impl Hook {
    /// All of them, in the order in which a cluster meets them.
    pub const ALL: [Self; 9] = [
        Self::BeforeClusterCreate,
        Self::AfterControlPlaneInitialized,
        Self::BeforeClusterUpgrade,
        Self::BeforeControlPlaneUpgrade,
        Self::AfterControlPlaneUpgrade,
        Self::BeforeWorkersUpgrade,
        Self::AfterWorkersUpgrade,
        Self::AfterClusterUpgrade,
        Self::BeforeClusterDelete,
    ];

    /// The name as it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeClusterCreate => "BeforeClusterCreate",
            Self::AfterControlPlaneInitialized => "AfterControlPlaneInitialized",
            Self::BeforeClusterUpgrade => "BeforeClusterUpgrade",
            Self::BeforeControlPlaneUpgrade => "BeforeControlPlaneUpgrade",
            Self::AfterControlPlaneUpgrade => "AfterControlPlaneUpgrade",
            Self::BeforeWorkersUpgrade => "BeforeWorkersUpgrade",
            Self::AfterWorkersUpgrade => "AfterWorkersUpgrade",
            Self::AfterClusterUpgrade => "AfterClusterUpgrade",
            Self::BeforeClusterDelete => "BeforeClusterDelete",
        }
    }

    /// The hook of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|hook| hook.as_str() == name)
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What happens at each point.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddonStages {
    stages: BTreeMap<Hook, Vec<Stage>>,
}

/// One addon chart at one point.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// Name of the chart's folder in the addon archive.
    pub name: String,
    /// What to do with the chart's objects.
    pub action: Action,
    /// What must be true before anything is done.
    #[serde(default, deserialize_with = "absent_if_empty")]
    pub wait_for_pre_condition: Option<WaitCondition>,
    /// What must be true before the next stage starts.
    #[serde(default, deserialize_with = "absent_if_empty")]
    pub wait_for_post_condition: Option<WaitCondition>,
}

/// What to do with the objects of a chart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// They shall be there.
    Apply,
    /// They shall be gone.
    Delete,
}

/// A condition on objects of the workload cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct WaitCondition {
    /// The objects that the condition speaks of.
    #[serde(default, deserialize_with = "null_is_default")]
    pub objects: Vec<ObjectReference>,
    /// A CEL expression over the keys of the objects.
    #[serde(default, deserialize_with = "null_is_default")]
    pub conditions: String,
}

/// An object under the name that a condition gives it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// Name of the variable in the condition.
    pub key: String,
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Namespace; none for objects of the cluster.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl AddonStages {
    /// Reads the text of the file. Hooks that nobody calls are left out with a warning: they stand in real releases.
    ///
    /// # Errors
    ///
    /// The text is no YAML, a field is missing or wrong, or a stage cannot be what its author meant.
    pub fn parse(text: &str) -> Result<Parsed<Self>, ReleaseInvalid> {
        let Parsed {
            value: raw,
            mut warnings,
        } = yaml::parse::<Raw>(FILE, text)?;
        let mut stages = BTreeMap::new();
        for (name, list) in raw.addon_stages {
            let list = list.unwrap_or_default();
            for (index, stage) in list.iter().enumerate() {
                check(stage, &format!("addonStages.{}[{index}]", shorten(&name)))?;
            }
            match Hook::from_name(&name) {
                Some(hook) => {
                    stages.insert(hook, list);
                }
                None => warnings.push(format!(
                    "\"{FILE}\" has stages for \"{}\", which is no hook: they never run",
                    shorten(&name)
                )),
            }
        }
        Ok(Parsed {
            value: Self { stages },
            warnings,
        })
    }

    /// The stages of a hook, in order; none if the file has no list for it.
    #[must_use]
    pub fn at(&self, hook: Hook) -> &[Stage] {
        self.stages.get(&hook).map_or(&[], Vec::as_slice)
    }

    /// The hooks with a list, in the order in which a cluster meets them.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> {
        self.stages.keys().copied()
    }

    /// Names of the charts that any stage uses; each is a folder in the addon archive.
    #[must_use]
    pub fn charts(&self) -> BTreeSet<&str> {
        self.stages
            .values()
            .flatten()
            .map(|stage| stage.name.as_str())
            .collect()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default, deserialize_with = "null_is_default")]
    addon_stages: BTreeMap<String, Option<Vec<Stage>>>,
}

/// Go reads `field:` without a value as an empty one.
fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An empty condition is none: the structures of Go are never absent.
fn absent_if_empty<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WaitCondition>, D::Error> {
    let condition = Option::<WaitCondition>::deserialize(deserializer)?;
    Ok(condition.filter(|condition| *condition != WaitCondition::default()))
}

fn check(stage: &Stage, path: &str) -> Result<(), ReleaseInvalid> {
    let wrong = |field: String, expected: &str, found: &str| ReleaseInvalid::RejectValue {
        file: FILE.to_owned(),
        field: format!("{path}.{field}"),
        expected: expected.to_owned(),
        found: format!("\"{}\"", shorten(found)),
    };
    // The name becomes a path.
    if matches!(stage.name.as_str(), "" | "." | "..") || stage.name.contains(['/', '\\', '\0']) {
        return Err(wrong(
            "name".to_owned(),
            "the name of a chart's folder",
            &stage.name,
        ));
    }
    for (field, condition) in [
        ("waitForPreCondition", &stage.wait_for_pre_condition),
        ("waitForPostCondition", &stage.wait_for_post_condition),
    ] {
        let Some(condition) = condition else { continue };
        if condition.conditions.trim().is_empty() {
            return Err(wrong(
                format!("{field}.conditions"),
                "a CEL expression",
                &condition.conditions,
            ));
        }
        let mut keys = BTreeSet::new();
        for (index, object) in condition.objects.iter().enumerate() {
            let at = |name: &str| format!("{field}.objects[{index}].{name}");
            for (name, value) in [
                ("key", &object.key),
                ("apiVersion", &object.api_version),
                ("kind", &object.kind),
                ("name", &object.name),
            ] {
                if value.is_empty() {
                    return Err(wrong(at(name), "a value", value));
                }
            }
            // With the same key twice one of the objects could not be named.
            if !keys.insert(&object.key) {
                return Err(wrong(at("key"), "a key of its own", &object.key));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: &str = "
apiVersion: clusteraddonconfig.x-k8s.io/v1alpha1
clusterAddonVersion: clusteraddons.clusterstack.x-k8s.io/v1alpha1
addonStages:
  BeforeClusterUpgrade:
    - name: metrics
      action: delete
      waitForPreCondition: {}
  AfterControlPlaneInitialized:
    - name: cni
      action: apply
      waitForPostCondition:
        objects:
          - key: agent
            apiVersion: apps/v1
            kind: DaemonSet
            name: agent
            namespace: kube-system
          - {key: node, apiVersion: v1, kind: Node, name: one}
        conditions: agent.status.numberReady > 0 && has(node.status)
    - name: metrics
      action: apply
";

    #[test]
    fn stages_keep_their_order_and_conditions() {
        let Parsed {
            value: stages,
            warnings,
        } = AddonStages::parse(WAITING).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(
            stages.hooks().collect::<Vec<_>>(),
            [
                Hook::AfterControlPlaneInitialized,
                Hook::BeforeClusterUpgrade
            ]
        );
        let [cni, metrics] = stages.at(Hook::AfterControlPlaneInitialized) else {
            panic!("two stages")
        };
        assert_eq!((cni.name.as_str(), cni.action), ("cni", Action::Apply));
        let condition = cni.wait_for_post_condition.as_ref().unwrap();
        assert_eq!(
            condition.conditions,
            "agent.status.numberReady > 0 && has(node.status)"
        );
        assert_eq!(
            condition.objects[0].namespace.as_deref(),
            Some("kube-system")
        );
        assert_eq!(condition.objects[1].namespace, None);
        assert_eq!(metrics.wait_for_post_condition, None);
        let [deleted] = stages.at(Hook::BeforeClusterUpgrade) else {
            panic!("one stage")
        };
        assert_eq!(
            (deleted.action, &deleted.wait_for_pre_condition),
            (Action::Delete, &None)
        );
        assert!(stages.at(Hook::AfterClusterUpgrade).is_empty());
        assert_eq!(
            stages.charts().into_iter().collect::<Vec<_>>(),
            ["cni", "metrics"]
        );
    }

    #[test]
    fn unknown_hooks_warn_and_never_fail() {
        // `name` stands where a hook should in releases that are in use
        let text = "addonStages: {name: [{name: cni, action: apply}], AfterClusterUpgrade: }";
        let Parsed {
            value: stages,
            warnings,
        } = AddonStages::parse(text).unwrap();
        assert_eq!(
            warnings,
            ["\"clusteraddon.yaml\" has stages for \"name\", which is no hook: they never run"]
        );
        assert_eq!(
            stages.hooks().collect::<Vec<_>>(),
            [Hook::AfterClusterUpgrade]
        );
        assert!(stages.charts().is_empty());
    }

    #[test]
    fn every_hook_is_known_by_its_name() {
        for hook in Hook::ALL {
            assert_eq!(Hook::from_name(hook.as_str()), Some(hook));
        }
        assert_eq!(Hook::from_name("aftercontrolplaneinitialized"), None);
    }

    #[test]
    fn a_file_without_stages_has_none() {
        for text in ["addonStages:", "addonStages: {}", "apiVersion: x"] {
            assert_eq!(
                AddonStages::parse(text).unwrap().value,
                AddonStages::default(),
                "{text}"
            );
        }
    }

    #[test]
    fn errors_name_the_stage() {
        let condition =
            |rest: &str| format!("{{name: a, action: apply, waitForPostCondition: {{{rest}}}}}");
        for (stage, message) in [
            ("[]".to_owned(), "addonStages.AfterClusterUpgrade[0]"),
            (
                "{name: a}".to_owned(),
                "lacks the field \"addonStages.AfterClusterUpgrade[0].action\"",
            ),
            (
                "{action: apply}".to_owned(),
                "lacks the field \"addonStages.AfterClusterUpgrade[0].name\"",
            ),
            (
                "{name: a, action: remove}".to_owned(),
                "expected one of apply, delete, found text",
            ),
            (
                "{name: ../a, action: apply}".to_owned(),
                "\"addonStages.AfterClusterUpgrade[0].name\": expected the name of a chart's folder, found \"../a\"",
            ),
            (
                "{name: '..', action: apply}".to_owned(),
                "expected the name of a chart's folder",
            ),
            (
                "{name: '', action: apply}".to_owned(),
                "expected the name of a chart's folder, found \"\"",
            ),
            (
                condition("objects: [{key: a, apiVersion: v1, kind: Pod, name: a}]"),
                "waitForPostCondition.conditions\": expected a CEL expression",
            ),
            (
                condition("conditions: a, objects: [{key: a, apiVersion: v1, kind: Pod}]"),
                "objects[0].name",
            ),
            (
                condition("conditions: a, objects: [{key: a, apiVersion: v1, kind: '', name: b}]"),
                "objects[0].kind\": expected a value",
            ),
            (
                condition(
                    "conditions: a, objects: [{key: a, apiVersion: v1, kind: P, name: b}, {key: a, apiVersion: v1, kind: P, name: c}]",
                ),
                "objects[1].key\": expected a key of its own, found \"a\"",
            ),
        ] {
            let error =
                AddonStages::parse(&format!("addonStages: {{AfterClusterUpgrade: [{stage}]}}"))
                    .expect_err(&stage)
                    .to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
