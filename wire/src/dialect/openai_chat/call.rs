//! Calls of OpenAI Chat Completions as canonical ones.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::call::{
    Call, Choice, Effort, Format, Kind, Media, Own, Part, Reasoning, Role, Sampling, Source, Tool,
    ToolCall, ToolResult, Turn,
};
use crate::dialect::DecodeError;
use crate::dialect::fields::{flag, json_text, list, maybe, others, owned, text, words};
use crate::dialect::openai::{self, file_of, media_of_url};
use crate::dialect::strict::{self, Shape};

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

/// What is read, by its kind.
const SHAPES: &[(&str, Shape)] = &[
    ("messages", Shape::List),
    ("tools", Shape::List),
    ("tool_choice", Shape::Choice),
    ("parallel_tool_calls", Shape::Flag),
    ("response_format", Shape::Object),
    ("reasoning_effort", Shape::Text),
    ("verbosity", Shape::Text),
    ("stream_options", Shape::Object),
    ("max_tokens", Shape::Count),
    ("max_completion_tokens", Shape::Count),
    ("n", Shape::Positive),
    ("temperature", Shape::Number),
    ("top_p", Shape::Number),
    ("seed", Shape::Whole),
    ("presence_penalty", Shape::Number),
    ("frequency_penalty", Shape::Number),
    ("logit_bias", Shape::Object),
    ("logprobs", Shape::Flag),
    ("top_logprobs", Shape::Count),
    ("stop", Shape::Texts),
    ("service_tier", Shape::Text),
    ("store", Shape::Flag),
    ("user", Shape::Text),
    ("safety_identifier", Shape::Text),
    ("prompt_cache_key", Shape::Text),
    ("metadata", Shape::Object),
];
const RULES: strict::Rules = strict::Rules {
    name: "messages",
    roles: &[
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "function",
    ],
    silent: &["assistant", "tool", "function"],
    needs: &[
        // The address may stand where the object around it is due.
        ("image_url", &["/image_url/url", "/image_url"]),
        ("input_audio", &["/input_audio/data"]),
        ("refusal", &["/refusal"]),
    ],
};

/// Reads a call.
pub(super) fn decode(body: &[u8]) -> Result<Call, DecodeError> {
    let fields: Map<String, Value> = crate::json::read(body)?;
    let whole = Value::Object(fields);
    check(&whole)?;
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
        turns,
        tools: list(&whole, "tools").iter().map(tool).collect(),
        choice: get("tool_choice").and_then(choice_of),
        format: get("response_format")
            .and_then(format_of)
            .unwrap_or_default(),
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
        include_usage: flag(&options, "include_usage"),
        only_own,
        ..openai::common(&whole, body)
    };
    strict::choice(&call, get("tool_choice").is_some())?;
    if get("messages").is_some() {
        strict::spoken(&call.turns, "messages")?;
    }
    call.only_own.extend(unread(&whole, &call));
    if let Value::Object(fields) = whole {
        call.only_own.extend(others(&fields, KNOWN));
        call.own = fields;
    }
    Ok(call)
}

/// Holds that what is read below is what it should be.
fn check(whole: &Value) -> Result<(), DecodeError> {
    strict::fields(whole, SHAPES)?;
    for message in list(whole, "messages") {
        strict::message(message, &RULES)?;
        match text(message, "role") {
            "assistant" => check_calls(message)?,
            "tool" => {
                strict::fields_at(message, "messages.", &[("tool_call_id", Shape::Text)])?;
                // One vendor joins results to calls by the name of the function.
                if maybe(message, "name").is_none() {
                    strict::filled(message, "messages.", &["tool_call_id"])?;
                }
            }
            "function" => strict::filled(message, "messages.", &["name"])?,
            _ => {}
        }
    }
    let tools = list(whole, "tools");
    strict::typed(tools)?;
    for tool in tools {
        match text(tool, "type") {
            "function" => strict::tool(tool.get("function"), "parameters")?,
            "custom" => strict::tool(tool.get("custom"), "format")?,
            _ => {}
        }
    }
    if let Some(format) = whole.get("response_format").filter(|it| it.is_object()) {
        strict::filled(format, "response_format.", &["type"])?;
        if text(format, "type") == "json_schema" {
            let form = format.get("json_schema");
            strict::answer_schema(form, "response_format.json_schema")?;
        }
    }
    Ok(())
}

/// Holds that the calls of an assistant's message can be made again.
fn check_calls(message: &Value) -> Result<(), DecodeError> {
    const SHAPES: [(&str, Shape); 2] = [
        ("tool_calls", Shape::List),
        ("function_call", Shape::Object),
    ];
    strict::fields_at(message, "messages.", &SHAPES)?;
    for call in list(message, "tool_calls") {
        strict::filled(call, "messages.tool_calls.", &["id"])?;
        let inner = |name: &str| call.get(name).unwrap_or(&Value::Null);
        if call_of(call).custom {
            strict::custom_call(inner("custom"), "messages.tool_calls.custom.")?;
        } else {
            strict::function_call(inner("function"), "messages.tool_calls.function.")?;
        }
    }
    match message.get("function_call") {
        None | Some(Value::Null) => Ok(()),
        Some(call) => strict::function_call(call, "messages.function_call."),
    }
}

