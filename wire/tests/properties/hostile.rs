//! Proves that no bytes make a decoder, reader, splitter or translator panic: random ones, JSON of the
//! words that they look for, and golden cases with a few bytes changed.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::Value;
use wire::call::Seal;
use wire::dialect;
use wire::sse::Splitter;
use wire::{Call, Dialect, Losses};

use crate::support::{self, ORIGIN, asked, carried, change, conversing, grammar};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes(bytes in vec(any::<u8>(), 0..200)) {
        all(&bytes);
    }

    #[test]
    fn words_that_are_looked_for(value in value(), events in vec((0..NAMES.len(), value()), 0..6)) {
        all(value.to_string().as_bytes());
        let stream: String = events.iter().map(|(name, value)| event(NAMES[*name], value)).collect();
        all(stream.as_bytes());
    }

    #[test]
    fn golden_cases_with_other_bytes(
        case in any::<prop::sample::Index>(),
        edits in vec((any::<prop::sample::Index>(), 0..4_u8, any::<u8>()), 1..4),
    ) {
        let cases = golden();
        let mut bytes = cases[case.index(cases.len())].clone();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at.max(1)),
                _ => {
                    bytes.remove(at);
                }
            }
            if bytes.is_empty() {
                bytes.push(byte);
            }
        }
        all(&bytes);
    }
}

/// Gives `bytes` to everything that takes bytes.
fn all(bytes: &[u8]) {
    let mut splitter = Splitter::default();
    splitter.push(Bytes::copy_from_slice(bytes)).unwrap();
    while splitter.next_event().is_some() {}
    splitter.rest();
    let text = String::from_utf8_lossy(bytes);
    Seal::open(&text);
    Seal::open(&format!("{}{text}", wire::seal::ENVELOPE));
    dialect::told(bytes);
    dialect::openai_responses::with_input(bytes, dialect::openai_responses::input_items);
    for from in dialect::ALL {
        let _scanned = from.scan(bytes);
        from.usage(bytes);
        from.seals(bytes);
        from.kept(bytes);
        from.watch().event(bytes);
    }
    for from in conversing() {
        call(from, bytes);
        reply(from, bytes);
        for to in conversing() {
            let there =
                support::stream(from, to, asked(Call::default()), bytes, bytes.len().max(1));
            if there.ended {
                // Whatever came in, what goes out is such as SDKs read.
                assert_eq!(there.failed, None);
                grammar::check(to.name(), &there.text, from.name());
                assert!(support::read(to, &there.text).whole().is_some());
            }
        }
    }
}

fn call(from: &dyn Dialect, bytes: &[u8]) {
    let Ok(call) = from.decode(bytes) else {
        return;
    };
    for to in conversing() {
        let (body, _) = carried(&call, to, ORIGIN);
        // Of some calls, nothing at all can be carried; all else must be such as is taken.
        if let Err(why) = to.decode(body.to_string().as_bytes()) {
            assert!(
                why.to_string().ends_with("holds nothing to answer"),
                "{why}: {body}"
            );
        }
        // Whoever forgets to withhold must not fail, either.
        to.encode(&call, &change("m"), &mut Losses::default());
    }
}

fn reply(from: &dyn Dialect, bytes: &[u8]) {
    let Ok(reply) = from.decode_reply(bytes, ORIGIN) else {
        return;
    };
    for to in conversing() {
        let asked = asked(Call::default());
        let mut losses = Losses::default();
        let body = to.encode_reply(&reply, &asked, &mut losses).to_string();
        assert!(to.decode_reply(body.as_bytes(), ORIGIN).is_ok());
        wire::translate::reply(from, ORIGIN, to, &asked, bytes, &mut losses).unwrap();
    }
}

/// Requests, answers and streams of the golden cases, the small ones.
fn golden() -> Vec<Vec<u8>> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let mut found = Vec::new();
    for dialect in conversing() {
        for case in std::fs::read_dir(root.join(dialect.name())).unwrap() {
            let folder = case.unwrap().path();
            let files = ["request.json", "reply.json", "stream.sse"];
            let read = |file| std::fs::read(folder.join(file)).ok();
            found.extend(files.into_iter().filter_map(read));
        }
    }
    found.retain(|bytes| bytes.len() < 8_000);
    found.sort();
    found
}

fn event(name: &str, data: &Value) -> String {
    let mut data = data.clone();
    if let Some(fields) = data.as_object_mut() {
        fields.insert("type".to_owned(), name.into());
    }
    format!("event: {name}\ndata: {data}\n\n")
}

const NAMES: [&str; 19] = [
    "",
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
    "response.created",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.content_part.done",
    "response.reasoning_summary_text.delta",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
    "response.incomplete",
    "error",
];

fn value() -> impl Strategy<Value = Value> {
    let word = (0..WORDS.len()).prop_map(|place| Value::from(WORDS[place]));
    let leaf = prop_oneof![
        8 => word,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
        1 => "[\\PC]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, |inner| {
        let field = (
            (0..KEYS.len()).prop_map(|place| KEYS[place].to_owned()),
            inner.clone(),
        );
        let fields =
            vec(field, 0..6).prop_map(|fields| Value::Object(fields.into_iter().collect()));
        prop_oneof![3 => fields, 1 => vec(inner, 0..4).prop_map(Value::from)]
    })
}

const KEYS: [&str; 68] = [
    "type",
    "role",
    "content",
    "text",
    "messages",
    "input",
    "model",
    "tools",
    "tool_calls",
    "function",
    "name",
    "arguments",
    "id",
    "call_id",
    "tool_call_id",
    "tool_use_id",
    "output",
    "summary",
    "encrypted_content",
    "thinking",
    "signature",
    "data",
    "source",
    "image_url",
    "url",
    "file",
    "file_data",
    "file_id",
    "choices",
    "delta",
    "message",
    "index",
    "finish_reason",
    "usage",
    "prompt_tokens",
    "input_tokens",
    "output_tokens",
    "error",
    "item",
    "part",
    "response",
    "output_index",
    "content_block",
    "stop_reason",
    "stop_sequence",
    "annotations",
    "url_citation",
    "citations",
    "custom",
    "partial_json",
    "reasoning_content",
    "refusal",
    "logprobs",
    "namespace",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "strict",
    "system",
    "instructions",
    "output_config",
    "format",
    "metadata",
    "cache_control",
    "parameters",
    "required",
    "properties",
];

const WORDS: [&str; 48] = [
    "",
    "user",
    "assistant",
    "system",
    "developer",
    "tool",
    "text",
    "input_text",
    "output_text",
    "refusal",
    "image",
    "image_url",
    "input_image",
    "document",
    "file",
    "input_file",
    "input_audio",
    "tool_use",
    "tool_result",
    "function",
    "custom",
    "namespace",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "thinking",
    "redacted_thinking",
    "message",
    "base64",
    "url",
    "data:image/png;base64,AA==",
    "{}",
    "{\"a\":1}",
    "{\"a\":",
    "stop",
    "length",
    "tool_calls",
    "end_turn",
    "max_tokens",
    "text_delta",
    "input_json_delta",
    "thinking_delta",
    "json_schema",
    "object",
    "auto",
    "completed",
];
