//! An endpoint that misbehaves exactly as it is told, as long as it is told to, and answers well afterwards.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::bytes::{Endpoint, Line, completion};
use crate::talk::Tongue;

/// One thing that is done on a connection. Behind the last it is closed.
#[derive(Debug, Clone)]
pub enum Act {
    Say(Vec<u8>),
    /// Bytes one by one, with a pause between them.
    Drip(Vec<u8>, Duration),
    /// Again and again, until the other side has enough.
    Flood(Vec<u8>),
    Pause(Duration),
    /// Nothing more is said, and the connection stays.
    Hang,
    /// The connection is reset.
    Reset,
}

/// Says a text.
pub fn say(text: impl Into<Vec<u8>>) -> Act {
    Act::Say(text.into())
}

/// What an endpoint does wrong.
#[derive(Debug, Clone)]
pub struct Wrong {
    /// Before the call was read.
    pub early: bool,
    pub acts: Vec<Act>,
}

/// An endpoint of one dialect.
#[derive(Debug)]
pub struct Wicked {
    pub endpoint: Endpoint,
    pub tongue: Tongue,
    is_bad: Arc<AtomicBool>,
    /// Calls that were read whole.
    calls: Arc<AtomicUsize>,
    /// Connections whose other side has left while something was still to be said.
    left: Arc<AtomicUsize>,
}

impl Wicked {
    pub async fn start(tongue: Tongue, wrong: Wrong) -> Self {
        let is_bad = Arc::new(AtomicBool::new(true));
        let (calls, left) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let shared = (Arc::clone(&is_bad), Arc::clone(&calls), Arc::clone(&left));
        let endpoint = Endpoint::with(move |mut line| {
            let (wrong, (is_bad, calls, left)) = (wrong.clone(), shared.clone());
            async move {
                if wrong.early && is_bad.load(Ordering::Relaxed) {
                    return act(&mut line, &wrong.acts, &left).await;
                }
                while let Some(call) = line.message(true).await {
                    calls.fetch_add(1, Ordering::Relaxed);
                    if is_bad.load(Ordering::Relaxed) {
                        return act(&mut line, &wrong.acts, &left).await;
                    }
                    let is_stream = call.text().contains("\"stream\":true");
                    line.say(good(tongue, is_stream)).await;
                }
            }
        });
        let endpoint = endpoint.await;
        Self {
            endpoint,
            tongue,
            is_bad,
            calls,
            left,
        }
    }

    /// From now on it answers well.
    pub fn repent(&self) {
        self.is_bad.store(false, Ordering::Relaxed);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn left(&self) -> usize {
        self.left.load(Ordering::Relaxed)
    }
}

/// The dialect of endpoints that speak `tongue`.
pub fn dialect(tongue: Tongue) -> &'static str {
    match tongue {
        Tongue::Chat => "openai_chat",
        Tongue::Responses => "openai_responses",
        Tongue::Messages => "anthropic_messages",
    }
}

/// Tables of a configuration that make model `name` the one at `url`.
pub fn tables(name: &str, tongue: Tongue, url: &str) -> String {
    format!(
        "[[endpoint]]\nname = \"{name}\"\ndialect = \"{}\"\nurl = \"{url}\"\nkey = \"up-{name}\"\n\
         [[model]]\nname = \"{name}\"\ntier = \"fast\"\nendpoint = \"{name}\"\nprice = \"test/fast\"\n",
        dialect(tongue)
    )
}

/// The address of an endpoint as a URL.
pub fn url(address: SocketAddr) -> String {
    format!("http://{address}/v1")
}

