//! The shapes of OpenAI Responses.

use bytes::Bytes;
use serde_json::{Value, json};

use super::content::{Call, Content};
use super::openai::token;
use super::seal;
use super::steps::{Events, halves};

/// Fields that an answer repeats from its request, each with what the vendor puts where none came.
fn echoed(request: &Value) -> Value {
    let mut fields = json!({
        "background": false, "instructions": null, "max_output_tokens": null, "max_tool_calls": null,
        "metadata": {}, "parallel_tool_calls": true, "previous_response_id": null,
        "prompt_cache_key": null, "prompt_cache_retention": null,
        "reasoning": { "effort": null, "summary": null }, "safety_identifier": null,
        "service_tier": "default", "store": true, "temperature": 1.0,
        "text": { "format": { "type": "text" }, "verbosity": "medium" }, "tool_choice": "auto",
        "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": null,
    });
    for (name, field) in fields.as_object_mut().into_iter().flatten() {
        match &request[name.as_str()] {
            Value::Null => {}
            // What a caller leaves out of these two keeps its default.
            Value::Object(given) if matches!(name.as_str(), "reasoning" | "text") => {
                for (inner, value) in given {
                    field[inner.as_str()] = value.clone();
                }
            }
            given => *field = given.clone(),
        }
    }
    if fields["service_tier"] == "auto" {
        fields["service_tier"] = Value::from("default");
    }
    fields
}

fn usage(content: &Content) -> Value {
    if content.hostile_usage {
        return json!({ "input_tokens": -5, "output_tokens": 1e300, "total_tokens": "many" });
    }
    json!({
        "input_tokens": content.prompt_tokens,
        "input_tokens_details": { "cached_tokens": content.cached_tokens },
        "output_tokens": content.output_tokens,
        "output_tokens_details": { "reasoning_tokens": content.reasoning_tokens },
        "total_tokens": content.prompt_tokens + content.output_tokens,
    })
}

fn status(content: &Content) -> &'static str {
    if content.cut_by_cap {
        "incomplete"
    } else {
        "completed"
    }
}

/// The id of an answer.
pub(super) fn id(content: &Content) -> String {
    format!("resp_{}", content.stem)
}

/// The response as its first events show it.
fn begun(content: &Content, request: &Value) -> Value {
    let mut response = echoed(request);
    for (name, value) in [
        ("id", Value::from(id(content))),
        ("object", Value::from("response")),
        ("created_at", Value::from(1_795_000_000)),
        ("status", Value::from("in_progress")),
        ("model", Value::from(content.model.as_str())),
        ("output", json!([])),
        ("completed_at", Value::Null),
        ("error", Value::Null),
        ("incomplete_details", Value::Null),
        ("usage", Value::Null),
    ] {
        response[name] = value;
    }
    response
}

/// The response with its end.
fn ended(content: &Content, request: &Value) -> Value {
    let mut response = begun(content, request);
    response["status"] = Value::from(status(content));
    response["output"] = output(content).into();
    if content.cut_by_cap {
        response["incomplete_details"] = json!({ "reason": "max_output_tokens" });
    } else {
        response["completed_at"] = Value::from(1_795_000_001);
    }
    if content.reports_usage {
        response["usage"] = usage(content);
    }
    response
}

fn reasoning(content: &Content) -> Value {
    let text = content.thought();
    json!({
        "id": format!("rs_{}", content.stem), "type": "reasoning",
        "encrypted_content": seal::encrypted(&content.origin, &text),
        "summary": [{ "type": "summary_text", "text": text }],
    })
}

fn message(content: &Content, status: &str, parts: &[Value]) -> Value {
    json!({ "id": format!("msg_{}", content.stem), "type": "message", "status": status,
        "role": "assistant", "content": parts })
}

fn text_part(content: &Content, text: &str) -> Value {
    if content.refuses {
        return json!({ "type": "refusal", "refusal": text });
    }
    let logprobs = if text.is_empty() {
        json!([])
    } else {
        logprobs(
            content,
            content.pieces.iter().map(|(text, _)| text.as_str()),
        )
    };
    json!({ "type": "output_text", "annotations": [], "logprobs": logprobs, "text": text })
}

fn logprobs<'a>(content: &Content, pieces: impl Iterator<Item = &'a str>) -> Value {
    let told = content.logprob.into_iter();
    let pieces: Vec<&str> = pieces.collect();
    told.flat_map(|logprob| pieces.iter().map(move |piece| token(piece, logprob)))
        .collect()
}

fn call_item(content: &Content, call: &Call, status: &str, input: &str) -> Value {
    let (kind, prefix, field) = if call.custom {
        ("custom_tool_call", "ctc", "input")
    } else {
        ("function_call", "fc", "arguments")
    };
    let mut item = json!({
        "id": format!("{prefix}_{}{}", content.stem, call.suffix), "type": kind, "status": status,
        "call_id": format!("call_{}{}", content.stem, call.suffix), "name": call.name, field: input,
    });
    if let Some(namespace) = &call.namespace {
        item["namespace"] = Value::from(namespace.as_str());
    }
    item
}

