//! Secrets that sources need: a corrected one is noticed soon.
//!
//! A watch would need the right to list the Secrets of all tenants; the operator may only get those that it knows by name.
//! So the versions of those that a stack names are asked for again and again, but only while its source is at fault: one
//! that works reads its Secrets anew each time, and what changed there is no news.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, runtime::reflector::ObjectRef};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::{
    api::{ClusterStack, Condition},
    conditions::{self, reason},
    context::Context,
};

/// Time between two looks at the Secrets of sources that are at fault: soon for somebody who waits for it.
const LOOK: Duration = Duration::from_secs(10);

/// What is known of the Secrets that were read. Never what is in them.
#[derive(Debug, Default)]
pub struct Secrets(Mutex<HashMap<Key, Known>>);

/// Namespace and name.
type Key = (String, String);

#[derive(Debug, Default)]
struct Known {
    /// UID and resource version when it was last read; none if it was not there.
    version: Option<String>,
    /// Counts the changes that were noticed between two reads.
    changes: u64,
}

impl Secrets {
    /// A Secret was read, and is used as it is.
    pub fn read(&self, namespace: &str, name: &str, secret: Option<&impl ResourceExt>) {
        let key = (namespace.to_owned(), name.to_owned());
        self.known().entry(key).or_default().version = secret.map(version);
    }

    /// A number that is another one after a change was noticed in a Secret that the stack names.
    #[must_use]
    pub fn changes(&self, stack: &ClusterStack) -> u64 {
        let known = self.known();
        let keys = named(stack).into_iter();
        keys.filter_map(|key| Some(known.get(&key)?.changes)).sum()
    }

    /// Takes note of how a Secret is now. Returns whether that differs from what was last read.
    fn found(&self, key: &Key, secret: Option<&impl ResourceExt>) -> bool {
        let now = secret.map(version);
        let mut known = self.known();
        // One that was never read will be.
        let Some(known) = known.get_mut(key) else {
            return false;
        };
        let changed = known.version != now;
        if changed {
            known.version = now;
            known.changes += 1;
        }
        changed
    }

