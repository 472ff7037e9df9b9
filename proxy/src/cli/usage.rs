//! `pareto usage`: sums of the ledger, as a table for people or as CSV for programs.

use clap::Args;
use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use meter::ledger::{UsageQuery, UsageRow};
use wire::Usage as Tokens;

use super::{File, in_order, load, plain, quiet, say};
use crate::books::export::quoted;
use crate::{admin, assemble};

#[derive(Debug, Args)]
pub(super) struct Usage {
    #[command(flatten)]
    file: File,
    /// What to group by: tenant, team, project, key, user, workflow, model, endpoint, tier, lane, price, day, hour.
    #[arg(long, default_value = "tenant,model,tier,day")]
    by: String,
    /// One tenant only.
    #[arg(long)]
    tenant: Option<String>,
    /// From this day or moment on, UTC: 2026-11-21 or 2026-11-21T14:00:00Z.
    #[arg(long)]
    from: Option<String>,
    /// Up to, not including, this day or moment.
    #[arg(long)]
    until: Option<String>,
    /// Print CSV.
    #[arg(long)]
    csv: bool,
}

/// Columns behind the groups.
const COLUMNS: [&str; 9] = [
    "calls",
    "failed",
    "input",
    "cache_read",
    "cache_write",
    "output",
    "reasoning",
    "cost_usd",
    "all_deep_usd",
];

impl Usage {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        let by = admin::dimensions(&self.by).map_err(anyhow::Error::msg)?;
        let query = UsageQuery {
            from_ms: self.from.as_deref().map(moment).transpose()?,
            until_ms: self.until.as_deref().map(moment).transpose()?,
            tenant: self.tenant,
            by,
        };
        if let (Some(from), Some(until)) = (query.from_ms, query.until_ms) {
            in_order(from, until)?;
        }
        let rows = assemble::kept_ledger(&load(&self.file.config)?)?.usage(&query)?;
        let names: Vec<&str> = self
            .by
            .split(',')
            .map(str::trim)
            .filter(|n| !n.is_empty())
            .collect();
        say(&if self.csv {
            csv(&names, &rows)
        } else {
            table(&names, &rows)
        })
    }
}

/// Milliseconds since 1970 of a day or moment.
pub(super) fn moment(text: &str) -> anyhow::Result<i64> {
    let full = if text.contains('T') {
        text.to_owned()
    } else {
        format!("{text}T00:00:00Z")
    };
    let parsed: Result<jiff::Timestamp, _> = full.parse();
    parsed.map(jiff::Timestamp::as_millisecond).map_err(|_| {
        anyhow::anyhow!("`{text}` is not a day or moment; write 2026-11-21 or 2026-11-21T14:00:00Z")
    })
}

fn cells(row: &UsageRow) -> Vec<String> {
    let Tokens {
        input,
        cache_read,
        output,
        reasoning,
        ..
    } = row.usage;
    let written = row.usage.cache_write();
    let counts = [
        row.calls, row.failed, input, cache_read, written, output, reasoning,
    ];
    let money = [row.cost, row.baseline].map(NanoUsd::to_usd);
    row.group
        .iter()
        .cloned()
        .chain(counts.map(|count| count.to_string()))
        .chain(money)
        .collect()
}

fn table(names: &[&str], rows: &[UsageRow]) -> String {
    let mut table = Table::new();
    table.set_header(names.iter().chain(&COLUMNS));
    for row in rows {
        table.add_row(cells(row));
    }
    let sum = UsageRow {
        group: names
            .iter()
            .enumerate()
            .map(|(i, _)| if i == 0 { "total" } else { "" }.to_owned())
            .collect(),
        calls: rows.iter().map(|row| row.calls).sum(),
        failed: rows.iter().map(|row| row.failed).sum(),
        usage: rows.iter().fold(Tokens::default(), |mut sum, row| {
            sum += row.usage;
            sum
        }),
        cost: rows.iter().map(|row| row.cost).sum(),
        baseline: rows.iter().map(|row| row.baseline).sum(),
        list: rows.iter().map(|row| row.list).sum(),
        sell: rows.iter().map(|row| row.sell).sum(),
    };
    table.add_row(cells(&sum));
    for column in table.column_iter_mut().skip(names.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    plain::table(&mut table)
}

fn csv(names: &[&str], rows: &[UsageRow]) -> String {
    let header = names
        .iter()
        .chain(&COLUMNS)
        .copied()
        .collect::<Vec<_>>()
        .join(",");
    let lines = rows.iter().map(|row| {
        cells(row)
            .iter()
            .map(|cell| quoted(cell))
            .collect::<Vec<_>>()
            .join(",")
    });
    std::iter::once(header)
        .chain(lines)
        .collect::<Vec<_>>()
        .join("\n")
}
