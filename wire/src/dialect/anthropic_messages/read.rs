//! Streams of Anthropic Messages as canonical events.

use serde_json::{Value, json};

use crate::call::{Citation, Kind, Seal};
use crate::dialect::fields::{maybe, object, owned, text};
use crate::dialect::{Reader, Seen, Watch};
use crate::reply::{Event, Opening, Stop};
use crate::sse;

use super::reply::{citation, part_of_block, stop_of};
use super::{Follower, NAME};

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct MessagesReader {
    origin: String,
    begun: bool,
    follow: Follower,
    /// The open block as announced, with what its deltas added.
    open: Option<Value>,
    grown: String,
    signature: String,
    citations: Vec<Citation>,
    /// A call is over that got no input, and is not closed yet.
    bare: bool,
    stop: Option<Stop>,
}

impl MessagesReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            begun: false,
            follow: Follower::default(),
            open: None,
            grown: String::new(),
            signature: String::new(),
            citations: Vec::new(),
            bare: false,
            stop: None,
        }
    }

    /// Closes a call that got no input. Nobody sends an empty object in pieces, so that it has one, but
    /// where the token limit cut the answer right here.
    fn settle(&mut self, out: &mut Vec<Event>) {
        if !std::mem::take(&mut self.bare) {
            return;
        }
        if !matches!(self.stop, Some(Stop::Length | Stop::Window)) {
            out.push(Event::Piece("{}".to_owned()));
        }
        out.push(Event::Close {
            seal: None,
            citations: Vec::new(),
        });
    }

    fn begin(&mut self, message: &Value, out: &mut Vec<Event>) {
        if !self.begun {
            self.begun = true;
            out.push(Event::Begin {
                model: owned(message, "model"),
                prompt: self.follow.facts().prompt,
            });
        }
    }

    fn opened(&mut self, block: &Value, out: &mut Vec<Event>) {
        self.begin(&Value::Null, out);
        self.closed(out);
        self.settle(out);
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
        let open = self.open.as_ref().map_or("", |open| text(open, "type"));
        match (text(delta, "type"), open) {
            ("text_delta", "text") => self.piece(owned(delta, "text"), out),
            ("thinking_delta", "thinking") => self.piece(owned(delta, "thinking"), out),
            ("input_json_delta", "tool_use") => self.piece(owned(delta, "partial_json"), out),
            ("input_json_delta", _) => self.grown.push_str(text(delta, "partial_json")),
            ("signature_delta", _) => self.signature.push_str(text(delta, "signature")),
            ("citations_delta", "text") => {
                self.citations.extend(delta.get("citation").map(citation));
            }
            _ => {}
        }
    }

    fn closed(&mut self, out: &mut Vec<Event>) {
        let Some(mut block) = self.open.take() else {
            return;
        };
        let mut seal = None;
        match text(&block, "type") {
            "tool_use" if self.grown.is_empty() => {
                self.bare = true;
                return;
            }
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
        let data = &*data;
        let Ok(data) = crate::json::read::<Value>(data) else {
            out.push(Event::Failed(
                "the upstream sent an event that is not JSON".to_owned(),
            ));
            return;
        };
        match text(&data, "type") {
            "message_start" => {
                self.begin(data.get("message").unwrap_or(&Value::Null), out);
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
                self.settle(out);
            }
            "message_stop" => {
                self.begin(&Value::Null, out);
                self.closed(out);
                self.settle(out);
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
