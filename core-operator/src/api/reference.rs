//! Schemas of references to other objects.
//!
//! The fields are those of `v1.ObjectReference`, with limits as for all strings: the API server counts the cost of rules with the longest values that the
//! schema allows.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Any object.
pub(super) fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "apiVersion": {"type": "string", "maxLength": 317, "description": "Group and version of the object."},
            "kind": {"type": "string", "maxLength": 63, "description": "Kind of the object."},
            "name": {"type": "string", "maxLength": 253, "description": "Name of the object."},
            "namespace": {"type": "string", "maxLength": 63, "description": "Namespace of the object."},
            "uid": {"type": "string", "maxLength": 128, "description": "UID of the object. Not used."},
            "resourceVersion": {"type": "string", "maxLength": 128, "description": "Version of the object. Not used."},
            "fieldPath": {"type": "string", "maxLength": 1024, "description": "Part of the object. Not used."},
        },
    })
}

/// An object of a known kind in the same namespace.
pub(super) fn local(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 253, "description": "Name of the object."},
        },
    })
}
