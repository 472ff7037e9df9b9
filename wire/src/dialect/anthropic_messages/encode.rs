//! Canonical calls as calls of Anthropic Messages.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::call::{
    Call, Choice, Format, Kind, Media, Part, Role, Source, Text, Tool, ToolCall, Turn, paired,
    told_apart,
};
use crate::dialect::fields::{data_url, id, is_object, maybe, object, put, text};
use crate::dialect::{Change, ThinkingForm};
use crate::loss::Losses;
use crate::numbers;

use super::thinking::{fit_thinking, in_foreign_loop, thinking_value};
use super::{LONGEST_NAME, NAME, schema};

/// The output cap where neither the caller nor the configuration has one; the API demands one.
pub(super) const DEFAULT_CAP: u64 = 8_192;
/// The longest name of an end user that the API takes.
const LONGEST_USER: usize = 256;
/// The types of pictures that the API takes.
const PICTURES: [&str; 4] = ["image/jpeg", "image/png", "image/gif", "image/webp"];

/// Writes a call for an upstream.
pub(super) fn encode(call: &Call, change: &Change<'_>, losses: &mut Losses) -> Value {
    numbers::tell(call, losses);
    let at_home = call.dialect == NAME;
    let (mut body, turns) = if at_home {
        (call.own.clone(), Cow::Borrowed(call.turns.as_slice()))
    } else {
        let mut turns = told_apart(paired(&call.turns));
        if turns.iter().all(|turn| turn.role == Role::System)
            && let Some(last) = turns.to_mut().last_mut()
        {
            // The API demands that the user says something: the last of what there is.
            losses.approximated("messages.system");
            last.role = Role::User;
        }
        (fresh(call, change, losses), turns)
    };
    body.insert("model".to_owned(), change.model.into());
    if at_home {
        if let Some(cap) = change.capped(call, true, losses) {
            body.insert("max_tokens".to_owned(), cap.into());
        }
        if let Some(form) = change.thinking {
            fit_thinking(&mut body, call, form, losses);
        }
    }
    let is_system = |turn: &&Turn| turn.role == Role::System;
    let mut head = turns.iter().take_while(is_system).count();
    if at_home {
        // What stands in `system` was read as the first turn, and no other.
        let has_system = body.get("system").is_some_and(|system| !system.is_null());
        head = head.min(usize::from(has_system));
    }
    let (system, rest) = turns.split_at(head);
    if system.iter().any(|turn| turn.raw.is_empty()) {
        let blocks: Vec<Value> = system
            .iter()
            .flat_map(|turn| system_blocks(turn, losses))
            .collect();
        body.insert("system".to_owned(), Value::Array(blocks));
    }
    let mut messages = messages_of(rest, losses);
    if !at_home {
        trim_end(&mut messages);
    }
    body.insert("messages".to_owned(), Value::Array(messages));
    let thinks = body.get("thinking").map_or("", |it| text(it, "type")) == "enabled";
    if thinks && in_foreign_loop(&turns) {
        // With a fixed budget, the API demands that a tool loop begins with thinking of its own.
        losses.approximated("reasoning");
        body.insert("thinking".to_owned(), json!({ "type": "disabled" }));
        body.shift_remove("context_management");
    }
    Value::Object(body)
}

/// Whether there is a block for it.
pub(super) fn tells(part: &Part, losses: &mut Losses) -> bool {
    block(part, losses).is_some()
}

/// The blocks of system text; it can be nothing else.
fn system_blocks(turn: &Turn, losses: &mut Losses) -> Vec<Value> {
    let is_text = |part: &&Part| match &part.kind {
        Kind::Text(_) => true,
        Kind::Own(own) => own.dialect == NAME,
        _ => false,
    };
    let parts: Vec<Part> = turn.parts.iter().filter(is_text).cloned().collect();
    losses.dropped_if(parts.len() != turn.parts.len(), "system.media");
    blocks(&parts, losses)
}

