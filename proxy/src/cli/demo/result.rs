//! What the demo shows at its end: split, quality, money and latency, read from the answers, the
//! ledger and the endpoints' own bills.

use std::fmt;

use anyhow::ensure;
use bench::conversation::Prompt;
use bench::replay::Sample;
use bench::upstream::Upstream;
use comfy_table::{CellAlignment, Table};
use meter::NanoUsd;
use meter::ledger::{Dimension, UsageQuery};
use meter::money::{PicoPerUnit, PicoSum};

use super::{TENANTS, tenant_of};
use crate::boot::Running;

/// The tier that answered, or nothing.
pub(super) fn tier(sample: &Sample) -> &str {
    sample
        .headers
        .get("x-pareto-tier")
        .map_or("", String::as_str)
}

/// One line of the table.
#[derive(Debug, Default)]
struct Line {
    served: usize,
    deep: usize,
    denied: usize,
    other: usize,
    /// Sums over the served calls of the label of the tier that answered, and of each tier.
    quality: f64,
    weak: f64,
    strong: f64,
    cost: NanoUsd,
    baseline: NanoUsd,
}

/// Everything the demo found.
#[derive(Debug)]
pub(super) struct Outcome {
    lines: Vec<(&'static str, Line)>,
    /// The gateway's own share of each call, in microseconds, sorted.
    added_us: Vec<u64>,
    /// Furthest that the deep share of any 1,000 calls in a row was from 20 %, in calls.
    furthest: Option<usize>,
    billed: NanoUsd,
    ledger: NanoUsd,
    billed_calls: usize,
    ledger_calls: u64,
    held_back: usize,
}

impl Outcome {
    pub(super) fn read(
        running: &Running,
        upstreams: &[Upstream],
        prompts: &[Prompt],
        mut samples: Vec<Sample>,
    ) -> anyhow::Result<Self> {
        // Request ids sort by time: this is the order in which calls were decided.
        samples.sort_by_cached_key(|sample| sample.headers.get("x-request-id").cloned());
        let mut lines: Vec<(&'static str, Line)> = TENANTS
            .iter()
            .map(|(tenant, _)| (*tenant, Line::default()))
            .collect();
        for sample in &samples {
            if let Some((_, line)) = lines.get_mut(tenant_of(sample.tag)) {
                line.add(sample, prompts.get(sample.tag % prompts.len().max(1)));
            }
        }
        let by = vec![Dimension::Tenant];
        let rows = running.parts.shared.ledger.usage(&UsageQuery {
            by,
            ..UsageQuery::default()
        })?;
        for row in &rows {
            let name = row.group.first().map_or("", String::as_str);
            if let Some((_, line)) = lines.iter_mut().find(|(tenant, _)| *tenant == name) {
                (line.cost, line.baseline) = (row.cost, row.baseline);
            }
        }
        let bill: Vec<_> = upstreams.iter().flat_map(Upstream::bill).collect();
        let mut added_us: Vec<u64> = samples.iter().filter_map(added).collect();
        added_us.sort_unstable();
        Ok(Self {
            lines,
            added_us,
            furthest: furthest(&samples),
            billed: bill.iter().map(|billed| nano(billed.cost_pico)).sum(),
            ledger: rows.iter().map(|row| row.cost).sum(),
            billed_calls: bill.len(),
            ledger_calls: rows.iter().map(|row| row.calls).sum(),
            held_back: samples.iter().filter(|sample| sample.held_back).count(),
        })
    }

    /// Whether everything that the demo is to show holds.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        let billed = u64::try_from(self.billed_calls).unwrap_or(0);
        ensure!(
            self.ledger == self.billed,
            "the ledger differs from the endpoints' own bills"
        );
        ensure!(
            self.ledger_calls == billed,
            "calls are missing in the ledger, or too many"
        );
        ensure!(
            self.furthest.is_none_or(|off| off <= 10),
            "the split strayed by over 1 point"
        );
        ensure!(
            self.lines.iter().all(|(_, line)| line.other == 0),
            "some calls failed"
        );
        Ok(())
    }

