//! Proves the readers on answers that no golden case has: what servers send beside what is written
//! down. Each is carried to callers of every dialect, whole or as a stream, and says the same there.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test stops where traffic must not"
)]

#[path = "readers/halves.rs"]
mod halves;
#[path = "readers/messages.rs"]
mod messages;
#[path = "readers/mixed.rs"]
mod mixed;
#[path = "readers/responses.rs"]
mod responses;
#[expect(dead_code, reason = "other tests need more of it")]
mod support;

use serde_json::{Value, json};
use support::{Essence, ORIGIN, asked, conversing, grammar};
use wire::dialect::{ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES};
use wire::{Call, Dialect, Losses, Reply, translate};

/// A stream of these events.
fn stream_of(from: &dyn Dialect, events: &[Value]) -> String {
    let written = |event: &Value| match event["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {event}\n\n"),
        None => format!("data: {event}\n\n"),
    };
    let text: String = events.iter().map(written).collect();
    match from.name() {
        "openai_chat" => text + "data: [DONE]\n\n",
        _ => text,
    }
}

/// The answer that is read from these events, after callers of every dialect got just that.
fn streamed(from: &dyn Dialect, events: &[Value]) -> Reply {
    let text = stream_of(from, events);
    let mut reply = Reply::default();
    for to in conversing() {
        let place = format!("{} to {}", from.name(), to.name());
        let call = asked(Call::default());
        let there = support::stream(from, to, call, text.as_bytes(), text.len());
        assert!(there.ended && there.failed.is_none(), "{place}");
        grammar::check(to.name(), &there.text, &place);
        let mut told = Essence::of(&there.reply, to);
        told.without(&there.losses);
        let mut back = Essence::of(support::read(to, &there.text).whole().unwrap(), to);
        back.fit(&told);
        assert_eq!(back, told, "{place}");
        reply = there.reply;
    }
    reply
}

/// The same of an answer that comes whole.
fn whole(from: &dyn Dialect, answer: &Value) -> Reply {
    let mut reply = Reply::default();
    for to in conversing() {
        let place = format!("{} to {}", from.name(), to.name());
        let mut losses = Losses::default();
        let call = asked(Call::default());
        let body = answer.to_string();
        let (body, read) =
            translate::reply(from, ORIGIN, to, &call, body.as_bytes(), &mut losses).unwrap();
        let mut told = Essence::of(&read, to);
        told.without(&losses);
        let back = to.decode_reply(body.to_string().as_bytes(), ORIGIN);
        let mut back = Essence::of(&back.unwrap(), to);
        back.fit(&told);
        assert_eq!(back, told, "{place}");
        reply = read;
    }
    reply
}

/// The parts of an answer in short: text as it is, thinking in brackets, calls as name and arguments.
fn parts(reply: &Reply) -> Vec<String> {
    use wire::call::Kind;
    let shown = |kind: &Kind| match kind {
        Kind::Text(text) => text.text.clone(),
        Kind::Thinking(thinking) => format!("[{}]", thinking.text),
        Kind::ToolCall(call) => format!("{}({})", call.name, call.arguments),
        other => format!("{other:?}"),
    };
    reply.parts.iter().map(|part| shown(&part.kind)).collect()
}

/// A piece of a chat's stream that holds a piece of a call.
fn call_chunk(call: &Value) -> Value {
    json!({ "model": "m", "choices": [{ "index": 0, "delta": { "tool_calls": [call] } }] })
}

fn chat_end(word: &str) -> Value {
    json!({ "model": "m", "choices": [{ "index": 0, "delta": {}, "finish_reason": word }] })
}

/// A whole answer of a chat with one call.
fn chat_answer(id: &str, arguments: &Value) -> Value {
    let function = json!({ "name": "f", "arguments": arguments });
    let call = json!({ "id": id, "type": "function", "function": function });
    json!({ "model": "m", "choices": [{ "index": 0, "finish_reason": "tool_calls",
        "message": { "role": "assistant", "content": null, "tool_calls": [call] } }] })
}

#[test]
fn arguments_may_be_an_object_instead_of_its_text() {
    let object = json!({ "path": "/a" });
    let reply = whole(OPENAI_CHAT, &chat_answer("c1", &object));
    assert_eq!(parts(&reply), ["f({\"path\":\"/a\"})"]);
    let function = json!({ "name": "f", "arguments": object });
    let call = json!({ "index": 0, "id": "c1", "type": "function", "function": function });
    let reply = streamed(OPENAI_CHAT, &[call_chunk(&call), chat_end("tool_calls")]);
    assert_eq!(parts(&reply), ["f({\"path\":\"/a\"})"]);
}

