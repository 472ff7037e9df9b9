//! What is seen of a stream while it is held back: the answer so far, in canonical form.

use wire::call::{Kind, Part};
use wire::dialect::Reader;
use wire::reply::{Assembler, Event, Opening};
use wire::{Dialect, Reply};

/// The answer so far.
#[derive(Debug)]
pub(crate) struct Glimpse {
    reader: Box<dyn Reader>,
    assembler: Assembler,
    events: Vec<Event>,
    /// The open part is a thought.
    thinks: bool,
    /// Pieces of what the caller is to act on: text, refusals, arguments of tools.
    pub(crate) pieces: u32,
    /// Their bytes.
    pub(crate) bytes: u32,
}

impl Glimpse {
    /// Nothing yet of a stream of `dialect`, made by `origin`.
    pub(crate) fn new(dialect: &dyn Dialect, origin: &str) -> Self {
        Self {
            reader: dialect.reader(origin),
            assembler: Assembler::default(),
            events: Vec::with_capacity(4),
            thinks: false,
            pieces: 0,
            bytes: 0,
        }
    }

    /// Takes one whole event.
    pub(crate) fn event(&mut self, event: &[u8]) {
        self.reader.event(event, &mut self.events);
        for event in self.events.drain(..) {
            match &event {
                Event::Open(opening) => self.thinks = *opening == Opening::Thinking,
                Event::Piece(piece) if !self.thinks => {
                    let bytes = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                    self.bytes = self.bytes.saturating_add(bytes);
                    self.pieces = self.pieces.saturating_add(1);
                }
                _ => {}
            }
            self.assembler.take(&event);
        }
    }

    /// The answer so far, without its thoughts.
    pub(crate) fn reply(&self) -> Reply {
        let mut reply = self.assembler.up_to_now();
        let is_thought = |part: &Part| matches!(part.kind, Kind::Thinking(_));
        reply.parts.retain(|part| !is_thought(part));
        reply
    }
}
