//! May this act happen? Rules in the order of their weight: what denies wins, and nothing later loosens it.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::brief::fits;
use crate::digest::{Digest, canonical};
use crate::event::{Event, Gate, Item, ToolUse};
use crate::money::Usd;
use crate::plan::{Node, allows};
use crate::state::{Asked, Effect, NodeState, State};
use crate::tool::{Class, Definition, Manifest, Offered, Verb};

use super::{ARTIFACT_READ, ASK_USER, Rules, SKILL_LOAD, SKILL_READ, approval_digest};

/// What was decided over a tool that a model wants to call.
pub type Decided = Event;

/// The tools that a task may be offered: those of servers and of the workspace, and the runtime's own.
pub fn offered(state: &State, rules: &Rules) -> Vec<Offered> {
    let mut tools = rules.offer.tools.clone();
    tools.extend(own(state, rules));
    tools.sort_by(|one, other| one.definition.name.cmp(&other.definition.name));
    tools
}

/// The runtime's own tools.
fn own(state: &State, rules: &Rules) -> Vec<Offered> {
    let mut tools = vec![
        built_in(
            ASK_USER,
            "Ask the owner of the task. Only for what you can not find out yourself.",
            &json!({"type": "object", "properties": {
                "question": {"type": "string"},
                "choices": {"type": "array", "items": {"type": "string"}},
                "default": {"type": "string", "description": "the answer when nobody answers in time"}
            }, "required": ["question"]}),
        ),
        built_in(
            ARTIFACT_READ,
            "Read a part of a result that was too long to be shown whole.",
            &json!({"type": "object", "properties": {
                "handle": {"type": "string"},
                "from": {"type": "integer", "description": "the first byte, from 0"},
                "bytes": {"type": "integer", "description": "at most 8192"}
            }, "required": ["handle"]}),
        ),
    ];
    if !rules.skills.is_empty() || !state.skills.is_empty() {
        tools.push(built_in(
            SKILL_LOAD,
            "Open a skill: how to do something well.",
            &json!({"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}),
        ));
        tools.push(built_in(
            SKILL_READ,
            "Read a file of a skill.",
            &json!({"type": "object", "properties": {
                "name": {"type": "string"}, "file": {"type": "string"}
            }, "required": ["name", "file"]}),
        ));
    }
    tools
}

fn built_in(name: &str, description: &str, schema: &Value) -> Offered {
    let definition = Definition {
        name: name.to_owned(),
        server: String::new(),
        title: None,
        description: description.to_owned(),
        input_schema: schema.clone(),
        output_schema: None,
        annotations: None,
    };
    Offered {
        pin: definition.pin(),
        manifest: Manifest {
            verb: Verb::Retrieve,
            class: Class::Read,
            trusted: true,
            ..Manifest::unknown()
        },
        definition,
    }
}

/// The tools that a step is offered.
pub fn of_node(state: &State, rules: &Rules, node: &Node) -> Vec<Offered> {
    let ceiling = node.ceiling(&state.brief);
    let mut tools = offered(state, rules);
    tools.retain(|tool| {
        tool.manifest.verb <= ceiling
            && node.may_call(&state.brief, tool)
            && !rules
                .policy
                .denied
                .iter()
                .any(|pattern| fits(pattern, &tool.definition.name))
    });
    tools
}

/// Decides over a tool that a model wants to call in a step, as the event that says so.
pub fn judge(
    state: &State,
    rules: &Rules,
    node: &Node,
    at: &NodeState,
    wanted: &ToolUse,
    ordinal: usize,
) -> Decided {
    let tools = offered(state, rules);
    let tool = tools
        .iter()
        .find(|tool| tool.definition.name == wanted.name);
    let arguments = arguments(&wanted.arguments);
    let fallback = built_in(&wanted.name, "", &Value::Null);
    let shown = tool.unwrap_or(&fallback);
    let item = item(
        state,
        rules,
        shown,
        arguments.as_ref().unwrap_or(&Value::Null),
        None,
    );
    let gate = match (tool, &arguments) {
        (None, _) => missing(rules, &wanted.name),
        (_, Err(why)) => denied("arguments", why.clone()),
        (Some(tool), Ok(arguments)) => decide(state, rules, node, at, tool, &item, arguments),
    };
    let effect = effect_id(state, &node.id, ordinal);
    let tainted = taints(state, rules, shown, &item.arguments);
    let manifest = &shown.manifest;
    Event::EffectIntent {
        key: key(rules, state, &effect),
        effect,
        node: node.id.clone(),
        use_id: wanted.id.clone(),
        tool: wanted.name.clone(),
        pin: shown.pin,
        destinations: destinations(manifest, &item.arguments),
        arguments: item.arguments,
        class: manifest.class,
        verb: manifest.verb,
        tainted,
        digest: item.digest,
        cost: cost(manifest),
        gate,
    }
}

fn denied(rule: &str, why: impl Into<String>) -> Gate {
    Gate::Denied {
        rule: rule.to_owned(),
        why: why.into(),
    }
}

fn missing(rules: &Rules, name: &str) -> Gate {
    let withheld = rules.offer.withheld.iter().find(|it| it.tool == name);
    match withheld {
        Some(it) => denied(
            "pin",
            format!(
                "{name} has changed ({}) and must be accepted anew",
                it.changed.join(", ")
            ),
        ),
        None => denied("unknown_tool", format!("there is no tool {name}")),
    }
}

/// The order of reference: policy, deny rules, brief and verb, egress, caps, taint, autonomy, approvals.
fn decide(
    state: &State,
    rules: &Rules,
    node: &Node,
    at: &NodeState,
    tool: &Offered,
    item: &Item,
    arguments: &Value,
) -> Gate {
    let name = &tool.definition.name;
    if rules
        .policy
        .denied
        .iter()
        .any(|pattern| fits(pattern, name))
    {
        return denied("policy", format!("{name} is switched off here"));
    }
    if !allows(&state.brief, tool) {
        return denied("brief", format!("the brief does not allow {name}"));
    }
    if !node.may_call(&state.brief, tool) {
        return denied("plan", format!("this step was not given {name}"));
    }
    let verb = tool.manifest.verb;
    if verb > node.ceiling(&state.brief) || (verb == Verb::Execute && rules.policy.autonomy < 2) {
        return denied(
            "verb",
            format!("{name} acts on the world, and this step may not"),
        );
    }
    if let Some(name) = unnamed(tool, arguments) {
        return denied(
            "arguments",
            format!("{} takes no argument `{name}`", tool.definition.name),
        );
    }
    if let Some(why) = leaks(rules, arguments) {
        return denied("egress", why);
    }
    if let Some(why) = done_before(state, node, at, tool, arguments) {
        return denied("done_before", why);
    }
    if let Some(gate) = capped(state, tool) {
        return gate;
    }
    if !asks(state, rules, tool, item, at.tainted) {
        return Gate::Allowed {
            by: allowed_by(tool.manifest.verb),
        };
    }
    leave(state, rules, tool, item, at.tainted)
}

/// Whether a request was about the tool as it is now.
fn approved_pin(state: &State, request: &str, tool: &Offered) -> bool {
    let what = state.requests.get(request).map(|it| &it.what);
    let Some(Asked::Approval { items, .. }) = what else {
        return false;
    };
    let mut effects = items
        .iter()
        .filter_map(|it| state.effects.get(it.effect.as_ref()?));
    effects.any(|it| it.tool == tool.definition.name && it.pin == tool.pin)
}

/// Whether somebody has said yes already: to just this act, to its kind in this task, or for good.
fn leave(state: &State, rules: &Rules, tool: &Offered, item: &Item, tainted: bool) -> Gate {
    let by = |by: String| Gate::Allowed { by };
    let grant = state.approved.get(&item.digest);
    if let Some(grant) = grant.filter(|grant| grant.until_ms > rules.now_ms) {
        return by(format!("approval:{}", grant.request));
    }
    let places = destinations(&tool.manifest, &item.arguments);
    let kind = (item.tool.clone(), places);
    let request = state.approved_kinds.get(&kind);
    if let Some(request) = request.filter(|id| approved_pin(state, id, tool)) {
        return by(format!("task:{request}"));
    }
    let mut standing = rules.standing.iter();
    match standing.find(|it| it.covers(state, tool, &item.arguments)) {
        Some(standing) => by(format!("standing:{}", standing.id)),
        None => Gate::Ask {
            why: why_ask(state, rules, tool, tainted),
        },
    }
}

/// An attempt at a step begins without the transcript of the one before, so its model may want to act again
/// as that did. What was done stays done: it is told instead, with what it gave.
fn done_before(
    state: &State,
    node: &Node,
    at: &NodeState,
    tool: &Offered,
    arguments: &Value,
) -> Option<String> {
    let acts_outside = !tool.definition.server.is_empty() && tool.manifest.verb >= Verb::Draft;
    if at.attempt < 2 || !acts_outside {
        return None;
    }
    let name = &tool.definition.name;
    let done = crate::context::done_before(state, node, at);
    let (_, same) = done
        .into_iter()
        .find(|(_, it)| it.tool == *name && it.arguments == *arguments)?;
    let gave = same.result.as_ref().map_or("", |it| it.shown.as_str());
    Some(format!(
        "an earlier attempt at this step has done just that, and it gave: {gave}"
    ))
}

fn allowed_by(verb: Verb) -> String {
    match verb {
        Verb::Retrieve => "it only looks".to_owned(),
        Verb::Draft => "it only drafts".to_owned(),
        Verb::Execute => "autonomy".to_owned(),
    }
}

/// What of the brief's bounds an act that was allowed would break now, others having come before it.
pub(super) fn over(state: &State, effect: &Effect) -> Option<(&'static str, String)> {
    if effect.verb == Verb::Execute
        && state.acts() >= usize::try_from(state.brief.budget.effects).unwrap_or(usize::MAX)
    {
        return Some(("effects", "the brief allows no more acts".to_owned()));
    }
    let looks = state.effects.values().filter(|it| it.attempts > 0).count();
    if looks >= usize::try_from(state.brief.budget.tool_calls).unwrap_or(usize::MAX) {
        return Some((
            "tool_calls",
            "the brief allows no more tool calls".to_owned(),
        ));
    }
    let left = state.left().filter(|left| effect.cost > *left)?;
    let why = format!("it costs {} USD, and {left} are left", effect.cost);
    Some(("budget", why))
}

fn capped(state: &State, tool: &Offered) -> Option<Gate> {
    let looks = state.effects.values().filter(|it| it.attempts > 0).count();
    if looks >= usize::try_from(state.brief.budget.tool_calls).unwrap_or(usize::MAX) {
        return Some(denied("tool_calls", "the brief allows no more tool calls"));
    }
    let acts = usize::try_from(state.brief.budget.effects).unwrap_or(usize::MAX);
    if tool.manifest.verb == Verb::Execute && state.acts() >= acts {
        return Some(denied("effects", "the brief allows no more acts"));
    }
    let cost = cost(&tool.manifest);
    let left = state.left().filter(|left| cost > *left)?;
    Some(denied(
        "budget",
        format!("it costs {cost} USD, and {left} are left"),
    ))
}

/// Whether a person must say yes, leaving aside what was said before.
pub(super) fn asks(
    state: &State,
    rules: &Rules,
    tool: &Offered,
    item: &Item,
    tainted: bool,
) -> bool {
    let manifest = &tool.manifest;
    let destinations = destinations(manifest, &item.arguments);
    // Models read descriptions, results and files of servers: a destination is free only where the owner or
    // the owner's own records name it.
    if !destinations.is_empty() && !are_owners(state, &destinations) {
        return true;
    }
    if manifest.verb < Verb::Execute {
        return manifest.always_ask;
    }
    let autonomy = state.brief.autonomy.min(rules.policy.autonomy);
    manifest.always_ask
        || tainted
        || autonomy < 3
        || above_thresholds(state, rules, manifest, &destinations)
}

fn above_thresholds(
    state: &State,
    rules: &Rules,
    manifest: &Manifest,
    destinations: &[String],
) -> bool {
    let most = &state.brief.approval.thresholds;
    let dear = most.cost_usd.is_some_and(|most| cost(manifest) > most);
    let many = most
        .recipients
        .is_some_and(|most| destinations.len() > usize::try_from(most).unwrap_or(usize::MAX));
    let place = |label: &Option<String>| {
        let label = label.as_ref()?;
        rules.policy.labels.iter().position(|known| known == label)
    };
    let secret = match (place(&most.label), place(&state.brief.routing.max_label)) {
        (Some(from), Some(own)) => own >= from,
        _ => most.label.is_some() && most.label == state.brief.routing.max_label,
    };
    dear || many || secret
}

fn why_ask(state: &State, rules: &Rules, tool: &Offered, tainted: bool) -> String {
    let manifest = &tool.manifest;
    if tainted {
        "this step has read text that nobody vouches for, and this goes somewhere or acts"
            .to_owned()
    } else if manifest.always_ask {
        "this tool always asks".to_owned()
    } else if state.brief.autonomy.min(rules.policy.autonomy) < 3 && manifest.verb == Verb::Execute
    {
        "acts are approved at this level of autonomy".to_owned()
    } else {
        "it is above a threshold of the brief, or goes where the brief does not say".to_owned()
    }
}

/// Whether every destination stands, as a whole word, in what the owner has said.
fn are_owners(state: &State, destinations: &[String]) -> bool {
    let text = state.trusted_text().to_lowercase();
    destinations.iter().all(|destination| {
        let wanted = destination.trim().to_lowercase();
        !wanted.is_empty() && stands_in(&text, &wanted)
    })
}

/// Whether `word` stands in `text` and is no piece of a longer one.
fn stands_in(text: &str, word: &str) -> bool {
    let part = |c: char| {
        c.is_alphanumeric()
            || matches!(
                c,
                '@' | '.' | '-' | '_' | '/' | ':' | '%' | '+' | '?' | '=' | '&' | '#'
            )
    };
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|it| it.chars().next_back());
        let mut after = text.get(at + word.len()..).unwrap_or_default().chars();
        // A full stop or colon may end the sentence behind it.
        let behind = match after.next() {
            Some('.' | ':' | '?') => after.next(),
            other => other,
        };
        !before.is_some_and(part) && !behind.is_some_and(part)
    })
}

