//! A task as callers and pages see it: JSON, all of it worked out from the log.

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::event::{Gate, Item, Purpose, Status, cut_at};
use crate::money::Usd;
use crate::next::{gate_of, is_busy};
use crate::state::{Asked, Effect, EffectPhase, NodePhase, Request, State};
use crate::tool::{Offered, Verb};

/// What lists show.
pub fn summary(state: &State) -> Value {
    let nodes = state.nodes.values();
    let over = nodes.clone().filter(|it| it.phase.is_over()).count();
    let checks = &state.brief.definition_of_done;
    let passed = checks
        .iter()
        .filter(|it| state.checks.get(&it.id).is_some_and(|at| at.passed))
        .count();
    json!({
        "id": state.id,
        "object": "task",
        "objective": cut_at(&state.brief.objective, 300),
        "status": state.status(),
        "phase": phase(state),
        "waiting_on": waiting_on(state),
        "activity": activity(state),
        "tenant": state.caller.tenant,
        "key": state.caller.key,
        "owner": owner(state),
        "labels": state.brief.labels,
        "cost_centre": state.brief.cost_centre,
        "schedule": state.schedule,
        "parent": state.brief.parent,
        "progress": {
            "checks_passed": passed, "checks_total": checks.len(),
            "nodes_done": over, "nodes_total": state.plan.nodes.len(),
        },
        "usage": usage(state),
        "created_at_ms": state.created_ms,
        "started_at_ms": state.started_ms,
        "ended_at_ms": state.ended.as_ref().map(|(_, _, at)| at),
        "last_seq": state.head.seq,
    })
}

/// Who answers for it.
fn owner(state: &State) -> String {
    state
        .brief
        .owner
        .clone()
        .unwrap_or_else(|| state.caller.actor())
}

fn phase(state: &State) -> &'static str {
    if state.ended.is_some() {
        "ended"
    } else if state.exhausted.is_some() || state.cancel.is_some() {
        "finalising"
    } else if !state.is_planned() {
        "planning"
    } else if state.nodes.values().all(|it| it.phase.is_over()) {
        "verifying"
    } else {
        "executing"
    }
}

fn waiting_on(state: &State) -> Option<&'static str> {
    if state.ended.is_some() {
        return None;
    }
    if state.paused.is_some() {
        return Some("operator");
    }
    let open = state.requests.values().find(|request| request.open)?;
    Some(match &open.what {
        Asked::Input { .. } => "input",
        Asked::Approval {
            asking: crate::event::Asking::Budget,
            ..
        } => "budget",
        Asked::Approval { .. } => "approval",
    })
}

fn activity(state: &State) -> &'static str {
    let acting = state
        .effects
        .values()
        .any(|it| it.phase == EffectPhase::Committed);
    if state.ended.is_some() {
        "ended"
    } else if acting {
        "acting"
    } else if is_busy(state) {
        "thinking"
    } else {
        "waiting"
    }
}

/// What it used: money in decimal USD, calls by tier.
pub fn usage(state: &State) -> Value {
    let mut tiers: Map<String, Value> = Map::new();
    for tier in ["fast", "deep"] {
        let mine = state.calls.values().filter_map(|call| call.end.as_ref());
        let mine: Vec<_> = mine.filter(|end| end.tier == tier).collect();
        let cost = mine.iter().fold(Usd::ZERO, |sum, end| sum + end.cost);
        let input: u64 = mine.iter().map(|end| end.tokens.0).sum();
        let output: u64 = mine.iter().map(|end| end.tokens.1).sum();
        let figures = json!({ "calls": mine.len(), "cost_usd": cost, "input_tokens": input, "output_tokens": output });
        tiers.insert(tier.to_owned(), figures);
    }
    let models = state.calls.values().filter_map(|call| call.end.as_ref());
    let models = models.fold(Usd::ZERO, |sum, end| sum + end.cost);
    json!({
        "cost_usd": state.spent,
        "models_usd": models,
        "tools_usd": state.spent - models,
        "reserved_usd": state.reserved(),
        "budget_usd": state.limit(),
        "model_calls": state.calls.len(),
        "tool_calls": state.effects.values().filter(|it| it.attempts > 0).count(),
        "effects": state.acts(),
        "by_tier": tiers,
        "runtime_ms": state.ended.as_ref().map_or(state.updated_ms, |(_, _, at)| *at) - state.created_ms,
    })
}

/// The whole task.
pub fn task(state: &State) -> Value {
    let mut whole = summary(state);
    let open = state.requests.iter().filter(|(_, it)| it.open);
    let required: Vec<Value> = open
        .map(|(id, it)| crate::commit::request_body(state, id, it))
        .collect();
    let more = json!({
        "brief": state.brief,
        "plan": plan(state),
        "required_actions": required,
        "checks": checks(state),
        "artifacts": artifacts(state),
        "effects_summary": effects_summary(state),
        "result": result(state),
        "error": error(state),
        "policy_version": state.policy,
        "skill_pins": state.skills,
        "etag": state.head.hash.short(),
    });
    if let (Some(whole), Some(more)) = (whole.as_object_mut(), more.as_object()) {
        whole.extend(more.clone());
    }
    whole
}

