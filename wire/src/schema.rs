//! Whether a value is what a JSON schema asks for, as far as the vendors' structured output goes: types,
//! enumerations, required and further fields, items, bounds, alternatives and local references.
//!
//! A keyword that is not known here is taken as met, so that an answer is never turned away for a
//! dialect of schemas that nobody here speaks. Patterns and formats are among them: a caller's pattern
//! may take longer than any answer.

use serde_json::{Map, Value};

/// Schemas within schemas; deeper ones are taken as met.
const DEEPEST: u32 = 64;
/// Comparisons in all: alternatives within alternatives multiply.
const MOST_STEPS: u32 = 100_000;

/// Whether `schema` admits `value`.
pub fn admits(schema: &Value, value: &Value) -> bool {
    let mut walk = Walk {
        root: schema,
        steps: 0,
        gave_up: false,
    };
    walk.admits(schema, value, 0) || walk.gave_up
}

struct Walk<'a> {
    root: &'a Value,
    steps: u32,
    /// It went too deep or took too long to tell.
    gave_up: bool,
}

impl Walk<'_> {
    fn admits(&mut self, schema: &Value, value: &Value, depth: u32) -> bool {
        self.steps += 1;
        if depth > DEEPEST || self.steps > MOST_STEPS {
            self.gave_up = true;
            return true;
        }
        let schema = match schema {
            Value::Bool(all) => return *all,
            Value::Object(schema) => schema,
            _ => return true,
        };
        if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
            let root = self.root;
            let target = name.strip_prefix('#').and_then(|at| root.pointer(at));
            if target.is_some_and(|target| !self.admits(target, value, depth + 1)) {
                return false;
            }
        }
        is_of_type(schema, value)
            && is_of_value(schema, value)
            && is_in_bounds(schema, value)
            && self.fields(schema, value, depth)
            && self.items(schema, value, depth)
            && self.alternatives(schema, value, depth)
    }

    fn fields(&mut self, schema: &Map<String, Value>, value: &Value, depth: u32) -> bool {
        let Value::Object(fields) = value else {
            return true;
        };
        let required = schema.get("required").and_then(Value::as_array);
        let missing = |name: &Value| name.as_str().is_some_and(|name| !fields.contains_key(name));
        if required.is_some_and(|names| names.iter().any(missing)) {
            return false;
        }
        let known = schema.get("properties").and_then(Value::as_object);
        let patterns = schema.contains_key("patternProperties");
        let further = schema.get("additionalProperties").filter(|_| !patterns);
        fields.iter().all(|(name, value)| {
            let own = known.and_then(|known| known.get(name)).or(further);
            own.is_none_or(|own| self.admits(own, value, depth + 1))
        })
    }

    fn items(&mut self, schema: &Map<String, Value>, value: &Value, depth: u32) -> bool {
        let Value::Array(items) = value else {
            return true;
        };
        let heads = schema.get("prefixItems").and_then(Value::as_array);
        let heads = heads.map_or(&[][..], Vec::as_slice);
        let rest = schema.get("items");
        items.iter().enumerate().all(|(place, item)| {
            let own = heads.get(place).or(rest);
            own.is_none_or(|own| self.admits(own, item, depth + 1))
        })
    }

    fn alternatives(&mut self, schema: &Map<String, Value>, value: &Value, depth: u32) -> bool {
        let list = |name: &str| schema.get(name).and_then(Value::as_array);
        let mut admitted = |all: &Vec<Value>| {
            let admits = all.iter().filter(|it| self.admits(it, value, depth + 1));
            (admits.count(), all.len())
        };
        let all = list("allOf").map(&mut admitted);
        let any = list("anyOf").map(&mut admitted);
        let one = list("oneOf").map(&mut admitted);
        all.is_none_or(|(met, of)| met == of)
            && any.is_none_or(|(met, _)| met > 0)
            && one.is_none_or(|(met, _)| met == 1)
    }
}

