//! Proves how callers' HTTP/1.1 is spoken: what is malformed is refused in the caller's dialect and never
//! served as something else, connections are used again in order, and a caller that leaves, stalls or
//! lingers is noticed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::upstream::{Fault, Script};
use meter::{Entry, Outcome};
use tests::bytes::{Endpoint, Line, Message};
use tests::client::raw;
use tests::world::{FAST, World, chat, script};

const CANARY: &str = "GET / HTTP/1.1\r\nhost: canary\r\n\r\n";

/// A call of `key` with `body`, whose head has `fields` too.
fn call(key: &str, fields: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n{fields}content-length: \
         {length}\r\n\r\n{body}"
    )
}

/// The same in chunks, as `coded`.
fn chunked(key: &str, coded: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\ntransfer-encoding: \
         chunked\r\n\r\n{coded}"
    )
}

async fn exchange(world: &World, request: &str) -> Option<Message> {
    let mut line = Line::to(world.running.address).await;
    line.say(request).await;
    line.message(true).await
}

/// Requests that are none, with the status of what is told, whoever listens.
pub(crate) fn malformed() -> Vec<(String, u16)> {
    let get = "GET /v1/models HTTP/1.1\r\nhost: a\r\n";
    let post = "POST /v1/messages HTTP/1.1\r\nhost: a\r\n";
    let long = "a".repeat(9_000);
    let fields = "x-a: b\r\n".repeat(101);
    let wide = format!("x-a: {}\r\n", "b".repeat(33_000));
    let mut cases: Vec<(String, u16)> = Vec::new();
    for (request, status) in [
        ("hello\r\n\r\n".to_owned(), 400),
        ("GET /\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/0.9\r\nhost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/2.0\r\nhost: a\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/1.1\nhost: a\n\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: a\n\r\n".to_owned(), 400),
        ("GET  / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        ("GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 400),
        (
            "GET http://b@c/ HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET /{long} HTTP/1.1\r\nhost: a\r\n\r\n"), 414),
        (
            format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(100)),
            501,
        ),
        (format!("{get}{fields}\r\n"), 431),
        (format!("{get}{wide}\r\n"), 431),
        (format!("{get}x-a : b\r\n\r\n"), 400),
        (format!("{get}x-a: b\r\n c\r\n\r\n"), 400),
        (format!("{get} x-a: b\r\n\r\n"), 400),
        (format!("{get}x-a: b\0c\r\n\r\n"), 400),
        (format!("{get}x-a: b\rc\r\n\r\n"), 400),
        (format!("{get}x-a\r\n\r\n"), 400),
        (format!("{get}expect: a-miracle\r\n\r\n"), 417),
    ] {
        cases.push((request, status));
    }
    for framing in [
        "content-length: 1\r\ncontent-length: 1\r\n",
        "content-length: 1, 1\r\n",
        "content-length: +1\r\n",
        "content-length: 0x1\r\n",
        "content-length: -1\r\n",
        "content-length: 99999999999999999999\r\n",
        "content-length:\r\n",
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding : chunked\r\n",
    ] {
        cases.push((format!("{post}{framing}\r\n0\r\n\r\n"), 400));
    }
    let old =
        "POST /v1/messages HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    cases.push((old.to_owned(), 400));
    for chunks in [
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "g\r\na\r\n0\r\n\r\n",
        "fffffffffffffffff\r\na\r\n0\r\n\r\n",
        "ffffffffffffffff\r\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        "1;\0\r\na\r\n0\r\n\r\n",
        "1;a\nb\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "0\r\na b: c\r\n\r\n",
        "0\r\na: b\n\r\n",
    ] {
        cases.push((
            format!("{post}transfer-encoding: chunked\r\n\r\n{chunks}"),
            400,
        ));
    }
    // A coding that nobody here knows is another matter than one that is not to be had so.
    cases.push((
        format!("{post}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        501,
    ));
    cases
}

