//! The acts of a turn: who must be asked, which may happen now, and what follows when an end was not seen.

use serde_json::Value;

use crate::event::{Asking, Event, Gate, Item};
use crate::state::{Effect, EffectPhase, State};
use crate::tool::{Class, Probe, Verb};

use super::{ASK_USER, Act, Command, Next, Rules, ending, gate};

/// What the acts of a turn need next.
pub(super) fn effects(
    state: &State,
    rules: &Rules,
    open: &[(&String, &Effect)],
    now_ms: i64,
) -> Next {
    if let Some(event) = asking(state, open, now_ms) {
        return Next::record(event);
    }
    let mut next = Next::default();
    // Looks go together; acts go one after the other, in the order in which they were asked for.
    let mut acting = open
        .iter()
        .any(|(_, it)| it.phase == EffectPhase::Committed && it.verb == Verb::Execute);
    for (id, effect) in open {
        let one = one_effect(state, rules, id, effect, now_ms);
        if !one.record.is_empty() {
            return one;
        }
        if let Some(wake) = one.wake_at_ms {
            next.wake(wake);
        }
        for command in one.commands {
            if effect.verb == Verb::Execute {
                if acting {
                    continue;
                }
                acting = true;
            }
            next.commands.push(command);
        }
    }
    next
}

/// The acts of a turn that wait for a person, as one request.
fn asking(state: &State, open: &[(&String, &Effect)], now_ms: i64) -> Option<Event> {
    let waits = |effect: &Effect| {
        effect.phase == EffectPhase::Intended
            && effect.request.is_none()
            && matches!(effect.gate, Gate::Ask { .. })
    };
    let (first, effect) = open.iter().find(|(_, effect)| waits(effect))?;
    let Gate::Ask { why } = &effect.gate else {
        return None;
    };
    let items = open
        .iter()
        .filter(|(_, effect)| waits(effect))
        .map(|(id, effect)| Item {
            digest: effect.digest,
            effect: Some((*id).clone()),
            tool: effect.tool.clone(),
            arguments: effect.arguments.clone(),
            preview: String::new(),
        });
    Some(Event::ApprovalRequested {
        request: format!("req-{}", first.trim_start_matches("eff-")),
        asking: Asking::Acts,
        items: items.collect(),
        why: why.clone(),
        expires_at_ms: now_ms + state.brief.approval_ms(),
    })
}

/// What one act needs next.
fn one_effect(state: &State, rules: &Rules, id: &str, effect: &Effect, now_ms: i64) -> Next {
    match effect.phase {
        EffectPhase::Intended if effect.tool == ASK_USER => question(state, id, effect, now_ms),
        EffectPhase::Intended => match &effect.gate {
            Gate::Allowed { by } => act(state, rules, id, effect, by, now_ms),
            Gate::Ask { .. } => after_request(state, id, effect),
            Gate::Denied { .. } => Next::default(),
        },
        EffectPhase::Cleared => {
            let by = effect.request.clone().unwrap_or_default();
            act(state, rules, id, effect, &format!("approval:{by}"), now_ms)
        }
        EffectPhase::InDoubt => doubt(state, rules, id, effect, now_ms),
        EffectPhase::Unknown => unknown(state, id, effect, now_ms),
        EffectPhase::Committed
        | EffectPhase::Succeeded
        | EffectPhase::Failed
        | EffectPhase::Denied => Next::default(),
    }
}

/// A request that has ended without a yes.
fn after_request(state: &State, id: &str, effect: &Effect) -> Next {
    let request = effect
        .request
        .as_ref()
        .and_then(|id| state.requests.get(id));
    match request {
        Some(request) if !request.open => Next::record(Event::EffectDenied {
            effect: id.to_owned(),
            rule: "approval".to_owned(),
            why: request.end.clone(),
        }),
        _ => Next::default(),
    }
}

/// Looks once more whether an act that was allowed may still happen, and does it. One that may have happened
/// before is never said not to have been done.
fn act(state: &State, rules: &Rules, id: &str, effect: &Effect, by: &str, now_ms: i64) -> Next {
    let mut next = leave_to_act(state, rules, id, effect, by, now_ms);
    for event in &mut next.record {
        if let Event::EffectDenied { why, .. } = event
            && effect.doubtful
        {
            *event = Event::EffectUnknown {
                effect: id.to_owned(),
                why: std::mem::take(why),
            };
        }
    }
    next
}

