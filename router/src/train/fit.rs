//! Least squares on hashed words and counts, shrunk, by AdaGrad in a seeded order.

use router::features::DENSE;
use router::score::{BUCKETS, Header};

use super::data::Row;

const EPOCHS: usize = 8;
const RATE: f32 = 0.04;
/// Shrinkage towards zero, for each touch of a weight.
const SHRINK: f32 = 0.004;

/// A fitted model.
pub(crate) struct Model {
    words: Vec<f32>,
    dense: [f32; DENSE],
    mean: [f32; DENSE],
    inverse: [f32; DENSE],
    bias: f32,
}

/// Fits `targets` on the rows at the places `inside`.
pub(crate) fn fit(rows: &[Row], targets: &[f32], inside: &[usize], seed: u64) -> Model {
    let (mean, inverse) = standardise(rows, inside);
    let mut model = Model {
        words: vec![0.0; BUCKETS],
        dense: [0.0; DENSE],
        mean,
        inverse,
        bias: 0.0,
    };
    let mut seen = vec![1e-3_f32; BUCKETS];
    let mut seen_dense = [1.0_f32; DENSE];
    let mut order = inside.to_vec();
    let mut random = seed | 1;
    for epoch in 0..EPOCHS {
        shuffle(&mut order, &mut random);
        let rate = RATE / (1.0 + epoch as f32);
        for &i in &order {
            let row = &rows[i];
            let norm = 1.0 / (row.buckets.len().max(1) as f32).sqrt();
            let error = model.raw(row) - targets[i];
            for &bucket in &row.buckets {
                let b = bucket as usize;
                let gradient = error * norm + SHRINK * model.words[b] * norm;
                seen[b] += gradient * gradient;
                model.words[b] -= rate * gradient / seen[b].sqrt();
            }
            for (k, x) in model.standard(row).into_iter().enumerate() {
                let gradient = error * x + SHRINK * model.dense[k];
                seen_dense[k] += gradient * gradient;
                model.dense[k] -= 0.1 * rate * gradient / seen_dense[k].sqrt();
            }
            model.bias -= 0.01 * rate * error;
        }
    }
    model
}

impl Model {
    /// The score before calibration.
    pub(crate) fn raw(&self, row: &Row) -> f32 {
        let sum: f32 = row.buckets.iter().map(|b| self.words[*b as usize]).sum();
        let text = sum / (row.buckets.len().max(1) as f32).sqrt();
        let dense: f32 = self
            .standard(row)
            .iter()
            .zip(&self.dense)
            .map(|(x, weight)| x * weight)
            .sum();
        text + dense + self.bias
    }

    fn standard(&self, row: &Row) -> [f32; DENSE] {
        let mut x = row.dense;
        for (k, value) in x.iter_mut().enumerate() {
            *value = ((*value - self.mean[k]) * self.inverse[k]).clamp(-3.0, 3.0);
        }
        x
    }

    /// Puts the counts' weights and the scale into `header`; returns one byte for each word bucket.
    pub(crate) fn write_into(&self, header: &mut Header) -> Vec<u8> {
        // The largest weights are clipped: a scale that fits them all would round the rest away.
        let mut sizes: Vec<f32> = self
            .words
            .iter()
            .map(|w| w.abs())
            .filter(|w| *w > 0.0)
            .collect();
        sizes.sort_by(f32::total_cmp);
        let top = sizes.get(sizes.len() * 999 / 1_000).copied().unwrap_or(1.0);
        header.scale = top / 127.0;
        for (k, slot) in header.dense.iter_mut().enumerate() {
            *slot = [self.mean[k], self.inverse[k], self.dense[k]];
        }
        header.offset += header.slope * self.bias;
        self.words
            .iter()
            .map(|w| (w / header.scale).round().clamp(-127.0, 127.0) as i8)
            .flat_map(i8::to_le_bytes)
            .collect()
    }
}

fn standardise(rows: &[Row], inside: &[usize]) -> ([f32; DENSE], [f32; DENSE]) {
    let n = inside.len().max(1) as f32;
    let (mut mean, mut inverse) = ([0.0; DENSE], [0.0; DENSE]);
    for k in 0..DENSE {
        let sum: f32 = inside.iter().map(|i| rows[*i].dense[k]).sum();
        mean[k] = sum / n;
        let squares: f32 = inside
            .iter()
            .map(|i| (rows[*i].dense[k] - mean[k]).powi(2))
            .sum();
        let deviation = (squares / n).sqrt();
        // A count that never varies in the data must not speak in traffic.
        inverse[k] = if deviation > 1e-4 {
            1.0 / deviation
        } else {
            0.0
        };
    }
    (mean, inverse)
}

/// Fisher and Yates, with a xorshift of 64 bits.
fn shuffle(order: &mut [usize], random: &mut u64) {
    for last in (1..order.len()).rev() {
        *random ^= *random << 13;
        *random ^= *random >> 7;
        *random ^= *random << 17;
        order.swap(last, (*random % (last as u64 + 1)) as usize);
    }
}
