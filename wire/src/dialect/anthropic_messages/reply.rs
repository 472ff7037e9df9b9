//! Answers of Anthropic Messages as canonical ones, and back: whole and as events.

use serde_json::{Value, json};

use crate::call::{Citation, Kind, Own, Part, Seal, Text, Thinking, ToolCall};
use crate::dialect::fields::{id, list, maybe, object, owned, text};
use crate::dialect::{Asked, DecodeError, Reader, Seen, Watch, Writer};
use crate::loss::Losses;
use crate::reply::{Event, Opening, Reply, Stop};
use crate::{Usage, sse};

use super::{Follower, NAME, usage_of};

/// A text, tool call or block of this dialect alone.
pub(super) fn part_of_block(block: &Value) -> Kind {
    match text(block, "type") {
        "text" => Kind::Text(Text {
            text: owned(block, "text"),
            citations: list(block, "citations").iter().map(citation).collect(),
        }),
        "tool_use" => Kind::ToolCall(ToolCall {
            id: owned(block, "id"),
            name: owned(block, "name"),
            arguments: block.get("input").map(Value::to_string).unwrap_or_default(),
            custom: false,
        }),
        name => Kind::Own(Own {
            dialect: NAME.to_owned(),
            name: format!("messages.{name}"),
            value: block.clone(),
        }),
    }
}

/// Thinking, as this API made it or in an envelope of another's.
pub(super) fn thinking_part(block: &Value, origin: Option<&str>) -> Kind {
    let word = maybe(block, "signature")
        .or_else(|| maybe(block, "data"))
        .unwrap_or_default();
    let own = || Seal {
        dialect: NAME.to_owned(),
        origin: origin.map(str::to_owned),
        value: block.clone(),
    };
    Kind::Thinking(Thinking {
        text: owned(block, "thinking"),
        seal: Some(Seal::open(&word).unwrap_or_else(own)),
    })
}

fn citation(citation: &Value) -> Citation {
    Citation {
        url: maybe(citation, "url")
            .or_else(|| maybe(citation, "source"))
            .unwrap_or_default(),
        title: maybe(citation, "title")
            .or_else(|| maybe(citation, "document_title"))
            .unwrap_or_default(),
        quote: owned(citation, "cited_text"),
        span: None,
    }
}

fn citation_value(citation: &Citation) -> Value {
    json!({ "type": "web_search_result_location", "url": citation.url, "title": citation.title,
        "cited_text": citation.quote, "encrypted_index": "" })
}

/// Why the model stopped, in this dialect's words.
fn stop_of(word: &str, sequence: Option<String>) -> Stop {
    match word {
        "max_tokens" => Stop::Length,
        "stop_sequence" => Stop::Sequence(sequence),
        "tool_use" => Stop::Tools,
        "refusal" => Stop::Refusal,
        "pause_turn" => Stop::Pause,
        "model_context_window_exceeded" => Stop::Window,
        _ => Stop::End,
    }
}

fn stop_word(stop: Option<&Stop>) -> (&'static str, Value) {
    match stop {
        Some(Stop::Length) => ("max_tokens", Value::Null),
        Some(Stop::Sequence(sequence)) => ("stop_sequence", sequence.clone().into()),
        Some(Stop::Tools) => ("tool_use", Value::Null),
        Some(Stop::Refusal | Stop::Filter) => ("refusal", Value::Null),
        Some(Stop::Pause) => ("pause_turn", Value::Null),
        Some(Stop::Window) => ("model_context_window_exceeded", Value::Null),
        Some(Stop::End) | None => ("end_turn", Value::Null),
    }
}

/// Reads a whole answer.
pub(super) fn decode(body: &[u8], origin: &str) -> Result<Reply, DecodeError> {
    let message: Value = serde_json::from_slice(body)?;
    if text(&message, "type") != "message" && !message.get("content").is_some_and(Value::is_array) {
        return Err(DecodeError::Shape("an answer without content"));
    }
    let stop =
        maybe(&message, "stop_reason").map(|word| stop_of(&word, maybe(&message, "stop_sequence")));
    let mut parts: Vec<Part> = list(&message, "content")
        .iter()
        .map(|block| match text(block, "type") {
            "thinking" | "redacted_thinking" => thinking_part(block, Some(origin)),
            _ => part_of_block(block),
        })
        .map(Part::new)
        .collect();
    // A call that the token limit cut comes with an empty input; it must not pass for a whole one.
    if stop == Some(Stop::Length)
        && let Some(Part {
            kind: Kind::ToolCall(call),
            ..
        }) = parts.last_mut()
        && call.arguments == "{}"
    {
        call.arguments.clear();
    }
    let lane = message
        .get("usage")
        .and_then(|usage| maybe(usage, "service_tier"));
    Ok(Reply {
        model: owned(&message, "model"),
        parts,
        stop,
        usage: usage_of(body),
        logprobs: Vec::new(),
        lane,
    })
}