#[tokio::test]
async fn malformed_requests_are_refused_and_what_follows_is_not_served() {
    let world = World::start("", "").await;
    for (request, status) in malformed() {
        let start: String = request.chars().take(90).collect();
        let told = raw(
            world.client.address,
            format!("{request}{CANARY}").as_bytes(),
        )
        .await;
        let told = told.unwrap_or_else(|| panic!("{start:?}: it stayed open"));
        assert!(
            told.starts_with(&format!("HTTP/1.1 {status} ")),
            "{start:?}: {told}"
        );
        assert!(!told.contains("HTTP/1.1 200"), "{start:?}: {told}");
        assert!(told.contains("connection: close\r\n"), "{start:?}: {told}");
        let is_anthropic = told.contains("{\"type\":\"error\"");
        assert_eq!(
            is_anthropic,
            request.contains("/v1/messages"),
            "{start:?}: {told}"
        );
        assert!(told.contains("request-id: req_"), "{start:?}: {told}");
    }
}

#[tokio::test]
async fn a_chunk_that_breaks_later_is_refused_as_well() {
    let world = World::start("", "").await;
    let mut line = Line::to(world.running.address).await;
    line.say(chunked(&world.client.key, "5\r\n{\"mod\r\n"))
        .await;
    let other = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(other.status, 200);
    line.say(format!("zz\r\n{CANARY}")).await;
    let told = line.message(true).await.unwrap();
    assert_eq!(
        (told.status(), told.field("connection").as_str()),
        (400, "close")
    );
    assert!(told.text().contains("body_incomplete"), "{}", told.text());
    assert!(line.rest().await.is_empty());
}

#[tokio::test]
async fn requests_are_served_however_they_are_cut() {
    let world = World::start("", "").await;
    let body = chat("fast", "Hi", "");
    let coded = format!(
        "{:x};a=\"b\"\r\n{}\r\n{:X}\r\n{}\r\n0\r\nx-t: y\r\n\r\n",
        7,
        &body[..7],
        body.len() - 7,
        &body[7..]
    );
    let key = &world.client.key;
    for request in [call(key, "", &body), chunked(key, &coded)] {
        for length in [1, 7, 64, 200] {
            let mut line = Line::to(world.running.address).await;
            for piece in request.as_bytes().chunks(length) {
                line.say(piece).await;
                tokio::task::yield_now().await;
            }
            let told = line.message(true).await.expect("an answer");
            assert_eq!(told.status(), 200, "pieces of {length}: {}", told.text());
        }
    }
    let entries = world.entries().await;
    assert!(entries.iter().all(|it| it.outcome == Outcome::Completed));
    assert_eq!(entries.len(), 8);
}

#[tokio::test]
async fn requests_sent_ahead_are_answered_in_order_on_one_connection() {
    let world = World::start("", "").await;
    let key = &world.client.key;
    let stream = chat("fast", "Hi", ",\"stream\":true");
    let ahead = [
        call(key, "", &chat("fast", "Hi", "")),
        "HEAD / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        call(key, "", &stream),
        format!("GET /v1/models HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\r\n"),
        "GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n".to_owned(),
        CANARY.to_owned(),
    ];
    let mut line = Line::to(world.running.address).await;
    line.say(ahead.concat()).await;
    let first = line.message(true).await.unwrap();
    assert!(first.text().contains("chat.completion"), "{}", first.text());
    let head = line.message(false).await.unwrap();
    assert_eq!(
        (head.status(), head.field("content-length").as_str()),
        (200, "17")
    );
    let third = line.message(true).await.unwrap();
    assert!(
        third.text().ends_with("data: [DONE]\n\n"),
        "{}",
        third.text()
    );
    assert_eq!(third.field("transfer-encoding"), "chunked");
    let fourth = line.message(true).await.unwrap();
    assert!(fourth.text().contains("\"auto\""), "{}", fourth.text());
    assert_eq!(line.message(true).await.unwrap().status(), 404);
    let last = line.message(true).await.unwrap();
    assert_eq!(
        (last.status(), last.field("connection").as_str()),
        (200, "close")
    );
    assert!(
        line.rest().await.is_empty(),
        "nothing behind `close` is served"
    );
}

