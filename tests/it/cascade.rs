//! Proves the cascade: calls near the threshold are tried fast first, and go deep where that answer
//! fails a check, in every dialect, streamed or not, within the split's target, both attempts metered.

use std::sync::Arc;

use bench::upstream::{Billed, Fault, Script, ScriptedCall};
use meter::{Entry, Feedback, Outcome, Verdicts};
use serde_json::{Value, json};
use tests::talk::{Talk, Tongue};
use tests::world::{DEEP, FAST, script};
use tests::{Reply, World};
use wire::{Tier, UsageSource};

/// Every call is near the threshold, and every escalation allowed.
const ALL: &str = "routing.control_per_thousand = 0\nrouting.deep_per_thousand = 1000\nrouting.cascade.margin_per_thousand = 1000\n\
                   routing.cascade.logprob = true\n";
/// Every call is near the threshold, and streams are held for long.
const NEAR_AND_SLOW: &str = "routing.control_per_thousand = 0\nrouting.cascade.margin_per_thousand = 1000\nrouting.cascade.hold_ms = 600000\n";
const DECLINES: &str = "I'm sorry, but I can't help with that. ";

fn fast(change: impl FnOnce(&mut Script)) -> Script {
    let mut script = Script {
        key: Some("up-fast".into()),
        ..script(FAST)
    };
    change(&mut script);
    script
}

fn deep(change: impl FnOnce(&mut Script)) -> Script {
    let mut script = Script {
        key: Some("up-deep".into()),
        // What is left of the fast answer has the time to come to its end.
        first_token_ms: 30,
        ..script(DEEP)
    };
    change(&mut script);
    script
}

fn says(text: &str) -> Script {
    fast(|it| it.say = Some(text.to_owned()))
}

/// A call to `auto`, with more fields in it.
fn body(tongue: Tongue, stream: bool, more: Value) -> Value {
    let mut talk = Talk::plain(tongue, "Be brief.");
    talk.say("user", "What is the capital of France?");
    let mut body = talk.body("auto");
    if stream {
        body["stream"] = true.into();
        if tongue == Tongue::Chat {
            body["stream_options"] = json!({ "include_usage": true });
        }
    }
    for (name, value) in more.as_object().unwrap() {
        body[name.as_str()] = value.clone();
    }
    body
}

fn city() -> Value {
    json!({ "type": "object", "required": ["city"], "additionalProperties": false,
        "properties": { "city": { "type": "string" } } })
}

/// The fields that ask for JSON of a schema.
fn asks_for_json(tongue: Tongue) -> Value {
    match tongue {
        Tongue::Chat => json!({ "response_format": {
            "type": "json_schema", "json_schema": { "name": "place", "schema": city() } } }),
        Tongue::Responses => json!({ "text": { "format": {
            "type": "json_schema", "name": "place", "schema": city() } } }),
        Tongue::Messages => {
            json!({ "output_config": { "format": { "type": "json_schema", "schema": city() } } })
        }
    }
}

/// The fields that offer the tool `look`.
fn offers_tool(tongue: Tongue) -> Value {
    match tongue {
        Tongue::Chat => json!({ "tools": [{ "type": "function",
            "function": { "name": "look", "parameters": city() } }] }),
        Tongue::Responses => {
            json!({ "tools": [{ "type": "function", "name": "look", "parameters": city() }] })
        }
        Tongue::Messages => json!({ "tools": [{ "name": "look", "input_schema": city() }] }),
    }
}

fn looks(name: &str, arguments: Value) -> Vec<ScriptedCall> {
    vec![ScriptedCall {
        name: name.to_owned(),
        arguments,
        invented: true,
    }]
}

fn nothing(_: Tongue) -> Value {
    json!({})
}

fn nano(bills: &[Billed]) -> i64 {
    let pico: u64 = bills.iter().map(|billed| billed.cost_pico).sum();
    i64::try_from(pico / 1_000).unwrap()
}

fn cost(entries: &[Entry]) -> i64 {
    entries.iter().map(|entry| entry.cost.0).sum()
}

