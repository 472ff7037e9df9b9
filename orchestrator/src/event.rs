//! What happens to a task. The words of these events are a format that is read for ever.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::brief::Brief;
use crate::digest::Digest;
use crate::id::TaskId;
use crate::log::{Head, Recorded};
use crate::money::Usd;
use crate::plan::Plan;
use crate::tool::{Class, ToolResult, Verb};

/// The version of the payloads written today.
pub const VERSION: u16 = 1;

/// Who asks, as the gateway knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    pub tenant: String,
    #[serde(default)]
    pub team: String,
    #[serde(default)]
    pub project: String,
    /// The public id of the key; empty for the operator.
    #[serde(default)]
    pub key: String,
    #[serde(default)]
    pub user: String,
    /// The operator of the gateway, who sees all tenants.
    #[serde(default)]
    pub is_operator: bool,
}

impl Caller {
    /// How it stands in the log.
    pub fn actor(&self) -> String {
        match (self.is_operator, self.user.is_empty()) {
            (true, true) => "operator".to_owned(),
            (_, false) => format!("user:{}", self.user),
            (false, true) => format!("key:{}", self.key),
        }
    }
}

/// How a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Queued,
    InProgress,
    RequiresAction,
    Paused,
    /// All checks passed.
    Completed,
    /// Stopped in order, with what there is.
    Incomplete,
    Failed,
    Cancelled,
    Rejected,
}

impl Status {
    /// The word it goes by.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::RequiresAction => "requires_action",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "rejected",
        }
    }

    /// Whether it is for ever.
    pub const fn is_end(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Incomplete | Self::Failed | Self::Cancelled | Self::Rejected
        )
    }
}

/// What a call to a model is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "for")]
pub enum Purpose {
    Plan,
    Replan,
    Node {
        node: String,
    },
    Judge {
        check: String,
    },
    /// Older turns of a step become notes.
    Compact {
        node: String,
    },
    /// Words for a task that ran out.
    WrapUp,
}

impl Purpose {
    /// The step that it is about.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Node { node } | Self::Compact { node } => Some(node),
            _ => None,
        }
    }
}

/// A tool that a model wants to call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolUse {
    pub id: String,
    pub name: String,
    /// As the model wrote it; maybe no JSON.
    pub arguments: String,
}

/// What decided over an act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "gate")]
pub enum Gate {
    Allowed { by: String },
    Ask { why: String },
    Denied { rule: String, why: String },
}

/// A result as the log keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// What models see of it: all, or its head and end.
    pub shown: String,
    pub is_error: bool,
    /// Where the whole is kept, when it is more than is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Digest>,
    /// Bytes of the whole text.
    pub bytes: u64,
}

/// One act that waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Over tool, definition, arguments, destinations, principal and policy.
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    pub tool: String,
    pub arguments: Value,
    /// Made by code from the manifest.
    pub preview: String,
}

/// What is asked of a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asking {
    /// May these acts happen?
    Acts,
    /// May the acts that a plan names happen, when their time comes?
    Plan,
    /// Has an act happened whose end nobody saw?
    Unknown,
    /// More money.
    Budget,
}

/// How far an approval reaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    #[default]
    Once,
    /// The same tool with the same destinations, in this task.
    Task,
}

