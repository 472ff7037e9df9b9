//! What a task has under way outside: calls of models and tools, looks at what they left.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde_json::Value;

use crate::check::Files;
use crate::event::{Event, Stored, cut_at, shown};
use crate::model::Answer;
use crate::next::{ARTIFACT_READ, Command, Rules, SKILL_LOAD, SKILL_READ, gate_of};
use crate::state::{Effect, State};
use crate::tool::{Class, Outcome, Probe, ToolCall, ToolResult, Until};

use super::{Lease, Ports};

/// What goes by one name is under way at most once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Call(u64),
    Act(String),
    Check,
}

impl Name {
    pub(super) fn of(command: &Command) -> Self {
        match command {
            Command::Ask(ask) => Self::Call(ask.call),
            Command::Act(act) => Self::Act(act.effect.clone()),
            Command::Probe(effect) => Self::Act(effect.clone()),
            Command::Check => Self::Check,
        }
    }
}

/// What came of one.
pub(super) enum Done {
    Answered(u64, Box<Answer>),
    Acted(String, Outcome),
    Probed(Box<Event>),
    Looked(Files),
}

pub(super) type Job = BoxFuture<'static, (Name, Done)>;

/// Calls the tool of an act that has been committed.
pub(super) fn act(
    ports: &Arc<Ports>,
    lease: &Lease,
    state: &State,
    id: String,
    effect: &Effect,
    name: Name,
) -> Job {
    let until = Until::new(Arc::clone(&ports.clock), Arc::clone(&lease.until_ms));
    let call = call_of(ports, until, state, effect);
    let local = local(state, effect);
    let (ports, task, tenant) = (Arc::clone(ports), state.id, state.caller.tenant.clone());
    let arguments = effect.arguments.clone();
    Box::pin(async move {
        let outcome = match local {
            Local::Tool => {
                let within = call.within;
                let called = ports.tools.call(call);
                // The host keeps its own deadlines; this one is for a host that does not.
                match tokio::time::timeout(within * 6, called).await {
                    Ok(outcome) => outcome,
                    Err(_) => Outcome::Lost("it did not answer in time".to_owned()),
                }
            }
            Local::Text(text) => Outcome::Done(ToolResult::text(text)),
            Local::Wrong(text) => Outcome::Done(ToolResult::error(text)),
            Local::Blob(digest) => match ports.ask(move |log| log.blob(task, digest)).await {
                Ok(Ok(Some(bytes))) => {
                    Outcome::Done(part(&String::from_utf8_lossy(&bytes), &arguments))
                }
                Ok(Ok(None)) => Outcome::Done(ToolResult::error("it is not kept any more")),
                Ok(Err(error)) | Err(error) => Outcome::NotSent(error.to_string()),
            },
            Local::Skill(skill, file) => {
                let found = ports.tools.skill(&tenant, &skill, file.as_deref());
                Outcome::Done(found.map_or_else(
                    || ToolResult::error(format!("there is no such skill or file: {skill}")),
                    ToolResult::text,
                ))
            }
        };
        (name, Done::Acted(id, outcome))
    })
}

fn call_of(ports: &Arc<Ports>, until: Until, state: &State, effect: &Effect) -> ToolCall {
    ToolCall {
        task: state.id,
        tenant: state.caller.tenant.clone(),
        tool: effect.tool.clone(),
        pin: effect.pin,
        arguments: effect.arguments.clone(),
        key: effect.key.clone(),
        within: ports.call_within,
        until,
    }
}

/// Who does an act.
enum Local {
    Tool,
    Text(ToolResultText),
    Wrong(String),
    Blob(crate::Digest),
    Skill(String, Option<String>),
}

type ToolResultText = String;

