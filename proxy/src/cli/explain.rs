//! `pareto explain`: one request id answers who called, why this model, and what it cost.

use std::sync::Arc;

use anyhow::ensure;
use clap::Args;
use comfy_table::Table;
use meter::books::Correction;
use meter::books::change::CLASSES;
use meter::{Entry, Held, NanoUsd, Routing};
use router::Reason;
use wire::RequestId;

use super::{File, load, plain, quiet, say};
use crate::assemble;
use crate::config::Config;
use crate::learning;
use crate::runtime::Runtime;

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
        let (entries, open) = assemble::kept_ledger(&config)?.call(self.request)?;
        let corrections = assemble::desk(&config)?.books.corrections(self.request)?;
        ensure!(
            !entries.is_empty() || !open.is_empty() || !corrections.is_empty(),
            "no call {} in the ledger; a call that was refused before any upstream is only in the log",
            self.request
        );
        let first = entries.iter().map(|entry| &entry.held).chain(&open).next();
        if let Some(held) = first {
            say(&caller(held, &config.routing))?;
            if let Some(routing) = held.routing.as_deref() {
                say(&decision(routing))?;
            }
        }
        if let Some(entry) = entries.last() {
            say(&alternatives(entry, &config)?)?;
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
    plain::table(&mut table)
}

fn caller(held: &Held, routing: &router::Config) -> String {
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
    let known = Reason::ALL
        .into_iter()
        .find(|it| it.as_str() == &*held.reason);
    let why = known.map_or("", Reason::explained);
    table.add_row(["route", &format!("{}: {why}", held.reason)]);
    table.add_row(["session", &format!("{:016x}", held.session)]);
    if let Some(score) = held.score_milli {
        let class = held.routing.as_deref().map_or("", |it| &it.class);
        let share = f64::from(routing.target(class)) / 10.0;
        table.add_row([
            "score",
            &format!(
                "0.{score:03} that deep is needed (weights {}, target {share} % deep)",
                router::version()
            ),
        ]);
    }
    plain::table(&mut table)
}

/// What was known when it was decided.
fn decision(routing: &Routing) -> String {
    let mut table = Table::new();
    table.set_header(["decision", ""]);
    let millionths = |ppm: u32| format!("{}.{:06}", ppm / 1_000_000, ppm % 1_000_000);
    let list = |names: &[Arc<str>]| names.join(", ");
    let pairs = |pairs: &[(Arc<str>, Arc<str>)]| {
        let pairs: Vec<String> = pairs.iter().map(|(a, b)| format!("{a} ({b})")).collect();
        pairs.join(", ")
    };
    let lost = (routing.lost != NanoUsd::ZERO).then(|| {
        format!(
            "{} USD of cached prompt, left at {}",
            routing.lost, routing.seat
        )
    });
    for (name, value) in [
        (
            "class / step",
            format!("{} / {}", routing.class, routing.step),
        ),
        (
            "score",
            routing.score_ppm.map(millionths).unwrap_or_default(),
        ),
        (
            "threshold",
            routing.threshold_ppm.map(millionths).unwrap_or_default(),
        ),
        (
            "what stood out, in deviations",
            learning::stood_out(&routing.layers),
        ),
        ("odds of this tier", millionths(routing.propensity_ppm)),
        ("rules", list(&routing.rules)),
        ("rules on trial that would apply", list(&routing.would)),
        ("models kept from it", pairs(&routing.barred)),
        ("label", routing.label.to_string()),
        ("headers that rules look at", pairs(&routing.headers)),
        ("conversation was with", routing.seat.to_string()),
        ("lost by changing", lost.unwrap_or_default()),
    ] {
        if !value.is_empty() {
            table.add_row([name.to_owned(), value]);
        }
    }
    plain::table(&mut table)
}

/// What the same usage would have cost at each model.
fn alternatives(entry: &Entry, config: &Config) -> anyhow::Result<String> {
    let runtime = Runtime::build(config, None)?;
    let held = &entry.held;
    let mut table = Table::new();
    table.set_header(["model", "tier", "endpoint", "the same usage, USD"]);
    for target in runtime.everywhere() {
        let rates = runtime.rates(target, &held.lane, held.held_at_ms);
        let cost = rates.map(|it| it.rate(&entry.usage, entry.settled_at_ms).cost);
        let is_it = target.name == held.model && target.endpoint.name == held.endpoint;
        table.add_row([
            format!("{}{}", target.name, if is_it { " (this one)" } else { "" }),
            target.tier.to_string(),
            target.endpoint.name.to_string(),
            cost.map_or_else(|| "unpriced".to_owned(), NanoUsd::to_usd),
        ]);
    }
    Ok(plain::table(&mut table))
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
    plain::table(&mut table)
}
