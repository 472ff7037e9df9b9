//! Answers of OpenAI Responses as canonical ones: whole and as events.

mod given;

use serde_json::{Value, json};

use crate::call::{Citation, Kind, Part, Seal, ToolCall};
use crate::dialect::fields::{json_text, list, maybe, owned, text};
use crate::dialect::{DecodeError, Reader};
use crate::halves::Halves;
use crate::reply::{Event, Opening, Reply, Stop};
use crate::sse;

use self::given::{Given, MOST_ITEMS, Shown, place_of};
use super::items::{content_part, made_item, made_message};
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
    match text(&response, "status") {
        "failed" | "cancelled" => return Err(DecodeError::Shape("a response that failed")),
        "queued" | "in_progress" => {
            return Err(DecodeError::Shape("a response that is not done"));
        }
        _ => {}
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

/// The most events that wait for the end of a call. Pieces of a text are joined, so that an item makes
/// a handful.
const MOST_LATE: usize = 8 * MOST_ITEMS;

/// What the end of a part or item tells of a part.
struct Told {
    opening: Opening,
    number: Option<u64>,
    whole: String,
    seal: Option<Seal>,
    citations: Vec<Citation>,
    logprobs: Vec<Value>,
}

impl Told {
    fn new(opening: Opening, whole: String) -> Self {
        Self {
            opening,
            number: None,
            whole,
            seal: None,
            citations: Vec::new(),
            logprobs: Vec::new(),
        }
    }

    /// `None` for a part that is neither text nor refusal.
    fn of(part: Kind, raw: &Value, number: Option<u64>) -> Option<Self> {
        let (opening, whole, citations) = match part {
            Kind::Text(text) => (Opening::Text, text.text, text.citations),
            Kind::Refusal(text) => (Opening::Refusal, text, Vec::new()),
            _ => return None,
        };
        Some(Self {
            number,
            citations,
            logprobs: list(raw, "logprobs").to_vec(),
            ..Self::new(opening, whole)
        })
    }
}

fn opening_of(call: &ToolCall) -> Opening {
    Opening::ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        custom: call.custom,
    }
}

fn is_call(part: &Shown) -> bool {
    matches!(part.opening, Opening::ToolCall { .. })
}

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct ResponsesReader {
    origin: String,
    begun: bool,
    halves: Halves,
    given: Given,
    /// Events of other items that came while a call was open, which must not be torn apart.
    late: Vec<Value>,
    /// What its parts say about why it stopped.
    meant: Option<Stop>,
}

