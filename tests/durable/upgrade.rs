//! Upgrades under load: no caller sees one, streams that are open come to their end, the ledger is what the
//! endpoint billed, and a new program that can not take over leaves the old one serving.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bench::upstream::{Script, Upstream};
use tests::bytes::{Line, Message};
use tests::process::signal;
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Postgres, Process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::nodes::node;
use crate::{PROGRAM, caller, config, key};

/// Upgrades in a row; `PARETO_UPGRADES` says otherwise.
const ROUNDS: &str = "4";

/// What one of the tenants may spend.
const LIMIT: &str = "0.004";

/// Processes that are ended with the test, however it ends.
#[derive(Default)]
pub(crate) struct Started(pub(crate) Vec<u32>);

impl Drop for Started {
    fn drop(&mut self) {
        for id in &self.0 {
            let _gone = std::process::Command::new("kill")
                .args(["-9", &id.to_string()])
                .stderr(std::process::Stdio::null())
                .status();
        }
    }
}

impl Started {
    /// Has the last of them be taken over from, and waits until the new process listens.
    async fn upgrade(&mut self, process: &Process) {
        let times = self.0.len();
        let last = self.0.last().copied();
        signal(last.unwrap_or(process.child.id().unwrap()), "USR2");
        let started = process.said("started a new process", times).await;
        let id = started["process"].as_u64().unwrap();
        self.0.push(u32::try_from(id).unwrap());
        process.said("listening", times).await;
    }
}

/// A call over `stream` as bytes: whether the connection ends behind it, or what went wrong.
pub(crate) async fn call(stream: &mut TcpStream, key: &str, body: &str) -> Result<bool, String> {
    let told = |error: std::io::Error| error.to_string();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.map_err(told)?;
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.map_err(told)? == 0 {
            return Err(format!("cut after {} bytes", bytes.len()));
        }
        let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find_map(|(key, value)| (key == name).then(|| value.to_owned()))
        };
        let length: usize = field("content-length").unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            if !head.starts_with("http/1.1 200 ") {
                return Err(String::from_utf8_lossy(&bytes).into_owned());
            }
            return Ok(field("connection").is_some_and(|it| it == "close"));
        }
    }
}

