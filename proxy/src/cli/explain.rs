//! `pareto explain`: one request id answers who called, why this model, and what it cost.

use anyhow::ensure;
use clap::Args;
use comfy_table::Table;
use meter::books::Correction;
use meter::books::change::CLASSES;
use meter::{Entry, Held, NanoUsd};
use wire::RequestId;

use super::{File, load, quiet, say};
use crate::assemble;

#[derive(Debug, Args)]
pub(super) struct Explain {
    #[command(flatten)]
    file: File,
    /// The request id, from the answer's `x-request-id` header.
    request: RequestId,
}

impl Explain {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        let config = load(&self.file.config)?;
        let (entries, open) = assemble::ledger(&config)?.call(self.request)?;
        let corrections = assemble::desk(&config)?.books.corrections(self.request)?;
        ensure!(
            !entries.is_empty() || !open.is_empty() || !corrections.is_empty(),
            "no call {} in the ledger; a call that was refused before any upstream is only in the log",
            self.request
        );
        for held in entries.iter().map(|entry| &entry.held).chain(&open).take(1) {
            say(&caller(held, config.routing.deep_per_thousand))?;
        }
        for entry in &entries {
            say(&attempt(entry))?;
        }
        for held in &open {
            say(&format!(
                "attempt {} at {} is still under way; up to {} USD are held",
                held.attempt, held.model, held.bound
            ))?;
        }
        if !corrections.is_empty() {
            say(&corrected(&corrections))?;
        }
        let settled: NanoUsd = entries.iter().map(|entry| entry.cost).sum();
        let changed: NanoUsd = corrections.iter().map(|it| it.change.cost).sum();
        say(&format!(
            "total: {} USD over {} attempts",
            settled + changed,
            entries.len()
        ))
    }
}

/// What was changed since, by whom and why.
fn corrected(corrections: &[Correction]) -> String {
    let mut table = Table::new();
    table.set_header([
        "attempt",
        "correction",
        "cost, USD",
        "tokens",
        "by",
        "why",
        "reference",
    ]);
    for it in corrections {
        let tokens = CLASSES.iter().zip(it.change.counts);
        let tokens: Vec<String> = tokens
            .filter(|(_, count)| *count != 0)
            .map(|(class, count)| format!("{class} {count:+}"))
            .collect();
        table.add_row([
            it.attempt.to_string(),
            format!("{} {}", it.kind.as_str(), it.rev),
            it.change.cost.to_usd(),
            tokens.join(", "),
            it.author.clone(),
            it.reason.clone(),
            it.reference.clone(),
        ]);
    }
    table.to_string()
}

fn caller(held: &Held, deep_per_thousand: u16) -> String {
    let subject = &held.subject;
    let mut table = Table::new();
    table.add_row(["request", &held.request.to_string()]);
    table.add_row([
        "tenant / team / project / key",
        &format!(
            "{} / {} / {} / {}",
            subject.tenant, subject.team, subject.project, subject.key
        ),
    ]);
    table.add_row([
        "dialect",
        &format!(
            "{}{}",
            held.dialect,
            if held.stream { ", streamed" } else { "" }
        ),
    ]);
    table.add_row(["asked for", &*held.requested]);
    let why = match &*held.reason {
        "score" => "the classifier's score, against the tenant's threshold",
        "split" => "the tenant's split, which overruled the score to hold its target",
        "cascade" => {
            "the score is near the tenant's threshold: fast first, deep if that fails a check"
        }
        "pinned" => "the caller named the tier",
        "named" => "the caller named the model",
        "only_tier" => "only this tier has a model for such calls",
        "budget" => {
            "a budget that is nearly spent, or ahead of its plan, sends calls to the fast tier"
        }
        "session" => "a tool loop under way stays with the model that began it",
        other => other,
    };
    table.add_row(["route", &format!("{}: {why}", held.reason)]);
    table.add_row(["session", &format!("{:016x}", held.session)]);
    if let Some(score) = held.score_milli {
        let share = f64::from(deep_per_thousand) / 10.0;
        table.add_row([
            "score",
            &format!(
                "0.{score:03} that deep is needed (weights {}, target {share} % deep)",
                router::version()
            ),
        ]);
    }
    table.to_string()
}

fn attempt(entry: &Entry) -> String {
    let (held, usage) = (&entry.held, &entry.usage);
    let mut table = Table::new();
    table.set_header([
        format!("attempt {}", held.attempt),
        format!("{} ({}) at {}", held.model, held.tier, held.endpoint),
    ]);
    table.add_row([
        "outcome".to_owned(),
        format!("{}, status {}", entry.outcome.as_str(), entry.status),
    ]);
    if !held.escalated.is_empty() {
        let what = match &*held.reason {
            "escalated" => "the fast answer before it",
            _ => "this answer",
        };
        let why = format!("{what} failed the check `{}`", held.escalated);
        table.add_row(["cascade".to_owned(), why]);
    }
    if !held.losses.is_empty() {
        table.add_row(["lost on the way".to_owned(), held.losses.to_string()]);
    }
    table.add_row(["usage".to_owned(), format!("from {}", entry.source)]);
    for (class, tokens) in [
        ("input", usage.input),
        ("cache read", usage.cache_read),
        ("cache write, 5 min", usage.cache_write_5m),
        ("cache write, 1 h", usage.cache_write_1h),
        ("output", usage.output),
        ("reasoning", usage.reasoning),
        ("audio", usage.audio()),
        ("web searches", usage.web_searches),
    ] {
        if tokens > 0 {
            table.add_row([format!("  {class}"), tokens.to_string()]);
        }
    }
    let price = if held.price.is_empty() {
        "unpriced"
    } else {
        &*held.price
    };
    table.add_row(["price".to_owned(), price.to_owned()]);
    table.add_row(["cost, USD".to_owned(), entry.cost.to_usd()]);
    table.add_row(["held before, USD".to_owned(), held.bound.to_usd()]);
    table.add_row(["had it gone deep, USD".to_owned(), entry.baseline.to_usd()]);
    if let Some(ms) = entry.first_byte_ms {
        table.add_row(["first content after".to_owned(), format!("{ms} ms")]);
    }
    table.to_string()
}
