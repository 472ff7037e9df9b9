//! Proves that decisions can be held against what came of them: the control group with its odds,
//! verdicts on answers, the saving that is reported against the ledger's own rows, conversations that
//! stay where their cache is worth more.

use bench::upstream::Script;
use meter::finance::Filter;
use meter::routing::Learning;
use meter::{Entry, Feedback, NanoUsd, Routing, VerdictKind};
use serde_json::json;
use tests::World;
use tests::world::{DEEP, FAST, chat, script};

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_share_of_calls_is_drawn_by_lot_and_its_odds_are_kept() {
    let world = World::start("routing.control_per_thousand = 500", "").await;
    for n in 0..200 {
        let reply = world
            .client
            .post(
                PATH,
                chat("auto", &format!("Sum the first {n} primes."), ""),
            )
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    let entries = world.entries().await;
    let (mut drawn, mut deep) = (0, 0);
    for entry in &entries {
        let routing = entry.held.routing.as_ref().expect("a decision");
        let odds = f64::from(routing.propensity_ppm) / 1e6;
        // One in two is drawn, and one in five of those goes deep.
        let lot = if entry.held.tier == wire::Tier::Deep {
            0.1
        } else {
            0.4
        };
        match &*entry.held.reason {
            "control" => {
                drawn += 1;
                assert!(
                    (odds - lot).abs() < 1e-3 || (odds - lot - 0.5).abs() < 1e-3,
                    "{odds}"
                );
            }
            "score" | "split" | "cascade" => assert!((odds - lot - 0.5).abs() < 1e-3, "{odds}"),
            other => panic!("{other}"),
        }
        deep += usize::from(entry.held.tier == wire::Tier::Deep);
    }
    assert!((60..140).contains(&drawn), "{drawn} of 200 drawn");
    assert!(
        (35..=45).contains(&deep),
        "{deep} of 200 deep, the lot included"
    );
}

#[tokio::test]
async fn a_verdict_is_taken_once_and_only_from_its_tenant() {
    let world = World::start("", "").await;
    let reply = world
        .client
        .post(PATH, chat("auto", "What is a monad?", ""))
        .await;
    let id = reply.header("x-request-id");
    let say = |body: serde_json::Value| {
        let client = &world.client;
        async move { client.post("/v1/feedback", body.to_string()).await }
    };
    let first = say(json!({ "request_id": id, "score": 0.75, "note": "good" })).await;
    assert_eq!(
        first.json(),
        json!({ "request_id": id, "kind": "score", "recorded": true })
    );
    let again = say(json!({ "request_id": id, "score": 0.75 })).await;
    assert_eq!(again.json()["recorded"], false);
    assert_eq!(
        say(json!({ "request_id": id, "outcome": "failure" }))
            .await
            .status,
        200
    );
    for (body, told) in [
        (json!({ "request_id": id, "score": 1.5 }), "between 0 and 1"),
        (
            json!({ "request_id": id, "score": 1, "edit": 1 }),
            "exactly one",
        ),
        (json!({ "request_id": id }), "exactly one"),
        (json!({ "score": 1 }), "request_id"),
        (json!({ "request_id": id, "stars": 5 }), "stars"),
    ] {
        let refused = say(body).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains(told), "{}", refused.text());
    }
    let unknown = json!({ "request_id": "req_01a1ff44409d771dbda0b39ad045a9c2", "score": 1 });
    assert_eq!(say(unknown).await.status, 404);
    let stranger = world.caller(&world.key("globex").await);
    let theirs = json!({ "request_id": id, "score": 0.0 }).to_string();
    assert_eq!(stranger.post("/v1/feedback", theirs).await.status, 404);
    assert_eq!(world.client.get("/v1/feedback").await.status, 405);

    let verdicts = &world.running.parts.store.ledger;
    let all = meter::Verdicts::between(&**verdicts, 0, i64::MAX, Some("acme")).expect("verdicts");
    let kinds: Vec<_> = all.iter().map(|it| (it.kind, it.good_ppm)).collect();
    assert_eq!(
        kinds,
        [(VerdictKind::Score, 750_000), (VerdictKind::Outcome, 0)]
    );
    let entry = &world.entries().await[0];
    assert_eq!((all[0].cost, all[0].baseline), (entry.cost, entry.baseline));
    assert_eq!(Some(&all[0].routing), entry.held.routing.as_deref());
}

