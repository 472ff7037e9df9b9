//! What happened to a task: as pages, and as a stream that can be left and taken up again anywhere.

use std::sync::Arc;

use http::Response;
use serde_json::{Value, json};

use crate::brief::fits;
use crate::desk::{Desk, Problem};
use crate::id::TaskId;
use crate::log::Recorded;
use crate::model::Body;

use super::request::Question;
use super::{answer, live};

/// Answers a request for a task's events.
pub(super) async fn route(
    desk: &Arc<Desk>,
    it: &Question,
    task: TaskId,
) -> Result<Response<Body>, Problem> {
    // Who may not see the task may not see its events; nor is there anything of an erased one.
    let state = desk.state(&it.caller, task).await?;
    if it.accepts("text/event-stream") {
        return live::stream(desk, it, &state);
    }
    let limit = it.limit()?;
    let after = it.number("after")?.unwrap_or(0);
    let types = it.words("types");
    let mut shown = Vec::new();
    let mut last = after;
    // Events that are not asked for do not count.
    loop {
        let events = desk.ask(move |log| log.events(task, last, limit)).await?;
        let is_last = events.len() < usize::try_from(limit).unwrap_or(usize::MAX);
        for event in &events {
            last = event.seq;
            if wanted(&types, &event.kind) {
                shown.push(self::event(event));
            }
            if shown.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                break;
            }
        }
        if is_last || shown.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            break;
        }
    }
    Ok(answer::list(&shown, limit, Some(&last.to_string())))
}

/// Whether an event of this kind is asked for; `*` stands for any text.
pub(super) fn wanted(types: &[String], kind: &str) -> bool {
    types.is_empty() || types.iter().any(|pattern| fits(pattern, kind))
}

/// An event, as everybody sees it.
pub(super) fn event(event: &Recorded) -> Value {
    let payload = event.payload.as_deref().unwrap_or("null");
    let mut data: Value = serde_json::from_str(payload).unwrap_or_default();
    if let Some(fields) = data.as_object_mut() {
        fields.shift_remove("type");
    }
    json!({
        "seq": event.seq,
        "at_ms": event.at_ms,
        "type": event.kind,
        "actor": event.actor,
        "lease": event.epoch,
        "data": data,
        "hash": event.hash,
    })
}
