//! Proves that what can not be told is refused where it came in: a call without its conversation anywhere, and
//! one with roles, content or fields of no known kind before it is written anew for another dialect. Nobody
//! is asked, and nothing is charged.

use http::Method;
use serde_json::{Value, json};
use tests::world::World;

/// What is refused, by the path it comes in at.
fn calls() -> Vec<(&'static str, Value)> {
    let mut calls = vec![
        ("/v1/chat/completions", json!({})),
        ("/v1/chat/completions", json!({ "messages": [] })),
        ("/v1/messages", json!({ "max_tokens": 9 })),
        ("/v1/messages", json!({ "max_tokens": 9, "messages": [] })),
        ("/v1/responses", json!({})),
        ("/v1/responses", json!({ "input": 5 })),
        ("/v1/embeddings", json!({})),
    ];
    // The model speaks chat: from here on the call would be written anew.
    for message in [
        json!({}),
        json!({ "role": "user" }),
        json!({ "role": "zz", "content": "x" }),
        json!({ "role": 5, "content": "x" }),
        json!({ "content": "x" }),
        json!({ "role": "user", "content": 123 }),
        json!({ "role": "user", "content": {} }),
        json!({ "role": "user", "content": ["x"] }),
        json!({ "role": "user", "content": [{ "type": "text", "text": 5 }] }),
    ] {
        let messages = json!({ "max_tokens": 9, "messages": [message] });
        calls.push(("/v1/messages", messages));
        calls.push(("/v1/responses", json!({ "input": [message] })));
    }
    let good = json!([{ "role": "user", "content": "Hi" }]);
    for (name, value) in [
        ("temperature", json!("x")),
        ("system", json!(5)),
        ("stop_sequences", json!([5])),
        ("tools", json!("x")),
        ("tools", json!([{ "input_schema": {} }])),
    ] {
        let mut call = json!({ "max_tokens": 9, "messages": good });
        call[name] = value;
        calls.push(("/v1/messages", call));
    }
    for (name, value) in [
        ("instructions", json!(5)),
        ("text", json!(5)),
        ("tools", json!([{ "type": "function" }])),
    ] {
        let mut call = json!({ "input": good });
        call[name] = value;
        calls.push(("/v1/responses", call));
    }
    calls.extend(odd_pieces());
    calls
}

/// Calls that are good but for a piece below their messages, or but for a choice.
fn odd_pieces() -> Vec<(&'static str, Value)> {
    let hi = json!({ "role": "user", "content": "Hi" });
    let messages = |role: &str, block: Value| {
        let odd = json!({ "role": role, "content": [block] });
        json!({ "max_tokens": 9, "messages": [hi, odd] })
    };
    let mut calls = Vec::new();
    for call in [
        messages(
            "assistant",
            json!({ "type": "tool_use", "id": "a", "name": 5, "input": {} }),
        ),
        messages(
            "user",
            json!({ "type": "tool_use", "id": "a", "name": "f", "input": {} }),
        ),
        messages(
            "user",
            json!({ "type": "tool_result", "tool_use_id": "a", "content": 5 }),
        ),
        messages(
            "user",
            json!({ "type": "tool_result", "tool_use_id": "a", "is_error": "yes" }),
        ),
        messages("user", json!({ "text": "x" })),
        json!({ "max_tokens": 9, "messages": [{ "role": "user", "content": " " }] }),
        json!({ "max_tokens": 9, "messages": [hi], "thinking": {} }),
        json!({ "max_tokens": 9, "messages": [hi], "tools": [{ "name": "f", "input_schema": [] }] }),
        json!({ "max_tokens": 9, "messages": [hi], "tools": [{ "name": "f" }],
            "tool_choice": { "type": "tool", "name": "g" } }),
    ] {
        calls.push(("/v1/messages", call));
    }
    for call in [
        json!({ "input": "" }),
        json!({ "input": [hi, { "type": "function_call", "name": "f", "arguments": "{}" }] }),
        json!({ "input": [hi, { "type": "function_call_output", "call_id": "a" }] }),
        json!({ "input": [hi], "parallel_tool_calls": "x" }),
        json!({ "input": [hi], "text": { "format": { "type": "json_schema", "name": "x" } } }),
        json!({ "input": [hi], "tools": [{ "type": "function", "name": "f" }], "tool_choice": "bogus" }),
    ] {
        calls.push(("/v1/responses", call));
    }
    calls
}