/// The plan with how each step stands, what it asked of models and what that cost.
pub fn plan(state: &State) -> Value {
    let nodes: Vec<Value> = state.plan.nodes.iter().map(|node| {
        let at = state.nodes.get(&node.id);
        let calls = state.calls.values().filter(|call| call.purpose.node() == Some(&node.id));
        let ends: Vec<_> = calls.filter_map(|call| call.end.as_ref()).collect();
        let cost = ends.iter().fold(Usd::ZERO, |sum, end| sum + end.cost);
        let mut models: Vec<String> = ends.iter().filter(|end| !end.model.is_empty())
            .map(|end| format!("{} ({})", end.model, end.tier)).collect();
        models.sort();
        models.dedup();
        let effects = state.effects.values().filter(|it| it.node == node.id).count();
        json!({
            "id": node.id, "kind": node.kind, "title": node.title, "depends_on": node.depends_on,
            "accept": node.accept, "tools": node.tools,
            "status": at.map_or("waiting", |at| at.phase.as_str()),
            "attempt": at.map_or(0, |at| at.attempt),
            "problem": at.and_then(|at| at.problem.clone()),
            "tainted": at.is_some_and(|at| at.tainted),
            "asks_for": wanted(state, node.kind),
            "models": models, "calls": ends.len(), "tool_calls": effects, "cost_usd": cost,
            "output": at.and_then(|at| at.output.as_ref()).map(|output| {
                let whole = output.as_str().map_or_else(|| output.to_string(), str::to_owned);
                cut_at(&whole, 2_000).to_owned()
            }),
        })
    }).collect();
    json!({
        "rev": state.plan.rev, "max_parallel": state.plan.max_parallel, "nodes": nodes,
        "revisions": state.past_plans.len(), "overhead": overhead(state),
    })
}

fn wanted(state: &State, kind: crate::plan::NodeKind) -> String {
    let asked = state.brief.routing.overrides.get(kind.as_str());
    let asked = asked.or(state.brief.routing.mode.as_ref());
    asked.map_or_else(|| kind.wants().to_owned(), Clone::clone)
}

/// Calls that belong to no step: planning, judging, closing.
fn overhead(state: &State) -> Vec<Value> {
    let own = state
        .calls
        .values()
        .filter(|call| !matches!(call.purpose, Purpose::Node { .. } | Purpose::Compact { .. }));
    own.filter_map(|call| {
        let end = call.end.as_ref()?;
        Some(json!({ "purpose": call.purpose, "model": end.model, "tier": end.tier, "cost_usd": end.cost, "problem": end.why }))
    }).collect()
}

/// Every act and look.
pub fn effects(state: &State) -> Value {
    let all: Vec<Value> = state
        .effects
        .iter()
        .map(|(id, effect)| one(state, id, effect))
        .collect();
    json!({ "object": "list", "data": all })
}

fn one(state: &State, id: &str, effect: &Effect) -> Value {
    let request = effect.request.as_ref();
    let decided = request.and_then(|id| state.requests.get(id));
    json!({
        "id": id, "node": effect.node, "tool": effect.tool, "verb": effect.verb, "class": effect.class,
        "arguments": effect.arguments, "destinations": effect.destinations, "status": effect.phase.as_str(),
        "attempts": effect.attempts, "tainted": effect.tainted, "digest": effect.digest, "pin": effect.pin,
        "idempotency_key": effect.key, "cost_usd": effect.cost, "decision": effect.gate,
        "request": effect.request, "decided": decided.map(|it| &it.end).filter(|end| !end.is_empty()),
        "at_ms": effect.at_ms, "committed_at_ms": effect.committed_ms, "ended_at_ms": effect.ended_ms,
        "result": effect.result.as_ref().map(|it| json!({
            "text": cut_at(&it.shown, 4_000), "is_error": it.is_error, "bytes": it.bytes, "blob": it.whole,
        })),
    })
}

fn effects_summary(state: &State) -> Value {
    let mut by: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    for effect in state.effects.values().filter(|it| it.verb == Verb::Execute) {
        *by.entry(effect.phase.as_str()).or_default() += 1;
    }
    json!(by)
}

fn artifacts(state: &State) -> Vec<Value> {
    state
        .artifacts
        .iter()
        .map(|(name, it)| {
            json!({
                "name": name, "sha256": it.sha256, "bytes": it.bytes, "made_by": it.node,
            })
        })
        .collect()
}

