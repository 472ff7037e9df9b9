//! The shapes of OpenAI Chat Completions.

use bytes::Bytes;
use serde_json::{Value, json};

use super::content::{Call, Content};
use super::steps::{Events, halves};

fn usage(content: &Content) -> Value {
    if content.hostile_usage {
        return json!({ "prompt_tokens": -5, "completion_tokens": 1e300, "total_tokens": "many" });
    }
    json!({
        "prompt_tokens": content.prompt_tokens,
        "completion_tokens": content.output_tokens,
        "total_tokens": content.prompt_tokens + content.output_tokens,
        "prompt_tokens_details": { "cached_tokens": content.cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": content.reasoning_tokens },
    })
}

fn finish(content: &Content) -> &'static str {
    match (content.calls.is_empty(), content.cut_by_cap) {
        (_, true) => "length",
        (false, _) => "tool_calls",
        (true, _) => "stop",
    }
}

fn call_id(content: &Content, call: &Call) -> String {
    format!("call_{}{}", content.stem, call.suffix)
}

/// What is called: the member of a call that is named for the kind of its tool, with this much of
/// its input.
fn callee(call: &Call, name: Option<&str>, input: &str) -> (&'static str, Value) {
    let (kind, field) = if call.custom {
        ("custom", "input")
    } else {
        ("function", "arguments")
    };
    let mut callee = json!({ field: input });
    if let Some(name) = name {
        callee["name"] = Value::from(name);
    }
    (kind, callee)
}

fn whole_call(content: &Content, call: &Call) -> Value {
    let (kind, callee) = callee(call, Some(&call.name), &call.arguments);
    json!({ "id": call_id(content, call), "type": kind, kind: callee })
}

/// What is told of the probability of a piece.
pub(super) fn token(text: &str, logprob: f64) -> Value {
    json!({ "token": text, "logprob": logprob, "bytes": null, "top_logprobs": [] })
}

/// A whole reply.
pub(super) fn whole(content: &Content) -> String {
    let text = content.text();
    let mut message = json!({ "role": "assistant", "content": text });
    if content.refuses {
        message = json!({ "role": "assistant", "content": null, "refusal": text });
    }
    if !content.calls.is_empty() {
        if content.pieces.is_empty() {
            message["content"] = Value::Null;
        }
        let calls = content.calls.iter().map(|call| whole_call(content, call));
        message["tool_calls"] = calls.collect();
    }
    if !content.thinking.is_empty() {
        message["reasoning_content"] = Value::from(content.thought());
    }
    let mut reply = json!({
        "id": format!("chatcmpl-{}", content.stem), "object": "chat.completion", "created": 1_795_000_000,
        "model": content.model,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish(content) }],
    });
    if let Some(logprob) = content.logprob {
        let tokens = content.pieces.iter().map(|(text, _)| token(text, logprob));
        let tokens: Vec<Value> = tokens.collect();
        reply["choices"][0]["logprobs"] = json!({ "content": tokens });
    }
    if content.reports_usage {
        reply["usage"] = usage(content);
    }
    reply.to_string()
}

/// The chunks of a stream, whose ids are the same and whose usage comes last.
struct Chunks<'a> {
    content: &'a Content,
    with_usage: bool,
}

impl Chunks<'_> {
    fn chunk(&self, choices: Value, usage: Option<Value>) -> Bytes {
        let mut chunk = json!({
            "id": format!("chatcmpl-{}", self.content.stem), "object": "chat.completion.chunk",
            "created": 1_795_000_000, "model": self.content.model,
        });
        chunk["choices"] = choices;
        if self.with_usage {
            chunk["usage"] = usage.unwrap_or_default();
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    }

    /// A chunk of text.
    fn text(&self, text: &str) -> Bytes {
        let field = if self.content.refuses {
            "refusal"
        } else {
            "content"
        };
        let mut choice = json!({ "index": 0, "delta": { field: text }, "finish_reason": null });
        if let Some(logprob) = self.content.logprob {
            choice["logprobs"] = json!({ "content": [token(text, logprob)] });
        }
        self.chunk(json!([choice]), None)
    }

    fn delta(&self, delta: &Value, finish: Option<&str>) -> Bytes {
        let choices = json!([{ "index": 0, "delta": delta, "finish_reason": finish }]);
        self.chunk(choices, None)
    }

    /// The chunks of the call at `place`: its name, and its input in two parts.
    fn call(&self, place: usize, call: &Call) -> Vec<(Bytes, u64)> {
        let part = |name: Option<&str>, input: &str| {
            let (kind, callee) = callee(call, name, input);
            json!({ "index": place, kind: callee })
        };
        let delta = |call: Value| self.delta(&json!({ "tool_calls": [call] }), None);
        let mut first = part(Some(&call.name), "");
        first["id"] = Value::from(call_id(self.content, call));
        first["type"] = Value::from(if call.custom { "custom" } else { "function" });
        let (head, tail) = halves(&call.arguments);
        vec![
            (delta(first), call.tokens),
            (delta(part(None, head)), 0),
            (delta(part(None, tail)), 0),
        ]
    }
}

/// A stream: events, each with the answer tokens in it.
pub(super) fn events(content: &Content) -> Events {
    let with_usage = content.wants_usage && content.reports_usage;
    let chunks = Chunks {
        content,
        with_usage,
    };
    let begun = json!({ "role": "assistant", "content": "" });
    let mut events = vec![(chunks.delta(&begun, None), 0)];
    for (text, tokens) in &content.thinking {
        let delta = json!({ "reasoning_content": text });
        events.push((chunks.delta(&delta, None), *tokens));
    }
    for (text, tokens) in &content.pieces {
        events.push((chunks.text(text), *tokens));
    }
    for (place, call) in content.calls.iter().enumerate() {
        events.extend(chunks.call(place, call));
    }
    let end = events.len();
    if content.has_end {
        events.push((chunks.delta(&json!({}), Some(finish(content))), 0));
    }
    if with_usage {
        let last = chunks.chunk(json!([]), Some(usage(content)));
        events.push((last, 0));
    }
    if content.has_end {
        events.push((Bytes::from_static(b"data: [DONE]\n\n"), 0));
    }
    Events { list: events, end }
}
