//! Measures of routing quality: PGR at a budget of 20 %, its mean over all budgets (APGR), by source
//! and averaged over sources with equal weight (STRAT); calibration to P(deep needed).

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use super::data::Row;

/// Points of a gain curve: shares of 0, 0.5 %, ..., 100 %.
const GRID: usize = 201;
/// The share that PGR@20 looks at.
const BUDGET: usize = 40;

/// Prints one line a source and the average over sources.
pub(crate) fn table(rows: &[Row], scores: &[f32], say: &mut impl Write) -> anyhow::Result<()> {
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_source.entry(&row.source).or_default().push(index);
    }
    let mut average = [0.0_f32; GRID];
    writeln!(
        say,
        "{:<14} {:>6} {:>6} {:>7} {:>6}",
        "source", "rows", "APGR", "PGR@20", "ECE"
    )?;
    for (source, members) in &by_source {
        let curve = curve(rows, scores, members);
        for (sum, gain) in average.iter_mut().zip(&curve) {
            *sum += gain / by_source.len() as f32;
        }
        line(
            source,
            members.len(),
            &curve,
            ece(rows, scores, members),
            say,
        )?;
    }
    let all: Vec<usize> = (0..rows.len()).collect();
    line("STRAT", rows.len(), &average, f32::NAN, say)?;
    line(
        "POOLED",
        rows.len(),
        &curve(rows, scores, &all),
        ece(rows, scores, &all),
        say,
    )
}

fn line(
    name: &str,
    rows: usize,
    curve: &[f32; GRID],
    ece: f32,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    let gap = curve[GRID - 1];
    let area: f32 = curve
        .windows(2)
        .map(|pair| f32::midpoint(pair[0], pair[1]))
        .sum();
    let apgr = area / (GRID - 1) as f32 / gap;
    writeln!(
        say,
        "{name:<14} {rows:>6} {apgr:>6.3} {:>7.3} {ece:>6.3}",
        curve[BUDGET] / gap
    )?;
    Ok(())
}

/// Mean gain over always-fast when the top share of `members` goes deep.
fn curve(rows: &[Row], scores: &[f32], members: &[usize]) -> [f32; GRID] {
    let mut ranked = members.to_vec();
    ranked.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let n = ranked.len() as f32;
    let mut sums = vec![0.0_f32];
    let mut sum = 0.0;
    for i in ranked {
        sum += rows[i].strong - rows[i].weak;
        sums.push(sum / n);
    }
    let mut curve = [0.0; GRID];
    for (point, gain) in curve.iter_mut().enumerate() {
        *gain = sums[(members.len() * point + (GRID - 1) / 2) / (GRID - 1)];
    }
    curve
}

/// Expected calibration error over ten equal bins.
fn ece(rows: &[Row], scores: &[f32], members: &[usize]) -> f32 {
    let mut ranked = members.to_vec();
    ranked.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let size = ranked.len().div_ceil(10).max(1);
    ranked
        .chunks(size)
        .map(|bin| {
            let n = bin.len() as f32;
            let said: f32 = bin.iter().map(|i| scores[*i]).sum();
            let was: f32 = bin
                .iter()
                .map(|i| f32::from(u8::from(rows[*i].needs_deep())))
                .sum();
            (said - was).abs() / n * n / ranked.len() as f32
        })
        .sum()
}

/// Slope and offset of the logistic curve that fits the labels best, by Newton's method.
pub(crate) fn calibrate(rows: &[Row], raw: &[f32]) -> (f32, f32) {
    let (mut slope, mut offset) = (1.0_f64, 0.0_f64);
    for _ in 0..50 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 1e-9, 0.0, 1e-9);
        for (row, raw) in rows.iter().zip(raw) {
            let x = f64::from(*raw);
            let p = 1.0 / (1.0 + (-(slope * x + offset)).exp());
            let (error, w) = (p - f64::from(u8::from(row.needs_deep())), p * (1.0 - p));
            (g0, g1) = (g0 + error, g1 + error * x);
            (h00, h01, h11) = (h00 + w, h01 + w * x, h11 + w * x * x);
        }
        let determinant = h00 * h11 - h01 * h01;
        offset -= (g0 * h11 - g1 * h01) / determinant;
        slope -= (g1 * h00 - g0 * h01) / determinant;
    }
    (slope as f32, offset as f32)
}

/// The calibrated probability of a raw score.
pub(crate) fn probability(raw: f32, slope: f32, offset: f32) -> f32 {
    1.0 / (1.0 + (-(slope * raw + offset)).exp())
}

/// Writes `{"id", "score"}` lines.
pub(crate) fn write_scores(rows: &[Row], scores: &[f32], path: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    for (row, score) in rows.iter().zip(scores) {
        text.push_str(&serde_json::json!({ "id": row.id, "score": score }).to_string());
        text.push('\n');
    }
    Ok(std::fs::write(path, text)?)
}
