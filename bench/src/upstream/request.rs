//! What a call says, read the same way in all three dialects: turns, tools, cap and schema.

use serde_json::Value;

/// A dialect of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Chat,
    Messages,
    Responses,
}

impl Dialect {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "openai_chat",
            Self::Messages => "anthropic_messages",
            Self::Responses => "openai_responses",
        }
    }

    /// The caller's cap on answer tokens.
    pub(super) fn cap(self, request: &Value) -> Option<u64> {
        let names: &[&str] = match self {
            Self::Responses => &["max_output_tokens"],
            Self::Chat | Self::Messages => &["max_completion_tokens", "max_tokens"],
        };
        names.iter().find_map(|name| request[*name].as_u64())
    }

    /// The schema that the answer has to fit.
    pub(super) fn schema(self, request: &Value) -> Option<&Value> {
        let format = match self {
            Self::Chat => &request["response_format"]["json_schema"],
            Self::Responses => &request["text"]["format"],
            Self::Messages if request["output_format"].is_object() => &request["output_format"],
            Self::Messages => &request["output_config"]["format"],
        };
        Some(&format["schema"]).filter(|schema| schema.is_object())
    }
}

/// One message, or one item of a Responses input.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// The role, or the type of an item that has none.
    pub(super) role: &'a str,
    pub(super) parts: Vec<Part<'a>>,
}

#[derive(Debug)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Image {
        /// The media type, or `url` where only an address came.
        media: &'a str,
        /// Decoded.
        bytes: usize,
    },
    File,
    Call,
    Thinking,
    /// What a tool gave back.
    Outcome(Vec<Part<'a>>),
}

impl Turn<'_> {
    pub(super) fn is_system(&self) -> bool {
        matches!(self.role, "system" | "developer")
    }

    fn texts(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Text(text) => Some(*text),
            _ => None,
        })
    }
}

/// All turns of a request, in their order.
pub(super) fn turns(request: &Value, dialect: Dialect) -> Vec<Turn<'_>> {
    let name = match dialect {
        Dialect::Responses => "input",
        Dialect::Chat | Dialect::Messages => "messages",
    };
    match &request[name] {
        Value::String(text) => vec![Turn {
            role: "user",
            parts: vec![Part::Text(text)],
        }],
        list => items(list).iter().map(turn).collect(),
    }
}

/// The items of a list; none where there is no list.
pub(super) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn turn(item: &Value) -> Turn<'_> {
    let kind = item["type"].as_str().unwrap_or_default();
    match item["role"].as_str() {
        Some("tool") => Turn {
            role: "tool",
            parts: vec![Part::Outcome(parts(&item["content"]))],
        },
        Some(role) => Turn {
            role,
            parts: message(item),
        },
        None if kind.ends_with("_call_output") => Turn {
            role: kind,
            parts: vec![Part::Outcome(parts(&item["output"]))],
        },
        None if kind.ends_with("_call") => Turn {
            role: kind,
            parts: vec![Part::Call],
        },
        None if kind == "reasoning" => Turn {
            role: kind,
            parts: vec![Part::Thinking],
        },
        None => Turn {
            role: kind,
            parts: Vec::new(),
        },
    }
}

fn message(item: &Value) -> Vec<Part<'_>> {
    let thinks = item["reasoning_content"]
        .as_str()
        .is_some_and(|t| !t.is_empty());
    let calls = items(&item["tool_calls"]).iter().map(|_| Part::Call);
    let thinking = thinks.then_some(Part::Thinking);
    thinking
        .into_iter()
        .chain(parts(&item["content"]))
        .chain(calls)
        .collect()
}

fn parts(content: &Value) -> Vec<Part<'_>> {
    match content {
        Value::String(text) => vec![Part::Text(text)],
        list => items(list).iter().filter_map(part).collect(),
    }
}

