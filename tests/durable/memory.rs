//! Under a cap on memory: whatever callers send, the program lives, and serves again when they have gone.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::fixed::{Endpoint, Fixed};
use bench::upstream::Upstream;
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Process};

use crate::{PROGRAM, caller, config, key};

const CAP: u64 = 256 << 20;

/// A control group with a cap on memory, where the system lets one be made.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let name = format!("pareto-{}", std::process::id());
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = Self(Path::new(root).join(&name));
            if std::fs::create_dir(&group.0).is_ok()
                && std::fs::write(group.0.join(limit), CAP.to_string()).is_ok()
            {
                return Some(group);
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can be removed once its last process has gone.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The most memory that the process has had, and what it has now, in KiB.
fn memory(process: &Process) -> (u64, u64) {
    let id = process.child.id().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (line("VmHWM:"), line("VmRSS:"))
}

/// A program that starts the gateway inside of `group`.
fn starter(folder: &Path, group: Option<&Group>) -> String {
    let Some(group) = group else {
        eprintln!("no control group can be made here: the cap is told to the program alone");
        return PROGRAM.to_owned();
    };
    let path = folder.join("start");
    let procs = group.0.join("cgroup.procs");
    let script = format!(
        "#!/bin/sh\necho $$ > {} && exec {PROGRAM} \"$@\"\n",
        procs.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// So many calls of ten megabytes at once; how many were answered.
async fn wave(process: &Process, key: &str, body: &str) -> usize {
    let body = bytes::Bytes::from(body.to_owned());
    let calls: Vec<_> = (0..60)
        .map(|_| {
            let (client, body) = (caller(process, key), body.clone());
            tokio::task::spawn(
                async move { client.post("/v1/chat/completions", body).await.status },
            )
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        let status = call.await.unwrap();
        // Who is refused while it sends may see the connection close before it has read why.
        assert!(matches!(status, 200 | 503 | 0), "{status}");
        answered += usize::from(status == 200);
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waves_of_long_uploads_are_refused_in_part_and_never_end_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let fixed = Fixed {
        first_us: 50_000,
        ..Fixed::default()
    };
    let endpoint = Endpoint::start(([127, 0, 0, 1], 0).into(), fixed, 1).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let group = Group::make();
    let cap = if group.is_none() {
        "overload.memory_mb = 256\n"
    } else {
        ""
    };
    let text = format!("{cap}{}", text.replace(&fast.url(), &endpoint.url()));
    std::fs::write(&path, text).unwrap();
    let key = key(&path, "acme");
    let mut process = Process::start(&starter(folder.path(), group.as_ref()), &path).await;
    let body = chat("fast", &"word ".repeat(2_090_000), "");
    for _ in 0..3 {
        assert!(wave(&process, &key, &body).await > 0, "some are served");
        assert!(process.child.try_wait().unwrap().is_none(), "it lives");
        let small = caller(&process, &key);
        let small = small
            .post("/v1/chat/completions", chat("fast", "Hi", ""))
            .await;
        assert_eq!(small.status, 200, "{}", small.text());
    }
    let (most, _) = memory(&process);
    assert!(most < CAP >> 10, "{most} KiB at the most");
    let long = caller(&process, &key)
        .post("/v1/chat/completions", body)
        .await;
    assert_eq!(long.status, 200, "nothing is left of the waves");
    let admin = Client::new(process.admin_address, "admin-secret");
    let metrics = admin.get("/metrics").await.text();
    let limit = "pareto_memory_limit_bytes 268435456";
    assert!(metrics.contains(limit), "the cap is known");
    assert!(
        metrics.contains("pareto_body_bytes 0"),
        "all room is given back"
    );
    process.kill().await;
}
