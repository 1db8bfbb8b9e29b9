//! `core-operator crd`: the definitions of our kinds and the admission policy, as they are installed.

use kube::CustomResourceExt;

use super::admission;
use crate::api::{ClusterAddon, ClusterStack, ClusterStackRelease};

/// The definitions of all kinds, and the admission policy behind them, as YAML documents.
///
/// # Errors
///
/// If a definition cannot be written as YAML.
pub fn crds() -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for crd in [
        ClusterStack::crd(),
        ClusterStackRelease::crd(),
        ClusterAddon::crd(),
    ] {
        text.push_str(&super::yaml(&crd)?);
    }
    text.push_str(admission::POLICY);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Calls `check` with the path and the schema of each field of spec and status, elements of lists included.
    fn each_field(check: impl Fn(&str, &Value)) {
        fn walk(path: &str, schema: &Value, check: &impl Fn(&str, &Value)) {
            check(path, schema);
            if let Some(properties) = schema["properties"].as_object() {
                for (name, property) in properties {
                    walk(&format!("{path}.{name}"), property, check);
                }
            }
            if let Some(items) = schema.get("items") {
                walk(&format!("{path}[]"), items, check);
            }
            if let Some(values) = schema.get("additionalProperties") {
                walk(&format!("{path}{{}}"), values, check);
            }
        }
        for crd in [
            ClusterStack::crd(),
            ClusterStackRelease::crd(),
            ClusterAddon::crd(),
        ] {
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            for part in ["spec", "status"] {
                let path = format!("{} {part}", crd.spec.names.kind);
                walk(
                    &path,
                    &schema["openAPIV3Schema"]["properties"][part],
                    &check,
                );
            }
        }
    }

    #[test]
    fn every_field_has_a_sentence() {
        each_field(|path, schema| {
            let element = path.ends_with(['}', ']']);
            let description = schema["description"].as_str().unwrap_or_default();
            assert!(element || !description.is_empty(), "{path}");
        });
    }

    #[test]
    fn every_string_and_list_has_a_maximum() {
        each_field(|path, schema| {
            let bounded = match schema["type"].as_str() {
                Some("string") => {
                    schema.get("maxLength").is_some()
                        || schema.get("enum").is_some()
                        || schema["format"] == "date-time"
                }
                Some("array") => schema.get("maxItems").is_some(),
                Some("object") => {
                    schema.get("properties").is_some() || schema.get("maxProperties").is_some()
                }
                _ => true,
            };
            assert!(bounded, "{path}");
        });
    }
}
