//! Proves the pages of tasks in a real browser, over tasks that really run: what stands on them is text
//! whatever it says, a click decides, what is typed is not lost, all of it works without scripts and by
//! keyboard, and neither the finance token nor another site's page gets anywhere.

use std::path::Path;

use http::Method;
use meter::finance::{Filter, Finance};
use serde::Deserialize;
use serde_json::{Value, json};
use tests::errand::{Errand, office};
use tests::{Client, World};

/// What a page must never run or take for its own.
const PLANTED: &str = "<script>window.pwned = 1</script><img src=x onerror=\"window.pwned = 2\"> & \"quoted' </pre></textarea>";

/// A server that dies behind an act, so that nobody knows its end.
fn lab(folder: &Path) -> String {
    format!(
        "[[mcp]]\nname = \"lab\"\ncommand = [{:?}, \"--log\", {:?}]\n\
         [[mcp.tool]]\nname = \"crash_after\"\nverb = \"execute\"\nclass = \"unkeyed\"\n\
         [[mcp.tool]]\nname = \"fail\"\nverb = \"retrieve\"\nclass = \"read\"\n",
        env!("CARGO_BIN_EXE_tool-server"),
        folder.join("lab.jsonl"),
    )
}

async fn begin_world(folder: &Path) -> Errand {
    let desk = folder.join("office");
    std::fs::create_dir_all(&desk).unwrap();
    let tail = format!(
        "{}\n{}",
        office(env!("CARGO_BIN_EXE_office-server"), &desk),
        lab(folder)
    );
    Errand::start_in(desk, "admin.finance_token = \"finance-secret\"\n", &tail).await
}

fn brief(objective: &str, tool: &str) -> Value {
    json!({
        "objective": format!("{objective} {PLANTED}"),
        "definition_of_done": [{ "id": "d1", "check": "effect_done", "tool": tool }],
        "allowed_tools": ["office__*", "lab__*"],
        "budget": { "cost_usd": "2.00" },
        "owner": "user:ana<script>",
        "labels": { "project": PLANTED, "workflow": "minutes" },
        "approval": { "expires_in": "PT8H", "on_expiry": "fail_node" },
    })
}

/// The play of all three tasks. The first has five steps; its last writes a text to the office that it has
/// written to its own folder before.
fn play() -> Value {
    let file = |text: &str| json!({ "path": "minutes.md", "content": format!("# Minutes\nAll agreed.\n{PLANTED}\n{text}\n") });
    let step = |id: &str,
                kind: &str,
                title: &str,
                before: &[&str],
                tools: &[&str],
                accept: &[&str]| {
        json!({ "id": id, "kind": kind, "title": format!("{title} {PLANTED}"), "depends_on": before,
            "tools": tools, "accept": accept })
    };
    let long = json!({ "nodes": [
        step("n1", "retrieve", "Look at the mail", &[], &["office__list_tasks"], &[]),
        step("n2", "extract", "Find the points", &["n1"], &["lab__fail"], &[]),
        step("n3", "analyse", "Weigh them", &["n1"], &[], &[]),
        step("n4", "draft", "Draft the minutes", &["n2", "n3"], &[], &[]),
        step("n5", "act", "Put the minutes down", &["n4"], &["office__write_file"], &["d1"]),
    ] });
    let short = |title: &str, tool: &str| json!({ "nodes": [step("n1", "act", title, &[], &[tool], &["d1"])] });
    json!({ "scenes": [
        { "when": ["You plan a task", "Five steps"], "say": long },
        { "when": ["You plan a task", "Write it"], "say": short("Write the note", "office__write_file") },
        { "when": ["You plan a task", "Press it"], "say": short("Press the button", "lab__crash_after") },
        { "when": ["You plan a task", "Ask it"], "say": short("Ask the owner", "ask_user") },
        { "when": ["Step n1: Look at the mail"], "results": 0, "call": [{ "name": "office__list_tasks", "arguments": {} }] },
        { "when": ["Step n2: Find the points"], "results": 0, "call": [{ "name": "lab__fail", "arguments": { "text": PLANTED } }] },
        { "when": ["Step n4: Draft the minutes"], "results": 0, "call": [{ "name": "fs_write", "arguments": file("By: nobody yet") }] },
        { "when": ["Step n5: Put the minutes down"], "results": 0, "call": [{ "name": "office__write_file", "arguments": file("By: Ana") }] },
        { "when": ["Step n1: Write the note"], "results": 0, "call": [{ "name": "office__write_file", "arguments": file("note") }] },
        { "when": ["Step n1: Press the button"], "results": 0, "call": [{ "name": "lab__crash_after", "arguments": {} }] },
        { "when": ["Step n1: Ask the owner"], "results": 0, "call": [{ "name": "ask_user", "arguments": { "question": format!("Which? {PLANTED}"), "choices": ["the \"first\" <one>", "none"] } }] },
        { "when": ["You close a task"], "say": format!("It ended. {PLANTED}") },
        { "when": ["Step "], "say": format!("Done. {PLANTED}") },
    ] })
}

