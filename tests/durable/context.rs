//! What is kept of conversations survives the program: responses, and the private parts that a chat
//! client can not bring back.

use std::time::Duration;

use bench::upstream::{Script, Upstream};
use serde_json::json;
use tests::Process;
use tests::talk::{Talk, Tongue};
use tests::world::{DEEP, FAST, script};

use crate::{PROGRAM, caller, config, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conversations_go_on_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let strict = Script {
        strict: true,
        origin: "deep".to_owned(),
        ..script(DEEP)
    };
    let deep = Upstream::start(strict).await.unwrap();
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let process = Process::start(PROGRAM, &config).await;
    let client = caller(&process, &key);
    let body = json!({ "model": "deep-messages", "input": "I am Ada. <<script {\"say\":\"Hello Ada.\"}>>" });
    let first = client.post("/v1/responses", body.to_string()).await.json();
    let mut talk = Talk::working(Tongue::Chat, "Think.");
    let told = json!({ "thinking": "A note is due.", "call": { "name": "note", "arguments": { "text": "x" } } });
    talk.say("user", &format!("Note it. <<script {told}>>"));
    let (_, _, calls) = talk.ask(&client, "deep-messages").await;
    // Both were answered some milliseconds ago at least; they are written behind the answers.
    tokio::time::sleep(Duration::from_millis(500)).await;
    process.kill().await;

    let process = Process::start(PROGRAM, &config).await;
    let client = caller(&process, &key);
    let id = first["id"].as_str().unwrap();
    let body = json!({ "model": "fast-chat", "previous_response_id": id, "input": "Who am I?" });
    let second = client.post("/v1/responses", body.to_string()).await;
    assert_eq!(second.status, 200, "{}", second.text());
    let sent = String::from_utf8(fast.bill().pop().unwrap().body.to_vec()).unwrap();
    assert!(
        sent.contains("I am Ada.") && sent.contains("Hello Ada."),
        "{sent}"
    );
    talk.results(&[(calls[0].0.clone(), "noted".to_owned())]);
    talk.ask(&client, "deep-messages").await;
    let sent = String::from_utf8(deep.bill().pop().unwrap().body.to_vec()).unwrap();
    assert!(
        sent.contains("\"sig:deep:"),
        "its own signature came back: {sent}"
    );
    process.kill().await;
}
