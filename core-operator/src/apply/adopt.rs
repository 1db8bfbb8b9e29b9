//! Fields that the Go operator applied become ours, as kubectl's migration from client-side to server-side apply does it.
//!
//! The Go operator applied with the field managers `kubectl` and `cso-manager`. Were they left as owners, a field that a
//! later release drops would stay for ever: they still want it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Map, Value};

use super::MANAGER;

/// Field managers of the Go operator.
const GO_OPERATOR_MANAGERS: [&str; 2] = ["kubectl", "cso-manager"];

/// The managed fields with those of the Go operator joined to ours; `None` when there are none of them.
#[must_use]
pub fn adopted(managed: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let is_theirs = |entry: &ManagedFieldsEntry| {
        entry.subresource.is_none()
            && entry
                .manager
                .as_deref()
                .is_some_and(|manager| GO_OPERATOR_MANAGERS.contains(&manager))
    };
    let is_ours = |entry: &ManagedFieldsEntry| {
        entry.subresource.is_none()
            && entry.manager.as_deref() == Some(MANAGER)
            && entry.operation.as_deref() == Some("Apply")
    };
    if !managed.iter().any(is_theirs) {
        return None;
    }
    let mut ours: Option<ManagedFieldsEntry> = None;
    let mut rest = Vec::new();
    for entry in managed {
        if !is_theirs(entry) && !is_ours(entry) {
            rest.push(entry.clone());
            continue;
        }
        let Some(joined) = &mut ours else {
            ours = Some(ManagedFieldsEntry {
                manager: Some(MANAGER.to_owned()),
                operation: Some("Apply".to_owned()),
                ..entry.clone()
            });
            continue;
        };
        if let Some(fields) = &entry.fields_v1 {
            let into = joined
                .fields_v1
                .get_or_insert_with(|| FieldsV1(Value::Object(Map::new())));
            join(&mut into.0, &fields.0);
        }
    }
    rest.extend(ours);
    Some(rest)
}

/// The union of two sets of fields.
fn join(into: &mut Value, from: &Value) {
    let (Some(into), Some(from)) = (into.as_object_mut(), from.as_object()) else {
        return;
    };
    for (key, value) in from {
        match into.get_mut(key) {
            Some(known) => join(known, value),
            None => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, fields: &Value) -> ManagedFieldsEntry {
        serde_json::from_value(json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields,
        }))
        .unwrap()
    }

    #[test]
    fn fields_of_the_go_operator_join_ours_and_others_stay() {
        let managed = [
            entry(
                "kubectl",
                "Apply",
                &json!({"f:spec": {"f:a": {}, "f:b": {}}}),
            ),
            entry("manager", "Update", &json!({"f:status": {}})),
            entry("cso-manager", "Update", &json!({"f:spec": {"f:c": {}}})),
            entry(
                MANAGER,
                "Apply",
                &json!({"f:spec": {"f:a": {}}, "f:metadata": {}}),
            ),
        ];
        let adopted = adopted(&managed).unwrap();
        assert_eq!(adopted.len(), 2);
        assert_eq!(adopted[0], managed[1]);
        assert_eq!(adopted[1].manager.as_deref(), Some(MANAGER));
        assert_eq!(adopted[1].operation.as_deref(), Some("Apply"));
        let fields = &adopted[1].fields_v1.as_ref().unwrap().0;
        let expected = json!({"f:spec": {"f:a": {}, "f:b": {}, "f:c": {}}, "f:metadata": {}});
        assert_eq!(fields, &expected);
    }

    #[test]
    fn objects_without_such_fields_are_left_alone() {
        assert_eq!(
            adopted(&[entry("manager", "Update", &json!({"f:spec": {}}))]),
            None
        );
    }
}
