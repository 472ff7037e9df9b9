//! What the API of tasks says, as far as pages show it. What it does not say is nothing.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Refused;

/// Reads an answer of the API.
///
/// # Errors
/// When it is not of the form that these pages know.
pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Refused> {
    serde_json::from_value(value).map_err(|error| Refused {
        status: 502,
        code: "unknown_answer".to_owned(),
        message: format!("the API of tasks said what these pages do not know: {error}"),
    })
}

/// A list, and what to ask for to go on.
#[derive(Debug, Deserialize)]
pub(super) struct List<T> {
    pub(super) data: Vec<T>,
    #[serde(default)]
    pub(super) next: Option<String>,
    #[serde(default)]
    pub(super) by_status: BTreeMap<String, i64>,
}

/// Decimal USD as nano-USD; nothing where there is none.
fn nano<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    Ok(maybe_nano(from)?.unwrap_or(0))
}

fn maybe_nano<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let read = text.map(|text| meter::NanoUsd::from_usd(&text)).transpose();
    Ok(read.map_err(serde::de::Error::custom)?.map(|it| it.0))
}

/// What there is in every answer about a task.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Task {
    pub(super) id: String,
    pub(super) objective: String,
    pub(super) status: String,
    pub(super) phase: String,
    pub(super) activity: String,
    pub(super) waiting_on: Option<String>,
    pub(super) tenant: String,
    pub(super) owner: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) cost_centre: Option<String>,
    pub(super) schedule: Option<String>,
    pub(super) progress: Progress,
    pub(super) usage: Usage,
    pub(super) created_at_ms: i64,
    pub(super) started_at_ms: Option<i64>,
    pub(super) ended_at_ms: Option<i64>,
    pub(super) last_seq: u64,
    /// Its contents were erased.
    pub(super) erased: bool,
    // From here on only where one task is asked for.
    pub(super) brief: Brief,
    pub(super) plan: Plan,
    pub(super) required_actions: Vec<Request>,
    pub(super) checks: Vec<Checked>,
    pub(super) artifacts: Vec<Artifact>,
    pub(super) result: Option<TaskResult>,
    pub(super) policy_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Progress {
    pub(super) checks_passed: i64,
    pub(super) checks_total: i64,
    pub(super) nodes_done: i64,
    pub(super) nodes_total: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    #[serde(deserialize_with = "nano")]
    pub(super) cost_usd: i64,
    #[serde(deserialize_with = "nano")]
    pub(super) tools_usd: i64,
    #[serde(deserialize_with = "nano")]
    pub(super) reserved_usd: i64,
    #[serde(deserialize_with = "maybe_nano")]
    pub(super) budget_usd: Option<i64>,
    pub(super) by_tier: BTreeMap<String, TierUse>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TierUse {
    pub(super) calls: i64,
    #[serde(deserialize_with = "nano")]
    pub(super) cost_usd: i64,
    pub(super) input_tokens: i64,
    pub(super) output_tokens: i64,
}

/// What of a brief is shown.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Brief {
    pub(super) objective: String,
    pub(super) constraints: Vec<String>,
    pub(super) autonomy: i64,
    pub(super) deadline: Option<String>,
    pub(super) definition_of_done: Vec<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Plan {
    pub(super) rev: i64,
    pub(super) nodes: Vec<Node>,
}

/// A step of a plan.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) title: String,
    pub(super) depends_on: Vec<String>,
    pub(super) status: String,
    pub(super) attempt: i64,
    pub(super) problem: Option<String>,
    pub(super) tainted: bool,
    pub(super) asks_for: String,
    pub(super) models: Vec<String>,
    pub(super) calls: i64,
    pub(super) tool_calls: i64,
    #[serde(deserialize_with = "nano")]
    pub(super) cost_usd: i64,
    pub(super) output: Option<String>,
}

