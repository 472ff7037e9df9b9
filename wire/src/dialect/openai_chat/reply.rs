//! Answers of OpenAI Chat Completions as canonical ones, and back: whole and as events.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::call::{Kind, Part, Seal, Text, Thinking, ToolCall};
use crate::dialect::fields::{list, maybe, owned};
use crate::dialect::openai::{citation_of, url_citation};
use crate::dialect::{Asked, DecodeError, Reader, Writer};
use crate::loss::Losses;
use crate::reply::{Event, Opening, Reply, Stop};
use crate::{Usage, sse};

use super::NAME;
use super::call::call_of;

/// What servers call the text of reasoning; the first is the most common.
const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

/// The reasoning text of a message or delta, as a sealed part: only its own server takes it back.
pub(super) fn thinking_of(message: &Value, origin: Option<&str>) -> Option<Kind> {
    let (name, text) = REASONING
        .iter()
        .find_map(|name| Some((*name, maybe(message, name)?)))?;
    Some(Kind::Thinking(Thinking {
        seal: Some(seal(name, &text, origin)),
        text,
    }))
}

fn seal(name: &str, text: &str, origin: Option<&str>) -> Seal {
    Seal {
        dialect: NAME.to_owned(),
        origin: origin.map(str::to_owned),
        value: Value::Object(Map::from_iter([(name.to_owned(), Value::from(text))])),
    }
}

fn stop_of(word: &str) -> Stop {
    match word {
        "length" => Stop::Length,
        "tool_calls" | "function_call" => Stop::Tools,
        "content_filter" => Stop::Filter,
        _ => Stop::End,
    }
}

fn stop_word(stop: Option<&Stop>) -> &'static str {
    match stop {
        Some(Stop::Length | Stop::Window) => "length",
        Some(Stop::Tools) => "tool_calls",
        Some(Stop::Filter) => "content_filter",
        Some(Stop::End | Stop::Sequence(_) | Stop::Refusal | Stop::Pause) | None => "stop",
    }
}

/// Reads a whole answer; of several choices the first counts.
pub(super) fn decode(body: &[u8], origin: &str) -> Result<Reply, DecodeError> {
    let whole: Value = serde_json::from_slice(body)?;
    let choice = list(&whole, "choices")
        .first()
        .ok_or(DecodeError::Shape("an answer without choices"))?;
    let message = choice.get("message").unwrap_or(&Value::Null);
    let mut parts: Vec<Part> = thinking_of(message, Some(origin))
        .into_iter()
        .map(Part::new)
        .collect();
    if let Some(text) = maybe(message, "content") {
        let citations = list(message, "annotations")
            .iter()
            .filter_map(|it| citation_of(it.get("url_citation")?));
        parts.push(Part::new(Kind::Text(Text {
            text,
            citations: citations.collect(),
        })));
    }
    parts.extend(maybe(message, "refusal").map(|text| Part::new(Kind::Refusal(text))));
    let calls: Vec<ToolCall> = list(message, "tool_calls").iter().map(call_of).collect();
    let mut stop = maybe(choice, "finish_reason").map(|word| stop_of(&word));
    // A forced call ends with `stop`; whoever reads it must still act on it.
    if !calls.is_empty() && stop == Some(Stop::End) {
        stop = Some(Stop::Tools);
    }
    parts.extend(
        calls
            .into_iter()
            .map(|call| Part::new(Kind::ToolCall(call))),
    );
    let logprobs = choice
        .get("logprobs")
        .map(|it| list(it, "content").to_vec());
    Ok(Reply {
        model: owned(&whole, "model"),
        parts,
        stop,
        usage: super::usage_of(body),
        logprobs: logprobs.unwrap_or_default(),
        lane: maybe(&whole, "service_tier"),
    })
}

fn usage_value(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt(),
        "completion_tokens": usage.answer(),
        "total_tokens": usage.prompt().saturating_add(usage.answer()),
        "prompt_tokens_details": { "cached_tokens": usage.cache_read, "audio_tokens": usage.audio_input },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_output },
    })
}

