//! `pareto report`: what routing was worth, and what changes of the model cost conversations.

mod sessions;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use comfy_table::{CellAlignment, Table};
use meter::books::Span;
use meter::finance::{Filter, Routed, RoutedSum};
use meter::routing::{Appraiser, Interval};
use meter::{NanoUsd, Worth};

use super::usage::moment;
use super::{File, load, plain, quiet, say, until};
use crate::assemble;
use crate::clock::now_ms;

const DAY_MS: i64 = 86_400_000;

#[derive(Debug, Args)]
pub(super) struct Report {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shares, quality and savings of routing, with intervals.
    Routing(Routing),
    /// What conversations cost, and what their changes of the model cost or saved.
    Sessions(sessions::Sessions),
}

/// Which calls are meant.
#[derive(Debug, Args)]
pub(super) struct Meant {
    #[command(flatten)]
    pub(super) file: File,
    /// From this day or moment on, UTC; the last seven days if absent.
    #[arg(long)]
    from: Option<String>,
    /// Up to, not including, this day or moment; now if absent.
    #[arg(long)]
    until: Option<String>,
    /// One tenant only.
    #[arg(long)]
    tenant: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Meant {
    /// The same for the entries themselves.
    pub(super) fn span(&self) -> anyhow::Result<Span> {
        let filter = self.filter()?;
        Ok(Span {
            from_ms: filter.from_ms,
            until_ms: filter.until_ms,
            tenant: filter.tenant,
            ..Span::default()
        })
    }

    fn filter(&self) -> anyhow::Result<Filter> {
        let now = now_ms();
        // Sums are kept by day in UTC, so that the first day is a whole one.
        let week = (now - 7 * DAY_MS).div_euclid(DAY_MS) * DAY_MS;
        let from_ms = self.from.as_deref().map_or(Ok(week), moment)?;
        let until_ms = until(self.until.as_deref(), from_ms, now)?;
        Ok(Filter {
            from_ms,
            until_ms,
            tenant: self.tenant.clone(),
            ..Filter::default()
        })
    }
}

#[derive(Debug, Args)]
struct Routing {
    #[command(flatten)]
    meant: Meant,
}

impl Report {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        match self.command {
            Command::Routing(routing) => routing.run(),
            Command::Sessions(sessions) => sessions.run(),
        }
    }
}

impl Routing {
    fn run(self) -> anyhow::Result<()> {
        let config = load(&self.meant.file.config)?;
        let worth = assemble::appraiser(&config)?.worth(&self.meant.filter()?)?;
        if self.meant.json {
            return say(&serde_json::to_string_pretty(&worth)?);
        }
        say(&text(&worth, &config.routing))
    }
}

/// All of it for the person at the terminal.
pub(super) fn text(worth: &Worth, config: &router::Config) -> String {
    let routes = &worth.routes;
    let class = |it: &Routed| format!("{} / {}", it.tenant, named(&it.class));
    let target = |key: &str| Some(config.target(key.rsplit(" / ").next().unwrap_or_default()));
    [
        shares(routes, "tenant / class", class, target),
        shares(routes, "step", |it| named(&it.step), |_| None),
        shares(routes, "reason", |it| it.reason.clone(), |_| None),
        money(worth),
        quality(worth),
        learning(worth),
    ]
    .join("\n")
}

/// A name, or a dash where there is none: calls from before decisions were kept.
fn named(name: &str) -> String {
    if name.is_empty() { "-" } else { name }.to_owned()
}

