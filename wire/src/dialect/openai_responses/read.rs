//! Answers of OpenAI Responses as canonical ones: whole and as events.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::call::{Kind, Part, Seal, ToolCall};
use crate::dialect::fields::{is_object, list, maybe, owned, text};
use crate::dialect::openai::citation_of;
use crate::dialect::{DecodeError, Reader};
use crate::reply::{Event, Opening, Reply, Stop};
use crate::sse;

use super::items::{made_item, made_message};
use super::usage_of;

fn stop_of(response: &Value) -> Stop {
    let reason = response
        .get("incomplete_details")
        .map_or("", |details| text(details, "reason"));
    let called = list(response, "output")
        .iter()
        .any(|item| matches!(text(item, "type"), "function_call" | "custom_tool_call"));
    let refused = list(response, "output")
        .iter()
        .flat_map(|item| list(item, "content"))
        .any(|part| text(part, "type") == "refusal");
    match (text(response, "status"), reason) {
        ("incomplete", "content_filter") => Stop::Filter,
        ("incomplete", _) => Stop::Length,
        _ if called => Stop::Tools,
        _ if refused => Stop::Refusal,
        _ => Stop::End,
    }
}

/// Reads a whole answer.
pub(super) fn decode(body: &[u8], origin: &str) -> Result<Reply, DecodeError> {
    let response: Value = crate::json::read(body)?;
    if !response.get("output").is_some_and(Value::is_array) {
        return Err(DecodeError::Shape("an answer without output"));
    }
    if matches!(text(&response, "status"), "failed" | "cancelled") {
        return Err(DecodeError::Shape("a response that failed"));
    }
    let mut parts = Vec::new();
    let mut logprobs = Vec::new();
    for item in list(&response, "output") {
        if text(item, "type") == "message" {
            parts.extend(made_message(item));
            logprobs.extend(
                list(item, "content")
                    .iter()
                    .flat_map(|part| list(part, "logprobs"))
                    .cloned(),
            );
        } else {
            let mut made = made_item(item, Some(origin));
            if let Kind::ToolCall(call) = &mut made {
                fill(call, item);
            }
            parts.push(Part::new(made));
        }
    }
    for part in &mut parts {
        part.raw = None;
    }
    Ok(Reply {
        model: owned(&response, "model"),
        parts,
        stop: Some(stop_of(&response)),
        usage: usage_of(body),
        logprobs,
        lane: maybe(&response, "service_tier"),
    })
}

/// A function without arguments: some servers send nothing where `{}` is due.
fn fill(call: &mut ToolCall, item: &Value) {
    let is_cut = text(item, "status") == "incomplete";
    if call.arguments.is_empty() && !call.custom && !is_cut {
        "{}".clone_into(&mut call.arguments);
    }
}

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct ResponsesReader {
    origin: String,
    begun: bool,
    /// The open part, and what of it was given out.
    open: Option<(Opening, String)>,
    /// The place of the present item in the output, where the server counts.
    at: Option<u64>,
    /// How many parts of the present message were opened, and the place of the open one.
    shown: usize,
    part: Option<u64>,
    /// Log probabilities came with the pieces of the open text.
    logged: bool,
    /// Items of which something was given out, by place.
    given: BTreeSet<u64>,
    /// Items that were done while a call was still open.
    late: Vec<Value>,
    /// What its parts say about why it stopped.
    meant: Option<Stop>,
}

