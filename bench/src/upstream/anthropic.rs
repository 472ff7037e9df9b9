//! The shapes of Anthropic Messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::steps::Content;

fn usage(content: &Content, output: u64) -> Value {
    if content.hostile_usage {
        return json!({ "input_tokens": -5, "output_tokens": 1e300 });
    }
    json!({
        "input_tokens": content.prompt_tokens - content.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": content.cached_tokens,
        "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
        "output_tokens": output,
        "service_tier": "standard",
    })
}

fn stop(content: &Content) -> &'static str {
    match (&content.tool, content.cut_by_cap) {
        (_, true) => "max_tokens",
        (Some(_), _) => "tool_use",
        (None, _) => "end_turn",
    }
}

/// A whole reply.
pub(super) fn whole(content: &Content) -> String {
    let text = content.text();
    let block = match &content.tool {
        None => json!({ "type": "text", "text": text }),
        Some((name, arguments)) => json!({ "type": "tool_use", "id": "toolu_1", "name": name,
            "input": serde_json::from_str::<Value>(arguments).unwrap_or_default() }),
    };
    let mut reply = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": content.model,
        "content": [block], "stop_reason": stop(content), "stop_sequence": null,
    });
    if content.reports_usage {
        reply["usage"] = usage(content, content.output_tokens);
    }
    reply.to_string()
}

/// A stream: events, each with the answer tokens in it.
pub(super) fn events(content: &Content) -> Vec<(Bytes, u64)> {
    let event = |name: &str, mut data: Value| {
        data["type"] = Value::from(name);
        Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
    };
    let mut message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": content.model, "content": [],
        "stop_reason": null, "stop_sequence": null,
    });
    message["usage"] = if content.reports_usage {
        usage(content, 1)
    } else {
        json!({})
    };
    let block = match &content.tool {
        None => json!({ "type": "text", "text": "" }),
        Some((name, _)) => {
            json!({ "type": "tool_use", "id": "toolu_1", "name": name, "input": {} })
        }
    };
    let mut events = vec![
        (event("message_start", json!({ "message": message })), 0),
        (
            event(
                "content_block_start",
                json!({ "index": 0, "content_block": block }),
            ),
            0,
        ),
        (event("ping", json!({})), 0),
    ];
    let delta = |delta: Value| event("content_block_delta", json!({ "index": 0, "delta": delta }));
    for (text, tokens) in &content.pieces {
        events.push((
            delta(json!({ "type": "text_delta", "text": text })),
            *tokens,
        ));
    }
    if let Some((_, arguments)) = &content.tool {
        let middle = (0..=arguments.len() / 2)
            .rev()
            .find(|at| arguments.is_char_boundary(*at));
        let (head, tail) = arguments.split_at(middle.unwrap_or(0));
        let part = |text: &str| delta(json!({ "type": "input_json_delta", "partial_json": text }));
        events.push((part(head), content.output_tokens - content.reasoning_tokens));
        events.push((part(tail), 0));
    }
    events.push((event("content_block_stop", json!({ "index": 0 })), 0));
    if content.has_end {
        let mut last = json!({ "delta": { "stop_reason": stop(content), "stop_sequence": null } });
        if content.reports_usage {
            last["usage"] = usage(content, content.output_tokens);
        }
        events.push((event("message_delta", last), 0));
        events.push((event("message_stop", json!({})), 0));
    }
    events
}
