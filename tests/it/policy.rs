//! Proves what the operator's rules do at the door: labels, regions, lists, tiers, classes with splits of
//! their own, refusals, and dry runs; and that the ledger tells which rule it was.

use std::collections::BTreeMap;

use meter::{Entry, Ledger};
use tests::Reply;
use tests::World;
use tests::world::chat;

const RULES: &str = r#"
[[endpoint]]
name = "eu-chat"
dialect = "openai_chat"
url = "URL"
key = "up-fast"
region = "eu"
[[model]]
name = "fast-eu"
tier = "fast"
endpoint = "eu-chat"
upstream_model = "scripted-fast"
price = "test/fast"
label = "secret"

[[routing.class]]
name = "batch"
deep_per_thousand = 0
[[routing.class]]
name = "careful"
deep_per_thousand = 1000

[[policy.rule]]
name = "secrets stay in the EU"
labels = ["secret"]
regions = ["eu"]
[[policy.rule]]
name = "nightly is batch"
workflows = ["night*"]
class = "batch"
[[policy.rule]]
name = "reviews are careful"
headers = { "x-app" = "review-*" }
class = "careful"
[[policy.rule]]
name = "mail is fast"
headers = { "x-app" = "mail" }
tier = "fast"
deny = ["fast-responses", "fast-messages"]
[[policy.rule]]
name = "no deep for interns"
users = ["intern-*"]
allow = ["fast-*"]
[[policy.rule]]
name = "nobody asks the vectors"
asked = ["vectors"]
refuse = "vectors are made elsewhere"
[[policy.rule]]
name = "on trial"
dry_run = true
refuse = "not yet"
"#;

async fn ruled() -> World {
    let world = World::start(
        "policy.labels = [\"open\", \"secret\"]\nrouting.control_per_thousand = 0",
        "",
    )
    .await;
    let rules = RULES.replace("URL", &world.fast.url());
    world.configure(|text| text + &rules);
    world
}

async fn ask(world: &World, model: &str, headers: &[(&str, &str)]) -> Reply {
    let body = chat(model, "Prove that there is no largest prime.", "");
    let path = "/v1/chat/completions";
    let post = http::Method::POST;
    world.client.send(post, path, headers, body).await
}

async fn last(world: &World) -> Entry {
    world.entries().await.pop().expect("an entry")
}

#[tokio::test]
async fn a_label_keeps_a_call_with_models_that_may_see_it() {
    let world = ruled().await;
    let secret = [("x-pareto-label", "secret")];
    let reply = ask(&world, "auto", &secret).await;
    assert_eq!(
        (reply.status, &*reply.header("x-pareto-model")),
        (200, "fast-eu")
    );
    assert_eq!(reply.header("x-pareto-route"), "only_tier");
    let entry = last(&world).await;
    let routing = entry.held.routing.expect("a decision");
    assert_eq!(&*routing.label, "secret");
    assert_eq!(
        routing.rules.iter().map(|it| &**it).collect::<Vec<_>>(),
        ["secrets stay in the EU"]
    );
    assert_eq!(
        routing.would.iter().map(|it| &**it).collect::<Vec<_>>(),
        ["on trial"]
    );
    let why: BTreeMap<&str, &str> = routing.barred.iter().map(|(m, w)| (&**m, &**w)).collect();
    assert_eq!(why.get("deep-chat"), Some(&"region"));

    let named = ask(&world, "deep-chat", &secret).await;
    assert_eq!(named.status, 403, "{}", named.text());
    assert!(
        named.text().contains("deep-chat (region)"),
        "{}",
        named.text()
    );
    let unknown = ask(&world, "auto", &[("x-pareto-label", "sekret")]).await;
    assert_eq!(unknown.status, 400);
    assert!(
        unknown.text().contains("open, secret"),
        "{}",
        unknown.text()
    );
    assert_eq!(ask(&world, "deep-chat", &[]).await.status, 200);
}

#[tokio::test]
async fn a_caller_may_keep_a_call_within_regions() {
    let world = ruled().await;
    let regions = "x-pareto-residency";
    let kept = ask(&world, "auto", &[(regions, "ch, eu")]).await;
    let model = kept.header("x-pareto-model");
    assert_eq!((kept.status, &*model), (200, "fast-eu"));
    let named = ask(&world, "deep-chat", &[(regions, "eu")]).await;
    assert_eq!(named.status, 403, "{}", named.text());
    let why = named.text();
    assert!(why.contains("deep-chat (region)"), "{why}");
    let nowhere = ask(&world, "auto", &[(regions, "moon")]).await;
    assert_eq!(nowhere.status, 403, "{}", nowhere.text());
    let empty = ask(&world, "auto", &[(regions, " ,")]).await;
    assert_eq!(empty.status, 400, "{}", empty.text());
}

