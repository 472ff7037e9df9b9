//! Proves that what the HTTP library lets through is refused here: hosts, framing, sizes, silence.
//! Each answer is a clear 4xx in the caller's dialect, or the connection closes.

use http::Method;
use tests::Client;
use tests::client::raw;
use tests::world::{World, chat};

const HEAD: &str = "POST /v1/chat/completions HTTP/1.1\r\n";

#[tokio::test]
async fn malformed_heads_are_refused_and_the_connection_closes() {
    let world = World::start("limits.head_timeout_ms = 1000", "").await;
    let canary = "GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n";
    for (what, request) in [
        (
            "no host",
            format!("{HEAD}content-length: 0\r\n\r\n{canary}"),
        ),
        (
            "two hosts",
            format!("{HEAD}host: a\r\nhost: b\r\ncontent-length: 0\r\n\r\n{canary}"),
        ),
        (
            "a host with a path",
            format!("{HEAD}host: a/b\r\ncontent-length: 0\r\n\r\n{canary}"),
        ),
        (
            "a host with a user",
            format!("{HEAD}host: u@a\r\ncontent-length: 0\r\n\r\n{canary}"),
        ),
        (
            "chunked twice",
            format!(
                "{HEAD}host: a\r\ntransfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n{canary}"
            ),
        ),
        (
            "two codings",
            format!(
                "{HEAD}host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{canary}"
            ),
        ),
        (
            "gzip",
            format!("{HEAD}host: a\r\ncontent-encoding: gzip\r\ncontent-length: 0\r\n\r\n{canary}"),
        ),
        (
            "two lengths",
            format!("{HEAD}host: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"),
        ),
        (
            "a bad length",
            format!("{HEAD}host: a\r\ncontent-length: -1\r\n\r\n"),
        ),
        ("no protocol at all", "hello\r\n\r\n".to_owned()),
    ] {
        let answer = raw(world.client.address, request.as_bytes()).await;
        let answer = answer.unwrap_or_else(|| panic!("{what}: the connection stayed open"));
        let status = if what == "gzip" { 415 } else { 400 };
        let start = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&start), "{what}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.1 4").count() + answer.matches("HTTP/1.1 2").count(),
            1,
            "{what}: the next bytes were served\n{answer}"
        );
    }
    assert_eq!(world.bill().len(), 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_or_too_little_is_closed() {
    let world = World::start(
        "limits.head_timeout_ms = 300\nlimits.body_timeout_ms = 300",
        "",
    )
    .await;
    for (what, bytes) in [
        ("nothing", String::new()),
        ("half a head", format!("{HEAD}host: a\r\n")),
        ("half of HTTP/2's preface", "PRI * HTTP/2".to_owned()),
        (
            "half a body",
            format!(
                "{HEAD}host: a\r\nauthorization: Bearer {}\r\ncontent-length: 99\r\n\r\n{{",
                world.client.key
            ),
        ),
    ] {
        let answer = raw(world.client.address, bytes.as_bytes()).await;
        assert!(answer.is_some(), "{what}: it stayed open");
        if what == "half a body" {
            let answer = answer.unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 408 ") && answer.contains("body_timeout"),
                "{answer}"
            );
        }
    }
}