fn usage_value(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input + usage.audio_input,
        "cache_creation_input_tokens": usage.cache_write(),
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.answer(),
        "service_tier": "standard",
    })
}

/// Writes a whole answer for the caller.
pub(super) fn encode(reply: &Reply, asked: &Asked, losses: &mut Losses) -> Value {
    losses.dropped_if(!reply.logprobs.is_empty(), "logprobs");
    let cut = |call: &ToolCall| {
        reply.stop == Some(Stop::Length) && serde_json::from_str::<Value>(&call.arguments).is_err()
    };
    let mut content = Vec::with_capacity(reply.parts.len());
    for part in &reply.parts {
        let block = match &part.kind {
            Kind::ToolCall(call) if cut(call) => {
                losses.dropped("tool_call");
                continue;
            }
            Kind::ToolCall(call) => {
                json!({ "type": "tool_use", "id": id(&call.id, 64), "name": call.name,
                    "input": object(&call.arguments, "input") })
            }
            Kind::Text(text) => {
                let mut block = json!({ "type": "text", "text": text.text });
                if let (false, Some(block)) = (text.citations.is_empty(), block.as_object_mut()) {
                    let citations: Vec<Value> = text.citations.iter().map(citation_value).collect();
                    block.insert("citations".to_owned(), citations.into());
                }
                block
            }
            Kind::Refusal(text) => json!({ "type": "text", "text": text }),
            Kind::Thinking(it) => {
                json!({ "type": "thinking", "thinking": it.text, "signature": signature(it.seal.as_ref()) })
            }
            Kind::Own(own) if own.dialect == NAME => own.value.clone(),
            Kind::Own(own) => {
                losses.dropped(own.name.clone());
                continue;
            }
            Kind::Image(_) | Kind::Audio(_) | Kind::File(_) | Kind::ToolResult(_) => continue,
        };
        content.push(block);
    }
    let refused = reply
        .parts
        .iter()
        .any(|part| matches!(part.kind, Kind::Refusal(_)));
    let stop = if refused {
        Some(&Stop::Refusal)
    } else {
        reply.stop.as_ref()
    };
    let (stop, sequence) = stop_word(stop);
    json!({
        "id": asked.message_id("msg_"), "type": "message", "role": "assistant", "model": reply.model,
        "content": content, "stop_reason": stop, "stop_sequence": sequence,
        "usage": usage_value(&reply.usage.unwrap_or_default()),
    })
}

/// The signature that a caller gets to see and sends back: the provider's own, or an envelope.
fn signature(seal: Option<&Seal>) -> String {
    match seal {
        Some(seal) if seal.dialect == NAME => owned(&seal.value, "signature"),
        Some(seal) => seal.envelope(),
        None => String::new(),
    }
}

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct MessagesReader {
    origin: String,
    follow: Follower,
    /// The open block as announced, with what its deltas added.
    open: Option<Value>,
    grown: String,
    signature: String,
    citations: Vec<Citation>,
    stop: Option<Stop>,
}

