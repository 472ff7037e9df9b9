//! From a brief to a plan, and from a plan that failed to another.

use crate::brief::Mode;
use crate::event::{Asking, Event, Item, Purpose};
use crate::plan::{Node, Plan};
use crate::state::{Asked, NodePhase, State};

use super::{Command, Next, Rules, ask, gate};

/// Answers of a planner that are refused before code makes the plan.
const PLANNER_TRIES: usize = 2;

/// Makes the plan.
pub(super) fn plan(state: &State, rules: &Rules, now_ms: i64) -> Next {
    let planner = state
        .calls
        .values()
        .rev()
        .find(|call| call.purpose == Purpose::Plan);
    let tried = state
        .calls
        .values()
        .filter(|it| it.purpose == Purpose::Plan && it.end.is_some());
    let tried = tried.count();
    match planner.map(|call| call.end.as_ref()) {
        Some(None) => Next::default(),
        Some(Some(end))
            if end.ok && state.plan_problems.len() < answered(state, &Purpose::Plan) =>
        {
            Next::record(read(state, rules, &end.text))
        }
        _ if state.plan_problems.len() >= PLANNER_TRIES || tried > 4 => {
            Next::record(Event::PlanProposed {
                plan: Plan::single(&state.brief),
                by: "code, because no plan of the planner was good".to_owned(),
            })
        }
        _ => match super::pause(state, &Purpose::Plan).filter(|from| now_ms < *from) {
            Some(from) => Next {
                wake_at_ms: Some(from),
                ..Next::default()
            },
            None => asked(state, rules, Purpose::Plan),
        },
    }
}

/// Answers of planners that have come so far, counted behind the last plan.
fn answered(state: &State, purpose: &Purpose) -> usize {
    let since = if *purpose == Purpose::Plan {
        0
    } else {
        state.last_progress_call
    };
    let mine = state.calls.iter().filter(|(number, call)| {
        **number > since && call.purpose == *purpose && call.end.as_ref().is_some_and(|end| end.ok)
    });
    mine.count()
}

fn asked(state: &State, rules: &Rules, purpose: Purpose) -> Next {
    let ask = ask(state, rules, purpose, "plan", "deep", "plan");
    match ask {
        Some(ask) => Next {
            commands: vec![Command::Ask(ask)],
            ..Next::default()
        },
        None => Next::record(Event::BudgetExhausted {
            what: "cost_usd".to_owned(),
        }),
    }
}

fn read(state: &State, rules: &Rules, text: &str) -> Event {
    let offered = gate::offered(state, rules);
    let refused = |problems| Event::PlanRefused { problems };
    match Plan::read(text) {
        Err(problem) => refused(vec![problem]),
        Ok(mut plan) => {
            plan.rev = 1;
            let problems = plan.problems(&state.brief, &offered, &[]);
            if problems.is_empty() {
                Event::PlanProposed {
                    plan,
                    by: "model".to_owned(),
                }
            } else {
                refused(problems)
            }
        }
    }
}

/// Makes another plan after `why`; `None` where there were too many.
pub(super) fn replan(state: &State, rules: &Rules, why: &str) -> Option<Next> {
    if state.replans >= rules.policy.limits.replans || state.brief.mode == Mode::PlanOnly {
        return None;
    }
    let since = state.last_progress_call;
    let mut calls = state.calls.iter().rev();
    let last = calls.find(|(number, call)| **number > since && call.purpose == Purpose::Replan);
    let Some((_, call)) = last else {
        return Some(asked(state, rules, Purpose::Replan));
    };
    let Some(end) = &call.end else {
        return Some(Next::default());
    };
    let refused = state.plan_problems.len();
    if refused >= PLANNER_TRIES {
        return None;
    }
    if !end.ok {
        let failed = calls
            .clone()
            .filter(|(number, call)| **number > since && call.purpose == Purpose::Replan);
        if failed.count() >= PLANNER_TRIES {
            return None;
        }
        let from = super::pause(state, &Purpose::Replan).unwrap_or(0);
        return Some(if rules.now_ms < from {
            Next {
                wake_at_ms: Some(from),
                ..Next::default()
            }
        } else {
            asked(state, rules, Purpose::Replan)
        });
    }
    if refused == answered(state, &Purpose::Replan) {
        return Some(asked(state, rules, Purpose::Replan));
    }
    let offered = gate::offered(state, rules);
    let succeeded = |node: &&Node| {
        state
            .nodes
            .get(&node.id)
            .is_some_and(|it| it.phase == NodePhase::Succeeded)
    };
    let kept: Vec<&Node> = state.plan.nodes.iter().filter(succeeded).collect();
    let event = match Plan::read(&end.text) {
        Err(problem) => Event::PlanRefused {
            problems: vec![problem],
        },
        Ok(mut plan) => {
            plan.rev = state.plan.rev + 1;
            let mut problems = plan.problems(&state.brief, &offered, &kept);
            let over = |id: &str| state.nodes.get(id).is_some_and(|it| it.phase.is_over());
            if plan
                .nodes
                .iter()
                .all(|node| over(&node.id) && state.plan.node(&node.id) == Some(node))
            {
                problems.push("the plan has no step that is not over".to_owned());
            }
            if problems.is_empty() {
                Event::PlanRevised {
                    plan,
                    why: why.to_owned(),
                }
            } else {
                Event::PlanRefused { problems }
            }
        }
    };
    Some(Next::record(event))
}

/// The acts that a plan names and that must be approved, as one request: asked for once, when the plan is
/// there and before its first step.
pub(super) fn approval(state: &State, rules: &Rules, now_ms: i64) -> Option<Event> {
    let request = format!("req-plan-{}", state.plan.rev);
    if state.requests.contains_key(&request) {
        return None;
    }
    let offered = gate::offered(state, rules);
    let mut items = Vec::new();
    let to_come = state.plan.nodes.iter().filter(|node| {
        let at = state.nodes.get(&node.id);
        at.is_none_or(|at| !at.phase.is_over())
    });
    for node in to_come {
        for act in &node.acts {
            let Some(tool) = offered.iter().find(|tool| tool.definition.name == act.tool) else {
                continue;
            };
            if !node.may_call(&state.brief, tool) || tool.manifest.verb > node.ceiling(&state.brief)
            {
                continue;
            }
            let item = gate::item(state, rules, tool, &act.arguments, None);
            if gate::asks(state, rules, tool, &item, false) && !has(&items, &item) {
                items.push(item);
            }
        }
    }
    (!items.is_empty()).then(|| Event::ApprovalRequested {
        request,
        asking: Asking::Plan,
        items,
        why: "the plan names these acts".to_owned(),
        expires_at_ms: now_ms + state.brief.approval_ms(),
    })
}

fn has(items: &[Item], item: &Item) -> bool {
    items.iter().any(|it| it.digest == item.digest)
}

/// Whether a request about the whole plan is open.
pub(super) fn waits(state: &State) -> bool {
    state.requests.values().any(|request| {
        let plan = matches!(
            &request.what,
            Asked::Approval {
                asking: Asking::Plan,
                ..
            }
        );
        request.open && plan
    })
}