    fn added(&self, per_cent: usize) -> u64 {
        let place = self.added_us.len().saturating_sub(1) * per_cent / 100;
        self.added_us.get(place).copied().unwrap_or(0)
    }
}

impl Line {
    fn add(&mut self, sample: &Sample, prompt: Option<&Prompt>) {
        match (sample.status, sample.broken) {
            (200, false) => {}
            (429, _) => {
                self.denied += 1;
                return;
            }
            _ => {
                self.other += 1;
                return;
            }
        }
        let Some(prompt) = prompt else { return };
        let deep = tier(sample) == "deep";
        self.served += 1;
        self.deep += usize::from(deep);
        self.quality += if deep { prompt.strong } else { prompt.weak };
        self.weak += prompt.weak;
        self.strong += prompt.strong;
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let served = count(self.served.max(1));
        let share = count(self.deep) / served * 100.0;
        let gap = self.strong - self.weak;
        let recovered = if gap > 0.0 {
            (self.quality - self.weak) / gap * 100.0
        } else {
            0.0
        };
        let saving = self.baseline - self.cost;
        let part = (saving.0 * 100).checked_div(self.baseline.0).unwrap_or(0);
        vec![
            name.to_owned(),
            self.served.to_string(),
            format!("{share:.1} %"),
            format!("{:.3}", self.quality / served),
            format!("{:.3} to {:.3}", self.weak / served, self.strong / served),
            format!("{recovered:.0} %"),
            usd(self.cost),
            usd(self.baseline),
            format!("{} ({part} %)", usd(saving)),
            self.denied.to_string(),
        ]
    }

    fn plus(mut self, other: &Self) -> Self {
        self.served += other.served;
        self.deep += other.deep;
        self.denied += other.denied;
        self.quality += other.quality;
        self.weak += other.weak;
        self.strong += other.strong;
        self.cost += other.cost;
        self.baseline += other.baseline;
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.set_header([
            "tenant",
            "calls",
            "deep",
            "quality",
            "all fast to all deep",
            "gap closed",
            "cost, USD",
            "all deep, USD",
            "saved, USD",
            "denied",
        ]);
        for (name, line) in &self.lines {
            table.add_row(line.cells(name));
        }
        let all = self
            .lines
            .iter()
            .fold(Line::default(), |sum, (_, line)| sum.plus(line));
        table.add_row(all.cells("all"));
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        writeln!(f, "{table}")?;
        writeln!(
            f,
            "quality: mean score of the tier that answered, from the labels of the prompts, none of"
        )?;
        writeln!(
            f,
            "which the router was trained on; 20 % sent deep at random would close 20 % of the gap"
        )?;
        if let Some(off) = self.furthest {
            writeln!(
                f,
                "split: in any 1,000 calls in a row the deep share is within {}.{} points of 20 %",
                off / 10,
                off % 10
            )?;
        }
        writeln!(
            f,
            "added by the gateway up to the first byte: p50 {} us, p99 {} us",
            self.added(50),
            self.added(99)
        )?;
        if self.held_back > 0 {
            writeln!(
                f,
                "{} calls started late: the load was limited",
                self.held_back
            )?;
        }
        write!(
            f,
            "money: the endpoints' own bills say {} USD for {} calls, the ledger says {} for {}",
            self.billed, self.billed_calls, self.ledger, self.ledger_calls
        )
    }
}

/// What the gateway added to a served call, in microseconds, from its `Server-Timing`.
fn added(sample: &Sample) -> Option<u64> {
    let timing = sample.headers.get("server-timing")?;
    let (_, own) = timing.split_once("pareto;dur=")?;
    let (whole, part) = own.split_once('.')?;
    let part: u64 = format!("{part:0<3}").get(..3)?.parse().ok()?;
    Some(whole.parse::<u64>().ok()? * 1_000 + part)
}

/// The largest distance, in calls, of the deep calls among 1,000 served in a row from 200.
fn furthest(samples: &[Sample]) -> Option<usize> {
    let deep: Vec<usize> = samples
        .iter()
        .filter(|sample| sample.status == 200)
        .map(|sample| usize::from(tier(sample) == "deep"))
        .collect();
    deep.windows(1_000)
        .map(|window| window.iter().sum::<usize>().abs_diff(200))
        .max()
}

/// A bill in pico-USD, rounded as the meter rounds a charge.
fn nano(pico: u64) -> NanoUsd {
    let mut sum = PicoSum::default();
    sum.add(pico, PicoPerUnit(1));
    sum.round()
}

fn usd(amount: NanoUsd) -> String {
    let text = amount.to_usd();
    text.get(..text.len().saturating_sub(5))
        .unwrap_or_default()
        .to_owned()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "some thousand calls, for people to read"
)]
fn count(calls: usize) -> f64 {
    calls as f64
}
