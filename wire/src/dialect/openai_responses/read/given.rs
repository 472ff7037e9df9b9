//! What of the items of an answer was given out: a server may mix them, and tells each once more at
//! its end.

use serde_json::Value;

use crate::dialect::fields::{is_object, owned, text};
use crate::reply::Opening;

/// The most items of one answer: each event's is looked for among them, and no model makes so many.
pub(super) const MOST_ITEMS: usize = 1_024;

/// A part of an item, as far as it was given out.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) opening: Opening,
    /// Its place in its message.
    pub(super) number: u64,
    pub(super) text: String,
    /// Log probabilities came with its pieces.
    pub(super) logged: bool,
    /// It was told whole.
    pub(super) over: bool,
}

/// An item of the output.
#[derive(Debug)]
pub(super) struct Item {
    place: u64,
    id: String,
    /// The id that results are matched by; some servers give calls no other.
    call_id: String,
    pub(super) parts: Vec<Shown>,
    pub(super) done: bool,
}

impl Item {
    fn is_called(&self, id: &str) -> bool {
        !id.is_empty() && (self.id == id || self.call_id == id)
    }

    /// Whether it has another id than this. Some servers give one item a new id with each event.
    fn is_other(&self, id: &str) -> bool {
        !id.is_empty() && !self.id.is_empty() && self.id != id
    }

    /// The part of this kind and number; without one, the last that is not over.
    pub(super) fn part(&self, opening: &Opening, number: Option<u64>) -> Option<usize> {
        let is_there = |part: &Shown| match number {
            Some(number) => part.number == number,
            None => !part.over,
        };
        let is_it = |part: &Shown| part.opening == *opening && is_there(part);
        self.parts.iter().rposition(is_it)
    }
}

/// The place of an event's item in the output, where the server counts.
pub(super) fn place_of(data: &Value) -> Option<u64> {
    data.get("output_index").and_then(Value::as_u64)
}

/// The items so far.
#[derive(Debug, Default)]
pub(super) struct Given {
    items: Vec<Item>,
    /// The one that the present event is about.
    now: usize,
    /// The item and part that are open.
    pub(super) open: Option<(usize, usize)>,
}

impl Given {
    /// The item that an event is about; `None` for one that nothing was told of yet.
    pub(super) fn item_of(&self, data: &Value) -> Option<usize> {
        let item = data.get("item");
        let id = item.map_or_else(|| text(data, "item_id"), |item| text(item, "id"));
        let call_id = item.map_or("", |item| text(item, "call_id"));
        if let Some(named) = self.named(id, call_id) {
            return Some(named);
        }
        let begins = text(data, "type") == "response.output_item.added";
        if let Some(place) = place_of(data) {
            // Some servers count every item as the first.
            let is_next = |it: &Item| match item {
                Some(_) => it.done || (begins && it.is_other(id)),
                None => it.done && it.is_other(id),
            };
            let is_there = |it: &Item| it.place == place && !is_next(it);
            return self.items.iter().rposition(is_there);
        }
        let present = self.present().filter(|it| !it.done && !begins)?;
        let is_nameless = present.id.is_empty() && (item.is_none() || present.call_id.is_empty());
        let is_present = is_nameless || (id.is_empty() && call_id.is_empty());
        is_present.then_some(self.now)
    }

    fn named(&self, id: &str, call_id: &str) -> Option<usize> {
        let is_it = |it: &Item| it.is_called(id) || it.is_called(call_id);
        self.items.iter().rposition(is_it)
    }

    /// The item that stands at a place of the finished output.
    pub(super) fn item_at(&self, place: u64, item: &Value) -> Option<usize> {
        let id = text(item, "id");
        let is_there = |it: &Item| it.place == place && (it.done || !it.is_other(id));
        let named = self.named(id, text(item, "call_id"));
        named.or_else(|| self.items.iter().position(is_there))
    }

    /// Makes an item the present one, a new one where it is not known. `false` where there are too many.
    pub(super) fn turn_to(&mut self, known: Option<usize>, data: &Value) -> bool {
        let next = self.items.len();
        if known.is_none() && next >= MOST_ITEMS {
            return false;
        }
        let item = data.get("item");
        let id = item.map_or_else(|| owned(data, "item_id"), |item| owned(item, "id"));
        self.now = known.unwrap_or(next);
        match self.items.get_mut(self.now) {
            Some(known) if known.id.is_empty() => known.id = id,
            Some(_) => {}
            None => self.items.push(Item {
                place: place_of(data).unwrap_or(u64::try_from(next).unwrap_or(u64::MAX)),
                id,
                call_id: item.map_or_else(String::new, |item| owned(item, "call_id")),
                parts: Vec::new(),
                done: false,
            }),
        }
        true
    }

    pub(super) fn present(&self) -> Option<&Item> {
        self.items.get(self.now)
    }

    /// The parts of the present item.
    pub(super) fn parts(&self) -> &[Shown] {
        self.present().map_or(&[], |item| &item.parts)
    }

    /// Adds a part to the present item, and gives its place there.
    pub(super) fn add(&mut self, opening: Opening, number: Option<u64>) -> Option<usize> {
        let item = self.items.get_mut(self.now)?;
        let last = item.parts.len();
        item.parts.push(Shown {
            opening,
            number: number.unwrap_or(u64::try_from(last).unwrap_or(u64::MAX)),
            text: String::new(),
            logged: false,
            over: false,
        });
        Some(last)
    }

    /// Makes a part of the present item the open one.
    pub(super) fn show(&mut self, part: usize) -> Option<&Shown> {
        self.open = Some((self.now, part));
        self.present()?.parts.get(part)
    }

    /// Whether this part of the present item is open.
    pub(super) fn is_open(&self, part: Option<usize>) -> bool {
        part.is_some_and(|part| self.open == Some((self.now, part)))
    }

    /// Whether the open part is the present item's.
    pub(super) fn is_present_open(&self) -> bool {
        self.open.is_some_and(|(item, _)| item == self.now)
    }

    pub(super) fn shown(&self) -> Option<&Shown> {
        let (item, part) = self.open?;
        self.items.get(item)?.parts.get(part)
    }

    pub(super) fn shown_mut(&mut self) -> Option<&mut Shown> {
        let (item, part) = self.open?;
        self.items.get_mut(item)?.parts.get_mut(part)
    }

    /// Whether the open part is a call that is not whole. The end of a free-form input does not show.
    pub(super) fn is_calling(&self) -> bool {
        self.shown().is_some_and(|shown| match shown.opening {
            Opening::ToolCall { custom, .. } => {
                custom || shown.text.trim().is_empty() || !is_object(&shown.text)
            }
            _ => false,
        })
    }

    /// A part of the present item is told whole.
    pub(super) fn over(&mut self, part: usize) {
        let item = self.items.get_mut(self.now);
        if let Some(part) = item.and_then(|item| item.parts.get_mut(part)) {
            part.over = true;
        }
    }

    /// The present item is done.
    pub(super) fn done(&mut self) {
        if let Some(item) = self.items.get_mut(self.now) {
            item.done = true;
            item.parts = Vec::new();
        }
    }
}
