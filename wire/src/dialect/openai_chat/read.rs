//! Streams of OpenAI Chat Completions as canonical events.

use std::collections::VecDeque;

use serde_json::Value;

use crate::call::ToolCall;
use crate::dialect::Reader;
use crate::dialect::fields::{is_object, list, maybe, owned};
use crate::dialect::openai::citation_of;
use crate::halves::Halves;
use crate::reply::{Event, Opening, Stop, stop_after};
use crate::{Usage, sse};

use super::call::call_of;
use super::reply::{FAILED, Piece, pieces_of, seal, stop_of};

/// The most calls of one answer: each piece is looked for among them, and no model makes so many.
const MOST_CALLS: usize = 1_024;

/// What is open in a stream that is read.
#[derive(Debug, PartialEq)]
enum Open {
    Nothing,
    Text,
    Refusal,
    /// Reasoning, under the name the server gives it, and its text so far.
    Thinking(&'static str, String),
    /// The first of the calls.
    Call,
}

/// A tool call as far as it came.
#[derive(Debug)]
struct Call {
    /// Its number, where the server counts.
    index: Option<u64>,
    so_far: ToolCall,
    /// It was given out; its arguments are no longer kept.
    given: bool,
}

impl Call {
    /// Whether a piece of this index belongs to it. Some servers count every call as the first, and
    /// some give neither number nor id.
    fn takes(&self, index: Option<u64>, piece: &ToolCall) -> bool {
        let named = !piece.name.is_empty();
        let other_id = named && !piece.id.is_empty() && !self.so_far.id.is_empty();
        let other_id = other_id && piece.id != self.so_far.id;
        // A name that comes behind the id is no other call's.
        let named_twice = named && !self.so_far.name.is_empty();
        let again = named_twice && piece.id.is_empty();
        let again = || again && !piece.arguments.is_empty() && self.is_whole();
        match (index, self.index) {
            (Some(index), Some(own)) => index == own && !other_id && !again(),
            _ if piece.id.is_empty() => !named_twice,
            _ => piece.id == self.so_far.id,
        }
    }

    /// Whether nothing can follow; the end of a free-form input does not show.
    fn is_whole(&self) -> bool {
        let text = &self.so_far.arguments;
        self.given || (!self.so_far.custom && !text.trim().is_empty() && is_object(text))
    }

    /// Adds a piece, and gives what of the arguments can be said for it.
    fn add(&mut self, piece: ToolCall) -> Option<String> {
        let waited = self.may_have_none();
        let so_far = &mut self.so_far;
        if so_far.id.is_empty() {
            so_far.id = piece.id;
        }
        if so_far.name.is_empty() {
            so_far.name = piece.name;
            so_far.custom |= piece.custom;
        }
        so_far.arguments.push_str(&piece.arguments);
        if waited {
            return self.begun();
        }
        Some(piece.arguments).filter(|text| !text.is_empty())
    }

    /// Whether it may turn out to have no arguments: some servers send `null` where `{}` is due.
    fn may_have_none(&self) -> bool {
        !self.so_far.custom && "null".starts_with(self.so_far.arguments.trim())
    }

    /// The arguments so far, once it is known that there are some.
    fn begun(&self) -> Option<String> {
        let known = !self.may_have_none() && !self.so_far.arguments.is_empty();
        known.then(|| self.so_far.arguments.clone())
    }