/// How an act whose end nobody saw is settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Settle {
    Happened,
    Again,
    GiveUp,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Event {
    #[serde(rename = "task.created")]
    Created {
        task: TaskId,
        brief: Box<Brief>,
        caller: Caller,
        #[serde(default)]
        schedule: Option<String>,
        policy: String,
        skills: BTreeMap<String, Digest>,
    },
    /// A node works on it from now on, under a lease of its own. What an earlier one left open is in doubt.
    #[serde(rename = "task.taken")]
    Taken { node: String },
    #[serde(rename = "task.paused")]
    Paused { why: String },
    #[serde(rename = "task.resumed")]
    Resumed,
    #[serde(rename = "task.steered")]
    Steered { text: String },
    #[serde(rename = "task.cancel_requested")]
    CancelRequested { why: String },
    #[serde(rename = "task.ended")]
    Ended { status: Status, why: String },
    #[serde(rename = "plan.proposed")]
    PlanProposed { plan: Plan, by: String },
    #[serde(rename = "plan.refused")]
    PlanRefused { problems: Vec<String> },
    #[serde(rename = "plan.revised")]
    PlanRevised { plan: Plan, why: String },
    #[serde(rename = "node.started")]
    NodeStarted { node: String, attempt: u32 },
    #[serde(rename = "node.succeeded")]
    NodeSucceeded { node: String, output: Value },
    #[serde(rename = "node.refused")]
    NodeRefused { node: String, problem: String },
    #[serde(rename = "node.failed")]
    NodeFailed {
        node: String,
        class: String,
        why: String,
    },
    #[serde(rename = "node.skipped")]
    NodeSkipped { node: String, why: String },
    #[serde(rename = "model.requested")]
    ModelRequested {
        call: u64,
        #[serde(flatten)]
        purpose: Purpose,
        asked: String,
        /// The id that it has in the ledger.
        request: String,
        reserved: Usd,
        /// Over the whole call as it was sent.
        prompt: Digest,
    },
    #[serde(rename = "model.completed")]
    ModelCompleted {
        call: u64,
        text: String,
        uses: Vec<ToolUse>,
        /// The answer ended at its cap.
        cut: bool,
        model: String,
        tier: String,
        /// Why it went there, as the gateway says.
        route: String,
        cost: Usd,
        input_tokens: u64,
        output_tokens: u64,
    },
    #[serde(rename = "model.failed")]
    ModelFailed {
        call: u64,
        class: String,
        why: String,
        /// When it may be tried again; `None`: never.
        retry_at_ms: Option<i64>,
        cost: Usd,
    },
    /// Its end was never seen; what was reserved stays spent until the ledger knows.
    #[serde(rename = "model.lost")]
    ModelLost { call: u64, cost: Usd },
    #[serde(rename = "effect.intent")]
    EffectIntent {
        effect: String,
        node: String,
        /// The model's own id for the call.
        use_id: String,
        tool: String,
        pin: Digest,
        arguments: Value,
        class: Class,
        verb: Verb,
        destinations: Vec<String>,
        tainted: bool,
        digest: Digest,
        key: String,
        cost: Usd,
        #[serde(flatten)]
        gate: Gate,
    },
    #[serde(rename = "effect.committed")]
    EffectCommitted {
        effect: String,
        attempt: u32,
        #[serde(default)]
        approval: Option<String>,
    },
    #[serde(rename = "effect.succeeded")]
    EffectSucceeded { effect: String, result: Stored },
    #[serde(rename = "effect.failed")]
    EffectFailed { effect: String, result: Stored },
    /// It certainly did not reach its tool.
    #[serde(rename = "effect.not_sent")]
    EffectNotSent { effect: String, why: String },
    /// Its end was not seen.
    #[serde(rename = "effect.lost")]
    EffectLost { effect: String, why: String },
    /// Nobody here can tell whether it happened.
    #[serde(rename = "effect.unknown")]
    EffectUnknown { effect: String, why: String },
    #[serde(rename = "effect.reconciled")]
    EffectReconciled {
        effect: String,
        happened: bool,
        how: String,
        #[serde(default)]
        result: Option<Stored>,
    },
    #[serde(rename = "effect.denied")]
    EffectDenied {
        effect: String,
        rule: String,
        why: String,
    },
    #[serde(rename = "approval.requested")]
    ApprovalRequested {
        request: String,
        asking: Asking,
        items: Vec<Item>,
        why: String,
        expires_at_ms: i64,
    },
    #[serde(rename = "approval.decided")]
    ApprovalDecided {
        request: String,
        by: String,
        approve: bool,
        #[serde(default)]
        scope: Scope,
        #[serde(default)]
        settle: Option<Settle>,
        #[serde(default)]
        more: Option<Usd>,
        #[serde(default)]
        reason: String,
        /// The standing approval that was made with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        standing: Option<String>,
    },
    #[serde(rename = "approval.expired")]
    ApprovalExpired { request: String },
    #[serde(rename = "approval.invalidated")]
    ApprovalInvalidated { request: String, why: String },
    #[serde(rename = "input.requested")]
    InputRequested {
        request: String,
        effect: String,
        question: String,
        choices: Vec<String>,
        default: Option<String>,
        expires_at_ms: i64,
    },
    #[serde(rename = "input.received")]
    InputReceived {
        request: String,
        answer: String,
        /// Nobody answered: the words are not the owner's.
        #[serde(default)]
        by_default: bool,
    },
    #[serde(rename = "budget.notice")]
    BudgetNotice { text: String },
    #[serde(rename = "budget.exhausted")]
    BudgetExhausted { what: String },
    #[serde(rename = "context.compacted")]
    ContextCompacted {
        node: String,
        through: usize,
        notes: String,
    },
    #[serde(rename = "artifact.written")]
    ArtifactWritten {
        name: String,
        sha256: Digest,
        bytes: u64,
        #[serde(default)]
        node: Option<String>,
    },
    #[serde(rename = "check.passed")]
    CheckPassed { check: String, evidence: String },
    #[serde(rename = "check.failed")]
    CheckFailed { check: String, why: String },
    #[serde(rename = "loop.warned")]
    LoopWarned { node: String, why: String },
    /// The last words of a task that ran out.
    #[serde(rename = "task.summarised")]
    Summarised { text: String },
}

