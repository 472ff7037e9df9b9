//! What users of other task runners complain about, one test for each complaint that can come up here.
//! Those about servers that hang, leave orphans or change their tools have theirs in `tests/tools`.

use std::path::Path;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};
use tests::Errand;

use crate::RECORDER;

/// A gateway with the recording server, in whose log every call stands before it is answered.
async fn recorder(head: &str) -> Errand {
    let folder = tempfile::tempdir().unwrap().keep();
    let log = folder.join("calls.jsonl");
    let tail = format!(
        "[[mcp]]\nname = \"rec\"\ncommand = [{RECORDER:?}, \"--log\", {log:?}]\ncall_ms = 4000\n\
         [[mcp.tool]]\nname = \"record_send\"\nverb = \"execute\"\nclass = \"unkeyed\"\ndestinations = [\"to\"]\n\
         [[mcp.tool]]\nname = \"crash_after\"\nverb = \"execute\"\nclass = \"unkeyed\"\n\
         [[mcp.tool]]\nname = \"answer_then_hang\"\nverb = \"retrieve\"\nclass = \"read\"\n\
         [[mcp.tool]]\nname = \"record_read\"\nverb = \"retrieve\"\nclass = \"read\"\n\
         [[mcp.tool]]\nname = \"big\"\nverb = \"retrieve\"\nclass = \"read\"\n\
         [[mcp.tool]]\nname = \"fail\"\nverb = \"retrieve\"\nclass = \"read\"\n\
         [[mcp.tool]]\nname = \"slow\"\nverb = \"execute\"\nclass = \"unkeyed\"\n"
    );
    Errand::start_in(folder, head, &tail).await
}

/// A plan of one step with every tool.
fn plan() -> Value {
    json!({ "when": ["You plan a task."], "say": { "nodes": [{
        "id": "n1", "kind": "act", "title": "Do it", "tools": ["rec__*"], "accept": ["d1"], "on_fail": "stop",
        "max_attempts": 1,
    }], "max_parallel": 1 } })
}

fn brief(autonomy: u8, check: Value) -> Value {
    let mut check = check;
    check["id"] = "d1".into();
    json!({
        "objective": "Tell bob about it.", "definition_of_done": [check],
        "allowed_tools": ["rec__*"], "autonomy": autonomy,
    })
}

fn send() -> Value {
    json!({ "name": "rec__record_send", "arguments": { "to": "bob", "text": "hello" } })
}

fn sent() -> Value {
    json!({ "check": "effect_done", "tool": "rec__record_send" })
}

