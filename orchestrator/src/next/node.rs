//! The steps of a plan: which may run, and what each of them does next.

use serde_json::Value;

use crate::brief::Mode;
use crate::event::{Asking, Event, Gate, Item, Purpose, Status};
use crate::plan::{Node, OnFail, first_object};
use crate::state::{Effect, EffectPhase, NodePhase, NodeState, State, Turn};
use crate::tool::{Class, Verb};

use super::{ASK_USER, Act, Command, Next, Rules, ask, ending, gate, planning};

/// Answers of a step that may be of the wrong form before it fails.
const REPAIRS: u32 = 2;

/// What the steps of the plan do next.
pub(super) fn run(state: &State, rules: &Rules, now_ms: i64) -> Next {
    if state.brief.mode == Mode::PlanOnly || state.brief.autonomy.min(rules.policy.autonomy) == 0 {
        return Next::record(Event::Ended {
            status: Status::Completed,
            why: "the plan is the result".to_owned(),
        });
    }
    if let Some(event) = planning::approval(state, rules, now_ms) {
        return Next::record(event);
    }
    if planning::waits(state) {
        return Next::default();
    }
    if let Some(next) = failed(state, rules) {
        return next;
    }
    let mut all = Next::default();
    for node in &state.plan.nodes {
        let Some(at) = state.nodes.get(&node.id) else {
            continue;
        };
        match at.phase {
            NodePhase::Waiting => {
                if let Some(event) = may_start(state, node) {
                    return Next::record(event);
                }
            }
            NodePhase::Running => {
                let next = advance(state, rules, node, at, now_ms);
                if !next.record.is_empty() {
                    return next;
                }
                all.commands.extend(next.commands);
                if let Some(wake) = next.wake_at_ms {
                    all.wake(wake);
                }
            }
            NodePhase::Succeeded | NodePhase::Failed | NodePhase::Skipped => {}
        }
    }
    all.commands = apart(all.commands);
    all
}

/// One call at a time gets a number of its own; the others are asked for once it stands in the log.
fn apart(commands: Vec<Command>) -> Vec<Command> {
    let mut asked = false;
    let mut kept = Vec::with_capacity(commands.len());
    for command in commands {
        if matches!(command, Command::Ask(_)) {
            if asked {
                continue;
            }
            asked = true;
        }
        kept.push(command);
    }
    kept
}

/// What follows from a step that has failed for good.
fn failed(state: &State, rules: &Rules) -> Option<Next> {
    let mut nodes = state.plan.nodes.iter();
    let (node, at) = nodes.find_map(|node| {
        let at = state.nodes.get(&node.id)?;
        (at.phase == NodePhase::Failed).then_some((node, at))
    })?;
    let why = at.problem.clone().unwrap_or_default();
    if tries_again(node, at) {
        return Some(Next::record(Event::NodeStarted {
            node: node.id.clone(),
            attempt: at.attempt + 1,
        }));
    }
    let skip = || {
        let event = Event::NodeSkipped {
            node: node.id.clone(),
            why: why.clone(),
        };
        Some(Next::record(event))
    };
    match node.on_fail {
        OnFail::Skip => skip(),
        OnFail::Replan if others_run(state) => None,
        OnFail::Replan => {
            let why = format!("step {} failed: {why}", node.id);
            planning::replan(state, rules, &why).or_else(skip)
        }
        OnFail::Stop => {
            let why = format!("step {} failed: {why}", node.id);
            Some(ending::stop(state, rules, &why))
        }
    }
}

/// Whether a step that failed gets another attempt.
pub(super) fn tries_again(node: &Node, at: &NodeState) -> bool {
    at.phase == NodePhase::Failed && at.attempt < node.max_attempts
}

/// Whether other steps are under way: a plan is not changed below them.
fn others_run(state: &State) -> bool {
    state
        .nodes
        .values()
        .any(|node| node.phase == NodePhase::Running)
}

