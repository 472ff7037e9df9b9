//! Heads of HTTP/1.1 messages, read as RFC 9112 says and no wider: what is ambiguous is refused, because
//! whoever stands before or behind us may read it the other way.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version};
use memchr::memchr;

use super::chunked::is_token;

/// The longest method taken; the longest registered one has 17 characters.
const METHOD: usize = 32;

/// A head that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadHead {
    #[error("the first line is not `METHOD target HTTP/1.1`")]
    FirstLine,
    #[error("the method is too long")]
    Method,
    #[error("this version of HTTP is not spoken here; use HTTP/1.1 or HTTP/2")]
    Version,
    #[error("the request's target is too long")]
    LongTarget,
    #[error("the head is longer than {0} bytes, or has more than {1} fields")]
    TooLarge(usize, usize),
    #[error("a line of the head is not `name: value` with CR LF behind it")]
    Field,
    #[error("{0}")]
    Framing(&'static str),
    /// A transfer coding that is none of those that RFC 9112 asks for.
    #[error("{0}")]
    Coding(&'static str),
}

/// Bounds of a head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
    /// Of the first line.
    pub(crate) line: usize,
}

/// Looks for the end of a head in bytes that come in pieces, each of which is looked at once.
#[derive(Debug, Default)]
pub(crate) struct Search {
    start: usize,
    line: usize,
    at: usize,
    lines: usize,
}

impl Search {
    /// Where the head stands in `bytes`, once all of it is there. Lines that end without CR, and heads
    /// beyond their bounds, are refused as soon as that is seen.
    pub(crate) fn find(
        &mut self,
        bytes: &[u8],
        bounds: Bounds,
    ) -> Result<Option<Range<usize>>, BadHead> {
        let too_large = BadHead::TooLarge(bounds.bytes, bounds.fields);
        loop {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let Some(found) = memchr(b'\n', rest) else {
                self.at = bytes.len();
                if self.lines == 0 && self.at - self.line > bounds.line {
                    return Err(BadHead::LongTarget);
                }
                if self.at - self.start > bounds.bytes {
                    return Err(too_large);
                }
                return Ok(None);
            };
            let end = self.at + found;
            let line = bytes.get(self.line..end).unwrap_or_default();
            let Some(b'\r') = line.last() else {
                return Err(self.bad_line());
            };
            self.at = end + 1;
            if line.len() > 1 {
                if self.lines == 0 && line.len() > bounds.line {
                    return Err(BadHead::LongTarget);
                }
                self.lines += 1;
            } else if self.lines > 0 {
                if self.at - self.start > bounds.bytes {
                    return Err(too_large);
                }
                return Ok(Some(self.start..self.at));
            } else if self.start > 0 {
                // One empty line before a request is forgiven, as the standard asks.
                return Err(BadHead::FirstLine);
            } else {
                self.start = self.at;
            }
            self.line = self.at;
            if self.lines > bounds.fields + 1 || self.at - self.start > bounds.bytes {
                return Err(too_large);
            }
        }
    }

    fn bad_line(&self) -> BadHead {
        if self.lines == 0 {
            BadHead::FirstLine
        } else {
            BadHead::Field
        }
    }
}

/// A request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// An answer's head.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// Takes a head that [`Search`] found off the front of `inbox`.
pub(crate) fn cut(inbox: &mut BytesMut, found: Range<usize>) -> Bytes {
    let mut head = inbox.split_to(found.end);
    let _blank = head.split_to(found.start);
    head.freeze()
}

/// Reads a request's head.
pub(crate) fn request(head: &Bytes) -> Result<RequestHead, BadHead> {
    let end = memchr(b'\r', head).ok_or(BadHead::FirstLine)?;
    let line = head.get(..end).unwrap_or_default();
    let first = memchr(b' ', line).ok_or(BadHead::FirstLine)?;
    let rest = line.get(first + 1..).unwrap_or_default();
    let second = first + 1 + memchr(b' ', rest).ok_or(BadHead::FirstLine)?;
    let method = line.get(..first).unwrap_or_default();
    if method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(BadHead::FirstLine);
    }
    if method.len() > METHOD {
        return Err(BadHead::Method);
    }
    let method = Method::from_bytes(method).map_err(|_| BadHead::FirstLine)?;
    let version = version(line.get(second + 1..).unwrap_or_default())?;
    let uri = target(head.slice(first + 1..second), &method)?;
    let headers = fields(head, end + 2)?;
    Ok(RequestHead {
        method,
        uri,
        version,
        headers,
    })
}

/// Reads an answer's head.
pub(crate) fn response(head: &Bytes) -> Result<ResponseHead, BadHead> {
    let end = memchr(b'\r', head).ok_or(BadHead::FirstLine)?;
    let line = head.get(..end).unwrap_or_default();
    let version = version(line.get(..8).unwrap_or_default())?;
    let code = line.get(8..12).and_then(|it| it.strip_prefix(b" "));
    let reason = line.get(12..).unwrap_or_default();
    let status = code.and_then(|code| StatusCode::from_bytes(code).ok());
    let status = status.filter(|it| (100..600).contains(&it.as_u16()));
    let status = status.ok_or(BadHead::FirstLine)?;
    // The reason may be left out, with the space before it or without.
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !(reason.is_empty() || reason.starts_with(b" ")) || !reason.iter().all(is_text) {
        return Err(BadHead::FirstLine);
    }
    Ok(ResponseHead {
        status,
        version,
        headers: fields(head, end + 2)?,
    })
}

