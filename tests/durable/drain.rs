//! SIGTERM lets streams end, SIGHUP reloads, and the first call after a start comes soon.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bench::upstream::{Script, Upstream};
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Process};
use tokio::net::TcpStream;

use crate::upgrade::{call, calls};
use crate::{PROGRAM, caller, config, key};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_lets_every_stream_end_and_takes_no_new_connection() {
    const STREAMS: u64 = 200;
    let folder = tempfile::tempdir().unwrap();
    let slow = Script {
        output_tokens: 300,
        token_gap_us: 10_000,
        ..script(FAST)
    };
    let fast = Upstream::start(slow).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let mut process = Process::start(PROGRAM, &config).await;
    let mut kept = TcpStream::connect(process.address).await.unwrap();
    let short = chat("deep", "Hi", "");
    assert_eq!(
        call(&mut kept, &key, &short).await,
        Ok(false),
        "it is kept alive"
    );
    let streams: Vec<_> = (0..STREAMS)
        .map(|_| {
            let client = caller(&process, &key);
            let body = chat("fast", "Hello", ",\"stream\":true,\"max_tokens\":400");
            tokio::task::spawn(async move { client.post("/v1/chat/completions", body).await })
        })
        .collect();
    while fast.calls() < STREAMS {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    process.signal("TERM");
    let admin = Client::new(process.admin_address, "admin-secret");
    while admin.get("/readyz").await.status != 503 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // Whoever comes in the lag is served, and told to go.
    let in_lag = call(&mut kept, &key, &short).await;
    assert_eq!(in_lag, Ok(true), "answered, with `connection: close`");
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(process.address).await.is_ok() {
        assert!(Instant::now() < until, "the listener never closes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
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
    let calls = i64::try_from(STREAMS + deep.calls()).unwrap();
    assert_eq!(rows, calls, "all of it is written down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_outlasts_the_drain_ends_in_a_visible_error() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Script {
        output_tokens: 2_000,
        token_gap_us: 50_000,
        ..script(FAST)
    };
    let fast = Upstream::start(slow).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("server.drain_s = 1\n{text}")).unwrap();
    let key = key(&path, "acme");
    let mut process = Process::start(PROGRAM, &path).await;
    let streams = ["/v1/chat/completions", "/v1/messages", "/v1/responses"].map(|at| {
        let client = caller(&process, &key);
        let body = match at {
            "/v1/responses" => {
                "{\"model\":\"fast\",\"input\":\"Hello\",\"stream\":true}".to_owned()
            }
            _ => chat("fast", "Hello", ",\"stream\":true,\"max_tokens\":3000"),
        };
        tokio::task::spawn(async move { client.post(at, body).await })
    });
    while fast.calls() < 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    process.signal("TERM");
    for stream in streams {
        let reply = stream.await.unwrap();
        let text = reply.text();
        assert_eq!((reply.status, reply.broken), (200, true), "{text}");
        assert!(text.contains("the gateway is shutting down"), "{text}");
        assert!(!text.contains("[DONE]") && !text.contains("message_stop"));
    }
    assert!(process.child.wait().await.unwrap().success());
    let ledger = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite3")).unwrap();
    let rows: i64 = ledger
        .query_row(
            "SELECT COUNT(*) FROM usage_event WHERE outcome = 'interrupted' AND cost_nano > 0",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(rows, 3, "what was made is charged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_under_load_are_seen_by_no_caller() {
    const RELOADS: usize = 40;
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let key = key(&path, "acme");
    let process = Process::start(PROGRAM, &path).await;
    let admin = Client::new(process.admin_address, "admin-secret");
    let reload = async || admin.post("/api/reload", "").await;
    let good = std::fs::read_to_string(&path).unwrap();
    let stop = Arc::default();
    let callers = [true, true, false].map(|keeps| calls(process.address, &key, keeps, &stop));
    for n in 0..RELOADS {
        let changed = format!(
            "upstream.reply_timeout_ms = {}\nlimits.body_bytes = {}\nserver.drain_s = {}\n{good}\n\
             [[budget]]\ntenant = \"acme\"\nlimit_usd = \"{}\"\nwindow = \"day\"\n",
            20_000 + n,
            100_000 + n,
            20 + n,
            500 + n
        );
        match n % 4 {
            // Half-written, and then whole.
            0 => {
                std::fs::write(&path, &changed[..changed.len() / 2 + 10]).unwrap();
                let refused = reload().await;
                assert_eq!(refused.status, 422, "{}", refused.text());
                std::fs::write(&path, &changed).unwrap();
                assert_eq!(reload().await.status, 204);
            }
            // A key that needs a restart is named, and the rest taken.
            1 => {
                let other = changed.replacen("127.0.0.1:0", "127.0.0.1:1", 1);
                let other = other.replace("127.0.0.1:0", "127.0.0.1:2");
                std::fs::write(&path, format!("server.workers = 7\n{other}")).unwrap();
                let told = reload().await;
                let left = &told.json()["needs_restart"];
                assert_eq!(told.status, 200);
                let wanted = ["server.listen", "server.workers", "admin.listen"];
                assert_eq!(*left, serde_json::json!(wanted));
            }
            // A file that can not be read as TLS wants it.
            2 => {
                let tls = "server.tls_cert = \"no.pem\"\nserver.tls_key = \"no.pem\"\n";
                std::fs::write(&path, format!("{tls}{changed}")).unwrap();
                let refused = reload().await;
                assert_eq!(refused.status, 422);
                assert!(refused.text().contains("no.pem"), "{}", refused.text());
            }
            // A storm of signals.
            _ => {
                std::fs::write(&path, &changed).unwrap();
                for _ in 0..10 {
                    process.signal("HUP");
                }
            }
        }
    }
    std::fs::write(&path, good.replace("[[model]]", "[[modle]]")).unwrap();
    let refused = reload().await.text();
    let line = 1 + good.lines().position(|it| it == "[[model]]").unwrap();
    assert!(
        refused.contains(&format!("pareto.toml:{line}:")),
        "names file and line: {refused}"
    );
    let lower = format!(
        "limits.body_bytes = 64\n{}",
        good.replace("info,pareto=warn", "debug")
    );
    std::fs::write(&path, lower).unwrap();
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        let (count, wrong) = caller.await.unwrap();
        assert!(wrong.is_empty() && count > 0, "{wrong:?}");
    }
    // Limits and the level of the log are those of the last file.
    assert_eq!(reload().await.status, 204);
    let long = caller(&process, &key)
        .post("/v1/chat/completions", chat("fast", &"Hi ".repeat(50), ""))
        .await;
    assert_eq!(long.status, 413, "{}", long.text());
    process.said("took the new configuration", 0).await;
    let metrics = admin.get("/metrics").await.text();
    assert!(metrics.contains("pareto_config_last_reload_ok 1"));
    process.kill().await;
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
