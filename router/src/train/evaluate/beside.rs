//! What stands beside the classifier: chance, all-knowing, the length of the prompt, a baseline, and
//! what others have published.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use super::line_of;
use crate::train::data::Row;

/// RouteLLM, arXiv 2406.18665v4, tables 1 to 3, published and not run here: benchmark, labels, router, then
/// CPT50 % / CPT80 % and APGR. Full benchmarks without contaminated rows, Mixtral 8x7B and GPT-4 Turbo.
const PUBLISHED: [(&str, &str, &str, f32, f32, f32); 15] = [
    ("mt_bench", "arena", "sw_ranking", 37.9, 59.0, 0.610),
    ("mt_bench", "+judge", "bert", 19.6, 34.0, 0.751),
    ("mt_bench", "+judge", "causal_llm", 31.5, 48.8, 0.679),
    ("mt_bench", "+judge", "mf", 13.4, 31.3, 0.802),
    ("mt_bench", "+judge", "sw_ranking", 23.2, 36.0, 0.759),
    ("mmlu", "arena", "mf", 45.0, 76.9, 0.524),
    ("mmlu", "+1,500", "bert", 41.3, 72.2, 0.572),
    ("mmlu", "+1,500", "causal_llm", 35.5, 70.3, 0.600),
    ("mmlu", "+1,500", "mf", 35.5, 71.4, 0.597),
    ("mmlu", "+1,500", "sw_ranking", 35.4, 71.6, 0.603),
    ("gsm8k", "arena", "sw_ranking", 54.4, 82.1, 0.475),
    ("gsm8k", "+judge", "bert", 44.8, 79.1, 0.531),
    ("gsm8k", "+judge", "causal_llm", 33.6, 63.3, 0.622),
    ("gsm8k", "+judge", "mf", 38.8, 72.6, 0.565),
    ("gsm8k", "+judge", "sw_ranking", 41.2, 72.2, 0.568),
];

/// Prints them on the rows that may ship; where the baseline's scores are known, on all rows too.
pub(super) fn print(file: &Path, rows: &[Row], say: &mut impl Write) -> anyhow::Result<()> {
    let all: Vec<&Row> = rows.iter().collect();
    let ships: Vec<&Row> = rows.iter().filter(|row| row.may_ship).collect();
    let of = |score: fn(&Row) -> f32| -> Vec<f32> { ships.iter().map(|row| score(row)).collect() };
    writeln!(say, "\nbeside it, APGR/PGR@20:")?;
    let baseline = file.with_file_name("baseline_cv_scores.jsonl");
    if let Some(known) = known(&baseline, rows) {
        let of_ships: Vec<f32> = ships
            .iter()
            .map(|row| known.get(&row.id).copied().unwrap_or(0.0))
            .collect();
        let of_all: Vec<f32> = all
            .iter()
            .map(|row| known.get(&row.id).copied().unwrap_or(0.0))
            .collect();
        line_of(&ships, &of_ships, "baseline", say)?;
        line_of(&all, &of_all, "baseline, all rows", say)?;
    }
    line_of(&ships, &of(|_| 0.0), "random", say)?;
    line_of(
        &ships,
        &of(|row| row.prompt.len() as f32),
        "prompt length",
        say,
    )?;
    line_of(&ships, &of(Row::gain), "oracle", say)?;
    writeln!(say, "\npublished (RouteLLM), not run here:")?;
    for (benchmark, labels, router, cpt50, cpt80, apgr) in PUBLISHED {
        writeln!(
            say,
            "{benchmark:<9} {labels:<7} {router:<11} APGR {apgr:.3} CPT50 {cpt50:.1} % CPT80 {cpt80:.1} %"
        )?;
    }
    Ok(())
}

/// Scores by id, if the file is there and has all rows.
fn known(path: &Path, rows: &[Row]) -> Option<HashMap<String, f32>> {
    let text = std::fs::read_to_string(path).ok()?;
    let known: HashMap<String, f32> = text
        .lines()
        .filter_map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).ok()?;
            Some((
                value["id"].as_str()?.to_owned(),
                value["score"].as_f64()? as f32,
            ))
        })
        .collect();
    rows.iter()
        .all(|row| known.contains_key(&row.id))
        .then_some(known)
}
