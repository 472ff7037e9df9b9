//! Proves the table of upstream faults: failover is free until the first content, visible after it,
//! and the books are right either way.

use bench::upstream::{Fault, Script};
use meter::Outcome;
use tests::world::{DEEP, FAST, World, chat, script};

const STREAM: &str = ",\"stream\":true,\"max_tokens\":50";
const IMPATIENT: &str = "upstream.first_byte_timeout_ms = 300\nupstream.reply_timeout_ms = 300\nupstream.idle_timeout_ms = 300";

async fn world(fault: Fault) -> World {
    let world = World::start(IMPATIENT, "").await;
    world.fast.set_script(Script {
        fault: Some(fault),
        ..script(FAST)
    });
    world
}

#[tokio::test]
async fn faults_before_the_first_content_go_to_the_next_upstream() {
    for fault in [
        Fault::Status(500, None),
        Fault::Status(429, Some(1)),
        Fault::Status(529, None),
        Fault::Status(401, None),
        Fault::Status(404, None),
        Fault::Status(409, None),
        Fault::Refuse,
        Fault::HangBeforeHeaders,
        Fault::HangAfter(0),
        Fault::CutAfter(0),
        Fault::ErrorAfter(0),
        Fault::MalformedAfter(0),
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let world = world(fault.clone()).await;
            let reply = world.client.post(path, chat("fast", "Hello", STREAM)).await;
            assert_eq!(
                (reply.status, reply.broken),
                (200, false),
                "{fault:?}: {}",
                reply.text()
            );
            assert_eq!(reply.header("x-pareto-tier"), "deep", "{fault:?}");
            assert!(
                !reply.text().contains("error"),
                "{fault:?}: nothing of the first leaked"
            );
            let entries = world.entries().await;
            let attempts: Vec<_> = entries
                .iter()
                .map(|e| (e.held.attempt, e.outcome))
                .collect();
            assert_eq!(attempts.len(), 2, "{fault:?}: {attempts:?}");
            assert_eq!(attempts[1], (1, Outcome::Completed));
            let free = matches!(fault, Fault::Status(..) | Fault::Refuse);
            assert_eq!(entries[0].outcome == Outcome::Failed, free, "{fault:?}");
            assert!(
                free == (entries[0].cost == meter::NanoUsd::ZERO),
                "{fault:?}: {:?}",
                entries[0].cost
            );
        }
    }
}

#[tokio::test]
async fn faults_after_the_first_content_end_in_a_visible_error_and_no_clean_end() {
    for fault in [
        Fault::CutAfter(3),
        Fault::HangAfter(3),
        Fault::MalformedAfter(3),
        Fault::ErrorAfter(3),
        Fault::NoEnd,
    ] {
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let world = world(fault.clone()).await;
            let reply = world.client.post(path, chat("fast", "Hello", STREAM)).await;
            let text = reply.text();
            assert_eq!(reply.status, 200);
            assert!(
                reply.broken,
                "{fault:?}: the body must not end cleanly\n{text}"
            );
            assert!(text.contains("upstream_interrupted"), "{fault:?}\n{text}");
            assert!(
                !text.contains("[DONE]") && !text.contains("message_stop"),
                "{fault:?}\n{text}"
            );
            let entries = world.entries().await;
            assert_eq!(entries.len(), 1, "never failed over silently");
            assert_eq!(entries[0].outcome, Outcome::Interrupted);
            let billed = world.fast.bill().pop().unwrap();
            assert!(entries[0].usage.output >= billed.output_tokens, "{fault:?}");
        }
    }
}

#[tokio::test]
async fn text_behind_the_end_is_not_relayed() {
    let world = world(Fault::ExtraAfterEnd).await;
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hello", STREAM))
        .await;
    assert!(
        reply.text().ends_with("data: [DONE]\n\n"),
        "{}",
        reply.text()
    );
    assert!(!reply.broken);
}

#[tokio::test]
async fn the_callers_own_mistake_comes_back_in_the_endpoints_words() {
    let world = world(Fault::Status(400, None)).await;
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hello", ""))
        .await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["message"]),
        (400, &"scripted fault".into())
    );
    assert_eq!(world.deep.calls(), 0, "another model would say the same");
}

/// What the caller names among what a vendor keeps, only the caller can name rightly.
#[tokio::test]
async fn a_file_that_is_not_found_is_the_callers_mistake_and_a_model_is_not() {
    let world = world(Fault::Status(404, None)).await;
    let image = serde_json::json!({ "type": "input_image", "file_id": "file-1" });
    let call = serde_json::json!({ "model": "fast-responses", "input": [{ "role": "user", "content": [image] }] });
    let reply = world.client.post("/v1/responses", call.to_string()).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["message"]),
        (404, &"scripted fault".into())
    );
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let named = chat("fast-chat", "Hello", STREAM);
        let reply = world.client.post(path, named).await;
        assert_eq!(reply.status, 502, "{path}: {}", reply.text());
    }
}

#[tokio::test]
async fn when_every_upstream_fails_the_caller_hears_why() {
    let world = world(Fault::Status(429, Some(7))).await;
    world.deep.set_script(Script {
        fault: Some(Fault::Status(429, Some(7))),
        ..script(FAST)
    });
    let reply = world
        .client
        .post("/v1/messages", chat("fast", "Hello", STREAM))
        .await;
    assert_eq!(
        (reply.status, reply.header("retry-after").as_str()),
        (429, "7")
    );
    assert_eq!(reply.json()["type"], "error", "in the caller's dialect");
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    assert_eq!(world.entries().await.len(), 3, "no more attempts than that");
}

/// What one dialect does not take, another may: a translation that is refused is no answer yet.
#[tokio::test]
async fn a_refused_translation_goes_to_the_next_model() {
    let world = World::start("", "").await;
    world.configure(|text| {
        let at =
            |dialect: &str, tier: &str| format!("name = \"deep-{dialect}\"\ntier = \"{tier}\"");
        ["chat", "responses"].iter().fold(text, |text, dialect| {
            text.replace(&at(dialect, "deep"), &at(dialect, "fast"))
        })
    });
    world.deep.set_script(Script {
        fault: Some(Fault::Status(400, None)),
        ..script(DEEP)
    });
    let reply = world
        .client
        .post("/v1/chat/completions", chat("deep", "Hello", ""))
        .await;
    assert_eq!(
        (reply.status, reply.header("x-pareto-model").as_str()),
        (200, "fast-chat")
    );
    assert_eq!(world.deep.calls(), 1);
    let named = chat("deep-messages", "Hello", "");
    let reply = world.client.post("/v1/chat/completions", named).await;
    assert_eq!(reply.status, 400, "who names a model gets its answer");
    assert_eq!(reply.json()["error"]["code"], "upstream_rejected");
}
