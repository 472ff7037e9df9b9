//! Proves what becomes of answers that are not true: figures of zero, words that make a broken answer look whole,
//! keys told on, and what is no answer at all.

use serde_json::{Value, json};
use tests::World;
use tokio::sync::mpsc::UnboundedReceiver;
use wire::UsageSource;

use crate::corners::answering;

const KEY: &str = "sk-own-0123456789";

/// A gateway with a model at an endpoint of `dialect` that answers with `body`, and what it is asked.
async fn world(dialect: &str, body: String) -> (World, UnboundedReceiver<String>) {
    let kind = if body.starts_with('{') {
        "application/json"
    } else {
        "text/event-stream"
    };
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let (url, asked) = answering(move |_| answer.clone()).await;
    let tail = format!(
        "[[endpoint]]\nname = \"own\"\ndialect = \"{dialect}\"\nurl = \"{url}\"\nkey = \"{KEY}\"\n\
         [[model]]\nname = \"own/it\"\ntier = \"fast\"\nendpoint = \"own\"\nprice = \"test/fast\"\n"
    );
    (World::start("", &tail).await, asked)
}

/// What the caller of each dialect asks.
fn call(path: &str, stream: bool) -> String {
    let said = json!([{ "role": "user", "content": "Say something long." }]);
    let field = if path == "/v1/responses" {
        "input"
    } else {
        "messages"
    };
    json!({ "model": "own/it", "stream": stream, field: said, "max_tokens": 400 })
        .to_string()
        .replace(
            "max_tokens",
            if path == "/v1/responses" {
                "max_output_tokens"
            } else {
                "max_tokens"
            },
        )
}

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const PATHS: [&str; 3] = [CHAT, RESPONSES, MESSAGES];

fn chat(message: &Value, finish: &str, usage: &Value) -> Value {
    json!({ "id": "c", "object": "chat.completion", "created": 1, "model": "m", "usage": usage,
        "choices": [{ "index": 0, "message": message, "finish_reason": finish }] })
}

fn messages(content: &Value, stop: &str, usage: &Value) -> Value {
    json!({ "id": "m", "type": "message", "role": "assistant", "model": "m", "content": content,
        "stop_reason": stop, "stop_sequence": null, "usage": usage })
}

fn responses(status: &str, usage: &Value) -> Value {
    let text = json!({ "type": "output_text", "text": TEXT, "annotations": [] });
    json!({ "id": "r", "object": "response", "status": status, "model": "m", "usage": usage,
        "output": [{ "type": "message", "id": "i", "role": "assistant", "status": "completed", "content": [text] }] })
}

fn events(events: &[Value]) -> String {
    let data = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    events.iter().map(data).collect()
}

