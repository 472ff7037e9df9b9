//! Calls of Anthropic Messages as canonical ones, and back.

use serde_json::{Map, Value, json};

use crate::call::{
    Call, Choice, Effort, Format, Kind, Media, Own, Part, Reasoning, Role, Sampling, Source, Tool,
    ToolCall, ToolResult, Turn,
};
use crate::dialect::fields::{
    data_url, flag, id, list, maybe, object, others, owned, put, text, words,
};
use crate::dialect::{Change, DecodeError};
use crate::loss::Losses;

use super::NAME;
use super::reply::{part_of_block, thinking_part};

/// How Claude Code's billing line begins. It changes with every session, so it must not reach other
/// vendors or keys of caches.
const BILLING: &str = "x-anthropic-billing-header:";
/// The least thinking budget that the API takes.
const LEAST_BUDGET: u64 = 1_024;
/// The output cap where neither the caller nor the configuration has one; the API demands one.
const DEFAULT_CAP: u64 = 8_192;
/// Top-level fields that canonical calls carry.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "system",
    "stream",
    "max_tokens",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "metadata",
    "service_tier",
];

/// Reads a call.
pub(super) fn decode(body: &[u8]) -> Result<Call, DecodeError> {
    let fields: Map<String, Value> = serde_json::from_slice(body)?;
    let whole = Value::Object(fields);
    let get = |name: &str| whole.get(name).filter(|value| !value.is_null());
    let number = |name: &str| get(name).and_then(Value::as_f64);
    let count = |name: &str| get(name).and_then(Value::as_u64);
    let mut turns = Vec::new();
    if let Some(system) = get("system") {
        let parts = parts_of(system, true);
        turns.push(Turn {
            role: Role::System,
            parts,
            raw: vec![system.clone()],
        });
    }
    turns.extend(list(&whole, "messages").iter().map(turn));
    let choice = get("tool_choice");
    let config = get("output_config").cloned().unwrap_or_default();
    let metadata = get("metadata").cloned().unwrap_or_default();
    let mut call = Call {
        dialect: NAME,
        model: owned(&whole, "model"),
        turns,
        tools: list(&whole, "tools").iter().map(tool).collect(),
        choice: choice.and_then(choice_of),
        parallel: choice
            .and_then(|it| it.get("disable_parallel_tool_use")?.as_bool())
            .map(|off| !off),
        format: format_of(config.get("format")),
        verbosity: None,
        reasoning: reasoning_of(get("thinking"), &config),
        sampling: Sampling {
            temperature: number("temperature"),
            top_p: number("top_p"),
            top_k: count("top_k"),
            stop: words(get("stop_sequences")),
            ..Sampling::default()
        },
        max_output: count("max_tokens"),
        stream: flag(&whole, "stream"),
        include_usage: true,
        lane: maybe(&whole, "service_tier"),
        user: maybe(&metadata, "user_id"),
        metadata: Map::new(),
        cache_key: None,
        own: Map::new(),
        only_own: Vec::new(),
    };
    if let Value::Object(fields) = whole {
        call.only_own = others(&fields, KNOWN);
        call.own = fields;
    }
    Ok(call)
}

fn turn(message: &Value) -> Turn {
    let role = match text(message, "role") {
        "assistant" => Role::Assistant,
        "system" => Role::System,
        _ => Role::User,
    };
    let content = message.get("content").unwrap_or(&Value::Null);
    Turn {
        role,
        parts: parts_of(content, false),
        raw: vec![message.clone()],
    }
}

fn parts_of(content: &Value, system: bool) -> Vec<Part> {
    match content {
        Value::String(text) => vec![Part::text(text.clone())],
        Value::Array(blocks) => blocks.iter().map(|block| part(block, system)).collect(),
        _ => Vec::new(),
    }
}

