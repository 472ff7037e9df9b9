//! How tasks end: with all checks passed, with what there is, or not at all any more.

use crate::brief::{Mode, OnExhausted, OnExpiry, What};
use crate::event::{Asking, Event, Purpose, Status, Stored};
use crate::plan::OnFail;
use crate::state::{Asked, NodePhase, State, Turn};

use super::{Command, Next, Rules, ask, is_busy, planning};

/// What has run out, in words; `None` while nothing has.
pub(super) fn out_of(state: &State, rules: &Rules, now_ms: i64) -> Option<String> {
    if let Some(what) = &state.exhausted {
        return Some(what.clone());
    }
    if state
        .brief
        .deadline_ms(state.created_ms)
        .is_some_and(|at| at <= now_ms)
    {
        return Some("time".to_owned());
    }
    let calls = u32::try_from(state.calls.len()).unwrap_or(u32::MAX);
    if calls >= state.brief.budget.model_calls {
        return Some("model_calls".to_owned());
    }
    let last = state.calls.keys().next_back().copied().unwrap_or(0);
    if last > state.last_progress_call + rules.policy.limits.stalled_calls {
        return Some("progress".to_owned());
    }
    if state.denials >= rules.policy.limits.denials {
        return Some("patience: too many acts were refused".to_owned());
    }
    let mut requests = state.requests.values();
    let stop = state.brief.approval.on_expiry == OnExpiry::Stop;
    let late = requests.any(|it| it.end == "nobody decided in time");
    (stop && late).then(|| "an approval: nobody decided in time".to_owned())
}

/// The runtime tells a task at two thirds of its money that it should come to its end.
pub(super) fn notices(state: &State) -> Option<Next> {
    let limit = state.limit()?;
    let used = i128::from(state.spent.0) * 3 >= i128::from(limit.0) * 2;
    (used && state.notices.is_empty()).then(|| {
        Next::record(Event::BudgetNotice {
            text: format!(
                "Notice from the runtime: {} of {limit} USD are spent. Come to the end with what you have.",
                state.spent
            ),
        })
    })
}

/// Brings a task that ran out to its end: nothing new is begun, what is under way ends, a model says what
/// was done and what was not if there is money for it, and the task ends incomplete.
pub(super) fn wind_up(state: &State, rules: &Rules, what: &str, now_ms: i64) -> Next {
    if state.exhausted.is_none() {
        return Next::record(Event::BudgetExhausted {
            what: what.to_owned(),
        });
    }
    if what == "cost_usd" && state.brief.budget.on_exhausted == OnExhausted::Ask {
        return more_money(state, rules, now_ms);
    }
    if is_busy(state) {
        return Next::default();
    }
    let done = state.summary.is_some()
        || state
            .calls
            .values()
            .any(|call| call.purpose == Purpose::WrapUp);
    if !done && what != super::NO_MONEY && state.is_planned() {
        let left = state.left_at_all();
        if left.is_none_or(|left| left > crate::Usd::ZERO) {
            let mut wrap = ask(
                &unlimited(state),
                rules,
                Purpose::WrapUp,
                "wrap_up",
                "fast",
                "summarise",
            );
            if let Some(ask) = &mut wrap {
                ask.reserve = left;
            }
            return Next {
                commands: wrap.map(Command::Ask).into_iter().collect(),
                ..Next::default()
            };
        }
    }
    summarised(state).unwrap_or_else(|| {
        Next::record(Event::Ended {
            status: Status::Incomplete,
            why: format!("it ran out of {what}"),
        })
    })
}

/// The last call is not held to the share that is kept for it.
fn unlimited(state: &State) -> State {
    let mut state = state.clone();
    state.brief.budget.cost_usd = None;
    state
}

