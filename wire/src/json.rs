//! A strict, one-pass JSON scanner (RFC 8259) that builds no values: it yields where things stand.
//!
//! Forwarding needs byte ranges of the original text, and large bodies must not be turned into
//! trees; the `scan` bench compares it with the libraries that do. Whatever the scanner accepts is
//! valid JSON in valid UTF-8, no deeper than [`MAX_DEPTH`].

use std::borrow::Cow;
use std::ops::Range;

use serde::de::DeserializeOwned;
use wide::u8x16;

/// Deepest nesting taken: tool schemas of real clients stay below 30, and 128 bounds the stack.
pub const MAX_DEPTH: u32 = 128;

/// Why the text is not taken; offsets are bytes from the start of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    #[error("expected {0} at byte {1}")]
    Expected(&'static str, usize),
    #[error("the text ends in the middle of a value")]
    Ended,
    #[error("unescaped control character at byte {0}")]
    Control(usize),
    #[error("bad escape at byte {0}")]
    Escape(usize),
    #[error("bad number at byte {0}")]
    Number(usize),
    #[error("nested deeper than {MAX_DEPTH} levels at byte {0}")]
    Depth(usize),
    #[error("text behind the value at byte {0}")]
    Trailing(usize),
    #[error("invalid UTF-8 at byte {0}")]
    Utf8(usize),
}

/// What kind of value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// A string as it stands in the text: without its quotes, still escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Str<'a> {
    /// The escaped text between the quotes.
    pub raw: &'a str,
    /// Where `raw` stands.
    pub at: Range<usize>,
    /// Whether there is any escape in it.
    pub escaped: bool,
}

impl<'a> Str<'a> {
    /// The string without its escapes; lone surrogates become U+FFFD.
    pub fn text(&self) -> Cow<'a, str> {
        if !self.escaped {
            return Cow::Borrowed(self.raw);
        }
        let mut text = String::with_capacity(self.raw.len());
        let mut chars = self.raw.chars();
        while let Some(c) = chars.next() {
            text.push(if c == '\\' {
                escaped_char(&mut chars)
            } else {
                c
            });
        }
        Cow::Owned(text)
    }

    /// Whether the unescaped string equals `word`.
    pub fn is(&self, word: &str) -> bool {
        if self.escaped {
            self.text() == word
        } else {
            self.raw == word
        }
    }
}

/// Writes the escaped text `raw` without its escapes to `room`, as far as it fits on a character
/// boundary: how many bytes that is, and whether it is all of it.
pub fn unescape_into(raw: &[u8], room: &mut [u8]) -> (usize, bool) {
    // No character needs more than twelve bytes: a long text is not looked at beyond what can fit.
    let most = room.len().saturating_mul(12).saturating_add(12);
    let piece = raw.get(..most).unwrap_or(raw);
    let mut rest = match std::str::from_utf8(piece) {
        Ok(text) => text,
        Err(error) => piece
            .get(..error.valid_up_to())
            .and_then(|valid| std::str::from_utf8(valid).ok())
            .unwrap_or_default(),
    };
    let mut filled = 0;
    loop {
        let run = memchr::memchr(b'\\', rest.as_bytes()).unwrap_or(rest.len());
        let left = room.len() - filled;
        let fits = rest.floor_char_boundary(run.min(left));
        let (plain, behind) = rest.split_at(fits);
        if let Some(place) = room.get_mut(filled..filled + fits) {
            place.copy_from_slice(plain.as_bytes());
        }
        filled += fits;
        if fits < run {
            return (filled, false);
        }
        let mut chars = behind.chars();
        if chars.next().is_none() {
            return (filled, piece.len() == raw.len());
        }
        let c = escaped_char(&mut chars);
        let Some(place) = room.get_mut(filled..filled + c.len_utf8()) else {
            return (filled, false);
        };
        filled += c.encode_utf8(place).len();
        rest = chars.as_str();
    }
}