fn is_of_type(schema: &Map<String, Value>, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        // 1.0 is one as well.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => true,
    };
    match schema.get("type") {
        Some(Value::String(name)) => is(name),
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).any(is),
        _ => true,
    }
}

fn is_of_value(schema: &Map<String, Value>, value: &Value) -> bool {
    let listed = schema.get("enum").and_then(Value::as_array);
    let constant = schema.get("const");
    listed.is_none_or(|listed| listed.iter().any(|it| is_same(it, value)))
        && constant.is_none_or(|constant| is_same(constant, value))
}

/// Numbers are the same however they are written.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() < f64::EPSILON,
        _ => one == other,
    }
}

fn is_in_bounds(schema: &Map<String, Value>, value: &Value) -> bool {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    let within = |size: f64, least: &str, most: &str| {
        bound(least).is_none_or(|least| size >= least)
            && bound(most).is_none_or(|most| size <= most)
    };
    let length = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            within(number, "minimum", "maximum")
                && bound("exclusiveMinimum").is_none_or(|least| number > least)
                && bound("exclusiveMaximum").is_none_or(|most| number < most)
        }
        Value::String(text) => within(length(text.chars().count()), "minLength", "maxLength"),
        Value::Array(items) => within(length(items.len()), "minItems", "maxItems"),
        Value::Object(fields) => within(length(fields.len()), "minProperties", "maxProperties"),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(schema: &Value, good: &[Value], bad: &[Value]) {
        for value in good {
            assert!(admits(schema, value), "{value} by {schema}");
        }
        for value in bad {
            assert!(!admits(schema, value), "{value} by {schema}");
        }
    }

    #[test]
    fn objects_have_their_fields_and_no_others() {
        let schema = json!({
            "type": "object", "required": ["city", "days"], "additionalProperties": false,
            "properties": {
                "city": { "type": "string", "minLength": 1 },
                "days": { "type": "integer", "minimum": 1, "maximum": 14 },
                "unit": { "enum": ["C", "F", null] },
            },
        });
        check(
            &schema,
            &[
                json!({ "city": "Paris", "days": 3 }),
                json!({ "city": "Paris", "days": 3.0, "unit": null }),
            ],
            &[
                json!({ "city": "Paris" }),
                json!({ "city": "", "days": 3 }),
                json!({ "city": "Paris", "days": 2.5 }),
                json!({ "city": "Paris", "days": 15 }),
                json!({ "city": "Paris", "days": 3, "unit": "K" }),
                json!({ "city": "Paris", "days": 3, "more": 1 }),
                json!("Paris"),
            ],
        );
    }

    #[test]
    fn references_items_and_alternatives_are_followed() {
        let schema = json!({
            "$defs": { "node": { "type": "object", "required": ["value"], "properties": {
                "value": { "anyOf": [{ "type": "number" }, { "type": "null" }] },
                "next": { "$ref": "#/$defs/node" },
                "tags": { "type": "array", "items": { "type": "string" }, "maxItems": 2 },
            } } },
            "$ref": "#/$defs/node",
        });
        check(
            &schema,
            &[
                json!({ "value": 1, "next": { "value": null, "tags": ["a", "b"] } }),
                json!({ "value": 1, "unknown": true }),
            ],
            &[
                json!({ "value": 1, "next": { "value": "1" } }),
                json!({ "value": 1, "tags": ["a", 1] }),
                json!({ "value": 1, "tags": ["a", "b", "c"] }),
            ],
        );
    }

    #[test]
    fn what_is_not_known_or_has_no_end_is_met() {
        check(
            &json!({ "pattern": "^(a+)+$", "format": "email" }),
            &[json!("x")],
            &[],
        );
        check(&json!({ "$ref": "#" }), &[json!(1)], &[]);
        check(
            &json!({ "$ref": "https://example.com/s" }),
            &[json!(1)],
            &[],
        );
        let mut twice = json!({ "type": "string" });
        for _ in 0..60 {
            twice = json!({ "anyOf": [twice, { "type": "null" }] });
        }
        check(&twice, &[json!("x")], &[json!(1)]);
    }
}
