//! What the tests of tasks have in common: errands with the play of their models, and a server of tools that
//! writes down all that it does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bench::upstream::{Play, Script, Upstream};
use http::Method;
use serde_json::{Value, json};
use tests::world::{DEEP, FAST, script};
use tests::{Client, Reply};

const RECORDER: &str = env!("CARGO_BIN_EXE_tool-server");
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the operator says of the recorder's tools: one for each class of act.
const MANIFESTS: &str = r#"
[[mcp.tool]]
name = "record_send"
verb = "execute"
class = "unkeyed"
destinations = ["to"]
trusted = true
[[mcp.tool]]
name = "record_put"
verb = "execute"
class = "keyed"
key_argument = "idempotency_key"
trusted = true
[[mcp.tool]]
name = "record_draft"
verb = "draft"
class = "probeable"
key_argument = "marker"
probe = { tool = "record_find", arguments = { marker = "{key}" }, found = "found \"{key}\"" }
trusted = true
[[mcp.tool]]
name = "record_find"
verb = "retrieve"
class = "read"
trusted = true
[[mcp.tool]]
name = "record_read"
verb = "retrieve"
class = "read"
"#;

/// A server of tools that writes into `log`, and takes `pause_ms` before it acts and before it answers, so
/// that crashes find acts on both sides of their being done.
pub(crate) fn recorder(log: &Path, pause_ms: u64) -> String {
    format!(
        "[[mcp]]\nname = \"rec\"\nconcurrency = 16\ncommand = [{RECORDER:?}, \"--log\", {log:?}, \"--pause\", \"{pause_ms}\"]\n{MANIFESTS}"
    )
}

/// Endpoints of both tiers that give the play of `errands` errands, `first_ms` after they were asked.
pub(crate) async fn endpoints(errands: usize, first_ms: u64) -> [Upstream; 2] {
    let pace = |tier| Script {
        output_tokens: 12,
        first_token_ms: first_ms,
        token_gap_us: 60,
        ..script(tier)
    };
    let play = play(errands).to_string();
    let fast = Upstream::start(pace(FAST)).await.unwrap();
    let deep = Upstream::start(pace(DEEP)).await.unwrap();
    for endpoint in [&fast, &deep] {
        endpoint.perform(Play::parse(&play).unwrap());
    }
    [fast, deep]
}

/// Waits for what `look` gives.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    waited.unwrap_or_else(|_| panic!("never came: {what}"))
}

/// How an errand is allowed to act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// Every act asks.
    Asks,
    /// It acts by itself, but for steps that have read what nobody vouches for.
    Free,
    /// What the plan names is approved with the plan.
    Planned,
}

fn leave(n: usize) -> Leave {
    [Leave::Asks, Leave::Free, Leave::Planned][n % 3]
}

/// Whether it has a budget of its own.
pub(crate) fn has_budget(n: usize) -> bool {
    n % 2 == 1
}

/// The brief of an errand.
pub(crate) fn brief(n: usize) -> Value {
    let mut budget = json!({ "effects": 200, "tool_calls": 2_000, "model_calls": 1_000 });
    if has_budget(n) {
        budget["cost_usd"] = "0.10".into();
        budget["on_exhausted"] = "ask".into();
    }
    json!({
        "objective": format!("Errand k{n}. Note what there is, and send it to to-{n}@desk.example and aside-{n}@desk.example."),
        "definition_of_done": [{ "id": "d1", "check": "effect_done", "tool": "rec__record_draft" }],
        "allowed_tools": ["rec__*"],
        "autonomy": if leave(n) == Leave::Free { 3 } else { 2 },
        "budget": budget,
    })
}

/// Begins an errand under a key of its own, or finds the one that was begun before.
pub(crate) async fn create(client: &Client, n: usize) -> Reply {
    let key = format!("errand-{n}");
    let headers = [("idempotency-key", key.as_str())];
    let body = brief(n).to_string();
    client.send(Method::POST, "/v1/tasks", &headers, body).await
}

