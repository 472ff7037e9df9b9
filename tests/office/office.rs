//! The office itself: what it offers, what it keeps, and what it refuses.

use serde_json::{Value, json};
use tests::office::Desk;

use super::stdio::Server;

#[tokio::test]
async fn it_offers_its_tools_with_honest_annotations() {
    let folder = tempfile::tempdir().unwrap();
    let mut office = Server::office(folder.path()).await;
    let tools = office.tools().await;
    let names: Vec<&str> = tools
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    let wanted = [
        "create_draft",
        "create_event",
        "find_draft",
        "get_thread",
        "list_events",
        "list_files",
        "list_mail",
        "list_tasks",
        "read_file",
        "search_mail",
        "send_draft",
        "write_file",
    ];
    assert_eq!(names, wanted);
    for tool in &tools {
        let name = tool["name"].as_str().unwrap();
        let looks = !["create_draft", "create_event", "send_draft", "write_file"].contains(&name);
        assert_eq!(tool["annotations"]["readOnlyHint"], looks, "{name}");
        assert_eq!(
            tool["annotations"]["openWorldHint"],
            name == "send_draft",
            "{name}"
        );
        assert_eq!(tool["inputSchema"]["type"], "object", "{name}");
    }
    std::fs::write(
        folder.path().join("descriptions.json"),
        "{\"list_tasks\":\"Other.\"}",
    )
    .unwrap();
    let tools = office.tools().await;
    let changed = tools.iter().find(|it| it["name"] == "list_tasks").unwrap();
    assert_eq!(changed["description"], "Other.");
    assert!(office.close().await, "it ends with its input");
}

#[test]
fn the_operators_word_names_every_tool_and_nothing_else() {
    let text = include_str!("office.toml");
    let read: toml::Table = text.parse().unwrap();
    let server = &read["mcp"].as_array().unwrap()[0];
    let mut named = Vec::new();
    for tool in server["tool"].as_array().unwrap() {
        let manifest: orchestrator::tool::Manifest = tool.clone().try_into().unwrap();
        let probes = manifest.class == orchestrator::tool::Class::Probeable;
        assert_eq!(manifest.probe.is_some(), probes, "{}", manifest.name);
        named.push(manifest.name);
    }
    named.sort();
    let all = "create_draft create_event find_draft get_thread list_events list_files list_mail \
               list_tasks read_file search_mail send_draft write_file";
    assert_eq!(named.join(" "), all);
    assert_eq!(
        text.matches("{command}").count() + text.matches("{dir}").count(),
        4
    );
}

#[tokio::test]
async fn the_day_is_as_the_briefs_need_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut office = Server::office(folder.path()).await;
    let mails = office.call("list_mail", &json!({})).await.structured;
    let count = |list: &Value| list.as_array().unwrap().len();
    assert_eq!(count(&mails["mails"]), 13, "one of fourteen was sent");
    let thread = office
        .call("get_thread", &json!({ "id": "th-kessler" }))
        .await;
    assert_eq!(count(&thread.structured["mails"]), 6);
    assert_eq!(thread.structured["answered"], false);
    assert_eq!(
        serde_json::from_str::<Value>(&thread.text).unwrap(),
        thread.structured
    );
    let found = office
        .call("search_mail", &json!({ "query": "bank changed" }))
        .await;
    assert_eq!(count(&found.structured["mails"]), 1);
    let day = json!({ "from": "2026-11-24T08:00:00+01:00", "to": "2026-11-24T18:00:00+01:00" });
    let events = office.call("list_events", &day).await.structured;
    let shown = events["events"].as_array().unwrap().iter();
    let shown: Vec<&str> = shown.map(|event| event["id"].as_str().unwrap()).collect();
    assert_eq!(shown, ["ev-4", "ev-5", "ev-6", "ev-7"]);
    let tasks = office.call("list_tasks", &json!({})).await.structured;
    assert_eq!(count(&tasks["tasks"]), 6);
    let files = office.call("list_files", &json!({})).await;
    assert_eq!(count(&files.structured["files"]), 8);
    assert!(!files.text.contains("content"), "lists do not read");
}

