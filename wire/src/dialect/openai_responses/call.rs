//! Calls of OpenAI Responses as canonical ones, and back.

use serde_json::{Map, Value, json};

use crate::call::{
    Call, Choice, Effort, Format, Kind, Media, Part, Reasoning, Role, Sampling, Source, Tool,
    ToolCall, ToolResult, Turn,
};
use crate::dialect::fields::{flag, id, list, maybe, others, owned, put, text};
use crate::dialect::openai::{self, effort_word, file_value, image_url, user_of};
use crate::dialect::{Change, DecodeError};
use crate::loss::Losses;

use super::NAME;
use super::items::{content_part, flat_name, input_items, made_item, made_message};

/// Top-level fields that canonical calls carry, or that are the gateway's own business.
const KNOWN: &[&str] = &[
    "model",
    "input",
    "instructions",
    "stream",
    "stream_options",
    "max_output_tokens",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "text",
    "reasoning",
    "temperature",
    "top_p",
    "top_logprobs",
    "include",
    "metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "service_tier",
    "store",
    "background",
    "previous_response_id",
    "conversation",
    "truncation",
    "client_metadata",
];
/// The longest id of a call that the API takes.
const LONGEST_ID: usize = 64;
/// The least cap that the API takes.
const LEAST_CAP: u64 = 16;
const LOGPROBS: &str = "message.output_text.logprobs";
const ENCRYPTED: &str = "reasoning.encrypted_content";

/// Reads a call.
pub(super) fn decode(body: &[u8]) -> Result<Call, DecodeError> {
    let fields: Map<String, Value> = serde_json::from_slice(body)?;
    let whole = Value::Object(fields);
    let get = |name: &str| whole.get(name).filter(|value| !value.is_null());
    let number = |name: &str| get(name).and_then(Value::as_f64);
    let mut turns = Vec::new();
    if let Some(text) = maybe(&whole, "instructions") {
        let mut turn = Turn::new(Role::System, vec![Part::text(text)]);
        turn.raw = vec![Value::Null];
        turns.push(turn);
    }
    turns_of(
        &input_items(get("input").unwrap_or(&Value::Null)),
        &mut turns,
    );
    let wants = |word: &str| {
        list(&whole, "include")
            .iter()
            .any(|it| it.as_str() == Some(word))
    };
    let alternatives = get("top_logprobs").and_then(Value::as_u64);
    let output = get("text").cloned().unwrap_or_default();
    let reasoning = get("reasoning").cloned().unwrap_or_default();
    let mut call = Call {
        dialect: NAME,
        model: owned(&whole, "model"),
        turns,
        tools: list(&whole, "tools").iter().flat_map(tools_of).collect(),
        choice: get("tool_choice").and_then(choice_of),
        parallel: get("parallel_tool_calls").and_then(Value::as_bool),
        format: format_of(output.get("format")),
        verbosity: maybe(&output, "verbosity"),
        reasoning: Reasoning {
            enabled: None,
            effort: Effort::parse(text(&reasoning, "effort")),
            budget: None,
            summary: maybe(&reasoning, "summary"),
        },
        sampling: Sampling {
            temperature: number("temperature"),
            top_p: number("top_p"),
            logprobs: if wants(LOGPROBS) {
                Some(alternatives.unwrap_or(0))
            } else {
                alternatives
            },
            ..Sampling::default()
        },
        max_output: get("max_output_tokens").and_then(Value::as_u64),
        stream: flag(&whole, "stream"),
        include_usage: true,
        lane: maybe(&whole, "service_tier"),
        user: maybe(&whole, "safety_identifier").or_else(|| maybe(&whole, "user")),
        metadata: get("metadata")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default(),
        cache_key: maybe(&whole, "prompt_cache_key"),
        own: Map::new(),
        only_own: Vec::new(),
    };
    if let Value::Object(fields) = whole {
        call.only_own = others(&fields, KNOWN);
        call.own = fields;
    }
    Ok(call)
}

