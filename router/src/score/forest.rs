//! The trees as they are asked: each level of all of them at once.

use super::{DEPTH, INPUTS, LEAVES, TREES, Tree};

/// A place for every number that a question can name.
const PLACES: usize = 1 << u8::BITS;
const _: () = assert!(INPUTS <= PLACES);

/// Trees with their questions turned around: level by level, so that all of a level are compared in
/// vectors.
pub(super) struct Forest {
    levels: [Level; DEPTH],
    leaves: Vec<[f32; LEAVES]>,
}

/// The questions of a level, by tree.
#[derive(Clone, Copy)]
struct Level {
    inputs: [u8; TREES],
    thresholds: [f32; TREES],
}

impl Forest {
    pub(super) fn of(trees: &[Tree]) -> Self {
        let level = Level {
            inputs: [0; TREES],
            thresholds: [0.0; TREES],
        };
        let mut forest = Self {
            levels: [level; DEPTH],
            leaves: trees.iter().map(|tree| tree.leaves).collect(),
        };
        for (number, tree) in trees.iter().enumerate() {
            for (level, (input, threshold)) in forest.levels.iter_mut().zip(tree.questions) {
                let places = level.inputs.get_mut(number);
                let thresholds = level.thresholds.get_mut(number);
                if let (Some(place), Some(slot)) = (places, thresholds) {
                    (*place, *slot) = (input, threshold);
                }
            }
        }
        forest
    }

    /// What all trees add to the score, to the bit what [`Tree::value`] gives for one after the other.
    pub(super) fn value(&self, inputs: &[f32; INPUTS]) -> f32 {
        let mut places = [0.0; PLACES];
        for (place, input) in places.iter_mut().zip(inputs) {
            *place = *input;
        }
        let mut found = [0_u32; TREES];
        let mut asked = [0.0; TREES];
        for (bit, level) in self.levels.iter().enumerate() {
            for (slot, input) in asked.iter_mut().zip(&level.inputs) {
                *slot = places.get(usize::from(*input)).copied().unwrap_or(0.0);
            }
            for ((leaf, x), threshold) in found.iter_mut().zip(&asked).zip(&level.thresholds) {
                *leaf |= u32::from(x > threshold) << bit;
            }
        }
        let leaves = found.iter().zip(&self.leaves);
        leaves
            .map(|(leaf, leaves)| {
                let leaf = *leaf as usize % LEAVES;
                leaves.get(leaf).copied().unwrap_or(0.0)
            })
            .sum()
    }
}
