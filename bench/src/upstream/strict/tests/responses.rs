//! Proves each rule of OpenAI Responses.

use serde_json::{Value, json};

use super::*;

#[test]
fn responses_keeps_calls_and_their_outputs_together() {
    let custom = json!({ "type": "custom_tool_call", "call_id": "c", "name": "f", "input": "ls" });
    let done = json!({ "type": "custom_tool_call_output", "call_id": "c", "output": "x" });
    let good = responses(json!([
        hi(),
        function_call("a"),
        function_call("b"),
        custom,
        function_output("b"),
        function_output("a"),
        done
    ]));
    let rule = |words: &str, bad: Value| rule(Responses, words, &good, &responses(bad));
    rule("0 outputs for `a`", json!([hi(), function_call("a")]));
    rule(
        "0 outputs for `c`",
        json!([
            hi(),
            custom,
            with(done.clone(), "type", json!("function_call_output"))
        ]),
    );
    let twice = json!([
        function_call("a"),
        function_output("a"),
        function_output("a")
    ]);
    rule("2 outputs for `a`", twice);
    rule("no call `a` before it", json!([hi(), function_output("a")]));
    rule(
        "no call `a` before it",
        json!([
            function_output("a"),
            function_call("a"),
            function_output("a")
        ]),
    );
    let again = json!([
        function_call("a"),
        function_output("a"),
        function_call("a"),
        function_output("a")
    ]);
    rule("outputs for `a`", again);
    let long = "i".repeat(65);
    rule(
        "longer than 64",
        json!([function_call(&long), function_output(&long)]),
    );
    let object = with(function_call("a"), "arguments", json!({}));
    rule(
        "`arguments` is not a string",
        json!([object, function_output("a")]),
    );
    let nameless = with(function_call("a"), "name", json!(""));
    rule(
        "`name` is not a string",
        json!([nameless, function_output("a")]),
    );
}

#[test]
fn responses_takes_only_its_own_reasoning() {
    let told = assistant(json!("a"));
    let kept = json!({ "type": "reasoning", "id": "rs_kept", "summary": [] });
    let good = responses(json!([
        hi(),
        reasoning("hm", "here"),
        reasoning("so", "here"),
        told,
        kept,
        function_call("a"),
        function_output("a")
    ]));
    let rule = |words: &str, bad: Value| rule(Responses, words, &good, &responses(bad));
    rule(
        "content is not from here",
        json!([hi(), reasoning("hm", "there"), told]),
    );
    let other = with(reasoning("hm", "here"), "summary", json!([]));
    rule("does not fit", json!([hi(), other, told]));
    let unknown = with(kept.clone(), "id", json!("rs_other"));
    rule("its id is not from here", json!([hi(), unknown, told]));
    rule(
        "summary is not a list",
        json!([{ "type": "reasoning", "id": "rs_kept" }, told]),
    );
    rule("does not follow", json!([hi(), reasoning("hm", "here")]));
    rule(
        "does not follow",
        json!([hi(), reasoning("hm", "here"), hi()]),
    );
}

#[test]
fn responses_knows_items_and_parts() {
    let image = json!({ "type": "input_image", "image_url": "data:image/png;base64,AAAA" });
    let output = json!({ "type": "output_text", "text": "a", "annotations": [] });
    let good = responses(json!([
        { "type": "message", "role": "developer", "content": [{ "type": "input_text", "text": "a" }] },
        user(json!([image])),
        { "type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
            "content": [output, { "type": "refusal", "refusal": "b" }] },
        { "type": "web_search_call", "id": "ws_1", "status": "completed" },
    ]));
    let rule = |words: &str, bad: Value| rule(Responses, words, &good, &responses(json!([bad])));
    rule("type `tool_use` is not known", tool_use("a"));
    rule(
        "type `item_reference` is not known",
        json!({ "type": "item_reference", "id": "msg_9" }),
    );
    rule(
        "role is not known",
        json!({ "role": "tool", "content": "a" }),
    );
    rule("`text` can not be here", user(json!([text("a")])));
    rule("`output_text` can not be here", user(json!([output])));
    rule(
        "`input_text` can not be here",
        assistant(json!([{ "type": "input_text", "text": "a" }])),
    );
    rule("neither text nor a list", user(Value::Null));
    rule(
        "`input_image` is not whole",
        user(json!([{ "type": "input_image", "image_url": {} }])),
    );
    rule(
        "does not begin",
        with(assistant(json!("a")), "id", json!("fc_1")),
    );
    let long = format!("msg_{}", "1".repeat(61));
    rule(
        "longer than 64",
        with(assistant(json!("a")), "id", json!(long)),
    );
    let result = with(function_output("a"), "output", json!([output]));
    let bad = responses(json!([function_call("a"), result]));
    super::rule(Responses, "`output_text` can not be here", &good, &bad);
}

#[test]
fn responses_knows_its_fields() {
    let good = with(responses(json!([hi()])), "max_output_tokens", json!(16));
    let rule = |words: &str, bad: Value| rule(Responses, words, &good, &bad);
    rule(
        "below 16",
        with(good.clone(), "max_output_tokens", json!(15)),
    );
    rule(
        "unknown field `messages`",
        with(good.clone(), "messages", json!([])),
    );
    rule(
        "unknown field `max_tokens`",
        with(good.clone(), "max_tokens", json!(50)),
    );
    rule("neither text nor a list", json!({ "model": "m" }));
}
