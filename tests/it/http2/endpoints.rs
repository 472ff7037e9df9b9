//! Proves how HTTP/2 is spoken to endpoints: calls share connections as far as the endpoint allows it, slow
//! readers hold up nobody else, and what an endpoint says that it did not touch is sent again, or not charged.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bench::upstream::{Script, Upstream};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::Reply;
use tests::bytes::{Endpoint, Line, completion};
use tests::frames::{Came, DATA, END_STREAM, Frames, GOAWAY, RST_STREAM, SETTINGS, frame, headers};
use tests::world::{FAST, World, chat};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::time::timeout;

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// An endpoint that speaks HTTP/2 from the first byte, and allows `most` calls on a connection. It answers a
/// call that says `together` when `crowd` of them are there, one that says `long` with a stream that is longer
/// than what is underway on a connection, and others at once.
async fn endpoint(calls: Arc<AtomicUsize>, most: u32, crowd: usize) -> Endpoint {
    let crowd = Arc::new(Barrier::new(crowd));
    Endpoint::with(move |line: Line| {
        let (calls, crowd) = (Arc::clone(&calls), Arc::clone(&crowd));
        async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let (calls, crowd) = (Arc::clone(&calls), Arc::clone(&crowd));
                async move { Ok::<_, Infallible>(answer(request, &calls, &crowd).await) }
            });
            let _ended = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(most)
                .serve_connection(TokioIo::new(line.stream), service)
                .await;
        }
    })
    .await
}

async fn answer(
    request: Request<Incoming>,
    calls: &AtomicUsize,
    crowd: &Barrier,
) -> Response<Full<Bytes>> {
    assert_eq!(request.version(), Version::HTTP_2);
    assert_eq!(request.headers()["authorization"], "Bearer up-raw");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let asked = String::from_utf8(body.to_vec()).unwrap();
    assert!(asked.starts_with('{'));
    calls.fetch_add(1, Ordering::Relaxed);
    if asked.contains("together") {
        crowd.wait().await;
    }
    let (kind, text) = if asked.contains("long") {
        ("text/event-stream", long())
    } else {
        ("application/json", completion("yes"))
    };
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    let kind = http::HeaderValue::from_static(kind);
    answer.headers_mut().insert("content-type", kind);
    answer
}

/// A stream of twelve million bytes of text.
fn long() -> String {
    let text = "x".repeat(30_000);
    let chunk = format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"raw\",\"choices\":\
         [{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    );
    let last = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"raw\",\"choices\":\
         [{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
         \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5}}\n\ndata: [DONE]\n\n";
    chunk.repeat(400) + last
}

/// A gateway with one worker in front of it.
pub(super) async fn world(endpoint: &Endpoint) -> World {
    let tables = endpoint.tables();
    let tables = tables.replacen("key =", "http2 = true\nkey =", 1);
    World::start("server.workers = 1", &tables).await
}

/// Makes calls with these bodies, all at once.
async fn answers(world: &World, bodies: impl Iterator<Item = String>) -> Vec<Reply> {
    let calls = bodies.map(|body| {
        let client = world.caller(&world.client.key);
        let call = async move { client.post("/v1/chat/completions", body).await };
        tokio::task::spawn(timeout(PATIENCE, call))
    });
    let calls: Vec<_> = calls.collect();
    let mut replies = Vec::new();
    for call in calls {
        replies.push(call.await.unwrap().expect("an answer"));
    }
    replies
}

/// Makes `count` calls that say `text`, all at once.
async fn calls(world: &World, count: usize, text: &str) {
    let bodies = (0..count).map(|_| chat("raw", text, ""));
    for reply in answers(world, bodies).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert!(reply.text().contains("yes"));
    }
}

#[tokio::test]
async fn calls_share_a_connection() {
    let count = Arc::new(AtomicUsize::new(0));
    let endpoint = endpoint(Arc::clone(&count), 100, 1).await;
    let world = world(&endpoint).await;
    calls(&world, 20, "Hi").await;
    let seen = (count.load(Ordering::Relaxed), endpoint.connections());
    assert_eq!(seen, (20, 1));
}

#[tokio::test]
async fn calls_beyond_what_a_connection_may_bear_get_another() {
    let count = Arc::new(AtomicUsize::new(0));
    let endpoint = endpoint(Arc::clone(&count), 10, 25).await;
    let world = world(&endpoint).await;
    // What the endpoint allows is known from then on.
    calls(&world, 1, "Hi").await;
    calls(&world, 1, "Hi").await;
    calls(&world, 25, "together").await;
    let seen = (count.load(Ordering::Relaxed), endpoint.connections());
    assert_eq!(seen, (27, 3));
}

#[tokio::test]
async fn callers_that_do_not_read_hold_up_nobody_else() {
    let count = Arc::new(AtomicUsize::new(0));
    let endpoint = endpoint(Arc::clone(&count), 100, 1).await;
    let world = world(&endpoint).await;
    let body = chat("raw", "long", ",\"stream\":true");
    let mut silent = Vec::new();
    for _ in 0..3 {
        let mut line = Line::to(world.running.address).await;
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            world.client.key,
            body.len()
        );
        line.say(head).await;
        line.say(&body).await;
        line.until("\r\n\r\n").await.unwrap();
        silent.push(line);
    }
    let client = world.caller(&world.client.key);
    let reading = client.post("/v1/chat/completions", body);
    let reply = timeout(PATIENCE, reading).await.expect("an answer");
    let text = reply.text();
    assert!(text.ends_with("data: [DONE]\n\n"), "{} bytes", text.len());
    assert!(text.len() > 12_000_000);
    assert_eq!(endpoint.connections(), 1);
}

