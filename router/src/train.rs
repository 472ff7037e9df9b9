//! Training, reproducible to the byte from the data and a seed: read, label, cross-validate by
//! cluster, fit on all, calibrate out of fold, write.

mod boost;
mod data;
mod fit;
mod labels;
mod measure;
mod ridge;
mod shuffle;

use std::io::Write;
use std::path::Path;
use anyhow::Context;
use data::Row;

const FOLDS: u64 = 5;

pub(crate) fn train(
    file: &Path,
    _out: &Path,
    scores: Option<&Path>,
    seed: u64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    let rows = data::read(file)?;
    writeln!(say, "{} rows", rows.len())?;
    let salt: u64 = std::env::var("SALT").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let models = fit::each(FOLDS as usize, |fold| {
        let inside: Vec<usize> = (0..rows.len())
            .filter(|i| rows[*i].may_ship && rows[*i].fold(FOLDS, salt) != fold as u64)
            .collect();
        fit::fit(&rows, &inside, seed)
    });
    let raw: Vec<f32> = rows
        .iter()
        .map(|row| models[row.fold(FOLDS, salt) as usize].raw(row))
        .collect();
    let ones = vec![1.0; rows.len()];
    for (name, n, m) in measure::Evaluation::of(&rows, &raw).measures(&ones) {
        writeln!(say, "{name:14} {n:6} {:.4} {:.4} {:.3} {:.3} {:.3}", m.apgr, m.pgr, m.cpt50, m.cpt80, m.auroc)?;
    }
    let shipped: Vec<Row> = rows.into_iter().filter(|r| r.may_ship).collect();
    let _ = shipped;
    let rows = data::read(file)?;
    let keep: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].may_ship).collect();
    let raw2: Vec<f32> = keep.iter().map(|i| raw[*i]).collect();
    let rows2: Vec<Row> = rows.into_iter().filter(|r| r.may_ship).collect();
    let (a, p) = measure::strat(&rows2, &raw2);
    writeln!(say, "STRAT without alpaca {a:.4} {p:.4}")?;
    if let Some(path) = scores {
        let mut text = String::new();
        for (row, score) in rows2.iter().zip(&raw2) {
            text.push_str(&serde_json::json!({ "id": row.id, "score": score }).to_string());
            text.push('\n');
        }
        std::fs::write(path, text).context("scores")?;
    }
    Ok(())
}
