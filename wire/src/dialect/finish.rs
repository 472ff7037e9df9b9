//! The words by which dialects say why an answer ended.

use crate::json::{JsonError, Kind, Scanner};

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

/// Whether a whole answer has an error, and no `list` of what a model made: some servers send such with a
/// status of success.
pub(super) fn is_error(reply: &[u8], list: &str) -> bool {
    let (mut error, mut made) = (false, false);
    let walked = Scanner::new(reply).and_then(|mut scanner| {
        scanner.object(|scanner, key| {
            let kind = scanner.peek()?;
            error |= key.raw == "error" && matches!(kind, Kind::Object | Kind::String);
            made |= key.raw == list && kind == Kind::Array;
            Ok::<(), JsonError>(())
        })
    });
    walked.is_ok() && error && !made
}