#[tokio::test]
async fn chat_that_can_not_be_told_is_refused_and_nobody_asked() {
    let world = World::start("", "").await;
    let hi = json!({ "role": "user", "content": "Hi" });
    let said = |role: &str, name: &str, value: Value| {
        let odd = json!({ "role": role, "content": "x", name: value });
        json!({ "messages": [hi, odd] })
    };
    for mut call in [
        said("assistant", "tool_calls", json!("zz")),
        said("assistant", "tool_calls", json!(["zz", 5])),
        said(
            "assistant",
            "tool_calls",
            json!([{ "function": { "name": "f", "arguments": "{}" } }]),
        ),
        said("tool", "tool_call_id", json!(5)),
        said(
            "user",
            "content",
            json!([{ "type": "image_url", "image_url": {} }]),
        ),
        json!({ "messages": [{ "role": "user", "content": [] }] }),
        json!({ "messages": [hi], "seed": 1.5 }),
        json!({ "messages": [hi], "response_format": { "type": "json_schema" } }),
        json!({ "messages": [hi], "tool_choice": "required" }),
    ] {
        call["model"] = "fast-messages".into();
        let reply = world
            .client
            .post("/v1/chat/completions", call.to_string())
            .await;
        assert_eq!(reply.status, 400, "{call}: {}", reply.text());
    }
    assert_eq!((world.fast.calls(), world.bill().len()), (0, 0));
}

#[tokio::test]
async fn a_call_without_the_context_it_names_is_refused_everywhere() {
    let world = World::start("", "").await;
    for (name, values) in [
        ("previous_response_id", json!([5, true, [], {}, ""])),
        (
            "conversation",
            json!([5, [], ["x"], {}, "", { "id": 5 }, { "id": "" }]),
        ),
        ("store", json!(["false", 1, [], {}])),
    ] {
        for value in values.as_array().unwrap() {
            for model in ["fast-responses", "fast-chat", "fast-messages"] {
                let call = json!({ "model": model, "input": "Hi", name: value });
                let reply = world.client.post("/v1/responses", call.to_string()).await;
                let told = reply.text();
                assert_eq!(reply.status, 400, "{call}: {told}");
                assert!(told.contains(&format!("`{name}`")), "{call}: {told}");
            }
        }
        let call = json!({ "model": "fast-chat", "input": "Hi", name: null });
        let reply = world.client.post("/v1/responses", call.to_string()).await;
        assert_eq!(reply.status, 200, "{call}: {}", reply.text());
    }
    assert_eq!(world.fast.calls(), 3);
}

/// What a call asks is put to a model that can be told it, or to nobody.
#[tokio::test]
async fn a_call_of_which_nothing_can_be_told_goes_to_another_model_or_nowhere() {
    let world = World::start("", "").await;
    let user = |part: Value| json!([{ "role": "user", "content": [part] }]);
    let audio =
        json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } });
    let image = json!({ "type": "input_image", "file_id": "file-1" });
    for (path, model, call, lost) in [
        (
            "/v1/chat/completions",
            "fast-messages",
            json!({ "messages": user(audio) }),
            "input_audio",
        ),
        (
            "/v1/chat/completions",
            "fast-responses",
            json!({ "messages": user(json!({ "type": "odd" })) }),
            "messages.odd",
        ),
        (
            "/v1/responses",
            "fast-chat",
            json!({ "input": user(image.clone()) }),
            "image.file_id",
        ),
        (
            "/v1/responses",
            "fast-messages",
            json!({ "prompt": { "id": "pmpt_1" } }),
            "prompt",
        ),
    ] {
        let mut call = call;
        call["model"] = model.into();
        let reply = world.client.post(path, call.to_string()).await;
        let told = reply.json();
        assert_eq!(reply.status, 400, "{call}: {told}");
        assert_eq!(told["error"]["code"], "translation_loss", "{call}: {told}");
        assert!(
            told["error"]["message"].as_str().unwrap().contains(lost),
            "{call}: {told}"
        );
    }
    assert_eq!((world.fast.calls(), world.bill().len()), (0, 0));
    world.configure(|text| {
        let at = |tier: &str| format!("name = \"fast-responses\"\ntier = \"{tier}\"");
        text.replace(&at("fast"), &at("deep"))
    });
    let call = json!({ "model": "fast", "input": user(image) });
    let reply = world.client.post("/v1/responses", call.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-pareto-model"), "deep-responses");
    assert_eq!(world.fast.calls(), 0);
}

#[tokio::test]
async fn messages_say_how_long_an_answer_may_be_but_where_tokens_are_counted() {
    let world = World::start("", "").await;
    let call = json!({ "model": "fast-chat", "messages": [{ "role": "user", "content": "Hi" }] });
    let reply = world.client.post("/v1/messages", call.to_string()).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("`max_tokens`"), "{}", reply.text());
    let counted = world
        .client
        .post("/v1/messages/count_tokens", call.to_string())
        .await;
    assert_eq!(counted.status, 200, "{}", counted.text());
    assert_eq!(world.fast.calls(), 0);
}

