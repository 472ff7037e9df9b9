//! How states, times and texts of tasks are put on pages: texts come from models and from outside, so
//! nothing in them may look like something else.

use std::fmt::Write;

use serde_json::Value;
use wire::letters::is_hidden;

/// The colour of a state; the word itself always stands beside it.
pub(super) fn tone(word: &str) -> &'static str {
    match word {
        "completed" | "succeeded" | "allowed" | "passed" => "good",
        "failed" | "rejected" | "denied" | "unknown" => "bad",
        "requires_action" | "paused" | "incomplete" | "cancelled" | "in_doubt" | "ask" => "fair",
        "running" | "in_progress" | "committed" => "busy",
        _ => "calm",
    }
}

/// `requires_action` as people say it.
pub(super) fn spoken(word: &str) -> String {
    word.replace('_', " ")
}

/// How long something took: `850 ms`, `12 s`, `3 min`.
pub(super) fn took(ms: i64) -> String {
    match ms.max(0) {
        ms @ ..1_000 => format!("{ms}\u{a0}ms"),
        ms @ ..10_000 => format!("{}.{}\u{a0}s", ms / 1_000, ms % 1_000 / 100),
        ms @ ..120_000 => format!("{}\u{a0}s", ms / 1_000),
        ms @ ..7_200_000 => format!("{}\u{a0}min", ms / 60_000),
        ms @ ..172_800_000 => format!("{}\u{a0}h", ms / 3_600_000),
        ms => format!("{}\u{a0}days", ms / 86_400_000),
    }
}

/// The beginning of a text in one line, with a sign where more follows.
pub(super) fn cut(text: &str, most: usize) -> String {
    let mut line = String::new();
    for (n, letter) in text.chars().enumerate() {
        if n >= most {
            line.push('\u{2026}');
            break;
        }
        line.push(if letter.is_whitespace() { ' ' } else { letter });
    }
    plain(&line)
}

/// A text in which nothing is hidden: letters that can not be seen, or turn the others round, are
/// written as their numbers. Whoever decides over a text must see all of it.
pub(super) fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if is_hidden(letter) && !matches!(letter, '\n' | '\t') {
            // Writing to a String can not fail.
            let _written = write!(shown, "\u{27e8}U+{:04X}\u{27e9}", u32::from(letter));
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// JSON with a line for each member.
pub(super) fn pretty(value: &Value) -> String {
    plain(&serde_json::to_string_pretty(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_in_a_text_is_shown() {
        assert_eq!(
            plain("pay\u{202e}evil\u{200b} \u{e0041}ok"),
            "pay\u{27e8}U+202E\u{27e9}evil\u{27e8}U+200B\u{27e9} \u{27e8}U+E0041\u{27e9}ok"
        );
        assert_eq!(plain("a\n\tb \u{e4}\u{4e2d}"), "a\n\tb \u{e4}\u{4e2d}");
        assert_eq!(cut("one\ntwo three", 7), "one two\u{2026}");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(took(-5), "0\u{a0}ms");
        assert_eq!(took(9_950), "9.9\u{a0}s");
        assert_eq!(took(61_000), "61\u{a0}s");
        assert_eq!(took(172_800_000), "2\u{a0}days");
    }
}
