//! What the two dialects of OpenAI write alike: functions, schemas, images, files, lanes, effort.

use serde_json::{Map, Value, json};

use crate::call::{Call, Citation, Effort, Format, Media, Reasoning, Source, Tool};
use crate::loss::Losses;
use crate::numbers;

use super::fields::{data_url, flag, id, maybe, owned, put, text};

/// The longest name of a tool that the API takes.
pub(super) const LONGEST_NAME: usize = 64;
/// The longest name of an end user that is passed on; longer ones are a client's own records.
const LONGEST_USER: usize = 64;

/// A function that is offered.
pub(super) fn function(body: &Value) -> Tool {
    Tool {
        name: owned(body, "name"),
        description: maybe(body, "description"),
        schema: body
            .get("parameters")
            .filter(|schema| schema.is_object())
            .cloned(),
        strict: body
            .get("strict")
            .and_then(Value::as_bool)
            .filter(|strict| *strict),
        ..Tool::default()
    }
}

/// The name of a tool as both dialects take it. The answer's reader turns it back.
pub(super) fn tool_name(name: &str) -> String {
    id(name, LONGEST_NAME)
}

/// Name and description of a tool.
pub(super) fn named(tool: &Tool, losses: &mut Losses) -> Map<String, Value> {
    if tool.cache.is_some() {
        losses.withheld("cache_control");
    }
    let mut body = Map::from_iter([("name".to_owned(), Value::from(tool_name(&tool.name)))]);
    put(&mut body, "description", tool.description.clone());
    body
}

/// The kind of the tool that must be called; `None` where it is none of those that are offered.
pub(super) fn chosen(call: &Call, name: &str, losses: &mut Losses) -> Option<&'static str> {
    let tool = call.tool(name).filter(|tool| tool.own.is_none());
    if tool.is_none() {
        losses.dropped("tool_choice");
    }
    tool.map(|tool| if tool.custom { "custom" } else { "function" })
}

/// Whether a schema is made for strict output: each object names all its fields as required and takes
/// no others. One that is not would be refused with the whole call.
fn is_strict(schema: &Value) -> bool {
    let fields = match schema {
        Value::Object(fields) => fields,
        Value::Array(items) => return items.iter().all(is_strict),
        _ => return true,
    };
    let is_object = fields.get("type").and_then(Value::as_str) == Some("object");
    let closed = fields.get("additionalProperties") == Some(&Value::Bool(false));
    let required = fields.get("required").and_then(Value::as_array);
    let names = |name: &String| required.is_some_and(|it| it.iter().any(|it| it == name.as_str()));
    let properties = fields.get("properties").and_then(Value::as_object);
    let all_named = properties.is_none_or(|properties| properties.keys().all(names));
    let branches = fields.contains_key("allOf") || fields.contains_key("oneOf");
    !branches && (!is_object || (closed && all_named)) && fields.values().all(is_strict)
}

/// Says of lists that say nothing of it that they hold anything: without, the whole call is refused.
fn fill_lists(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("array") {
                fields.entry("items").or_insert_with(|| json!({}));
            }
            fields.values_mut().for_each(fill_lists);
        }
        Value::Array(all) => all.iter_mut().for_each(fill_lists),
        _ => {}
    }
}

/// The strictness that goes with a schema.
fn strictness(strict: Option<bool>, schema: &Value, losses: &mut Losses) -> Option<bool> {
    let too_much = strict == Some(true) && !is_strict(schema);
    if too_much {
        losses.approximated("strict");
    }
    strict.map(|strict| strict && !too_much)
}

/// Name, description, parameters and strictness of a function.
pub(super) fn function_value(tool: &Tool, losses: &mut Losses) -> Map<String, Value> {
    let mut body = named(tool, losses);
    // What is no object's schema, or has no properties, is refused.
    let schema = tool.schema.as_ref().and_then(Value::as_object);
    let mut schema = schema.cloned().unwrap_or_default();
    schema.entry("type").or_insert_with(|| "object".into());
    schema.entry("properties").or_insert_with(|| json!({}));
    let mut schema = Value::Object(schema);
    fill_lists(&mut schema);
    let strict = strictness(tool.strict, &schema, losses);
    body.insert("parameters".to_owned(), schema);
    put(&mut body, "strict", strict.filter(|strict| *strict));
    body
}