/// Items as turns: what the model made in a row is one turn, and so are the results given to it.
fn turns_of(items: &[Value], turns: &mut Vec<Turn>) {
    for item in items {
        let (role, parts) = match text(item, "type") {
            "" | "message" => {
                let role = match text(item, "role") {
                    "assistant" => Role::Assistant,
                    "user" => Role::User,
                    _ => Role::System,
                };
                (role, made_message(item))
            }
            kind if kind.ends_with("_call_output") => (Role::User, vec![result(item, kind)]),
            _ => {
                let part = Part {
                    raw: Some(Box::new(item.clone())),
                    ..Part::new(made_item(item, None))
                };
                (Role::Assistant, vec![part])
            }
        };
        let is_result = matches!(
            parts.first().map(|part| &part.kind),
            Some(Kind::ToolResult(_))
        );
        match turns.last_mut() {
            Some(last)
                if last.role == role
                    && (role == Role::Assistant || (is_result && last.answers_tools())) =>
            {
                last.parts.extend(parts);
                last.raw.push(item.clone());
            }
            _ => turns.push(Turn {
                role,
                parts,
                raw: vec![item.clone()],
            }),
        }
    }
}

fn result(item: &Value, kind: &str) -> Part {
    let parts = match item.get("output") {
        Some(Value::String(text)) => vec![Part::text(text.clone())],
        Some(Value::Array(parts)) => parts
            .iter()
            .map(|part| Part {
                raw: Some(Box::new(part.clone())),
                ..Part::new(content_part(part))
            })
            .collect(),
        Some(other) => vec![Part::text(other.to_string())],
        None => Vec::new(),
    };
    let custom = kind == "custom_tool_call_output";
    let result = ToolResult {
        id: owned(item, "call_id"),
        parts,
        is_error: false,
        custom,
    };
    Part {
        raw: Some(Box::new(item.clone())),
        ..Part::new(Kind::ToolResult(result))
    }
}

/// A tool, or the tools of a namespace.
fn tools_of(tool: &Value) -> Vec<Tool> {
    match text(tool, "type") {
        "function" => vec![openai::function(tool)],
        "custom" => vec![Tool {
            name: owned(tool, "name"),
            description: maybe(tool, "description"),
            custom: true,
            ..Tool::default()
        }],
        "namespace" => {
            let group = text(tool, "name");
            let inside = |inner: &Value| {
                let function = openai::function(inner);
                let name = flat_name(Some(group), &function.name);
                Tool {
                    name,
                    group: Some(group.to_owned()),
                    ..function
                }
            };
            list(tool, "tools").iter().map(inside).collect()
        }
        _ => vec![Tool {
            own: Some(tool.clone()),
            ..Tool::default()
        }],
    }
}

fn choice_of(choice: &Value) -> Option<Choice> {
    match (choice.as_str(), text(choice, "type")) {
        (Some("auto"), _) => Some(Choice::Auto),
        (Some("none"), _) => Some(Choice::None),
        (Some("required"), _) => Some(Choice::Required),
        (_, "function" | "custom") => Some(Choice::Tool(owned(choice, "name"))),
        (_, "allowed_tools") => choice_of(choice.get("mode")?),
        _ => None,
    }
}

