//! Proves the surface of tasks: what is taken and refused, who sees what, streams that can be left
//! anywhere, money that is the ledger's to the last digit, and tasks behind the Responses dialect.

use std::collections::BTreeMap;
use std::time::Duration;

use bench::upstream::{Fault, Script};
use http::Method;
use meter::{Entry, NanoUsd};
use serde_json::{Value, json};
use tests::bytes::Line;
use tests::world::{FAST, chat, script};
use tests::{Client, World};

use crate::tasks::{as_user, begin, office, one_step, perform, scene, status, until};

/// A task that only talks.
pub(crate) fn talking() -> Value {
    json!({ "objective": "Say where we stand.", "mode": "explore" })
}

/// The play of it.
pub(crate) fn talks(world: &World) {
    perform(
        world,
        vec![
            scene(
                &["You plan a task"],
                None,
                one_step("summarise", "Sum it up", &[], &[]),
                &[],
            ),
            scene(&["Sum it up"], None, "We stand well.".into(), &[]),
        ],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brief_is_one_task_however_often_it_is_sent() {
    let world = World::start("", "").await;
    talks(&world);
    let key = [("idempotency-key", "monday")];
    let send = async |brief: Value| {
        let reply = world
            .client
            .send(Method::POST, "/v1/tasks", &key, brief.to_string())
            .await;
        (reply.status, reply.json())
    };
    let (first, task) = send(talking()).await;
    assert_eq!(first, 201, "{task}");
    assert_eq!(task["object"], "task");
    let (again, same) = send(talking()).await;
    assert_eq!((again, &same["id"]), (200, &task["id"]));
    let mut other = talking();
    other["objective"] = json!("Something else.");
    let (status, problem) = send(other).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("idempotency_conflict"))
    );
    let mut inside = talking();
    inside["idempotency_key"] = json!("monday");
    let same = world.client.post("/v1/tasks", inside.to_string()).await;
    assert_eq!((same.status, &same.json()["id"]), (200, &task["id"]));
    inside["idempotency_key"] = json!("tuesday");
    assert_eq!(send(inside).await.0, 422, "two keys");
    // The key is a tenant's own.
    let other = world.caller(&world.key("globex").await);
    let reply = other
        .send(Method::POST, "/v1/tasks", &key, talking().to_string())
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_taken_is_named_by_its_field() {
    let world = World::start(
        "orchestrator.autonomy = 2\npolicy.labels = [\"public\", \"secret\"]",
        "",
    )
    .await;
    for (change, field) in [
        (json!({ "objective": "" }), "objective"),
        (json!({ "objective": 7 }), "objective"),
        (json!({ "mode": "run" }), "definition_of_done"),
        (json!({ "colour": "red" }), "colour"),
        (json!({ "budget": { "cost": "1" } }), "budget.cost"),
        (
            json!({ "budget": { "cost_usd": "a lot" } }),
            "budget.cost_usd",
        ),
        (json!({ "budget": { "wall": "PT0S" } }), "budget.wall"),
        (json!({ "autonomy": 3 }), "autonomy"),
        (json!({ "skills": ["flying"] }), "skills[0]"),
        (
            json!({ "notify": [{ "webhook": "nobody" }] }),
            "notify[0].webhook",
        ),
        (
            json!({ "routing": { "max_label": "cosmic" } }),
            "routing.max_label",
        ),
        (
            json!({ "routing": { "residency": ["eu, us"] } }),
            "routing.residency",
        ),
        (
            json!({ "approval": { "approvers": ["ana"] } }),
            "approval.approvers[0]",
        ),
        (
            json!({ "approval": { "approvers": ["user:ana"], "quorum": 2 } }),
            "approval.quorum",
        ),
        (
            json!({ "parent": format!("task_{}", "0".repeat(32)) }),
            "parent",
        ),
        (json!({ "deadline": "2001-01-01T00:00:00Z" }), "deadline"),
    ] {
        let mut brief = talking();
        brief
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let reply = world.client.post("/v1/tasks", brief.to_string()).await;
        let problem = reply.json();
        assert_eq!(
            (reply.status, &problem["field"]),
            (422, &json!(field)),
            "{change}: {problem}"
        );
        assert_eq!(reply.header("content-type"), "application/problem+json");
    }
    for (body, code) in [
        (
            "{\"objective\":\"a\",\"objective\":\"b\",\"mode\":\"explore\"}",
            400,
        ),
        ("{\"objective\":\"a\",\"mode\":\"explore\"} {}", 400),
        ("{\"objective\":", 400),
        ("[]", 422),
        ("", 422),
    ] {
        let reply = world.client.post("/v1/tasks", body).await;
        assert_eq!(reply.status, code, "{body}: {}", reply.text());
    }
    let long = json!({ "objective": "x".repeat(2 << 20), "mode": "explore" });
    let reply = world.client.post("/v1/tasks", long.to_string()).await;
    assert_eq!(reply.status, 413);
    assert_eq!(
        world.client.get("/v1/tasks").await.json()["data"],
        json!([])
    );
    for (path, method, code) in [
        ("/v1/tasks/nothing", Method::GET, 404),
        ("/v1/tasks?limit=0", Method::GET, 422),
        ("/v1/tasks?limit=201", Method::GET, 422),
        ("/v1/tasks?status=happy", Method::GET, 422),
        ("/v1/tasks", Method::PUT, 405),
        ("/v1/approvals/x.y", Method::GET, 404),
        ("/v1/tools/office__write_file/accept", Method::POST, 403),
    ] {
        let reply = world.client.send(method, path, &[], "").await;
        assert_eq!(reply.status, code, "{path}: {}", reply.text());
    }
    let bare = Client::new(world.running.address, "sk-par-nobody0000-x");
    assert_eq!(bare.get("/v1/tasks").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_see_their_own_tasks_alone_and_the_operator_all() {
    let world = World::start("", "").await;
    talks(&world);
    let id = begin(&world.client, &talking()).await;
    status(&world.client, &id, "completed").await;
    let other = world.caller(&world.key("globex").await);
    let theirs = begin(&other, &talking()).await;
    status(&other, &theirs, "completed").await;
    for part in [
        "",
        "/plan",
        "/effects",
        "/usage",
        "/explain",
        "/artifacts",
        "/events",
        "/artifacts/x",
    ] {
        let path = format!("/v1/tasks/{id}{part}");
        assert_eq!(other.get(&path).await.status, 404, "{path}");
        let own = world.client.get(&path).await.status;
        assert_eq!(
            own,
            if part == "/artifacts/x" { 404 } else { 200 },
            "{path}"
        );
        assert!(
            own == 404 || world.admin().get(&format!("/api{path}")).await.status == 200,
            "{path}"
        );
    }
    for verb in ["pause", "resume", "cancel", "steer", "raise", "retry"] {
        let said = json!({ "text": "x", "usd": "1" });
        let said = if ["steer", "raise"].contains(&verb) {
            said
        } else {
            json!({})
        };
        let said = match verb {
            "steer" => json!({ "text": said["text"] }),
            "raise" => json!({ "usd": said["usd"] }),
            _ => said,
        };
        let reply = other
            .post(&format!("/v1/tasks/{id}/{verb}"), said.to_string())
            .await;
        assert_eq!(reply.status, 404, "{verb}: {}", reply.text());
    }
    let path = format!("/v1/tasks/{id}");
    assert_eq!(other.send(Method::DELETE, &path, &[], "").await.status, 404);
    let listed = |reply: Value| -> Vec<String> {
        let tasks = reply["data"].as_array().unwrap().iter();
        tasks
            .map(|task| task["id"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(
        listed(other.get("/v1/tasks").await.json()),
        std::slice::from_ref(&theirs)
    );
    let all = world.admin().get("/api/v1/tasks").await.json();
    assert_eq!(listed(all), [theirs.clone(), id.clone()]);
    let one = world.admin().get("/api/v1/tasks?tenant=acme").await.json();
    assert_eq!(listed(one), std::slice::from_ref(&id));
    let foreign = other.get("/v1/audit").await.json();
    let lines = foreign["data"].as_array().unwrap();
    assert!(!lines.is_empty() && lines.iter().all(|line| line["task"] == theirs));
    // The finance token reads sums; a caller's header makes nobody the operator or another tenant.
    let token = std::fs::read_to_string(world.folder.path().join("data/finance.token")).unwrap();
    let finance = Client::new(world.running.admin_address, token.trim());
    assert_eq!(finance.get("/api/v1/tasks").await.status, 403);
    let named = [("x-pareto-tenant", "acme")];
    let reply = other.send(Method::GET, "/v1/tasks", &named, "").await;
    assert_eq!(listed(reply.json()), [theirs]);
    let reply = world
        .admin()
        .post("/api/v1/tasks", talking().to_string())
        .await;
    assert_eq!(
        (reply.status, &reply.json()["field"]),
        (422, &json!("tenant"))
    );
    let reply = world
        .admin()
        .send(Method::POST, "/api/v1/tasks", &named, talking().to_string())
        .await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    status(
        &world.client,
        reply.json()["id"].as_str().unwrap(),
        "completed",
    )
    .await;
}

/// The events of a stream: their numbers and kinds; what has none comes first.
fn told(text: &str) -> Vec<(u64, String, Value)> {
    let mut events = Vec::new();
    for block in text
        .split("\n\n")
        .filter(|block| !block.starts_with(':') && !block.is_empty())
    {
        let field = |name: &str| {
            let mut lines = block.lines();
            lines
                .find_map(|line| line.strip_prefix(&format!("{name}: ")))
                .unwrap_or_default()
        };
        let number = field("id").parse().unwrap_or(0);
        let data = serde_json::from_str(field("data")).unwrap();
        events.push((number, field("event").to_owned(), data));
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_can_be_left_behind_every_event_and_taken_up_again() {
    let world = World::start("", "").await;
    talks(&world);
    let id = begin(&world.client, &talking()).await;
    let path = format!("/v1/tasks/{id}/events");
    let live = [("accept", "text/event-stream")];
    // It may have begun already; the stream ends with the task.
    let whole = world.client.send(Method::GET, &path, &live, "").await;
    assert_eq!((whole.status, whole.broken), (200, false));
    assert_eq!(whole.header("content-type"), "text/event-stream");
    let all = told(&whole.text());
    assert_eq!((all[0].0, all[0].1.as_str()), (0, "snapshot"));
    assert_eq!(all[0].2["id"], id);
    let events = &all[1..];
    let numbers: Vec<u64> = events.iter().map(|it| it.0).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    assert_eq!(events.first().unwrap().1, "task.created");
    assert_eq!(events.last().unwrap().1, "task.ended");
    for cut in 0..=events.len() {
        let last = cut.to_string();
        let headers = [live[0], ("last-event-id", last.as_str())];
        let rest = world.client.send(Method::GET, &path, &headers, "").await;
        let rest = told(&rest.text());
        assert_eq!(rest[0].1, "snapshot", "{cut}");
        assert_eq!(rest[1..], events[cut..], "{cut}");
        let after = format!("{path}?after={cut}");
        let same = world.client.send(Method::GET, &after, &live, "").await;
        assert_eq!(told(&same.text())[1..], events[cut..], "{cut}");
    }
    let mut paged = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = world
            .client
            .get(&format!("{path}?limit=3&after={after}"))
            .await
            .json();
        paged.extend(page["data"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => break,
        }
    }
    let streamed: Vec<&Value> = events.iter().map(|it| &it.2).collect();
    assert_eq!(paged.iter().collect::<Vec<_>>(), streamed);
    let models = world
        .client
        .get(&format!("{path}?types=model.*"))
        .await
        .json();
    let kinds: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "model.requested",
            "model.completed",
            "model.requested",
            "model.completed"
        ]
    );
    assert_eq!(
        world.client.get(&format!("{path}?after=x")).await.status,
        422
    );
}

/// What the ledger has of a task's calls, by request: what they cost.
fn by_request(entries: &[Entry], task: &str) -> BTreeMap<String, NanoUsd> {
    let mut sums: BTreeMap<String, NanoUsd> = BTreeMap::new();
    for entry in entries
        .iter()
        .filter(|entry| &*entry.held.subject.task == task)
    {
        *sums.entry(entry.held.request.to_string()).or_default() += entry.cost;
    }
    sums
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tasks_calls_stand_in_the_ledger_as_any_callers_do_and_cost_what_its_log_says() {
    let world = World::start("", "").await;
    talks(&world);
    let mut brief = talking();
    brief["labels"] = json!({ "workflow": "standing" });
    brief["budget"] = json!({ "cost_usd": "1.00" });
    let reply = as_user(&world.client, "ana", "/v1/tasks", &brief).await;
    let id = reply.json()["id"].as_str().unwrap().to_owned();
    let task = status(&world.client, &id, "completed").await;
    let headers = [
        ("x-pareto-user", "ana"),
        ("x-pareto-task", id.as_str()),
        ("x-pareto-workflow", "standing"),
        ("x-pareto-step", "plan"),
    ];
    let body = chat("deep", "The same over the network.", "");
    let reply = world
        .client
        .send(Method::POST, "/v1/chat/completions", &headers, body)
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let by_wire = reply.header("x-request-id");
    let entries = world.entries().await;
    let wire = entries
        .iter()
        .find(|it| it.held.request.to_string() == by_wire)
        .unwrap();
    let own: Vec<&Entry> = entries
        .iter()
        .filter(|it| it.held.request.to_string() != by_wire)
        .collect();
    assert_eq!(own.len(), 2);
    for entry in &own {
        assert_eq!(
            entry.held.subject, wire.held.subject,
            "who pays, for whom and for what"
        );
    }
    let step = |entry: &Entry| entry.held.routing.as_ref().unwrap().step.clone();
    assert_eq!((&*step(&entries[0]), &*step(wire)), ("plan", "plan"));
    // The ids are those of the task's log, and so is the money.
    let path = format!("/v1/tasks/{id}/explain");
    let calls = world.client.get(&path).await.json()["calls"].clone();
    let mut sums = by_request(&entries, &id);
    sums.remove(&by_wire);
    let logged: BTreeMap<String, NanoUsd> = calls
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            let cost = NanoUsd::from_usd(call["cost_usd"].as_str().unwrap()).unwrap();
            (call["request"].as_str().unwrap().to_owned(), cost)
        })
        .collect();
    assert_eq!(logged, sums);
    let spent: NanoUsd = logged.values().copied().sum();
    assert!(spent > NanoUsd::ZERO);
    let told = NanoUsd::from_usd(task["usage"]["cost_usd"].as_str().unwrap()).unwrap();
    assert_eq!(told, spent);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_cost_that_failed_is_told_with_the_answer_and_without_one() {
    let world = World::start("", "").await;
    // A whole answer that breaks off was made, and is charged; the next upstream answers.
    world.fast.set_script(Script {
        key: Some("up-fast".into()),
        fault: Some(Fault::CutAfter(3)),
        ..script(FAST)
    });
    for (path, body) in [
        ("/v1/chat/completions", chat("fast", "Broken at first.", "")),
        (
            "/v1/chat/completions",
            chat("fast-chat", "Broken at last.", ""),
        ),
    ] {
        let reply = world.client.post(path, body).await;
        let id = reply.header("x-request-id");
        let entries = world.entries().await;
        let mine = entries
            .iter()
            .filter(|it| it.held.request.to_string() == id);
        let costs: Vec<NanoUsd> = mine.map(|it| it.cost).collect();
        let sum: NanoUsd = costs.iter().copied().sum();
        assert!(costs[0] > NanoUsd::ZERO, "{} {costs:?}", reply.text());
        let told = NanoUsd::from_usd(&reply.header("x-pareto-cost-usd")).unwrap();
        assert_eq!(told, sum, "{} {costs:?}", reply.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_whose_key_was_revoked_spends_nothing_more() {
    let world = World::start("", "").await;
    talks(&world);
    world.fast.set_script(Script {
        key: Some("up-fast".into()),
        first_token_ms: 300,
        ..script(FAST)
    });
    let id = begin(&world.client, &talking()).await;
    let key = world.client.key.trim_start_matches("sk-par-");
    let key = key.split('-').next().unwrap();
    let gone = world
        .admin()
        .send(Method::DELETE, &format!("/api/keys/{key}"), &[], "")
        .await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.client.get("/v1/tasks").await.status, 401);
    let path = format!("/api/v1/tasks/{id}");
    let task = until(&world.admin(), &path, |it| it["ended_at_ms"].is_i64()).await;
    assert_ne!(task["status"], "completed", "{task:#}");
    let explained = world.admin().get(&format!("{path}/explain")).await.json();
    let problems = explained["calls"].to_string();
    assert!(problems.contains("revoked"), "{problems}");
}

#[tokio::test(flavor = "multi_thread")]
async fn artefacts_are_saved_and_not_shown_and_an_erased_task_keeps_its_hashes() {
    let world = World::start("", "").await;
    let text = json!({ "path": "out/report.html", "content": "<h1>Hello</h1>" });
    perform(
        &world,
        vec![
            scene(
                &["You plan a task"],
                None,
                one_step("draft", "Write it", &["fs_write"], &["d1"]),
                &[],
            ),
            scene(&["Write it"], Some(0), "Now.".into(), &[("fs_write", text)]),
            scene(&["Write it"], None, "Done.".into(), &[]),
        ],
    );
    let brief = json!({
        "objective": "Write a page about the secret plan.",
        "definition_of_done": [{ "id": "d1", "check": "artifact_exists", "name": "out/report.html" }],
    });
    let id = begin(&world.client, &brief).await;
    let path = format!("/v1/tasks/{id}");
    let early = world.client.send(Method::DELETE, &path, &[], "").await;
    assert_eq!(early.json()["code"], "task_not_ended");
    let task = status(&world.client, &id, "completed").await;
    assert_eq!(task["artifacts"][0]["name"], "out/report.html", "{task:#}");
    let file = world
        .client
        .get(&format!("{path}/artifacts/out/report.html"))
        .await;
    assert_eq!((file.status, file.text().as_str()), (200, "<h1>Hello</h1>"));
    assert!(
        file.header("content-disposition")
            .starts_with("attachment; filename=\"report.html\"")
    );
    assert_eq!(file.header("x-content-type-options"), "nosniff");
    for name in [
        "../../../../data/tasks.secret",
        "..%2f..%2fx",
        "%00",
        "out/%2e%2e/report.html",
    ] {
        let reply = world.client.get(&format!("{path}/artifacts/{name}")).await;
        assert!(
            reply.status == 404 || reply.status == 400,
            "{name}: {}",
            reply.status
        );
    }
    let verified = world.client.get("/v1/audit/verify").await.json();
    assert_eq!(verified["ok"], true, "{verified:#}");
    let work = world.folder.path().join("data/work");
    assert_eq!(named(&work, "report.html").len(), 1);
    assert_eq!(
        world
            .client
            .send(Method::DELETE, &path, &[], "")
            .await
            .status,
        200
    );
    let gone = world.client.get(&path).await;
    assert_eq!((gone.status, &gone.json()["erased"]), (200, &json!(true)));
    assert!(!gone.text().contains("secret plan"));
    assert!(named(&work, "report.html").is_empty());
    assert!(
        !world
            .client
            .get("/v1/tasks")
            .await
            .text()
            .contains("secret plan")
    );
    assert!(
        !world
            .client
            .get("/v1/audit")
            .await
            .text()
            .contains("secret plan")
    );
    assert_eq!(
        world.client.get(&format!("{path}/plan")).await.json()["code"],
        "task_erased"
    );
    let verified = world.client.get("/v1/audit/verify").await.json();
    assert_eq!(verified["ok"], true, "{verified:#}");
    assert!(verified["tenants"][0]["erased"].as_u64().unwrap() > 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_state_that_was_seen_is_changed_where_the_caller_says_so() {
    let (world, _folder) = office("", "").await;
    let ask = json!({ "question": "Which colour?", "choices": ["red", "blue"] });
    perform(
        &world,
        vec![
            scene(
                &["You plan a task"],
                None,
                one_step("draft", "Ask first", &["ask_user"], &[]),
                &[],
            ),
            scene(
                &["Ask first"],
                Some(0),
                "I must know.".into(),
                &[("ask_user", ask)],
            ),
            scene(&["Ask first"], None, "It is {{result:0}}.".into(), &[]),
        ],
    );
    let id = begin(
        &world.client,
        &json!({ "objective": "Paint.", "mode": "explore",
        "budget": { "cost_usd": "0.50" } }),
    )
    .await;
    let path = format!("/v1/tasks/{id}");
    let task = status(&world.client, &id, "requires_action").await;
    let etag = world.client.get(&path).await.header("etag");
    let pause = format!("{path}/pause");
    let wrong = [("if-match", "\"0000000000000000\"")];
    let reply = world.client.send(Method::POST, &pause, &wrong, "").await;
    assert_eq!(
        (reply.status, &reply.json()["code"]),
        (412, &json!("etag_mismatch"))
    );
    let right = [("if-match", etag.as_str())];
    let reply = world.client.send(Method::POST, &pause, &right, "").await;
    assert_eq!(
        (reply.status, &reply.json()["status"]),
        (200, &json!("paused")),
        "{}",
        reply.text()
    );
    let again = world.client.send(Method::POST, &pause, &right, "").await;
    assert_eq!(again.status, 412, "it has gone on");
    let reply = world.client.post(&format!("{path}/resume"), "").await;
    assert_eq!(reply.json()["status"], "requires_action");
    let raised = world
        .client
        .post(
            &format!("{path}/raise"),
            json!({ "usd": "0.25" }).to_string(),
        )
        .await;
    assert_eq!(
        raised.json()["usage"]["budget_usd"],
        "0.75",
        "{}",
        raised.text()
    );
    let input = task["required_actions"][0]["id"].as_str().unwrap();
    let answer = format!("/v1/inputs/{input}");
    let odd = world
        .client
        .post(&answer, json!({ "answer": "green" }).to_string())
        .await;
    assert_eq!((odd.status, &odd.json()["field"]), (422, &json!("answer")));
    let decision = format!("/v1/approvals/{input}/decision");
    let said = json!({ "digest": "0".repeat(64), "approve": true });
    let reply = world.client.post(&decision, said.to_string()).await;
    assert_eq!(reply.json()["code"], "not_an_approval", "{}", reply.text());
    let reply = world
        .client
        .post(&answer, json!({ "answer": "blue" }).to_string())
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let task = status(&world.client, &id, "completed").await;
    assert_eq!(task["result"]["output"], "It is blue.");
    let again = world.client.post(&format!("{path}/retry"), "").await;
    assert_eq!(
        (again.status, &again.json()["parent"]),
        (201, &json!(id)),
        "{}",
        again.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_caller_listens_to_so_many_streams_and_no_more() {
    let (world, _folder) = office("", "").await;
    let ask = json!({ "question": "Go on?" });
    perform(
        &world,
        vec![
            scene(
                &["You plan a task"],
                None,
                one_step("draft", "Wait", &["ask_user"], &[]),
                &[],
            ),
            scene(&["Wait"], None, "Hm.".into(), &[("ask_user", ask)]),
        ],
    );
    let id = begin(
        &world.client,
        &json!({ "objective": "Wait.", "mode": "explore" }),
    )
    .await;
    status(&world.client, &id, "requires_action").await;
    let path = format!("/v1/tasks/{id}/events");
    // An operator hears what there is at once as well, though the task goes on.
    let mut operator = Line::to(world.running.admin_address).await;
    operator
        .say(format!(
            "GET /api{path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer admin-secret\r\n\
             accept: text/event-stream\r\n\r\n"
        ))
        .await;
    assert!(operator.until("event: snapshot").await.is_some());
    drop(operator);
    let listen = || {
        let (client, path) = (world.client.clone(), path.clone());
        tokio::spawn(async move {
            let live = [("accept", "text/event-stream")];
            client.send(Method::GET, &path, &live, "").await
        })
    };
    let mut open: Vec<_> = (0..32).map(|_| listen()).collect();
    let mut refused = 200;
    for _ in 0..500 {
        // One of them may have been refused because a trial was there first.
        for stream in open.iter_mut().filter(|it| it.is_finished()) {
            *stream = listen();
        }
        let trial = world
            .client
            .send(Method::GET, &path, &[("accept", "text/event-stream")], "");
        // A stream that is taken does not end; one that is refused is answered at once.
        let answer = tokio::time::timeout(Duration::from_millis(100), trial).await;
        let Ok(reply) = answer else { continue };
        // All the others are in only when none of them is refused a while later.
        tokio::time::sleep(Duration::from_millis(300)).await;
        if open.iter().all(|it| !it.is_finished()) {
            refused = reply.status;
            break;
        }
    }
    assert_eq!(refused, 429);
    // A drain ends them all, cleanly, and does not wait for the task.
    world.running.shut_down(std::future::pending()).await;
    for stream in open {
        let reply = stream.await.unwrap();
        assert_eq!((reply.status, reply.broken), (200, false));
    }
}

/// Files of a name below a folder.
fn named(folder: &std::path::Path, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if entry.file_name() == name {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
