//! What the classifier sees of a call: hashed words and word pairs of the last user text, and a
//! few counts. One pass over at most [`MOST_BYTES`], nothing allocated.

use wire::Shape;

/// Bytes of the text that are looked at; longer prompts say early on what they want.
pub const MOST_BYTES: usize = 4_096;
/// Buckets of the hash: 2^18 one-byte weights stay inside a core's cache.
pub const BUCKET_BITS: u32 = 18;
/// How many counts there are besides the words.
pub const DENSE: usize = 20;

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
    lines: u32,
    questions: u32,
    options: u32,
    /// Packed by [`WORDS`]: digits, capitals, letters, bytes of longer characters.
    inside: u64,
    /// Packed by [`MARKS`]: punctuation, code marks, math marks, quotes.
    between: u64,
}

impl Features<'_> {
    /// Calls `bucket` for each word and word pair of the text, with where it stands, and returns the
    /// counts. Letter case is folded and every digit is a nine: which number stands there must not
    /// matter.
    pub fn walk(&self, mut bucket: impl FnMut(u32)) -> [f32; DENSE] {
        let text = truncated(self.text).as_bytes();
        let mut counts = Counts {
            bytes: saturated(text.len()),
            ..Counts::default()
        };
        let (mut previous, mut at) = (SEED, 0);
        while let Some(byte) = text.get(at).copied() {
            let start = at;
            let token = if is_word(byte) {
                let line_start = start.checked_sub(1).and_then(|last| text.get(last));
                counts.options += u32::from(
                    byte.is_ascii_uppercase() && line_start.is_none_or(|last| *last == b'\n'),
                );
                counts.words += 1;
                word(text, &mut at, &mut counts.inside)
            } else {
                at += 1;
                counts.between += tally(&MARKS, byte);
                counts.lines += u32::from(byte == b'\n');
                counts.questions += u32::from(byte == b'?');
                if !byte.is_ascii_punctuation() {
                    continue;
                }
                mix(SEED, u64::from(byte))
            };
            bucket(index(token));
            if previous != SEED {
                bucket(index(previous.rotate_left(23).wrapping_mul(PRIME) ^ token));
            }
            previous = token;
        }
        counts.dense(self.shape)
    }
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x9fb2_1c65_1e98_df25;

fn mix(hash: u64, bytes: u64) -> u64 {
    (hash ^ bytes).wrapping_mul(PRIME).rotate_left(31)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Takes the word that begins at `at`: hashes it eight folded bytes at a time and tallies its bytes.
fn word(text: &[u8], at: &mut usize, inside: &mut u64) -> u64 {
    let (mut hash, mut held, mut shift) = (SEED, 0_u64, 0);
    while let Some(byte) = text.get(*at).copied().filter(|byte| is_word(*byte)) {
        let folded = if byte.is_ascii_digit() {
            b'9'
        } else {
            byte.to_ascii_lowercase()
        };
        held |= u64::from(folded) << shift;
        shift += 8;
        if shift == 64 {
            hash = mix(hash, held);
            (held, shift) = (0, 0);
        }
        *inside += tally(&WORDS, byte);
        *at += 1;
    }
    mix(hash, held)
}

/// What a byte adds to a packed sum of four counts of 16 bits; 4,096 bytes can not overflow one.
type Tallies = [u64; 256];

const WORDS: Tallies = tallies(
    &[b"0123456789", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", LETTERS, &[]],
    true,
);
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const MARKS: Tallies = tallies(&[PUNCTUATION, b"{};=_<>", b"\\^$+*/", b"\"'`"], false);
const PUNCTUATION: &[u8] = b"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated when compiled, where a miss is an error"
)]
const fn tallies(classes: &[&[u8]; 4], high_is_last: bool) -> Tallies {
    let mut table = [0; 256];
    let mut class = 0;
    while class < 4 {
        let mut at = 0;
        while at < classes[class].len() {
            table[classes[class][at] as usize] += 1 << (16 * class);
            at += 1;
        }
        class += 1;
    }
    let mut byte = 128;
    while high_is_last && byte < 256 {
        table[byte] += 1 << 48;
        byte += 1;
    }
    table
}

fn tally(table: &Tallies, byte: u8) -> u64 {
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

/// One count of a packed sum.
fn unpacked(packed: u64, class: u32) -> u32 {
    u32::try_from((packed >> (16 * class)) & 0xffff).unwrap_or(0)
}

fn saturated(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
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
    fn dense(&self, shape: &Shape) -> [f32; DENSE] {
        let share = |part: u32| (log1p(part) - 0.25 * log1p(self.bytes)).max(0.0);
        let [digits, capitals, letters, other] = [0, 1, 2, 3].map(|c| unpacked(self.inside, c));
        let [punctuation, code, math, quotes] = [0, 1, 2, 3].map(|c| unpacked(self.between, c));
        let word_length = log1p(letters) - log1p(self.words);
        [
            log1p(self.bytes),
            log1p(self.words),
            word_length,
            log1p(self.lines),
            share(digits),
            share(capitals),
            share(punctuation),
            share(other),
            share(code),
            share(math),
            log1p(self.questions),
            share(quotes),
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
