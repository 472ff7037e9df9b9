//! The five prompts of a working morning, as briefs against an office of mail, calendar, files and tasks.
//! Nothing leaves without a yes.

use std::path::Path;

use serde_json::{Value, json};
use tests::Errand;

use crate::OFFICE;

fn read(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("office/briefs")
        .join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Runs a brief with its play to its end.
async fn run(name: &str, decide: impl FnMut(&Value) -> Value) -> (Errand, Value) {
    let errand = Errand::start(OFFICE, "", "").await;
    errand.perform(&read(&format!("{name}.play.json")));
    let id = errand.begin(&read(&format!("{name}.json"))).await;
    let task = errand.until_end(&id, decide).await;
    if task["status"] != "completed" {
        // What went wrong stands in the acts.
        println!("{:#?}", errand.effects(&id).await);
    }
    (errand, task)
}

fn yes(_: &Value) -> Value {
    json!({ "approve": true })
}

fn nobody_is_asked(request: &Value) -> Value {
    panic!("it asks: {request:#}")
}

fn completed(task: &Value) {
    assert_eq!(task["status"], "completed", "{task:#}");
    let usage = &task["usage"]["by_tier"];
    assert!(usage["fast"]["calls"].as_u64() > Some(0), "{usage}");
    assert!(usage["deep"]["calls"].as_u64() > Some(0), "{usage}");
}

fn called<'a>(calls: &'a [Value], tool: &str) -> Vec<&'a Value> {
    calls.iter().filter(|call| call["tool"] == tool).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_day_is_summarised_without_asking() {
    let (errand, task) = run("day", nobody_is_asked).await;
    completed(&task);
    let id = task["id"].as_str().unwrap();
    let day = errand
        .world
        .client
        .get(&format!("/v1/tasks/{id}/artifacts/day.md"))
        .await;
    assert_eq!(day.status, 200);
    assert!(day.text().len() > 200, "{}", day.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_longest_unanswered_thread_is_summarised() {
    let (errand, task) = run("thread", nobody_is_asked).await;
    completed(&task);
    let id = task["id"].as_str().unwrap();
    let thread = errand
        .world
        .client
        .get(&format!("/v1/tasks/{id}/artifacts/thread.json"))
        .await;
    assert!(
        thread.json()["chronology"].is_array() || thread.json().is_object(),
        "{}",
        thread.text()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_stays_in_the_drafts() {
    let (errand, task) = run("reply", yes).await;
    completed(&task);
    let calls = errand.calls();
    assert_eq!(called(&calls, "create_draft").len(), 1);
    assert!(called(&calls, "send_draft").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_is_sent_after_its_approval_and_not_before() {
    let errand = Errand::start(OFFICE, "", "").await;
    errand.perform(&read("reply-send.play.json"));
    let id = errand.begin(&read("reply-send.json")).await;
    let mut asked = Vec::new();
    let task = errand.until_end(&id, |request| {
        let sends = request.to_string().contains("office__send_draft");
        if sends {
            let calls = errand.calls();
            assert!(
                called(&calls, "send_draft").is_empty(),
                "it was sent before the yes"
            );
        }
        asked.push(sends);
        yes(request)
    });
    let task = task.await;
    completed(&task);
    assert!(asked.contains(&true), "nobody was asked about sending");
    assert_eq!(called(&errand.calls(), "send_draft").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mail_that_is_refused_is_not_sent() {
    let (errand, task) = run("reply-send", |request| {
        let sends = request.to_string().contains("office__send_draft");
        json!({ "approve": !sends, "reason": "not today" })
    })
    .await;
    assert_eq!(task["status"], "incomplete", "{task:#}");
    assert!(called(&errand.calls(), "send_draft").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn focus_time_is_asked_for_at_autonomy_two() {
    let mut asked = 0;
    let (errand, task) = run("focus", |request| {
        asked += 1;
        yes(request)
    })
    .await;
    completed(&task);
    assert_eq!(asked, 1);
    assert_eq!(called(&errand.calls(), "create_event").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn focus_time_is_blocked_at_autonomy_three() {
    let (errand, task) = run("focus-auto", nobody_is_asked).await;
    completed(&task);
    assert_eq!(called(&errand.calls(), "create_event").len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_most_important_task_is_named_with_its_sources() {
    let (errand, task) = run("priority", nobody_is_asked).await;
    completed(&task);
    let id = task["id"].as_str().unwrap();
    let text = errand
        .world
        .client
        .get(&format!("/v1/tasks/{id}/artifacts/priority.md"))
        .await;
    assert_eq!(text.status, 200, "{}", text.text());
}
