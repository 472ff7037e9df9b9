//! Proves what the three dialects promise besides their streams: losses are told and, where the policy
//! says so, refused; headers and prefixes; listings; counts; embeddings; what is kept stays
//! within its tenant; and counted tokens make a hold near a limit fit.

use bench::upstream::Script;
use http::Method;
use serde_json::{Value, json};
use tests::talk::{Talk, Tongue};
use tests::world::{FAST, chat, script};
use tests::{Client, World};

#[tokio::test]
async fn what_a_translation_loses_is_told_and_kept() {
    let world = World::start("", "").await;
    let body = chat(
        "fast-messages",
        "Hello",
        ",\"seed\":7,\"logit_bias\":{\"1\":2},\"reasoning_effort\":\"low\"",
    );
    let reply = world.client.post("/v1/chat/completions", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let loss = reply.header("x-pareto-loss");
    assert_eq!(
        loss,
        "approximated:reasoning.effort, dropped:seed, dropped:logit_bias"
    );
    let entry = world.entries().await.pop().unwrap();
    assert_eq!(&*entry.held.losses, loss);
    let id = reply.header("x-request-id");
    let call = world.client.get(&format!("/v1/calls/{id}")).await.json();
    assert_eq!(call["attempts"][0]["losses"], loss.as_str(), "{call}");
    let metrics = world.admin().get("/metrics").await.text();
    assert!(
        metrics.contains("pareto_translation_losses_total{kind=\"dropped\"}"),
        "{metrics}"
    );
    let at_home = chat("fast-chat", "Hello", ",\"seed\":7");
    let reply = world.client.post("/v1/chat/completions", at_home).await;
    assert_eq!(reply.header("x-pareto-loss"), "");
}

#[tokio::test]
async fn a_cap_is_what_the_model_takes_unless_the_caller_named_it() {
    let world = World::start("", "").await;
    world
        .configure(|text| text.replace("tier = \"fast\"\n", "tier = \"fast\"\nmax_output = 500\n"));
    for (model, cap, loss) in [
        ("fast", 500, "approximated:max_output_tokens"),
        ("fast-chat", 9_000, ""),
    ] {
        let body = chat(model, "Hello", ",\"max_tokens\":9000");
        let reply = world.client.post("/v1/chat/completions", body).await;
        assert_eq!(
            (reply.status, reply.header("x-pareto-loss").as_str()),
            (200, loss)
        );
        assert_eq!(last_sent(&world)["max_tokens"], cap, "{model}");
    }
}

/// The body that the fast endpoint got last.
fn last_sent(world: &World) -> Value {
    serde_json::from_slice(&world.fast.bill().pop().unwrap().body).unwrap()
}

#[tokio::test]
async fn a_model_is_told_to_think_in_the_form_it_takes() {
    let model = |form: &str| {
        format!(
            "[[model]]\nname = \"{form}\"\ntier = \"fast\"\nendpoint = \"fast-messages\"\n\
             price = \"test/fast\"\nthinking = \"{form}\"\n"
        )
    };
    let none = model("none").replace("fast-messages", "fast-chat");
    let world = World::start("", &(model("adaptive") + &model("budget") + &none)).await;
    let asked = chat("none", "Hello", ",\"reasoning_effort\":\"high\"");
    let reply = world.client.post("/v1/chat/completions", asked).await;
    assert_eq!(reply.header("x-pareto-loss"), "dropped:reasoning");
    assert_eq!(last_sent(&world).get("reasoning_effort"), None);
    let asked = chat("adaptive", "Hello", ",\"reasoning_effort\":\"high\"");
    let reply = world.client.post("/v1/chat/completions", asked).await;
    assert_eq!(
        (reply.status, reply.header("x-pareto-loss")),
        (200, String::new())
    );
    let sent = last_sent(&world);
    assert_eq!(sent["thinking"], json!({ "type": "adaptive" }));
    assert_eq!(sent["output_config"], json!({ "effort": "high" }));

    let adaptive =
        json!({ "thinking": { "type": "adaptive" }, "output_config": { "effort": "low" } });
    let budget = json!({ "thinking": { "type": "enabled", "budget_tokens": 9_000 } });
    let cases = [
        ("adaptive", &adaptive, adaptive.clone(), ""),
        ("budget", &budget, budget.clone(), ""),
        (
            "adaptive",
            &budget,
            json!({ "thinking": { "type": "adaptive" }, "output_config": { "effort": "high" } }),
            "approximated:thinking.budget_tokens",
        ),
        (
            "budget",
            &adaptive,
            json!({ "thinking": { "type": "enabled", "budget_tokens": 1_024 } }),
            "approximated:reasoning.effort",
        ),
        (
            "budget",
            &json!({ "output_config": { "effort": "low", "format": { "type": "json_schema", "schema": {} } } }),
            json!({ "output_config": { "format": { "type": "json_schema", "schema": {} } } }),
            "dropped:output_config.effort",
        ),
    ];
    for (model, asked, wanted, loss) in cases {
        let with = |fields: &Value| {
            let mut body = json!({ "model": model, "max_tokens": 16_000, "metadata": { "user_id": "me" },
                "messages": [{ "role": "user", "content": "Hello" }] });
            body.as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            body
        };
        let reply = world
            .client
            .post("/v1/messages", with(asked).to_string())
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("x-pareto-loss"), loss, "{model}: {asked}");
        assert_eq!(last_sent(&world), with(&wanted), "{model}: {asked}");
    }
}