/// A tool that only its own vendor runs.
pub(super) fn lost_tool(tool: &Tool, losses: &mut Losses) {
    let own = tool.own.as_ref().and_then(|own| maybe(own, "type"));
    losses.dropped(format!(
        "tools.{}",
        own.unwrap_or_else(|| tool.name.clone())
    ));
}

/// Name, schema and strictness of structured output.
pub(super) fn schema_of(body: &Value) -> Format {
    Format::Schema {
        // A label that means nothing; the other vendor has none.
        name: maybe(body, "name").unwrap_or_else(|| "answer".to_owned()),
        schema: body.get("schema").cloned().unwrap_or_default(),
        strict: body.get("strict").and_then(Value::as_bool),
        description: maybe(body, "description"),
    }
}

/// The fields of structured output; empty where none is asked for.
pub(super) fn schema_value(format: &Format, losses: &mut Losses) -> Map<String, Value> {
    let mut body = Map::new();
    if let Format::Schema {
        name,
        schema,
        strict,
        description,
    } = format
    {
        put(&mut body, "name", Some(name.clone()));
        put(&mut body, "description", description.clone());
        put(&mut body, "schema", Some(schema.clone()));
        put(&mut body, "strict", strictness(*strict, schema, losses));
    }
    body
}

/// What both dialects write by the same names, of the call `whole` that was read from `body`.
pub(super) fn common(whole: &Value, body: &[u8]) -> Call {
    let metadata = whole.get("metadata").and_then(Value::as_object);
    Call {
        model: owned(whole, "model"),
        parallel: whole.get("parallel_tool_calls").and_then(Value::as_bool),
        stream: flag(whole, "stream"),
        lane: maybe(whole, "service_tier"),
        user: maybe(whole, "safety_identifier").or_else(|| maybe(whole, "user")),
        metadata: metadata.cloned().unwrap_or_default(),
        cache_key: maybe(whole, "prompt_cache_key"),
        changed_numbers: numbers::changed(body),
        ..Call::default()
    }
}

/// The effort word for what the caller wants; budgets are rounded to one.
pub(super) fn effort_word(reasoning: &Reasoning, losses: &mut Losses) -> Option<&'static str> {
    if reasoning.effort.is_some() && reasoning.budget.is_some() {
        losses.approximated("thinking.budget_tokens");
    }
    let effort = match (reasoning.effort, reasoning.budget) {
        (Some(Effort::Max), _) => {
            losses.approximated("reasoning.effort");
            Effort::XHigh
        }
        (Some(effort), _) => effort,
        (None, Some(budget)) if reasoning.enabled != Some(false) => {
            losses.approximated("thinking.budget_tokens");
            Effort::of_budget(budget)
        }
        (None, _) => return None,
    };
    // Switched off says more than a level of effort, which the other vendor applies to tokens too.
    let off = reasoning.enabled == Some(false) && effort != Effort::None;
    (!off).then(|| effort.as_str())
}

/// The lane as OpenAI calls it.
pub(super) fn lane(call: &Call, losses: &mut Losses) -> Option<String> {
    match call.lane.as_deref() {
        Some("standard_only") => Some("default".to_owned()),
        Some(lane @ ("auto" | "default" | "flex" | "priority" | "scale")) => Some(lane.to_owned()),
        Some(_) => {
            losses.dropped("service_tier");
            None
        }
        None => None,
    }
}

/// The end user, where it is a plain name: Claude Code puts device and session records there.
pub(super) fn user_of(call: &Call, losses: &mut Losses) -> Option<String> {
    let user = call.user.as_ref()?;
    if user.len() > LONGEST_USER || user.starts_with('{') {
        losses.withheld("metadata.user_id");
        return None;
    }
    Some(user.clone())
}

/// The tools of a call, and which of them must be called.
pub(super) fn put_tools(
    body: &mut Map<String, Value>,
    tools: Vec<Value>,
    choice: Option<Value>,
    parallel: Option<bool>,
) {
    put(body, "tool_choice", choice);
    put(body, "parallel_tool_calls", parallel);
    body.insert("tools".to_owned(), Value::Array(tools));
}

/// The fields that go by one name in both: lane, end user and cache key.
pub(super) fn shared_fields(call: &Call, body: &mut Map<String, Value>, losses: &mut Losses) {
    put(body, "service_tier", lane(call, losses));
    put(body, "user", user_of(call, losses));
    put(body, "prompt_cache_key", call.cache_key.clone());
    own_losses(call, losses);
}