fn part(block: &Value, system: bool) -> Part {
    let kind = match text(block, "type") {
        "text" if system && text(block, "text").starts_with(BILLING) => own(block, "billing"),
        "image" => media(block).map_or_else(|| own(block, "image"), Kind::Image),
        "document" => media(block).map_or_else(|| own(block, "document"), Kind::File),
        "tool_result" => Kind::ToolResult(ToolResult {
            id: owned(block, "tool_use_id"),
            parts: parts_of(block.get("content").unwrap_or(&Value::Null), false),
            is_error: flag(block, "is_error"),
            custom: false,
        }),
        "thinking" | "redacted_thinking" => thinking_part(block, None),
        _ => part_of_block(block),
    };
    Part {
        kind,
        cache: block.get("cache_control").cloned(),
        raw: Some(Box::new(block.clone())),
    }
}

fn own(block: &Value, name: &str) -> Kind {
    Kind::Own(Own {
        dialect: NAME.to_owned(),
        name: name.to_owned(),
        value: block.clone(),
    })
}

/// An image or document. Its citations switch and context have no counterpart elsewhere.
fn media(block: &Value) -> Option<Media> {
    let source = block.get("source")?;
    let source = match text(source, "type") {
        "base64" => Source::Inline {
            mime: owned(source, "media_type"),
            data: owned(source, "data"),
        },
        "url" => Source::Url(owned(source, "url")),
        "text" => Source::Plain(owned(source, "data")),
        "file" => Source::Id(owned(source, "file_id")),
        _ => return None,
    };
    Some(Media {
        source,
        name: maybe(block, "title"),
        detail: None,
    })
}

fn tool(tool: &Value) -> Tool {
    let kind = text(tool, "type");
    let is_own = !kind.is_empty() && kind != "custom";
    Tool {
        name: owned(tool, "name"),
        description: maybe(tool, "description"),
        schema: tool.get("input_schema").cloned(),
        strict: tool.get("strict").and_then(Value::as_bool),
        cache: tool.get("cache_control").cloned(),
        own: is_own.then(|| tool.clone()),
        ..Tool::default()
    }
}

fn choice_of(choice: &Value) -> Option<Choice> {
    Some(match text(choice, "type") {
        "auto" => Choice::Auto,
        "any" => Choice::Required,
        "none" => Choice::None,
        "tool" => Choice::Tool(owned(choice, "name")),
        _ => return None,
    })
}

fn format_of(format: Option<&Value>) -> Format {
    match format {
        Some(format) if text(format, "type") == "json_schema" => Format::Schema {
            name: "answer".to_owned(),
            schema: format.get("schema").cloned().unwrap_or_default(),
            strict: Some(true),
            description: None,
        },
        _ => Format::Text,
    }
}

fn reasoning_of(thinking: Option<&Value>, config: &Value) -> Reasoning {
    let kind = thinking.map_or("", |thinking| text(thinking, "type"));
    Reasoning {
        enabled: match kind {
            "enabled" | "adaptive" => Some(true),
            "disabled" => Some(false),
            _ => None,
        },
        effort: Effort::parse(text(config, "effort")),
        budget: thinking.and_then(|thinking| thinking.get("budget_tokens")?.as_u64()),
        summary: thinking.and_then(|thinking| maybe(thinking, "display")),
    }
}

/// Writes a call for an upstream.
pub(super) fn encode(call: &Call, change: &Change<'_>, losses: &mut Losses) -> Value {
    let mut body = if call.dialect == NAME {
        call.own.clone()
    } else {
        fresh(call, change, losses)
    };
    body.insert("model".to_owned(), change.model.into());
    if let Some(cap) = change.cap {
        body.insert("max_tokens".to_owned(), cap.into());
    }
    let at_home = call.dialect == NAME;
    let head = call
        .turns
        .iter()
        .take_while(|turn| turn.role == Role::System)
        .count();
    let (system, rest) = call
        .turns
        .split_at(if at_home { head.min(1) } else { head });
    if !at_home && !system.is_empty() {
        let blocks: Vec<Value> = system
            .iter()
            .flat_map(|turn| blocks(&turn.parts, losses))
            .collect();
        body.insert("system".to_owned(), Value::Array(blocks));
    }
    let messages = if at_home && !body.contains_key("system") {
        &call.turns
    } else {
        rest
    };
    body.insert(
        "messages".to_owned(),
        Value::Array(messages_of(messages, losses)),
    );
    if thinks(&body) && in_foreign_loop(&call.turns) {
        // The API demands that a tool loop under thinking begins with a thinking block of its own.
        losses.approximated("reasoning");
        body.insert("thinking".to_owned(), json!({ "type": "disabled" }));
        body.shift_remove("context_management");
    }
    Value::Object(body)
}

