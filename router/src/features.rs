//! What the classifier sees of a call: hashed words and word pairs of the last user text, and
//! counts of what stands in it. One pass over at most [`MOST_BYTES`], nothing allocated.

mod classes;
mod counts;

use wire::Shape;

pub use counts::{DENSE, Dense};

use classes::class;
use counts::Counts;

/// Bytes of the text that are looked at. One prompt in fifty of those trained on is longer, and long ones
/// say early on what they want; what a score costs grows with this number.
pub const MOST_BYTES: usize = 2_048;
/// Buckets of the hash: 2^17 rows of eight bytes stay inside a core's cache.
pub const BUCKET_BITS: u32 = 17;

/// The inputs of a score.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    /// The last user text.
    pub text: &'a str,
    pub shape: &'a Shape,
}

/// What a bucket was found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gram {
    Word,
    Pair,
}

impl Features<'_> {
    /// Calls `bucket` once for each different word, mark and pair of neighbours in the text, and
    /// returns the counts. Letter case is folded and every digit is a nine: which number stands
    /// there must not matter, but how long it is may.
    pub fn walk(&self, mut bucket: impl FnMut(u32, Gram)) -> Dense {
        let text = truncated(self.text).as_bytes();
        let mut counts = Counts::default();
        let mut seen = Seen([0; SEEN]);
        let (mut previous, mut at) = (SEED, 0);
        while at < text.len() {
            let byte = text.get(at).copied().unwrap_or(0);
            if byte == b' ' {
                at += 1;
                continue;
            }
            let token = if byte >= 0x80 || byte.is_ascii_alphanumeric() {
                let word = Word::at(text, at);
                counts.word(text, at, &word);
                at += word.length;
                counts.different += u32::from(seen.tell(index(word.hash), Gram::Word, &mut bucket));
                word.hash
            } else {
                counts.mark(text, at, byte);
                at += 1;
                if !byte.is_ascii_punctuation() {
                    continue;
                }
                let mark = mix(SEED, u64::from(byte));
                seen.tell(index(mark), Gram::Word, &mut bucket);
                mark
            };
            let pair = index(previous.rotate_left(23).wrapping_mul(PRIME) ^ token);
            seen.tell(pair, Gram::Pair, &mut bucket);
            previous = token;
        }
        counts.finish(text, self.shape)
    }
}

/// The buckets that a text has touched.
struct Seen([u64; SEEN]);

const SEEN: usize = 1 << (BUCKET_BITS - 6);

impl Seen {
    /// Tells a bucket that was not touched before; whether it was told.
    fn tell(&mut self, bucket: u32, gram: Gram, told: &mut impl FnMut(u32, Gram)) -> bool {
        let Some(bits) = self.0.get_mut((bucket >> 6) as usize) else {
            return false;
        };
        let bit = 1_u64 << (bucket & 63);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        if is_new {
            told(bucket, gram);
        }
        is_new
    }
}

/// A run of letters, digits and bytes of longer characters.
struct Word {
    /// Over its folded bytes.
    hash: u64,
    length: usize,
    digits: u32,
    capitals: u32,
    /// Bytes of longer characters.
    high: u32,
    /// The first byte is a capital.
    begins_capital: bool,
    class: u8,
}

/// The top bit of each of eight bytes.
const TOPS: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;

/// The top bits of those bytes of `x`, each below 128, that are at least `least`.
const fn at_least(x: u64, least: u8) -> u64 {
    (x + (0x80 - least as u64) * ONES) & TOPS
}

impl Word {
    /// The word that begins at `at`, eight bytes at a time.
    #[inline]
    fn at(text: &[u8], at: usize) -> Self {
        let mut word = Self {
            hash: SEED,
            length: 0,
            digits: 0,
            capitals: 0,
            high: 0,
            begins_capital: false,
            class: 0,
        };
        loop {
            let chunk = eight(text, at + word.length);
            let high = chunk & TOPS;
            let low = chunk & !TOPS;
            let capital = at_least(low, b'A') & !at_least(low, b'Z' + 1) & !high;
            let small = at_least(low, b'a') & !at_least(low, b'z' + 1) & !high;
            let digit = at_least(low, b'0') & !at_least(low, b'9' + 1) & !high;
            let stops = !(capital | small | digit | high) & TOPS;
            let taken = stops.trailing_zeros() / 8;
            if taken == 0 {
                break;
            }
            let inside = u64::MAX >> (64 - 8 * taken);
            let nines = (digit >> 7) * 0xff;
            let folded = ((chunk | (capital >> 2)) & !nines) | (nines & (0x39 * ONES));
            if word.length == 0 {
                word.begins_capital = capital & 0x80 != 0;
            }
            word.hash = mix(word.hash, folded & inside);
            // Most words have none of them, and counting bits takes many instructions.
            if (digit | capital | high) & inside != 0 {
                word.digits += (digit & inside).count_ones();
                word.capitals += (capital & inside).count_ones();
                word.high += (high & inside).count_ones();
            }
            word.length += taken as usize;
            if taken < 8 {
                break;
            }
        }
        word.class = class(word.hash);
        word
    }

    fn is_number(&self) -> bool {
        self.length == self.digits as usize
    }
}

/// Eight bytes from `at` on, zeros behind the end.
fn eight(text: &[u8], at: usize) -> u64 {
    let rest = text.get(at..).unwrap_or_default();
    if let Some(chunk) = rest.first_chunk::<8>() {
        return u64::from_le_bytes(*chunk);
    }
    let mut chunk = [0; 8];
    for (to, from) in chunk.iter_mut().zip(rest) {
        *to = *from;
    }
    u64::from_le_bytes(chunk)
}

const SEED: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x9fb2_1c65_1e98_df25;

const fn mix(hash: u64, bytes: u64) -> u64 {
    (hash ^ bytes).wrapping_mul(PRIME).rotate_left(31)
}

/// The upper bits of a multiplicative hash are the well-mixed ones.
fn index(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - BUCKET_BITS)) as u32
}

/// The text up to [`MOST_BYTES`], on a character boundary.
fn truncated(text: &str) -> &str {
    let end = (0..=MOST_BYTES.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