/// Starts a step whose time has come: what it depends on is over, few enough run, and none of them
/// changes what it changes.
fn may_start(state: &State, node: &Node) -> Option<Event> {
    let phase = |id: &String| state.nodes.get(id).map(|it| it.phase);
    let dead = node
        .depends_on
        .iter()
        .find(|id| phase(id) == Some(NodePhase::Skipped));
    if let Some(dead) = dead.filter(|_| node.depends_on.len() == 1) {
        return Some(Event::NodeSkipped {
            node: node.id.clone(),
            why: format!("it depends on {dead}, which was left out"),
        });
    }
    let over = node
        .depends_on
        .iter()
        .all(|id| matches!(phase(id), Some(NodePhase::Succeeded | NodePhase::Skipped)));
    let running: Vec<&Node> = state
        .plan
        .nodes
        .iter()
        .filter(|other| {
            state
                .nodes
                .get(&other.id)
                .is_some_and(|it| it.phase == NodePhase::Running)
        })
        .collect();
    let free = running.len() < state.plan.max_parallel;
    let clash = running
        .iter()
        .any(|other| other.writes.iter().any(|it| node.writes.contains(it)));
    (over && free && !clash).then(|| Event::NodeStarted {
        node: node.id.clone(),
        attempt: 1,
    })
}

/// What a running step does next.
fn advance(state: &State, rules: &Rules, node: &Node, at: &NodeState, now_ms: i64) -> Next {
    let failing = |class: &str, why: String| {
        let class = class.to_owned();
        Next::record(Event::NodeFailed {
            node: node.id.clone(),
            class,
            why,
        })
    };
    let compacting = Purpose::Compact {
        node: node.id.clone(),
    };
    if let Some((_, call)) = state.open_call(Some(&node.id)) {
        // It is under way; a compaction and a turn of one step never are at once.
        debug_assert!(call.end.is_none());
        return Next::default();
    }
    let Some(turn) = at.turns.last() else {
        return turn_of(state, rules, node, at, now_ms);
    };
    if turn.effects.len() < turn.uses.len() {
        return decide_next(state, rules, node, at, turn);
    }
    let open: Vec<(&String, &Effect)> = state.open_effects(&node.id).collect();
    if !open.is_empty() {
        return effects(state, rules, &open, now_ms);
    }
    if turn.uses.is_empty() && turn.remark.is_none() {
        return answered(node, at, turn, failing);
    }
    if at.turns.len() >= rules.policy.limits.turns {
        return failing(
            "turns",
            format!("it took {} turns without an end", at.turns.len()),
        );
    }
    if let Some(why) = ending::circles(state, &node.id) {
        return match at.warned {
            0 => Next::record(Event::LoopWarned {
                node: node.id.clone(),
                why: warning(&why),
            }),
            1 if ending::circles_on(state, &node.id, turn) => failing("no_progress", why),
            _ => turn_of(state, rules, node, at, now_ms),
        };
    }
    if let Some(event) = compacted(state, at, &node.id) {
        return Next::record(event);
    }
    if wants_compacting(state, rules, at, &node.id) {
        let ask = ask(state, rules, compacting, "compact", "fast", "summarise");
        return Next {
            commands: ask.map(Command::Ask).into_iter().collect(),
            ..Next::default()
        };
    }
    turn_of(state, rules, node, at, now_ms)
}

fn warning(why: &str) -> String {
    format!(
        "Notice from the runtime: {why}. Do something else, or end the step with what you have."
    )
}

/// Asks for the step's next turn.
fn turn_of(state: &State, rules: &Rules, node: &Node, at: &NodeState, now_ms: i64) -> Next {
    let mut next = Next::default();
    if at.failures >= rules.policy.limits.call_attempts {
        let mut calls = state.calls.values().rev();
        let last = calls.find(|call| call.purpose.node() == Some(&node.id));
        let why = last
            .and_then(|call| call.end.as_ref())
            .map(|end| end.why.clone());
        return Next::record(Event::NodeFailed {
            node: node.id.clone(),
            class: "model".to_owned(),
            why: why.unwrap_or_default(),
        });
    }
    if at.retry_at_ms > now_ms {
        next.wake(at.retry_at_ms);
        return next;
    }
    // A step whose answer was refused gets the better model for its second try.
    let wants = if at.refused > 0 || at.attempt > 1 {
        "deep"
    } else {
        node.kind.wants()
    };
    let purpose = Purpose::Node {
        node: node.id.clone(),
    };
    match ask(
        state,
        rules,
        purpose,
        node.kind.as_str(),
        wants,
        node.kind.step(),
    ) {
        Some(ask) => next.commands.push(Command::Ask(ask)),
        // Others still hold money that may come back.
        None if state.reserved() > crate::Usd::ZERO => {}
        None => next.record.push(Event::BudgetExhausted {
            what: "cost_usd".to_owned(),
        }),
    }
    next
}

