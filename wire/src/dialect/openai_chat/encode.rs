//! Canonical calls as calls of OpenAI Chat Completions.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::call::{
    Call, Choice, Format, Kind, Part, Role, Source, Thinking, Tool, ToolCall, Turn, paired,
};
use crate::dialect::Change;
use crate::dialect::fields::{id, is_object, maybe, object, put, text};
use crate::dialect::openai::{self, effort_word, file_value, image_url};
use crate::loss::Losses;
use crate::numbers;

use super::NAME;
use super::reply::REASONING;

/// The longest id of a tool call that the API takes.
const LONGEST_ID: usize = 40;
/// How many stop sequences the API takes.
const MOST_STOPS: usize = 4;

/// Writes a call for an upstream.
pub(super) fn encode(call: &Call, change: &Change<'_>, losses: &mut Losses) -> Value {
    numbers::tell(call, losses);
    let at_home = call.dialect == NAME;
    let mut body = if at_home {
        call.own.clone()
    } else {
        fresh(call, losses)
    };
    body.insert("model".to_owned(), change.model.into());
    let turns = if at_home {
        Cow::Borrowed(call.turns.as_slice())
    } else {
        paired(&call.turns)
    };
    let messages = turns.iter().flat_map(|turn| messages_of(turn, losses));
    let mut messages: Vec<Value> = messages.collect();
    if !at_home {
        results_first(&mut messages);
    }
    body.insert("messages".to_owned(), Value::Array(messages));
    if change.reasons_not() {
        body.shift_remove("reasoning_effort");
    }
    let caps = ["max_tokens", "max_completion_tokens"];
    let written: Vec<&str> = caps
        .into_iter()
        .filter(|name| body.contains_key(*name))
        .collect();
    match change.capped(call, at_home, losses) {
        Some(cap) if written.is_empty() => {
            let field = if change.cap_field.is_empty() {
                "max_completion_tokens"
            } else {
                change.cap_field
            };
            body.insert(field.to_owned(), cap.into());
        }
        Some(cap) => {
            for name in written {
                body.insert(name.to_owned(), cap.into());
            }
        }
        None => {}
    }
    if call.stream {
        let mut options = body
            .get("stream_options")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        options.insert("include_usage".to_owned(), true.into());
        body.insert("stream_options".to_owned(), Value::Object(options));
    }
    Value::Object(body)
}

/// The fields besides model and messages, for a call from another dialect.
fn fresh(call: &Call, losses: &mut Losses) -> Map<String, Value> {
    let mut body = Map::new();
    if call.stream {
        body.insert("stream".to_owned(), true.into());
    }
    let tools = call
        .tools
        .iter()
        .filter_map(|tool| tool_value(tool, losses));
    let tools: Vec<Value> = tools.collect();
    if !tools.is_empty() {
        let choice = choice_value(call, losses);
        openai::put_tools(&mut body, tools, choice, call.parallel);
    }
    match &call.format {
        Format::Text => {}
        Format::Json => put(
            &mut body,
            "response_format",
            Some(json!({ "type": "json_object" })),
        ),
        Format::Schema { .. } => {
            let schema = openai::schema_value(&call.format, losses);
            put(
                &mut body,
                "response_format",
                Some(json!({ "type": "json_schema", "json_schema": schema })),
            );
        }
    }
    put(
        &mut body,
        "reasoning_effort",
        effort_word(&call.reasoning, losses),
    );
    losses.dropped_if(call.reasoning.summary.is_some(), "reasoning.summary");
    put(&mut body, "verbosity", call.verbosity.clone());
    let sampling = &call.sampling;
    put(&mut body, "temperature", sampling.temperature);
    put(&mut body, "top_p", sampling.top_p);
    losses.dropped_if(sampling.top_k.is_some(), "top_k");
    put(&mut body, "seed", sampling.seed);
    put(&mut body, "presence_penalty", sampling.presence_penalty);
    put(&mut body, "frequency_penalty", sampling.frequency_penalty);
    put(&mut body, "logit_bias", sampling.logit_bias.clone());
    if let Some(alternatives) = sampling.logprobs {
        body.insert("logprobs".to_owned(), true.into());
        put(
            &mut body,
            "top_logprobs",
            Some(alternatives).filter(|n| *n > 0),
        );
    }
    put(&mut body, "n", sampling.answers);
    if sampling.stop.len() > MOST_STOPS {
        losses.dropped("stop");
    }
    let stop: Vec<String> = sampling.stop.iter().take(MOST_STOPS).cloned().collect();
    put(&mut body, "stop", Some(stop).filter(|it| !it.is_empty()));
    // It is refused unless the vendor is to keep the answer, which nobody asked for.
    losses.dropped_if(!call.metadata.is_empty(), "metadata");
    openai::shared_fields(call, &mut body, losses);
    body
}

