//! Answers of OpenAI Chat Completions as canonical ones, and back: whole and as events.

use serde_json::{Map, Value, json};

use crate::call::{Citation, Kind, Part, Seal, Text, Thinking, ToolCall};
use crate::dialect::fields::{list, maybe, owned, text};
use crate::dialect::openai::{citation_of, url_citations};
use crate::dialect::{Asked, DecodeError, Writer};
use crate::loss::Losses;
use crate::reply::{Event, Opening, Reply, Stop, stop_after};
use crate::{Usage, sse};

use super::NAME;
use super::call::whole_call_of;

/// What servers call the text of reasoning; the first is the most common.
pub(super) const REASONING: [&str; 2] = ["reasoning_content", "reasoning"];

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

pub(super) fn seal(name: &str, text: &str, origin: Option<&str>) -> Seal {
    Seal {
        dialect: NAME.to_owned(),
        origin: origin.map(str::to_owned),
        value: Value::Object(Map::from_iter([(name.to_owned(), Value::from(text))])),
    }
}

/// Vendors' words for an answer that broke off on their side: OpenRouter's and `DeepSeek`'s.
pub(super) const FAILED: [&str; 2] = ["error", "insufficient_system_resource"];

pub(super) fn stop_of(word: &str) -> Stop {
    match word {
        "length" => Stop::Length,
        "tool_calls" | "function_call" => Stop::Tools,
        "content_filter" => Stop::Filter,
        _ => Stop::End,
    }
}

/// The word for it. A refusal in so many words ends like any answer; without them, only this word
/// tells that the answer is none.
fn stop_word(stop: Option<&Stop>, refused: bool) -> &'static str {
    match stop {
        Some(Stop::Length | Stop::Window) => "length",
        Some(Stop::Tools) => "tool_calls",
        Some(Stop::Filter) => "content_filter",
        Some(Stop::Refusal) if !refused => "content_filter",
        Some(Stop::End | Stop::Sequence(_) | Stop::Refusal | Stop::Pause) | None => "stop",
    }
}