/// An act or a look.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Effect {
    pub(super) id: String,
    pub(super) node: String,
    pub(super) tool: String,
    pub(super) verb: String,
    pub(super) class: String,
    pub(super) arguments: Value,
    pub(super) destinations: Vec<String>,
    pub(super) status: String,
    pub(super) attempts: i64,
    pub(super) tainted: bool,
    pub(super) digest: String,
    pub(super) pin: String,
    pub(super) idempotency_key: String,
    #[serde(deserialize_with = "nano")]
    pub(super) cost_usd: i64,
    pub(super) decision: Decision,
    pub(super) decided: Option<String>,
    pub(super) at_ms: i64,
    pub(super) committed_at_ms: i64,
    pub(super) ended_at_ms: Option<i64>,
    pub(super) result: Option<Stored>,
}

/// What decided over an act.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Decision {
    pub(super) gate: String,
    pub(super) by: String,
    pub(super) rule: String,
    pub(super) why: String,
}

impl Decision {
    /// Why it was decided so.
    pub(super) fn reason(&self) -> String {
        let parts = [&self.rule, &self.by, &self.why];
        let said: Vec<&str> = parts
            .into_iter()
            .map(String::as_str)
            .filter(|it| !it.is_empty())
            .collect();
        said.join(": ")
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Stored {
    pub(super) text: String,
    pub(super) is_error: bool,
    pub(super) bytes: i64,
}

/// Something that a person must do.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    pub(super) id: String,
    pub(super) task: String,
    pub(super) tenant: Option<String>,
    pub(super) objective: String,
    pub(super) created_at_ms: i64,
    pub(super) expires_at_ms: i64,
    pub(super) quorum: i64,
    pub(super) approvers: Vec<String>,
    pub(super) approved_by: Vec<String>,
    #[serde(deserialize_with = "nano")]
    pub(super) spent_usd: i64,
    /// `acts`, `plan`, `unknown`, `budget` or `input`.
    pub(super) asking: String,
    pub(super) why: String,
    pub(super) digest: String,
    pub(super) items: Vec<Item>,
    pub(super) question: String,
    pub(super) choices: Vec<String>,
    pub(super) default: Option<String>,
}

/// One act of a request.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Item {
    pub(super) effect: Option<String>,
    pub(super) tool: String,
    pub(super) arguments: Value,
    pub(super) preview: String,
    pub(super) class: Option<String>,
    pub(super) verb: Option<String>,
    pub(super) destinations: Option<Vec<String>>,
    pub(super) node: Option<String>,
    #[serde(deserialize_with = "nano")]
    pub(super) cost_usd: i64,
    pub(super) tainted: bool,
    pub(super) attempts: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Artifact {
    pub(super) name: String,
    pub(super) sha256: String,
    pub(super) bytes: i64,
    pub(super) made_by: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct TaskResult {
    pub(super) why: String,
    pub(super) not_done: Vec<String>,
    pub(super) summary: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Checked {
    pub(super) id: String,
    /// `None` until somebody has looked.
    pub(super) passed: Option<bool>,
    pub(super) evidence: Option<String>,
}

/// Why calls went where they went.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Explained {
    pub(super) calls: Vec<Call>,
    #[serde(rename = "loop")]
    pub(super) notices: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Call {
    #[serde(rename = "call")]
    pub(super) number: i64,
    pub(super) purpose: Purpose,
    pub(super) asked: String,
    pub(super) request: String,
    pub(super) at_ms: i64,
    pub(super) model: Option<String>,
    pub(super) tier: Option<String>,
    pub(super) route: Option<String>,
    #[serde(deserialize_with = "maybe_nano")]
    pub(super) cost_usd: Option<i64>,
    #[serde(deserialize_with = "nano")]
    pub(super) reserved_usd: i64,
    pub(super) ms: Option<i64>,
    pub(super) input_tokens: Option<i64>,
    pub(super) output_tokens: Option<i64>,
    pub(super) problem: Option<String>,
    pub(super) lost: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Purpose {
    #[serde(rename = "for")]
    pub(super) word: String,
    pub(super) node: Option<String>,
    pub(super) check: Option<String>,
}

/// An event of a task's log.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Event {
    pub(super) seq: i64,
    pub(super) at_ms: i64,
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) actor: String,
    pub(super) data: Value,
}
