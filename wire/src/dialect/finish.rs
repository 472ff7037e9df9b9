//! The words by which dialects say why an answer ended.

use super::{Facts, is_object};
use crate::Usage;
use crate::json::{JsonError, Kind};

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
    pub(super) fn facts(self) -> Option<Facts> {
        let facts = Facts::of_reply(self.usage);
        (!self.error || self.made).then_some(Facts {
            finish: self.finish,
            ..facts
        })
    }
}

/// The facts of a whole answer that was walked, or is JSON all the same.
pub(super) fn facts(walked: Result<Told, JsonError>, reply: &[u8]) -> Option<Facts> {
    match walked {
        Ok(told) => told.facts(),
        Err(_) => is_object(reply).then(|| Facts::of_reply(None)),
    }
}
