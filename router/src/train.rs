//! Training, reproducible to the byte from the data and a seed: read, label, cross-validate by
//! cluster, fit on all, calibrate out of fold, write.

mod data;
mod fit;
mod measure;

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use data::Row;
use router::score::{Header, QUANTILES};

/// Folds of the cross-validation; a cluster lies in one of them.
const FOLDS: u64 = 5;

/// Trains on `file` and writes the weights to `out`.
pub(crate) fn train(
    file: &Path,
    out: &Path,
    scores: Option<&Path>,
    seed: u64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    let all = data::read(file)?;
    let (held_out, rows): (Vec<Row>, Vec<Row>) = all.into_iter().partition(Row::is_held_out);
    writeln!(
        say,
        "{} rows to train on, {} held out",
        rows.len(),
        held_out.len()
    )?;
    let targets = data::targets(&rows);
    let style = ProgressStyle::with_template("{msg:14} {bar:40} {pos}/{len} {elapsed}")?;
    let bar = ProgressBar::new(FOLDS + 1).with_style(style);
    let mut out_of_fold = vec![0.0_f32; rows.len()];
    for fold in 0..FOLDS {
        bar.set_message(format!("fold {}", fold + 1));
        let inside: Vec<usize> = (0..rows.len())
            .filter(|i| rows[*i].fold(FOLDS) != fold)
            .collect();
        let model = fit::fit(&rows, &targets, &inside, seed);
        for i in (0..rows.len()).filter(|i| rows[*i].fold(FOLDS) == fold) {
            out_of_fold[i] = model.raw(&rows[i]);
        }
        bar.inc(1);
    }
    bar.set_message("all rows");
    let everything: Vec<usize> = (0..rows.len()).collect();
    let model = fit::fit(&rows, &targets, &everything, seed);
    bar.inc(1);
    bar.finish_and_clear();
    let (slope, offset) = measure::calibrate(&rows, &out_of_fold);
    let calibrated: Vec<f32> = out_of_fold
        .iter()
        .map(|raw| measure::probability(*raw, slope, offset))
        .collect();
    writeln!(say, "cross-validation, {FOLDS} folds by cluster:")?;
    measure::table(&rows, &calibrated, say)?;
    if let Some(path) = scores {
        measure::write_scores(&rows, &calibrated, path)?;
    }
    let unseen: Vec<f32> = held_out
        .iter()
        .map(|row| measure::probability(model.raw(row), slope, offset))
        .collect();
    writeln!(say, "held out, never trained on:")?;
    measure::table(&held_out, &unseen, say)?;
    let mut header = Header {
        slope,
        offset,
        ..Header::default()
    };
    let words = model.write_into(&mut header);
    header.quantiles = quantiles(&calibrated);
    header.version = version(&rows, seed, &words);
    let mut bytes = header.bytes();
    bytes.extend_from_slice(&words);
    std::fs::write(out, &bytes).with_context(|| format!("writing {}", out.display()))?;
    writeln!(say, "wrote {} bytes to {}", bytes.len(), out.display())?;
    Ok(())
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

fn quantiles(scores: &[f32]) -> [f32; QUANTILES] {
    let mut sorted = scores.to_vec();
    sorted.sort_by(f32::total_cmp);
    let mut quantiles = [0.5; QUANTILES];
    for (percent, quantile) in quantiles.iter_mut().enumerate() {
        let place = (sorted.len() - 1) * percent / (QUANTILES - 1);
        *quantile = sorted[place];
    }
    quantiles
}

fn version(rows: &[Row], seed: u64, words: &[u8]) -> [u8; 8] {
    let mut hasher = DefaultHasher::new();
    for row in rows {
        row.id.hash(&mut hasher);
    }
    (seed, words).hash(&mut hasher);
    hasher.finish().to_be_bytes()
}

/// A hash that is the same on every machine and in every run.
pub(crate) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte))
            .wrapping_mul(0x0000_0100_0000_01b3)
            .rotate_left(29)
    })
}
