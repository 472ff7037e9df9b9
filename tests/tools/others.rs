//! The reference servers of the protocol's authors, as they come from the registry: over pipes, and one
//! over HTTP as well.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use orchestrator::tool::config::ServerConfig;
use orchestrator::tool::{Content, Outcome, Tools};
use serde_json::{Value, json};
use tests::MemoryLog;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::kit::{Kit, call, done};

/// The folder where they are installed; nothing where they are to be skipped.
pub fn installed() -> Option<PathBuf> {
    if std::env::var("PARETO_SKIP").is_ok_and(|skip| skip.contains("tools")) {
        println!("skipped by PARETO_SKIP");
        return None;
    }
    let kit = std::env::var("PARETO_TOOLS_KIT").expect(
        "PARETO_TOOLS_KIT is not set: run tests/run, or copy tests/tools/package.json to a folder, \
         run npm install there and name the folder; PARETO_SKIP=tools skips these tests",
    );
    Some(PathBuf::from(kit))
}

fn package(kit: &Path, name: &str) -> String {
    let path = kit.join("node_modules/@modelcontextprotocol").join(name);
    path.join("dist/index.js").to_str().unwrap().to_owned()
}

fn server(kit: &Path, name: &str, words: &[&str]) -> ServerConfig {
    let mut command = vec!["node".to_owned(), package(kit, name)];
    command.extend(words.iter().map(|word| (*word).to_owned()));
    ServerConfig {
        command,
        ..ServerConfig::named("other")
    }
}

async fn use_of(kit: &Kit, tool: &str, arguments: Value) -> Outcome {
    let tool = format!("other__{tool}");
    let pin = kit.pin(&tool).await;
    kit.host.call(call(&tool, pin, arguments)).await
}

fn start(config: ServerConfig) -> Kit {
    let folder = tempfile::tempdir().unwrap();
    Kit::of(vec![config], Arc::new(MemoryLog::new(0)), folder)
}

async fn everything(config: ServerConfig) {
    let kit = start(config);
    let echo = use_of(&kit, "echo", json!({ "message": "hello" })).await;
    assert_eq!(done(echo).plain(), "Echo: hello");
    let sum = use_of(&kit, "get-sum", json!({ "a": 2, "b": 3 })).await;
    assert!(done(sum).plain().contains('5'));
    let image = done(use_of(&kit, "get-tiny-image", json!({})).await);
    let is_image = |it: &Content| matches!(it, Content::Data { mime, .. } if mime == "image/png");
    assert!(image.content.iter().any(is_image), "{image:?}");
    let structured = json!({ "location": "Chicago" });
    let structured = done(use_of(&kit, "get-structured-content", structured).await);
    assert!(structured.structured.is_some(), "{structured:?}");
    let wrong = use_of(&kit, "get-sum", json!({ "a": "two" })).await;
    assert!(matches!(wrong, Outcome::Done(result) if result.is_error));
    let long = json!({ "duration": 1, "steps": 4 });
    let long = use_of(&kit, "trigger-long-running-operation", long).await;
    assert!(done(long).plain().contains("completed"));
    // It asks its user in the old way, and is told no; the task is told what it asked.
    let offer = kit.offer().await;
    let asks = "trigger-elicitation-request";
    let is_there = offer
        .tools
        .iter()
        .any(|it| it.definition.name.ends_with(asks));
    assert!(
        is_there,
        "{:?}",
        offer
            .tools
            .iter()
            .map(|it| &it.definition.name)
            .collect::<Vec<_>>()
    );
    let asked = use_of(&kit, asks, json!({})).await;
    // It asks, is declined, and says so with success: what a server did is told as it came.
    assert!(
        matches!(&asked, Outcome::Done(given) if given.plain().contains("declined")),
        "{asked:?}"
    );
    kit.stop().await;
}

#[tokio::test]
async fn server_everything_over_pipes() {
    let Some(kit) = installed() else { return };
    everything(server(&kit, "server-everything", &["stdio"])).await;
}

#[tokio::test]
async fn server_everything_over_http() {
    let Some(kit) = installed() else { return };
    // It has no way to listen on a port of the system's choice.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let mut server = tokio::process::Command::new("node")
        .args([&package(&kit, "server-everything"), "streamableHttp"])
        .env("PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stderr.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.contains("listening") {
            break;
        }
    }
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    let config = ServerConfig {
        url: Some(format!("http://127.0.0.1:{port}/mcp")),
        ..ServerConfig::named("other")
    };
    everything(config).await;
}

#[tokio::test]
async fn server_filesystem_writes_and_reads_in_its_folder_only() {
    let Some(kit) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let kit = start(server(&kit, "server-filesystem", &[root.to_str().unwrap()]));
    let path = root.join("note.txt");
    let note = json!({ "path": path, "content": "written by a tool" });
    done(use_of(&kit, "write_file", note).await);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "written by a tool");
    let read = use_of(&kit, "read_text_file", json!({ "path": path })).await;
    assert_eq!(done(read).plain(), "written by a tool");
    let outside = use_of(&kit, "read_text_file", json!({ "path": "/etc/hostname" })).await;
    assert!(matches!(outside, Outcome::Done(result) if result.is_error));
    let offer = kit.host.offer("acme").await;
    // Its own word that writing destroys makes it ask; that reading does not, makes nothing laxer.
    let asks = |name: &str| {
        let tool = offer.tools.iter().find(|it| it.definition.name == name);
        tool.unwrap().manifest.always_ask
    };
    assert!(asks("other__write_file"));
    assert!(!asks("other__read_text_file"));
    kit.stop().await;
}

#[tokio::test]
async fn server_memory_remembers_over_a_restart() {
    let Some(kit) = installed() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("memory.jsonl");
    let config = || {
        let mut config = server(&kit, "server-memory", &[]);
        let path = orchestrator::tool::config::Secret::new(file.to_str().unwrap());
        config.env.insert("MEMORY_FILE_PATH".to_owned(), path);
        config
    };
    let first = start(config());
    let entity = json!({ "name": "Ada", "entityType": "person", "observations": ["writes"] });
    done(use_of(&first, "create_entities", json!({ "entities": [entity] })).await);
    first.stop().await;
    let second = start(config());
    let graph = done(use_of(&second, "read_graph", json!({})).await);
    assert!(graph.plain().contains("Ada"), "{graph:?}");
    second.stop().await;
}
