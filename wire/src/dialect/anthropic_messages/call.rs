//! Calls of Anthropic Messages as canonical ones.

use serde_json::{Map, Value};

use crate::call::{
    Call, Choice, Effort, Format, Kind, Media, Own, Part, Reasoning, Role, Sampling, Source, Tool,
    ToolResult, Turn,
};
use crate::dialect::DecodeError;
use crate::dialect::fields::{flag, list, maybe, others, owned, text, words};
use crate::dialect::strict::{self, Shape};
use crate::numbers;

use super::NAME;
use super::reply::{part_of_block, thinking_part};

/// How Claude Code's billing line begins. It changes with every session, so it must not reach other
/// vendors or keys of caches.
const BILLING: &str = "x-anthropic-billing-header:";
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
    "output_format",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "metadata",
    "service_tier",
];

/// Fields of a tool that canonical tools carry.
const TOOL: &[&str] = &[
    "type",
    "name",
    "description",
    "input_schema",
    "strict",
    "cache_control",
];

/// What is read, by its kind.
const SHAPES: &[(&str, Shape)] = &[
    ("messages", Shape::List),
    ("system", Shape::Parts),
    ("max_tokens", Shape::Count),
    ("tools", Shape::List),
    ("tool_choice", Shape::Object),
    ("thinking", Shape::Object),
    ("output_config", Shape::Object),
    ("output_format", Shape::Object),
    ("temperature", Shape::Number),
    ("top_p", Shape::Number),
    ("top_k", Shape::Count),
    ("stop_sequences", Shape::Texts),
    ("metadata", Shape::Object),
    ("service_tier", Shape::Text),
];
const RULES: strict::Rules = strict::Rules {
    name: "messages",
    roles: &["user", "assistant", "system"],
    silent: &[],
    needs: &[],
};

/// Reads a call.
pub(super) fn decode(body: &[u8]) -> Result<Call, DecodeError> {
    let fields: Map<String, Value> = crate::json::read(body)?;
    let whole = Value::Object(fields);
    check(&whole)?;
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
    turns.iter_mut().for_each(Turn::forget_opened);
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
        format: format_of(config.get("format").or_else(|| get("output_format"))),
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
        only_own: own_details(&whole),
        changed_numbers: numbers::changed(body),
    };
    strict::choice(&call, choice.is_some())?;
    if get("messages").is_some() {
        strict::spoken(&call.turns, "messages")?;
    }
    let form = get("thinking").map_or("", |thinking| text(thinking, "type"));
    if !matches!(form, "" | "enabled" | "adaptive" | "disabled") {
        call.only_own.push("thinking".to_owned());
    }
    if let Value::Object(fields) = whole {
        call.only_own.extend(others(&fields, KNOWN));
        call.own = fields;
    }
    Ok(call)
}

/// Holds that what is read above is what it should be.
fn check(whole: &Value) -> Result<(), DecodeError> {
    strict::fields(whole, SHAPES)?;
    if let Some(system) = whole.get("system").filter(|system| !system.is_null()) {
        strict::parts(Some(system), "system", &[])?;
    }
    for message in list(whole, "messages") {
        strict::message(message, &RULES)?;
        let (role, mut blocks) = (text(message, "role"), list(message, "content").iter());
        blocks.try_for_each(|it| check_block(it, role))?;
    }
    for tool in list(whole, "tools") {
        strict::fields_at(tool, "tools.", &[("type", Shape::Text)])?;
        if is_function(tool) {
            strict::tool(Some(tool), "input_schema")?;
        }
    }
    if let Some(thinking) = whole.get("thinking").filter(|it| it.is_object()) {
        strict::filled(thinking, "thinking.", &["type"])?;
    }
    let config = whole.get("output_config").unwrap_or(&Value::Null);
    strict::fields_at(
        config,
        "output_config.",
        &[("format", Shape::Object), ("effort", Shape::Text)],
    )?;
    let formats = [
        ("output_config.format", config.get("format")),
        ("output_format", whole.get("output_format")),
    ];
    for (place, format) in formats {
        let format = format.filter(|format| format.is_object());
        if format.is_some_and(|format| text(format, "type") == "json_schema") {
            strict::answer_schema(format, place)?;
        }
    }
    Ok(())
}

