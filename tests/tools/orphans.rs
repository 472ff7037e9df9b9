//! Ends: whatever a server has started is gone when the server is, when its host is, and when the whole of
//! Pareto is killed. Looked for in /proc, by the ids that the servers told and by a mark in the
//! environment that every descendant carries.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use orchestrator::tool::config::Secret;
use serde_json::json;
use tests::MemoryLog;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::kit::{Kit, PARETO, SERVER, done, recorder, wait_for};

/// Living processes whose environment has `mark` in it.
fn marked(mark: &str) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let ids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let environment = std::fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        // A process that has ended and waits to be reaped has none.
        environment
            .windows(mark.len())
            .any(|part| part == mark.as_bytes())
    })
    .collect()
}

fn mark() -> String {
    static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("mark-of-{}-{n}-", std::process::id())
}

fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .map(|(_, behind)| behind.starts_with(['Z', 'X']));
    state == Some(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_starts_and_stops_leave_nothing_behind() {
    let mark = mark();
    for round in 0..100 {
        let kit = Kit::start(|config| {
            config.stop_ms = 50;
            config.env = BTreeMap::from([("MARK".to_owned(), Secret::new(&mark))]);
        });
        // Every third leaves grandchildren in a session of their own, every third does not end with its
        // input, and every third dies in the middle of a call.
        let told = match round % 3 {
            0 => done(kit.call("spawn_grandchild", json!({})).await).plain(),
            1 => done(kit.call("answer_then_hang", json!({})).await).plain(),
            _ => {
                let told = done(kit.call("spawn_grandchild", json!({})).await).plain();
                kit.call("crash_after", json!({})).await;
                told
            }
        };
        let pids: Vec<_> = told.split(' ').map(str::to_owned).collect();
        if round % 3 == 0 {
            assert_eq!(pids.len(), 2, "{told}");
            assert!(pids.iter().all(|pid| is_alive(pid)), "{told}");
        }
        kit.stop().await;
        for pid in pids.iter().filter(|it| it.parse::<u32>().is_ok()) {
            assert!(!is_alive(pid), "round {round}: {pid} is alive");
        }
        assert_eq!(marked(&mark), Vec::<u32>::new(), "round {round}");
    }
}

#[tokio::test]
async fn a_dropped_host_stops_its_servers() {
    let mark = mark();
    let kit = Kit::start(|config| {
        config.env = BTreeMap::from([("MARK".to_owned(), Secret::new(&mark))]);
    });
    done(kit.call("spawn_grandchild", json!({})).await);
    // Server, guardian and two more. One that is just being started shows no environment yet.
    wait_for(|| (marked(&mark).len() >= 4).then_some(())).await;
    drop(kit.host);
    wait_for(|| marked(&mark).is_empty().then_some(())).await;
}

#[tokio::test]
async fn without_a_guardian_the_group_is_killed() {
    let mark = mark();
    let folder = tempfile::tempdir().unwrap();
    let mut config = recorder(&folder.path().join("book.jsonl"), &[]);
    let script = format!("sleep 1000 & exec {}", config.command.join(" "));
    config.command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    config.env = BTreeMap::from([("MARK".to_owned(), Secret::new(&mark))]);
    let log = Arc::new(MemoryLog::new(0));
    let kit = Kit::guarded(vec![config], log, folder, None);
    done(kit.call("answer_then_hang", json!({})).await);
    wait_for(|| (marked(&mark).len() >= 2).then_some(())).await;
    kit.stop().await;
    // The kill was sent; the end of what was orphaned is somebody else's to see.
    wait_for(|| marked(&mark).is_empty().then_some(())).await;
}

/// A process between the test and the guardian, which stands for Pareto and is killed. It starts the
/// guardian as Pareto does: with its own id, and pipes that stay open elsewhere.
#[tokio::test]
async fn nothing_outlives_the_kill_of_the_guardians_parent() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..10 {
        let mark = mark();
        let script = format!(
            "{PARETO} guard --parent $$ -- {SERVER} --log {} & wait",
            Path::new(folder.path()).join("book.jsonl").display()
        );
        let mut parent = tokio::process::Command::new("bash")
            .args([
                "-c",
                &format!("exec 3<&0; {}", script.replace(" & ", " <&3 & ")),
            ])
            .env("MARK", &mark)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // The test holds both ends of the pipes, so that no end of input tells the server anything.
        let mut input = parent.stdin.take().unwrap();
        let mut lines = BufReader::new(parent.stdout.take().unwrap()).lines();
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" } } });
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let spawn = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": { "name": "spawn_grandchild", "arguments": {} } });
        for message in [hello, ready, spawn] {
            input
                .write_all(format!("{message}\n").as_bytes())
                .await
                .unwrap();
        }
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("\"id\":2") {
                break;
            }
        }
        // Parent, guardian, server and two more.
        wait_for(|| (marked(&mark).len() >= 5).then_some(())).await;
        // SIGKILL, to the parent alone.
        parent.kill().await.unwrap();
        wait_for(|| marked(&mark).is_empty().then_some(())).await;
        drop(input);
    }
}

#[tokio::test]
async fn the_guardian_ends_with_the_code_of_what_it_guards() {
    for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let status = tokio::process::Command::new(PARETO)
            .args(["guard", "--", "sh", "-c", script])
            .status();
        assert_eq!(status.await.unwrap().code(), Some(expected), "{script}");
    }
    let output = tokio::process::Command::new(PARETO)
        .args(["guard", "--", "no-such-program-here"])
        .output();
    let output = output.await.unwrap();
    assert_eq!(output.status.code(), Some(127));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("no-such-program-here"), "{told}");
}

#[tokio::test]
async fn the_guardian_kills_everything_when_it_is_told_to_end() {
    let mark = mark();
    // The first is killed, the second ignores what can be ignored, the third has a session of its own.
    let script =
        "trap '' TERM HUP INT; setsid sleep 1000 & sh -c 'trap \"\" TERM; sleep 1000' & wait";
    let mut guardian = tokio::process::Command::new(PARETO)
        .args(["guard", "--", "sh", "-c", script])
        .env("MARK", &mark)
        .spawn()
        .unwrap();
    wait_for(|| (marked(&mark).len() >= 5).then_some(())).await;
    let id = guardian.id().unwrap().to_string();
    let told = std::process::Command::new("kill").arg(&id).status();
    assert!(told.unwrap().success());
    assert_eq!(guardian.wait().await.unwrap().code(), Some(137));
    assert_eq!(marked(&mark), Vec::<u32>::new());
}
