//! From one dialect to another: an answer's events are read, put together for those who need it
//! whole, and written again.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::call::Kind;
use crate::dialect::{Asked, DecodeError, Reader, Writer, shortened};
use crate::loss::Losses;
use crate::numbers;
use crate::reply::{Assembler, Event, Opening, Reply};
use crate::{Call, Dialect, Usage};

/// A stream on its way from the dialect it comes in to the one it goes out in.
#[derive(Debug)]
pub struct Translator {
    reader: Box<dyn Reader>,
    writer: Box<dyn Writer>,
    unwrap: Unwrap,
    assembler: Assembler,
    events: Vec<Event>,
    failed: Option<String>,
    asked: Asked,
}

impl Translator {
    /// A stream of `from`, made by `origin`, for a caller that speaks `to`.
    pub fn new(from: &dyn Dialect, origin: &str, to: &dyn Dialect, asked: Asked) -> Self {
        Self {
            reader: from.reader(origin),
            unwrap: Unwrap::new(&asked),
            writer: to.writer(asked.clone()),
            assembler: Assembler::default(),
            events: Vec::with_capacity(4),
            failed: None,
            asked,
        }
    }

    /// Takes one whole event and adds what the caller gets for it to `out`.
    pub fn event(&mut self, event: &[u8], out: &mut String) {
        self.reader.event(event, &mut self.events);
        self.write(out);
    }

    /// The stream ended: what its last event left to be said is said.
    pub fn finish(&mut self, out: &mut String) {
        self.reader.finish(&mut self.events);
        self.write(out);
    }

    fn write(&mut self, out: &mut String) {
        for event in self.events.drain(..) {
            // Nothing is written behind the end, and nothing behind a failure: an end there would make
            // the answer look whole.
            if self.failed.is_some() || self.assembler.whole().is_some() {
                continue;
            }
            if let Event::Failed(why) = &event {
                self.failed = Some(why.clone());
            }
            if event == Event::End && !self.assembler.is_reported() {
                let counted = self.asked.counted(&self.assembler.seen());
                // Some servers report the prompt at the start and then no more.
                let prompt = self.assembler.so_far().usage.unwrap_or(counted);
                let output = counted.output;
                self.writer
                    .event(Event::Usage(Usage { output, ..prompt }), out);
            }
            self.unwrap.pass(event, &mut |event| {
                self.assembler.take(&event);
                self.writer.event(event, out);
            });
        }
    }

    /// What went wrong with the upstream's stream, in its own words where it has any.
    pub fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    /// The answer as it was put together.
    pub fn assembler(&self) -> &Assembler {
        &self.assembler
    }

    /// The call that is answered.
    pub fn call(&self) -> &Call {
        &self.asked.call
    }

    /// What the caller's dialect had no place for.
    pub fn losses(&self) -> &Losses {
        self.writer.losses()
    }

    /// The answer as an object to keep, where the caller's dialect has one.
    pub fn whole(&self) -> Option<&Value> {
        self.writer.whole()
    }
}

/// A whole answer of `from` for a caller that speaks `to`, and as it was read.
///
/// # Errors
/// When it is not an answer of its dialect.
pub fn reply(
    from: &dyn Dialect,
    origin: &str,
    to: &dyn Dialect,
    asked: &Asked,
    body: &[u8],
    losses: &mut Losses,
) -> Result<(Value, Reply), DecodeError> {
    let mut reply = from.decode_reply(body, origin)?;
    if numbers::changed(body).contains(&numbers::ARGUMENTS) {
        losses.approximated(numbers::ARGUMENTS);
    }
    let mut unwrap = Unwrap::new(asked);
    let mut assembler = Assembler::default();
    for event in reply.clone().events() {
        unwrap.pass(event, &mut |event| assembler.take(&event));
    }
    reply.model.clone_from(&assembler.so_far().model);
    reply.parts.clone_from(&assembler.so_far().parts);
    reply.usage = reply
        .usage
        .or_else(|| Some(asked.counted(&assembler.seen())));
    Ok((to.encode_reply(&reply, asked, losses), reply))
}

/// The ids of the calls in the transcript.
fn ids_of(call: &Call) -> HashSet<String> {
    let parts = call.turns.iter().flat_map(|turn| &turn.parts);
    let ids = parts.filter_map(|part| match &part.kind {
        Kind::ToolCall(call) => Some(call.id.clone()),
        _ => None,
    });
    ids.collect()
}

/// Gives calls of tools the form that their caller knows: free-form tools that went out as functions
/// come back as calls with an `input`, and names that were too long come back shortened.
#[derive(Debug)]
struct Unwrap {
    asked: Asked,
    /// The tools that went out under another name, by that name.
    renamed: HashMap<String, String>,
    /// The ids of the calls so far, in the transcript and in this answer.
    ids: HashSet<String>,
    /// How many calls this answer has so far.
    calls: usize,
    /// The input of a free-form call that came as a function's.
    open: Option<String>,
}

impl Unwrap {
    fn new(asked: &Asked) -> Self {
        let mut renamed = HashMap::new();
        for tool in &asked.call.tools {
            for name in shortened(&tool.name).filter(|name| *name != tool.name) {
                renamed.insert(name, tool.name.clone());
            }
        }
        Self {
            asked: asked.clone(),
            renamed,
            ids: ids_of(&asked.call),
            calls: 0,
            open: None,
        }
    }

    /// The call that opens, as its caller knows it. Results are matched to calls by id, so that a
    /// server which gives none, or the same twice, would end every loop: in one answer where calls are
    /// parallel, and behind the first answer where it counts each answer's calls anew.
    fn opening(&mut self, id: String, name: String, custom: bool) -> Opening {
        let made = || format!("{}{:02x}", self.asked.message_id("call_"), self.calls);
        let id = if self.is_new(&id) { id } else { made() };
        self.calls += 1;
        self.ids.insert(id.clone());
        let name = self.renamed.get(&name).cloned().unwrap_or(name);
        let is_custom = self.asked.call.tool(&name).is_some_and(|tool| tool.custom);
        self.open = (is_custom && !custom).then(String::new);
        Opening::ToolCall {
            id,
            name,
            custom: custom || is_custom,
        }
    }

    /// Whether no call goes by this id, nor by the form of it that a stricter caller brings back.
    fn is_new(&self, id: &str) -> bool {
        let taken = |id: &str| self.ids.contains(id);
        !id.is_empty() && !taken(id) && !shortened(id).any(|id| taken(&id))
    }

    fn pass(&mut self, event: Event, to: &mut dyn FnMut(Event)) {
        match (event, &mut self.open) {
            // A server that does not say which model answers was asked for this one.
            (Event::Begin { model, prompt }, _) if model.is_empty() => {
                let model = self.asked.call.model.clone();
                to(Event::Begin { model, prompt });
            }
            (Event::Open(Opening::ToolCall { id, name, custom }), _) => {
                to(Event::Open(self.opening(id, name, custom)));
            }
            (Event::Piece(piece), Some(text)) => text.push_str(&piece),
            (event @ Event::Close { .. }, open) => {
                if let Some(text) = open.take() {
                    let parsed: Option<Value> = serde_json::from_str(&text).ok();
                    let input = parsed
                        .as_ref()
                        .and_then(|value| value.get("input")?.as_str());
                    to(Event::Piece(input.unwrap_or(&text).to_owned()));
                }
                to(event);
            }
            (event, _) => to(event),
        }
    }
}
