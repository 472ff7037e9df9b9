//! What the classifier is worth: cross-validation beside what is known, sources left out, and what the split,
//! feedback and a second try do with its scores.

mod beside;
mod cascade;
mod domains;
mod feedback;
mod replay;

use std::io::Write;
use std::path::Path;

use super::data::{self, Row};
use super::measure::{self, Evaluation, Measures};
use super::shuffle::Random;
use super::{FOLDS, bar, fit};

/// Draws of the bootstrap behind the intervals.
const DRAWS: usize = 200;
/// Labels of MMLU in the comparison with routers that were given about as many.
const MMLU_LABELS: usize = 1_500;

/// Prints the tables.
pub(crate) fn evaluate(
    file: &Path,
    quick: bool,
    scores: Option<&Path>,
    seed: u64,
    say: &mut impl Write,
) -> anyhow::Result<()> {
    let rows = data::read(file)?;
    let calibrated = cross_validated(&rows, seed)?;
    if let Some(path) = scores {
        write_scores(&rows, &calibrated, path)?;
    }
    let ships: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].may_ship).collect();
    let shipped: Vec<&Row> = ships.iter().map(|i| &rows[*i]).collect();
    let of_shipped: Vec<f32> = ships.iter().map(|i| calibrated[*i]).collect();
    let all: Vec<&Row> = rows.iter().collect();
    writeln!(
        say,
        "\n{FOLDS}-fold cross-validation by cluster, seed {seed}, {DRAWS} cluster draws"
    )?;
    table(&Evaluation::of(&shipped, &of_shipped), seed, say)?;
    let rest = rows.len() - ships.len();
    writeln!(
        say,
        "with the {rest} rows that may not be trained on, as an unseen source:"
    )?;
    line_of(&all, &calibrated, "router", say)?;
    beside::print(file, &rows, say)?;
    replay::print(&shipped, &of_shipped, seed, say)?;
    cascade::print(&shipped, &of_shipped, say)?;
    if !quick {
        mmlu(&rows, seed, say)?;
        domains::print(&rows, seed, say)?;
        left_out(&rows, seed, say)?;
    }
    Ok(())
}

/// Probabilities of all rows, each by a model and a calibration that saw none of its cluster.
fn cross_validated(rows: &[Row], seed: u64) -> anyhow::Result<Vec<f32>> {
    let bar = bar(FOLDS, "folds")?;
    let models = fit::each(FOLDS as usize, |fold| {
        let is_in = |i: &usize| rows[*i].may_ship && rows[*i].fold(FOLDS, 0) != fold as u64;
        let inside: Vec<usize> = (0..rows.len()).filter(is_in).collect();
        let model = fit::fit(rows, &inside, seed);
        bar.inc(1);
        model
    });
    bar.finish_and_clear();
    let fold = |row: &Row| row.fold(FOLDS, 0) as usize;
    let raw: Vec<f32> = rows.iter().map(|row| models[fold(row)].raw(row)).collect();
    let curves: Vec<(f32, f32)> = (0..FOLDS as usize)
        .map(|out| {
            let is_in = |i: &usize| rows[*i].may_ship && fold(&rows[*i]) != out;
            let inside: Vec<usize> = (0..rows.len()).filter(is_in).collect();
            let labelled: Vec<&Row> = inside.iter().map(|i| &rows[*i]).collect();
            let said: Vec<f32> = inside.iter().map(|i| raw[*i]).collect();
            measure::calibrate(&labelled, &said)
        })
        .collect();
    Ok(rows
        .iter()
        .zip(&raw)
        .map(|(row, raw)| measure::probability(*raw, curves[fold(row)]))
        .collect())
}

/// One line for each source and aggregate, with intervals.
fn table(evaluation: &Evaluation<'_>, seed: u64, say: &mut impl Write) -> anyhow::Result<()> {
    let lines = evaluation.measures_once();
    let intervals = evaluation.intervals(DRAWS, seed);
    let names = ["APGR", "PGR@20", "CPT50", "CPT80", "AUROC", "ECE"];
    write!(say, "{:<14} {:>6}", "source", "rows")?;
    for name in names {
        write!(say, " {name:>18}")?;
    }
    writeln!(say)?;
    for ((name, count, measures), intervals) in lines.iter().zip(&intervals) {
        write!(say, "{name:<14} {count:>6}")?;
        for (value, (low, high)) in measures.all().iter().zip(intervals) {
            if value.is_nan() {
                write!(say, " {:>18}", "-")?;
            } else {
                write!(say, " {value:.3} [{low:.3},{high:.3}]")?;
            }
        }
        writeln!(say)?;
    }
    Ok(())
}

/// STRAT, POOLED and MIX in one line.
fn line_of(rows: &[&Row], scores: &[f32], name: &str, say: &mut impl Write) -> anyhow::Result<()> {
    let lines = Evaluation::of(rows, scores).measures_once();
    write!(say, "{name:<24}")?;
    for (set, _, Measures { apgr, pgr, .. }) in &lines[lines.len() - 3..] {
        write!(say, " {set} {apgr:.3}/{pgr:.3}")?;
    }
    writeln!(say)?;
    Ok(())
}

