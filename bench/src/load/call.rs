//! Calls as bytes: bodies of a given size from real prompts, with escapes and UTF-8, and the head
//! before them. They are made ahead, so that sending one is a write.

use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use crate::conversation::Prompt;

/// How calls are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI Chat Completions.
    Chat,
    /// Anthropic Messages.
    Messages,
}

/// What the fixed endpoint is asked for, in the text of the prompt because a gateway forwards no
/// unknown header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Ask {
    /// Pieces of a stream.
    pub chunks: Option<u32>,
    /// Microseconds between two of them.
    pub gap_us: Option<u64>,
    /// Microseconds before the answer.
    pub first_us: Option<u64>,
    /// Length of a plain answer, or of each event of a stream.
    pub bytes: Option<u32>,
}

/// What comes before the numbers, and what ends them.
pub(crate) const ASK: &str = "<<fixed";
pub(crate) const ASK_END: &str = ">>";

impl Ask {
    /// The words in the prompt; empty where nothing is asked.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let gap = self.gap_us.map(|it| ("gap_us", it));
        let first = self.first_us.map(|it| ("first_us", it));
        let chunks = self.chunks.map(|it| ("chunks", u64::from(it)));
        let bytes = self.bytes.map(|it| ("bytes", u64::from(it)));
        for (name, value) in [chunks, gap, first, bytes].into_iter().flatten() {
            // Writing to a String can not fail.
            let _written = write!(text, " {name}={value}");
        }
        if text.is_empty() {
            return text;
        }
        format!("{ASK}{text}{ASK_END}")
    }

    /// Reads the last such words in `text`.
    pub(crate) fn find(text: &[u8]) -> Option<Self> {
        let at = memchr::memmem::rfind(text, ASK.as_bytes())? + ASK.len();
        let rest = &text[at..];
        let end = memchr::memmem::find(rest, ASK_END.as_bytes())?;
        let mut ask = Self::default();
        for word in std::str::from_utf8(&rest[..end]).ok()?.split_whitespace() {
            let (name, value) = word.split_once('=')?;
            match name {
                "chunks" => ask.chunks = value.parse().ok(),
                "gap_us" => ask.gap_us = value.parse().ok(),
                "first_us" => ask.first_us = value.parse().ok(),
                "bytes" => ask.bytes = value.parse().ok(),
                _ => {}
            }
        }
        Some(ask)
    }
}

/// What calls look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shape {
    /// Length of the whole body.
    pub body_bytes: usize,
    pub stream: bool,
    pub max_tokens: u64,
    /// `model` is the last key of the body, as clients that sort their keys otherwise write it.
    pub model_last: bool,
    pub ask: Ask,
}

/// Length of a message of a long conversation.
const MESSAGE: usize = 2_500;
/// Text that has to be escaped, and text that is not ASCII.
const ODD: &str = "He said \"caf\u{e9}\",\n\tpath C:\\tmp, 東京, \u{1f680} and na\u{ef}ve.\n";

impl Shape {
    /// The body of call `number`: its prompt and, as far as its length goes, earlier turns.
    pub fn body(&self, prompts: &[Prompt], number: usize, dialect: Dialect, model: &str) -> String {
        let ask = self.ask.text();
        let frame = self.close("", dialect, model).len() + ask.len();
        let room = self.body_bytes.saturating_sub(frame);
        let turns = (room / MESSAGE).max(1);
        // An odd number of turns, so that the last is the user's.
        let turns = turns - (turns + 1) % 2;
        let mut messages = String::with_capacity(self.body_bytes);
        let mut text = Text::new(prompts, number);
        for turn in 0..turns {
            let role = if turn % 2 == 0 { "user" } else { "assistant" };
            let start = format!("{{\"role\":\"{role}\",\"content\":\"");
            let is_last = turn + 1 == turns;
            let comma = usize::from(turn > 0);
            let left = room.saturating_sub(messages.len() + comma + start.len() + 2);
            let wanted = if is_last { left } else { MESSAGE - 40 };
            if turn > 0 {
                messages.push(',');
            }
            messages.push_str(&start);
            text.write(&mut messages, wanted);
            if is_last {
                messages.push_str(&ask);
            }
            messages.push_str("\"}");
        }
        self.close(&messages, dialect, model)
    }

