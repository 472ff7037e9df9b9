//! Out of descriptors: new connections wait, calls that no endpoint can be dialled for are told so, those under
//! way are served, the processor rests, operators are let in; and all is as before once there are some again.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::upstream::{Script, Upstream};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Process};
use tokio::net::TcpStream;

use crate::points::compare;
use crate::{PROGRAM, caller, config, key};

const DESCRIPTORS: usize = 256;
const CHAT: &str = "/v1/chat/completions";
/// So soon all is as before.
const SOON: Duration = Duration::from_secs(5);

/// A program that starts the gateway with few descriptors.
fn starter(folder: &Path) -> String {
    let path = folder.join("start");
    let text = format!("#!/bin/sh\nulimit -n {DESCRIPTORS} && exec {PROGRAM} \"$@\"\n");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// The processor time that a process has had, in hundredths of a second.
fn ticks(process: &Process) -> u64 {
    let id = process.child.id().unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11..13]
        .iter()
        .map(|it| it.parse::<u64>().unwrap())
        .sum()
}

fn open(process: &Process) -> usize {
    let id = process.child.id().unwrap();
    std::fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}

/// A call over a connection of its own.
fn call(process: &Process, key: &str) -> tokio::task::JoinHandle<tests::Reply> {
    let client = caller(process, key);
    tokio::task::spawn(async move { client.post(CHAT, chat("fast", "Hi", "")).await })
}

/// Waits for a call that comes `soon`; notes its id.
async fn is_served(call: tokio::task::JoinHandle<tests::Reply>, whole: &Whole) {
    let reply = tokio::time::timeout(SOON, call).await;
    let reply = reply.expect("all is as before").unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    whole.lock().unwrap().push(reply.header("x-request-id"));
}

type Whole = Arc<Mutex<Vec<String>>>;

/// Connections that say nothing, more than there are descriptors for.
async fn crowd(process: &Process, key: &str, whole: &Whole) {
    let streams: Vec<_> = (0..10)
        .map(|_| {
            let client = caller(process, key);
            let text = "<<script {\"output_tokens\":60,\"gap_us\":100000}>> Hello";
            let body = chat("fast", text, ",\"stream\":true,\"max_tokens\":100");
            tokio::task::spawn(async move { client.post(CHAT, body).await })
        })
        .collect();
    let admin = Client::new(process.admin_address, "admin-secret");
    let in_flight = || async {
        admin
            .get("/metrics")
            .await
            .text()
            .contains("pareto_in_flight 10")
    };
    while !in_flight().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut silent = Vec::new();
    for _ in 0..2 * DESCRIPTORS {
        silent.push(TcpStream::connect(process.address).await.unwrap());
    }
    let waiting: Vec<_> = (0..200).map(|_| call(process, key)).collect();
    let before = ticks(process);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let percent = (ticks(process) - before) / 3;
    assert!(percent < 20, "{percent} % of a core");
    let answered = waiting.iter().filter(|it| it.is_finished()).count();
    assert_eq!(answered, 0, "there is no place for them");
    assert_eq!(
        admin.get("/readyz").await.status,
        200,
        "operators are let in"
    );
    for stream in streams {
        let reply = stream.await.unwrap();
        assert_eq!((reply.status, reply.broken), (200, false));
        assert!(reply.text().ends_with("data: [DONE]\n\n"));
        whole.lock().unwrap().push(reply.header("x-request-id"));
    }
    let full = open(process);
    drop(silent);
    for call in waiting {
        is_served(call, whole).await;
    }
    let most = DESCRIPTORS / 2 + DESCRIPTORS / 4;
    assert!(
        full < most,
        "{full} were open: some were left for the endpoint"
    );
    tests::figure("A6", &format!("{percent} % of a core while full"));
}

/// Calls over few connections, each of which needs a connection to the endpoint: more than there are.
async fn multiplexed(process: &Process, key: &str, whole: &Whole) -> usize {
    let mut calls = Vec::new();
    for _ in 0..4 {
        let stream = TcpStream::connect(process.address).await.unwrap();
        let made = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = made.unwrap();
        tokio::task::spawn(connection);
        for _ in 0..90 {
            let mut sender = sender.clone();
            let text = "<<script {\"first_ms\":2000}>> Hello";
            let request = Request::post(format!("http://gateway.test{CHAT}"))
                .header("authorization", format!("Bearer {key}"))
                .body(Full::new(Bytes::from(chat("fast", text, ""))))
                .unwrap();
            calls.push(tokio::task::spawn(async move {
                sender.ready().await.unwrap();
                let answer = sender.send_request(request).await.unwrap();
                let (head, body) = answer.into_parts();
                (head, body.collect().await.unwrap().to_bytes())
            }));
        }
    }
    let mut refused = 0;
    for call in calls {
        let (head, body) = call.await.unwrap();
        let text = String::from_utf8_lossy(&body);
        if head.status == 200 {
            let id = head.headers["x-request-id"].to_str().unwrap();
            whole.lock().unwrap().push(id.to_owned());
            continue;
        }
        assert_eq!(head.status, 503, "{text}");
        assert!(head.headers.contains_key("retry-after"));
        // The journal may want a new file just then.
        let is_of_the_journal = text.contains("\"ledger_unavailable\"");
        assert!(
            is_of_the_journal || text.contains("\"overloaded\""),
            "{text}"
        );
        refused += usize::from(!is_of_the_journal);
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_descriptors_it_sheds_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(Script {
        output_tokens: 5,
        ..script(FAST)
    });
    let fast = fast.await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let text = std::fs::read_to_string(&path).unwrap();
    // The journal turns to new files while there are no descriptors for them.
    let head = "limits.connections_per_ip = 10000\nlimits.head_timeout_ms = 60000\n\
        store.journal_segment_bytes = 65536\n";
    std::fs::write(&path, format!("{head}{text}")).unwrap();
    let key = key(&path, "acme");
    let process = Process::start(&starter(folder.path()), &path).await;
    let whole = Whole::default();
    crowd(&process, &key, &whole).await;
    let refused = multiplexed(&process, &key, &whole).await;
    assert!(refused > 0, "there was no descriptor for each");
    for _ in 0..50 {
        // Nor is the endpoint taken for broken.
        is_served(call(&process, &key), &whole).await;
    }
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let whole = whole.lock().unwrap().iter().cloned().collect();
    compare(folder.path(), &fast, &deep, &whole, &[]).await;
}
