//! Proves promise 1: with the same dialect on both sides, request and stream bytes differ only where
//! routing and metering must edit, and fields nobody knows survive.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bench::upstream::{Fault, Script};
use tests::golden;
use tests::world::{FAST, World, chat, script};

/// The clients whose bodies were recorded; other golden cases are made up.
const CLIENTS: [&str; 7] = [
    "ai-sdk--",
    "anthropic-py--",
    "claude-code--",
    "codex--",
    "langchain-openai--",
    "llm-cli--",
    "openai-py--",
];

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The body with the edits that the gateway must make, made by plain text replacement.
fn edited(body: &str, chat: bool, tier: &str) -> String {
    let at = body
        .find(&format!("\"{tier}\""))
        .expect("the sample asks for this tier");
    let model = format!("{}\"scripted-{tier}\"{}", &body[..at], &body[at + 6..]);
    let streams = body.contains("\"stream\":true") || body.contains("\"stream\": true");
    if chat && streams && !body.contains("include_usage") {
        return model.replacen('{', "{\"stream_options\":{\"include_usage\":true},", 1);
    }
    model
}

#[tokio::test]
async fn recorded_bodies_reach_the_upstream_with_only_the_spliced_ranges_changed() {
    let world = World::start("", "").await;
    let recorded = |case: &golden::Case| {
        let name = case.name.split('/').nth(1).unwrap_or_default();
        // What a body only names must be known here, or it may be another tenant's.
        let names_items = case.body.contains("\"item_reference\"");
        CLIENTS.iter().any(|client| name.starts_with(client)) && !names_items
    };
    let cases: Vec<_> = golden::cases().into_iter().filter(recorded).collect();
    for dialect in ["openai_chat/", "openai_responses/", "anthropic_messages/"] {
        let count = cases
            .iter()
            .filter(|case| case.name.starts_with(dialect))
            .count();
        assert!(count > 15, "{count} recorded bodies of {dialect}");
    }
    for case in cases {
        let reply = world.client.post(case.path, case.body.clone()).await;
        assert_eq!(reply.status, 200, "{}: {}", case.name, reply.text());
        let tier = reply.header("x-pareto-tier");
        let upstream = if tier == "fast" {
            &world.fast
        } else {
            &world.deep
        };
        let billed = upstream.bill().pop().expect("it was billed");
        let wanted = edited(&case.body, case.path.ends_with("completions"), &tier);
        assert_eq!(
            hash(&billed.body),
            hash(wanted.as_bytes()),
            "{}\n{wanted}",
            case.name
        );
        // What came back: all that was sent, but for the usage nobody asked for.
        let sent = String::from_utf8(billed.answer).unwrap();
        let unasked = billed.stream
            && case.path.ends_with("completions")
            && !case.body.contains("include_usage");
        let kept: String = sent
            .split_inclusive("\n\n")
            .filter(|event| !(unasked && event.contains("\"choices\":[]")))
            .collect();
        assert_eq!(hash(&reply.body), hash(kept.as_bytes()), "{}", case.name);
        assert!(
            !unasked || sent.len() > kept.len(),
            "{}: usage was asked for upstream",
            case.name
        );
    }
}

#[tokio::test]
async fn headers_of_the_dialect_go_on_and_keys_do_not() {
    let world = World::start("", "").await;
    let headers = [
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "a-1,b-2"),
        ("x-stainless-lang", "python"),
        ("x-claude-code-session-id", "s1"),
        ("cookie", "secret"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-api-key", &world.client.key),
    ];
    let body = "{\"model\":\"fast\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
    let reply = world
        .client
        .send(http::Method::POST, "/v1/messages", &headers, body)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = world.fast.bill().pop().unwrap().headers;
    for (name, value) in &headers[..4] {
        assert_eq!(
            seen.get(*name).map(|v| v.to_str().unwrap()),
            Some(*value),
            "{name}"
        );
    }
    assert!(seen.get("cookie").is_none() && seen.get("x-forwarded-for").is_none());
    assert_eq!(
        seen["x-api-key"], "up-fast",
        "the endpoint gets its own key"
    );
    assert_eq!(seen["x-request-id"], reply.headers["x-request-id"]);
    let all: String = seen.iter().map(|(_, v)| format!("{v:?}")).collect();
    assert!(!all.contains("sk-par-"), "the caller's key stays here");
}

