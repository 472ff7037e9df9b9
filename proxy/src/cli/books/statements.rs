//! `pareto statements` and `pareto credits`: what tenants owe, and what they were given.

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use meter::books::statement::{Grant, Month};

use super::{author, desk};
use crate::books::digest;
use crate::books::render::{self, Format};
use crate::cli::usage::moment;
use crate::cli::{File, plain, say};
use crate::clock::now_ms;

#[derive(Debug, Args)]
pub(in crate::cli) struct Statements {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Print the statement as it would be closed now.
    Draft(One),
    /// Print a closed statement.
    Show(One),
    /// Close a month: number it, seal it, and never change it again.
    Close(Close),
    /// List closed statements.
    List(List),
    /// Check every seal, every chain and every sum.
    Verify(List),
}

#[derive(Debug, Args)]
struct One {
    #[command(flatten)]
    file: File,
    #[arg(long)]
    tenant: String,
    /// 2026-11, in UTC.
    #[arg(long)]
    month: Month,
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
}

#[derive(Debug, Args)]
struct Close {
    #[command(flatten)]
    one: One,
    /// Even though the month is not over: what comes later is a note on the next statement.
    #[arg(long)]
    early: bool,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    file: File,
    #[arg(long)]
    tenant: Option<String>,
}

impl Statements {
    pub(in crate::cli) fn run(self) -> anyhow::Result<()> {
        match self.act {
            Act::Draft(one) => {
                let desk = desk(&one.file)?;
                let draft = desk.books.draft(&one.tenant, one.month, &*desk.prices)?;
                say(&render::statement(&draft, one.format)?)
            }
            Act::Show(one) => {
                let found = desk(&one.file)?.books.statement(&one.tenant, one.month)?;
                let found = found.context("it is not closed; `statements draft` shows it")?;
                say(&render::statement(&found, one.format)?)
            }
            Act::Close(close) => close.run(),
            Act::List(list) => list.run(),
            Act::Verify(list) => list.verify(),
        }
    }
}

impl Close {
    fn run(self) -> anyhow::Result<()> {
        let One {
            tenant,
            month,
            file,
            ..
        } = self.one;
        let over = month.end_ms() <= now_ms();
        ensure!(
            over || self.early,
            "{month} is not over in UTC; --early closes it all the same"
        );
        let desk = desk(&file)?;
        let closed = desk.books.close(&tenant, month, now_ms(), &*desk.prices)?;
        say(&format!(
            "closed {} as number {}: {} USD due, SHA-256 {}",
            closed.name(),
            closed.number,
            closed.totals.due,
            closed.hash
        ))
    }
}

impl List {
    fn run(self) -> anyhow::Result<()> {
        let all = desk(&self.file)?.books.statements(self.tenant.as_deref())?;
        let mut table = Table::new();
        table.set_header([
            "tenant",
            "month",
            "number",
            "cost_usd",
            "sell_usd",
            "notes_usd",
            "credits_usd",
            "due_usd",
            "sha256",
        ]);
        for it in all {
            let totals = it.totals;
            let money = [
                totals.cost,
                totals.sell,
                totals.notes,
                totals.credits,
                totals.due,
            ];
            let head = [it.tenant, it.month.to_string(), it.number.to_string()];
            let row = head
                .into_iter()
                .chain(money.map(NanoUsd::to_usd))
                .chain([it.hash]);
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(2).take(6) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        say(&plain::table(&mut table))
    }

    fn verify(self) -> anyhow::Result<()> {
        let desk = desk(&self.file)?;
        let wrong = desk.books.verify(self.tenant.as_deref())?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        let count = desk.books.statements(self.tenant.as_deref())?.len();
        say(&format!(
            "{count} statements: every seal, chain and sum holds"
        ))
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Credits {
    #[command(subcommand)]
    act: CreditAct,
}

#[derive(Debug, Subcommand)]
enum CreditAct {
    /// Give a tenant a credit.
    Grant(GrantArgs),
    /// List credits with what is left of them.
    List(List),
}

#[derive(Debug, Args)]
struct GrantArgs {
    #[command(flatten)]
    file: File,
    #[arg(long)]
    tenant: String,
    /// The amount, for instance 50.00.
    #[arg(long)]
    usd: String,
    /// In force from this day on, UTC.
    #[arg(long)]
    from: String,
    /// Expires at this day, UTC.
    #[arg(long)]
    until: String,
    #[arg(long)]
    reason: String,
    /// Lower is used first.
    #[arg(long, default_value_t = 100)]
    priority: i64,
}

impl Credits {
    pub(in crate::cli) fn run(self) -> anyhow::Result<()> {
        match self.act {
            CreditAct::Grant(grant) => grant.run(),
            CreditAct::List(list) => {
                let mut table = Table::new();
                table.set_header([
                    "id", "tenant", "priority", "usd", "left_usd", "until", "reason",
                ]);
                for it in desk(&list.file)?.books.grants(list.tenant.as_deref())? {
                    let until = jiff::Timestamp::from_millisecond(it.until_ms)?.to_string();
                    table.add_row([
                        it.id,
                        it.tenant,
                        it.priority.to_string(),
                        it.amount.to_usd(),
                        it.left.to_usd(),
                        until,
                        it.reason,
                    ]);
                }
                say(&plain::table(&mut table))
            }
        }
    }
}

impl GrantArgs {
    fn run(self) -> anyhow::Result<()> {
        let amount = NanoUsd::from_usd(&self.usd)?;
        ensure!(
            !self.tenant.trim().is_empty(),
            "--tenant is empty; name one"
        );
        ensure!(!self.reason.trim().is_empty(), "--reason is empty; say why");
        ensure!(amount > NanoUsd::ZERO, "a credit of {} is none", self.usd);
        let now = now_ms();
        let id = format!("{}/{now}/{}/{}", self.tenant, self.usd, self.reason);
        let grant = Grant {
            id: format!("cr_{}", digest(id.as_bytes())),
            tenant: self.tenant,
            amount,
            left: amount,
            from_ms: moment(&self.from)?,
            until_ms: moment(&self.until)?,
            priority: self.priority,
            reason: self.reason,
            author: author(),
            created_at_ms: now,
        };
        ensure!(
            grant.from_ms < grant.until_ms,
            "it would end before it begins"
        );
        desk(&self.file)?.books.grant(&grant)?;
        say(&grant.id)
    }
}
