//! Proves how HTTP is spoken to operators: as to callers, by the same engine within the same limits, and what is
//! refused is told as a problem document. Their listener has room of its own.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tests::bytes::Line;
use tests::client::raw;
use tests::world::World;
use tests::{Client, Reply};
use tokio::net::TcpStream;

use crate::http1;

const CANARY: &str = "GET /livez HTTP/1.1\r\nhost: canary\r\n\r\n";
const MOST_BODY: usize = 1 << 20;

/// A new key's head, with `fields`.
fn post(fields: &str) -> String {
    format!(
        "POST /api/keys HTTP/1.1\r\nhost: a\r\nauthorization: Bearer admin-secret\r\ncontent-type: application/json\r\n\
         {fields}\r\n"
    )
}

/// Holds an answer, head and body, against what a refusal with `status` must be.
fn is_refused(what: &str, told: &str, status: u16) {
    let (head, body) = told.split_once("\r\n\r\n").unwrap_or_default();
    for field in [
        format!("HTTP/1.1 {status} "),
        "connection: close\r\n".to_owned(),
        "content-type: application/problem+json\r\n".to_owned(),
    ] {
        assert!(format!("{head}\r\n").contains(&field), "{what}: {told}");
    }
    let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
    assert_eq!(
        (&problem["type"], &problem["status"]),
        (&json!("about:blank"), &json!(status)),
        "{what}: {told}"
    );
    assert!(problem["detail"].is_string(), "{what}: {told}");
}