/// Counting sends the whole prompt, so it is bound by the same rules.
#[tokio::test]
async fn a_prompt_is_counted_by_no_endpoint_that_may_not_see_it() {
    let world = ruled().await;
    let path = "/v1/messages/count_tokens";
    let words = "some words of the user ".repeat(200);
    let body =
        serde_json::json!({ "model": "fast", "messages": [{ "role": "user", "content": words }] });
    let count = async |label: &str| {
        let headers = [("x-pareto-label", label)];
        let (post, body) = (http::Method::POST, body.to_string());
        world.client.send(post, path, &headers, body).await
    };
    let (open, secret) = (count("open").await, count("secret").await);
    assert_eq!(
        (open.status, secret.status),
        (200, 200),
        "{}",
        secret.text()
    );
    let tokens = |reply: &Reply| reply.json()["input_tokens"].as_u64().expect("a count");
    let told = u64::try_from(body.to_string().len() / 4).expect("small");
    assert!(
        tokens(&open).abs_diff(told) < 20,
        "the endpoint says a token for four bytes"
    );
    assert!(tokens(&secret).abs_diff(told) > 50, "it was counted here");
    assert_eq!(count("sekret").await.status, 400);
}

#[tokio::test]
async fn classes_have_splits_of_their_own_which_survive_a_restart() {
    let mut world = ruled().await;
    for _ in 0..6 {
        let night = ask(&world, "auto", &[("x-pareto-workflow", "nightly-sort")]).await;
        assert_eq!(night.header("x-pareto-tier"), "fast");
        let review = ask(&world, "auto", &[("x-app", "review-7")]).await;
        assert_eq!(review.header("x-pareto-tier"), "deep");
    }
    let classes: Vec<String> = world
        .entries()
        .await
        .iter()
        .map(|it| {
            it.held
                .routing
                .as_ref()
                .expect("a decision")
                .class
                .to_string()
        })
        .collect();
    assert_eq!(classes.iter().filter(|it| *it == "batch").count(), 6);
    assert_eq!(classes.iter().filter(|it| *it == "careful").count(), 6);
    world.running.shut_down(std::future::pending()).await;
    let config = proxy::Config::load(&world.file).expect("a configuration");
    world.running = proxy::boot::start(config, None).await.expect("a start");
    let state = world.running.parts.store.ledger.state().expect("state");
    assert!(
        state
            .iter()
            .any(|(name, text)| name == "split:careful/acme" && text.contains("\"total\":6")),
        "{state:?}"
    );
}

#[tokio::test]
async fn rules_name_tiers_and_models_and_refuse() {
    let world = ruled().await;
    let mail = ask(&world, "auto", &[("x-app", "mail")]).await;
    assert_eq!(mail.header("x-pareto-route"), "rule");
    assert_eq!(mail.header("x-pareto-tier"), "fast");
    let intern = [("x-pareto-user", "intern-3")];
    assert_eq!(ask(&world, "deep-chat", &intern).await.status, 403);
    let deep = ask(&world, "deep", &intern).await;
    assert_eq!((deep.status, &*deep.header("x-pareto-tier")), (200, "fast"));
    let vectors = world
        .client
        .post("/v1/embeddings", r#"{"model":"vectors","input":"x"}"#)
        .await;
    assert_eq!(vectors.status, 403, "{}", vectors.text());
    assert!(vectors.text().contains("vectors are made elsewhere"));
    assert_eq!(
        ask(&world, "auto", &[]).await.status,
        200,
        "a dry run refuses nobody"
    );
}

#[tokio::test]
async fn a_rule_that_names_what_is_not_there_is_an_error_with_its_line() {
    let world = World::start("", "").await;
    let text = std::fs::read_to_string(&world.file).expect("a file")
        + "[[policy.rule]]\nname = \"x\"\nallow = [\"gpt-9\"]\n";
    let line = text.lines().count();
    let problems = proxy::Config::parse(&text).expect_err("an unknown model");
    assert!(
        problems
            .iter()
            .any(|it| it.message.contains("gpt-9") && it.line == line),
        "{problems:?}"
    );
}

#[tokio::test]
async fn a_model_that_lacks_tools_gets_no_call_with_tools() {
    let world = World::start("", "").await;
    world.configure(|text| {
        text.replace(
            "name = \"fast-chat\"\ntier",
            "name = \"fast-chat\"\nlacks = [\"tools\"]\ntier",
        )
    });
    let tools =
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]"#;
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", tools))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_ne!(reply.header("x-pareto-model"), "fast-chat");
    let plain = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(plain.header("x-pareto-model"), "fast-chat");
}
