//! A weights file: a header, then a row of eight bytes for each bucket of the hash.

use super::{HEADS, INPUTS, LAYERS};
use crate::features::{BUCKET_BITS, DENSE};

/// Buckets of the hash.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
/// Bytes of a bucket's row: a weight for each head, how rare the word is, two to spare.
pub const LANES: usize = 8;
/// Points of the score distribution kept with the weights: 0 %, 1 %, ..., 100 %.
pub const QUANTILES: usize = 101;
/// The first bytes of a weights file.
pub const MAGIC: &[u8; 8] = b"PARWGT02";
pub const TREES: usize = 192;
/// Questions of a tree, and its leaves.
pub const DEPTH: usize = 6;
pub const LEAVES: usize = 1 << DEPTH;

/// Everything in a weights file but the words' rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// A hash over training data, seed and settings.
    pub version: [u8; 8],
    /// Slope and offset that turn a raw score into a probability.
    pub slope: f32,
    pub offset: f32,
    /// What the head of all models adds to the trees.
    pub ease: f32,
    /// Quantiles of the probability over prompts not trained on.
    pub quantiles: [f32; QUANTILES],
    /// For each head: what a word's weight of 1 is worth, and what it says of an empty text.
    pub scale: [f32; HEADS],
    pub bias: [f32; HEADS],
    /// Mean and inverse deviation of each count, and its weight for each head.
    pub standard: [[f32; 2]; DENSE],
    pub counts: [[f32; HEADS]; DENSE],
    /// Mean and inverse deviation of each layer.
    pub layers: [[f32; 2]; LAYERS],
    pub trees: Vec<Tree>,
}

/// A tree that asks the same question on each level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tree {
    /// An input by number and a threshold; the leaf has bit `k` set where input `k` lies above.
    pub questions: [(u8, f32); DEPTH],
    pub leaves: [f32; LEAVES],
}

impl Default for Tree {
    fn default() -> Self {
        Self {
            questions: [(0, 0.0); DEPTH],
            leaves: [0.0; LEAVES],
        }
    }
}

impl Tree {
    /// What the tree adds to the score.
    pub fn value(&self, inputs: &[f32; INPUTS]) -> f32 {
        let mut leaf = 0;
        for (k, (input, threshold)) in self.questions.iter().enumerate() {
            let x = inputs.get(usize::from(*input)).copied().unwrap_or(0.0);
            leaf |= usize::from(x > *threshold) << k;
        }
        self.leaves.get(leaf).copied().unwrap_or(0.0)
    }
}

impl Default for Header {
    fn default() -> Self {
        Self {
            version: [0; 8],
            slope: 1.0,
            offset: 0.0,
            ease: 0.0,
            quantiles: [0.5; QUANTILES],
            scale: [0.0; HEADS],
            bias: [0.0; HEADS],
            standard: [[0.0; 2]; DENSE],
            counts: [[0.0; HEADS]; DENSE],
            layers: [[0.0; 2]; LAYERS],
            trees: vec![Tree::default(); TREES],
        }
    }
}

impl Header {
    /// Bytes of a header in its file.
    pub const BYTES: usize = 16
        + 4 * (3
            + QUANTILES
            + 2 * HEADS
            + (2 + HEADS) * DENSE
            + 2 * LAYERS
            + TREES * (2 * DEPTH + LEAVES));

    /// The header at the start of a file.
    pub fn read(file: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let rest = file.strip_prefix(MAGIC)?;
        header.version = rest.get(..8)?.try_into().ok()?;
        let mut floats = rest
            .get(8..)?
            .chunks_exact(4)
            .map(|bytes| bytes.try_into().map_or(0.0, f32::from_le_bytes));
        for slot in header.floats_mut() {
            *slot = floats.next()?;
        }
        for tree in &mut header.trees {
            for (input, threshold) in &mut tree.questions {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a small whole number, written as a float like all else"
                )]
                let number = floats.next()? as u8;
                (*input, *threshold) = (number, floats.next()?);
            }
            for leaf in &mut tree.leaves {
                *leaf = floats.next()?;
            }
        }
        Some(header)
    }

    fn floats_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        [&mut self.slope, &mut self.offset, &mut self.ease]
            .into_iter()
            .chain(&mut self.quantiles)
            .chain(&mut self.scale)
            .chain(&mut self.bias)
            .chain(self.standard.iter_mut().flatten())
            .chain(self.counts.iter_mut().flatten())
            .chain(self.layers.iter_mut().flatten())
    }

    /// The header as it stands in its file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.version);
        let mut copy = self.clone();
        for value in copy.floats_mut() {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        for tree in &self.trees {
            for (input, threshold) in tree.questions {
                bytes.extend_from_slice(&f32::from(input).to_le_bytes());
                bytes.extend_from_slice(&threshold.to_le_bytes());
            }
            for leaf in tree.leaves {
                bytes.extend_from_slice(&leaf.to_le_bytes());
            }
        }
        bytes
    }

    /// The probability that a raw score stands for.
    pub fn calibrated(&self, raw: f32) -> f32 {
        1.0 / (1.0 + (-(self.slope * raw + self.offset)).exp())
    }
}

/// The row of a bucket in a weights file.
#[inline]
pub(super) fn row(file: &'static [u8], bucket: u32) -> u64 {
    let (rows, _) = file.get(Header::BYTES..).unwrap_or_default().as_chunks();
    let row = rows.get(usize::try_from(bucket).unwrap_or(0));
    row.map_or(0, |row| u64::from_le_bytes(*row))
}
