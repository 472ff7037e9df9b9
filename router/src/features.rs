//! What the classifier sees of a call: hashed words and word pairs of the last user text, and
//! counts of what stands in it. One pass over at most [`MOST_BYTES`], nothing allocated but once for each thread.

mod classes;
mod counts;
mod kinds;

use std::cell::RefCell;

use wire::Shape;

pub use counts::{DENSE, Dense};

use counts::Counts;
use kinds::Kinds;

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
        self.seen(|told, dense| {
            for told in told {
                bucket(told.bucket(), told.gram());
            }
            dense
        })
    }

    /// What [`walk`](Self::walk) calls for, all at once.
    pub(crate) fn seen<T>(&self, then: impl FnOnce(&[Told], Dense) -> T) -> T {
        let text = truncated(self.text).as_bytes();
        let kinds = Kinds::of(text);
        SEEN.with_borrow_mut(|seen| {
            let mut counts = Counts::of(&kinds);
            seen.clear();
            seen.words(text, &kinds, &mut counts);
            then(seen.told(), counts.finish(text, self.shape))
        })
    }
}

/// A bucket that a text has, and whether a word is in it: one bit below the bucket's number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told(u32);

impl Told {
    #[inline]
    pub(crate) const fn bucket(self) -> u32 {
        self.0 >> 1
    }

    /// 1 for a word or a mark, 0 for a pair.
    #[inline]
    pub(crate) const fn is_word(self) -> u32 {
        self.0 & 1
    }

    const fn gram(self) -> Gram {
        if self.is_word() == 1 {
            Gram::Word
        } else {
            Gram::Pair
        }
    }
}

thread_local! {
    /// Where a thread notes the buckets of the text before it.
    static SEEN: RefCell<Box<Seen>> = RefCell::new(Box::new(Seen {
        bits: [0; 1 << (BUCKET_BITS - 6)],
        told: [Told(0); MOST_TOLD],
        count: 0,
    }));
}

/// Each byte of a text can be a mark, which is told itself and with the one before it.
const MOST_TOLD: usize = 2 * MOST_BYTES;

/// The buckets that a text has touched.
struct Seen {
    bits: [u64; 1 << (BUCKET_BITS - 6)],
    /// The first `count` of them, each once, are of this text.
    told: [Told; MOST_TOLD],
    count: usize,
}

impl Seen {
    fn told(&self) -> &[Told] {
        self.told.get(..self.count).unwrap_or_default()
    }

    fn clear(&mut self) {
        // Few, of a set that would take longer to empty.
        for told in self.told.get(..self.count).unwrap_or_default() {
            if let Some(bits) = self.bits.get_mut((told.bucket() >> 6) as usize) {
                *bits = 0;
            }
        }
        self.count = 0;
    }

    /// Tells what `kinds` has of `text`, and counts it.
    fn words(&mut self, text: &[u8], kinds: &Kinds, counts: &mut Counts) {
        let (mut previous, mut runs_on) = (SEED, 0);
        let mut teller = Teller {
            bits: &mut self.bits,
            told: &mut self.told,
            count: 0,
        };
        for (number, block) in kinds.blocks.iter().enumerate() {
            let starts = block.words & !(block.words << 1 | runs_on);
            runs_on = block.words >> 63;
            counts.words += starts.count_ones();
            let mut tokens = starts | block.marks;
            while tokens != 0 {
                let bit = tokens.trailing_zeros();
                tokens &= tokens - 1;
                let at = number * 64 + bit as usize;
                let token = if (block.words >> bit) & 1 == 1 {
                    let word = kinds.word(number, bit);
                    counts.word(text, at, &word);
                    let is_new = teller.tell(index(word.hash), Gram::Word);
                    counts.different = counts.different.wrapping_add(is_new);
                    word.hash
                } else {
                    let byte = kinds.folded(at);
                    counts.mark(text, at, byte);
                    if !byte.is_ascii_punctuation() {
                        continue;
                    }
                    let mark = mix(SEED, u64::from(byte));
                    teller.tell(index(mark), Gram::Word);
                    mark
                };
                let pair = index(previous.rotate_left(23).wrapping_mul(PRIME) ^ token);
                teller.tell(pair, Gram::Pair);
                previous = token;
            }
        }
        self.count = teller.count;
    }
}

/// Who notes the buckets of a text. Nothing in it can overflow, and it is asked twice for each word.
struct Teller<'a> {
    bits: &'a mut [u64; 1 << (BUCKET_BITS - 6)],
    told: &'a mut [Told; MOST_TOLD],
    count: usize,
}

impl Teller<'_> {
    /// Tells a bucket that was not touched before: 1 where it was told. Without a branch, which would be
    /// guessed wrong as often as words come again.
    #[inline]
    fn tell(&mut self, bucket: u32, gram: Gram) -> u32 {
        let Some(bits) = self.bits.get_mut((bucket >> 6) as usize) else {
            return 0;
        };
        let bit = 1_u64.wrapping_shl(bucket);
        let is_new = u32::from(*bits & bit == 0);
        *bits |= bit;
        if let Some(slot) = self.told.get_mut(self.count % MOST_TOLD) {
            *slot = Told(bucket << 1 | u32::from(gram == Gram::Word));
        }
        self.count = self.count.wrapping_add(is_new as usize);
        is_new
    }
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