impl ResponsesReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            begun: false,
            halves: Halves::default(),
            given: Given::default(),
            late: Vec::new(),
            meant: None,
        }
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

    /// Opens a new part of the present item.
    fn open(&mut self, opening: Opening, number: Option<u64>, out: &mut Vec<Event>) {
        match opening {
            Opening::ToolCall { .. } => self.meant = Some(Stop::Tools),
            Opening::Refusal if self.meant.is_none() => self.meant = Some(Stop::Refusal),
            _ => {}
        }
        if let Some(part) = self.given.add(opening, number) {
            self.show(part, out);
        }
    }

    /// Opens a part of the present item, for the first time or because something came between.
    fn show(&mut self, part: usize, out: &mut Vec<Event>) {
        if self.given.is_open(Some(part)) {
            return;
        }
        // A server that announces nothing names its model only at the end.
        self.begin(&Value::Null, out);
        self.close(None, Vec::new(), out);
        let shown = self.given.show(part);
        out.extend(shown.map(|shown| Event::Open(shown.opening.clone())));
    }

    /// Makes sure that a part of this kind is open before its text comes.
    fn ensure(&mut self, opening: Opening, number: Option<u64>, out: &mut Vec<Event>) {
        let present = self.given.present();
        match present.and_then(|it| it.part(&opening, number)) {
            Some(part) => self.show(part, out),
            None => self.open(opening, number, out),
        }
    }

    fn piece(&mut self, piece: &str, out: &mut Vec<Event>) {
        if let (false, Some(shown)) = (piece.is_empty(), self.given.shown_mut()) {
            shown.text.push_str(piece);
            out.push(Event::Piece(piece.to_owned()));
        }
    }

    /// Adds to the call of the present item, which alone has arguments, while it is open.
    fn argue(&mut self, piece: &str, out: &mut Vec<Event>) {
        if self.given.is_present_open() && self.given.shown().is_some_and(is_call) {
            self.piece(piece, out);
        }
    }

    /// Adds what of the whole arguments the pieces did not bring.
    fn argue_whole(&mut self, whole: &str, out: &mut Vec<Event>) {
        let given = self.given.shown().map_or("", |shown| &shown.text);
        self.argue(whole.strip_prefix(given).unwrap_or_default(), out);
    }

    fn close(&mut self, seal: Option<Seal>, citations: Vec<Citation>, out: &mut Vec<Event>) {
        if self.given.open.take().is_some() {
            out.push(Event::Close { seal, citations });
        }
    }

    /// Ends a part of the present item: gives out what the pieces did not bring, and closes it. Where
    /// something came between, it is gone on with only if there is something left to say.
    fn finish(&mut self, part: Option<usize>, told: Told, out: &mut Vec<Event>) {
        let is_open = self.given.is_open(part);
        let can_go_on = is_open || !matches!(told.opening, Opening::ToolCall { .. });
        let rest = match part.and_then(|part| self.given.parts().get(part)) {
            None => told.whole.as_str(),
            Some(known) if known.over || !can_go_on => "",
            Some(known) => told.whole.strip_prefix(&known.text).unwrap_or_default(),
        };
        match part {
            None => self.open(told.opening, told.number, out),
            Some(part) if is_open || !rest.is_empty() => self.show(part, out),
            Some(part) => return self.given.over(part),
        }
        self.piece(rest, out);
        if let Some(shown) = self.given.shown_mut() {
            shown.over = true;
            if !shown.logged && !told.logprobs.is_empty() {
                out.push(Event::Logprobs(told.logprobs));
            }
        }
        // Who takes a seal back takes it for the whole of its thinking.
        let seal = told.seal.filter(|_| part.is_none() || is_open);
        self.close(seal, told.citations, out);
    }

    fn added(&mut self, item: &Value, out: &mut Vec<Event>) {
        match text(item, "type") {
            _ if !self.given.parts().is_empty() => {}
            "reasoning" => self.open(Opening::Thinking, None, out),
            "function_call" | "custom_tool_call" => {
                if let Kind::ToolCall(call) = made_item(item, None) {
                    self.open(opening_of(&call), None, out);
                }
            }
            // A message opens with its first part; other items are given out when they are done.
            _ => {}
        }
    }

    fn message_done(&mut self, item: &Value, out: &mut Vec<Event>) {
        // A server that sends no events for parts still has them all here.
        for (place, part) in made_message(item).into_iter().enumerate() {
            let number = u64::try_from(place).unwrap_or(u64::MAX);
            let raw = part.raw.unwrap_or_default();
            let Some(told) = Told::of(part.kind, &raw, Some(number)) else {
                continue;
            };
            let parts = self.given.parts();
            let at = parts.iter().position(|it| it.number == number);
            let same = |at: &usize| parts.get(*at).is_some_and(|it| it.opening == told.opening);
            self.finish(at.or(Some(place)).filter(same), told, out);
        }
    }

    /// An item is done: what its pieces did not bring is given out.
    fn item_done(&mut self, item: &Value, out: &mut Vec<Event>) {
        let parts = self.given.parts();
        match text(item, "type") {
            "message" => self.message_done(item, out),
            "reasoning" => {
                let part = parts.iter().rposition(|it| it.opening == Opening::Thinking);
                if let Kind::Thinking(thinking) = made_item(item, Some(&self.origin)) {
                    let told = Told {
                        seal: thinking.seal,
                        ..Told::new(Opening::Thinking, thinking.text)
                    };
                    self.finish(part, told, out);
                }
            }
            "function_call" | "custom_tool_call" => {
                let part = parts.iter().rposition(is_call);
                if let Kind::ToolCall(mut call) = made_item(item, None) {
                    fill(&mut call, item);
                    let opening = opening_of(&call);
                    self.finish(part, Told::new(opening, call.arguments), out);
                }
            }
            "" => {}
            _ => {
                if let Kind::Own(own) = made_item(item, None) {
                    self.open(Opening::Own(own), None, out);
                }
            }
        }
        // Whatever comes next is another item's, announced or not.
        if self.given.is_present_open() {
            self.close(None, Vec::new(), out);
        }
        self.given.done();
    }

    /// An event about the inside of an item.
    fn inside(&mut self, kind: &str, data: &Value, out: &mut Vec<Event>) {
        let delta = text(data, "delta");
        let number = data.get("content_index").and_then(Value::as_u64);
        match kind {
            "response.content_part.added" => {
                match data.get("part").map_or("", |part| text(part, "type")) {
                    "output_text" => self.open(Opening::Text, number, out),
                    "refusal" => self.open(Opening::Refusal, number, out),
                    _ => {}
                }
            }
            "response.content_part.done" => {
                let part = data.get("part").unwrap_or(&Value::Null);
                if let Some(told) = Told::of(content_part(part), part, number) {
                    let present = self.given.present();
                    let at = present.and_then(|it| it.part(&told.opening, number));
                    self.finish(at, told, out);
                }
            }
            "response.output_text.delta" => {
                self.ensure(Opening::Text, number, out);
                self.piece(delta, out);
                let logprobs = list(data, "logprobs");
                if let (false, Some(shown)) = (logprobs.is_empty(), self.given.shown_mut()) {
                    shown.logged = true;
                    out.push(Event::Logprobs(logprobs.to_vec()));
                }
            }
            "response.refusal.delta" => {
                self.ensure(Opening::Refusal, number, out);
                self.piece(delta, out);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                self.ensure(Opening::Thinking, None, out);
                self.piece(delta, out);
            }
            "response.reasoning_summary_part.added" => {
                // Parts of one summary are one text here, with a blank line between them.
                let goes_on = |it: &Shown| it.opening == Opening::Thinking && !it.text.is_empty();
                if self.given.shown().is_some_and(goes_on) {
                    self.piece("\n\n", out);
                }
            }
            "response.function_call_arguments.delta" | "response.custom_tool_call_input.delta" => {
                self.argue(delta, out);
            }
            "response.function_call_arguments.done" => {
                self.argue_whole(&json_text(data, "arguments"), out);
            }
            "response.custom_tool_call_input.done" => {
                self.argue_whole(text(data, "input"), out);
            }
            _ => {}
        }
    }

    /// Takes an event about an item, or lets it wait. `false` where it waits.
    fn take(&mut self, data: Value, out: &mut Vec<Event>) -> bool {
        // What names no item and brings nothing is not about any.
        let about = ["item", "item_id", "output_index", "part", "delta"];
        if about.iter().all(|key| data.get(key).is_none()) {
            return true;
        }
        let known = self.given.item_of(&data);
        let is_open = |(item, _)| known == Some(item);
        let is_elsewhere = !self.given.open.is_some_and(is_open);
        if is_elsewhere && (!self.late.is_empty() || self.given.is_calling()) {
            self.wait(data, out);
            return false;
        }
        if !self.given.turn_to(known, &data) {
            out.push(Event::Failed("the answer has too many items".to_owned()));
            return true;
        }
        let item = data.get("item").unwrap_or(&Value::Null);
        match text(&data, "type") {
            _ if self.given.present().is_some_and(|it| it.done) => {}
            "response.output_item.added" => self.added(item, out),
            "response.output_item.done" => self.item_done(item, out),
            kind => self.inside(kind, &data, out),
        }
        true
    }

    /// Keeps an event for later, as one with the piece before it.
    fn wait(&mut self, data: Value, out: &mut Vec<Event>) {
        if self.late.len() >= MOST_LATE {
            out.push(Event::Failed("the answer mixes too many items".to_owned()));
            return;
        }
        let same = |it: &Value, key: &str| it.get(key) == data.get(key);
        let by = place_of(&data).map_or("item_id", |_| "output_index");
        let is_piece = data.get("delta").is_some();
        let waiting = self.late.iter_mut().filter(|_| is_piece);
        let last = waiting.rev().find(|it| same(it, by));
        let is_more = |it: &&mut Value| same(it, "type") && same(it, "content_index");
        let Some(last) = last.filter(is_more) else {
            self.late.push(data);
            return;
        };
        if let Some(Value::String(so_far)) = last.get_mut("delta") {
            so_far.push_str(text(&data, "delta"));
        }
        if let Some(Value::Array(so_far)) = last.get_mut("logprobs") {
            so_far.extend(list(&data, "logprobs").iter().cloned());
        }
    }

    /// Takes the events that waited, as far as no call that is open is in their way.
    fn catch_up(&mut self, out: &mut Vec<Event>) {
        while !self.late.is_empty() && !self.given.is_calling() {
            for data in std::mem::take(&mut self.late) {
                self.take(data, out);
            }
        }
    }

    fn end(&mut self, data: &Value, bytes: &[u8], out: &mut Vec<Event>) {
        let response = data.get("response").unwrap_or(&Value::Null);
        self.begin(response, out);
        while !self.late.is_empty() {
            self.close(None, Vec::new(), out);
            self.catch_up(out);
        }
        // Some servers send no events for an item, or not its end, but have it here.
        for (place, item) in (0..).zip(list(response, "output")) {
            let known = self.given.item_at(place, item);
            let told = json!({ "output_index": place, "item_id": item.get("id") });
            if !self.given.turn_to(known, &told) {
                out.push(Event::Failed("the answer has too many items".to_owned()));
                return;
            }
            if self.given.present().is_some_and(|it| !it.done) {
                self.item_done(item, out);
            }
        }
        self.close(None, Vec::new(), out);
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
        let Ok(data) = self.halves.read(bytes) else {
            if bytes != b"[DONE]" {
                out.push(Event::Failed(
                    "the upstream sent an event that is not JSON".to_owned(),
                ));
            }
            return;
        };
        match text(&data, "type") {
            "response.created" | "response.in_progress" | "response.queued" => {
                self.begin(data.get("response").unwrap_or(&Value::Null), out);
            }
            "response.completed" | "response.incomplete" => self.end(&data, bytes, out),
            "response.failed" | "error" => out.push(Event::Failed(told(&data))),
            _ => {
                // While pieces of a call come, what waits for its end goes on waiting.
                if !self.take(data, out) || self.given.open.is_none() {
                    self.catch_up(out);
                }
            }
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