/// Decides over the next tool that the last turn calls.
fn decide_next(state: &State, rules: &Rules, node: &Node, at: &NodeState, turn: &Turn) -> Next {
    let Some(wanted) = turn.uses.get(turn.effects.len()) else {
        return Next::default();
    };
    let ordinal = state
        .effects
        .values()
        .filter(|it| it.node == node.id)
        .count();
    let mut event = gate::judge(state, rules, node, at, wanted, ordinal);
    if turn.effects.len() >= rules.policy.limits.uses
        && let Event::EffectIntent { gate, .. } = &mut event
    {
        *gate = Gate::Denied {
            rule: "uses".to_owned(),
            why: format!("one turn calls at most {} tools", rules.policy.limits.uses),
        };
    }
    Next::record(event)
}

/// The step has said its last word: is it of the right form?
fn answered(
    node: &Node,
    at: &NodeState,
    turn: &Turn,
    failing: impl Fn(&str, String) -> Next,
) -> Next {
    let problem = match output_of(node, turn) {
        Ok(output) => {
            return Next::record(Event::NodeSucceeded {
                node: node.id.clone(),
                output,
            });
        }
        Err(problem) => problem,
    };
    if at.refused >= REPAIRS {
        return failing("output", problem);
    }
    Next::record(Event::NodeRefused {
        node: node.id.clone(),
        problem: format!(
            "Notice from the runtime: your answer can not be taken: {problem}. Answer again."
        ),
    })
}

fn output_of(node: &Node, turn: &Turn) -> Result<Value, String> {
    if turn.cut {
        return Err("it was cut at its longest length; be shorter".to_owned());
    }
    let Some(schema) = node.output_schema.as_ref().filter(|it| !it.is_null()) else {
        return if turn.text.trim().is_empty() {
            Err("it is empty".to_owned())
        } else {
            Ok(Value::String(turn.text.clone()))
        };
    };
    let array = turn.text.trim_start().starts_with('[');
    let text = if array {
        Some(turn.text.trim())
    } else {
        first_object(&turn.text)
    };
    let text = text.ok_or("it holds no JSON")?;
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    if wire::schema::admits(schema, &value) {
        Ok(value)
    } else {
        Err("it is not what output_schema asks for".to_owned())
    }
}