/// Holds that a block in the turn of a `role` says what it must, and stands where it may.
fn check_block(block: &Value, role: &str) -> Result<(), DecodeError> {
    const PLACE: &str = "messages.content.";
    let only = |whose: &str| {
        let kind = text(block, "type");
        let told = format!("`{kind}` may stand in `messages` of the role {whose} alone");
        Err(strict::wrong(told))
    };
    match text(block, "type") {
        "tool_use" if role != "assistant" => only("assistant"),
        "tool_use" => {
            strict::filled(block, PLACE, &["id", "name"])?;
            match block.get("input") {
                Some(Value::Object(_)) => Ok(()),
                _ => Err(strict::wrong(format!("`{PLACE}input` must be an object"))),
            }
        }
        "tool_result" if role != "user" => only("user"),
        "tool_result" => {
            strict::filled(block, PLACE, &["tool_use_id"])?;
            strict::fields_at(block, PLACE, &[("is_error", Shape::Flag)])?;
            let content = block.get("content").filter(|it| !it.is_null());
            if content.is_some() {
                strict::parts(content, "messages.content.content", RULES.needs)?;
            }
            let mut inner = list(block, "content").iter();
            inner.try_for_each(|it| check_block(it, "tool"))
        }
        "image" | "document" => {
            let source = block.get("source").unwrap_or(&Value::Null);
            let needed = match text(source, "type") {
                "base64" => ["media_type", "data"].as_slice(),
                "url" => &["url"],
                "file" => &["file_id"],
                _ => &["type"],
            };
            strict::filled(source, "messages.content.source.", needed)
        }
        _ => Ok(()),
    }
}

/// What tools and documents say that has no counterpart elsewhere, as paths.
fn own_details(whole: &Value) -> Vec<String> {
    let mut details = Vec::new();
    let functions = list(whole, "tools").iter().filter(|tool| is_function(tool));
    for tool in functions.filter_map(Value::as_object) {
        let others = others(tool, TOOL);
        details.extend(others.iter().map(|name| format!("tools.{name}")));
    }
    for message in list(whole, "messages") {
        for block in list(message, "content") {
            block_details(block, &mut details);
            let inside = list(block, "content").iter();
            inside.for_each(|block| block_details(block, &mut details));
        }
    }
    details
}

/// The same of a document or search result.
fn block_details(block: &Value, details: &mut Vec<String>) {
    let kind = text(block, "type");
    if !matches!(kind, "document" | "search_result") {
        return;
    }
    let cites = block
        .get("citations")
        .is_some_and(|switch| flag(switch, "enabled"));
    let pieces = block.get("source").unwrap_or(&Value::Null);
    let is_shown = |piece: &Value| text(piece, "type") != "text";
    let found = [
        ("citations", cites),
        ("context", maybe(block, "context").is_some()),
        ("content", list(pieces, "content").iter().any(is_shown)),
    ];
    let found = found.into_iter().filter(|(_, there)| *there);
    details.extend(found.map(|(name, _)| format!("messages.{kind}.{name}")));
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
        "search_result" => found(block).map_or_else(|| part_of_block(block), Kind::File),
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

/// An image or document.
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
        "content" => Source::Plain(texts(source)?),
        _ => return None,
    };
    Some(Media {
        source,
        name: maybe(block, "title"),
        detail: None,
    })
}

/// A search result as a document, which says where it is from.
fn found(block: &Value) -> Option<Media> {
    let head = [text(block, "title"), text(block, "source")];
    let said = texts(block)?;
    Some(Media {
        source: Source::Plain(format!("{}\n\n{said}", head.join("\n"))),
        name: maybe(block, "title"),
        detail: None,
    })
}

/// The texts in the content of `whole`; `None` where there is none.
fn texts(whole: &Value) -> Option<String> {
    if let Some(said) = maybe(whole, "content") {
        return Some(said);
    }
    let blocks = list(whole, "content").iter();
    let blocks = blocks.filter(|block| text(block, "type") == "text");
    let texts: Vec<&str> = blocks.map(|block| text(block, "text")).collect();
    Some(texts.join("\n")).filter(|said| !said.trim().is_empty())
}

fn is_function(tool: &Value) -> bool {
    matches!(text(tool, "type"), "" | "custom")
}

fn tool(tool: &Value) -> Tool {
    Tool {
        name: owned(tool, "name"),
        description: maybe(tool, "description"),
        schema: tool.get("input_schema").cloned(),
        strict: tool.get("strict").and_then(Value::as_bool),
        cache: tool.get("cache_control").cloned(),
        own: (!is_function(tool)).then(|| tool.clone()),
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