fn leave_to_act(
    state: &State,
    rules: &Rules,
    id: &str,
    effect: &Effect,
    by: &str,
    now_ms: i64,
) -> Next {
    if effect.retry_at_ms > now_ms {
        return later(effect.retry_at_ms);
    }
    if is_down(rules, effect) && now_ms < effect.at_ms + PATIENCE_MS {
        return later(now_ms + DOWN_MS);
    }
    if effect.attempts >= rules.policy.limits.effect_attempts {
        let why = "it could not be done, however often it was tried";
        return denied(id, "attempts", why);
    }
    if let Some((rule, why)) = stale(state, rules, effect) {
        return invalid(state, id, effect, rule, why);
    }
    if effect.attempts == 0
        && let Some((rule, why)) = gate::over(state, effect)
    {
        return denied(id, rule, &why);
    }
    let named = |kind: &str| by.strip_prefix(kind).filter(|it| !it.is_empty());
    let standing = named("standing:").map(str::to_owned);
    let approval = named("approval:").or(named("task:")).map(str::to_owned);
    // Further attempts are the same act, whose leave was used with the first.
    if effect.attempts == 0 {
        if named("approval:").is_some() {
            match state.approved.get(&effect.digest) {
                Some(grant) if grant.until_ms > now_ms => {}
                Some(_) => {
                    return invalid(state, id, effect, "expired", "the approval has run out");
                }
                None => return denied(id, "approval", "the approval was used up or taken back"),
            }
        }
        let stands = |id: &String| {
            let mut rules = rules.standing.iter();
            rules.any(|it| it.id == *id && it.stands(now_ms))
        };
        if standing.as_ref().is_some_and(|id| !stands(id)) {
            let why = "the standing approval was used up, has ended or was taken back";
            return denied(id, "standing", why);
        }
    }
    Next {
        commands: vec![Command::Act(Act {
            effect: id.to_owned(),
            attempt: effect.attempts + 1,
            approval,
            standing: standing.filter(|_| effect.attempts == 0),
        })],
        ..Next::default()
    }
}

/// How long an act waits for a server that is down, in milliseconds, and how long between two looks.
const PATIENCE_MS: i64 = 600_000;
const DOWN_MS: i64 = 2_000;

fn later(at_ms: i64) -> Next {
    Next {
        wake_at_ms: Some(at_ms),
        ..Next::default()
    }
}

/// Whether the server of an act's tool can not be reached just now.
fn is_down(rules: &Rules, effect: &Effect) -> bool {
    let server = effect.tool.split("__").next();
    let mut down = rules.offer.down.iter();
    effect.tool.contains("__") && down.any(|(name, _)| Some(name.as_str()) == server)
}

fn denied(id: &str, rule: &str, why: &str) -> Next {
    Next::record(Event::EffectDenied {
        effect: id.to_owned(),
        rule: rule.to_owned(),
        why: why.to_owned(),
    })
}

/// What has changed since an act was decided: its tool, or the policy.
fn stale(state: &State, rules: &Rules, effect: &Effect) -> Option<(&'static str, &'static str)> {
    let tools = gate::offered(state, rules);
    let tool = tools
        .iter()
        .find(|tool| tool.definition.name == effect.tool);
    let Some(tool) = tool else {
        let held = rules.offer.withheld.iter().any(|it| it.tool == effect.tool);
        let rule = if held { "pin" } else { "unknown_tool" };
        return Some((rule, "the tool has changed or is gone"));
    };
    if tool.pin != effect.pin {
        return Some(("pin", "the tool has changed since this was decided"));
    }
    let mut off = rules.policy.denied.iter();
    if off.any(|pattern| crate::brief::fits(pattern, &effect.tool)) {
        return Some(("policy", "the tool was switched off"));
    }
    let digest = super::approval_digest(
        state,
        &rules.policy.version,
        &effect.tool,
        effect.pin,
        &effect.arguments,
        &effect.destinations,
    );
    (effect.attempts == 0 && digest != effect.digest).then_some((
        "policy_version",
        "the policy has changed since this was decided",
    ))
}

/// An act may not happen any more: a request that granted it is void.
fn invalid(state: &State, id: &str, effect: &Effect, rule: &str, why: &str) -> Next {
    let mut record = Vec::new();
    if let Some(request) = effect
        .request
        .as_ref()
        .filter(|id| state.requests.contains_key(*id))
    {
        record.push(Event::ApprovalInvalidated {
            request: request.clone(),
            why: why.to_owned(),
        });
    }
    record.push(Event::EffectDenied {
        effect: id.to_owned(),
        rule: rule.to_owned(),
        why: why.to_owned(),
    });
    Next {
        record,
        ..Next::default()
    }
}