/// The escaped text `raw` without its escapes.
pub fn unescaped(raw: &str) -> Cow<'_, str> {
    let escaped = raw.contains('\\');
    let at = 0..raw.len();
    Str { raw, at, escaped }.text()
}

/// Reads what stands behind a backslash; the scanner has checked the grammar before.
fn escaped_char(chars: &mut std::str::Chars<'_>) -> char {
    match chars.next() {
        Some('n') => '\n',
        Some('t') => '\t',
        Some('r') => '\r',
        Some('b') => '\u{8}',
        Some('f') => '\u{c}',
        Some('u') => unicode_escape(chars),
        Some(c) => c,
        None => char::REPLACEMENT_CHARACTER,
    }
}

fn unicode_escape(chars: &mut std::str::Chars<'_>) -> char {
    let unit = four_hex(chars);
    if !(0xD800..0xDC00).contains(&unit) {
        return char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER);
    }
    let mut ahead = chars.clone();
    let low = match (ahead.next(), ahead.next()) {
        (Some('\\'), Some('u')) => four_hex(&mut ahead),
        _ => 0,
    };
    if !(0xDC00..0xE000).contains(&low) {
        return char::REPLACEMENT_CHARACTER;
    }
    *chars = ahead;
    char::from_u32(0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
        .unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn four_hex(chars: &mut std::str::Chars<'_>) -> u32 {
    chars
        .by_ref()
        .take(4)
        .fold(0, |unit, c| (unit << 4) | c.to_digit(16).unwrap_or(0))
}

/// The scanner: a text and a place in it.
#[derive(Debug, Clone)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// `body` as text. By vectors: the library of the language looks at each byte that is not ASCII.
fn text(body: &[u8]) -> Result<&str, JsonError> {
    simdutf8::basic::from_utf8(body).or_else(|_| {
        // Where it is wrong is for the caller to know, and worth a second look.
        std::str::from_utf8(body).map_err(|error| JsonError::Utf8(error.valid_up_to()))
    })
}

impl<'a> Scanner<'a> {
    /// A scanner at the start of `body`.
    ///
    /// # Errors
    /// When the body is not UTF-8.
    pub fn new(body: &'a [u8]) -> Result<Self, JsonError> {
        let text = text(body)?;
        Ok(Self {
            text,
            at: 0,
            depth: 0,
        })
    }

    /// The byte offset of the scanner.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The text at `at`, where a value has been passed over.
    pub(crate) fn slice(&self, at: Range<usize>) -> &'a str {
        self.text.get(at).unwrap_or_default()
    }

    /// Where the key begins, quote included, whose value comes next. Its name has no quote in it.
    pub(crate) fn key_at(&self) -> usize {
        let before = self.text.as_bytes().get(..self.at).unwrap_or_default();
        let quote = |end: usize| memchr::memrchr(b'"', before.get(..end).unwrap_or_default());
        quote(self.at).and_then(quote).unwrap_or(self.at)
    }

    /// The kind of the next value; white space before it is passed over.
    pub fn peek(&mut self) -> Result<Kind, JsonError> {
        self.space();
        match self.byte() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(_) => Err(JsonError::Expected("a value", self.at)),
            None => Err(JsonError::Ended),
        }
    }

    /// Walks an object: `field` gets each key and the scanner before its value, and may take the
    /// value; one that is not taken is checked and passed over.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut field: impl FnMut(&mut Self, &Str<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'{', "an object")?;
        if self.took(b'}') {
            self.close();
            return Ok(());
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.expect(b':', "`:`")?;
            self.value(|scanner| field(scanner, &key))?;
            self.space();
            if self.took(b'}') {
                self.close();
                return Ok(());
            }
            self.expect(b',', "`,` or `}`")?;
        }
    }

    /// Walks an array; `item` is called before each item, as in [`Scanner::object`].
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open(b'[', "an array")?;
        if self.took(b']') {
            self.close();
            return Ok(());
        }
        loop {
            self.value(&mut item)?;
            self.space();
            if self.took(b']') {
                self.close();
                return Ok(());
            }
            self.expect(b',', "`,` or `]`")?;
        }
    }

    /// Checks and passes over the next value, whatever it is; returns where it stands.
    pub fn skip(&mut self) -> Result<Range<usize>, JsonError> {
        let kind = self.peek()?;
        let start = self.at;
        match kind {
            Kind::Object => self.object(|_, _| Ok::<(), JsonError>(()))?,
            Kind::Array => self.array(|_| Ok::<(), JsonError>(()))?,
            Kind::String => self.string().map(|_| ())?,
            Kind::Number => self.number().map(|_| ())?,
            Kind::Bool => self.boolean().map(|_| ())?,
            Kind::Null => self.word("null")?,
        }
        Ok(start..self.at)
    }

    /// Takes a string.
    pub fn string(&mut self) -> Result<Str<'a>, JsonError> {
        self.space();
        self.expect(b'"', "a string")?;
        let start = self.at;
        let mut escaped = false;
        // Most strings are short, and the others long.
        let mut lanes = 1;
        loop {
            let begin = self.at;
            let rest = self.text.as_bytes().get(begin..).unwrap_or_default();
            let (mut marks, width) = marks(rest, lanes);
            if width == 0 {
                return Err(JsonError::Ended);
            }
            lanes = LANES;
            while marks != 0 {
                let mark = usize::try_from(marks.trailing_zeros()).unwrap_or(width);
                self.at = begin + mark;
                match rest.get(mark) {
                    Some(b'"') => {
                        let at = start..self.at;
                        self.at += 1;
                        let raw = self.text.get(at.clone()).ok_or(JsonError::Ended)?;
                        return Ok(Str { raw, at, escaped });
                    }
                    Some(b'\\') => self.at += 1,
                    _ => return Err(JsonError::Control(self.at)),
                }
                escaped = true;
                self.escape()?;
                let passed = u32::try_from(self.at - begin).unwrap_or(u32::MAX);
                marks &= u64::MAX.checked_shl(passed).unwrap_or(0);
            }
            self.at = self.at.max(begin + width);
        }
    }

    /// Passes over `text` if it stands here as it is.
    pub(crate) fn passes(&mut self, text: &[u8]) -> bool {
        let rest = self.text.as_bytes().get(self.at..);
        let is_here = rest.is_some_and(|rest| rest.starts_with(text));
        self.at += if is_here { text.len() } else { 0 };
        is_here
    }

    /// Takes a number, as written.
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        self.space();
        let start = self.at;
        self.took(b'-');
        if !self.took(b'0') && self.digits() == 0 {
            return Err(JsonError::Number(start));
        }
        if self.took(b'.') && self.digits() == 0 {
            return Err(JsonError::Number(start));
        }
        if self.took(b'e') || self.took(b'E') {
            let _sign = self.took(b'+') || self.took(b'-');
            if self.digits() == 0 {
                return Err(JsonError::Number(start));
            }
        }
        self.text.get(start..self.at).ok_or(JsonError::Ended)
    }

    /// Takes `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool, JsonError> {
        self.space();
        if self.byte() == Some(b't') {
            self.word("true").map(|()| true)
        } else {
            self.word("false").map(|()| false)
        }
    }

    /// Checks that nothing but white space is left.
    pub fn end(&mut self) -> Result<(), JsonError> {
        self.space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(JsonError::Trailing(self.at))
        }
    }

    fn value<E: From<JsonError>>(
        &mut self,
        take: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.space();
        let before = self.at;
        take(self)?;
        if self.at == before {
            self.skip()?;
        }
        Ok(())
    }

    fn open(&mut self, bracket: u8, what: &'static str) -> Result<(), JsonError> {
        self.space();
        self.expect(bracket, what)?;
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(JsonError::Depth(self.at));
        }
        self.space();
        Ok(())
    }

    fn close(&mut self) {
        self.depth -= 1;
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let at = self.at;
        match self.byte().ok_or(JsonError::Ended)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 1,
            b'u' => {
                let hex = self
                    .text
                    .as_bytes()
                    .get(at + 1..at + 5)
                    .ok_or(JsonError::Ended)?;
                if !hex.iter().all(u8::is_ascii_hexdigit) {
                    return Err(JsonError::Escape(at));
                }
                self.at += 5;
            }
            _ => return Err(JsonError::Escape(at)),
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let count = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += count;
        count
    }

    fn word(&mut self, word: &'static str) -> Result<(), JsonError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if !rest.starts_with(word) {
            return Err(JsonError::Expected(word, self.at));
        }
        self.at += word.len();
        Ok(())
    }

    fn space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn took(&mut self, byte: u8) -> bool {
        let here = self.byte() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), JsonError> {
        if self.took(byte) {
            return Ok(());
        }
        Err(if self.byte().is_none() {
            JsonError::Ended
        } else {
            JsonError::Expected(what, self.at)
        })
    }
}

