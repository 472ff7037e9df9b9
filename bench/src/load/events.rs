//! Reads what matters from an answer's body: pieces of text and when they were sent, the end, errors,
//! and usage. It looks for a few fields and builds nothing: the load must not be the slow part.

use memchr::{memchr, memmem};

use super::Dialect;

/// Longest line of a stream kept while it is not whole, and longest part of a plain body looked at.
const LONGEST: usize = 256 << 10;
/// What the fixed endpoint writes before the time of sending, in 16 hexadecimal digits.
pub(crate) const STAMP: &[u8] = b"~t";

/// What a line of a stream says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A piece of the answer, and when the endpoint sent it, if it tells.
    Piece(Option<u64>),
    /// Output tokens, so far or in all.
    Usage(u64),
    /// An error in the protocol's own words.
    Error,
    /// The last event.
    End,
}

/// A stream of events that is being read.
#[derive(Debug, Default)]
pub(crate) struct Events {
    begun: Vec<u8>,
}

impl Events {
    pub(crate) fn reset(&mut self) {
        self.begun.clear();
    }

    /// Reads on and tells `said` what the lines that are whole say.
    pub(crate) fn read(&mut self, bytes: &[u8], dialect: Dialect, said: &mut impl FnMut(Said)) {
        let mut rest = bytes;
        while let Some(end) = memchr(b'\n', rest) {
            let line = &rest[..end];
            rest = &rest[end + 1..];
            if self.begun.is_empty() {
                read_line(line, dialect, said);
            } else {
                self.begun.extend_from_slice(line);
                read_line(&self.begun, dialect, said);
                self.begun.clear();
            }
        }
        if self.begun.len() < LONGEST {
            self.begun.extend_from_slice(rest);
        }
    }
}

fn read_line(line: &[u8], dialect: Dialect, said: &mut impl FnMut(Said)) {
    let Some(data) = line.strip_prefix(b"data:") else {
        if let Some(name) = line.strip_prefix(b"event:")
            && name.trim_ascii() == b"error"
        {
            said(Said::Error);
        }
        return;
    };
    let data = data.trim_ascii();
    match dialect {
        Dialect::Chat if data == b"[DONE]" => said(Said::End),
        Dialect::Chat => {
            if let Some(text) = text_of(data, b"\"content\":") {
                return said(Said::Piece(stamp(text)));
            }
            if is_error(data) {
                return said(Said::Error);
            }
            let other = [&b"\"reasoning_content\":"[..], b"\"arguments\":"];
            if other.iter().any(|field| text_of(data, field).is_some()) {
                said(Said::Piece(None));
            } else if let Some(tokens) = number(data, b"\"completion_tokens\":") {
                said(Said::Usage(tokens));
            }
        }
        Dialect::Messages => {
            if memmem::find(data, b"content_block_delta").is_some() {
                let text = text_of(data, b"\"text\":");
                said(Said::Piece(text.and_then(stamp)));
            } else if memmem::find(data, b"\"message_stop\"").is_some() {
                said(Said::End);
            } else if let Some(tokens) = number(data, b"\"output_tokens\":") {
                said(Said::Usage(tokens));
            }
            // Errors carry their name on the line before.
        }
    }
}

/// What a body that is no stream says; nothing where it is an answer without usage.
pub(crate) fn read_whole(body: &[u8], dialect: Dialect) -> Option<Said> {
    let field: &[u8] = match dialect {
        Dialect::Chat => b"\"completion_tokens\":",
        Dialect::Messages => b"\"output_tokens\":",
    };
    if is_error(body) {
        return Some(Said::Error);
    }
    number(body, field).map(Said::Usage)
}

/// Keeps what is looked at of a body that is no stream.
pub(crate) fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = LONGEST.saturating_sub(kept.len()).min(bytes.len());
    kept.extend_from_slice(&bytes[..room]);
}

/// An object whose first field says that it is an error.
fn is_error(data: &[u8]) -> bool {
    let Some(inside) = data.trim_ascii_start().strip_prefix(b"{") else {
        return false;
    };
    let inside = inside.trim_ascii_start();
    inside.starts_with(b"\"error\":{")
        || inside.starts_with(b"\"error\": {")
        || inside.starts_with(b"\"type\":\"error\"")
        || inside.starts_with(b"\"type\": \"error\"")
}

/// The text that a field begins, without its opening quote, where it is not empty.
fn text_of<'a>(data: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let at = memmem::find(data, field)? + field.len();
    let text = data[at..].trim_ascii_start().strip_prefix(b"\"")?;
    (text.first() != Some(&b'"')).then_some(text)
}

fn stamp(text: &[u8]) -> Option<u64> {
    let digits = text.strip_prefix(STAMP)?.get(..16)?;
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// The whole number behind the last of the fields of this name.
fn number(data: &[u8], field: &[u8]) -> Option<u64> {
    let at = memmem::rfind(data, field)? + field.len();
    let rest = data[at..].trim_ascii_start();
    let end = rest.iter().position(|byte| !byte.is_ascii_digit());
    let digits = &rest[..end.unwrap_or(rest.len())];
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
        data: {\"choices\":[{\"delta\":{\"content\":\"~t00000000000000ff x\"}}]}\n\n\
        data: {\"choices\": [{\"delta\": {\"content\": \"\\\"error\\\": y\"}}]}\r\n\r\n\
        : a comment\n\n\
        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":17}}\n\n\
        data: [DONE]\n\n";
    const MESSAGES: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"output_tokens\":1}}}\n\n\
        event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"~t0000000000000010\"}}\n\n\
        event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":9}}\n\n\
        event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

    fn read(text: &str, dialect: Dialect, size: usize) -> Vec<Said> {
        let (mut events, mut said) = (Events::default(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            events.read(piece, dialect, &mut |it| said.push(it));
        }
        said
    }

    #[test]
    fn pieces_usage_and_end_are_found_however_the_stream_is_cut() {
        let chat = [
            Said::Piece(Some(255)),
            Said::Piece(None),
            Said::Usage(17),
            Said::End,
        ];
        let messages = [
            Said::Usage(1),
            Said::Piece(Some(16)),
            Said::Usage(9),
            Said::End,
        ];
        for size in 1..CHAT.len() {
            assert_eq!(read(CHAT, Dialect::Chat, size), chat, "{size}");
            assert_eq!(read(MESSAGES, Dialect::Messages, size), messages, "{size}");
        }
    }

    #[test]
    fn errors_in_band_are_told_from_text_about_errors() {
        let chat = "data: {\"error\": {\"message\":\"no\"}}\n\n";
        assert_eq!(read(chat, Dialect::Chat, 9), [Said::Error]);
        let messages = "event: error\ndata: {\"type\":\"error\",\"error\":{}}\n\n";
        assert_eq!(read(messages, Dialect::Messages, 9), [Said::Error]);
        let whole = |text: &str| read_whole(text.as_bytes(), Dialect::Chat);
        assert_eq!(whole("{\"error\":{\"code\":1}}"), Some(Said::Error));
        assert_eq!(whole("{\"choices\":[\"\\\"error\\\":{\"]}"), None);
        assert_eq!(
            whole("{\"usage\":{\"completion_tokens\": 5}}"),
            Some(Said::Usage(5))
        );
    }
}
