//! Proves that nothing an endpoint does wrong over HTTP/2 harms more than the call it was done to: that one is
//! told of it in its own dialect, and the next is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tests::bytes::{Endpoint, Line, completion};
use tests::frames::{
    CONTINUATION, Came, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PUSH_PROMISE,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, headers,
};
use tests::world::chat;
use tokio::time::timeout;

use super::endpoints::{PATIENCE, world};

const OK: [(&str, &str); 2] = [(":status", "200"), ("content-type", "application/json")];

/// An endpoint that says `wrong` to its first call and closes if it should, and answers the others well.
async fn endpoint(wrong: Vec<u8>, closes: bool) -> Endpoint {
    let is_first = Arc::new(AtomicBool::new(true));
    Endpoint::with(move |line: Line| {
        let (is_first, wrong) = (Arc::clone(&is_first), wrong.clone());
        async move {
            let mut line = Frames::of_caller(line.stream).await;
            line.say(&frame(SETTINGS, 0, 0, &[])).await;
            while let Some(came) = line.next(PATIENCE).await {
                // A call's body is one piece.
                let Came::Data(stream, body) = came else {
                    continue;
                };
                if body.is_empty() {
                    continue;
                }
                let is_wrong = is_first.swap(false, Ordering::Relaxed);
                let said = if is_wrong {
                    wrong.clone()
                } else {
                    let body = completion("yes");
                    let data = frame(DATA, END_STREAM, stream, body.as_bytes());
                    [headers(stream, 0, &OK), data].concat()
                };
                line.say(&said).await;
                if is_wrong && closes {
                    return;
                }
            }
        }
    })
    .await
}

/// Makes a call that goes wrong so, with `rest` in it, and one more. Gives out what the first is told.
async fn told(what: &str, wrong: Vec<u8>, closes: bool, rest: &str) -> (u16, String) {
    let endpoint = endpoint(wrong, closes).await;
    let world = world(&endpoint).await;
    let client = world.caller(&world.client.key);
    let call = client.post("/v1/chat/completions", chat("raw", "Hi", rest));
    let first = timeout(PATIENCE, call).await.expect(what);
    let call = client.post("/v1/chat/completions", chat("raw", "Hi", ""));
    let next = timeout(PATIENCE, call).await.expect(what);
    assert_eq!(next.status, 200, "behind {what}: {}", next.text());
    let entries = world.entries().await;
    assert_eq!(entries.len(), 2, "{what}");
    assert_eq!(entries[1].outcome.as_str(), "completed", "{what}");
    (first.status, first.text())
}

fn answer(fields: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let head = headers(1, 0, fields);
    [head, frame(DATA, END_STREAM, 1, body)].concat()
}

fn with(field: (&str, &str)) -> Vec<u8> {
    let fields = [OK[0], OK[1], field];
    answer(&fields, completion("yes").as_bytes())
}