fn thinks(body: &Map<String, Value>) -> bool {
    let kind = body
        .get("thinking")
        .map_or("", |thinking| text(thinking, "type"));
    matches!(kind, "enabled" | "adaptive")
}

/// Whether the present tool loop has calls that no thinking of this origin stands before.
fn in_foreign_loop(turns: &[Turn]) -> bool {
    let asks = |turn: &Turn| {
        turn.role == Role::User && turn.parts.iter().any(|part| part.as_text().is_some())
    };
    let start = turns.iter().rposition(asks).map_or(0, |at| at + 1);
    turns.iter().skip(start).any(|turn| {
        let thought = matches!(turn.parts.first().map(|p| &p.kind), Some(Kind::Thinking(_)));
        turn.role == Role::Assistant && turn.calls_tools() && !thought
    })
}

/// The fields besides model, system and messages, for a call from another dialect.
fn fresh(call: &Call, change: &Change<'_>, losses: &mut Losses) -> Map<String, Value> {
    let mut body = Map::new();
    let cap = change
        .cap
        .or(call.max_output)
        .or(change.most_output)
        .unwrap_or(DEFAULT_CAP);
    body.insert("max_tokens".to_owned(), cap.into());
    if call.stream {
        body.insert("stream".to_owned(), true.into());
    }
    let tools: Vec<Value> = call
        .tools
        .iter()
        .filter_map(|tool| tool_value(tool, losses))
        .collect();
    if !tools.is_empty() {
        if let Some(choice) = choice_value(call) {
            body.insert("tool_choice".to_owned(), choice);
        }
        body.insert("tools".to_owned(), Value::Array(tools));
    }
    let forced = matches!(call.choice, Some(Choice::Required | Choice::Tool(_)));
    let thinking = thinking_value(&call.reasoning, cap, forced, losses);
    let on = thinking
        .as_ref()
        .is_some_and(|it| text(it, "type") == "enabled");
    put(&mut body, "thinking", thinking);
    match &call.format {
        Format::Text => {}
        Format::Json => losses.dropped("response_format.json_object"),
        Format::Schema { schema, .. } => {
            let format = json!({ "type": "json_schema", "schema": schema });
            body.insert("output_config".to_owned(), json!({ "format": format }));
        }
    }
    sampling(call, on, &mut body, losses);
    match call.lane.as_deref() {
        None => {}
        Some("auto" | "standard_only") => put(&mut body, "service_tier", call.lane.clone()),
        Some("default") => put(&mut body, "service_tier", Some("standard_only")),
        Some(_) => losses.dropped("service_tier"),
    }
    if let Some(user) = &call.user {
        body.insert("metadata".to_owned(), json!({ "user_id": user }));
    }
    losses.dropped_if(!call.metadata.is_empty(), "metadata");
    losses.dropped_if(call.verbosity.is_some(), "verbosity");
    if call.cache_key.is_some() {
        losses.withheld("prompt_cache_key");
    }
    for name in &call.only_own {
        losses.dropped(name.clone());
    }
    body
}

