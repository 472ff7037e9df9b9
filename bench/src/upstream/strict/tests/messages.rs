//! Proves each rule of Anthropic Messages.

use serde_json::{Value, json};

use super::*;

#[test]
fn messages_keeps_uses_and_their_results_together() {
    let used = assistant(json!([text("Let me look."), tool_use("a"), tool_use("b")]));
    let results = user(json!([tool_result("b"), tool_result("a"), text("go on")]));
    let good = messages(json!([hi(), used, results]));
    let rule = |words: &str, bad: Value| rule(Messages, words, &good, &messages(bad));
    rule(
        "0 results for `b`",
        json!([hi(), used, user(json!([tool_result("a")]))]),
    );
    rule("0 results for `a`", json!([hi(), used]));
    rule("0 results for `a`", json!([hi(), used, hi(), results]));
    let twice = json!([tool_result("a"), tool_result("a"), tool_result("b")]);
    rule("2 results for `a`", json!([hi(), used, user(twice)]));
    rule("is no call", json!([user(json!([tool_result("a")]))]));
    let behind = json!([tool_result("a"), text("x"), tool_result("b")]);
    rule("behind another block", json!([hi(), used, user(behind)]));
    rule("used twice", json!([hi(), used, results, used, results]));
    let same = assistant(json!([tool_use("a"), tool_use("a")]));
    rule(
        "used twice",
        json!([hi(), same, user(json!([tool_result("a")]))]),
    );
    let strange = assistant(json!([tool_use("a.b")]));
    rule(
        "other characters",
        json!([hi(), strange, user(json!([tool_result("a.b")]))]),
    );
    let listed = with(tool_use("a"), "input", json!("{}"));
    let answer = user(json!([tool_result("a")]));
    rule(
        "not an object",
        json!([hi(), assistant(json!([listed])), answer]),
    );
}

#[test]
fn messages_knows_where_system_text_stands_and_what_a_picture_is() {
    let good =
        messages(json!([hi(), { "role": "system", "content": "b" }, assistant(json!("a")), hi()]));
    let rule = |words: &str, bad: Value| rule(Messages, words, &good, &messages(bad));
    let system = json!({ "role": "system", "content": "b" });
    let misplaced = "system text stands behind";
    rule(
        misplaced,
        json!([hi(), assistant(json!("a")), system, hi()]),
    );
    rule(misplaced, json!([hi(), system, system]));
    let svg = json!({ "type": "base64", "media_type": "image/svg+xml", "data": "AAAA" });
    rule(
        "none of the four",
        json!([user(json!([{ "type": "image", "source": svg }]))]),
    );
    rule("first message", json!([assistant(json!("a")), hi()]));
}

#[test]
fn messages_knows_roles_and_blocks() {
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "AAAA" });
    let image = json!({ "type": "image", "source": source });
    let good = messages(json!([
        user(json!([text("a"), image])),
        { "role": "system", "content": [text("b")] },
        assistant(json!("c")),
        hi(),
        assistant(json!("")),
    ]));
    let rule = |words: &str, bad: Value| rule(Messages, words, &good, &messages(bad));
    rule("`messages` is not a list", json!([]));
    rule(
        "first message",
        json!([{ "role": "system", "content": "a" }, hi()]),
    );
    rule(
        "role is not known",
        json!([hi(), { "role": "tool", "content": "a" }]),
    );
    rule(
        "unknown field `name`",
        json!([with(hi(), "name", json!("x"))]),
    );
    rule("no content", json!([user(json!(""))]));
    rule("no content", json!([user(json!([]))]));
    rule("no content", json!([hi(), assistant(json!([])), hi()]));
    rule("neither text nor a list", json!([user(Value::Null)]));
    rule("text is empty", json!([user(json!([text("")]))]));
    rule(
        "`image_url` can not be here",
        json!([user(json!([{ "type": "image_url" }]))]),
    );
    rule(
        "`tool_use` can not be here",
        json!([user(json!([tool_use("a")]))]),
    );
    rule(
        "`image` can not be here",
        json!([hi(), assistant(json!([image]))]),
    );
    rule(
        "it has no source",
        json!([user(json!([{ "type": "image" }]))]),
    );
    let result = |block: Value| with(tool_result("a"), "content", json!([block]));
    let looped = |block| {
        json!([
            hi(),
            assistant(json!([tool_use("a")])),
            user(json!([result(block)]))
        ])
    };
    rule(
        "`image_url` can not be in a result",
        looped(json!({ "type": "image_url" })),
    );
    rule("text is empty", looped(text("")));
    assert_eq!(judged(Messages, &messages(looped(image.clone()))), Ok(()));
}

