//! Schemas as structured output of Anthropic Messages takes them: objects are closed, and numbers,
//! lengths and counts have no bounds. One that asks for more would be refused with the whole call.

use serde_json::{Map, Value};

/// What a schema must not ask for.
const BOUNDS: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];

/// Takes out of `schema` what is not taken; `true` where it had anything of that kind.
pub(super) fn fit(schema: &mut Value) -> bool {
    let Some(fields) = schema.as_object_mut() else {
        return false;
    };
    let mut changed = false;
    for name in BOUNDS {
        changed |= fields.shift_remove(*name).is_some();
    }
    // One of several and any of several differ only where more than one fits.
    if let Some(schemas) = fields.shift_remove("oneOf") {
        fields.entry("anyOf").or_insert(schemas);
        changed = true;
    }
    let is_object = fields.get("type").and_then(Value::as_str) == Some("object");
    let closed = Value::Bool(false);
    if is_object && fields.get("additionalProperties") != Some(&closed) {
        fields.insert("additionalProperties".to_owned(), closed);
        changed = true;
    }
    for (name, inner) in fields.iter_mut() {
        match (name.as_str(), inner) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                for schema in named.values_mut() {
                    changed |= fit(schema);
                }
            }
            ("anyOf" | "allOf", Value::Array(schemas)) => {
                for schema in schemas {
                    changed |= fit(schema);
                }
            }
            ("items" | "not", schema) => changed |= fit(schema),
            _ => {}
        }
    }
    changed
}

/// Merges the branches of a tool's schema, which may not have any at the top: the properties of all are
/// offered, and only those of branches that must all fit are required. `true` where there were any.
pub(super) fn merge(fields: &mut Map<String, Value>) -> bool {
    let mut changed = false;
    for (word, all) in [("allOf", true), ("anyOf", false), ("oneOf", false)] {
        let Some(Value::Array(branches)) = fields.shift_remove(word) else {
            continue;
        };
        changed = true;
        for mut branch in branches {
            take(fields, &mut branch, "properties");
            if all {
                take(fields, &mut branch, "required");
            }
        }
    }
    changed
}

/// Adds what `branch` has at `name` to what `fields` have there.
fn take(fields: &mut Map<String, Value>, branch: &mut Value, name: &str) {
    let Some(taken) = branch.get_mut(name).map(Value::take) else {
        return;
    };
    match (fields.get_mut(name), taken) {
        (Some(Value::Object(known)), Value::Object(more)) => {
            for (name, schema) in more {
                known.entry(name).or_insert(schema);
            }
        }
        (Some(Value::Array(known)), Value::Array(more)) => {
            let new: Vec<Value> = more.into_iter().filter(|it| !known.contains(it)).collect();
            known.extend(new);
        }
        (None, taken) => {
            fields.insert(name.to_owned(), taken);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_taken_is_taken_out_and_names_are_left_alone() {
        let mut schema = json!({ "type": "object", "properties": {
            "minimum": { "type": "integer", "minimum": 1 },
            "list": { "type": "array", "items": { "type": "object", "properties": {} }, "maxItems": 3 } } });
        assert!(fit(&mut schema));
        let closed = json!({ "type": "object", "additionalProperties": false, "properties": {
            "minimum": { "type": "integer" },
            "list": { "type": "array", "items": { "type": "object", "properties": {},
                "additionalProperties": false } } } });
        assert_eq!(schema, closed);
        assert!(!fit(&mut schema), "nothing is left to take out");
    }
}