fn sampling(call: &Call, thinks: bool, body: &mut Map<String, Value>, losses: &mut Losses) {
    let sampling = &call.sampling;
    // Anthropic's scale ends at 1, and under thinking nothing but 1 is taken.
    if let Some(temperature) = sampling.temperature {
        if thinks && (temperature - 1.0).abs() > f64::EPSILON {
            losses.dropped("temperature");
        } else {
            if temperature > 1.0 {
                losses.approximated("temperature");
            }
            body.insert("temperature".to_owned(), temperature.min(1.0).into());
        }
    }
    match sampling.top_p {
        Some(top_p) if thinks && top_p < 0.95 => losses.dropped("top_p"),
        top_p => put(body, "top_p", top_p),
    }
    match sampling.top_k {
        Some(_) if thinks => losses.dropped("top_k"),
        top_k => put(body, "top_k", top_k),
    }
    if !sampling.stop.is_empty() {
        body.insert("stop_sequences".to_owned(), sampling.stop.clone().into());
    }
    losses.dropped_if(sampling.seed.is_some(), "seed");
    losses.dropped_if(
        sampling.presence_penalty.is_some_and(|p| p != 0.0),
        "presence_penalty",
    );
    losses.dropped_if(
        sampling.frequency_penalty.is_some_and(|p| p != 0.0),
        "frequency_penalty",
    );
    losses.dropped_if(sampling.logit_bias.is_some(), "logit_bias");
    losses.dropped_if(sampling.logprobs.is_some(), "logprobs");
    losses.dropped_if(sampling.answers.is_some_and(|n| n > 1), "n");
}

fn thinking_value(
    reasoning: &Reasoning,
    cap: u64,
    forced: bool,
    losses: &mut Losses,
) -> Option<Value> {
    let budget = match (reasoning.enabled, reasoning.effort, reasoning.budget) {
        (Some(false), ..) | (_, Some(Effort::None), _) => {
            return Some(json!({ "type": "disabled" }));
        }
        (None, None, None) => return None,
        (_, _, Some(budget)) => budget,
        (_, Some(effort), None) => {
            losses.approximated("reasoning.effort");
            effort.budget()
        }
        (Some(true), None, None) => Effort::Medium.budget(),
    };
    if forced || cap <= LEAST_BUDGET {
        // A forced tool and thinking exclude each other, and a small cap has no room for it.
        losses.dropped("reasoning");
        return None;
    }
    let budget = budget.clamp(LEAST_BUDGET, cap - 1);
    Some(json!({ "type": "enabled", "budget_tokens": budget }))
}

fn tool_value(tool: &Tool, losses: &mut Losses) -> Option<Value> {
    if let Some(own) = &tool.own {
        let name = maybe(own, "type").unwrap_or_else(|| tool.name.clone());
        losses.dropped(format!("tools.{name}"));
        return None;
    }
    if tool.custom {
        losses.approximated("tools.custom");
    }
    let schema = tool.schema.clone().filter(Value::is_object);
    let mut value = Map::new();
    value.insert("name".to_owned(), tool.name.clone().into());
    put(&mut value, "description", tool.description.clone());
    let text_input = || json!({ "type": "object", "properties": { "input": { "type": "string" } }, "required": ["input"] });
    let empty = || json!({ "type": "object", "properties": {} });
    let schema = schema.unwrap_or_else(|| if tool.custom { text_input() } else { empty() });
    value.insert("input_schema".to_owned(), schema);
    put(&mut value, "strict", tool.strict.filter(|strict| *strict));
    Some(Value::Object(value))
}

fn choice_value(call: &Call) -> Option<Value> {
    let mut value = match (&call.choice, call.parallel) {
        (Some(Choice::None), _) => return Some(json!({ "type": "none" })),
        (None, None | Some(true)) => return None,
        (None | Some(Choice::Auto), _) => json!({ "type": "auto" }),
        (Some(Choice::Required), _) => json!({ "type": "any" }),
        (Some(Choice::Tool(name)), _) => json!({ "type": "tool", "name": name }),
    };
    if let (Some(false), Some(value)) = (call.parallel, value.as_object_mut()) {
        value.insert("disable_parallel_tool_use".to_owned(), true.into());
    }
    Some(value)
}