/// What an entry's tokens cost at the deep tier, worked out from its rates alone.
fn at_deep(entry: &Entry) -> NanoUsd {
    let usage = &entry.usage;
    let pico = u128::from(usage.input) * u128::from(DEEP.2)
        + u128::from(usage.cache_read) * 100_000
        + u128::from(usage.output + usage.reasoning) * u128::from(DEEP.3);
    NanoUsd(i64::try_from((pico + 500) / 1_000).expect("small"))
}

#[tokio::test]
async fn the_saving_that_is_reported_is_the_ledgers_own_to_the_nano_dollar() {
    let world = World::start("routing.control_per_thousand = 100", "").await;
    for n in 0..60 {
        let text = format!("Question {n}: {}", "why ".repeat(n));
        let reply = world.client.post(PATH, chat("auto", &text, "")).await;
        let body = json!({ "request_id": reply.header("x-request-id"), "score": n % 2 });
        assert_eq!(
            world
                .client
                .post("/v1/feedback", body.to_string())
                .await
                .status,
            200
        );
    }
    let entries = world.entries().await;
    let deep: NanoUsd = entries.iter().map(at_deep).sum();
    let paid: NanoUsd = entries.iter().map(|it| it.cost).sum();
    let parts = std::sync::Arc::clone(&world.running.parts);
    let all = Filter {
        until_ms: i64::MAX,
        ..Filter::default()
    };
    let worth = tokio::task::spawn_blocking(move || parts.appraiser().worth(&all))
        .await
        .expect("a thread")
        .expect("sums");
    let told: NanoUsd = worth.routes.iter().map(|it| it.baseline - it.cost).sum();
    assert_eq!(told, deep - paid);
    assert_eq!((worth.verdicts, worth.routed.calls), (60, 60));
    assert_eq!(worth.routed.value, 500_000);
    assert_eq!(worth.scored, 60);
    let page = world.admin().get("/routing?period=7d").await.text();
    assert!(
        page.contains("As routed") && page.contains("By lot"),
        "{page}"
    );
}

/// Verdicts of a tenant whose calls need deep just where one part of the score is high.
fn taught(n: u64) -> Feedback {
    let luck = (0..3).fold(n + 1, |luck, _| {
        luck.wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407)
            .rotate_left(21)
    });
    let part = i32::try_from((luck >> 33) % 128).unwrap() - 64;
    let deep = (luck >> 50) % 5 == 0;
    let needs_deep = part >= 16;
    let mut layers = vec![0; 1 + router::score::LAYERS];
    layers[4] = part;
    let mut id = [0; 10];
    id[..8].copy_from_slice(&n.to_be_bytes());
    let tier = if deep {
        wire::Tier::Deep
    } else {
        wire::Tier::Fast
    };
    Feedback {
        request: wire::RequestId::new(1_700_000_000_000, id),
        tenant: "acme".into(),
        kind: VerdictKind::Score,
        good_ppm: if deep || !needs_deep { 1_000_000 } else { 0 },
        note: String::new(),
        by: "k".into(),
        at_ms: 0,
        held_at_ms: 0,
        model: "m".into(),
        tier,
        first_tier: tier,
        reason: "score".into(),
        routing: Routing {
            class: "default".into(),
            propensity_ppm: if deep { 200_000 } else { 800_000 },
            weights: router::version().into(),
            layers,
            ..Routing::default()
        },
        cost: NanoUsd::ZERO,
        baseline: NanoUsd::ZERO,
    }
}