/// Bytes that are looked at with one instruction, and how often that is done before anything is asked of them.
const LANE: usize = 16;
const LANES: usize = 4;

/// Where the plain text of a string ends within the first bytes of `rest`, the lowest bit for the first of them: at
/// quotes, backslashes and control characters. Also says how many bytes were looked at: as many as `lanes` hold, or
/// as few as there are.
fn marks(rest: &[u8], lanes: usize) -> (u64, usize) {
    let (blocks, tail) = rest.as_chunks::<LANE>();
    match blocks {
        [a, b, c, d, ..] if lanes == LANES => {
            let all = lane(a) | lane(b) << LANE | lane(c) << (2 * LANE) | lane(d) << (3 * LANE);
            (all, LANES * LANE)
        }
        [first, ..] => (lane(first), LANE),
        [] => {
            let mut padded = [b' '; LANE];
            for (to, from) in padded.iter_mut().zip(tail) {
                *to = *from;
            }
            (lane(&padded), tail.len())
        }
    }
}

fn lane(bytes: &[u8; LANE]) -> u64 {
    let bytes = u8x16::new(*bytes);
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    let ends = bytes.simd_eq(u8x16::splat(b'"')) | bytes.simd_eq(u8x16::splat(b'\\'));
    u64::from((ends | control).to_bitmask())
}

