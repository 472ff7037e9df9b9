//! Webhooks, against a real listener that refuses at first: events come at least once, under ids that
//! stay the same, signed; entries come in their order and only from where they were taken.

use bench::upstream::Upstream;
use tests::hook::{Post, listener};
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Process};

use crate::{PROGRAM, caller, config, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_fails_at_first_is_told_all_of_it() {
    let (url, posts) = listener(2).await;
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let hook = format!(
        "[[webhook]]\nurl = \"{url}\"\nsecret = \"whisper\"\ntopics = [\"budget.*\", \"usage\"]\n"
    );
    let path = config(folder.path(), &fast, &deep, &hook);
    let key = key(&path, "acme");
    let process = Process::start(PROGRAM, &path).await;
    let ledger = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite3")).unwrap();
    ledger
        .busy_timeout(std::time::Duration::from_secs(10))
        .unwrap();
    for (id, topic) in [("e1", "budget.threshold"), ("e2", "other.thing")] {
        ledger
            .execute(
                "INSERT INTO outbox VALUES (?1, ?2, '{\"at\":75}', 1, 1, 0, NULL, '')",
                [id, topic],
            )
            .unwrap();
    }
    let client = caller(&process, &key);
    for n in 0..5 {
        let reply = client
            .post("/v1/chat/completions", chat("fast", &format!("{n}?"), ""))
            .await;
        assert_eq!(reply.status, 200);
    }
    let taken = |topic: &str| -> Vec<Post> {
        let posts = posts.lock().unwrap().clone();
        let taken = posts.into_iter().filter(|post| post.status == 204);
        taken.filter(|post| post.json()["topic"] == topic).collect()
    };
    let told = || -> usize {
        let batches = taken("usage");
        batches
            .iter()
            .map(|post| post.json()["data"].as_array().unwrap().len())
            .sum()
    };
    for _ in 0..2_000 {
        if told() == 5 && !taken("budget.threshold").is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let all = posts.lock().unwrap().clone();
    assert!(
        all.iter().filter(|post| post.status == 500).count() == 2,
        "{all:#?}"
    );
    for post in &all {
        assert_eq!(post.header("x-pareto-signature"), post.signature());
        assert_eq!(
            post.header("x-pareto-event-id"),
            post.json()["id"].as_str().unwrap()
        );
    }
    let events = taken("budget.threshold");
    assert_eq!(
        (events.len(), events[0].header("x-pareto-event-id")),
        (1, "e1")
    );
    assert_eq!(events[0].json()["data"]["at"], 75);
    assert!(taken("other.thing").is_empty());
    let seqs: Vec<i64> = taken("usage")
        .iter()
        .flat_map(|post| post.json()["data"].as_array().unwrap().clone())
        .map(|row| row["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(seqs.len(), 5, "each entry once, as nothing crashed");
    assert!(seqs.is_sorted(), "{seqs:?}");

    // The admin API exports what the listener was told, as a stream, and takes corrections.
    let admin = Client::new(process.admin_address, "admin-secret");
    let csv = admin.get("/api/export?format=csv").await;
    assert_eq!(
        (csv.status, csv.text().lines().count()),
        (200, 6),
        "{}",
        csv.text()
    );
    let id = csv
        .text()
        .lines()
        .nth(1)
        .unwrap()
        .split(',')
        .nth(1)
        .unwrap()
        .to_owned();
    let late = r#"{"attempt":0,"usage":{"input":3,"output":4},"reason":"late"}"#;
    let url = format!("/api/calls/{id}/corrections");
    for status in [201, 200] {
        let reply = admin.post(&url, late).await;
        assert_eq!(reply.status, status, "{}", reply.text());
    }
    assert_eq!(admin.get(&url).await.json().as_array().unwrap().len(), 1);
    let call = admin.get(&format!("/api/calls/{id}")).await.json();
    assert_eq!(call["corrections"][0]["kind"], "late");
    assert_eq!(
        call["cost_usd"], "0.000019000",
        "3 at 1 and 4 at 4 USD a million"
    );
    let missing = admin
        .post(&url, late.replace("\"attempt\":0", "\"attempt\":9"))
        .await;
    assert_eq!(missing.status, 422, "{}", missing.text());
    // A slip of the pen makes no call free, and no sum leave its type.
    for (from, to, named) in [
        (
            "\"input\":3,\"output\":4",
            "\"prompt_tokens\":3",
            "`prompt_tokens`",
        ),
        ("\"input\":3,\"output\":4", "", "empty"),
        ("\"input\":3", "\"input\":100000001", "100000000"),
        (
            "\"attempt\":0",
            "\"attempt\":0,\"resaon\":\"x\"",
            "`resaon`",
        ),
    ] {
        let bad = admin.post(&url, late.replace(from, to)).await;
        assert_eq!(bad.status, 422, "{to}: {}", bad.text());
        assert!(bad.text().contains(named), "{to}: {}", bad.text());
    }
    assert_eq!(admin.get(&url).await.json().as_array().unwrap().len(), 1);
}
