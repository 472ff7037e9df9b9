//! Items of the Responses dialect: what a transcript consists of, and the ids things go by.

use serde_json::{Map, Value, json};

use crate::RequestId;
use crate::call::{Citation, Kind, Media, Own, Part, Seal, Text, Thinking, ToolCall};
use crate::dialect::fields::{json_text, list, maybe, owned, text};
use crate::dialect::openai::{citation_of, file_of, media_of_url, url_citations};
use crate::loss::Losses;

use super::NAME;

/// All tokens that a response used.
pub fn total_tokens(response: &Value) -> usize {
    let total = response
        .get("usage")
        .and_then(|usage| usage.get("total_tokens")?.as_u64());
    usize::try_from(total.unwrap_or(0)).unwrap_or(usize::MAX)
}

/// How the words for pieces of content begin that only this dialect has.
const CONTENT: &str = "input.content.";

/// The id of the response that the call `request` made.
pub fn response_id(request: RequestId) -> String {
    request.to_string().replacen("req_", "resp_", 1)
}

/// The `input` of a call as items: a plain text is one user message.
pub fn input_items(input: &Value) -> Vec<Value> {
    match input {
        Value::String(text) => {
            let content = json!([{ "type": "input_text", "text": text }]);
            vec![json!({ "type": "message", "role": "user", "content": content })]
        }
        Value::Array(items) => items.clone(),
        _ => Vec::new(),
    }
}

/// The body of a call with another input, which `change` makes of the old one; `None` where it is no
/// JSON object.
pub fn with_input(body: &[u8], change: impl FnOnce(&Value) -> Vec<Value>) -> Option<Vec<u8>> {
    let mut whole: Value = crate::json::read(body).ok()?;
    let fields = whole.as_object_mut()?;
    let input = change(fields.get("input").unwrap_or(&Value::Null));
    fields.insert("input".to_owned(), Value::Array(input));
    serde_json::to_vec(&whole).ok()
}

/// A message as it is listed: with its type and status, and its text as a list of parts.
pub fn written_out(mut item: Value) -> Value {
    let is_message = matches!(text(&item, "type"), "" | "message");
    let part = match text(&item, "role") {
        "assistant" => "output_text",
        _ => "input_text",
    };
    if let (true, Some(fields)) = (is_message, item.as_object_mut()) {
        fields.insert("type".to_owned(), "message".into());
        if let Some(Value::String(said)) = fields.get("content") {
            let content = json!([{ "type": part, "text": said }]);
            fields.insert("content".to_owned(), content);
        }
        fields.entry("status").or_insert_with(|| "completed".into());
    }
    item
}

/// The id that an input item stands for, where it is only a reference to another.
pub fn reference(item: &Value) -> Option<&str> {
    (text(item, "type") == "item_reference").then(|| text(item, "id"))
}

/// The id of an item, given the id of what it belongs to and its place there, where it has none yet.
pub fn item_id(item: &Value, owner: &str, place: usize) -> String {
    let prefix = match text(item, "type") {
        "function_call" => "fc",
        "function_call_output" => "fco",
        "reasoning" => "rs",
        "" | "message" => "msg",
        _ => "item",
    };
    let owner = owner.split_once('_').map_or(owner, |(_, rest)| rest);
    maybe(item, "id").unwrap_or_else(|| format!("{prefix}_{owner}i{place:03}"))
}

/// The name by which a tool is known everywhere: tools of a namespace carry its name in front.
pub(super) fn flat_name(group: Option<&str>, name: &str) -> String {
    match group {
        Some(group) if !group.is_empty() => format!("{group}__{name}"),
        _ => name.to_owned(),
    }
}

/// A piece of a message's content.
pub(super) fn content_part(part: &Value) -> Kind {
    let own = |name: &str| own(part, &format!("{CONTENT}{name}"));
    match text(part, "type") {
        "input_text" | "output_text" | "text" | "summary_text" => Kind::Text(Text {
            text: owned(part, "text"),
            citations: list(part, "annotations")
                .iter()
                .filter_map(citation_of)
                .collect(),
        }),
        "refusal" => Kind::Refusal(owned(part, "refusal")),
        "input_image" => {
            let detail = maybe(part, "detail");
            match (maybe(part, "image_url"), maybe(part, "file_id")) {
                (Some(url), _) => Kind::Image(Media {
                    detail,
                    ..media_of_url(&url)
                }),
                (None, Some(id)) => Kind::Image(Media {
                    source: crate::call::Source::Id(id),
                    name: None,
                    detail,
                }),
                (None, None) => own("input_image"),
            }
        }
        "input_file" => file_of(part).map_or_else(|| own("input_file"), Kind::File),
        name => own(name),
    }
}

/// Whether it stands in the content of a message, and is no item of its own.
pub(super) fn is_content(own: &Own) -> bool {
    own.dialect == NAME && own.name.starts_with(CONTENT)
}

/// A thing of this dialect alone.
pub(super) fn own(value: &Value, name: &str) -> Kind {
    Kind::Own(Own {
        dialect: NAME.to_owned(),
        name: name.to_owned(),
        value: value.clone(),
    })
}

/// A call, reasoning or any other item that the model makes, but for messages.
pub(super) fn made_item(item: &Value, origin: Option<&str>) -> Kind {
    match text(item, "type") {
        "function_call" => Kind::ToolCall(ToolCall {
            id: owned(item, "call_id"),
            name: flat_name(maybe(item, "namespace").as_deref(), text(item, "name")),
            arguments: json_text(item, "arguments"),
            custom: false,
        }),
        "custom_tool_call" => Kind::ToolCall(ToolCall {
            id: owned(item, "call_id"),
            name: flat_name(maybe(item, "namespace").as_deref(), text(item, "name")),
            arguments: owned(item, "input"),
            custom: true,
        }),
        "reasoning" => {
            let shown = |name: &str| -> Vec<&str> {
                list(item, name)
                    .iter()
                    .map(|part| text(part, "text"))
                    .collect()
            };
            let mut texts = shown("summary");
            if texts.is_empty() {
                texts = shown("content");
            }
            let own = || Seal {
                dialect: NAME.to_owned(),
                origin: origin.map(str::to_owned),
                value: item.clone(),
            };
            let sealed = maybe(item, "encrypted_content").and_then(|word| Seal::open(&word));
            Kind::Thinking(Thinking {
                text: texts.join("\n\n"),
                seal: Some(sealed.unwrap_or_else(own)),
            })
        }
        name => own(item, &format!("input.{name}")),
    }
}

/// The parts of a message the model made.
pub(super) fn made_message(item: &Value) -> Vec<Part> {
    match item.get("content") {
        Some(Value::String(text)) => vec![Part::text(text.clone())],
        _ => list(item, "content")
            .iter()
            .map(|part| Part {
                raw: Some(Box::new(part.clone())),
                ..Part::new(content_part(part))
            })
            .collect(),
    }
}

/// The annotations of an output text.
pub(super) fn annotations(citations: &[Citation], text: &str, losses: &mut Losses) -> Vec<Value> {
    let end = u64::try_from(text.chars().count()).unwrap_or(u64::MAX);
    let annotation = |fields: Map<String, Value>| {
        let mut annotation = Map::from_iter([("type".to_owned(), Value::from("url_citation"))]);
        annotation.extend(fields);
        Value::Object(annotation)
    };
    let cited = url_citations(citations, (0, end), losses);
    cited.into_iter().map(annotation).collect()
}
