//! The inventory in the making: written before the first object is applied, completed by what became of each.

use std::collections::HashSet;

use super::{
    super::{Error, status},
    verdict,
    wanted::{Leftover, Wanted},
};
use crate::{
    api::{ClusterStackRelease, Resource, ResourceState},
    apply::{
        plan::{Applied, Decision},
        write::WriteError,
    },
    context::Context,
    helm::ObjectIdentity,
};

/// The inventory in the making.
pub(super) struct Inventory {
    entries: Vec<Resource>,
    /// Entries of what is not wanted any more, after the others.
    leftovers: Vec<Resource>,
}

impl Inventory {
    pub fn new(wanted: &[Wanted], leftovers: &[Leftover], inventory: &[Resource]) -> Self {
        let known = |identity: &ObjectIdentity| inventory.iter().find(|entry| entry.is(identity));
        let entries = wanted
            .iter()
            .map(|object| {
                let identity = object.manifest.identity();
                let known = known(identity);
                Resource {
                    group: identity.group.clone(),
                    version: object.manifest.version().to_owned(),
                    kind: identity.kind.clone(),
                    name: identity.name.clone(),
                    namespace: identity.namespace.clone().unwrap_or_default(),
                    uid: known.map(|entry| entry.uid.clone()).unwrap_or_default(),
                    generation: known.and_then(|entry| entry.generation),
                    status: ResourceState::NotSynced,
                    error: String::new(),
                }
            })
            .collect();
        let leftovers = leftovers
            .iter()
            .map(|object| object.entry.clone())
            .map(|entry| Resource {
                status: ResourceState::NotSynced,
                error: "not wanted any more, is being removed".to_owned(),
                ..entry
            })
            .collect();
        Self { entries, leftovers }
    }

    /// Takes over what was applied since the inventory was written: the status after an apply may have been held back.
    pub fn remember(&mut self, release: &str, wanted: &[Wanted], context: &Context) {
        for (entry, object) in self.entries.iter_mut().zip(wanted) {
            let identity = object.manifest.identity();
            if let Some(known) = context.memory.recall(release, identity, None) {
                entry.uid = known.applied.uid;
                entry.generation = known.applied.generation;
            }
        }
    }

    pub fn decided(&mut self, wanted: &[Wanted], decisions: &[Decision]) {
        for ((entry, decision), object) in self.entries.iter_mut().zip(decisions).zip(wanted) {
            match decision {
                Decision::Keep | Decision::Leave => entry.status = ResourceState::Synced,
                other => {
                    entry.error = verdict::problem(object, other).unwrap_or_default();
                }
            }
        }
    }

    /// Whether an object is about to be applied that the inventory does not have.
    pub fn has_unrecorded(&self, inventory: &[Resource]) -> bool {
        let same = |left: &Resource, right: &Resource| {
            (&left.group, &left.kind, &left.namespace, &left.name)
                == (&right.group, &right.kind, &right.namespace, &right.name)
        };
        self.entries
            .iter()
            .any(|entry| !inventory.iter().any(|known| same(known, entry)))
    }

    /// Writes the inventory, so that nothing that is applied can be forgotten.
    pub async fn record(
        &self,
        release: &ClusterStackRelease,
        context: &Context,
    ) -> Result<ClusterStackRelease, Error> {
        status::record(release, self.all(), context)
            .await
            .map_err(Error::Record)
    }

    pub fn applied(&mut self, index: usize, applied: &Applied) {
        let entry = &mut self.entries[index];
        entry.uid.clone_from(&applied.uid);
        entry.generation = applied.generation;
        entry.status = ResourceState::Synced;
        entry.error.clear();
    }

    pub fn failed(&mut self, index: usize, error: &WriteError) {
        self.entries[index].error = error.to_string();
    }

    pub fn pruned(&mut self, gone: &HashSet<ObjectIdentity>) {
        self.leftovers
            .retain(|entry| !gone.contains(&entry.identity()));
    }

    pub fn all(&self) -> Vec<Resource> {
        self.entries
            .iter()
            .chain(&self.leftovers)
            .cloned()
            .collect()
    }

    pub fn into_resources(self) -> Vec<Resource> {
        let mut resources = self.entries;
        resources.extend(self.leftovers);
        resources
    }
}