/// Words of the last call that are not in the log yet.
fn summarised(state: &State) -> Option<Next> {
    if state.summary.is_some() {
        return None;
    }
    let mut calls = state.calls.values().rev();
    let call = calls.find(|call| call.purpose == Purpose::WrapUp)?;
    match &call.end {
        None => Some(Next::default()),
        Some(end) if end.ok && !end.text.trim().is_empty() => {
            Some(Next::record(Event::Summarised {
                text: end.text.clone(),
            }))
        }
        Some(_) => None,
    }
}

/// Asks for more money, once for each time it runs out.
fn more_money(state: &State, rules: &Rules, now_ms: i64) -> Next {
    let asked = |asking: &Asked| {
        matches!(
            asking,
            Asked::Approval {
                asking: Asking::Budget,
                ..
            }
        )
    };
    let before = state.requests.values().filter(|it| asked(&it.what));
    if before.clone().any(|it| it.open) {
        return Next::default();
    }
    let denied = before.clone().any(|it| !it.end.starts_with("approved"));
    if denied {
        let mut stopping = state.clone();
        stopping.brief.budget.on_exhausted = OnExhausted::Incomplete;
        return wind_up(&stopping, rules, "cost_usd", now_ms);
    }
    Next::record(Event::ApprovalRequested {
        request: format!("req-budget-{}", before.count() + 1),
        asking: Asking::Budget,
        items: Vec::new(),
        why: format!("{} USD are spent, and the work is not done", state.spent),
        expires_at_ms: now_ms + state.brief.approval_ms(),
    })
}

/// Ends a task that can not go on, with what there is.
pub(super) fn stop(state: &State, rules: &Rules, why: &str) -> Next {
    if state.exhausted.is_none() {
        return Next::record(Event::BudgetExhausted {
            what: format!("ways: {why}"),
        });
    }
    wind_up(state, rules, why, 0)
}

/// A cancelled task begins nothing; it ends when nothing of it is under way.
pub(super) fn cancelled(state: &State) -> Next {
    if is_busy(state) {
        return Next::default();
    }
    let why = state.cancel.clone().unwrap_or_default();
    Next::record(Event::Ended {
        status: Status::Cancelled,
        why,
    })
}

/// All steps are over: do the checks hold?
pub(super) fn verify(state: &State, rules: &Rules, now_ms: i64) -> Next {
    let rev = state.plan.rev;
    let fresh = |id: &str| state.checks.get(id).is_some_and(|it| it.rev == rev);
    let by_code = |what: &What| !matches!(what, What::Judge { .. });
    let checks = &state.brief.definition_of_done;
    if checks
        .iter()
        .any(|check| by_code(&check.what) && !fresh(&check.id))
    {
        return Next {
            commands: vec![Command::Check],
            ..Next::default()
        };
    }
    let failed: Vec<String> = checks
        .iter()
        .filter_map(|check| {
            let at = state.checks.get(&check.id)?;
            (!at.passed).then(|| format!("{}: {}", check.id, at.evidence))
        })
        .collect();
    if failed.is_empty() {
        let open = checks.iter().find(|check| !fresh(&check.id));
        return match open {
            Some(check) => judged(state, rules, &check.id, now_ms),
            None => complete(state, rules),
        };
    }
    let why = format!("checks failed: {}", failed.join("; "));
    let final_one = state.plan.nodes.iter().any(|node| {
        let at = state.nodes.get(&node.id);
        node.on_fail == OnFail::Stop && at.is_some_and(|at| at.phase == NodePhase::Failed)
    });
    if final_one {
        return stop(state, rules, &why);
    }
    planning::replan(state, rules, &why).unwrap_or_else(|| stop(state, rules, &why))
}

fn complete(state: &State, rules: &Rules) -> Next {
    let left_out = state
        .nodes
        .values()
        .any(|node| matches!(node.phase, NodePhase::Skipped | NodePhase::Failed));
    if left_out && state.brief.mode == Mode::Explore && state.brief.definition_of_done.is_empty() {
        return stop(state, rules, "steps failed or were left out");
    }
    Next::record(Event::Ended {
        status: Status::Completed,
        why: "all checks passed".to_owned(),
    })
}

