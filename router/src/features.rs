//! What the classifier sees of a call: hashed words and word pairs of the last user text, and a
//! few counts. One pass over at most [`MOST_BYTES`], nothing allocated.

use std::ops::Range;

use wire::Shape;

/// Bytes of the text that are looked at; longer prompts say early on what they want.
pub const MOST_BYTES: usize = 4_096;
/// Buckets of the hash: 2^18 one-byte weights stay inside a core's cache.
pub const BUCKET_BITS: u32 = 18;
/// How many counts there are besides the words.
pub const DENSE: usize = 20;

/// Names of the counts, in order, for explanations.
pub const DENSE_NAMES: [&str; DENSE] = [
    "length",
    "words",
    "word length",
    "lines",
    "digits",
    "capitals",
    "punctuation",
    "non-ascii",
    "code marks",
    "math marks",
    "questions",
    "quotes",
    "listed options",
    "tools",
    "tool definitions",
    "tool results",
    "failed tools",
    "turns",
    "schema",
    "thinking or images",
];

/// The inputs of a score.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    /// The last user text.
    pub text: &'a str,
    pub shape: &'a Shape,
}

/// Sums over the text that one pass collects.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    bytes: u32,
    words: u32,
    letters: u32,
    lines: u32,
    digits: u32,
    capitals: u32,
    punctuation: u32,
    other: u32,
    code: u32,
    math: u32,
    questions: u32,
    quotes: u32,
    options: u32,
}

impl Features<'_> {
    /// Calls `bucket` for each word and word pair of the text, with where it stands, and returns the
    /// counts. Letter case is folded and every digit is a nine: which number stands there must not
    /// matter.
    pub fn walk(&self, mut bucket: impl FnMut(u32, Range<usize>)) -> [f32; DENSE] {
        let text = truncated(self.text);
        let mut counts = Counts::default();
        let (mut word, mut previous) = (SEED, SEED);
        let (mut start, mut before) = (0, 0);
        let mut last = b'\n';
        for (at, byte) in text.bytes().enumerate() {
            counts.look(byte, last);
            last = byte;
            if byte.is_ascii_alphanumeric() || byte >= 0x80 {
                if word == SEED {
                    start = at;
                }
                word = mix(word, folded(byte));
                continue;
            }
            if word != SEED {
                counts.words += 1;
                emit(word, previous, (before, start, at), &mut bucket);
                (previous, before, word) = (word, start, SEED);
            }
            if byte.is_ascii_punctuation() {
                emit(mix(SEED, byte), previous, (before, at, at + 1), &mut bucket);
                (previous, before) = (mix(SEED, byte), at);
            }
        }
        if word != SEED {
            counts.words += 1;
            emit(word, previous, (before, start, text.len()), &mut bucket);
        }
        counts.dense(self.shape)
    }
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn mix(hash: u64, byte: u8) -> u64 {
    (hash ^ u64::from(byte)).wrapping_mul(PRIME)
}

fn folded(byte: u8) -> u8 {
    if byte.is_ascii_digit() {
        b'9'
    } else {
        byte.to_ascii_lowercase()
    }
}

/// Gives out the word, and the pair it makes with the one before.
fn emit(
    word: u64,
    previous: u64,
    (before, start, end): (usize, usize, usize),
    bucket: &mut impl FnMut(u32, Range<usize>),
) {
    bucket(index(word), start..end);
    if previous != SEED {
        let pair = previous.rotate_left(23).wrapping_mul(PRIME) ^ word;
        bucket(index(pair), before..end);
    }
}

/// The upper bits of a multiplicative hash are the well-mixed ones.
fn index(hash: u64) -> u32 {
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    u32::try_from(mixed >> (u64::BITS - BUCKET_BITS)).unwrap_or(0)
}

/// The text up to [`MOST_BYTES`], on a character boundary.
fn truncated(text: &str) -> &str {
    let end = (0..=MOST_BYTES.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

impl Counts {
    fn look(&mut self, byte: u8, last: u8) {
        self.bytes += 1;
        match byte {
            b'\n' => self.lines += 1,
            b'0'..=b'9' => self.digits += 1,
            b'A'..=b'Z' => {
                self.capitals += 1;
                self.letters += 1;
                // An option list: a capital at the start of a line.
                self.options += u32::from(last == b'\n');
            }
            b'a'..=b'z' => self.letters += 1,
            b'{' | b'}' | b';' | b'=' | b'_' | b'<' | b'>' => self.code += 1,
            b'\\' | b'^' | b'$' | b'+' | b'*' | b'/' => self.math += 1,
            b'?' => self.questions += 1,
            b'"' | b'\'' | b'`' => self.quotes += 1,
            0x80.. => self.other += 1,
            _ => {}
        }
        self.punctuation += u32::from(byte.is_ascii_punctuation());
    }

    fn dense(&self, shape: &Shape) -> [f32; DENSE] {
        let share = |part: u32| (log1p(part) - 0.25 * log1p(self.bytes)).max(0.0);
        let word_length = log1p(self.letters) - log1p(self.words);
        [
            log1p(self.bytes),
            log1p(self.words),
            word_length,
            log1p(self.lines),
            share(self.digits),
            share(self.capitals),
            share(self.punctuation),
            share(self.other),
            share(self.code),
            share(self.math),
            log1p(self.questions),
            share(self.quotes),
            log1p(self.options),
            log1p(shape.tools),
            log1p(shape.tool_bytes),
            log1p(shape.tool_results),
            log1p(shape.tool_errors),
            log1p(shape.user_turns.saturating_sub(1)),
            f32::from(u8::from(shape.schema)),
            f32::from(u8::from(shape.thinking)) + log1p(shape.images + shape.files),
        ]
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a logarithm of a count needs no 24th bit"
)]
fn log1p(count: u32) -> f32 {
    (count as f32).ln_1p()
}