fn draft(marker: &str) -> Value {
    json!({ "to": ["lena@kessler-castings.example"], "subject": "Re: x", "body": "y", "marker": marker })
}

#[tokio::test]
async fn a_draft_is_found_by_its_mark_and_sent_by_its_digest_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut office = Server::office(folder.path()).await;
    let made = office.call("create_draft", &draft("k1")).await;
    office.call("create_draft", &draft("k2")).await;
    let found = office.call("find_draft", &json!({ "marker": "k1" })).await;
    assert!(
        found.text.contains("\"marker\":\"k1\""),
        "as the probe looks for it"
    );
    assert_eq!(found.structured["drafts"][0]["id"], made.structured["id"]);
    let none = office.call("find_draft", &json!({ "marker": "k3" })).await;
    assert!(!none.text.contains("\"marker\":\"k3\""));
    let wrong = json!({ "id": "dr-1", "digest": "0".repeat(64) });
    assert!(office.call("send_draft", &wrong).await.is_error);
    let desk = Desk::open(folder.path()).unwrap();
    assert!(desk.sent().is_empty());
    let right = json!({ "id": "dr-1", "digest": made.structured["digest"] });
    for times in 1..=2 {
        assert!(!office.call("send_draft", &right).await.is_error);
        assert_eq!(desk.sent()[0]["times_sent"], times, "it takes no key");
    }
    // A draft that was changed behind its back is not the one that was looked at.
    let path = folder.path().join("drafts.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("lena@", "mallory@")).unwrap();
    assert!(office.call("send_draft", &right).await.is_error);
}

#[tokio::test]
async fn what_is_keyed_is_done_once_and_bad_calls_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut office = Server::office(folder.path()).await;
    let event = json!({ "title": "Focus", "start": "2026-11-24T13:00:00+01:00",
        "end": "2026-11-24T15:00:00+01:00", "key": "k" });
    let first = office.call("create_event", &event).await.structured;
    let second = office.call("create_event", &event).await.structured;
    assert_eq!(
        (&first["created"], &second["created"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(first["id"], second["id"]);
    let file = json!({ "path": "notes/a.md", "content": "x", "key": "f" });
    assert_eq!(
        office.call("write_file", &file).await.structured["written"],
        true
    );
    assert_eq!(
        office.call("write_file", &file).await.structured["written"],
        false
    );
    let refused = [
        ("write_file", json!({ "path": "../a", "content": "x" })),
        (
            "write_file",
            json!({ "path": "policies/procurement-policy.md", "content": "x" }),
        ),
        (
            "create_event",
            json!({ "title": "x", "start": "soon", "end": "late", "key": "z" }),
        ),
        (
            "create_draft",
            json!({ "to": [], "subject": "x", "body": "y" }),
        ),
        ("get_thread", json!({ "id": "th-none" })),
        ("read_file", json!({})),
        ("no_such_tool", json!({})),
    ];
    for (tool, arguments) in refused {
        let answer = office.call(tool, &arguments).await;
        assert!(
            answer.is_error && answer.text.len() > 10,
            "{tool}: {}",
            answer.text
        );
    }
    assert_eq!(Desk::open(folder.path()).unwrap().list("events").len(), 10);
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_kill_and_the_log_has_every_call() {
    let folder = tempfile::tempdir().unwrap();
    for round in 0..5 {
        let mut office = Server::office(folder.path()).await;
        let mut other = Server::office(folder.path()).await;
        office
            .call("create_draft", &draft(&format!("a{round}")))
            .await;
        other
            .call("create_draft", &draft(&format!("b{round}")))
            .await;
        office.kill().await;
        other.kill().await;
    }
    let desk = Desk::open(folder.path()).unwrap();
    let drafts = desk.list("drafts");
    let ids: Vec<&str> = drafts.iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(ids[9], "dr-10");
    let log = desk.log();
    let asked = log
        .iter()
        .filter(|line| line["asked"] == "create_draft")
        .count();
    let answered = log
        .iter()
        .filter(|line| line["answered"] == "create_draft")
        .count();
    assert_eq!((asked, answered), (10, 10));
}