async fn teach(world: &World, numbers: std::ops::Range<u64>) {
    let ledger = std::sync::Arc::clone(&world.running.parts.store.ledger);
    let added = tokio::task::spawn_blocking(move || {
        for n in numbers {
            assert!(meter::Verdicts::add(&*ledger, &taught(n)).unwrap());
        }
    });
    added.await.unwrap();
}

/// How learning stands, as soon as it is as awaited.
async fn stands(world: &World, is: impl Fn(&Learning) -> bool) -> Learning {
    let mut last = Vec::new();
    for _ in 0..400 {
        let parts = std::sync::Arc::clone(&world.running.parts);
        let worth = tokio::task::spawn_blocking(move || {
            parts.appraiser().worth(&Filter::default()).unwrap()
        });
        let learning = worth.await.unwrap().learning;
        if let Some(found) = learning.iter().find(|it| it.tenant == "acme" && is(it)) {
            return found.clone();
        }
        last = learning;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("never came: {last:?}");
}

#[tokio::test]
async fn verdicts_teach_a_tenants_own_head_and_nobody_elses() {
    let world = World::start("routing.control_per_thousand = 0", "").await;
    let ask = || {
        world
            .client
            .post(PATH, chat("auto", "What is a monad?", ""))
    };
    ask().await;
    teach(&world, 0..2_000).await;
    let taught = stands(&world, |it| it.serves && it.judged == 2_000).await;
    assert!(taught.gain_ppm > 0, "{taught:?}");
    ask().await;
    let stranger = world.caller(&world.key("globex").await);
    stranger
        .post(PATH, chat("auto", "What is a monad?", ""))
        .await;
    let heads: Vec<u32> = world
        .entries()
        .await
        .iter()
        .map(|it| it.held.routing.as_ref().unwrap().head)
        .collect();
    assert_eq!(
        heads,
        [0, taught.turns, 0],
        "its own head, and nobody else's"
    );
}

/// How often a conversation over a long prompt, all of which is cached, changes its tier.
async fn changes(head: &str) -> usize {
    let head = format!("routing.control_per_thousand = 0\n{head}");
    let world = World::start(&head, "").await;
    for (upstream, tier) in [(&world.fast, FAST), (&world.deep, DEEP)] {
        upstream.set_script(Script {
            cached_tokens: 1_000_000,
            ..script(tier)
        });
    }
    let long = "Here is the whole book. ".repeat(4_000);
    let mut turns = vec![json!({ "role": "user", "content": format!("{long} What is it about?") })];
    let headers = [("x-session-id", "book")];
    for n in 0..24 {
        let body = json!({ "model": "auto", "messages": turns, "max_completion_tokens": 8 });
        let post = http::Method::POST;
        let reply = world
            .client
            .send(post, PATH, &headers, body.to_string())
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        turns.push(json!({ "role": "assistant", "content": "It is." }));
        let ask = if n % 4 == 3 {
            "Prove the claim, step by step, for all n."
        } else {
            "Go on."
        };
        turns.push(json!({ "role": "user", "content": ask }));
    }
    let entries = world.entries().await;
    for e in &entries {
        println!(
            "{} {} {:?} {:?} lost {} seat {}",
            e.held.tier,
            e.held.reason,
            e.held.routing.as_ref().unwrap().score_ppm,
            e.held.routing.as_ref().unwrap().threshold_ppm,
            e.held.routing.as_ref().unwrap().lost,
            e.held.routing.as_ref().unwrap().seat
        );
    }
    let tiers: Vec<_> = entries.iter().map(|it| it.held.tier).collect();
    tiers.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[tokio::test]
async fn a_conversation_stays_where_its_cache_is_worth_more_than_the_change() {
    let free = changes("routing.switch.enabled = false").await;
    let held = changes("").await;
    assert!(free >= 2, "{free} changes without looking at the cache");
    assert!(held <= 1, "{held} changes");
}
