//! The client of tool servers as a program: it connects to the server whose URL is its last argument, and
//! does what the scenario in its environment needs. The protocol's own suite drives it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orchestrator::TaskId;
use orchestrator::tool::config::{Elicitation, ServerConfig};
use orchestrator::tool::host::{Host, Parts};
use orchestrator::tool::{Outcome, ToolCall, Tools, Until};
use proxy::config::Upstream;
use serde_json::{Value, json};
use tests::MemoryLog;
use tokio_util::task::TaskTracker;

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::process::ExitCode {
    let url = std::env::args().next_back().unwrap();
    let scenario = std::env::var("MCP_CONFORMANCE_SCENARIO").unwrap_or_default();
    let tracker = TaskTracker::new();
    let parts = Parts {
        log: Arc::new(MemoryLog::new(0)),
        outbound: proxy::outbound::any(&Upstream::default()).unwrap(),
        tracker: tracker.clone(),
        guard: None::<&Path>.map(Path::to_owned),
    };
    let server = ServerConfig {
        url: Some(url),
        elicitation: Elicitation::Defaults,
        ..ServerConfig::named("suite")
    };
    let host = Host::new(vec![server], parts);
    let done = play(&host, &scenario).await;
    host.stop();
    tracker.close();
    tracker.wait().await;
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{scenario}: {why}");
            std::process::ExitCode::FAILURE
        }
    }
}

/// Lists the tools, and calls those that the scenario is about.
async fn play(host: &Host, scenario: &str) -> Result<(), String> {
    let offer = host.offer("").await;
    if !offer.down.is_empty() {
        return Err(format!("{:?}", offer.down));
    }
    for offered in offer.tools {
        let arguments = arguments(&offered.definition.name);
        let call = ToolCall {
            task: TaskId::new(0, [0; 10]),
            tenant: String::new(),
            tool: offered.definition.name.clone(),
            pin: offered.pin,
            arguments,
            key: "once".to_owned(),
            within: Duration::from_secs(20),
            until: Until::always(),
        };
        match host.call(call).await {
            Outcome::Done(result) if !result.is_error => println!("{}", result.plain()),
            other => return Err(format!("{scenario}: {other:?}")),
        }
    }
    Ok(())
}

fn arguments(tool: &str) -> Value {
    match tool {
        "suite__add_numbers" => json!({ "a": 5, "b": 3 }),
        _ => json!({}),
    }
}
