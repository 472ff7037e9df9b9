//! What is seen of an answer, and the words by which dialects say why it ended.

use serde_json::Value;

use super::is_object;
use crate::Usage;
use crate::json::{JsonError, Kind};

/// What has been seen of a stream so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The last usage reported.
    pub usage: Option<Usage>,
    /// The prompt side of the usage, which some upstreams report at the start.
    pub prompt: Option<Usage>,
    /// The answer came to its end.
    pub finished: bool,
    /// Why, in the dialect's own word, where it is a known one.
    pub finish: Option<&'static str>,
    /// Events that carried a piece of the answer.
    pub content_events: u64,
    /// Their bytes, less the frame around the text as measured on the first.
    pub content_bytes: u64,
    /// The number of the last event, in the dialect that counts them.
    pub numbered: Option<u64>,
    /// Answer tokens as counted from their text, where the text was at hand.
    pub counted: Option<u64>,
    /// Words came in one piece with a report of none.
    pub(super) says: bool,
    pub(super) frame_bytes: u64,
}

impl Facts {
    /// What is known of a reply that came in one piece. It is read once more where it shall have cost nothing.
    pub(super) fn of_reply(usage: Option<Usage>, reply: &[u8]) -> Self {
        let is_free = usage.is_some_and(|usage| usage.answer() == 0);
        Self {
            usage,
            finished: true,
            says: is_free && says_anything(reply),
            ..Self::default()
        }
    }

    /// Whether a model has made something, which then is some tokens long.
    pub fn has_content(&self) -> bool {
        self.says || self.content_events > 0
    }

    /// Whether there was nothing before the end: no content, no usage, and no reason for the end.
    pub fn says_nothing(&self) -> bool {
        self.content_events == 0 && self.usage.is_none() && self.finish.is_none()
    }

    /// Counts a content event of `length` bytes. The first one is taken for a frame and four bytes
    /// of text.
    pub(super) fn count(&mut self, length: usize) {
        let bytes = u64::try_from(length).unwrap_or(u64::MAX);
        if self.content_events == 0 {
            self.frame_bytes = bytes.saturating_sub(4);
        }
        self.content_events += 1;
        self.content_bytes += bytes.saturating_sub(self.frame_bytes);
    }

    /// Tokens that the answer seen so far may have, when nobody reports them: never fewer than the
    /// events, and a token for each three bytes, because English averages four.
    pub fn counted_output(&self) -> u64 {
        let by_bytes = self.content_events.max(self.content_bytes.div_ceil(3));
        self.counted.unwrap_or(by_bytes)
    }
}

/// Words for why an answer ended. Others are not repeated: whoever answers could write anything there.
const WORDS: [&str; 14] = [
    "stop",
    "length",
    "tool_calls",
    "function_call",
    "content_filter",
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "pause_turn",
    "refusal",
    "model_context_window_exceeded",
    "completed",
    "max_output_tokens",
];

/// Fields by which a model says something, whatever the dialect.
const SAID: [&str; 8] = [
    "text",
    "content",
    "refusal",
    "thinking",
    "reasoning",
    "reasoning_content",
    "arguments",
    "input",
];

/// The known word that `text` begins with, up to a quotation mark or its end.
pub(super) fn known(text: &[u8]) -> Option<&'static str> {
    let word = text.split(|byte| *byte == b'"').next()?;
    WORDS.into_iter().find(|it| it.as_bytes() == word)
}

/// What a whole answer says, as far as metering asks.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) usage: Option<Usage>,
    pub(super) finish: Option<&'static str>,
    /// It has an error.
    error: bool,
    /// It has the list of what a model made.
    made: bool,
}

impl Told {
    /// Notes a field by which an answer is known from an error; `list` names what a model made.
    pub(super) fn note(&mut self, key: &str, kind: Kind, list: &str) {
        self.error |= key == "error" && matches!(kind, Kind::Object | Kind::String);
        self.made |= key == list && kind == Kind::Array;
    }

    /// The facts of an answer; `None` for an error without what a model made, which some servers send with a
    /// status of success.
    fn facts(self, reply: &[u8]) -> Option<Facts> {
        let facts = Facts::of_reply(self.usage, reply);
        (!self.error || self.made).then_some(Facts {
            finish: self.finish,
            ..facts
        })
    }
}

/// The facts of a whole answer that was walked, or is JSON all the same.
pub(super) fn facts(walked: Result<Told, JsonError>, reply: &[u8]) -> Option<Facts> {
    match walked {
        Ok(told) => told.facts(reply),
        Err(_) => is_object(reply).then(|| Facts::of_reply(None, reply)),
    }
}

/// Whether a model has said or called anything in this reply.
fn says_anything(reply: &[u8]) -> bool {
    let reply: Value = crate::json::read(reply).unwrap_or_default();
    let made = ["choices", "output", "content"].into_iter();
    made.filter_map(|list| reply.get(list)).any(has_words)
}

fn has_words(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_words),
        Value::Object(fields) => fields.iter().any(|(name, value)| match value {
            Value::String(text) => SAID.contains(&name.as_str()) && !text.is_empty(),
            value => name == "input" || has_words(value),
        }),
        _ => false,
    }
}