/// MMLU where few of its labels were learned from: the rest of the sources, and so many rows of it whose
/// clusters are not among those tested.
fn mmlu(rows: &[Row], seed: u64, say: &mut impl Write) -> anyhow::Result<()> {
    let is_mmlu = |i: &usize| rows[*i].source == "mmlu" && rows[*i].may_ship;
    let bar = bar(FOLDS, "mmlu")?;
    let models = fit::each(FOLDS as usize, |fold| {
        let is_in = |i: &usize| rows[*i].may_ship && rows[*i].fold(FOLDS, 1) != fold as u64;
        let (mut own, mut inside): (Vec<usize>, Vec<usize>) =
            (0..rows.len()).filter(is_in).partition(is_mmlu);
        Random::new(seed + fold as u64).shuffle(&mut own);
        inside.extend(own.iter().take(MMLU_LABELS));
        inside.sort_unstable();
        let model = fit::fit(rows, &inside, seed);
        bar.inc(1);
        model
    });
    bar.finish_and_clear();
    let tested: Vec<&Row> = (0..rows.len()).filter(is_mmlu).map(|i| &rows[i]).collect();
    // Folds differ in their models; their scores are made alike before they are ranked together.
    let mut sum = [0.0; 4];
    for fold in 0..FOLDS {
        let part: Vec<&Row> = tested
            .iter()
            .filter(|row| row.fold(FOLDS, 1) == fold)
            .copied()
            .collect();
        let said: Vec<f32> = part
            .iter()
            .map(|row| models[fold as usize].raw(row))
            .collect();
        let members: Vec<usize> = (0..part.len()).collect();
        let found = measure::of_members(&part, &said, &members);
        for (sum, x) in sum.iter_mut().zip(found.all()) {
            *sum += x / FOLDS as f64;
        }
    }
    let [apgr, pgr, cpt50, cpt80] = sum;
    writeln!(
        say,
        "\nMMLU with {MMLU_LABELS} of its labels and the other sources, no cluster shared, mean of \
         {FOLDS} folds: APGR {apgr:.3}, PGR@20 {pgr:.3}, CPT50 {cpt50:.3}, CPT80 {cpt80:.3}"
    )?;
    Ok(())
}

/// Each source by a model that saw no row of it; then what feedback from it changes.
fn left_out(rows: &[Row], seed: u64, say: &mut impl Write) -> anyhow::Result<()> {
    let mut sources: Vec<&str> = rows.iter().map(|row| row.source.as_str()).collect();
    sources.sort_unstable();
    sources.dedup();
    let bar = bar(sources.len() as u64, "left out")?;
    let made = fit::each(sources.len(), |k| {
        let is_in = |i: &usize| rows[*i].may_ship && rows[*i].source != sources[k];
        let inside: Vec<usize> = (0..rows.len()).filter(is_in).collect();
        let model = fit::fit(rows, &inside, seed);
        let own: Vec<&Row> = rows.iter().filter(|row| row.source == sources[k]).collect();
        let trained: Vec<&Row> = inside.iter().map(|i| &rows[*i]).collect();
        bar.inc(1);
        let calls = feedback::calls(&model, &trained, &own);
        let raw: Vec<f32> = own.iter().map(|row| model.raw(row)).collect();
        (calls, raw)
    });
    bar.finish_and_clear();
    writeln!(say, "\nleave one source out: trained on the others alone")?;
    writeln!(
        say,
        "{:<14} {:>6} {:>6} {:>7} {:>6}",
        "source", "rows", "APGR", "PGR@20", "AUROC"
    )?;
    let (mut order, mut scores) = (Vec::new(), Vec::new());
    for (source, (_, raw)) in sources.iter().zip(&made) {
        let own: Vec<&Row> = rows.iter().filter(|row| row.source == *source).collect();
        let members: Vec<usize> = (0..own.len()).collect();
        let found = measure::of_members(&own, raw, &members);
        let (apgr, pgr, auroc) = (found.apgr, found.pgr, found.auroc);
        writeln!(
            say,
            "{source:<14} {:>6} {apgr:>6.3} {pgr:>7.3} {auroc:>6.3}",
            own.len()
        )?;
        order.extend(own);
        scores.extend(raw);
    }
    line_of(&order, &scores, "together", say)?;
    let calls: Vec<_> = made.into_iter().map(|(calls, _)| calls).collect();
    feedback::print(&sources, &calls, seed, say)
}

/// Writes `{"id", "score"}` lines.
fn write_scores(rows: &[Row], scores: &[f32], path: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    for (row, score) in rows.iter().zip(scores) {
        text.push_str(&serde_json::json!({ "id": row.id, "score": score }).to_string());
        text.push('\n');
    }
    Ok(std::fs::write(path, text)?)
}
