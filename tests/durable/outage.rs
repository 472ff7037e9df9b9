//! What fails beside the gateway: the ledger's server, the disk, the clock. What is proved: hard budgets
//! close with an error in the caller's dialect, who has none is served where that is safe, nothing is
//! lost, and service resumes by itself.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::upstream::{Script, Upstream};
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Postgres, Process, Reply};

use crate::{PROGRAM, caller, config, key};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

fn budget(limit: &str) -> String {
    format!("[[budget]]\ntenant = \"bound\"\nlimit_usd = \"{limit}\"\nwindow = \"total\"\n")
}

async fn call(client: &Client, path: &str) -> Reply {
    client
        .post(path, chat("fast", "Hi", ",\"max_tokens\":20"))
        .await
}

/// Calls until the answer has `status`, at most for twenty seconds.
async fn until(client: &Client, status: u16) -> Reply {
    for _ in 0..400 {
        let reply = call(client, CHAT).await;
        if reply.status == status {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("never answered {status}")
}

/// Both dialects tell of `code` in their own shape.
async fn refuses(client: &Client, code: &str) {
    let chat = call(client, CHAT).await;
    assert_eq!(chat.status, 503, "{}", chat.text());
    assert_eq!(chat.json()["error"]["code"], code, "{}", chat.text());
    let messages = call(client, MESSAGES).await;
    assert_eq!(messages.status, 503, "{}", messages.text());
    assert_eq!(messages.json()["type"], "error", "{}", messages.text());
    assert!(messages.text().contains("again"), "{}", messages.text());
    assert!(!chat.header("retry-after").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_shared_ledger_hard_budgets_close_once_their_slices_are_spent() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let place = folder.path().join("node");
    let url = server.url("postgres");
    let config = crate::nodes::node(&place, &url, [&fast, &deep], &budget("0.02"));
    let keys = [key(&config, "bound"), key(&config, "free")];
    let process = Process::start(PROGRAM, &config).await;
    let [bound, free] = keys.map(|key| caller(&process, &key));
    for _ in 0..20 {
        assert_eq!(call(&bound, CHAT).await.status, 200);
    }
    tokio::task::block_in_place(|| server.down());
    let before = fast.bill().len();
    until(&bound, 503).await;
    println!(
        "{} calls were served from the slice without the ledger",
        fast.bill().len() - before
    );
    refuses(&bound, "budget_unavailable").await;
    assert_eq!(
        call(&free, CHAT).await.status,
        200,
        "no hard budget, no need"
    );
    tokio::task::block_in_place(|| server.up());
    until(&bound, 200).await;
    ends_equal(process, &[&fast, &deep], Ledger::Server(url)).await;
}

enum Ledger {
    Server(String),
    File(PathBuf),
}

/// Ends the process in order; then the ledger has every call that was billed, at what was billed.
async fn ends_equal(process: Process, upstreams: &[&Upstream], ledger: Ledger) {
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    let billed = upstreams.iter().flat_map(|it| it.bill());
    let mut billed: Vec<i64> = billed
        .map(|it| i64::try_from(it.cost_pico / 1_000).unwrap())
        .collect();
    let sql = "SELECT cost_nano FROM usage_event WHERE outcome <> 'failed'";
    let mut rows: Vec<i64> = match ledger {
        Ledger::Server(url) => tokio::task::spawn_blocking(move || {
            let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
            let rows = client.query(sql, &[]).unwrap();
            rows.iter().map(|row| row.get(0)).collect()
        })
        .await
        .unwrap(),
        Ledger::File(path) => {
            let ledger = rusqlite::Connection::open(path).unwrap();
            let mut asked = ledger.prepare(sql).unwrap();
            let rows = asked.query_map([], |row| row.get(0)).unwrap();
            rows.map(Result::unwrap).collect()
        }
    };
    billed.sort_unstable();
    rows.sort_unstable();
    assert_eq!(
        rows, billed,
        "every call is in the ledger at what was billed"
    );
}

/// A small disk of its own, gone when dropped.
pub(crate) struct Disk(tempfile::TempDir);

impl Disk {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=6m", "tmpfs"])
            .arg(folder.path())
            .status();
        assert!(
            mounted.unwrap().success(),
            "this test needs to mount a small tmpfs; run it as root"
        );
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> PathBuf {
        self.0.path().join("filler")
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).unwrap();
        for size in [65_536, 4_096, 1] {
            while file.write_all(&vec![0; size]).is_ok() {}
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _gone = std::process::Command::new("umount")
            .arg("-l")
            .arg(self.0.path())
            .status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_nothing_is_sent_and_nothing_is_lost() {
    let disk = Disk::new();
    let fast = Upstream::start(Script {
        output_tokens: 20,
        ..script(FAST)
    })
    .await
    .unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(disk.0.path(), &fast, &deep, &budget("1"));
    // The journal has its place on the disk ahead: less of it, so that it is soon used up.
    let text = std::fs::read_to_string(&config).unwrap();
    let small = "store.journal_segment_bytes = 16384\n";
    std::fs::write(&config, format!("{small}{text}")).unwrap();
    let keys = [key(&config, "bound"), key(&config, "free")];
    let process = Process::start(PROGRAM, &config).await;
    let [bound, free] = keys.map(|key| caller(&process, &key));
    let operator = Client::new(process.admin_address, "admin-secret");
    assert_eq!(call(&bound, CHAT).await.status, 200);
    assert_eq!(operator.get("/readyz").await.status, 200);
    // A stream that is under way when the disk fills up is settled all the same.
    let slow = chat(
        "fast",
        "Hi <<script {\"gap_us\":100000}>>",
        ",\"max_tokens\":20,\"stream\":true",
    );
    let streaming = {
        let bound = bound.clone();
        tokio::task::spawn(async move { bound.post(CHAT, slow).await })
    };
    while fast.calls() < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    disk.fill();
    until(&bound, 503).await;
    refuses(&bound, "ledger_unavailable").await;
    assert_eq!(
        call(&free, CHAT).await.status,
        503,
        "what can not be written down is not sent"
    );
    let ready = operator.get("/readyz").await;
    let told = "the journal can not be written; the log says why";
    assert_eq!((ready.status, ready.text().as_str()), (503, told));
    let sent = fast.calls();
    let streamed = streaming.await.unwrap();
    assert!(!streamed.broken && streamed.text().contains("[DONE]"));
    std::fs::remove_file(disk.filler()).unwrap();
    // A balancer that sends nobody here until it is ready learns of it all the same.
    assert_eq!(operator.get("/readyz").await.status, 200);
    until(&bound, 200).await;
    assert!(fast.calls() > sent);
    assert_eq!(call(&free, CHAT).await.status, 200);
    // The settlement that waited is written within a second or two.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let ledger = disk.0.path().join("data/ledger.sqlite3");
    ends_equal(process, &[&fast, &deep], Ledger::File(ledger)).await;
}

/// The library that bends the clock of a process, from the package `faketime`.
fn bender() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap();
    let found = folders
        .map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    found.expect("the package faketime is not installed")
}

fn set_clock(file: &Path, offset: &str) {
    std::fs::write(file, offset).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_clock_runs_back_hard_budgets_close_until_it_is_right() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(folder.path(), &fast, &deep, &budget("1"));
    let keys = [key(&config, "bound"), key(&config, "free")];
    let clock = folder.path().join("clock");
    set_clock(&clock, "+0s");
    let (library, file) = (bender(), clock.display().to_string());
    let with = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("FAKETIME_TIMESTAMP_FILE", file.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let process = Process::start_with(PROGRAM, &config, &with).await;
    let [bound, free] = keys.clone().map(|key| caller(&process, &key));
    assert_eq!(call(&bound, CHAT).await.status, 200);
    set_clock(&clock, "-3600s");
    until(&bound, 503).await;
    refuses(&bound, "clock_behind").await;
    assert_eq!(call(&free, CHAT).await.status, 200, "no budget, no window");
    set_clock(&clock, "+0s");
    assert_eq!(until(&bound, 200).await.status, 200);
    process.kill().await;
    // A start with a clock that is behind knows it from the ledger.
    set_clock(&clock, "-3600s");
    let process = Process::start_with(PROGRAM, &config, &with).await;
    let bound = caller(&process, &keys[0]);
    refuses(&bound, "clock_behind").await;
    set_clock(&clock, "+0s");
    until(&bound, 200).await;
    let ledger = folder.path().join("data/ledger.sqlite3");
    ends_equal(process, &[&fast, &deep], Ledger::File(ledger)).await;
}