/// Cuts the white space at the end of an answer that the model is to go on with: the API refuses it.
fn trim_end(messages: &mut [Value]) {
    let last = messages
        .last_mut()
        .filter(|last| text(last, "role") == "assistant");
    let content = last.and_then(|last| last.get_mut("content")?.as_array_mut());
    let block = content.and_then(|content| content.last_mut()?.get_mut("text"));
    if let Some(Value::String(said)) = block {
        said.truncate(said.trim_end().len());
    }
}

/// The fields besides model, system and messages, for a call from another dialect.
fn fresh(call: &Call, change: &Change<'_>, losses: &mut Losses) -> Map<String, Value> {
    let mut body = Map::new();
    let cap = change.capped(call, false, losses);
    let cap = cap.or(change.most_output).unwrap_or(DEFAULT_CAP);
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
        put(&mut body, "tool_choice", choice_value(call, losses));
        body.insert("tools".to_owned(), Value::Array(tools));
    } else if let Some(tools) = tools_called(call) {
        body.insert("tool_choice".to_owned(), json!({ "type": "none" }));
        body.insert("tools".to_owned(), tools);
    }
    let choice = body.get("tool_choice").map_or("", |it| text(it, "type"));
    let forced = matches!(choice, "any" | "tool");
    let form = change.thinking.unwrap_or(ThinkingForm::Budget);
    let (thinking, effort) = thinking_value(&call.reasoning, form, cap, forced, losses);
    let on = thinking
        .as_ref()
        .is_some_and(|it| text(it, "type") != "disabled");
    let summary = call.reasoning.summary.as_deref();
    match summary {
        None | Some("auto" | "summarized") if on => {}
        None | Some("omitted") => {}
        Some(_) if on => losses.approximated("reasoning.summary"),
        Some(_) => losses.dropped("reasoning.summary"),
    }
    put(&mut body, "thinking", thinking);
    put(
        &mut body,
        "output_config",
        config_value(&call.format, effort, losses),
    );
    sampling(call, on, &mut body, losses);
    match call.lane.as_deref() {
        None => {}
        Some("auto" | "standard_only") => put(&mut body, "service_tier", call.lane.clone()),
        Some("default") => put(&mut body, "service_tier", Some("standard_only")),
        Some(_) => losses.dropped("service_tier"),
    }
    match &call.user {
        Some(user) if is_plain_name(user) => {
            body.insert("metadata".to_owned(), json!({ "user_id": user }));
        }
        Some(_) => losses.withheld("user"),
        None => {}
    }
    losses.dropped_if(!call.metadata.is_empty(), "metadata");
    losses.dropped_if(call.verbosity.is_some(), "verbosity");
    if call.cache_key.is_some() {
        losses.withheld("prompt_cache_key");
    }
    if call.ends_with_answer() {
        losses.approximated("messages.prefill");
    }
    for name in &call.only_own {
        losses.dropped(name.clone());
    }
    body
}

/// Whether an end user's name is none by which a person could be found: the API refuses mail addresses
/// and telephone numbers there.
fn is_plain_name(user: &str) -> bool {
    let digits = user.chars().filter(char::is_ascii_digit).count();
    let is_number = |c: char| c.is_ascii_digit() || "+-(). /".contains(c);
    let is_phone = digits >= 7 && user.starts_with(['+', '(']) && user.chars().all(is_number);
    user.len() <= LONGEST_USER && !user.contains('@') && !is_phone
}

