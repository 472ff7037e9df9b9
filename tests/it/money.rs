//! Proves promises 4 and 5 for calls that end well or badly: never overspent, nothing lost, each
//! attempt in the ledger once, at what the endpoint itself bills.

use std::time::Duration;

use bench::upstream::{Fault, Script};
use meter::Outcome;
use tests::world::{FAST, World, chat, script};
use wire::UsageSource;

fn budget(limit: &str) -> String {
    format!("[[budget]]\ntenant = \"acme\"\nlimit_usd = \"{limit}\"\nwindow = \"month\"\n")
}

/// Bills in nano-USD; the scripts' prices make whole ones.
fn nano(world: &World) -> i64 {
    world
        .bill()
        .iter()
        .map(|billed| i64::try_from(billed.cost_pico / 1_000).unwrap())
        .sum()
}

#[tokio::test]
async fn a_budget_of_twenty_calls_serves_at_least_nineteen_of_64_callers_and_is_never_overspent() {
    let call = || {
        chat(
            "fast",
            "Tell me about rivers.",
            ",\"max_completion_tokens\":200",
        )
    };
    // One call costs 12 prompt tokens at 1 and 200 answer tokens at 4 USD a million.
    let world = World::start("", &budget("0")).await;
    let probe = World::start("", "").await;
    probe.fast.set_script(Script {
        output_tokens: 200,
        ..script(FAST)
    });
    assert_eq!(
        probe
            .client
            .post("/v1/chat/completions", call())
            .await
            .status,
        200
    );
    let each = nano(&probe);
    let limit = meter::NanoUsd(each * 20);
    world.configure(|text| text.replace("limit_usd = \"0\"", &format!("limit_usd = \"{limit}\"")));
    world.fast.set_script(Script {
        output_tokens: 200,
        first_token_ms: 20,
        ..script(FAST)
    });
    let callers: Vec<_> = (0..64)
        .map(|_| {
            let client = world.caller(&world.client.key);
            let body = call();
            tokio::task::spawn(async move { client.post("/v1/chat/completions", body).await })
        })
        .collect();
    let (mut served, mut denied) = (0, 0);
    for caller in callers {
        let reply = caller.await.unwrap();
        match reply.status {
            200 => served += 1,
            429 => {
                denied += 1;
                assert_eq!(reply.json()["error"]["code"], "budget_exceeded");
                assert_eq!(reply.header("x-should-retry"), "false");
            }
            other => panic!("{other}: {}", reply.text()),
        }
    }
    assert!(nano(&world) <= limit.0, "{} of {limit}", nano(&world));
    assert!(
        (19..=20).contains(&served),
        "{served} served, {denied} denied"
    );
    assert_eq!(
        world.fast.calls(),
        served,
        "a denied call reaches no upstream"
    );
    let entries = world.entries().await;
    assert_eq!(
        entries.iter().map(|entry| entry.cost.0).sum::<i64>(),
        nano(&world)
    );
}

#[tokio::test]
async fn usage_is_taken_from_both_dialects_streamed_and_not() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        cached_tokens: 3,
        reasoning_tokens: 5,
        ..script(FAST)
    });
    for path in ["/v1/chat/completions", "/v1/messages"] {
        for rest in [",\"max_tokens\":100", ",\"max_tokens\":100,\"stream\":true"] {
            let reply = world
                .client
                .post(path, chat("fast", "Hello there", rest))
                .await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }
    let (entries, bill) = (world.entries().await, world.bill());
    assert_eq!((entries.len(), bill.len()), (4, 4));
    for (entry, billed) in entries.iter().zip(&bill) {
        let usage = &entry.usage;
        assert_eq!(entry.source, UsageSource::Provider);
        assert_eq!(usage.prompt(), billed.prompt_tokens, "{entry:?}");
        assert_eq!(
            (usage.cache_read, usage.answer()),
            (3, billed.output_tokens)
        );
        assert_eq!(
            entry.cost.0,
            i64::try_from(billed.cost_pico / 1_000).unwrap(),
            "{entry:?}"
        );
        assert!(entry.cost <= entry.held.bound);
        assert_eq!(entry.held.request.to_string(), billed.request);
    }
}