/// What the acts of a turn need next.
fn effects(state: &State, rules: &Rules, open: &[(&String, &Effect)], now_ms: i64) -> Next {
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

/// Looks once more whether an act that was allowed may still happen, and does it.
fn act(state: &State, rules: &Rules, id: &str, effect: &Effect, by: &str, now_ms: i64) -> Next {
    let deny = |rule: &str, why: &str| {
        Next::record(Event::EffectDenied {
            effect: id.to_owned(),
            rule: rule.to_owned(),
            why: why.to_owned(),
        })
    };
    if effect.attempts >= rules.policy.limits.effect_attempts {
        return deny(
            "attempts",
            "it could not be done, however often it was tried",
        );
    }
    let tools = gate::offered(state, rules);
    let Some(tool) = tools
        .iter()
        .find(|tool| tool.definition.name == effect.tool)
    else {
        let held = rules.offer.withheld.iter().any(|it| it.tool == effect.tool);
        let rule = if held { "pin" } else { "unknown_tool" };
        return invalid(state, id, effect, rule, "the tool has changed or is gone");
    };
    if tool.pin != effect.pin {
        return invalid(
            state,
            id,
            effect,
            "pin",
            "the tool has changed since this was decided",
        );
    }
    if rules
        .policy
        .denied
        .iter()
        .any(|pattern| crate::brief::fits(pattern, &effect.tool))
    {
        return invalid(state, id, effect, "policy", "the tool was switched off");
    }
    let digest = super::approval_digest(
        state,
        &rules.policy.version,
        &effect.tool,
        effect.pin,
        &effect.arguments,
        &effect.destinations,
    );
    let approval = by
        .strip_prefix("approval:")
        .filter(|it| !it.is_empty())
        .map(str::to_owned);
    let task_wide = by.strip_prefix("task:").map(str::to_owned);
    if approval.is_some() && effect.attempts == 0 {
        if digest != effect.digest {
            return invalid(
                state,
                id,
                effect,
                "policy_version",
                "the policy has changed since it was approved",
            );
        }
        match state.approved.get(&digest) {
            Some(grant) if grant.until_ms > now_ms => {}
            Some(_) => return invalid(state, id, effect, "expired", "the approval has run out"),
            None => return deny("approval", "the approval was used up or taken back"),
        }
    }
    let standing = by.strip_prefix("standing:").map(str::to_owned);
    if let Some(standing) = &standing
        && effect.attempts == 0
        && !rules
            .standing
            .iter()
            .any(|it| it.id == *standing && it.stands(now_ms))
    {
        return deny(
            "standing",
            "the standing approval was used up, has ended or was taken back",
        );
    }
    Next {
        commands: vec![Command::Act(Act {
            effect: id.to_owned(),
            attempt: effect.attempts + 1,
            approval: approval.or(task_wide),
            standing: standing.filter(|_| effect.attempts == 0),
        })],
        ..Next::default()
    }
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
                        && now_ms < effect.committed_ms.saturating_add(kept_ms) =>
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
                Some(probe) => {
                    let settle = i64::try_from(probe.settle_ms).unwrap_or(i64::MAX);
                    let from = effect.committed_ms.saturating_add(settle);
                    let mut next = Next::default();
                    if now_ms < from {
                        next.wake(from);
                    } else {
                        next.commands.push(Command::Probe(id.to_owned()));
                    }
                    next
                }
                None => unknown("there is no way to look for it"),
            }
        }
        Class::Unkeyed => unknown("its end was not seen, and it can not be repeated safely"),
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

/// Whether older turns should become notes: whole turns with their results, and never the last two.
fn wants_compacting(state: &State, rules: &Rules, at: &NodeState, node: &str) -> bool {
    let from = at.notes.as_ref().map_or(0, |(through, _)| *through);
    if at.turns.len() < from + 4 {
        return false;
    }
    let failed = state.calls.values().filter(|call| {
        call.end.as_ref().is_some_and(|end| !end.ok)
            && matches!(&call.purpose, Purpose::Compact { node: of } if of == node)
    });
    failed.count() < 2 && bytes_from(state, at, from) > rules.policy.limits.transcript_bytes
}

/// Bytes of a step's transcript from a turn on.
fn bytes_from(state: &State, at: &NodeState, from: usize) -> usize {
    let turns = at.turns.iter().skip(from);
    turns
        .map(|turn| {
            let uses: usize = turn.uses.iter().map(|it| it.arguments.len()).sum();
            let results = turn
                .effects
                .iter()
                .filter_map(|id| state.effects.get(id)?.result.as_ref());
            turn.text.len() + uses + results.map(|it| it.shown.len()).sum::<usize>()
        })
        .sum()
}

/// Notes that have come and are not taken yet.
fn compacted(state: &State, at: &NodeState, node: &str) -> Option<Event> {
    let mut calls = state.calls.iter().rev();
    let (number, call) = calls.find(|(_, call)| call.purpose.node() == Some(node))?;
    if !matches!(call.purpose, Purpose::Compact { .. }) {
        return None;
    }
    let end = call.end.as_ref().filter(|end| end.ok)?;
    let made = at
        .turns
        .iter()
        .take_while(|turn| turn.call < *number)
        .count();
    let through = made.saturating_sub(2);
    let known = at.notes.as_ref().map_or(0, |(through, _)| *through);
    (through > known).then(|| Event::ContextCompacted {
        node: node.to_owned(),
        through,
        notes: end.text.clone(),
    })
}
