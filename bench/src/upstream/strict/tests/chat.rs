//! Proves each rule of OpenAI Chat Completions.

use serde_json::{Value, json};

use super::*;

#[test]
fn chat_keeps_calls_and_their_results_together() {
    let good = chat(json!([
        hi(),
        calls(&["a", "b"]),
        tool("b"),
        tool("a"),
        hi()
    ]));
    let rule = |words: &str, bad: Value| rule(Chat, words, &good, &chat(bad));
    rule(
        "no tool message answers",
        json!([hi(), calls(&["a", "b"]), tool("a"), hi()]),
    );
    rule("no tool message answers", json!([hi(), calls(&["a"])]));
    rule(
        "no open call",
        json!([hi(), calls(&["a"]), tool("a"), tool("a")]),
    );
    rule("no open call", json!([hi(), calls(&["a"]), tool("c")]));
    rule("no open call", json!([hi(), tool("a")]));
    rule("same id", json!([hi(), calls(&["a", "a"]), tool("a")]));
    let long = "i".repeat(41);
    rule(
        "longer than 40",
        json!([hi(), calls(&[&long]), tool(&long)]),
    );
    rule(
        "only an assistant",
        json!([with(calls(&["a"]), "role", json!("user")), tool("a")]),
    );
    let mut broken = calls(&["a"]);
    for arguments in [
        json!("{\"city\":"),
        json!("[1]"),
        json!({ "city": "Paris" }),
        json!(""),
    ] {
        broken["tool_calls"][0]["function"]["arguments"] = arguments;
        rule("JSON object", json!([hi(), broken, tool("a")]));
    }
    let mut strange = calls(&["a"]);
    strange["tool_calls"][0]["type"] = json!("tool_use");
    rule("its type is not known", json!([hi(), strange, tool("a")]));
}

#[test]
fn chat_takes_custom_calls_with_text() {
    let call = |input: Value| {
        let call =
            json!({ "id": "a", "type": "custom", "custom": { "name": "f", "input": input } });
        chat(json!([hi(), { "role": "assistant", "tool_calls": [call] }, tool("a")]))
    };
    rule(
        Chat,
        "input is not a string",
        &call(json!("ls")),
        &call(json!({})),
    );
}

#[test]
fn chat_knows_its_fields() {
    let good = with(chat(json!([hi()])), "max_completion_tokens", json!(5));
    rule(
        Chat,
        "unknown field `system`",
        &good,
        &with(good.clone(), "system", json!("x")),
    );
    rule(
        Chat,
        "both `max_tokens`",
        &good,
        &with(good.clone(), "max_tokens", json!(5)),
    );
    rule(Chat, "`messages` is not a list", &good, &chat(json!([])));
    let reasons = with(assistant(json!("a")), "reasoning_content", json!("b"));
    let reasons = chat(json!([hi(), reasons]));
    rule(Chat, "unknown field `reasoning_content`", &good, &reasons);
    let lenient = Rules {
        origin: "here",
        takes_reasoning: true,
        counts_only: false,
        kept: &|_| false,
    };
    assert_eq!(judged_by(Chat, &reasons, &lenient), Ok(()));
    let extra = with(hi(), "cache_control", json!({}));
    rule(
        Chat,
        "unknown field `cache_control`",
        &good,
        &chat(json!([extra])),
    );
    let called = with(hi(), "tool_call_id", json!("a"));
    rule(
        Chat,
        "unknown field `tool_call_id`",
        &good,
        &chat(json!([called])),
    );
}

#[test]
fn chat_knows_roles_and_parts() {
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
    let good = chat(json!([
        { "role": "system", "content": "a" },
        { "role": "developer", "content": [text("b")] },
        user(json!([text("c"), image])),
        assistant(json!([text("d"), { "type": "refusal", "refusal": "e" }])),
        { "role": "assistant", "content": null, "refusal": "f" },
    ]));
    let rule = |words: &str, bad: Value| rule(Chat, words, &good, &chat(json!([bad])));
    rule(
        "role is not known",
        json!({ "role": "function", "content": "a" }),
    );
    rule("it has no content", assistant(Value::Null));
    rule("it has no content", json!({ "role": "user" }));
    rule("`content` is not a list", user(json!([])));
    rule("`image_url` can not be here", assistant(json!([image])));
    rule(
        "`image` can not be here",
        user(json!([{ "type": "image" }])),
    );
    rule(
        "`image_url` is not whole",
        user(json!([{ "type": "image_url", "image_url": "x" }])),
    );
    let result = with(tool("a"), "content", json!([image]));
    let bad = chat(json!([calls(&["a"]), result]));
    super::rule(Chat, "`image_url` can not be here", &good, &bad);
}
