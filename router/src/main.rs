//! Trains and measures the classifier: `train`, `evaluate` and `sample`, each on a file of labelled
//! prompts (columns in `weights/README.md`).

#[expect(
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a training run is numbers over vectors whose lengths it made itself; it may stop"
)]
mod train;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};

const HELP: &str = "\
Trains and measures the router's classifier.

  router train FILE [--out router/weights/router.bin] [--seed 7]
  router evaluate FILE [--scores CV.jsonl] [--quick] [--seed 7]
  router sample FILE --out PROMPTS.jsonl [--count 1200]

FILE has one JSON object a line: id, source, prompt, weak_score, strong_score, cluster, and
optionally tools, outcomes, commercial_ok. Rows with commercial_ok false are left out; a twentieth
of the clusters is never trained on by `train`, and `sample` draws from it. `evaluate` needs some
minutes; --quick leaves out what trains anew for each source.";

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let command = args.next().unwrap_or_default();
    let (mut file, mut out, mut scores) = (None, None, None);
    let (mut seed, mut count, mut quick) = (7_u64, 1_200_usize, false);
    while let Some(arg) = args.next() {
        let mut value = || args.next().with_context(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--out" => out = Some(PathBuf::from(value()?)),
            "--scores" => scores = Some(PathBuf::from(value()?)),
            "--seed" => seed = value()?.parse().context("--seed is a number")?,
            "--count" => count = value()?.parse().context("--count is a number")?,
            "--quick" => quick = true,
            _ if file.is_none() => file = Some(PathBuf::from(arg)),
            _ => bail!("unknown argument {arg}\n\n{HELP}"),
        }
    }
    let mut say = std::io::stdout();
    match (command.as_str(), file) {
        ("train", Some(file)) => {
            let out = out.unwrap_or_else(|| PathBuf::from("router/weights/router.bin"));
            train::train(&file, &out, seed, &mut say)
        }
        ("evaluate", Some(file)) => {
            train::evaluate(&file, quick, scores.as_deref(), seed, &mut say)
        }
        ("sample", Some(file)) => {
            let out = out.context("sample needs --out")?;
            train::sample(&file, &out, count, &mut say)
        }
        ("--help" | "help", _) => writeln!(say, "{HELP}").context("standard output"),
        _ => bail!("{HELP}"),
    }
}