/// What of the arguments must not leave.
fn leaks(rules: &Rules, arguments: &Value) -> Option<String> {
    let text = canonical(arguments);
    let bare: String = text.chars().filter(|c| c.is_alphanumeric()).collect();
    let found = rules.policy.canaries.iter().find(|canary| {
        let plain: String = canary.chars().filter(|c| c.is_alphanumeric()).collect();
        text.contains(canary.as_str()) || (plain.len() >= 8 && bare.contains(&plain))
    });
    if found.is_some() {
        return Some("its arguments hold a text that must not leave".to_owned());
    }
    let secret = ["sk-par-", "sk-ant-", "sk-proj-", "-----BEGIN "];
    let found = secret.iter().find(|mark| text.contains(**mark));
    found.map(|mark| format!("its arguments look as if they held a key ({mark}...)"))
}

/// Whether what comes back is text that nobody vouches for.
fn taints(state: &State, rules: &Rules, tool: &Offered, arguments: &Value) -> bool {
    let name = tool.definition.name.as_str();
    if !tool.definition.server.is_empty() || name == "http_fetch" {
        return !tool.manifest.trusted;
    }
    if name == SKILL_LOAD || name == SKILL_READ {
        let named = arguments.get("name").and_then(Value::as_str);
        let skill = rules
            .skills
            .iter()
            .find(|skill| Some(skill.name.as_str()) == named);
        return skill.is_none_or(|skill| !skill.trusted);
    }
    // The workspace and left-out parts hold what steps have put there.
    let holds = name.starts_with("fs_") || name.starts_with("document_") || name == ARTIFACT_READ;
    holds && state.nodes.values().any(|node| node.tainted)
}