/// Has a model judge that wrote none of it.
fn judged(state: &State, rules: &Rules, check: &str, now_ms: i64) -> Next {
    let purpose = Purpose::Judge {
        check: check.to_owned(),
    };
    let since = state.last_progress_call;
    let tried: Vec<_> = state
        .calls
        .iter()
        .filter(|(number, call)| **number > since && call.purpose == purpose)
        .collect();
    if let Some((_, call)) = tried.last() {
        let Some(end) = &call.end else {
            return Next::default();
        };
        if end.ok {
            return Next::record(verdict(check, &end.text));
        }
    }
    let limit = usize::try_from(rules.policy.limits.call_attempts).unwrap_or(5);
    if tried.len() >= limit {
        let why = "no model would judge".to_owned();
        return Next::record(Event::CheckFailed {
            check: check.to_owned(),
            why,
        });
    }
    let mut next = Next::default();
    if let Some(from) = super::pause(state, &purpose).filter(|from| now_ms < *from) {
        next.wake(from);
        return next;
    }
    match ask(state, rules, purpose, "judge", "deep", "verify") {
        Some(ask) => next.commands.push(Command::Ask(ask)),
        None => next.record.push(Event::BudgetExhausted {
            what: "cost_usd".to_owned(),
        }),
    }
    next
}

/// What a judge's words mean. Only a plain `pass` passes.
fn verdict(check: &str, text: &str) -> Event {
    let check = check.to_owned();
    let object = crate::plan::first_object(text);
    let value: serde_json::Value = object
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let word = value.get("verdict").and_then(serde_json::Value::as_str);
    let evidence = value.get("evidence").and_then(serde_json::Value::as_str);
    let evidence = evidence.unwrap_or("no evidence was given").to_owned();
    if word == Some("pass") {
        Event::CheckPassed { check, evidence }
    } else {
        Event::CheckFailed {
            check,
            why: evidence,
        }
    }
}

/// A result that the runtime makes.
pub(super) fn said(text: &str, is_error: bool) -> Stored {
    Stored {
        shown: text.to_owned(),
        is_error,
        whole: None,
        bytes: u64::try_from(text.len()).unwrap_or(0),
    }
}

/// Whether a step goes round in circles: the same call with the same result three times, the same error
/// three times, or two calls by turns, twice over.
pub(super) fn circles(state: &State, node: &str) -> Option<String> {
    let at = state.nodes.get(node)?;
    let marks: Vec<(String, &str, bool)> = at
        .turns
        .iter()
        .flat_map(|turn| &turn.effects)
        .filter_map(|id| {
            let effect = state.effects.get(id)?;
            let result = effect.result.as_ref()?;
            let arguments = crate::digest::canonical(&effect.arguments);
            Some((
                format!("{} {arguments}", effect.tool),
                result.shown.as_str(),
                result.is_error,
            ))
        })
        .collect();
    let last = marks.last()?;
    let same = marks
        .iter()
        .rev()
        .take_while(|it| it.0 == last.0 && it.1 == last.1)
        .count();
    if same >= 3 {
        return Some("the same call had the same result three times".to_owned());
    }
    let errors = marks
        .iter()
        .rev()
        .take_while(|it| it.2 && it.1 == last.1)
        .count();
    if errors >= 3 {
        return Some("the same error came three times".to_owned());
    }
    let back: Vec<&String> = marks.iter().rev().take(6).map(|it| &it.0).collect();
    let swings = match back.as_slice() {
        [last, other, rest @ ..] if rest.len() == 4 => {
            last != other && rest.chunks(2).all(|pair| pair == [*last, *other])
        }
        _ => false,
    };
    swings.then(|| "two calls came by turns, three times over".to_owned())
}

/// Whether the turn after the warning did the same again.
pub(super) fn circles_on(state: &State, node: &str, turn: &Turn) -> bool {
    turn.remark.is_none() && circles(state, node).is_some()
}