fn tool_value(tool: &Tool, losses: &mut Losses) -> Option<Value> {
    if tool.own.is_some() {
        openai::lost_tool(tool, losses);
        return None;
    }
    if tool.custom {
        let mut body = openai::named(tool, losses);
        if let Some(Value::Object(mut grammar)) = tool.schema.clone() {
            grammar.shift_remove("type");
            let format = json!({ "type": "grammar", "grammar": grammar });
            body.insert("format".to_owned(), format);
        }
        return Some(json!({ "type": "custom", "custom": body }));
    }
    Some(json!({ "type": "function", "function": openai::function_value(tool, losses) }))
}

fn choice_value(call: &Call, losses: &mut Losses) -> Option<Value> {
    Some(match call.choice.as_ref()? {
        Choice::Auto => "auto".into(),
        Choice::None => "none".into(),
        Choice::Required => "required".into(),
        Choice::Tool(name) => {
            let kind = openai::chosen(call, name, losses)?;
            json!({ "type": kind, kind: { "name": openai::tool_name(name) } })
        }
    })
}

/// Moves what is told of tools right behind the calls: a picture among the results comes after them.
fn results_first(messages: &mut [Value]) {
    let is = |message: &Value, role: &str| text(message, "role") == role;
    for run in messages.chunk_by_mut(|one, next| !is(one, "assistant") && !is(next, "assistant")) {
        run.sort_by_key(|message| !is(message, "tool"));
    }
}

/// The messages of one turn: one for each tool result, and one for the rest.
fn messages_of(turn: &Turn, losses: &mut Losses) -> Vec<Value> {
    if !turn.raw.is_empty() {
        return turn.raw.clone();
    }
    if turn.role == Role::Assistant {
        return assistant_message(turn, losses).into_iter().collect();
    }
    let mut messages = Vec::new();
    let mut rest = Vec::new();
    for part in &turn.parts {
        let Kind::ToolResult(result) = &part.kind else {
            rest.extend(content_value(part, losses));
            continue;
        };
        if part.cache.is_some() {
            losses.withheld("cache_control");
        }
        // Only text fits into a tool message: pictures follow in a message of the user's.
        let (mut said, mut shown) = (Vec::new(), Vec::new());
        for part in &result.parts {
            match content_value(part, losses) {
                Some(value) if text(&value, "type") == "text" => said.push(value),
                value => shown.extend(value),
            }
        }
        if !shown.is_empty() {
            losses.approximated("tool_result.media");
        }
        if said.is_empty() {
            let note = if shown.is_empty() {
                ""
            } else {
                "The result follows as a picture or file."
            };
            said.push(json!({ "type": "text", "text": note }));
        }
        rest.extend(shown);
        if result.is_error {
            losses.approximated("tool_result.is_error");
            openai::mark_error(&mut said, "text");
        }
        let content = plain_or_list(said);
        messages.push(json!({ "role": "tool", "tool_call_id": id(&result.id, LONGEST_ID), "content": content }));
    }
    if turn.role == Role::System {
        let before = rest.len();
        rest.retain(|part| text(part, "type") == "text");
        losses.dropped_if(rest.len() != before, "system.media");
    }
    if !rest.is_empty() {
        let role = if turn.role == Role::System {
            "system"
        } else {
            "user"
        };
        messages.push(json!({ "role": role, "content": plain_or_list(rest) }));
    }
    messages
}

/// One text alone is written as a plain string, which every server takes.
fn plain_or_list(mut parts: Vec<Value>) -> Value {
    match parts.as_mut_slice() {
        [only] if text(only, "type") == "text" => {
            only.get_mut("text").map(Value::take).unwrap_or_default()
        }
        _ => Value::Array(parts),
    }
}

