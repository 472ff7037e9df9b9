//! Server-sent events cut out of byte frames, wherever the frames were cut: inside an event, a
//! line ending or a character.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

/// Longest single event taken; a longer one is an upstream's fault, not a reason to grow.
pub const MAX_EVENT: usize = 4 << 20;

/// One event is longer than [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is longer than {MAX_EVENT} bytes")]
pub struct EventTooLong;

/// Splits a stream into events. An event that lies inside one frame is a slice of it; only one that
/// straddles frames is copied.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Bytes not yet given out; begins at the start of an event.
    pending: Bytes,
    /// How far `pending` has been searched, and where the line there began.
    searched: usize,
    line: usize,
    /// Lines of this stream end with a carriage return alone.
    is_bare: bool,
    /// The last line ended with a carriage return where the frame ended: a line feed at the head of the next one
    /// is its second half.
    is_half: bool,
}

impl Splitter {
    /// Adds the next frame. Take all events with [`Splitter::next_event`] before adding another.
    ///
    /// # Errors
    /// When the unfinished event is too long; the stream can not be followed any further.
    pub fn push(&mut self, frame: Bytes) -> Result<(), EventTooLong> {
        if self.is_half && !frame.is_empty() {
            self.is_half = false;
            let behind = usize::from(frame.starts_with(b"\n"));
            self.searched += behind;
            self.line += behind;
        }
        if self.pending.is_empty() {
            self.pending = frame;
        } else if self.pending.len() + frame.len() > MAX_EVENT {
            return Err(EventTooLong);
        } else {
            // Where nobody else holds what is there, the frame is put behind it in place.
            let pending = std::mem::take(&mut self.pending).try_into_mut();
            let mut joined = pending.unwrap_or_else(|shared| BytesMut::from(&*shared));
            joined.extend_from_slice(&frame);
            self.pending = joined.freeze();
        }
        Ok(())
    }

    /// The next whole event with its closing blank line, or `None` until more bytes come.
    pub fn next_event(&mut self) -> Option<Bytes> {
        loop {
            let rest = self.pending.get(self.searched..)?;
            let Some(found) = memchr2(b'\n', b'\r', rest) else {
                self.searched = self.pending.len();
                return None;
            };
            let end = self.searched + found;
            // Come back here if the line ending is cut in two.
            self.searched = end;
            let next = if self.pending.get(end) == Some(&b'\r') {
                match self.pending.get(end + 1) {
                    Some(b'\n') => end + 2,
                    Some(_) => {
                        self.is_bare = true;
                        end + 1
                    }
                    None if self.is_bare => {
                        self.is_half = true;
                        end + 1
                    }
                    // At the end of a frame it may be the first half of a line ending.
                    None => return None,
                }
            } else {
                end + 1
            };
            let blank = end == self.line;
            self.searched = next;
            self.line = next;
            if blank {
                (self.searched, self.line) = (0, 0);
                return Some(self.pending.split_to(next));
            }
        }
    }

    /// Bytes of an event that has not ended yet.
    pub fn rest(&mut self) -> Bytes {
        (self.searched, self.line) = (0, 0);
        self.is_half = false;
        std::mem::take(&mut self.pending)
    }

    /// Everything not yet given out, from the start of an event.
    pub fn pending(&self) -> Bytes {
        self.pending.clone()
    }
}

/// Adds an event to `out`, with its name where it has one.
pub(crate) fn write(out: &mut String, name: Option<&str>, data: &serde_json::Value) {
    use std::fmt::Write;
    // Writing to a String can not fail.
    let _written = match name {
        Some(name) => write!(out, "event: {name}\ndata: {data}\n\n"),
        None => write!(out, "data: {data}\n\n"),
    };
}

/// The value of an event's `data` lines, joined by line feeds, without the space behind the colon. An
/// empty one is none: by the specification such an event is never given out, and some servers keep a
/// line open by it.
pub fn data(event: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut lines = fields(event, b"data:");
    let first = lines.next()?;
    let data = match lines.next() {
        None => Cow::Borrowed(first),
        Some(second) => {
            let all = [first, second].into_iter().chain(lines);
            Cow::Owned(all.collect::<Vec<_>>().join(&b'\n'))
        }
    };
    Some(data).filter(|data| !data.is_empty())
}

