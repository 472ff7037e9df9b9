//! The doctor names what is wrong with a machine and what to do; the request log has a line for every attempt and
//! refusal, tells no secrets, and holds up no call.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bench::upstream::Upstream;
use http::Method;
use serde_json::Value;
use tests::world::{DEEP, FAST, chat, script};
use tests::{Client, Process};

use crate::outage::Disk;
use crate::{PROGRAM, caller, command, config, key};

fn doctor(config: &Path) -> (bool, Vec<Value>) {
    let (ok, text, error) = command(&["doctor", "--json"], config);
    let findings = serde_json::from_str(&text);
    (ok, findings.unwrap_or_else(|_| panic!("{text}{error}")))
}

fn verdict<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let mut found = findings.iter().filter(|it| it["check"] == check);
    found
        .next()
        .unwrap_or_else(|| panic!("{check}: {findings:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let asked = path.clone();
    let (ok, findings) = tokio::task::spawn_blocking(move || doctor(&asked))
        .await
        .unwrap();
    assert!(ok, "{findings:#?}");
    for check in ["store.dir", "ledger (SQLite)"] {
        let found = &verdict(&findings, check)["found"];
        let later = "not made yet; made at the first start";
        assert!(found.as_str().unwrap().ends_with(later), "{findings:#?}");
    }
    let made = folder.path().join("data").exists();
    assert!(!made, "what a start makes, the doctor does not");
    key(&path, "acme");
    let asked = path.clone();
    let (ok, findings) = tokio::task::spawn_blocking(move || doctor(&asked))
        .await
        .unwrap();
    assert!(ok, "{findings:#?}");
    for check in [
        "configuration",
        "price book",
        "disk sync",
        "room on the disk",
        "descriptors",
        "server.listen",
        "ledger (SQLite)",
        "clock",
        "journal",
        "endpoint fast-chat",
    ] {
        assert_ne!(verdict(&findings, check)["verdict"], "fail", "{check}");
    }
    // A port that another program has, an endpoint that nobody answers at, and a secret that all can read.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replacen("127.0.0.1:0", &format!("127.0.0.1:{port}"), 1);
    let (closed, _nobody) = tests::bytes::nobody();
    let text = text.replace(&fast.url(), &format!("http://{closed}/v1"));
    std::fs::write(&path, text).unwrap();
    let shown = path.clone();
    let (ok, findings) = tokio::task::spawn_blocking(move || doctor(&shown))
        .await
        .unwrap();
    assert!(!ok);
    let listen = verdict(&findings, "server.listen");
    assert_eq!(listen["verdict"], "fail");
    assert!(!listen["remedy"].as_str().unwrap().is_empty());
    assert_eq!(verdict(&findings, "endpoint fast-chat")["verdict"], "fail");
    assert_eq!(verdict(&findings, "endpoint deep-chat")["verdict"], "ok");
    let secrets = verdict(&findings, "secrets");
    assert_eq!(secrets["verdict"], "warn", "the file has keys in it");
    std::fs::write(&path, "[server]\nlisten = 7\n").unwrap();
    let (ok, findings) = tokio::task::spawn_blocking(move || doctor(&path))
        .await
        .unwrap();
    assert!(!ok);
    let told = verdict(&findings, "configuration")["found"].to_string();
    assert!(told.contains("pareto.toml:2:"), "{told}");
}

/// What a check finds, and what is to be done about it.
fn told(config: &Path, check: &str) -> (String, String) {
    let (_, findings) = doctor(config);
    let it = verdict(&findings, check);
    let verdict = it["verdict"].as_str().unwrap();
    let found = it["found"].as_str().unwrap();
    let remedy = it["remedy"].as_str().unwrap();
    (format!("{verdict}: {found}"), remedy.to_owned())
}

#[test]
fn the_doctor_finds_every_file_with_a_secret_that_others_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pareto.toml");
    let key = folder.path().join("key");
    let model = "[[model]]\nname = \"m\"\ntier = \"fast\"\nendpoint = \"e\"\n";
    let put = |keys: &str, mode: u32| {
        let text = format!(
            "store.dir = {:?}\n[[endpoint]]\nname = \"e\"\ndialect = \"openai_chat\"\n\
             url = \"http://127.0.0.1:1/v1\"\nkeys = [{keys}]\n{model}",
            folder.path().join("data")
        );
        std::fs::write(&path, text).unwrap();
        std::fs::write(&key, "sk-1\n").unwrap();
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let by_file = format!("{:?}", format!("${{file:{}}}", key.display()));
    put(&by_file, 0o600);
    assert_eq!(
        told(&path, "secrets").0,
        "ok: nobody else can read them",
        "the configuration itself has none"
    );
    put(&by_file, 0o640);
    let wanted = format!("warn: {} has mode 640", key.display());
    assert_eq!(told(&path, "secrets").0, wanted);
    put("\"sk-1\"", 0o600);
    let wanted = format!("warn: {} has mode 644", path.display());
    assert_eq!(told(&path, "secrets").0, wanted);
}

#[test]
fn the_doctor_fails_where_a_start_would_and_says_why() {
    let disk = Disk::new();
    let path = disk.path().join("pareto.toml");
    let put = |dir: &Path, segment: u64| {
        let text = format!(
            "store.dir = {dir:?}\nstore.journal_segment_bytes = {segment}\n[[endpoint]]\nname = \"e\"\n\
             dialect = \"openai_chat\"\nurl = \"http://127.0.0.1:1/v1\"\n\
             [[model]]\nname = \"m\"\ntier = \"fast\"\nendpoint = \"e\"\n"
        );
        std::fs::write(&path, text).unwrap();
    };
    let room = "room on the disk";
    put(&disk.path().join("data"), 1 << 20);
    assert!(told(&path, room).0.starts_with("warn"));
    put(&disk.path().join("data"), 16 << 20);
    let (found, remedy) = told(&path, room);
    assert!(found.starts_with("fail"), "{found}");
    assert!(found.ends_with("the journal's files want 51 MB"), "{found}");
    assert!(remedy.starts_with("make room on the disk"), "{remedy}");
    put(&path, 16 << 10);
    let (found, remedy) = told(&path, "store.dir");
    assert!(found.starts_with("fail") && found.ends_with("is no folder"));
    assert!(remedy.starts_with("move it away"), "{remedy}");
    // A ledger that is none, on a disk with room and on a full one.
    let data = disk.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(data.join("ledger.sqlite3"), [7; 4_096]).unwrap();
    put(&data, 16 << 10);
    let (found, remedy) = told(&path, "ledger (SQLite)");
    assert!(found.starts_with("fail"), "{found}");
    assert!(remedy.contains("restore it from a backup"), "{remedy}");
    disk.fill();
    for check in ["store.dir", room, "ledger (SQLite)"] {
        let (found, remedy) = told(&path, check);
        assert!(found.starts_with("fail"), "{check}: {found}");
        assert!(remedy.starts_with("make room"), "{check}: {remedy}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_expires_is_told_before_callers_find_out() {
    let folder = tempfile::tempdir().unwrap();
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let [cert, file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let text = std::fs::read_to_string(&path).unwrap();
    let head = format!("server.tls_cert = {cert:?}\nserver.tls_key = {file:?}\n");
    std::fs::write(&path, format!("{head}{text}")).unwrap();
    let hour = std::time::Duration::from_secs(3_600);
    let mut warned = Vec::new();
    for (left, wanted) in [
        (15 * 24, "ok: it does not expire soon"),
        (14 * 24 - 1, ", in 13 days"),
        (2, ", in 0 days"),
        (0, ": callers refuse it"),
    ] {
        let now = std::time::SystemTime::now();
        let mut params = rcgen::CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        params.not_before = (now - hour).into();
        params.not_after = (now + hour * left).into();
        let key = rcgen::KeyPair::generate().unwrap();
        std::fs::write(&cert, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&file, key.serialize_pem()).unwrap();
        let asked = path.clone();
        let found = tokio::task::spawn_blocking(move || told(&asked, "server.tls_cert"));
        let (found, remedy) = found.await.unwrap();
        assert!(found.ends_with(wanted), "{found}");
        if !remedy.is_empty() {
            warned.push(found.replace("warn: ", ""));
        }
    }
    assert_eq!(warned.len(), 3);
    // The last of them has expired.
    let process = Process::start(PROGRAM, &path).await;
    process.signal("HUP");
    let line = process
        .said("put a new certificate in its place and reload", 0)
        .await;
    assert_eq!(line["level"], "WARN");
    assert_eq!(line["what"].as_str(), warned.last().map(String::as_str));
}

/// Has calls made at a gateway with this request log.
async fn calls(folder: &Path, log: &Path) -> String {
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder, &fast, &deep, "");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &path,
        format!("request_log.path = {log:?}\nrequest_log.redact = [\"plum-[0-9]+\"]\n{text}"),
    )
    .unwrap();
    let key = key(&path, "acme");
    let mut process = Process::start(PROGRAM, &path).await;
    let client = caller(&process, &key);
    for (user, stream) in [("jane@example.com", ""), ("plum-17", ",\"stream\":true")] {
        let body = chat("fast", "The prompt itself", stream);
        let headers = [("x-pareto-user", user)];
        let reply = client
            .send(Method::POST, "/v1/chat/completions", &headers, body)
            .await;
        assert_eq!((reply.status, reply.broken), (200, false));
    }
    let unknown = chat("no-such-model", "The prompt itself", "");
    assert_eq!(
        client.post("/v1/chat/completions", unknown).await.status,
        404
    );
    let admin = Client::new(process.admin_address, "admin-secret");
    let metrics = admin.get("/metrics").await.text();
    process.signal("TERM");
    assert!(process.child.wait().await.unwrap().success());
    metrics
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_is_a_line_without_what_was_said_or_who_is_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("requests.jsonl");
    calls(folder.path(), &log).await;
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3, "{text}");
    for line in &lines[..2] {
        assert_eq!(line["gen_ai.operation.name"], "chat");
        assert_eq!(line["gen_ai.request.model"], "fast");
        assert_eq!(line["gen_ai.response.model"], "fast-chat");
        assert_eq!(line["pareto.tenant"], "acme");
        assert_eq!(line["pareto.user"], "[redacted]", "{line}");
        assert!(line["gen_ai.usage.input_tokens"].as_u64().unwrap() > 0);
        assert_eq!(line["http.response.status_code"], 200);
    }
    assert_eq!(lines[2]["event.name"], "pareto.refusal");
    assert_eq!(lines[2]["http.response.status_code"], 404);
    assert!(!text.contains("The prompt itself") && !text.contains("jane"));
}

/// Waits until a file is there, or has something in it.
async fn until(path: &Path, is_filled: bool) {
    let seen = || std::fs::metadata(path).is_ok_and(|it| !is_filled || it.len() > 0);
    let began = std::time::Instant::now();
    while !seen() {
        assert!(began.elapsed().as_secs() < 10, "{}", path.display());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_log_that_was_renamed_is_begun_anew_on_sigusr1() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("requests.jsonl");
    let turned = folder.path().join("requests.jsonl-20261123");
    let fast = Upstream::start(script(FAST)).await.unwrap();
    let deep = Upstream::start(script(DEEP)).await.unwrap();
    let path = config(folder.path(), &fast, &deep, "");
    let key = key(&path, "acme");
    let text = std::fs::read_to_string(&path).unwrap();
    for head in [format!("request_log.path = {log:?}\n"), String::new()] {
        std::fs::write(&path, format!("{head}{text}")).unwrap();
        let mut process = Process::start(PROGRAM, &path).await;
        let client = caller(&process, &key);
        let call = async || {
            let reply = client.post("/v1/chat/completions", chat("fast", "Hi", ""));
            assert_eq!(reply.await.status, 200);
        };
        call().await;
        if !head.is_empty() {
            until(&log, true).await;
            std::fs::rename(&log, &turned).unwrap();
        }
        process.signal("USR1");
        if !head.is_empty() {
            // Before anybody calls: what was renamed may be packed away.
            until(&log, false).await;
            let before = std::fs::read(&turned).unwrap();
            call().await;
            until(&log, true).await;
            assert_eq!(std::fs::read(&turned).unwrap(), before);
        }
        call().await;
        process.signal("TERM");
        assert!(process.child.wait().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_lines_and_no_calls() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = calls(folder.path(), Path::new("/dev/full")).await;
    let dropped = metrics
        .lines()
        .find_map(|line| line.strip_prefix("pareto_request_log_dropped_total "));
    assert!(dropped.is_some_and(|it| it != "0"), "{metrics}");
}