#[tokio::test]
async fn what_is_wrong_before_an_answer_begins_is_told_and_the_next_call_served() {
    let most = 0x7fff_ffff_u32.to_be_bytes();
    let endless = {
        let start = frame(HEADERS, 0, 1, &block(&OK));
        let field = block(&[("x-more", &"a".repeat(16_000))]);
        [start, frame(CONTINUATION, 0, 1, &field).repeat(200)].concat()
    };
    for (what, wrong, closes) in [
        ("nothing", Vec::new(), true),
        (
            "a reset",
            frame(RST_STREAM, 0, 1, &2_u32.to_be_bytes()),
            false,
        ),
        (
            "a reset of another stream",
            frame(RST_STREAM, 0, 9, &[0; 4]),
            false,
        ),
        (
            "fields that can not be read",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 40]),
            false,
        ),
        ("fields without an end", endless, false),
        ("no status", answer(&OK[1..], b"{}"), false),
        ("a name in capitals", with(("X-A", "b")), false),
        (
            "a field of the connection",
            with(("connection", "close")),
            false,
        ),
        ("a longer length", with(("content-length", "9999")), false),
        ("a shorter length", with(("content-length", "3")), false),
        (
            "content without a head",
            frame(DATA, END_STREAM, 1, b"{}"),
            false,
        ),
        ("content of no stream", frame(DATA, 0, 0, b"{}"), false),
        (
            "content of a stream that was not begun",
            frame(DATA, 0, 7, b"{}"),
            false,
        ),
        (
            "a frame that is too long",
            frame(DATA, 0, 1, &[b' '; 20_000]),
            false,
        ),
        (
            "a promise",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2, 0x82]),
            false,
        ),
        (
            "a window that is too wide",
            frame(WINDOW_UPDATE, 0, 0, &most).repeat(2),
            false,
        ),
        (
            "a window that does not grow",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            false,
        ),
        (
            "a setting beyond its bounds",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
            false,
        ),
        (
            "settings of odd length",
            frame(SETTINGS, 0, 0, &[0; 5]),
            false,
        ),
        (
            "a farewell for its own fault",
            frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]),
            true,
        ),
        (
            "another protocol",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec(),
            true,
        ),
    ] {
        let (status, text) = told(what, wrong, closes, "").await;
        assert_eq!(status, 502, "{what}: {text}");
        let error: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(error["error"]["message"].is_string(), "{what}: {text}");
    }
}

#[tokio::test]
async fn what_breaks_off_in_an_answer_ends_its_stream_alone() {
    let chunk = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"raw\",\
        \"choices\":[{\"index\":0,\"delta\":{\"content\":\"Well\"},\"finish_reason\":null}]}\n\n";
    let fields = [(":status", "200"), ("content-type", "text/event-stream")];
    let begun = [headers(1, 0, &fields), frame(DATA, 0, 1, chunk.as_bytes())].concat();
    for (what, last, closes) in [
        ("the end of the connection", Vec::new(), true),
        (
            "a reset",
            frame(RST_STREAM, 0, 1, &2_u32.to_be_bytes()),
            false,
        ),
        (
            "a refusal that comes too late",
            frame(RST_STREAM, 0, 1, &7_u32.to_be_bytes()),
            false,
        ),
        ("a second head", headers(1, 0, &fields), false),
        ("content of no stream", frame(DATA, 0, 0, b"x"), false),
        (
            "the end without one of the answer",
            frame(DATA, END_STREAM, 1, b""),
            false,
        ),
    ] {
        let wrong = [begun.clone(), last].concat();
        let (status, text) = told(what, wrong, closes, ",\"stream\":true").await;
        assert_eq!(status, 200, "{what}: {text}");
        assert!(text.contains("Well"), "{what}: {text}");
        assert!(text.contains("\"error\""), "{what}: {text}");
        assert!(!text.contains("[DONE]"), "{what}: {text}");
    }
}

#[tokio::test]
async fn a_connection_that_waited_and_is_gone_costs_no_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let endpoint = Endpoint::with(move |line: Line| {
        let calls = Arc::clone(&calls);
        async move {
            let mut line = Frames::of_caller(line.stream).await;
            line.say(&frame(SETTINGS, 0, 0, &[])).await;
            while let Some(came) = line.next(PATIENCE).await {
                match came {
                    // Something between the two has forgotten the connection: not a word of the second call.
                    Came::Status(..) if calls.fetch_add(1, Ordering::Relaxed) == 1 => return,
                    Came::Data(stream, body) if !body.is_empty() => {
                        let body = completion("yes");
                        let data = frame(DATA, END_STREAM, stream, body.as_bytes());
                        line.say(&[headers(stream, 0, &OK), data].concat()).await;
                    }
                    _ => {}
                }
            }
        }
    })
    .await;
    let world = world(&endpoint).await;
    for at in 0..3 {
        let call = world
            .client
            .post("/v1/chat/completions", chat("raw", "Hi", ""));
        let reply = timeout(PATIENCE, call).await.unwrap();
        assert_eq!(reply.status, 200, "{at}: {}", reply.text());
    }
    assert_eq!(endpoint.connections(), 2);
}