/// The value of an event's `event` line.
pub fn name(event: &[u8]) -> Option<&[u8]> {
    fields(event, b"event:").next()
}

fn fields<'a>(event: &'a [u8], label: &'static [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = Some(event);
    let lines = std::iter::from_fn(move || {
        let text = rest?;
        let end = memchr2(b'\n', b'\r', text);
        let (line, behind) = text.split_at(end.unwrap_or(text.len()));
        rest = end.and_then(|_| behind.get(1..));
        Some(line)
    });
    lines.filter_map(move |line| {
        let value = line.strip_prefix(label)?;
        Some(value.strip_prefix(b" ").unwrap_or(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(frames: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut events = Vec::new();
        for frame in frames {
            splitter
                .push(Bytes::copy_from_slice(frame))
                .expect("short events");
            while let Some(event) = splitter.next_event() {
                events.push(event.to_vec());
            }
        }
        events.push(splitter.rest().to_vec());
        events
    }

    #[test]
    fn any_cut_gives_the_same_events() {
        let text = "event: a\ndata: {\"x\":\"ä🙂\"}\n\n: ping\r\n\r\ndata: 1\r\rdata: 2\n\nrest"
            .as_bytes();
        let whole = events(&[text]);
        assert_eq!(whole.len(), 5);
        assert_eq!(whole[4], b"rest");
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let cut_up = [&text[..cut], &text[cut..second], &text[second..]];
                assert_eq!(events(&cut_up), whole, "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn an_event_whose_lines_end_with_carriage_returns_is_given_out_as_it_comes() {
        let mut splitter = Splitter::default();
        for event in [&b"event: a\rdata: 1\r\r"[..], b"data: 2\r\r"] {
            splitter.push(Bytes::from_static(event)).expect("short");
            assert_eq!(splitter.next_event().as_deref(), Some(event));
            assert_eq!(splitter.next_event(), None);
        }
        assert_eq!(splitter.rest(), "");
    }

    #[test]
    fn line_endings_of_several_kinds_mean_the_same_wherever_they_are_cut() {
        let text = b"data: 1\rdata: 2\r\ndata: 3\r\n\r\ndata: 4\r\ndata: 5\n\n\r\ndata: 6\r\r\n";
        let told = |frames: &[&[u8]]| {
            let events = events(frames);
            let data = events.iter().filter_map(|event| data(event));
            data.map(Cow::into_owned).collect::<Vec<_>>()
        };
        let whole = told(&[text]);
        assert_eq!(whole, [&b"1\n2\n3"[..], b"4\n5", b"6"]);
        for cut in 0..=text.len() {
            for second in cut..=text.len() {
                let cut_up = [&text[..cut], &text[cut..second], &text[second..]];
                assert_eq!(told(&cut_up), whole, "cut at {cut} and {second}");
                assert_eq!(events(&cut_up).concat(), text, "nothing is lost");
            }
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut splitter = Splitter::default();
        let frame = Bytes::from(vec![b'x'; MAX_EVENT / 2 + 1]);
        assert_eq!(splitter.push(frame.clone()), Ok(()));
        assert_eq!(splitter.next_event(), None);
        assert_eq!(splitter.push(frame), Err(EventTooLong));
    }

    #[test]
    fn fields_are_found_whatever_the_spacing() {
        let data = |event: &'static [u8]| data(event).map(Cow::into_owned);
        assert_eq!(data(b"event: x\ndata:1\n\n"), Some(b"1".to_vec()));
        assert_eq!(data(b"data: 1\r\n\r\n"), Some(b"1".to_vec()));
        let lines = b"data: {\r\ndata:  \"a\":\r\n: note\r\ndata:1}\r\n\r\n";
        assert_eq!(data(lines), Some(b"{\n \"a\":\n1}".to_vec()));
        assert_eq!(name(b"event: x\ndata:1\n\n"), Some(&b"x"[..]));
        assert_eq!(data(b": ping\n\n"), None);
        assert_eq!(data(b"data:\n\n"), None);
        assert_eq!(data(b"data: \n\n"), None);
    }
}
