//! Streams of Anthropic Messages as canonical events.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::call::{Citation, Kind, Seal};
use crate::dialect::fields::{is_object, maybe, object, owned, text};
use crate::dialect::{Reader, Seen, Watch};
use crate::halves::Halves;
use crate::json::{self, JsonError, Scanner};
use crate::reply::{Event, Opening, Stop, stop_after};
use crate::sse;

use super::reply::{citation, part_of_block, stop_of};
use super::{Follower, NAME};

/// The most blocks that are under way at once: each piece is looked for among them, and a server that
/// mixes its blocks mixes a handful.
const MOST_BLOCKS: usize = 1_024;

/// A block as far as it came.
#[derive(Debug)]
struct Block {
    /// Its number, where the server counts.
    index: Option<u64>,
    /// As it was announced.
    announced: Value,
    /// What was announced of its text or input, and what its deltas added.
    grown: String,
    signature: String,
    citations: Vec<Citation>,
    /// Nothing follows.
    over: bool,
}

impl Block {
    /// A block with what is announced of its input, as it was written.
    fn new(index: Option<u64>, announced: Value, input: Option<String>) -> Self {
        let grown = match text(&announced, "type") {
            "text" => owned(&announced, "text"),
            "thinking" | "redacted_thinking" => owned(&announced, "thinking"),
            "tool_use" => input.unwrap_or_default(),
            _ => String::new(),
        };
        Self {
            index,
            grown,
            signature: owned(&announced, "signature"),
            announced,
            citations: Vec::new(),
            over: false,
        }
    }

    fn kind(&self) -> &str {
        text(&self.announced, "type")
    }

    fn is_at(&self, index: Option<u64>) -> bool {
        index.is_none() || self.index.is_none() || self.index == index
    }

    /// What opens with it; `None` for a block of another kind, which shows what it is at its end.
    fn opening(&self) -> Option<Opening> {
        match self.kind() {
            "text" => Some(Opening::Text),
            "thinking" | "redacted_thinking" => Some(Opening::Thinking),
            "tool_use" => Some(Opening::ToolCall {
                id: owned(&self.announced, "id"),
                name: owned(&self.announced, "name"),
                custom: false,
            }),
            _ => None,
        }
    }

    /// Adds a delta, and gives what can be said for it.
    fn add(&mut self, delta: &Value) -> Option<String> {
        let key = match (text(delta, "type"), self.kind()) {
            ("text_delta", "text") => "text",
            ("thinking_delta", "thinking") => "thinking",
            ("input_json_delta", "text" | "thinking" | "redacted_thinking") => return None,
            ("input_json_delta", _) => "partial_json",
            ("signature_delta", _) => {
                self.signature.push_str(text(delta, "signature"));
                return None;
            }
            ("citations_delta", "text") => {
                self.citations.extend(delta.get("citation").map(citation));
                return None;
            }
            _ => return None,
        };
        let piece = maybe(delta, key)?;
        self.grown.push_str(&piece);
        self.opening().is_some().then_some(piece)
    }

    /// Whether the next block may begin before its end is told. Some servers tell all ends at the end
    /// of the answer: a text can be gone on with, but the input of a call must not be torn apart.
    fn gives_way(&self) -> bool {
        match self.kind() {
            "text" | "thinking" => !self.grown.is_empty(),
            kind if kind.ends_with("tool_use") => !self.grown.is_empty() && is_object(&self.grown),
            _ => true,
        }
    }
}

/// The input of a `block` that the event `data` announces, as it was written: a value would not hold every number.
/// An empty one is none.
fn input_of(data: &[u8], block: &Value) -> Option<String> {
    let input = block.get("input").filter(|input| input.is_object())?;
    if *input == json!({}) {
        return None;
    }
    let (mut found, mut scanner) = (None, Scanner::new(data).ok()?);
    let walked = scanner.object(|scanner, key| {
        if key.raw != "content_block" || scanner.peek()? != json::Kind::Object {
            return Ok(());
        }
        scanner.object(|scanner, key| {
            if key.raw == "input" {
                let at = scanner.skip()?;
                found = Some(scanner.slice(at).to_owned());
            }
            Ok::<(), JsonError>(())
        })
    });
    // Nobody escapes these names, but they may be.
    walked.ok().and(found).or_else(|| Some(input.to_string()))
}