/// Writes a whole answer for the caller.
pub(super) fn encode(reply: &Reply, asked: &Asked, losses: &mut Losses) -> Value {
    let (mut said, mut thought, mut refused) = (String::new(), String::new(), String::new());
    let (mut calls, mut annotations) = (Vec::new(), Vec::new());
    for part in &reply.parts {
        match &part.kind {
            Kind::Text(text) => {
                said.push_str(&text.text);
                let cited = text.citations.iter().map(annotation);
                annotations.extend(cited);
            }
            Kind::Thinking(thinking) => thought.push_str(&thinking.text),
            Kind::Refusal(text) => refused.push_str(text),
            Kind::ToolCall(call) => calls.push(call_value(call)),
            Kind::Own(own) => losses.dropped(own.name.clone()),
            Kind::Image(_) | Kind::Audio(_) | Kind::File(_) | Kind::ToolResult(_) => {}
        }
    }
    let or_null = |text: String| {
        if text.is_empty() {
            Value::Null
        } else {
            Value::from(text)
        }
    };
    let mut message = Map::from_iter([("role".to_owned(), Value::from("assistant"))]);
    let silent = said.is_empty() && calls.is_empty() && refused.is_empty();
    message.insert(
        "content".to_owned(),
        if silent {
            Value::from("")
        } else {
            or_null(said)
        },
    );
    message.insert("refusal".to_owned(), or_null(refused));
    if !thought.is_empty() {
        message.insert("reasoning_content".to_owned(), thought.into());
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), calls.into());
    }
    message.insert("annotations".to_owned(), annotations.into());
    let logprobs = if reply.logprobs.is_empty() {
        Value::Null
    } else {
        json!({ "content": reply.logprobs, "refusal": null })
    };
    json!({
        "id": asked.message_id("chatcmpl-"), "object": "chat.completion", "created": asked.created_s,
        "model": reply.model,
        "choices": [{ "index": 0, "message": message, "logprobs": logprobs,
            "finish_reason": stop_word(reply.stop.as_ref()) }],
        "usage": usage_value(&reply.usage.unwrap_or_default()),
    })
}

fn annotation(citation: &crate::call::Citation) -> Value {
    json!({ "type": "url_citation", "url_citation": url_citation(citation) })
}

fn call_value(call: &ToolCall) -> Value {
    if call.custom {
        return json!({ "id": call.id, "type": "custom", "custom": { "name": call.name, "input": call.arguments } });
    }
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}

