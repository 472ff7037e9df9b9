//! What is wrong with a configuration, and where: file, line, column, and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};
use std::string::FromUtf8Error;

use toml::de::{DeTable, DeValue};

/// One thing that is wrong. Lines and columns count from 1; 0 stands for the whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// A configuration that can not be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    path: PathBuf,
    /// Everything that is wrong with it.
    pub problems: Vec<Problem>,
}

impl Invalid {
    pub(super) fn new(path: &Path, problems: Vec<Problem>) -> Self {
        Self {
            path: path.to_owned(),
            problems,
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let end = if index == 0 { "" } else { "\n" };
            write!(f, "{end}{}:", self.path.display())?;
            if problem.line > 0 {
                write!(f, "{}:{}:", problem.line, problem.column)?;
            }
            write!(f, " {}", problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

/// The problem that the TOML reader reports, with a suggestion for a mistyped key.
pub(super) fn of_toml(text: &str, error: &toml::de::Error) -> Problem {
    let (line, column) = error.span().map_or((0, 0), |span| place(text, span.start));
    let message = error.message().trim_end().replace('\n', ", ");
    Problem {
        line,
        column,
        message: suggest(&message).unwrap_or(message),
    }
}

/// The problem with the first bytes that are no text.
pub(super) fn of_bytes(error: &FromUtf8Error) -> Problem {
    let read = error.utf8_error().valid_up_to();
    let before = String::from_utf8_lossy(error.as_bytes().get(..read).unwrap_or_default());
    let (line, column) = place(&before, before.len());
    Problem {
        line,
        column,
        message: "what stands here is no UTF-8; write the file in UTF-8".to_owned(),
    }
}

/// The problem `message` with the value at `path`, for instance `model[2].endpoint`.
pub(super) fn at(text: &str, path: &str, message: String) -> Problem {
    let offset = DeTable::parse(text).ok().and_then(|table| {
        let mut offset = table.span().start;
        let mut value: Option<&DeValue<'_>> = None;
        for step in path.split('.') {
            let (key, index) = match step.split_once('[') {
                Some((key, rest)) => (key, rest.trim_end_matches(']').parse::<usize>().ok()),
                None => (step, None),
            };
            let found = match value {
                None => table.get_ref().get(key),
                Some(inside) => inside.as_table().and_then(|table| table.get(key)),
            };
            let Some(mut found) = found else { break };
            if let Some(item) = index.and_then(|i| found.get_ref().as_array()?.get(i)) {
                found = item;
            }
            offset = found.span().start;
            value = Some(found.get_ref());
        }
        value.map(|_| offset)
    });
    let (line, column) = offset.map_or((0, 0), |offset| place(text, offset));
    Problem {
        line,
        column,
        message,
    }
}

/// Line and column of a byte offset, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(0, |last| last.chars().count())
        + 1;
    (line, column)
}

/// Rewrites ``unknown field `x`, expected one of `y`, `z` `` into a suggestion.
fn suggest(message: &str) -> Option<String> {
    let (unknown, expected) = message
        .strip_prefix("unknown field `")?
        .split_once("`, expected ")?;
    let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let nearest = nearest(unknown, known.iter().copied());
    Some(match nearest {
        Some(near) => format!("unknown key `{unknown}`; did you mean `{near}`?"),
        None => format!(
            "unknown key `{unknown}`; keys here are {}",
            known.join(", ")
        ),
    })
}

/// The word of `known` that `word` most likely stands for, if any is near.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|other| (distance(word, other), other))
        .filter(|(distance, _)| *distance <= 1 + word.len().div_euclid(4))
        .min()
        .map(|(_, other)| other)
}

/// Levenshtein distance in bytes; names here are ASCII.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (y, above) in b.bytes().zip(row.iter_mut().skip(1)) {
            let next = (diagonal + usize::from(x != y))
                .min(*above + 1)
                .min(left + 1);
            diagonal = std::mem::replace(above, next);
            left = next;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}
