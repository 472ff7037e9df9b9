//! The classifier: linear heads on hashed words and counts, trees over what they say, one calibration.
//! Trained by `cargo run -p router --release -- train`; see `weights/README.md`.

mod forest;
mod layers;
mod weights;

use std::sync::LazyLock;

pub use layers::{LAYERS, Layers};
pub use weights::{BUCKETS, DEPTH, Header, LANES, LEAVES, MAGIC, QUANTILES, TREES, Tree};

use forest::Forest;

use crate::features::{DENSE, Dense, Features, Told};

/// Linear heads: how the fast and the deep model fare, as they are and less what is usual where the prompt
/// comes from, and how models fare in the mean.
pub const HEADS: usize = 5;
/// What the trees see: the counts, the heads and what follows from them, and how rare the words are.
pub const INPUTS: usize = DENSE + HEADS + 5;

static WEIGHTS: &[u8] = include_bytes!("../weights/router.bin");
static HEADER: LazyLock<Header> = LazyLock::new(|| Header::read(WEIGHTS).unwrap_or_default());
static FOREST: LazyLock<Forest> = LazyLock::new(|| Forest::of(&HEADER.trees));

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
    features.seen(|told, dense| {
        let mut lanes = Lanes::default();
        let mut rare = Rarity::default();
        for told in told.chunks(Lanes::FULL) {
            let row = |told: &Told| (weights::row(WEIGHTS, told.bucket()), told.is_word());
            lanes.add(told.iter().map(row), &mut rare);
        }
        let said = said(header, &lanes, &dense);
        inputs(&dense, &said, rare)
    })
}

/// What the heads say of rows and counts.
fn said(header: &Header, lanes: &Lanes, dense: &Dense) -> [f32; HEADS] {
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
    said
}

fn raw(header: &Header, inputs: &[f32; INPUTS]) -> f32 {
    let trees = FOREST.value(inputs);
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

    /// Takes in one word; `words` of 0 takes in nothing.
    #[inline]
    pub fn add(&mut self, rarity: u8, words: u32) {
        self.sum += u32::from(rarity) * words;
        self.words += words;
        self.rare += u32::from(rarity > Self::RARE) & words;
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

/// Sums over rows of eight bytes, each byte a weight above [`ZERO`].
#[derive(Default)]
struct Lanes {
    sums: [u32; LANES],
    count: u32,
}

/// The byte that stands for a weight of nothing.
pub const ZERO: u8 = 128;

impl Lanes {
    /// Rows that a lane of sixteen bits takes without overflow, which are up to 257 times 255.
    const FULL: usize = 256;
    const EVEN: u64 = 0x00ff_00ff_00ff_00ff;

    /// Adds at most [`FULL`](Self::FULL) rows, each with 1 where it is a word's: four lanes of sixteen bits a
    /// register. They lie all over the weights, and wait for each other less when nothing else is done
    /// between them.
    fn add(&mut self, rows: impl ExactSizeIterator<Item = (u64, u32)>, rare: &mut Rarity) {
        let (mut even, mut odd) = (0, 0);
        self.count += u32::try_from(rows.len()).unwrap_or(0);
        for (row, words) in rows {
            even += row & Self::EVEN;
            odd += (row >> 8) & Self::EVEN;
            rare.add(row.to_le_bytes()[HEADS], words);
        }
        for (lane, sum) in self.sums.iter_mut().enumerate() {
            let half = if lane % 2 == 0 { even } else { odd };
            *sum += u32::try_from((half >> (16 * (lane / 2))) & 0xffff).unwrap_or(0);
        }
    }

    /// The sum of each head's weights.
    #[expect(
        clippy::cast_precision_loss,
        reason = "at most 8,192 weights of one byte"
    )]
    fn sums(&self) -> [f32; HEADS] {
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