/// One call escalates for `cause`: what its head says, what was given, and both attempts on the books.
async fn check(world: &World, tongue: Tongue, stream: bool, more: Value, cause: &str) {
    let what = format!("{cause}, {tongue:?}, stream {stream}");
    let before = (world.entries().await.len(), world.bill().len());
    let sent = body(tongue, stream, more).to_string();
    let reply = world.client.post(tongue.path(), sent).await;
    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    let head = ["x-pareto-route", "x-pareto-escalated", "x-pareto-tier"].map(|it| reply.header(it));
    assert_eq!(
        head,
        ["escalated", cause, "deep"],
        "{what}: {}",
        reply.text()
    );
    assert!(!reply.broken, "{what}");
    let entries = world.entries().await.split_off(before.0);
    let legs: Vec<_> = entries
        .iter()
        .map(|it| {
            (
                it.held.attempt,
                it.held.tier,
                &*it.held.reason,
                &*it.held.escalated,
                it.outcome,
            )
        })
        .collect();
    let wanted = [
        (0, Tier::Fast, "cascade", cause, Outcome::Completed),
        (1, Tier::Deep, "escalated", cause, Outcome::Completed),
    ];
    assert_eq!(legs, wanted, "{what}");
    assert_eq!(entries[0].held.request, entries[1].held.request);
    let request = entries[0].held.request.to_string();
    let mut bill = world.bill();
    bill.retain(|billed| billed.request == request);
    assert_eq!(
        (bill.len(), world.bill().len()),
        (2, before.1 + 2),
        "{what}"
    );
    assert_eq!(cost(&entries), nano(&bill), "{what}");
    if !stream {
        let told = entries[0].cost + entries[1].cost;
        assert_eq!(reply.header("x-pareto-cost-usd"), told.to_usd(), "{what}");
    }
}

/// The answer that was given is the one that an endpoint sent, byte by byte.
fn is_answer_of(reply: &Reply, bills: &[Billed]) {
    let sent = &bills.last().unwrap().answer;
    assert_eq!(reply.text(), String::from_utf8_lossy(sent));
}

#[tokio::test]
async fn every_cause_escalates_in_every_dialect_streamed_and_not() {
    let world = World::start(ALL, "").await;
    type Fields = fn(Tongue) -> Value;
    let wrong = || looks("look", json!({ "city": 5 }));
    let cases: [(&str, Script, Fields, &[Tongue]); 10] = [
        ("refusal", says(DECLINES), nothing, &Tongue::ALL),
        (
            "refusal",
            fast(|it| (it.say, it.refuses) = (Some("No.".into()), true)),
            nothing,
            &Tongue::ALL,
        ),
        ("truncated", says(""), nothing, &Tongue::ALL),
        (
            "truncated",
            fast(|it| it.most_tokens = Some(3)),
            nothing,
            &[Tongue::Chat, Tongue::Responses],
        ),
        (
            "schema",
            says("Paris, I think."),
            asks_for_json,
            &Tongue::ALL,
        ),
        ("schema", says("{\"city\":5}"), asks_for_json, &Tongue::ALL),
        (
            "tool_arguments",
            fast(|it| it.call = wrong()),
            offers_tool,
            &Tongue::ALL,
        ),
        (
            "tool_arguments",
            fast(|it| it.call = looks("listen", json!({}))),
            offers_tool,
            &Tongue::ALL,
        ),
        (
            "doubt",
            says("I'm not sure, but Paris."),
            nothing,
            &Tongue::ALL,
        ),
        (
            "logprob",
            fast(|it| it.logprob = Some(-3.0)),
            nothing,
            &[Tongue::Chat, Tongue::Responses],
        ),
    ];
    world.deep.set_script(deep(|it| {
        it.call = vec![ScriptedCall {
            name: "look".into(),
            arguments: json!({ "city": "Paris" }),
            invented: false,
        }];
    }));
    for (cause, script, fields, tongues) in cases {
        world.fast.set_script(script);
        for tongue in tongues {
            for stream in [false, true] {
                check(&world, *tongue, stream, fields(*tongue), cause).await;
            }
        }
    }
}

#[tokio::test]
async fn a_call_escalates_from_one_dialect_to_another() {
    let world = World::start(ALL, "").await;
    // A caller of messages, a fast model that speaks chat, a deep one that speaks responses.
    world.configure(|text| {
        [
            "fast-messages",
            "fast-responses",
            "deep-messages",
            "deep-chat",
        ]
        .iter()
        .fold(text, |text, name| {
            let start = text.find(&format!("[[model]]\nname = \"{name}\"")).unwrap();
            let rest = &text[start + 2..];
            let end = rest.find("[[").map_or(text.len(), |at| start + 2 + at);
            format!("{}{}", &text[..start], &text[end..])
        })
    });
    world.deep.set_script(deep(|it| {
        it.call = looks("look", json!({ "city": "Paris" }));
    }));
    for (cause, script, fields) in [
        ("refusal", says(DECLINES), nothing as fn(Tongue) -> Value),
        ("schema", says("Paris."), asks_for_json),
        (
            "tool_arguments",
            fast(|it| it.call = looks("look", json!("{broken"))),
            offers_tool,
        ),
    ] {
        world.fast.set_script(script);
        for stream in [false, true] {
            check(
                &world,
                Tongue::Messages,
                stream,
                fields(Tongue::Messages),
                cause,
            )
            .await;
        }
    }
    let dialects: Vec<_> = world.bill().iter().map(|it| it.dialect).collect();
    assert!(
        dialects.iter().all(|it| *it != "anthropic_messages"),
        "{dialects:?}"
    );
}

