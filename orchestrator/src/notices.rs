//! Notices to webhooks: handed out to whoever posts them, for a while; gone when they were taken, tried
//! again when not, and kept for a person to see when nobody took them for three days.

use serde_json::{Value, json};

use crate::log::{AppendError, Change, Expected, Kind, Record, TaskLog, TaskLogError, To};

/// For how long a notice is tried, in milliseconds: 72 hours.
const TRIED_MS: i64 = 72 * 3_600_000;
/// The waits between tries: doubled from the first to the longest.
const FIRST_WAIT_MS: i64 = 1_000;
const LONGEST_WAIT_MS: i64 = 3_600_000;

/// A notice to be posted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub id: String,
    /// The name of the webhook that it goes to.
    pub webhook: String,
    /// `task.requires_action` or `task.ended`.
    pub topic: String,
    /// What is posted: JSON.
    pub body: String,
    record: Record,
}

/// Takes notices that are due at `now_ms`; for `lease_ms` they are nobody else's. At least once: what is
/// not told of by then is handed out again.
///
/// # Errors
/// When the log does not answer.
pub fn due(
    log: &dyn TaskLog,
    now_ms: i64,
    lease_ms: i64,
    limit: u32,
) -> Result<Vec<Notice>, TaskLogError> {
    let mut taken = Vec::new();
    for record in log.due(Kind::Notice, now_ms, limit)? {
        let leased = To {
            task: record.task,
            due_at_ms: Some(now_ms + lease_ms),
            body: record.body.clone(),
        };
        match log.change(&[to(&record, Some(leased))]) {
            Ok(()) => taken.push(notice(Record {
                version: record.version + 1,
                ..record
            })),
            Err(AppendError::Failed(error)) => return Err(error),
            // Somebody else has it.
            Err(_) => {}
        }
    }
    Ok(taken)
}

/// Notes what came of posting a notice.
///
/// # Errors
/// When the log does not answer; the notice is then handed out again.
pub fn told(
    log: &dyn TaskLog,
    notice: &Notice,
    outcome: Result<(), &str>,
    now_ms: i64,
) -> Result<(), TaskLogError> {
    let record = &notice.record;
    let to_be = match outcome {
        Ok(()) => None,
        Err(why) => Some(failed(record, why, now_ms)),
    };
    match log.change(&[to(record, to_be)]) {
        Err(AppendError::Failed(error)) => Err(error),
        // The lease was over, and somebody else has it.
        Ok(()) | Err(_) => Ok(()),
    }
}

fn failed(record: &Record, why: &str, now_ms: i64) -> To {
    let mut body: Value = serde_json::from_str(&record.body).unwrap_or_default();
    let number = |name: &str| body.get(name).and_then(Value::as_i64);
    let attempts = number("attempts").unwrap_or(0);
    let created_ms = number("created_at_ms").unwrap_or(now_ms);
    let is_dead = now_ms - created_ms >= TRIED_MS;
    if let Some(fields) = body.as_object_mut() {
        fields.insert("attempts".to_owned(), json!(attempts + 1));
        fields.insert("last_error".to_owned(), json!(why));
        fields.insert("dead".to_owned(), json!(is_dead));
    }
    To {
        task: record.task,
        due_at_ms: (!is_dead).then(|| now_ms + wait_ms(attempts)),
        body: body.to_string(),
    }
}

fn wait_ms(failures: i64) -> i64 {
    let doublings = u32::try_from(failures.clamp(0, 30)).unwrap_or(30);
    FIRST_WAIT_MS
        .saturating_mul(1_i64.checked_shl(doublings).unwrap_or(1))
        .min(LONGEST_WAIT_MS)
}

fn to(record: &Record, to: Option<To>) -> Change {
    Change {
        kind: Kind::Notice,
        tenant: record.tenant.clone(),
        id: record.id.clone(),
        expected: Expected::Version(record.version),
        to,
    }
}

fn notice(record: Record) -> Notice {
    let body: Value = serde_json::from_str(&record.body).unwrap_or_default();
    let text = |name: &str| {
        let text = body.get(name).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let posted = json!({
        "id": record.id,
        "topic": text("type"),
        "tenant": record.tenant,
        "created_at_ms": body.get("created_at_ms"),
        "data": body.get("data"),
    });
    Notice {
        id: record.id.clone(),
        webhook: text("webhook"),
        topic: text("type"),
        body: posted.to_string(),
        record,
    }
}

/// Whether a notice's record is one that nobody took.
pub fn is_dead(record: &Record) -> bool {
    record.due_at_ms.is_none()
}
