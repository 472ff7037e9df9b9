//! Exports: entries as CSV, JSON lines or Parquet, and FOCUS. Rows are read and written page by page, so
//! that an export is never in memory as a whole.

use meter::books::Terms;
use std::io::Write;

use anyhow::Context;
use meter::books::{Cell, EVENT_COLUMNS, Span};

use super::parquet::ParquetFile;
use super::{Desk, focus};

/// Rows read at a time.
const PAGE: u32 = 2_000;
const DAY_MS: i64 = 86_400_000;

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Csv,
    Jsonl,
    Parquet,
    /// The FinOps Open Cost and Usage Specification, as CSV.
    Focus,
}

impl Format {
    /// Its media type.
    pub(crate) const fn media(self) -> &'static str {
        match self {
            Self::Csv | Self::Focus => "text/csv; charset=utf-8",
            Self::Jsonl => "application/x-ndjson",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// A version of FOCUS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
pub(crate) enum Version {
    #[default]
    #[value(name = "1.2")]
    #[serde(rename = "1.2")]
    V12,
    #[value(name = "1.3")]
    #[serde(rename = "1.3")]
    V13,
    #[value(name = "1.4")]
    #[serde(rename = "1.4")]
    V14,
}

/// Writes the rows of `span` to `out`; returns how many.
pub(crate) fn write(
    desk: &Desk,
    format: Format,
    version: Version,
    span: &Span,
    out: &mut (dyn Write + Send),
) -> anyhow::Result<u64> {
    let rows = match format {
        Format::Focus => write_focus(desk, version, span, out)?,
        Format::Parquet => {
            let mut file = ParquetFile::begin(&mut *out, &EVENT_COLUMNS)?;
            let rows = pages(desk, span, &mut |page| file.write(page))?;
            file.end()?;
            rows
        }
        Format::Csv => {
            let names: Vec<&str> = EVENT_COLUMNS.iter().map(|(name, _)| *name).collect();
            writeln!(out, "{}", names.join(","))?;
            pages(desk, span, &mut |page| {
                for row in page {
                    writeln!(out, "{}", line(row))?;
                }
                Ok(())
            })?
        }
        Format::Jsonl => pages(desk, span, &mut |page| {
            for row in page {
                serde_json::to_writer(&mut *out, &object(row))?;
                writeln!(out)?;
            }
            Ok(())
        })?,
    };
    out.flush().context("writing the export")?;
    Ok(rows)
}

/// A row of [`EVENT_COLUMNS`] as an object.
pub(crate) fn object(row: &[Cell]) -> serde_json::Map<String, serde_json::Value> {
    let names = EVENT_COLUMNS.iter().map(|(name, _)| (*name).to_owned());
    let value = |cell: &Cell| match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Int(int) => (*int).into(),
        Cell::Text(text) => text.as_str().into(),
    };
    names.zip(row.iter().map(value)).collect()
}

/// The sequence number of a row, which is its first cell.
pub(crate) fn seq(row: &[Cell]) -> i64 {
    match row.first() {
        Some(Cell::Int(seq)) => *seq,
        _ => i64::MAX,
    }
}

fn pages(
    desk: &Desk,
    span: &Span,
    take: &mut dyn FnMut(&[Vec<Cell>]) -> anyhow::Result<()>,
) -> anyhow::Result<u64> {
    let (mut after, mut rows) = (0, 0);
    loop {
        let page = desk.books.events(span, after, PAGE)?;
        let Some(last) = page.last() else {
            return Ok(rows);
        };
        after = seq(last);
        rows += u64::try_from(page.len())?;
        take(&page)?;
    }
}

/// A day at a time: a day's groups are as many as its hours, keys and models.
fn write_focus(
    desk: &Desk,
    version: Version,
    span: &Span,
    out: &mut dyn Write,
) -> anyhow::Result<u64> {
    let columns = focus::columns(version);
    writeln!(out, "{}", columns.join(","))?;
    let closed = desk.books.statements(span.tenant.as_deref())?;
    let invoices = focus::Invoices::of(&closed);
    let mut rows = 0;
    let mut put = |row: &focus::Row<'_>| -> anyhow::Result<()> {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| quoted(&row.cell(column).unwrap_or_default()))
            .collect();
        rows += 1;
        writeln!(out, "{}", cells.join(",")).map_err(Into::into)
    };
    let mut day = span.from_ms.div_euclid(DAY_MS) * DAY_MS;
    while day < span.until_ms {
        let one = Span {
            from_ms: day.max(span.from_ms),
            until_ms: (day + DAY_MS).min(span.until_ms),
            ..span.clone()
        };
        for group in desk.books.groups(&one)? {
            let units = desk.prices.units(&group.price, group.context_tier);
            for row in focus::rows(&group, units, &invoices) {
                put(&row)?;
            }
        }
        day += DAY_MS;
    }
    for statement in &closed {
        let start = statement.month.start_ms();
        if start >= span.from_ms && start < span.until_ms {
            for used in &statement.credits {
                put(&focus::credit(statement, used))?;
            }
        }
    }
    Ok(rows)
}

fn line(row: &[Cell]) -> String {
    let cells: Vec<String> = row
        .iter()
        .map(|cell| match cell {
            Cell::Null => String::new(),
            Cell::Int(int) => int.to_string(),
            Cell::Text(text) => quoted(text),
        })
        .collect();
    cells.join(",")
}

/// A cell that a spreadsheet neither splits nor takes for a formula.
pub(crate) fn quoted(cell: &str) -> String {
    let risky = cell.starts_with(['=', '+', '@', '\t', '\r', '\n'])
        || (cell.starts_with('-') && cell.parse::<f64>().is_err());
    let cell = if risky {
        format!("'{cell}")
    } else {
        cell.to_owned()
    };
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell
    }
}
