//! A caller of the simulation: it asks in either dialect, waits, leaves when it has had enough, and says what it saw.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::weather::Chance;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;

use crate::talk::{Head, Reader, Text};

/// What a caller has seen of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub request: String,
    pub status: u16,
    /// Something of an answer's body was there.
    pub content: bool,
    pub end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The whole answer, with its text.
    Whole(String),
    /// The connection broke, or an error event says that the answer did.
    Broken,
    /// An error in words of the dialect.
    Refused,
    /// The caller left.
    Left,
    /// There was no connection, or no head.
    Nothing,
}

pub type Heard = Arc<Mutex<Vec<Seen>>>;

#[derive(Debug, Clone, Copy)]
struct Asked {
    is_messages: bool,
    stream: bool,
}

/// Makes calls until `calls` are made.
pub async fn run(key: &str, calls: u64, heard: Heard, mut chance: Chance) {
    for _ in 0..calls {
        sleep(Duration::from_millis(chance.below(250))).await;
        let asked = Asked {
            is_messages: chance.once_in(3),
            stream: chance.once_in(2),
        };
        let patience = if chance.once_in(6) {
            chance.below(120)
        } else {
            2_500
        };
        let mut seen = Seen {
            request: String::new(),
            status: 0,
            content: false,
            end: End::Nothing,
        };
        let cap = chance.once_in(2).then_some(40);
        let calling = call(key, asked, cap, &mut seen);
        if timeout(Duration::from_millis(patience), calling)
            .await
            .is_err()
        {
            seen.end = End::Left;
        }
        heard.lock().unwrap().push(seen);
    }
}

async fn call(key: &str, asked: Asked, cap: Option<u64>, seen: &mut Seen) {
    let Ok(mut stream) = TcpStream::connect(("gateway", 80)).await else {
        return;
    };
    let path = ["/v1/chat/completions", "/v1/messages"][usize::from(asked.is_messages)];
    let prompt =
        "What is a river, and why does it not run dry, even where no rain has fallen for months?";
    let mut body = json!({"model": "auto", "messages": [{"role": "user", "content": prompt}]});
    if asked.stream {
        body["stream"] = json!(true);
    }
    if let Some(cap) = cap.or(asked.is_messages.then_some(50)) {
        body["max_tokens"] = json!(cap);
    }
    let body = body.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    if stream.write_all(request.as_bytes()).await.is_err() {
        return;
    }
    let mut reader = Reader::default();
    let Some(head) = reader.head(&mut stream).await else {
        return;
    };
    seen.status = head.status();
    seen.request = head.field("x-request-id").to_owned();
    seen.end = End::Broken;
    let mut watched = Watched {
        seen,
        text: Text::default(),
    };
    reader.body(&head, &mut stream, &mut watched.text).await;
    watched.seen.end = end(&head, asked, &watched.text);
}

/// Notes what came even where the caller leaves.
struct Watched<'a> {
    seen: &'a mut Seen,
    text: Text,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.seen.content = self.seen.status == 200 && !self.text.bytes.is_empty();
    }
}

/// What an answer was; panics where it is none of what it may be.
fn end(head: &Head, asked: Asked, text: &Text) -> End {
    let body = std::str::from_utf8(&text.bytes).unwrap();
    if head.status() != 200 {
        if !text.is_whole {
            return End::Broken;
        }
        let error: Value = serde_json::from_str(body).expect("an error is JSON");
        assert!(
            error["error"]["message"].is_string(),
            "no error of a dialect: {body}"
        );
        assert_eq!(
            error["type"] == "error",
            asked.is_messages,
            "not in its dialect: {body}"
        );
        return End::Refused;
    }
    if asked.stream {
        return streamed(asked, body, text.is_whole);
    }
    if !text.is_whole {
        return End::Broken;
    }
    let answer: Value = serde_json::from_str(body).expect("an answer is JSON");
    let said = if asked.is_messages {
        &answer["content"][0]["text"]
    } else {
        &answer["choices"][0]["message"]["content"]
    };
    End::Whole(said.as_str().expect("it has a text").to_owned())
}

fn streamed(asked: Asked, body: &str, is_whole: bool) -> End {
    let (mut said, mut ended) = (String::new(), false);
    for event in body
        .split_inclusive("\n\n")
        .filter(|it| it.ends_with("\n\n"))
    {
        let Some(data) = event.lines().find_map(|line| line.strip_prefix("data: ")) else {
            continue;
        };
        if data == "[DONE]" {
            ended = true;
            continue;
        }
        let event: Value = serde_json::from_str(data).expect("an event is JSON");
        if event["error"].is_object() {
            return End::Broken;
        }
        let piece = if asked.is_messages {
            ended |= event["type"] == "message_stop";
            &event["delta"]["text"]
        } else {
            &event["choices"][0]["delta"]["content"]
        };
        said.push_str(piece.as_str().unwrap_or_default());
    }
    // An end that looks clean is one.
    assert!(
        ended || !is_whole,
        "a stream that stops as if it were whole: {body}"
    );
    if ended { End::Whole(said) } else { End::Broken }
}