/// What is open in a stream that is read.
#[derive(Debug, PartialEq)]
enum Open {
    Nothing,
    Text,
    Refusal,
    /// Reasoning, under the name the server gives it, and its text so far.
    Thinking(&'static str, String),
    /// The tool call of this index, and its arguments so far.
    Tool(u64, String),
}

/// A tool call that began while another was still open.
#[derive(Debug, Default)]
struct Waiting {
    id: String,
    name: String,
    custom: bool,
    arguments: String,
}

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct ChatReader {
    origin: String,
    begun: bool,
    open: Open,
    waiting: BTreeMap<u64, Waiting>,
    citations: Vec<crate::call::Citation>,
    called: bool,
    stop: Option<Stop>,
    usage: Option<Usage>,
    ended: bool,
}

impl ChatReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            begun: false,
            open: Open::Nothing,
            waiting: BTreeMap::new(),
            citations: Vec::new(),
            called: false,
            stop: None,
            usage: None,
            ended: false,
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let seal = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Thinking(name, text) => Some(seal(name, &text, Some(&self.origin))),
            Open::Text | Open::Refusal | Open::Tool(..) => None,
        };
        out.push(Event::Close {
            seal,
            citations: std::mem::take(&mut self.citations),
        });
    }

    fn piece(&mut self, kind: &Opening, piece: String, out: &mut Vec<Event>) {
        let is_open = matches!(
            (&self.open, kind),
            (Open::Text, Opening::Text) | (Open::Refusal, Opening::Refusal)
        );
        if !is_open {
            self.close(out);
            self.open = if *kind == Opening::Text {
                Open::Text
            } else {
                Open::Refusal
            };
            out.push(Event::Open(kind.clone()));
        }
        out.push(Event::Piece(piece));
    }

    fn thought(&mut self, name: &'static str, piece: String, out: &mut Vec<Event>) {
        if !matches!(self.open, Open::Thinking(..)) {
            self.close(out);
            self.open = Open::Thinking(name, String::new());
            out.push(Event::Open(Opening::Thinking));
        }
        if let Open::Thinking(_, text) = &mut self.open {
            text.push_str(&piece);
        }
        out.push(Event::Piece(piece));
    }

    /// Takes a piece of a tool call. A server may mix the pieces of parallel calls: one call is given
    /// out at a time, and the others wait until its arguments are whole.
    fn call(&mut self, delta: &Value, out: &mut Vec<Event>) {
        let fresh = call_of(delta);
        let index = delta.get("index").and_then(Value::as_u64);
        let index = index.unwrap_or_else(|| self.index_of(&fresh));
        self.called = true;
        if let Open::Tool(open, text) = &mut self.open {
            if *open == index {
                text.push_str(&fresh.arguments);
                if !fresh.arguments.is_empty() {
                    out.push(Event::Piece(fresh.arguments));
                }
                return;
            }
            let whole = serde_json::from_str::<Value>(text).is_ok();
            if !whole || self.waiting.contains_key(&index) {
                let waiting = self.waiting.entry(index).or_default();
                if !fresh.id.is_empty() {
                    (waiting.id, waiting.name, waiting.custom) =
                        (fresh.id, fresh.name, fresh.custom);
                }
                waiting.arguments.push_str(&fresh.arguments);
                return;
            }
        }
        if fresh.id.is_empty() && fresh.name.is_empty() {
            // Text behind the whole arguments of a call that was closed.
            return;
        }
        self.close(out);
        self.begin_call(index, fresh, out);
    }

    /// The index of a piece that names none: a new id begins a new call.
    fn index_of(&self, call: &ToolCall) -> u64 {
        let last = self.waiting.keys().next_back().copied();
        let open = match &self.open {
            Open::Tool(index, _) => Some(*index),
            _ => None,
        };
        let latest = last.max(open).unwrap_or(0);
        if call.id.is_empty() || !self.called {
            latest
        } else {
            latest + 1
        }
    }

    fn begin_call(&mut self, index: u64, call: ToolCall, out: &mut Vec<Event>) {
        let ToolCall {
            id,
            name,
            arguments,
            custom,
        } = call;
        out.push(Event::Open(Opening::ToolCall { id, name, custom }));
        if !arguments.is_empty() {
            out.push(Event::Piece(arguments.clone()));
        }
        self.open = Open::Tool(index, arguments);
    }

    fn flush_calls(&mut self, out: &mut Vec<Event>) {
        self.close(out);
        for (index, waiting) in std::mem::take(&mut self.waiting) {
            let Waiting {
                id,
                name,
                custom,
                arguments,
            } = waiting;
            self.begin_call(
                index,
                ToolCall {
                    id,
                    name,
                    arguments,
                    custom,
                },
                out,
            );
            self.close(out);
        }
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<Event>) {
        for name in REASONING {
            if let Some(piece) = maybe(delta, name) {
                self.thought(name, piece, out);
                break;
            }
        }
        if let Some(piece) = maybe(delta, "content") {
            self.piece(&Opening::Text, piece, out);
        }
        if let Some(piece) = maybe(delta, "refusal") {
            self.piece(&Opening::Refusal, piece, out);
        }
        let cited = list(delta, "annotations")
            .iter()
            .filter_map(|it| citation_of(it.get("url_citation")?));
        self.citations.extend(cited);
        for call in list(delta, "tool_calls") {
            self.call(call, out);
        }
    }
}

impl Reader for ChatReader {
    fn event(&mut self, event: &[u8], out: &mut Vec<Event>) {
        let Some(data) = sse::data(event) else {
            return;
        };
        if data == b"[DONE]" {
            self.finish(out);
            return;
        }
        let Ok(chunk) = serde_json::from_slice::<Value>(data) else {
            out.push(Event::Failed(
                "the upstream sent an event that is not JSON".to_owned(),
            ));
            return;
        };
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            let told = maybe(error, "message").or_else(|| error.as_str().map(str::to_owned));
            out.push(Event::Failed(
                told.unwrap_or_else(|| "the upstream reported an error".to_owned()),
            ));
            return;
        }
        if !self.begun {
            self.begun = true;
            out.push(Event::Begin {
                model: owned(&chunk, "model"),
                prompt: None,
            });
        }
        if chunk.get("usage").is_some_and(Value::is_object) {
            self.usage = super::usage_of(data).or(self.usage);
        }
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        if let Some(choice) = list(&chunk, "choices").iter().find(first) {
            self.delta(choice.get("delta").unwrap_or(&Value::Null), out);
            let logprobs = choice
                .get("logprobs")
                .map_or(&[][..], |it| list(it, "content"));
            if !logprobs.is_empty() {
                out.push(Event::Logprobs(logprobs.to_vec()));
            }
            if let Some(word) = maybe(choice, "finish_reason") {
                self.stop = Some(stop_of(&word));
            }
        }
    }

    fn finish(&mut self, out: &mut Vec<Event>) {
        if self.ended || !self.begun {
            return;
        }
        self.ended = true;
        self.flush_calls(out);
        let stop = match self.stop.take() {
            Some(Stop::End) | None if self.called => Some(Stop::Tools),
            stop => stop,
        };
        out.extend(stop.map(Event::Stop));
        out.extend(self.usage.map(Event::Usage));
        out.push(Event::End);
    }
}

