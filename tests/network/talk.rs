//! HTTP/1.1 as callers and endpoints of the simulation read it: a head, and a body as long as the head says, or
//! whether that broke off.

use tokio::io::AsyncReadExt;
use turmoil::net::TcpStream;

/// A head.
#[derive(Debug, Default)]
pub struct Head {
    text: String,
}

impl Head {
    /// The value of a field; empty where there is none.
    pub fn field(&self, name: &str) -> &str {
        let fields = self
            .text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'));
        let mut found = fields.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map_or("", |(_, value)| value.trim())
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.text.split(' ').nth(1).unwrap().parse().unwrap()
    }
}

/// What is read of a connection.
#[derive(Debug, Default)]
pub struct Reader {
    inbox: Vec<u8>,
}

/// A body, and whether it came to its end.
#[derive(Debug, Default)]
pub struct Text {
    pub bytes: Vec<u8>,
    pub is_whole: bool,
}

impl Reader {
    /// More bytes; `false` at the end.
    async fn more(&mut self, stream: &mut TcpStream) -> bool {
        let mut buffer = [0; 4_096];
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.inbox.extend_from_slice(&buffer[..read]);
                true
            }
        }
    }

    pub async fn head(&mut self, stream: &mut TcpStream) -> Option<Head> {
        loop {
            let end = self.inbox.windows(4).position(|it| it == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.inbox.drain(..end + 4).collect();
                let text = String::from_utf8(head).unwrap();
                return Some(Head { text });
            }
            if !self.more(stream).await {
                return None;
            }
        }
    }

    /// A line of a chunked body, without its end.
    async fn line(&mut self, stream: &mut TcpStream) -> Option<String> {
        loop {
            if let Some(end) = self.inbox.windows(2).position(|it| it == b"\r\n") {
                let line: Vec<u8> = self.inbox.drain(..end + 2).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            if !self.more(stream).await {
                return None;
            }
        }
    }

    /// So many bytes, as many of them as come.
    async fn exactly(&mut self, stream: &mut TcpStream, length: usize, text: &mut Text) -> bool {
        while self.inbox.len() < length {
            if !self.more(stream).await {
                text.bytes.append(&mut self.inbox);
                return false;
            }
        }
        text.bytes.extend(self.inbox.drain(..length));
        true
    }

    /// The body behind `head`, read into `text` as it comes, so that who is left half-way has what came.
    pub async fn body(&mut self, head: &Head, stream: &mut TcpStream, text: &mut Text) {
        if head.field("transfer-encoding") == "chunked" {
            while let Some(size) = self.line(stream).await {
                let size = usize::from_str_radix(&size, 16).unwrap();
                if size > 0 && !self.exactly(stream, size, text).await {
                    return;
                }
                if self.line(stream).await.is_none() {
                    return;
                }
                if size == 0 {
                    text.is_whole = true;
                    return;
                }
            }
        } else {
            let length = head.field("content-length").parse().unwrap_or(0);
            text.is_whole = self.exactly(stream, length, text).await;
        }
    }

    /// A whole message; `None` where it does not come to its end.
    pub async fn message(&mut self, stream: &mut TcpStream) -> Option<(Head, Vec<u8>)> {
        let head = self.head(stream).await?;
        let mut text = Text::default();
        self.body(&head, stream, &mut text).await;
        text.is_whole.then_some((head, text.bytes))
    }
}
