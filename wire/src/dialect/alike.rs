//! Events of one answer, most of which differ from the one before in what a few strings say: such an event need not
//! be read as if nothing were known of it.

use std::ops::Range;

use crate::json::Scanner;

/// Strings that may differ, for instance a piece of the text and a filling that hides its length.
const MOST_STRINGS: usize = 4;
/// Longer events are few, or take longer than it takes to read them.
const MOST_BYTES: usize = 4 << 10;
/// After so many events in a row that were unlike the one before, nothing more is learnt.
const MOST_MISSES: u8 = 8;

/// An event that was read in full, and which of its strings differ from event to event.
#[derive(Debug, Default)]
pub(super) struct Alike {
    known: Vec<u8>,
    /// In order, quotes included; each is a value, never a key.
    strings: Vec<Range<usize>>,
    misses: u8,
}

impl Alike {
    /// Whether `event` is JSON and the known event but for what those strings say. No word in quotes stands in it
    /// that does not stand in the known one, but for strings that are such a word.
    pub(super) fn is(&mut self, event: &[u8]) -> bool {
        let is_alike = !self.strings.is_empty() && self.follows(event);
        if is_alike {
            self.misses = 0;
        }
        is_alike
    }

    fn follows(&self, event: &[u8]) -> bool {
        let Ok(mut scanner) = Scanner::new(event) else {
            return false;
        };
        let mut from = 0;
        for string in &self.strings {
            let before = self.known.get(from..string.start).unwrap_or_default();
            if !scanner.passes(before) || scanner.string().is_err() {
                return false;
            }
            from = string.end;
        }
        let behind = self.known.get(from..).unwrap_or_default();
        scanner.passes(behind) && scanner.offset() == event.len()
    }

    /// Knows nothing, whatever it is told.
    #[cfg(test)]
    pub(super) fn blind() -> Self {
        Self {
            misses: MOST_MISSES,
            ..Self::default()
        }
    }

    /// Knows `event` from here on, which was read in full and is JSON.
    pub(super) fn know(&mut self, event: &[u8]) {
        if self.misses == MOST_MISSES || event.len() > MOST_BYTES {
            return;
        }
        self.misses += 1;
        self.strings = strings_that_differ(&self.known, event).unwrap_or_default();
        self.known.clear();
        self.known.extend_from_slice(event);
    }
}

/// Where strings stand in `new` that differ from those in `old`; `None` where more differs than a few values.
fn strings_that_differ(old: &[u8], new: &[u8]) -> Option<Vec<Range<usize>>> {
    let (mut strings, mut behind, mut at) = (Vec::new(), 0, 0);
    loop {
        let (left, right) = (old.get(behind..)?, new.get(at..)?);
        let same = left.iter().zip(right).take_while(|(a, b)| a == b).count();
        if same == left.len() && same == right.len() {
            return Some(strings);
        }
        let string = string_around(right, same)?;
        let other = string_around(left, string.start + 1)?;
        let is_key = right.get(string.end..)?.trim_ascii_start().first() == Some(&b':');
        if is_key || strings.len() == MOST_STRINGS {
            return None;
        }
        strings.push(at + string.start..at + string.end);
        (behind, at) = (behind + other.end, at + string.end);
    }
}

/// The string of `json` that `place` lies in, behind its first quote; `json` begins outside of strings.
fn string_around(json: &[u8], place: usize) -> Option<Range<usize>> {
    let mut at = 0;
    while at < place {
        let start = at + memchr::memchr(b'"', json.get(at..place)?)?;
        let mut end = start + 1;
        while *json.get(end)? != b'"' {
            end += 1 + usize::from(json.get(end) == Some(&b'\\'));
        }
        if place <= end {
            return Some(start..end + 1);
        }
        at = end + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(events: &[&str]) -> Alike {
        let mut alike = Alike::default();
        for event in events {
            alike.know(event.as_bytes());
        }
        alike
    }

    fn chunk(content: &str, filling: &str) -> String {
        format!(
            r#"{{"id":"a","choices":[{{"delta":{{"content":{content}}}}}],"filling":{filling}}}"#
        )
    }

    #[test]
    fn events_are_alike_whose_strings_differ_and_nothing_else() {
        let mut alike = known(&[
            &chunk(r#""Hel""#, r#""x""#),
            &chunk(r#""Hello""#, r#""yz""#),
        ]);
        for content in [
            r#""""#,
            r#""\"usage\":1""#,
            r#""Grüße 🙂\n\u00e4""#,
            r#""a\\""#,
            r#""error""#,
        ] {
            assert!(alike.is(chunk(content, r#""""#).as_bytes()), "{content}");
        }
        let good = chunk(r#""Hi""#, r#""x""#);
        for (unlike, why) in [
            (
                chunk(r#""Hi","finish_reason":"stop""#, r#""x""#),
                "another key",
            ),
            (chunk(r#""Hi"x"#, r#""x""#), "no JSON"),
            (chunk(r#""Hi"#, r#""x""#), "no end"),
            (chunk(r#""H\i""#, r#""x""#), "an escape that is none"),
            (chunk("\"H\ni\"", r#""x""#), "a control character"),
            (chunk("null", r#""x""#), "no string"),
            (chunk("7", r#""x""#), "a number"),
            (format!("{good} "), "more"),
            (good.trim_end_matches('}').to_owned(), "less"),
            (good.replace("\"a\"", "\"b\""), "another id"),
        ] {
            assert!(!alike.is(unlike.as_bytes()), "{why}: {unlike}");
        }
        let mut broken = good.into_bytes();
        let place = broken.windows(2).position(|it| it == b"Hi").unwrap();
        broken[place] = 0xff;
        assert!(!alike.is(&broken), "no UTF-8");
    }

    #[test]
    fn a_key_is_no_string_that_may_differ() {
        for pair in [
            [r#"{"content":"x"}"#, r#"{"usage":"x"}"#],
            [r#"{"a":"x"}"#, r#"{"b" : "x"}"#],
            [r#"{"a":1}"#, r#"{"a":2}"#],
            [r#"{"a":"x"}"#, r#"{"a":null}"#],
            [r#"{"a":"x"}"#, r#"["a","x"]"#],
            [r#"{"a":"x"}"#, r#"{"a":"y","b":1}"#],
        ] {
            let mut alike = known(&pair);
            assert!(!alike.is(pair[1].as_bytes()), "{pair:?}");
        }
    }

    #[test]
    fn who_never_is_alike_is_not_compared_for_ever() {
        let mut alike = Alike::default();
        for number in 0..20 {
            let event = format!(r#"{{"n":{number}}}"#);
            assert!(!alike.is(event.as_bytes()));
            alike.know(event.as_bytes());
        }
        assert_eq!(alike.known, br#"{"n":7}"#);
    }
}
