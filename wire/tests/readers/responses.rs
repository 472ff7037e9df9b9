//! Proves the reader of Responses on items that are mixed, told late, or named anew with each event.

use serde_json::{Value, json};
use wire::Call;
use wire::dialect::{OPENAI_CHAT, OPENAI_RESPONSES};

use crate::support::{self, asked};
use crate::{parts, stream_of, streamed};

/// A stream of Responses with these events about its items, which its end tells once more.
pub(crate) fn responses(events: &[Value]) -> Vec<Value> {
    let done = |event: &&Value| event["type"] == "response.output_item.done";
    let mut output: Vec<&Value> = events.iter().filter(done).collect();
    output.sort_by_key(|event| event["output_index"].as_u64());
    let output: Vec<&Value> = output.iter().map(|event| &event["item"]).collect();
    let usage = json!({ "input_tokens": 1, "output_tokens": 1 });
    let begun = json!({ "id": "r", "model": "m", "status": "in_progress", "output": [] });
    let ended = json!({ "id": "r", "model": "m", "status": "completed", "output": output,
        "usage": usage });
    let mut all = vec![json!({ "type": "response.created", "response": begun })];
    all.extend(events.iter().cloned());
    all.push(json!({ "type": "response.completed", "response": ended }));
    all
}

/// An event about the item at `place` that is called `id`.
pub(crate) fn about(name: &str, place: u64, id: &str, fields: &Value) -> Value {
    let mut event = json!({ "type": format!("response.{name}"), "output_index": place });
    if fields.get("item").is_none() {
        event["item_id"] = id.into();
    }
    let fields = fields.as_object().unwrap().clone();
    event.as_object_mut().unwrap().extend(fields);
    event
}

pub(crate) fn item(id: &str, text: &str) -> Value {
    match id.split_at(1) {
        ("m", _) => {
            let part = json!({ "type": "output_text", "text": text, "annotations": [] });
            json!({ "type": "message", "id": id, "role": "assistant", "content": [part] })
        }
        ("r", _) => {
            let part = json!({ "type": "reasoning_text", "text": text });
            json!({ "type": "reasoning", "id": id, "summary": [], "content": [part] })
        }
        (_, number) => json!({ "type": "function_call", "id": id, "call_id": format!("c{number}"),
            "name": id, "arguments": text }),
    }
}

pub(crate) fn added(place: u64, id: &str) -> Value {
    let mut item = item(id, "");
    if item.get("content").is_some() {
        item["content"] = json!([]);
    }
    about("output_item.added", place, id, &json!({ "item": item }))
}

pub(crate) fn done(place: u64, id: &str, text: &str) -> Value {
    let item = item(id, text);
    about("output_item.done", place, id, &json!({ "item": item }))
}

pub(crate) fn piece(place: u64, id: &str, text: &str) -> Value {
    let name = match id.split_at(1).0 {
        "m" => "output_text.delta",
        "r" => "reasoning_text.delta",
        _ => "function_call_arguments.delta",
    };
    about(name, place, id, &json!({ "delta": text }))
}

/// The same events from a server that does not count.
pub(crate) fn uncounted(events: &[Value]) -> Vec<Value> {
    let mut events = events.to_vec();
    for event in &mut events {
        event.as_object_mut().unwrap().remove("output_index");
    }
    events
}

#[test]
fn a_message_that_calls_come_between_is_said_once() {
    let events = [
        added(0, "m0"),
        piece(0, "m0", "Hello "),
        added(1, "f1"),
        piece(0, "m0", "wor"),
        piece(1, "f1", "{\"a\":"),
        piece(0, "m0", "ld"),
        added(2, "g2"),
        piece(2, "g2", "{\"b\""),
        piece(1, "f1", "1}"),
        piece(2, "g2", ":2}"),
        done(1, "f1", "{\"a\":1}"),
        piece(0, "m0", "!"),
        done(2, "g2", "{\"b\":2}"),
        done(0, "m0", "Hello world!!"),
    ];
    for events in [events.to_vec(), uncounted(&events)] {
        let reply = streamed(OPENAI_RESPONSES, &responses(&events));
        let said = ["Hello ", "f1({\"a\":1})", "world", "g2({\"b\":2})", "!!"];
        assert_eq!(parts(&reply), said);
    }
}

