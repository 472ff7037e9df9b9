//! The suite of the protocol's authors for clients, driven over our client as a program. What does not
//! apply is in `conformance.md`, with the reason, and must go on failing: a scenario that passes has to be
//! taken off the list.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::others::installed;

/// Runs one scenario; true where every check of it succeeded and the client did as well.
async fn passes(kit: &Path, scenario: &str) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/node.mjs");
    let index = kit.join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    let output = tokio::process::Command::new("node")
        .arg("--import")
        .arg(shim)
        .arg(index)
        .args(["client", "--command", env!("CARGO_BIN_EXE_mcp-client")])
        .args(["--scenario", scenario, "--output-dir"])
        .arg(folder.path())
        .current_dir(folder.path())
        .output()
        .await
        .unwrap();
    let told = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut checks = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("checks.json") {
                let text = std::fs::read_to_string(path).unwrap();
                checks.extend(serde_json::from_str::<Vec<Value>>(&text).unwrap());
            }
        }
    }
    let status = |wanted: &str| checks.iter().filter(|it| it["status"] == wanted).count();
    // A suite that checked nothing proves nothing.
    if output.status.success() && status("FAILURE") == 0 && status("SUCCESS") > 0 {
        return Ok(());
    }
    Err(told)
}

/// Scenarios that are listed as not applying, with their reasons.
fn listed() -> BTreeMap<String, String> {
    let text = include_str!("conformance.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.map(|row| {
        let (name, reason) = row.split_once("` | ").unwrap();
        (name.to_owned(), reason.trim_end_matches(" |").to_owned())
    })
    .collect()
}

async fn scenarios(kit: &Path) -> Vec<String> {
    let shim = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/node.mjs");
    let index = kit.join("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    let output = tokio::process::Command::new("node")
        .arg("--import")
        .arg(shim)
        .arg(index)
        .args(["list", "--client"])
        .output();
    let output = output.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- "));
    names
        .filter_map(|line| Some(line.split_once(' ')?.0.to_owned()))
        .collect()
}

#[tokio::test]
async fn every_scenario_passes_or_is_listed_with_its_reason() {
    let Some(kit) = installed() else { return };
    let listed = listed();
    assert!(listed.values().all(|reason| reason.len() > 10));
    let all = scenarios(&kit).await;
    assert!(all.len() > 20, "{all:?}");
    for name in listed.keys() {
        assert!(all.contains(name), "{name} is listed and not in the suite");
    }
    let mut wrong = Vec::new();
    for scenario in &all {
        match (passes(&kit, scenario).await, listed.get(scenario)) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(_)) => wrong.push(format!("{scenario} passes and is listed as failing")),
            (Err(told), None) => wrong.push(format!("{scenario} fails:\n{told}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