/// Reads `text` whole. The scanner lets escapes of half a character pass, because clients and servers
/// that cut texts by UTF-16 units send them; here each becomes U+FFFD instead of an error.
pub(crate) fn read<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(text).or_else(|error| match mended(text) {
        Some(mended) => serde_json::from_slice(&mended),
        None => Err(error),
    })
}

/// The text with U+FFFD for each escape of half a character; `None` where there is none.
fn mended(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut found = false;
    while let Some(at) = memchr::memchr(b'\\', rest) {
        let (before, escape) = rest.split_at(at);
        out.extend_from_slice(before);
        let unit = utf16_unit(escape);
        let next = escape.get(6..).and_then(utf16_unit);
        let (length, is_half) = match (unit, next) {
            (Some(0xD800..0xDC00), Some(0xDC00..0xE000)) => (12, false),
            (Some(0xD800..0xE000), _) => (6, true),
            (Some(_), _) => (6, false),
            (None, _) => (2, false),
        };
        let (escape, behind) = escape.split_at_checked(length)?;
        out.extend_from_slice(if is_half { b"\\ufffd" } else { escape });
        found |= is_half;
        rest = behind;
    }
    out.extend_from_slice(rest);
    found.then_some(out)
}

/// The number in the escape `\uXXXX` that stands at the head of `text`.
pub(crate) fn utf16_unit(text: &[u8]) -> Option<u32> {
    let hex = text.strip_prefix(b"\\u")?.get(..4)?;
    u32::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok()
}

/// Writes `text` as a JSON string, quotes included.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                out.push_str("\\u00");
                let hex = |n: u32| char::from_digit(n, 16).unwrap_or('0');
                out.extend([hex(u32::from(c) >> 4), hex(u32::from(c) & 15)]);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