#[test]
fn a_transcript_may_have_arguments_as_an_object() {
    let object = json!({ "path": "/a" });
    let message = chat_answer("c1", &object)["choices"][0]["message"].clone();
    let old = json!({ "role": "assistant", "function_call": { "name": "g", "arguments": object } });
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }, message,
        { "role": "tool", "tool_call_id": "c1", "content": "ok" }, old,
        { "role": "function", "name": "g", "content": "ok" }] });
    let call = OPENAI_CHAT.decode(body.to_string().as_bytes()).unwrap();
    let (body, losses) = support::carried(&call, ANTHROPIC_MESSAGES, ORIGIN);
    assert!(losses.is_empty(), "{losses:?}");
    for place in [1, 3] {
        assert_eq!(body["messages"][place]["content"][0]["input"], object);
    }
}

#[test]
fn a_call_cut_by_the_window_is_no_whole_one() {
    for reason in ["max_tokens", "model_context_window_exceeded"] {
        let call = json!({ "type": "tool_use", "id": "t1", "name": "f", "input": {} });
        let answer = json!({ "type": "message", "role": "assistant", "model": "m",
            "stop_reason": reason, "content": [call] });
        assert_eq!(
            parts(&whole(ANTHROPIC_MESSAGES, &answer)),
            ["f()"],
            "{reason}"
        );
    }
}

/// A piece of the arguments of the call that `chat_call` begins.
fn more(arguments: &str) -> Value {
    call_chunk(&json!({ "index": 0, "function": { "arguments": arguments } }))
}

/// The first piece of a call.
fn chat_call(index: u64, arguments: &str) -> Value {
    let function = json!({ "name": "f", "arguments": arguments });
    call_chunk(
        &json!({ "index": index, "id": format!("c{index}"), "type": "function",
        "function": function }),
    )
}

#[test]
fn null_stands_for_no_arguments() {
    let reply = whole(OPENAI_CHAT, &chat_answer("c1", &json!("null")));
    assert_eq!(parts(&reply), ["f({})"]);
    let end = || chat_end("tool_calls");
    for pieces in [["null", ""], ["nu", "ll"], ["", " null"], ["", ""]] {
        let [first, second] = pieces;
        let reply = streamed(OPENAI_CHAT, &[chat_call(0, first), more(second), end()]);
        assert_eq!(parts(&reply), ["f({})"], "{pieces:?}");
    }
    let two = [chat_call(0, "null"), chat_call(1, "null"), end()];
    assert_eq!(parts(&streamed(OPENAI_CHAT, &two)), ["f({})", "f({})"]);
}

#[test]
fn null_inside_of_arguments_is_none_of_them() {
    let end = chat_end("tool_calls");
    let events = [
        chat_call(0, ""),
        more("{\"a\":"),
        more("null"),
        more("}"),
        end,
    ];
    assert_eq!(parts(&streamed(OPENAI_CHAT, &events)), ["f({\"a\":null})"]);
}

#[test]
fn a_transcript_may_have_null_for_no_arguments() {
    let message = chat_answer("c1", &json!("null"))["choices"][0]["message"].clone();
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "hi" }, message,
        { "role": "tool", "tool_call_id": "c1", "content": "ok" }] });
    let call = OPENAI_CHAT.decode(body.to_string().as_bytes()).unwrap();
    let (body, _) = support::carried(&call, ANTHROPIC_MESSAGES, ORIGIN);
    assert_eq!(body["messages"][1]["content"][0]["input"], json!({}));
    let (body, _) = support::carried(&call, OPENAI_RESPONSES, ORIGIN);
    assert_eq!(body["input"][1]["arguments"], "{}");
}