fn times(errand: &Errand, tool: &str) -> usize {
    errand
        .calls()
        .iter()
        .filter(|call| call["tool"] == tool)
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_outlives_a_restart_and_is_used_once() {
    let errand = recorder("").await;
    let play = json!({ "scenes": [
        plan(),
        { "when": ["Step n1:"], "results": 0, "call": [send()] },
        { "when": ["Step n1:"], "say": "It is sent." },
    ] });
    errand.perform(&play);
    let id = errand.begin(&brief(2, sent())).await;
    let before = errand.settled(&id).await;
    assert_eq!(before["waiting_on"], "approval", "{before:#}");
    let request = before["required_actions"][0].clone();
    let Errand { world, office } = errand;
    let (file, fast, deep, folder) = (world.file.clone(), world.fast, world.deep, world.folder);
    let key = world.client.key.clone();
    world.running.shut_down(std::future::ready(())).await;
    let running = started_again(&file).await;
    let client = tests::Client::new(running.address, &key);
    let world = tests::World {
        client,
        running,
        fast,
        deep,
        file,
        folder,
    };
    let errand = Errand { world, office };
    let after = errand.task(&id).await;
    assert_eq!(
        after["required_actions"][0]["digest"], request["digest"],
        "{after:#}"
    );
    assert_eq!(times(&errand, "record_send"), 0);
    let task = errand.until_end(&id, |_| json!({ "approve": true })).await;
    assert_eq!(task["status"], "completed", "{task:#}");
    assert_eq!(times(&errand, "record_send"), 1);
    // Who comes late with the same yes is told so, and nothing happens again.
    let key = request["id"].as_str().unwrap();
    let body = json!({ "digest": request["digest"], "approve": true }).to_string();
    let late = errand
        .world
        .client
        .post(&format!("/v1/approvals/{key}/decision"), body)
        .await;
    assert_eq!(late.status, 409, "{}", late.text());
    assert_eq!(times(&errand, "record_send"), 1);
}

/// Starts on the same store. What the drain cut off may hold the old journal for a moment: a process would
/// be gone.
async fn started_again(file: &Path) -> proxy::boot::Running {
    for _ in 0..100 {
        let config =
            proxy::config::Config::load(file).unwrap_or_else(|invalid| panic!("{invalid}"));
        match proxy::boot::start(config, Some(file.to_owned())).await {
            Ok(running) => return running,
            Err(error) => {
                let told = format!("{error:#}");
                assert!(told.contains("in use by another process"), "{told}");
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the journal is never let go");
}

/// Begins a task whose one step calls a tool once, and is done when it was called.
async fn doing(errand: &Errand, tool: &str, arguments: Value) -> String {
    let call = json!({ "name": tool, "arguments": arguments });
    let play = json!({ "scenes": [
        plan(),
        { "when": ["Step n1:"], "results": 0, "call": [call] },
        { "when": ["Step n1:"], "say": "It is done." },
    ] });
    errand.perform(&play);
    let done = json!({ "check": "effect_done", "tool": tool });
    errand.begin(&brief(3, done)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_act_in_flight_when_cancelled_is_not_done_again() {
    let errand = recorder("").await;
    let id = doing(&errand, "rec__slow", json!({ "ms": 700 })).await;
    for _ in 0..500 {
        if errand.task(&id).await["activity"] == "acting" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let path = format!("/v1/tasks/{id}/cancel");
    let reply = errand
        .world
        .client
        .send(Method::POST, &path, &[], "{}")
        .await;
    assert!(
        matches!(reply.status, 200 | 202),
        "{} {}",
        reply.status,
        reply.text()
    );
    let task = errand.until_end(&id, |_| json!({ "approve": false })).await;
    assert_eq!(task["status"], "cancelled", "{task:#}");
    assert_eq!(times(&errand, "slow"), 1);
    let effects = errand.effects(&id).await;
    assert_eq!(effects[0]["attempts"], 1, "{effects:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_dies_behind_its_act_leaves_a_question_and_no_repetition() {
    let errand = recorder("").await;
    let id = doing(&errand, "rec__crash_after", json!({})).await;
    let mut asked = Vec::new();
    let task = errand.until_end(&id, |request| {
        asked.push(request["asking"].clone());
        json!({ "approve": true, "settle": "happened" })
    });
    let task = task.await;
    assert_eq!(asked, [json!("unknown")], "{task:#}");
    assert_eq!(task["status"], "completed", "{task:#}");
    assert_eq!(times(&errand, "crash_after"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_left_without_its_result() {
    // Three calls in one turn: one denied, one of a tool that does not exist, one that fails.
    let errand = recorder("").await;
    let calls = json!([
        send(),
        { "name": "rec__nothing", "arguments": {}, "invented": true },
        { "name": "rec__fail", "arguments": { "text": "it fails" } },
    ]);
    let play = json!({ "scenes": [
        plan(),
        { "when": ["Step n1:"], "results": 0, "call": calls },
        { "when": ["Step n1:"], "results": 3, "say": "All three have answers." },
        { "when": ["Step n1:"], "results": 2, "say": "Both have answers." },
        { "when": ["You close a task."], "say": "Closed." },
    ] });
    errand.perform(&play);
    let id = errand.begin(&brief(2, sent())).await;
    let task = errand
        .until_end(&id, |_| json!({ "approve": false, "reason": "no" }))
        .await;
    assert_eq!(task["status"], "incomplete", "{task:#}");
    let output = task["plan"]["nodes"][0]["output"]
        .as_str()
        .unwrap_or_default();
    assert!(output.contains("have answers"), "{task:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_goes_round_in_circles_is_stopped_and_says_what_it_has() {
    let errand = recorder("").await;
    let read = json!({ "name": "rec__record_read", "arguments": { "id": "x" } });
    let play = json!({ "scenes": [
        plan(),
        { "when": ["You close a task."], "say": "Nothing was found." },
        { "when": ["Step n1:"], "call": [read] },
    ] });
    errand.perform(&play);
    let id = errand.begin(&brief(3, sent())).await;
    let task = errand.until_end(&id, |request| panic!("{request:#}")).await;
    assert_eq!(task["status"], "incomplete", "{task:#}");
    assert_eq!(task["result"]["summary"], "Nothing was found.");
    let calls = times(&errand, "record_read");
    assert!(
        (3..=8).contains(&calls),
        "{calls} calls before it was stopped"
    );
    let kinds: Vec<Value> = errand
        .events(&id)
        .await
        .iter()
        .map(|it| it["type"].clone())
        .collect();
    assert!(kinds.contains(&json!("loop.warned")), "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_money_ends_in_order_and_is_never_overspent() {
    let errand = recorder("").await;
    let scenes: Vec<Value> = (0..40)
        .map(|n| {
            let read = json!({ "name": "rec__record_read", "arguments": { "id": format!("{n}") } });
            json!({ "when": ["Step n1:"], "results": n, "call": [read], "usage": { "reasoning_tokens": 3500 } })
        })
        .collect();
    let mut all = vec![
        plan(),
        json!({ "when": ["You close a task."], "say": "The money is gone." }),
    ];
    all.extend(scenes);
    errand.perform(&json!({ "scenes": all }));
    let mut brief = brief(3, sent());
    brief["budget"] = json!({ "cost_usd": "0.40", "wrap_up_reserve_pct": 30 });
    let id = errand.begin(&brief).await;
    let task = errand.until_end(&id, |request| panic!("{request:#}")).await;
    assert_eq!(task["status"], "incomplete", "{task:#}");
    assert!(
        task["result"]["why"].as_str().unwrap().contains("cost_usd"),
        "{task:#}"
    );
    assert_eq!(task["result"]["summary"], "The money is gone.");
    let entries = errand.world.entries().await;
    let mine = entries
        .iter()
        .filter(|entry| &*entry.held.subject.task == id.as_str());
    let ledger: i64 = mine.map(|entry| entry.cost.0).sum();
    let told = meter::NanoUsd::from_usd(task["usage"]["cost_usd"].as_str().unwrap()).unwrap();
    assert_eq!(
        ledger, told.0,
        "the ledger and the task agree to the nano-dollar"
    );
    assert!(ledger <= 400_000_000, "{ledger}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_goal_survives_a_long_transcript() {
    let errand = recorder("orchestrator.limits.transcript_bytes = 6000\n").await;
    let mut scenes = vec![
        plan(),
        json!({ "when": ["You shorten notes."], "say": "Found: the number is 4711." }),
        json!({ "when": ["Step n1:", "Found: the number is 4711.", "Tell bob about it.", "- d1:"], "say": "Goal and notes are here." }),
    ];
    scenes.extend((0..40).map(|n| {
        let big = json!({ "name": "rec__big", "arguments": { "bytes": 1500 + n } });
        json!({ "when": ["Step n1:"], "results": n, "call": [big] })
    }));
    errand.perform(&json!({ "scenes": scenes }));
    let mut brief = brief(3, json!({ "check": "effect_done", "tool": "rec__big" }));
    brief["constraints"] = json!(["Never write to alice."]);
    let id = errand.begin(&brief).await;
    let task = errand.until_end(&id, |request| panic!("{request:#}")).await;
    assert_eq!(task["status"], "completed", "{task:#}");
    let kinds: Vec<Value> = errand
        .events(&id)
        .await
        .iter()
        .map(|it| it["type"].clone())
        .collect();
    assert!(kinds.contains(&json!("context.compacted")), "{kinds:?}");
    assert_eq!(
        task["plan"]["nodes"][0]["output"], "Goal and notes are here.",
        "{task:#}"
    );
    // Everything that was sent had the brief and its constraint in it, word for word.
    let steps = errand
        .world
        .bill()
        .into_iter()
        .filter(|billed| String::from_utf8_lossy(&billed.body).contains("Step n1:"));
    for billed in steps {
        assert!(String::from_utf8_lossy(&billed.body).contains("Never write to alice."));
    }
}