/// What is known by its name, but not by what it says.
fn unread(whole: &Value, call: &Call) -> Vec<String> {
    let get = |name: &str| whole.get(name).filter(|value| !value.is_null());
    let restricted = get("tool_choice").is_some_and(|it| text(it, "type") == "allowed_tools");
    let unread = [
        ("tool_choice.tools", restricted),
        (
            "response_format",
            get("response_format").is_some_and(|format| format_of(format).is_none()),
        ),
        (
            "reasoning_effort",
            get("reasoning_effort").is_some() && call.reasoning.effort.is_none(),
        ),
    ];
    let unread = unread.iter().filter(|(_, is_unread)| *is_unread);
    unread.map(|(name, _)| (*name).to_owned()).collect()
}

fn turns_of(messages: &[Value], only_own: &mut Vec<String>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::with_capacity(messages.len());
    let mut custom = HashSet::new();
    for message in messages {
        let (role, parts) = match text(message, "role") {
            "assistant" => (Role::Assistant, assistant_parts(message)),
            "tool" | "function" => (Role::User, vec![result_part(message, &custom)]),
            "user" => (Role::User, content_parts(message)),
            _ => (Role::System, content_parts(message)),
        };
        if message.get("name").is_some() && !matches!(text(message, "role"), "tool" | "function") {
            only_own.push("messages.name".to_owned());
        }
        if message.get("audio").is_some_and(Value::is_object) {
            only_own.push("messages.audio".to_owned());
        }
        let calls = list(message, "tool_calls").iter();
        custom.extend(
            calls
                .map(call_of)
                .filter(|call| call.custom)
                .map(|call| call.id),
        );
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
    let mut parts: Vec<Part> = match message.get("content") {
        Some(Value::String(text)) => vec![Part::text(text.clone())],
        Some(Value::Array(parts)) => parts.iter().map(content_part).collect(),
        _ => Vec::new(),
    };
    // A mark on the whole message stands behind its last part.
    if let (Some(mark), Some(last)) = (message.get("cache_control"), parts.last_mut()) {
        last.cache.get_or_insert_with(|| mark.clone());
    }
    parts
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
                cache: part.get("cache_control").cloned(),
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
        // Not of this API, but what its clients put here for Anthropic's models.
        cache: part.get("cache_control").cloned(),
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
        .map(|call| Part::new(Kind::ToolCall(whole_call_of(call))));
    parts.extend(calls);
    if let Some(call) = message.get("function_call").filter(|call| call.is_object()) {
        let (name, arguments) = (owned(call, "name"), json_text(call, "arguments"));
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

/// A tool call as it stands in a message. Some servers send `null` for a function without arguments.
pub(super) fn whole_call_of(call: &Value) -> ToolCall {
    let mut call = call_of(call);
    if !call.custom && call.arguments.trim() == "null" {
        "{}".clone_into(&mut call.arguments);
    }
    call
}

/// A tool call as it stands in a message, or a piece of one, which does not repeat its type.
pub(super) fn call_of(call: &Value) -> ToolCall {
    let custom = text(call, "type") == "custom" || call.get("custom").is_some_and(Value::is_object);
    let (body, input) = if custom {
        ("custom", "input")
    } else {
        ("function", "arguments")
    };
    let body = call.get(body).unwrap_or(&Value::Null);
    ToolCall {
        id: owned(call, "id"),
        name: owned(body, "name"),
        arguments: json_text(body, input),
        custom,
    }
}

/// A result; that its tool is a free-form one is known from its call.
fn result_part(message: &Value, custom: &HashSet<String>) -> Part {
    let id = maybe(message, "tool_call_id").unwrap_or_else(|| owned(message, "name"));
    let parts = content_parts(message);
    let custom = custom.contains(&id);
    Part::new(Kind::ToolResult(ToolResult {
        id,
        parts,
        is_error: false,
        custom,
    }))
}

fn tool(tool: &Value) -> Tool {
    match text(tool, "type") {
        "function" => Tool {
            cache: tool.get("cache_control").cloned(),
            ..openai::function(tool.get("function").unwrap_or(&Value::Null))
        },
        "custom" => {
            let body = tool.get("custom").unwrap_or(&Value::Null);
            Tool {
                name: owned(body, "name"),
                description: maybe(body, "description"),
                schema: body.get("format").and_then(grammar_of),
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

/// The grammar of a free-form input, as it is written without a wrapper.
fn grammar_of(format: &Value) -> Option<Value> {
    let inner = format.get("grammar").and_then(Value::as_object)?;
    let mut grammar = Map::from_iter([("type".to_owned(), Value::from("grammar"))]);
    grammar.extend(inner.clone());
    Some(Value::Object(grammar))
}

fn choice_of(choice: &Value) -> Option<Choice> {
    let named = ["function", "custom"]
        .iter()
        .find_map(|kind| maybe(choice.get(kind)?, "name"));
    match (choice.as_str(), named) {
        (Some("auto"), _) => Some(Choice::Auto),
        (Some("none"), _) => Some(Choice::None),
        // `any` is what one vendor calls it.
        (Some("required" | "any"), _) => Some(Choice::Required),
        (_, Some(name)) => Some(Choice::Tool(name)),
        _ if text(choice, "type") == "allowed_tools" => {
            choice_of(choice.get("allowed_tools")?.get("mode")?)
        }
        _ => None,
    }
}

fn format_of(format: &Value) -> Option<Format> {
    match text(format, "type") {
        "" | "text" => Some(Format::Text),
        "json_object" => Some(Format::Json),
        "json_schema" => format.get("json_schema").map(openai::schema_of),
        _ => None,
    }
}