/// The task as it is now.
pub(crate) async fn task(client: &Client, id: &str) -> Value {
    let reply = client.get(&format!("/v1/tasks/{id}")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

/// Ids of a list of tasks that have not ended.
pub(crate) async fn open(client: &Client, ids: &[String]) -> Vec<String> {
    let mut open = Vec::new();
    for id in ids {
        if task(client, id).await["phase"] != "ended" {
            open.push(id.clone());
        }
    }
    open
}

fn sends(n: usize) -> [Value; 2] {
    [("to", 1), ("aside", 2)].map(|(to, at)| {
        json!({ "to": format!("{to}-{n}@desk.example"), "text": format!("k{n} send {at}") })
    })
}

fn plan(n: usize) -> Value {
    let step = |id: &str, kind: &str, title: &str, after: &[&str], tools: &[&str]| {
        let tools: Vec<String> = tools.iter().map(|it| format!("rec__record_{it}")).collect();
        let accept: &[&str] = if id == "n1" { &["d1"] } else { &[] };
        json!({ "id": id, "kind": kind, "title": format!("k{n} {title}"), "depends_on": after,
            "tools": tools, "accept": accept, "on_fail": "skip" })
    };
    let mut nodes = [
        step("n1", "draft", "gather", &[], &["read", "draft", "put"]),
        step("n2", "act", "tell", &[], &["send", "put"]),
        step(
            "n3",
            "act",
            "close",
            &["n1", "n2"],
            &["read", "put", "send", "draft"],
        ),
    ];
    if leave(n) == Leave::Planned {
        let act = |arguments| json!({ "tool": "rec__record_send", "arguments": arguments });
        nodes[1]["acts"] = sends(n).into_iter().map(act).collect();
    }
    json!({ "nodes": nodes, "max_parallel": 3 })
}

/// What the models say to all errands.
fn play(errands: usize) -> Value {
    // Nobody has a better plan, and few words close a task.
    let mut scenes = vec![
        json!({ "when": ["You plan a task.", "The plan did not hold."], "say": "There is no better plan." }),
        json!({ "when": ["You close a task."], "say": "It stopped here." }),
    ];
    for n in 0..errands {
        scenes.extend(errand(n));
    }
    json!({ "scenes": scenes })
}

fn errand(n: usize) -> Vec<Value> {
    let call = |tool: &str, arguments: Value| json!({ "name": format!("rec__record_{tool}"), "arguments": arguments });
    let draft = |at: u8| call("draft", json!({ "text": format!("k{n} draft {at}") }));
    let put = |id: &str| {
        let arguments = json!({ "id": format!("k{n}-{id}"), "text": format!("k{n} put {id}") });
        call("put", arguments)
    };
    let read = |id: &str| call("read", json!({ "id": format!("k{n}-{id}") }));
    let [to, aside] = sends(n).map(|arguments| call("send", arguments));
    let last = json!({ "to": format!("to-{n}@desk.example"), "text": format!("k{n} send 3") });
    let step = |id: &str, title: &str, results: usize, calls: &[Value]| {
        let when = [format!("Step {id}: {title}"), format!("Errand k{n}.")];
        match calls {
            [] => json!({ "when": when, "results": results, "say": format!("k{n} {id} is done.") }),
            calls => json!({ "when": when, "results": results, "call": calls }),
        }
    };
    let (gather, tell, close) = (
        format!("k{n} gather"),
        format!("k{n} tell"),
        format!("k{n} close"),
    );
    vec![
        json!({ "when": ["You plan a task.", format!("Errand k{n}.")], "say": plan(n) }),
        step("n1", &gather, 0, &[read("source"), draft(1)]),
        step("n1", &gather, 2, &[put("a"), draft(2)]),
        step("n1", &gather, 4, &[]),
        step("n2", &tell, 0, &[to.clone(), aside]),
        step("n2", &tell, 2, &[put("b")]),
        step("n2", &tell, 3, &[]),
        step("n3", &close, 0, &[read("a"), put("c"), draft(3)]),
        step("n3", &close, 3, &[call("send", last)]),
        step("n3", &close, 4, &[]),
        // A planner that was lost too often leaves one step for all of it.
        step("n1", "Do what is asked", 0, &[draft(4), to]),
        step("n1", "Do what is asked", 2, &[]),
    ]
}

/// The calls that the recorder has written down, by whichever of its processes.
pub(crate) fn recorded(log: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    // What is being written just now has no end yet.
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

/// Processes with `word` on their command line: of a recorder's log, they are recorders and their guards.
pub(crate) fn running(word: &Path) -> Vec<PathBuf> {
    let wanted = word.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let theirs = entries.map(|entry| entry.path()).filter(|path| {
        let line = std::fs::read(path.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0)
            .any(|word| word == wanted.as_bytes())
    });
    theirs.collect()
}