/// What the browser saw.
#[derive(Debug, Deserialize)]
struct Seen {
    violations: Vec<String>,
    foreign: Vec<String>,
    errors: Vec<String>,
    unreached: Vec<String>,
    weights: Vec<(String, usize)>,
    notes: serde_json::Map<String, Value>,
}

/// Plays `walk_tasks.mjs` over these tasks; nothing where the browser is to be skipped.
async fn walk(world: &World, tasks: &Value) -> Option<Seen> {
    let tasks = tasks.to_string();
    let more = [("PARETO_TOKEN", "admin-secret"), ("PARETO_TASKS", &*tasks)];
    crate::play("walk_tasks.mjs", &world.running, &more).await
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_are_seen_and_decided_in_a_browser() {
    let folder = tempfile::tempdir().unwrap();
    let errand = begin_world(folder.path()).await;
    errand.perform(&play());
    let mut tasks = serde_json::Map::new();
    for (name, objective, tool) in [
        ("long", "Five steps", "office__write_file"),
        ("denied", "Write it", "office__write_file"),
        ("unknown", "Press it", "lab__crash_after"),
        ("asks", "Ask it", "ask_user"),
    ] {
        let id = errand.begin(&brief(objective, tool)).await;
        let task = errand.settled(&id).await;
        assert_eq!(task["status"], "requires_action", "{task:#}");
        tasks.insert(name.to_owned(), id.into());
    }
    let tasks = Value::from(tasks);
    let Some(seen) = walk(&errand.world, &tasks).await else {
        return;
    };
    println!("{:?} {:?}", seen.weights, seen.notes);
    assert_eq!(seen.foreign, Vec::<String>::new(), "asked of other hosts");
    assert_eq!(seen.errors, Vec::<String>::new(), "errors in the console");
    assert!(seen.violations.is_empty(), "{}", seen.violations.join("\n"));
    assert_eq!(
        seen.unreached,
        Vec::<String>::new(),
        "not reached by keyboard"
    );
    for (path, bytes) in &seen.weights {
        assert!(*bytes < 200_000, "{path} has {bytes} bytes");
    }
    let of = |name: &str| tasks[name].as_str().unwrap();

    let long = errand
        .until_end(of("long"), |asked| panic!("it asks again: {asked:#}"))
        .await;
    assert_eq!(long["status"], "completed", "{long:#}");
    ended(&errand.world, "completed").await;

    let writes = errand.calls();
    let writes = writes.iter().filter(|call| call["tool"] == "write_file");
    assert_eq!(
        writes.count(),
        1,
        "the approved one, once; the denied one never"
    );

    let events = errand
        .world
        .client
        .get(&format!("/v1/tasks/{}/events?limit=200", of("denied")))
        .await;
    let events = events.json();
    let decided = events["data"].as_array().unwrap().iter();
    let decided: Vec<&Value> = decided
        .filter(|it| it["type"] == "approval.decided")
        .collect();
    assert_eq!(decided[0]["data"]["approve"], false);
    assert_eq!(decided[0]["data"]["reason"], "not \"this\" <week>");
    assert_eq!(decided[0]["actor"], "operator");

    let effects = format!("/v1/tasks/{}/effects", of("unknown"));
    let effects = errand.world.client.get(&effects).await.json();
    assert_eq!(effects["data"][0]["status"], "succeeded", "{effects:#}");
    assert_eq!(effects["data"][0]["attempts"], 1, "it was not done again");

    let answered = format!("/v1/tasks/{}/effects", of("asks"));
    let answered = errand.world.client.get(&answered).await.json();
    assert_eq!(answered["data"][0]["result"]["text"], "the \"first\" <one>");
}

/// Waits until the ledger knows that a task has ended so.
async fn ended(world: &World, word: &str) {
    let all = Filter::default().over(0, i64::MAX);
    let ledger = || world.running.parts.store.ledger.tasks(&all).unwrap();
    world
        .until("how it ended, in the ledger", |_| {
            ledger().iter().any(|it| it.outcome == word)
        })
        .await;
    let told = ledger();
    let told = told.iter().find(|it| it.outcome == word).unwrap();
    assert_eq!(told.workflow, "minutes");
    assert_eq!(told.calls, told.fast_calls + told.deep_calls);
    assert!(told.fast_calls > 0 && told.deep_calls > 0, "{told:?}");
    assert_eq!(told.cost, told.fast_cost + told.deep_cost);
    assert!(told.succeeded() && told.tasks > 0);
    let units = world.admin().get("/units?workflow=minutes").await.text();
    let finished = units.split("<table id=\"finished\"").nth(1).unwrap();
    let count = finished.split(" data-sum=\"ended_tasks?").next().unwrap();
    let count = count.rsplit("data-count=").next().unwrap();
    assert!(
        count.trim_matches('"').parse::<i64>().unwrap() >= told.tasks,
        "{count}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_sees_tasks_and_no_other_site_decides() {
    let folder = tempfile::tempdir().unwrap();
    let errand = begin_world(folder.path()).await;
    errand.perform(&play());
    let id = errand.begin(&brief("Write it", "office__write_file")).await;
    let task = errand.settled(&id).await;
    let request = task["required_actions"][0]["id"].as_str().unwrap();
    let digest = task["required_actions"][0]["digest"].as_str().unwrap();
    let (page, decide) = (format!("/tasks/{id}"), format!("/approvals/{request}"));
    let pause = format!("/tasks/{id}/pause");
    let address = errand.world.running.admin_address;
    let finance = Client::new(address, "finance-secret");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for path in ["/tasks", "/tasks?format=csv", "/approvals", &page] {
        assert_eq!(finance.get(path).await.status, 403, "{path}");
        assert_eq!(
            Client::new(address, "").get(path).await.status,
            401,
            "{path}"
        );
        assert_eq!(errand.world.admin().get(path).await.status, 200, "{path}");
    }
    let sums = finance.get("/").await.text();
    assert!(!sums.contains("href=\"/tasks"), "finance is not led there");
    assert!(
        errand
            .world
            .admin()
            .get("/")
            .await
            .text()
            .contains("href=\"/tasks")
    );
    let yes = format!("digest={digest}&choice=once");
    assert_eq!(
        finance
            .send(Method::POST, &decide, &form, yes.clone())
            .await
            .status,
        403
    );

    let admin = errand.world.admin();
    let here = format!("http://{address}");
    for elsewhere in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let headers = [form[0], elsewhere];
        for path in [&decide, &pause, &"/api/keys".to_owned()] {
            let reply = admin.send(Method::POST, path, &headers, yes.clone()).await;
            assert_eq!(reply.status, 403, "{elsewhere:?} {path}");
        }
    }
    let task = errand.task(&id).await;
    assert_eq!(task["status"], "requires_action", "nothing has happened");

    let wrong = format!("digest={}&choice=once", "0".repeat(64));
    let reply = admin.send(Method::POST, &decide, &form, wrong).await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(
        reply
            .text()
            .contains("the digest is not that of what is asked")
    );
    for (path, said, kind) in [
        (decide.as_str(), yes.as_str(), "application/json"),
        (decide.as_str(), "choice=sudo", form[0].1),
        ("/tasks/x/erase", "", form[0].1),
    ] {
        let reply = admin
            .send(
                Method::POST,
                path,
                &[("content-type", kind)],
                said.to_owned(),
            )
            .await;
        assert_eq!(reply.status, 400, "{path} {said}");
    }
    for nothing in ["/tasks/task_0", "/tasks/a%2F..%2Fb", "/tasks/x%3Flimit=1"] {
        assert_eq!(admin.get(nothing).await.status, 404, "{nothing}");
    }
    let headers = [
        form[0],
        ("origin", here.as_str()),
        ("sec-fetch-site", "same-origin"),
    ];
    let reply = admin.send(Method::POST, &decide, &headers, yes).await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, "/approvals".to_owned())
    );
    let task = errand
        .until_end(&id, |asked| panic!("it asks again: {asked:#}"))
        .await;
    assert_eq!(task["status"], "completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_renews_only_what_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let errand = begin_world(folder.path()).await;
    errand.perform(&play());
    let id = errand.begin(&brief("Write it", "office__write_file")).await;
    errand.settled(&id).await;
    let admin = errand.world.admin();
    let text = admin.get(&format!("/tasks/{id}")).await.text();
    let again = |part: &str, text: &str| -> String {
        let from = text
            .find(&format!("hx-get=\"/tasks/{id}?part={part}"))
            .unwrap()
            + 8;
        let rest = &text[from..];
        rest[..rest.find('"').unwrap()].replace("&amp;", "&")
    };
    for part in ["now", "asks"] {
        assert_eq!(admin.get(&again(part, &text)).await.status, 204, "{part}");
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let pause = format!("/tasks/{id}/pause");
    let reply = admin
        .send(Method::POST, &pause, &form, "reason=lunch")
        .await;
    assert_eq!(
        (reply.status, reply.header("location")),
        (303, format!("/tasks/{id}"))
    );
    for part in ["now", "asks"] {
        let reply = admin.get(&again(part, &text)).await;
        assert_eq!(reply.status, 200, "{part}");
        let new = reply.text();
        assert!(
            new.starts_with(&format!("<div id=\"{part}\"")),
            "a part, not a page"
        );
        assert!(new.contains("paused") || new.contains("Resume"), "{new}");
    }
}
