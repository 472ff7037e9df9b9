//! What arrived at the endpoint, as one line of JSON: the other end of a translation, for tests.

use serde_json::{Value, json};

use super::request::{Dialect, Part, Turn, tools};

/// What the turns hold, added up. Text of the system is not among `texts` and `bytes`, because it
/// is a message in one dialect and a field in another.
#[derive(Debug, Default)]
struct Sum {
    images: usize,
    image_types: Vec<String>,
    image_bytes: usize,
    files: usize,
    /// Texts of users and assistants.
    texts: usize,
    tool_results: usize,
    thinking: usize,
    /// Length of those texts and of the tools'.
    bytes: usize,
}

/// The line about `request`, whose turns are `turns`.
pub(super) fn line(request: &Value, turns: &[Turn<'_>], dialect: Dialect) -> String {
    let mut sum = Sum::default();
    for turn in turns.iter().filter(|turn| !turn.is_system()) {
        sum.add(&turn.parts, false);
    }
    let first = |names: &[&str]| -> Value {
        let mut given = names.iter().map(|name| &request[*name]);
        let given = given.find(|value| !value.is_null());
        given.cloned().unwrap_or_default()
    };
    json!({
        "roles": turns.iter().map(|turn| turn.role).collect::<Vec<_>>(),
        "images": sum.images,
        "image_types": sum.image_types,
        "image_bytes": sum.image_bytes,
        "files": sum.files,
        "tools": tools(request).iter().map(|tool| tool.name).collect::<Vec<_>>(),
        "tool_choice": request["tool_choice"],
        "system": system(request, turns),
        "texts": sum.texts,
        "tool_results": sum.tool_results,
        "thinking": sum.thinking,
        "schema": dialect.schema(request).is_some(),
        "effort": effort(request, dialect),
        "max": first(&["max_completion_tokens", "max_tokens", "max_output_tokens"]),
        "bytes": sum.bytes,
        "temperature": request["temperature"],
        "stop": first(&["stop", "stop_sequences"]),
    })
    .to_string()
}

impl Sum {
    fn add(&mut self, parts: &[Part<'_>], from_tool: bool) {
        for part in parts {
            match part {
                Part::Text(text) => {
                    self.texts += usize::from(!from_tool);
                    self.bytes += text.len();
                }
                Part::Image { media, bytes } => {
                    self.images += 1;
                    self.image_types.push((*media).to_owned());
                    self.image_bytes += bytes;
                }
                Part::File => self.files += 1,
                Part::Thinking => self.thinking += 1,
                Part::Outcome(parts) => {
                    self.tool_results += 1;
                    self.add(parts, true);
                }
                Part::Call => {}
            }
        }
    }
}

/// All text of the system, wherever its dialect puts it.
pub(super) fn system(request: &Value, turns: &[Turn<'_>]) -> String {
    let mut texts: Vec<&str> = Vec::new();
    for field in [&request["instructions"], &request["system"]] {
        texts.extend(field.as_str());
        let blocks = field.as_array().into_iter().flatten();
        texts.extend(blocks.filter_map(|block| block["text"].as_str()));
    }
    for part in turns
        .iter()
        .filter(|t| t.is_system())
        .flat_map(|t| &t.parts)
    {
        if let Part::Text(text) = part {
            texts.push(text);
        }
    }
    texts.join("\n")
}

fn effort(request: &Value, dialect: Dialect) -> &Value {
    match dialect {
        Dialect::Chat => &request["reasoning_effort"],
        Dialect::Responses => &request["reasoning"]["effort"],
        Dialect::Messages => &request["output_config"]["effort"],
    }
}
