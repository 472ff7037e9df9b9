//! The gateway as a program that is killed, drained, asked and looked at from outside. What is
//! proved: whenever it dies, every call that reached an upstream is in the ledger exactly once, no
//! budget is exceeded, and the next start needs no repair.

mod books;
mod commands;
mod context;
mod descriptors;
mod doctor;
mod drain;
mod examples;
mod kill;
mod memory;
mod nodes;
mod outage;
mod panics;
mod points;
mod proof;
mod route;
mod sync;
mod tasks_cli;
mod tasks_compare;
mod tasks_drain;
mod tasks_kill;
mod tasks_nodes;
mod tasks_person;
mod tasks_stage;
mod upgrade;
mod webhook;

use std::path::{Path, PathBuf};

use bench::upstream::{Script, Upstream};
use tests::Client;
use tests::world::{DEEP, FAST, script};

const PROGRAM: &str = env!("CARGO_BIN_EXE_gateway-under-test");

/// A fast and a deep endpoint, whose answers are of so many tokens.
async fn endpoints(output_tokens: u64) -> [Upstream; 2] {
    let pace = |tier| Script {
        output_tokens,
        ..script(tier)
    };
    [
        Upstream::start(pace(FAST)).await.unwrap(),
        Upstream::start(pace(DEEP)).await.unwrap(),
    ]
}

/// Writes a configuration into `folder` and returns its path.
fn config(folder: &Path, fast: &Upstream, deep: &Upstream, tail: &str) -> PathBuf {
    let path = folder.join("pareto.toml");
    let head = "log.level = \"info,pareto=warn\"\nlog.format = \"json\"";
    let text = tests::world::config(folder, head, fast, deep, tail);
    std::fs::write(&path, text).unwrap();
    path
}

/// Runs a command of the program to its end; returns whether it succeeded, and what it printed.
fn command(args: &[&str], config: &Path) -> (bool, String, String) {
    let output = std::process::Command::new(PROGRAM)
        .args(args)
        .arg("--config")
        .arg(config)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A new key, made by the command line.
fn key(config: &Path, tenant: &str) -> String {
    let (ok, key, error) = command(&["keys", "create", "--tenant", tenant], config);
    assert!(ok, "{error}");
    // Whoever uses it at once would take it for a wrong one.
    assert_eq!(error, "a running gateway knows it within 250 ms\n");
    key.trim().to_owned()
}

/// A caller of the gateway under test.
fn caller(process: &tests::Process, key: &str) -> Client {
    Client::new(process.address, key)
}
