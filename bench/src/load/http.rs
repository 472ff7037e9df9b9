//! Reads HTTP/1.1 messages from bytes as they come, wherever they are cut: answers for the load,
//! calls for the fixed endpoint.

/// Longest head taken.
const LONGEST_HEAD: usize = 64 << 10;
/// Headers taken.
const MOST_HEADERS: usize = 100;

/// It is not HTTP/1.1, or more came than a message has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Which way a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Call,
    Answer,
}

/// What a head says, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Of an answer.
    pub(crate) status: u16,
    /// Of a call.
    pub(crate) path: String,
    pub(crate) is_post: bool,
    /// The connection ends behind this message.
    pub(crate) close: bool,
    /// The body is an event stream.
    pub(crate) events: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Body(u64),
    Size {
        size: u64,
        digits: u8,
        behind: bool,
    },
    Chunk(u64),
    /// The line end behind a chunk, of which one or two bytes are to come.
    ChunkEnd(u8),
    /// Behind the last chunk; whether this line has anything on it.
    Trailer(bool),
    UntilClose,
    Done,
}

/// A message that is being read.
#[derive(Debug)]
pub(crate) struct Reader {
    way: Way,
    at: At,
    begun: Vec<u8>,
    pub(crate) head: Head,
}

impl Reader {
    pub(crate) fn new(way: Way) -> Self {
        Self {
            way,
            at: At::Head,
            begun: Vec::new(),
            head: Head::default(),
        }
    }

    /// The next message begins.
    pub(crate) fn reset(&mut self) {
        self.at = At::Head;
        self.begun.clear();
    }

    pub(crate) fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// The head is there.
    pub(crate) fn has_head(&self) -> bool {
        self.at != At::Head
    }

    /// The connection has ended. Returns whether that is how this message ends.
    pub(crate) fn close(&mut self) -> bool {
        let whole = self.at == At::UntilClose;
        if whole {
            self.at = At::Done;
        }
        whole
    }

