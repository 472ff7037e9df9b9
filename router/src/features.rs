//! What the classifier sees of a call: hashed words and word pairs of the last user text, and
//! counts of what stands in it. One pass over at most [`MOST_BYTES`], nothing allocated but once for each thread.

mod classes;
mod counts;

use std::cell::RefCell;

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
        let kinds = Kinds::of(text);
        let mut counts = Counts::default();
        SEEN.with_borrow_mut(|seen| {
            seen.clear();
            Self::words(text, &kinds, &mut counts, seen, &mut bucket);
        });
        counts.finish(text, self.shape)
    }

    fn words(
        text: &[u8],
        kinds: &Kinds,
        counts: &mut Counts,
        seen: &mut Seen,
        bucket: &mut impl FnMut(u32, Gram),
    ) {
        let (mut previous, mut at) = (SEED, 0);
        while let Some(byte) = text.get(at).copied() {
            if byte == b' ' {
                at += 1;
                continue;
            }
            let token = if let Some(word) = kinds.word_at(at) {
                counts.word(text, at, &word);
                at += word.length;
                counts.different += u32::from(seen.tell(index(word.hash), Gram::Word, bucket));
                word.hash
            } else {
                counts.mark(text, at, byte);
                at += 1;
                if !byte.is_ascii_punctuation() {
                    continue;
                }
                let mark = mix(SEED, u64::from(byte));
                seen.tell(index(mark), Gram::Word, bucket);
                mark
            };
            let pair = index(previous.rotate_left(23).wrapping_mul(PRIME) ^ token);
            seen.tell(pair, Gram::Pair, bucket);
            previous = token;
        }
    }
}

thread_local! {
    /// Where a thread notes the buckets of the text before it.
    static SEEN: RefCell<Seen> = RefCell::new(Seen {
        bits: vec![0; 1 << (BUCKET_BITS - 6)],
        touched: Vec::with_capacity(2 * MOST_BYTES),
    });
}

/// The buckets that a text has touched.
struct Seen {
    bits: Vec<u64>,
    /// Which of them are not nothing: few, of a set that would take longer to empty.
    touched: Vec<u32>,
}

impl Seen {
    fn clear(&mut self) {
        for block in self.touched.drain(..) {
            if let Some(bits) = self.bits.get_mut(block as usize) {
                *bits = 0;
            }
        }
    }

