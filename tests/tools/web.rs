//! Servers on streamable HTTP: one of the library's own, and some that answer as no server should.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use orchestrator::tool::config::{Secret, ServerConfig};
use orchestrator::tool::{Outcome, Tools};
use serde_json::{Value, json};
use tests::MemoryLog;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{Kit, SERVER, call, done};

fn at(url: &str) -> ServerConfig {
    ServerConfig {
        url: Some(url.to_owned()),
        call_ms: 2_000,
        ..ServerConfig::named("rec")
    }
}

fn kit(config: ServerConfig) -> Kit {
    let folder = tempfile::tempdir().unwrap();
    Kit::of(vec![config], Arc::new(MemoryLog::new(0)), folder)
}

/// The recorder on HTTP, which lives as long as the child.
async fn listening(folder: &std::path::Path, words: &[&str]) -> (tokio::process::Child, String) {
    let mut server = tokio::process::Command::new(SERVER)
        .arg("--log")
        .arg(folder.join("book.jsonl"))
        .arg("--http")
        .args(words)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let url = lines.next_line().await.unwrap().unwrap();
    (server, url)
}

#[tokio::test]
async fn streamable_http_works_in_the_new_way_and_in_the_old() {
    for words in [&[][..], &["--legacy"]] {
        let folder = tempfile::tempdir().unwrap();
        let (mut server, url) = listening(folder.path(), words).await;
        let kit = Kit::of(vec![at(&url)], Arc::new(MemoryLog::new(0)), folder);
        let arguments = json!({ "to": "ada", "text": "hello" });
        done(kit.call("record_send", arguments.clone()).await);
        let calls = kit.book().calls("record_send");
        assert_eq!(calls[0]["arguments"], arguments);
        assert_eq!(calls[0]["key"], "key-1");
        // Its word that its tools have changed comes by a stream of its own.
        done(kit.call("mutate", json!({})).await);
        while kit.offer().await.withheld.is_empty() {
            tokio::task::yield_now().await;
        }
        // A crash in flight, and then nobody is there.
        let crashed = kit.call("crash_after", json!({})).await;
        assert!(matches!(crashed, Outcome::Lost(_)), "{crashed:?}");
        server.wait().await.unwrap();
        let put = call("rec__record_put", Default::default(), json!({}));
        let outcome = kit.host.call(put).await;
        assert!(!matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        assert!(!matches!(outcome, Outcome::Lost(_)), "{outcome:?}");
        kit.stop().await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_not_sent_to() {
    let (address, _nobody) = tests::bytes::nobody();
    let url = format!("http://{address}/mcp");
    let kit = kit(at(&url));
    let outcome = kit
        .host
        .call(call("rec__x", Default::default(), json!({})))
        .await;
    assert!(matches!(outcome, Outcome::NotSent(_)), "{outcome:?}");
    kit.stop().await;
}

/// Reads one request: its head, and its body as JSON.
async fn read(stream: &mut TcpStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let read = stream.read(&mut piece).await.ok()?;
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                let json = serde_json::from_str(body).unwrap_or_default();
                return Some((head.to_owned(), json));
            }
        }
        if read == 0 {
            return None;
        }
    }
}

/// What a scripted server does with `tools/call`.
type Script = fn(&str, &Value) -> String;

/// A server of the old handshake with one tool, whose answer to a call is written as it is and then cut
/// off. Counts calls.
async fn scripted(script: Script) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                if let Some((head, message)) = read(&mut stream).await {
                    let answer = answer(&head, &message, script, &counted);
                    stream.write_all(answer.as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                }
            });
        }
    });
    (url, calls)
}

fn whole(status: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn answer(head: &str, message: &Value, script: Script, calls: &AtomicUsize) -> String {
    let result = |result: Value| {
        whole(
            "200 OK",
            &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }),
        )
    };
    match message["method"].as_str() {
        Some("initialize") => result(json!({ "protocolVersion": "2025-06-18",
            "capabilities": { "tools": {} }, "serverInfo": { "name": "s", "version": "1" } })),
        Some("tools/list") => result(json!({ "tools": [
            { "name": "act", "inputSchema": { "type": "object" } }] })),
        Some("tools/call") => {
            calls.fetch_add(1, Ordering::Relaxed);
            script(head, message)
        }
        Some("notifications/initialized" | "notifications/cancelled") => {
            "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        _ => "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            .to_owned(),
    }
}

#[tokio::test]
async fn answers_that_come_to_nothing_are_lost_or_not_sent_and_never_made_twice() {
    let lost: [Script; 5] = [
        // Nothing at all.
        |_, _| String::new(),
        // A stream that ends before the result.
        |_, _| "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n: wait\n\n".to_owned(),
        // A body that breaks off.
        |_, _| {
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n{"
                .to_owned()
        },
        |_, _| whole("500 Internal Server Error", &json!("oops")),
        |_, _| whole("200 OK", &json!("no message")),
    ];
    let unsent: [Script; 3] = [
        |_, _| whole("401 Unauthorized", &json!({})),
        |_, _| whole("403 Forbidden", &json!({})),
        |_, _| whole("429 Too Many Requests", &json!({})),
    ];
    for (place, script) in lost.into_iter().chain(unsent).enumerate() {
        let (url, calls) = scripted(script).await;
        let kit = kit(at(&url));
        let outcome = kit.call("act", json!({})).await;
        match outcome {
            Outcome::Lost(_) if place < lost.len() => {}
            Outcome::NotSent(_) if place >= lost.len() => {}
            other => panic!("{place}: {other:?}"),
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1, "{place}");
        kit.stop().await;
    }
}

#[tokio::test]
async fn a_refusal_in_the_protocols_own_words_is_a_result() {
    let (url, _) = scripted(|_, message| {
        let error = json!({ "code": -32602, "message": "to is missing" });
        let body = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
        whole("400 Bad Request", &body)
    })
    .await;
    let kit = kit(at(&url));
    let outcome = kit.call("act", json!({})).await;
    let Outcome::Done(result) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(
        result.is_error && result.plain().contains("to is missing"),
        "{result:?}"
    );
    kit.stop().await;
}

#[tokio::test]
async fn headers_go_to_the_server_and_into_no_error() {
    // It gives back whatever it was sent, in every way that it can.
    let scripts: [Script; 3] = [
        |head, message| {
            let text = head.to_owned();
            let result = json!({ "content": [{ "type": "text", "text": text }] });
            whole(
                "200 OK",
                &json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }),
            )
        },
        |head, message| {
            let error = json!({ "code": -32603, "message": head });
            whole(
                "200 OK",
                &json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }),
            )
        },
        |head, _| whole("500 Internal Server Error", &json!(head)),
    ];
    for (place, script) in scripts.into_iter().enumerate() {
        let (url, _) = scripted(script).await;
        let mut config = at(&url);
        let secret = Secret::new("Bearer topsecret");
        config.headers = BTreeMap::from([("authorization".to_owned(), secret)]);
        let shown = format!("{config:?}");
        let kit = kit(config);
        let outcome = kit.call("act", json!({})).await;
        let told = format!("{outcome:?} {shown} {:?}", kit.host);
        match place {
            // A result is the server's own text.
            0 => assert!(told.contains("topsecret"), "{told}"),
            _ => assert!(!told.contains("topsecret"), "{told}"),
        }
        kit.stop().await;
    }
}
