//! Proves each rule by a body that it refuses and a body next to it that it takes, and that what
//! published clients send is taken.

mod chat;
mod messages;
mod responses;

use serde_json::{Value, json};

use super::{Rules, check};
use crate::upstream::request::Dialect::{self, Chat, Messages, Responses};
use crate::upstream::seal;

fn judged_by(dialect: Dialect, body: &Value, rules: &Rules<'_>) -> Result<(), String> {
    check(dialect, body, rules)
}

fn judged(dialect: Dialect, body: &Value) -> Result<(), String> {
    let rules = Rules {
        origin: "here",
        takes_reasoning: false,
        counts_only: false,
        kept: &|id| id == "rs_kept",
    };
    judged_by(dialect, body, &rules)
}

/// `good` is taken and `bad` refused with `words`.
fn rule(dialect: Dialect, words: &str, good: &Value, bad: &Value) {
    assert_eq!(judged(dialect, good), Ok(()), "{words}: {good}");
    let verdict = judged(dialect, bad);
    let wrong = verdict.expect_err(&format!("{words}: {bad}"));
    assert!(wrong.contains(words), "`{wrong}` does not say `{words}`");
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

fn chat(messages: Value) -> Value {
    with(json!({ "model": "m" }), "messages", messages)
}

fn messages(messages: Value) -> Value {
    with(
        json!({ "model": "m", "max_tokens": 4096 }),
        "messages",
        messages,
    )
}

fn responses(input: Value) -> Value {
    with(json!({ "model": "m" }), "input", input)
}

fn user(content: Value) -> Value {
    with(json!({ "role": "user" }), "content", content)
}

fn assistant(content: Value) -> Value {
    with(json!({ "role": "assistant" }), "content", content)
}

fn hi() -> Value {
    user(json!("Hi"))
}

/// An assistant message of chat completions with a call of each id.
fn calls(ids: &[&str]) -> Value {
    let calls = ids.iter().map(|id| {
        json!({ "id": id, "type": "function",
            "function": { "name": "get_weather", "arguments": "{\"city\":\"Paris\"}" } })
    });
    json!({ "role": "assistant", "content": null, "tool_calls": calls.collect::<Vec<_>>() })
}

fn tool(id: &str) -> Value {
    json!({ "role": "tool", "tool_call_id": id, "content": "sunny" })
}

fn tool_use(id: &str) -> Value {
    json!({ "type": "tool_use", "id": id, "name": "get_weather", "input": { "city": "Paris" } })
}

fn tool_result(id: &str) -> Value {
    json!({ "type": "tool_result", "tool_use_id": id, "content": "sunny" })
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

fn thinking(text: &str, origin: &str) -> Value {
    json!({ "type": "thinking", "thinking": text, "signature": seal::signature(origin, text) })
}

fn function_call(id: &str) -> Value {
    json!({ "type": "function_call", "call_id": id, "name": "get_weather", "arguments": "{}" })
}

fn function_output(id: &str) -> Value {
    json!({ "type": "function_call_output", "call_id": id, "output": "sunny" })
}

fn reasoning(text: &str, origin: &str) -> Value {
    json!({ "type": "reasoning", "summary": [{ "type": "summary_text", "text": text }],
        "encrypted_content": seal::encrypted(origin, text) })
}

/// What published clients send, cut to what a rule looks at.
#[test]
fn recorded_styles_are_taken() {
    let schema = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let function = json!({ "name": "f", "description": "w", "parameters": schema, "strict": true });
    let mut answered = calls(&["call_1"]);
    answered["content"] = json!("Let me look that up.");
    answered["annotations"] = json!([]);
    let mut body = chat(
        json!([{ "role": "developer", "content": "Be brief." }, hi(), answered, tool("call_1")]),
    );
    body["tools"] = json!([{ "type": "function", "function": function }]);
    body["stream_options"] = json!({ "include_usage": true });
    body["parallel_tool_calls"] = json!(true);
    body["reasoning_effort"] = json!("high");
    body["response_format"] =
        json!({ "type": "json_schema", "json_schema": { "name": "a", "schema": schema } });
    assert_eq!(judged(Chat, &body), Ok(()));

    let mark = json!({ "type": "ephemeral" });
    let mut loop_ = messages(json!([
        user(json!([text("reminder"), text("go")])),
        { "role": "system", "content": "mid-conversation" },
        assistant(json!([text("Let me look that up."), tool_use("toolu_1")])),
        user(json!([{ "tool_use_id": "toolu_1", "type": "tool_result", "content": "ok",
            "is_error": false, "cache_control": mark }])),
    ]));
    loop_["system"] = json!([text("a"), { "type": "text", "text": "b", "cache_control": mark }]);
    loop_["thinking"] = json!({ "type": "adaptive" });
    loop_["context_management"] =
        json!({ "edits": [{ "type": "clear_thinking_20251015", "keep": "all" }] });
    loop_["output_config"] = json!({ "effort": "high" });
    loop_["metadata"] = json!({ "user_id": "u" });
    assert_eq!(judged(Messages, &loop_), Ok(()));

    let mut turn = responses(json!([
        { "type": "message", "id": "msg_00000000-0010-4000-8000-000000000000", "role": "developer",
            "content": [{ "type": "input_text", "text": "a" }] },
        { "type": "message", "status": "completed", "id": "msg_1", "role": "assistant",
            "content": [{ "type": "output_text", "text": "b", "annotations": [], "logprobs": [] }] },
        { "type": "function_call", "status": "completed", "id": "fc_1", "name": "exec_command",
            "arguments": "{\"cmd\":\"ls\"}", "call_id": "call_1" },
        { "type": "function_call_output", "id": "fco_00000000-0014-4000-8000-000000000000",
            "call_id": "call_1", "output": "ok" },
    ]));
    turn["tools"] =
        json!([{ "type": "namespace", "name": "agents", "tools": [] }, { "type": "web_search" }]);
    turn["client_metadata"] = json!({ "session_id": "s" });
    turn["include"] = json!(["reasoning.encrypted_content"]);
    turn["prompt_cache_key"] = json!("k");
    turn["reasoning"] = json!({ "summary": "auto" });
    turn["store"] = json!(false);
    assert_eq!(judged(Responses, &turn), Ok(()));
}
