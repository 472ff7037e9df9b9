//! Calls of OpenAI Responses as canonical ones.

use serde_json::{Map, Value};

use crate::call::{
    Call, Choice, Effort, Format, Kind, Part, Reasoning, Role, Sampling, Tool, ToolResult, Turn,
};
use crate::dialect::fields::{list, maybe, others, owned, text};
use crate::dialect::strict::{self, Shape};
use crate::dialect::{DecodeError, openai};

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
/// What is read, by its kind.
const SHAPES: &[(&str, Shape)] = &[
    ("input", Shape::Parts),
    ("instructions", Shape::Text),
    ("tools", Shape::List),
    ("tool_choice", Shape::Choice),
    ("parallel_tool_calls", Shape::Flag),
    ("text", Shape::Object),
    ("reasoning", Shape::Object),
    ("stream_options", Shape::Object),
    ("max_output_tokens", Shape::Count),
    ("temperature", Shape::Number),
    ("top_p", Shape::Number),
    ("top_logprobs", Shape::Count),
    ("include", Shape::Words),
    ("truncation", Shape::Text),
    ("service_tier", Shape::Text),
    ("user", Shape::Text),
    ("safety_identifier", Shape::Text),
    ("prompt_cache_key", Shape::Text),
    ("metadata", Shape::Object),
];
const RULES: strict::Rules = strict::Rules {
    name: "input",
    roles: &["user", "assistant", "system", "developer"],
    silent: &[],
    needs: &[
        ("input_image", &["/image_url", "/file_id"]),
        ("refusal", &["/refusal"]),
    ],
};
pub(super) const LOGPROBS: &str = "message.output_text.logprobs";

/// Reads a call.
pub(super) fn decode(body: &[u8]) -> Result<Call, DecodeError> {
    let fields: Map<String, Value> = crate::json::read(body)?;
    let whole = Value::Object(fields);
    check(&whole)?;
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
    turns.iter_mut().for_each(Turn::forget_opened);
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
        turns,
        tools: list(&whole, "tools").iter().flat_map(tools_of).collect(),
        choice: get("tool_choice").and_then(choice_of),
        format: output.get("format").and_then(format_of).unwrap_or_default(),
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
        include_usage: true,
        ..openai::common(&whole, body)
    };
    // A tool of the vendor's own is chosen by its type, and lost like the tool itself.
    let is_own = |choice: &Value| {
        let kind = text(choice, "type");
        !matches!(kind, "" | "function" | "custom" | "allowed_tools")
    };
    strict::choice(&call, get("tool_choice").is_some_and(|it| !is_own(it)))?;
    let elsewhere = ["previous_response_id", "conversation", "prompt"];
    if get("input").is_some() && elsewhere.iter().all(|name| get(name).is_none()) {
        strict::spoken(&call.turns, "input")?;
    }
    call.only_own = unread(&whole, &call);
    if let Value::Object(fields) = whole {
        call.only_own.extend(others(&fields, KNOWN));
        call.own = fields;
    }
    Ok(call)
}

/// Holds that what is read above is what it should be.
fn check(whole: &Value) -> Result<(), DecodeError> {
    strict::fields(whole, SHAPES)?;
    list(whole, "input").iter().try_for_each(check_item)?;
    check_tools(list(whole, "tools"))?;
    let output = whole.get("text").unwrap_or(&Value::Null);
    strict::fields_at(
        output,
        "text.",
        &[("format", Shape::Object), ("verbosity", Shape::Text)],
    )?;
    if let Some(format) = output.get("format").filter(|it| it.is_object()) {
        strict::filled(format, "text.format.", &["type"])?;
        if text(format, "type") == "json_schema" {
            strict::answer_schema(Some(format), "text.format")?;
        }
    }
    Ok(())
}

/// Holds that an item says what it must. One of a kind that nobody here knows is its vendor's.
fn check_item(item: &Value) -> Result<(), DecodeError> {
    strict::fields_at(item, "input.", &[("type", Shape::Text)])?;
    match text(item, "type") {
        "" | "message" => strict::message(item, &RULES),
        "function_call" => {
            strict::filled(item, "input.", &["call_id"])?;
            strict::function_call(item, "input.")
        }
        "custom_tool_call" => {
            strict::filled(item, "input.", &["call_id"])?;
            strict::custom_call(item, "input.")
        }
        "function_call_output" | "custom_tool_call_output" => {
            strict::filled(item, "input.", &["call_id"])?;
            // An object that should have been written as a text is told as one.
            match item.get("output") {
                Some(Value::Object(_)) => Ok(()),
                output => strict::parts(output, "input.output", RULES.needs),
            }
        }
        _ => Ok(()),
    }
}

/// Holds that tools, those of a namespace among them, can be called.
fn check_tools(tools: &[Value]) -> Result<(), DecodeError> {
    strict::typed(tools)?;
    tools.iter().try_for_each(|tool| match text(tool, "type") {
        "function" => strict::tool(Some(tool), "parameters"),
        "custom" => strict::tool(Some(tool), "format"),
        "namespace" => check_tools(list(tool, "tools")),
        _ => Ok(()),
    })
}

/// What is known by its name, but not by what it says.
fn unread(whole: &Value, call: &Call) -> Vec<String> {
    let get = |name: &str| whole.get(name).filter(|value| !value.is_null());
    let choice = get("tool_choice");
    let restricted = choice.is_some_and(|choice| text(choice, "type") == "allowed_tools");
    let format = get("text").and_then(|output| output.get("format"));
    let effort = get("reasoning").and_then(|reasoning| maybe(reasoning, "effort"));
    let unread = [
        ("tool_choice", choice.is_some() && call.choice.is_none()),
        ("tool_choice.tools", restricted),
        (
            "text.format",
            format.is_some_and(|format| format_of(format).is_none()),
        ),
        (
            "reasoning.effort",
            effort.is_some() && call.reasoning.effort.is_none(),
        ),
    ];
    let unread = unread.iter().filter(|(_, is_unread)| *is_unread);
    unread.map(|(name, _)| (*name).to_owned()).collect()
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
            kind @ ("function_call_output" | "custom_tool_call_output") => {
                (Role::User, vec![result(item, kind)])
            }
            kind => {
                // What answers a call that only this dialect has is of this dialect alone, too.
                let role = if kind.ends_with("_output") {
                    Role::User
                } else {
                    Role::Assistant
                };
                let part = Part {
                    raw: Some(Box::new(item.clone())),
                    ..Part::new(made_item(item, None))
                };
                (role, vec![part])
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
            schema: tool
                .get("format")
                .filter(|format| text(format, "type") == "grammar")
                .cloned(),
            custom: true,
            ..Tool::default()
        }],
        "namespace" => {
            let group = text(tool, "name");
            let inside = |inner: Tool| Tool {
                name: flat_name(Some(group), &inner.name),
                group: Some(group.to_owned()),
                ..inner
            };
            let inner = list(tool, "tools").iter();
            // A group inside a group is nothing anybody knows.
            let inner = inner.filter(|inner| text(inner, "type") != "namespace");
            inner.flat_map(tools_of).map(inside).collect()
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

fn format_of(format: &Value) -> Option<Format> {
    match text(format, "type") {
        "" | "text" => Some(Format::Text),
        "json_object" => Some(Format::Json),
        "json_schema" => Some(openai::schema_of(format)),
        _ => None,
    }
}
