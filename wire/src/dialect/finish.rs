//! The words by which dialects say why an answer ended.

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