impl Event {
    /// The word of it.
    pub fn kind(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        let kind = value.get("type").and_then(Value::as_str);
        kind.unwrap_or_default().to_owned()
    }

    /// It as it stands in the log behind `head`.
    pub fn record(&self, head: Head, at_ms: i64, epoch: u64, actor: &str) -> Recorded {
        let value = serde_json::to_value(self).unwrap_or_default();
        let kind = value.get("type").and_then(Value::as_str);
        let payload = value.to_string();
        let mut recorded = Recorded {
            seq: head.seq + 1,
            at_ms,
            epoch,
            actor: actor.to_owned(),
            kind: kind.unwrap_or_default().to_owned(),
            v: VERSION,
            payload_hash: Digest::of(payload.as_bytes()),
            payload: Some(payload),
            hash: Digest::default(),
        };
        recorded.hash = recorded.chained(head.hash);
        recorded
    }

    /// The event that stands in the log.
    ///
    /// # Errors
    /// When it was erased, or is of a format that this program does not know.
    pub fn read(recorded: &Recorded) -> Result<Self, ReadEventError> {
        let unread = |why: String| ReadEventError {
            seq: recorded.seq,
            kind: recorded.kind.clone(),
            why,
        };
        let payload = recorded.payload.as_deref();
        let payload = payload.ok_or_else(|| unread("it was erased".to_owned()))?;
        serde_json::from_str(payload).map_err(|error| unread(error.to_string()))
    }
}

/// An event can not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {seq} ({kind}): {why}")]
pub struct ReadEventError {
    pub seq: u64,
    pub kind: String,
    pub why: String,
}

/// What models see of a result, and whether the whole must be kept: its head, its end, and how to read
/// what stands between them. `most` is in bytes.
pub fn shown(result: &ToolResult, effect: &str, most: usize) -> (Stored, Option<String>) {
    let text = result.plain();
    let bytes = u64::try_from(text.len()).unwrap_or(u64::MAX);
    let plain = |shown: String| Stored {
        shown,
        is_error: result.is_error,
        whole: None,
        bytes,
    };
    if text.len() <= most {
        return (plain(text), None);
    }
    let head = cut_at(&text, most * 3 / 4);
    let from = text.len() - most / 4;
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at));
    let end = text.get(from.unwrap_or(text.len())..).unwrap_or_default();
    let shown = format!(
        "{head}\n[... {} of {bytes} bytes are left out here; read them with artifact_read, handle \"{effect}\" ...]\n{end}",
        text.len() - head.len() - end.len(),
    );
    let stored = Stored {
        whole: Some(Digest::of(text.as_bytes())),
        ..plain(shown)
    };
    (stored, Some(text))
}

/// The beginning of `text`, at most `most` bytes and no half letter.
pub fn cut_at(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
