//! Bills as CSV with a header. With a column `request` each line is an attempt, else a model's day.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use meter::NanoUsd;
use meter::books::bill::BillRow;
use meter::books::change::half_even;

use super::{Lines, decimal};

/// The columns that are read.
const COLUMNS: [&str; 10] = [
    "request",
    "day",
    "attempt",
    "model",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "requests",
    "cost_usd",
    "cost_pico",
];

/// Names of columns that are not read: whoever misspelt one looks for its figures in vain.
pub(super) fn unread(text: &str) -> Vec<String> {
    let header = rows(text).next().map(cells).unwrap_or_default();
    let unread = header
        .into_iter()
        .filter(|name| !COLUMNS.contains(&name.as_str()));
    unread.collect()
}

fn rows(text: &str) -> impl Iterator<Item = &str> {
    // Spreadsheets put a mark of the encoding in front.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().filter(|line| !line.trim().is_empty())
}

/// Reads lines into `lines`.
pub(super) fn read(text: &str, lines: &mut Lines<'_>) -> anyhow::Result<()> {
    let mut rows = rows(text);
    let header = cells(rows.next().context("the file is empty")?);
    let by_request = header.iter().any(|name| name == "request");
    ensure!(
        by_request || header.iter().any(|name| name == "day"),
        "the header has neither `request` nor `day`; columns: request or day, attempt, model, \
         prompt_tokens, cached_tokens, output_tokens, requests, cost_usd or cost_pico"
    );
    for (number, line) in rows.enumerate() {
        let cells = cells(line);
        ensure!(
            cells.len() == header.len(),
            "line {} has {} cells, and the header has {}",
            number + 2,
            cells.len(),
            header.len()
        );
        let row: HashMap<&str, String> = header.iter().map(String::as_str).zip(cells).collect();
        one(&row, by_request, lines).with_context(|| format!("line {}", number + 2))?;
    }
    Ok(())
}

fn one(row: &HashMap<&str, String>, by_request: bool, lines: &mut Lines<'_>) -> anyhow::Result<()> {
    let text = |name: &str| row.get(name).map_or("", |cell| cell.trim());
    let number = |name: &str| -> anyhow::Result<Option<i64>> {
        match text(name) {
            "" => Ok(None),
            digits => digits
                .parse()
                .map(Some)
                .with_context(|| format!("`{name}` is `{digits}`")),
        }
    };
    let tokens = match number("prompt_tokens")? {
        None => None,
        Some(prompt) => Some([
            prompt,
            number("cached_tokens")?.unwrap_or(0),
            number("output_tokens")?.unwrap_or(0),
        ]),
    };
    let cost = cost(text("cost_usd"), text("cost_pico"))?;
    if by_request {
        let request = text("request");
        let model = (lines.model)(text("model"));
        lines.rows.push(BillRow {
            request: request.parse().with_context(|| format!("`{request}`"))?,
            attempt: u16::try_from(number("attempt")?.unwrap_or(0))?,
            tokens: tokens.map(possible).transpose()?,
            cost: cost.context("it has no cost")?,
            model,
        });
        let row = lines
            .rows
            .last()
            .map(|row| (row.request.unix_ms(), row.model.clone()));
        if let Some((at, model)) = row {
            lines.add(at, &model, tokens, 1, cost);
        }
        return Ok(());
    }
    let day = text("day");
    let at: jiff::Timestamp = format!("{day}T00:00:00Z")
        .parse()
        .with_context(|| format!("`{day}`"))?;
    let calls = number("requests")?.unwrap_or(0);
    lines.add(at.as_millisecond(), text("model"), tokens, calls, cost);
    Ok(())
}

/// Tokens that one attempt can have used.
fn possible(tokens: [i64; 3]) -> anyhow::Result<[i64; 3]> {
    let most = i64::try_from(wire::usage::MOST)?;
    ensure!(
        tokens.iter().all(|count| (0..=most).contains(count)),
        "it has less than no tokens, or more than any call uses"
    );
    Ok(tokens)
}

fn cost(usd: &str, pico: &str) -> anyhow::Result<Option<NanoUsd>> {
    let (text, places) = match (usd, pico) {
        ("", "") => return Ok(None),
        ("", pico) => (pico, 0),
        (usd, _) => (usd, 12),
    };
    let pico = decimal(text, places).with_context(|| format!("`{text}` is not an amount"))?;
    half_even(pico, 1_000)
        .map(|nano| Some(NanoUsd(nano)))
        .context("too much")
}

/// The cells of a line; quotes may stand around a cell, and twice for one inside.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            other => cell.push(other),
        }
    }
    cells.push(cell);
    cells
}
