//! Canonical calls as calls of OpenAI Responses.

use serde_json::{Map, Value, json};

use crate::call::{
    Call, Choice, Format, Kind, Media, Part, Role, Seal, Source, Tool, ToolCall, ToolResult, Turn,
};
use crate::dialect::Change;
use crate::dialect::fields::{id, put, text};
use crate::dialect::openai::{self, effort_word, file_value, image_url};
use crate::loss::Losses;
use crate::numbers;

use super::call::LOGPROBS;
use super::items::{annotations, is_content};
use super::{ENCRYPTED, NAME};

/// The longest id of a call that the API takes.
const LONGEST_ID: usize = 64;
/// The least cap that the API takes.
const LEAST_CAP: u64 = 16;

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
    // The transcript is whole here, whatever it was pieced together from.
    body.shift_remove("previous_response_id");
    body.shift_remove("conversation");
    // The instructions were read as a turn of their own; changed, they are written as a message.
    let is_instructions = |turn: &Turn| turn.raw == [Value::Null];
    if !call.turns.iter().any(is_instructions) && !text_of(&body, "instructions").is_empty() {
        body.shift_remove("instructions");
    }
    let turns = call.turns.iter().filter(|turn| !is_instructions(turn));
    let items = turns
        .flat_map(|turn| items_of(turn, call, losses))
        .collect();
    body.insert("input".to_owned(), Value::Array(items));
    if change.reasons_not() {
        body.shift_remove("reasoning");
        if let Some(include) = body.get_mut("include").and_then(Value::as_array_mut) {
            include.retain(|it| it != ENCRYPTED);
        }
    }
    if let Some(cap) = change.capped(call, at_home, losses) {
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

fn text_of<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The fields besides model and input, for a call from another dialect.
fn fresh(call: &Call, losses: &mut Losses) -> Map<String, Value> {
    let mut body = Map::new();
    // The gateway keeps the context; nobody needs a second copy of it.
    body.insert("store".to_owned(), false.into());
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
            format.extend(openai::schema_value(&call.format, losses));
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
    if !call.metadata.is_empty() {
        body.insert("metadata".to_owned(), call.metadata.clone().into());
    }
    openai::shared_fields(call, &mut body, losses);
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
        value.extend(openai::named(tool, losses));
        put(&mut value, "format", tool.schema.clone());
    } else {
        value.extend(openai::function_value(tool, losses));
        // Left out, this dialect takes it for true, and refuses schemas that are not made for it.
        value.entry("strict").or_insert_with(|| false.into());
    }
    Some(Value::Object(value))
}

fn choice_value(call: &Call, losses: &mut Losses) -> Option<Value> {
    Some(match call.choice.as_ref()? {
        Choice::Auto => "auto".into(),
        Choice::None => "none".into(),
        Choice::Required => "required".into(),
        Choice::Tool(name) => {
            let kind = openai::chosen(call, name, losses)?;
            json!({ "type": kind, "name": openai::tool_name(name) })
        }
    })
}

/// The items of one turn: pieces of content in a row are one message.
fn items_of(turn: &Turn, call: &Call, losses: &mut Losses) -> Vec<Value> {
    if !turn.raw.is_empty() {
        return turn.raw.clone();
    }
    let (mut items, mut content) = (Vec::new(), Vec::new());
    for part in &turn.parts {
        let item = match &part.kind {
            Kind::Thinking(thinking) => {
                let seal = thinking.seal.as_ref();
                let seal = seal.filter(|seal| is_reasoning(seal, call.dialect == NAME));
                let Some(seal) = seal else {
                    losses.withheld("thinking");
                    continue;
                };
                seal.value.clone()
            }
            Kind::ToolCall(made) => {
                let raw = part.raw.as_deref().cloned();
                raw.unwrap_or_else(|| call_value(made, call))
            }
            Kind::ToolResult(result) => result_value(result, part.raw.as_deref(), losses),
            Kind::Own(own) if own.dialect != NAME => {
                losses.dropped(own.name.clone());
                continue;
            }
            Kind::Own(own) if !is_content(own) => own.value.clone(),
            _ => {
                content.extend(content_value(part, turn.role, losses));
                continue;
            }
        };
        if part.cache.is_some() {
            losses.withheld("cache_control");
        }
        items.extend(message(&mut content, turn.role));
        items.push(item);
    }
    items.extend(message(&mut content, turn.role));
    // Reasoning that nothing follows is refused; it belonged to an answer that never came.
    while items
        .pop_if(|item| text(item, "type") == "reasoning")
        .is_some()
    {
        losses.withheld("thinking");
    }
    items
}

/// Whether it is reasoning that can be sent. What is not sealed only names what its vendor was not asked
/// to keep, unless the caller has had it kept.
fn is_reasoning(seal: &Seal, at_home: bool) -> bool {
    let is_whole = at_home || !text(&seal.value, "encrypted_content").is_empty();
    seal.dialect == NAME && text(&seal.value, "type") == "reasoning" && is_whole
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

fn call_value(made: &ToolCall, call: &Call) -> Value {
    // At home the tool stands in its group, and is called by its name there.
    let at_home = call.dialect == NAME;
    let group = call.tool(&made.name).and_then(|tool| tool.group.as_deref());
    let group = group.filter(|_| at_home);
    let bare = group.and_then(|group| made.name.strip_prefix(group)?.strip_prefix("__"));
    let (kind, input) = if made.custom {
        ("custom_tool_call", "input")
    } else {
        ("function_call", "arguments")
    };
    let empty = made.arguments.is_empty() && !made.custom;
    let arguments = if empty { "{}" } else { &made.arguments };
    let name = match bare {
        Some(bare) => bare.to_owned(),
        None if at_home => made.name.clone(),
        None => openai::tool_name(&made.name),
    };
    let mut item = Map::from_iter([("type".to_owned(), Value::from(kind))]);
    put(&mut item, "call_id", Some(id(&made.id, LONGEST_ID)));
    put(&mut item, "namespace", bare.and(group));
    put(&mut item, "name", Some(name));
    put(&mut item, input, Some(arguments));
    Value::Object(item)
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
        openai::mark_error(&mut parts, "input_text");
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

/// Whether there is a piece of content for it.
pub(super) fn tells(part: &Part, losses: &mut Losses) -> bool {
    content_value(part, Role::User, losses).is_some()
}

/// A piece of a message's content; `None` for what is an item of its own.
fn content_value(part: &Part, role: Role, losses: &mut Losses) -> Option<Value> {
    let in_message = matches!(
        part.kind,
        Kind::Text(_) | Kind::Refusal(_) | Kind::Image(_) | Kind::File(_) | Kind::Audio(_)
    );
    if let (true, Some(raw)) = (in_message, &part.raw) {
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
        Kind::Own(own) if is_content(own) => Some(own.value.clone()),
        Kind::Text(text) if text.text.is_empty() => None,
        Kind::Text(text) if role == Role::Assistant => {
            let cited = annotations(&text.citations, &text.text, losses);
            Some(json!({ "type": "output_text", "text": text.text, "annotations": cited }))
        }
        Kind::Text(text) => Some(said(&text.text)),
        Kind::Refusal(text) if role == Role::Assistant => {
            Some(json!({ "type": "refusal", "refusal": text }))
        }
        Kind::Refusal(text) => Some(said(text)),
        Kind::File(Media {
            source: Source::Plain(text),
            ..
        }) => {
            losses.approximated("file.text");
            Some(said(text))
        }
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