#[tokio::test]
async fn errors_name_the_field_that_they_are_about() {
    let world = World::start("", "").await;
    for (call, status, param) in [
        (
            json!({ "model": "gpt-9", "input": "Hi" }),
            404,
            json!("model"),
        ),
        (json!({ "model": "fast-chat" }), 400, json!("input")),
        (
            json!({ "model": "fast-chat", "input": [{ "role": "zz" }] }),
            400,
            json!("input.role"),
        ),
        (
            json!({ "model": "fast-chat", "input": "Hi", "previous_response_id": "resp_1" }),
            400,
            json!("previous_response_id"),
        ),
        (
            json!({ "model": "fast-chat", "input": "Hi", "conversation": "conv_1" }),
            404,
            Value::Null,
        ),
    ] {
        let reply = world.client.post("/v1/responses", call.to_string()).await;
        let error = &reply.json()["error"];
        assert_eq!(
            (reply.status, &error["param"]),
            (status, &param),
            "{call}: {error}"
        );
        assert_eq!(error["type"], "invalid_request_error", "{call}: {error}");
    }
    let kept = world.client.get("/v1/responses/resp_1").await.json();
    assert_eq!(kept["error"]["code"], "not_found", "nothing came before");
    for (path, told) in [("/v1", "at /v1;"), ("/v2/x", "at /v2/x;")] {
        let reply = world.client.get(path).await;
        assert_eq!(reply.status, 404);
        assert!(reply.text().contains(told), "{}", reply.text());
    }
    let compact = world.client.post("/v1/responses/compact", "{}").await;
    assert_eq!(
        (compact.status, &compact.json()["error"]["code"]),
        (404, &json!("unknown_path"))
    );
    let labelled = [
        ("x-pareto-label", "secret"),
        ("content-type", "application/json"),
    ];
    let call = json!({ "model": "fast", "input": "Hi" }).to_string();
    let reply = world
        .client
        .send(Method::POST, "/v1/responses", &labelled, call.clone())
        .await;
    assert!(reply.text().contains("leave it out"), "{}", reply.text());
    let tab = [("x-pareto-user", "a\tb")];
    let reply = world
        .client
        .send(Method::POST, "/v1/responses", &tab, call)
        .await;
    assert_eq!(reply.status, 400, "{}", reply.text());
}

#[tokio::test]
async fn what_can_not_be_told_is_refused_and_nobody_asked() {
    let world = World::start("", "").await;
    for (path, mut call) in calls() {
        call["model"] = "fast-chat".into();
        let reply = world.client.post(path, call.to_string()).await;
        let told = reply.json();
        assert_eq!(reply.status, 400, "{path} {call}: {told}");
        assert!(
            told["error"]["message"].is_string(),
            "{path} {call}: {told}"
        );
    }
    assert_eq!((world.fast.calls(), world.bill().len()), (0, 0));
}

#[tokio::test]
async fn a_conversation_keeps_only_what_could_be_said_again() {
    let world = World::start("", "").await;
    let begin = |body: &'static str| world.client.post("/v1/conversations", body);
    for bad in [
        "[]",
        "5",
        "\"x\"",
        "true",
        r#"{"items":5}"#,
        r#"{"items":[5]}"#,
        r#"{"metadata":5}"#,
        r#"{"metadata":{"a":5}}"#,
    ] {
        assert_eq!(begin(bad).await.status, 400, "{bad}");
    }
    for good in ["", "{}", r#"{"metadata":{"a":"b"},"items":null}"#] {
        assert_eq!(begin(good).await.status, 200, "{good}");
    }
    let kept = begin("{}").await.json();
    let items = format!("/v1/conversations/{}/items", kept["id"].as_str().unwrap());
    for bad in ["{}", r#"{"items":[5]}"#, r#"{"items":[null]}"#] {
        assert_eq!(world.client.post(&items, bad).await.status, 400, "{bad}");
    }
    let listed = world.client.get(&items).await;
    assert_eq!(listed.json()["data"], json!([]));
    for (odd, status) in [
        ("order=zz", 400),
        ("limit=0", 400),
        ("limit=101", 400),
        ("limit=-1", 400),
        ("after=msg_1", 404),
    ] {
        let reply = world.client.get(&format!("{items}?{odd}")).await;
        assert_eq!(reply.status, status, "{odd}: {}", reply.text());
    }
    let said = r#"{"items":[{"role":"user","content":"Hi"}]}"#;
    assert_eq!(world.client.post(&items, said).await.status, 200);
    let listed = world.client.get(&format!("{items}?limit=100")).await.json();
    assert_eq!(listed["data"][0]["status"], "completed");
    let item = listed["data"][0]["id"].as_str().unwrap();
    let rest = world
        .client
        .get(&format!("{items}?after={item}"))
        .await
        .json();
    assert_eq!(rest["data"], json!([]));
}
