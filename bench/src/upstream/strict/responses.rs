//! The rules of OpenAI Responses.

use serde_json::Value;

use super::{Verdict, known_fields, require, text};
use crate::upstream::request::items;
use crate::upstream::seal;

const FIELDS: &[&str] = &[
    "access_programs",
    "background",
    // Not of the public interface, but the vendor's own coding client sends it.
    "client_metadata",
    "context_management",
    "conversation",
    "image",
    "include",
    "input",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "parallel_tool_calls",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "service_tier",
    "store",
    "stream",
    "stream_options",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

/// The types of items, each with how its ids begin; nothing where that is not fixed.
const ITEMS: &[(&str, &[&str])] = &[
    ("message", &["msg_"]),
    ("reasoning", &["rs_"]),
    ("function_call", &["fc_"]),
    ("function_call_output", &["fco_", "fc_"]),
    ("custom_tool_call", &["ctc_"]),
    ("custom_tool_call_output", &["ctco_", "ctc_"]),
    ("additional_tools", &[]),
    ("apply_patch_call", &[]),
    ("apply_patch_call_output", &[]),
    ("code_interpreter_call", &["ci_"]),
    ("compaction", &["cmp_"]),
    ("compaction_trigger", &[]),
    ("computer_call", &["cu_"]),
    ("computer_call_output", &[]),
    ("configuration_update", &[]),
    ("file_search_call", &["fs_"]),
    ("image_generation_call", &["ig_"]),
    ("local_shell_call", &[]),
    ("local_shell_call_output", &[]),
    ("mcp_approval_request", &["mcpr_"]),
    ("mcp_approval_response", &[]),
    ("mcp_call", &["mcp_"]),
    ("mcp_list_tools", &["mcpl_"]),
    ("program", &[]),
    ("program_output", &[]),
    ("shell_call", &[]),
    ("shell_call_output", &[]),
    ("tool_search_call", &[]),
    ("tool_search_output", &[]),
    ("web_search_call", &["ws_"]),
];

const LONGEST_ID: usize = 64;
const LEAST_CAP: u64 = 16;

/// Whether `request`, with everything it refers to in its place, keeps the rules.
pub(super) fn check(request: &Value, origin: &str, kept: &dyn Fn(&str) -> bool) -> Verdict {
    known_fields(request, FIELDS, "request")?;
    let cap = &request["max_output_tokens"];
    let large = cap.is_null() || cap.as_u64().is_some_and(|cap| cap >= LEAST_CAP);
    require(large, "request", "`max_output_tokens` is below 16")?;
    let input = &request["input"];
    // A prompt that the vendor keeps can stand for an input.
    let some = input.is_array() || input.is_string() || !request["prompt"].is_null();
    require(some, "request", "`input` is neither text nor a list")?;
    let input = items(input);
    for (number, item) in input.iter().enumerate() {
        let place = format!("input.{number}");
        let kind = kind(item);
        self::item(item, kind, &place)?;
        match kind {
            "message" => message(item, &place)?,
            "reasoning" => reasoning(item, input.get(number + 1), origin, kept, &place)?,
            "function_call" | "custom_tool_call" => call(input, number, &place)?,
            "function_call_output" | "custom_tool_call_output" => output(input, number, &place)?,
            _ => {}
        }
    }
    Ok(())
}

/// The type of an item; a message need not name its own.
fn kind(item: &Value) -> &str {
    let role = item["role"].is_string() && item["type"].is_null();
    if role {
        return "message";
    }
    item["type"].as_str().unwrap_or_default()
}

fn item(item: &Value, kind: &str, place: &str) -> Verdict {
    let known = ITEMS.iter().find(|(known, _)| *known == kind);
    let Some((_, beginnings)) = known else {
        return Err(format!("{place}: the type `{kind}` is not known"));
    };
    let Some(id) = item["id"].as_str() else {
        return require(item["id"].is_null(), place, "its id is not a string");
    };
    let begins = beginnings.is_empty() || beginnings.iter().any(|b| id.starts_with(b));
    let wrong = format!("the id `{id}` does not begin with one of {beginnings:?}");
    require(begins, place, &wrong)?;
    require(
        id.len() <= LONGEST_ID,
        place,
        "its id is longer than 64 characters",
    )
}

fn message(item: &Value, place: &str) -> Verdict {
    let known: &[&str] = match item["role"].as_str() {
        Some("user" | "system" | "developer") => &["input_text", "input_image", "input_file"],
        Some("assistant") => &["output_text", "refusal"],
        _ => return Err(format!("{place}: its role is not known")),
    };
    content(&item["content"], known, place)
}

fn content(content: &Value, known: &[&str], place: &str) -> Verdict {
    if content.is_string() {
        return Ok(());
    }
    require(
        content.is_array(),
        place,
        "its content is neither text nor a list",
    )?;
    for (number, part) in items(content).iter().enumerate() {
        let place = format!("{place}.content.{number}");
        let kind = part["type"].as_str().unwrap_or_default();
        require(
            known.contains(&kind),
            &place,
            &format!("`{kind}` can not be here"),
        )?;
        let whole = match kind {
            "input_text" | "output_text" => part["text"].is_string(),
            "refusal" => part["refusal"].is_string(),
            "input_image" => part["image_url"].is_string() || part["file_id"].is_string(),
            _ => true,
        };
        require(whole, &place, &format!("its `{kind}` is not whole"))?;
    }
    Ok(())
}

fn reasoning(
    item: &Value,
    next: Option<&Value>,
    origin: &str,
    kept: &dyn Fn(&str) -> bool,
    place: &str,
) -> Verdict {
    require(
        item["summary"].is_array(),
        place,
        "its summary is not a list",
    )?;
    let parts = items(&item["summary"]).iter();
    let summary: String = parts.filter_map(|part| part["text"].as_str()).collect();
    if let Some(sealed) = item["encrypted_content"].as_str() {
        let ours = seal::is_encrypted(origin, sealed);
        require(ours, place, "its encrypted content is not from here")?;
        let fits = sealed == seal::encrypted(origin, &summary);
        require(
            fits,
            place,
            "its encrypted content does not fit its summary",
        )?;
    } else {
        let known = item["id"].as_str().is_some_and(kept);
        require(
            known,
            place,
            "it has no encrypted content, and its id is not from here",
        )?;
    }
    let followed = next.is_some_and(|next| match kind(next) {
        "message" => next["role"] == "assistant",
        kind => kind == "reasoning" || kind.ends_with("_call"),
    });
    require(followed, place, "what it led to does not follow it")
}

/// The type of what answers a call, and the other way round.
fn counterpart(kind: &str) -> String {
    match kind.strip_suffix("_output") {
        Some(call) => call.to_owned(),
        None => format!("{kind}_output"),
    }
}

/// How many of `others` answer to `item`, or are answered by it.
fn counterparts(others: &[Value], item: &Value) -> usize {
    let wanted = counterpart(kind(item));
    let same = |other: &&Value| kind(other) == wanted && other["call_id"] == item["call_id"];
    others.iter().filter(same).count()
}

/// A call has one result, behind it, and an id of its own.
fn call(input: &[Value], number: usize, place: &str) -> Verdict {
    let item = &input[number];
    let id = call_id(item, place)?;
    text(item, "name", place)?;
    let field = if kind(item) == "function_call" {
        "arguments"
    } else {
        "input"
    };
    let is_text = item[field].is_string();
    require(is_text, place, &format!("its `{field}` is not a string"))?;
    let is_call = |other: &&Value| matches!(kind(other), "function_call" | "custom_tool_call");
    let earlier = input[..number].iter().filter(is_call);
    let twice = earlier.into_iter().any(|other| other["call_id"] == id);
    require(!twice, place, &format!("the call id `{id}` is used twice"))?;
    let times = counterparts(&input[number + 1..], item);
    let wrong = format!("{times} outputs for `{id}` behind it, where 1 is due");
    require(times == 1, place, &wrong)
}

/// A result has its call before it.
fn output(input: &[Value], number: usize, place: &str) -> Verdict {
    let item = &input[number];
    let id = call_id(item, place)?;
    let known = ["input_text", "input_image", "input_file"];
    content(&item["output"], &known, place)?;
    let called = counterparts(&input[..number], item) > 0;
    require(called, place, &format!("no call `{id}` before it"))
}

fn call_id<'a>(item: &'a Value, place: &str) -> Result<&'a str, String> {
    let id = text(item, "call_id", place)?;
    let short = id.len() <= LONGEST_ID;
    require(short, place, "its call id is longer than 64 characters")?;
    Ok(id)
}
