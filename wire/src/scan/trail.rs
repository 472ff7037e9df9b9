//! Where an agent stands: what the transcript says of calls made, results told, failures and repeats
//! since the user last spoke.

use std::ops::Range;

use memchr::memmem;

use super::{Message, Role, Scan, Shape, len32};

/// Bytes at either end of a result that are looked at: programs say there whether they failed.
const ENDS: usize = 192;
/// Bytes of a text that are searched for marks of code.
const MARKED: usize = 16 << 10;

/// What a message tells of results of tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Told {
    bytes: u32,
    errors: u32,
    /// Errors behind the last good result.
    tail: u32,
    /// There is a good result among them.
    good: bool,
}

impl Told {
    /// Takes one result in.
    pub(crate) fn result(&mut self, bytes: u32, failed: bool) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.errors += u32::from(failed);
        self.good |= !failed;
        self.tail = if failed { self.tail + 1 } else { 0 };
    }
}

/// What is remembered from message to message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Trail {
    /// The assistant's turn has not ended.
    speaking: bool,
    /// A sum over the calls of this turn, and of the one before: in any order, the same calls are equal.
    calls: u64,
    before: u64,
}

impl Trail {
    /// Takes a message in, which has `bytes` of text.
    pub(super) fn take(&mut self, message: &Message, bytes: u32, shape: &mut Shape) {
        let results = message.results + u32::from(message.role == Role::Tool);
        let told = message.told;
        if message.role == Role::Assistant || message.is_call {
            self.speak(shape);
            self.calls = self.calls.wrapping_add(message.made);
        } else if results > 0 {
            self.close(shape);
            shape.last_results += results;
            shape.result_bytes = shape.result_bytes.saturating_add(told.bytes);
            shape.result_errors += told.errors;
            shape.tool_errors += told.errors;
            shape.loop_results += results;
            shape.failures = told.tail + if told.good { 0 } else { shape.failures };
            shape.words_beside = bytes > 0 && message.role == Role::User;
        } else if message.role == Role::User && bytes > 0 {
            *self = Self::default();
            shape.depth = 0;
            shape.loop_bytes = 0;
            shape.loop_results = 0;
            shape.failures = 0;
            shape.repeats = 0;
            shape.forget_results();
        }
        if message.role != Role::System {
            let told = if message.role == Role::Tool {
                0
            } else {
                told.bytes
            };
            shape.loop_bytes = shape.loop_bytes.saturating_add(bytes).saturating_add(told);
        }
    }

    fn speak(&mut self, shape: &mut Shape) {
        if !self.speaking {
            shape.assistant_turns += 1;
            shape.depth += 1;
            shape.forget_results();
            self.speaking = true;
        }
    }

    /// Ends the assistant's turn, and tells whether it made the calls of the one before again.
    fn close(&mut self, shape: &mut Shape) {
        if !std::mem::take(&mut self.speaking) {
            return;
        }
        let calls = std::mem::take(&mut self.calls);
        let again = calls != 0 && calls == self.before;
        shape.repeats = if again { shape.repeats + 1 } else { 0 };
        self.before = calls;
    }
}

impl Shape {
    fn forget_results(&mut self) {
        (self.last_results, self.result_bytes, self.result_errors) = (0, 0, 0);
        self.words_beside = false;
    }
}

/// The mark of one call: its tool's name and its arguments, as they are written.
pub(crate) fn call(name: &str, arguments: &str) -> u64 {
    // Zero stands for no call.
    mix(
        hash(name.as_bytes()).rotate_left(17),
        hash(arguments.as_bytes()),
    ) | 1
}

fn hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let seed = mix(
        0x9e37_79b9_7f4a_7c15,
        u64::try_from(bytes.len()).unwrap_or(0),
    );
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let sum = words
        .iter()
        .fold(seed, |sum, word| mix(sum, u64::from_le_bytes(*word)));
    mix(sum, u64::from_le_bytes(last))
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word)
        .wrapping_mul(0x9fb2_1c65_1e98_df25)
        .rotate_left(29)
}

/// Whether the result of a tool, escaped as it stands, reads as a failure: how it begins, or the exit
/// code that the harness of an agent writes before or behind it.
pub(crate) fn failed(raw: &str) -> bool {
    let raw = raw.as_bytes();
    let head = raw.get(..ENDS.min(raw.len())).unwrap_or_default();
    let tail = raw
        .get(raw.len().saturating_sub(ENDS)..)
        .unwrap_or_default();
    // What may stand before the first word: space, escapes, quotes and brackets of JSON and markup.
    let skipped = |byte: &u8| b" \\\"'{[<(`*#".contains(byte);
    let mut at = head.iter().position(|byte| !skipped(byte)).unwrap_or(0);
    while at > 0
        && head.get(at - 1) == Some(&b'\\')
        && matches!(head.get(at), Some(b'n' | b't' | b'r'))
    {
        let rest = head.get(at + 1..).unwrap_or_default();
        at += 1 + rest.iter().position(|byte| !skipped(byte)).unwrap_or(0);
    }
    let words = head.get(at..).unwrap_or_default();
    match words.first().map(u8::to_ascii_lowercase) {
        Some(b'c' | b'o' | b'p' | b'w') if exited(head) => true,
        Some(b'o') if raw.starts_with(b"{") => exited(tail),
        Some(b'c' | b'e' | b'f' | b'i' | b'n' | b'p' | b't' | b'u') => begins_badly(words),
        _ => false,
    }
}

