//! `pareto reconcile`: providers' bills in, differences out.

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use meter::books::bill::{Cause, Imported};

use super::{desk, span};
use crate::books::import::{self, DAY_MS, Format};
use crate::cli::usage::moment;
use crate::cli::{File, in_order, load, plain, say};
use crate::clock::now_ms;

#[derive(Debug, Args)]
pub(in crate::cli) struct Reconcile {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Read a provider's bill.
    Import(Import),
    /// Make entries equal to the bills by request, row for row.
    Apply(Apply),
    /// Hold the bills against the ledger by day and model.
    Report(Report),
}

#[derive(Debug, Args)]
struct Import {
    #[command(flatten)]
    file: File,
    #[arg(long, value_enum)]
    format: Format,
    /// The endpoint that it is for; several where one account serves several.
    #[arg(long = "endpoint", required = true)]
    endpoints: Vec<String>,
    /// It has every call of its period: what it does not have was not billed.
    #[arg(long)]
    complete: bool,
    /// The period's begin; the bill's first day if absent.
    #[arg(long)]
    from: Option<String>,
    /// The period's end, exclusive; the end of the bill's last day if absent.
    #[arg(long)]
    until: Option<String>,
    /// The bill.
    bill: PathBuf,
}

#[derive(Debug, Args)]
struct Apply {
    #[command(flatten)]
    file: File,
    /// One bill only; all of them, oldest first, if absent.
    #[arg(long)]
    bill: Option<String>,
}

#[derive(Debug, Args)]
struct Report {
    #[command(flatten)]
    file: File,
    /// One day only: 2026-11-21.
    #[arg(long)]
    day: Option<String>,
    #[arg(long)]
    from: Option<String>,
    #[arg(long)]
    until: Option<String>,
}

impl Reconcile {
    pub(in crate::cli) fn run(self) -> anyhow::Result<()> {
        match self.act {
            Act::Import(import) => import.run(),
            Act::Apply(apply) => apply.run(),
            Act::Report(report) => report.run(),
        }
    }
}

impl Import {
    fn run(self) -> anyhow::Result<()> {
        let config = load(&self.file.config)?;
        let known: Vec<&str> = config.endpoints.iter().map(|it| it.name.as_str()).collect();
        for endpoint in &self.endpoints {
            ensure!(
                known.contains(&endpoint.as_str()),
                "there is no endpoint `{endpoint}` in the configuration; --endpoint takes {}",
                known.join(", ")
            );
        }
        let desk = desk(&self.file)?;
        let text = std::fs::read_to_string(&self.bill)
            .with_context(|| format!("reading {}", self.bill.display()))?;
        let model = |theirs: &str| desk.prices.model(theirs);
        let mut bill = import::read(self.format, &text, &self.endpoints, &model)
            .with_context(|| self.bill.display().to_string())?;
        let unread = import::unread(self.format, &text);
        if !unread.is_empty() {
            say(&format!("columns that are not read: {}", unread.join(", ")))?;
        }
        bill.imported_at_ms = now_ms();
        bill.complete = self.complete;
        if let Some(from) = &self.from {
            bill.from_ms = moment(from)?;
        }
        if let Some(until) = &self.until {
            bill.until_ms = moment(until)?;
        }
        in_order(bill.from_ms, bill.until_ms)?;
        desk.books.import(&bill)?;
        say(&format!(
            "bill {}: {} days and models, {} lines by request",
            bill.id,
            bill.days.len(),
            bill.rows_count
        ))
    }
}

impl Apply {
    fn run(self) -> anyhow::Result<()> {
        let desk = desk(&self.file)?;
        let mut bills: Vec<Imported> = desk.books.bills()?;
        bills.reverse();
        bills.retain(|bill| match &self.bill {
            Some(id) => bill.id == *id,
            None => bill.rows_count > 0,
        });
        ensure!(
            !bills.is_empty(),
            "there is no such bill; `reconcile import` reads one"
        );
        for bill in &bills {
            let written = desk.apply(bill, now_ms())?;
            say(&format!(
                "bill {} of {}: {written} corrections",
                bill.id,
                bill.endpoint()
            ))?;
        }
        Ok(())
    }
}

impl Report {
    fn run(self) -> anyhow::Result<()> {
        let desk = desk(&self.file)?;
        let (from, until) = if let Some(day) = &self.day {
            (moment(day)?, moment(day)? + DAY_MS)
        } else {
            let span = span(self.from.as_deref(), self.until.as_deref())?;
            (span.from_ms, span.until_ms)
        };
        let verdict = desk.report(from, until, now_ms())?;
        let mut table = Table::new();
        table.set_header([
            "day",
            "endpoint",
            "model",
            "cause",
            "bill tokens",
            "our tokens",
            "bill_usd",
            "our_usd",
            "drift_usd",
        ]);
        for drift in &verdict.drifts {
            let tokens = |tokens: [i64; 3]| format!("{}+{}", tokens[0], tokens[2]);
            let day = jiff::Timestamp::from_millisecond(drift.day_ms)?.to_string();
            table.add_row([
                day.chars().take(10).collect(),
                drift.endpoint.clone(),
                drift.model.clone(),
                drift.cause.as_str().to_owned(),
                tokens(drift.bill_tokens),
                tokens(drift.own_tokens),
                drift
                    .bill_cost
                    .map_or_else(|| "-".to_owned(), NanoUsd::to_usd),
                drift.own_cost.to_usd(),
                drift.difference().to_usd(),
            ]);
        }
        for column in table.column_iter_mut().skip(4) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        say(&plain::table(&mut table))?;
        for capture in &verdict.captures {
            let ppm = capture.ratio_ppm;
            say(&format!(
                "{}: {}.{:06} of the bill is in the ledger",
                capture.endpoint,
                ppm.div_euclid(1_000_000),
                ppm.rem_euclid(1_000_000)
            ))?;
        }
        let agree = verdict
            .drifts
            .iter()
            .filter(|it| it.cause == Cause::Nothing)
            .count();
        say(&format!("{agree} of {} agree", verdict.drifts.len()))
    }
}