fn format_of(format: Option<&Value>) -> Format {
    match format.map_or("", |format| text(format, "type")) {
        "json_object" => Format::Json,
        "json_schema" => openai::schema_of(format.unwrap_or(&Value::Null)),
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
    // The transcript is whole here, whatever it was pieced together from.
    body.shift_remove("previous_response_id");
    body.shift_remove("conversation");
    let instructed = at_home && body.get("instructions").is_some_and(Value::is_string);
    let turns = call.turns.iter().skip(usize::from(instructed));
    let items = turns.flat_map(|turn| items_of(turn, losses)).collect();
    body.insert("input".to_owned(), Value::Array(items));
    if let Some(cap) = change.cap.or_else(|| call.max_output.filter(|_| !at_home)) {
        if cap < LEAST_CAP && !at_home {
            losses.approximated("max_output_tokens");
        }
        body.insert(
            "max_output_tokens".to_owned(),
            if at_home { cap } else { cap.max(LEAST_CAP) }.into(),
        );
    }
    Value::Object(body)
}

/// The fields besides model and input, for a call from another dialect.
fn fresh(call: &Call, losses: &mut Losses) -> Map<String, Value> {
    let mut body = Map::new();
    // The gateway keeps the context; nobody needs a second copy of it.
    body.insert("store".to_owned(), false.into());
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
    let mut output = Map::new();
    match &call.format {
        Format::Text => {}
        Format::Json => put(
            &mut output,
            "format",
            Some(json!({ "type": "json_object" })),
        ),
        Format::Schema { .. } => {
            let mut format = Map::from_iter([("type".to_owned(), Value::from("json_schema"))]);
            format.extend(openai::schema_value(&call.format));
            put(&mut output, "format", Some(Value::Object(format)));
        }
    }
    put(&mut output, "verbosity", call.verbosity.clone());
    if !output.is_empty() {
        body.insert("text".to_owned(), Value::Object(output));
    }
    let mut include = Vec::new();
    if let Some(reasoning) = reasoning_value(call, losses) {
        body.insert("reasoning".to_owned(), reasoning);
        include.push(Value::from(ENCRYPTED));
    }
    sampling(call, &mut include, &mut body, losses);
    if !include.is_empty() {
        body.insert("include".to_owned(), Value::Array(include));
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

fn sampling(
    call: &Call,
    include: &mut Vec<Value>,
    body: &mut Map<String, Value>,
    losses: &mut Losses,
) {
    let sampling = &call.sampling;
    put(body, "temperature", sampling.temperature);
    put(body, "top_p", sampling.top_p);
    if let Some(alternatives) = sampling.logprobs {
        include.push(LOGPROBS.into());
        put(body, "top_logprobs", Some(alternatives).filter(|n| *n > 0));
    }
    losses.dropped_if(sampling.top_k.is_some(), "top_k");
    losses.dropped_if(sampling.seed.is_some(), "seed");
    let set = |penalty: Option<f64>| penalty.is_some_and(|p| p != 0.0);
    losses.dropped_if(set(sampling.presence_penalty), "presence_penalty");
    losses.dropped_if(set(sampling.frequency_penalty), "frequency_penalty");
    losses.dropped_if(sampling.logit_bias.is_some(), "logit_bias");
    losses.dropped_if(!sampling.stop.is_empty(), "stop");
    losses.dropped_if(sampling.answers.is_some_and(|n| n > 1), "n");
}

fn reasoning_value(call: &Call, losses: &mut Losses) -> Option<Value> {
    let reasoning = &call.reasoning;
    if reasoning.enabled == Some(false) {
        return None;
    }
    let mut value = Map::new();
    put(&mut value, "effort", effort_word(reasoning, losses));
    // Whoever asks for thinking in Anthropic's words wants to see it.
    let summary = match reasoning.summary.as_deref() {
        Some("omitted") => None,
        Some(word @ ("auto" | "concise" | "detailed")) => Some(word),
        Some(_) => Some("auto"),
        None => (reasoning.enabled == Some(true)).then_some("auto"),
    };
    put(&mut value, "summary", summary);
    (!value.is_empty()).then_some(Value::Object(value))
}

fn tool_value(tool: &Tool, losses: &mut Losses) -> Option<Value> {
    if tool.own.is_some() {
        openai::lost_tool(tool, losses);
        return None;
    }
    let mut value = Map::from_iter([("type".to_owned(), Value::from("function"))]);
    if tool.custom {
        value.insert("type".to_owned(), "custom".into());
        value.insert("name".to_owned(), tool.name.clone().into());
        put(&mut value, "description", tool.description.clone());
    } else {
        value.extend(openai::function_value(tool));
        // Left out, this dialect takes it for true, and refuses schemas that are not made for it.
        value.insert("strict".to_owned(), tool.strict.unwrap_or(false).into());
    }
    Some(Value::Object(value))
}

fn choice_value(choice: &Choice) -> Value {
    match choice {
        Choice::Auto => "auto".into(),
        Choice::None => "none".into(),
        Choice::Required => "required".into(),
        Choice::Tool(name) => json!({ "type": "function", "name": name }),
    }
}

/// The items of one turn: pieces of content in a row are one message.
fn items_of(turn: &Turn, losses: &mut Losses) -> Vec<Value> {
    if !turn.raw.is_empty() {
        return turn.raw.clone();
    }
    let (mut items, mut content) = (Vec::new(), Vec::new());
    let last = turn.parts.len().saturating_sub(1);
    for (index, part) in turn.parts.iter().enumerate() {
        if let Some(piece) = content_value(part, turn.role, losses) {
            content.push(piece);
            continue;
        }
        let item = match &part.kind {
            // Reasoning that nothing follows is refused; it belonged to an answer that never came.
            Kind::Thinking(_) if index == last => None,
            Kind::Thinking(thinking) => thinking.seal.as_ref().map(|seal| seal.value.clone()),
            Kind::ToolCall(call) => Some(
                part.raw
                    .as_deref()
                    .cloned()
                    .unwrap_or_else(|| call_value(call)),
            ),
            Kind::ToolResult(result) => Some(result_value(result, part.raw.as_deref(), losses)),
            Kind::Own(own) => Some(own.value.clone()),
            _ => None,
        };
        items.extend(message(&mut content, turn.role));
        items.extend(item);
    }
    items.extend(message(&mut content, turn.role));
    items
}

fn message(content: &mut Vec<Value>, role: Role) -> Option<Value> {
    if content.is_empty() {
        return None;
    }
    let role = match role {
        Role::Assistant => "assistant",
        Role::User => "user",
        Role::System => "system",
    };
    let content = std::mem::take(content);
    Some(json!({ "type": "message", "role": role, "content": content }))
}

fn call_value(call: &ToolCall) -> Value {
    let fitted = id(&call.id, LONGEST_ID);
    if call.custom {
        return json!({ "type": "custom_tool_call", "call_id": fitted, "name": call.name, "input": call.arguments });
    }
    let arguments = if call.arguments.is_empty() {
        "{}"
    } else {
        &call.arguments
    };
    json!({ "type": "function_call", "call_id": fitted, "name": call.name, "arguments": arguments })
}

fn result_value(result: &ToolResult, raw: Option<&Value>, losses: &mut Losses) -> Value {
    if let Some(raw) = raw {
        return raw.clone();
    }
    let mut parts: Vec<Value> = result
        .parts
        .iter()
        .filter_map(|part| content_value(part, Role::User, losses))
        .collect();
    if result.is_error {
        losses.approximated("tool_result.is_error");
        openai::mark_error(&mut parts);
    }
    let output = match parts.as_slice() {
        [] => Value::from(""),
        [only] if text(only, "type") == "input_text" => {
            only.get("text").cloned().unwrap_or_default()
        }
        _ => Value::Array(parts),
    };
    let kind = if result.custom {
        "custom_tool_call_output"
    } else {
        "function_call_output"
    };
    json!({ "type": kind, "call_id": id(&result.id, LONGEST_ID), "output": output })
}

/// A piece of a message's content; `None` for what is an item of its own.
fn content_value(part: &Part, role: Role, losses: &mut Losses) -> Option<Value> {
    let is_content = matches!(
        part.kind,
        Kind::Text(_) | Kind::Refusal(_) | Kind::Image(_) | Kind::File(_) | Kind::Audio(_)
    );
    if let (true, Some(raw)) = (is_content, &part.raw) {
        return Some((**raw).clone());
    }
    if part.cache.is_some() {
        losses.withheld("cache_control");
    }
    let said = |text: &str| match role {
        Role::Assistant => json!({ "type": "output_text", "text": text, "annotations": [] }),
        Role::User | Role::System => json!({ "type": "input_text", "text": text }),
    };
    match &part.kind {
        Kind::Text(text) if text.text.is_empty() => None,
        Kind::Text(text) => Some(said(&text.text)),
        Kind::Refusal(text) if role == Role::Assistant => {
            Some(json!({ "type": "refusal", "refusal": text }))
        }
        Kind::Refusal(text)
        | Kind::File(Media {
            source: Source::Plain(text),
            ..
        }) => Some(said(text)),
        Kind::Image(media) => image_value(media, losses),
        Kind::File(media) => {
            let Some(Value::Object(fields)) = file_value(media, true, losses) else {
                return None;
            };
            let mut value = Map::from_iter([("type".to_owned(), Value::from("input_file"))]);
            value.extend(fields);
            Some(Value::Object(value))
        }
        Kind::Audio(_) => {
            losses.dropped("input_audio");
            None
        }
        Kind::ToolCall(_) | Kind::ToolResult(_) | Kind::Thinking(_) | Kind::Own(_) => None,
    }
}

fn image_value(media: &Media, losses: &mut Losses) -> Option<Value> {
    let mut value = Map::from_iter([("type".to_owned(), Value::from("input_image"))]);
    put(&mut value, "image_url", Some(image_url(media, losses)?));
    put(&mut value, "detail", media.detail.clone());
    Some(Value::Object(value))
}
