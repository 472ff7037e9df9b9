//! How a response stands that a task makes: worked out from the task's events alone, so that what was
//! told once stays true.

use serde_json::json;
use wire::dialect::openai_responses::made::{Item, Made};

use crate::event::{Asking, Status};
use crate::log::Recorded;
use crate::state::{Asked, Impossible, Request, State};

use super::Link;

/// How the ids of what asks for a yes or no begin, and of what asks for words.
const APPROVAL: &str = "mcpr_";
const INPUT: &str = "call_";

/// The name of the request that an id of an item stands for.
pub(super) fn approval(id: &str) -> Option<&str> {
    id.strip_prefix(APPROVAL)
}

/// The same for what asks for words.
pub(super) fn input(id: &str) -> Option<&str> {
    id.strip_prefix(INPUT)
}

/// A response as it stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Stand {
    /// `None` while it is made, and has begun.
    status: Option<&'static str>,
    is_queued: bool,
    items: Vec<Item>,
    error: Option<(&'static str, String)>,
    reason: Option<String>,
    tokens: (u64, u64),
}

/// Whether the task has neither ended nor ever waited for a person, so that no response of it is over.
pub(super) fn is_simple(state: &State) -> bool {
    state.ended.is_none() && state.requests.is_empty()
}

/// Whether a response of the task is over: the task has ended, or waits for a person.
fn is_over(state: &State) -> bool {
    state.ended.is_some() || state.requests.values().any(|request| request.open)
}

/// A response whose task goes on.
pub(super) fn pending(state: &State) -> Stand {
    Stand {
        // Nothing more comes of it, even if what is under way has not ended yet.
        status: state.cancel.is_some().then_some("cancelled"),
        is_queued: state.started_ms.is_none(),
        ..Stand::default()
    }
}

/// The response that tells of what is behind the event `from_seq`.
pub(super) fn of(events: &[Recorded], from_seq: u64) -> Result<Stand, Impossible> {
    let (first, rest) = events.split_first().ok_or(Impossible::Empty)?;
    let mut state = State::fold(std::slice::from_ref(first))?;
    let mut before = (0, 0);
    for event in rest {
        state.take(event)?;
        if state.head.seq == from_seq {
            before = tokens(&state);
        }
        if state.head.seq >= from_seq && is_over(&state) {
            let mut stand = over(&state);
            stand.tokens = (
                stand.tokens.0.saturating_sub(before.0),
                stand.tokens.1.saturating_sub(before.1),
            );
            return Ok(stand);
        }
    }
    Ok(pending(&state))
}

fn tokens(state: &State) -> (u64, u64) {
    let ends = state.calls.values().filter_map(|call| call.end.as_ref());
    ends.fold((0, 0), |(input, output), end| {
        (input + end.tokens.0, output + end.tokens.1)
    })
}

/// A response whose task has ended or waits.
fn over(state: &State) -> Stand {
    let mut stand = Stand {
        tokens: tokens(state),
        ..Stand::default()
    };
    let Some((status, why, _)) = &state.ended else {
        stand.status = Some("completed");
        let open = state.requests.iter().filter(|(_, it)| it.open);
        stand.items = open.map(|(id, it)| asked(state, id, it)).collect();
        return stand;
    };
    stand.status = Some(match status {
        Status::Completed => "completed",
        Status::Incomplete => "incomplete",
        Status::Cancelled => "cancelled",
        _ => "failed",
    });
    stand.items = said(state).map(Item::Text).into_iter().collect();
    match status {
        Status::Incomplete => stand.reason = Some(why.clone()),
        Status::Failed | Status::Rejected => stand.error = Some(("task_failed", why.clone())),
        _ => {}
    }
    stand
}

/// The last words: the output of the last step that has one, or what was said of the whole.
fn said(state: &State) -> Option<String> {
    if let Some(summary) = &state.summary {
        return Some(summary.clone());
    }
    let mut nodes = state.plan.nodes.iter().rev();
    let output = nodes.find_map(|node| state.nodes.get(&node.id)?.output.as_ref())?;
    let text = output.as_str().map(str::to_owned);
    Some(text.unwrap_or_else(|| output.to_string()))
}

/// What waits for a person, as an item.
fn asked(state: &State, id: &str, request: &Request) -> Item {
    let key = crate::commit::request_key(state, id);
    match &request.what {
        Asked::Approval {
            asking: Asking::Acts | Asking::Plan,
            items,
            ..
        } if !items.is_empty() => {
            let (tool, arguments) = match items.as_slice() {
                [one] => (one.tool.as_str(), one.arguments.clone()),
                [first, ..] => {
                    let all = items
                        .iter()
                        .map(|item| json!({ "tool": item.tool, "arguments": item.arguments }));
                    let all: Vec<serde_json::Value> = all.collect();
                    (first.tool.as_str(), json!({ "acts": all }))
                }
                [] => ("", serde_json::Value::Null),
            };
            let (server, name) = tool.split_once("__").unwrap_or(("pareto", tool));
            Item::Approval {
                id: format!("{APPROVAL}{key}"),
                server: server.to_owned(),
                name: name.to_owned(),
                arguments: arguments.to_string(),
            }
        }
        Asked::Approval { asking, why, .. } => Item::Call {
            id: format!("{INPUT}{key}"),
            name: "decide".to_owned(),
            arguments: json!({ "asking": asking, "why": why }).to_string(),
        },
        Asked::Input {
            question, choices, ..
        } => Item::Call {
            id: format!("{INPUT}{key}"),
            name: crate::next::ASK_USER.to_owned(),
            arguments: json!({ "question": question, "choices": choices }).to_string(),
        },
    }
}

impl Stand {
    /// Whether nothing more comes of it.
    pub(super) fn is_over(&self) -> bool {
        self.status.is_some()
    }

    /// It in the dialect's words.
    pub(super) fn made<'a>(&self, id: &'a str, link: &'a Link) -> Made<'a> {
        let pending = if self.is_queued {
            "queued"
        } else {
            "in_progress"
        };
        Made {
            id,
            created_s: link.created_s,
            model: &link.model,
            status: self.status.unwrap_or(pending),
            own: &link.own,
            items: self.items.clone(),
            error: self.error.clone(),
            reason: self.reason.clone(),
            tokens: self.tokens,
        }
    }
}
