//! Chart hooks as plain objects: before or after the rest, or not at all.
//!
//! There is no Helm release in the cluster that could run hooks. What prepares or completes an installation is applied
//! like any other object; tests and what belongs to deletion and rollback is not.

use super::{RenderedObject, renderer::Hook};

/// The objects before and after the rest, each ordered by weight, then name, as Helm orders hooks.
///
/// A hook that names events of both sides comes before; equal weight and name keep Helm's order.
pub(super) fn split(mut hooks: Vec<Hook>) -> (Vec<RenderedObject>, Vec<RenderedObject>) {
    hooks.sort_by(|left, right| {
        (left.weight, left.object.name()).cmp(&(right.weight, right.object.name()))
    });
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for hook in hooks {
        let names = |events: [&str; 2]| {
            hook.events
                .iter()
                .any(|event| events.contains(&event.as_str()))
        };
        if names(["pre-install", "pre-upgrade"]) {
            before.push(hook.object);
        } else if names(["post-install", "post-upgrade"]) {
            after.push(hook.object);
        }
    }
    (before, after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hook(name: &str, weight: i64, events: &[&str]) -> Hook {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let events = events.iter().map(|event| (*event).to_owned()).collect();
        Hook {
            events,
            weight,
            object: RenderedObject {
                source: "example/templates/a.yaml".to_owned(),
                object,
            },
        }
    }

    fn names(objects: &[RenderedObject]) -> Vec<&str> {
        objects.iter().map(RenderedObject::name).collect()
    }

    #[test]
    fn hooks_come_before_or_after_by_weight_then_name_and_once() {
        let (before, after) = split(vec![
            hook("c", 0, &["pre-install", "pre-upgrade"]),
            hook("b", 0, &["pre-upgrade"]),
            hook("a", 5, &["pre-install"]),
            hook("z", -5, &["pre-install", "post-install"]),
            hook("f", 0, &["post-install"]),
            hook("e", 0, &["post-upgrade", "test"]),
        ]);
        assert_eq!(names(&before), ["z", "b", "c", "a"]);
        assert_eq!(names(&after), ["e", "f"]);
    }

    #[test]
    fn tests_deletion_and_rollback_are_dropped() {
        for event in [
            "test",
            "pre-delete",
            "post-delete",
            "pre-rollback",
            "post-rollback",
        ] {
            let (before, after) = split(vec![hook("a", 0, &[event])]);
            assert!(before.is_empty() && after.is_empty(), "{event}");
        }
    }
}
