//! `pareto prices`: what is wrong with the price book, what differs between two, and other lists made
//! into new periods of one.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::Table;
use meter::ledger::{Dimension, UsageQuery, UsageRow};
use meter::price::diff::{self, Change, Finding, FindingKind, ReplayRow, Replayed};
use meter::price::import::{self, Source};
use meter::price::{Document, STANDARD};
use meter::{NanoUsd, PriceBook};
use serde::Serialize;
use serde_json::json;

use super::usage::moment;
use super::{File, load, plain, quiet, say};
use crate::books::export::quoted;
use crate::clock::now_ms;
use crate::config::Config;
use crate::{assemble, runtime};

const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Args)]
pub(super) struct Prices {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell what is wrong with the configured book, or soon will be. Fails where a model is unpriced.
    Check(Check),
    /// Tell what differs between two books.
    Diff(Diff),
    /// Turn another list into new periods of the configured book.
    Import(Import),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Args)]
struct Shape {
    /// Print JSON.
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print CSV.
    #[arg(long)]
    csv: bool,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Debug, Args)]
struct Diff {
    #[command(flatten)]
    file: File,
    /// The earlier book.
    old: PathBuf,
    /// The later book.
    new: PathBuf,
    /// Also tell what the ledger's usage of the last days would have cost, for instance 30d.
    #[arg(long, value_parser = days)]
    replay: Option<i64>,
    #[command(flatten)]
    shape: Shape,
}

#[derive(Debug, Args)]
struct Import {
    #[command(flatten)]
    file: File,
    format: Format,
    /// The list.
    list: PathBuf,
    /// From when on its prices hold, UTC: 2026-12-01 or 2026-12-01T00:00:00Z.
    #[arg(long)]
    from: String,
    /// Add offers that the book does not know.
    #[arg(long)]
    add: bool,
    /// Where the new book goes; only the difference is printed without it.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    shape: Shape,
}

/// A list that can be taken in.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// LiteLLM's map of model prices.
    Litellm,
    /// The api.json of models.dev.
    #[value(name = "models.dev")]
    ModelsDev,
    /// A book in the format of `config/prices.json`.
    Pricebook,
}

fn days(text: &str) -> Result<i64, String> {
    let number = text.strip_suffix('d').unwrap_or(text).parse::<i64>();
    let days = number.ok().filter(|days| (1..=3_650).contains(days));
    days.ok_or_else(|| format!("`{text}` is not a number of days; write 30d"))
}

impl Prices {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        quiet();
        match self.command {
            Command::Check(check) => check.run(),
            Command::Diff(diff) => diff.run().map(|()| ExitCode::SUCCESS),
            Command::Import(import) => import.run().map(|()| ExitCode::SUCCESS),
        }
    }
}

