//! `pareto replay`: past decisions made again under another policy, price book or split, and what would
//! have changed. Scores and what rules look at come from the ledger; no prompt is read.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use comfy_table::{CellAlignment, Table};
use indicatif::{ProgressBar, ProgressStyle};
use meter::books::Balance;
use meter::{Held, NanoUsd, Routing};
use router::learn::Head;
use router::switch::Stakes;
use router::{Asked, Caller, Features, Outlook, Quote, Score, Split, Step, Wanted};
use serde::Serialize;
use wire::{RequestId, Shape, Tier};

use super::report::{Meant, percent};
use super::{load, plain, quiet, say};
use crate::assemble;
use crate::config::Config;
use crate::runtime::Runtime;

#[derive(Debug, Args)]
pub(super) struct Replay {
    #[command(flatten)]
    meant: Meant,
    /// A configuration whose policy, models and routing are tried; that in force if absent.
    #[arg(long)]
    policy: Option<PathBuf>,
    /// A price book that is tried.
    #[arg(long)]
    prices: Option<PathBuf>,
    /// A share of deep calls that is tried, in thousandths, for all classes.
    #[arg(long)]
    deep_per_thousand: Option<u16>,
}

/// Calls that went from one model to another under the policy that is tried.
#[derive(Debug, Clone, Default, Serialize)]
struct Moved {
    calls: u64,
    before: NanoUsd,
    after: NanoUsd,
}

/// What came out.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    calls: u64,
    /// Calls from before decisions were kept, which are left out.
    unknown: u64,
    deep_before: u64,
    deep_after: u64,
    refused: BTreeMap<String, u64>,
    /// The calls that are meant by it: none of their attempts would be made.
    #[serde(skip)]
    not_made: HashSet<RequestId>,
    unpriced: u64,
    before: NanoUsd,
    after: NanoUsd,
    /// Sums of the scores of calls that went deep, in millionths: how much need for deep was met.
    met_before: u64,
    met_after: u64,
    need: u64,
    moved: BTreeMap<String, Moved>,
}

impl Replay {
    pub(super) fn run(self) -> anyhow::Result<()> {
        quiet();
        let config = load(&self.meant.file.config)?;
        let tried = self.tried(&config)?;
        let runtime = Runtime::build(&tried, None).context("the configuration that is tried")?;
        let desk = assemble::desk(&config)?;
        let span = self.meant.span()?;
        let bar = ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
            "{spinner} {pos} calls, {per_sec}",
        )?);
        let (mut outcome, mut splits) = (Outcome::default(), Splits::default());
        desk.each_balance(&span, |balance| {
            bar.inc(1);
            outcome.take(balance, &runtime, &mut splits);
        })?;
        bar.finish_and_clear();
        if self.meant.json {
            return say(&serde_json::to_string_pretty(&outcome)?);
        }
        say(&totals(&outcome))?;
        if !outcome.moved.is_empty() {
            say(&moves(&outcome))?;
        }
        for (why, calls) in &outcome.refused {
            say(&format!("{calls} calls would be refused: {why}"))?;
        }
        Ok(())
    }

    /// The configuration that is tried.
    fn tried(&self, config: &Config) -> anyhow::Result<Config> {
        let mut tried = match &self.policy {
            Some(path) => load(path)?,
            None => config.clone(),
        };
        if let Some(book) = &self.prices {
            anyhow::ensure!(book.exists(), "no price book {}", book.display());
            tried.meter.price_book = Some(book.clone());
        }
        if let Some(share) = self.deep_per_thousand {
            anyhow::ensure!(share <= 1_000, "--deep-per-thousand is 0 to 1000");
            tried.routing.deep_per_thousand = share;
            for class in &mut tried.routing.classes {
                class.deep_per_thousand = share;
            }
        }
        // Nothing is drawn by lot in a rehearsal.
        tried.routing.control_per_thousand = 0;
        Ok(tried)
    }
}

/// The splits of the rehearsal, by tenant and class.
type Splits = BTreeMap<(Arc<str>, Arc<str>), Split>;

impl Outcome {
    /// Decides one call again. Later attempts follow their first.
    fn take(&mut self, balance: &Balance, runtime: &Runtime, splits: &mut Splits) {
        let held = &balance.entry.held;
        self.before += balance.now.cost;
        let Some(routing) = held.routing.as_deref() else {
            self.unknown += 1;
            self.after += balance.now.cost;
            return;
        };
        if held.attempt > 0 {
            if !self.not_made.contains(&held.request) {
                self.after += balance.now.cost;
            }
            return;
        }
        self.calls += 1;
        let score = u64::from(routing.score_ppm.unwrap_or(0));
        self.need += score;
        if held.tier == Tier::Deep {
            self.deep_before += 1;
            self.met_before += score;
        }
        let place = match decided(held, routing, runtime, splits) {
            Ok(place) => place,
            Err(why) => {
                *self.refused.entry(why).or_default() += 1;
                self.not_made.insert(held.request);
                return;
            }
        };
        let Some(target) = runtime.targets.get(place) else {
            return;
        };
        if target.tier == Tier::Deep {
            self.deep_after += 1;
            self.met_after += score;
        }
        let rates = runtime.rates(target, &held.lane, held.held_at_ms);
        let rated = rates.map(|it| it.rate(&balance.entry.usage, balance.entry.settled_at_ms));
        let cost = rated.map_or_else(
            || {
                self.unpriced += 1;
                NanoUsd::ZERO
            },
            |rated| rated.cost,
        );
        self.after += cost;
        if target.name != held.model || cost != balance.now.cost {
            let way = format!("{} -> {}", held.model, target.name);
            let moved = self.moved.entry(way).or_default();
            moved.calls += 1;
            moved.before += balance.now.cost;
            moved.after += cost;
        }
    }
}

