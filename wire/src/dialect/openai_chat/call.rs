//! Calls of OpenAI Chat Completions as canonical ones, and back.

use serde_json::{Map, Value, json};

use crate::call::{
    Call, Choice, Effort, Format, Kind, Media, Own, Part, Reasoning, Role, Sampling, Source, Tool,
    ToolCall, ToolResult, Turn,
};
use crate::dialect::fields::{flag, id, list, maybe, others, owned, put, text, words};
use crate::dialect::openai::{
    self, effort_word, file_of, file_value, image_url, media_of_url, user_of,
};
use crate::dialect::{Change, DecodeError};
use crate::loss::Losses;

use super::NAME;
use super::reply::thinking_of;

/// Top-level fields that canonical calls carry, or that mean nothing to an upstream.
const KNOWN: &[&str] = &[
    "model",
    "messages",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "n",
    "service_tier",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "temperature",
    "top_p",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "stop",
    "user",
    "safety_identifier",
    "metadata",
    "prompt_cache_key",
    "store",
];
/// The longest id of a tool call that the API takes.
const LONGEST_ID: usize = 40;

/// Reads a call.
pub(super) fn decode(body: &[u8]) -> Result<Call, DecodeError> {
    let fields: Map<String, Value> = serde_json::from_slice(body)?;
    let whole = Value::Object(fields);
    let get = |name: &str| whole.get(name).filter(|value| !value.is_null());
    let number = |name: &str| get(name).and_then(Value::as_f64);
    let count = |name: &str| get(name).and_then(Value::as_u64);
    let mut only_own = Vec::new();
    let turns = turns_of(list(&whole, "messages"), &mut only_own);
    let caps = [count("max_completion_tokens"), count("max_tokens")];
    let logprobs = flag(&whole, "logprobs").then(|| count("top_logprobs").unwrap_or(0));
    let options = get("stream_options").cloned().unwrap_or_default();
    let mut call = Call {
        dialect: NAME,
        model: owned(&whole, "model"),
        turns,
        tools: list(&whole, "tools").iter().map(tool).collect(),
        choice: get("tool_choice").and_then(choice_of),
        parallel: get("parallel_tool_calls").and_then(Value::as_bool),
        format: format_of(get("response_format")),
        verbosity: maybe(&whole, "verbosity"),
        reasoning: Reasoning {
            effort: Effort::parse(text(&whole, "reasoning_effort")),
            ..Reasoning::default()
        },
        sampling: Sampling {
            temperature: number("temperature"),
            top_p: number("top_p"),
            top_k: None,
            seed: get("seed").and_then(Value::as_i64),
            presence_penalty: number("presence_penalty"),
            frequency_penalty: number("frequency_penalty"),
            logit_bias: get("logit_bias").cloned(),
            logprobs,
            answers: count("n"),
            stop: words(get("stop")),
        },
        max_output: caps.into_iter().flatten().min(),
        stream: flag(&whole, "stream"),
        include_usage: flag(&options, "include_usage"),
        lane: maybe(&whole, "service_tier"),
        user: maybe(&whole, "safety_identifier").or_else(|| maybe(&whole, "user")),
        metadata: get("metadata")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
        cache_key: maybe(&whole, "prompt_cache_key"),
        own: Map::new(),
        only_own,
    };
    if let Value::Object(fields) = whole {
        call.only_own.extend(others(&fields, KNOWN));
        call.own = fields;
    }
    Ok(call)
}

fn turns_of(messages: &[Value], only_own: &mut Vec<String>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::with_capacity(messages.len());
    for message in messages {
        let (role, parts) = match text(message, "role") {
            "assistant" => (Role::Assistant, assistant_parts(message)),
            "tool" | "function" => (Role::User, vec![result_part(message)]),
            "user" => (Role::User, content_parts(message)),
            _ => (Role::System, content_parts(message)),
        };
        if message.get("name").is_some() && !matches!(text(message, "role"), "tool" | "function") {
            only_own.push("messages.name".to_owned());
        }
        let is_result = matches!(
            parts.first().map(|part| &part.kind),
            Some(Kind::ToolResult(_))
        );
        match turns.last_mut() {
            Some(last) if is_result && last.answers_tools() => {
                last.parts.extend(parts);
                last.raw.push(message.clone());
            }
            _ => turns.push(Turn {
                role,
                parts,
                raw: vec![message.clone()],
            }),
        }
    }
    turns
}

fn content_parts(message: &Value) -> Vec<Part> {
    match message.get("content") {
        Some(Value::String(text)) => vec![Part::text(text.clone())],
        Some(Value::Array(parts)) => parts.iter().map(content_part).collect(),
        _ => Vec::new(),
    }
}