    /// Tells a bucket that was not touched before; whether it was told.
    fn tell(&mut self, bucket: u32, gram: Gram, told: &mut impl FnMut(u32, Gram)) -> bool {
        let Some(bits) = self.bits.get_mut((bucket >> 6) as usize) else {
            return false;
        };
        let bit = 1_u64 << (bucket & 63);
        let is_new = *bits & bit == 0;
        *bits |= bit;
        if is_new {
            self.touched.push(bucket >> 6);
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
    /// Not all of it are small letters.
    is_marked: bool,
    class: u8,
}

/// One bit for each byte of a text, and a word of none behind them.
type Mask = [u64; BLOCKS + 1];

const BLOCKS: usize = MOST_BYTES / 64;

/// Which bytes of a text are of words, and the text with letter case folded and nines for digits.
struct Kinds {
    folded: [u8; MOST_BYTES + 8],
    words: Mask,
    /// Bytes of words that are no small letters.
    marked: Mask,
}

/// The top bit of each of eight bytes.
const TOPS: u64 = 0x8080_8080_8080_8080;
const ONES: u64 = 0x0101_0101_0101_0101;

/// The top bits of those bytes of `x`, each below 128, that are at least `least`.
const fn at_least(x: u64, least: u8) -> u64 {
    (x + (0x80 - least as u64) * ONES) & TOPS
}

/// The top bits of eight bytes as eight bits, the first byte's lowest.
const fn gathered(tops: u64) -> u64 {
    ((tops & TOPS) >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

/// The top bits of those of eight bytes that are letters, small or not, digits, or beyond ASCII.
struct Tops {
    capital: u64,
    small: u64,
    digit: u64,
    high: u64,
}

impl Tops {
    #[inline]
    const fn of(chunk: u64) -> Self {
        let (high, low) = (chunk & TOPS, chunk & !TOPS);
        Self {
            capital: at_least(low, b'A') & !at_least(low, b'Z' + 1) & !high,
            small: at_least(low, b'a') & !at_least(low, b'z' + 1) & !high,
            digit: at_least(low, b'0') & !at_least(low, b'9' + 1) & !high,
            high,
        }
    }
}

/// The 64 bits of `mask` from `at` on, which lies inside the text.
#[inline]
fn window(mask: &Mask, at: usize) -> u64 {
    let (block, bit) = ((at / 64) % BLOCKS, at % 64);
    let low = mask.get(block).copied().unwrap_or(0);
    let high = mask.get(block + 1).copied().unwrap_or(0);
    (low >> bit) | ((high << 1) << (63 - bit))
}

impl Kinds {
    /// Looks at `text`, which has at most [`MOST_BYTES`], eight bytes at a time.
    fn of(text: &[u8]) -> Self {
        let mut kinds = Self {
            folded: [0; MOST_BYTES + 8],
            words: [0; BLOCKS + 1],
            marked: [0; BLOCKS + 1],
        };
        let folded = kinds.folded.chunks_exact_mut(64);
        let masks = kinds.words.iter_mut().zip(&mut kinds.marked);
        for ((bytes, (words, marked)), folded) in text.chunks(64).zip(masks).zip(folded) {
            let to = folded.chunks_exact_mut(8);
            for (place, (to, at)) in to.zip((0..bytes.len()).step_by(8)).enumerate() {
                let chunk = eight(bytes, at);
                let Tops {
                    capital,
                    small,
                    digit,
                    high,
                } = Tops::of(chunk);
                let nines = (digit >> 7) * 0xff;
                let fold = ((chunk | (capital >> 2)) & !nines) | (nines & (0x39 * ONES));
                to.copy_from_slice(&fold.to_le_bytes());
                let others = capital | digit | high;
                *words |= gathered(small | others) << (8 * place);
                *marked |= gathered(others) << (8 * place);
            }
        }
        kinds
    }

    /// The word that begins at `at`, where one does.
    #[inline]
    fn word_at(&self, at: usize) -> Option<Word> {
        let (mut length, mut is_marked) = (0, false);
        loop {
            let from = at + length;
            let run = (!window(&self.words, from)).trailing_zeros();
            let inside = u64::MAX.checked_shr(64 - run).unwrap_or(0);
            is_marked |= window(&self.marked, from) & inside != 0;
            length += run as usize;
            if run < 64 || from + 64 >= MOST_BYTES {
                break;
            }
        }
        if length == 0 {
            return None;
        }
        let mut hash = SEED;
        let (mut from, end) = (at, at + length);
        while end - from >= 8 {
            hash = mix(hash, eight(&self.folded, from));
            from += 8;
        }
        if from < end {
            let inside = u64::MAX >> (64 - 8 * (end - from));
            hash = mix(hash, eight(&self.folded, from) & inside);
        }
        Some(Word {
            hash,
            length,
            is_marked,
            class: class(hash),
        })
    }
}

/// What a word has that most have not.
#[derive(Default)]
struct Marks {
    digits: u32,
    capitals: u32,
    /// Bytes of longer characters.
    high: u32,
    /// The first byte is a capital.
    begins_capital: bool,
}

impl Marks {
    /// The marks of `word`.
    fn of(word: &[u8]) -> Self {
        let mut marks = Self {
            begins_capital: word.first().is_some_and(u8::is_ascii_uppercase),
            ..Self::default()
        };
        for at in (0..word.len()).step_by(8) {
            let tops = Tops::of(eight(word, at));
            marks.digits += tops.digit.count_ones();
            marks.capitals += tops.capital.count_ones();
            marks.high += tops.high.count_ones();
        }
        marks
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
