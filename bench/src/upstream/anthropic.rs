//! The shapes of Anthropic Messages.

use bytes::Bytes;
use serde_json::{Value, json};

use super::content::{Call, Content};
use super::seal;
use super::steps::{Events, halves};

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
    match (content.calls.is_empty(), content.cut_by_cap) {
        _ if content.refuses => "refusal",
        (_, true) => "max_tokens",
        (false, _) => "tool_use",
        (true, _) => "end_turn",
    }
}

fn message(content: &Content) -> Value {
    json!({
        "id": format!("msg_{}", content.stem), "type": "message", "role": "assistant",
        "model": content.model, "content": [], "stop_reason": null, "stop_sequence": null,
    })
}

/// A call without its input, as a stream begins it.
fn tool_use(content: &Content, call: &Call) -> Value {
    let id = format!("toolu_{}{}", content.stem, call.suffix);
    json!({ "type": "tool_use", "id": id, "name": call.name, "input": {} })
}

/// The blocks of a whole reply.
fn blocks(content: &Content) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !content.thinking.is_empty() {
        let text = content.thought();
        let signature = seal::signature(&content.origin, &text);
        blocks.push(json!({ "type": "thinking", "thinking": text, "signature": signature }));
    }
    if content.has_text() {
        blocks.push(json!({ "type": "text", "text": content.text() }));
    }
    for call in &content.calls {
        let mut block = tool_use(content, call);
        let input = serde_json::from_str::<Value>(&call.arguments).unwrap_or_default();
        if input.is_object() {
            block["input"] = input;
        }
        blocks.push(block);
    }
    blocks
}

/// A whole reply.
pub(super) fn whole(content: &Content) -> String {
    let mut reply = message(content);
    reply["content"] = blocks(content).into();
    reply["stop_reason"] = Value::from(stop(content));
    if content.reports_usage {
        reply["usage"] = usage(content, content.output_tokens);
    }
    reply.to_string()
}

/// The events of a stream under way.
#[derive(Default)]
struct Stream {
    events: Vec<(Bytes, u64)>,
    /// Blocks begun.
    blocks: usize,
}

impl Stream {
    fn push(&mut self, name: &str, mut data: Value, tokens: u64) {
        data["type"] = Value::from(name);
        let event = Bytes::from(format!("event: {name}\ndata: {data}\n\n"));
        self.events.push((event, tokens));
    }

    fn start(&mut self, block: &Value) {
        let data = json!({ "index": self.blocks, "content_block": block });
        self.push("content_block_start", data, 0);
        if self.blocks == 0 {
            self.push("ping", json!({}), 0);
        }
        self.blocks += 1;
    }

    fn delta(&mut self, delta: &Value, tokens: u64) {
        let data = json!({ "index": self.blocks - 1, "delta": delta });
        self.push("content_block_delta", data, tokens);
    }

    fn stop(&mut self) {
        self.push("content_block_stop", json!({ "index": self.blocks - 1 }), 0);
    }

    fn thinking(&mut self, content: &Content) {
        self.start(&json!({ "type": "thinking", "thinking": "", "signature": "" }));
        for (text, tokens) in &content.thinking {
            self.delta(
                &json!({ "type": "thinking_delta", "thinking": text }),
                *tokens,
            );
        }
        let signature = seal::signature(&content.origin, &content.thought());
        self.delta(
            &json!({ "type": "signature_delta", "signature": signature }),
            0,
        );
        self.stop();
    }

    fn text(&mut self, content: &Content) {
        self.start(&json!({ "type": "text", "text": "" }));
        for (text, tokens) in &content.pieces {
            self.delta(&json!({ "type": "text_delta", "text": text }), *tokens);
        }
        self.stop();
    }

    fn call(&mut self, content: &Content, call: &Call) {
        self.start(&tool_use(content, call));
        let (head, tail) = halves(&call.arguments);
        for (part, tokens) in [(head, call.tokens), (tail, 0)] {
            self.delta(
                &json!({ "type": "input_json_delta", "partial_json": part }),
                tokens,
            );
        }
        self.stop();
    }

    fn end(&mut self, content: &Content) {
        let mut last = json!({ "delta": { "stop_reason": stop(content), "stop_sequence": null } });
        if content.reports_usage {
            last["usage"] = usage(content, content.output_tokens);
        }
        self.push("message_delta", last, 0);
        self.push("message_stop", json!({}), 0);
    }
}

/// A stream: events, each with the answer tokens in it.
pub(super) fn events(content: &Content) -> Events {
    let mut message = message(content);
    message["usage"] = if content.reports_usage {
        usage(content, 1)
    } else {
        json!({})
    };
    let mut stream = Stream::default();
    stream.push("message_start", json!({ "message": message }), 0);
    if !content.thinking.is_empty() {
        stream.thinking(content);
    }
    if content.has_text() {
        stream.text(content);
    }
    for call in &content.calls {
        stream.call(content, call);
    }
    let end = stream.events.len();
    if content.has_end {
        stream.end(content);
    }
    Events {
        list: stream.events,
        end,
    }
}
