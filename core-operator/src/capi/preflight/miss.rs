//! What a release lacks, in words.

use std::fmt;

use kube::core::GroupVersionKind;

use crate::{
    api::AGGREGATE_LABEL,
    conditions::reason::{
        CLUSTER_TOPOLOGY_DISABLED, FORBIDDEN, KIND_NOT_SERVED, RUNTIME_SDK_DISABLED,
    },
};

/// Something that a release needs and the management cluster does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// Objects of this kind cannot be made.
    KindNotServed {
        /// The kind as the release writes it.
        kind: GroupVersionKind,
        /// The version in which the kind is served instead.
        served: Option<String>,
    },
    /// The operator's rights do not suffice.
    Forbidden {
        /// `<plural>.<group>`, as in "kubectl auth can-i".
        resource: String,
        /// Namespace; `None` for cluster-scoped kinds.
        namespace: Option<String>,
        /// What is not allowed.
        verbs: Vec<&'static str>,
    },
    /// Cluster API refuses every class.
    ClusterTopologyDisabled,
    /// Cluster API calls no hooks.
    RuntimeSdkDisabled,
}

impl Miss {
    /// One word for conditions.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::KindNotServed { .. } => KIND_NOT_SERVED,
            Self::Forbidden { .. } => FORBIDDEN,
            Self::ClusterTopologyDisabled => CLUSTER_TOPOLOGY_DISABLED,
            Self::RuntimeSdkDisabled => RUNTIME_SDK_DISABLED,
        }
    }

    /// What to do about it.
    fn advice(&self) -> String {
        match self {
            Self::KindNotServed {
                kind,
                served: Some(version),
            } => format!(
                "use a release made for \"{}/{version}\", or a version of the provider that serves it",
                kind.group
            ),
            Self::KindNotServed { kind, served: None } => provider_of(&kind.group),
            Self::Forbidden { .. } => {
                format!("allow it by a ClusterRole with the label \"{AGGREGATE_LABEL}: true\"")
            }
            Self::ClusterTopologyDisabled => {
                "start Cluster API's managers with \"--feature-gates=ClusterTopology=true\" (CLUSTER_TOPOLOGY=true for clusterctl)".to_owned()
            }
            Self::RuntimeSdkDisabled => {
                "start Cluster API's core manager with \"--feature-gates=RuntimeSDK=true\" (EXP_RUNTIME_SDK=true for clusterctl)".to_owned()
            }
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KindNotServed { kind, served } => {
                write!(formatter, "{} of \"{}\"", kind.kind, kind.api_version())?;
                match served {
                    Some(version) => write!(formatter, " is served as \"{version}\" only"),
                    None => formatter.write_str(" is not served"),
                }
            }
            Self::Forbidden {
                resource,
                namespace,
                verbs,
            } => {
                let verbs = verbs.join(", ");
                write!(formatter, "the operator may not {verbs} \"{resource}\"")?;
                match namespace {
                    Some(namespace) => write!(formatter, " in namespace \"{namespace}\""),
                    None => Ok(()),
                }
            }
            Self::ClusterTopologyDisabled => {
                formatter.write_str("Cluster API's feature ClusterTopology is off")
            }
            Self::RuntimeSdkDisabled => formatter.write_str(
                "Cluster API's feature RuntimeSDK is off, which the addon stages of the release need",
            ),
        }
    }
}

/// All that a release lacks: at least one thing. Prints as a message that ends each kind of miss with what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misses {
    reason: &'static str,
    list: Vec<Miss>,
}

impl Misses {
    /// `None` if nothing is missing.
    pub(super) fn of(list: Vec<Miss>) -> Option<Self> {
        let reason = list.first()?.reason();
        Some(Self { reason, list })
    }

    /// One word for conditions: that of the first miss.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        self.reason
    }

    /// What is missing: kinds, rights, features, in this order.
    #[must_use]
    pub fn list(&self) -> &[Miss] {
        &self.list
    }
}

