//! The classifier: linear heads on hashed words and counts, trees over what they say, one calibration.
//! Trained by `cargo run -p router --release -- train`; see `weights/README.md`.

mod layers;
mod weights;

use std::sync::LazyLock;

pub use layers::{LAYERS, Layers};
pub use weights::{BUCKETS, DEPTH, Header, LANES, LEAVES, MAGIC, QUANTILES, TREES, Tree};

use crate::features::{DENSE, Dense, Features, Gram};

/// Linear heads: how the fast and the deep model fare, as they are and less what is usual where the prompt
/// comes from, and how models fare in the mean.
pub const HEADS: usize = 5;
/// What the trees see: the counts, the heads and what follows from them, and how rare the words are.
pub const INPUTS: usize = DENSE + HEADS + 5;

static WEIGHTS: &[u8] = include_bytes!("../weights/router.bin");
static HEADER: LazyLock<Header> = LazyLock::new(|| Header::read(WEIGHTS).unwrap_or_default());

/// The probability that the call needs the deep tier, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Score(pub f32);

impl Score {
    /// The score in thousandths, as headers and the ledger carry it.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 1000"
    )]
    pub fn milli(self) -> u16 {
        (self.0.clamp(0.0, 1.0) * 1_000.0).round() as u16
    }
}

/// Scores a call. Costs one pass over the text; 2 KB of it take some microseconds.
pub fn score(features: &Features<'_>) -> Score {
    let header = &*HEADER;
    Score(header.calibrated(raw(header, &seen(header, features))))
}

/// What the last layer sees of a call: enough to learn from, little enough to keep with each decision.
pub fn layers(features: &Features<'_>) -> Layers {
    let header = &*HEADER;
    let inputs = seen(header, features);
    Layers::of(header, raw(header, &inputs), &inputs, features.shape)
}

/// The score above which `per_thousand` of the prompts kept apart in training lie.
pub fn quantile_above(per_thousand: u16) -> f32 {
    let percent = 100_usize.saturating_sub(usize::from(per_thousand).div_ceil(10));
    HEADER.quantiles.get(percent).copied().unwrap_or(0.5)
}

/// The probability that a score before calibration stands for.
pub fn calibrated(raw: f32) -> f32 {
    HEADER.calibrated(raw)
}

/// The version of the weights in force, 16 hex digits.
pub fn version() -> String {
    format!("{:016x}", u64::from_be_bytes(HEADER.version))
}

/// What the trees see of a call.
fn seen(header: &Header, features: &Features<'_>) -> [f32; INPUTS] {
    let mut rows = Rows::default();
    let dense = features.walk(|bucket, gram| rows.put(bucket, gram));
    rows.empty();
    let Rows {
        mut lanes, rare, ..
    } = rows;
    let sums = lanes.sums();
    let mut said = header.bias;
    #[expect(
        clippy::cast_precision_loss,
        reason = "at most 8,192 weights of one byte"
    )]
    let norm = 1.0 / (lanes.count.max(1) as f32).sqrt();
    for ((said, sum), scale) in said.iter_mut().zip(sums).zip(header.scale) {
        *said += scale * norm * sum;
    }
    for ((x, [mean, inverse]), weights) in dense.iter().zip(&header.standard).zip(&header.counts) {
        // Values far outside what was trained on count as the edge of it.
        let z = ((x - mean) * inverse).clamp(-3.0, 3.0);
        for (said, weight) in said.iter_mut().zip(weights) {
            *said += z * weight;
        }
    }
    inputs(&dense, &said, rare)
}

fn raw(header: &Header, inputs: &[f32; INPUTS]) -> f32 {
    let trees: f32 = header.trees.iter().map(|tree| tree.value(inputs)).sum();
    let all = inputs.get(DENSE + 4).copied().unwrap_or(0.0);
    trees + header.ease * all
}

