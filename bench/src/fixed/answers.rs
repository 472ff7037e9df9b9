//! Answers as bytes: each is made once for a size and sent again and again; in a stream's pieces only the
//! time of sending changes.

use std::collections::HashMap;
use std::sync::Arc;

use crate::load::Dialect;
use crate::load::events::STAMP;

/// Pieces of a stream.
#[derive(Debug)]
pub(super) struct Stream {
    /// The head of the answer and what comes before its first piece.
    pub(super) start: Vec<u8>,
    /// A piece; its time stands at `stamp`.
    pub(super) piece: Vec<u8>,
    pub(super) stamp: usize,
    /// What comes behind the last piece, but for usage, which needs the number of pieces.
    dialect: Dialect,
}

/// All answers given so far.
#[derive(Debug, Default)]
pub(super) struct Answers {
    plain: HashMap<(bool, u32), Arc<[u8]>>,
    streams: HashMap<(bool, u32), Arc<Stream>>,
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: ";
const CHUNKED: &str =
    "text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";

impl Answers {
    pub(super) fn plain(&mut self, dialect: Dialect, bytes: u32) -> Arc<[u8]> {
        let key = (dialect == Dialect::Chat, bytes);
        Arc::clone(
            self.plain
                .entry(key)
                .or_insert_with(|| plain(dialect, bytes)),
        )
    }

    pub(super) fn stream(&mut self, dialect: Dialect, bytes: u32) -> Arc<Stream> {
        let key = (dialect == Dialect::Chat, bytes);
        let made = self.streams.entry(key);
        Arc::clone(made.or_insert_with(|| Arc::new(Stream::new(dialect, bytes))))
    }
}

/// A short answer with status 200 to whatever is no call of a model: routers ask how their workers are.
pub(super) fn healthy() -> &'static [u8] {
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 106\r\n\r\n\
      {\"object\":\"list\",\"model_path\":\"fixed\",\"data\":[{\"id\":\"fixed\",\"object\":\"model\",\"created\":1,\"owned_by\":\"x\"}]}"
}

fn plain(dialect: Dialect, bytes: u32) -> Arc<[u8]> {
    let (before, after) = match dialect {
        Dialect::Chat => (
            "{\"id\":\"chatcmpl-fixed\",\"object\":\"chat.completion\",\"created\":1795000000,\"model\":\"fixed\",\
             \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"",
            "\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],\
             \"usage\":{\"prompt_tokens\":250,\"completion_tokens\":64,\"total_tokens\":314}}",
        ),
        Dialect::Messages => (
            "{\"id\":\"msg_fixed\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"fixed\",\
             \"content\":[{\"type\":\"text\",\"text\":\"",
            "\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\
             \"usage\":{\"input_tokens\":250,\"output_tokens\":64}}",
        ),
    };
    let text = filler(
        usize::try_from(bytes).unwrap_or(0),
        before.len() + after.len(),
    );
    let body = format!("{before}{text}{after}");
    let length = body.len();
    let whole = format!("{HEAD}application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    Arc::from(whole.into_bytes())
}

/// Words that fill what is left of `bytes`.
fn filler(bytes: usize, taken: usize) -> String {
    let words = "It follows from the second line, where the sum is taken over all rows. ";
    let wanted = bytes.saturating_sub(taken).max(1);
    words.chars().cycle().take(wanted).collect()
}

impl Stream {
    fn new(dialect: Dialect, bytes: u32) -> Self {
        let (before, after) = match dialect {
            Dialect::Chat => (
                "data: {\"id\":\"chatcmpl-fixed\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\
                 \"model\":\"fixed\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"",
                "\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
            ),
            Dialect::Messages => (
                "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\
                 \"delta\":{\"type\":\"text_delta\",\"text\":\"",
                "\"}}\n\n",
            ),
        };
        let taken = before.len() + after.len() + STAMP.len() + 17;
        let text = filler(usize::try_from(bytes).unwrap_or(0), taken);
        let mark = String::from_utf8_lossy(STAMP);
        let event = format!("{before}{mark}{:016x} {text}{after}", 0);
        let piece = chunk(&event);
        let stamp = memchr::memmem::find(&piece, STAMP).unwrap_or(0) + STAMP.len();
        let first = match dialect {
            Dialect::Chat => {
                "data: {\"id\":\"chatcmpl-fixed\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\
                 \"model\":\"fixed\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\
                 \"logprobs\":null,\"finish_reason\":null}]}\n\n"
            }
            Dialect::Messages => {
                "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_fixed\",\"type\":\"message\",\
                 \"role\":\"assistant\",\"model\":\"fixed\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
                 \"usage\":{\"input_tokens\":250,\"output_tokens\":1}}}\n\n\
                 event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\
                 \"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n"
            }
        };
        let mut start = format!("{HEAD}{CHUNKED}").into_bytes();
        start.extend(chunk(first));
        Self {
            start,
            piece,
            stamp,
            dialect,
        }
    }

    /// What comes behind so many pieces.
    pub(super) fn end(&self, pieces: u32) -> Vec<u8> {
        let events = match self.dialect {
            Dialect::Chat => {
                let of = "data: {\"id\":\"chatcmpl-fixed\",\"object\":\"chat.completion.chunk\",\"created\":1795000000,\"model\":\"fixed\"";
                let total = u64::from(pieces) + 250;
                format!(
                    "{of},\"choices\":[{{\"index\":0,\"delta\":{{}},\"logprobs\":null,\"finish_reason\":\"stop\"}}]}}\n\n\
                     {of},\"choices\":[],\"usage\":{{\"prompt_tokens\":250,\"completion_tokens\":{pieces},\"total_tokens\":{total}}}}}\n\n\
                     data: [DONE]\n\n"
                )
            }
            Dialect::Messages => format!(
                "event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":0}}\n\n\
                 event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":null}},\
                 \"usage\":{{\"output_tokens\":{pieces}}}}}\n\n\
                 event: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
            ),
        };
        let mut end = chunk(&events);
        end.extend_from_slice(b"0\r\n\r\n");
        end
    }
}

/// As a chunk of a body whose length is not known.
fn chunk(text: &str) -> Vec<u8> {
    format!("{:x}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Writes a time as 16 hexadecimal digits.
pub(super) fn write_stamp(digits: &mut [u8], time: u64) {
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        let shift = u32::try_from(place).unwrap_or(0) * 4;
        let value = usize::try_from(time.checked_shr(shift).unwrap_or(0) & 15).unwrap_or(0);
        *digit = b"0123456789abcdef"[value];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::http::{Reader, Way};

    #[test]
    fn every_answer_is_http_and_json_of_its_size() {
        let mut answers = Answers::default();
        let whole = [
            answers.plain(Dialect::Chat, 1_200),
            answers.plain(Dialect::Messages, 1_200),
            Arc::from(healthy()),
        ];
        for (place, bytes) in whole.iter().enumerate() {
            let (mut reader, mut body) = (Reader::new(Way::Answer), Vec::new());
            let used = reader.read(bytes, &mut |part| body.extend_from_slice(part));
            assert_eq!(used.unwrap(), bytes.len());
            assert!(reader.is_done());
            serde_json::from_slice::<serde_json::Value>(&body).unwrap();
            assert!(place == 2 || body.len() == 1_200);
        }
    }

    #[test]
    fn stamps_are_the_time_in_digits() {
        let mut digits = [0; 16];
        write_stamp(&mut digits, 0x0123_4567_89ab_cdef);
        assert_eq!(&digits, b"0123456789abcdef");
    }
}
