//! The steps of a plan: which may run, and what each of them does next.

use serde_json::Value;

use crate::brief::Mode;
use crate::event::{Event, Gate, Purpose, Status};
use crate::plan::{Node, OnFail, first_object};
use crate::state::{Effect, NodePhase, NodeState, State, Turn};

use super::{Command, Next, Rules, ask, compact, effects, ending, gate, planning};

/// Answers of a step that may be of the wrong form before it fails.
const REPAIRS: u32 = 2;

/// What the steps of the plan do next.
pub(super) fn run(state: &State, rules: &Rules, now_ms: i64) -> Next {
    if state.brief.mode == Mode::PlanOnly || state.brief.autonomy == 0 {
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
        return effects::effects(state, rules, &open, now_ms);
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
    if let Some(event) = compact::compacted(state, at, &node.id) {
        return Next::record(event);
    }
    if compact::wants_compacting(state, rules, at, &node.id) {
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
    if wire::schema::admits(schema, &value) && gate::is_shallow(&value) {
        Ok(value)
    } else {
        Err("it is not what output_schema asks for".to_owned())
    }
}