/// `HTTP/1.1` and `HTTP/1.0`. Minor versions beyond are read as the highest that is known.
fn version(text: &[u8]) -> Result<Version, BadHead> {
    match text {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            if *major == b'1' {
                Ok(Version::HTTP_11)
            } else {
                Err(BadHead::Version)
            }
        }
        _ => Err(BadHead::FirstLine),
    }
}

/// A target in origin form, in absolute form, `*` for OPTIONS, or a host and port for CONNECT.
fn target(text: Bytes, method: &Method) -> Result<Uri, BadHead> {
    if !text.iter().all(|byte| is_target(*byte)) {
        return Err(BadHead::FirstLine);
    }
    let is_absolute = || {
        let scheme = |name: &[u8]| {
            let start = text.get(..name.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        scheme(b"http://") || scheme(b"https://")
    };
    let is_formed = match text.first() {
        Some(b'/') => *method != Method::CONNECT,
        Some(b'*') => text.len() == 1 && *method == Method::OPTIONS,
        Some(_) => *method == Method::CONNECT || is_absolute(),
        None => false,
    };
    if !is_formed {
        return Err(BadHead::FirstLine);
    }
    Uri::from_maybe_shared(text).map_err(|_| BadHead::FirstLine)
}

/// The characters of RFC 3986; a fragment is never sent.
fn is_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\"#<>\\^`{|}".contains(&byte)
}

/// Reads the fields that begin at `at`, each a line, up to the empty one.
fn fields(head: &Bytes, mut at: usize) -> Result<HeaderMap, BadHead> {
    let mut headers = HeaderMap::with_capacity(12);
    loop {
        let rest = head.get(at..).unwrap_or_default();
        let end = at + memchr(b'\r', rest).ok_or(BadHead::Field)?;
        if head.get(end + 1) != Some(&b'\n') {
            return Err(BadHead::Field);
        }
        let line = head.get(at..end).unwrap_or_default();
        if line.is_empty() {
            return Ok(headers);
        }
        let colon = memchr(b':', line).ok_or(BadHead::Field)?;
        let name = line.get(..colon).unwrap_or_default();
        // White space in or behind a name, and lines that begin with it, fail here.
        let name = HeaderName::from_bytes(name).map_err(|_| BadHead::Field)?;
        let (mut from, mut to) = (at + colon + 1, end);
        let is_blank = |place: usize| matches!(head.get(place), Some(b' ' | b'\t'));
        while from < to && is_blank(from) {
            from += 1;
        }
        while from < to && is_blank(to - 1) {
            to -= 1;
        }
        let value = HeaderValue::from_maybe_shared(head.slice(from..to));
        headers.append(name, value.map_err(|_| BadHead::Field)?);
        at = end + 2;
    }
}

/// How long a message's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    Chunked,
    /// Nothing says: none in a request, all up to the end of the connection in an answer.
    Unsaid,
}

const CODING: &str =
    "Transfer-Encoding must be `chunked`, once; anything else can hide a second request";

/// Whether every transfer coding is `chunked`, however often, or none that could be meant.
fn codings_are_known(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TRANSFER_ENCODING).iter();
    let mut codings = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    codings.all(|coding| {
        let coding = coding.trim_ascii();
        let is_word = !coding.is_empty() && coding.iter().all(u8::is_ascii_alphanumeric);
        let known = ["chunked", "identity"];
        !is_word
            || known
                .iter()
                .any(|it| coding.eq_ignore_ascii_case(it.as_bytes()))
    })
}

/// Reads what the head says of the body's length. Two ways to read it are none.
pub(crate) fn framing(version: Version, headers: &HeaderMap) -> Result<Framing, BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Framing::Unsaid),
        (Some(_), Some(_)) => Err(BadHead::Framing(
            "Content-Length and Transfer-Encoding contradict each other; send one of them",
        )),
        (Some(length), None) => {
            let twice = lengths.next().is_some();
            let number = number(length.as_bytes()).filter(|_| !twice);
            number.map(Framing::Length).ok_or(BadHead::Framing(
                "Content-Length must be a number of bytes, and stand once",
            ))
        }
        (None, Some(coding)) => {
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !is_chunked || codings.next().is_some() {
                return Err(if codings_are_known(headers) {
                    BadHead::Framing(CODING)
                } else {
                    BadHead::Coding(CODING)
                });
            }
            if version != Version::HTTP_11 {
                return Err(BadHead::Framing("HTTP/1.0 has no Transfer-Encoding"));
            }
            Ok(Framing::Chunked)
        }
    }
}

/// A length in bytes: digits and nothing else, below what half of all addresses hold.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let number = text.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    });
    number.filter(|number| *number <= u64::MAX >> 1)
}

/// Whether `Connection` names `option`.
pub(crate) fn connection_says(headers: &HeaderMap, option: &str) -> bool {
    let values = headers.get_all(CONNECTION).iter();
    values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|it| it.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

#[cfg(test)]
mod tests;
