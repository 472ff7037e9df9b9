//! HTTP/2 frame by frame: a caller that sends exactly what it is told to, right or wrong.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags; `ACK` is that of SETTINGS and PING.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// How a connection begins.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Fields as HPACK literals that no table has a part in.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            length(&mut out, text.len());
            out.extend(text.as_bytes());
        }
    }
    out
}

/// A length with a prefix of seven bits.
fn length(out: &mut Vec<u8>, length: usize) {
    if length < 127 {
        out.push(u8::try_from(length).unwrap());
        return;
    }
    out.push(127);
    let mut left = length - 127;
    while left >= 128 {
        out.push(u8::try_from(left % 128).unwrap() | 128);
        left /= 128;
    }
    out.push(u8::try_from(left).unwrap());
}

/// A HEADERS frame with all its fields.
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// The fields of a request that asks for little.
pub const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "gateway.test"),
];

/// Such a request.
pub fn get(stream: u32) -> Vec<u8> {
    headers(stream, END_STREAM, &GET)
}

/// What came on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    Status(u32, u16),
    Data(u32, Vec<u8>),
    Reset(u32, u32),
    GoAway(u32),
    Pong(Vec<u8>),
    Other(u8),
}

/// A caller's connection.
#[derive(Debug)]
pub struct Frames {
    pub stream: TcpStream,
    came: Vec<u8>,
}

impl Frames {
    /// Connects, and says nothing yet.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            came: Vec::new(),
        }
    }

    /// Connects and greets: no dynamic table, so that statuses can be read without one.
    pub async fn to(address: SocketAddr) -> Self {
        let mut frames = Self::silent(address).await;
        frames.say(PREFACE).await;
        frames
            .say(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]))
            .await;
        frames
    }

    /// The other end, of which a caller has asked for HTTP/2.
    pub async fn of_caller(mut stream: TcpStream) -> Self {
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        let came = Vec::new();
        Self { stream, came }
    }

    /// Writes. `false` when the other side is gone, or takes nothing for ten seconds.
    pub async fn say(&mut self, bytes: &[u8]) -> bool {
        let writing = self.stream.write_all(bytes);
        let written = tokio::time::timeout(Duration::from_secs(10), writing).await;
        matches!(written, Ok(Ok(())))
    }

    /// The next frame; `None` at the end of the connection, or when nothing came within `patience`.
    pub async fn next(&mut self, patience: Duration) -> Option<Came> {
        loop {
            if let Some(came) = self.cut() {
                return Some(came);
            }
            let reading = self.stream.read_buf(&mut self.came);
            match tokio::time::timeout(patience, reading).await {
                Ok(Ok(length)) if length > 0 => {}
                _ => return None,
            }
        }
    }

    fn cut(&mut self) -> Option<Came> {
        let head: [u8; 9] = self.came.get(..9)?.try_into().unwrap();
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |sum, byte| (sum << 8) | u32::from(*byte))
        };
        let end = 9 + usize::try_from(number(&head[..3])).unwrap();
        self.came.get(..end)?;
        let payload = self.came.drain(..end).skip(9).collect::<Vec<u8>>();
        let stream = number(&head[5..]);
        Some(match head[3] {
            HEADERS => Came::Status(stream, status(&payload)),
            DATA => Came::Data(stream, payload),
            RST_STREAM => Came::Reset(stream, number(&payload)),
            GOAWAY => Came::GoAway(number(&payload[4..8])),
            PING if head[4] & ACK != 0 => Came::Pong(payload),
            kind => Came::Other(kind),
        })
    }
}

/// The status in a block of fields, where it stands first; 0 for trailers.
fn status(block: &[u8]) -> u16 {
    let mut block = block;
    while let [0x20..=0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [index @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)],
        [0x48 | 0x08 | 0x18, length, rest @ ..] => {
            let text = &rest[..usize::from(length & 0x7f)];
            if length & 0x80 == 0 {
                std::str::from_utf8(text).unwrap().parse().unwrap()
            } else {
                digits(text)
            }
        }
        _ => 0,
    }
}

/// Digits in HPACK's Huffman code: five bits for 0 to 2, six for the others.
fn digits(coded: &[u8]) -> u16 {
    let bits: Vec<u16> = coded
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)))
        .collect();
    let take = |at: usize, count: usize| {
        bits[at..at + count]
            .iter()
            .fold(0, |sum, bit| sum << 1 | bit)
    };
    let (mut at, mut number) = (0, 0);
    for _ in 0..3 {
        let short = take(at, 5);
        if short <= 2 {
            number = number * 10 + short;
            at += 5;
        } else {
            number = number * 10 + take(at, 6) - 0b01_1001 + 3;
            at += 6;
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_each_form() {
        assert_eq!(status(&[0x88]), 200);
        assert_eq!(status(&[0x20, 0x8d, 1]), 404);
        assert_eq!(status(b"\x08\x03401"), 401);
        // `302`, as the standard writes it in its examples.
        assert_eq!(status(&[0x48, 0x82, 0x64, 0x02]), 302);
        assert_eq!(status(b"\x00\x01a\x01b"), 0);
    }
}