async fn act(line: &mut Line, acts: &[Act], left: &AtomicUsize) {
    use tokio::io::AsyncWriteExt;
    for act in acts {
        match act {
            Act::Say(bytes) => line.say(bytes).await,
            Act::Drip(bytes, gap) => {
                for byte in bytes {
                    if line.stream.write_all(&[*byte]).await.is_err() {
                        left.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    tokio::time::sleep(*gap).await;
                }
            }
            Act::Flood(bytes) => {
                while line.stream.write_all(bytes).await.is_ok() {}
                left.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Act::Pause(pause) => tokio::time::sleep(*pause).await,
            Act::Hang => {
                line.end().await;
                left.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Act::Reset => {
                line.stream.set_zero_linger().unwrap();
                return;
            }
        }
    }
}

/// A whole answer with a head.
pub fn good(tongue: Tongue, is_stream: bool) -> Vec<u8> {
    if is_stream {
        let body = events(tongue).concat();
        return [stream_head(), chunk(&body), "0\r\n\r\n".to_owned()]
            .concat()
            .into_bytes();
    }
    with_length(&whole(tongue, "yes", USAGE))
}

/// Usage as `whole` and `events` tell it.
pub const USAGE: (&str, &str) = ("3", "2");

/// A body with a head that says its length.
pub fn with_length(body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The head of a stream in chunks.
pub fn stream_head() -> String {
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_owned()
}

/// One chunk.
pub fn chunk(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n", body.len())
}

/// The body of an answer that says `text`, with this usage as it stands there.
pub fn whole(tongue: Tongue, text: &str, (input, output): (&str, &str)) -> String {
    match tongue {
        Tongue::Chat => completion(text).replace(
            "\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5",
            &format!("\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":5"),
        ),
        Tongue::Responses => response("completed", text, (input, output)),
        Tongue::Messages => format!(
            "{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"raw\",\"content\":\
             [{{\"type\":\"text\",\"text\":\"{text}\"}}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,\
             \"usage\":{{\"input_tokens\":{input},\"output_tokens\":{output}}}}}"
        ),
    }
}

fn response(status: &str, text: &str, (input, output): (&str, &str)) -> String {
    format!(
        "{{\"id\":\"resp_1\",\"object\":\"response\",\"created_at\":1,\"status\":\"{status}\",\"model\":\"raw\",\
         \"output\":[{{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"completed\",\"role\":\"assistant\",\
         \"content\":[{{\"type\":\"output_text\",\"text\":\"{text}\",\"annotations\":[]}}]}}],\
         \"usage\":{{\"input_tokens\":{input},\"output_tokens\":{output},\"total_tokens\":5}}}}"
    )
}

/// Events of a stream: what stands before the content, its pieces, and the rest.
#[derive(Debug, Clone)]
pub struct Events {
    pub before: Vec<String>,
    pub content: Vec<String>,
    pub after: Vec<String>,
}

impl Events {
    pub fn concat(&self) -> String {
        [
            self.before.concat(),
            self.content.concat(),
            self.after.concat(),
        ]
        .concat()
    }
}

/// The text of `events`.
pub const SAID: &str = "one two three four ";

/// A stream that says `SAID`.
pub fn events(tongue: Tongue) -> Events {
    events_with(tongue, USAGE)
}

/// The same with this usage as it stands there.
pub fn events_with(tongue: Tongue, usage: (&str, &str)) -> Events {
    let words = ["one ", "two ", "three ", "four "];
    match tongue {
        Tongue::Chat => chat_events(&words, usage),
        Tongue::Responses => responses_events(&words, usage),
        Tongue::Messages => messages_events(&words, usage),
    }
}

fn chat_events(words: &[&str], (input, output): (&str, &str)) -> Events {
    let event = |rest: &str| {
        format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"raw\",{rest}}}\n\n"
        )
    };
    let delta = |delta: &str, finish: &str| {
        event(&format!(
            "\"choices\":[{{\"index\":0,\"delta\":{{{delta}}},\"finish_reason\":{finish}}}]"
        ))
    };
    let usage = format!(
        "\"choices\":[],\"usage\":{{\"prompt_tokens\":{input},\"completion_tokens\":{output},\"total_tokens\":5}}"
    );
    Events {
        before: vec![delta("\"role\":\"assistant\",\"content\":\"\"", "null")],
        content: words
            .iter()
            .map(|word| delta(&format!("\"content\":\"{word}\""), "null"))
            .collect(),
        after: vec![
            delta("", "\"stop\""),
            event(&usage),
            "data: [DONE]\n\n".to_owned(),
        ],
    }
}

fn named(kind: &str, rest: &str) -> String {
    format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n")
}

fn responses_events(words: &[&str], usage: (&str, &str)) -> Events {
    let at = "\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0";
    let begun = response("in_progress", "", USAGE).replace(
        "\"usage\":{\"input_tokens\":3,\"output_tokens\":2,\"total_tokens\":5}",
        "\"usage\":null",
    );
    let begun = begun.replace("[{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"completed\",\"role\":\"assistant\",\"content\":[{\"type\":\"output_text\",\"text\":\"\",\"annotations\":[]}]}]", "[]");
    let part =
        |text: &str| format!("{{\"type\":\"output_text\",\"text\":\"{text}\",\"annotations\":[]}}");
    let item = |status: &str, content: &str| {
        format!(
            "{{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"{status}\",\"role\":\"assistant\",\"content\":[{content}]}}"
        )
    };
    Events {
        before: vec![
            named(
                "response.created",
                &format!("\"sequence_number\":0,\"response\":{begun}"),
            ),
            named(
                "response.output_item.added",
                &format!(
                    "\"sequence_number\":1,\"output_index\":0,\"item\":{}",
                    item("in_progress", "")
                ),
            ),
            named(
                "response.content_part.added",
                &format!("\"sequence_number\":2,{at},\"part\":{}", part("")),
            ),
        ],
        content: words
            .iter()
            .map(|word| {
                named(
                    "response.output_text.delta",
                    &format!("\"sequence_number\":3,{at},\"delta\":\"{word}\""),
                )
            })
            .collect(),
        after: vec![
            named(
                "response.output_text.done",
                &format!("\"sequence_number\":7,{at},\"text\":\"{SAID}\""),
            ),
            named(
                "response.content_part.done",
                &format!("\"sequence_number\":8,{at},\"part\":{}", part(SAID)),
            ),
            named(
                "response.output_item.done",
                &format!(
                    "\"sequence_number\":9,\"output_index\":0,\"item\":{}",
                    item("completed", &part(SAID))
                ),
            ),
            named(
                "response.completed",
                &format!(
                    "\"sequence_number\":10,\"response\":{}",
                    response("completed", SAID, usage)
                ),
            ),
        ],
    }
}

fn messages_events(words: &[&str], (input, output): (&str, &str)) -> Events {
    Events {
        before: vec![
            named(
                "message_start",
                &format!(
                    "\"message\":{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"raw\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":{{\"input_tokens\":{input},\"output_tokens\":1}}}}"
                ),
            ),
            named(
                "content_block_start",
                "\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}",
            ),
        ],
        content: words
            .iter()
            .map(|word| {
                named(
                    "content_block_delta",
                    &format!(
                        "\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{word}\"}}"
                    ),
                )
            })
            .collect(),
        after: vec![
            named("content_block_stop", "\"index\":0"),
            named(
                "message_delta",
                &format!(
                    "\"delta\":{{\"stop_reason\":\"end_turn\",\"stop_sequence\":null}},\"usage\":{{\"output_tokens\":{output}}}"
                ),
            ),
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n".to_owned(),
        ],
    }
}

/// An error as an event of the dialect.
pub fn error_event(tongue: Tongue) -> String {
    match tongue {
        Tongue::Chat => "data: {\"error\":{\"message\":\"out of tea\",\"type\":\"server_error\",\"code\":null}}\n\n".to_owned(),
        Tongue::Responses => named("error", "\"sequence_number\":1,\"code\":\"server_error\",\"message\":\"out of tea\",\"param\":null"),
        Tongue::Messages => named("error", "\"error\":{\"type\":\"overloaded_error\",\"message\":\"out of tea\"}"),
    }
}
