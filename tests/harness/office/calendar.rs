//! The calendar: what is in a span of time, and new events under a key.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::desk::{Call, Desk};

/// A moment in one of the call's texts.
fn moment(call: &Call, name: &str) -> Result<Timestamp, String> {
    let text = call.text(name)?;
    let wrong = |_| format!("`{name}` is no moment such as 2026-11-24T13:00:00+01:00: {text}");
    text.parse().map_err(wrong)
}

/// Events that are not over at `from` and have begun before `to`, in order.
pub(super) fn list(desk: &Desk, call: &Call) -> Result<Value, String> {
    let (from, to) = (moment(call, "from")?, moment(call, "to")?);
    let at = |event: &Value, name: &str| -> Timestamp {
        event[name].as_str().unwrap_or_default().parse().unwrap()
    };
    let mut events = desk.list("events");
    events.retain(|event| at(event, "end") > from && at(event, "start") < to);
    events.sort_by_key(|event| at(event, "start"));
    Ok(json!({ "events": events }))
}

/// The same key makes the same event once.
pub(super) fn create(desk: &Desk, call: &Call) -> Result<Value, String> {
    let key = call.text("key")?;
    let mut events = desk.list("events");
    if let Some(made) = events.iter().find(|event| event["key"] == key) {
        return Ok(
            json!({ "id": made["id"], "start": made["start"], "end": made["end"],
            "created": false }),
        );
    }
    if moment(call, "start")? >= moment(call, "end")? {
        return Err("`end` is not behind `start`".to_owned());
    }
    let event = json!({
        "id": format!("ev-{}", events.len() + 1), "title": call.text("title")?,
        "start": call.text("start")?, "end": call.text("end")?, "where": "", "attendees": [],
        "key": key,
    });
    let answer = json!({ "id": event["id"], "start": event["start"], "end": event["end"],
        "created": true });
    events.push(event);
    desk.write("events", &events);
    Ok(answer)
}
