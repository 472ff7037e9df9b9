//! SIGTERM lets streams end, SIGHUP reloads, and the first call after a start comes soon.

use std::time::{Duration, Instant};

use bench::upstream::{Script, Upstream};
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Process};

use crate::{PROGRAM, caller, config, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_every_stream_end_and_takes_no_new_connection() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Script {
        output_tokens: 100,
        token_gap_us: 8_000,
        ..script(FAST)
    };
    let fast = Upstream::start(slow).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let mut process = Process::start(PROGRAM, &config).await;
    let streams: Vec<_> = (0..40)
        .map(|_| {
            let client = caller(&process, &key);
            let body = chat("fast", "Hello", ",\"stream\":true,\"max_tokens\":200");
            tokio::task::spawn(async move { client.post("/v1/chat/completions", body).await })
        })
        .collect();
    while fast.calls() < 40 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.signal("TERM");
    let admin = Client::new(process.admin_address, "admin-secret");
    while admin.get("/readyz").await.status != 503 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = caller(&process, &key)
        .post("/v1/chat/completions", chat("fast", "Hi", ""))
        .await;
    assert_eq!(late.status, 0, "the listener is closed");
    for stream in streams {
        let reply = stream.await.unwrap();
        assert_eq!((reply.status, reply.broken), (200, false));
        assert!(
            reply.text().ends_with("data: [DONE]\n\n"),
            "it came to its end"
        );
    }
    assert!(process.child.wait().await.unwrap().success());
    let ledger = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite3")).unwrap();
    let rows: i64 = ledger
        .query_row("SELECT COUNT(*) FROM usage_event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 40, "all of it is written down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_takes_a_good_file_and_refuses_a_bad_one() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let key = key(&path, "acme");
    let process = Process::start(PROGRAM, &path).await;
    let admin = Client::new(process.admin_address, "admin-secret");
    let good = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, good.replace("[[model]]", "[[modle]]")).unwrap();
    process.signal("HUP");
    let last_error =
        || async { admin.get("/api/config").await.json()["last_reload_error"].clone() };
    while last_error().await.is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(
        last_error()
            .await
            .as_str()
            .unwrap()
            .contains("did you mean `model`?")
    );
    let metrics = admin.get("/metrics").await.text();
    assert!(
        metrics.contains("pareto_config_last_reload_ok 0"),
        "{metrics}"
    );
    let client = caller(&process, &key);
    assert_eq!(
        client
            .post("/v1/chat/completions", chat("fast", "Hi", ""))
            .await
            .status,
        200
    );
    std::fs::write(&path, good).unwrap();
    process.signal("HUP");
    while !last_error().await.is_null() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_made_or_revoked_by_another_process_counts_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let process = Process::start(PROGRAM, &path).await;
    let key = key(&path, "acme");
    let client = caller(&process, &key);
    let status = || async {
        client
            .post("/v1/chat/completions", chat("fast", "Hi", ""))
            .await
            .status
    };
    let until = Instant::now() + Duration::from_secs(10);
    while status().await != 200 {
        assert!(Instant::now() < until, "the new key is never seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let id = key.split('-').nth(2).unwrap();
    let (ok, _, error) = crate::command(&["keys", "revoke", id], &path);
    assert!(ok, "{error}");
    while status().await != 401 {
        assert!(Instant::now() < until, "the revocation is never seen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.kill().await;
}