impl fmt::Display for Misses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        // Ten kinds of one provider share one piece of advice.
        for same in self.list.chunk_by(|a, b| a.advice() == b.advice()) {
            for miss in same {
                write!(formatter, "{separator}{miss}")?;
                separator = ", ";
            }
            if let Some(miss) = same.first() {
                write!(formatter, ": {}", miss.advice())?;
            }
            separator = "; ";
        }
        Ok(())
    }
}

/// What to install so that kinds of the group are served.
fn provider_of(group: &str) -> String {
    let part = match group {
        "infrastructure.cluster.x-k8s.io" => "the Cluster API infrastructure provider that has it",
        "controlplane.cluster.x-k8s.io" => "the Cluster API control plane provider that has it",
        "bootstrap.cluster.x-k8s.io" => "the Cluster API bootstrap provider that has it",
        "openstack.k-orc.cloud" => "the OpenStack resource controller (k-orc)",
        "cluster.x-k8s.io" => "Cluster API's core provider",
        group if group.ends_with(".cluster.x-k8s.io") => "Cluster API's core provider",
        group if group.contains('.') => {
            return format!("install what brings the group \"{group}\"");
        }
        // Kubernetes' own groups have no dot.
        _ => return "use a release whose objects this version of Kubernetes knows".to_owned(),
    };
    format!("install {part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn not_served(group: &str, kind: &str, served: Option<&str>) -> Miss {
        Miss::KindNotServed {
            kind: GroupVersionKind::gvk(group, "v1beta1", kind),
            served: served.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn all_misses_are_one_message_that_says_what_to_do() {
        let infrastructure = "infrastructure.cluster.x-k8s.io";
        let misses = Misses::of(vec![
            not_served(infrastructure, "DockerClusterTemplate", None),
            not_served(infrastructure, "DockerMachineTemplate", None),
            Miss::Forbidden {
                resource: "images.openstack.k-orc.cloud".to_owned(),
                namespace: Some("fleet".to_owned()),
                verbs: vec!["create", "delete"],
            },
            Miss::ClusterTopologyDisabled,
        ])
        .unwrap();
        assert_eq!(misses.reason(), "KindNotServed");
        assert_eq!(
            misses.to_string(),
            "DockerClusterTemplate of \"infrastructure.cluster.x-k8s.io/v1beta1\" is not served, \
             DockerMachineTemplate of \"infrastructure.cluster.x-k8s.io/v1beta1\" is not served: \
             install the Cluster API infrastructure provider that has it; \
             the operator may not create, delete \"images.openstack.k-orc.cloud\" in namespace \"fleet\": \
             allow it by a ClusterRole with the label \"clusterstack.x-k8s.io/aggregate-to-core: true\"; \
             Cluster API's feature ClusterTopology is off: \
             start Cluster API's managers with \"--feature-gates=ClusterTopology=true\" (CLUSTER_TOPOLOGY=true for clusterctl)"
        );
        assert_eq!(Misses::of(Vec::new()), None);
    }

    #[test]
    fn what_to_install_depends_on_the_group() {
        for (group, words) in [
            ("controlplane.cluster.x-k8s.io", "control plane provider"),
            ("bootstrap.cluster.x-k8s.io", "bootstrap provider"),
            ("cluster.x-k8s.io", "core provider"),
            ("addons.cluster.x-k8s.io", "core provider"),
            ("openstack.k-orc.cloud", "k-orc"),
            ("example.com", "\"example.com\""),
            ("", "this version of Kubernetes"),
            ("batch", "this version of Kubernetes"),
        ] {
            let advice = not_served(group, "K", None).advice();
            assert!(advice.contains(words), "{group}: {advice}");
        }
    }

    #[test]
    fn version_that_is_served_instead_is_named() {
        let misses = Misses::of(vec![not_served("example.com", "K", Some("v1beta2"))]).unwrap();
        assert_eq!(
            misses.to_string(),
            "K of \"example.com/v1beta1\" is served as \"v1beta2\" only: \
             use a release made for \"example.com/v1beta2\", or a version of the provider that serves it"
        );
    }
}