/// Each check of the brief as it was last looked at; `passed` is null where it was not.
fn checks(state: &State) -> Vec<Value> {
    let checks = state.brief.definition_of_done.iter();
    let one = |check: &crate::brief::Check| {
        let at = state.checks.get(&check.id);
        json!({ "id": check.id, "passed": at.map(|at| at.passed), "evidence": at.map(|at| &at.evidence) })
    };
    checks.map(one).collect()
}

fn result(state: &State) -> Option<Value> {
    let (status, why, _) = state.ended.as_ref()?;
    let checks: Vec<Value> = state
        .brief
        .definition_of_done
        .iter()
        .map(|check| {
            let at = state.checks.get(&check.id);
            json!({
                "id": check.id, "passed": at.is_some_and(|at| at.passed),
                "evidence": at.map(|at| at.evidence.clone()),
            })
        })
        .collect();
    let undone = state.plan.nodes.iter().filter(|node| {
        state
            .nodes
            .get(&node.id)
            .is_none_or(|at| at.phase != NodePhase::Succeeded)
    });
    let undone: Vec<&String> = undone.map(|node| &node.id).collect();
    let last = state
        .plan
        .nodes
        .iter()
        .rev()
        .find_map(|node| state.nodes.get(&node.id)?.output.as_ref());
    Some(json!({
        "outcome": status, "why": why, "checks": checks, "not_done": undone,
        "summary": state.summary, "output": last,
    }))
}

fn error(state: &State) -> Option<Value> {
    let (status, why, _) = state.ended.as_ref()?;
    let wrong = matches!(
        status,
        Status::Failed | Status::Incomplete | Status::Rejected
    );
    wrong.then(|| json!({ "class": status, "message": why, "event_seq": state.head.seq }))
}

/// An act of a request: what a person sees before they say yes.
pub fn item(state: &State, item: &Item) -> Value {
    let effect = item.effect.as_ref().and_then(|id| state.effects.get(id));
    json!({
        "digest": item.digest, "effect": item.effect, "tool": item.tool, "arguments": item.arguments,
        "preview": if item.preview.is_empty() { words(&item.tool, &item.arguments) } else { item.preview.clone() },
        "class": effect.map(|it| it.class), "verb": effect.map(|it| it.verb),
        "destinations": effect.map(|it| it.destinations.clone()),
        "node": effect.map(|it| it.node.clone()),
        "cost_usd": effect.map(|it| it.cost),
        "tainted": effect.is_some_and(|it| state.nodes.get(&it.node).is_some_and(|at| at.tainted)),
        "attempts": effect.map(|it| it.attempts),
    })
}

fn words(tool: &str, arguments: &Value) -> String {
    let definition = crate::tool::Definition {
        name: tool.to_owned(),
        server: String::new(),
        title: None,
        description: String::new(),
        input_schema: Value::Null,
        output_schema: None,
        annotations: None,
    };
    let offered = Offered {
        pin: Digest::default(),
        manifest: crate::tool::Manifest::unknown(),
        definition,
    };
    gate_of::in_words(&offered, arguments)
}

/// The digest that a decision about a request must give back: over all of its items.
pub fn digest_of(request: &Request) -> Digest {
    match &request.what {
        Asked::Approval { items, why, .. } => {
            let digests: Vec<&[u8]> = items
                .iter()
                .map(|item| item.digest.bytes().as_slice())
                .collect();
            let mut parts = vec![why.as_bytes()];
            parts.extend(digests);
            Digest::of_parts(&parts)
        }
        Asked::Input { question, .. } => Digest::of(question.as_bytes()),
    }
}

/// Why each call went where it went, and why each act was done or not.
pub fn explain(state: &State) -> Value {
    let calls: Vec<Value> = state.calls.iter().map(|(number, call)| {
        let end = call.end.as_ref();
        json!({
            "call": number, "purpose": call.purpose, "asked": call.asked, "request": call.request,
            "at_ms": call.at_ms,
            "model": end.map(|it| &it.model), "tier": end.map(|it| &it.tier), "route": end.map(|it| &it.route),
            "cost_usd": end.map(|it| it.cost), "reserved_usd": call.reserved, "ms": end.map(|it| it.ms),
            "input_tokens": end.map(|it| it.tokens.0), "output_tokens": end.map(|it| it.tokens.1),
            "problem": end.map(|it| &it.why).filter(|why| !why.is_empty()), "lost": end.is_some_and(|it| it.lost),
        })
    }).collect();
    let acts: Vec<Value> = state.effects.iter().map(|(id, it)| {
        let (word, why) = match &it.gate {
            Gate::Allowed { by } => ("allowed", by),
            Gate::Ask { why } => ("asked", why),
            Gate::Denied { why, .. } => ("denied", why),
        };
        json!({ "effect": id, "tool": it.tool, "decision": word, "why": why, "status": it.phase.as_str() })
    }).collect();
    json!({ "task": state.id, "calls": calls, "effects": acts, "loop": state.notices })
}