    /// Forgets all that no stack names any more.
    fn retain(&self, named: &HashSet<Key>) {
        self.known().retain(|key, _| named.contains(key));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn version(secret: &impl ResourceExt) -> String {
    let (uid, version) = (secret.uid(), secret.resource_version());
    format!(
        "{}/{}",
        uid.unwrap_or_default(),
        version.unwrap_or_default()
    )
}

/// The Secrets that a stack names.
fn named(stack: &ClusterStack) -> Vec<Key> {
    let namespace = stack.namespace().unwrap_or_default();
    let source = stack.spec.source.iter();
    let references = source.flat_map(|it| [&it.secret_ref, &it.ca_secret_ref]);
    let keys = references
        .flatten()
        .map(|it| (namespace.clone(), it.name.clone()));
    keys.collect()
}

/// Looks at the Secrets of sources that are at fault until `stop`, and wakes the stacks and releases that wait for one.
pub async fn follow(context: Arc<Context>, stop: CancellationToken) {
    while timeout(LOOK, stop.cancelled()).await.is_err() {
        let stacks = context.stacks.state();
        let all = stacks.iter().flat_map(|stack| named(stack)).collect();
        context.places.secrets().retain(&all);
        let mut waiting: HashMap<Key, Vec<Arc<ClusterStack>>> = HashMap::new();
        for stack in stacks {
            let names = named(&stack);
            if !names.is_empty() && is_at_fault(&stack, &context) {
                for key in names {
                    waiting.entry(key).or_default().push(Arc::clone(&stack));
                }
            }
        }
        for (key, stacks) in waiting {
            let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &key.0);
            match secrets.get_metadata_opt(&key.1).await {
                Ok(secret) if context.places.secrets().found(&key, secret.as_ref()) => {
                    for stack in stacks {
                        wake(&stack, &context);
                    }
                }
                Ok(_) => {}
                // Whoever reads it for the source tells the user.
                Err(error) => debug!(namespace = key.0, secret = key.1, %error, "not looked at"),
            }
        }
    }
}

/// Whether the listing or a release of the stack lacks what its source does not give.
fn is_at_fault(stack: &ClusterStack, context: &Context) -> bool {
    let is_fault = |conditions: &[Condition], type_| {
        conditions::find(conditions, type_).is_some_and(|it| {
            let faults = [
                reason::SOURCE_REFUSED,
                reason::SOURCE_UNAVAILABLE,
                reason::RELEASE_NOT_FOUND,
            ];
            it.status != "True" && faults.contains(&it.reason.as_str())
        })
    };
    let status = stack.status.as_ref();
    status.is_some_and(|status| is_fault(&status.conditions, conditions::SOURCE_AVAILABLE))
        || context.releases_of(stack).iter().any(|release| {
            let status = release.status.as_ref();
            status.is_some_and(|status| is_fault(&status.conditions, conditions::DOWNLOADED))
        })
}

fn wake(stack: &ClusterStack, context: &Context) {
    context.wakers.stacks.wake(ObjectRef::from_obj(stack));
    for release in context.releases_of(stack) {
        context.wakers.releases.wake(ObjectRef::from_obj(&*release));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ClusterStackSpec;

    fn secret(uid: &str, version: &str) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.uid = Some(uid.to_owned());
        secret.metadata.resource_version = Some(version.to_owned());
        secret
    }

    fn stack(source: &serde_json::Value) -> ClusterStack {
        let spec: ClusterStackSpec = serde_json::from_value(serde_json::json!({
            "provider": "docker", "name": "scs", "kubernetesVersion": "1.30", "source": source,
        }))
        .unwrap();
        let mut stack = ClusterStack::new("scs", spec);
        stack.metadata.namespace = Some("fleet".to_owned());
        stack
    }

    #[test]
    fn each_change_since_the_last_read_is_noticed_once() {
        let secrets = Secrets::default();
        let key = ("fleet".to_owned(), "access".to_owned());
        // Nobody has read it.
        assert!(!secrets.found(&key, Some(&secret("u", "1"))));
        secrets.read(&key.0, &key.1, None::<&Secret>);
        assert!(!secrets.found(&key, None::<&Secret>));
        for next in [secret("u", "1"), secret("u", "2"), secret("v", "2")] {
            assert!(secrets.found(&key, Some(&next)));
            assert!(!secrets.found(&key, Some(&next)));
        }
        // What was read in the meantime is in use already.
        secrets.read(&key.0, &key.1, Some(&secret("v", "3")));
        assert!(!secrets.found(&key, Some(&secret("v", "3"))));
        assert!(secrets.found(&key, None::<&Secret>));
    }

    #[test]
    fn changes_concern_the_stacks_that_name_the_secret() {
        let secrets = Secrets::default();
        let github = serde_json::json!({"owner": "o", "repository": "r"});
        let with = |names: serde_json::Value| {
            let mut source = names;
            source["github"] = github.clone();
            stack(&source)
        };
        let token = with(serde_json::json!({"secretRef": {"name": "access"}}));
        let both = with(serde_json::json!({
            "secretRef": {"name": "access"}, "caSecretRef": {"name": "ca"},
        }));
        let none = with(serde_json::json!({}));
        for name in ["access", "ca"] {
            secrets.read("fleet", name, None::<&Secret>);
        }
        let changes = || [&token, &both, &none].map(|stack| secrets.changes(stack));
        assert_eq!(changes(), [0, 0, 0]);
        secrets.found(&named(&both)[1], Some(&secret("u", "1")));
        assert_eq!(changes(), [0, 1, 0]);
        secrets.found(&named(&token)[0], Some(&secret("u", "1")));
        assert_eq!(changes(), [1, 2, 0]);
        secrets.retain(&named(&token).into_iter().collect());
        assert_eq!(changes(), [1, 1, 0]);
    }
}