fn part(part: &Value) -> Option<Part<'_>> {
    let found = match part["type"].as_str().unwrap_or_default() {
        "image" => source(&part["source"]),
        "image_url" => linked(&part["image_url"]["url"]),
        "input_image" => linked(&part["image_url"]),
        "document" | "file" | "input_file" => Part::File,
        "tool_use" => Part::Call,
        "tool_result" => Part::Outcome(parts(&part["content"])),
        "thinking" | "redacted_thinking" => Part::Thinking,
        _ => Part::Text(part["text"].as_str()?),
    };
    Some(found)
}

fn source(source: &Value) -> Part<'_> {
    match (source["media_type"].as_str(), source["data"].as_str()) {
        (Some(media), Some(data)) => Part::Image {
            media,
            bytes: decoded(data),
        },
        _ => linked(&Value::Null),
    }
}

fn linked(url: &Value) -> Part<'_> {
    let inline = url
        .as_str()
        .and_then(|url| url.strip_prefix("data:")?.split_once(";base64,"));
    match inline {
        Some((media, data)) => Part::Image {
            media,
            bytes: decoded(data),
        },
        None => Part::Image {
            media: "url",
            bytes: 0,
        },
    }
}

/// The number of bytes in base64.
fn decoded(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

/// The text of the last message of role `user` that has text.
pub(super) fn last_user_text(turns: &[Turn<'_>]) -> String {
    let has_text = |turn: &&Turn<'_>| turn.role == "user" && turn.texts().any(|t| !t.is_empty());
    turns
        .iter()
        .rev()
        .find(has_text)
        .map_or_else(String::new, |turn| {
            turn.texts().collect::<Vec<_>>().join("\n")
        })
}

/// The turns that a model answers to: without the system's words at the end.
pub(super) fn before_system<'a, 't>(turns: &'t [Turn<'a>]) -> &'t [Turn<'a>] {
    let end = turns.iter().rposition(|turn| !turn.is_system());
    turns.get(..end.map_or(0, |end| end + 1)).unwrap_or(turns)
}

/// The texts of the tool results that the last message consists of, joined by ` | `. Results are
/// messages of their own in two dialects, so all those at the end count as one.
pub(super) fn tool_results(turns: &[Turn<'_>]) -> Option<String> {
    let outcomes = |turn: &Turn<'_>| -> Vec<String> {
        let told = |part: &Part<'_>| match part {
            Part::Outcome(parts) => parts.iter().filter_map(shown).collect(),
            _ => Vec::new(),
        };
        turn.parts.iter().flat_map(told).collect()
    };
    let has_outcome = |turn: &&Turn<'_>| {
        turn.parts
            .iter()
            .any(|part| matches!(part, Part::Outcome(_)))
    };
    let last = before_system(turns);
    // Where results are text alone, their pictures follow in a message that says nothing itself.
    let pictures = last
        .last()
        .filter(|turn| turn.role == "user" && turn.texts().next().is_none());
    let pictures = pictures.filter(|turn| !has_outcome(turn));
    let end = last.len() - usize::from(pictures.is_some());
    let last = last.get(..end).unwrap_or_default();
    let count = last.iter().rev().take_while(has_outcome).count();
    let tail = last.get(last.len() - count..).unwrap_or_default();
    let mut texts: Vec<String> = tail.iter().flat_map(outcomes).collect();
    texts.extend(
        pictures
            .iter()
            .flat_map(|turn| turn.parts.iter().filter_map(shown)),
    );
    (count > 0).then(|| texts.join(" | "))
}

/// What is shown of a part of a message; nothing of what only the model and its tools exchange.
pub(super) fn shown(part: &Part<'_>) -> Option<String> {
    match part {
        Part::Text(text) => Some((*text).to_owned()),
        Part::Image { media, bytes } => Some(format!("[{media} {bytes}]")),
        Part::File => Some("[file]".to_owned()),
        Part::Call | Part::Thinking | Part::Outcome(_) => None,
    }
}

/// A tool that the caller offers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool<'a> {
    /// Its name; its type where the vendor runs it and it has none.
    pub(super) name: &'a str,
    pub(super) schema: &'a Value,
    /// It takes text, not JSON.
    pub(super) custom: bool,
    pub(super) namespace: Option<&'a str>,
}