#[tokio::test]
async fn an_answer_that_passes_is_released_as_it_came() {
    let head = "routing.control_per_thousand = 0\nrouting.cascade.margin_per_thousand = 1000";
    for tongue in Tongue::ALL {
        let world = World::start(head, "").await;
        world.fast.set_script(fast(|it| it.output_tokens = 60));
        for (number, split) in [false, true].into_iter().enumerate() {
            world.fast.set_script(fast(|it| {
                (it.output_tokens, it.split_chars) = (60, split);
            }));
            let sent = body(tongue, number == 0, json!({})).to_string();
            let reply = world.client.post(tongue.path(), sent).await;
            let told = ["x-pareto-route", "x-pareto-escalated"].map(|it| reply.header(it));
            assert_eq!(told, ["cascade", ""], "{tongue:?}");
            is_answer_of(&reply, &world.fast.bill());
        }
        let entries = world.entries().await;
        assert!(entries.iter().all(|it| it.held.escalated.is_empty()));
        assert_eq!((entries.len(), world.deep.calls()), (2, 0));
        assert_eq!(cost(&entries), nano(&world.bill()));
    }
}

#[tokio::test]
async fn escalations_stop_at_the_target() {
    let world = World::start(
        "routing.control_per_thousand = 0\nrouting.cascade.margin_per_thousand = 1000",
        "",
    )
    .await;
    world.fast.set_script(says(DECLINES));
    let mut denied = 0;
    for n in 0..200 {
        let sent = body(Tongue::Chat, n % 2 == 0, json!({})).to_string();
        let reply = world.client.post(Tongue::Chat.path(), sent).await;
        assert_eq!(reply.status, 200);
        if reply.header("x-pareto-tier") == "fast" {
            denied += 1;
            assert!(reply.text().contains("sorry"), "the answer as it is");
        }
    }
    let entries = world.entries().await;
    let deep = entries
        .iter()
        .filter(|it| it.held.tier == Tier::Deep)
        .count();
    assert!((36..=44).contains(&deep), "{deep} of 200");
    assert_eq!(denied + deep, 200);
    assert_eq!(cost(&entries), nano(&world.bill()));
    let metrics = world.admin().get("/metrics").await.text();
    let counted = |result: &str| {
        let label = format!("result=\"{result}\"");
        let line = |line: &&str| line.starts_with("pareto_cascades_total") && line.contains(&label);
        let lines = metrics.lines().filter(line);
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap())
            .sum::<usize>()
    };
    // Other tests of this process count as well.
    assert!(
        counted("denied") >= denied && counted("escalated") > 0,
        "{metrics}"
    );
}

#[tokio::test]
async fn where_deep_fails_the_fast_answer_is_given() {
    for fault in [
        "status:500",
        "status:400",
        "refuse",
        "cut_after:0",
        "wrong_type",
    ] {
        for stream in [false, true] {
            let world = World::start(ALL, "").await;
            world.fast.set_script(says(DECLINES));
            world
                .deep
                .set_script(deep(|it| it.fault = Some(fault.parse().unwrap())));
            let sent = body(Tongue::Chat, stream, json!({})).to_string();
            let reply = world.client.post(Tongue::Chat.path(), sent).await;
            let what = format!("{fault}, stream {stream}: {}", reply.text());
            let told = ["x-pareto-route", "x-pareto-tier", "x-pareto-escalated"];
            let told = told.map(|it| reply.header(it));
            assert_eq!(told, ["cascade", "fast", ""], "{what}");
            assert_eq!((reply.status, reply.broken), (200, false), "{what}");
            is_answer_of(&reply, &world.fast.bill());
            let mut entries = world.entries().await;
            entries.sort_by_key(|it| it.held.attempt);
            let first = entries.first().unwrap();
            let judged = (first.outcome, &*first.held.escalated);
            assert_eq!(judged, (Outcome::Completed, "refusal"), "{what}");
            assert_eq!(first.cost.0, nano(&world.fast.bill()), "{what}");
            let rest = &entries[1..];
            assert!(rest.iter().all(|it| it.held.tier == Tier::Deep), "{what}");
            let judged = verdict_on(&world, &reply).await;
            assert_eq!(
                (judged.tier, &*judged.reason, &judged.model),
                (Tier::Fast, "cascade", &first.held.model),
                "{what}: what is judged is the answer that was given"
            );
            // The escalation is taken back: the split owes the deep tier nothing for it.
            let saved = world.saved_split().await;
            assert_eq!(
                (saved["total"].as_u64(), saved["deep"].as_u64()),
                (Some(1), Some(0)),
                "{what}"
            );
        }
    }
}