    /// What is left to be said of the arguments where nothing follows. A function without any has `{}`,
    /// but where the answer was cut right here.
    fn rest(&self, cut: bool) -> Option<String> {
        let text = &self.so_far.arguments;
        match text.trim() {
            _ if !self.may_have_none() => None,
            "" if cut => None,
            "" | "null" => Some("{}".to_owned()),
            _ => Some(text.clone()),
        }
    }
}

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct ChatReader {
    origin: String,
    begun: bool,
    halves: Halves,
    open: Open,
    /// Calls that are not given out yet. A server may mix the pieces of parallel calls: the first is
    /// given out as it comes, and the others wait until it is whole.
    calls: VecDeque<Call>,
    /// Calls that were given out.
    given: Vec<Call>,
    /// Text that came between the pieces of a call.
    later: Vec<Piece>,
    citations: Vec<crate::call::Citation>,
    refused: bool,
    stop: Option<Stop>,
    usage: Option<Usage>,
    ended: bool,
}

impl ChatReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            begun: false,
            halves: Halves::default(),
            open: Open::Nothing,
            calls: VecDeque::new(),
            given: Vec::new(),
            later: Vec::new(),
            citations: Vec::new(),
            refused: false,
            stop: None,
            usage: None,
            ended: false,
        }
    }

    fn close(&mut self, out: &mut Vec<Event>) {
        let seal = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Thinking(name, text) => Some(seal(name, &text, Some(&self.origin))),
            Open::Text | Open::Refusal => None,
            Open::Call => {
                let cut = matches!(self.stop, Some(Stop::Length | Stop::Filter));
                if let Some(mut call) = self.calls.pop_front() {
                    // Of several calls, only the last may have been cut.
                    let cut = cut && self.calls.is_empty();
                    out.extend(call.rest(cut).map(Event::Piece));
                    call.given = true;
                    call.so_far.arguments = String::new();
                    self.given.push(call);
                }
                None
            }
        };
        let citations = std::mem::take(&mut self.citations);
        out.push(Event::Close { seal, citations });
    }

    /// Gives out a piece of text, refusal or reasoning.
    fn piece(&mut self, piece: Piece, out: &mut Vec<Event>) {
        if self.open == Open::Call && !self.calls.front().is_some_and(Call::is_whole) {
            self.later.push(piece);
            return;
        }
        let is_open = matches!(
            (&self.open, &piece),
            (Open::Text, Piece::Text(_))
                | (Open::Refusal, Piece::Refusal(_))
                | (Open::Thinking(..), Piece::Thinking(..))
        );
        if !is_open {
            self.close(out);
            let (open, opening) = match &piece {
                Piece::Text(_) => (Open::Text, Opening::Text),
                Piece::Refusal(_) => (Open::Refusal, Opening::Refusal),
                Piece::Thinking(name, _) => {
                    (Open::Thinking(name, String::new()), Opening::Thinking)
                }
            };
            self.open = open;
            out.push(Event::Open(opening));
        }
        let (Piece::Text(text) | Piece::Refusal(text) | Piece::Thinking(_, text)) = piece;
        if let Open::Thinking(_, thought) = &mut self.open {
            thought.push_str(&text);
        }
        self.refused |= self.open == Open::Refusal;
        out.push(Event::Piece(text));
    }

    /// Takes a piece of a tool call.
    fn call(&mut self, delta: &Value, out: &mut Vec<Event>) {
        let piece = call_of(delta);
        let index = delta.get("index").and_then(Value::as_u64);
        let place = self.calls.iter().rposition(|it| it.takes(index, &piece));
        if let Some((place, call)) = place.and_then(|at| Some((at, self.calls.get_mut(at)?))) {
            let is_named = call.so_far.name.is_empty() && !piece.name.is_empty();
            let said = call.add(piece);
            if place == 0 && self.open == Open::Call {
                out.extend(said.map(Event::Piece));
            }
            if is_named {
                self.next_call(out);
            }
            return;
        }
        // White space behind the arguments of a call that was given out, or nobody's.
        let nameless = piece.id.is_empty() && piece.name.is_empty();
        if nameless || self.given.iter().any(|it| it.takes(index, &piece)) {
            return;
        }
        if self.calls.len() + self.given.len() >= MOST_CALLS {
            out.push(Event::Failed("the answer calls too many tools".to_owned()));
            return;
        }
        self.calls.push_back(Call {
            index,
            so_far: piece,
            given: false,
        });
        self.next_call(out);
    }

    /// Opens the next call, unless one is open that is not whole, or its name has yet to come.
    fn next_call(&mut self, out: &mut Vec<Event>) {
        let is_open = self.open == Open::Call;
        if is_open && !self.calls.front().is_some_and(Call::is_whole) {
            return;
        }
        let next = self.calls.get(usize::from(is_open));
        if next.is_some_and(|call| !call.so_far.name.is_empty()) {
            self.close(out);
            self.begin_call(out);
        }
    }

    /// Opens the first of the calls, with what came of it so far.
    fn begin_call(&mut self, out: &mut Vec<Event>) {
        let Some(call) = self.calls.front() else {
            return;
        };
        let ToolCall { id, name, .. } = &call.so_far;
        out.push(Event::Open(Opening::ToolCall {
            id: id.clone(),
            name: name.clone(),
            custom: call.so_far.custom,
        }));
        out.extend(call.begun().map(Event::Piece));
        self.open = Open::Call;
    }

    fn end(&mut self, out: &mut Vec<Event>) {
        if self.ended || !self.begun {
            return;
        }
        self.ended = true;
        self.close(out);
        while !self.calls.is_empty() {
            self.begin_call(out);
            self.close(out);
        }
        for piece in std::mem::take(&mut self.later) {
            self.piece(piece, out);
        }
        self.close(out);
        let stop = stop_after(self.stop.take(), !self.given.is_empty(), self.refused);
        out.extend(stop.map(Event::Stop));
        out.extend(self.usage.map(Event::Usage));
        out.push(Event::End);
    }

    fn delta(&mut self, delta: &Value, out: &mut Vec<Event>) {
        for piece in pieces_of(delta) {
            self.piece(piece, out);
        }
        let cited = list(delta, "annotations")
            .iter()
            .filter_map(|it| citation_of(it.get("url_citation")?));
        self.citations.extend(cited);
        for call in list(delta, "tool_calls") {
            self.call(call, out);
        }
    }

    fn choice(&mut self, choice: &Value, out: &mut Vec<Event>) {
        self.delta(choice.get("delta").unwrap_or(&Value::Null), out);
        let logprobs = choice
            .get("logprobs")
            .map_or(&[][..], |it| list(it, "content"));
        if !logprobs.is_empty() {
            out.push(Event::Logprobs(logprobs.to_vec()));
        }
        match maybe(choice, "finish_reason").as_deref() {
            None => {}
            Some(word) if FAILED.contains(&word) => {
                out.push(Event::Failed("the upstream reported an error".to_owned()));
            }
            Some(word) => self.stop = Some(stop_of(word)),
        }
    }
}

