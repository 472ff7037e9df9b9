//! The rules of Anthropic Messages.

use std::collections::HashSet;

use serde_json::Value;

use super::{Verdict, known_fields, list, require, text};
use crate::upstream::request::items;
use crate::upstream::seal;

const FIELDS: &[&str] = &[
    "billing_policy",
    "cache_control",
    "compaction",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "output_format",
    "prefill",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "thread",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Blocks besides text, by who may say them. Those of the vendor's own tools are in both lists.
const USERS: &[&str] = &[
    "document",
    "image",
    "search_result",
    "tool_addition",
    "tool_removal",
    "tool_result",
];
const ASSISTANTS: &[&str] = &[
    "compaction",
    "fallback",
    "mcp_tool_listing",
    "mcp_tool_use",
    "redacted_thinking",
    "server_tool_use",
    "thinking",
    "tool_use",
];
const VENDORS: &[&str] = &[
    "advisor_tool_result",
    "bash_code_execution_tool_result",
    "code_execution_tool_result",
    "container_upload",
    "mcp_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "web_fetch_tool_result",
    "web_search_tool_result",
];
/// Blocks of a tool's result.
const RESULTS: &[&str] = &[
    "browser_state",
    "document",
    "image",
    "search_result",
    "text",
    "tool_reference",
];

const MOST_CACHE_MARKS: usize = 4;
const PICTURES: &[&str] = &["image/jpeg", "image/png", "image/gif", "image/webp"];
const LEAST_BUDGET: u64 = 1_024;

/// Whether `request` keeps the rules; one that only counts tokens needs no cap.
pub(super) fn check(request: &Value, origin: &str, counts_only: bool) -> Verdict {
    known_fields(request, FIELDS, "request")?;
    let cap = request["max_tokens"].as_u64();
    require(
        counts_only || cap.is_some_and(|cap| cap > 0),
        "request",
        "`max_tokens` is missing",
    )?;
    let thinking = thinking(request, counts_only)?;
    let marks = cache_marks(request);
    require(
        marks <= MOST_CACHE_MARKS,
        "request",
        "more than 4 `cache_control`",
    )?;
    let messages = list(request, "messages", "request")?;
    for block in items(&request["system"]) {
        text_block(block, "system")?;
    }
    require(
        messages[0]["role"] == "user",
        "messages.0",
        "the first message is not the user's",
    )?;
    let mut ids = HashSet::new();
    let loop_begins = present_loop(messages);
    for (number, message) in messages.iter().enumerate() {
        let place = format!("messages.{number}");
        let last = number + 1 == messages.len();
        self::message(message, origin, last, &place)?;
        if message["role"] == "system" {
            let role = |other: Option<&Value>| other.map(|it| it["role"].clone());
            let before = role(number.checked_sub(1).and_then(|it| messages.get(it)));
            let behind = role(messages.get(number + 1));
            let placed =
                before == Some("user".into()) && behind.is_none_or(|behind| behind == "assistant");
            require(
                placed,
                &place,
                "system text stands behind a user message and before an answer",
            )?;
        }
        for use_ in blocks(message, "tool_use") {
            let id = use_["id"].as_str().unwrap_or_default();
            let wrong = format!("the id `{id}` is used twice");
            require(ids.insert(id), &place, &wrong)?;
        }
        pairs(messages, number, &place)?;
        if thinking == Some("enabled") && number >= loop_begins {
            thinks_first(message, &place)?;
        }
    }
    Ok(())
}

/// The kind of thinking asked for, and whether the rest of the request allows it.
fn thinking(request: &Value, counts_only: bool) -> Result<Option<&str>, String> {
    let thinking = &request["thinking"];
    let kind = match thinking["type"].as_str() {
        None if thinking.is_null() => return Ok(None),
        Some(kind @ ("enabled" | "adaptive")) => kind,
        Some("disabled" | "between_tools") => return Ok(None),
        _ => return Err("thinking: its type is not known".to_owned()),
    };
    let place = "thinking";
    if kind == "enabled" {
        let budget = thinking["budget_tokens"].as_u64().unwrap_or(0);
        require(
            budget >= LEAST_BUDGET,
            place,
            "`budget_tokens` is below 1024",
        )?;
        let cap = request["max_tokens"].as_u64();
        let below = cap.is_some_and(|cap| budget < cap);
        require(
            below || (counts_only && cap.is_none()),
            place,
            "`budget_tokens` is not below `max_tokens`",
        )?;
    }
    let forced = matches!(
        request["tool_choice"]["type"].as_str(),
        Some("any" | "tool")
    );
    require(!forced, place, "`tool_choice` forces a tool")?;
    require(request["top_k"].is_null(), place, "`top_k` is set")?;
    let temperature = request["temperature"].as_f64().unwrap_or(1.0);
    let one = (temperature - 1.0).abs() < f64::EPSILON;
    require(one, place, "`temperature` is not 1")?;
    Ok(Some(kind))
}

/// How many prefixes the request wants cached.
fn cache_marks(request: &Value) -> usize {
    let marked = |value: &&Value| !value["cache_control"].is_null();
    let messages = items(&request["messages"]).iter();
    let blocks = messages.flat_map(|message| items(&message["content"]));
    let inner = blocks.clone().flat_map(|block| items(&block["content"]));
    let tops = items(&request["system"])
        .iter()
        .chain(items(&request["tools"]));
    let all = tops.chain(blocks).chain(inner).chain([request]);
    all.filter(marked).count()
}

/// Where the present tool loop begins: behind the last user message with text of the user's own.
fn present_loop(messages: &[Value]) -> usize {
    let says = |message: &Value| {
        let text = message["content"].is_string() || blocks(message, "text").next().is_some();
        message["role"] == "user" && text
    };
    messages.iter().rposition(says).map_or(0, |last| last + 1)
}

/// The blocks of one type in a message.
fn blocks<'a>(message: &'a Value, kind: &'static str) -> impl Iterator<Item = &'a Value> {
    let all = items(&message["content"]).iter();
    all.filter(move |block| block["type"] == kind)
}

fn message(message: &Value, origin: &str, last: bool, place: &str) -> Verdict {
    known_fields(message, &["role", "content"], place)?;
    let role = message["role"].as_str().unwrap_or_default();
    let known: &[&str] = match role {
        "user" => USERS,
        "assistant" => ASSISTANTS,
        "system" => &[],
        _ => return Err(format!("{place}: its role is not known")),
    };
    let content = &message["content"];
    let empty = match content {
        Value::String(text) => text.is_empty(),
        Value::Array(blocks) => blocks.is_empty(),
        _ => return Err(format!("{place}: its content is neither text nor a list")),
    };
    let may_lack = last && role == "assistant";
    require(!empty || may_lack, place, "it has no content")?;
    for (number, block) in items(content).iter().enumerate() {
        let place = format!("{place}.content.{number}");
        let kind = block["type"].as_str().unwrap_or_default();
        let vendors = role != "system" && VENDORS.contains(&kind);
        let here = kind == "text" || known.contains(&kind) || vendors;
        require(here, &place, &format!("`{kind}` can not be here"))?;
        self::block(block, kind, origin, &place)?;
    }
    let final_block = items(content).last();
    let thought = final_block.is_some_and(is_thinking);
    require(!thought, place, "its last block is thinking")
}

fn is_thinking(block: &Value) -> bool {
    block["type"] == "thinking" || block["type"] == "redacted_thinking"
}

fn block(block: &Value, kind: &str, origin: &str, place: &str) -> Verdict {
    match kind {
        "text" => text_block(block, place),
        "image" | "document" => {
            let source = &block["source"];
            require(source.is_object(), place, "it has no source")?;
            let taken = kind != "image"
                || source["type"] != "base64"
                || PICTURES.contains(&source["media_type"].as_str().unwrap_or_default());
            require(taken, place, "its `media_type` is none of the four")
        }
        "tool_use" => {
            id(block, "id", place)?;
            text(block, "name", place)?;
            require(
                block["input"].is_object(),
                place,
                "its input is not an object",
            )
        }
        "tool_result" => {
            id(block, "tool_use_id", place)?;
            result(&block["content"], place)
        }
        "thinking" => {
            let signature = block["signature"].as_str().unwrap_or_default();
            let thinking = block["thinking"].as_str().unwrap_or_default();
            let ours = seal::is_signature(origin, signature);
            require(ours, place, "its signature is not from here")?;
            let fits = signature == seal::signature(origin, thinking);
            require(fits, place, "its signature does not fit its text")
        }
        "redacted_thinking" => {
            let data = block["data"].as_str().unwrap_or_default();
            let ours = seal::is_encrypted(origin, data);
            require(ours, place, "its data is not from here")
        }
        _ => Ok(()),
    }
}

fn text_block(block: &Value, place: &str) -> Verdict {
    let text = block["text"].as_str().unwrap_or_default();
    require(!text.is_empty(), place, "its text is empty")
}

fn id(block: &Value, name: &str, place: &str) -> Verdict {
    let id = text(block, name, place)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let wrong = format!("`{id}` has other characters than A-Z, a-z, 0-9, _ and -");
    require(id.chars().all(plain), place, &wrong)
}

fn result(content: &Value, place: &str) -> Verdict {
    let known = content.is_null() || content.is_string() || content.is_array();
    require(known, place, "its content is neither text nor a list")?;
    for (number, block) in items(content).iter().enumerate() {
        let place = format!("{place}.content.{number}");
        let kind = block["type"].as_str().unwrap_or_default();
        let wrong = format!("`{kind}` can not be in a result");
        require(RESULTS.contains(&kind), &place, &wrong)?;
        if kind == "text" {
            text_block(block, &place)?;
        }
    }
    Ok(())
}

/// Uses and results of tools around message `number`: each use is answered once in the user's
/// message behind it, and each result answers one.
fn pairs(messages: &[Value], number: usize, place: &str) -> Verdict {
    let message = &messages[number];
    let others = |message: &&Value| message["role"] != "system";
    let neighbour = |found: Option<&'_ Value>, role: &str, kind, field: &str| -> Vec<String> {
        let found = found.filter(|other| other["role"] == role);
        let blocks = found.into_iter().flat_map(|other| blocks(other, kind));
        blocks
            .filter_map(|block| block[field].as_str().map(str::to_owned))
            .collect()
    };
    let next = messages[number + 1..].iter().find(others);
    let answered = neighbour(next, "user", "tool_result", "tool_use_id");
    for block in blocks(message, "tool_use") {
        let id = block["id"].as_str().unwrap_or_default();
        let times = answered.iter().filter(|answered| *answered == id).count();
        let wrong = format!("{times} results for `{id}` in the next message, where 1 is due");
        require(times == 1, place, &wrong)?;
    }
    let before = messages[..number].iter().rfind(others);
    let called = neighbour(before, "assistant", "tool_use", "id");
    let mut other_seen = false;
    for block in items(&message["content"]) {
        if block["type"] != "tool_result" {
            other_seen = true;
            continue;
        }
        require(
            !other_seen,
            place,
            "a tool result stands behind another block",
        )?;
        let id = block["tool_use_id"].as_str().unwrap_or_default();
        let wrong = format!("`{id}` is no call of the message before");
        require(called.iter().any(|called| called == id), place, &wrong)?;
    }
    Ok(())
}

fn thinks_first(message: &Value, place: &str) -> Verdict {
    let calls = message["role"] == "assistant" && blocks(message, "tool_use").next().is_some();
    let thinks = items(&message["content"]).first().is_some_and(is_thinking);
    require(
        !calls || thinks,
        place,
        "it calls a tool and does not begin with thinking",
    )
}