fn content_part(part: &Value) -> Part {
    let own = |name: &str| {
        Kind::Own(Own {
            dialect: NAME.to_owned(),
            name: name.to_owned(),
            value: part.clone(),
        })
    };
    let inner = |name: &str| part.get(name).unwrap_or(&Value::Null);
    let kind = match text(part, "type") {
        "text" => {
            return Part {
                raw: Some(Box::new(part.clone())),
                ..Part::text(text(part, "text"))
            };
        }
        "refusal" => Kind::Refusal(owned(part, "refusal")),
        "image_url" => {
            let image = inner("image_url");
            let url = image.as_str().unwrap_or_else(|| text(image, "url"));
            Kind::Image(Media {
                detail: maybe(image, "detail"),
                ..media_of_url(url)
            })
        }
        "input_audio" => {
            let audio = inner("input_audio");
            let mime = format!("audio/{}", text(audio, "format"));
            let source = Source::Inline {
                mime,
                data: owned(audio, "data"),
            };
            Kind::Audio(Media {
                source,
                name: None,
                detail: None,
            })
        }
        "file" => file_of(inner("file")).map_or_else(|| own("file"), Kind::File),
        name => own(&format!("messages.{name}")),
    };
    Part {
        raw: Some(Box::new(part.clone())),
        ..Part::new(kind)
    }
}

fn assistant_parts(message: &Value) -> Vec<Part> {
    let mut parts: Vec<Part> = thinking_of(message, None)
        .into_iter()
        .map(Part::new)
        .collect();
    parts.extend(content_parts(message));
    parts.extend(maybe(message, "refusal").map(|text| Part::new(Kind::Refusal(text))));
    let calls = list(message, "tool_calls")
        .iter()
        .map(|call| Part::new(Kind::ToolCall(call_of(call))));
    parts.extend(calls);
    if let Some(call) = message.get("function_call").filter(|call| call.is_object()) {
        let (name, arguments) = (owned(call, "name"), owned(call, "arguments"));
        let call = ToolCall {
            id: name.clone(),
            name,
            arguments,
            custom: false,
        };
        parts.push(Part::new(Kind::ToolCall(call)));
    }
    parts.retain(|part| part.as_text() != Some(""));
    parts
}

/// A tool call as it stands in a message.
pub(super) fn call_of(call: &Value) -> ToolCall {
    let custom = text(call, "type") == "custom";
    let (body, input) = if custom {
        ("custom", "input")
    } else {
        ("function", "arguments")
    };
    let body = call.get(body).unwrap_or(&Value::Null);
    ToolCall {
        id: owned(call, "id"),
        name: owned(body, "name"),
        arguments: owned(body, input),
        custom,
    }
}

fn result_part(message: &Value) -> Part {
    let id = maybe(message, "tool_call_id").unwrap_or_else(|| owned(message, "name"));
    let parts = content_parts(message);
    Part::new(Kind::ToolResult(ToolResult {
        id,
        parts,
        is_error: false,
        custom: false,
    }))
}

fn tool(tool: &Value) -> Tool {
    match text(tool, "type") {
        "function" => openai::function(tool.get("function").unwrap_or(&Value::Null)),
        "custom" => {
            let body = tool.get("custom").unwrap_or(&Value::Null);
            Tool {
                name: owned(body, "name"),
                description: maybe(body, "description"),
                custom: true,
                ..Tool::default()
            }
        }
        _ => Tool {
            own: Some(tool.clone()),
            ..Tool::default()
        },
    }
}

fn choice_of(choice: &Value) -> Option<Choice> {
    let named = ["function", "custom"]
        .iter()
        .find_map(|kind| maybe(choice.get(kind)?, "name"));
    match (choice.as_str(), named) {
        (Some("auto"), _) => Some(Choice::Auto),
        (Some("none"), _) => Some(Choice::None),
        (Some("required"), _) => Some(Choice::Required),
        (_, Some(name)) => Some(Choice::Tool(name)),
        _ => None,
    }
}

fn format_of(format: Option<&Value>) -> Format {
    match format.map_or("", |format| text(format, "type")) {
        "json_object" => Format::Json,
        "json_schema" => openai::schema_of(
            format
                .and_then(|it| it.get("json_schema"))
                .unwrap_or(&Value::Null),
        ),
        _ => Format::Text,
    }
}

