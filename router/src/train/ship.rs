//! From a fitted classifier in floats to the file that is built into the binary.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use router::score::{BUCKETS, HEADS, Header, LANES, LAYERS, Layers, QUANTILES, Tree, ZERO};
use wire::Shape;

use super::data::Row;
use super::fit::Model;

/// The file's bytes. `probabilities` are of prompts that were not trained on.
pub(crate) fn file(
    rows: &[&Row],
    model: &Model,
    (slope, offset): (f32, f32),
    probabilities: &[f32],
    seed: u64,
) -> Vec<u8> {
    let mut header = Header {
        slope,
        offset,
        ease: model.ease,
        quantiles: quantiles(probabilities),
        scale: std::array::from_fn(|head| scale(model, head)),
        bias: model.heads.bias,
        layers: layers(rows, model),
        ..Header::default()
    };
    let standard = model.standard.mean.iter().zip(&model.standard.inverse);
    for (slot, (mean, inverse)) in header.standard.iter_mut().zip(standard) {
        *slot = [*mean, *inverse];
    }
    header.counts.copy_from_slice(&model.heads.counts);
    for (slot, tree) in header.trees.iter_mut().zip(&model.trees) {
        *slot = Tree {
            questions: tree.questions.map(|(input, at)| (input as u8, at)),
            leaves: tree.leaves,
        };
    }
    let table = table(model, &header.scale);
    header.version = version(rows, seed, &table);
    let mut bytes = header.bytes();
    bytes.extend_from_slice(&table);
    bytes
}

/// The largest weights are clipped: a scale that fits them all would round the rest away.
fn scale(model: &Model, head: usize) -> f32 {
    let mut sizes: Vec<f32> = model
        .heads
        .words
        .iter()
        .map(|lanes| lanes[head].abs())
        .filter(|size| *size > 0.0)
        .collect();
    sizes.sort_by(f32::total_cmp);
    let top = sizes.get(sizes.len() * 999 / 1_000).copied().unwrap_or(1.0);
    top / 127.0
}

fn table(model: &Model, scale: &[f32; HEADS]) -> Vec<u8> {
    let mut table = vec![ZERO; BUCKETS * LANES];
    let rows = table.chunks_exact_mut(LANES);
    for ((row, weights), rarity) in rows.zip(&model.heads.words).zip(&model.rarity) {
        for (head, byte) in row.iter_mut().enumerate().take(HEADS) {
            let weight = (weights[head] / scale[head]).round().clamp(-127.0, 127.0);
            *byte = (weight + f32::from(ZERO)) as u8;
        }
        row[HEADS] = *rarity;
    }
    table
}

/// Mean and inverse deviation of each layer. A request's steps are not in the data: they stand as they are.
pub(crate) fn layers(rows: &[&Row], model: &Model) -> [[f32; 2]; LAYERS] {
    let values: Vec<[f32; LAYERS]> = rows
        .iter()
        .map(|row| Layers::values(&model.inputs(row), &Shape::default()))
        .collect();
    let n = values.len().max(1) as f64;
    std::array::from_fn(|k| {
        let each = || values.iter().map(|row| f64::from(row[k]));
        let mean = each().sum::<f64>() / n;
        let deviation = (each().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n).sqrt();
        let inverse = if deviation > 1e-4 {
            1.0 / deviation
        } else {
            1.0
        };
        [mean as f32, inverse as f32]
    })
}

fn quantiles(scores: &[f32]) -> [f32; QUANTILES] {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut quantiles = [0.5; QUANTILES];
    for (percent, quantile) in quantiles.iter_mut().enumerate() {
        *quantile = sorted[(sorted.len() - 1) * percent / (QUANTILES - 1)];
    }
    quantiles
}

fn version(rows: &[&Row], seed: u64, table: &[u8]) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    for row in rows {
        row.id.hash(&mut hasher);
    }
    (seed, table).hash(&mut hasher);
    hasher.finish().to_be_bytes()
}
