//! The chunked coding, read byte by byte: where the input is cut makes no difference.

use std::ops::Range;

/// Bytes of chunk extensions and trailers that one message may have; both are dropped.
const ASIDE: u32 = 16 << 10;
/// Hex digits of a chunk's size: what a 64-bit number has.
const DIGITS: u8 = 16;

/// A message that is not chunked as RFC 9112 section 7.1 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the chunked coding is broken: {0}")]
pub(crate) struct BadChunk(&'static str);

/// Where a reader stands in a chunked message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunked {
    state: State,
    left: u64,
    digits: u8,
    aside: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Size,
    /// White space behind the size, which only an extension may follow.
    SizeGap,
    Extension,
    Quoted,
    Escaped,
    SizeEnd,
    Data,
    DataEnd,
    DataEnded,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerEnd,
    LastEnd,
    Done,
}

/// What one piece of input held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decoded {
    /// Where the content now stands in the piece.
    pub(crate) content: Range<usize>,
    /// How much of the piece belonged to the message.
    pub(crate) used: usize,
}

impl Default for Chunked {
    fn default() -> Self {
        Self {
            state: State::Size,
            left: 0,
            digits: 0,
            aside: 0,
        }
    }
}

impl Chunked {
    /// Whether the last chunk and its trailers went by.
    pub(crate) fn is_done(self) -> bool {
        self.state == State::Done
    }

    /// Reads on in `piece`, and moves the content in it together.
    pub(crate) fn decode(&mut self, piece: &mut [u8]) -> Result<Decoded, BadChunk> {
        let (mut at, mut content) = (0, 0..0);
        while self.state != State::Done {
            if self.state == State::Data {
                let here = piece.len() - at;
                let length = usize::try_from(self.left).unwrap_or(here).min(here);
                if length == 0 {
                    break;
                }
                if content.is_empty() {
                    content = at..at + length;
                } else {
                    piece.copy_within(at..at + length, content.end);
                    content.end += length;
                }
                at += length;
                self.left -= u64::try_from(length).unwrap_or(0);
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            let Some(byte) = piece.get(at) else { break };
            self.state = self.step(*byte)?;
            at += 1;
        }
        Ok(Decoded { content, used: at })
    }

    /// What follows on a byte that is no content.
    fn step(&mut self, byte: u8) -> Result<State, BadChunk> {
        let next = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => return self.digit(byte),
            (State::Size | State::Extension, b'\r') if self.digits > 0 => State::SizeEnd,
            (State::Size, b' ' | b'\t') if self.digits > 0 => State::SizeGap,
            (State::SizeGap, b' ' | b'\t') => State::SizeGap,
            (State::Size | State::SizeGap, b';') if self.digits > 0 => State::Extension,
            (State::Size | State::SizeGap, _) => return Err(BadChunk("a size is no hex number")),
            (State::Extension, b'"') => State::Quoted,
            (State::Quoted, b'"') => State::Extension,
            (State::Quoted, b'\\') => State::Escaped,
            (State::Escaped, _) if is_text(byte) => State::Quoted,
            (State::Extension | State::Quoted, _) if is_text(byte) => self.state,
            (State::Extension | State::Quoted | State::Escaped, _) => {
                return Err(BadChunk("an extension has a control character"));
            }
            (State::SizeEnd, b'\n') => {
                self.digits = 0;
                if self.left == 0 {
                    State::TrailerStart
                } else {
                    State::Data
                }
            }
            (State::DataEnd, b'\r') => State::DataEnded,
            (State::DataEnded, b'\n') => State::Size,
            (State::DataEnd | State::DataEnded, _) => {
                return Err(BadChunk("a chunk is longer than its size"));
            }
            (State::TrailerStart, b'\r') => State::LastEnd,
            (State::TrailerStart | State::TrailerName, _) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerValue, b'\r') => State::TrailerEnd,
            (State::TrailerValue, _) if is_text(byte) => State::TrailerValue,
            (State::TrailerEnd, b'\n') => State::TrailerStart,
            (State::LastEnd, b'\n') => State::Done,
            _ => return Err(BadChunk("a line of it is malformed")),
        };
        let is_aside = matches!(
            next,
            State::SizeGap | State::Extension | State::Quoted | State::Escaped
        ) || matches!(next, State::TrailerName | State::TrailerValue);
        self.aside += u32::from(is_aside);
        if self.aside > ASIDE {
            return Err(BadChunk("it has too many extensions or trailers"));
        }
        Ok(next)
    }

    fn digit(&mut self, byte: u8) -> Result<State, BadChunk> {
        let value = char::from(byte).to_digit(16).unwrap_or(0);
        self.digits += 1;
        if self.digits > DIGITS {
            return Err(BadChunk("a size is too large"));
        }
        if self.digits == 1 {
            self.left = 0;
        }
        // Sixteen digits fit; a chunk of more than half of all addresses is an attack.
        self.left = (self.left << 4) | u64::from(value);
        if self.left > u64::MAX >> 1 {
            return Err(BadChunk("a size is too large"));
        }
        Ok(State::Size)
    }
}

