//! Proves how endpoints' HTTP/1.1 is read: what is malformed is an error and its connection is not used
//! again, what is only unusual is taken, and connections are kept where they can be.

use tests::bytes::{Endpoint, answer, completion};
use tests::world::{World, chat};

async fn world(answers: &[&[u8]]) -> (World, Endpoint) {
    let answers = answers.iter().map(|it| it.to_vec()).collect();
    let endpoint = Endpoint::start(answers).await;
    let world = World::start("", &endpoint.tables()).await;
    (world, endpoint)
}

/// Status and text of a call.
async fn call(world: &World) -> (u16, String) {
    let reply = world
        .client
        .post("/v1/chat/completions", chat("raw", "Hi", ""))
        .await;
    (reply.status, reply.text())
}

#[tokio::test]
async fn malformed_answers_are_errors_and_their_connections_are_closed() {
    let body = completion("no");
    let length = body.len();
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let many = "x-a: b\r\n".repeat(130);
    let wide = format!("x-a: {}\r\n", "b".repeat(66_000));
    for bad in [
        format!("{ok}content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
        format!("{ok}content-length: {length}\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("{ok}content-length: +{length}\r\n\r\n{body}"),
        format!("{ok}transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("{ok}transfer-encoding: chunked\r\n\r\nxyz\r\n{body}\r\n0\r\n\r\n"),
        format!("{ok}transfer-encoding: chunked\r\n\r\n5\r\n{body}\r\n0\r\n\r\n"),
        format!("{ok}{many}content-length: {length}\r\n\r\n{body}"),
        format!("{ok}{wide}content-length: {length}\r\n\r\n{body}"),
        format!("{ok}x-a : b\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("{ok}x-a: b\r\n c\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("{ok}x-a: \0\r\ncontent-length: {length}\r\n\r\n{body}"),
        format!("HTTP/1.1 200 OK\ncontent-length: {length}\n\n{body}"),
        format!("HTTP/2 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
        "ICY 200 OK\r\n\r\n".to_owned(),
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: tea\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\n".repeat(20),
        format!(
            "{ok}content-length: {}\r\nx-then: close\r\n\r\n{body}",
            length + 1
        ),
        format!("{ok}x-then: close\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n"),
    ] {
        let start: String = bad.chars().take(120).collect();
        let (world, endpoint) = world(&[bad.as_bytes(), &answer("yes", "")]).await;
        let (status, text) = call(&world).await;
        assert_eq!(status, 502, "{start:?}: {text}");
        let (status, text) = call(&world).await;
        assert_eq!(status, 200, "{start:?}: {text}");
        assert!(text.contains("yes"), "{start:?}: {text}");
        assert_eq!(endpoint.connections(), 2, "{start:?}");
    }
}

#[tokio::test]
async fn unusual_answers_are_taken() {
    let body = completion("yes");
    let length = body.len();
    let ok = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let wide = format!("x-a: {}\r\n", "b".repeat(40_000));
    let (half, rest) = body.split_at(20);
    for good in [
        format!(
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 100\r\n\r\n{ok}content-length: {length}\r\n\r\n{body}"
        ),
        format!("{ok}{wide}content-length: {length}\r\n\r\n{body}"),
        format!(
            "{ok}transfer-encoding: Chunked\r\n\r\n14;a=b\r\n{half}\r\n{:X}\r\n{rest}\r\n0\r\nx-t: y\r\n\r\n",
            rest.len()
        ),
        format!(
            "HTTP/1.1 200\r\nCONTENT-TYPE:application/json\r\ncontent-length:{length}\r\n\r\n{body}"
        ),
        format!("{ok}x-then: close\r\n\r\n{body}"),
        format!("HTTP/1.0 200 OK\r\ncontent-type: application/json\r\nx-then: close\r\n\r\n{body}"),
    ] {
        let start: String = good.chars().take(120).collect();
        let (world, _endpoint) = world(&[good.as_bytes()]).await;
        for _ in 0..2 {
            let (status, text) = call(&world).await;
            assert_eq!(status, 200, "{start:?}: {text}");
            assert!(text.contains("yes"), "{start:?}: {text}");
        }
    }
}

#[tokio::test]
async fn a_connection_is_used_again_where_that_is_safe() {
    let clean = answer("yes", "");
    let chunked = {
        let body = completion("yes");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes()
    };
    let twice = [clean.clone(), clean.clone()].concat();
    for (what, answered, connections) in [
        ("clean", clean, 1),
        ("chunked", chunked, 1),
        ("it says close", answer("yes", "connection: close\r\n"), 4),
        ("it closes unsaid", answer("yes", "x-then: close\r\n"), 4),
        ("something stands behind it", twice, 4),
    ] {
        let (world, endpoint) = world(&[&answered]).await;
        for times in 1..=4 {
            let (status, text) = call(&world).await;
            assert_eq!(status, 200, "{what}, call {times}: {text}");
            assert!(text.contains("yes"), "{what}: {text}");
            // A word that comes late must be there before the next call looks.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(endpoint.connections(), connections, "{what}");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_out_is_heard() {
    let body = "{\"error\":{\"message\":\"far too long\",\"type\":\"invalid_request_error\"}}";
    let early = format!(
        "!HTTP/1.1 413 Content Too Large\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (world, endpoint) = world(&[early.as_bytes(), &answer("yes", "")]).await;
    let long = chat("raw", &"x".repeat(9 << 20), "");
    let reply = world.client.post("/v1/chat/completions", long).await;
    assert_eq!(reply.status, 413, "{}", reply.text());
    assert!(reply.text().contains("far too long"), "{}", reply.text());
    let (status, text) = call(&world).await;
    assert_eq!((status, endpoint.connections()), (200, 2), "{text}");
}