/// The finished items of an answer.
pub(super) fn output(content: &Content) -> Vec<Value> {
    let mut items = Vec::new();
    if !content.thinking.is_empty() {
        items.push(reasoning(content));
    }
    if content.has_text() {
        let status = if content.calls.is_empty() {
            status(content)
        } else {
            "completed"
        };
        let part = text_part(content, &content.text());
        items.push(message(content, status, &[part]));
    }
    for call in &content.calls {
        items.push(call_item(content, call, "completed", &call.arguments));
    }
    items
}

/// A whole reply.
pub(super) fn whole(content: &Content, request: &Value) -> String {
    ended(content, request).to_string()
}

/// An event, whose place in its stream is `number`.
pub(super) fn event(number: usize, name: &str, mut data: Value) -> Bytes {
    data["type"] = Value::from(name);
    data["sequence_number"] = Value::from(number);
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// The events of a stream under way.
#[derive(Default)]
struct Stream {
    events: Vec<(Bytes, u64)>,
    /// Items ended, which is the place of the present one.
    items: usize,
}

impl Stream {
    fn push(&mut self, name: &str, data: Value, tokens: u64) {
        let event = event(self.events.len(), name, data);
        self.events.push((event, tokens));
    }

    /// An event about the present item, `place` in it and the other `fields`.
    fn inside(&mut self, name: &str, item: &Value, fields: Value, tokens: u64) {
        let mut data = fields;
        data["item_id"] = item["id"].clone();
        data["output_index"] = Value::from(self.items);
        self.push(name, data, tokens);
    }

    fn added(&mut self, item: &Value) {
        let data = json!({ "output_index": self.items, "item": item });
        self.push("response.output_item.added", data, 0);
    }

    fn done(&mut self, item: &Value) {
        let data = json!({ "output_index": self.items, "item": item });
        self.push("response.output_item.done", data, 0);
        self.items += 1;
    }

    fn reasoning(&mut self, content: &Content, item: &Value) {
        let mut empty = item.clone();
        empty["summary"] = json!([]);
        self.added(&empty);
        let part = |text: &str| json!({ "summary_index": 0, "part": { "type": "summary_text", "text": text } });
        self.inside("response.reasoning_summary_part.added", item, part(""), 0);
        for (text, tokens) in &content.thinking {
            let data = json!({ "summary_index": 0, "delta": text });
            self.inside("response.reasoning_summary_text.delta", item, data, *tokens);
        }
        let text = content.thought();
        let data = json!({ "summary_index": 0, "text": text });
        self.inside("response.reasoning_summary_text.done", item, data, 0);
        self.inside("response.reasoning_summary_part.done", item, part(&text), 0);
        self.done(item);
    }

    fn message(&mut self, content: &Content, item: &Value) {
        self.added(&message(content, "in_progress", &[]));
        let part = |text: &str| json!({ "content_index": 0, "part": text_part(content, text) });
        let (name, field) = if content.refuses {
            ("response.refusal", "refusal")
        } else {
            ("response.output_text", "text")
        };
        self.inside("response.content_part.added", item, part(""), 0);
        for (text, tokens) in &content.pieces {
            let told = logprobs(content, [text.as_str()].into_iter());
            let data = json!({ "content_index": 0, "delta": text, "logprobs": told });
            self.inside(&format!("{name}.delta"), item, data, *tokens);
        }
        let text = content.text();
        let data = json!({ "content_index": 0, field: text, "logprobs": [] });
        self.inside(&format!("{name}.done"), item, data, 0);
        self.inside("response.content_part.done", item, part(&text), 0);
        self.done(item);
    }

    fn call(&mut self, content: &Content, call: &Call, item: &Value) {
        self.added(&call_item(content, call, "in_progress", ""));
        let (name, field) = if call.custom {
            ("response.custom_tool_call_input", "input")
        } else {
            ("response.function_call_arguments", "arguments")
        };
        let (head, tail) = halves(&call.arguments);
        for (part, tokens) in [(head, call.tokens), (tail, 0)] {
            let data = json!({ "delta": part });
            self.inside(&format!("{name}.delta"), item, data, tokens);
        }
        let data = json!({ field: call.arguments });
        self.inside(&format!("{name}.done"), item, data, 0);
        self.done(item);
    }
}

/// A stream: events, each with the answer tokens in it.
pub(super) fn events(content: &Content, request: &Value) -> Events {
    let mut stream = Stream::default();
    let response = json!({ "response": begun(content, request) });
    stream.push("response.created", response.clone(), 0);
    stream.push("response.in_progress", response, 0);
    let mut calls = content.calls.iter();
    for item in output(content) {
        match item["type"].as_str() {
            Some("reasoning") => stream.reasoning(content, &item),
            Some("message") => stream.message(content, &item),
            _ => {
                if let Some(call) = calls.next() {
                    stream.call(content, call, &item);
                }
            }
        }
    }
    let end = stream.events.len();
    if content.has_end {
        let name = format!("response.{}", status(content));
        let data = json!({ "response": ended(content, request) });
        stream.push(&name, data, 0);
    }
    Events {
        list: stream.events,
        end,
    }
}

/// The event that tells of a failure of the whole response.
pub(super) fn failed(content: &Content, request: &Value, number: usize) -> Bytes {
    let mut response = begun(content, request);
    response["status"] = Value::from("failed");
    response["error"] = json!({ "code": "server_error", "message": "scripted" });
    event(number, "response.failed", json!({ "response": response }))
}
