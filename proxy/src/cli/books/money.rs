//! `pareto rerate` and `pareto correct`: what calls cost, told anew.

use anyhow::Context;
use clap::Args;
use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use meter::books::Span;
use wire::RequestId;

use super::{author, desk, span};
use crate::books::{Effect, Late};
use crate::cli::{File, plain, say};
use crate::clock::now_ms;

#[derive(Debug, Args)]
pub(in crate::cli) struct Rerate {
    #[command(flatten)]
    file: File,
    /// From this day or moment on, UTC; the present month's first day if absent.
    #[arg(long)]
    from: Option<String>,
    /// Up to, not including, this day or moment; now if absent.
    #[arg(long)]
    until: Option<String>,
    /// One model only.
    #[arg(long)]
    model: Option<String>,
    /// Show the effect and write nothing.
    #[arg(long)]
    dry_run: bool,
}

impl Rerate {
    pub(in crate::cli) fn run(self) -> anyhow::Result<()> {
        let desk = desk(&self.file)?;
        let span = Span {
            model: self.model,
            ..span(self.from.as_deref(), self.until.as_deref())?
        };
        let effects = desk.rerate(&span, self.dry_run, now_ms())?;
        let mut table = Table::new();
        table.set_header([
            "model",
            "month",
            "calls",
            "in closed months",
            "before_usd",
            "after_usd",
            "effect_usd",
        ]);
        let mut all = Effect::default();
        for ((model, month), effect) in &effects {
            table.add_row(cells(model, &month.to_string(), effect));
            all.calls += effect.calls;
            all.closed += effect.closed;
            all.before += effect.before;
            all.after += effect.after;
        }
        table.add_row(cells("total", "", &all));
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        say(&plain::table(&mut table))?;
        say(if self.dry_run {
            "nothing was written"
        } else {
            "each difference is a row of its own beside its entry"
        })
    }
}

fn cells(model: &str, month: &str, effect: &Effect) -> [String; 7] {
    let effect_usd: NanoUsd = effect.after - effect.before;
    [
        model.to_owned(),
        month.to_owned(),
        effect.calls.to_string(),
        effect.closed.to_string(),
        effect.before.to_usd(),
        effect.after.to_usd(),
        effect_usd.to_usd(),
    ]
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Correct {
    #[command(flatten)]
    file: File,
    /// The request id, from the answer's `x-request-id` header.
    request: RequestId,
    /// Which attempt of it.
    #[arg(long, default_value_t = 0)]
    attempt: u16,
    /// What the attempt used in all, as JSON: {"input":10,"output":5}.
    #[arg(long)]
    usage: String,
    #[arg(long)]
    reason: String,
    /// A ticket, a mail, a bill.
    #[arg(long, default_value = "")]
    reference: String,
}

impl Correct {
    pub(in crate::cli) fn run(self) -> anyhow::Result<()> {
        let desk = desk(&self.file)?;
        let late = Late {
            attempt: self.attempt,
            usage: serde_json::from_str(&self.usage).context("--usage")?,
            reason: self.reason,
            reference: self.reference,
            author: author(),
            id: None,
        };
        let written = desk.late(self.request, &late, now_ms())?;
        say(if written {
            "corrected"
        } else {
            "this correction was there before; nothing changed"
        })
    }
}
