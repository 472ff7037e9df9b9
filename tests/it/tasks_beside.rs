//! Proves what stands beside tasks: tasks as responses of the Responses dialect, signed notices, and
//! schedules over HTTP.

use std::time::Duration;

use bench::upstream::Script;
use http::Method;
use serde_json::{Value, json};
use tests::hook::listener;
use tests::world::{FAST, script};
use tests::{Client, World};

use crate::tasks::{begin, done, office, one_step, perform, scene, status, until};
use crate::tasks_api::talks;

/// A response once it is neither queued nor in progress.
async fn over(client: &Client, id: &str) -> Value {
    let path = format!("/v1/responses/{id}");
    let is_over = |it: &Value| !matches!(it["status"].as_str(), Some("queued" | "in_progress"));
    until(client, &path, is_over).await
}

fn frames(text: &str) -> Vec<Value> {
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn id_of(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_a_response_that_is_made_in_the_background() {
    let world = World::start("", "").await;
    perform(
        &world,
        vec![
            scene(
                &["You plan a task", "Be brief."],
                None,
                one_step("summarise", "Sum it up", &[], &[]),
                &[],
            ),
            scene(&["Sum it up"], None, "We stand well.".into(), &[]),
        ],
    );
    let body = json!({
        "model": "task/standing", "background": true, "instructions": "Be brief.",
        "metadata": { "project": "q4" }, "tools": [{ "type": "web_search" }],
        "input": [{ "role": "user", "content": [{ "type": "input_text", "text": "Where do we stand?" }] }],
    });
    let reply = world.client.post("/v1/responses", body.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(
        reply.header("x-pareto-loss").contains("tools"),
        "{:?}",
        reply.headers
    );
    let begun = reply.json();
    let (id, task) = (
        id_of(&begun),
        begun["metadata"]["task_id"].as_str().unwrap().to_owned(),
    );
    assert_eq!(
        (&begun["object"], &begun["background"]),
        (&json!("response"), &json!(true))
    );
    assert_eq!(begun["metadata"]["project"], "q4");
    let whole = over(&world.client, &id).await;
    assert_eq!(
        (&whole["status"], &whole["model"]),
        (&json!("completed"), &json!("task/standing")),
        "{whole:#}"
    );
    assert_eq!(whole["output"][0]["content"][0]["text"], "We stand well.");
    assert!(whole["usage"]["total_tokens"].as_u64().unwrap() > 0);
    let shown = world.client.get(&format!("/v1/tasks/{task}")).await.json();
    assert_eq!(shown["brief"]["objective"], "Where do we stand?");
    assert_eq!(shown["brief"]["constraints"], json!(["Be brief."]));
    assert_eq!(
        shown["labels"],
        json!({ "project": "q4", "agent": "standing" })
    );
    let path = format!("/v1/responses/{id}");
    let all = frames(
        &world
            .client
            .get(&format!("{path}?stream=true"))
            .await
            .text(),
    );
    for (number, event) in all.iter().enumerate() {
        assert_eq!(event["sequence_number"], number);
        let rest = world
            .client
            .get(&format!("{path}?stream=true&starting_after={number}"))
            .await;
        assert_eq!(frames(&rest.text()), all[number + 1..], "{number}");
    }
    assert_eq!(all.last().unwrap()["response"], whole);
    let words: String = all.iter().filter_map(|it| it["delta"].as_str()).collect();
    assert_eq!(words, "We stand well.");
    let items = world
        .client
        .get(&format!("{path}/input_items"))
        .await
        .json();
    assert_eq!(items["data"][0]["content"][0]["text"], "Where do we stand?");
    let other = world.caller(&world.key("globex").await);
    let foreign = other.get(&path).await;
    assert_eq!(
        (foreign.status, &foreign.json()["error"]["code"]),
        (404, &json!("not_found"))
    );
    // As a stream from the first byte on, and refused where it can not be one.
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let heard = world
        .client
        .post("/v1/responses", streamed.to_string())
        .await;
    let heard = frames(&heard.text());
    assert_eq!(heard.last().unwrap()["type"], "response.completed");
    for (change, field) in [
        (json!({ "background": false }), "background"),
        (json!({ "input": "" }), "input"),
    ] {
        let mut wrong = body.clone();
        wrong
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let reply = world.client.post("/v1/responses", wrong.to_string()).await;
        assert_eq!(reply.status, 422, "{}", reply.text());
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains(field)
        );
    }
    assert_eq!(
        world
            .client
            .send(Method::DELETE, &path, &[], "")
            .await
            .status,
        200
    );
    assert_eq!(world.client.get(&path).await.status, 404);
    assert_eq!(
        world.client.get(&format!("/v1/tasks/{task}")).await.status,
        200
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_waits_for_a_person_is_complete_and_the_next_one_answers() {
    let (world, folder) = office("", "").await;
    let file = json!({ "path": "minutes.md", "content": "All agreed." });
    let ask = json!({ "question": "Who was there?" });
    let tools = ["office__write_file", "ask_user"];
    perform(
        &world,
        vec![
            scene(
                &["You plan a task"],
                None,
                one_step("act", "Write the minutes", &tools, &[]),
                &[],
            ),
            scene(
                &["Write the minutes"],
                Some(0),
                "First.".into(),
                &[("ask_user", ask)],
            ),
            scene(
                &["Write the minutes"],
                Some(1),
                "Then.".into(),
                &[("office__write_file", file)],
            ),
            scene(
                &["Write the minutes"],
                None,
                "Written for {{result:0}}.".into(),
                &[],
            ),
        ],
    );
    let brief = json!({
        "model": "task", "background": true, "input": "Put the minutes down.",
    });
    let reply = world.client.post("/v1/responses", brief.to_string()).await;
    let first = over(&world.client, &id_of(&reply.json())).await;
    assert_eq!(first["status"], "completed", "{first:#}");
    let call = &first["output"][0];
    assert_eq!(
        (&call["type"], &call["name"]),
        (&json!("function_call"), &json!("ask_user"))
    );
    let answer = json!({
        "model": "task", "background": true, "previous_response_id": first["id"],
        "input": [{ "type": "function_call_output", "call_id": call["call_id"], "output": "Ana and Ben" }],
    });
    let reply = world.client.post("/v1/responses", answer.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let second = reply.json();
    assert_eq!(second["previous_response_id"], first["id"]);
    let second = over(&world.client, &id_of(&second)).await;
    assert_eq!(second["status"], "completed", "{second:#}");
    let asked = &second["output"][0];
    assert_eq!(asked["type"], "mcp_approval_request", "{second:#}");
    assert_eq!(
        (&asked["server_label"], &asked["name"]),
        (&json!("office"), &json!("write_file"))
    );
    assert_eq!(done(&folder, "write_file"), 0);
    let yes = json!({
        "model": "task", "background": true, "previous_response_id": second["id"], "stream": true,
        "input": [{ "type": "mcp_approval_response", "approval_request_id": asked["id"], "approve": true }],
    });
    let heard = world.client.post("/v1/responses", yes.to_string()).await;
    assert_eq!(
        (heard.status, heard.broken),
        (200, false),
        "{}",
        heard.text()
    );
    let third = frames(&heard.text()).pop().unwrap()["response"].clone();
    assert_eq!(third["status"], "completed", "{third:#}");
    assert_eq!(
        third["output"][0]["content"][0]["text"],
        "Written for Ana and Ben."
    );
    assert_eq!(done(&folder, "write_file"), 1);
    let ids: std::collections::BTreeSet<String> =
        [&first, &second, &third].into_iter().map(id_of).collect();
    assert_eq!(ids.len(), 3);
    // What was told stays told.
    assert_eq!(over(&world.client, &id_of(&first)).await, first);
    assert_eq!(over(&world.client, &id_of(&second)).await, second);
    for late in [answer, yes] {
        let again = world.client.post("/v1/responses", late.to_string()).await;
        assert_eq!(again.status, 409, "{}", again.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_is_cancelled_cancels_its_task_and_stays_so() {
    let world = World::start("", "").await;
    world.fast.set_script(Script {
        key: Some("up-fast".into()),
        first_token_ms: 1_000,
        ..script(FAST)
    });
    let body = json!({ "model": "task", "background": true, "input": "Put the minutes down." });
    let reply = world.client.post("/v1/responses", body.to_string()).await;
    let id = id_of(&reply.json());
    let cancelled = world
        .client
        .post(&format!("/v1/responses/{id}/cancel"), "")
        .await;
    assert_eq!(
        (cancelled.status, &cancelled.json()["status"]),
        (200, &json!("cancelled")),
        "{}",
        cancelled.text()
    );
    let own = reply.json()["metadata"]["task_id"]
        .as_str()
        .unwrap()
        .to_owned();
    status(&world.client, &own, "cancelled").await;
    assert_eq!(over(&world.client, &id).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_brief_names_is_told_by_signed_posts_until_it_takes_them() {
    let (url, posts) = listener(1).await;
    let hook = format!("[[webhook]]\nname = \"desk\"\nurl = \"{url}\"\nsecret = \"whisper\"\n");
    let world = World::start("", &hook).await;
    let ask = json!({ "question": "Go on?" });
    perform(
        &world,
        vec![
            scene(
                &["You plan a task"],
                None,
                one_step("draft", "Ask first", &["ask_user"], &[]),
                &[],
            ),
            scene(&["Ask first"], Some(0), "Hm.".into(), &[("ask_user", ask)]),
            scene(&["Ask first"], None, "Good.".into(), &[]),
        ],
    );
    let brief =
        json!({ "objective": "Ask.", "mode": "explore", "notify": [{ "webhook": "desk" }] });
    let id = begin(&world.client, &brief).await;
    let task = status(&world.client, &id, "requires_action").await;
    let input = task["required_actions"][0]["id"].as_str().unwrap();
    let answer = json!({ "answer": "Yes." });
    world
        .client
        .post(&format!("/v1/inputs/{input}"), answer.to_string())
        .await;
    status(&world.client, &id, "completed").await;
    for _ in 0..1_000 {
        if posts.lock().unwrap().len() >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let posts = posts.lock().unwrap().clone();
    assert_eq!(posts.len(), 3, "{posts:#?}");
    let mut topics = Vec::new();
    for post in &posts {
        assert_eq!(post.header("x-pareto-signature"), post.signature());
        let body: Value = serde_json::from_str(&post.body).unwrap();
        assert_eq!(body["id"], post.header("x-pareto-event-id"));
        assert_eq!(
            (&body["data"]["id"], &body["tenant"]),
            (&json!(id), &json!("acme"))
        );
        topics.push((body["topic"].as_str().unwrap().to_owned(), id_of(&body)));
    }
    // The one that was refused comes again under its id.
    assert_eq!(
        topics.iter().filter(|it| **it == topics[0]).count(),
        2,
        "{topics:?}"
    );
    let mut names: Vec<&str> = topics.iter().map(|it| it.0.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, ["task.ended", "task.requires_action"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_changed_run_and_removed() {
    let world = World::start("", "").await;
    talks(&world);
    let new = json!({
        "id": "weekly", "cron": "0 9 * * 1", "zone": "Europe/Berlin",
        "brief": { "objective": "Say where we stand.", "mode": "explore" },
    });
    for (change, field) in [
        (json!({ "cron": "every day" }), "cron"),
        (json!({ "zone": "Mars/Base" }), "zone"),
        (json!({ "brief": { "mode": "explore" } }), "brief"),
        (
            json!({ "brief": { "objective": "x", "mode": "explore", "autonomy": 9 } }),
            "brief.autonomy",
        ),
        (json!({ "failures": 7 }), "failures"),
        (json!({ "pause_after_failures": 0 }), "pause_after_failures"),
    ] {
        let mut wrong = new.clone();
        wrong
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let reply = world.client.post("/v1/schedules", wrong.to_string()).await;
        assert_eq!(
            (reply.status, &reply.json()["field"]),
            (422, &json!(field)),
            "{}",
            reply.text()
        );
    }
    let made = world.client.post("/v1/schedules", new.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let next = made.json()["next_due_ms"].as_i64().unwrap();
    assert_eq!(next % 604_800_000 % 3_600_000, 0, "on the hour");
    let twice = world.client.post("/v1/schedules", new.to_string()).await;
    assert_eq!((twice.status, &twice.json()["field"]), (409, &json!("id")));
    let path = "/v1/schedules/weekly";
    let other = world.caller(&world.key("globex").await);
    assert_eq!(other.get(path).await.status, 404);
    assert_eq!(
        other
            .send(Method::PATCH, path, &[], "{\"enabled\":false}")
            .await
            .status,
        404
    );
    let off = world
        .client
        .send(
            Method::PATCH,
            path,
            &[],
            "{\"enabled\":false,\"brief\":{\"labels\":{\"a\":\"b\"}}}",
        )
        .await;
    assert_eq!(
        (off.status, &off.json()["next_due_ms"]),
        (200, &Value::Null),
        "{}",
        off.text()
    );
    assert_eq!(off.json()["brief"]["objective"], "Say where we stand.");
    let wrong = world
        .client
        .send(Method::PATCH, path, &[], "{\"cron\":\"x\"}")
        .await;
    assert_eq!(
        (wrong.status, &wrong.json()["field"]),
        (422, &json!("cron"))
    );
    let run = world.client.post(&format!("{path}/run"), "").await;
    assert_eq!(
        (run.status, &run.json()["schedule"]),
        (201, &json!("weekly")),
        "{}",
        run.text()
    );
    status(&world.client, &id_of(&run.json()), "completed").await;
    let all = world.client.get("/v1/schedules").await.json();
    assert_eq!(all["data"][0]["last_task"], run.json()["id"]);
    let quiet = world.client.get("/v1/exceptions").await.json();
    assert_eq!(quiet["count"], 0, "{quiet}");
    for expected in [200, 404] {
        assert_eq!(
            world
                .client
                .send(Method::DELETE, path, &[], "")
                .await
                .status,
            expected
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_tasks_are_switched_off_there_are_none() {
    let world = World::start("orchestrator.enabled = false", "").await;
    for path in ["/v1/tasks", "/v1/approvals", "/v1/audit/verify"] {
        assert_eq!(world.client.get(path).await.status, 404, "{path}");
        assert_eq!(
            world.admin().get(&format!("/api{path}")).await.status,
            404,
            "{path}"
        );
    }
    let body = json!({ "model": "task", "background": true, "input": "Anything." });
    let reply = world.client.post("/v1/responses", body.to_string()).await;
    assert_eq!(reply.status, 404, "{}", reply.text());
}