/// Arguments that the tool does not name: a place to carry something out by.
fn unnamed(tool: &Offered, arguments: &Value) -> Option<String> {
    let schema = &tool.definition.input_schema;
    let named = schema.get("properties")?.as_object()?;
    let open = schema.get("additionalProperties");
    if open.is_some_and(|open| open.as_bool() != Some(false)) {
        return None;
    }
    let mut given = arguments.as_object()?.keys();
    given.find(|name| !named.contains_key(*name)).cloned()
}

/// An act as a person sees it.
pub(super) fn item(
    state: &State,
    rules: &Rules,
    tool: &Offered,
    arguments: &Value,
    effect: Option<String>,
) -> Item {
    let destinations = destinations(&tool.manifest, arguments);
    let name = &tool.definition.name;
    let digest = approval_digest(
        state,
        &rules.policy.version,
        name,
        tool.pin,
        arguments,
        &destinations,
    );
    Item {
        digest,
        effect,
        tool: name.clone(),
        arguments: arguments.clone(),
        preview: in_words(tool, arguments),
    }
}

/// The act in words, made by code: what the manifest names first, then everything else.
pub fn in_words(tool: &Offered, arguments: &Value) -> String {
    let mut text = tool
        .definition
        .title
        .clone()
        .unwrap_or_else(|| tool.definition.name.clone());
    let Some(fields) = arguments.as_object() else {
        return text;
    };
    let first = tool.manifest.preview.iter();
    let rest = fields
        .keys()
        .filter(|name| !tool.manifest.preview.contains(name));
    for name in first.chain(rest) {
        if let Some(value) = fields.get(name) {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let value = crate::event::cut_at(&value, 2_000);
            let _written = write!(text, "\n{name}: {value}");
        }
    }
    text
}

