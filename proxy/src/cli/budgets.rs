//! `pareto budgets`: how budgets stand, and dated changes of their limits.

use anyhow::Context;
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};
use meter::{NanoUsd, Override, Standing, Unit};

use super::{File, load, plain, quiet, say, usage::moment};
use crate::assemble;
use crate::clock::now_ms;

#[derive(Debug, Args)]
pub(super) struct Budgets {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Show every budget with what is settled, by the ledger.
    List {
        #[command(flatten)]
        file: File,
    },
    /// Change a limit for some time; what is in force is shown by `overrides`.
    Override {
        #[command(flatten)]
        file: File,
        /// The budget's id, as `list` shows it.
        #[arg(long)]
        budget: String,
        /// Decimal USD to add to the limit; less than nothing to lower it.
        #[arg(long, allow_hyphen_values = true)]
        usd: String,
        /// From this day or moment on, UTC; now if absent.
        #[arg(long)]
        from: Option<String>,
        /// Up to, not including, this day or moment.
        #[arg(long)]
        until: String,
        /// Who decided it.
        #[arg(long)]
        author: String,
        /// Why.
        #[arg(long)]
        reason: String,
    },
    /// Show all dated changes.
    Overrides {
        #[command(flatten)]
        file: File,
    },
}

impl Budgets {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        match self.act {
            Act::List { file } => {
                let config = load(&file.config)?;
                let ledger = assemble::kept_ledger(&config)?;
                let meter = assemble::offline_meter(&config, &*ledger)?;
                say(&table(&meter.standings(now_ms())))
            }
            Act::Override {
                file,
                budget,
                usd,
                from,
                until,
                author,
                reason,
            } => {
                let config = load(&file.config)?;
                let ledger = assemble::kept_ledger(&config)?;
                let now = now_ms();
                let meter = assemble::offline_meter(&config, &*ledger)?;
                let change = Override {
                    id: format!("{:016x}", crate::identify::random()?),
                    budget,
                    amount: NanoUsd::from_usd(&usd)?.0,
                    from_ms: from.as_deref().map(moment).transpose()?.unwrap_or(now),
                    until_ms: moment(&until)?,
                    author,
                    reason,
                    created_at_ms: now,
                };
                change.check(&meter.standings(now), now)?;
                ledger.add_override(&change).context("writing the change")?;
                say(&format!(
                    "{}: {usd} USD for {} until {until}; gateways take it up within a second",
                    change.id, change.budget
                ))
            }
            Act::Overrides { file } => {
                let ledger = assemble::kept_ledger(&load(&file.config)?)?;
                say(&overrides(&ledger.overrides()?))
            }
        }
    }
}

fn table(standings: &[Standing]) -> String {
    let mut table = Table::new();
    table.set_header([
        "id", "window", "kind", "limit", "extra", "settled", "leased", "left", "state",
    ]);
    for it in standings {
        let amount = |amount: i64| match it.unit {
            Unit::Usd => NanoUsd(amount).to_usd(),
            _ => amount.to_string(),
        };
        table.add_row([
            it.id.clone(),
            it.window.clone(),
            if it.hard { "hard" } else { "soft" }.to_owned(),
            amount(it.limit),
            amount(it.extra),
            amount(it.settled),
            amount(it.leased),
            amount(it.left()),
            it.state.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(3).take(5) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    plain::table(&mut table)
}

fn overrides(changes: &[Override]) -> String {
    let mut table = Table::new();
    table.set_header(["id", "budget", "USD", "from", "until", "author", "reason"]);
    for it in changes {
        table.add_row([
            it.id.clone(),
            it.budget.clone(),
            NanoUsd(it.amount).to_usd(),
            shown(it.from_ms),
            shown(it.until_ms),
            it.author.clone(),
            it.reason.clone(),
        ]);
    }
    plain::table(&mut table)
}

/// A moment in UTC, for people.
pub(super) fn shown(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| String::new(), |at| at.to_string())
}