/// The configuration that holds the form of the answer and the effort put into it.
fn config_value(
    format: &Format,
    effort: Option<&'static str>,
    losses: &mut Losses,
) -> Option<Value> {
    let mut config = Map::new();
    put(&mut config, "effort", effort);
    match format {
        Format::Text => {}
        Format::Json => losses.dropped("response_format.json_object"),
        Format::Schema {
            schema,
            description,
            ..
        } => {
            losses.dropped_if(description.is_some(), "response_format.description");
            let mut schema = schema.clone();
            if schema::fit(&mut schema) {
                losses.approximated("response_format.schema");
            }
            let format = json!({ "type": "json_schema", "schema": schema });
            config.insert("format".to_owned(), format);
        }
    }
    (!config.is_empty()).then_some(Value::Object(config))
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
        // One of the two is all that newer models take.
        Some(top_p) if sampling.temperature.is_some() => losses.dropped_if(top_p < 1.0, "top_p"),
        Some(top_p) if thinks && top_p < 0.95 => losses.dropped("top_p"),
        top_p => put(body, "top_p", top_p),
    }
    match sampling.top_k {
        Some(_) if thinks => losses.dropped("top_k"),
        top_k => put(body, "top_k", top_k),
    }
    // White space alone is refused as a stop.
    let mut stop = sampling.stop.clone();
    stop.retain(|word| !word.trim().is_empty());
    losses.dropped_if(stop.len() != sampling.stop.len(), "stop");
    if !stop.is_empty() {
        body.insert("stop_sequences".to_owned(), stop.into());
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

fn tool_value(tool: &Tool, losses: &mut Losses) -> Option<Value> {
    if let Some(own) = &tool.own {
        let name = maybe(own, "type").unwrap_or_else(|| tool.name.clone());
        losses.dropped(format!("tools.{name}"));
        return None;
    }
    if tool.custom {
        losses.approximated("tools.custom");
    }
    let mut value = Map::new();
    value.insert("name".to_owned(), id(&tool.name, LONGEST_NAME).into());
    put(&mut value, "description", tool.description.clone());
    let mut schema = schema_value(tool, losses);
    if tool.strict == Some(true) && schema::fit(&mut schema) {
        losses.approximated("tools.schema");
    }
    value.insert("input_schema".to_owned(), schema);
    put(&mut value, "strict", tool.strict.filter(|strict| *strict));
    put(&mut value, "cache_control", tool.cache.clone());
    Some(Value::Object(value))
}

/// The tools that a transcript calls, by their names alone: a call without tools is refused where
/// there are calls in its history.
fn tools_called(call: &Call) -> Option<Value> {
    let parts = call.turns.iter().flat_map(|turn| &turn.parts);
    let calls = parts.filter_map(|part| match &part.kind {
        Kind::ToolCall(call) => Some(call.name.as_str()),
        _ => None,
    });
    let names: BTreeSet<&str> = calls.collect();
    let tool = |name: &&str| {
        let input = json!({ "type": "object", "properties": {} });
        json!({ "name": id(name, LONGEST_NAME), "input_schema": input })
    };
    (!names.is_empty()).then(|| names.iter().map(tool).collect())
}

/// The schema of a tool's input; it must say that it is an object's.
fn schema_value(tool: &Tool, losses: &mut Losses) -> Value {
    if tool.custom {
        return json!({ "type": "object", "properties": { "input": { "type": "string" } }, "required": ["input"] });
    }
    let empty = || json!({ "type": "object", "properties": {} });
    let schema = tool.schema.clone().filter(Value::is_object);
    let mut schema = schema.unwrap_or_else(empty);
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("type").or_insert_with(|| "object".into());
        if schema::merge(fields) {
            losses.approximated("tools.schema");
        }
    }
    schema
}

fn choice_value(call: &Call, losses: &mut Losses) -> Option<Value> {
    let mut value = match (&call.choice, call.parallel) {
        (Some(Choice::None), _) => return Some(json!({ "type": "none" })),
        (None, None | Some(true)) => return None,
        (None | Some(Choice::Auto), _) => json!({ "type": "auto" }),
        (Some(Choice::Required), _) => json!({ "type": "any" }),
        (Some(Choice::Tool(name)), _) if call.tool(name).is_some_and(|it| it.own.is_none()) => {
            json!({ "type": "tool", "name": id(name, LONGEST_NAME) })
        }
        (Some(Choice::Tool(_)), _) => {
            losses.dropped("tool_choice");
            return None;
        }
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
        let content = if turn.role == Role::System {
            reminders(turn, losses)
        } else {
            blocks(&turn.parts, losses)
        };
        if content.is_empty() {
            continue;
        }
        let role = match turn.role {
            Role::Assistant => "assistant",
            Role::User | Role::System => "user",
        };
        if made_role == Some(role)
            && let Some(Value::Array(before)) =
                messages.last_mut().and_then(|m| m.get_mut("content"))
        {
            before.extend(content);
            before.sort_by_key(|block| role == "user" && text(block, "type") != "tool_result");
            continue;
        }
        messages.push(json!({ "role": role, "content": content }));
        made_role = Some(role);
    }
    let answers = |first: &Value| text(first, "role") == "assistant";
    if messages.first().is_some_and(answers) {
        // The API demands that the user begins.
        losses.approximated("messages.order");
        messages.insert(0, json!({ "role": "user", "content": "Go on." }));
    }
    messages
}