#[tokio::test]
async fn a_policy_may_refuse_what_would_be_lost() {
    let world = World::start("policy.loss = \"refuse\"", "").await;
    let lossy = chat("fast-messages", "Hello", ",\"seed\":7");
    let reply = world.client.post("/v1/chat/completions", lossy).await;
    assert_eq!(
        (reply.status, &reply.json()["error"]["code"]),
        (400, &"translation_loss".into())
    );
    assert!(reply.text().contains("dropped:seed"), "{}", reply.text());
    assert_eq!(world.fast.calls(), 0);
    let lossless = chat("fast-messages", "Hello", "");
    assert_eq!(
        world
            .client
            .post("/v1/chat/completions", lossless)
            .await
            .status,
        200
    );
    // Where the router may choose, it finds a model that loses nothing.
    let auto = chat("fast", "Hello", ",\"seed\":7");
    let reply = world.client.post("/v1/chat/completions", auto).await;
    assert_eq!(
        (reply.status, reply.header("x-pareto-model").as_str()),
        (200, "fast-chat")
    );
}

#[tokio::test]
async fn headers_of_one_vendor_do_not_reach_another() {
    let world = World::start("", "").await;
    let headers = [
        ("anthropic-version", "2026-10-21"),
        ("anthropic-beta", "a-1"),
        ("x-stainless-lang", "python"),
        ("x-session-id", "s1"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ];
    let mut talk = Talk::plain(Tongue::Messages, "");
    talk.say("user", "Hi");
    let body = talk.body("fast-chat").to_string();
    let reply = world
        .client
        .send(Method::POST, "/v1/messages", &headers, body)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let seen = world.fast.bill().pop().unwrap().headers;
    for name in ["anthropic-version", "anthropic-beta", "x-stainless-lang"] {
        assert!(seen.get(name).is_none(), "{name}");
    }
    assert_eq!(seen["x-session-id"], "s1");
    // Nobody has said that this endpoint is to know.
    assert!(!seen.contains_key("traceparent"));
    assert_eq!(seen["authorization"], "Bearer up-fast");
    let body = chat("fast-messages", "Hi", "");
    let reply = world.client.post("/v1/chat/completions", body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        world.fast.bill().pop().unwrap().headers["anthropic-version"],
        "2023-06-01"
    );
}

#[tokio::test]
async fn paths_answer_with_and_without_prefix_and_version() {
    let world = World::start("", "").await;
    let body = || chat("fast", "Hi", ",\"max_tokens\":20");
    for path in [
        "/v1/chat/completions",
        "/chat/completions",
        "/openai/v1/chat/completions",
        "/openai/chat/completions",
        "/v1/messages?beta=true",
        "/anthropic/v1/messages?beta=true",
    ] {
        assert_eq!(world.client.post(path, body()).await.status, 200, "{path}");
    }
    let responses = json!({ "model": "fast", "input": "Hi" }).to_string();
    for path in ["/v1/responses", "/openai/v1/responses", "/responses"] {
        assert_eq!(
            world.client.post(path, responses.clone()).await.status,
            200,
            "{path}"
        );
    }
    let head = world.client.send(Method::HEAD, "/", &[], "").await;
    assert_eq!(head.status, 200);
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade")];
    let socket = world
        .client
        .send(Method::GET, "/v1/responses", &upgrade, "")
        .await;
    assert_eq!(
        socket.status, 426,
        "clients that hear this go on over plain HTTP"
    );
}

#[tokio::test]
async fn models_are_listed_and_shown_in_both_shapes() {
    let world = World::start("", "").await;
    let list = world.client.get("/v1/models").await.json();
    assert_eq!(list["data"][0]["object"], "model");
    let anthropic = [("anthropic-version", "2023-06-01")];
    let list = world
        .client
        .send(Method::GET, "/v1/models?limit=20", &anthropic, "")
        .await
        .json();
    assert_eq!(
        (&list["data"][0]["type"], &list["has_more"]),
        (&"model".into(), &false.into())
    );
    let shown = world.client.get("/v1/models/fast-chat").await.json();
    assert_eq!(
        (&shown["id"], &shown["object"]),
        (&"fast-chat".into(), &"model".into())
    );
    let shown = world
        .client
        .send(Method::GET, "/v1/models/deep", &anthropic, "")
        .await
        .json();
    assert_eq!(
        (&shown["id"], &shown["type"]),
        (&"deep".into(), &"model".into())
    );
    assert_eq!(world.client.get("/v1/models/gpt-9").await.status, 404);
}

#[tokio::test]
async fn tokens_are_counted_by_the_upstream_or_here() {
    let world = World::start("", "").await;
    let mut talk = Talk::working(Tongue::Messages, "System text.");
    talk.say("user", &"some words of the user ".repeat(200));
    let count = async |model: &str| {
        let mut body = talk.body(model);
        body.as_object_mut().unwrap().remove("max_tokens");
        let reply = world
            .client
            .post("/v1/messages/count_tokens?beta=true", body.to_string())
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["input_tokens"].as_u64().unwrap()
    };
    let (told, counted) = (count("fast-messages").await, count("fast-chat").await);
    assert!(
        told > 1_000,
        "the scripted endpoint says a token for each four bytes: {told}"
    );
    assert!(
        (1_000..2_400).contains(&counted),
        "{counted} tokens, a thousand words and a margin"
    );
    assert_eq!(count("auto").await, told);
    assert_eq!(
        (world.fast.calls(), world.entries().await.len()),
        (0, 0),
        "nothing is billed"
    );
    let body = json!({ "model": "fast-chat", "input": "Hello there" }).to_string();
    let reply = world
        .client
        .post("/v1/responses/input_tokens", body)
        .await
        .json();
    assert_eq!(reply["object"], "response.input_tokens");
}

#[tokio::test]
async fn embeddings_are_forwarded_and_metered() {
    let world = World::start("", "").await;
    let body = json!({ "model": "vectors", "input": ["one", "two"], "encoding_format": "base64" });
    let reply = world.client.post("/v1/embeddings", body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(reply.json()["data"][1]["embedding"].is_string());
    let entry = world.entries().await.pop().unwrap();
    assert!(entry.usage.prompt() > 0 && entry.usage.answer() == 0 && entry.cost.0 > 0);
    let wrong = chat("vectors", "Hello", "");
    assert_eq!(
        world
            .client
            .post("/v1/chat/completions", wrong)
            .await
            .status,
        404
    );
    let wrong = json!({ "model": "fast-chat", "input": "x" }).to_string();
    assert_eq!(world.client.post("/v1/embeddings", wrong).await.status, 404);
}

/// Asks with an earlier response's id instead of the transcript.
async fn go_on(client: &Client, model: &str, previous: &str, text: &str) -> Value {
    let body = json!({ "model": model, "previous_response_id": previous, "input": text });
    let reply = client.post("/v1/responses", body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_go_on_over_any_upstream_and_within_their_tenant() {
    let world = World::start("", "").await;
    let body = json!({ "model": "fast-responses", "input": "I am Ada. <<script {\"say\":\"Hello Ada.\"}>>" });
    let first = world
        .client
        .post("/v1/responses", body.to_string())
        .await
        .json();
    let first = first["id"].as_str().unwrap();
    let second = go_on(
        &world.client,
        "deep-messages",
        first,
        "And? <<script {\"say\":\"Go on.\"}>>",
    )
    .await;
    let sent = String::from_utf8(world.deep.bill().pop().unwrap().body.to_vec()).unwrap();
    assert!(
        sent.contains("I am Ada.") && sent.contains("Hello Ada."),
        "{sent}"
    );
    let stranger = world.caller(&world.key("other").await);
    let body =
        json!({ "model": "fast", "previous_response_id": first, "input": "Who?" }).to_string();
    let refused = stranger.post("/v1/responses", body).await;
    assert_eq!(
        refused.json()["error"]["code"],
        "previous_response_not_found"
    );
    assert_eq!(
        stranger.get(&format!("/v1/responses/{first}")).await.status,
        404
    );

    let id = second["id"].as_str().unwrap();
    let kept = world
        .client
        .get(&format!("/v1/responses/{id}"))
        .await
        .json();
    assert_eq!(
        (&kept["id"], &kept["status"]),
        (&second["id"], &"completed".into())
    );
}

#[tokio::test]
async fn an_upstream_that_keeps_the_response_itself_gets_its_id() {
    let world = World::start("", "").await;
    let body = json!({ "model": "fast-responses", "input": "One." }).to_string();
    let first = world.client.post("/v1/responses", body).await.json();
    go_on(
        &world.client,
        "fast-responses",
        first["id"].as_str().unwrap(),
        "Two.",
    )
    .await;
    let sent: Value = serde_json::from_slice(&world.fast.bill().pop().unwrap().body).unwrap();
    assert_eq!(sent["previous_response_id"], first["id"]);
    assert_eq!(sent["input"], "Two.", "the bytes went on as they came");
}

#[tokio::test]
async fn counting_makes_a_hold_fit_that_bytes_would_not() {
    // 6,000 bytes at 1 USD a million are 0.006 USD; as tokens they are a sixth of that.
    let tail = "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"0.0055\"\nwindow = \"total\"\n\
        [[endpoint]]\nname = \"known\"\ndialect = \"openai_chat\"\nurl = \"URL\"\n\
        [[model]]\nname = \"known\"\ntier = \"fast\"\nendpoint = \"known\"\nprice = \"test/fast\"\n\
        tokenizer = \"o200k_base\"\n";
    let world = World::start("meter.hold_wait_ms = 100", "").await;
    world.configure(|text| text + &tail.replace("URL", &world.fast.url()));
    world.fast.set_script(Script {
        output_tokens: 5,
        ..script(FAST)
    });
    let prompt = "several words together ".repeat(260);
    let by_bytes = chat("fast-chat", &prompt, ",\"max_tokens\":50");
    let denied = world.client.post("/v1/chat/completions", by_bytes).await;
    assert_eq!(
        denied.json()["error"]["code"],
        "budget_exceeded",
        "{}",
        denied.text()
    );
    let by_tokens = chat("known", &prompt, ",\"max_tokens\":50");
    let served = world.client.post("/v1/chat/completions", by_tokens).await;
    assert_eq!(served.status, 200, "{}", served.text());
    let entry = world.entries().await.pop().unwrap();
    assert!(
        entry.cost <= entry.held.bound,
        "{} of {}",
        entry.cost,
        entry.held.bound
    );
}

#[tokio::test]
async fn auto_reaches_both_tiers_whatever_dialect_they_speak() {
    let world = World::start("", "").await;
    // A price stands behind the endpoints of the tier before it, and goes with the last of them.
    let price = "[[price]]\nid = \"test/deep\"\ninput = \"5\"\noutput = \"20\"\n";
    world.configure(|text| {
        let others = [
            "fast-responses",
            "fast-messages",
            "deep-chat",
            "deep-responses",
        ];
        let stays = |part: &&str| !others.iter().any(|other| part.contains(other));
        let parts: Vec<&str> = text.split("[[endpoint]]").filter(stays).collect();
        parts.join("[[endpoint]]") + price
    });
    let mut tiers = std::collections::BTreeSet::new();
    for number in 0..40 {
        let body =
            json!({ "model": "auto", "input": format!("Prove theorem {number}, step by step.") });
        let reply = world.client.post("/v1/responses", body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.json()["object"], "response");
        tiers.insert(reply.header("x-pareto-model"));
    }
    assert_eq!(
        tiers.into_iter().collect::<Vec<_>>(),
        ["deep-messages", "fast-chat"]
    );
}

#[tokio::test]
async fn a_model_with_an_endpoint_for_each_dialect_is_called_in_the_callers_own() {
    let tail = "[[model]]\nname = \"both\"\ntier = \"fast\"\nendpoint = [\"fast-chat\", \"fast-messages\"]\n\
        price = \"test/fast\"\n";
    let world = World::start("", tail).await;
    for (tongue, dialect) in [
        (Tongue::Chat, "openai_chat"),
        (Tongue::Messages, "anthropic_messages"),
        (Tongue::Responses, "openai_chat"),
    ] {
        let mut talk = Talk::plain(tongue, "");
        talk.say("user", "Hi");
        talk.ask(&world.client, "both").await;
        assert_eq!(world.fast.bill().pop().unwrap().dialect, dialect);
    }
}