impl Check {
    fn run(&self) -> anyhow::Result<ExitCode> {
        let config = load(&self.file.config)?;
        let document = runtime::listed_prices(&config)?;
        let book = runtime::price_book(&config)?;
        let models: Vec<(String, Option<String>)> = config
            .models
            .iter()
            .map(|model| (model.name.clone(), model.price.clone()))
            .collect();
        let found = diff::check(&book, &models, now_ms());
        let as_of = document.as_of.clone().unwrap_or_default();
        let age = moment(&as_of)
            .ok()
            .map(|at| now_ms().saturating_sub(at).div_euclid(DAY_MS));
        if self.shape.json {
            say(&serde_json::to_string_pretty(
                &json!({ "version": book.version(), "as_of": as_of,
                "age_days": age, "offers": book.len(), "findings": found }),
            )?)?;
        } else {
            say(&self
                .shape
                .rows(&["kind", "id", "what"], found.iter().map(finding)))?;
        }
        if !self.shape.json && !self.shape.csv {
            let age = age.map_or_else(|| "unknown".to_owned(), |days| format!("{days} days"));
            say(&format!(
                "version {}, as of {as_of} (age: {age}), {} offers",
                book.version(),
                book.len()
            ))?;
        }
        let is_unpriced = found.iter().any(|it| it.kind == FindingKind::Unpriced);
        Ok(if is_unpriced {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }
}

fn finding(finding: &Finding) -> Vec<String> {
    vec![
        finding.kind.as_str().to_owned(),
        finding.id.clone(),
        finding.what.clone(),
    ]
}

impl Diff {
    fn run(&self) -> anyhow::Result<()> {
        let (old, new) = (runtime::document(&self.old)?, runtime::document(&self.new)?);
        let changes = diff::diff(&PriceBook::of(&old)?, &PriceBook::of(&new)?);
        let Some(days) = self.replay else {
            return self.shape.print(&CHANGE, &changes, change);
        };
        let config = load(&self.file.config)?;
        let replayed = replayed(&config, &old, &new, days)?;
        if self.shape.json {
            let all = json!({ "changes": changes, "replay": replayed });
            return say(&serde_json::to_string_pretty(&all)?);
        }
        self.shape.print(&CHANGE, &changes, change)?;
        let header = [
            "model",
            "recorded_usd",
            "old_usd",
            "new_usd",
            "delta_usd",
            "unpriced",
        ];
        let rows = replayed
            .iter()
            .chain(std::iter::once(&sum(&replayed)))
            .map(cost)
            .collect::<Vec<_>>();
        say(&self.shape.rows(&header, rows.into_iter()))
    }
}

const CHANGE: [&str; 5] = ["id", "where", "what", "old", "new"];

fn change(change: &Change) -> Vec<String> {
    let Change {
        id,
        place,
        what,
        old,
        new,
    } = change.clone();
    vec![id, place, what, old, new]
}

/// What the ledger's usage of the last `days` costs by each book, both with the configured prices of
/// one's own.
fn replayed(
    config: &Config,
    old: &Document,
    new: &Document,
    days: i64,
) -> anyhow::Result<Vec<Replayed>> {
    let build = |document: &Document| -> anyhow::Result<PriceBook> {
        let book = PriceBook::of(document)?.with_conflicts(config.meter.on_conflict);
        Ok(book.with_overrides(&config.prices)?)
    };
    let query = UsageQuery {
        from_ms: Some(now_ms().saturating_sub(days.saturating_mul(DAY_MS))),
        by: vec![Dimension::Model, Dimension::Day],
        ..UsageQuery::default()
    };
    let usage = assemble::ledger(config)?.usage(&query)?;
    let rows: Vec<ReplayRow> = usage
        .into_iter()
        .filter_map(|row| replay_row(config, row))
        .collect();
    Ok(diff::replay(&rows, &build(old)?, &build(new)?))
}

/// A row of the ledger by model and day. Rows do not tell their lane: they count as standard.
fn replay_row(config: &Config, row: UsageRow) -> Option<ReplayRow> {
    let [model, day] = <[String; 2]>::try_from(row.group).ok()?;
    let configured = config.models.iter().find(|it| it.name == model);
    Some(ReplayRow {
        price: configured
            .and_then(|it| it.price.clone())
            .unwrap_or_default(),
        model,
        lane: STANDARD.to_owned(),
        day_ms: moment(&day).ok()?,
        usage: row.usage,
        cost: row.cost,
    })
}

fn sum(rows: &[Replayed]) -> Replayed {
    Replayed {
        model: "total".to_owned(),
        recorded: rows.iter().map(|row| row.recorded).sum(),
        old: rows.iter().map(|row| row.old).sum(),
        new: rows.iter().map(|row| row.new).sum(),
        unpriced: String::new(),
    }
}

fn cost(row: &Replayed) -> Vec<String> {
    let money = [row.recorded, row.old, row.new, row.delta()].map(NanoUsd::to_usd);
    std::iter::once(row.model.clone())
        .chain(money)
        .chain(std::iter::once(row.unpriced.clone()))
        .collect()
}

impl Import {
    fn run(&self) -> anyhow::Result<()> {
        let config = load(&self.file.config)?;
        let book = runtime::listed_prices(&config)?;
        let source = match self.format {
            Format::Litellm => Source::LiteLlm,
            Format::ModelsDev => Source::ModelsDev,
            Format::Pricebook => Source::PriceBook,
        };
        let from = jiff::Timestamp::from_millisecond(moment(&self.from)?)?.to_string();
        let list = std::fs::read_to_string(&self.list)
            .with_context(|| format!("reading {}", self.list.display()))?;
        let (mut merged, changed) = import::merge(&book, &list, source, &from, self.add)
            .with_context(|| format!("importing {}", self.list.display()))?;
        let now = jiff::Timestamp::from_millisecond(now_ms())?.to_string();
        merged.as_of = now.split('T').next().map(str::to_owned);
        let changes = diff::diff(&PriceBook::of(&book)?, &PriceBook::of(&merged)?);
        self.shape.print(&CHANGE, &changes, change)?;
        if let Some(out) = &self.out {
            write(out, &merged)?;
            // What is printed on standard output stays readable by programs.
            if !self.shape.json && !self.shape.csv {
                say(&format!(
                    "{}: {} offers changed",
                    out.display(),
                    changed.len()
                ))?;
            }
        }
        Ok(())
    }
}

fn write(path: &Path, document: &Document) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

impl Shape {
    fn print<T: Serialize>(
        self,
        header: &[&str],
        items: &[T],
        cells: fn(&T) -> Vec<String>,
    ) -> anyhow::Result<()> {
        if self.json {
            return say(&serde_json::to_string_pretty(items)?);
        }
        say(&self.rows(header, items.iter().map(cells)))
    }

    /// A table for people, or CSV.
    fn rows(self, header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
        if self.csv {
            let line = |cells: Vec<String>| {
                let cells: Vec<String> = cells.iter().map(|cell| quoted(cell)).collect();
                cells.join(",")
            };
            let lines: Vec<String> = std::iter::once(header.join(","))
                .chain(rows.map(line))
                .collect();
            return lines.join("\n");
        }
        let mut table = Table::new();
        table.set_header(header);
        for row in rows {
            table.add_row(row);
        }
        plain::table(&mut table)
    }
}
