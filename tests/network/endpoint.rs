//! A scripted model behind the simulated network: it writes down what it has read before it answers, and then
//! answers well, slowly, wrongly, in part or not at all, as its luck says.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tests::weather::Chance;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::sleep;
use turmoil::net::TcpStream;

use crate::talk::Reader;

/// What an endpoint has done with a call that it has read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// Request and attempt.
    pub id: String,
    pub model: String,
    pub stream: bool,
    pub input: u64,
    pub output: u64,
    /// It began an answer that it bills.
    pub bills: bool,
}

pub type Log = Arc<Mutex<Vec<Served>>>;

/// How it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Well,
    /// It waits for so many milliseconds before it begins, and a tenth of that between pieces.
    Slow(u64),
    Refuses(u16),
    /// It closes the connection after so many bytes of its answer.
    Cut(u64),
    /// It never says a word.
    Silent,
}

impl Mood {
    fn next(chance: &mut Chance) -> Self {
        match chance.below(20) {
            0 => Self::Refuses(500),
            1 => Self::Refuses(429),
            2 => Self::Cut(chance.below(120)),
            3 => Self::Cut(chance.below(1_500)),
            4 => Self::Silent,
            5..=9 => Self::Slow(chance.below(400)),
            _ => Self::Well,
        }
    }
}

/// What an endpoint says: so many words that whoever reads them can count them.
pub fn words(output: u64) -> String {
    (0..output).map(|number| format!("w{number} ")).collect()
}

/// Serves a connection.
pub async fn serve(mut stream: TcpStream, log: Log, mut chance: Chance) {
    let mut reader = Reader::default();
    while let Some((head, body)) = reader.message(&mut stream).await {
        let mood = Mood::next(&mut chance);
        let call: Value = serde_json::from_slice(&body).unwrap();
        let cap = call["max_completion_tokens"]
            .as_u64()
            .or(call["max_tokens"].as_u64());
        let served = Served {
            id: format!(
                "{}/{}",
                head.field("x-request-id"),
                head.field("x-pareto-attempt")
            ),
            model: call["model"].as_str().unwrap().to_owned(),
            stream: call["stream"] == true,
            input: 20 + chance.below(60),
            output: (1 + chance.below(30)).min(cap.unwrap_or(u64::MAX)),
            bills: matches!(mood, Mood::Well | Mood::Slow(_) | Mood::Cut(_)),
        };
        log.lock().unwrap().push(served.clone());
        if !answer(&mut stream, &served, mood).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn answer(stream: &mut TcpStream, served: &Served, mood: Mood) -> bool {
    if mood == Mood::Silent {
        let mut nothing = [0; 64];
        // Until the gateway leaves.
        while stream.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
        return false;
    }
    let (first, rest) = match mood {
        Mood::Slow(ms) => (ms, ms / 10),
        _ => (1, 1),
    };
    sleep(Duration::from_millis(first)).await;
    if let Mood::Refuses(status) = mood {
        let body = json!({"error": {"message": "no", "type": "server_error", "code": null}});
        return write(stream, &plain(status, &body.to_string())).await;
    }
    let pieces = if served.stream {
        streamed(served)
    } else {
        vec![plain(200, &whole(served))]
    };
    let mut left = match mood {
        Mood::Cut(bytes) => usize::try_from(bytes).unwrap(),
        _ => usize::MAX,
    };
    for piece in pieces {
        let cut = piece.len().min(left);
        if !write(stream, &piece[..cut]).await {
            return false;
        }
        left -= cut;
        if left == 0 {
            return false;
        }
        sleep(Duration::from_millis(rest)).await;
    }
    true
}

async fn write(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).await.is_ok()
}

fn plain(status: u16, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn usage(served: &Served) -> Value {
    json!({"prompt_tokens": served.input, "completion_tokens": served.output,
           "total_tokens": served.input + served.output})
}

fn whole(served: &Served) -> String {
    json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1_795_000_000, "model": served.model,
           "choices": [{"index": 0, "finish_reason": "stop",
                        "message": {"role": "assistant", "content": words(served.output)}}],
           "usage": usage(served)})
    .to_string()
}

fn streamed(served: &Served) -> Vec<String> {
    let chunk = |choices: Value, usage: Value| {
        let event = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_795_000_000,
                           "model": served.model, "choices": choices, "usage": usage});
        framed(&format!("data: {event}\n\n"))
    };
    let said = |delta: Value, finish: Value| {
        let choice = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        chunk(choice, Value::Null)
    };
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut pieces = vec![head.to_owned()];
    pieces.push(said(
        json!({"role": "assistant", "content": ""}),
        Value::Null,
    ));
    for number in 0..served.output {
        pieces.push(said(json!({"content": format!("w{number} ")}), Value::Null));
    }
    pieces.push(said(json!({}), json!("stop")));
    pieces.push(chunk(json!([]), usage(served)));
    pieces.push(framed("data: [DONE]\n\n") + "0\r\n\r\n");
    pieces
}

fn framed(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}
