//! JSON objects in messages: `google.protobuf.Struct` and back.
//!
//! The wire has one kind of number; those that are whole become integers again, so that settings can be read into integer
//! types. Numbers that JSON cannot say, and nesting that would exhaust a stack, are refused.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as WireValue};
use serde_json::{Map, Number, Value};

use crate::Invalid;

/// Deepest nesting: more than settings have, less than what the protobuf decoder takes.
const MAX_DEPTH: usize = 24;

/// Largest number up to which all whole numbers are numbers on the wire: 2^53.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// The object in a message.
pub(crate) fn read(message: Struct, field: &str) -> Result<Map<String, Value>, Invalid> {
    read_fields(message, field, MAX_DEPTH)
}

fn read_fields(message: Struct, field: &str, depth: usize) -> Result<Map<String, Value>, Invalid> {
    message
        .fields
        .into_iter()
        .map(|(name, value)| Ok((name, read_value(value, field, depth)?)))
        .collect()
}

fn read_value(value: WireValue, field: &str, depth: usize) -> Result<Value, Invalid> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(Invalid::too_large(
            field,
            format!("{MAX_DEPTH} levels of nesting"),
        ));
    };
    Ok(match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::NumberValue(value)) => Value::Number(read_number(value, field)?),
        Some(Kind::ListValue(list)) => list
            .values
            .into_iter()
            .map(|value| read_value(value, field, depth))
            .collect::<Result<_, _>>()?,
        Some(Kind::StructValue(object)) => Value::Object(read_fields(object, field, depth)?),
    })
}

fn read_number(value: f64, field: &str) -> Result<Number, Invalid> {
    if value.fract() == 0.0 && value.abs() <= MAX_WHOLE {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and within 2^53, as the line before says"
        )]
        return Ok(Number::from(value as i64));
    }
    Number::from_f64(value)
        .ok_or_else(|| Invalid::field(field, "holds a number that is not finite"))
}

/// The object as a message.
pub(crate) fn write(object: &Map<String, Value>) -> Struct {
    Struct {
        fields: object
            .iter()
            .map(|(name, value)| (name.clone(), write_value(value)))
            .collect(),
    }
}

fn write_value(value: &Value) -> WireValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(ListValue {
            values: values.iter().map(write_value).collect(),
        }),
        Value::Object(object) => Kind::StructValue(write(object)),
    };
    WireValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn objects_travel_both_ways() {
        let settings = object(json!({
            "endpoint": "tcp://engine:2376", "retries": 3, "share": 0.5, "big": 9_007_199_254_740_991_i64,
            "none": null, "list": [1, "two", {"three": true}], "negative": -4,
        }));
        assert_eq!(read(write(&settings), "config"), Ok(settings));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for number in [f64::NAN, f64::INFINITY] {
            let value = WireValue {
                kind: Some(Kind::NumberValue(number)),
            };
            let message = Struct {
                fields: [("a".to_owned(), value)].into(),
            };
            let invalid = read(message, "config").expect_err("not finite");
            assert_eq!(invalid.path(), "config");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let nested = (0..MAX_DEPTH).fold(json!(1), |inner, _| json!({ "a": inner }));
        assert!(read(write(&object(nested.clone())), "config").is_ok());
        let deeper = json!({ "a": nested });
        let invalid = read(write(&object(deeper)), "config").expect_err("too deep");
        assert_eq!(invalid.reason(), crate::Reason::SizeLimitExceeded);
    }
}