/// Calls until `stop`, each over a connection of its own or over one that is kept; tells what went wrong.
pub(crate) fn calls(
    address: SocketAddr,
    key: &str,
    keeps: bool,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<(usize, Vec<String>)> {
    let (key, stop) = (key.to_owned(), Arc::clone(stop));
    tokio::spawn(async move {
        let (mut count, mut wrong) = (0, Vec::new());
        let mut kept = None;
        let body = chat("fast", "What is a river?", ",\"max_tokens\":60");
        while !stop.load(Ordering::Relaxed) {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => match TcpStream::connect(address).await {
                    Ok(stream) => stream,
                    Err(error) => {
                        wrong.push(format!("refused: {error}"));
                        continue;
                    }
                },
            };
            count += 1;
            match call(&mut stream, &key, &body).await {
                Ok(ends) if keeps && !ends => kept = Some(stream),
                Ok(_) => {}
                Err(error) => wrong.push(error),
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        (count, wrong)
    })
}

/// Streams, one after the other, until `stop`; tells what went wrong.
fn streams(
    address: SocketAddr,
    key: &str,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<(usize, Vec<String>)> {
    let (key, stop) = (key.to_owned(), Arc::clone(stop));
    tokio::spawn(async move {
        let (mut count, mut wrong) = (0, Vec::new());
        while !stop.load(Ordering::Relaxed) {
            let client = Client::new(address, &key);
            let body = chat("deep", "Hello", ",\"stream\":true,\"max_tokens\":300");
            let reply = client.post("/v1/chat/completions", body).await;
            count += 1;
            let whole = reply.text().ends_with("data: [DONE]\n\n");
            if (reply.status, reply.broken, whole) != (200, false, true) {
                wrong.push(format!(
                    "{} {} {}",
                    reply.status,
                    reply.broken,
                    reply.text()
                ));
            }
        }
        (count, wrong)
    })
}

/// Every billed call is in the ledger exactly once, at what it cost, and nothing else is.
fn equals(folder: &Path, upstreams: &[&Upstream]) -> usize {
    let ledger = rusqlite::Connection::open(folder.join("data/ledger.sqlite3")).unwrap();
    let open: i64 = ledger
        .query_row("SELECT COUNT(*) FROM hold", [], |row| row.get(0))
        .unwrap();
    assert_eq!(open, 0, "no hold is left open");
    let mut asked = ledger
        .prepare("SELECT request_id, attempt, cost_nano FROM usage_event")
        .unwrap();
    let mut rows: HashMap<String, Vec<i64>> = HashMap::new();
    let found = asked.query_map([], |row| {
        let id = wire::RequestId::from_bytes(row.get(0)?);
        Ok((format!("{id}/{}", row.get::<_, i64>(1)?), row.get(2)?))
    });
    for row in found.unwrap() {
        let (id, cost): (String, i64) = row.unwrap();
        rows.entry(id).or_default().push(cost);
    }
    let mut bill = 0;
    for billed in upstreams.iter().flat_map(|upstream| upstream.bill()) {
        bill += 1;
        let cost = i64::try_from(billed.cost_pico / 1_000).unwrap();
        let id = format!("{}/{}", billed.request, billed.attempt);
        assert_eq!(rows.remove(&id), Some(vec![cost]), "{id}");
    }
    assert!(rows.is_empty(), "on no bill: {rows:?}");
    bill
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_under_load_are_seen_by_no_caller_and_lose_no_call() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let slow = Script {
        output_tokens: 150,
        token_gap_us: 8_000,
        ..script(DEEP)
    };
    let deep = Upstream::start(slow).await.unwrap();
    let budgets = format!(
        "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"1000\"\nwindow = \"total\"\n\
         [[budget]]\ntenant = \"short\"\nlimit_usd = \"{LIMIT}\"\nwindow = \"total\"\n"
    );
    let config = config(folder.path(), &fast, &deep, &budgets);
    let (short, key) = (key(&config, "short"), key(&config, "acme"));
    let process = Process::start(PROGRAM, &config).await;
    let stop = Arc::default();
    // Of a tenant whose money runs out meanwhile: refusals for that are what it is to see.
    let poor = [true, true, false].map(|keeps| calls(process.address, &short, keeps, &stop));
    let mut callers = Vec::new();
    for n in 0..6 {
        callers.push(calls(process.address, &key, n % 2 == 0, &stop));
    }
    for _ in 0..6 {
        callers.push(streams(process.address, &key, &stop));
    }
    let rounds: usize = std::env::var("PARETO_UPGRADES")
        .as_deref()
        .unwrap_or(ROUNDS)
        .parse()
        .unwrap();
    let mut started = Started::default();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(300)).await;
        started.upgrade(&process).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    let mut failed = Vec::new();
    for caller in callers {
        let (calls, mut wrong) = caller.await.unwrap();
        failed.append(&mut wrong);
        count += calls;
    }
    let mut denied = 0;
    for caller in poor {
        let (calls, mut wrong) = caller.await.unwrap();
        let before = wrong.len();
        wrong.retain(|it| !it.starts_with("HTTP/1.1 429 "));
        denied += before - wrong.len();
        count += calls - (before - wrong.len());
        failed.append(&mut wrong);
    }
    for round in 0..rounds {
        let waited = process.said("handed over", round).await;
        println!("calls waited for {} ms", waited["waited_ms"]);
    }
    assert!(failed.is_empty(), "{failed:#?}");
    signal(*started.0.last().unwrap(), "TERM");
    // One for each process, and the last one waits for those before it.
    process.said("stopped", rounds).await;
    let billed = equals(folder.path(), &[&fast, &deep]);
    assert_eq!(billed, count, "each call reached an endpoint once");
    let ledger = rusqlite::Connection::open(folder.path().join("data/ledger.sqlite3")).unwrap();
    let by_tenant = "SELECT SUM(cost_nano) FROM usage_event WHERE tenant = 'short'";
    let spent: i64 = ledger.query_row(by_tenant, [], |row| row.get(0)).unwrap();
    let limit = meter::NanoUsd::from_usd(LIMIT).unwrap().0;
    assert!(denied > 0 && spent <= limit, "{spent} of {limit}");
    println!("{rounds} upgrades, {count} calls, none failed, {denied} denied by a budget");
}

/// Asks over an operator's connection whether the process lives.
async fn lives(line: &mut Line) -> Message {
    line.say("GET /livez HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let told = line.message(true).await.expect("an answer");
    assert_eq!((told.status(), told.text().as_str()), (200, "ok"));
    told
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_come_to_the_new_process_with_their_next_connection() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let process = Process::start(PROGRAM, &config).await;
    let mut started = Started::default();
    // The old process stays for as long as it streams.
    let streaming = caller(&process, &key);
    let text = "<<script {\"output_tokens\":60,\"gap_us\":100000}>> Hello";
    let body = chat("fast", text, ",\"stream\":true,\"max_tokens\":100");
    let stream = tokio::spawn(async move { streaming.post("/v1/chat/completions", body).await });
    let mut kept = Line::to(process.admin_address).await;
    let mut idle = Line::to(process.admin_address).await;
    for line in [&mut kept, &mut idle] {
        assert_eq!(lives(line).await.field("connection"), "");
    }
    while fast.calls() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    started.upgrade(&process).await;
    process.said("draining", 0).await;
    assert_eq!(lives(&mut kept).await.field("connection"), "close");
    assert!(kept.rest().await.is_empty());
    let mut fresh = Line::to(process.admin_address).await;
    for _ in 0..2 {
        assert_eq!(lives(&mut fresh).await.field("connection"), "");
    }
    let reply = stream.await.unwrap();
    assert!(reply.text().ends_with("data: [DONE]\n\n"));
    assert!(idle.rest().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_program_that_fails_leaves_the_old_one_serving() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let config = config(folder.path(), &fast, &deep, "");
    let key = key(&config, "acme");
    let program = folder.path().join("pareto");
    std::os::unix::fs::symlink(PROGRAM, &program).unwrap();
    let process = Process::start(program.to_str().unwrap(), &config).await;
    let stop = Arc::default();
    let callers = [true, false].map(|keeps| calls(process.address, &key, keeps, &stop));
    let good = std::fs::read_to_string(&config).unwrap();

    // A configuration that is not good.
    std::fs::write(&config, good.replace("[[model]]", "[[modle]]")).unwrap();
    process.signal("USR2");
    process
        .said("the new process has ended; this one goes on", 0)
        .await;
    // Another program, which ends at once, and one that is none.
    std::fs::write(&config, &good).unwrap();
    std::fs::remove_file(&program).unwrap();
    std::fs::write(&program, "#!/bin/sh\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    process.signal("USR2");
    let ended = process
        .said("the new process has ended; this one goes on", 1)
        .await;
    assert_eq!(ended["status"], "exit status: 3");
    std::fs::write(&program, "no program").unwrap();
    process.signal("USR2");
    process.said("no new process; this one goes on", 0).await;
    // One that takes the store and is gone before it is ready.
    let data = folder.path().join("data");
    let taken = tokio::task::spawn_blocking(move || {
        use std::io::{BufRead, Write};
        let stream = std::os::unix::net::UnixStream::connect(data.join("hand-over.sock")).unwrap();
        let mut lines = std::io::BufReader::new(stream.try_clone().unwrap()).lines();
        let mut stream = stream;
        stream.write_all(b"{\"hello\":{\"version\":1}}\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "\"listeners\"");
        stream.write_all(b"\"take\"\n").unwrap();
        let yours = lines.next().unwrap().unwrap();
        assert!(yours.starts_with("{\"yours\":"), "{yours}");
    });
    taken.await.unwrap();
    process
        .said("nobody has taken over; this process goes on", 0)
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    for caller in callers {
        let (calls, wrong) = caller.await.unwrap();
        assert!(wrong.is_empty(), "{wrong:?}");
        count += calls;
    }
    process.signal("TERM");
    let mut child = process.child;
    assert!(child.wait().await.unwrap().success());
    assert_eq!(equals(folder.path(), &[&fast, &deep]), count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_of_a_node_with_a_shared_ledger_lose_no_call() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let budget = "[[budget]]\ntenant = \"acme\"\nlimit_usd = \"1000\"\nwindow = \"total\"\n";
    let url = server.url("postgres");
    let config = node(folder.path(), &url, [&fast, &deep], budget);
    let key = key(&config, "acme");
    let process = Process::start(PROGRAM, &config).await;
    let stop = Arc::default();
    let callers =
        [true, false, true, false].map(|keeps| calls(process.address, &key, keeps, &stop));
    let mut started = Started::default();
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        started.upgrade(&process).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut count = 0;
    for caller in callers {
        let (calls, wrong) = caller.await.unwrap();
        assert!(wrong.is_empty(), "{wrong:#?}");
        count += calls;
    }
    signal(*started.0.last().unwrap(), "TERM");
    process.said("stopped", 3).await;
    let bill = fast.bill();
    let cost: i64 = bill
        .iter()
        .map(|it| i64::try_from(it.cost_pico / 1_000).unwrap())
        .sum();
    let rows = tokio::task::spawn_blocking(move || {
        let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        let sql =
            "SELECT COUNT(*), SUM(cost_nano)::bigint, (SELECT COUNT(*) FROM hold) FROM usage_event";
        let row = client.query_one(sql, &[]).unwrap();
        (
            row.get::<_, i64>(0),
            row.get::<_, i64>(1),
            row.get::<_, i64>(2),
        )
    });
    let calls = i64::try_from(bill.len()).unwrap();
    assert_eq!(rows.await.unwrap(), (calls, cost, 0));
    assert_eq!(bill.len(), count);
}

/// Rows by outcome, and holds left open.
fn outcomes(folder: &Path) -> (HashMap<String, i64>, i64) {
    let ledger = rusqlite::Connection::open(folder.join("data/ledger.sqlite3")).unwrap();
    let mut asked = ledger
        .prepare("SELECT outcome, COUNT(*) FROM usage_event GROUP BY 1")
        .unwrap();
    let rows = asked.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let rows = rows.unwrap().map(Result::unwrap).collect();
    let open = "SELECT COUNT(*) FROM hold";
    (rows, ledger.query_row(open, [], |row| row.get(0)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_process_dies_in_an_upgrade_each_call_is_charged_once() {
    const STREAMS: i64 = 5;
    for old_dies in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let fast = Upstream::start(script(FAST)).await.unwrap();
        let slow = Script {
            output_tokens: 400,
            token_gap_us: 10_000,
            ..script(DEEP)
        };
        let deep = Upstream::start(slow).await.unwrap();
        let config = config(folder.path(), &fast, &deep, "");
        let key = key(&config, "acme");
        let process = Process::start(PROGRAM, &config).await;
        let streams: Vec<_> = (0..STREAMS)
            .map(|_| {
                let client = Client::new(process.address, &key);
                let body = chat("deep", "Hello", ",\"stream\":true,\"max_tokens\":600");
                tokio::spawn(async move { client.post("/v1/chat/completions", body).await })
            })
            .collect();
        while i64::try_from(deep.calls()).unwrap() < STREAMS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut started = Started::default();
        started.upgrade(&process).await;
        let short = chat("fast", "Hi", "");
        let next = if old_dies {
            signal(process.child.id().unwrap(), "KILL");
            let ended = process.said("the process before has ended", 0).await;
            assert_eq!(ended["left"].as_i64(), Some(STREAMS));
            None
        } else {
            signal(started.0[0], "KILL");
            // Nobody listens any more: a service manager starts the program anew.
            Some(Process::start(PROGRAM, &config).await)
        };
        for stream in streams {
            let reply = stream.await.unwrap();
            let whole = reply.text().ends_with("data: [DONE]\n\n");
            assert_eq!((reply.broken, whole), (old_dies, !old_dies));
        }
        let address = next.as_ref().map_or(process.address, |next| next.address);
        let reply = Client::new(address, &key)
            .post("/v1/chat/completions", short)
            .await;
        assert_eq!(reply.status, 200);
        match next {
            Some(next) => {
                next.signal("TERM");
                let mut child = next.child;
                assert!(child.wait().await.unwrap().success());
            }
            None => {
                signal(started.0[0], "TERM");
                process.said("stopped", 0).await;
            }
        }
        let wanted = [
            ("completed".to_owned(), 1),
            ("orphaned".to_owned(), STREAMS),
        ];
        assert_eq!(outcomes(folder.path()), (HashMap::from(wanted), 0));
    }
}