/// What is kept of a verdict on the call that was answered so.
async fn verdict_on(world: &World, reply: &Reply) -> Feedback {
    let said = json!({ "request_id": reply.header("x-request-id"), "score": 1.0 });
    let told = world.client.post("/v1/feedback", said.to_string()).await;
    assert_eq!(told.status, 200, "{}", told.text());
    let store = Arc::clone(&world.running.parts.store);
    let read = move || store.ledger.between(0, i64::MAX, None).unwrap();
    let mut all = tokio::task::spawn_blocking(read).await.unwrap();
    all.pop().expect("a verdict")
}

#[tokio::test]
async fn a_stream_that_goes_on_refusing_is_cut_and_paid_for_as_counted() {
    let world = World::start(ALL, "").await;
    world.fast.set_script(fast(|it| {
        (it.say, it.repeat, it.token_gap_us) = (Some(DECLINES.to_owned()), 500, 5_000);
    }));
    world.deep.set_script(deep(|it| it.first_token_ms = 0));
    let sent = body(Tongue::Chat, true, json!({})).to_string();
    let reply = world.client.post(Tongue::Chat.path(), sent).await;
    assert_eq!(reply.header("x-pareto-route"), "escalated");
    is_answer_of(&reply, &world.deep.bill());
    let entries = settled(&world, 2).await;
    let cut = entries
        .iter()
        .find(|it| it.held.tier == Tier::Fast)
        .unwrap();
    let ended = (cut.outcome, cut.source);
    assert_eq!(ended, (Outcome::Interrupted, UsageSource::Counted));
    world
        .until("the endpoint notices", |world| world.bill().len() == 2)
        .await;
    let billed = &world.fast.bill()[0];
    assert!(!billed.completed, "it was told to stop");
    let most = cut.cost + cut.suspense;
    assert!(
        most.0 >= nano(&world.fast.bill()),
        "{most} of {}",
        billed.cost_pico
    );
}

#[tokio::test]
async fn a_stream_that_breaks_while_it_is_held_fails_over() {
    let world = World::start(ALL, "").await;
    for fault in [Fault::CutAfter(2), Fault::ErrorAfter(2), Fault::Garbage(2)] {
        world
            .fast
            .set_script(fast(|it| it.fault = Some(fault.clone())));
        let sent = body(Tongue::Messages, true, json!({})).to_string();
        let reply = world.client.post(Tongue::Messages.path(), sent).await;
        assert_eq!((reply.status, reply.broken), (200, false), "{fault:?}");
        assert_eq!(reply.header("x-pareto-tier"), "deep", "{fault:?}");
        is_answer_of(&reply, &world.deep.bill());
    }
}

#[tokio::test]
async fn a_slow_stream_is_held_no_longer_than_is_said() {
    let head = "routing.control_per_thousand = 0\nrouting.cascade.margin_per_thousand = 1000\nrouting.cascade.hold_ms = 1";
    let world = World::start(head, "").await;
    world.fast.set_script(fast(|it| {
        (it.say, it.token_gap_us) = (Some("A river. I'm not sure, though.".into()), 20_000);
    }));
    let sent = body(Tongue::Chat, true, json!({})).to_string();
    let reply = world.client.post(Tongue::Chat.path(), sent).await;
    assert_eq!(reply.header("x-pareto-route"), "cascade");
    is_answer_of(&reply, &world.fast.bill());
    assert_eq!(world.deep.calls(), 0, "what is released is not taken back");
}

#[tokio::test]
async fn where_no_budget_holds_deep_the_fast_answer_is_given() {
    let budget = "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"0.0015\"\nwindow = \"month\"\n";
    for stream in [false, true] {
        let world = World::start(ALL, budget).await;
        world.fast.set_script(says(DECLINES));
        let more = json!({ "max_completion_tokens": 100 });
        let sent = body(Tongue::Chat, stream, more).to_string();
        let reply = world.client.post(Tongue::Chat.path(), sent).await;
        let told = (reply.status, reply.header("x-pareto-tier"));
        assert_eq!(told, (200, "fast".to_owned()), "{}", reply.text());
        is_answer_of(&reply, &world.fast.bill());
        assert_eq!(world.deep.calls(), 0);
        assert_eq!(cost(&world.entries().await), nano(&world.bill()));
    }
}