#[test]
fn messages_takes_only_its_own_reasoning() {
    let good = messages(json!([
        hi(),
        assistant(json!([
        thinking("hm", "here"), { "type": "redacted_thinking", "data": "enc:here:1" }, text("a") ]))
    ]));
    let rule = |words: &str, blocks: Value| {
        let bad = messages(json!([hi(), assistant(blocks)]));
        rule(Messages, words, &good, &bad);
    };
    rule(
        "signature is not from here",
        json!([thinking("hm", "there"), text("a")]),
    );
    let other = with(thinking("hm", "here"), "thinking", json!("other"));
    rule("signature does not fit its text", json!([other, text("a")]));
    rule(
        "signature is not from here",
        json!([{ "type": "thinking", "thinking": "hm" }, text("a")]),
    );
    rule("last block", json!([text("a"), thinking("hm", "here")]));
    let redacted = json!({ "type": "redacted_thinking", "data": "enc:there:1" });
    rule("data is not from here", json!([redacted, text("a")]));
}

#[test]
fn messages_thinks_before_it_calls_in_the_present_loop() {
    let enabled = json!({ "type": "enabled", "budget_tokens": 1024 });
    let thinks = |kind: &Value, list: Value| with(messages(list), "thinking", kind.clone());
    let result = |id| user(json!([tool_result(id)]));
    let thought = assistant(json!([thinking("hm", "here"), tool_use("b")]));
    let thoughtless = assistant(json!([text("x"), tool_use("a")]));
    let old = json!([hi(), thoughtless, result("a"), hi(), thought, result("b")]);
    let present = json!([hi(), thoughtless, result("a")]);
    let good = thinks(&enabled, old);
    rule(
        Messages,
        "does not begin with thinking",
        &good,
        &thinks(&enabled, present.clone()),
    );
    let adaptive = json!({ "type": "adaptive" });
    assert_eq!(
        judged(Messages, &thinks(&adaptive, present)),
        Ok(()),
        "it need not think"
    );
}

#[test]
fn messages_knows_what_goes_with_thinking() {
    let enabled = |budget: u64| json!({ "type": "enabled", "budget_tokens": budget });
    let plain = messages(json!([hi()]));
    let good = with(plain.clone(), "thinking", enabled(1024));
    let good = with(good, "temperature", json!(1));
    let rule = |words: &str, bad: Value| rule(Messages, words, &good, &bad);
    rule("below 1024", with(good.clone(), "thinking", enabled(1023)));
    rule(
        "not below `max_tokens`",
        with(good.clone(), "thinking", enabled(4096)),
    );
    rule(
        "type is not known",
        with(good.clone(), "thinking", json!({ "type": "high" })),
    );
    rule(
        "forces a tool",
        with(good.clone(), "tool_choice", json!({ "type": "any" })),
    );
    rule("`top_k` is set", with(good.clone(), "top_k", json!(5)));
    rule(
        "`temperature` is not 1",
        with(good.clone(), "temperature", json!(0.5)),
    );
    let free = with(plain, "tool_choice", json!({ "type": "tool", "name": "f" }));
    let free = with(with(free, "top_k", json!(5)), "temperature", json!(0));
    assert_eq!(judged(Messages, &free), Ok(()), "without thinking");
}

#[test]
fn messages_knows_its_fields() {
    let good = with(messages(json!([hi()])), "system", json!("Be brief."));
    let rule = |words: &str, bad: Value| rule(Messages, words, &good, &bad);
    rule(
        "unknown field `stop`",
        with(good.clone(), "stop", json!("x")),
    );
    rule(
        "`max_tokens` is missing",
        json!({ "model": "m", "messages": [hi()] }),
    );
    rule(
        "text is empty",
        with(good.clone(), "system", json!([text("")])),
    );
    let counting = Rules {
        origin: "here",
        takes_reasoning: false,
        counts_only: true,
        kept: &|_| false,
    };
    let uncapped = json!({ "model": "m", "messages": [hi()] });
    assert_eq!(judged_by(Messages, &uncapped, &counting), Ok(()));
    let marked = with(text("a"), "cache_control", json!({ "type": "ephemeral" }));
    let cached = |count: usize| messages(json!([user(json!(vec![marked.clone(); count]))]));
    super::rule(Messages, "more than 4", &cached(4), &cached(5));
    // A field of that name in a schema is no mark.
    let schema = json!({ "type": "object", "properties": { "cache_control": {} } });
    let tools = json!([{ "name": "f", "input_schema": schema }]);
    assert_eq!(judged(Messages, &with(cached(4), "tools", tools)), Ok(()));
}
