//! Training, reproducible to the byte from the data and a seed: read, label, cross-validate by
//! cluster, fit on all, calibrate out of fold, write. And what is measured of it.

mod boost;
mod data;
mod evaluate;
mod fit;
mod labels;
mod measure;
mod ridge;
mod ship;
mod shuffle;

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use data::Row;

pub(crate) use evaluate::evaluate;

/// Folds of the cross-validation; a cluster lies in one of them.
const FOLDS: u64 = 5;

/// Trains on `file` and writes the weights to `out`.
pub(crate) fn train(
    file: &Path,
    out: &Path,
    seed: u64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    let rows = data::read(file)?;
    let mut ships: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].may_ship).collect();
    let held_out: Vec<usize> = ships.extract_if(.., |i| rows[*i].is_held_out()).collect();
    writeln!(
        say,
        "{} rows to train on, {} held out",
        ships.len(),
        held_out.len()
    )?;
    let bar = bar(FOLDS + 1, "training")?;
    // The last job is the model that ships.
    let models = fit::each(FOLDS as usize + 1, |job| {
        let is_in = |i: &&usize| rows[**i].fold(FOLDS, 0) != job as u64;
        let inside: Vec<usize> = ships.iter().filter(is_in).copied().collect();
        let model = fit::fit(&rows, &inside, seed);
        bar.inc(1);
        model
    });
    bar.finish_and_clear();
    let model = models.last().context("a model")?;
    let trained: Vec<&Row> = ships.iter().map(|i| &rows[*i]).collect();
    let raw: Vec<f32> = trained
        .iter()
        .map(|row| models[row.fold(FOLDS, 0) as usize].raw(row))
        .collect();
    let curve = measure::calibrate(&trained, &raw);
    let probabilities: Vec<f32> = raw
        .iter()
        .map(|raw| measure::probability(*raw, curve))
        .collect();
    let bytes = ship::file(&trained, model, curve, &probabilities, seed);
    std::fs::write(out, &bytes).with_context(|| format!("writing {}", out.display()))?;
    writeln!(say, "wrote {} bytes to {}", bytes.len(), out.display())?;
    let scores: Vec<f32> = rows.iter().map(|row| model.raw(row)).collect();
    let all: Vec<&Row> = rows.iter().collect();
    let unseen = measure::of_members(&all, &scores, &held_out);
    let few = "on the rows held out, which are few";
    writeln!(
        say,
        "{few}: POOLED APGR {:.3}, PGR@20 {:.3}",
        unseen.apgr, unseen.pgr
    )?;
    Ok(())
}

/// A bar for `length` steps.
fn bar(length: u64, what: &'static str) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{msg:14} {bar:40} {pos}/{len} {elapsed}")?;
    let bar = ProgressBar::new(length)
        .with_style(style)
        .with_message(what);
    bar.tick();
    Ok(bar)
}

/// Draws prompts that were never trained on, from sources whose licences allow to pass them on.
pub(crate) fn sample(
    file: &Path,
    out: &Path,
    count: usize,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    const SOURCES: [(&str, &str); 5] = [
        ("mmlu", "MIT"),
        ("mmlu_pro", "MIT"),
        ("ze_crux", "MIT"),
        ("ze_math_l5", "MIT"),
        ("bfcl", "Apache-2.0"),
    ];
    let mut rows: Vec<Row> = data::read(file)?
        .into_iter()
        .filter(|row| row.is_held_out() && row.prompt.len() <= 3_000)
        .filter(|row| SOURCES.iter().any(|(source, _)| *source == row.source))
        .collect();
    rows.sort_by_key(|row| hash(&row.id));
    rows.truncate(count);
    let mut text = String::new();
    for row in &rows {
        let licence = SOURCES
            .iter()
            .find(|(source, _)| *source == row.source)
            .map_or("", |s| s.1);
        let line = serde_json::json!({
            "id": row.id, "source": row.source, "licence": licence, "prompt": row.prompt,
            "weak": row.weak, "strong": row.strong,
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    std::fs::write(out, &text).with_context(|| format!("writing {}", out.display()))?;
    writeln!(
        say,
        "wrote {} prompts, {} bytes, to {}",
        rows.len(),
        text.len(),
        out.display()
    )?;
    Ok(())
}

/// A hash that is the same on every machine and in every run.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29)
    })
}