/// Writes a call for an upstream.
pub(super) fn encode(call: &Call, change: &Change<'_>, losses: &mut Losses) -> Value {
    let at_home = call.dialect == NAME;
    let mut body = if at_home {
        call.own.clone()
    } else {
        fresh(call, losses)
    };
    body.insert("model".to_owned(), change.model.into());
    let messages = call
        .turns
        .iter()
        .flat_map(|turn| messages_of(turn, losses))
        .collect();
    body.insert("messages".to_owned(), Value::Array(messages));
    let caps = ["max_tokens", "max_completion_tokens"];
    let written: Vec<&str> = caps
        .into_iter()
        .filter(|name| body.contains_key(*name))
        .collect();
    match change.cap.or_else(|| call.max_output.filter(|_| !at_home)) {
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
    let tools: Vec<Value> = call
        .tools
        .iter()
        .filter_map(|tool| tool_value(tool, losses))
        .collect();
    if !tools.is_empty() {
        put(
            &mut body,
            "tool_choice",
            call.choice.as_ref().map(choice_value),
        );
        put(&mut body, "parallel_tool_calls", call.parallel);
        body.insert("tools".to_owned(), Value::Array(tools));
    }
    match &call.format {
        Format::Text => {}
        Format::Json => put(
            &mut body,
            "response_format",
            Some(json!({ "type": "json_object" })),
        ),
        Format::Schema { .. } => {
            let schema = openai::schema_value(&call.format);
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
    if !sampling.stop.is_empty() {
        body.insert("stop".to_owned(), sampling.stop.clone().into());
    }
    put(&mut body, "service_tier", openai::lane(call, losses));
    put(&mut body, "user", user_of(call, losses));
    if !call.metadata.is_empty() {
        body.insert("metadata".to_owned(), call.metadata.clone().into());
    }
    put(&mut body, "prompt_cache_key", call.cache_key.clone());
    openai::own_losses(call, losses);
    body
}

fn tool_value(tool: &Tool, losses: &mut Losses) -> Option<Value> {
    if tool.own.is_some() {
        openai::lost_tool(tool, losses);
        return None;
    }
    if tool.custom {
        let mut body = Map::from_iter([("name".to_owned(), Value::from(tool.name.clone()))]);
        put(&mut body, "description", tool.description.clone());
        return Some(json!({ "type": "custom", "custom": body }));
    }
    Some(json!({ "type": "function", "function": openai::function_value(tool) }))
}

fn choice_value(choice: &Choice) -> Value {
    match choice {
        Choice::Auto => "auto".into(),
        Choice::None => "none".into(),
        Choice::Required => "required".into(),
        Choice::Tool(name) => json!({ "type": "function", "function": { "name": name } }),
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
        // Only text fits into a tool message: pictures follow in a message of the user's.
        let mut said = Vec::new();
        for part in &result.parts {
            match (&part.kind, content_value(part, losses)) {
                (Kind::Text(_), Some(value)) => said.push(value),
                (_, Some(value)) => {
                    losses.approximated("tool_result.media");
                    rest.push(value);
                }
                (_, None) => {}
            }
        }
        if said.is_empty() {
            let note = if result.parts.is_empty() {
                ""
            } else {
                "The result follows as a picture or file."
            };
            said.push(json!({ "type": "text", "text": note }));
        }
        if result.is_error {
            losses.approximated("tool_result.is_error");
            openai::mark_error(&mut said);
        }
        let content = plain_or_list(said);
        messages.push(json!({ "role": "tool", "tool_call_id": id(&result.id, LONGEST_ID), "content": content }));
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
            Kind::ToolCall(call) => calls.push(call_value(call)),
            Kind::Thinking(thinking) => {
                let sealed = thinking
                    .seal
                    .as_ref()
                    .and_then(|seal| seal.value.as_object());
                private.extend(sealed.cloned().into_iter().flatten());
            }
            Kind::Text(_) => content.extend(content_value(part, losses)),
            Kind::Refusal(text) => content.push(json!({ "type": "refusal", "refusal": text })),
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

fn call_value(call: &ToolCall) -> Value {
    let fitted = id(&call.id, LONGEST_ID);
    if call.custom {
        return json!({ "id": fitted, "type": "custom", "custom": { "name": call.name, "input": call.arguments } });
    }
    let arguments = if call.arguments.is_empty() {
        "{}"
    } else {
        &call.arguments
    };
    json!({ "id": fitted, "type": "function", "function": { "name": call.name, "arguments": arguments } })
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
        Kind::Text(text) => json!({ "type": "text", "text": text.text }),
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
            Source::Plain(text) => json!({ "type": "text", "text": text }),
            _ => json!({ "type": "file", "file": file_value(media, false, losses)? }),
        },
        Kind::Own(own) => own.value.clone(),
        Kind::ToolCall(_) | Kind::ToolResult(_) | Kind::Thinking(_) => return None,
    })
}
