//! `core-operator crd`: the definitions of our kinds, as they are installed.

use kube::CustomResourceExt;

use crate::api::{ClusterAddon, ClusterStack, ClusterStackRelease};

/// The definitions of all kinds, as YAML documents.
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
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_sentence() {
        fn walk(path: &str, schema: &serde_json::Value) {
            let object = schema.as_object().unwrap();
            assert!(
                object.contains_key("description"),
                "{path} has no description"
            );
            if let Some(properties) = object.get("properties") {
                for (name, property) in properties.as_object().unwrap() {
                    walk(&format!("{path}.{name}"), property);
                }
            }
        }
        for crd in [
            ClusterStack::crd(),
            ClusterStackRelease::crd(),
            ClusterAddon::crd(),
        ] {
            let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
            for part in ["spec", "status"] {
                let root = &schema["openAPIV3Schema"]["properties"][part];
                for (name, property) in root["properties"].as_object().unwrap() {
                    walk(&format!("{part}.{name}"), property);
                }
            }
        }
    }
}
