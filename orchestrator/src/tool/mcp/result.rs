//! Results as tasks keep them: what a server gave, in our own words, and not longer than is allowed.

use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use crate::tool::{Content, ToolResult};

/// A server's result, cut to about `limit` bytes. What is left out is said in a piece of text; whether
/// the tool failed stays as it was.
pub(super) fn taken(result: CallToolResult, limit: usize) -> ToolResult {
    let mut room = Room {
        left: limit,
        dropped: 0,
    };
    let mut content = Vec::new();
    for block in result.content {
        content.extend(room.take(piece(block)));
    }
    let structured = result.structured_content.filter(|value| {
        let bytes = value.to_string().len();
        room.fits(bytes)
    });
    if room.dropped > 0 {
        content.push(Content::Text {
            text: format!(
                "[the result was longer than {limit} bytes: {} bytes of it are left out]",
                room.dropped
            ),
        });
    }
    ToolResult {
        content,
        structured,
        is_error: result.is_error.unwrap_or(false),
    }
}

/// What may still be taken.
struct Room {
    left: usize,
    dropped: usize,
}

impl Room {
    /// Whether a piece that can not be cut has room; it is counted either way.
    fn fits(&mut self, bytes: usize) -> bool {
        let is_room = bytes <= self.left;
        if is_room {
            self.left -= bytes;
        } else {
            self.dropped = self.dropped.saturating_add(bytes);
            // Nothing small is to slip in behind something large: order would be lost.
            self.left = 0;
        }
        is_room
    }

    fn take(&mut self, content: Content) -> Option<Content> {
        match content {
            Content::Text { text } => {
                let end = text.floor_char_boundary(self.left.min(text.len()));
                let (kept, rest) = text.split_at_checked(end)?;
                self.left -= kept.len();
                if !rest.is_empty() {
                    self.dropped = self.dropped.saturating_add(rest.len());
                    self.left = 0;
                }
                let is_cut_away = kept.is_empty() && !rest.is_empty();
                (!is_cut_away).then(|| Content::Text {
                    text: kept.to_owned(),
                })
            }
            Content::Data { mime, data } => self
                .fits(data.len().saturating_add(mime.len()))
                .then_some(Content::Data { mime, data }),
            Content::Link { uri, name } => self
                .fits(uri.len().saturating_add(name.len()))
                .then_some(Content::Link { uri, name }),
        }
    }
}

fn piece(block: ContentBlock) -> Content {
    let binary = "application/octet-stream";
    match block {
        ContentBlock::Text(text) => Content::Text { text: text.text },
        ContentBlock::Image(image) => Content::Data {
            mime: image.mime_type,
            data: image.data,
        },
        ContentBlock::Audio(audio) => Content::Data {
            mime: audio.mime_type,
            data: audio.data,
        },
        ContentBlock::ResourceLink(link) => Content::Link {
            uri: link.uri,
            name: link.name,
        },
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => Content::Text { text },
            ResourceContents::BlobResourceContents {
                mime_type, blob, ..
            } => Content::Data {
                mime: mime_type.unwrap_or_else(|| binary.to_owned()),
                data: blob,
            },
            _ => unknown(),
        },
        _ => unknown(),
    }
}

fn unknown() -> Content {
    Content::Text {
        text: "[content of a kind that is not known here]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn result(value: Value) -> CallToolResult {
        serde_json::from_value(value).unwrap()
    }

    fn text(text: &str) -> Content {
        Content::Text {
            text: text.to_owned(),
        }
    }

    #[test]
    fn each_kind_of_content_has_its_place() {
        let given = result(json!({ "content": [
            { "type": "text", "text": "hello" },
            { "type": "image", "data": "AAAA", "mimeType": "image/png" },
            { "type": "audio", "data": "BBBB", "mimeType": "audio/wav" },
            { "type": "resource_link", "uri": "file:///a", "name": "a" },
            { "type": "resource", "resource": { "uri": "file:///b", "text": "inside" } },
            { "type": "resource", "resource": { "uri": "file:///c", "blob": "CCCC" } },
        ], "structuredContent": { "n": 1 }, "isError": true }));
        let data = |mime: &str, data: &str| Content::Data {
            mime: mime.to_owned(),
            data: data.to_owned(),
        };
        let expected = ToolResult {
            content: vec![
                text("hello"),
                data("image/png", "AAAA"),
                data("audio/wav", "BBBB"),
                Content::Link {
                    uri: "file:///a".to_owned(),
                    name: "a".to_owned(),
                },
                text("inside"),
                data("application/octet-stream", "CCCC"),
            ],
            structured: Some(json!({ "n": 1 })),
            is_error: true,
        };
        assert_eq!(taken(given, 1 << 20), expected);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters_and_said() {
        let given = result(json!({ "content": [
            { "type": "text", "text": "ab€€" },
            { "type": "text", "text": "more" },
            { "type": "image", "data": "AAAA", "mimeType": "image/png" },
        ], "structuredContent": { "n": 1 }, "isError": true }));
        let cut = taken(given, 6);
        let note = "[the result was longer than 6 bytes: 27 bytes of it are left out]";
        let expected = ToolResult {
            content: vec![text("ab€"), text(note)],
            structured: None,
            is_error: true,
        };
        assert_eq!(cut, expected);
    }

    #[test]
    fn what_fits_exactly_is_whole() {
        let given = result(json!({ "content": [{ "type": "text", "text": "abcd" }] }));
        assert_eq!(taken(given, 4), ToolResult::text("abcd"));
        let empty = result(json!({ "content": [{ "type": "text", "text": "" }] }));
        assert_eq!(taken(empty, 4), ToolResult::text(""));
    }
}
