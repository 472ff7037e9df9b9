//! Proves the reader of Messages on blocks that are mixed, numbered wrongly, or never end.

use serde_json::{Value, json};
use wire::Call;
use wire::dialect::{ANTHROPIC_MESSAGES, OPENAI_CHAT};

use crate::support::{self, asked};
use crate::{parts, stream_of, streamed};

/// A stream of Messages with these events about its blocks.
pub(crate) fn messages(blocks: &[Value], stop: &str) -> Vec<Value> {
    let usage = json!({ "input_tokens": 1, "output_tokens": 1 });
    let message = json!({ "id": "m", "model": "m", "usage": usage });
    let mut events = vec![json!({ "type": "message_start", "message": message })];
    events.extend(blocks.iter().cloned());
    events
        .push(json!({ "type": "message_delta", "delta": { "stop_reason": stop }, "usage": usage }));
    events.push(json!({ "type": "message_stop" }));
    events
}

pub(crate) fn start(index: u64, block: &Value) -> Value {
    json!({ "type": "content_block_start", "index": index, "content_block": block })
}

pub(crate) fn delta(index: u64, delta: &Value) -> Value {
    json!({ "type": "content_block_delta", "index": index, "delta": delta })
}

pub(crate) fn stop(index: u64) -> Value {
    json!({ "type": "content_block_stop", "index": index })
}

pub(crate) fn tool(index: u64, name: &str) -> Value {
    let id = format!("t{index}");
    start(
        index,
        &json!({ "type": "tool_use", "id": id, "name": name, "input": {} }),
    )
}

pub(crate) fn input(index: u64, json: &str) -> Value {
    delta(
        index,
        &json!({ "type": "input_json_delta", "partial_json": json }),
    )
}

pub(crate) fn says(index: u64, text: &str) -> Value {
    delta(index, &json!({ "type": "text_delta", "text": text }))
}

pub(crate) fn thinks(index: u64, text: &str) -> Value {
    delta(
        index,
        &json!({ "type": "thinking_delta", "thinking": text }),
    )
}

pub(crate) fn text(index: u64) -> Value {
    start(index, &json!({ "type": "text", "text": "" }))
}

pub(crate) fn thinking(index: u64) -> Value {
    start(index, &json!({ "type": "thinking", "thinking": "" }))
}

#[test]
fn input_that_is_announced_keeps_its_digits() {
    let used = json!({ "type": "tool_use", "id": "t", "name": "f", "input": { "n": "N" } });
    let events = messages(&[start(0, &used), stop(0)], "tool_use");
    let text = stream_of(ANTHROPIC_MESSAGES, &events);
    let text = text.replace("\"N\"", "12345678901234567890123");
    for to in support::conversing() {
        let there = support::stream(
            ANTHROPIC_MESSAGES,
            to,
            asked(Call::default()),
            text.as_bytes(),
            text.len(),
        );
        let read = support::read(to, &there.text);
        let said = parts(read.whole().unwrap());
        assert_eq!(
            said,
            ["f({\"n\":12345678901234567890123})"],
            "{}",
            to.name()
        );
    }
}

#[test]
fn blocks_that_are_open_at_once_keep_their_pieces() {
    let calls = [
        tool(0, "f"),
        tool(1, "g"),
        tool(2, "h"),
        input(1, "{\"b\":"),
        input(0, "{\"a\":1}"),
        stop(2),
        input(1, "2}"),
        stop(0),
        stop(1),
    ];
    let reply = streamed(ANTHROPIC_MESSAGES, &messages(&calls, "tool_use"));
    assert_eq!(parts(&reply), ["f({\"a\":1})", "g({\"b\":2})", "h({})"]);
    // What comes while a call is under way waits for its end.
    let beside = [
        text(0),
        says(0, "So: "),
        tool(1, "f"),
        input(1, "{\"a\""),
        text(2),
        says(2, "and "),
        says(0, "it is "),
        input(1, ":1}"),
        says(2, "done"),
        stop(1),
        stop(0),
        stop(2),
    ];
    let reply = streamed(ANTHROPIC_MESSAGES, &messages(&beside, "tool_use"));
    let said = ["So: ", "f({\"a\":1})", "and done", "it is "];
    assert_eq!(parts(&reply), said);
}

#[test]
fn blocks_stream_where_all_ends_are_told_at_the_end() {
    let events = messages(
        &[
            thinking(0),
            thinks(0, "Hm"),
            text(1),
            says(1, "Yes"),
            tool(2, "f"),
            input(2, "{}"),
            tool(3, "g"),
            input(3, "{\"b\":2}"),
            delta(0, &json!({ "type": "signature_delta", "signature": "" })),
            stop(0),
            stop(1),
            stop(2),
            stop(3),
        ],
        "tool_use",
    );
    let reply = streamed(ANTHROPIC_MESSAGES, &events);
    assert_eq!(parts(&reply), ["[Hm]", "Yes", "f({})", "g({\"b\":2})"]);
    // The text was told as it came.
    let early = stream_of(ANTHROPIC_MESSAGES, &events[..5]);
    let call = asked(Call::default());
    let there = support::stream(ANTHROPIC_MESSAGES, OPENAI_CHAT, call, early.as_bytes(), 99);
    assert!(there.text.contains("\"content\":\"Yes\""), "{}", there.text);
}

#[test]
fn blocks_that_are_numbered_wrongly_are_read_one_by_one() {
    let reply = streamed(
        ANTHROPIC_MESSAGES,
        &messages(
            &[
                text(0),
                says(7, "Yes"),
                stop(7),
                tool(0, "f"),
                input(0, "{}"),
                tool(0, "g"),
                input(0, "{\"b\":2}"),
            ],
            "tool_use",
        ),
    );
    assert_eq!(parts(&reply), ["Yes", "f({})", "g({\"b\":2})"]);
}

#[test]
fn of_blocks_open_at_once_only_the_last_may_be_cut() {
    let calls = [tool(0, "f"), tool(1, "g"), stop(1), stop(0)];
    let reply = streamed(ANTHROPIC_MESSAGES, &messages(&calls, "max_tokens"));
    assert_eq!(parts(&reply), ["f({})", "g()"]);
}

#[test]
fn blocks_without_end_are_refused() {
    let blocks: Vec<Value> = (0..2_000).map(|index| tool(index, "f")).collect();
    let text = stream_of(ANTHROPIC_MESSAGES, &messages(&blocks, "tool_use"));
    let call = asked(Call::default());
    let there = support::stream(
        ANTHROPIC_MESSAGES,
        OPENAI_CHAT,
        call,
        text.as_bytes(),
        9_999,
    );
    let why = there.failed.expect("it failed");
    assert_eq!(why, "the answer has too many blocks");
}
