//! How a stream of each dialect must be built, whatever it says; SDKs break where it is not.

use serde_json::Value;
use wire::sse;

/// Panics where `text` is no whole stream of the dialect called `dialect`.
pub(crate) fn check(dialect: &str, text: &str, place: &str) {
    let events: Vec<(String, Value)> = text.split_inclusive("\n\n").map(parsed).collect();
    assert!(!events.is_empty(), "{place}: an empty stream");
    match dialect {
        "openai_chat" => chat(&events, place),
        "openai_responses" => responses(&events, place),
        _ => messages(&events, place),
    }
}

fn parsed(event: &str) -> (String, Value) {
    let name = sse::name(event.as_bytes()).unwrap_or_default();
    let data = sse::data(event.as_bytes()).expect("each event has data");
    let data = serde_json::from_slice(&data)
        .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(&data).into_owned()));
    (String::from_utf8_lossy(name).into_owned(), data)
}

fn chat(events: &[(String, Value)], place: &str) {
    let (last, chunks) = events.split_last().expect("not empty");
    assert_eq!(last.1, "[DONE]", "{place}: the last event");
    let mut finished = false;
    let mut calls = 0;
    for (number, (name, chunk)) in chunks.iter().enumerate() {
        let place = format!("{place}, chunk {number}: {chunk}");
        assert!(name.is_empty(), "{place}");
        assert_eq!(chunk["object"], "chat.completion.chunk", "{place}");
        assert_eq!(chunk["id"], chunks[0].1["id"], "{place}");
        assert!(chunk["model"].is_string(), "{place}");
        let Some(choice) = chunk["choices"].get(0) else {
            assert!(finished && chunk["usage"].is_object(), "{place}");
            continue;
        };
        assert!(chunk["usage"].is_null(), "{place}");
        assert!(!finished, "{place}: behind the finish");
        let delta = &choice["delta"];
        assert_eq!(delta["role"].is_string(), number == 0, "{place}");
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let kind = if call["custom"].is_object() {
                "custom"
            } else {
                "function"
            };
            if call["id"].is_string() {
                assert_eq!(call["index"], calls, "{place}");
                assert_eq!(call["type"], kind, "{place}");
                assert!(call[kind]["name"].is_string(), "{place}");
                calls += 1;
            } else {
                assert_eq!(call["index"], calls - 1, "{place}");
                assert!(call[kind]["name"].is_null(), "{place}");
            }
        }
        finished |= choice["finish_reason"].is_string();
    }
    assert!(finished, "{place}: no finish reason");
}

fn messages(events: &[(String, Value)], place: &str) {
    let mut open: Option<Value> = None;
    let mut blocks = 0;
    let last = events.len() - 1;
    for (number, (name, data)) in events.iter().enumerate() {
        let place = format!("{place}, event {number}: {data}");
        assert_eq!(data["type"], name.as_str(), "{place}");
        assert_eq!(name == "message_start", number == 0, "{place}");
        assert_eq!(name == "message_delta", number + 1 == last, "{place}");
        assert_eq!(name == "message_stop", number == last, "{place}");
        match name.as_str() {
            "message_start" => {
                assert_eq!(data["message"]["content"], serde_json::json!([]), "{place}");
                let input = &data["message"]["usage"]["input_tokens"];
                assert!(input.is_u64(), "{place}");
            }
            "content_block_start" => {
                assert!(open.is_none() && data["index"] == blocks, "{place}");
                open = Some(data["content_block"]["type"].clone());
            }
            "content_block_delta" => {
                assert_eq!(data["index"], blocks, "{place}");
                let block = open.as_ref().and_then(Value::as_str).expect("open");
                let delta = data["delta"]["type"].as_str().expect("a type");
                let fits = match delta {
                    "text_delta" | "citations_delta" => block == "text",
                    "thinking_delta" | "signature_delta" => block == "thinking",
                    "input_json_delta" => block == "tool_use",
                    _ => false,
                };
                assert!(fits, "{place}: {delta} in {block}");
            }
            "content_block_stop" => {
                assert!(open.take().is_some() && data["index"] == blocks, "{place}");
                blocks += 1;
            }
            "message_delta" => {
                assert!(open.is_none(), "{place}");
                assert!(data["delta"]["stop_reason"].is_string(), "{place}");
                assert!(data["usage"]["output_tokens"].is_u64(), "{place}");
            }
            _ => assert_eq!(name, "message_stop", "{place}"),
        }
    }
}

fn responses(events: &[(String, Value)], place: &str) {
    let mut open: Option<Value> = None;
    let mut grown = String::new();
    let mut done = Vec::new();
    for (number, (name, data)) in events.iter().enumerate() {
        let place = format!("{place}, event {number}: {data}");
        assert_eq!(data["type"], name.as_str(), "{place}");
        assert_eq!(data["sequence_number"], number, "{place}");
        match name.as_str() {
            "response.created" => assert_eq!(number, 0, "{place}"),
            "response.in_progress" => assert_eq!(number, 1, "{place}"),
            "response.output_item.added" => {
                assert!(open.is_none(), "{place}: one is open");
                assert_eq!(data["output_index"], done.len(), "{place}");
                open = Some(data["item"].clone());
                grown.clear();
            }
            "response.output_item.done" => {
                let added = open.take().expect("it was added");
                for field in ["type", "id", "call_id", "name"] {
                    assert_eq!(data["item"][field], added[field], "{place}: {field}");
                }
                done.push(data["item"].clone());
            }
            "response.completed" | "response.incomplete" => {
                let response = &data["response"];
                assert_eq!(number + 1, events.len(), "{place}");
                assert!(open.is_none(), "{place}");
                assert_eq!(response["output"], Value::from(done.clone()), "{place}");
                assert_eq!(format!("response.{}", text(&response["status"])), *name);
                assert!(response["usage"]["total_tokens"].is_u64(), "{place}");
            }
            _ => inside(name, data, open.as_ref(), &mut grown, &place),
        }
    }
    let last = &events.last().expect("not empty").0;
    let ended = ["response.completed", "response.incomplete"].contains(&last.as_str());
    assert!(ended, "{place}: it ends with {last}");
}

/// An event about the open item.
fn inside(name: &str, data: &Value, open: Option<&Value>, grown: &mut String, place: &str) {
    let open = open.expect("an item is open");
    assert_eq!(data["item_id"], open["id"], "{place}");
    let (of, what) = name.rsplit_once('.').expect("dots in its name");
    if what == "delta" {
        grown.push_str(text(&data["delta"]));
    } else if what == "done" && !of.ends_with("part") {
        let whole = ["text", "arguments", "input", "refusal"]
            .iter()
            .find_map(|field| data[field].as_str());
        assert_eq!(whole, Some(grown.as_str()), "{place}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
