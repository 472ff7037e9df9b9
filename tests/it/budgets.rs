//! What budgets and limits do to calls: the ladder, one budget for each user, rates, a caller's own
//! limit, changes by people, alarms; told in answers that a caller can act on.

use std::sync::Arc;

use serde_json::json;
use tests::World;
use tests::world::chat;

const CHAT: &str = "/v1/chat/completions";

async fn call(world: &World, model: &str, headers: &[(&str, &str)], rest: &str) -> tests::Reply {
    let body = chat(model, "What is a river?", rest);
    world
        .client
        .send(http::Method::POST, CHAT, headers, body)
        .await
}

fn budget(limit: &str, more: &str) -> String {
    format!("[[budget]]\ntenant = \"acme\"\nlimit_usd = \"{limit}\"\nwindow = \"total\"\n{more}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_user_of_a_pattern_has_a_budget_of_its_own() {
    let world = World::start(
        "meter.hold_wait_ms = 50",
        &budget("0.0005", "user = \"*\"\n"),
    )
    .await;
    let ann = [("x-pareto-user", "ann")];
    let mut answered = 0;
    let denied = loop {
        let reply = call(&world, "fast", &ann, ",\"max_tokens\":20").await;
        if reply.status != 200 {
            break reply;
        }
        answered += 1;
        assert!(answered < 50, "the budget ends");
    };
    assert_eq!(denied.status, 429, "{}", denied.text());
    let bob = call(
        &world,
        "fast",
        &[("x-pareto-user", "bob")],
        ",\"max_tokens\":20",
    )
    .await;
    assert_eq!(bob.status, 200, "bob has his own");
    let nobody = call(&world, "fast", &[], ",\"max_tokens\":20").await;
    assert_eq!(nobody.status, 200, "who names no user is not limited by it");
    let listed = world.admin().get("/api/budgets").await.json();
    let ids: Vec<&str> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["budget"]["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["acme/user:*/total/ann", "acme/user:*/total/bob"]);
    // A reload keeps what each has spent.
    world.configure(|text| text);
    let again = call(&world, "fast", &ann, ",\"max_tokens\":20").await;
    assert_eq!(again.status, 429, "{}", again.text());
}

/// What `*` stands for: hard limits of nothing, so that each that covers a call refuses it.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_limited_for_each_one_is_limited_for_whoever_comes() {
    let user = [("x-pareto-user", "ann")];
    for (names, headers) in [
        ("tenant = \"*\"\n", &[][..]),
        ("tenant = \"*\"\nteam = \"*\"\n", &[]),
        ("tenant = \"*\"\nteam = \"search\"\n", &[]),
        ("tenant = \"*\"\nkey = \"*\"\n", &[]),
        ("tenant = \"*\"\nuser = \"*\"\n", &user),
        ("tenant = \"*\"\nmodels = [\"fast-chat\"]\n", &[]),
        ("tenant = \"acme\"\nproject = \"*\"\n", &[]),
    ] {
        for limit in [
            "[[budget]]\nlimit_usd = \"0\"\nwindow = \"month\"\n",
            "[[rate_limit]]\nrequests_per_minute = 0\n",
        ] {
            let tail = format!("{limit}{names}");
            let world = World::start("meter.hold_wait_ms = 50", &tail).await;
            let reply = call(&world, "fast-chat", headers, "").await;
            assert_eq!(reply.status, 429, "{tail}: {}", reply.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_spent_budget_tells_then_goes_fast_then_takes_only_what_is_free() {
    let world = World::start(
        "",
        &budget("0.01", "degrade = { tell = 1, fast = 2, free = 98 }\n"),
    )
    .await;
    let first = call(&world, "deep", &[], ",\"max_tokens\":20").await;
    assert_eq!(first.header("x-pareto-tier"), "deep");
    assert_eq!(
        first.header("x-pareto-budget-remaining"),
        "",
        "nothing is spent yet"
    );
    let second = call(&world, "deep", &[], ",\"max_tokens\":20").await;
    assert_eq!(second.header("x-pareto-tier"), "fast");
    assert_eq!(second.header("x-pareto-route"), "budget");
    let left = second.header("x-pareto-budget-remaining");
    assert!(left.starts_with("0.009"), "{left}");
    let named = call(&world, "deep-chat", &[], ",\"max_tokens\":20").await;
    assert_eq!(
        named.header("x-pareto-tier"),
        "deep",
        "what is named stays named"
    );
    world.configure(|text| text.replace("free = 98", "free = 2"));
    let refused = call(&world, "auto", &[], ",\"max_tokens\":20").await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("x-should-retry"), "false");
    assert!(
        refused.text().contains("cost nothing"),
        "{}",
        refused.text()
    );
    world.configure(|text| {
        text.replace(
            "input = \"1\"\noutput = \"4\"\ncache_read = \"0.1\"",
            "input = \"0\"\noutput = \"0\"\nconfirm_zero = true",
        )
    });
    let free = call(&world, "auto", &[], ",\"max_tokens\":20").await;
    assert_eq!(free.status, 200, "{}", free.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_s_own_limit_takes_a_cheaper_model_or_a_smaller_answer_or_is_told() {
    let world = World::start("", "").await;
    let dear = call(
        &world,
        "deep",
        &[("x-pareto-max-cost", "0.0001")],
        ",\"max_tokens\":20",
    )
    .await;
    assert_eq!(dear.status, 402, "{}", dear.text());
    assert!(dear.text().contains("max_cost_exceeded"));
    assert_eq!(
        world.fast.calls() + world.deep.calls(),
        0,
        "nothing was sent"
    );
    let cheaper = call(
        &world,
        "deep",
        &[("x-pareto-max-cost", "0.0003")],
        ",\"max_tokens\":20",
    )
    .await;
    assert_eq!(
        cheaper.header("x-pareto-tier"),
        "fast",
        "{}",
        cheaper.text()
    );
    let entry = world.entries().await.pop().unwrap();
    let routing = entry.held.routing.as_deref().unwrap();
    assert_eq!(
        (entry.held.attempt, routing.prompt_tokens > 0),
        (0, true),
        "the decision is kept"
    );
    let capped = call(&world, "fast", &[("x-pareto-max-cost", "0.0003")], "").await;
    assert_eq!(capped.status, 200, "{}", capped.text());
    assert_eq!(capped.header("x-pareto-cap-reason"), "budget");
    let cost = meter::NanoUsd::from_usd(&capped.header("x-pareto-cost-usd")).unwrap();
    assert!(cost.0 <= 300_000, "{cost}");
    let wrong = call(&world, "fast", &[("x-pareto-max-cost", "much")], "").await;
    assert_eq!(wrong.status, 400, "{}", wrong.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_and_calls_at_once_are_limited_and_told_when_to_come_back() {
    let limits = "[[rate_limit]]\ntenant = \"acme\"\nrequests_per_minute = 3\n\
                  [[rate_limit]]\ntenant = \"many\"\nconcurrency = 2\n\
                  [[rate_limit]]\ntenant = \"words\"\ntokens_per_minute = 500\n";
    let world = World::start("meter.hold_wait_ms = 100", limits).await;
    let mut statuses = Vec::new();
    let mut last = None;
    for _ in 0..8 {
        let reply = call(&world, "fast", &[], ",\"max_tokens\":20").await;
        statuses.push(reply.status);
        last = Some(reply);
    }
    let (good, over) = (
        statuses.iter().filter(|it| **it == 200).count(),
        statuses.iter().filter(|it| **it == 429).count(),
    );
    assert!(
        good == 3 || good == 6,
        "three in one minute, or six in two: {statuses:?}"
    );
    assert_eq!(good + over, 8);
    let last = last.unwrap();
    assert!(
        last.text().contains("rate_limit_exceeded"),
        "{}",
        last.text()
    );
    let wait: u64 = last.header("retry-after").parse().unwrap();
    assert!((1..=60).contains(&wait));
    assert_eq!(last.header("x-should-retry"), "", "another try helps");

    let many = Arc::new(world.caller(&world.key("many").await));
    let slow = chat(
        "fast",
        "Hi <<script {\"first_token_ms\":600}>>",
        ",\"max_tokens\":5",
    );
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let (many, slow) = (Arc::clone(&many), slow.clone());
            tokio::task::spawn(async move { many.post(CHAT, slow).await.status })
        })
        .collect();
    let mut served = 0;
    for call in calls {
        served += usize::from(call.await.unwrap() == 200);
    }
    assert_eq!(
        served, 2,
        "two at once, and the others waited a tenth of a second"
    );

    let words = world.caller(&world.key("words").await);
    let long = chat("fast", &"river ".repeat(60), ",\"max_tokens\":100");
    assert_eq!(
        words.post(CHAT, long).await.status,
        429,
        "460 bytes and 100 tokens"
    );
    let short = chat("fast", "Hi", ",\"max_tokens\":20");
    assert_eq!(words.post(CHAT, short).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_raises_a_limit_for_some_time_and_alarms_are_told_once() {
    let world = World::start(
        "meter.hold_wait_ms = 50",
        &budget("0.0002", "thresholds = [25]\n"),
    )
    .await;
    while call(&world, "fast", &[], ",\"max_tokens\":20").await.status == 200 {}
    for _ in 0..100 {
        if !told(&world).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let change = json!({ "budget": "acme/total", "usd": "0.01", "until_ms": 4_000_000_000_000_i64,
        "author": "kim", "reason": "launch week" });
    for (field, bad) in [
        ("budget", json!("acme/never")),
        ("usd", json!("0")),
        ("until_ms", json!(1)),
        ("from_ms", json!(4_000_000_000_001_i64)),
        ("reason", json!(" ")),
    ] {
        let mut wrong = change.clone();
        wrong[field] = bad;
        let admin = world.admin();
        let reply = admin.post("/api/overrides", wrong.to_string()).await;
        assert!(
            matches!(reply.status, 400 | 422),
            "{field}: {}",
            reply.text()
        );
    }
    let made = world
        .admin()
        .post("/api/overrides", change.to_string())
        .await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(
        call(&world, "fast", &[], ",\"max_tokens\":20").await.status,
        200
    );
    let shown = world.admin().get("/api/budgets").await.json();
    assert_eq!(shown[0]["budget"]["extra"], 10_000_000);
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let told = told(&world);
    let half = told.iter().filter(|id| id.ends_with("/25")).count();
    assert_eq!(half, 1, "{told:?}");
}

/// The ids of the outbox.
fn told(world: &World) -> Vec<String> {
    let ledger = world.folder.path().join("data/ledger.sqlite3");
    let ledger = rusqlite::Connection::open(ledger).unwrap();
    let mut statement = ledger.prepare("SELECT id FROM outbox ORDER BY id").unwrap();
    let rows = statement.query_map([], |row| row.get(0)).unwrap();
    rows.map(|row| row.unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_team_borrows_what_its_tenant_has_given_to_nobody() {
    let text = "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"0.0020\"\nwindow = \"total\"\ndegrade = { fast = 0, free = 0 }\n\
                [[budget]]\ntenant = \"acme\"\nteam = \"search\"\nlimit_usd = \"0.0005\"\nwindow = \"total\"\n\
                borrow_usd = \"0.0005\"\ndegrade = { fast = 0, free = 0 }\n\
                [[budget]]\ntenant = \"acme\"\nteam = \"ads\"\nlimit_usd = \"0.0011\"\nwindow = \"total\"\n";
    let world = World::start("meter.hold_wait_ms = 50", text).await;
    while call(&world, "fast", &[], ",\"max_tokens\":20").await.status == 200 {}
    let spent: i64 = world.entries().await.iter().map(|it| it.cost.0).sum();
    assert!(spent > 650_000, "beyond its own limit: {spent}");
    assert!(spent <= 900_000, "0.0004 were free to borrow: {spent}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_runs_past_its_cap_is_cut() {
    let world = World::start("", &budget("1", "")).await;
    let text = "Go on <<script {\"fault\":\"ignores_cap\",\"output_tokens\":5000,\"gap_us\":200}>>";
    for path in [CHAT, "/v1/messages"] {
        let body = chat("fast", text, ",\"max_tokens\":30,\"stream\":true");
        let reply = world.client.post(path, body).await;
        assert!(reply.broken, "it ends visibly: {}", reply.text());
        assert!(reply.text().contains("output cap"), "{}", reply.text());
    }
    for entry in world.entries().await {
        assert!(entry.cost <= entry.held.bound, "{entry:?}");
    }
    world
        .until("both calls are billed", |world| {
            world.fast.bill().len() == 2
        })
        .await;
    for billed in world.fast.bill() {
        assert!(billed.output_tokens < 1_000, "it was cancelled: {billed:?}");
    }
}