impl ResponsesReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            begun: false,
            open: None,
            at: None,
            shown: 0,
            part: None,
            logged: false,
            given: BTreeSet::new(),
            late: Vec::new(),
            meant: None,
        }
    }

    /// Whether an event at this place is about another item than the call that is still open. A
    /// server may mix parallel calls; the others are given out when they are done.
    fn is_elsewhere(&self, at: Option<u64>) -> bool {
        let Some((Opening::ToolCall { custom, .. }, given)) = &self.open else {
            return false;
        };
        let other = at.is_some() && self.at.is_some() && at != self.at;
        other && (*custom || given.is_empty() || !is_object(given))
    }

    fn begin(&mut self, response: &Value, out: &mut Vec<Event>) {
        if !self.begun {
            self.begun = true;
            out.push(Event::Begin {
                model: owned(response, "model"),
                prompt: None,
            });
        }
    }

    fn open(&mut self, opening: Opening, out: &mut Vec<Event>) {
        // A server that announces nothing names its model only at the end.
        self.begin(&Value::Null, out);
        self.close(None, Vec::new(), out);
        self.shown += 1;
        self.logged = false;
        match opening {
            Opening::ToolCall { .. } => self.meant = Some(Stop::Tools),
            Opening::Refusal if self.meant.is_none() => self.meant = Some(Stop::Refusal),
            _ => {}
        }
        let next = u64::try_from(self.given.len()).unwrap_or(u64::MAX);
        self.given.insert(self.at.unwrap_or(next));
        out.push(Event::Open(opening.clone()));
        self.open = Some((opening, String::new()));
    }

    /// Whether a call is open, which alone has arguments.
    fn calls(&self) -> bool {
        matches!(self.open, Some((Opening::ToolCall { .. }, _)))
    }

    fn piece(&mut self, piece: &str, out: &mut Vec<Event>) {
        if let (false, Some((_, given))) = (piece.is_empty(), &mut self.open) {
            given.push_str(piece);
            out.push(Event::Piece(piece.to_owned()));
        }
    }

    /// Gives out what the closing event has and the deltas did not bring.
    fn complete(&mut self, whole: &str, out: &mut Vec<Event>) {
        let rest = self
            .open
            .as_ref()
            .and_then(|(_, given)| whole.strip_prefix(given.as_str()));
        let rest = rest.unwrap_or_default().to_owned();
        self.piece(&rest, out);
    }

    fn close(
        &mut self,
        seal: Option<Seal>,
        citations: Vec<crate::call::Citation>,
        out: &mut Vec<Event>,
    ) {
        if self.open.take().is_some() {
            out.push(Event::Close { seal, citations });
        }
    }

    fn added(&mut self, item: &Value, out: &mut Vec<Event>) {
        match text(item, "type") {
            "reasoning" => self.open(Opening::Thinking, out),
            "function_call" | "custom_tool_call" => {
                if let Kind::ToolCall(ToolCall {
                    id, name, custom, ..
                }) = made_item(item, None)
                {
                    self.open(Opening::ToolCall { id, name, custom }, out);
                }
            }
            // A message opens with its first part; other items are given out when they are done.
            _ => self.shown = 0,
        }
    }

    /// Makes sure that a part of this kind is open before its text comes.
    fn ensure(&mut self, opening: Opening, out: &mut Vec<Event>) {
        if self.open.as_ref().is_none_or(|(open, _)| *open != opening) {
            self.open(opening, out);
        }
    }

    /// An item is done, and whatever was done while it was open.
    fn done(&mut self, data: &Value, out: &mut Vec<Event>) {
        self.item_done(data.get("item").unwrap_or(&Value::Null), out);
        self.late_done(out);
    }

    fn late_done(&mut self, out: &mut Vec<Event>) {
        for data in std::mem::take(&mut self.late) {
            self.at = data.get("output_index").and_then(Value::as_u64);
            self.item_done(data.get("item").unwrap_or(&Value::Null), out);
        }
    }

    fn message_done(&mut self, item: &Value, out: &mut Vec<Event>) {
        // A server that sends no events for parts still has them all here.
        let seen = self.shown.saturating_sub(usize::from(self.open.is_some()));
        for part in made_message(item).into_iter().skip(seen) {
            let (opening, whole, citations) = match part.kind {
                Kind::Text(text) => (Opening::Text, text.text, text.citations),
                Kind::Refusal(text) => (Opening::Refusal, text, Vec::new()),
                _ => continue,
            };
            self.ensure(opening, out);
            self.complete(&whole, out);
            self.log(part.raw.as_deref().unwrap_or(&Value::Null), out);
            self.close(None, citations, out);
        }
        self.close(None, Vec::new(), out);
    }

    /// Gives out the log probabilities of a whole text, where they did not come with its pieces.
    fn log(&mut self, part: &Value, out: &mut Vec<Event>) {
        let logprobs = list(part, "logprobs");
        if !self.logged && !logprobs.is_empty() {
            out.push(Event::Logprobs(logprobs.to_vec()));
        }
    }

    fn item_done(&mut self, item: &Value, out: &mut Vec<Event>) {
        match text(item, "type") {
            "message" => self.message_done(item, out),
            "reasoning" => {
                if let Kind::Thinking(thinking) = made_item(item, Some(&self.origin)) {
                    self.ensure(Opening::Thinking, out);
                    self.complete(&thinking.text, out);
                    self.close(thinking.seal, Vec::new(), out);
                }
            }
            "function_call" | "custom_tool_call" => {
                if let Kind::ToolCall(mut call) = made_item(item, None) {
                    fill(&mut call, item);
                    let same = |open: &Opening| matches!(open, Opening::ToolCall { id, .. } if *id == call.id);
                    if !self.open.as_ref().is_some_and(|(open, _)| same(open)) {
                        let ToolCall {
                            id, name, custom, ..
                        } = call.clone();
                        self.open(Opening::ToolCall { id, name, custom }, out);
                    }
                    self.complete(&call.arguments, out);
                    self.close(None, Vec::new(), out);
                }
            }
            "" => {}
            _ => {
                if let Kind::Own(own) = made_item(item, None) {
                    self.open(Opening::Own(own), out);
                    self.close(None, Vec::new(), out);
                }
            }
        }
        // Whatever comes next is another item's, announced or not.
        self.shown = 0;
        self.part = None;
    }

    fn part_done(&mut self, data: &Value, out: &mut Vec<Event>) {
        let part = data.get("part").unwrap_or(&Value::Null);
        match text(part, "type") {
            "output_text" => {
                self.ensure(Opening::Text, out);
                self.complete(text(part, "text"), out);
            }
            "refusal" => {
                self.ensure(Opening::Refusal, out);
                self.complete(text(part, "refusal"), out);
            }
            _ => return,
        }
        let citations = list(part, "annotations")
            .iter()
            .filter_map(citation_of)
            .collect();
        self.log(part, out);
        self.close(None, citations, out);
    }

    /// Closes the open part where the event is about another one of its message.
    fn turn_to(&mut self, data: &Value, out: &mut Vec<Event>) {
        let part = data.get("content_index").and_then(Value::as_u64);
        if part.is_some() && self.part.is_some() && part != self.part {
            self.close(None, Vec::new(), out);
        }
        self.part = part;
    }

    /// An event about the inside of an item.
    fn inside(&mut self, kind: &str, data: &Value, out: &mut Vec<Event>) {
        let delta = text(data, "delta");
        match kind {
            "response.output_text.delta" => {
                self.turn_to(data, out);
                self.ensure(Opening::Text, out);
                self.piece(delta, out);
                let logprobs = list(data, "logprobs");
                if !logprobs.is_empty() {
                    self.logged = true;
                    out.push(Event::Logprobs(logprobs.to_vec()));
                }
            }
            "response.refusal.delta" => {
                self.turn_to(data, out);
                self.ensure(Opening::Refusal, out);
                self.piece(delta, out);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.ensure(Opening::Thinking, out);
                self.piece(delta, out);
            }
            "response.reasoning_summary_part.added" => {
                // Parts of one summary are one text here, with a blank line between them.
                if matches!(&self.open, Some((Opening::Thinking, given)) if !given.is_empty()) {
                    self.piece("\n\n", out);
                }
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta"
                if self.calls() =>
            {
                self.piece(delta, out);
            }
            "response.function_call_arguments.done" if self.calls() => {
                self.complete(text(data, "arguments"), out);
            }
            "response.custom_tool_call_input.done" if self.calls() => {
                self.complete(text(data, "input"), out);
            }
            _ => {}
        }
    }

    fn end(&mut self, data: &Value, bytes: &[u8], out: &mut Vec<Event>) {
        let response = data.get("response").unwrap_or(&Value::Null);
        self.begin(response, out);
        self.close(None, Vec::new(), out);
        self.late_done(out);
        // Some servers send no events for an item, but have it here.
        for (place, item) in (0..).zip(list(response, "output")) {
            if !self.given.contains(&place) {
                self.at = Some(place);
                self.item_done(item, out);
            }
        }
        out.push(Event::Stop(match stop_of(response) {
            Stop::End => self.meant.take().unwrap_or(Stop::End),
            stop => stop,
        }));
        out.extend(usage_of(bytes).map(Event::Usage));
        out.push(Event::End);
    }
}

