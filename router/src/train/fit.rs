//! The classifier, fitted: linear heads on words and counts, then trees on the counts and on what the heads
//! say of prompts they were not fitted on.

use std::sync::Mutex;

use router::features::DENSE;
use router::score::{HEADS, INPUTS, Rarity, TREES, inputs};

use super::boost::{self, Growth, Table, Tree};
use super::data::Row;
use super::labels::{Labels, labels};
use super::ridge::{self, Ridge, Standard};
use super::shuffle::Random;

/// Parts of the rows, each of which the heads are shown to the trees from outside.
const PARTS: u64 = 4;
/// The share of rows that a forest sees as prompts of a domain the heads were not fitted on: so it learns how
/// far to trust them where the kind of prompt, and with it the words, are new. See `weights/README.md`.
const FOREIGN: f32 = 0.3;
/// Forests that are averaged.
const BAGS: usize = 3;
const GROWTH: Growth = Growth {
    trees: TREES / BAGS,
    rate: 0.1,
    shrink: 20.0,
    rows: 0.7,
    columns: 0.4,
};
/// What plain difficulty, as the head for all models sees it, is worth beside the trees, in deviations of
/// theirs. Trees know the sources they were grown on; that hard prompts gain by the deep model holds in most
/// others too. In-domain figures do not change up to about a third, those of sources left out rise.
const DIFFICULTY: f32 = 0.35;
/// Where the head of all models stands among the inputs.
const ALL: usize = DENSE + 4;

/// A fitted classifier, in floats.
pub(crate) struct Model {
    pub(crate) standard: Standard,
    pub(crate) heads: Ridge,
    /// How rare each word is, by its bucket.
    pub(crate) rarity: Vec<u8>,
    pub(crate) trees: Vec<Tree>,
    /// What the head of all models adds to the trees.
    pub(crate) ease: f32,
}

/// Fits on the rows at the places `inside`.
pub(crate) fn fit(rows: &[Row], inside: &[usize], seed: u64) -> Model {
    let labels = labels(rows, inside);
    let standard = Standard::of(rows, inside);
    let rarity = rarity_of(rows, inside, inside.len());
    let pick = |places: &[usize]| -> Ridge {
        let members: Vec<usize> = places.iter().map(|k| inside[*k]).collect();
        let outcomes: Vec<_> = places.iter().map(|k| labels.outcomes[*k]).collect();
        let weights: Vec<f32> = places.iter().map(|k| labels.weights[*k]).collect();
        ridge::fit(rows, &standard, &members, &outcomes, &weights)
    };
    let everything: Vec<usize> = (0..inside.len()).collect();
    // Heads and words of the other parts, told of the rows of a part.
    let seen_from = |part_of: &dyn Fn(&Row) -> u64| {
        let mut seen = vec![[0.0_f32; INPUTS]; inside.len()];
        for part in 0..PARTS {
            let (out, learn): (Vec<usize>, Vec<usize>) = everything
                .iter()
                .partition(|k| part_of(&rows[inside[**k]]) == part);
            let heads = pick(&learn);
            let there: Vec<usize> = learn.iter().map(|k| inside[*k]).collect();
            let rare = rarity_of(rows, &there, inside.len());
            for k in out {
                seen[k] = inputs_of(&rows[inside[k]], &standard, &heads, &rare);
            }
        }
        seen
    };
    let seen = seen_from(&|row| row.fold(PARTS, 1_000 + seed));
    let foreign = seen_from(&|row| row.part_of_domain(PARTS));
    let trees = trees(&seen, &foreign, &labels, seed);
    let said: Vec<f32> = seen.iter().map(|inputs| forest(&trees, inputs)).collect();
    let all: Vec<f32> = seen.iter().map(|inputs| inputs[ALL]).collect();
    Model {
        heads: pick(&everything),
        standard,
        rarity,
        trees,
        ease: -DIFFICULTY * deviation(&said) / deviation(&all).max(1e-6),
    }
}

