//! Proves what callers can say of a step, and that it stays between them and the gateway: the header wins
//! over the body, unknown words are refused in the caller's dialect, no upstream sees the word.

use http::Method;
use serde_json::{Value, json};
use tests::world::World;

/// A call of each conversation's dialect.
fn calls(metadata: &Value) -> [(&'static str, Value); 3] {
    let hi = json!([{"role": "user", "content": "Hello there"}]);
    [
        (
            "/v1/chat/completions",
            json!({"model": "fast", "metadata": metadata, "messages": hi}),
        ),
        (
            "/v1/responses",
            json!({"model": "fast", "metadata": metadata, "input": hi}),
        ),
        (
            "/v1/messages",
            json!({"model": "fast", "metadata": metadata, "messages": hi, "max_tokens": 9}),
        ),
    ]
}

#[tokio::test]
async fn a_step_is_named_by_header_or_body_and_no_upstream_sees_it() {
    let world = World::start("", "").await;
    for (path, call) in calls(&json!({"user_id": "u1"})) {
        let reply = world.client.post(path, call.to_string()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.header("x-pareto-step"), "chat", "{path}");
    }
    let others = calls(&json!({"user_id": "u1", "pareto_step": "plan"}));
    let alone = calls(&json!({"pareto_step": "plan"}));
    for (path, call) in others.into_iter().chain(alone) {
        let reply = world.client.post(path, call.to_string()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(reply.header("x-pareto-step"), "plan", "{path}");
        let headers = [("x-pareto-step", "digest")];
        let both = world
            .client
            .send(Method::POST, path, &headers, call.to_string())
            .await;
        assert_eq!(both.header("x-pareto-step"), "digest", "{path}");
        for billed in world.fast.bill().iter().rev().take(2) {
            let seen: Value = serde_json::from_slice(&billed.body).unwrap();
            let mut wanted = call.clone();
            wanted["model"] = "scripted-fast".into();
            wanted["metadata"]["pareto_step"].take();
            let left = wanted["metadata"]["user_id"].take();
            wanted.as_object_mut().unwrap().shift_remove("metadata");
            if left.is_string() {
                wanted["metadata"] = json!({ "user_id": left });
            }
            assert_eq!(seen, wanted, "{path}");
        }
    }
}

#[tokio::test]
async fn a_translated_call_takes_no_word_along() {
    let world = World::start("", "").await;
    let (path, mut call) = calls(&json!({"user_id": "u1", "pareto_step": "act"}))[0].clone();
    for model in ["fast-responses", "fast-messages"] {
        call["model"] = model.into();
        let reply = world.client.post(path, call.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("x-pareto-step"), "act");
        let billed = world.fast.bill().pop().unwrap();
        let seen = String::from_utf8(billed.body.to_vec()).unwrap();
        assert!(!seen.contains("pareto"), "{seen}");
    }
}

#[tokio::test]
async fn an_unknown_step_is_refused_with_the_words_there_are() {
    let world = World::start("", "").await;
    for (path, call) in calls(&json!({"pareto_step": "think"})) {
        let told = world.client.post(path, call.to_string()).await;
        assert_eq!(told.status, 400, "{path}");
        let message = told.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(
            message.contains("`metadata.pareto_step` is `think`"),
            "{message}"
        );
        assert!(
            message.contains("chat, plan, act, digest, summarise"),
            "{message}"
        );
        assert_eq!(
            told.json()["error"]["type"],
            "invalid_request_error",
            "{path}: as each dialect says it"
        );
    }
    for (path, call) in calls(&json!({"pareto_step": "plan"})) {
        let headers = [("x-pareto-step", "PLAN")];
        let told = world
            .client
            .send(Method::POST, path, &headers, call.to_string())
            .await;
        assert_eq!(told.status, 400, "{path}");
        assert!(
            told.text().contains("`x-pareto-step` is `PLAN`"),
            "{}",
            told.text()
        );
    }
    assert_eq!(world.bill().len(), 0);
}

#[tokio::test]
async fn a_step_leans_the_score_as_the_configuration_says() {
    let head = "routing.step = { plan = 10.0, digest = -10.0 }\nrouting.deep_per_thousand = 500";
    let world = World::start(head, "").await;
    let ask = async |step: &str| {
        let body =
            json!({"model": "auto", "messages": [{"role": "user", "content": "Name a colour."}]});
        let headers = [("x-pareto-step", step)];
        let reply = world
            .client
            .send(
                Method::POST,
                "/v1/chat/completions",
                &headers,
                body.to_string(),
            )
            .await;
        let score: u32 = reply.header("x-pareto-score").parse().unwrap();
        (reply.header("x-pareto-tier"), score)
    };
    for _ in 0..6 {
        let (plan, digest) = (ask("plan").await, ask("digest").await);
        assert_eq!((&*plan.0, &*digest.0), ("deep", "fast"));
        assert!(plan.1 > 990 && digest.1 < 10, "{plan:?} {digest:?}");
    }
}