/// Follows a stream of this dialect.
#[derive(Debug)]
pub(super) struct MessagesReader {
    origin: String,
    begun: bool,
    halves: Halves,
    follow: Follower,
    /// Blocks under way. A server may mix their pieces: the first is given out as it comes, and the
    /// others wait until it is over or gives way.
    blocks: VecDeque<Block>,
    /// Number and kind of those that gave way and whose end was not told yet.
    left: Vec<(Option<u64>, String)>,
    /// A call is over that got no input, and is not closed yet.
    bare: bool,
    /// A tool was called.
    called: bool,
    stop: Option<Stop>,
}

impl MessagesReader {
    pub(super) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            begun: false,
            halves: Halves::default(),
            follow: Follower::default(),
            blocks: VecDeque::new(),
            left: Vec::new(),
            bare: false,
            called: false,
            stop: None,
        }
    }

    /// Closes a call that got no input. Nobody sends an empty object in pieces, so that it has one, but
    /// where a limit of tokens cut the answer right here, which only the last call can tell of.
    fn settle(&mut self, out: &mut Vec<Event>) {
        if !std::mem::take(&mut self.bare) {
            return;
        }
        let cut = matches!(self.stop, Some(Stop::Length | Stop::Window));
        if !cut || !self.blocks.is_empty() {
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

    fn opened(&mut self, index: Option<u64>, block: Block, out: &mut Vec<Event>) {
        self.begin(&Value::Null, out);
        // A server that tells no ends may count every block as the first.
        self.left.retain(|(left, _)| *left != index);
        let before = self.blocks.iter_mut().filter(|it| it.is_at(index));
        before.for_each(|it| it.over = true);
        if self.blocks.len() + self.left.len() >= MOST_BLOCKS {
            out.push(Event::Failed("the answer has too many blocks".to_owned()));
            return;
        }
        self.blocks.push_back(block);
        if self.blocks.len() == 1 {
            self.show(out);
        }
        self.go_on(out);
    }

    /// Opens the first block, with what came of it so far.
    fn show(&mut self, out: &mut Vec<Event>) {
        self.settle(out);
        let Some(block) = self.blocks.front() else {
            return;
        };
        if let Some(opening) = block.opening() {
            self.called |= matches!(opening, Opening::ToolCall { .. });
            out.push(Event::Open(opening));
            let so_far = Some(block.grown.clone()).filter(|grown| !grown.is_empty());
            out.extend(so_far.map(Event::Piece));
        }
    }

    /// Closes the first block where it is over or gives way, and opens the next.
    fn go_on(&mut self, out: &mut Vec<Event>) {
        while let Some(block) = self.shown() {
            if !block.over {
                self.left.push((block.index, block.kind().to_owned()));
            }
            self.close(block, out);
            if !self.blocks.is_empty() {
                self.show(out);
            }
        }
    }

    /// Takes out the first block where nothing more of it is to be waited for.
    fn shown(&mut self) -> Option<Block> {
        let others_wait = self.blocks.len() > 1;
        let is_shown = |first: &mut Block| first.over || (others_wait && first.gives_way());
        self.blocks.pop_front_if(is_shown)
    }

    /// The place of the block under way that an event at this number is about. A server that has but
    /// one under way may number it as it likes.
    fn place(&self, index: Option<u64>) -> Option<usize> {
        let is_it = |it: &Block| !it.over && it.is_at(index);
        if let Some(place) = self.blocks.iter().rposition(is_it) {
            return Some(place);
        }
        let mut under_way = (0..).zip(&self.blocks).filter(|(_, it)| !it.over);
        let (place, _) = under_way.next()?;
        let is_left = self.left.iter().any(|(left, _)| *left == index);
        (under_way.next().is_none() && !is_left).then_some(place)
    }

    fn delta(&mut self, index: Option<u64>, delta: &Value, out: &mut Vec<Event>) {
        self.resume(index, delta, out);
        let Some(place) = self.place(index) else {
            let says = |name| !text(delta, name).is_empty();
            if says("text") || says("thinking") || says("partial_json") {
                out.push(Event::Failed(
                    "the upstream goes on with a block that is not open".to_owned(),
                ));
            }
            return;
        };
        let said = self.blocks.get_mut(place).and_then(|it| it.add(delta));
        if place == 0 {
            out.extend(said.map(Event::Piece));
        }
    }

    /// Opens a text anew that gave way to others and is gone on with.
    fn resume(&mut self, index: Option<u64>, delta: &Value, out: &mut Vec<Event>) {
        let (kind, more) = match text(delta, "type") {
            "text_delta" => ("text", text(delta, "text")),
            "thinking_delta" => ("thinking", text(delta, "thinking")),
            _ => return,
        };
        let is_it = |(left, of): &(Option<u64>, String)| *left == index && of == kind;
        if !more.is_empty() && self.left.iter().any(is_it) {
            let block = Block::new(index, json!({ "type": kind }), None);
            self.opened(index, block, out);
        }
    }

    fn ended(&mut self, index: Option<u64>, out: &mut Vec<Event>) {
        if let Some(block) = self.place(index).and_then(|at| self.blocks.get_mut(at)) {
            block.over = true;
        }
        self.left.retain(|(left, _)| *left != index);
        self.go_on(out);
    }

    fn close(&mut self, block: Block, out: &mut Vec<Event>) {
        let Block {
            mut announced,
            grown,
            signature,
            citations,
            ..
        } = block;
        let mut seal = None;
        match text(&announced, "type") {
            "tool_use" if grown.is_empty() => {
                self.bare = true;
                return;
            }
            "text" | "tool_use" => {}
            "redacted_thinking" => seal = Some(self.seal(announced)),
            "thinking" => {
                let whole =
                    json!({ "type": "thinking", "thinking": grown, "signature": signature });
                seal = Some(self.seal(whole));
            }
            _ => {
                if let (false, Some(fields)) = (grown.is_empty(), announced.as_object_mut()) {
                    fields.insert("input".to_owned(), object(&grown, "input"));
                }
                if let Kind::Own(own) = part_of_block(&announced) {
                    out.push(Event::Open(Opening::Own(own)));
                }
            }
        }
        out.push(Event::Close { seal, citations });
    }

    fn seal(&self, value: Value) -> Seal {
        Seal {
            dialect: NAME.to_owned(),
            origin: Some(self.origin.clone()),
            value,
        }
    }

    /// The answer came to its end, and with it whatever is under way.
    fn end(&mut self, out: &mut Vec<Event>) {
        self.begin(&Value::Null, out);
        self.blocks.iter_mut().for_each(|it| it.over = true);
        self.go_on(out);
        self.settle(out);
        let stop = stop_after(self.stop.take(), self.called, false);
        out.extend(stop.map(Event::Stop));
        out.extend(self.follow.facts().usage.map(Event::Usage));
        out.push(Event::End);
    }
}

impl Reader for MessagesReader {
    fn event(&mut self, event: &[u8], out: &mut Vec<Event>) {
        let seen = self.follow.event(event);
        let Some(data) = sse::data(event) else {
            return;
        };
        let bytes = &*data;
        let Ok(data) = self.halves.read(bytes) else {
            out.push(Event::Failed(
                "the upstream sent an event that is not JSON".to_owned(),
            ));
            return;
        };
        let index = data.get("index").and_then(Value::as_u64);
        match text(&data, "type") {
            "message_start" => {
                self.begin(data.get("message").unwrap_or(&Value::Null), out);
            }
            "content_block_start" => {
                let block = data.get("content_block").unwrap_or(&Value::Null);
                let block = Block::new(index, block.clone(), input_of(bytes, block));
                self.opened(index, block, out);
            }
            "content_block_delta" => {
                self.delta(index, data.get("delta").unwrap_or(&Value::Null), out);
            }
            "content_block_stop" => self.ended(index, out),
            "message_delta" => {
                let delta = data.get("delta").unwrap_or(&Value::Null);
                if let Some(word) = maybe(delta, "stop_reason") {
                    self.stop = Some(stop_of(&word, maybe(delta, "stop_sequence")));
                }
                self.settle(out);
            }
            "message_stop" => self.end(out),
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
