//! Just enough of JSON Schema to see whether a sample fits: a provider's schema is for people and tools, the provider itself
//! validates, so what this does not know it lets pass.

use serde_json::Value;

/// What is wrong with a schema itself, if anything.
pub(crate) fn flaw(schema: &Value) -> Option<String> {
    flaw_at(schema, "$")
}

const TYPES: [&str; 7] = [
    "null", "boolean", "object", "array", "number", "string", "integer",
];

fn flaw_at(schema: &Value, path: &str) -> Option<String> {
    let fields = match schema {
        Value::Bool(_) => return None,
        Value::Object(fields) => fields,
        _ => return Some(format!("{path} is neither an object nor a boolean")),
    };
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        let flaw = match name.as_str() {
            "type" => {
                let known =
                    |value: &Value| value.as_str().is_some_and(|text| TYPES.contains(&text));
                let good = match value {
                    Value::Array(types) => !types.is_empty() && types.iter().all(known),
                    one => known(one),
                };
                (!good).then(|| format!("{path} names no type"))
            }
            "properties" | "patternProperties" | "$defs" | "definitions" => match value {
                Value::Object(parts) => parts
                    .iter()
                    .find_map(|(part, schema)| flaw_at(schema, &format!("{path}.{part}"))),
                _ => Some(format!("{path} is no object")),
            },
            "items"
            | "additionalProperties"
            | "not"
            | "if"
            | "then"
            | "else"
            | "contains"
            | "propertyNames" => flaw_at(value, &path),
            "allOf" | "anyOf" | "oneOf" => match value {
                Value::Array(parts) if !parts.is_empty() => {
                    parts.iter().find_map(|part| flaw_at(part, &path))
                }
                _ => Some(format!("{path} is no list of schemas")),
            },
            "required" => (!value
                .as_array()
                .is_some_and(|names| names.iter().all(Value::is_string)))
            .then(|| format!("{path} is no list of names")),
            "enum" => (!value.is_array()).then(|| format!("{path} is no list")),
            "pattern" => match value.as_str() {
                Some(_) => None,
                None => Some(format!("{path} is no text")),
            },
            "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties"
            | "maxProperties" => (!value.is_u64()).then(|| format!("{path} is no count")),
            "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                (!value.is_number()).then(|| format!("{path} is no number"))
            }
            _ => None,
        };
        if flaw.is_some() {
            return flaw;
        }
    }
    None
}

/// Why a value does not fit, if it does not.
pub(crate) fn misfit(root: &Value, value: &Value) -> Option<String> {
    misfit_at(root, root, value, "$", 0)
}

/// Deeper schemas refer to themselves.
const DEEPEST: usize = 64;

fn misfit_at(
    root: &Value,
    schema: &Value,
    value: &Value,
    path: &str,
    depth: usize,
) -> Option<String> {
    if depth > DEEPEST {
        return None;
    }
    let fields = match schema {
        Value::Bool(false) => return Some(format!("{path} is not allowed")),
        Value::Object(fields) => fields,
        _ => return None,
    };
    let check =
        |schema: &Value, value: &Value, path: &str| misfit_at(root, schema, value, path, depth + 1);
    if let Some(reference) = fields.get("$ref").and_then(Value::as_str)
        && let Some(schema) = reference
            .strip_prefix('#')
            .and_then(|pointer| root.pointer(pointer))
        && let Some(misfit) = check(schema, value, path)
    {
        return Some(misfit);
    }
    if let Some(types) = fields.get("type") {
        let fits = |name: &Value| match name.as_str() {
            Some("null") => value.is_null(),
            Some("boolean") => value.is_boolean(),
            Some("object") => value.is_object(),
            Some("array") => value.is_array(),
            Some("number") => value.is_number(),
            // A whole number is an integer however it is written.
            Some("integer") => value.as_f64().is_some_and(|number| number.fract() == 0.0),
            Some("string") => value.is_string(),
            _ => true,
        };
        let good = match types {
            Value::Array(types) => types.iter().any(fits),
            one => fits(one),
        };
        if !good {
            return Some(format!("{path} is not of type {types}"));
        }
    }
    if let Some(Value::Array(allowed)) = fields.get("enum")
        && !allowed.contains(value)
    {
        return Some(format!("{path} is none of the allowed values"));
    }
    if let Some(constant) = fields.get("const")
        && constant != value
    {
        return Some(format!("{path} is not {constant}"));
    }
    let parts = |name: &str| {
        fields
            .get(name)
            .and_then(Value::as_array)
            .map(Vec::as_slice)
            .unwrap_or_default()
    };
    if let Some(misfit) = parts("allOf")
        .iter()
        .find_map(|part| check(part, value, path))
    {
        return Some(misfit);
    }
    for name in ["anyOf", "oneOf"] {
        let parts = parts(name);
        if !parts.is_empty() && parts.iter().all(|part| check(part, value, path).is_some()) {
            return Some(format!("{path} fits no part of {name}"));
        }
    }
    misfit_inside(root, fields, value, path, depth)
}