/// The place of the model that a call goes to under `runtime`.
fn decided(
    held: &Held,
    routing: &Routing,
    runtime: &Runtime,
    splits: &mut Splits,
) -> Result<usize, String> {
    let subject = &held.subject;
    let step = Step::ALL
        .into_iter()
        .find(|it| it.as_str() == &*routing.step);
    let header = |name: &str| {
        let found = routing.headers.iter().find(|(known, _)| **known == *name);
        found.map(|(_, value)| &**value)
    };
    let caller = Caller {
        label: &routing.label,
        step: step.unwrap_or_default(),
        asked: &held.requested,
        ..crate::routing::caller(subject, &header)
    };
    let ruling = runtime.policy.rules().judge(&caller);
    let ruling = ruling.map_err(|error| error.to_string())?;
    let class = ruling.class.clone();
    let class = class.unwrap_or_else(|| Arc::clone(&runtime.default_class));
    let stays = matches!(&*held.reason, "session" | "cache");
    let same = |it: &std::sync::Arc<crate::runtime::Target>| it.name == held.model;
    let dialect = wire::dialect::named(&held.dialect);
    let asked = Asked {
        wanted: Wanted::parse(&held.requested),
        dialect: &held.dialect,
        converses: dialect.is_none_or(wire::Dialect::converses),
        stay: runtime.targets.iter().position(same).filter(|_| stays),
        seat: None,
        step: caller.step,
        score: Some(Score(score(routing))),
        seen: None,
        head: &Head::default(),
        ruling: &ruling,
        prompt_tokens: routing.prompt_tokens,
        luck: 0,
        band: None,
        debt: 0,
    };
    let shape = needing(routing);
    let features = Features {
        text: "",
        shape: &shape,
    };
    let outlook = Outlook {
        usable: &|_| true,
        quote: &|_| Quote::default(),
        stakes: &|_, _| Stakes::default(),
    };
    let target = runtime.routing.target(&class);
    let split = splits
        .entry((Arc::clone(&subject.tenant), class))
        .or_insert_with(|| Split::new(target));
    let config = &runtime.routing;
    let route = router::decide(&features, &asked, &runtime.policy, config, &outlook, split);
    let route = route.map_err(|error| error.to_string())?;
    route
        .order
        .iter()
        .next()
        .ok_or_else(|| "no model".to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "a score has six digits")]
fn score(routing: &Routing) -> f32 {
    routing.score_ppm.unwrap_or(0) as f32 / 1e6
}

/// A shape with the same needs.
fn needing(routing: &Routing) -> Shape {
    let bits = u8::try_from(routing.needs).unwrap_or(0);
    router::Needs::from_bits(bits).shape()
}

fn totals(outcome: &Outcome) -> String {
    let mut table = Table::new();
    table.set_header(["", "was", "would be", "change"]);
    let int = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let share = |part: u64, whole: u64| percent(int(part), int(whole));
    table.add_row([
        "calls",
        &outcome.calls.to_string(),
        &(outcome.calls - outcome.refused.values().sum::<u64>()).to_string(),
        "",
    ]);
    table.add_row([
        "deep %".to_owned(),
        share(outcome.deep_before, outcome.calls),
        share(outcome.deep_after, outcome.calls),
        String::new(),
    ]);
    table.add_row([
        "need for deep that is met %, by the scores".to_owned(),
        share(outcome.met_before, outcome.need),
        share(outcome.met_after, outcome.need),
        String::new(),
    ]);
    table.add_row([
        "cost USD".to_owned(),
        outcome.before.to_usd(),
        outcome.after.to_usd(),
        (outcome.after - outcome.before).to_usd(),
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut lines = vec![plain::table(&mut table)];
    if outcome.unpriced > 0 {
        lines.push(format!("{} calls would have no price", outcome.unpriced));
    }
    if outcome.unknown > 0 {
        let unknown = outcome.unknown;
        lines.push(format!(
            "{unknown} attempts from before decisions were kept stay as they were"
        ));
    }
    lines.join("\n")
}

fn moves(outcome: &Outcome) -> String {
    let mut table = Table::new();
    table.set_header([
        "from -> to",
        "calls",
        "was USD",
        "would be USD",
        "change USD",
    ]);
    for (way, moved) in &outcome.moved {
        table.add_row([
            way.clone(),
            moved.calls.to_string(),
            moved.before.to_usd(),
            moved.after.to_usd(),
            (moved.after - moved.before).to_usd(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    plain::table(&mut table)
}