fn assistant_message(turn: &Turn, losses: &mut Losses) -> Option<Value> {
    let mut message = Map::from_iter([("role".to_owned(), Value::from("assistant"))]);
    let (mut content, mut calls) = (Vec::new(), Vec::new());
    let mut private = Map::new();
    for part in &turn.parts {
        match &part.kind {
            Kind::ToolCall(call) => calls.push(call_value(call, losses)),
            Kind::Thinking(thinking) => remember(thinking, &mut private, losses),
            Kind::Text(_) => content.extend(content_value(part, losses)),
            Kind::Refusal(text) => content.push(json!({ "type": "refusal", "refusal": text })),
            Kind::Own(own) if own.dialect == NAME => content.push(own.value.clone()),
            Kind::Own(own) => losses.dropped(own.name.clone()),
            _ => losses.dropped("messages.assistant.media"),
        }
    }
    if content.is_empty() && calls.is_empty() {
        return None;
    }
    let said = if content.is_empty() {
        Value::Null
    } else {
        plain_or_list(content)
    };
    message.insert("content".to_owned(), said);
    message.extend(private);
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Some(Value::Object(message))
}

/// Adds reasoning that this very server made to the fields it gave it in.
fn remember(thinking: &Thinking, private: &mut Map<String, Value>, losses: &mut Losses) {
    let seal = thinking.seal.as_ref().filter(|seal| seal.dialect == NAME);
    if seal.is_none() {
        losses.withheld("thinking");
    }
    for name in REASONING {
        let Some(said) = seal.and_then(|seal| maybe(&seal.value, name)) else {
            continue;
        };
        // A stream may have told it in several pieces, with text between them.
        let before = private.get(name).and_then(Value::as_str);
        let whole = before.unwrap_or_default().to_owned() + &said;
        private.insert(name.to_owned(), whole.into());
    }
}

fn call_value(call: &ToolCall, losses: &mut Losses) -> Value {
    let fitted = id(&call.id, LONGEST_ID);
    let name = openai::tool_name(&call.name);
    if call.custom {
        return json!({ "id": fitted, "type": "custom", "custom": { "name": name, "input": call.arguments } });
    }
    let arguments = if call.arguments.trim().is_empty() {
        "{}".to_owned()
    } else if is_object(&call.arguments) {
        call.arguments.clone()
    } else {
        // Servers parse the arguments to fill them into the model's template.
        losses.approximated("tool_call.arguments");
        object(&call.arguments, "arguments").to_string()
    };
    json!({ "id": fitted, "type": "function", "function": { "name": name, "arguments": arguments } })
}

/// Whether there is a part for it.
pub(super) fn tells(part: &Part, losses: &mut Losses) -> bool {
    content_value(part, losses).is_some()
}

fn content_value(part: &Part, losses: &mut Losses) -> Option<Value> {
    if let Some(raw) = &part.raw {
        return Some((**raw).clone());
    }
    if part.cache.is_some() {
        losses.withheld("cache_control");
    }
    Some(match &part.kind {
        Kind::Text(text) if text.text.is_empty() => return None,
        Kind::Text(text) => {
            losses.dropped_if(!text.citations.is_empty(), "citations");
            json!({ "type": "text", "text": text.text })
        }
        Kind::Refusal(text) => json!({ "type": "text", "text": text }),
        Kind::Image(media) => {
            let mut image = Map::new();
            put(&mut image, "url", Some(image_url(media, losses)?));
            put(&mut image, "detail", media.detail.clone());
            json!({ "type": "image_url", "image_url": image })
        }
        Kind::Audio(media) => {
            let Source::Inline { mime, data } = &media.source else {
                losses.dropped("input_audio");
                return None;
            };
            let format = mime.rsplit('/').next().unwrap_or_default();
            json!({ "type": "input_audio", "input_audio": { "data": data, "format": format } })
        }
        Kind::File(media) => match &media.source {
            Source::Plain(text) => {
                losses.approximated("file.text");
                json!({ "type": "text", "text": text })
            }
            _ => json!({ "type": "file", "file": file_value(media, false, losses)? }),
        },
        Kind::Own(own) if own.dialect == NAME => own.value.clone(),
        Kind::Own(own) => {
            losses.dropped(own.name.clone());
            return None;
        }
        Kind::ToolCall(_) | Kind::ToolResult(_) | Kind::Thinking(_) => return None,
    })
}