impl Reader for ResponsesReader {
    fn event(&mut self, event: &[u8], out: &mut Vec<Event>) {
        let Some(bytes) = sse::data(event) else {
            return;
        };
        let bytes = &*bytes;
        let Ok(data) = crate::json::read::<Value>(bytes) else {
            if bytes != b"[DONE]" {
                out.push(Event::Failed(
                    "the upstream sent an event that is not JSON".to_owned(),
                ));
            }
            return;
        };
        let kind = text(&data, "type");
        let at = data.get("output_index").and_then(Value::as_u64);
        if self.is_elsewhere(at) {
            if kind == "response.output_item.done" {
                self.late.push(data);
            }
            return;
        }
        self.at = at.or(self.at);
        match kind {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.begin(data.get("response").unwrap_or(&Value::Null), out);
            }
            "response.output_item.added" => {
                self.added(data.get("item").unwrap_or(&Value::Null), out);
            }
            "response.content_part.added" => {
                self.turn_to(&data, out);
                match data.get("part").map_or("", |part| text(part, "type")) {
                    "output_text" => self.open(Opening::Text, out),
                    "refusal" => self.open(Opening::Refusal, out),
                    _ => {}
                }
            }
            "response.content_part.done" => self.part_done(&data, out),
            "response.output_item.done" => self.done(&data, out),
            "response.completed" | "response.incomplete" => self.end(&data, bytes, out),
            "response.failed" | "error" => out.push(Event::Failed(told(&data))),
            _ => self.inside(kind, &data, out),
        }
    }
}

/// What an upstream says about its failure.
fn told(data: &Value) -> String {
    let failed = data.get("response").and_then(|it| it.get("error"));
    let error = failed.or_else(|| data.get("error"));
    let told = maybe(data, "message").or_else(|| maybe(error?, "message"));
    told.unwrap_or_else(|| "the upstream reported an error".to_owned())
}