/// The stream without the number of the call, which stands in its ids.
fn without_number(stream: &str) -> String {
    let mut text = stream.to_owned();
    for prefix in ["chatcmpl-", "msg_"] {
        let pieces: Vec<&str> = text.split(prefix).collect();
        let rest = |piece: &str| {
            piece
                .trim_start_matches(|c: char| c.is_ascii_digit())
                .to_owned()
        };
        text = pieces.into_iter().map(rest).collect();
    }
    text
}

#[tokio::test]
async fn a_stream_cut_into_pieces_of_any_size_is_relayed_the_same() {
    let world = World::start("", "").await;
    for (path, rest) in [
        ("/v1/chat/completions", ",\"stream\":true"),
        (
            "/v1/chat/completions",
            ",\"stream\":true,\"stream_options\":{\"include_usage\":true}",
        ),
        ("/v1/messages", ",\"stream\":true,\"max_tokens\":50"),
    ] {
        let mut whole: Option<String> = None;
        for size in [0, 1, 2, 3, 5, 7, 13, 64] {
            let fault = (size > 0).then_some(Fault::Split(size));
            world.fast.set_script(Script {
                fault,
                ..script(FAST)
            });
            let reply = world.client.post(path, chat("fast", "Hello", rest)).await;
            assert_eq!((reply.status, reply.broken), (200, false));
            let told = without_number(&reply.text());
            let whole = whole.get_or_insert_with(|| told.clone());
            assert!(&told == whole, "{path} in pieces of {size}: {told}");
        }
    }
}

#[tokio::test]
async fn answers_say_which_model_and_why_and_what_it_cost() {
    let world = World::start("", "").await;
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hello", ""))
        .await;
    assert_eq!(reply.header("x-pareto-model"), "fast-chat");
    assert_eq!(reply.header("x-pareto-tier"), "fast");
    assert_eq!(reply.header("x-pareto-route"), "pinned");
    assert!(reply.header("server-timing").contains("upstream;dur="));
    let billed = world.fast.bill().pop().unwrap();
    let cost = format!(
        "{:.9}",
        f64::from(u32::try_from(billed.cost_pico / 1_000).unwrap()) / 1e9
    );
    assert_eq!(reply.header("x-pareto-cost-usd"), cost);
    let id = reply.header("x-request-id");
    let looked_up = world.client.get(&format!("/v1/calls/{id}")).await;
    assert_eq!(looked_up.json()["cost_usd"], cost.as_str());
    let stranger = world.caller(&world.key("other").await);
    assert_eq!(
        stranger.get(&format!("/v1/calls/{id}")).await.status,
        404,
        "other tenants see nothing"
    );
    let auto = world
        .client
        .post(
            "/v1/chat/completions",
            chat("auto", "Hello", ",\"stream\":true"),
        )
        .await;
    assert!(["score", "split", "cascade"].contains(&auto.header("x-pareto-route").as_str()));
    assert!(!auto.header("x-pareto-score").is_empty());
}

#[tokio::test]
async fn http2_serves_the_same() {
    use http_body_util::{BodyExt, Full};
    let world = World::start("", "").await;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .http2_only(true)
        .build_http::<Full<bytes::Bytes>>();
    let body = Full::new(bytes::Bytes::from(chat(
        "fast",
        "Hello",
        ",\"stream\":true",
    )));
    let request = http::Request::post(format!(
        "http://{}/v1/chat/completions",
        world.client.address
    ))
    .header("authorization", format!("Bearer {}", world.client.key))
    .body(body)
    .unwrap();
    let response = client.request(request).await.unwrap();
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (http::Version::HTTP_2, 200)
    );
    let text = response.into_body().collect().await.unwrap().to_bytes();
    assert!(text.ends_with(b"data: [DONE]\n\n"));
}