/// What may stand in a field's value: visible characters, space, tab, and bytes beyond ASCII.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// What names and methods are made of.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Content, and what follows the message.
    type Read = (Vec<u8>, Vec<u8>);

    /// Reads a message that is cut at `cut`; nothing while it is not whole.
    fn read(input: &[u8], cut: usize) -> Result<Option<Read>, BadChunk> {
        let (mut reader, mut content, mut rest) = (Chunked::default(), Vec::new(), Vec::new());
        for piece in [&input[..cut], &input[cut..]] {
            let mut piece = piece.to_vec();
            let decoded = reader.decode(&mut piece)?;
            content.extend_from_slice(&piece[decoded.content]);
            rest.extend_from_slice(&piece[decoded.used..]);
        }
        Ok(reader.is_done().then_some((content, rest)))
    }

    #[test]
    fn whole_messages_are_read_wherever_they_are_cut() {
        for (input, content, rest) in [
            ("0\r\n\r\n", "", ""),
            ("5\r\nhello\r\n0\r\n\r\nGET", "hello", "GET"),
            ("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", "hello world", ""),
            ("00a\r\n0123456789\r\n000\r\n\r\n", "0123456789", ""),
            ("2;a=b;c=\"d;\\\"e\"\r\nok\r\n0\r\n\r\n", "ok", ""),
            ("2 ;a\r\nok\r\n0;z\r\n\r\n", "ok", ""),
            ("2\r\nok\r\n0\r\nX-A: b\r\ny:\r\n\r\n!", "ok", "!"),
            ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", ""),
        ] {
            for cut in 0..=input.len() {
                assert_eq!(
                    read(input.as_bytes(), cut),
                    Ok(Some((content.into(), rest.into()))),
                    "{input:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn half_messages_wait() {
        let whole = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length], length / 2), Ok(None), "{length}");
        }
    }

    #[test]
    fn broken_messages_are_refused_wherever_they_are_cut() {
        let long = format!("1;{}\r\nx\r\n0\r\n\r\n", "a".repeat(20_000));
        let trailers = format!("0\r\n{}\r\n", "a: b\r\n".repeat(8_000));
        for input in [
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+5\r\nhello\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n0\r\n\r\n",
            ";a\r\n",
            "5\nhello\r\n",
            "5\rhello\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello!\r\n",
            "5\r\nhello\n0\r\n",
            "5;\0\r\nhello\r\n",
            "5;a=b\nhello\r\n",
            "5;a=\"\r\nhello\r\n",
            "5;a=\"\\\r\nhello\r\n",
            "11111111111111111\r\n",
            "ffffffffffffffff\r\n",
            "8000000000000000\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\n a: b\r\n\r\n",
            "0\r\na b: c\r\n\r\n",
            "0\r\na\r\n\r\n",
            "0\r\na: b\n\r\n",
            "0\r\na: \0\r\n\r\n",
            "0\r\na: b\r\r\n",
            "0\n\n",
            &long,
            &trailers,
        ] {
            let step = 1 + input.len() / 100;
            for cut in (0..=input.len()).step_by(step) {
                let got = read(input.as_bytes(), cut);
                let start: String = input.chars().take(20).collect();
                assert!(got.is_err(), "{start:?} cut at {cut}: {got:?}");
            }
        }
    }
}