    /// The whole body around `messages`.
    pub(crate) fn close(&self, messages: &str, dialect: Dialect, model: &str) -> String {
        let model = Value::from(model);
        let cap = match dialect {
            Dialect::Chat => "max_completion_tokens",
            Dialect::Messages => "max_tokens",
        };
        let mut fields = format!("\"{cap}\":{}", self.max_tokens.max(1));
        if self.stream {
            fields.push_str(",\"stream\":true");
        }
        if self.model_last {
            format!("{{\"messages\":[{messages}],{fields},\"model\":{model}}}")
        } else {
            format!("{{\"model\":{model},{fields},\"messages\":[{messages}]}}")
        }
    }
}

/// Text from prompts without an end, as the inside of a JSON string.
struct Text<'a> {
    prompts: &'a [Prompt],
    next: usize,
    pieces: Vec<String>,
    piece: usize,
}

impl<'a> Text<'a> {
    fn new(prompts: &'a [Prompt], number: usize) -> Self {
        let mut text = Self {
            prompts,
            next: number,
            pieces: Vec::new(),
            piece: 0,
        };
        text.refill();
        text
    }

    /// The characters of the next prompt, each as JSON writes it.
    fn refill(&mut self) {
        let prompt = self.prompts.get(self.next % self.prompts.len().max(1));
        let words = prompt.map_or("Say something. ", |prompt| &prompt.prompt);
        self.next += 7;
        self.piece = 0;
        self.pieces = words.chars().chain(ODD.chars()).map(escaped).collect();
    }

    /// Writes exactly `wanted` bytes.
    fn write(&mut self, out: &mut String, wanted: usize) {
        let end = out.len() + wanted;
        while out.len() < end {
            let Some(piece) = self.pieces.get(self.piece) else {
                self.refill();
                continue;
            };
            if out.len() + piece.len() > end {
                out.push('.');
                continue;
            }
            out.push_str(piece);
            self.piece += 1;
        }
    }
}

fn escaped(letter: char) -> String {
    match letter {
        '"' => "\\\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        '\n' => "\\n".to_owned(),
        '\t' => "\\t".to_owned(),
        letter if letter.is_control() => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    }
}

/// The text of prompts as the inside of a JSON string, `bytes` long.
pub(crate) fn text(prompts: &[Prompt], number: usize, bytes: usize) -> String {
    let mut out = String::with_capacity(bytes);
    Text::new(prompts, number).write(&mut out, bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conversation;

    #[test]
    fn bodies_are_json_of_the_length_asked_for() {
        let prompts = conversation::prompts();
        for dialect in [Dialect::Chat, Dialect::Messages] {
            for (body_bytes, model_last) in [(1_024, false), (1_024, true), (102_400, true)] {
                for number in 0..20 {
                    let shape = Shape {
                        body_bytes,
                        stream: number % 2 == 0,
                        max_tokens: 64,
                        model_last,
                        ask: Ask {
                            gap_us: Some(10_000),
                            ..Ask::default()
                        },
                    };
                    let body = shape.body(&prompts, number, dialect, "auto");
                    assert_eq!(body.len(), body_bytes);
                    let read: Value = serde_json::from_str(&body).unwrap();
                    assert_eq!(body.ends_with("\"model\":\"auto\"}"), model_last);
                    let messages = read["messages"].as_array().unwrap();
                    let last = messages.last().unwrap();
                    assert_eq!(last["role"], "user");
                    let said = last["content"].as_str().unwrap().as_bytes();
                    assert_eq!(Ask::find(said), Some(shape.ask));
                    if body_bytes > 100_000 {
                        assert!(messages.len() >= 39, "{}", messages.len());
                        assert!(body.contains("\\\"caf\u{e9}\\\"") && body.contains("\\n"));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_asked_is_read_again() {
        let ask = Ask {
            chunks: Some(100),
            gap_us: Some(5),
            first_us: Some(0),
            bytes: Some(277),
        };
        let text = format!(
            "{} and later {}",
            Ask {
                chunks: Some(1),
                ..ask
            }
            .text(),
            ask.text()
        );
        assert_eq!(Ask::find(text.as_bytes()), Some(ask));
        assert_eq!(Ask::default().text(), "");
        assert_eq!(Ask::find(b"nothing"), None);
    }
}