/// The end of an act was not seen: what its class says.
fn doubt(state: &State, rules: &Rules, id: &str, effect: &Effect, now_ms: i64) -> Next {
    let unknown = |why: &str| {
        Next::record(Event::EffectUnknown {
            effect: id.to_owned(),
            why: why.to_owned(),
        })
    };
    let tools = gate::offered(state, rules);
    let tool = tools
        .iter()
        .find(|tool| tool.definition.name == effect.tool);
    let again = || Next {
        commands: vec![Command::Act(Act {
            effect: id.to_owned(),
            attempt: effect.attempts + 1,
            approval: None,
            standing: None,
        })],
        ..Next::default()
    };
    if effect.retry_at_ms > now_ms {
        return later(effect.retry_at_ms);
    }
    if is_down(rules, effect) && now_ms < effect.committed_ms + PATIENCE_MS {
        return later(now_ms + DOWN_MS);
    }
    let mut off = rules.policy.denied.iter();
    if off.any(|pattern| crate::brief::fits(pattern, &effect.tool)) {
        return unknown("its tool was switched off before its end was seen");
    }
    let tired = effect.attempts >= rules.policy.limits.effect_attempts;
    match effect.class {
        Class::Read | Class::Workspace if tired => Next::record(Event::EffectFailed {
            effect: id.to_owned(),
            result: ending::said("It did not answer, however often it was tried.", true),
        }),
        Class::Read | Class::Workspace => again(),
        Class::Keyed => {
            let kept_s = tool.map_or(0, |tool| tool.manifest.key_kept_s);
            let kept_ms = i64::try_from(kept_s)
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000);
            match tool {
                Some(tool)
                    if tool.pin == effect.pin
                        && !tired
                        && now_ms < effect.first_committed_ms.saturating_add(kept_ms) =>
                {
                    again()
                }
                _ => unknown("its key is too old, its tool has changed, or it never answers"),
            }
        }
        Class::Probeable => {
            let probe = tool.and_then(|tool| tool.manifest.probe.as_ref());
            match probe {
                Some(_) if tired => unknown("it never answers, and looking for it told nothing"),
                Some(probe) => looked_for(id, effect, probe, now_ms),
                None => unknown("there is no way to look for it"),
            }
        }
        Class::Unkeyed => unknown("its end was not seen, and it can not be repeated safely"),
    }
}

/// Looks for an act, once what it did must show.
fn looked_for(id: &str, effect: &Effect, probe: &Probe, now_ms: i64) -> Next {
    let settle = i64::try_from(probe.settle_ms).unwrap_or(i64::MAX);
    let from = effect.committed_ms.saturating_add(settle);
    if now_ms < from {
        return later(from);
    }
    Next {
        commands: vec![Command::Probe(id.to_owned())],
        ..Next::default()
    }
}

/// A person must say what happened.
fn unknown(state: &State, id: &str, effect: &Effect, now_ms: i64) -> Next {
    let request = format!(
        "req-unknown-{}-{}",
        id.trim_start_matches("eff-"),
        effect.attempts
    );
    match state.requests.get(&request) {
        Some(request) if request.open => Next::default(),
        // It ran out: what is not known stays so, and is never done again by itself.
        Some(_) => Next::record(Event::EffectFailed {
            effect: id.to_owned(),
            result: ending::said("Whether this happened is not known; nobody has said.", true),
        }),
        None => Next::record(Event::ApprovalRequested {
            request,
            asking: Asking::Unknown,
            items: vec![Item {
                digest: effect.digest,
                effect: Some(id.to_owned()),
                tool: effect.tool.clone(),
                arguments: effect.arguments.clone(),
                preview: String::new(),
            }],
            why:
                "a crash or a lost connection hid its end: it happened, do it again, or give it up"
                    .to_owned(),
            expires_at_ms: now_ms + state.brief.approval_ms(),
        }),
    }
}

/// A step asks its owner.
fn question(state: &State, id: &str, effect: &Effect, now_ms: i64) -> Next {
    if effect.request.is_some() {
        return Next::default();
    }
    let text = |name: &str| effect.arguments.get(name).and_then(Value::as_str);
    let Some(question) = text("question").filter(|text| !text.trim().is_empty()) else {
        return Next::record(Event::EffectDenied {
            effect: id.to_owned(),
            rule: "arguments".to_owned(),
            why: "a question needs words".to_owned(),
        });
    };
    let choices = effect.arguments.get("choices").and_then(Value::as_array);
    let choices = choices.into_iter().flatten().filter_map(Value::as_str);
    Next::record(Event::InputRequested {
        request: format!("in-{}", id.trim_start_matches("eff-")),
        effect: id.to_owned(),
        question: question.to_owned(),
        choices: choices.map(str::to_owned).collect(),
        default: text("default").map(str::to_owned),
        expires_at_ms: now_ms + state.brief.approval_ms(),
    })
}
