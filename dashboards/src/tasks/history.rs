//! The end of a task's log, event by event.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{Markup, html};
use serde_json::Value;

use crate::ask::Ask;

use super::shape::{Event, Task};
use super::words::cut;

/// Events that a page shows; the API has all of them.
pub(super) const LATEST: u64 = 200;
/// What of an event's words is shown, in this order.
const TELLING: [&str; 19] = [
    "node", "call", "for", "effect", "request", "check", "name", "tool", "model", "tier", "gate",
    "by", "status", "class", "why", "text", "question", "answer", "evidence",
];

pub(super) fn section(ask: &Ask, task: &Task, events: &[Event]) -> Markup {
    let all = format!("/api/v1/tasks/{}/events?limit=200", task.id);
    html! {
        section {
            h2 #log { "Log" }
            @if events.is_empty() { p.empty { "No event." } } @else {
                div.scroll.tall tabindex="0" role="region" aria-label="The task\u{2019}s log" {
                    table {
                        caption { "The latest " (events.len()) " of " (task.last_seq) " events, newest first" }
                        thead { tr { th.n scope="col" { "No." } th scope="col" { "At" } th scope="col" { "Event" } th scope="col" { "By" } th scope="col" { "What" } } }
                        tbody { @for event in events.iter().rev() {
                            tr { th.n scope="row" { (event.seq) } td { (second(event.at_ms, &ask.period.zone)) } td { (cut(&event.kind, 40)) } td { (cut(&event.actor, 24)) } td { (told(&event.data)) } }
                        } }
                    }
                }
            }
            p.note { a href=(all) { "All events as JSON" } ", from the first on; go on with " code { "after" } ". "
                a href=(format!("/api/v1/audit?task={}", task.id)) { "Audit" } "." }
        }
    }
}

/// What an event says, in a line.
fn told(data: &Value) -> String {
    let mut line = String::new();
    for name in TELLING {
        let value = match data.get(name) {
            Some(Value::String(text)) if !text.is_empty() => cut(text, 60),
            Some(Value::Number(number)) => number.to_string(),
            _ => continue,
        };
        if !line.is_empty() {
            line.push_str("; ");
        }
        line.push_str(&value);
        if line.len() > 120 {
            break;
        }
    }
    line
}

/// When something was, to the second.
pub(super) fn second(at_ms: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    let at = at.to_zoned(zone.clone());
    at.strftime("%-d %b %H:%M:%S").to_string()
}
