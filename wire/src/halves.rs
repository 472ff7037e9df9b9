//! Characters that a server cut in two: one that counts in units of UTF-16 may end a piece of text with the
//! first half of a character and begin the next with the other. The half waits for the next piece of the same
//! text; one that nothing follows is nothing, and left out.

use std::ops::Range;

use serde_json::Value;

use crate::json::{self, JsonError, Kind, Scanner, utf16_unit};

/// The most that wait at once: one for each part that a server mixes, which are a handful.
const MOST: usize = 64;
/// The bytes of an escape of half a character.
const LENGTH: usize = 6;
/// Fields that tell parts of an answer apart, whose pieces stand at one place in their events.
const NUMBERS: [&str; 4] = ["index", "output_index", "content_index", "summary_index"];
const NAMES: [&str; 1] = ["item_id"];

/// Halves of characters in the events of one stream.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    /// What a text that ended with a half is called, and the half.
    waiting: Vec<(String, Vec<u8>)>,
}

impl Halves {
    /// Reads the data of the next event, with what waited for it.
    pub(crate) fn read(&mut self, data: &[u8]) -> serde_json::Result<Value> {
        if self.waiting.is_empty()
            && let Ok(value) = serde_json::from_slice(data)
        {
            return Ok(value);
        }
        match self.joined(data) {
            Some(joined) => json::read(&joined),
            None => json::read(data),
        }
    }

    /// The event with halves moved to where their other halves are; `None` where it is not JSON.
    fn joined(&mut self, data: &[u8]) -> Option<Vec<u8>> {
        let (mut texts, mut scanner) = (Vec::new(), Scanner::new(data).ok()?);
        walk(&mut scanner, &mut texts).ok()?;
        scanner.end().ok()?;
        let (mut out, mut done) = (Vec::with_capacity(data.len() + LENGTH), 0);
        for Text { name, at } in texts {
            if let Some(place) = self.waiting.iter().position(|(of, _)| *of == name) {
                out.extend_from_slice(data.get(done..at.start)?);
                out.extend(self.waiting.swap_remove(place).1);
                done = at.start;
            }
            let raw = data.get(at.clone())?;
            if self.waiting.len() < MOST && ends_in_half(raw) {
                let (kept, half) = raw.split_at(raw.len() - LENGTH);
                out.extend_from_slice(data.get(done..at.start)?);
                out.extend_from_slice(kept);
                self.waiting.push((name, half.to_vec()));
                done = at.end;
            }
        }
        out.extend_from_slice(data.get(done..)?);
        Some(out)
    }
}

/// A text that is not empty, by what it is called in each event of its part.
struct Text {
    name: String,
    /// Where it stands, still escaped.
    at: Range<usize>,
}

/// Collects the texts of the next value.
fn walk(scanner: &mut Scanner<'_>, texts: &mut Vec<Text>) -> Result<(), JsonError> {
    match scanner.peek()? {
        Kind::Object => {
            let (outside, mut part) = (texts.len(), String::new());
            scanner.object(|scanner, key| {
                let (kind, before) = (scanner.peek()?, texts.len());
                match kind {
                    Kind::Number if NUMBERS.contains(&key.raw) => {
                        part.extend([key.raw, scanner.number()?]);
                    }
                    Kind::String if NAMES.contains(&key.raw) => {
                        part.push_str(scanner.string()?.raw);
                    }
                    _ => walk(scanner, texts)?,
                }
                let inside = texts.iter_mut().skip(before);
                inside.for_each(|text| text.name.extend(["/", key.raw]));
                Ok::<(), JsonError>(())
            })?;
            let inside = texts.iter_mut().skip(outside);
            inside.for_each(|text| text.name.push_str(&part));
            Ok(())
        }
        Kind::Array => scanner.array(|scanner| walk(scanner, texts)),
        Kind::String => {
            let at = scanner.string()?.at;
            if !at.is_empty() {
                let name = String::new();
                texts.push(Text { name, at });
            }
            Ok(())
        }
        _ => scanner.skip().map(|_| ()),
    }
}

/// Whether an escaped text ends with the first half of a character.
fn ends_in_half(raw: &[u8]) -> bool {
    let Some((before, last)) = raw.len().checked_sub(LENGTH).map(|at| raw.split_at(at)) else {
        return false;
    };
    let is_first = matches!(utf16_unit(last), Some(0xD800..0xDC00));
    // Behind an odd number of strokes, the one here is no escape's.
    let strokes = before.iter().rev().take_while(|byte| **byte == b'\\');
    is_first && strokes.count() % 2 == 0
}