#[test]
fn a_call_waits_for_its_name() {
    let bare = |index: u64| {
        let function = json!({ "arguments": "" });
        call_chunk(
            &json!({ "index": index, "id": format!("c{index}"), "type": "function",
            "function": function }),
        )
    };
    let named = |index: Option<u64>, name: &str, arguments: &str| {
        let function = json!({ "name": name, "arguments": arguments });
        call_chunk(&json!({ "index": index, "function": function }))
    };
    let end = || chat_end("tool_calls");
    for index in [Some(0), None] {
        let events = [bare(0), named(index, "f", "{\"a\":"), more("1}"), end()];
        assert_eq!(parts(&streamed(OPENAI_CHAT, &events)), ["f({\"a\":1})"]);
    }
    // Arguments before the name, and a second call that has its name first.
    let events = [
        bare(0),
        more("{\"a\":"),
        bare(1),
        named(Some(1), "g", "{\"b\":2}"),
        more("1}"),
        named(Some(0), "f", ""),
        end(),
    ];
    let reply = streamed(OPENAI_CHAT, &events);
    assert_eq!(parts(&reply), ["f({\"a\":1})", "g({\"b\":2})"]);
    // A name that never comes.
    let events = [bare(0), more("{}"), chat_call(1, "{}"), end()];
    let reply = streamed(OPENAI_CHAT, &events);
    assert_eq!(parts(&reply), ["({})", "f({})"]);
}

/// What a caller who speaks `to` sends with the answer to its last call, and the result of its tool.
fn next_call(to: &dyn Dialect, before: &Call, answer: &Value) -> Call {
    let mut body = to.encode(before, &support::change("m"), &mut Losses::default());
    let (list, items) = match to.name() {
        "openai_responses" => {
            let call = answer["output"][0].clone();
            let result = json!({ "type": "function_call_output", "call_id": call["call_id"],
                "output": "ok" });
            ("input", [call, result])
        }
        "openai_chat" => {
            let message = answer["choices"][0]["message"].clone();
            let result = json!({ "role": "tool", "content": "ok",
                "tool_call_id": message["tool_calls"][0]["id"] });
            ("messages", [message, result])
        }
        _ => {
            let result = json!({ "type": "tool_result", "content": "ok",
                "tool_use_id": answer["content"][0]["id"] });
            let made = json!({ "role": "assistant", "content": answer["content"] });
            (
                "messages",
                [made, json!({ "role": "user", "content": [result] })],
            )
        }
    };
    body[list].as_array_mut().unwrap().extend(items);
    to.decode(body.to_string().as_bytes()).unwrap()
}

/// The ids of the calls and those of the results, as an upstream that speaks chat gets them.
fn ids(call: &Call) -> (Vec<Value>, Vec<Value>) {
    let (body, _) = support::carried(call, OPENAI_CHAT, ORIGIN);
    let messages = body["messages"].as_array().unwrap();
    let calls = messages.iter().map(|it| it["tool_calls"][0]["id"].clone());
    let results = messages.iter().map(|it| it["tool_call_id"].clone());
    let told = |id: &Value| !id.is_null();
    (calls.filter(told).collect(), results.filter(told).collect())
}

#[test]
fn an_id_that_an_earlier_answer_had_is_made_anew() {
    for to in conversing() {
        // The second is one that not every dialect takes as it is.
        for id in ["call_0", "functions.f:0"] {
            let said = json!({ "model": "m", "max_tokens": 9,
                "messages": [{ "role": "user", "content": "hi" }], "input": "hi" });
            let mut call = to.decode(said.to_string().as_bytes()).unwrap();
            for number in 0..3 {
                let mut asked = asked(call.clone());
                asked.request = wire::RequestId::new(1_795_000_000_000, [number; 10]);
                let chunk = json!({ "index": 0, "id": id, "type": "function",
                    "function": { "name": "f", "arguments": "{}" } });
                let text = stream_of(OPENAI_CHAT, &[call_chunk(&chunk), chat_end("tool_calls")]);
                let there = support::stream(OPENAI_CHAT, to, asked.clone(), text.as_bytes(), 99);
                let body = chat_answer(id, &json!("{}")).to_string();
                let mut losses = Losses::default();
                let (answer, read) = translate::reply(
                    OPENAI_CHAT,
                    ORIGIN,
                    to,
                    &asked,
                    body.as_bytes(),
                    &mut losses,
                )
                .unwrap();
                assert_eq!(there.reply.parts, read.parts, "{}", to.name());
                call = next_call(to, &call, &answer);
            }
            let (calls, results) = ids(&call);
            assert_eq!(calls, results, "{}: results find their calls", to.name());
            let apart: std::collections::BTreeSet<String> =
                calls.iter().map(ToString::to_string).collect();
            assert_eq!(apart.len(), 3, "{}: {calls:?}", to.name());
        }
    }
}