/// The inputs of the trees.
pub fn inputs(dense: &Dense, said: &[f32; HEADS], rare: Rarity) -> [f32; INPUTS] {
    let [weak, strong, weak_here, strong_here, all_here] = *said;
    let after = [
        weak,
        strong,
        weak_here,
        strong_here,
        all_here,
        strong - weak,
        strong * (1.0 - weak),
        strong_here - weak_here,
        rare.mean(),
        rare.share(),
    ];
    let mut inputs = [0.0; INPUTS];
    for (slot, value) in inputs.iter_mut().zip(dense.iter().chain(&after)) {
        *slot = *value;
    }
    inputs
}

/// How rare the words of a text are, 255 the rarest.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rarity {
    sum: u32,
    words: u32,
    rare: u32,
}

impl Rarity {
    /// Above this a word stands in fewer than about sixty of the training prompts.
    const RARE: u8 = 160;

    /// Takes in one word.
    pub fn add(&mut self, rarity: u8) {
        self.sum += u32::from(rarity);
        self.words += 1;
        self.rare += u32::from(rarity > Self::RARE);
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 2,048 words")]
    fn mean(self) -> f32 {
        self.sum as f32 / self.words.max(1) as f32
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 2,048 words")]
    fn share(self) -> f32 {
        self.rare as f32 / self.words.max(1) as f32
    }
}

/// Rows that are still to be added: they lie all over the weights, and wait for each other less when
/// nothing else is done between them.
struct Rows {
    /// Twice a bucket's number, and one more for a word's.
    waiting: [u32; WAITING],
    filled: usize,
    lanes: Lanes,
    rare: Rarity,
}

const WAITING: usize = 256;

impl Default for Rows {
    fn default() -> Self {
        Self {
            waiting: [0; WAITING],
            filled: 0,
            lanes: Lanes::default(),
            rare: Rarity::default(),
        }
    }
}

impl Rows {
    #[inline]
    fn put(&mut self, bucket: u32, gram: Gram) {
        if let Some(slot) = self.waiting.get_mut(self.filled) {
            *slot = bucket << 1 | u32::from(gram == Gram::Word);
        }
        self.filled += 1;
        if self.filled == WAITING {
            self.empty();
        }
    }

    /// Adds what waits.
    fn empty(&mut self) {
        for waiting in self.waiting.get(..self.filled).unwrap_or_default() {
            let row = weights::row(WEIGHTS, waiting >> 1);
            self.lanes.add(row);
            if waiting & 1 == 1 {
                self.rare.add(row.to_le_bytes()[HEADS]);
            }
        }
        self.filled = 0;
    }
}

/// Sums over rows of eight bytes, each byte a weight above [`ZERO`]: four lanes of sixteen bits a word,
/// emptied before they can overflow.
#[derive(Default)]
struct Lanes {
    even: u64,
    odd: u64,
    sums: [u32; LANES],
    count: u32,
}

/// The byte that stands for a weight of nothing.
pub const ZERO: u8 = 128;

impl Lanes {
    /// Rows after which a lane of sixteen bits could overflow: 257 times 255.
    const FULL: u32 = 256;
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;

    fn add(&mut self, row: u64) {
        self.even += row & Self::EVEN;
        self.odd += (row >> 8) & Self::EVEN;
        self.count += 1;
        if self.count.is_multiple_of(Self::FULL) {
            self.empty();
        }
    }

    fn empty(&mut self) {
        for (lane, sum) in self.sums.iter_mut().enumerate() {
            let half = if lane % 2 == 0 { self.even } else { self.odd };
            *sum += u32::try_from((half >> (16 * (lane / 2))) & 0xffff).unwrap_or(0);
        }
        (self.even, self.odd) = (0, 0);
    }

    /// The sum of each head's weights.
    #[expect(
        clippy::cast_precision_loss,
        reason = "at most 8,192 weights of one byte"
    )]
    fn sums(&mut self) -> [f32; HEADS] {
        self.empty();
        let zero = (u32::from(ZERO) * self.count) as f32;
        let mut sums = [0.0; HEADS];
        for (sum, lane) in sums.iter_mut().zip(self.sums) {
            *sum = lane as f32 - zero;
        }
        sums
    }
}

#[cfg(test)]
mod tests;
