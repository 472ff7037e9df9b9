//! Events on their way into the log: numbered, chained, and with everything that must happen with them.

use serde_json::{Value, json};

use crate::event::Event;
use crate::log::{Change, Expected, Kind, Recorded, RowChange, To};
use crate::state::{Asked, Impossible, Request, State};
use crate::{outcomes, view};

/// Events that follow from a state, and the state behind them.
#[derive(Debug, Clone)]
pub struct Commit {
    pub events: Vec<Recorded>,
    pub after: State,
    pub row: RowChange,
    pub changes: Vec<Change>,
}

/// Puts `events` behind `state`. `wake_at_ms` is when somebody should work on the task.
///
/// # Errors
/// When one of them does not follow; nothing has happened then.
pub fn commit(
    state: &State,
    events: &[Event],
    actor: &str,
    at_ms: i64,
    wake_at_ms: Option<i64>,
) -> Result<Commit, Impossible> {
    let mut after = state.clone();
    let mut recorded = Vec::with_capacity(events.len());
    for event in events {
        // The clocks of nodes differ; the log's never goes back.
        let at_ms = at_ms.max(after.updated_ms);
        recorded.push(after.follow(event, at_ms, actor)?);
    }
    let row = row(&after, wake_at_ms);
    let changes = changes(state, &after, at_ms);
    Ok(Commit {
        events: recorded,
        after,
        row,
        changes,
    })
}

/// The row of a task that stands so.
pub fn row(state: &State, wake_at_ms: Option<i64>) -> RowChange {
    let ended = state.ended.is_some();
    RowChange {
        status: state.status().as_str().to_owned(),
        ended,
        wake_at_ms: wake_at_ms.filter(|_| !ended),
        summary: view::summary(state).to_string(),
    }
}

/// Requests that were opened or closed, and notices about them: in the same transaction as their events,
/// so that there is an open request exactly where a task waits for one.
fn changes(before: &State, after: &State, at_ms: i64) -> Vec<Change> {
    let was_open = |id: &String| before.requests.get(id).is_some_and(|it| it.open);
    let mut changes = Vec::new();
    for (id, request) in &after.requests {
        if request.open != was_open(id)
            || (request.open && before.requests.get(id) != Some(request))
        {
            let body = request_body(after, id, request).to_string();
            let to = To {
                task: Some(after.id),
                due_at_ms: Some(request.expires_at_ms),
                body,
            };
            changes.push(Change {
                kind: Kind::Request,
                tenant: after.caller.tenant.clone(),
                id: request_key(after, id),
                expected: Expected::Any,
                to: request.open.then_some(to),
            });
        }
    }
    let opened = after
        .requests
        .iter()
        .any(|(id, it)| it.open && !before.requests.contains_key(id));
    let ended = before.ended.is_none() && after.ended.is_some();
    for (happened, word) in [(opened && !ended, "requires_action"), (ended, "ended")] {
        if happened {
            changes.extend(notices(after, word, at_ms));
        }
    }
    if ended {
        changes.extend(outcomes::change(after, at_ms));
    }
    changes
}

/// The id of a request for all tasks of a tenant.
pub fn request_key(state: &State, request: &str) -> String {
    format!("{}.{request}", state.id.hex())
}

/// A request as the inbox shows it.
pub fn request_body(state: &State, id: &str, request: &Request) -> Value {
    let mut body = json!({
        "id": request_key(state, id),
        "object": "approval",
        "task": state.id,
        "objective": crate::event::cut_at(&state.brief.objective, 200),
        "created_at_ms": request.at_ms,
        "expires_at_ms": request.expires_at_ms,
        "open": request.open,
        "quorum": state.brief.approval.quorum,
        "approvers": state.brief.approval.approvers,
        "approved_by": request.by,
        "outcome": request.end,
        "spent_usd": state.spent,
    });
    let more = match &request.what {
        Asked::Approval { asking, items, why } => {
            let items: Vec<Value> = items.iter().map(|item| view::item(state, item)).collect();
            json!({ "asking": asking, "why": why, "digest": view::digest_of(request), "items": items })
        }
        Asked::Input {
            question,
            choices,
            default,
            ..
        } => {
            json!({ "asking": "input", "question": question, "choices": choices, "default": default })
        }
    };
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    body
}

/// Notices for the webhooks that the brief names.
fn notices(state: &State, word: &str, at_ms: i64) -> Vec<Change> {
    let wanted = state.brief.notify.iter().filter(|notify| {
        notify.events.is_empty() || notify.events.iter().any(|event| event == word)
    });
    wanted
        .map(|notify| {
            let id = format!(
                "{}.{}.{word}.{}",
                state.id.hex(),
                state.head.seq,
                notify.webhook
            );
            let body = json!({
                "id": id,
                "type": format!("task.{word}"),
                "webhook": notify.webhook,
                "created_at_ms": at_ms,
                "attempts": 0,
                "data": view::summary(state),
            });
            Change {
                kind: Kind::Notice,
                tenant: state.caller.tenant.clone(),
                id,
                expected: Expected::Any,
                to: Some(To {
                    task: Some(state.id),
                    due_at_ms: Some(at_ms),
                    body: body.to_string(),
                }),
            }
        })
        .collect()
}