fn begins_badly(words: &[u8]) -> bool {
    const BAD: [&[u8]; 17] = [
        b"error",
        b"exception",
        b"traceback",
        b"failed",
        b"failure",
        b"fatal",
        b"panic",
        b"uncaught",
        b"unhandled",
        b"command failed",
        b"command not found",
        b"cannot ",
        b"could not ",
        b"internal error",
        b"invalid ",
        b"npm err",
        b"permission denied",
    ];
    let starts = |word: &[u8]| {
        let head = words.get(..word.len());
        head.is_some_and(|head| head.eq_ignore_ascii_case(word))
    };
    if starts(b"exit code") || starts(b"exit status") {
        return exited(words);
    }
    let Some(word) = BAD.iter().find(|word| starts(word)) else {
        return false;
    };
    let behind = words.get(word.len()..).unwrap_or_default();
    // `errors`, `error_rate` and `failure-free` say nothing yet; `"error": null` says that all went well.
    let ends = word.ends_with(b" ") || !matches!(behind.first(), Some(b'_' | b'-' | b's' | b'S'));
    let value = behind.iter().position(|byte| !b"\\\": ".contains(byte));
    let value = value.and_then(|at| behind.get(at..)).unwrap_or_default();
    let quoted = behind.first().is_some_and(|byte| b"\\\"".contains(byte));
    let good = [&b"null"[..], b"false", b"0", b"[]", b"{}", b"}", b","];
    ends && !(quoted && good.iter().any(|good| value.starts_with(good)))
}

/// Whether a text names an exit code other than zero.
fn exited(text: &[u8]) -> bool {
    let named = [
        &b"xit code"[..],
        b"xit_code",
        b"xit status",
        b"xited with code",
        b"exitCode",
    ]
    .iter()
    .find_map(|name| Some(memmem::find(text, name)? + name.len()));
    let Some(behind) = named.and_then(|at| text.get(at..)) else {
        return false;
    };
    let number = behind.iter().position(|byte| !b"\\\":= (".contains(byte));
    let number = number.and_then(|at| behind.get(at..)).unwrap_or_default();
    matches!(number.first(), Some(b'1'..=b'9' | b'-'))
}

/// Counts what the last texts show of code: the last user text, and the last result behind it.
pub(super) fn mark(scan: &mut Scan, body: &[u8]) {
    let last = scan.last_result.clone();
    let shown = scan.shape.after_tool.then_some(last);
    for at in scan.prompt_at.iter().cloned().chain(shown) {
        mark_one(body.get(at).unwrap_or_default(), &mut scan.shape);
    }
}

fn mark_one(text: &[u8], shape: &mut Shape) {
    let text = text.get(..MARKED.min(text.len())).unwrap_or_default();
    let begins = |at: usize, mark: &[u8]| text.get(at..).is_some_and(|rest| rest.starts_with(mark));
    let (mut fences, mut hunks, mut behind) = (0, 0, 0);
    for at in memchr::memchr2_iter(b'@', b'`', text) {
        if at < behind {
            continue;
        }
        if begins(at, b"```") {
            (fences, behind) = (fences + 1, at + 3);
        } else if begins(at, b"@@ ") {
            (hunks, behind) = (hunks + 1, at + 3);
            // The closing mark of `@@ -1,2 +1,3 @@` stands close behind.
            let rest = text
                .get(behind..text.len().min(behind + 48))
                .unwrap_or_default();
            behind += memmem::find(rest, b" @@").map_or(0, |at| at + 3);
        }
    }
    shape.code_fences += fences / 2;
    shape.diff_hunks += hunks;
    if hunks > 0 {
        let files = [&b"\\n+++ "[..], b"*** Update File: ", b"*** Add File: "]
            .iter()
            .map(|mark| memmem::find_iter(text, mark).count())
            .sum();
        shape.diff_files += len32(files).max(1);
    }
}

/// Where the last result's text stands, if `at` is one.
pub(crate) fn last(at: Option<&Range<usize>>, scan: &mut Scan) {
    if let Some(at) = at {
        scan.last_result = at.clone();
    }
}