#[tokio::test]
async fn only_calls_that_the_score_decides_are_checked() {
    let world = World::start(ALL, "").await;
    world.fast.set_script(says(DECLINES));
    let after_tool = json!({ "messages": [
        { "role": "user", "content": "Look." },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c1", "type": "function",
            "function": { "name": "look", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "c1", "content": DECLINES },
    ] });
    let cheap = [("x-pareto-max-cost", "1")];
    for (more, headers) in [
        (json!({ "model": "fast" }), &[][..]),
        (json!({ "model": "fast-chat" }), &[]),
        (json!({ "n": 2 }), &[]),
        (after_tool, &[]),
        (json!({}), &cheap),
    ] {
        let sent = body(Tongue::Chat, false, more.clone()).to_string();
        let path = Tongue::Chat.path();
        let reply = world
            .client
            .send(http::Method::POST, path, headers, sent)
            .await;
        assert_eq!(reply.status, 200, "{more}: {}", reply.text());
        let route = reply.header("x-pareto-route");
        assert!(
            !["cascade", "escalated"].contains(&route.as_str()),
            "{more}: {route}"
        );
    }
    let entries = world.entries().await;
    assert!(
        entries
            .iter()
            .all(|it| it.held.attempt == 0 && it.held.escalated.is_empty())
    );
}

#[tokio::test]
async fn nothing_is_held_where_the_cascade_is_off_or_the_tier_named() {
    let forever = "routing.cascade.hold_ms = 600000\nrouting.cascade.hold_whole_ms = 600000\n";
    let near = "routing.control_per_thousand = 0\nrouting.cascade.margin_per_thousand = 1000";
    for (head, model) in [
        ("routing.cascade.enabled = false", "auto"),
        ("routing.cascade.margin_per_thousand = 0", "auto"),
        (near, "fast"),
    ] {
        let world = World::start(&format!("{forever}{head}"), "").await;
        world
            .fast
            .set_script(fast(|it| it.fault = Some(Fault::HangAfter(1))));
        let sent = body(Tongue::Chat, true, json!({ "model": model })).to_string();
        let path = Tongue::Chat.path();
        let seen = world.client.leave_after(path, sent, 2).await;
        assert!(seen.contains("content"), "{head}: {seen}");
    }
}

#[tokio::test]
async fn a_caller_that_leaves_while_the_answer_is_held_pays_for_what_was_seen() {
    let world = World::start(NEAR_AND_SLOW, "").await;
    // It has not been judged yet.
    world
        .fast
        .set_script(fast(|it| it.fault = Some(Fault::HangAfter(2))));
    leave_when(&world, |world| world.fast.calls() == 1).await;
    // It has been judged, and deep is asked.
    world.fast.set_script(says(DECLINES));
    world
        .deep
        .set_script(deep(|it| it.fault = Some(Fault::HangBeforeHeaders)));
    leave_when(&world, |world| world.deep.calls() == 1).await;
    let entries = settled(&world, 3).await;
    assert!(
        entries
            .iter()
            .all(|it| it.outcome == Outcome::Disconnected && it.cost <= it.held.bound)
    );
    let judged = entries
        .iter()
        .find(|it| &*it.held.escalated == "refusal" && it.held.attempt == 0);
    let judged = judged.unwrap();
    assert_eq!(judged.source, UsageSource::Provider);
    // The endpoint may hear late that the first caller left.
    let request = judged.held.request.to_string();
    let mut bill = world.fast.bill();
    bill.retain(|billed| billed.request == request);
    assert_eq!(judged.cost.0, nano(&bill));
}

/// Begins a stream, and leaves once `seen`.
async fn leave_when(world: &World, seen: impl FnMut(&World) -> bool) {
    let sent = body(Tongue::Chat, true, json!({})).to_string();
    let client = world.caller(&world.client.key);
    let calling = tokio::task::spawn(async move { client.post(Tongue::Chat.path(), sent).await });
    world.until("the call is under way", seen).await;
    calling.abort();
}

/// The entries, once there are so many.
async fn settled(world: &World, number: usize) -> Vec<Entry> {
    for _ in 0..1_000 {
        let entries = world.entries().await;
        if entries.len() == number {
            return entries;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never came: {number} entries");
}