impl MessagesReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            follow: Follower::default(),
            open: None,
            grown: String::new(),
            signature: String::new(),
            citations: Vec::new(),
            stop: None,
        }
    }

    fn opened(&mut self, block: &Value, out: &mut Vec<Event>) {
        self.grown.clear();
        self.signature = owned(block, "signature");
        self.open = Some(block.clone());
        let (opening, piece) = match text(block, "type") {
            "text" => (Opening::Text, owned(block, "text")),
            "thinking" | "redacted_thinking" => (Opening::Thinking, owned(block, "thinking")),
            "tool_use" => {
                let empty =
                    |input: &&Value| input.as_object().is_some_and(|input| !input.is_empty());
                let input = block.get("input").filter(empty).map(Value::to_string);
                let call = Opening::ToolCall {
                    id: owned(block, "id"),
                    name: owned(block, "name"),
                    custom: false,
                };
                (call, input.unwrap_or_default())
            }
            // What a block of another kind is shows at its end.
            _ => return,
        };
        out.push(Event::Open(opening));
        self.piece(piece, out);
    }

    fn piece(&mut self, piece: String, out: &mut Vec<Event>) {
        if !piece.is_empty() {
            self.grown.push_str(&piece);
            out.push(Event::Piece(piece));
        }
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<Event>) {
        match text(delta, "type") {
            "text_delta" => self.piece(owned(delta, "text"), out),
            "thinking_delta" => self.piece(owned(delta, "thinking"), out),
            "input_json_delta" => {
                let known = self
                    .open
                    .as_ref()
                    .is_some_and(|open| text(open, "type") == "tool_use");
                if known {
                    self.piece(owned(delta, "partial_json"), out);
                } else {
                    self.grown.push_str(text(delta, "partial_json"));
                }
            }
            "signature_delta" => self.signature.push_str(text(delta, "signature")),
            "citations_delta" => self.citations.extend(delta.get("citation").map(citation)),
            _ => {}
        }
    }

    fn closed(&mut self, out: &mut Vec<Event>) {
        let Some(mut block) = self.open.take() else {
            return;
        };
        let mut seal = None;
        match text(&block, "type") {
            "text" | "tool_use" => {}
            "redacted_thinking" => seal = Some(self.seal(block)),
            "thinking" => {
                let block = json!({ "type": "thinking", "thinking": self.grown, "signature": self.signature });
                seal = Some(self.seal(block));
            }
            _ => {
                if let (false, Some(fields)) = (self.grown.is_empty(), block.as_object_mut()) {
                    fields.insert("input".to_owned(), object(&self.grown, "input"));
                }
                if let Kind::Own(own) = part_of_block(&block) {
                    out.push(Event::Open(Opening::Own(own)));
                }
            }
        }
        out.push(Event::Close {
            seal,
            citations: std::mem::take(&mut self.citations),
        });
    }

    fn seal(&self, value: Value) -> Seal {
        Seal {
            dialect: NAME.to_owned(),
            origin: Some(self.origin.clone()),
            value,
        }
    }
}

impl Reader for MessagesReader {
    fn event(&mut self, event: &[u8], out: &mut Vec<Event>) {
        let seen = self.follow.event(event);
        let Some(data) = sse::data(event) else {
            return;
        };
        let Ok(data) = serde_json::from_slice::<Value>(data) else {
            out.push(Event::Failed(
                "the upstream sent an event that is not JSON".to_owned(),
            ));
            return;
        };
        match text(&data, "type") {
            "message_start" => {
                let message = data.get("message").unwrap_or(&Value::Null);
                let prompt = self.follow.facts().prompt;
                out.push(Event::Begin {
                    model: owned(message, "model"),
                    prompt,
                });
            }
            "content_block_start" => {
                self.opened(data.get("content_block").unwrap_or(&Value::Null), out);
            }
            "content_block_delta" => self.delta(data.get("delta").unwrap_or(&Value::Null), out),
            "content_block_stop" => self.closed(out),
            "message_delta" => {
                let delta = data.get("delta").unwrap_or(&Value::Null);
                if let Some(word) = maybe(delta, "stop_reason") {
                    self.stop = Some(stop_of(&word, maybe(delta, "stop_sequence")));
                }
            }
            "message_stop" => {
                self.closed(out);
                out.extend(self.stop.take().map(Event::Stop));
                out.extend(self.follow.facts().usage.map(Event::Usage));
                out.push(Event::End);
            }
            _ if seen == Seen::Error => {
                let told = data.get("error").and_then(|error| maybe(error, "message"));
                out.push(Event::Failed(
                    told.unwrap_or_else(|| "the upstream reported an error".to_owned()),
                ));
            }
            _ => {}
        }
    }
}

/// Writes a stream of this dialect.
#[derive(Debug)]
pub(super) struct MessagesWriter {
    asked: Asked,
    index: u32,
    open: Option<Opening>,
    stop: Option<Stop>,
    refused: bool,
    usage: Option<Usage>,
    losses: Losses,
}