/// Where a call goes, by the arguments that its manifest names; lists and objects are looked through.
pub(super) fn destinations(manifest: &Manifest, arguments: &Value) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
            Value::Object(fields) => fields.values().for_each(|item| collect(item, found)),
            Value::Null => {}
            other => found.push(other.to_string()),
        }
    }
    let mut found = Vec::new();
    for name in &manifest.destinations {
        if let Some(value) = arguments.get(name) {
            collect(value, &mut found);
        }
    }
    found.sort();
    found.dedup();
    found
}

/// The deepest value of a model's that a log takes: events hold it some levels deeper, and readers stop at
/// 128.
const DEEPEST: usize = 48;

/// Whether a value is not nested deeper than a log can hold.
pub fn is_shallow(value: &Value) -> bool {
    fn within(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(items) => left > 0 && items.iter().all(|it| within(it, left - 1)),
            Value::Object(fields) => left > 0 && fields.values().all(|it| within(it, left - 1)),
            _ => true,
        }
    }
    within(value, DEEPEST)
}

fn arguments(text: &str) -> Result<Value, String> {
    let text = if text.trim().is_empty() { "{}" } else { text };
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) if is_shallow(&value) => Ok(value),
        Ok(Value::Object(_)) => Err("the arguments are nested too deeply".to_owned()),
        Ok(_) => Err("the arguments are no object".to_owned()),
        Err(error) => Err(format!("the arguments are no JSON: {error}")),
    }
}

fn cost(manifest: &Manifest) -> Usd {
    let cost = manifest.cost_usd.as_deref();
    cost.and_then(|text| Usd::parse(text).ok())
        .unwrap_or(Usd::ZERO)
}

/// The name of a step's next act: the same however often it is worked out.
fn effect_id(state: &State, node: &str, ordinal: usize) -> String {
    let task = state.id.to_string();
    let number = u64::try_from(ordinal).unwrap_or(u64::MAX).to_be_bytes();
    let digest = Digest::of_parts(&[task.as_bytes(), node.as_bytes(), &number]);
    format!("eff-{}", digest.short())
}

/// The idempotency key of an act.
fn key(rules: &Rules, state: &State, effect: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&rules.secret) else {
        return effect.to_owned();
    };
    mac.update(state.id.to_string().as_bytes());
    mac.update(effect.as_bytes());
    let bytes: [u8; 32] = mac.finalize().into_bytes().into();
    Digest::from(bytes).to_string().chars().take(32).collect()
}
