//! The classifier: one-byte weights for hashed words, a weight for each count, one calibration.
//! Trained by `cargo run -p router --release -- train`; see `weights/README.md`.

use std::sync::LazyLock;

use crate::features::{BUCKET_BITS, DENSE, Features};

/// Buckets of the hash.
pub const BUCKETS: usize = 1 << BUCKET_BITS;
/// Points of the score distribution kept with the weights: 0 %, 1 %, ..., 100 %.
pub const QUANTILES: usize = 101;
/// The first bytes of a weights file.
pub const MAGIC: &[u8; 8] = b"PARWGT01";

static WEIGHTS: &[u8] = include_bytes!("../weights/router.bin");
static HEADER: LazyLock<Header> = LazyLock::new(|| Header::read(WEIGHTS).unwrap_or_default());

/// Everything in a weights file but the words' weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// A hash over training data, seed and settings.
    pub version: [u8; 8],
    /// What a word's weight of 1 is worth.
    pub scale: f32,
    /// Slope and offset that turn a raw score into a probability.
    pub slope: f32,
    pub offset: f32,
    /// Mean, inverse deviation and weight of each count.
    pub dense: [[f32; 3]; DENSE],
    /// Quantiles of the probability over prompts not trained on.
    pub quantiles: [f32; QUANTILES],
}

impl Default for Header {
    fn default() -> Self {
        Self {
            version: [0; 8],
            scale: 0.0,
            slope: 1.0,
            offset: 0.0,
            dense: [[0.0; 3]; DENSE],
            quantiles: [0.5; QUANTILES],
        }
    }
}

impl Header {
    /// Bytes of a header in its file.
    pub const BYTES: usize = 16 + 4 * (3 + 3 * DENSE + QUANTILES);

    fn read(file: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let rest = file.strip_prefix(MAGIC)?;
        header.version = rest.get(..8)?.try_into().ok()?;
        let mut floats = rest
            .get(8..)?
            .chunks_exact(4)
            .map(|bytes| bytes.try_into().map_or(0.0, f32::from_le_bytes));
        header.scale = floats.next()?;
        header.slope = floats.next()?;
        header.offset = floats.next()?;
        for value in header
            .dense
            .iter_mut()
            .flatten()
            .chain(&mut header.quantiles)
        {
            *value = floats.next()?;
        }
        Some(header)
    }

    /// The header as it stands in its file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.version);
        let head = [self.scale, self.slope, self.offset];
        for value in head
            .iter()
            .chain(self.dense.iter().flatten())
            .chain(&self.quantiles)
        {
            bytes.extend_from_slice(&value.to_le_bytes());
        }
        bytes
    }
}

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

/// Scores a call. Costs one pass over the text; 4 KB take some microseconds.
pub fn score(features: &Features<'_>) -> Score {
    let words = WEIGHTS.get(Header::BYTES..).unwrap_or_default();
    let header = &*HEADER;
    let (mut sum, mut count) = (0_i32, 0_u32);
    let dense = features.walk(|bucket| {
        sum += i32::from(weight(words, bucket));
        count += 1;
    });
    #[expect(
        clippy::cast_precision_loss,
        reason = "at most 8,192 weights of one byte"
    )]
    let text = header.scale * sum as f32 / (count.max(1) as f32).sqrt();
    Score(calibrated(header, text + dense_sum(header, &dense)))
}

fn weight(words: &[u8], bucket: u32) -> i8 {
    let place = usize::try_from(bucket).unwrap_or(usize::MAX);
    words
        .get(place)
        .map_or(0, |byte| i8::from_le_bytes([*byte]))
}

fn dense_sum(header: &Header, dense: &[f32; DENSE]) -> f32 {
    header
        .dense
        .iter()
        .zip(dense)
        .map(|([mean, inverse, weight], x)| {
            // Values far outside what was trained on count as the edge of it.
            ((x - mean) * inverse).clamp(-3.0, 3.0) * weight
        })
        .sum()
}

fn calibrated(header: &Header, raw: f32) -> f32 {
    1.0 / (1.0 + (-(header.slope * raw + header.offset)).exp())
}

/// The score above which `per_thousand` of the prompts kept apart in training lie.
pub fn quantile_above(per_thousand: u16) -> f32 {
    let percent = 100_usize.saturating_sub(usize::from(per_thousand).div_ceil(10));
    HEADER.quantiles.get(percent).copied().unwrap_or(0.5)
}

/// The version of the weights in force, 16 hex digits.
pub fn version() -> String {
    format!("{:016x}", u64::from_be_bytes(HEADER.version))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wire::Shape;

    use super::*;

    fn scored(text: &str) -> f32 {
        score(&Features {
            text,
            shape: &Shape::default(),
        })
        .0
    }

    #[test]
    fn the_committed_weights_are_whole() {
        assert_eq!(WEIGHTS.len(), Header::BYTES + BUCKETS);
        let header = Header::read(WEIGHTS).expect("a header");
        assert_eq!(header.bytes(), WEIGHTS[..Header::BYTES]);
        assert!(header.quantiles.is_sorted());
    }

    #[test]
    fn hard_questions_score_above_easy_ones() {
        let easy = scored("What is the capital of France?");
        let hard = scored(
            "Let $G$ be a group of order 56. Prove that $G$ has a normal Sylow subgroup, and find \
             the number of homomorphisms from $G$ to the symmetric group $S_3$.",
        );
        assert!(hard > easy, "{hard} against {easy}");
    }

    proptest! {
        #[test]
        fn any_text_has_a_score(text in ".{0,6000}") {
            let all = scored(&text);
            prop_assert!((0.0..=1.0).contains(&all));
            let cut = (0..=text.len().min(4_096)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            let (head, _) = text.split_at(cut);
            prop_assert_eq!(all.to_bits(), scored(head).to_bits(), "nothing beyond 4,096 bytes counts");
        }
    }
}