impl MessagesWriter {
    pub(super) fn new(asked: Asked) -> Self {
        Self {
            asked,
            index: 0,
            open: None,
            stop: None,
            refused: false,
            usage: None,
            losses: Losses::default(),
        }
    }

    fn begin(&self, model: &str, prompt: Option<Usage>, out: &mut String) {
        // Nobody has reported the prompt yet: what was counted stands until the last event corrects it.
        let counted = Usage {
            input: self.asked.prompt_tokens,
            ..Usage::default()
        };
        let usage = usage_value(&Usage {
            output: 1,
            reasoning: 0,
            ..prompt.unwrap_or(counted)
        });
        let message = json!({ "id": self.asked.message_id("msg_"), "type": "message", "role": "assistant",
            "model": model, "content": [], "stop_reason": null, "stop_sequence": null, "usage": usage });
        put(out, "message_start", json!({ "message": message }));
    }

    fn opening(&mut self, opening: Opening, out: &mut String) {
        let block = match &opening {
            Opening::Text => json!({ "type": "text", "text": "" }),
            Opening::Refusal => {
                self.refused = true;
                json!({ "type": "text", "text": "" })
            }
            Opening::Thinking => json!({ "type": "thinking", "thinking": "", "signature": "" }),
            Opening::ToolCall { id: call, name, .. } => {
                json!({ "type": "tool_use", "id": id(call, 64), "name": name, "input": {} })
            }
            Opening::Own(own) if own.dialect == NAME => own.value.clone(),
            Opening::Own(own) => {
                self.losses.dropped(own.name.clone());
                self.open = None;
                return;
            }
        };
        put(
            out,
            "content_block_start",
            json!({ "index": self.index, "content_block": block }),
        );
        self.open = Some(opening);
    }

    fn delta(&self, delta: &Value, out: &mut String) {
        put(
            out,
            "content_block_delta",
            json!({ "index": self.index, "delta": delta }),
        );
    }

    fn piece(&self, piece: &str, out: &mut String) {
        match self.open {
            Some(Opening::Text | Opening::Refusal) => {
                self.delta(&json!({ "type": "text_delta", "text": piece }), out);
            }
            Some(Opening::Thinking) => {
                self.delta(&json!({ "type": "thinking_delta", "thinking": piece }), out);
            }
            Some(Opening::ToolCall { custom: false, .. }) => {
                self.delta(
                    &json!({ "type": "input_json_delta", "partial_json": piece }),
                    out,
                );
            }
            _ => {}
        }
    }

    fn close(&mut self, seal: Option<&Seal>, citations: &[Citation], out: &mut String) {
        match self.open.take() {
            None => return,
            Some(Opening::Thinking) => {
                let delta = json!({ "type": "signature_delta", "signature": signature(seal) });
                self.delta(&delta, out);
            }
            Some(_) => {}
        }
        for citation in citations {
            let delta = json!({ "type": "citations_delta", "citation": citation_value(citation) });
            self.delta(&delta, out);
        }
        put(out, "content_block_stop", json!({ "index": self.index }));
        self.index += 1;
    }

    fn end(&self, out: &mut String) {
        let stop = if self.refused {
            Some(&Stop::Refusal)
        } else {
            self.stop.as_ref()
        };
        let (stop, sequence) = stop_word(stop);
        let usage = usage_value(&self.usage.unwrap_or(Usage {
            input: self.asked.prompt_tokens,
            ..Usage::default()
        }));
        put(
            out,
            "message_delta",
            json!({ "delta": { "stop_reason": stop, "stop_sequence": sequence }, "usage": usage }),
        );
        put(out, "message_stop", json!({}));
    }
}

impl Writer for MessagesWriter {
    fn event(&mut self, event: Event, out: &mut String) {
        match event {
            Event::Begin { model, prompt } => self.begin(&model, prompt, out),
            Event::Open(opening) => self.opening(opening, out),
            Event::Piece(piece) => self.piece(&piece, out),
            Event::Logprobs(_) => self.losses.dropped("logprobs"),
            Event::Close { seal, citations } => self.close(seal.as_ref(), &citations, out),
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

/// Writes one event; its name is its type.
fn put(out: &mut String, name: &str, fields: Value) {
    let mut data = serde_json::Map::from_iter([("type".to_owned(), Value::from(name))]);
    if let Value::Object(fields) = fields {
        data.extend(fields);
    }
    let data = Value::Object(data);
    sse::write(out, Some(name), &data);
}
