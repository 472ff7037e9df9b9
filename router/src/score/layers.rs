//! What the last layer sees of a call: the score, and parts of it and of the call that a tenant's
//! feedback may weigh otherwise.

use serde::{Deserialize, Serialize};
use wire::Shape;

use super::{HEADS, Header, INPUTS};
use crate::features::DENSE;

/// Parts beside the score.
pub const LAYERS: usize = 20;
/// A deviation is this many units of a part.
const UNIT: f32 = 32.0;

/// The score before calibration, and parts in units of 1/32 of a deviation.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Layers {
    pub raw: f32,
    pub parts: [i8; LAYERS],
}

/// The inputs that are parts: all that the heads say, and counts of each kind.
const CHOSEN: [usize; LAYERS - 4] = [
    DENSE,
    DENSE + 1,
    DENSE + 4,
    DENSE + HEADS + 2,
    DENSE + HEADS + 3,
    // Bytes, length of words, names, words a sentence.
    0,
    4,
    9,
    16,
    // Numbers by the word, the largest.
    18,
    24,
    // Equal signs, deepest nesting; lines, options, stem.
    37,
    54,
    55,
    62,
    69,
];

/// What the parts are, for people.
const NAMES: [&str; LAYERS] = [
    "how well fast models do on its words",
    "how well deep models do on its words",
    "how well all models do on its words",
    "what deep models gain on its words",
    "how rare its words are",
    "length",
    "length of words",
    "names",
    "words in a sentence",
    "numbers",
    "largest number",
    "equal signs",
    "deepest nesting",
    "lines",
    "options",
    "length of the question before its options",
    "tools offered",
    "after a tool's result",
    "failed tools",
    "schema or thinking asked for",
];

impl Layers {
    /// The parts that are furthest from what is usual, the furthest first: name, and deviations.
    pub fn standing_out(&self, most: usize) -> Vec<(&'static str, f32)> {
        let mut parts: Vec<_> = NAMES.into_iter().zip(self.deviations()).collect();
        parts.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        parts.truncate(most);
        parts
    }

    /// The parts of a call.
    pub(super) fn of(header: &Header, raw: f32, inputs: &[f32; INPUTS], shape: &Shape) -> Self {
        Self::new(raw, &Self::values(inputs, shape), &header.layers)
    }

    /// A score and its parts, by the mean and the inverse deviation of each.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "clamped to what fits a byte"
    )]
    pub fn new(raw: f32, values: &[f32; LAYERS], standard: &[[f32; 2]; LAYERS]) -> Self {
        let mut parts = [0; LAYERS];
        for ((part, x), [mean, inverse]) in parts.iter_mut().zip(values).zip(standard) {
            *part = ((x - mean) * inverse * UNIT).round().clamp(-127.0, 127.0) as i8;
        }
        Self { raw, parts }
    }

    /// The parts before they are standardised.
    pub fn values(inputs: &[f32; INPUTS], shape: &Shape) -> [f32; LAYERS] {
        let flag = |is: bool| f32::from(u8::from(is));
        let step = [
            flag(shape.tools > 0),
            flag(shape.after_tool),
            flag(shape.tool_errors > 0),
            flag(shape.schema || shape.thinking),
        ];
        let chosen = CHOSEN.map(|at| inputs.get(at).copied().unwrap_or(0.0));
        let mut values = [0.0; LAYERS];
        for (slot, x) in values.iter_mut().zip(chosen.iter().chain(&step)) {
            *slot = *x;
        }
        values
    }

    /// The parts in deviations.
    pub fn deviations(&self) -> [f32; LAYERS] {
        self.parts.map(|part| f32::from(part) / UNIT)
    }
}