fn chunk(delta: &Value, finish: &Value) -> Value {
    json!({ "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] })
}

/// A chat stream that says something, and then `rest`.
fn said(rest: &[Value]) -> String {
    let mut all = vec![chunk(
        &json!({ "role": "assistant", "content": TEXT }),
        &Value::Null,
    )];
    all.extend_from_slice(rest);
    events(&all)
}

/// A Messages stream of a text, whose start and end report so.
fn told(begin: &Value, end: &Value, late: &[Value]) -> String {
    let mut all = vec![
        json!({ "type": "message_start", "message": { "id": "m", "type": "message", "role": "assistant",
            "model": "m", "content": [], "usage": begin } }),
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": TEXT } }),
        json!({ "type": "content_block_stop", "index": 0 }),
    ];
    all.extend_from_slice(late);
    all.push(
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": end }),
    );
    all.push(json!({ "type": "message_stop" }));
    events(&all)
}

const TEXT: &str = "one two three four five six seven eight nine ten";

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_zero_are_no_figures() {
    let zeros = json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 });
    let others = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 });
    let message = json!({ "role": "assistant", "content": TEXT });
    let text = json!([{ "type": "text", "text": TEXT }]);
    let last = |usage: &Value| json!({ "choices": [], "usage": usage });
    let stop = chunk(&json!({}), &json!("stop"));
    for (dialect, path, body) in [
        (
            "openai_chat",
            CHAT,
            chat(&message, "stop", &zeros).to_string(),
        ),
        (
            "openai_chat",
            CHAT,
            chat(&message, "stop", &json!({ "prompt_tokens": 9 })).to_string(),
        ),
        (
            "openai_chat",
            CHAT,
            chat(&message, "stop", &json!({ "completion_tokens": 9 })).to_string(),
        ),
        (
            "openai_chat",
            CHAT,
            said(&[stop, last(&zeros)]) + "data: [DONE]\n\n",
        ),
        (
            "openai_responses",
            RESPONSES,
            responses("completed", &others).to_string(),
        ),
        (
            "anthropic_messages",
            MESSAGES,
            messages(&text, "end_turn", &others).to_string(),
        ),
        ("anthropic_messages", MESSAGES, told(&others, &others, &[])),
    ] {
        let (world, _asked) = world(dialect, body.clone()).await;
        let reply = world
            .client
            .post(path, call(path, !body.starts_with('{')))
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let entry = world.entries().await.pop().unwrap();
        assert_eq!(entry.source, UsageSource::Counted, "{body}");
        assert!(
            entry.usage.prompt() > 3 && entry.usage.answer() > 0,
            "{body}: {:?}",
            entry.usage
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_is_not_taken_back_by_a_zero() {
    let full = json!({ "prompt_tokens": 3000, "completion_tokens": 2, "total_tokens": 3002 });
    let zeros = json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 });
    let mut stop = chunk(&json!({}), &json!("stop"));
    stop["usage"] = full;
    let chat = said(&[stop, json!({ "choices": [], "usage": zeros })]) + "data: [DONE]\n\n";
    let begin = json!({ "input_tokens": 2500, "cache_read_input_tokens": 500, "output_tokens": 1 });
    let end = json!({ "input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 2 });
    for (dialect, path, body) in [
        ("openai_chat", CHAT, chat),
        ("anthropic_messages", MESSAGES, told(&begin, &end, &[])),
    ] {
        let (world, _asked) = world(dialect, body).await;
        world.client.post(path, call(path, true)).await;
        let entry = world.entries().await.pop().unwrap();
        assert_eq!(
            (entry.usage.prompt(), entry.usage.answer()),
            (3000, 2),
            "{dialect}"
        );
        assert_eq!(entry.source, UsageSource::Provider);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_an_endpoint_tells_in_midstream_is_cut_out() {
    let what = format!("the key {KEY} is bad");
    let chat = said(&[json!({ "error": { "message": what } })]);
    let failed = json!({ "type": "error", "error": { "type": "api_error", "message": what } });
    let begin = json!({ "input_tokens": 5, "output_tokens": 1 });
    for (dialect, body) in [
        ("openai_chat", chat),
        ("anthropic_messages", told(&begin, &begin, &[failed])),
    ] {
        let (world, mut asked) = world(dialect, body).await;
        for path in PATHS {
            let reply = world.client.post(path, call(path, true)).await;
            let text = reply.text();
            assert!(text.contains("is bad"), "{dialect} to {path}: {text}");
            assert!(!text.contains(KEY), "{dialect} to {path}: {text}");
            assert!(asked.recv().await.unwrap().contains(KEY));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_a_vendors_own_words_has_no_clean_end() {
    let whole = "data: [DONE]\n\n";
    for rest in [
        "event: error\ndata: {\"message\":\"boom\",\"code\":500}\n\n".to_owned(),
        events(&[json!({ "object": "error", "message": "boom", "code": 500 })]),
        events(&[json!({ "detail": "boom" })]),
        events(&[chunk(&json!({}), &json!("insufficient_system_resource"))]),
    ] {
        let (world, _asked) = world("openai_chat", said(&[]) + &rest + whole).await;
        for path in PATHS {
            let reply = world.client.post(path, call(path, true)).await;
            let text = reply.text();
            assert!(text.contains("one two"), "{text}");
            assert!(
                text.contains("upstream_interrupted") || text.contains("upstream"),
                "{rest}: {text}"
            );
            for end in ["[DONE]", "response.completed", "message_stop"] {
                assert!(!text.contains(end), "{rest} to {path}: {text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_none_is_an_error_abroad() {
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10 });
    let other = json!({ "input_tokens": 5, "output_tokens": 5, "total_tokens": 10 });
    let mut bare = chat(&Value::Null, "stop", &usage);
    bare["choices"][0]
        .as_object_mut()
        .unwrap()
        .remove("message");
    for (dialect, home, body) in [
        (
            "anthropic_messages",
            MESSAGES,
            messages(&json!("Hello"), "end_turn", &other),
        ),
        (
            "anthropic_messages",
            MESSAGES,
            messages(&Value::Null, "end_turn", &other),
        ),
        (
            "openai_chat",
            CHAT,
            chat(
                &json!({ "role": "assistant", "content": 5 }),
                "stop",
                &usage,
            ),
        ),
        ("openai_chat", CHAT, bare),
        ("openai_responses", RESPONSES, responses("queued", &other)),
    ] {
        let (world, _asked) = world(dialect, body.to_string()).await;
        for path in PATHS.into_iter().filter(|path| *path != home) {
            let reply = world.client.post(path, call(path, false)).await;
            assert_eq!(reply.status, 502, "{body} to {path}: {}", reply.text());
        }
    }
    let late = json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "more" } });
    let (world, _asked) = world("anthropic_messages", told(&other, &other, &[late])).await;
    let reply = world.client.post(CHAT, call(CHAT, true)).await;
    assert!(!reply.text().contains("[DONE]"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_stops_for_its_tools_exactly_where_it_calls_one() {
    let usage = json!({ "prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10 });
    let message = json!({ "role": "assistant", "content": TEXT });
    let (quiet, _asked) = world(
        "openai_chat",
        chat(&message, "tool_calls", &usage).to_string(),
    )
    .await;
    let reply = quiet.client.post(MESSAGES, call(MESSAGES, false)).await;
    assert_eq!(reply.json()["stop_reason"], "end_turn");
    let called = json!([{ "type": "tool_use", "id": "t", "name": "f", "input": {} }]);
    let other = json!({ "input_tokens": 5, "output_tokens": 5 });
    let (calls, _asked) = world(
        "anthropic_messages",
        messages(&called, "end_turn", &other).to_string(),
    )
    .await;
    let reply = calls.client.post(CHAT, call(CHAT, false)).await;
    assert_eq!(reply.json()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn results_of_calls_of_one_name_go_to_each_in_its_turn() {
    let other = json!({ "input_tokens": 5, "output_tokens": 5 });
    let answer = messages(
        &json!([{ "type": "text", "text": TEXT }]),
        "end_turn",
        &other,
    );
    let (world, mut asked) = world("anthropic_messages", answer.to_string()).await;
    let made = |n: u8| {
        json!({ "id": "c1", "type": "function",
        "function": { "name": "f", "arguments": format!("{{\"a\":{n}}}") } })
    };
    let body = json!({ "model": "own/it", "messages": [
        { "role": "user", "content": "Hi" },
        { "role": "assistant", "content": null, "tool_calls": [made(1), made(2)] },
        { "role": "tool", "tool_call_id": "c1", "content": "R1" },
        { "role": "tool", "tool_call_id": "c1", "content": "R2" } ] });
    let reply = world.client.post(CHAT, body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = asked.recv().await.unwrap();
    let sent: Value = serde_json::from_str(sent.split_once("\r\n\r\n").unwrap().1).unwrap();
    let (calls, results) = (
        &sent["messages"][1]["content"],
        &sent["messages"][2]["content"],
    );
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    for (n, said) in [(0, "R1"), (1, "R2")] {
        assert_eq!(results[n]["tool_use_id"], calls[n]["id"], "{sent}");
        assert!(results[n]["content"].to_string().contains(said), "{sent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_takes_no_reference_to_what_is_not_the_tenants() {
    let (world, mut asked) = world(
        "openai_responses",
        responses("completed", &Value::Null).to_string(),
    )
    .await;
    let stranger = json!({ "type": "item_reference", "id": "msg_of_another" });
    let items = json!({ "items": [stranger] }).to_string();
    let refused = world.client.post("/v1/conversations", items.clone()).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    let made = world.client.post("/v1/conversations", "{}").await.json();
    let id = made["id"].as_str().unwrap();
    let refused = world
        .client
        .post(&format!("/v1/conversations/{id}/items"), items)
        .await;
    assert_eq!(refused.status, 400, "{}", refused.text());
    // One's own is written out.
    let body = json!({ "model": "own/it", "input": "Hi" });
    let first = world.client.post(RESPONSES, body.to_string()).await.json();
    asked.recv().await.unwrap();
    let own = json!({ "items": [{ "type": "item_reference", "id": first["output"][0]["id"] }] });
    let kept = world
        .client
        .post(&format!("/v1/conversations/{id}/items"), own.to_string())
        .await;
    assert_eq!(kept.status, 200, "{}", kept.text());
    let body = json!({ "model": "own/it", "conversation": id, "input": "And?" });
    let reply = world.client.post(RESPONSES, body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = asked.recv().await.unwrap();
    assert!(
        sent.contains(TEXT) && !sent.contains("item_reference"),
        "{sent}"
    );
}

#[tokio::test]
async fn a_model_is_found_by_its_encoded_name() {
    let (world, _asked) = world("openai_chat", "{}".to_owned()).await;
    for path in [
        "/v1/models/own/it",
        "/v1/models/own%2Fit",
        "/v1/models/own%2fi%74",
    ] {
        let reply = world.client.get(path).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}