/// A piece of what a message or delta says; reasoning under the name the server gives it.
#[derive(Debug)]
pub(super) enum Piece {
    Text(String),
    Refusal(String),
    Thinking(&'static str, String),
}

/// What a message or delta says, its tool calls aside.
pub(super) fn pieces_of(said: &Value) -> Vec<Piece> {
    let thought = |name: &&'static str| Some(Piece::Thinking(name, maybe(said, name)?));
    let mut pieces: Vec<Piece> = REASONING.iter().find_map(thought).into_iter().collect();
    // One vendor's content is a list when it reasons.
    pieces.extend(list(said, "content").iter().filter_map(listed));
    pieces.extend(maybe(said, "content").map(Piece::Text));
    pieces.extend(maybe(said, "refusal").map(Piece::Refusal));
    pieces
}

fn listed(part: &Value) -> Option<Piece> {
    match text(part, "type") {
        "text" => maybe(part, "text").map(Piece::Text),
        "refusal" => maybe(part, "refusal").map(Piece::Refusal),
        "thinking" => {
            let [name, ..] = REASONING;
            let texts = list(part, "thinking").iter().map(|it| text(it, "text"));
            let thought: String = texts.collect();
            (!thought.is_empty()).then_some(Piece::Thinking(name, thought))
        }
        _ => None,
    }
}

/// Reads a whole answer; of several choices the first counts.
pub(super) fn decode(body: &[u8], origin: &str) -> Result<Reply, DecodeError> {
    let whole: Value = crate::json::read(body)?;
    let choice = list(&whole, "choices")
        .first()
        .ok_or(DecodeError::Shape("an answer without choices"))?;
    let message = choice.get("message").filter(|message| message.is_object());
    let message = message.ok_or(DecodeError::Shape("an answer without a message"))?;
    let content = message.get("content").unwrap_or(&Value::Null);
    if !(content.is_string() || content.is_array() || content.is_null()) {
        return Err(DecodeError::Shape("an answer whose content is no text"));
    }
    let word = maybe(choice, "finish_reason");
    if word.as_deref().is_some_and(|word| FAILED.contains(&word)) {
        return Err(DecodeError::Shape("an answer that failed"));
    }
    let citations = list(message, "annotations")
        .iter()
        .filter_map(|it| citation_of(it.get("url_citation")?));
    let mut citations: Vec<Citation> = citations.collect();
    let mut parts = Vec::new();
    for piece in pieces_of(message) {
        parts.push(Part::new(match piece {
            Piece::Text(text) => Kind::Text(Text {
                text,
                citations: std::mem::take(&mut citations),
            }),
            Piece::Refusal(text) => Kind::Refusal(text),
            Piece::Thinking(name, text) => Kind::Thinking(Thinking {
                seal: Some(seal(name, &text, Some(origin))),
                text,
            }),
        }));
    }
    let stop = word.map(|word| stop_of(&word));
    let cut = matches!(stop, Some(Stop::Length | Stop::Filter));
    let calls = list(message, "tool_calls");
    for (place, mut call) in calls.iter().map(whole_call_of).enumerate() {
        // A function without arguments: some servers send nothing where `{}` is due. Of several calls,
        // only the last may have been cut.
        let cut = cut && place + 1 == calls.len();
        if call.arguments.is_empty() && !call.custom && !cut {
            "{}".clone_into(&mut call.arguments);
        }
        parts.push(Part::new(Kind::ToolCall(call)));
    }
    let has = |wanted: fn(&Kind) -> bool| parts.iter().any(|part| wanted(&part.kind));
    let called = has(|kind| matches!(kind, Kind::ToolCall(_)));
    let refused = has(|kind| matches!(kind, Kind::Refusal(_)));
    let stop = stop_after(stop, called, refused);
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
                let start = length(&said);
                said.push_str(&text.text);
                let span = (start, length(&said));
                annotations.extend(annotations_of(&text.citations, span, losses));
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
    let stop = stop_word(reply.stop.as_ref(), !refused.is_empty());
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
            "finish_reason": stop }],
        "usage": usage_value(&reply.usage.unwrap_or_default()),
    })
}

/// The length of a text as annotations count it.
fn length(text: &str) -> u64 {
    u64::try_from(text.chars().count()).unwrap_or(u64::MAX)
}

/// The annotations of the text at `span`.
fn annotations_of(citations: &[Citation], span: (u64, u64), losses: &mut Losses) -> Vec<Value> {
    let cited = url_citations(citations, span, losses).into_iter();
    cited
        .map(|fields| json!({ "type": "url_citation", "url_citation": fields }))
        .collect()
}

fn call_value(call: &ToolCall) -> Value {
    if call.custom {
        return json!({ "id": call.id, "type": "custom", "custom": { "name": call.name, "input": call.arguments } });
    }
    json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
}

/// Writes a stream of this dialect.
#[derive(Debug)]
pub(super) struct ChatWriter {
    asked: Asked,
    model: String,
    open: Option<Opening>,
    /// Characters written, and where the open text began.
    said: u64,
    begin: u64,
    refused: bool,
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
            said: 0,
            begin: 0,
            refused: false,
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
            Opening::Refusal => self.refused = true,
            Opening::Text => self.begin = self.said,
            Opening::Thinking => {}
        }
        self.open = Some(opening);
    }

    fn piece(&mut self, piece: &str, out: &mut String) {
        let index = self.calls.saturating_sub(1);
        match &self.open {
            Some(Opening::Text) => {
                self.said += length(piece);
                self.delta(&json!({ "content": piece }), out);
            }
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
        let stop = stop_word(self.stop.as_ref(), self.refused);
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
                let span = (self.begin, self.said);
                let annotations = annotations_of(&citations, span, &mut self.losses);
                if !annotations.is_empty() {
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
