//! Which bytes of a text are of words, looked at by vectors of sixteen.

use wide::u8x16;

use super::{MOST_BYTES, SEED, mix};

/// Runs of 64 bytes that a text has at most.
const BLOCKS: usize = MOST_BYTES / 64;

/// One bit for each of 64 bytes, the first byte's lowest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Block {
    /// Letters, digits and bytes of longer characters.
    pub(super) words: u64,
    pub(super) digits: u64,
    pub(super) capitals: u64,
    /// Bytes of words that are no small letters.
    marked: u64,
    /// What is neither of words nor a space.
    pub(super) marks: u64,
}

/// A text, looked at.
pub(super) struct Kinds {
    /// With letter case folded, nines for digits, and zeros behind it.
    folded: [u8; MOST_BYTES + 8],
    /// One more than the text can have, without words.
    pub(super) blocks: [Block; BLOCKS + 1],
    /// Bytes of words.
    pub(super) bytes: u32,
    pub(super) digits: u32,
    pub(super) capitals: u32,
    /// Bytes of longer characters.
    pub(super) high: u32,
}

/// A run of letters, digits and bytes of longer characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word {
    /// Over its folded bytes.
    pub(super) hash: u64,
    /// Bytes.
    pub(super) length: u32,
    /// Not all of it are small letters.
    pub(super) is_marked: bool,
    /// All of it are digits.
    pub(super) is_number: bool,
    pub(super) begins_capital: bool,
}

/// What sixteen bytes are, a bit for each.
struct Sixteen {
    folded: [u8; 16],
    letters: u64,
    capitals: u64,
    digits: u64,
    high: u64,
    spaces: u64,
}

impl Sixteen {
    #[inline]
    fn of(bytes: [u8; 16]) -> Self {
        let bytes = u8x16::from(bytes);
        let case = u8x16::splat(b'a' - b'A');
        let zero = u8x16::splat(0);
        // Below a bound, unsigned: what stands behind it wraps around and lies above.
        let within = |x: u8x16, most: u8| x.min(u8x16::splat(most)).simd_eq(x);
        let letter = within((bytes | case) - u8x16::splat(b'a'), b'z' - b'a');
        let capital = letter & (bytes & case).simd_eq(zero);
        let digit = within(bytes - u8x16::splat(b'0'), 9);
        let folded = digit.bitselect(u8x16::splat(b'9'), bytes | (capital & case));
        Self {
            folded: folded.into(),
            letters: letter.to_bitmask().into(),
            capitals: capital.to_bitmask().into(),
            digits: digit.to_bitmask().into(),
            high: bytes.to_bitmask().into(),
            spaces: bytes.simd_eq(u8x16::splat(b' ')).to_bitmask().into(),
        }
    }
}

impl Kinds {
    /// Looks at `text`, which has at most [`MOST_BYTES`].
    pub(super) fn of(text: &[u8]) -> Self {
        let mut kinds = Self {
            folded: [0; MOST_BYTES + 8],
            blocks: [Block::default(); BLOCKS + 1],
            bytes: 0,
            digits: 0,
            capitals: 0,
            high: 0,
        };
        let (whole, rest) = text.as_chunks::<64>();
        let (folded, _) = kinds.folded.as_chunks_mut::<64>();
        let mut places = folded.iter_mut().zip(&mut kinds.blocks);
        let mut count = |bytes: &[u8; 64], inside: u64| {
            if let Some((folded, block)) = places.next() {
                let high = block.look(bytes, folded, inside);
                kinds.bytes += block.words.count_ones();
                kinds.digits += block.digits.count_ones();
                kinds.capitals += block.capitals.count_ones();
                kinds.high += high.count_ones();
            }
        };
        for bytes in whole {
            count(bytes, u64::MAX);
        }
        if !rest.is_empty() {
            let mut bytes = [0; 64];
            for (to, from) in bytes.iter_mut().zip(rest) {
                *to = *from;
            }
            count(&bytes, u64::MAX >> (64 - rest.len()));
        }
        kinds
    }

    /// Where the first word begins.
    pub(super) fn first_word(&self) -> usize {
        let blocks = self.blocks.iter().enumerate();
        let mut words = blocks.filter(|(_, block)| block.words != 0);
        words.next().map_or(usize::MAX, |(number, block)| {
            number * 64 + block.words.trailing_zeros() as usize
        })
    }

    /// The word that begins at bit `bit` of block `number`.
    #[inline]
    pub(super) fn word(&self, number: usize, bit: u32) -> Word {
        let block = self.block(number);
        let run = (!(block.words >> bit)).trailing_zeros();
        let span = ones(run) << bit;
        let mut word = Word {
            hash: SEED,
            length: run,
            is_marked: block.marked & span != 0,
            is_number: block.digits & span == span,
            begins_capital: (block.capitals >> bit) & 1 == 1,
        };
        if bit.wrapping_add(run) == 64 {
            word = self.beyond(word, number + 1);
        }
        let mut at = number * 64 + bit as usize;
        let mut left = word.length;
        while left > 8 {
            word.hash = mix(word.hash, self.eight(at));
            (at, left) = (at + 8, left - 8);
        }
        word.hash = mix(word.hash, self.eight(at) & ones(8 * left));
        word
    }

    /// A word that may go on in block `number`.
    #[cold]
    fn beyond(&self, mut word: Word, number: usize) -> Word {
        for number in number..=BLOCKS {
            let block = self.block(number);
            let run = block.words.trailing_ones();
            let span = ones(run);
            word.length += run;
            word.is_marked |= block.marked & span != 0;
            word.is_number &= block.digits & span == span;
            if run < 64 {
                break;
            }
        }
        word
    }

    #[inline]
    fn block(&self, number: usize) -> Block {
        self.blocks.get(number).copied().unwrap_or_default()
    }

    /// Eight folded bytes from `at` on.
    #[inline]
    fn eight(&self, at: usize) -> u64 {
        // A place in the text, whatever the compiler knows of it.
        let rest = self.folded.get(at % MOST_BYTES..).unwrap_or_default();
        rest.first_chunk().map_or(0, |it| u64::from_le_bytes(*it))
    }

    /// The folded byte at `at`; zero behind the text.
    #[inline]
    pub(super) fn folded(&self, at: usize) -> u8 {
        self.folded.get(at).copied().unwrap_or(0)
    }
}

/// As many bits, at most 64.
#[inline]
const fn ones(count: u32) -> u64 {
    u64::MAX.unbounded_shr(64_u32.wrapping_sub(count))
}

impl Block {
    /// Looks at those of `bytes` that are `inside` the text; which of them are of longer characters.
    #[inline]
    fn look(&mut self, bytes: &[u8; 64], folded: &mut [u8; 64], inside: u64) -> u64 {
        let (mut letters, mut spaces, mut high) = (0, 0, 0);
        let (from, to) = (bytes.as_chunks::<16>().0, folded.as_chunks_mut::<16>().0);
        for (place, (from, to)) in from.iter().zip(to).enumerate() {
            let at = 16 * place;
            let found = Sixteen::of(*from);
            *to = found.folded;
            letters |= found.letters << at;
            spaces |= found.spaces << at;
            high |= found.high << at;
            self.digits |= found.digits << at;
            self.capitals |= found.capitals << at;
        }
        self.words = letters | self.digits | high;
        self.marked = self.capitals | self.digits | high;
        self.marks = inside & !self.words & !spaces;
        high
    }
}