/// The messages of a transcript: neighbours of one role become one, results stand first in it.
fn messages_of(turns: &[Turn], losses: &mut Losses) -> Vec<Value> {
    let mut messages: Vec<Value> = Vec::with_capacity(turns.len());
    let mut made_role = None;
    for turn in turns {
        if !turn.raw.is_empty() {
            messages.extend(turn.raw.iter().cloned());
            made_role = None;
            continue;
        }
        let content = blocks(&turn.parts, losses);
        if content.is_empty() {
            continue;
        }
        if made_role == Some(turn.role)
            && turn.role != Role::System
            && let Some(Value::Array(before)) =
                messages.last_mut().and_then(|m| m.get_mut("content"))
        {
            before.extend(content);
            continue;
        }
        let role = match turn.role {
            Role::Assistant => "assistant",
            Role::User => "user",
            Role::System => "system",
        };
        messages.push(json!({ "role": role, "content": content }));
        made_role = Some(turn.role);
    }
    if messages
        .first()
        .is_none_or(|first| text(first, "role") != "user")
    {
        losses.approximated("messages.order");
        messages.insert(0, json!({ "role": "user", "content": "Go on." }));
    }
    messages
}

fn blocks(parts: &[Part], losses: &mut Losses) -> Vec<Value> {
    let result = |part: &&Part| matches!(part.kind, Kind::ToolResult(_));
    let first = parts.iter().filter(result);
    let then = parts.iter().filter(|part| !result(part));
    first
        .chain(then)
        .filter_map(|part| block(part, losses))
        .collect()
}

fn block(part: &Part, losses: &mut Losses) -> Option<Value> {
    let mut value = match &part.kind {
        _ if part.raw.is_some() => return part.raw.as_deref().cloned(),
        Kind::Text(text) if text.text.is_empty() => return None,
        Kind::Text(text) => {
            // Citations point into search results that only their origin has.
            losses.dropped_if(!text.citations.is_empty(), "citations");
            json!({ "type": "text", "text": text.text })
        }
        Kind::ToolCall(call) => {
            let name = if call.custom { "input" } else { "arguments" };
            json!({ "type": "tool_use", "id": id(&call.id, 64), "name": call.name,
                "input": tool_input(call, name) })
        }
        Kind::ToolResult(result) => {
            let content = blocks(&result.parts, losses);
            let mut value = json!({ "type": "tool_result", "tool_use_id": id(&result.id, 64), "content": content });
            if result.is_error
                && let Some(value) = value.as_object_mut()
            {
                value.insert("is_error".to_owned(), true.into());
            }
            value
        }
        Kind::Image(media) => json!({ "type": "image", "source": source(media, losses, "image")? }),
        Kind::File(media) => {
            let mut value = json!({ "type": "document", "source": source(media, losses, "file")? });
            if let (Some(name), Some(value)) = (&media.name, value.as_object_mut()) {
                value.insert("title".to_owned(), name.clone().into());
            }
            value
        }
        Kind::Audio(_) => {
            losses.dropped("input_audio");
            return None;
        }
        Kind::Refusal(text) => json!({ "type": "text", "text": text }),
        Kind::Thinking(thinking) => thinking.seal.as_ref()?.value.clone(),
        Kind::Own(own) => own.value.clone(),
    };
    if let (Some(mark), Some(value)) = (&part.cache, value.as_object_mut()) {
        value.insert("cache_control".to_owned(), mark.clone());
    }
    Some(value)
}

fn tool_input(call: &ToolCall, name: &str) -> Value {
    if call.custom {
        json!({ "input": call.arguments })
    } else {
        object(&call.arguments, name)
    }
}

fn source(media: &Media, losses: &mut Losses, what: &'static str) -> Option<Value> {
    if media
        .detail
        .as_deref()
        .is_some_and(|detail| detail != "auto")
    {
        losses.dropped("image.detail");
    }
    Some(match &media.source {
        Source::Inline { mime, data } => {
            json!({ "type": "base64", "media_type": mime, "data": data })
        }
        Source::Url(url) => match data_url(url) {
            Some((mime, data)) => json!({ "type": "base64", "media_type": mime, "data": data }),
            None => json!({ "type": "url", "url": url }),
        },
        Source::Plain(text) => json!({ "type": "text", "media_type": "text/plain", "data": text }),
        Source::Id(_) => {
            losses.dropped(format!("{what}.file_id"));
            return None;
        }
    })
}