#[tokio::test]
async fn missing_or_hostile_usage_is_counted_and_marked() {
    let world = World::start("", "").await;
    for fault in [Fault::NoUsage, Fault::HostileUsage] {
        world.fast.set_script(Script {
            fault: Some(fault),
            output_tokens: 40,
            ..script(FAST)
        });
        for rest in [",\"max_tokens\":100", ",\"max_tokens\":100,\"stream\":true"] {
            for path in ["/v1/chat/completions", "/v1/messages"] {
                let reply = world
                    .client
                    .post(path, chat("fast", "Hello there", rest))
                    .await;
                assert_eq!(reply.status, 200, "{}", reply.text());
            }
        }
    }
    for (entry, billed) in world.entries().await.iter().zip(world.bill()) {
        assert_eq!(entry.source, UsageSource::Counted);
        assert!(entry.usage.answer() >= billed.output_tokens, "{entry:?}");
        assert!(entry.cost > meter::NanoUsd::ZERO && entry.cost <= entry.held.bound);
    }
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_upstream_and_pays_for_what_was_made() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        output_tokens: 10_000,
        token_gap_us: 2_000,
        ..script(FAST)
    });
    let body = chat("fast", "Hello", ",\"stream\":true,\"max_tokens\":20000");
    for path in ["/v1/chat/completions", "/v1/messages"] {
        world.client.leave_after(path, body.clone(), 8).await;
    }
    world
        .until("both are cancelled", |world| world.fast.bill().len() == 2)
        .await;
    let bill = world.fast.bill();
    let mut entries = world.entries().await;
    for _ in 0..100 {
        if entries.len() == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        entries = world.entries().await;
    }
    for (entry, billed) in entries.iter().zip(bill) {
        assert!(
            !billed.completed && billed.output_tokens < 1_000,
            "{}",
            billed.output_tokens
        );
        assert_eq!(
            (entry.outcome, entry.source),
            (Outcome::Disconnected, UsageSource::Counted)
        );
        assert!(
            entry.usage.output >= billed.output_tokens,
            "{entry:?} {billed:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_nobody_saw_or_bounded_costs_what_a_long_one_does() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        first_token_ms: 3_000,
        ..script(FAST)
    });
    // No budget, no cap or one that no model could fill, and nobody knows how much the model says.
    for (rest, most) in [("", 128 << 10), (",\"max_tokens\":4000000000", 1 << 20)] {
        let before = world.entries().await.len();
        let call = chat("fast", "Hello", rest);
        let call = world.client.post("/v1/chat/completions", call);
        let left = tokio::time::timeout(Duration::from_millis(300), call).await;
        assert!(left.is_err());
        world.quiet().await;
        let entries = world.entries().await;
        assert_eq!(entries.len(), before + 1);
        let entry = &entries[before];
        assert_eq!(entry.source, UsageSource::Estimated, "{entry:?}");
        assert_eq!(entry.usage.output, most, "{rest}");
    }
}

#[tokio::test]
async fn a_call_without_a_cap_gets_the_one_that_was_held() {
    let world = World::start("meter.default_max_output = 77", &budget("1")).await;
    world.fast.set_script(Script {
        output_tokens: 500,
        ..script(FAST)
    });
    let reply = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hello", ""))
        .await;
    assert_eq!(
        reply.json()["usage"]["completion_tokens"],
        77,
        "{}",
        reply.text()
    );
    let sent: serde_json::Value = serde_json::from_slice(&world.fast.bill()[0].body).unwrap();
    assert_eq!(sent["max_completion_tokens"], 77);
    let free = world.caller(&world.key("free").await);
    free.post("/v1/chat/completions", chat("fast", "Hello", ""))
        .await;
    let sent: serde_json::Value = serde_json::from_slice(&world.fast.bill()[1].body).unwrap();
    assert!(
        sent.get("max_completion_tokens").is_none(),
        "without a hard budget nothing is added"
    );
}

#[tokio::test]
async fn an_unpriced_model_is_refused_under_a_hard_budget_and_metered_elsewhere() {
    let world = World::start("", &budget("1")).await;
    world.configure(|text| text.replace("price = \"test/fast\"\n", ""));
    let refused = world
        .client
        .post("/v1/chat/completions", chat("fast", "Hello", ""))
        .await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (403, &"model_unpriced".into())
    );
    let free = world.caller(&world.key("free").await);
    assert_eq!(
        free.post("/v1/chat/completions", chat("fast", "Hello", ""))
            .await
            .status,
        200
    );
    let entries = world.entries().await;
    assert_eq!(
        (entries.len(), entries[0].cost, &*entries[0].held.price),
        (1, meter::NanoUsd::ZERO, "")
    );
    assert!(entries[0].usage.answer() > 0, "metered, to be rated later");
}

#[tokio::test]
async fn what_has_no_bound_is_refused_under_a_hard_budget_or_held_in_full() {
    let world = World::start("", &budget("0.5")).await;
    let search = chat(
        "fast",
        "Hi",
        ",\"max_tokens\":9,\"tools\":[{\"type\":\"web_search_20260209\",\"name\":\"s\"}]",
    );
    let refused = world.client.post("/v1/messages", search.clone()).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["code"]),
        (403, &"unbounded_cost".into())
    );
    let free = world.caller(&world.key("free").await);
    assert_eq!(free.post("/v1/messages", search).await.status, 200);
    let file = "{\"model\":\"fast\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{}}]}]}";
    let denied = world.client.post("/v1/messages", file).await;
    assert_eq!(
        denied.json()["error"]["code"],
        "budget_exceeded",
        "a million tokens at 1 USD do not fit"
    );
    let two = chat(
        "fast",
        "Hi",
        ",\"max_tokens\":10,\"max_completion_tokens\":20000",
    );
    assert_eq!(
        world.client.post("/v1/chat/completions", two).await.status,
        200
    );
    let sent: serde_json::Value =
        serde_json::from_slice(&world.fast.bill().pop().unwrap().body).unwrap();
    assert_eq!(
        (&sent["max_tokens"], &sent["max_completion_tokens"]),
        (&10.into(), &10.into())
    );
}

#[tokio::test]
async fn the_deep_share_is_held_from_the_first_calls_on() {
    let world = World::start("", "").await;
    for n in 0..200 {
        let text = format!("Question {n}: what is {n} plus {n}?");
        assert_eq!(
            world
                .client
                .post("/v1/chat/completions", chat("auto", &text, ""))
                .await
                .status,
            200
        );
    }
    let deep = world.deep.calls();
    // Four calls to either side by choice, five with those that are drawn by lot.
    assert!((35..=45).contains(&deep), "{deep} of 200");
}
