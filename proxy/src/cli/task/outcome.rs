//! What came of a task: its checks with their evidence, what it made, and where its money went, held
//! against the ledger.

use std::path::{Path, PathBuf};

use anyhow::Context;
use comfy_table::Table;
use meter::NanoUsd;
use serde_json::Value;

use super::super::client::{AskError, Client, list, number, segment, text};
use super::super::plain;
use super::costs::costs;
use super::picture::money;

/// Everything about a task that has come to its end.
pub(super) struct Outcome {
    pub(super) task: Value,
    explain: Value,
    ledger: Ledger,
}

/// What the ledger has of a task's calls.
#[derive(Debug, Default, PartialEq)]
struct Ledger {
    cost: NanoUsd,
    calls: usize,
    attempts: usize,
}

impl Outcome {
    /// Asks the gateway for it.
    pub(super) async fn read(client: &Client, id: &str) -> Result<Self, AskError> {
        let task = client.get(&format!("/v1/tasks/{id}")).await?;
        let explain = client.get(&format!("/v1/tasks/{id}/explain")).await?;
        let mut ledger = Ledger::default();
        for call in list(&explain, "/calls") {
            match client.settled(text(call, "/request")).await {
                Ok(settled) => {
                    ledger.cost += money(&settled, "/cost_usd");
                    ledger.calls += 1;
                    ledger.attempts += list(&settled, "/attempts").len();
                }
                // It was refused before any model saw it.
                Err(error) if error.is_missing() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self {
            task,
            explain,
            ledger,
        })
    }

    /// Whether all checks passed.
    pub(super) fn is_complete(&self) -> bool {
        text(&self.task, "/status") == "completed"
    }

    /// All of it, for a person.
    pub(super) fn report(&self) -> String {
        let task = &self.task;
        let mut parts = vec![format!(
            "{}: {}  {}",
            text(task, "/id"),
            text(task, "/status"),
            plain::line(text(task, "/result/why"), 200)
        )];
        let summary = text(task, "/result/summary");
        if !summary.is_empty() {
            parts.push(plain::text(summary));
        }
        if !list(task, "/result/checks").is_empty() {
            parts.push(checks(task));
        }
        let undone: Vec<&str> = list(task, "/result/not_done")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        if !undone.is_empty() {
            parts.push(format!("not done: {}", undone.join(", ")));
        }
        if !list(task, "/artifacts").is_empty() {
            parts.push(artifacts(task));
        }
        parts.push(costs(task, &self.explain).to_string());
        parts.push(self.sums());
        parts.join("\n")
    }

    /// The task's sum beside the ledger's, and how its calls were shared.
    fn sums(&self) -> String {
        let usage = |at: &str| money(&self.task, at);
        let models = usage("/usage/models_usd");
        let word = if models == self.ledger.cost {
            "equal"
        } else {
            "NOT equal"
        };
        let calls = |tier: &str| number(&self.task, &format!("/usage/by_tier/{tier}/calls"));
        let (fast, deep) = (calls("fast"), calls("deep"));
        let percent = |part: i64| {
            let per_mille = (part * 2_000 + fast + deep) / (2 * (fast + deep)).max(1);
            format!("{}.{} %", per_mille / 10, per_mille % 10)
        };
        format!(
            "task: {} USD (models {}, tools {}); ledger: {} USD over {} calls with {} attempts, {word} to the models'\n\
             fast {fast} calls ({}), deep {deep} calls ({})",
            usage("/usage/cost_usd").to_usd(),
            models.to_usd(),
            usage("/usage/tools_usd").to_usd(),
            self.ledger.cost.to_usd(),
            self.ledger.calls,
            self.ledger.attempts,
            percent(fast),
            percent(deep),
        )
    }

    /// Copies what the task made into `folder`. Returns how many files there are.
    pub(super) async fn save(&self, client: &Client, folder: &Path) -> anyhow::Result<usize> {
        let id = text(&self.task, "/id");
        let mut saved = 0;
        for artifact in list(&self.task, "/artifacts") {
            save_one(client, id, text(artifact, "/name"), folder).await?;
            saved += 1;
        }
        Ok(saved)
    }
}

/// Copies one artefact of a task.
pub(super) async fn save_one(
    client: &Client,
    id: &str,
    name: &str,
    folder: &Path,
) -> anyhow::Result<PathBuf> {
    let place = within(folder, name)?;
    let coded: Vec<String> = name.split('/').map(segment).collect();
    let path = format!("/v1/tasks/{id}/artifacts/{}", coded.join("/"));
    let bytes = client.bytes(http::Method::GET, &path, None, &[]).await?;
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    std::fs::write(&place, bytes).with_context(|| format!("writing {}", place.display()))?;
    Ok(place)
}

/// Where an artefact goes. A gateway's word is no reason to write anywhere else.
fn within(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let mut parts = Path::new(name).components().peekable();
    let is_inside =
        parts.peek().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)));
    anyhow::ensure!(
        is_inside,
        "an artefact is called `{}`, which is no name of a file in a folder",
        plain::line(name, 80)
    );
    Ok(folder.join(name))
}

fn checks(task: &Value) -> String {
    let asked = list(task, "/brief/definition_of_done");
    let mut table = Table::new();
    table.set_header(["check", "", "what", "evidence"]);
    for check in list(task, "/result/checks") {
        let id = text(check, "/id");
        let what = asked.iter().find(|it| text(it, "/id") == id);
        let passed = check.get("passed") == Some(&Value::Bool(true));
        table.add_row([
            id.to_owned(),
            if passed { "passed" } else { "NOT passed" }.to_owned(),
            what.map(in_words).unwrap_or_default(),
            plain::line(text(check, "/evidence"), 90),
        ]);
    }
    table.to_string()
}

/// A check of a brief in words.
fn in_words(check: &Value) -> String {
    let named = ["/name", "/artifact", "/artifacts", "/tool", "/criterion"];
    let mut named = named.iter().map(|at| text(check, at));
    let about = named.find(|it| !it.is_empty()).unwrap_or_default();
    format!("{} {}", text(check, "/check"), plain::line(about, 40))
}

/// What a task made, as a table.
pub(super) fn artifacts(task: &Value) -> String {
    let mut table = Table::new();
    table.set_header(["artefact", "bytes", "made by", "sha256"]);
    for artifact in list(task, "/artifacts") {
        table.add_row([
            plain::line(text(artifact, "/name"), 80),
            number(artifact, "/bytes").to_string(),
            text(artifact, "/made_by").to_owned(),
            text(artifact, "/sha256").chars().take(16).collect(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artefacts_stay_in_their_folder() {
        let folder = Path::new("out");
        assert_eq!(within(folder, "a/b.md").unwrap(), Path::new("out/a/b.md"));
        for outside in ["../x", "/etc/passwd", "a/../../x", ""] {
            assert!(within(folder, outside).is_err(), "{outside}");
        }
    }
}
