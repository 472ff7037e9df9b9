//! Proves that a character whose halves came in two pieces is one again, whatever came between, and that a half
//! that stays alone harms nothing else.

use serde_json::{Value, json};
use wire::dialect::{ANTHROPIC_MESSAGES, OPENAI_CHAT, OPENAI_RESPONSES};
use wire::{Call, Dialect};

use crate::messages::{input, messages, says, stop, text, tool};
use crate::responses::{added, done, piece, responses};
use crate::support::{self, asked, conversing};
use crate::{call_chunk, chat_call, chat_end, parts, stream_of};

/// The parts of the answer that each caller reads; `^` and `~` stand for the halves of a smile.
fn said(from: &dyn Dialect, events: &[Value]) -> Vec<String> {
    let text = stream_of(from, events);
    let text = text.replace('^', "\\ud83d").replace('~', "\\ude42");
    let mut said = Vec::new();
    for to in conversing() {
        let there = support::stream(
            from,
            to,
            asked(Call::default()),
            text.as_bytes(),
            text.len(),
        );
        assert!(there.ended && there.failed.is_none(), "{}", to.name());
        said = parts(&there.reply);
        let read = support::read(to, &there.text);
        assert_eq!(parts(read.whole().unwrap()), said, "{}", to.name());
    }
    said
}

fn chat(content: &str) -> Value {
    json!({ "model": "m", "choices": [{ "index": 0, "delta": { "content": content } }] })
}

#[test]
fn a_character_cut_in_two_is_one_again() {
    let whole = ["a🙂b", "f({\"q\":\"🙂\"})", "f({\"q\":\"x🙂\"})"];
    let mut events: Vec<Value> = ["a^", "~b"].map(chat).to_vec();
    let first = json!({ "index": 0, "id": "c0", "type": "function", "function": { "name": "f", "arguments": "{\"q\":\"^" } });
    let second = json!({ "index": 1, "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"q\":\"x^" } });
    events.extend([call_chunk(&first), call_chunk(&second)]);
    events.extend([
        chat_call(0, "~\"}"),
        chat_call(1, "~\"}"),
        chat_end("tool_calls"),
    ]);
    assert_eq!(said(OPENAI_CHAT, &events), whole);

    let blocks = [
        text(0),
        says(0, "a^"),
        says(0, ""),
        says(0, "~b"),
        stop(0),
        tool(1, "f"),
        tool(2, "f"),
        input(1, "{\"q\":\"^"),
        input(2, "{\"q\":\"x^"),
        input(1, "~\"}"),
        stop(1),
        input(2, "~\"}"),
        stop(2),
    ];
    assert_eq!(
        said(ANTHROPIC_MESSAGES, &messages(&blocks, "tool_use")),
        whole
    );

    let (one, two) = ("{\"q\":\"^~\"}", "{\"q\":\"x^~\"}");
    let items = [
        added(0, "m0"),
        piece(0, "m0", "a^"),
        piece(0, "m0", "~b"),
        done(0, "m0", "a^~b"),
        added(1, "f1"),
        added(2, "f2"),
        piece(1, "f1", "{\"q\":\"^"),
        piece(2, "f2", "{\"q\":\"x^"),
        piece(1, "f1", "~\"}"),
        piece(2, "f2", "~\"}"),
        done(1, "f1", one),
        done(2, "f2", two),
    ];
    let said = said(OPENAI_RESPONSES, &responses(&items));
    assert_eq!(said, ["a🙂b", "f1({\"q\":\"🙂\"})", "f2({\"q\":\"x🙂\"})"]);
}

#[test]
fn a_half_that_stays_alone_harms_nothing_else() {
    for (pieces, whole) in [
        (["a^", "b^", "c"], "a\u{fffd}b\u{fffd}c"),
        (["a^", "^~b", "~c"], "a\u{fffd}🙂b\u{fffd}c"),
        (["a\\^", "~b", "c"], "a\\🙂bc"),
        (["a", "b", "c^"], "abc"),
    ] {
        let mut events: Vec<Value> = pieces.map(chat).to_vec();
        events.push(chat_end("stop"));
        assert_eq!(said(OPENAI_CHAT, &events), [whole], "{pieces:?}");
    }
}
