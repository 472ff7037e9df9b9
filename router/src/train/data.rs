//! Labelled prompts with what the classifier sees of them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Context;
use router::Features;
use router::features::{Dense, Gram, MOST_BYTES};
use serde::Deserialize;
use serde_json::{Value, json};

use super::hash;

#[derive(Deserialize)]
struct Line {
    id: String,
    source: String,
    #[serde(default)]
    domain: String,
    prompt: String,
    weak_score: f32,
    strong_score: f32,
    #[serde(default)]
    tools: Option<Value>,
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
    /// The part of its source, such as a subject.
    pub(crate) domain: String,
    pub(crate) prompt: String,
    pub(crate) weak: f32,
    pub(crate) strong: f32,
    /// Scores of further models on the prompt: for labels, never a feature.
    pub(crate) outcomes: BTreeMap<String, f32>,
    pub(crate) cluster: u64,
    /// The licence lets it into weights that ship.
    pub(crate) may_ship: bool,
    /// Different buckets, and whether a word or mark alone fell in.
    pub(crate) buckets: Vec<(u32, bool)>,
    pub(crate) dense: Dense,
}

impl Row {
    /// Never trained on for weights that ship: every twentieth cluster.
    pub(crate) fn is_held_out(&self) -> bool {
        self.mixed().is_multiple_of(20)
    }

    /// The fold of `folds`, under a salt; a cluster lies in one of them.
    pub(crate) fn fold(&self, folds: u64, salt: u64) -> u64 {
        let mixed = (self.mixed() ^ salt.wrapping_mul(0xd6e8_feb8_6659_fd93))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 33) % folds
    }

    /// The part of `parts` that the row's domain lies in.
    pub(crate) fn part_of_domain(&self, parts: u64) -> u64 {
        let mixed = hash(&format!("{}/{}", self.source, self.domain));
        (mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) % parts
    }

    fn mixed(&self) -> u64 {
        self.cluster
            .wrapping_add(1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            >> 20
    }

    /// What the deep model gains over the fast one.
    pub(crate) fn gain(&self) -> f32 {
        self.strong - self.weak
    }

    /// The label that scores are calibrated to.
    pub(crate) fn needs_deep(&self) -> bool {
        self.gain() > 0.25
    }
}

/// Reads all rows. The request of each is scanned as the gateway would.
pub(crate) fn read(file: &Path) -> anyhow::Result<Vec<Row>> {
    let open = std::fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(open).lines()) {
        let place = || format!("{}, line {number}", file.display());
        let line: Line = serde_json::from_str(&line?).with_context(place)?;
        rows.push(row(line).with_context(place)?);
    }
    Ok(rows)
}

fn row(line: Line) -> anyhow::Result<Row> {
    let body = body(&line.prompt, line.tools.as_ref());
    let scan = wire::dialect::OPENAI_CHAT.scan(&body)?;
    let mut buffer = [0; MOST_BYTES];
    let features = Features {
        text: scan.prompt(&body, &mut buffer),
        shape: &scan.shape,
    };
    let mut buckets = Vec::new();
    let dense = features.walk(|bucket, gram| buckets.push((bucket, gram == Gram::Word)));
    Ok(Row {
        id: line.id,
        source: line.source,
        domain: line.domain,
        prompt: line.prompt,
        weak: line.weak_score,
        strong: line.strong_score,
        outcomes: line.outcomes,
        cluster: line.cluster,
        may_ship: line.commercial_ok,
        buckets,
        dense,
    })
}

/// The request that a prompt and its tools make.
fn body(prompt: &str, tools: Option<&Value>) -> Vec<u8> {
    let mut body = json!({
        "model": "auto",
        "messages": [{ "role": "user", "content": prompt }],
    });
    let tools = tools
        .and_then(Value::as_array)
        .filter(|tools| !tools.is_empty());
    if let Some(tools) = tools {
        let wrap = |tool: &Value| json!({ "type": "function", "function": tool });
        body["tools"] = tools.iter().map(wrap).collect();
    }
    body.to_string().into_bytes()
}