/// System text in mid-conversation, as the user's: few models take it as what it is, and those only in
/// some places.
fn reminders(turn: &Turn, losses: &mut Losses) -> Vec<Value> {
    let mut blocks = system_blocks(turn, losses);
    for block in &mut blocks {
        if let Some(Value::String(said)) = block.get_mut("text") {
            *said = format!("<system-reminder>\n{said}\n</system-reminder>");
            losses.approximated("messages.system");
        }
    }
    blocks
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
        // White space alone is refused.
        Kind::Text(Text { text, .. }) | Kind::Refusal(text) if text.trim().is_empty() => {
            return None;
        }
        Kind::Text(text) => {
            // Citations point into search results that only their origin has.
            losses.dropped_if(!text.citations.is_empty(), "citations");
            json!({ "type": "text", "text": text.text })
        }
        Kind::ToolCall(call) => {
            json!({ "type": "tool_use", "id": id(&call.id, 64), "name": id(&call.name, LONGEST_NAME),
                "input": tool_input(call, losses) })
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
        Kind::Image(media) => {
            let mut source = source(media, losses, "image")?;
            if text(&source, "type") == "base64" && !fit_picture(&mut source) {
                losses.dropped("image.media_type");
                return None;
            }
            json!({ "type": "image", "source": source })
        }
        Kind::File(media) => {
            let mut value = json!({ "type": "document", "source": document(media, losses)? });
            if let (Some(name), Some(value)) = (&media.name, value.as_object_mut()) {
                value.insert("title".to_owned(), name.clone().into());
            }
            value
        }
        Kind::Audio(_) => {
            losses.dropped("input_audio");
            return None;
        }
        Kind::Refusal(text) => {
            losses.approximated("messages.refusal");
            json!({ "type": "text", "text": text })
        }
        Kind::Thinking(thinking) => {
            let seal = thinking.seal.as_ref().filter(|seal| seal.dialect == NAME);
            if seal.is_none() {
                losses.withheld("thinking");
            }
            seal?.value.clone()
        }
        Kind::Own(own) if own.dialect == NAME => own.value.clone(),
        Kind::Own(own) => {
            losses.dropped(own.name.clone());
            return None;
        }
    };
    if let (Some(mark), Some(value)) = (&part.cache, value.as_object_mut()) {
        value.insert("cache_control".to_owned(), mark.clone());
    }
    Some(value)
}

/// Writes the type of a picture as the API knows it; `false` where it knows none like it.
fn fit_picture(source: &mut Value) -> bool {
    let kind = match text(source, "media_type") {
        "image/jpg" | "image/pjpeg" => "image/jpeg",
        kind => kind,
    };
    let known = PICTURES.iter().find(|known| **known == kind);
    if let (Some(known), Some(source)) = (known, source.as_object_mut()) {
        source.insert("media_type".to_owned(), (*known).into());
    }
    known.is_some()
}

fn tool_input(call: &ToolCall, losses: &mut Losses) -> Value {
    if call.custom {
        return json!({ "input": call.arguments });
    }
    if !is_object(&call.arguments) || numbers::change_in(&call.arguments) {
        losses.approximated(numbers::ARGUMENTS);
    }
    object(&call.arguments, "arguments")
}

/// Where a document's bytes are; only PDF and plain text are taken.
fn document(media: &Media, losses: &mut Losses) -> Option<Value> {
    let Source::Inline { mime, data } = &media.source else {
        return source(media, losses, "file");
    };
    if mime == "application/pdf" {
        return source(media, losses, "file");
    }
    let is_text = mime.starts_with("text/") || mime == "application/json";
    let decoded = STANDARD.decode(data).ok().filter(|_| is_text);
    let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else {
        losses.dropped("file.media_type");
        return None;
    };
    Some(json!({ "type": "text", "media_type": "text/plain", "data": text }))
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
