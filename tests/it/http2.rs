//! Proves how HTTP/2 is spoken: within limits to callers, who are told when they go beyond them, and to
//! endpoints.

mod endpoints;
mod faults;
mod limits;

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::world::{World, chat};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

type Sender = SendRequest<Full<Bytes>>;

/// A connection, and its end.
async fn connect(address: SocketAddr) -> (Sender, JoinHandle<hyper::Result<()>>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = made.unwrap();
    (sender, tokio::task::spawn(connection))
}

fn get(path: &str) -> http::request::Builder {
    Request::get(format!("http://gateway.test{path}"))
}

async fn status(sender: &mut Sender, request: http::request::Builder) -> Option<u16> {
    let request = request.body(Full::default()).unwrap();
    let answer = sender.send_request(request).await;
    answer.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test]
async fn requests_beyond_the_rules_are_refused_and_the_others_served() {
    let world = World::start("", "").await;
    let (mut sender, _ended) = connect(world.running.address).await;
    assert_eq!(status(&mut sender, get("/")).await, Some(200));
    let other = get("/").header("host", "elsewhere.test");
    assert_eq!(status(&mut sender, other).await, Some(400));
    let same = get("/").header("host", "gateway.test");
    assert_eq!(status(&mut sender, same).await, Some(200));
    let long = get("/").header("x-long", "a".repeat(40_000));
    assert_eq!(status(&mut sender, long).await, Some(431));
    let connect = Request::builder()
        .method(Method::CONNECT)
        .uri("gateway.test:443");
    assert_eq!(status(&mut sender, connect).await, Some(405));
    let trace = get("/").method(Method::TRACE);
    assert_eq!(status(&mut sender, trace).await, Some(405));
    assert_eq!(status(&mut sender, get("/")).await, Some(200));
}

#[tokio::test]
async fn operators_are_served_as_callers_are() {
    let world = World::start("limits.idle_timeout_ms = 300", "").await;
    let (mut sender, ended) = connect(world.running.admin_address).await;
    assert_eq!(status(&mut sender, get("/livez")).await, Some(200));
    assert_eq!(status(&mut sender, get("/api/keys")).await, Some(401));
    let known = get("/api/keys").header("authorization", "Bearer admin-secret");
    assert_eq!(status(&mut sender, known).await, Some(200));
    let other = get("/livez").header("host", "elsewhere.test");
    assert_eq!(status(&mut sender, other).await, Some(400));
    let many = (0..200).fold(get("/livez"), |request, at| {
        request.header(format!("x-{at}"), "y")
    });
    assert_eq!(status(&mut sender, many).await, Some(431));
    assert_eq!(status(&mut sender, get("/livez")).await, Some(200));
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_that_nobody_uses_end() {
    let world = World::start(
        "limits.head_timeout_ms = 300\nlimits.idle_timeout_ms = 300",
        "",
    )
    .await;
    let (sender, ended) = connect(world.running.address).await;
    ended.await.unwrap().unwrap();
    drop(sender);
    let (mut sender, ended) = connect(world.running.address).await;
    assert_eq!(status(&mut sender, get("/")).await, Some(200));
    ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_lets_streams_end() {
    let world = World::start("", "").await;
    world.fast.set_script(bench::upstream::Script {
        output_tokens: 20,
        token_gap_us: 20_000,
        ..tests::world::script(tests::world::FAST)
    });
    let (mut sender, ended) = connect(world.running.address).await;
    let body = chat("fast", "Hi", ",\"stream\":true");
    let request = Request::post("http://gateway.test/v1/chat/completions")
        .header("authorization", format!("Bearer {}", world.client.key))
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let ending = tokio::task::spawn(world.running.shut_down(std::future::pending()));
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"data: [DONE]\n\n"));
    assert_eq!(ending.await.unwrap(), 0);
    ended.await.unwrap().unwrap();
}