/// What is wrong with the members, items, letters or digits.
fn misfit_inside(
    root: &Value,
    fields: &serde_json::Map<String, Value>,
    value: &Value,
    path: &str,
    depth: usize,
) -> Option<String> {
    let check =
        |schema: &Value, value: &Value, path: &str| misfit_at(root, schema, value, path, depth + 1);
    match value {
        Value::Object(members) => {
            for name in fields
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
            {
                if !members.contains_key(name) {
                    return Some(format!("{path}.{name} is missing"));
                }
            }
            let properties = fields.get("properties").and_then(Value::as_object);
            for (name, member) in members {
                let path = format!("{path}.{name}");
                let misfit = match properties.and_then(|properties| properties.get(name)) {
                    Some(schema) => check(schema, member, &path),
                    None if fields.contains_key("patternProperties") => None,
                    None => fields
                        .get("additionalProperties")
                        .and_then(|schema| check(schema, member, &path)),
                };
                if misfit.is_some() {
                    return misfit;
                }
            }
            None
        }
        Value::Array(items) => fields.get("items").and_then(|schema| {
            items
                .iter()
                .enumerate()
                .find_map(|(index, item)| check(schema, item, &format!("{path}[{index}]")))
        }),
        Value::String(text) => {
            let count = text.chars().count() as u64;
            let limit = |name: &str| fields.get(name).and_then(Value::as_u64);
            if limit("minLength").is_some_and(|least| count < least)
                || limit("maxLength").is_some_and(|most| count > most)
            {
                return Some(format!("{path} has {count} characters"));
            }
            fields
                .get("pattern")
                .and_then(Value::as_str)
                .and_then(|pattern| regex::Regex::new(pattern).ok())
                .filter(|pattern| !pattern.is_match(text))
                .map(|pattern| format!("{path} does not match \"{pattern}\""))
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            let limit = |name: &str| fields.get(name).and_then(Value::as_f64);
            (limit("minimum").is_some_and(|least| number < least)
                || limit("maximum").is_some_and(|most| number > most))
            .then(|| format!("{path} is out of range"))
        }
        Value::Null | Value::Bool(_) => None,
    }
}

/// Names of all properties, wherever they stand.
pub(crate) fn property_names(schema: &Value) -> Vec<String> {
    let mut names = Vec::new();
    collect(schema, &mut names);
    names
}

fn collect(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                names.extend(properties.keys().cloned());
            }
            for value in fields.values() {
                collect(value, names);
            }
        }
        Value::Array(parts) => {
            for part in parts {
                collect(part, names);
            }
        }
        _ => {}
    }
}

/// Settings that the schema forbids, made from good ones; `None` if it forbids nothing that could be tried.
pub(crate) fn violation(schema: &Value, good: &Value) -> Option<Value> {
    let mut candidates = Vec::new();
    let members = good.as_object().cloned().unwrap_or_default();
    for name in members.keys().cloned().chain(property_names(schema)) {
        for wrong in [Value::from(7.5), Value::from("?"), Value::Bool(true)] {
            let mut members = members.clone();
            members.insert(name.clone(), wrong);
            candidates.push(Value::Object(members));
        }
    }
    let mut unknown = members;
    unknown.insert("conformanceUnknown".into(), Value::Bool(true));
    candidates.push(Value::Object(unknown));
    candidates
        .into_iter()
        .find(|candidate| misfit(schema, candidate).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["endpoint"],
            "additionalProperties": false,
            "properties": {
                "endpoint": {"type": "string", "minLength": 1},
                "size": {"type": "integer", "minimum": 1},
                "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
            },
            "$defs": {"tag": {"type": "string", "pattern": "^[a-z]+$"}},
        })
    }

    #[test]
    fn values_fit_or_not() {
        for (value, fits) in [
            (json!({"endpoint": "x"}), true),
            (json!({"endpoint": "x", "size": 2.0, "tags": ["a"]}), true),
            (json!({}), false),
            (json!({"endpoint": ""}), false),
            (json!({"endpoint": 1}), false),
            (json!({"endpoint": "x", "size": 0}), false),
            (json!({"endpoint": "x", "size": 1.5}), false),
            (json!({"endpoint": "x", "tags": ["A"]}), false),
            (json!({"endpoint": "x", "other": 1}), false),
        ] {
            assert_eq!(misfit(&schema(), &value).is_none(), fits, "{value}");
        }
    }

    #[test]
    fn flaws_of_schemas_are_found() {
        assert_eq!(flaw(&schema()), None);
        for wrong in [
            json!([]),
            json!({"type": "text"}),
            json!({"properties": []}),
            json!({"properties": {"a": {"required": "b"}}}),
        ] {
            assert!(flaw(&wrong).is_some(), "{wrong}");
        }
    }

    #[test]
    fn violation_is_one() {
        let wrong = violation(&schema(), &json!({"endpoint": "x"})).unwrap();
        assert!(misfit(&schema(), &wrong).is_some());
        assert_eq!(violation(&json!({"type": "object"}), &json!({})), None);
    }
}