#[test]
fn items_whose_ends_are_all_told_at_the_end_are_said_once() {
    let text = json!({ "type": "output_text", "text": "Yes, I do." });
    let events = [
        added(0, "r0"),
        piece(0, "r0", "Hm"),
        added(1, "m1"),
        about(
            "content_part.added",
            1,
            "m1",
            &json!({ "part": { "type": "output_text", "text": "" } }),
        ),
        piece(1, "m1", "Yes, "),
        piece(1, "m1", "I do."),
        added(2, "f2"),
        piece(2, "f2", "{\"a\":1}"),
        added(3, "g3"),
        piece(3, "g3", "{}"),
        done(0, "r0", "Hm"),
        about("content_part.done", 1, "m1", &json!({ "part": text })),
        done(1, "m1", "Yes, I do."),
        done(2, "f2", "{\"a\":1}"),
        done(3, "g3", "{}"),
    ];
    for events in [events.to_vec(), uncounted(&events)] {
        let reply = streamed(OPENAI_RESPONSES, &responses(&events));
        let said = ["[Hm]", "Yes, I do.", "f2({\"a\":1})", "g3({})"];
        assert_eq!(parts(&reply), said);
        // The text was told as it came.
        let early = stream_of(OPENAI_RESPONSES, &responses(&events)[..6]);
        let call = asked(Call::default());
        let there = support::stream(OPENAI_RESPONSES, OPENAI_CHAT, call, early.as_bytes(), 99);
        assert!(there.text.contains("\"content\":\"Yes, \""));
    }
}

#[test]
fn items_that_all_count_as_the_first_are_told_apart() {
    let events = [
        added(0, "r0"),
        piece(0, "r0", "Hm"),
        done(0, "r0", "Hm"),
        added(0, "m1"),
        piece(0, "m1", "Yes"),
        done(0, "m1", "Yes, I do."),
        done(0, "f2", "{}"),
    ];
    let reply = streamed(OPENAI_RESPONSES, &responses(&events));
    assert_eq!(parts(&reply), ["[Hm]", "Yes, I do.", "f2({})"]);
}

#[test]
fn an_item_may_have_a_new_id_with_each_event() {
    let events = [
        added(0, "m0"),
        piece(0, "m8", "Hello "),
        piece(0, "m7", "world"),
        done(0, "m6", "Hello world"),
        added(1, "f1"),
        piece(1, "f8", "{}"),
        done(1, "f1", "{}"),
    ];
    let reply = streamed(OPENAI_RESPONSES, &responses(&events));
    assert_eq!(parts(&reply), ["Hello world", "f1({})"]);
}

#[test]
fn events_that_are_about_no_item_change_nothing() {
    let alive = json!({ "type": "keepalive", "sequence_number": 3 });
    let events = [
        alive.clone(),
        added(0, "m0"),
        alive.clone(),
        piece(0, "m0", "Yes"),
        done(0, "m0", "Yes"),
        alive,
    ];
    for events in [events.to_vec(), uncounted(&events)] {
        let reply = streamed(OPENAI_RESPONSES, &responses(&events));
        assert_eq!(parts(&reply), ["Yes"]);
    }
}

#[test]
fn what_waits_for_a_call_is_bounded() {
    let waits = (1..2_000).flat_map(|place| [added(place, "m"), done(place, "m", "x")]);
    let mut events = vec![added(0, "f0")];
    events.extend((0..5).flat_map(|_| waits.clone()));
    let text = stream_of(OPENAI_RESPONSES, &responses(&events));
    let call = asked(Call::default());
    let there = support::stream(OPENAI_RESPONSES, OPENAI_CHAT, call, text.as_bytes(), 9_999);
    let why = there.failed.expect("it failed");
    assert_eq!(why, "the answer mixes too many items");
}

#[test]
fn arguments_may_come_as_an_object() {
    let call = json!({ "type": "function_call", "id": "f1", "call_id": "c1", "name": "f", "arguments": { "a": 1 } });
    let events = [json!({ "type": "response.output_item.done", "output_index": 0, "item": call })];
    let reply = streamed(OPENAI_RESPONSES, &responses(&events));
    assert_eq!(parts(&reply), [r#"f({"a":1})"#]);
}
