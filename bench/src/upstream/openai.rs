//! The shapes of OpenAI Chat Completions.

use bytes::Bytes;
use serde_json::{Value, json};

use super::steps::Content;

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
    match (&content.tool, content.cut_by_cap) {
        (_, true) => "length",
        (Some(_), _) => "tool_calls",
        (None, _) => "stop",
    }
}

/// A whole reply.
pub(super) fn whole(content: &Content) -> String {
    let text = content.text();
    let mut message = json!({ "role": "assistant", "content": text });
    if let Some((name, arguments)) = &content.tool {
        message["content"] = Value::Null;
        message["tool_calls"] = json!([{ "id": "call_1", "type": "function",
            "function": { "name": name, "arguments": arguments } }]);
    }
    let mut reply = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_795_000_000, "model": content.model,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish(content) }],
    });
    if content.reports_usage {
        reply["usage"] = usage(content);
    }
    reply.to_string()
}

/// A stream: events, each with the answer tokens in it.
pub(super) fn events(content: &Content) -> Vec<(Bytes, u64)> {
    let with_usage = content.wants_usage && content.reports_usage;
    let chunk = |delta: Value, finish: Value| {
        let mut chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000,
            "model": content.model, "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        if with_usage {
            chunk["usage"] = Value::Null;
        }
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let mut events = vec![(
        chunk(json!({ "role": "assistant", "content": "" }), Value::Null),
        0,
    )];
    for (text, tokens) in &content.pieces {
        events.push((chunk(json!({ "content": text }), Value::Null), *tokens));
    }
    if let Some((name, arguments)) = &content.tool {
        let call =
            |function: Value| json!({ "tool_calls": [{ "index": 0, "function": function }] });
        let mut first = call(json!({ "name": name, "arguments": "" }));
        first["tool_calls"][0]["id"] = Value::from("call_1");
        first["tool_calls"][0]["type"] = Value::from("function");
        events.push((
            chunk(first, Value::Null),
            content.output_tokens - content.reasoning_tokens,
        ));
        let middle = (0..=arguments.len() / 2)
            .rev()
            .find(|at| arguments.is_char_boundary(*at));
        let (head, tail) = arguments.split_at(middle.unwrap_or(0));
        for part in [head, tail] {
            events.push((chunk(call(json!({ "arguments": part })), Value::Null), 0));
        }
    }
    if content.has_end {
        events.push((chunk(json!({}), Value::from(finish(content))), 0));
    }
    if with_usage {
        let last = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000,
            "model": content.model, "choices": [], "usage": usage(content),
        });
        events.push((Bytes::from(format!("data: {last}\n\n")), 0));
    }
    if content.has_end {
        events.push((Bytes::from_static(b"data: [DONE]\n\n"), 0));
    }
    events
}
