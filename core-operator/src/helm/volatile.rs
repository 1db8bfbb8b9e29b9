//! Objects that a chart renders differently each time: certificates, random passwords, times.
//!
//! Such objects are found by rendering twice. What is kept is the list of *stable* objects, under the names that all
//! clusters share ([`OwnNames`]): an object that was not seen equal twice counts as volatile.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{ObjectIdentity, RenderedObject};

/// The objects that are equal in both renders.
pub(super) fn stable<'a>(
    first: impl IntoIterator<Item = &'a RenderedObject>,
    second: impl IntoIterator<Item = &'a RenderedObject>,
) -> BTreeSet<ObjectIdentity> {
    let (first, mut second) = (by_identity(first), by_identity(second));
    first
        .into_iter()
        .filter(|(identity, objects)| second.remove(identity).as_ref() == Some(objects))
        .map(|(identity, _)| identity)
        .collect()
}

fn by_identity<'a>(
    objects: impl IntoIterator<Item = &'a RenderedObject>,
) -> BTreeMap<ObjectIdentity, Vec<&'a Value>> {
    let mut result: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for object in objects {
        result
            .entry(object.identity())
            .or_default()
            .push(&object.object);
    }
    result
}

/// Texts that are one cluster's own, such as its name: without them, equal values of two clusters look equal.
pub(super) struct OwnNames<'a>(Vec<(&'a str, String)>);

impl<'a> OwnNames<'a> {
    /// Longer texts first, so that a name inside another does not hide it.
    pub(super) fn new(names: &'a [String]) -> Self {
        let mut names: Vec<_> = names
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.is_empty())
            .collect();
        names.sort_by_key(|(_, name)| std::cmp::Reverse(name.len()));
        // U+0000 occurs in no Kubernetes name and in no YAML text
        Self(
            names
                .into_iter()
                .map(|(index, name)| (name.as_str(), format!("\0{index}\0")))
                .collect(),
        )
    }

    fn neutral_text(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (name, place)| {
            if text.contains(name) {
                text.replace(name, place)
            } else {
                text
            }
        })
    }

    /// The values without the own names.
    pub(super) fn neutral_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.neutral_text(text)),
            Value::Array(items) => items.iter().map(|item| self.neutral_value(item)).collect(),
            Value::Object(entries) => entries
                .iter()
                .map(|(key, value)| (self.neutral_text(key), self.neutral_value(value)))
                .collect(),
            other => other.clone(),
        }
    }

    /// The identity without the own names.
    pub(super) fn neutral_identity(&self, identity: &ObjectIdentity) -> ObjectIdentity {
        ObjectIdentity {
            namespace: identity
                .namespace
                .as_deref()
                .map(|namespace| self.neutral_text(namespace)),
            name: self.neutral_text(&identity.name),
            ..identity.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, data: &str) -> RenderedObject {
        let object =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        RenderedObject {
            source: String::new(),
            object,
        }
    }

    #[test]
    fn only_objects_seen_equal_twice_are_stable() {
        let first = [
            object("same", "a"),
            object("key", "b"),
            object("named-1", "c"),
            object("twice", "d"),
            object("twice", "e"),
        ];
        let second = [
            object("same", "a"),
            object("key", "x"),
            object("named-2", "c"),
            object("twice", "d"),
            object("twice", "f"),
        ];
        let names: Vec<_> = stable(&first, &second)
            .into_iter()
            .map(|identity| identity.name)
            .collect();
        assert_eq!(names, ["same"]);
    }

    #[test]
    fn values_of_two_clusters_look_equal_without_their_names() {
        let values =
            |cluster: &str| json!({cluster: {"host": format!("{cluster}.example.org"), "size": 3}});
        let (one, two) = (
            ["one".to_owned(), "ns".to_owned()],
            ["one-b".to_owned(), "ns".to_owned()],
        );
        assert_eq!(
            OwnNames::new(&one).neutral_value(&values("one")),
            OwnNames::new(&two).neutral_value(&values("one-b"))
        );
        assert_ne!(
            OwnNames::new(&[]).neutral_value(&values("one")),
            OwnNames::new(&[]).neutral_value(&values("one-b"))
        );
    }
}
