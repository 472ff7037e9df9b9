//! A host with one server, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use orchestrator::TaskId;
use orchestrator::digest::Digest;
use orchestrator::log::TaskLog;
use orchestrator::tool::config::ServerConfig;
use orchestrator::tool::host::{Host, Parts};
use orchestrator::tool::{Manifest, Offer, Outcome, ToolCall, ToolResult, Tools, Until};
use proxy::config::Upstream;
use serde_json::Value;
use tempfile::TempDir;
use tests::MemoryLog;
use tokio_util::task::TaskTracker;

/// The program under test, which is also the guardian.
pub const PARETO: &str = env!("CARGO_BIN_EXE_gateway-under-test");
/// The server that writes down what it is asked.
pub const SERVER: &str = env!("CARGO_BIN_EXE_tool-server");

/// A host, and the folder of its server.
pub struct Kit {
    pub host: Host,
    pub log: Arc<dyn TaskLog>,
    tracker: TaskTracker,
    pub folder: TempDir,
}

/// Our own server, that writes into `book`, with `words` on its command line.
pub fn recorder(book: &Path, words: &[&str]) -> ServerConfig {
    let mut command = vec![SERVER.to_owned(), "--log".to_owned()];
    command.push(book.to_str().unwrap().to_owned());
    command.extend(words.iter().map(|word| (*word).to_owned()));
    ServerConfig {
        command,
        stop_ms: 300,
        ..ServerConfig::named("rec")
    }
}

impl Kit {
    /// A host of our own server, changed by `change`.
    pub fn start(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::with(&[], change)
    }

    /// The same with words on the server's command line.
    pub fn with(words: &[&str], change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = recorder(&folder.path().join("book.jsonl"), words);
        change(&mut config);
        Self::of(vec![config], Arc::new(MemoryLog::new(0)), folder)
    }

    /// A host of these servers on a log.
    pub fn of(servers: Vec<ServerConfig>, log: Arc<dyn TaskLog>, folder: TempDir) -> Self {
        Self::guarded(servers, log, folder, Some(PathBuf::from(PARETO)))
    }

    /// The same with another guardian, or none.
    pub fn guarded(
        servers: Vec<ServerConfig>,
        log: Arc<dyn TaskLog>,
        folder: TempDir,
        guard: Option<PathBuf>,
    ) -> Self {
        let problems = orchestrator::tool::config::problems(&servers);
        assert!(problems.is_empty(), "{problems:?}");
        let tracker = TaskTracker::new();
        let parts = Parts {
            log: Arc::clone(&log),
            outbound: proxy::outbound::any(&Upstream::default()).unwrap(),
            tracker: tracker.clone(),
            guard,
        };
        Self {
            host: Host::new(servers, parts),
            log,
            tracker,
            folder,
        }
    }

    pub fn book(&self) -> Book {
        Book(self.folder.path().join("book.jsonl"))
    }

    pub async fn offer(&self) -> Offer {
        self.host.offer("acme").await
    }

    /// The pin under which a tool of the one server is offered.
    pub async fn pin(&self, tool: &str) -> Digest {
        let offer = self.offer().await;
        let offered = offer.tools.iter().find(|it| it.definition.name == tool);
        offered.unwrap_or_else(|| panic!("{tool}: {offer:?}")).pin
    }

    /// Calls a tool of the recorder by the pin that it is offered under.
    pub async fn call(&self, tool: &str, arguments: Value) -> Outcome {
        let tool = format!("rec__{tool}");
        let pin = self.pin(&tool).await;
        self.host.call(call(&tool, pin, arguments)).await
    }

    /// Stops everything and waits for it.
    pub async fn stop(self) {
        self.host.stop();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// A call under one key.
pub fn call(tool: &str, pin: Digest, arguments: Value) -> ToolCall {
    ToolCall {
        task: TaskId::new(0, [0; 10]),
        tenant: "acme".to_owned(),
        tool: tool.to_owned(),
        pin,
        arguments,
        key: "key-1".to_owned(),
        within: Duration::from_secs(60),
        until: Until::always(),
    }
}

/// A result that came and is no failure.
#[track_caller]
pub fn done(outcome: Outcome) -> ToolResult {
    match outcome {
        Outcome::Done(result) if !result.is_error => result,
        other => panic!("{other:?}"),
    }
}

/// What a server wrote down.
pub struct Book(PathBuf);

impl Book {
    pub fn calls(&self, tool: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.0).unwrap_or_default();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.filter(|line: &Value| line["tool"] == tool).collect()
    }

    /// Waits until a tool has been called `count` times.
    pub async fn has(&self, tool: &str, count: usize) {
        wait_for(|| (self.calls(tool).len() >= count).then_some(())).await;
    }
}

/// Waits for something to be there; a test that waits for ever is ended by its runner.
pub async fn wait_for<T>(mut look: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A manifest for a tool of the recorder.
pub fn manifest(name: &str, change: impl FnOnce(&mut Manifest)) -> Manifest {
    let mut manifest = Manifest {
        name: name.to_owned(),
        ..Manifest::unknown()
    };
    change(&mut manifest);
    manifest
}
