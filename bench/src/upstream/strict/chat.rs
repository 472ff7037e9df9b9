//! The rules of OpenAI Chat Completions.

use serde_json::Value;

use super::{Verdict, is_object, known_fields, list, require, text};
use crate::upstream::request::items;

const FIELDS: &[&str] = &[
    "audio",
    "frequency_penalty",
    "function_call",
    "functions",
    "logit_bias",
    "logprobs",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "metadata",
    "modalities",
    "model",
    "moderation",
    "n",
    "parallel_tool_calls",
    "prediction",
    "presence_penalty",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning_effort",
    "response_format",
    "safety_identifier",
    "seed",
    "service_tier",
    "stop",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "user",
    "verbosity",
    "web_search_options",
];

/// Longest id of a call.
const LONGEST_ID: usize = 40;

/// Whether `request` keeps the rules.
pub(super) fn check(request: &Value, takes_reasoning: bool) -> Verdict {
    known_fields(request, FIELDS, "request")?;
    let both = !request["max_tokens"].is_null() && !request["max_completion_tokens"].is_null();
    require(
        !both,
        "request",
        "both `max_tokens` and `max_completion_tokens` are set",
    )?;
    // Ids of the calls that wait for their result.
    let mut open: Vec<&str> = Vec::new();
    for (number, message) in list(request, "messages", "request")?.iter().enumerate() {
        let place = format!("messages.{number}");
        if message["role"] == "tool" {
            let id = text(message, "tool_call_id", &place)?;
            let known = open.iter().position(|open| *open == id);
            let known = known.ok_or_else(|| {
                format!("{place}: `{id}` is no open call of the assistant message before it")
            })?;
            open.remove(known);
        } else {
            require(open.is_empty(), &place, &unanswered(&open))?;
            open = called(message, &place)?;
        }
        self::message(message, takes_reasoning, &place)?;
    }
    require(open.is_empty(), "messages", &unanswered(&open))
}

fn unanswered(open: &[&str]) -> String {
    format!("no tool message answers the calls {open:?}")
}

/// The ids of the calls in an assistant message.
fn called<'a>(message: &'a Value, place: &str) -> Result<Vec<&'a str>, String> {
    if message["tool_calls"].is_null() {
        return Ok(Vec::new());
    }
    let assistant = message["role"] == "assistant";
    require(assistant, place, "only an assistant calls tools")?;
    let mut ids = Vec::new();
    for (number, call) in list(message, "tool_calls", place)?.iter().enumerate() {
        let place = format!("{place}.tool_calls.{number}");
        let id = text(call, "id", &place)?;
        require(!ids.contains(&id), &place, "two calls have the same id")?;
        require(
            id.len() <= LONGEST_ID,
            &place,
            "its id is longer than 40 characters",
        )?;
        self::call(call, &place)?;
        ids.push(id);
    }
    Ok(ids)
}

fn call(call: &Value, place: &str) -> Verdict {
    known_fields(call, &["id", "type", "function", "custom"], place)?;
    match call["type"].as_str() {
        Some("function") => {
            text(&call["function"], "name", place)?;
            let arguments = call["function"]["arguments"].as_str();
            require(
                arguments.is_some_and(is_object),
                place,
                "its arguments are not a string with a JSON object",
            )
        }
        Some("custom") => {
            text(&call["custom"], "name", place)?;
            let input = &call["custom"]["input"];
            require(input.is_string(), place, "its input is not a string")
        }
        _ => Err(format!("{place}: its type is not known")),
    }
}

fn message(message: &Value, takes_reasoning: bool, place: &str) -> Verdict {
    let (fields, parts): (&[&str], &[&str]) = match message["role"].as_str() {
        Some("system" | "developer") => (&[], &["text"]),
        Some("user") => (&[], &["text", "image_url", "input_audio", "file"]),
        Some("tool") => (&["tool_call_id"], &["text"]),
        Some("assistant") => (
            &[
                "tool_calls",
                "function_call",
                "refusal",
                "audio",
                "annotations",
            ],
            &["text", "refusal"],
        ),
        _ => return Err(format!("{place}: its role is not known")),
    };
    let reasons = !message["reasoning_content"].is_null();
    require(
        takes_reasoning || !reasons,
        place,
        "unknown field `reasoning_content`",
    )?;
    let known = ["role", "content", "name", "reasoning_content"];
    known_fields(message, &[&known, fields].concat(), place)?;
    let instead = ["tool_calls", "function_call", "refusal", "audio"];
    let may_lack = instead.iter().any(|name| !message[*name].is_null());
    match &message["content"] {
        Value::String(_) => Ok(()),
        Value::Null => require(may_lack, place, "it has no content"),
        _ => {
            list(message, "content", place)?;
            content(message, parts, place)
        }
    }
}

fn content(message: &Value, known: &[&str], place: &str) -> Verdict {
    for (number, part) in items(&message["content"]).iter().enumerate() {
        let place = format!("{place}.content.{number}");
        let kind = part["type"].as_str().unwrap_or_default();
        require(
            known.contains(&kind),
            &place,
            &format!("`{kind}` can not be here"),
        )?;
        let whole = match kind {
            "text" | "refusal" => part[kind].is_string(),
            "image_url" => part[kind]["url"].is_string(),
            _ => part[kind].is_object(),
        };
        require(whole, &place, &format!("its `{kind}` is not whole"))?;
    }
    Ok(())
}