#[tokio::test]
async fn malformed_requests_of_operators_are_refused_with_a_problem_document() {
    let world = World::start("limits.head_timeout_ms = 1000", "").await;
    let mut cases = http1::malformed();
    let get = "GET /livez HTTP/1.1\r\n";
    for (request, status) in [
        (format!("{get}\r\n"), 400),
        (format!("{get}host: a\r\nhost: a\r\n\r\n"), 400),
        (format!("{get}host: a/b\r\n\r\n"), 400),
        (format!("{get}host: u@a\r\n\r\n"), 400),
        (
            format!("{get}host: a\r\ncontent-encoding: gzip\r\n\r\n"),
            415,
        ),
        (
            format!("{get}host: a\r\nx-pareto-tenant: a\r\nx-pareto-tenant: b\r\n\r\n"),
            400,
        ),
        ("CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), 405),
        // Whoever may send a body, and does not do so well.
        (post("content-length: 99999999999\r\n"), 413),
        (post(&format!("content-length: {}\r\n", MOST_BODY + 1)), 413),
        (
            format!(
                "{}{:x}\r\n{}\r\n0\r\n\r\n",
                post("transfer-encoding: chunked\r\n"),
                MOST_BODY + 1,
                " ".repeat(MOST_BODY + 1)
            ),
            413,
        ),
    ] {
        cases.push((request, status));
    }
    for (request, status) in cases {
        let start: String = request.chars().take(90).collect();
        let bytes = format!("{request}{CANARY}");
        let told = raw(world.running.admin_address, bytes.as_bytes()).await;
        let told = told.unwrap_or_else(|| panic!("{start:?}: it stayed open"));
        is_refused(&start, &told, status);
        assert!(!told.contains("HTTP/1.1 200"), "{start:?}: {told}");
    }
}

#[tokio::test]
async fn operators_that_are_silent_or_slow_are_cut_and_the_others_served() {
    let world = World::start(
        "limits.head_timeout_ms = 500\nlimits.body_timeout_ms = 500\nlimits.idle_timeout_ms = 700",
        "",
    )
    .await;
    let half = post("content-length: 99\r\n") + "{";
    let chunk = post("transfer-encoding: chunked\r\n") + "1\r\n{\r\n";
    let idle = CANARY.to_owned();
    for (what, bytes, status) in [
        ("nothing", "", None),
        ("half of HTTP/2's preface", "PRI * HTTP/2", None),
        ("half a first line", "GET /li", Some(408)),
        (
            "half a head",
            "GET /livez HTTP/1.1\r\nhost: a\r\n",
            Some(408),
        ),
        ("half a body", &half, Some(408)),
        ("half a body in chunks", &chunk, Some(408)),
        ("a request, and then nothing", &idle, Some(200)),
    ] {
        let slow = raw(world.running.admin_address, bytes.as_bytes());
        let quick = async {
            let mut line = Line::to(world.running.admin_address).await;
            line.say(CANARY).await;
            line.message(true).await.unwrap().status()
        };
        let (told, status_beside) = tokio::join!(slow, quick);
        let told = told.unwrap_or_else(|| panic!("{what}: it stayed open"));
        assert_eq!(status_beside, 200, "{what}");
        match status {
            None => assert_eq!(told, "", "{what}"),
            Some(200) => assert!(told.ends_with("\r\n\r\nok"), "{what}: {told}"),
            Some(status) => is_refused(what, &told, status),
        }
    }
    // A byte now and then is no progress.
    let mut line = Line::to(world.running.admin_address).await;
    for byte in "GET /livez HTTP/1.1\r\nhost: a\r\nx: yyyyyyyyyyyyy".chars() {
        line.say(byte.to_string()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = String::from_utf8(line.rest().await).unwrap();
    is_refused("byte by byte", &told, 408);
}

#[tokio::test]
async fn operators_requests_are_answered_in_order_on_one_connection() {
    let world = World::start("", "").await;
    let get = |target: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer admin-secret\r\n\r\n")
    };
    let owner = "{\"tenant\":\"umbra\"}";
    let sent = post(&format!("content-length: {}\r\n", owner.len())) + owner;
    let ahead = [
        CANARY.to_owned(),
        get("/nowhere").replace("GET", "HEAD"),
        get("/nowhere"),
        sent,
        get("/api/export?format=jsonl"),
        get("/livez").replace("GET", "FOO"),
        get("/livez").replace("GET", "TRACE"),
        "GET /api/keys HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        get("/api/keys").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n"),
        CANARY.to_owned(),
    ];
    let mut line = Line::to(world.running.admin_address).await;
    line.say(ahead.concat()).await;
    assert_eq!(line.message(true).await.unwrap().text(), "ok");
    let head = line.message(false).await.unwrap();
    let whole = line.message(true).await.unwrap();
    assert_eq!((head.status(), whole.status()), (404, 404));
    let length = whole.body.len().to_string();
    assert_eq!(
        (head.field("content-length"), whole.field("content-length")),
        (length.clone(), length)
    );
    let created = line.message(true).await.unwrap();
    assert_eq!(created.status(), 201, "{}", created.text());
    let streamed = line.message(true).await.unwrap();
    assert_eq!(
        (
            streamed.status(),
            streamed.field("transfer-encoding").as_str()
        ),
        (200, "chunked")
    );
    for status in [501, 405] {
        let told = line.message(true).await.unwrap();
        assert_eq!(
            (told.status(), told.field("content-type").as_str()),
            (status, "application/problem+json")
        );
    }
    assert_eq!(line.message(true).await.unwrap().status(), 401);
    let last = line.message(true).await.unwrap();
    assert_eq!(
        (last.status(), last.field("connection").as_str()),
        (200, "close")
    );
    assert!(last.text().contains("umbra"), "{}", last.text());
    assert!(line.rest().await.is_empty());
}

#[tokio::test]
async fn an_operator_that_waits_for_a_word_hears_it_when_its_body_is_wanted() {
    let world = World::start("", "").await;
    let owner = "{\"tenant\":\"umbra\"}";
    let head = post(&format!(
        "expect: 100-continue\r\ncontent-length: {}\r\n",
        owner.len()
    ));
    let mut line = Line::to(world.running.admin_address).await;
    line.say(&head).await;
    let word = line.message(false).await.unwrap();
    assert_eq!(word.head, "HTTP/1.1 100 Continue\r\n\r\n");
    line.say(owner).await;
    assert_eq!(line.message(true).await.unwrap().status(), 201);
    let mut stranger = Line::to(world.running.admin_address).await;
    stranger.say(head.replace("admin-secret", "guess")).await;
    let told = stranger.message(true).await.unwrap();
    assert_eq!(
        (told.status(), told.field("connection").as_str()),
        (401, "close")
    );
}

#[tokio::test]
async fn operators_come_in_when_callers_have_all_their_places_and_leave_some_to_each_other() {
    let world = World::start("limits.connections = 4\nlimits.connections_per_ip = 4", "").await;
    let mut callers = Vec::new();
    for _ in 0..8 {
        callers.push(TcpStream::connect(world.running.address).await.unwrap());
    }
    assert_eq!(world.admin().get("/api/keys").await.status, 200);
    let mut open = Vec::new();
    let refused = loop {
        let mut line = Line::to(world.running.admin_address).await;
        line.say(CANARY).await;
        match line.message(true).await {
            Some(told) => assert_eq!(told.status(), 200),
            None => break true,
        }
        open.push(line);
        if open.len() > 1_000 {
            break false;
        }
    };
    assert!(refused && open.len() >= 6, "{} were open", open.len());
    let address = world.running.admin_address;
    let other = Client::from([127, 0, 0, 2].into(), address, "admin-secret");
    assert_eq!(other.get("/api/keys").await.status, 200);
    drop(open);
    let back = || async { world.admin().get("/livez").await };
    let is_in = |reply: &Reply| reply.status == 200;
    while !is_in(&back().await) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_end_of_the_gateway_closes_operators_connections() {
    let world = World::start("", "").await;
    let stream = TcpStream::connect(world.running.admin_address).await;
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream.unwrap())).await;
    let (mut sender, connection) = made.unwrap();
    let framed = tokio::task::spawn(connection);
    let request = Request::get("http://gateway.test/livez").body(Empty::<Bytes>::new());
    let answer = sender.send_request(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert!(answer.into_body().collect().await.is_ok());
    let mut idle = Line::to(world.running.admin_address).await;
    idle.say(CANARY).await;
    assert_eq!(idle.message(true).await.unwrap().status(), 200);
    let mut fresh = Line::to(world.running.admin_address).await;
    let address = world.running.admin_address;
    world.running.shut_down(std::future::pending()).await;
    assert!(idle.rest().await.is_empty());
    assert!(fresh.rest().await.is_empty());
    framed.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}