/// What an event says that tells of a failure; `is_named` where its name says that it is one.
fn failure_of(chunk: &Value, is_named: bool) -> Option<String> {
    let said = |name| chunk.get(name).filter(|it: &&Value| !it.is_null());
    let is_bare = said("choices").is_none() && said("usage").is_none();
    let detail = said("detail").filter(|_| is_bare);
    let is_error = is_named || maybe(chunk, "object").as_deref() == Some("error");
    let error = said("error").or(detail).or(is_error.then_some(chunk))?;
    let told = maybe(error, "message").or_else(|| error.as_str().map(str::to_owned));
    Some(told.unwrap_or_else(|| "the upstream reported an error".to_owned()))
}

impl Reader for ChatReader {
    fn event(&mut self, event: &[u8], out: &mut Vec<Event>) {
        let Some(data) = sse::data(event) else {
            return;
        };
        let data = &*data;
        if data == b"[DONE]" {
            self.end(out);
            return;
        }
        let Ok(chunk) = self.halves.read(data) else {
            out.push(Event::Failed(
                "the upstream sent an event that is not JSON".to_owned(),
            ));
            return;
        };
        let is_named = sse::name(event) == Some(b"error");
        if let Some(told) = failure_of(&chunk, is_named) {
            out.push(Event::Failed(told));
            return;
        }
        // One vendor's first chunk has neither choices nor the model's name.
        if !self.begun && !list(&chunk, "choices").is_empty() {
            self.begun = true;
            out.push(Event::Begin {
                model: owned(&chunk, "model"),
                prompt: None,
            });
        }
        if chunk.get("usage").is_some_and(Value::is_object) {
            let before = self.usage.unwrap_or_default();
            let behind = |usage: Usage| usage.behind(before);
            self.usage = super::usage_of(data).map(behind).or(self.usage);
        }
        let first = |choice: &&Value| choice.get("index").and_then(Value::as_u64).unwrap_or(0) == 0;
        if let Some(choice) = list(&chunk, "choices").iter().find(first) {
            self.choice(choice, out);
        }
    }

    /// Without a reason to stop, the answer has been cut and is never called whole.
    fn finish(&mut self, out: &mut Vec<Event>) {
        if self.stop.is_some() {
            self.end(out);
        }
    }
}
