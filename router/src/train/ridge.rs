//! Least squares with shrinkage on hashed words and counts, for several labels at once, by conjugate
//! gradients. One thread and a fixed order of sums: the same data give the same bytes.

use router::features::{BUCKET_BITS, DENSE};

use super::data::Row;

/// Labels that are fitted together.
pub(crate) const LABELS: usize = 5;
const BUCKETS: usize = 1 << BUCKET_BITS;
/// Penalty on the square of each weight.
const PENALTY: f32 = 4.0;
/// What a deviation of a count is worth beside a word: small, so that words speak first.
const COUNT_SCALE: f32 = 0.15;
/// Rows that a bucket must occur in.
const LEAST_ROWS: u32 = 3;
const MOST_STEPS: usize = 40;
/// Stops when the residual has shrunk to this part.
const TOLERANCE: f64 = 1e-3;

type Lanes = [f32; LABELS];

/// Weights of one fit.
pub(crate) struct Ridge {
    /// Of each bucket.
    pub(crate) words: Vec<Lanes>,
    /// Of each standardised count.
    pub(crate) counts: Vec<Lanes>,
    pub(crate) bias: Lanes,
}

/// Mean and inverse deviation of each count.
#[derive(Clone)]
pub(crate) struct Standard {
    pub(crate) mean: [f32; DENSE],
    pub(crate) inverse: [f32; DENSE],
}

impl Standard {
    pub(crate) fn of(rows: &[Row], inside: &[usize]) -> Self {
        let n = inside.len().max(1) as f64;
        let (mut mean, mut inverse) = ([0.0; DENSE], [0.0; DENSE]);
        for k in 0..DENSE {
            let each = || inside.iter().map(|i| f64::from(rows[*i].dense[k]));
            let average = each().sum::<f64>() / n;
            let squares: f64 = each().map(|x| (x - average) * (x - average)).sum();
            let deviation = (squares / n).sqrt();
            mean[k] = average as f32;
            // A count that never varies in the data must not speak in traffic.
            inverse[k] = if deviation > 1e-4 {
                (1.0 / deviation) as f32
            } else {
                0.0
            };
        }
        Self { mean, inverse }
    }

    pub(crate) fn apply(&self, dense: &[f32; DENSE]) -> [f32; DENSE] {
        let mut standard = *dense;
        for (k, x) in standard.iter_mut().enumerate() {
            *x = ((*x - self.mean[k]) * self.inverse[k]).clamp(-3.0, 3.0);
        }
        standard
    }
}

/// The rows of a fit as one matrix.
struct Matrix<'a> {
    rows: Vec<(&'a Row, [f32; DENSE], f32)>,
    weights: Vec<f32>,
    is_kept: Vec<bool>,
}

impl Matrix<'_> {
    /// `x` times the weights, for each row.
    fn times(&self, x: &[Lanes]) -> Vec<Lanes> {
        self.rows
            .iter()
            .map(|(row, standard, norm)| {
                let mut sum = [0.0; LABELS];
                for (bucket, _) in &row.buckets {
                    add(&mut sum, &x[*bucket as usize], *norm);
                }
                for (k, z) in standard.iter().enumerate() {
                    add(&mut sum, &x[BUCKETS + k], z * COUNT_SCALE);
                }
                sum
            })
            .collect()
    }

    /// The transpose times `y`, weighted by row.
    fn back(&self, y: &[Lanes]) -> Vec<Lanes> {
        let mut x = vec![[0.0; LABELS]; BUCKETS + DENSE];
        for (((row, standard, norm), y), weight) in self.rows.iter().zip(y).zip(&self.weights) {
            for (bucket, _) in &row.buckets {
                if self.is_kept[*bucket as usize] {
                    add(&mut x[*bucket as usize], y, norm * weight);
                }
            }
            for (k, z) in standard.iter().enumerate() {
                add(&mut x[BUCKETS + k], y, z * COUNT_SCALE * weight);
            }
        }
        x
    }
}

fn add(to: &mut Lanes, from: &Lanes, times: f32) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from * times;
    }
}

/// A row's share of a word's weight: prompts of all lengths speak equally loud.
pub(crate) fn norm(row: &Row) -> f32 {
    1.0 / (row.buckets.len().max(1) as f32).sqrt()
}

/// Fits `labels` on the rows at the places `inside`; both lists run along it.
pub(crate) fn fit(
    rows: &[Row],
    standard: &Standard,
    inside: &[usize],
    labels: &[Lanes],
    weights: &[f32],
) -> Ridge {
    let mut found = vec![0_u32; BUCKETS];
    for i in inside {
        for (bucket, _) in &rows[*i].buckets {
            found[*bucket as usize] += 1;
        }
    }
    let matrix = Matrix {
        rows: inside
            .iter()
            .map(|i| (&rows[*i], standard.apply(&rows[*i].dense), norm(&rows[*i])))
            .collect(),
        weights: weights.to_vec(),
        is_kept: found.iter().map(|rows| *rows >= LEAST_ROWS).collect(),
    };
    let bias = averages(labels, weights);
    let centred: Vec<Lanes> = labels
        .iter()
        .map(|label| std::array::from_fn(|lane| label[lane] - bias[lane]))
        .collect();
    let mut solution = conjugate(&matrix, &centred);
    let mut counts = solution.split_off(BUCKETS);
    for lane in counts.iter_mut().flatten() {
        *lane *= COUNT_SCALE;
    }
    Ridge {
        words: solution,
        counts,
        bias,
    }
}

fn averages(labels: &[Lanes], weights: &[f32]) -> Lanes {
    let total: f64 = weights.iter().map(|w| f64::from(*w)).sum();
    std::array::from_fn(|lane| {
        let sum: f64 = labels
            .iter()
            .zip(weights)
            .map(|(label, weight)| f64::from(label[lane]) * f64::from(*weight))
            .sum();
        (sum / total.max(1e-9)) as f32
    })
}

/// Conjugate gradients on the normal equations, each label with its own step.
fn conjugate(matrix: &Matrix<'_>, labels: &[Lanes]) -> Vec<Lanes> {
    let mut residual = matrix.back(labels);
    let mut solution = vec![[0.0; LABELS]; residual.len()];
    let mut direction = residual.clone();
    let mut norms = dots(&residual, &residual);
    let first = norms;
    for _ in 0..MOST_STEPS {
        if (0..LABELS).all(|lane| norms[lane] <= TOLERANCE * TOLERANCE * first[lane]) {
            break;
        }
        let mut image = matrix.back(&matrix.times(&direction));
        for (image, direction) in image.iter_mut().zip(&direction) {
            add(image, direction, PENALTY);
        }
        let curvature = dots(&direction, &image);
        let step: Lanes = std::array::from_fn(|k| (norms[k] / curvature[k].max(1e-30)) as f32);
        for ((x, r), (d, q)) in solution
            .iter_mut()
            .zip(residual.iter_mut())
            .zip(direction.iter().zip(&image))
        {
            for lane in 0..LABELS {
                x[lane] += step[lane] * d[lane];
                r[lane] -= step[lane] * q[lane];
            }
        }
        let after = dots(&residual, &residual);
        let keep: Lanes = std::array::from_fn(|k| (after[k] / norms[k].max(1e-30)) as f32);
        for (d, r) in direction.iter_mut().zip(&residual) {
            for lane in 0..LABELS {
                d[lane] = r[lane] + keep[lane] * d[lane];
            }
        }
        norms = after;
    }
    solution
}

fn dots(a: &[Lanes], b: &[Lanes]) -> [f64; LABELS] {
    let mut sums = [0.0; LABELS];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LABELS {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    sums
}
