//! How tasks ended, on its way to the ledger: written down in the transaction of the end itself, and taken
//! away once the ledger has it. So it is never lost with a node, and any node may carry it; the ledger
//! takes it any number of times.

use serde_json::{Value, json};

use crate::log::{AppendError, Change, Expected, Kind, Record, TaskLog, TaskLogError, To};
use crate::state::State;

/// For how long the ledger is told of a task whose calls it does not know, in milliseconds: a journal may
/// be behind for as long as a node is away. A task that never called a model is then let go.
const TRIED_MS: i64 = 72 * 3_600_000;
/// The waits between tries: doubled from the first to the longest.
const FIRST_WAIT_MS: i64 = 500;
const LONGEST_WAIT_MS: i64 = 3_600_000;

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub tenant: String,
    /// As it stands in the ledger: `task_` and 32 digits.
    pub task: String,
    /// `completed`, or another status that is for ever.
    pub status: String,
    ended_ms: i64,
    tries: u32,
    record: Record,
}

/// What is written down with the end of a task.
pub(crate) fn change(state: &State, at_ms: i64) -> Option<Change> {
    let (status, ..) = state.ended.as_ref()?;
    let body = json!({ "status": status, "ended_at_ms": at_ms, "tries": 0 });
    Some(Change {
        kind: Kind::Outcome,
        tenant: state.caller.tenant.clone(),
        id: state.id.to_string(),
        expected: Expected::Any,
        to: Some(To {
            task: Some(state.id),
            due_at_ms: Some(at_ms),
            body: body.to_string(),
        }),
    })
}

/// What the ledger is to be told of at `now_ms`.
///
/// # Errors
/// When the log does not answer.
pub fn due(log: &dyn TaskLog, now_ms: i64, limit: u32) -> Result<Vec<Outcome>, TaskLogError> {
    let records = log.due(Kind::Outcome, now_ms, limit)?;
    Ok(records.into_iter().map(outcome).collect())
}

fn outcome(record: Record) -> Outcome {
    let body: Value = serde_json::from_str(&record.body).unwrap_or_default();
    let number = |name: &str| body.get(name).and_then(Value::as_i64).unwrap_or(0);
    let status = body.get("status").and_then(Value::as_str);
    Outcome {
        tenant: record.tenant.clone(),
        task: record.id.clone(),
        status: status.unwrap_or_default().to_owned(),
        ended_ms: number("ended_at_ms"),
        tries: u32::try_from(number("tries")).unwrap_or(u32::MAX),
        record,
    }
}

/// Notes whether the ledger has taken it; where it has not, it is due again later.
///
/// # Errors
/// When the log does not answer; it is then due again.
pub fn told(
    log: &dyn TaskLog,
    outcome: &Outcome,
    is_noted: bool,
    now_ms: i64,
) -> Result<(), TaskLogError> {
    let is_over = is_noted || now_ms - outcome.ended_ms >= TRIED_MS;
    let wait = FIRST_WAIT_MS << outcome.tries.min(13);
    let again = json!({
        "status": outcome.status, "ended_at_ms": outcome.ended_ms,
        "tries": outcome.tries.saturating_add(1),
    });
    let change = Change {
        kind: Kind::Outcome,
        tenant: outcome.record.tenant.clone(),
        id: outcome.record.id.clone(),
        expected: Expected::Version(outcome.record.version),
        to: (!is_over).then(|| To {
            task: outcome.record.task,
            due_at_ms: Some(now_ms + wait.min(LONGEST_WAIT_MS)),
            body: again.to_string(),
        }),
    };
    match log.change(&[change]) {
        Err(AppendError::Failed(error)) => Err(error),
        // Another node has told the ledger meanwhile.
        Ok(()) | Err(_) => Ok(()),
    }
}