#[tokio::test]
async fn many_streams_at_once_are_whole_and_charged_as_the_endpoint_bills_them() {
    let script = Script {
        output_tokens: 30,
        token_gap_us: 20_000,
        ..tests::world::script(FAST)
    };
    let upstream = Upstream::start(script).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let bridge = tokio::task::spawn(bench::floor::serve(listener, upstream.address, true));
    let tables = format!(
        "[[endpoint]]\nname = \"bridge\"\ndialect = \"openai_chat\"\nurl = \"http://{address}/v1\"\n\
         http2 = true\n[[model]]\nname = \"raw\"\ntier = \"fast\"\nendpoint = \"bridge\"\nprice = \"test/fast\"\n"
    );
    let world = World::start("server.workers = 1", &tables).await;
    let bodies = (0..250).map(|at| {
        let rest = if at % 5 == 0 { "" } else { ",\"stream\":true" };
        chat("raw", "Hi", rest)
    });
    for reply in answers(&world, bodies).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let entries = world.entries().await;
    assert!(entries.iter().all(|it| it.outcome.as_str() == "completed"));
    let billed = upstream.bill();
    assert_eq!((entries.len(), billed.len()), (250, 250));
    let charged: meter::NanoUsd = entries.iter().map(|it| it.cost).sum();
    let owed: u64 = billed.iter().map(|it| it.cost_pico / 1_000).sum();
    assert_eq!(charged.0, i64::try_from(owed).unwrap());
    bridge.abort();
}

/// How an endpoint tells that it did not touch a call.
#[derive(Debug, Clone, Copy)]
enum Refusal {
    Reset,
    GoAway,
}

/// An endpoint that refuses the call of each of its first `refused` connections.
async fn refusing(refusal: Refusal, refused: usize) -> Endpoint {
    let connections = Arc::new(AtomicUsize::new(0));
    Endpoint::with(move |line: Line| {
        let at = connections.fetch_add(1, Ordering::Relaxed);
        async move {
            let mut line = Frames::of_caller(line.stream).await;
            line.say(&frame(SETTINGS, 0, 0, &[])).await;
            let mut stream = None;
            while let Some(came) = line.next(PATIENCE).await {
                match came {
                    // Its fields are not read.
                    Came::Status(at, _) => stream = Some(at),
                    Came::Data(..) => break,
                    _ => {}
                }
            }
            let Some(stream) = stream else {
                return;
            };
            let said = match refusal {
                _ if at >= refused => {
                    let fields = [(":status", "200"), ("content-type", "application/json")];
                    let body = completion("yes");
                    let data = frame(DATA, END_STREAM, stream, body.as_bytes());
                    [headers(stream, 0, &fields), data].concat()
                }
                Refusal::Reset => frame(RST_STREAM, 0, stream, &7_u32.to_be_bytes()),
                Refusal::GoAway => frame(GOAWAY, 0, 0, &[0; 8]),
            };
            line.say(&said).await;
            while line.next(PATIENCE).await.is_some() {}
        }
    })
    .await
}

#[tokio::test]
async fn a_call_that_was_refused_untouched_is_sent_again_on_another_connection() {
    for refusal in [Refusal::Reset, Refusal::GoAway] {
        let endpoint = refusing(refusal, 1).await;
        let world = world(&endpoint).await;
        calls(&world, 1, "Hi").await;
        assert_eq!(endpoint.connections(), 2, "{refusal:?}");
        let entries = world.entries().await;
        let told: Vec<_> = entries.iter().map(|it| it.outcome.as_str()).collect();
        assert_eq!(told, ["completed"], "{refusal:?}");
    }
}

#[tokio::test]
async fn a_call_that_is_refused_untouched_again_and_again_costs_nothing() {
    for refusal in [Refusal::Reset, Refusal::GoAway] {
        let endpoint = refusing(refusal, usize::MAX).await;
        let world = world(&endpoint).await;
        let client = world.caller(&world.client.key);
        let reply = client.post("/v1/chat/completions", chat("raw", "Hi", ""));
        let reply = reply.await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        let entries = world.entries().await;
        assert!(!entries.is_empty());
        for entry in entries {
            assert_eq!(entry.outcome.as_str(), "failed", "{refusal:?}");
            assert_eq!(entry.cost, meter::NanoUsd::ZERO, "{refusal:?}");
        }
    }
}

#[tokio::test]
async fn calls_that_wait_for_a_connection_learn_together_that_there_is_none() {
    // It takes connections, and never says a word of TLS.
    let endpoint = Endpoint::with(|line: Line| async move {
        let _line = line;
        std::future::pending().await
    })
    .await;
    let tables = endpoint.tables().replacen("http:", "https:", 1);
    let tables = tables.replacen("key =", "http2 = true\nkey =", 1);
    let head = "server.workers = 1\nupstream.connect_timeout_ms = 400";
    let world = World::start(head, &tables).await;
    let bodies = (0..12).map(|_| chat("raw", "Hi", ""));
    for reply in answers(&world, bodies).await {
        assert!(reply.status >= 500, "{}", reply.text());
    }
    let dialled = endpoint.connections();
    assert!(dialled < 12, "{dialled} connections for twelve calls");
}
