//! The smallest JSON that fits a schema, so that an answer can keep to one.

use serde_json::{Map, Value, json};

/// How deep a schema is followed; one that contains itself ends here.
const DEEPEST: usize = 8;

/// A value that fits `schema`: always the same for the same schema.
pub(super) fn fit(schema: &Value) -> Value {
    value(schema, schema, 0)
}

fn value(schema: &Value, root: &Value, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::Null;
    }
    let inner = |schema: &Value| value(schema, root, depth + 1);
    let list = |name: &str| schema[name].as_array().filter(|list| !list.is_empty());
    if let Some(path) = schema["$ref"].as_str() {
        let target = root.pointer(path.trim_start_matches('#'));
        return target.map_or(Value::Null, inner);
    }
    if !schema["const"].is_null() {
        return schema["const"].clone();
    }
    if let Some(first) = list("enum").and_then(|list| list.first()) {
        return first.clone();
    }
    if let Some(list) = list("anyOf").or_else(|| list("oneOf")) {
        let chosen = list.iter().find(|one| one["type"] != "null");
        return chosen.or(list.first()).map_or(Value::Null, inner);
    }
    if let Some(list) = list("allOf") {
        return list.iter().map(inner).fold(Value::Null, merged);
    }
    match kind(schema) {
        "integer" | "number" => number(schema),
        "boolean" => Value::Bool(true),
        "null" => Value::Null,
        "array" if depth == DEEPEST => json!([]),
        "array" => json!([inner(&schema["items"])]),
        "object" => object(schema, inner),
        _ => Value::from("Paris"),
    }
}

fn kind(schema: &Value) -> &str {
    let several = schema["type"].as_array();
    let first = several.and_then(|kinds| {
        let named = kinds.iter().filter_map(Value::as_str);
        named
            .clone()
            .find(|kind| *kind != "null")
            .or_else(|| named.clone().next())
    });
    let guessed = if schema["properties"].is_object() {
        "object"
    } else if schema["items"].is_object() {
        "array"
    } else {
        "string"
    };
    schema["type"].as_str().or(first).unwrap_or(guessed)
}

fn number(schema: &Value) -> Value {
    let bound = |name: &str| schema[name].as_i64();
    let least = bound("minimum").unwrap_or(i64::MIN);
    Value::from(7.max(least).min(bound("maximum").unwrap_or(i64::MAX)))
}

fn object(schema: &Value, inner: impl Fn(&Value) -> Value) -> Value {
    let fields = schema["properties"].as_object();
    let filled = fields.into_iter().flatten();
    filled
        .map(|(name, schema)| (name.clone(), inner(schema)))
        .collect::<Map<_, _>>()
        .into()
}

fn merged(left: Value, right: Value) -> Value {
    match (left, right) {
        (Value::Object(mut left), Value::Object(right)) => {
            left.extend(right);
            left.into()
        }
        (Value::Null, right) => right,
        (left, _) => left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(schema: &Value, wanted: &Value) {
        assert_eq!(fit(schema), *wanted, "{schema}");
    }

    #[test]
    fn each_kind_of_schema_gets_a_value_that_fits() {
        check(&json!({ "type": "string" }), &json!("Paris"));
        check(
            &json!({ "type": "string", "enum": ["c", "f"] }),
            &json!("c"),
        );
        check(&json!({ "type": ["null", "integer"] }), &json!(7));
        check(&json!({ "type": "integer", "maximum": 3 }), &json!(3));
        check(
            &json!({ "anyOf": [{ "type": "null" }, { "type": "boolean" }] }),
            &json!(true),
        );
        check(
            &json!({ "type": "object", "properties": { "name": { "type": "string" },
                "tags": { "type": "array", "items": { "type": "number" } } } }),
            &json!({ "name": "Paris", "tags": [7] }),
        );
        check(
            &json!({ "$ref": "#/$defs/a", "$defs": { "a": { "const": 1 } } }),
            &json!(1),
        );
        check(
            &json!({ "allOf": [{ "properties": { "a": {} } }, { "properties": { "b": {} } }] }),
            &json!({ "a": "Paris", "b": "Paris" }),
        );
    }

    #[test]
    fn a_schema_that_contains_itself_comes_to_an_end() {
        let list = json!({ "type": "array", "items": { "$ref": "#/properties/next" } });
        let schema = json!({ "type": "object", "properties": { "next": list } });
        assert!(fit(&schema)["next"].is_array());
    }
}