#[tokio::test]
async fn old_callers_get_what_they_can_read() {
    let world = World::start("", "").await;
    let mut line = Line::to(world.running.address).await;
    line.say("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        .await;
    let kept = line.message(true).await.unwrap();
    assert_eq!(
        (kept.status(), kept.field("connection").as_str()),
        (200, "keep-alive")
    );
    let body = chat("fast", "Hi", ",\"stream\":true");
    let call = call(&world.client.key, "", &body).replace("HTTP/1.1", "HTTP/1.0");
    line.say(call).await;
    let streamed = line.message(true).await.unwrap();
    assert_eq!(streamed.field("transfer-encoding"), "");
    assert_eq!(streamed.field("connection"), "close");
    assert!(streamed.text().ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_caller_that_waits_for_a_word_hears_it_when_its_body_is_wanted() {
    let world = World::start("", "").await;
    let body = chat("fast", "Hi", "");
    let expecting = |key: &str| call(key, "expect: 100-continue\r\n", &body);
    let mut line = Line::to(world.running.address).await;
    let request = expecting(&world.client.key);
    let (head, rest) = request.split_at(request.len() - body.len());
    line.say(head).await;
    let word = line.message(false).await.unwrap();
    assert_eq!(word.head, "HTTP/1.1 100 Continue\r\n\r\n");
    line.say(rest).await;
    assert_eq!(line.message(true).await.unwrap().status(), 200);
    let mut stranger = Line::to(world.running.address).await;
    let request = expecting("sk-par-none-none");
    stranger.say(&request[..request.len() - body.len()]).await;
    let told = stranger.message(true).await.unwrap();
    assert_eq!(
        (told.status(), told.field("connection").as_str()),
        (401, "close")
    );
}

#[tokio::test]
async fn a_refusal_reaches_a_caller_that_is_still_sending() {
    let world = World::start("limits.body_bytes = 1000000", "").await;
    let mut line = Line::to(world.running.address).await;
    let body = "x".repeat(1_900_000);
    line.say(call(&world.client.key, "", &body)).await;
    let told = line.message(true).await.expect("no reset overtakes it");
    assert_eq!(told.status(), 413);
    assert!(line.rest().await.is_empty());
}

#[tokio::test]
async fn a_connection_serves_so_many_requests_and_an_address_has_so_many_connections() {
    let world = World::start("limits.requests = 3\nlimits.connections_per_ip = 2", "").await;
    let mut line = Line::to(world.running.address).await;
    for left in [2, 1, 0] {
        line.say(CANARY).await;
        let told = line.message(true).await.unwrap();
        let closes = told.field("connection") == "close";
        assert_eq!((told.status(), closes), (200, left == 0));
    }
    assert!(line.rest().await.is_empty());
    drop(line);
    let mut open = Vec::new();
    // The one before may not be counted out yet.
    while open.len() < 2 {
        let mut line = Line::to(world.running.address).await;
        line.say(CANARY).await;
        if line.message(true).await.is_some() {
            open.push(line);
        }
    }
    let mut third = Line::to(world.running.address).await;
    third.say(CANARY).await;
    assert!(third.message(true).await.is_none());
    drop(open.pop());
    while {
        let mut line = Line::to(world.running.address).await;
        line.say(CANARY).await;
        line.message(true).await.is_none()
    } {}
}

/// An endpoint that says nothing, and notes when its caller has left.
async fn silent() -> (Endpoint, Arc<AtomicUsize>) {
    let left = Arc::new(AtomicUsize::new(0));
    let noted = Arc::clone(&left);
    let endpoint = Endpoint::with(move |mut line| {
        let noted = Arc::clone(&noted);
        async move {
            let _call = line.message(true).await;
            line.rest().await;
            noted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (endpoint.await, left)
}

/// The entries, once there are so many.
async fn settled(world: &World, number: usize) -> Vec<Entry> {
    for _ in 0..1_000 {
        let entries = world.entries().await;
        if entries.len() == number {
            return entries;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never came: {number} entries");
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_call() {
    let (endpoint, left) = silent().await;
    let world = World::start("", &endpoint.tables()).await;
    let key = &world.client.key;
    for (times, body) in [chat("raw", "Hi", ""), chat("raw", "Hi", ",\"stream\":true")]
        .iter()
        .enumerate()
    {
        let mut line = Line::to(world.running.address).await;
        line.say(call(key, "", body)).await;
        // What is sent ahead changes nothing.
        line.say(CANARY).await;
        world
            .until("the call", |_| endpoint.connections() == times + 1)
            .await;
        drop(line);
        world
            .until("its end", |_| left.load(Ordering::Relaxed) == times + 1)
            .await;
    }
    let entries = settled(&world, 2).await;
    assert!(
        entries.iter().all(|it| it.outcome == Outcome::Disconnected),
        "{entries:?}"
    );
}

#[tokio::test]
async fn a_caller_that_does_not_read_stops_the_endpoint_and_is_cut() {
    let (sent, ended) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, noted) = (Arc::clone(&sent), Arc::clone(&ended));
    let endpoint = Endpoint::with(move |mut line| {
        let (sent, ended) = (Arc::clone(&counted), Arc::clone(&noted));
        async move {
            use tokio::io::AsyncWriteExt;
            let _call = line.message(true).await;
            line.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
                .await;
            let text = "x".repeat(4_000);
            let event = format!(
                "data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
            );
            while line.stream.write_all(event.as_bytes()).await.is_ok() {
                sent.fetch_add(event.len(), Ordering::Relaxed);
            }
            ended.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let world = World::start("limits.write_timeout_ms = 2000", &endpoint.tables()).await;
    let mut line = Line::to(world.running.address).await;
    let body = chat("raw", "Hi", ",\"stream\":true");
    line.say(call(&world.client.key, "", &body)).await;
    world
        .until("the stream", |_| sent.load(Ordering::Relaxed) > 0)
        .await;
    // Sockets hold some megabytes on the way; the gateway adds next to nothing.
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent.load(Ordering::Relaxed);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before < 64 << 20, "{before} bytes");
    world
        .until("the cut", |_| ended.load(Ordering::Relaxed) == 1)
        .await;
    let entries = settled(&world, 1).await;
    assert_eq!(entries[0].outcome, Outcome::Disconnected);
    drop(line);
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_the_others_after_their_answer() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        output_tokens: 20,
        token_gap_us: 20_000,
        fault: None::<Fault>,
        ..script(FAST)
    });
    let address = world.running.address;
    let mut idle = Line::to(address).await;
    idle.say(CANARY).await;
    assert_eq!(idle.message(true).await.unwrap().status(), 200);
    let mut fresh = Line::to(address).await;
    let mut busy = Line::to(address).await;
    let body = chat("fast", "Hi", "");
    busy.say(call(&world.client.key, "", &body)).await;
    world
        .until("the call", |world| world.fast.calls() == 1)
        .await;
    let mut streaming = Line::to(address).await;
    let body = chat("fast", "Hi", ",\"stream\":true");
    streaming.say(call(&world.client.key, "", &body)).await;
    assert!(streaming.until("content").await.is_some());
    let ending = tokio::task::spawn(world.running.shut_down(std::future::pending()));
    assert!(idle.rest().await.is_empty());
    assert!(fresh.rest().await.is_empty());
    let told = busy.message(true).await.unwrap();
    assert_eq!(
        (told.status(), told.field("connection").as_str()),
        (200, "close")
    );
    let rest = String::from_utf8(streaming.rest().await).unwrap();
    assert!(rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"), "{rest}");
    assert_eq!(ending.await.unwrap(), 0, "none was cut");
    assert!(exchange_refused(address).await);
}

/// Whether nobody listens any more.
async fn exchange_refused(address: std::net::SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_err()
}

#[tokio::test]
async fn no_answer_is_lost_when_a_caller_ends_its_side_first() {
    let world = World::start("", "").await;
    let mut line = Line::to(world.running.address).await;
    line.say(CANARY).await;
    tokio::io::AsyncWriteExt::shutdown(&mut line.stream)
        .await
        .unwrap();
    assert_eq!(line.message(true).await.unwrap().status(), 200);
    assert!(line.rest().await.is_empty());
    // And neither is half a request answered as if it were one.
    let mut line = Line::to(world.running.address).await;
    line.say("GET / HTTP/1.1\r\nhost: a\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut line.stream)
        .await
        .unwrap();
    assert!(line.rest().await.is_empty());
    let told = exchange(&world, &call(&world.client.key, "", "{}"))
        .await
        .unwrap();
    assert_eq!(told.status(), 400);
}
