//! Which Clusters use which release: a release in use is neither deleted nor forgotten.

use std::{collections::HashMap, fmt};

use super::{ClassView, ClusterView, Topology};
use crate::release::name::ReleaseName;

/// How many Clusters are named before the rest is only counted.
const NAMED: usize = 3;

/// A Cluster, for messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterRef {
    /// Namespace of the Cluster.
    pub namespace: String,
    /// Name of the Cluster.
    pub name: String,
}

impl fmt::Display for ClusterRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// The users of all releases, made once from all classes and Clusters of the management cluster.
///
/// Both must be complete: nothing may be deleted because of a usage that was made from a watch that is still filling.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// By namespace and tag of the release; each list sorted.
    users: HashMap<String, HashMap<String, Vec<ClusterRef>>>,
}

impl Usage {
    /// Follows each Cluster, of whatever namespace, to its class and from there to the release.
    ///
    /// A class says itself which release it belongs to. One that does not (applied by the Go operator) and one that is
    /// not there (somebody deleted it) are taken by their name. Clusters that are being deleted count until they are
    /// gone; Clusters without topology and those of foreign classes are nobody's.
    #[must_use]
    pub fn new<'a>(
        classes: impl IntoIterator<Item = &'a ClassView>,
        clusters: impl IntoIterator<Item = &'a ClusterView>,
    ) -> Self {
        let releases: HashMap<_, _> = classes
            .into_iter()
            .filter_map(|class| Some((identity(&class.metadata), class.release()?)))
            .collect();
        let mut usage = Self::default();
        for cluster in clusters {
            let Some(topology) = cluster.topology() else {
                continue;
            };
            let class = (topology.class_namespace, topology.class);
            if let Some((namespace, tag)) = releases.get(&class) {
                usage.add(namespace, (*tag).to_owned(), cluster);
            } else if let Some(tag) = named_after(&topology) {
                usage.add(topology.class_namespace, tag, cluster);
            }
        }
        for users in usage.users.values_mut().flat_map(HashMap::values_mut) {
            users.sort_unstable();
        }
        usage
    }

    /// The Clusters that use the release with this namespace and tag (dash form), sorted.
    #[must_use]
    pub fn of(&self, namespace: &str, release_tag: &str) -> &[ClusterRef] {
        self.users
            .get(namespace)
            .and_then(|releases| releases.get(release_tag))
            .map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, namespace: &str, tag: String, cluster: &ClusterView) {
        let (cluster_namespace, name) = identity(&cluster.metadata);
        let user = ClusterRef {
            namespace: cluster_namespace.to_owned(),
            name: name.to_owned(),
        };
        // Not "entry": most namespaces are there already, and it would want a copy of the name each time.
        if !self.users.contains_key(namespace) {
            self.users.insert(namespace.to_owned(), HashMap::new());
        }
        if let Some(releases) = self.users.get_mut(namespace) {
            releases.entry(tag).or_default().push(user);
        }
    }
}

/// "used by Cluster …", with the first few by name.
#[must_use]
pub fn used_by(users: &[ClusterRef]) -> String {
    let (first, others) = users.split_at(users.len().min(NAMED));
    let names: Vec<_> = first.iter().map(|user| format!("\"{user}\"")).collect();
    let names = names.join(", ");
    match others.len() {
        0 => format!("used by Cluster {names}"),
        more => format!("used by Cluster {names} and {more} more"),
    }
}

/// Tag of the release that a class of this name would belong to. Classes have the dot form.
fn named_after(topology: &Topology<'_>) -> Option<String> {
    let name = ReleaseName::parse(topology.class).ok()?;
    Some(name.tag())
}

fn identity(metadata: &kube::core::ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests;
