//! Writes PROMISES.md: every promise with the tests that hold it and the figures that they measured last.
//! `cargo run -p tests --bin promises`, after the tests.

use std::collections::HashMap;
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

#[derive(Deserialize)]
struct Book {
    promise: Vec<Promise>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Promise {
    id: String,
    says: String,
    /// `file#name` of each; none for what nothing holds yet.
    #[serde(default)]
    tests: Vec<String>,
    /// What is not held, or by something else.
    #[serde(default)]
    but: String,
    /// The command whose figure it is, where that is not `tests/run`.
    by: Option<String>,
}

const HEAD: &str = "# Promises

What Pareto promises, the tests that hold it, and what they measured last. Numbers are those of DESIGN's promises, letters
those of the study of reliability behind it. `cargo run -p tests --bin promises` writes this file from `tests/promises.toml`
and from the figures that the tests left in `target/figures`; `tests/tidy` checks that every test named here exists. A
figure is of the machine and build that ran the tests last: two cores, unoptimised, beside other work.

| | promise | held by | last figure | command |
| --- | --- | --- | --- | --- |
";

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace");
    let text = std::fs::read_to_string(root.join("tests/promises.toml")).expect("the promises");
    let book: Book = toml::from_str(&text).expect("promises as they are written");
    let place = root.join("PROMISES.md");
    let before = figures(&std::fs::read_to_string(&place).unwrap_or_default());
    let mut out = HEAD.to_owned();
    for promise in &book.promise {
        let id = &promise.id;
        let measured = std::fs::read_to_string(root.join("target/figures").join(id)).ok();
        let figure = measured
            .or_else(|| before.get(id).cloned())
            .unwrap_or_default();
        let mut held: Vec<String> = promise.tests.iter().map(|test| linked(test)).collect();
        if held.is_empty() {
            held.push("**nothing yet**".to_owned());
        }
        if !promise.but.is_empty() {
            held.push(format!("({})", promise.but));
        }
        let command = match (&promise.by, figure.is_empty()) {
            (Some(by), _) => format!("`{by}`"),
            (None, false) => "`tests/run`".to_owned(),
            (None, true) => String::new(),
        };
        let (says, held, figure) = (&promise.says, held.join("<br>"), figure.trim());
        writeln!(out, "| {id} | {says} | {held} | {figure} | {command} |").expect("memory");
    }
    std::fs::write(&place, out).expect("a place for it");
}

/// `tests/it/http1.rs#name` as a link that shows the name.
fn linked(test: &str) -> String {
    let (file, name) = test.split_once('#').expect("`file#name`");
    format!("[{}]({file})", name.replace('_', " "))
}

/// The figures that stand in a file written before.
fn figures(text: &str) -> HashMap<String, String> {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let (id, figure) = (cells.get(1)?, cells.get(4)?);
        Some(((*id).to_owned(), (*figure).to_owned()))
    });
    rows.collect()
}
