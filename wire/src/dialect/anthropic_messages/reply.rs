//! Answers of Anthropic Messages as canonical ones, and back: whole and as events.

use serde_json::{Value, json};

use crate::call::{Citation, Kind, Own, Part, Seal, Text, Thinking, ToolCall};
use crate::dialect::fields::{id, is_object, list, maybe, object, owned, text};
use crate::dialect::{Asked, DecodeError, Writer};
use crate::loss::Losses;
use crate::numbers;
use crate::reply::{Event, Opening, Reply, Stop, stop_after};
use crate::{Usage, sse};

use super::{NAME, usage_of};

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

pub(super) fn citation(citation: &Value) -> Citation {
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

/// The citations of a text. What has no address points into a document that the caller may not have.
fn citation_values(citations: &[Citation], losses: &mut Losses) -> Vec<Value> {
    let (told, untold): (Vec<_>, Vec<_>) = citations.iter().partition(|it| !it.url.is_empty());
    losses.dropped_if(!untold.is_empty(), "citations");
    let value = |it: &Citation| {
        json!({ "type": "web_search_result_location", "url": it.url, "title": it.title,
            "cited_text": it.quote, "encrypted_index": "" })
    };
    told.into_iter().map(value).collect()
}

/// Why the model stopped, in this dialect's words.
pub(super) fn stop_of(word: &str, sequence: Option<String>) -> Stop {
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
    let message: Value = crate::json::read(body)?;
    if !message.get("content").is_some_and(Value::is_array) {
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
    // A call that a limit of tokens cut comes with an empty input; it must not pass for a whole one.
    if matches!(stop, Some(Stop::Length | Stop::Window))
        && let Some(Part {
            kind: Kind::ToolCall(call),
            ..
        }) = parts.last_mut()
        && call.arguments == "{}"
    {
        call.arguments.clear();
    }
    let called = parts
        .iter()
        .any(|part| matches!(part.kind, Kind::ToolCall(_)));
    let stop = stop_after(stop, called, false);
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
        "input_tokens": usage.input.saturating_add(usage.audio_input),
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
        let whole = matches!(reply.stop, None | Some(Stop::Tools | Stop::End));
        !whole && !call.custom && serde_json::from_str::<Value>(&call.arguments).is_err()
    };
    let mut content = Vec::with_capacity(reply.parts.len());
    for part in &reply.parts {
        let block = match &part.kind {
            Kind::ToolCall(call) if cut(call) => {
                losses.dropped("tool_call");
                continue;
            }
            Kind::ToolCall(call) => {
                let input = if call.custom {
                    json!({ "input": call.arguments })
                } else {
                    if !is_object(&call.arguments) || numbers::change_in(&call.arguments) {
                        losses.approximated(numbers::ARGUMENTS);
                    }
                    object(&call.arguments, "arguments")
                };
                json!({ "type": "tool_use", "id": id(&call.id, 64), "name": call.name, "input": input })
            }
            Kind::Text(text) => {
                let mut block = json!({ "type": "text", "text": text.text });
                let citations = citation_values(&text.citations, losses);
                if let (false, Some(block)) = (citations.is_empty(), block.as_object_mut()) {
                    block.insert("citations".to_owned(), citations.into());
                }
                block
            }
            Kind::Refusal(text) => json!({ "type": "text", "text": text }),
            Kind::Thinking(it) => thinking_value(it),
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

/// Reasoning as this API made it, or with another's in an envelope.
fn thinking_value(thinking: &Thinking) -> Value {
    match &thinking.seal {
        Some(seal) if seal.dialect == NAME => seal.value.clone(),
        seal => {
            json!({ "type": "thinking", "thinking": thinking.text, "signature": signature(seal.as_ref()) })
        }
    }
}

/// Whether it is a block of this API that hides its thinking.
fn is_redacted(seal: &Seal) -> bool {
    seal.dialect == NAME && text(&seal.value, "type") == "redacted_thinking"
}

/// The signature that a caller gets to see and sends back: the provider's own, or an envelope.
fn signature(seal: Option<&Seal>) -> String {
    match seal {
        Some(seal) if seal.dialect == NAME => owned(&seal.value, "signature"),
        Some(seal) => seal.envelope(),
        None => String::new(),
    }
}

/// Writes a stream of this dialect.
#[derive(Debug)]
pub(super) struct MessagesWriter {
    asked: Asked,
    index: u32,
    open: Option<Opening>,
    /// The start of the open block has been written.
    begun: bool,
    /// The input of a free-form call, which is written when it is whole.
    input: String,
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
            begun: false,
            input: String::new(),
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
            // Whether it is shown or redacted is known with its first piece, or at its end.
            Opening::Thinking => {
                self.open = Some(opening);
                self.begun = false;
                return;
            }
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
        self.open = Some(opening);
        self.begin_block(&block, out);
    }

    fn begin_block(&mut self, block: &Value, out: &mut String) {
        self.begun = true;
        let start = json!({ "index": self.index, "content_block": block });
        put(out, "content_block_start", start);
    }

    fn begin_thinking(&mut self, out: &mut String) {
        if !self.begun {
            let block = json!({ "type": "thinking", "thinking": "", "signature": "" });
            self.begin_block(&block, out);
        }
    }

    fn delta(&self, delta: &Value, out: &mut String) {
        put(
            out,
            "content_block_delta",
            json!({ "index": self.index, "delta": delta }),
        );
    }

    fn piece(&mut self, piece: &str, out: &mut String) {
        match self.open {
            Some(Opening::Text | Opening::Refusal) => {
                self.delta(&json!({ "type": "text_delta", "text": piece }), out);
            }
            Some(Opening::Thinking) => {
                self.begin_thinking(out);
                self.delta(&json!({ "type": "thinking_delta", "thinking": piece }), out);
            }
            Some(Opening::ToolCall { custom: true, .. }) => self.input.push_str(piece),
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
            Some(Opening::Thinking) => match seal {
                Some(seal) if is_redacted(seal) && !self.begun => {
                    self.begin_block(&seal.value, out);
                }
                seal => {
                    self.begin_thinking(out);
                    let delta = json!({ "type": "signature_delta", "signature": signature(seal) });
                    self.delta(&delta, out);
                }
            },
            Some(Opening::ToolCall { custom: true, .. }) => {
                let input = json!({ "input": std::mem::take(&mut self.input) }).to_string();
                let delta = json!({ "type": "input_json_delta", "partial_json": input });
                self.delta(&delta, out);
            }
            Some(_) => {}
        }
        for citation in citation_values(citations, &mut self.losses) {
            let delta = json!({ "type": "citations_delta", "citation": citation });
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