    /// Reads on, gives what is of the body to `body`, and returns how many bytes were of this message.
    pub(crate) fn read(
        &mut self,
        bytes: &[u8],
        body: &mut impl FnMut(&[u8]),
    ) -> Result<usize, Malformed> {
        let mut rest = bytes;
        while !rest.is_empty() && self.at != At::Done {
            let used = self.step(rest, body)?;
            rest = rest.get(used..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Reads on up to the end of the head, and returns how many bytes that were.
    pub(crate) fn read_head_only(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut used = 0;
        while self.at == At::Head && used < bytes.len() {
            used += self.read_head(&bytes[used..])?;
        }
        Ok(used)
    }

    fn step(&mut self, rest: &[u8], body: &mut impl FnMut(&[u8])) -> Result<usize, Malformed> {
        match self.at {
            At::Head => self.read_head(rest),
            At::Body(left) => {
                let (used, left) = take(rest, left, body);
                self.at = if left == 0 { At::Done } else { At::Body(left) };
                Ok(used)
            }
            At::Size {
                size,
                digits,
                behind,
            } => self.read_size(rest[0], size, digits, behind),
            At::Chunk(left) => {
                let (used, left) = take(rest, left, body);
                self.at = if left == 0 {
                    At::ChunkEnd(2)
                } else {
                    At::Chunk(left)
                };
                Ok(used)
            }
            At::ChunkEnd(left) => {
                let wanted = if left == 2 { b'\r' } else { b'\n' };
                if rest[0] != wanted {
                    return Err(Malformed);
                }
                self.at = if left == 2 { At::ChunkEnd(1) } else { SIZE };
                Ok(1)
            }
            At::Trailer(any) => {
                self.at = match (rest[0], any) {
                    (b'\n', false) => At::Done,
                    (b'\n', true) => At::Trailer(false),
                    (b'\r', any) => At::Trailer(any),
                    _ => At::Trailer(true),
                };
                Ok(1)
            }
            At::UntilClose => {
                body(rest);
                Ok(rest.len())
            }
            At::Done => Ok(0),
        }
    }

    fn read_size(
        &mut self,
        byte: u8,
        size: u64,
        digits: u8,
        behind: bool,
    ) -> Result<usize, Malformed> {
        let digit = char::from(byte).to_digit(16).filter(|_| !behind);
        self.at = match (byte, digit) {
            (_, Some(digit)) if digits < 15 => At::Size {
                size: size * 16 + u64::from(digit),
                digits: digits + 1,
                behind,
            },
            (b'\n', _) if digits > 0 && size == 0 => At::Trailer(false),
            (b'\n', _) if digits > 0 => At::Chunk(size),
            (b'\r' | b';' | b' ', _) if digits > 0 => At::Size {
                size,
                digits,
                behind: true,
            },
            _ if behind => self.at,
            _ => return Err(Malformed),
        };
        Ok(1)
    }

    /// Reads the head where it is whole; otherwise keeps what there is of it.
    fn read_head(&mut self, rest: &[u8]) -> Result<usize, Malformed> {
        if self.begun.is_empty() {
            if let Some(used) = self.parse(rest)? {
                return Ok(used);
            }
            self.begun.extend_from_slice(rest);
            return Ok(rest.len());
        }
        let had = self.begun.len();
        let mut begun = std::mem::take(&mut self.begun);
        begun.extend_from_slice(rest);
        if let Some(used) = self.parse(&begun)? {
            return Ok(used.saturating_sub(had));
        }
        if begun.len() > LONGEST_HEAD {
            return Err(Malformed);
        }
        self.begun = begun;
        Ok(rest.len())
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        match self.way {
            Way::Answer => {
                let mut answer = httparse::Response::new(&mut headers);
                let parsed = answer.parse(bytes).map_err(|_| Malformed)?;
                let httparse::Status::Complete(used) = parsed else {
                    return Ok(None);
                };
                let status = answer.code.ok_or(Malformed)?;
                if (100..200).contains(&status) {
                    return Ok(Some(used));
                }
                self.head.status = status;
                self.head.close = answer.version == Some(0);
                let none = matches!(status, 204 | 304);
                self.frame(answer.headers, none, At::UntilClose)?;
                Ok(Some(used))
            }
            Way::Call => {
                let mut call = httparse::Request::new(&mut headers);
                let parsed = call.parse(bytes).map_err(|_| Malformed)?;
                let httparse::Status::Complete(used) = parsed else {
                    return Ok(None);
                };
                self.head.is_post = call.method == Some("POST");
                self.head.path.clear();
                self.head.path.push_str(call.path.unwrap_or_default());
                self.head.close = call.version == Some(0);
                self.frame(call.headers, false, At::Done)?;
                Ok(Some(used))
            }
        }
    }

    /// How the body is delimited; `open` where nothing says it.
    fn frame(
        &mut self,
        headers: &[httparse::Header<'_>],
        none: bool,
        open: At,
    ) -> Result<(), Malformed> {
        let (mut length, mut chunked) = (None, false);
        self.head.events = false;
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            let value = header.value.trim_ascii();
            match header.name.len() {
                14 if is("content-length") => {
                    let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
                    length = Some(text.parse::<u64>().map_err(|_| Malformed)?);
                }
                17 if is("transfer-encoding") => {
                    chunked = value.eq_ignore_ascii_case(b"chunked");
                }
                10 if is("connection") => {
                    if value.eq_ignore_ascii_case(b"close") {
                        self.head.close = true;
                    } else if value.eq_ignore_ascii_case(b"keep-alive") {
                        self.head.close = false;
                    }
                }
                12 if is("content-type") => {
                    self.head.events = value.starts_with(b"text/event-stream");
                }
                _ => {}
            }
        }
        self.at = match length {
            _ if none => At::Done,
            _ if chunked => SIZE,
            Some(0) => At::Done,
            Some(length) => At::Body(length),
            None => open,
        };
        if self.at == At::UntilClose {
            self.head.close = true;
        }
        Ok(())
    }
}

const SIZE: At = At::Size {
    size: 0,
    digits: 0,
    behind: false,
};

/// Gives up to `left` bytes to `body`; returns how many, and how many are left.
fn take(rest: &[u8], left: u64, body: &mut impl FnMut(&[u8])) -> (usize, u64) {
    let most = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    body(&rest[..most]);
    (most, left - u64::try_from(most).unwrap_or(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Head and body as read from `bytes` in pieces, and how many bytes were of the message.
    fn read(way: Way, pieces: &[&[u8]]) -> Result<(Head, Vec<u8>, usize, bool), Malformed> {
        let (mut reader, mut body, mut used) = (Reader::new(way), Vec::new(), 0);
        for piece in pieces {
            used += reader.read(piece, &mut |part| body.extend_from_slice(part))?;
        }
        let done = reader.is_done() || reader.close();
        Ok((reader.head, body, used, done))
    }

    #[track_caller]
    fn check(way: Way, message: &str, body: &str, status: u16) {
        let bytes = message.as_bytes();
        let whole = read(way, &[bytes]).unwrap();
        assert_eq!(String::from_utf8_lossy(&whole.1), body, "{message}");
        assert_eq!(
            (whole.0.status, whole.2, whole.3),
            (status, bytes.len(), true)
        );
        for cut in 0..=bytes.len() {
            for second in cut..=bytes.len() {
                let pieces = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                assert_eq!(read(way, &pieces).unwrap(), whole, "{cut} {second}");
            }
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(way, &single).unwrap(), whole);
    }

    #[test]
    fn any_split_of_an_answer_reads_the_same() {
        check(
            Way::Answer,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "hello",
            200,
        );
        check(
            Way::Answer,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n\
             5\r\nhello\r\nA;x=1\r\n, world 12\r\n0\r\nX-T: 1\r\n\r\n",
            "hello, world 12",
            200,
        );
        check(
            Way::Answer,
            "HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n",
            "",
            204,
        );
        check(
            Way::Answer,
            "HTTP/1.0 502 Bad\r\n\r\nuntil the end",
            "until the end",
            502,
        );
        check(
            Way::Answer,
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 Slow\r\ncontent-length: 2\r\n\r\n{}",
            "{}",
            429,
        );
    }

    #[test]
    fn any_split_of_a_call_reads_the_same() {
        check(Way::Call, "GET /health HTTP/1.1\r\nhost: x\r\n\r\n", "", 0);
        check(
            Way::Call,
            "POST /v1/messages HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc",
            "abc",
            0,
        );
        check(
            Way::Call,
            "POST /v1 HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "abc",
            0,
        );
    }

    #[test]
    fn what_is_behind_a_message_is_not_taken() {
        let two = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\naHTTP/1.1";
        assert_eq!(read(Way::Answer, &[two]).unwrap().2, two.len() - 8);
    }

    #[test]
    fn what_is_not_http_is_malformed() {
        for bytes in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
        ] {
            assert_eq!(
                read(Way::Answer, &[bytes.as_bytes()]),
                Err(Malformed),
                "{bytes}"
            );
        }
    }

    #[test]
    fn a_body_that_stops_short_is_not_done() {
        let cut = read(
            Way::Answer,
            &[b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc"],
        );
        assert!(!cut.unwrap().3);
    }
}
