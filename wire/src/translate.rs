//! From one dialect to another: an answer's events are read, put together for those who need it
//! whole, and written again.

use serde_json::Value;

use crate::dialect::{Asked, DecodeError, Reader, Writer};
use crate::loss::Losses;
use crate::reply::{Assembler, Event, Opening, Reply};
use crate::{Call, Dialect};

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
            if let Event::Failed(why) = &event {
                self.failed.get_or_insert_with(|| why.clone());
            }
            if event == Event::End && !self.assembler.is_reported() {
                let counted = self.asked.counted(&self.assembler.seen());
                self.writer.event(Event::Usage(counted), out);
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
    let mut unwrap = Unwrap::new(asked);
    let mut assembler = Assembler::default();
    for event in reply.clone().events() {
        unwrap.pass(event, &mut |event| assembler.take(&event));
    }
    reply.parts.clone_from(&assembler.so_far().parts);
    reply.usage = reply
        .usage
        .or_else(|| Some(asked.counted(&assembler.seen())));
    Ok((to.encode_reply(&reply, asked, losses), reply))
}

/// Free-form tools that went out as functions come back as calls with an `input`: this gives such a
/// call its form again.
#[derive(Debug)]
struct Unwrap {
    custom: Vec<String>,
    open: Option<String>,
}

impl Unwrap {
    fn new(asked: &Asked) -> Self {
        let custom = asked.call.tools.iter().filter(|tool| tool.custom);
        Self {
            custom: custom.map(|tool| tool.name.clone()).collect(),
            open: None,
        }
    }

    fn pass(&mut self, event: Event, to: &mut dyn FnMut(Event)) {
        match (event, &mut self.open) {
            (
                Event::Open(Opening::ToolCall {
                    id,
                    name,
                    custom: false,
                }),
                _,
            ) if self.custom.contains(&name) => {
                self.open = Some(String::new());
                to(Event::Open(Opening::ToolCall {
                    id,
                    name,
                    custom: true,
                }));
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