impl Model {
    /// The score before calibration.
    pub(crate) fn raw(&self, row: &Row) -> f32 {
        let inputs = self.inputs(row);
        forest(&self.trees, &inputs) + self.ease * inputs[ALL]
    }

    /// What the trees see of a row.
    pub(crate) fn inputs(&self, row: &Row) -> [f32; INPUTS] {
        inputs_of(row, &self.standard, &self.heads, &self.rarity)
    }
}

/// The forests, each of its own draw of the rows seen from outside of their domain.
fn trees(
    seen: &[[f32; INPUTS]],
    foreign: &[[f32; INPUTS]],
    labels: &Labels,
    seed: u64,
) -> Vec<Tree> {
    let mut trees = Vec::new();
    for bag in 0..BAGS {
        let mut random = Random::new(seed * 31 + bag as u64);
        let mixed: Vec<[f32; INPUTS]> = seen
            .iter()
            .zip(foreign)
            .map(|(seen, foreign)| {
                if random.unit() < FOREIGN {
                    *foreign
                } else {
                    *seen
                }
            })
            .collect();
        let table = Table::of(&mixed);
        let grown = boost::grow(&table, &labels.gain, &labels.weights, GROWTH, &mut random);
        trees.extend(grown.into_iter().map(|mut tree| {
            tree.leaves = tree.leaves.map(|leaf| leaf / BAGS as f32);
            tree
        }));
    }
    trees
}

fn forest(trees: &[Tree], inputs: &[f32]) -> f32 {
    trees.iter().map(|tree| tree.value(inputs)).sum()
}

fn deviation(values: &[f32]) -> f32 {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let squares: f64 = values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
    (squares / n).sqrt() as f32
}

/// What the trees see of a row.
fn inputs_of(row: &Row, standard: &Standard, heads: &Ridge, rarity: &[u8]) -> [f32; INPUTS] {
    let mut said = heads.bias;
    let norm = ridge::norm(row);
    let mut rare = Rarity::default();
    for (bucket, is_word) in &row.buckets {
        for (said, weight) in said.iter_mut().zip(&heads.words[*bucket as usize]) {
            *said += weight * norm;
        }
        rare.add(rarity[*bucket as usize], u32::from(*is_word));
    }
    for (z, weights) in standard.apply(&row.dense).iter().zip(&heads.counts) {
        for (said, weight) in said.iter_mut().zip(weights) {
            *said += z * weight;
        }
    }
    let said: [f32; HEADS] = said;
    inputs(&row.dense, &said, rare)
}

/// Sixteen times the logarithm of how many rows a bucket occurs in, upside down: 255 is never.
fn rarity_of(rows: &[Row], inside: &[usize], all: usize) -> Vec<u8> {
    let mut found = vec![0_u32; router::score::BUCKETS];
    for i in inside {
        for (bucket, _) in &rows[*i].buckets {
            found[*bucket as usize] += 1;
        }
    }
    // As many as there would be among all the rows.
    let more = all as f32 / inside.len().max(1) as f32;
    found
        .iter()
        .map(|rows| (255.0 - 16.0 * (*rows as f32 * more + 1.0).log2()).max(0.0) as u8)
        .collect()
}

/// Runs `job` for each number below `n`, on both cores, and returns what they made in order.
pub(crate) fn each<T: Send>(n: usize, job: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = Mutex::new(0_usize);
    let made: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::new());
    let take = || {
        let mut next = next.lock().ok()?;
        *next += 1;
        (*next <= n).then(|| *next - 1)
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(k) = take() {
                    let item = job(k);
                    if let Ok(mut made) = made.lock() {
                        made.push((k, item));
                    }
                }
            });
        }
    });
    let mut made = made.into_inner().unwrap_or_default();
    made.sort_by_key(|(k, _)| *k);
    made.into_iter().map(|(_, item)| item).collect()
}
