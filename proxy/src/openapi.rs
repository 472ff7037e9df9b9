//! What both listeners answer, as an OpenAPI document for each: `GET /openapi.json`. The tables are the
//! one list of operations, and the tests ask each of them with each kind of key.

mod callers;
mod operators;
mod tasks;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Anybody,
    /// Whoever bears a key of a tenant.
    Key,
    /// The finance token, and the admin token.
    Sums,
    /// The admin token.
    Operator,
}

/// What a parameter of a query is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    /// A whole number of at least the first, and at most the second.
    Number(i64, i64),
    /// Milliseconds since 1970.
    Time,
    Flag,
    OneOf(&'static [&'static str]),
}

/// One thing that can be asked. Schemas are named as in `schemas.json`; what has a `/` is a media type.
#[derive(Debug, Clone, Copy)]
struct Operation {
    method: &'static str,
    path: &'static str,
    access: Access,
    says: &'static str,
    query: &'static [(&'static str, Kind)],
    body: Option<&'static str>,
    /// Statuses of success, each with what comes then; `""` for nothing.
    answers: &'static [(u16, &'static str)],
}

/// What a caller with a key reads.
const fn get(path: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "get",
        path,
        access: Access::Key,
        says,
        query: &[],
        body: None,
        answers: &[(200, "Object")],
    }
}

const fn delete(path: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "delete",
        ..get(path, says)
    }
}

const fn post(path: &'static str, body: &'static str, says: &'static str) -> Operation {
    Operation {
        method: "post",
        body: Some(body),
        ..get(path, says)
    }
}

/// Times that a calendar has.
const LATEST_MS: i64 = 253_402_300_799_999;
const SCHEMAS: &str = include_str!("openapi/schemas.json");

/// What the listener of callers answers.
pub(crate) static CALLERS: LazyLock<String> = LazyLock::new(|| callers().to_string());
/// What the listener of operators answers.
pub(crate) static OPERATORS: LazyLock<String> = LazyLock::new(|| operators().to_string());

fn callers() -> Value {
    let tasks = tasks::ALL.iter().map(|it| at("", Access::Key, it));
    let all = callers::ALL.iter().copied().map(|it| (String::new(), it));
    document("Pareto, for callers", "Refusal|Problem", all.chain(tasks))
}

fn operators() -> Value {
    let tasks = tasks::ALL.iter().chain(tasks::OPERATORS);
    let tasks = tasks.map(|it| at("/api", Access::Operator, it));
    let all = operators::ALL.iter().copied().map(|it| (String::new(), it));
    document("Pareto, for operators", "Problem", all.chain(tasks))
}

/// An operation on tasks behind `prefix`.
fn at(prefix: &str, access: Access, it: &Operation) -> (String, Operation) {
    (prefix.to_owned(), Operation { access, ..*it })
}

fn document(title: &str, refused: &str, all: impl Iterator<Item = (String, Operation)>) -> Value {
    let mut paths = Map::new();
    for (prefix, it) in all {
        let path = format!("{prefix}{}", it.path);
        let entry = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            entry.insert(it.method.to_owned(), operation(&prefix, &it, refused));
        }
    }
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "basic": { "type": "http", "scheme": "basic" },
                "x-api-key": { "type": "apiKey", "in": "header", "name": "x-api-key" },
            },
        },
    })
}

fn operation(prefix: &str, it: &Operation, refused: &str) -> Value {
    let of_path = it.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({ "name": name, "in": "path", "required": true,
            "schema": { "type": "string", "minLength": 1 } }))
    });
    let of_query = it
        .query
        .iter()
        .map(|(name, kind)| json!({ "name": name, "in": "query", "schema": schema(*kind) }));
    let parameters: Vec<Value> = of_path.chain(of_query).collect();
    let security = match it.access {
        Access::Anybody => json!([]),
        Access::Key => json!([{ "bearer": [] }, { "x-api-key": [] }]),
        Access::Sums | Access::Operator => json!([{ "bearer": [] }, { "basic": [] }]),
    };
    let mut responses: Map<String, Value> = it
        .answers
        .iter()
        .map(|(status, what)| (status.to_string(), answer(what)))
        .collect();
    responses.insert("default".to_owned(), answer(refused));
    let mut whole = json!({
        "operationId": format!("{}{}", it.method, name(&format!("{prefix}{}", it.path))),
        "summary": it.says,
        "parameters": parameters,
        "security": security,
        "responses": responses,
    });
    if it.access == Access::Sums {
        set(&mut whole, "x-pareto-finance", true.into());
    }
    if let Some(body) = it.body {
        set(
            &mut whole,
            "requestBody",
            json!({ "required": true, "content": content(body) }),
        );
    }
    whole
}

/// A path as part of an identifier: `/api/keys/{id}` as `_api_keys_id`.
fn name(path: &str) -> String {
    path.replace(['{', '}'], "").replace(['/', '-', '.'], "_")
}

fn answer(what: &str) -> Value {
    let mut answer = json!({ "description": what });
    if !what.is_empty() {
        set(&mut answer, "content", content(what));
    }
    answer
}

/// What a body is: a media type, or JSON of a schema. Both may be where a caller chooses: `Call|text/event-stream`.
fn content(what: &str) -> Value {
    let kinds = what.split('|').map(|what| {
        if what.contains('/') {
            (what.to_owned(), json!({}))
        } else {
            let kind = if what == "Problem" {
                "application/problem+json"
            } else {
                "application/json"
            };
            let schema = json!({ "$ref": format!("#/components/schemas/{what}") });
            (kind.to_owned(), json!({ "schema": schema }))
        }
    });
    Value::Object(kinds.collect())
}

fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Text => json!({ "type": "string" }),
        Kind::Number(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Time => json!({ "type": "integer", "minimum": 0, "maximum": LATEST_MS }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::OneOf(words) => json!({ "type": "string", "enum": words }),
    }
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}