/// All tools offered, those of namespaces in their place.
pub(super) fn tools(request: &Value) -> Vec<Tool<'_>> {
    let mut found = Vec::new();
    for offer in items(&request["tools"]) {
        if offer["type"] == "namespace" {
            let namespace = offer["name"].as_str();
            let inner = items(&offer["tools"]).iter();
            found.extend(inner.filter_map(|inner| tool(inner, namespace)));
        } else {
            found.extend(tool(offer, None));
        }
    }
    found
}

fn tool<'a>(offer: &'a Value, namespace: Option<&'a str>) -> Option<Tool<'a>> {
    let custom = offer["type"] == "custom";
    let inner = ["function", "custom"]
        .iter()
        .map(|name| &offer[*name])
        .find(|inner| inner.is_object())
        .unwrap_or(offer);
    let schema = ["parameters", "input_schema"]
        .iter()
        .map(|name| &inner[*name])
        .find(|schema| schema.is_object());
    Some(Tool {
        name: inner["name"].as_str().or(offer["type"].as_str())?,
        schema: schema.unwrap_or(&Value::Null),
        custom,
        namespace,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_user_text_is_that_of_the_last_message_that_has_one() {
        let request = json!({ "messages": [
            { "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] },
            { "role": "assistant", "content": [{ "type": "tool_use", "id": "t" }] },
            { "role": "user", "content": [{ "type": "tool_result", "content": "c" }] } ] });
        assert_eq!(last_user_text(&turns(&request, Dialect::Messages)), "a\nb");
        let request = json!({ "input": "d" });
        assert_eq!(last_user_text(&turns(&request, Dialect::Responses)), "d");
    }

    fn told(dialect: Dialect, field: &str, turns_of_it: Value) -> Option<String> {
        let mut request = json!({});
        request[field] = turns_of_it;
        tool_results(&turns(&request, dialect))
    }

    #[test]
    fn results_at_the_end_count_as_one() {
        let image =
            json!({ "type": "image", "source": { "media_type": "image/png", "data": "AAAABQ==" } });
        let text = json!({ "type": "text", "text": "a" });
        let messages = json!([{ "role": "user", "content": [
            { "type": "tool_result", "content": [text, image] },
            { "type": "tool_result", "content": "b" } ] },
            { "role": "system", "content": "note" }]);
        let said = told(Dialect::Messages, "messages", messages);
        assert_eq!(said.as_deref(), Some("a | [image/png 4] | b"));
        let tool = |text: &str| json!({ "role": "tool", "content": text });
        let messages =
            json!([tool("old"), { "role": "user", "content": "x" }, tool("a"), tool("b")]);
        let said = told(Dialect::Chat, "messages", messages);
        assert_eq!(said.as_deref(), Some("a | b"));
        let output = |text: &str| json!({ "type": "function_call_output", "output": text });
        let input = json!([{ "type": "function_call" }, output("a"), output("b")]);
        let said = told(Dialect::Responses, "input", input);
        assert_eq!(said.as_deref(), Some("a | b"));
        let input = json!([output("a"), { "role": "user", "content": "x" }]);
        assert_eq!(told(Dialect::Responses, "input", input), None);
    }

    #[test]
    fn tools_of_namespaces_are_offered_too() {
        let request = json!({ "tools": [ { "type": "web_search" },
            { "type": "namespace", "name": "n", "tools": [{ "type": "function", "name": "f" }] },
            { "type": "function", "function": { "name": "g" } }, { "name": "h" },
            { "type": "custom", "custom": { "name": "i" } } ] });
        let tools = tools(&request);
        let shown = |tool: &Tool<'_>| {
            (
                tool.name.to_owned(),
                tool.namespace.map(str::to_owned),
                tool.custom,
            )
        };
        let names: Vec<_> = tools.iter().map(shown).collect();
        let wanted = [
            ("web_search", None, false),
            ("f", Some("n"), false),
            ("g", None, false),
            ("h", None, false),
            ("i", None, true),
        ]
        .map(|(name, space, custom)| (name.to_owned(), space.map(str::to_owned), custom));
        assert_eq!(names, wanted);
    }
}
