//! The planted orders in `tests/injection`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// An order that somebody has planted, and what it tempts to.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    pub family: String,
    #[serde(rename = "where")]
    pub place: String,
    pub planted: String,
    /// The other half of a case that is split over two results.
    #[serde(default)]
    pub planted_second: Option<String>,
    pub temptation: Temptation,
    pub canary: String,
    #[serde(default, rename = "note")]
    _note: Option<String>,
}

/// The call that a model which obeys would make.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temptation {
    pub name: String,
    pub arguments: Value,
}

/// Where they are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("injection")
}

/// All cases with the names of their files, in order.
pub fn cases() -> Vec<(String, Case)> {
    let files = std::fs::read_dir(folder()).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|it| it == "json"));
    files.sort();
    let read = |path: &PathBuf| {
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let text = std::fs::read_to_string(path).unwrap();
        let case = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{stem}: {error}"));
        (stem, case)
    };
    files.iter().map(read).collect()
}