/// What the runtime does itself.
fn local(state: &State, effect: &Effect) -> Local {
    let text = |name: &str| {
        effect
            .arguments
            .get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    match effect.tool.as_str() {
        SKILL_LOAD | SKILL_READ => {
            let name = text("name").to_owned();
            let file = (effect.tool == SKILL_READ).then(|| text("file").to_owned());
            if state.skills.contains_key(&name) {
                Local::Skill(name, file)
            } else {
                Local::Wrong(format!("the brief names no skill `{name}`"))
            }
        }
        ARTIFACT_READ => {
            let handle = text("handle");
            let kept = state.effects.get(handle).and_then(|it| it.result.as_ref());
            if let Some(result) = kept {
                return match result.whole {
                    Some(digest) => Local::Blob(digest),
                    None => Local::Text(result.shown.clone()),
                };
            }
            let node = handle
                .strip_prefix("node:")
                .and_then(|id| state.nodes.get(id));
            match node.and_then(|node| node.output.as_ref()) {
                Some(output) => {
                    let whole = output
                        .as_str()
                        .map_or_else(|| output.to_string(), str::to_owned);
                    Local::Text(part(&whole, &effect.arguments).plain())
                }
                None => Local::Wrong(format!("there is no handle `{}`", cut_at(handle, 80))),
            }
        }
        _ => Local::Tool,
    }
}

/// The stretch of a text that is asked for.
fn part(text: &str, arguments: &Value) -> ToolResult {
    let number = |name: &str| {
        let number = arguments.get(name).and_then(Value::as_u64);
        number.and_then(|number| usize::try_from(number).ok())
    };
    let from = number("from").unwrap_or(0).min(text.len());
    let from = (from..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    let rest = text.get(from..).unwrap_or_default();
    ToolResult::text(cut_at(rest, number("bytes").unwrap_or(8_192).min(8_192)))
}

/// The event of an outcome, and the whole text where it is more than is shown.
pub(super) fn event(effect: &str, outcome: Outcome, most: usize) -> (Event, Option<String>) {
    let effect = effect.to_owned();
    match outcome {
        Outcome::Done(result) => {
            let (stored, whole) = shown(&result, &effect, most);
            let event = if result.is_error {
                Event::EffectFailed {
                    effect,
                    result: stored,
                }
            } else {
                Event::EffectSucceeded {
                    effect,
                    result: stored,
                }
            };
            (event, whole)
        }
        Outcome::NotSent(why) => (Event::EffectNotSent { effect, why }, None),
        Outcome::Drifted(why) => (
            Event::EffectDenied {
                effect,
                rule: "pin".to_owned(),
                why,
            },
            None,
        ),
        Outcome::Lost(why) => (Event::EffectLost { effect, why }, None),
        Outcome::Asks { message, .. } => {
            let text = format!(
                "The server asks: {message}. Ask the owner with ask_user, and call again with the answer."
            );
            let result = ToolResult::error(text);
            (
                Event::EffectFailed {
                    effect,
                    result: shown(&result, "", most).0,
                },
                None,
            )
        }
    }
}

/// Looks whether an act has happened.
pub(super) fn probe(
    ports: &Arc<Ports>,
    state: &State,
    rules: &Rules,
    id: &str,
    effect: &Effect,
    name: Name,
) -> Job {
    let tools = gate_of::offered(state, rules);
    let tool = tools
        .iter()
        .find(|tool| tool.definition.name == effect.tool);
    let probe = tool.and_then(|tool| tool.manifest.probe.clone());
    let server = tool
        .map(|tool| tool.definition.server.clone())
        .unwrap_or_default();
    let finder = probe
        .as_ref()
        .map(|probe| format!("{server}__{}", probe.tool));
    let finder = finder.and_then(|name| tools.iter().find(|tool| tool.definition.name == name));
    let unknown = |why: &str| Event::EffectUnknown {
        effect: id.to_owned(),
        why: why.to_owned(),
    };
    let (Some(probe), Some(finder)) = (probe, finder) else {
        let event = Box::new(unknown("there is no tool to look for it with"));
        return Box::pin(std::future::ready((name, Done::Probed(event))));
    };
    debug_assert_eq!(effect.class, Class::Probeable);
    // Looking does no harm, whoever has the task; what it tells is appended under the lease.
    let call = ToolCall {
        tool: finder.definition.name.clone(),
        pin: finder.pin,
        arguments: filled(&probe.arguments, effect),
        key: format!("{}-probe", effect.key),
        ..call_of(ports, Until::always(), state, effect)
    };
    let wanted = fill(&probe.found, effect);
    let (ports, id) = (Arc::clone(ports), id.to_owned());
    Box::pin(async move {
        let event = match ports.tools.call(call).await {
            Outcome::Done(result) if !result.is_error => found(&id, &probe, &result, &wanted),
            other => Event::EffectUnknown {
                effect: id,
                why: format!(
                    "it could not be looked for: {}",
                    cut_at(&format!("{other:?}"), 300)
                ),
            },
        };
        (name, Done::Probed(Box::new(event)))
    })
}

fn found(id: &str, probe: &Probe, result: &ToolResult, wanted: &str) -> Event {
    let text = result.plain();
    if wanted.trim().is_empty() || wanted.contains('{') && wanted == probe.found {
        return Event::EffectUnknown {
            effect: id.to_owned(),
            why: "there is nothing to look for it by".to_owned(),
        };
    }
    let quoted = wire::json::quote(wanted);
    let quoted = quoted.trim_matches('"');
    let happened = text.contains(wanted) || text.contains(quoted);
    let stored = || Stored {
        shown: cut_at(&text, 8_192).to_owned(),
        is_error: false,
        whole: None,
        bytes: u64::try_from(text.len()).unwrap_or(u64::MAX),
    };
    Event::EffectReconciled {
        effect: id.to_owned(),
        happened,
        how: format!("{} was asked for it", probe.tool),
        result: happened.then(stored),
    }
}

/// `{key}` and arguments put into the texts of a value.
fn filled(value: &Value, effect: &Effect) -> Value {
    match value {
        Value::String(text) => Value::String(fill(text, effect)),
        Value::Array(items) => items.iter().map(|item| filled(item, effect)).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), filled(value, effect)))
            .collect(),
        other => other.clone(),
    }
}

fn fill(text: &str, effect: &Effect) -> String {
    let mut text = text.replace("{key}", &effect.key);
    for (name, value) in effect.arguments.as_object().into_iter().flatten() {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        text = text.replace(&format!("{{{name}}}"), &value);
    }
    text
}
