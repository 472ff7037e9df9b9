//! Labelled prompts, and what is learned from them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use router::Features;
use router::features::DENSE;
use serde::Deserialize;
use wire::Shape;

#[derive(Deserialize)]
struct Line {
    id: String,
    source: String,
    prompt: String,
    weak_score: f32,
    strong_score: f32,
    #[serde(default)]
    tools: Option<serde_json::Value>,
    #[serde(default)]
    outcomes: BTreeMap<String, f32>,
    #[serde(default = "yes")]
    commercial_ok: bool,
    cluster: u64,
}

fn yes() -> bool {
    true
}

/// One prompt with its features.
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) source: String,
    pub(crate) prompt: String,
    pub(crate) weak: f32,
    pub(crate) strong: f32,
    outcomes: BTreeMap<String, f32>,
    cluster: u64,
    /// Buckets as they come, repeats included.
    pub(crate) buckets: Vec<u32>,
    pub(crate) dense: [f32; DENSE],
}

impl Row {
    /// Never trained on: every twentieth cluster.
    pub(crate) fn is_held_out(&self) -> bool {
        self.mixed().is_multiple_of(20)
    }

    pub(crate) fn fold(&self, folds: u64) -> u64 {
        (self.mixed() / 20) % folds
    }

    fn mixed(&self) -> u64 {
        self.cluster
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 20
    }

    /// The label that scores are calibrated to.
    pub(crate) fn needs_deep(&self) -> bool {
        self.strong - self.weak > 0.25
    }
}

/// Reads the rows that may be trained on.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    let open = std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(open).lines()) {
        let line: Line = serde_json::from_str(&line?)
            .with_context(|| format!("{}, line {number}", file.display()))?;
        if !line.commercial_ok {
            continue;
        }
        let tools = line.tools.as_ref();
        let shape = Shape {
            user_turns: 1,
            tools: tools
                .and_then(|t| t.as_array())
                .map_or(0, |t| t.len().try_into().unwrap_or(0)),
            tool_bytes: tools.map_or(0, |t| t.to_string().len().try_into().unwrap_or(0)),
            ..Shape::default()
        };
        let mut buckets = Vec::new();
        let features = Features {
            text: &line.prompt,
            shape: &shape,
        };
        let dense = features.walk(|bucket| buckets.push(bucket));
        rows.push(Row {
            id: line.id,
            source: line.source,
            prompt: line.prompt,
            weak: line.weak_score,
            strong: line.strong_score,
            outcomes: line.outcomes,
            cluster: line.cluster,
            buckets,
            dense,
        });
    }
    Ok(rows)
}

/// How much better strong models do on each row: the mean over many models, mixed with the pair's
/// own outcome, less the source's mean. Sources differ in their pairs, and which source a prompt
/// comes from must not be worth learning.
pub(crate) fn targets(rows: &[Row]) -> Vec<f32> {
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_source.entry(&row.source).or_default().push(index);
    }
    let mut targets = vec![0.0; rows.len()];
    for members in by_source.values() {
        let strong = strong_models(rows, members);
        for &i in members {
            let pair = rows[i].strong - rows[i].weak;
            let (mut above, mut below) = (Mean::default(), Mean::default());
            for (model, outcome) in &rows[i].outcomes {
                match strong.get(model.as_str()) {
                    Some(true) => above.add(*outcome),
                    Some(false) => below.add(*outcome),
                    None => {}
                }
            }
            targets[i] = match (above.get(), below.get()) {
                (Some(above), Some(below)) => 0.6 * (above - below) + 0.4 * pair,
                _ => pair,
            };
        }
        let mut mean = Mean::default();
        for i in members {
            mean.add(targets[*i]);
        }
        for i in members {
            targets[*i] -= mean.get().unwrap_or(0.0);
        }
    }
    targets
}

/// The models of a source, and whether each is in its better half.
fn strong_models<'a>(rows: &'a [Row], members: &[usize]) -> BTreeMap<&'a str, bool> {
    let mut means: BTreeMap<&str, Mean> = BTreeMap::new();
    for &i in members {
        for (model, outcome) in &rows[i].outcomes {
            means.entry(model).or_default().add(*outcome);
        }
    }
    let mut ranked: Vec<(&str, f32)> = means
        .into_iter()
        .map(|(model, mean)| (model, mean.get().unwrap_or(0.0)))
        .collect();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(b.0)));
    let half = ranked.len() / 2;
    ranked
        .iter()
        .enumerate()
        .map(|(place, (model, _))| (*model, place >= half))
        .collect()
}

#[derive(Default)]
struct Mean {
    sum: f32,
    count: f32,
}

impl Mean {
    fn add(&mut self, value: f32) {
        self.sum += value;
        self.count += 1.0;
    }

    fn get(&self) -> Option<f32> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}
