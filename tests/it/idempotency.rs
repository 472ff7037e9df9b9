//! Proves C3: a call with an idempotency key is made once and charged once, whoever asks for it, how often and when,
//! and everybody gets the same answer.

use std::time::Duration;

use bench::upstream::{Fault, Script};
use http::Method;
use serde_json::{Value, json};
use tests::world::{FAST, World, script};
use tests::{Client, Reply};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";
const RESPONSES: &str = "/v1/responses";

/// A call in the dialect of `path`.
fn asked(path: &str, model: &str, stream: bool, text: &str) -> String {
    let mut call = json!({ "model": model, "stream": stream });
    if path == RESPONSES {
        call["input"] = text.into();
    } else {
        call["messages"] = json!([{ "role": "user", "content": text }]);
        call["max_tokens"] = 100.into();
    }
    call.to_string()
}

async fn ask(client: &Client, path: &str, key: &str, body: String) -> Reply {
    client
        .send(Method::POST, path, &[("idempotency-key", key)], body)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_sent_a_hundred_times_is_made_once() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        first_token_ms: 30,
        token_gap_us: 2_000,
        ..script(FAST)
    });
    let mut made = 0;
    for path in [CHAT, MESSAGES, RESPONSES] {
        for (stream, model) in [
            (false, "fast-chat"),
            (true, "fast-chat"),
            (false, "fast-messages"),
            (true, "fast-messages"),
        ] {
            let what = format!("{path} of {model}, stream: {stream}");
            let send = |_| {
                let client = world.client.clone();
                let (key, body) = (
                    what.clone(),
                    asked(path, model, stream, "Tell me of rivers."),
                );
                tokio::task::spawn(async move { ask(&client, path, &key, body).await })
            };
            let sent: Vec<_> = (0..100).map(send).collect();
            let mut replies = Vec::new();
            for reply in sent {
                replies.push(reply.await.unwrap());
            }
            // And once more, when all is over.
            replies.push(send(100).await.unwrap());
            made += 1;
            assert_eq!(world.bill().len(), made, "{what}");
            let first = &replies[0];
            assert_eq!((first.status, first.broken), (200, false), "{what}");
            assert!(!first.body.is_empty(), "{what}");
            let mut told = Vec::new();
            for reply in &replies {
                assert_eq!((reply.status, reply.broken), (200, false), "{what}");
                assert_eq!(reply.text(), first.text(), "{what}");
                assert_eq!(reply.header("content-type"), first.header("content-type"));
                told.push((reply.header("x-pareto-replay-of"), reply));
            }
            let [(_, one)] = &*told
                .extract_if(.., |it| it.0.is_empty())
                .collect::<Vec<_>>()
            else {
                panic!("{what}: not one of them is the first")
            };
            let id = one.header("x-request-id");
            assert!(told.iter().all(|(of, _)| *of == id), "{what}: {id}");
            if !stream {
                assert_ne!(one.header("x-pareto-cost-usd"), "0", "{what}");
                let costs = told
                    .iter()
                    .map(|(_, reply)| reply.header("x-pareto-cost-usd"));
                let costs: Vec<_> = costs.filter(|cost| cost.parse() != Ok(0.0)).collect();
                assert!(costs.is_empty(), "{what}: {costs:?}");
            }
        }
    }
    world.quiet().await;
    assert_eq!(world.entries().await.len(), made);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_left_finds_its_whole_answer_when_it_asks_again() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        output_tokens: 40,
        first_token_ms: 100,
        token_gap_us: 5_000,
        ..script(FAST)
    });
    for (number, stream) in [false, true].into_iter().enumerate() {
        let body = asked(CHAT, "fast-chat", stream, "Tell me of rivers.");
        let key = format!("left-{stream}");
        let early = ask(&world.client, CHAT, &key, body.clone());
        let left = tokio::time::timeout(Duration::from_millis(50), early).await;
        assert!(left.is_err(), "it was answered before its caller left");
        if stream {
            let header = [("idempotency-key", &*key)];
            world
                .client
                .begin_and_leave(CHAT, &header, body.clone(), 3)
                .await;
        }
        let whole = ask(&world.client, CHAT, &key, body).await;
        assert_eq!((whole.status, whole.broken), (200, false));
        let text = whole.text();
        assert!(if stream {
            text.ends_with("data: [DONE]\n\n")
        } else {
            text.ends_with('}')
        });
        assert_eq!(world.bill().len(), number + 1, "it was made once");
    }
    world.quiet().await;
    let (entries, bill) = (world.entries().await, world.bill());
    let charged: Vec<_> = entries.iter().map(|entry| entry.cost.0).collect();
    let billed = bill
        .iter()
        .map(|it| i64::try_from(it.cost_pico / 1_000).unwrap());
    assert_eq!(charged, billed.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_call_of_one_caller() {
    let world = World::start("", "").await;
    let hello = |text| asked(MESSAGES, "fast-messages", false, text);
    let first = ask(&world.client, MESSAGES, "k1", hello("Hello")).await;
    assert_eq!(first.status, 200, "{}", first.text());
    let other = ask(&world.client, MESSAGES, "k1", hello("Good bye")).await;
    assert_eq!(other.status, 422, "{}", other.text());
    assert_eq!(other.json()["type"], "error");
    let told = other.json()["error"]["message"].to_string();
    assert!(told.contains(&first.header("x-request-id")), "{told}");
    assert_eq!(other.header("x-should-retry"), "false");
    // Another dialect is another call, and another caller's keys are its own.
    let chat = asked(CHAT, "fast-messages", false, "Hello");
    assert_eq!(ask(&world.client, CHAT, "k1", chat).await.status, 422);
    let stranger = world.caller(&world.key("umbrella").await);
    let same = ask(&stranger, MESSAGES, "k1", hello("Hello")).await;
    assert_eq!(
        (same.status, same.header("x-pareto-replay-of")),
        (200, String::new())
    );
    assert_eq!(world.bill().len(), 2);
    let long = "k".repeat(256);
    let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
    for bad in [
        &[("idempotency-key", "")][..],
        &[("idempotency-key", &*long)],
        &twice,
    ] {
        let reply = world
            .client
            .send(Method::POST, MESSAGES, bad, hello("Hello"))
            .await;
        assert_eq!(reply.status, 400, "{bad:?}");
        assert!(reply.text().contains("Idempotency-Key"), "{}", reply.text());
    }
    assert_eq!(world.bill().len(), 2, "nobody was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_not_kept() {
    let world = World::start("", "").await;
    for (number, fault) in [
        Fault::Status(400, None),
        Fault::Status(500, None),
        Fault::CutAfter(3),
    ]
    .into_iter()
    .enumerate()
    {
        world.fast.set_script(Script {
            fault: Some(fault.clone()),
            ..script(FAST)
        });
        let key = format!("fails-{number}");
        let body = || asked(CHAT, "fast-chat", true, "Tell me of rivers.");
        let failed = ask(&world.client, CHAT, &key, body()).await;
        assert!(
            failed.status != 200 || failed.broken,
            "{fault:?}: {}",
            failed.text()
        );
        world.fast.set_script(script(FAST));
        let mut again = ask(&world.client, CHAT, &key, body()).await;
        for _ in 0..500 {
            if again.status == 200 {
                break;
            }
            // An endpoint that has failed is left alone for a while.
            tokio::time::sleep(Duration::from_millis(20)).await;
            again = ask(&world.client, CHAT, &key, body()).await;
        }
        assert_eq!((again.status, again.broken), (200, false), "{fault:?}");
        assert_eq!(again.header("x-pareto-replay-of"), "", "{fault:?}");
        let once_more = ask(&world.client, CHAT, &key, body()).await;
        assert_eq!(
            once_more.header("x-pareto-replay-of"),
            again.header("x-request-id")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_in_the_background_is_begun_once() {
    let world = World::start("", "").await;
    let mut body: Value =
        serde_json::from_str(&asked(RESPONSES, "fast-chat", false, "Hi")).unwrap();
    body["background"] = true.into();
    let first = ask(&world.client, RESPONSES, "later", body.to_string()).await;
    let second = ask(&world.client, RESPONSES, "later", body.to_string()).await;
    assert_eq!((first.status, first.text()), (200, second.text()));
    let id = first.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(
        crate::background::done(&world, &id).await["status"],
        "completed"
    );
    assert_eq!(world.bill().len(), 1);
}