/// Notes what only the caller's dialect has.
pub(super) fn own_losses(call: &Call, losses: &mut Losses) {
    if call.ends_with_answer() {
        losses.approximated("messages.prefill");
    }
    for name in &call.only_own {
        losses.dropped(name.clone());
    }
}

/// An image given by an address or by its data.
pub(super) fn media_of_url(url: &str) -> Media {
    let source = match data_url(url) {
        Some((mime, data)) => Source::Inline { mime, data },
        None => Source::Url(url.to_owned()),
    };
    Media {
        source,
        name: None,
        detail: None,
    }
}

/// An image as an address; `None` where only its provider has it.
pub(super) fn image_url(media: &Media, losses: &mut Losses) -> Option<String> {
    match &media.source {
        Source::Url(url) => Some(url.clone()),
        Source::Inline { mime, data } => Some(format!("data:{mime};base64,{data}")),
        Source::Id(_) | Source::Plain(_) => {
            losses.dropped("image.file_id");
            None
        }
    }
}

/// A file by its data, address or id.
pub(super) fn file_of(file: &Value) -> Option<Media> {
    let source = if let Some(id) = maybe(file, "file_id") {
        Source::Id(id)
    } else if let Some(url) = maybe(file, "file_url") {
        Source::Url(url)
    } else {
        let data = text(file, "file_data");
        let (mime, data) = data_url(data).or_else(|| {
            (!data.is_empty()).then(|| ("application/pdf".to_owned(), data.to_owned()))
        })?;
        Source::Inline { mime, data }
    };
    Some(Media {
        source,
        name: maybe(file, "filename"),
        detail: None,
    })
}

/// A file's fields; `takes_urls` says whether an address will do.
pub(super) fn file_value(media: &Media, takes_urls: bool, losses: &mut Losses) -> Option<Value> {
    let mut file = Map::new();
    match &media.source {
        Source::Inline { mime, data } => {
            let name = media.name.clone().unwrap_or_else(|| "file".to_owned());
            put(&mut file, "filename", Some(name));
            put(
                &mut file,
                "file_data",
                Some(format!("data:{mime};base64,{data}")),
            );
        }
        Source::Url(url) if takes_urls => {
            // A name beside an address is refused.
            losses.dropped_if(media.name.is_some(), "file.name");
            put(&mut file, "file_url", Some(url.clone()));
        }
        Source::Url(_) => {
            losses.dropped("file.url");
            return None;
        }
        Source::Id(_) | Source::Plain(_) => {
            losses.dropped("file.file_id");
            return None;
        }
    }
    Some(Value::Object(file))
}

/// Says in words that a tool failed, where there is no flag for it; `kind` is the type of a text.
pub(super) fn mark_error(parts: &mut Vec<Value>, kind: &str) {
    let Some(Value::String(said)) = parts.first_mut().and_then(|part| part.get_mut("text")) else {
        parts.insert(0, json!({ "type": kind, "text": "Error" }));
        return;
    };
    let head = said.get(..5);
    if !head.is_some_and(|head| head.eq_ignore_ascii_case("error")) {
        *said = format!("Error: {said}");
    }
}

/// Where statements come from, in the shape both dialects share; `whole` is the stretch of a text that
/// rests on them altogether. What has no address can not be told.
pub(super) fn url_citations(
    citations: &[Citation],
    whole: (u64, u64),
    losses: &mut Losses,
) -> Vec<Map<String, Value>> {
    let mut told = Vec::new();
    for citation in citations {
        if citation.url.is_empty() {
            losses.dropped("citations");
            continue;
        }
        let (start, end) = citation.span.unwrap_or(whole);
        let mut fields = Map::new();
        put(&mut fields, "url", Some(citation.url.clone()));
        put(&mut fields, "title", Some(citation.title.clone()));
        put(&mut fields, "start_index", Some(start));
        put(&mut fields, "end_index", Some(end));
        told.push(fields);
    }
    told
}

/// Reads that shape; a file that is cited has a name and no address.
pub(super) fn citation_of(fields: &Value) -> Option<Citation> {
    let at = |name: &str| fields.get(name).and_then(Value::as_u64);
    let file = maybe(fields, "filename").or_else(|| maybe(fields, "file_id"));
    let url = maybe(fields, "url");
    if url.is_none() && file.is_none() {
        return None;
    }
    Some(Citation {
        url: url.unwrap_or_default(),
        title: file.unwrap_or_else(|| owned(fields, "title")),
        quote: String::new(),
        span: at("start_index").zip(at("end_index")),
    })
}