/// One line for each group of decisions, and a line for all.
fn shares(
    routes: &[Routed],
    title: &str,
    key: impl Fn(&Routed) -> String,
    target: impl Fn(&str) -> Option<u16>,
) -> String {
    let (mut groups, mut all): (BTreeMap<String, RoutedSum>, RoutedSum) =
        (BTreeMap::new(), RoutedSum::default());
    for row in routes {
        groups.entry(key(row)).or_default().add(row);
        all.add(row);
    }
    let mut table = Table::new();
    table.set_header([
        title,
        "calls",
        "deep %",
        "target %",
        "cost USD",
        "all deep USD",
        "saved USD",
        "lost by caches USD",
    ]);
    let mut line = |name: &str, sum: &RoutedSum, target: Option<u16>| {
        table.add_row([
            name.to_owned(),
            sum.calls.to_string(),
            percent(sum.deep, sum.calls),
            target.map_or_else(String::new, |it| percent(i64::from(it), 1_000)),
            sum.cost.to_usd(),
            sum.baseline.to_usd(),
            sum.saved().to_usd(),
            sum.lost.to_usd(),
        ]);
    };
    for (name, sum) in &groups {
        line(name, sum, target(name));
    }
    line("all", &all, None);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    plain::table(&mut table)
}

pub(super) fn percent(part: i64, whole: i64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    let tenths = (i128::from(part) * 2_000 + i128::from(whole)) / (i128::from(whole) * 2);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What routing saved: as the ledger prices it, and as the control group tells.
fn money(worth: &Worth) -> String {
    let mut all = RoutedSum::default();
    worth.routes.iter().for_each(|row| all.add(row));
    let exact = format!(
        "saved by routing: {} USD of {} USD, the price of the same tokens at the deep tier",
        all.saved().to_usd(),
        all.baseline.to_usd(),
    );
    let saved = &worth.saved_per_call;
    if !saved.is_telling {
        return format!(
            "{exact}\nno estimate with the deep tier's own answers: the control group is too small"
        );
    }
    let times = |nano: i64| {
        let whole = i128::from(nano) * i128::from(worth.scored);
        NanoUsd(i64::try_from(whole).unwrap_or(i64::MAX)).to_usd()
    };
    format!(
        "{exact}\nwith answers of the deep tier's own length: {} USD [{}, {}] over {} scored calls, from \
         {} drawn by lot",
        times(saved.value),
        times(saved.low),
        times(saved.high),
        worth.scored,
        saved.calls,
    )
}

/// Quality under each policy, doubly robust.
fn quality(worth: &Worth) -> String {
    if worth.routed.calls == 0 {
        return "no estimate of quality: no verdict on a scored call; send some to POST /v1/feedback"
            .to_owned();
    }
    let mut table = Table::new();
    table.set_header(["quality, doubly robust", "%", "95 % interval", "calls"]);
    for (name, interval) in [
        ("as routed", worth.routed),
        ("all fast", worth.fast),
        ("all deep", worth.deep),
        ("by lot, the same share deep", worth.lot),
        ("routed above the lot", worth.over_lot),
        ("all deep above routed", worth.under_deep),
    ] {
        let (value, bounds) = if interval.is_telling {
            (share(interval.value), bounds(&interval))
        } else {
            ("-".to_owned(), "too few drawn by lot".to_owned())
        };
        table.add_row([name.to_owned(), value, bounds, interval.calls.to_string()]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    plain::table(&mut table)
}

/// What tenants' verdicts have taught.
fn learning(worth: &Worth) -> String {
    if worth.learning.is_empty() {
        return "no tenant's verdicts have taught anything yet".to_owned();
    }
    let mut table = Table::new();
    table.set_header([
        "learning",
        "verdicts",
        "scores with",
        "turns",
        "gain of its own head a call, %",
    ]);
    for it in &worth.learning {
        let head = if it.serves {
            "its own head"
        } else {
            "everybody's"
        };
        table.add_row([
            it.tenant.clone(),
            it.judged.to_string(),
            head.to_owned(),
            it.turns.to_string(),
            format!("{} +- {}", share(it.gain_ppm), share(it.deviation_ppm)),
        ]);
    }
    plain::table(&mut table)
}

/// Millionths as per cent.
fn share(ppm: i64) -> String {
    let sign = if ppm < 0 { "-" } else { "" };
    let hundredths = (ppm.abs() + 50) / 100;
    format!("{sign}{}.{:02}", hundredths / 100, hundredths % 100)
}

fn bounds(interval: &Interval) -> String {
    format!("{} to {}", share(interval.low), share(interval.high))
}