/// Writes a stream of this dialect.
#[derive(Debug)]
pub(super) struct ChatWriter {
    asked: Asked,
    model: String,
    open: Option<Opening>,
    calls: u32,
    stop: Option<Stop>,
    usage: Option<Usage>,
    losses: Losses,
}

impl ChatWriter {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            model: String::new(),
            open: None,
            calls: 0,
            stop: None,
            usage: None,
            losses: Losses::default(),
        }
    }

    fn chunk(&self, choices: &Value, usage: Option<&Usage>, out: &mut String) {
        let mut chunk = json!({
            "id": self.asked.message_id("chatcmpl-"), "object": "chat.completion.chunk",
            "created": self.asked.created_s, "model": self.model, "choices": choices,
        });
        if let (true, Some(chunk)) = (self.asked.include_usage, chunk.as_object_mut()) {
            chunk.insert("usage".to_owned(), usage.map_or(Value::Null, usage_value));
        }
        sse::write(out, None, &chunk);
    }

    fn delta(&self, delta: &Value, out: &mut String) {
        self.chunk(
            &json!([{ "index": 0, "delta": delta, "logprobs": null, "finish_reason": null }]),
            None,
            out,
        );
    }

    fn call(&self, call: &Value, out: &mut String) {
        self.delta(&json!({ "tool_calls": [call] }), out);
    }

    fn opening(&mut self, opening: Opening, out: &mut String) {
        let index = self.calls;
        match &opening {
            Opening::ToolCall {
                id,
                name,
                custom: true,
            } => {
                let custom = json!({ "name": name, "input": "" });
                self.call(
                    &json!({ "index": index, "id": id, "type": "custom", "custom": custom }),
                    out,
                );
                self.calls += 1;
            }
            Opening::ToolCall {
                id,
                name,
                custom: false,
            } => {
                let function = json!({ "name": name, "arguments": "" });
                self.call(
                    &json!({ "index": index, "id": id, "type": "function", "function": function }),
                    out,
                );
                self.calls += 1;
            }
            Opening::Own(own) => self.losses.dropped(own.name.clone()),
            Opening::Text | Opening::Thinking | Opening::Refusal => {}
        }
        self.open = Some(opening);
    }

    fn piece(&self, piece: &str, out: &mut String) {
        let index = self.calls.saturating_sub(1);
        match &self.open {
            Some(Opening::Text) => self.delta(&json!({ "content": piece }), out),
            Some(Opening::Refusal) => self.delta(&json!({ "refusal": piece }), out),
            Some(Opening::Thinking) => self.delta(&json!({ "reasoning_content": piece }), out),
            Some(Opening::ToolCall { custom: true, .. }) => {
                self.call(
                    &json!({ "index": index, "custom": { "input": piece } }),
                    out,
                );
            }
            Some(Opening::ToolCall { .. }) => {
                self.call(
                    &json!({ "index": index, "function": { "arguments": piece } }),
                    out,
                );
            }
            Some(Opening::Own(_)) | None => {}
        }
    }

    fn end(&self, out: &mut String) {
        let stop = stop_word(self.stop.as_ref());
        self.chunk(
            &json!([{ "index": 0, "delta": {}, "logprobs": null, "finish_reason": stop }]),
            None,
            out,
        );
        if self.asked.include_usage {
            self.chunk(&json!([]), Some(&self.usage.unwrap_or_default()), out);
        }
        out.push_str("data: [DONE]\n\n");
    }
}

impl Writer for ChatWriter {
    fn event(&mut self, event: Event, out: &mut String) {
        match event {
            Event::Begin { model, .. } => {
                self.model = model;
                self.delta(&json!({ "role": "assistant", "content": "" }), out);
            }
            Event::Open(opening) => self.opening(opening, out),
            Event::Piece(piece) => self.piece(&piece, out),
            Event::Logprobs(content) => {
                let logprobs = json!({ "content": content, "refusal": null });
                let choice = json!([{ "index": 0, "delta": {}, "logprobs": logprobs, "finish_reason": null }]);
                self.chunk(&choice, None, out);
            }
            Event::Close { citations, .. } => {
                self.open = None;
                if !citations.is_empty() {
                    let annotations: Vec<Value> = citations.iter().map(annotation).collect();
                    self.delta(&json!({ "annotations": annotations }), out);
                }
            }
            Event::Stop(stop) => self.stop = Some(stop),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::End => self.end(out),
            Event::Failed(_) => {}
        }
    }

    fn losses(&self) -> &Losses {
        &self.losses
    }
}
