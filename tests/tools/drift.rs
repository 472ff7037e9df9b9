//! Pins: a tool that changes is withheld until somebody accepts it, whoever asks and on whatever node.

use std::sync::Arc;

use orchestrator::TaskId;
use orchestrator::tool::config::PinPolicy;
use orchestrator::tool::host::{AcceptError, State};
use orchestrator::tool::{Class, Outcome, Tools, Verb};
use serde_json::{Value, json};
use tests::MemoryLog;

use crate::kit::{Kit, call, done, manifest, recorder, wait_for};

const SEND: &str = "rec__record_send";

fn letter() -> Value {
    json!({ "to": "ada", "text": "hello" })
}

async fn drift_by_schema(words: &[&str]) {
    let kit = Kit::with(words, |_| {});
    let before = kit.pin(SEND).await;
    let count = kit.offer().await.tools.len();
    done(kit.call("mutate", json!({})).await);
    // The server's word that its list has changed travels beside the answer.
    let offer = loop {
        let offer = kit.offer().await;
        if !offer.withheld.is_empty() {
            break offer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(offer.tools.len(), count - 1);
    let [withheld] = &offer.withheld[..] else {
        panic!("{:?}", offer.withheld)
    };
    assert_eq!(withheld.tool, SEND);
    assert_eq!(withheld.accepted, before);
    assert_ne!(withheld.now, before);
    assert_eq!(withheld.changed, ["input_schema"]);
    // Neither the old definition nor the new one may be called.
    for pin in [before, withheld.now] {
        let outcome = kit.host.call(call(SEND, pin, letter())).await;
        assert!(matches!(outcome, Outcome::Drifted(_)), "{outcome:?}");
    }
    assert_eq!(kit.book().calls("record_send").len(), 0);
    let known = kit.host.known().await.unwrap();
    let tool = known.iter().find(|it| it.tool == SEND).unwrap();
    assert_eq!((tool.state, tool.pin), (State::Withheld, withheld.now));
    // Accepting what was not looked at is refused.
    let stale = kit.host.accept(SEND, before, "user:ada").await;
    assert!(matches!(stale, Err(AcceptError::Changed(now)) if now == withheld.now));
    kit.host
        .accept(SEND, withheld.now, "user:ada")
        .await
        .unwrap();
    // Who did so stands in the register; what was taken on its first use, nobody did.
    let noted = kit.log.events(TaskId::of_register(""), 0, 9).unwrap();
    let noted: Vec<_> = noted.iter().map(|it| (&*it.kind, &*it.actor)).collect();
    assert_eq!(noted, [("tool.accepted", "user:ada")]);
    let offer = kit.offer().await;
    assert_eq!((offer.tools.len(), offer.withheld.len()), (count, 0));
    done(kit.call("record_send", letter()).await);
    let old = kit.host.call(call(SEND, before, letter())).await;
    assert!(matches!(old, Outcome::Drifted(_)), "{old:?}");
    kit.stop().await;
}

#[tokio::test]
async fn drift_of_a_schema_is_withheld_until_it_is_accepted() {
    drift_by_schema(&[]).await;
}

#[tokio::test]
async fn drift_is_heard_of_from_servers_of_the_old_handshake() {
    drift_by_schema(&["--legacy"]).await;
}

#[tokio::test]
async fn pins_outlive_the_process_and_hold_for_other_nodes() {
    let log = Arc::new(MemoryLog::new(1_700_000_000_000));
    let folder = tempfile::tempdir().unwrap();
    let book = folder.path().join("book.jsonl");
    let first = Kit::of(vec![recorder(&book, &[])], log.clone(), folder);
    let accepted = first.pin(SEND).await;
    first.host.stop();
    // Another node starts the server in its next version.
    let folder = tempfile::tempdir().unwrap();
    let next = recorder(&folder.path().join("book.jsonl"), &["--schema", "3"]);
    let second = Kit::of(vec![next], log, folder);
    let known = second.host.known().await.unwrap();
    let tool = known.iter().find(|it| it.tool == SEND).unwrap();
    assert_eq!((tool.state, tool.pin), (State::Accepted, accepted));
    let offer = second.offer().await;
    assert_eq!(offer.withheld.len(), 1);
    assert_eq!(offer.withheld[0].accepted, accepted);
    second.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn a_tool_that_changes_between_decision_and_restart_is_not_called() {
    let folder = tempfile::tempdir().unwrap();
    let switch = folder.path().join("new");
    let book = folder.path().join("book.jsonl");
    // The next start is of the next version.
    let mut config = recorder(&book, &[]);
    let server = config.command.join(" ");
    let script = format!(
        "if [ -e {0} ]; then exec {server} --schema 1; else exec {server}; fi",
        switch.display()
    );
    config.command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let kit = Kit::of(vec![config], Arc::new(MemoryLog::new(0)), folder);
    let pin = kit.pin(SEND).await;
    std::fs::write(&switch, "").unwrap();
    let crashed = kit.call("crash_after", json!({})).await;
    assert!(matches!(crashed, Outcome::Lost(_)), "{crashed:?}");
    let outcome = kit.host.call(call(SEND, pin, letter())).await;
    assert!(matches!(outcome, Outcome::Drifted(_)), "{outcome:?}");
    assert_eq!(kit.book().calls("record_send").len(), 0);
    kit.stop().await;
}

#[tokio::test]
async fn where_pins_are_strict_nothing_is_offered_before_it_is_accepted() {
    let kit = Kit::start(|config| config.pin = PinPolicy::Strict);
    let offer = kit.offer().await;
    assert!(offer.tools.is_empty());
    let withheld = offer.withheld.iter().find(|it| it.tool == SEND).unwrap();
    assert_eq!(withheld.changed, ["new"]);
    let outcome = kit.host.call(call(SEND, withheld.now, letter())).await;
    assert!(matches!(outcome, Outcome::Drifted(_)), "{outcome:?}");
    let known = kit.host.known().await.unwrap();
    assert!(known.iter().all(|it| it.state == State::New));
    kit.host
        .accept(SEND, withheld.now, "user:ada")
        .await
        .unwrap();
    let offer = kit.offer().await;
    assert_eq!(offer.tools.len(), 1);
    done(kit.call("record_send", letter()).await);
    kit.stop().await;
}

#[tokio::test]
async fn manifests_say_what_tools_do_and_silence_is_the_worst() {
    let kit = Kit::start(|config| {
        config.tools = vec![
            manifest("record_read", |it| {
                (it.verb, it.class) = (Verb::Retrieve, Class::Read)
            }),
            manifest("record_*", |it| it.class = Class::Keyed),
        ];
    });
    let offer = kit.offer().await;
    let class = |name: &str| {
        let found = offer.tools.iter().find(|it| it.definition.name == name);
        let manifest = &found.unwrap().manifest;
        (manifest.verb, manifest.class)
    };
    assert_eq!(class("rec__record_read"), (Verb::Retrieve, Class::Read));
    assert_eq!(class(SEND), (Verb::Execute, Class::Keyed));
    assert_eq!(class("rec__slow"), (Verb::Execute, Class::Unkeyed));
    kit.stop().await;
}

#[tokio::test]
async fn a_tool_that_is_gone_has_drifted() {
    let kit = Kit::start(|_| {});
    let pin = kit.pin(SEND).await;
    let outcome = kit
        .host
        .call(call("rec__no_such_tool", pin, letter()))
        .await;
    assert!(matches!(outcome, Outcome::Drifted(_)), "{outcome:?}");
    kit.stop().await;
}

#[tokio::test]
async fn what_was_accepted_is_on_record_with_who_and_when() {
    let folder = tempfile::tempdir().unwrap();
    let config = recorder(&folder.path().join("book.jsonl"), &[]);
    let kit = Kit::of(vec![config], Arc::new(MemoryLog::new(1_234)), folder);
    let pin = kit.pin(SEND).await;
    let log = Arc::clone(&kit.log);
    let record = wait_for(move || {
        let kind = orchestrator::log::Kind::Pin;
        log.record(kind, "", SEND).unwrap()
    });
    let body: Value = serde_json::from_str(&record.await.body).unwrap();
    assert_eq!(body["pin"], pin.to_string());
    assert_eq!(body["accepted_at_ms"], 1_234);
    assert_eq!(body["by"], "first_use");
    assert_eq!(body["definition"]["name"], SEND);
    kit.stop().await;
}
