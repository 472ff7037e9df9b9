//! Boosted trees that ask the same question on each level: they are read without a branch, and a question
//! that must serve all leaves at once learns little noise.

use super::shuffle::Random;

/// Questions of a tree.
pub(crate) const DEPTH: usize = 6;
pub(crate) const LEAVES: usize = 1 << DEPTH;
/// Values that a column is cut at.
const BINS: usize = 64;

/// How trees are grown.
#[derive(Clone, Copy)]
pub(crate) struct Growth {
    pub(crate) trees: usize,
    pub(crate) rate: f32,
    /// Weight of rows that a leaf's value is shrunk by.
    pub(crate) shrink: f32,
    /// Share of rows and of columns that a tree sees.
    pub(crate) rows: f32,
    pub(crate) columns: f32,
}

/// Columns by number, a threshold each, and what the leaves add. A row's leaf has bit `k` set where its
/// column is above threshold `k`.
#[derive(Clone)]
pub(crate) struct Tree {
    pub(crate) questions: [(u16, f32); DEPTH],
    pub(crate) leaves: [f32; LEAVES],
}

impl Tree {
    pub(crate) fn value(&self, inputs: &[f32]) -> f32 {
        let mut leaf = 0;
        for (k, (column, threshold)) in self.questions.iter().enumerate() {
            leaf |= usize::from(inputs[usize::from(*column)] > *threshold) << k;
        }
        self.leaves[leaf]
    }
}

/// A table by columns, each cut into bins at the same thresholds.
pub(crate) struct Table {
    cuts: Vec<Vec<f32>>,
    bins: Vec<Vec<u8>>,
}

impl Table {
    pub(crate) fn of<const N: usize>(rows: &[[f32; N]]) -> Self {
        let (mut cuts, mut bins) = (Vec::new(), Vec::new());
        for column in 0..N {
            let mut sorted: Vec<f32> = rows.iter().map(|row| row[column]).collect();
            sorted.sort_by(f32::total_cmp);
            let at = |k: usize| sorted[(sorted.len() - 1) * k / BINS];
            let mut here: Vec<f32> = (1..BINS).map(at).collect();
            here.dedup();
            // Nothing lies above the largest value.
            here.retain(|cut| sorted.last().is_some_and(|last| cut < last));
            let bin = |row: &[f32; N]| here.partition_point(|cut| row[column] > *cut) as u8;
            bins.push(rows.iter().map(bin).collect());
            cuts.push(here);
        }
        Self { cuts, bins }
    }
}

/// Grows trees on `labels`; `table`, `labels` and `weights` run along the same rows.
pub(crate) fn grow(
    table: &Table,
    labels: &[f32],
    weights: &[f32],
    growth: Growth,
    random: &mut Random,
) -> Vec<Tree> {
    let mut left = labels.to_vec();
    let mut trees = Vec::with_capacity(growth.trees);
    for _ in 0..growth.trees {
        let sampled: Vec<u32> = (0..labels.len() as u32)
            .filter(|_| random.unit() < growth.rows)
            .collect();
        let columns: Vec<usize> = (0..table.cuts.len())
            .filter(|k| !table.cuts[*k].is_empty() && random.unit() < growth.columns)
            .collect();
        let mut leaf_of = vec![0_u8; labels.len()];
        let mut questions = [(0, f32::INFINITY); DEPTH];
        for (level, question) in questions.iter_mut().enumerate() {
            let best = columns
                .iter()
                .filter_map(|k| {
                    ask(
                        table,
                        *k,
                        level,
                        &sampled,
                        &leaf_of,
                        &left,
                        weights,
                        growth.shrink,
                    )
                })
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let Some((_, column, cut)) = best else { break };
            *question = (column as u16, table.cuts[column][cut]);
            for (leaf, bin) in leaf_of.iter_mut().zip(&table.bins[column]) {
                *leaf |= u8::from(usize::from(*bin) > cut) << level;
            }
        }
        let leaves = values(&sampled, &leaf_of, &left, weights, growth);
        for (left, leaf) in left.iter_mut().zip(&leaf_of) {
            *left -= leaves[usize::from(*leaf)];
        }
        trees.push(Tree { questions, leaves });
    }
    trees
}

/// The best cut of a column over all leaves of a level: its gain, the column, the cut.
#[expect(
    clippy::too_many_arguments,
    reason = "the inner loop of the training, over plain slices"
)]
fn ask(
    table: &Table,
    column: usize,
    level: usize,
    sampled: &[u32],
    leaf_of: &[u8],
    left: &[f32],
    weights: &[f32],
    shrink: f32,
) -> Option<(f32, usize, usize)> {
    let mut sums = [[(0.0_f32, 0.0_f32); BINS]; LEAVES / 2];
    let bins = &table.bins[column];
    for i in sampled {
        let i = *i as usize;
        let cell = &mut sums[usize::from(leaf_of[i])][usize::from(bins[i])];
        cell.0 += left[i] * weights[i];
        cell.1 += weights[i];
    }
    let mut gains = [0.0_f32; BINS];
    for leaf in sums.iter().take(1 << level) {
        let all = leaf
            .iter()
            .fold((0.0, 0.0), |sum, cell| (sum.0 + cell.0, sum.1 + cell.1));
        let worth = |(g, w): (f32, f32)| g * g / (w + shrink);
        let mut below = (0.0, 0.0);
        for (gain, cell) in gains.iter_mut().zip(leaf).take(table.cuts[column].len()) {
            below = (below.0 + cell.0, below.1 + cell.1);
            *gain += worth(below) + worth((all.0 - below.0, all.1 - below.1)) - worth(all);
        }
    }
    (0..table.cuts[column].len())
        .map(|cut| (gains[cut], column, cut))
        .max_by(|a, b| a.0.total_cmp(&b.0))
}

fn values(
    sampled: &[u32],
    leaf_of: &[u8],
    left: &[f32],
    weights: &[f32],
    growth: Growth,
) -> [f32; LEAVES] {
    let mut sums = [(0.0_f32, 0.0_f32); LEAVES];
    for i in sampled {
        let i = *i as usize;
        let cell = &mut sums[usize::from(leaf_of[i])];
        cell.0 += left[i] * weights[i];
        cell.1 += weights[i];
    }
    sums.map(|(g, w)| growth.rate * g / (w + growth.shrink))
}