#[tokio::test]
async fn bad_bodies_are_told_in_the_callers_dialect() {
    let world = World::start("limits.body_bytes = 1000", "").await;
    let long = chat("fast", &"x".repeat(2_000), "");
    for (body, status, code) in [
        ("{\"model\":\"fast\"", 400, "invalid_json"),
        ("[]", 400, "invalid_json"),
        ("", 400, "invalid_json"),
        ("{\"messages\":[{}]}", 400, "invalid_field"),
        ("{\"model\":\"fast\"}", 400, "invalid_field"),
        ("{\"model\":\"fast\",\"messages\":[]}", 400, "invalid_field"),
        (
            "{\"model\":\"fast\",\"model\":\"deep\",\"messages\":[]}",
            400,
            "duplicate_field",
        ),
        (
            "{\"model\":\"fast\",\"mo\\u0064el\":\"deep\",\"messages\":[]}",
            400,
            "duplicate_field",
        ),
        (
            "{\"model\":\"fast\",\"Model\":\"deep\",\"messages\":[]}",
            400,
            "duplicate_field",
        ),
        (
            "{\"model\":\"gpt-9\",\"messages\":[{}]}",
            404,
            "model_not_found",
        ),
        (&long, 413, "body_too_large"),
    ] {
        let chat = world
            .client
            .post("/v1/chat/completions", body.to_owned())
            .await;
        assert_eq!(
            (chat.status, &chat.json()["error"]["code"]),
            (status, &code.into()),
            "{body}"
        );
        assert!(chat.json()["error"]["message"].is_string());
        let messages = world.client.post("/v1/messages", body.to_owned()).await;
        assert_eq!(
            (messages.status, &messages.json()["type"]),
            (status, &"error".into()),
            "{body}"
        );
        assert_eq!(
            messages.json()["request_id"],
            messages.header("x-request-id").as_str()
        );
    }
    assert_eq!(world.bill().len(), 0, "no upstream saw any of it");
}

#[tokio::test]
async fn a_long_body_is_refused_before_it_is_read() {
    let world = World::start("", "").await;
    let head = format!(
        "{HEAD}host: a\r\nauthorization: Bearer {}\r\ncontent-length: 99999999999\r\n\r\n",
        world.client.key
    );
    let answer = raw(world.client.address, head.as_bytes())
        .await
        .expect("it closes");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

#[tokio::test]
async fn other_paths_and_methods_are_told_so() {
    let world = World::start("", "").await;
    let send = |method: &'static str, path: &'static str| {
        let client = world.client.clone();
        async move {
            client
                .send(method.parse().unwrap(), path, &[], "")
                .await
                .status
        }
    };
    assert_eq!(send("GET", "/v1/chat/completions").await, 405);
    for (method, path, allow) in [
        ("GET", "/v1/messages", "POST"),
        ("OPTIONS", "/v1/messages/count_tokens", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("OPTIONS", "/", "GET, HEAD"),
        ("PUT", "/v1/responses/resp_1", "GET, DELETE"),
        ("GET", "/v1/conversations", "POST"),
        ("TRACE", "/", "GET, HEAD, POST"),
    ] {
        let method = method.parse().unwrap();
        let reply = world.client.send(method, path, &[], "").await;
        let told = reply.headers.get("allow").map(|it| it.to_str().unwrap());
        assert_eq!((reply.status, told), (405, Some(allow)), "{path}");
    }
    let stranger = Client::new(world.client.address, "");
    let unknown = stranger.get("/v1/models").await;
    assert_eq!(unknown.status, 401);
    assert!(unknown.headers.contains_key("www-authenticate"));
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    let reply = world
        .client
        .send(Method::GET, "/v1/responses", &upgrade, "")
        .await;
    assert_eq!(reply.status, 426);
    assert!(reply.headers.contains_key("upgrade"));
    assert_eq!(reply.headers["connection"], "upgrade");
    assert_eq!(send("FOO", "/").await, 501);
    assert_eq!(send("get", "/").await, 501);
    let twice = [("x-pareto-max-cost", "1"), ("x-pareto-max-cost", "0.001")];
    assert_eq!(
        world.client.send(Method::GET, "/", &twice, "").await.status,
        400
    );
    assert_eq!(send("TRACE", "/").await, 405);
    assert_eq!(send("POST", "/v1/nothing").await, 404);
    assert_eq!(send("HEAD", "/").await, 200);
    assert_eq!(send("GET", "/").await, 200);
    assert_eq!(
        send("GET", "/metrics").await,
        404,
        "operators have their own listener"
    );
    assert_eq!(send("GET", "/api/keys").await, 404);
}
